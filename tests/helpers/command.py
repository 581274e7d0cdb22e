"""The command line, run in the process of the test."""

import sys

import pytest

from groundglass.cli import main


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Run `groundglass ARGUMENTS` in this process: exit code, stdout, stderr."""
    monkeypatch.setattr("groundglass.cli._end_as_on_ctrl_c", lambda: None)  # the signals of the tests stay theirs
    monkeypatch.setattr(sys, "argv", ["groundglass", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err
