"""The house's arrows: a floor imports only from lower floors, rooms of one floor do not import each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import groundglass

ROOT = Path(groundglass.__file__).parent
FLOORS = {
    "errors": 0,
    "scores": 1,
    "whole_file": 1,
    "folder_lock": 1,
    "worker": 1,
    "scan": 2,
    "network": 2,
    "losses": 2,
    "data": 3,
    "inference": 3,
    "report": 3,
    "training": 4,
    "config": 5,
    "analysis": 4,
    "evaluation": 5,
    "lineage": 6,
    "experiment": 7,
    "export": 8,
    "quantize": 8,
    "leak": 9,
    "study": 9,
    "batch": 5,
    "service": 6,
    "pacs": 6,
    "demo": 5,
    "follow": 5,
    "info": 4,
    "cli": 10,
}
NEEDS_TORCH = {
    "network",
    "losses",
    "data",
    "training",
    "config",
    "evaluation",
    "lineage",
    "experiment",
    "export",
    "quantize",
    "leak",
    "study",
}
TORCH_FREE = set(FLOORS) - NEEDS_TORCH
HEAVY = {"torch", "lightning", "monai", "onnx"}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, everywhere: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(path: Path) -> None:
    here = room(path)
    for name in imports(path, everywhere=True):
        if not name.startswith("groundglass."):
            continue
        there = name.split(".")[1]
        assert there == here or FLOORS[there] < FLOORS[here], f"{path.name} of {here} imports {name}"


@pytest.mark.parametrize("path", [path for path in FILES if room(path) in TORCH_FREE], ids=lambda path: path.name)
def test_the_way_of_segment_names_no_heavy_module(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path, everywhere=True)} & HEAVY


def test_every_room_has_a_floor() -> None:
    assert {room(path) for path in FILES} <= set(FLOORS)


def test_importing_everything_that_segment_needs_leaves_the_heavy_modules_unloaded() -> None:
    code = (
        "import sys, groundglass; [getattr(groundglass, name) for name in groundglass.__all__]; "
        f"print(sorted(set(sys.modules) & {HEAVY}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_loads_next_to_nothing() -> None:
    code = "import sys, groundglass; print(sorted({'numpy', 'nibabel', 'typer', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_face_is_sorted_and_whole() -> None:
    assert groundglass.__all__ == sorted(groundglass.__all__)
    for name in groundglass.__all__:
        assert getattr(groundglass, name).__name__ == name
