"""The command line as a user sees it: files, exit codes, one line for each failure."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from groundglass.inference.open_model import open_in_background
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.scan.geometry import Geometry
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan
from helpers.command import run_command

COMMAND = [sys.executable, "-c", "from groundglass.cli import main; main()"]


@pytest.fixture(scope="session")
def scan_file(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "ct.nii.gz"
    nifti.write_scan(phantom.scan, path)
    return path


@pytest.fixture
def without_weights(monkeypatch: pytest.MonkeyPatch, grey_band: Segmenter) -> None:
    monkeypatch.setattr("groundglass.inference.open_model.open_model", lambda *_: grey_band)


@pytest.mark.usefixtures("without_weights")
def test_segment_writes_the_results_and_prints_a_summary(
    scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_command(monkeypatch, capsys, "segment", scan_file, "-o", tmp_path / "out")
    assert code == 0
    assert err == ""  # no progress bar in a pipe
    assert out.splitlines()[0].startswith("lesion ")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "lesions.nii.gz",
        "findings.json",
        "preview.png",
        "report.html",
    }
    json.loads((tmp_path / "out" / "findings.json").read_text())


@pytest.mark.usefixtures("without_weights")
def test_the_scan_is_read_while_the_program_is_loaded(
    scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading = threading.Event()

    def read(*arguments: Any, **options: Any) -> Scan:
        reading.set()
        return read_scan(*arguments, **options)

    def open_later(*arguments: Any) -> Any:
        assert reading.wait(10), "the model is opened before the scan is read"
        return open_in_background(*arguments)

    monkeypatch.setattr("groundglass.io.reader.read_scan", read)
    monkeypatch.setattr("groundglass.inference.open_model.open_in_background", open_later)
    assert run_command(monkeypatch, capsys, "segment", scan_file, "-o", tmp_path / "out")[0] == 0


def bad_inputs(folder: Path) -> dict[str, tuple[Path, str]]:
    """{kind: (file, part of the error message)}; the tests of the readers cover more."""
    rng = np.random.default_rng(0)
    grid = Geometry((4, 64, 64), np.eye(4)[:, [2, 1, 0, 3]])
    files = {}

    def scan(name: str, values: np.ndarray) -> Path:
        path = folder / f"{name}.nii.gz"
        shape = (values.shape[0], values.shape[1], values.shape[2])
        nifti.write_scan(Scan(values, Geometry(shape, grid.affine_lps)), path)
        return path

    hu = rng.normal(40, 10, (4, 64, 64)).astype(np.int16)
    files["without lungs"] = (
        scan("body", np.where(np.arange(64) < 8, -1000, hu).astype(np.int16)),
        "no lung was found",
    )
    files["no CT"] = (scan("mri", rng.gamma(2, 80, (4, 64, 64)).astype(np.int16)), "not a CT in")
    whole = scan("whole", rng.normal(0, 300, (4, 64, 64)).astype(np.int16)).read_bytes()
    (folder / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    files["truncated"] = (folder / "truncated.nii.gz", "")
    (folder / "empty.nii.gz").touch()
    files["zero bytes"] = (folder / "empty.nii.gz", "empty")
    (folder / "text.nii.gz").write_text("hello" * 100)
    files["text"] = (folder / "text.nii.gz", "expected")
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(folder / "dot.png")
    files["1x1"] = (folder / "dot.png", "1 x 1")
    Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(folder / "colour.png")
    files["colour"] = (folder / "colour.png", "colour")
    (folder / "folder").mkdir()
    files["empty folder"] = (folder / "folder", "")
    files["missing"] = (folder / "no such file.nii", "no such file")
    return files


KINDS = ("without lungs", "no CT", "truncated", "zero bytes", "text", "1x1", "colour", "empty folder", "missing")


@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_line_exit_3_and_no_output(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, message = bad_inputs(tmp_path)[kind]
    code, out, err = run_command(monkeypatch, capsys, "segment", path, "-o", tmp_path / "out")
    assert code == 3
    assert out == ""
    assert err.startswith("groundglass: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment",),
        ("segment", "x.nii"),
        ("nonsense",),
        ("segment", "x.nii", "-o", "out", "--intensity", "suv"),
        ("--no",),
    ],
)
def test_bad_usage_is_exit_2(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_command(monkeypatch, capsys, *arguments)
    assert code == 2
    assert err
    assert "Traceback" not in err


def test_a_missing_model_is_exit_1(
    scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_command(
        monkeypatch, capsys, "segment", scan_file, "-o", tmp_path / "out", "--model", tmp_path / "no.onnx"
    )
    assert (code, err.count("\n")) == (1, 1)
    assert "no.onnx is not there" in err


@pytest.mark.usefixtures("without_weights")
def test_an_output_that_cannot_be_written_is_exit_1(
    scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("in the way")
    code, _, err = run_command(monkeypatch, capsys, "segment", scan_file, "-o", tmp_path / "out")
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot be written" in err


def test_an_unexpected_error_is_one_line_and_exit_1(
    scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("first line\nsecond line")

    monkeypatch.setattr("groundglass.inference.open_model.open_model", fail)
    code, _, err = run_command(monkeypatch, capsys, "segment", scan_file, "-o", tmp_path / "out")
    assert code == 1
    assert err == (
        "groundglass: ValueError: first line second line (a bug in groundglass; set GROUNDGLASS_DEBUG=1 to see where)\n"
    )


def test_a_wrong_configuration_is_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.toml").write_text("name = 3\n")
    code, _, err = run_command(
        monkeypatch, capsys, "train", tmp_path / "bad.toml", "--data", tmp_path, "--split", tmp_path
    )
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("prepare", "NOTHING", "-o", "OUT"), 3, "holds no dataset"),
        (("prepare", "NOTHING"), 2, "name either the folder to prepare or the CSV to write"),
        (("prepare", "NOTHING", "-o", "OUT", "--write-csv", "a.csv"), 2, "name either the folder to prepare"),
        (("prepare", "NOTHING", "--write-csv", "a.csv"), 3, "holds no dataset"),
        (("prepare", "NOTHING", "-o", "OUT", "--labels", "lung=1"), 2, "'lung=1' is no label: expected lesion,"),
        (("prepare", "NOTHING", "-o", "OUT", "--view", "heart"), 2, "is not one of 'lungs', 'slice'"),
        (("prepare", "NOTHING", "-o", "OUT", "--size", "8", "8"), 2, "16"),
        (("show", "NOTHING"), 3, "is no prepared folder"),
        (("split", "NOTHING", "-o", "OUT"), 3, "is no prepared folder"),
        (("train", "DEBUG", "--data", "NOTHING", "--split", "none.json"), 2, "none.json cannot be read"),
        (("leakage", "--config", "DEBUG", "--data", "NOTHING"), 3, "is no prepared folder"),
        (("evaluate", "--data", "NOTHING"), 3, "holds no dataset"),
        (("evaluate", "NOTHING", "--data", "NOTHING", "--write-card"), 1, "write one with groundglass export"),
        (("export", "NOTHING", "--fold", "NOTHING"), 2, "needs --data PREPARED"),
    ],
)
def test_missing_data_or_options_are_one_line_with_the_right_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    (tmp_path / "nothing").mkdir()
    paths = {
        "NOTHING": str(tmp_path / "nothing"),
        "OUT": str(tmp_path / "out"),
        "DEBUG": str(Path(__file__).parents[2] / "configs" / "debug.toml"),
    }
    exit_code, out, err = run_command(monkeypatch, capsys, *(paths.get(argument, argument) for argument in arguments))
    assert (exit_code, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
    assert code != 3 or err.count("\n") == 1


def test_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_command(monkeypatch, capsys, "--version")
    assert code == 0
    assert out.startswith("groundglass 0.")


@pytest.mark.slow
def test_the_bundled_model_finds_the_lesions_of_the_phantom(scan_file: Path, phantom: Phantom, tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "segment", scan_file, "-o", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    findings = json.loads((tmp_path / "findings.json").read_text())
    # The tolerance is wide: the model predicts too much lesion on the real test part as well (docs/results.md).
    assert findings["lesion_volume_ml"] == pytest.approx(phantom.lesions.volume_ml, rel=0.4)
    assert findings["lung_volume_ml"] == pytest.approx(phantom.lungs.volume_ml, rel=0.05)


@pytest.mark.slow
def test_a_terminal_shows_a_progress_bar(scan_file: Path, grey_band_model: Path, tmp_path: Path) -> None:
    terminal, process_side = pty.openpty()
    command: list[str | Path] = [*COMMAND, "segment", scan_file, "-o", tmp_path, "--model", grey_band_model]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=process_side)
    os.close(process_side)
    output = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:
            break
        if not part:
            break
        output += part
    os.close(terminal)
    assert process.wait() == 0
    assert b"slices" in output


WRITING = """
import signal, sys, time
from pathlib import Path
from groundglass.cli import app, main
from groundglass.files import staged_folder

@app.command()
def wait(folder: Path) -> None:
    with staged_folder(folder) as staging:
        (staging / "findings.json").touch()
        print("writing", flush=True)
        time.sleep(60)

# A test started in the background inherits a shell's ignored Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, getattr(signal, sys.argv.pop()))
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_signals_of_schedulers_print_one_line_and_leave_no_output(number: int, tmp_path: Path) -> None:
    with start_writing(tmp_path / "out", "SIG_DFL") as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "groundglass: interrupted; no incomplete output is left\n")
    assert not list(tmp_path.iterdir())


def test_a_command_that_keeps_what_is_done_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("groundglass.data.prepare.prepare", interrupt)
    code, _, err = run_command(monkeypatch, capsys, "prepare", tmp_path, "-o", tmp_path / "out")
    assert (code, err) == (1, "groundglass: interrupted; run the same command again to continue\n")


def test_a_command_outlives_its_terminal_under_nohup(tmp_path: Path) -> None:
    with start_writing(tmp_path / "out", "SIG_IGN") as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None
        process.kill()


@contextmanager
def start_writing(folder: Path, hangup: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITING, "wait", str(folder), hangup]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process


def test_a_command_whose_output_is_closed_says_so_and_fails(scan_file: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, "info", scan_file], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == (
        "groundglass: ended early: its standard output was closed, as by head; run the same command again to continue\n"
    )
