"""The command `watch` itself: its words, and how it ends."""

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


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of the command, in this process."""
    monkeypatch.setattr(sys, "argv", ["groundglass", "watch", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize(
    ("how", "words", "code", "out", "err"),
    [
        (WatchCounts(stored=2, refused=1), ("--once",), 0, "2 stored, 1 refused, 0 failed\n", ""),
        (WatchCounts(stored=2, failed=1), ("--once",), 4, "2 stored, 0 refused, 1 failed\n", "1 series failed: "),
        (KeyboardInterrupt(), ("--once",), 1, "", "interrupted; the same command goes on from there"),
        (KeyboardInterrupt(), (), 0, "stopped; the same command goes on from there\n", ""),
    ],
)
def test_how_it_ends(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    how: WatchCounts | KeyboardInterrupt,
    words: tuple[str, ...],
    code: int,
    out: str,
    err: str,
) -> None:
    def stand_in(*_: object) -> WatchCounts:
        if isinstance(how, KeyboardInterrupt):
            raise how
        return how

    monkeypatch.setattr("groundglass.apps.pacs.watch.watch", stand_in)
    found = run(monkeypatch, capsys, "http://127.0.0.1:8042", "-o", tmp_path, *words)
    assert found[:2] == (code, out)
    assert err in found[2]
    assert found[2].count("\n") == (1 if err else 0)


def test_its_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked: list[object] = []

    def stand_in(*words: object) -> WatchCounts:
        asked.extend(words[:3])
        return WatchCounts()

    monkeypatch.setattr("groundglass.apps.pacs.watch.watch", stand_in)
    words = ("--dicomweb", "--since", "2026-01-02", "--poll", "3", "--time-limit", "90", "--again")
    files = ("--model", "m.onnx", "--credentials", "c.toml", "--ca", "ca.pem")
    assert run(monkeypatch, capsys, "https://pacs/web", "-o", tmp_path, *words, *files)[0] == 0
    model, credentials, ca = Path("m.onnx"), Path("c.toml"), Path("ca.pem")
    options = WatchOptions("https://pacs/web", tmp_path, True, date(2026, 1, 2), model, credentials, ca, True)
    assert asked == [options, RetryPolicy(poll_s=3, time_limit_s=90), False]


@pytest.mark.parametrize(
    ("url", "words", "message"),
    [
        ("8042", (), "is none of a server"),
        ("http://user:secret-word@pacs", (), "holds credentials"),
        ("http://127.0.0.1:8042", ("--since", "yesterday"), "yesterday"),
        ("http://127.0.0.1:8042", ("--poll", "0"), "0"),
        ("http://127.0.0.1:8042", ("--credentials", "none.toml"), "none.toml cannot be read"),
    ],
)
def test_bad_usage_is_exit_2_and_makes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    url: str,
    words: tuple[str, ...],
    message: str,
) -> None:
    code, out, err = run(monkeypatch, capsys, url, "-o", tmp_path / "watch", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "secret" not in err
    assert not (tmp_path / "watch").exists()


def test_a_missing_model_is_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("http://127.0.0.1:1", "-o", tmp_path / "watch", "--model", tmp_path / "no.onnx")
    code, _, err = run(monkeypatch, capsys, *words)
    assert (code, err.count("\n")) == (1, 1)
    assert "no.onnx is not there" in err


def test_the_set_up_that_the_documentation_shows_works(
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
