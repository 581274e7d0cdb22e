"""What the package states of itself: its version, its lowest dependencies, its licences."""

import re
import tomllib
from pathlib import Path

import groundglass
from groundglass.inference.model_card import bundled_model

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_stands_in_pyproject_and_is_that_of_the_changelog() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    latest = re.search(r"^## (\S+)", changes, re.MULTILINE)
    assert latest is not None
    assert latest[1] == PROJECT["version"] == groundglass.__version__
    assert "version:" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8").replace("cff-version:", "")


def test_the_constraints_are_the_lowest_versions_that_are_allowed() -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["serve"], *extras["batch"]]
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()[1:]
    constraints = dict(re.split("~=|==", line, maxsplit=1) for line in lines)
    assert set(constraints) == {re.split(">=", each)[0] for each in wanted}
    for each in wanted:
        name, lowest = each.split(">=")
        assert constraints[name].startswith(f"{lowest}."), f"constraints-lowest.txt: {name}"


def test_weights_and_font_have_licences_of_their_own_beside_them() -> None:
    licence = "src/groundglass/models/LICENSE.txt"
    assert PROJECT["license"] == "Apache-2.0 AND CC-BY-NC-4.0 AND Bitstream-Vera"
    assert PROJECT["license-files"] == ["LICENSE", licence, "src/groundglass/font/LICENSE_DEJAVU.txt"]
    text = (ROOT / licence).read_text(encoding="utf-8")
    assert all(name in text for name in ("CC BY-NC 4.0", bundled_model().stem, "groundglass-lungs"))
    assert (Path(groundglass.__file__).parent / "models" / "LICENSE.txt").is_file()
