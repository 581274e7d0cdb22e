"""The documentation names only links, files, modules, keys, commands and options that exist."""

import ast
import inspect
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

import groundglass
from groundglass.apps.batch.summary import summary_columns
from groundglass.apps.follow import CHANGE_COLUMNS, VISIT_COLUMNS
from groundglass.cli import app

ROOT = Path(__file__).parents[1]
PACKAGE = Path(groundglass.__file__).parent
PAGES = [
    *(ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", ROOT / "page" / "README.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
]
CHANGELOG = ROOT / "CHANGELOG.md"
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
sys.path[:0] = [str(ROOT / "docs" / "hooks"), str(ROOT / "bench")]
GENERATED = {ROOT / "docs" / name for name in import_module("reference").PAGES}  # pages that `make docs` makes
TORCHRUN = {"--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint", "--no-python"}
TORCHRUN |= {"--node-rank", "--master-addr", "--master-port"}
SLURM = {"--array", "--cpus-per-task", "--mem", "--time", "--gres", "--requeue"}
OTHERS = {"--rm", "--network", "--user", "--data-binary", "--build", "--strict"}  # of docker and curl
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# A path from the root of the repository. It may hold `*`; it ends before a full stop.
FILE = re.compile(r"(?<![\w/.>-])(?:src|tests|configs|bench|docs|page)/[\w./*-]*[\w*/]")
MODULE = re.compile(r"`([a-z_]+(?:/[a-z_0-9]+)*\.(?:py|toml))`")
CREATED = re.compile(r"> *(\S+)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code_lines(page: Path) -> Iterator[str]:
    """The lines of code of a page, in blocks and in the text; a line that ends with `\\` is joined with the next."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = FENCE.findall(text)
    prose = FENCE.sub("", text)
    blocks += re.findall(r"^ {4}.*$", prose, re.MULTILINE) + re.findall(r"`([^`]+)`", prose)
    for block in blocks:
        yield from block.splitlines()


def calls(line: str, program: str) -> Iterator[list[str]]:
    """The words behind `program` for each call of it in a line of code; options stand as they are."""
    for part in re.split(r"&&|[|;](?= )|[()]", line):
        is_whole = all(part.count(quote) % 2 == 0 for quote in "'\"")
        words = shlex.split(part, comments=True) if is_whole else part.split()
        for place, word in enumerate(words):
            if Path(word).name == program and not word.startswith("-"):
                yield words[place + 1 :]
                break


@cache
def command_options() -> dict[str, set[str]]:
    """{command: its options} of the command line."""
    group = typer.main.get_command(app)
    commands = getattr(group, "commands", {})
    return {
        name: {"-h", "--help", *(option for parameter in command.params for option in parameter.opts)}
        for name, command in commands.items()
    }


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists() or target in GENERATED, f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


@each_page
def test_every_path_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    created = set(CREATED.findall(text))
    for name in set(FILE.findall(text)) - created:
        bases = (ROOT, page.parent)
        assert any(list(base.glob(name.rstrip("/"))) for base in bases), f"{page.name} names {name}"
    for name in set(MODULE.findall(text)):
        folders = (ROOT, PACKAGE, ROOT / "configs", page.parent)
        assert any((folder / name).is_file() for folder in folders), f"{page.name} names {name}"


@each_page
def test_every_command_and_option_that_is_named_exists(page: Path) -> None:
    known = command_options()
    for line in code_lines(page):
        for command, *words in filter(None, calls(line, "groundglass")):
            if command == "--help":
                continue
            assert command in known, f"{page.name}: groundglass {command}"
            options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            assert options <= known[command], f"{page.name}: {line}"


@each_page
def test_every_option_that_is_named_exists(page: Path) -> None:
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bench").glob("*.py"))
    known = TORCHRUN.union(SLURM, OTHERS, re.findall(r'"(--[a-z-]+)"', scripts), *command_options().values())
    named = re.findall(r"(?<=[`( ])--[a-z][a-z0-9-]*", page.read_text(encoding="utf-8"))
    assert set(named) <= known


@each_page
def test_every_subcommand_of_a_script_that_is_named_exists(page: Path) -> None:
    for script, command in re.findall(r"(bench/\w+\.py) ([a-z]+)\b", page.read_text(encoding="utf-8")):
        source = (ROOT / script).read_text(encoding="utf-8")
        if "choices=" in source or "add_parser" in source:
            assert re.search(rf'"{command}"|def {command}\(', source), f"{page.name} names {script} {command}"


@each_page
def test_every_configuration_key_that_is_named_exists(page: Path) -> None:
    files = [tomllib.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "configs").glob("*.toml")]
    keys = {
        (section, key) for file in files for section, value in file.items() if isinstance(value, dict) for key in value
    }
    text = page.read_text(encoding="utf-8")
    sections = "field|network|loss|sampling|augment|teachers|training"
    dotted = re.findall(rf"`({sections})\.((?!py|md)\w+)`", text)
    assert set(dotted) <= keys | {("teachers", "weight")}
    replaced = re.findall(r"s/\^?([a-z_0-9]+)(?: = )?\.\*/", text)  # by sed
    assert set(replaced) <= {key for _, key in keys} | {"name"}


@pytest.mark.parametrize("name", ["tutorials/training", "how-to/fine-tune"])
def test_the_steps_for_data_of_ones_own_name_splits_that_are_written_for_them(name: str) -> None:
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    named = set(re.findall(r"splits/([\w-]+)\.json", text))
    assert named <= {"A-slice", *(f"B-patient-fold-{fold}" for fold in range(1, 6))}
    assert "B-patient-fold-1" in named


def python_blocks(page: Path) -> list[str]:
    """The blocks of Python of a page, or the cells of a notebook."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return PYTHON.findall(text)
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: str(page.relative_to(ROOT)))
def test_python_code_calls_only_what_the_public_api_has(page: Path) -> None:
    for block in python_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "groundglass":
                assert node.attr in groundglass.__all__, f"{page.name}: groundglass.{node.attr}"
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("groundglass."):
                signature = inspect.signature(getattr(groundglass, ast.unparse(node.func).split(".")[1]))
                keywords = {each.arg: None for each in node.keywords if each.arg}
                signature.bind(*[None] * len(node.args), **keywords)


def test_the_site_loads_its_search_from_its_own_folder() -> None:
    hooks = import_module("pages")
    script = f'<script src="{hooks.REMOTE_WORKER}"></script>'
    for uri, up in (("index.md", ""), ("how-to/python.md", "../")):
        page = SimpleNamespace(file=SimpleNamespace(src_uri=uri))
        assert hooks.on_post_page(script, page) == f'<script src="{up}{hooks.LOCAL_WORKER}"></script>'
    assert (ROOT / "docs" / hooks.LOCAL_WORKER).is_file()


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = {ROOT / "docs" / name for name in re.findall(r": ([\w/-]+\.(?:md|ipynb))$", text, re.MULTILINE)}
    pages = {page for page in (*PAGES, *NOTEBOOKS) if page.is_relative_to(ROOT / "docs")}
    copies = {ROOT / "docs" / f"{name}.md" for name in ("changelog", "contributing", "security")}
    assert named == pages | copies | {page for page in GENERATED if page.suffix == ".md"}


@pytest.mark.parametrize(
    ("page", "column"),
    [("findings", 3), ("columns", 2), ("configuration", 2), ("commands", 1)],
    ids=lambda value: value,
)
def test_every_generated_page_describes_each_field(page: str, column: int) -> None:
    lines = import_module("reference").PAGES[f"reference/{page}.md"]().replace("\\|", "/").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert len(rows) > 10
    assert [row[0] for row in rows if not row[column]] == []


@pytest.mark.parametrize(
    ("file", "columns"),
    [
        ("summary.csv of batch", summary_columns()),
        ("follow.csv of follow", [*VISIT_COLUMNS, *CHANGE_COLUMNS]),
        (
            "robustness.csv of robustness",
            (ROOT / "bench/results/robustness.csv").read_text().splitlines()[0].split(","),
        ),
    ],
)
def test_the_page_of_columns_names_those_that_are_written(file: str, columns: list[str]) -> None:
    page = import_module("reference").PAGES["reference/columns.md"]()
    section = page.partition(f"## {file}\n")[2].partition("\n## ")[0]
    cells = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
    assert re.findall(r"`([^`]+)`", cells) == columns


def test_the_pages_make_a_token_that_only_its_owner_can_read() -> None:
    modes = [mode for page in PAGES for mode in re.findall(r"chmod (\d+) token", page.read_text(encoding="utf-8"))]
    assert modes
    assert set(modes) == {"600"}


def test_the_page_on_follow_up_states_the_variation_of_the_bundled_model() -> None:
    card = json.loads((PACKAGE / "models" / "groundglass-ct.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "how-to" / "follow-up.md").read_text(encoding="utf-8")
    assert f"{100 * card['repeatability']:.1f} % for the bundled one" in page


def test_the_page_of_problems_explains_the_exit_codes_of_the_reference() -> None:
    pages = (
        import_module("reference").PAGES["reference/exit-codes.md"](),
        (ROOT / "docs/problems.md").read_text("utf-8"),
    )
    codes = [re.findall(r"^\| (\d) \|", page, re.MULTILINE) for page in pages]
    assert codes[0] == codes[1] == ["0", "1", "2", "3", "4"]


def test_the_tables_of_results_are_those_that_the_files_in_bench_give() -> None:
    generator, shown = import_module("result_tables"), []
    for page in generator.PAGES:
        text = page.read_text(encoding="utf-8")
        assert generator.with_tables(text) == text, f"{page.name}: run `make tables`"
        shown += [found[2] for found in generator.MARKED.finditer(text)]
    assert sorted(shown) == sorted(generator.TABLES)
    for name, rows in generator.TABLES.items():
        (columns,) = {len(row) for row in rows()}
        assert columns > 1, f"{name}: a table has a head and columns"


def test_the_architecture_page_lists_every_module() -> None:
    tree = FENCE.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))[-1]
    listed, folders = set(), [""]
    for line in tree.splitlines()[1:]:  # four spaces for each level
        depth, name = (len(line) - len(line.lstrip())) // 4, line.split()[0]
        folders[depth:] = [folders[depth - 1] + name]
        if name.endswith(".py"):
            listed.add(folders[depth])
        else:
            assert (PACKAGE / folders[depth]).is_dir(), f"{folders[depth]} is no folder"
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE}
    modules = {path for path in modules if not path.endswith("__init__.py")}
    modules |= {path.name for path in PACKAGE.glob("*.py")}
    assert listed == modules


def test_the_glossary_is_in_alphabetical_order() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    terms = [row.replace("`", "").lower() for row in rows[1:]]
    assert len(terms) > 40
    assert terms == sorted(terms)
