"""The public API: its examples, and its functions with what users give them."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import groundglass
from groundglass.apps.batch.records import ItemStatus
from groundglass.inference.model_card import BUNDLED, bundled_model
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.scan.phantom import Phantom

SOURCES = Path(groundglass.__file__).parent


def modules_with_examples() -> list[str]:
    """The modules whose docstrings hold examples."""
    files = (path for path in SOURCES.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))
    names = (path.relative_to(SOURCES.parent).with_suffix("").as_posix().replace("/", ".") for path in files)
    return sorted(name.removesuffix(".__init__") for name in names)


def test_there_are_examples() -> None:
    assert {"groundglass", "groundglass.io.in_memory"} <= set(modules_with_examples())


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_give_what_they_show(name: str) -> None:
    module = import_module(name)
    public = {each: getattr(groundglass, each) for each in groundglass.__all__} if name == "groundglass" else {}
    result = doctest.testmod(module, extraglobs=public)
    assert result.attempted
    assert result.failed == 0


def test_every_public_name_is_described() -> None:
    assert [name for name in groundglass.__all__ if not getattr(groundglass, name).__doc__] == []


def test_old_names_are_gone() -> None:
    for name in ("analyse", "save", "Mask"):
        with pytest.raises(AttributeError):
            getattr(groundglass, name)


def test_a_model_may_be_named_in_text() -> None:
    assert groundglass.open_model(str(bundled_model())).card.name == BUNDLED


def test_follow_takes_text(phantom: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    nifti.write_scan(phantom.scan, tmp_path / "ct.nii.gz")
    seen: list[tuple[int, int]] = []
    name = str(tmp_path / "ct.nii.gz")
    result = groundglass.follow(
        [name, name], str(tmp_path / "out"), grey_band, progress=lambda *done: seen.append(done)
    )
    assert result.changes[0].lesion_volume_ml == 0
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.slow
def test_batch_returns_how_each_scan_ended(phantom: Phantom, tmp_path: Path) -> None:
    scans, seen = tmp_path / "scans", []
    scans.mkdir()
    nifti.write_scan(phantom.scan, scans / "a.nii.gz")
    (scans / "b.nii.gz").write_bytes((scans / "a.nii.gz").read_bytes()[:5000])
    records = groundglass.batch(str(scans), str(tmp_path / "out"), progress=lambda *done: seen.append(done))
    assert {record.status for record in records} == {ItemStatus.DONE, ItemStatus.FAILED}
    (numbers,) = (record.numbers for record in records if record.numbers)
    assert (numbers.lesion_ml or 0) > 0
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert (tmp_path / "out" / "summary.csv").is_file()
