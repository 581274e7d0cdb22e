"""The committed page: built from its sources, complete, and independent of other servers."""

import json
import re
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
    """Path of npm, where the page's packages are installed: no test uses the network."""
    path = shutil.which("npm")
    if path is None:
        pytest.skip("npm is not installed")
    if not (SOURCES / "node_modules").is_dir():
        pytest.skip("the page's packages are not installed: run `npm ci` in page/")
    return path


@pytest.mark.slow
def test_the_committed_page_is_the_build_of_its_sources(npm: str, tmp_path: Path) -> None:
    copy = tmp_path / "page"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(SOURCES / "node_modules")
    result = tmp_path / "src" / "groundglass" / "apps" / "service" / "page"
    done = subprocess.run([npm, "run", "build"], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert files(result) == files(BUILT), "the page has changed: run `npm run build` in page/ and commit it"


@pytest.mark.slow
def test_the_unit_tests_of_the_page_pass(npm: str) -> None:
    done = subprocess.run([npm, "test"], cwd=SOURCES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Tags(HTMLParser):
    """The addresses that a page loads, and the parts that a strict Content-Security-Policy forbids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.forbidden: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.loaded += [value for name in ("src", "href") if (value := attributes.get(name)) and tag != "a"]
        self.forbidden += [name for name in attributes if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in attributes):
            self.forbidden.append(tag)


def test_the_page_loads_its_own_files_only() -> None:
    page = Tags((BUILT / "index.html").read_text())
    assert page.forbidden == []
    assert len(page.loaded) == 3
    for address in page.loaded:
        assert address.startswith("./assets/")
        assert (BUILT / address).is_file()
    assert not [name for name in files(BUILT) if name.endswith(".map")]


def test_the_packages_are_pinned_and_none_of_them_is_in_the_page() -> None:
    package = json.loads((SOURCES / "package.json").read_text())
    assert "dependencies" not in package  # whose licences would have to lie beside the page
    for version in package["devDependencies"].values():
        assert version[0].isdigit()
    assert '"resolved"' not in (SOURCES / "package-lock.json").read_text()
    imported = {
        name for path in (SOURCES / "src").glob("*.ts") for name in re.findall(r'from "([^"]+)"', path.read_text())
    }
    assert [name for name in imported if not name.startswith("./")] == []


def test_page_and_reports_have_one_icon() -> None:
    [icon] = (BUILT / "assets").glob("icon-*.svg")
    template = resources.files("groundglass.report") / "templates" / "icon.svg"
    assert icon.read_text().strip() == template.read_text(encoding="utf-8").strip()
