"""The command `watch`: its arguments, its messages and its exit codes."""

import json
import re
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from groundglass.apps.pacs.watch import WatchOptions, watch
from groundglass.apps.pacs.watcher import RetryPolicy, WatchCounts
from groundglass.cli import main
from helpers.orthanc import PASSWORD, USER, OrthancServer

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "pacs.md"


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Run the command in this process; return exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["groundglass", "watch", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize(
    ("result", "arguments", "code", "out", "err"),
    [
        (WatchCounts(stored=2, refused=1), ("--once",), 0, "2 stored, 1 refused, 0 failed\n", ""),
        (
            WatchCounts(stored=2, failed=1),
            ("--once",),
            4,
            "2 stored, 0 refused, 1 failed\n",
            "1 series failed for the reasons recorded in ",
        ),
        (KeyboardInterrupt(), ("--once",), 1, "", "interrupted; run the same command again to continue"),
        (KeyboardInterrupt(), (), 0, "stopped; run the same command again to continue\n", ""),
    ],
)
def test_exit_code_and_last_line_state_how_the_watch_ended(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    result: WatchCounts | KeyboardInterrupt,
    arguments: tuple[str, ...],
    code: int,
    out: str,
    err: str,
) -> None:
    def fake_watch(*_: object) -> WatchCounts:
        if isinstance(result, KeyboardInterrupt):
            raise result
        return result

    monkeypatch.setattr("groundglass.apps.pacs.watch.watch", fake_watch)
    found = run_command(monkeypatch, capsys, "http://127.0.0.1:8042", "-o", tmp_path, *arguments)
    assert found[:2] == (code, out)
    assert err in found[2]
    assert found[2].count("\n") == (1 if err else 0)


def test_options_are_passed_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    received: list[object] = []

    def fake_watch(*arguments: object) -> WatchCounts:
        received.extend(arguments[:3])
        return WatchCounts()

    monkeypatch.setattr("groundglass.apps.pacs.watch.watch", fake_watch)
    arguments = ("--dicomweb", "--since", "2026-01-02", "--poll", "3", "--time-limit", "90", "--again")
    files = ("--model", "m.onnx", "--credentials", "c.toml", "--ca", "ca.pem")
    assert run_command(monkeypatch, capsys, "https://pacs/web", "-o", tmp_path, *arguments, *files)[0] == 0
    model, credentials, ca = Path("m.onnx"), Path("c.toml"), Path("ca.pem")
    options = WatchOptions("https://pacs/web", tmp_path, True, date(2026, 1, 2), model, credentials, ca, True)
    assert received == [options, RetryPolicy(poll_s=3, time_limit_s=90), False]


@pytest.mark.parametrize(
    ("url", "arguments", "message"),
    [
        ("8042", (), "is not that of a server"),
        ("http://user:secret-word@pacs", (), "holds credentials"),
        ("http://127.0.0.1:8042", ("--since", "yesterday"), "yesterday"),
        ("http://127.0.0.1:8042", ("--poll", "0"), "0"),
        ("http://127.0.0.1:8042", ("--poll", "inf"), "86400"),
        ("http://127.0.0.1:8042", ("--credentials", "none.toml"), "none.toml cannot be read"),
    ],
)
def test_bad_arguments_are_exit_code_2_and_create_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    url: str,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    code, out, err = run_command(monkeypatch, capsys, url, "-o", tmp_path / "watch", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "secret" not in err
    assert not (tmp_path / "watch").exists()


def test_a_missing_model_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ("http://127.0.0.1:1", "-o", tmp_path / "watch", "--model", tmp_path / "no.onnx")
    code, _, err = run_command(monkeypatch, capsys, *arguments)
    assert (code, err.count("\n")) == (1, 1)
    assert "no.onnx is not there" in err


def test_a_run_folder_is_refused_with_the_way_to_a_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    arguments = ("http://127.0.0.1:1", "-o", tmp_path / "watch", "--model", tmp_path / "run")
    code, _, err = run_command(monkeypatch, capsys, *arguments)
    assert (code, err.count("\n")) == (1, 1)
    assert "expected an ONNX file: write one with groundglass export" in err
    assert not (tmp_path / "watch").exists()


def test_the_configuration_in_the_documentation_works(
    start_orthanc: Callable[..., OrthancServer], tmp_path: Path
) -> None:
    shown = re.findall(r"```(json|toml)\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    settings = json.loads(next(text for kind, text in shown if kind == "json"))
    settings["RegisteredUsers"][USER] = PASSWORD  # for the test itself
    credentials = tmp_path / "pacs.toml"
    credentials.write_text(next(text for kind, text in shown if kind == "toml"))
    credentials.chmod(0o600)
    orthanc = start_orthanc(settings=settings)
    options = WatchOptions(orthanc.url, tmp_path / "watch", credentials=credentials)
    assert watch(options, once=True) == WatchCounts()
    web = WatchOptions(f"{orthanc.url}/dicom-web", tmp_path / "web", True, credentials=credentials)
    assert watch(web, RetryPolicy(poll_s=0.1), once=True) == WatchCounts()
