"""Training knows nothing of CT; the data room knows nothing of Lightning."""

import ast
from pathlib import Path

import pytest

import groundglass

ROOT = Path(groundglass.__file__).parent
FORBIDDEN = {"training": ("groundglass.scan.", "groundglass.data."), "data": ("lightning.", "groundglass.training.")}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_names_nothing_of_the_other(room: str) -> None:
    files = sorted((ROOT / room).glob("*.py"))
    assert len(files) > 2
    for path in files:
        for name in imports(path):
            assert not any(name == other or name.startswith(f"{other}.") for other in FORBIDDEN[room]), (
                f"{path}: {name}"
            )
