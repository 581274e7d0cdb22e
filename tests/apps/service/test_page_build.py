"""The page as it is committed: built from its sources, needing nothing from elsewhere."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[3] / "page"
BUILT = Path(str(resources.files("groundglass.apps.service"))) / "page"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def npm() -> str:
    """npm, in a checkout whose packages are installed: no test reaches the network."""
    found = shutil.which("npm")
    if found is None:
        pytest.skip("npm is not installed")
    if not (SOURCES / "node_modules").is_dir():
        pytest.skip("the page's packages are not installed: run `npm ci` in page/")
    return found


@pytest.mark.slow
def test_what_is_committed_is_what_the_sources_give(npm: str, tmp_path: Path) -> None:
    copy = tmp_path / "page"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(SOURCES / "node_modules")
    result = tmp_path / "src" / "groundglass" / "service" / "page"
    done = subprocess.run([npm, "run", "build"], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert files(result) == files(BUILT), "the page has changed: run `npm run build` in page/ and commit it"


@pytest.mark.slow
def test_the_logic_of_the_page_holds(npm: str) -> None:
    done = subprocess.run([npm, "test"], cwd=SOURCES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Tags(HTMLParser):
    """What a page would fetch, and what a strict Content-Security-Policy would forbid."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.forbidden: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.fetched += [value for name in ("src", "href") if (value := given.get(name)) and tag != "a"]
        self.forbidden += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.forbidden.append(tag)


def test_it_fetches_its_own_files_alone() -> None:
    page = Tags((BUILT / "index.html").read_text())
    assert page.forbidden == []
    assert len(page.fetched) == 3
    for address in page.fetched:
        assert address.startswith("./assets/")
        assert (BUILT / address).is_file()
    assert not [name for name in files(BUILT) if name.endswith(".map")]


def test_what_is_inside_is_pinned_and_its_licences_are_there() -> None:
    package = json.loads((SOURCES / "package.json").read_text())
    for version in (package["dependencies"] | package["devDependencies"]).values():
        assert version[0].isdigit()
    lock = (SOURCES / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    licences = (BUILT / "LICENSES.txt").read_text()
    for name, given in json.loads(lock)["packages"].items():
        if name and not given.get("dev") and not given.get("optional"):
            assert f"\n{name.rpartition('node_modules/')[2]} {given['version']}, {given['license']}\n" in licences
    assert "Niivue" in licences
