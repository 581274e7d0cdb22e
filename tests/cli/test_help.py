"""The help texts of all commands and options."""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from groundglass.cli import app

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def parameters(command: str) -> Iterator[Any]:
    """The options and arguments of a command, without --help."""
    return (parameter for parameter in COMMANDS[command].params if parameter.name != "help")


def help_text(command: str) -> str:
    """The output of `groundglass COMMAND --help` on a wide terminal."""
    return CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "400"}).output


def is_sentence(text: str) -> bool:
    """True if a text starts with a capital letter or a name and ends with a full stop."""
    return (text[0].isupper() or text.startswith("NAME.onnx")) and text.endswith(".") and "  " not in text


def test_all_commands_are_there() -> None:
    assert set(COMMANDS) == {
        *("segment", "info", "follow", "demo", "batch", "serve", "watch", "prepare", "show", "split"),
        *("train", "train-lungs", "leakage", "study", "export", "quantize", "evaluate", "robustness"),
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_option_and_argument_is_described_in_a_sentence(command: str) -> None:
    assert is_sentence(COMMANDS[command].help)
    assert {each.name: each.help for each in parameters(command) if not is_sentence(each.help or " ")} == {}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_optional_parameter_shows_its_default(command: str) -> None:
    text = help_text(command)
    optional = [each for each in parameters(command) if not each.required]
    assert text.count("[default: ") == len(optional)
    assert text.count("[required]") == len(list(parameters(command))) - len(optional)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_number_shows_its_meaning_or_unit_and_not_its_type(command: str) -> None:
    assert not re.search(r"<(int|float)|INTEGER|FLOAT", help_text(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_names_each_extra_that_a_command_needs(command: str) -> None:
    code = inspect.getsource(inspect.unwrap(COMMANDS[command].callback))
    needed = {re.search(r'extra="(\w+)"', call) for call in re.findall(r"require\(([^)]+)\)", code)}
    for extra in {found[1] if found else "train" for found in needed}:
        assert f"`{extra}` extra" in help_text(command)


def test_the_help_states_the_exit_codes() -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "400"}).output
    assert re.findall(r"(\d) (?:done|the program|wrong|the input|some scans)", text) == ["0", "1", "2", "3", "4"]


def test_the_help_is_shown_without_loading_numpy() -> None:
    code = (
        "import sys; from groundglass.cli import main; sys.argv = ['groundglass', '--help']\n"
        "try: main()\n"
        "finally: print('loaded', sorted({'numpy', 'pydantic', 'scipy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Find COVID-19 lesions in chest CT." in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_python_m_groundglass_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "groundglass", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("groundglass 0.")
