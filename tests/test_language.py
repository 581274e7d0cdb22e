"""The language of the source: one meaning for each class name, and descriptions that are sentences."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import groundglass

ROOT = Path(groundglass.__file__).parent
HEADLESS = re.compile(r"(Of|That|Whose|Which|How many)\b")
FIELD = re.compile(r"^\s+(\*{0,2}\w+): (Of|That|Whose|Which|How many)\b", re.MULTILINE)


def definitions() -> Iterator[tuple[Path, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """The plain strings of a file and their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_no_two_public_classes_share_a_name() -> None:
    definitions_of = defaultdict(list)
    for path, node in definitions():
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            definitions_of[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(definitions_of) > 100
    assert {name: found for name, found in definitions_of.items() if len(found) > 1} == {}


def test_no_description_begins_without_a_subject() -> None:
    found = []
    for path, node in definitions():
        text = ast.get_docstring(node) or ""
        if HEADLESS.match(text):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno} {text.splitlines()[0]}")
        found += [f"{path.relative_to(ROOT)}:{node.lineno} {match[0].strip()}" for match in FIELD.finditer(text)]
    assert found == []


def test_no_help_text_begins_without_a_subject() -> None:
    found = []
    for path in sorted((ROOT / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "help" and isinstance(node.value, ast.Constant):
                text = str(node.value.value)
                if HEADLESS.match(text) or not re.search(r"[.\]]$", text):
                    found.append(f"{path.name}:{node.value.lineno} {text}")
    assert found == []
