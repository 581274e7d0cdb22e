"""A batch as its user meets it: the command line, its folder of results, and what is left when it is cut off."""

import csv
import gzip
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from groundglass import cli
from groundglass.apps.batch.records import BatchOptions, BatchSettings, CaseRecord, CaseStatus, is_done, read_record
from groundglass.apps.batch.run import BatchProgress, Plan, plan, progress_table, run
from groundglass.apps.batch.summary import Summary
from groundglass.errors import ConfigError, OutputError
from groundglass.io import nifti
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.phantom import chest_phantom
from helpers.dicom_phantom import NAME, NUMBER, write_series
from helpers.fake_batch import Obedient, alive, orders, pids, rows, until

COMMAND = [sys.executable, "-c", "from groundglass.cli import main; main()", "batch"]


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phantom") / "ct.nii.gz"
    nifti.write_scan(chest_phantom(shape=(12, 96, 128)).scan, path)
    return path


def command(*words: object, temporary: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(temporary)} if temporary else None
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, env=environment)


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command in this process; its workers have theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["groundglass", "batch", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    on_record = capsys.readouterr()
    return int(end.value.code or 0), on_record.out, on_record.err


def by_source(folder: Path) -> dict[str, dict[str, str]]:
    """The summary's rows under the names of their sources."""
    with (folder / "key.csv").open(newline="") as stream:
        key = {row["case"]: Path(row["scan"]).name for row in csv.DictReader(stream)}
    return {key[case]: row for case, row in rows(folder).items()}


def obeyed(source: Path, out: Path, workers: int = 2, time_limit_s: float = 60) -> tuple[Plan, BatchProgress]:
    planned = plan(str(source), out)
    progress = BatchProgress(planned)
    run(planned, progress, workers, time_limit_s, opener=Obedient(planned.settings))
    return planned, progress


# The whole way


def test_one_bad_case_is_a_row_and_what_is_done_is_kept(
    scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    shutil.copy(scan_file, source / "good.nii.gz")
    shutil.copy(scan_file, source / "deep/also.nii.gz")
    (source / "bad.nii.gz").write_bytes(scan_file.read_bytes()[:5000])

    code, on_record, error = call(capsys, source, "-o", out, "--workers", 2)
    assert code == 4
    assert error == "groundglass: 1 of 3 scans failed: see why in summary.csv; the same command tries again\n"
    assert on_record.splitlines()[-2].startswith("2 of 3 done, 1 failed")
    assert len(on_record.splitlines()) == 5  # a line a case
    told = by_source(out)
    assert told["bad.nii.gz"]["status"] == "failed"
    assert told["bad.nii.gz"]["reason"].startswith("the scan is damaged or cut short")
    assert told["bad.nii.gz"]["lesion_ml"] == ""
    for name in ("good.nii.gz", "also.nii.gz"):
        row = told[name]
        assert (row["status"], row["reason"], row["slices"]) == ("done", "", "12")
        assert float(row["lesion_ml"]) > 100
        assert {file.name for file in (out / row["case"]).iterdir()} >= {"findings.json", "lesions.nii.gz"}
    bad = told["bad.nii.gz"]["case"]
    assert {entry.name for entry in out.iterdir()} == {"key.csv", "summary.csv", "records"} | set(rows(out)) - {bad}
    assert (out / "key.csv").stat().st_mode & 0o777 == 0o600

    shutil.copy(scan_file, source / "bad.nii.gz")
    before = (out / told["good.nii.gz"]["case"] / "findings.json").stat().st_mtime_ns
    code, on_record, error = call(capsys, source, "-o", out)
    assert (code, error) == (0, "")
    assert on_record.splitlines()[-2].startswith("3 of 3 done (2 before)")
    assert (out / told["good.nii.gz"]["case"] / "findings.json").stat().st_mtime_ns == before
    assert {row["status"] for row in rows(out).values()} == {"done"}
    assert call(capsys, source, "-o", out)[0] == 0  # nothing left to do


def test_a_csv_names_its_cases(scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "list.csv"
    table.write_text(f"scan,case\n{scan_file},first\ngone.nii,second\n")
    assert call(capsys, table, "-o", tmp_path / "out")[0] == 4
    told = rows(tmp_path / "out")
    assert {name: row["status"] for name, row in told.items()} == {"first": "done", "second": "failed"}
    assert "there is no such file" in told["second"]["reason"]
    assert not (tmp_path / "out" / "key.csv").exists()
    assert (tmp_path / "out" / "first" / "findings.json").is_file()


def test_two_shards_at_the_same_time_make_one_summary(scan_file: Path, tmp_path: Path) -> None:
    for number in range(4):
        shutil.copy(scan_file, tmp_path / f"ct{number}.nii.gz")
    words = [*COMMAND, str(tmp_path / "ct*.nii.gz"), "-o", str(tmp_path / "out"), "--shard"]
    both = [subprocess.Popen([*words, f"{number}/2"], stdout=subprocess.PIPE, text=True) for number in (1, 2)]
    for process in both:
        assert "2 of 2 done" in process.communicate()[0]
        assert process.returncode == 0
    assert [row["status"] for row in rows(tmp_path / "out").values()] == ["done"] * 4


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("empty", "-o", "out"), 3, "no scan was found"),
        (("empty",), 2, "--output"),
        (("empty", "-o", "out", "--shard", "0/2"), 2, "expected i/n"),
        (("empty", "-o", "out", "--shard", "3/2"), 2, "expected i/n"),
        (("empty", "-o", "out", "--workers", "0"), 2, "--workers"),
        (("empty", "-o", "out", "--workers", "2", "--scheduler", "tcp://x:1"), 2, "not with --scheduler"),
        (("empty", "-o", "out", "--model", "no.onnx"), 1, "no.onnx is not there"),
    ],
)
def test_bad_calls_are_refused_before_anything_is_written(
    words: tuple[str, ...],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    got, on_record, error = call(capsys, *words)
    assert (got, on_record) == (code, "")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_dask_is_asked_for_where_it_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, error = call(capsys, tmp_path, "-o", tmp_path / "out", "--scheduler", "tcp://x:1")
    assert code == 1
    assert error == "groundglass: distributed is not installed: pip install 'groundglass[batch]'\n"


# Bad cases, killed workers


def test_a_case_that_kills_its_process_is_a_row(tmp_path: Path) -> None:
    source = orders(tmp_path / "in", a="fine", b="die", c="fine", d=f"die once {tmp_path / 'd'}", e="fine")
    _, progress = obeyed(source, tmp_path / "out")
    assert len(progress.ended) == 5
    told = by_source(tmp_path / "out")
    assert {name: row["status"] for name, row in told.items() if row["status"] != "done"} == {"b.nii": "failed"}
    assert told["b.nii"]["reason"].startswith("its process died twice (signal 9)")
    assert not (tmp_path / "out" / told["b.nii"]["case"]).exists()
    assert not list((tmp_path / "out").glob(".groundglass-*"))


def test_a_worker_that_is_killed_in_the_middle_is_replaced(tmp_path: Path) -> None:
    source = orders(tmp_path / "in", a="fine", b=f"hang once {tmp_path / 'b'}", c="fine", d="fine")
    killer = threading.Thread(target=lambda: os.kill(pids(tmp_path / "b")[0], signal.SIGKILL))
    killer.start()
    _, progress = obeyed(source, tmp_path / "out", workers=1)
    killer.join()
    assert [record.status for record in progress.ended] == [CaseStatus.DONE] * 4
    assert len(rows(tmp_path / "out")) == 4


def test_a_case_that_takes_too_long_is_a_row(tmp_path: Path) -> None:
    source = orders(tmp_path / "in", a="fine", b=f"hang {tmp_path / 'b'}", c="fine")
    _, progress = obeyed(source, tmp_path / "out", time_limit_s=1.5)
    assert not alive(pids(tmp_path / "b")[0])
    told = by_source(tmp_path / "out")
    assert (told["b.nii"]["status"], told["a.nii"]["status"], told["c.nii"]["status"]) == ("timed out", "done", "done")
    assert told["b.nii"]["reason"] == "took more than 1.5 s: give it more with --time-limit"
    assert not list((tmp_path / "out").glob(".groundglass-*"))
    assert len(progress.failed) == 1


def test_results_that_cannot_be_written_end_the_batch(tmp_path: Path) -> None:
    source = orders(tmp_path / "in", a="fine", b="fine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "records").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        obeyed(source, tmp_path / "out")


# Cut off, gone on with


def test_ctrl_c_leaves_no_process_and_no_half_case_and_says_how_to_go_on(tmp_path: Path) -> None:
    source, out = orders(tmp_path / "in", a="fine", b=f"hang {tmp_path / 'b'}"), tmp_path / "out"
    code = (
        "import signal; from groundglass.apps.batch import run; from helpers.fake_batch import Obedient\n"
        "run.BatchWorkerFactory = lambda settings, threads: Obedient(settings)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it\n"
        "from groundglass.cli import main; main()"
    )
    words = [sys.executable, "-c", code, "batch", str(source), "-o", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    pid, owner = pids(tmp_path / "b")
    assert owner == process.pid
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert error.startswith("groundglass: interrupted: 1 of 2 done")
    assert error.endswith("the same command goes on from there\n")
    until(lambda: not alive(pid), 10)
    assert [row["status"] for row in rows(out).values()] == ["done"]
    assert not list(out.glob(".groundglass-*"))

    (source / "b.nii").write_text("fine")
    planned, _ = obeyed(source, out)
    assert [case.source.name for case in planned.waiting] == ["b.nii"]
    assert [row["status"] for row in rows(out).values()] == ["done"] * 2


def test_what_a_killed_batch_left_is_swept_away(tmp_path: Path) -> None:
    source, out = orders(tmp_path / "in", a="fine"), tmp_path / "out"
    (case,) = plan(str(source), out).cases
    half = out / f".groundglass-{case.name}-0123abcd" / "lesions"
    half.mkdir(parents=True)
    (half / "lesions.nii.gz").write_bytes(b"half")
    obeyed(source, out)
    assert {file.name for file in (out / case.name).iterdir()} == {"findings.json"}
    assert not half.parent.exists()


def test_done_is_what_was_made_of_this_source_by_this_model_as_wished(tmp_path: Path) -> None:
    source, out = orders(tmp_path / "in", a="fine"), tmp_path / "out"
    planned, _ = obeyed(source, out)
    (case,) = planned.cases
    settings = planned.settings
    assert is_done(case, settings)
    assert not is_done(case, replace(settings, used=settings.used.model_copy(update={"sha256": "1" * 64})))
    assert not is_done(case, replace(settings, options=replace(settings.options, intensity=IntensityKind.HU)))
    findings = out / case.name / "findings.json"
    findings.rename(out / "elsewhere")
    assert not is_done(case, settings)
    (out / "elsewhere").rename(findings)
    os.utime(case.source, (1, 1))
    assert not is_done(case, settings)


def test_a_case_that_is_no_longer_done_keeps_no_results_but_what_others_put_there(tmp_path: Path) -> None:
    source, out = orders(tmp_path / "in", a="fine"), tmp_path / "out"
    planned, _ = obeyed(source, out)
    folder = out / planned.cases[0].name
    (folder / "notes.txt").write_text("mine")
    (source / "a.nii").write_text("die")
    obeyed(source, out)
    assert {file.name for file in folder.iterdir()} == {"notes.txt"}
    (source / "a.nii").write_text("fine again")
    obeyed(source, out)
    assert {file.name for file in folder.iterdir()} == {"notes.txt", "findings.json"}


def test_of_several_writers_the_last_has_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = orders(tmp_path / "in", a="fine", b="fine"), tmp_path / "out"
    planned, _ = obeyed(source, out)
    second = out / "records" / f"{planned.cases[1].name}.json"
    late = second.read_bytes()
    second.unlink()
    summary, text = Summary(out, False), Summary._text

    def meanwhile(self: Summary) -> str:  # another shard's case ends after this one looked
        made = text(self)
        if not second.exists():
            second.write_bytes(late)
        return made

    monkeypatch.setattr(Summary, "_text", meanwhile)
    summary.write()
    assert len(rows(out)) == 2


def test_a_damaged_record_is_a_case_to_be_done_again(tmp_path: Path) -> None:
    source, out = orders(tmp_path / "in", a="fine"), tmp_path / "out"
    planned, _ = obeyed(source, out)
    record = out / "records" / f"{planned.cases[0].name}.json"
    record.write_bytes(record.read_bytes()[:40])
    assert read_record(out, planned.cases[0].name) is None
    again, _ = obeyed(source, out)
    assert again.waiting == planned.cases
    assert len(rows(out)) == 1


# Privacy


def planted(folder: Path, scan_file: Path) -> Path:
    """Sources of every kind, good and bad, with a patient's name in files, folders and headers."""
    source = folder / "PLANTED_root"
    (source / "PLANTED^Jane").mkdir(parents=True)
    shutil.copy(scan_file, source / "PLANTED^Jane" / "PLANTED-1.nii.gz")
    (source / "PLANTED^Jane" / "bad PLANTED.nii.gz").write_bytes(b"PLANTED" * 40)
    (source / "PLANTED.nrrd").write_bytes(b"NRRD0004\ntype: PLANTED\ndimension: 3\nsizes: 4 4 4\n\n")
    phantom = chest_phantom(shape=(12, 96, 128), oblique=False)
    write_series(phantom.scan, source / "dicom PLANTED")
    write_series(replace(phantom.scan, values=phantom.scan.values), source / "PLANTED MR", Modality="MR")
    for name in ("PLANTED slices", "PLANTED colour"):
        (source / name).mkdir()
        grey = np.clip((phantom.scan.values + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
        for z in (5, 6):
            colours = grey[z] if name.endswith("slices") else np.stack([grey[z], 255 - grey[z], grey[z]], -1)
            Image.fromarray(colours).save(source / name / f"PLANTED {z}.png")
    return source


def told(path: Path) -> str:
    """Name and content of a file, unpacked where it is packed."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    return f"{path.name} {content.decode('latin-1')}"


def test_no_name_or_path_is_told_unless_asked_for(scan_file: Path, tmp_path: Path) -> None:
    source, out, temporary = planted(tmp_path, scan_file), tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    done = command(source, "-o", out, temporary=temporary)
    assert done.returncode == 4, done.stderr
    statuses = {name: row["status"] for name, row in by_source(out).items()}
    assert sorted(name for name, status in statuses.items() if status == "done") == [
        "PLANTED slices",
        "PLANTED-1.nii.gz",
        "dicom PLANTED",
    ]
    assert len(statuses) == 7
    files = [
        file for place in (out, temporary) for file in place.rglob("*") if file.is_file() and file.name != "key.csv"
    ]
    assert len(files) > 15
    for text in (done.stdout, done.stderr, *map(told, files)):
        for secret in ("planted", NAME, NUMBER, "jane", str(tmp_path / "PLANTED_root")):
            assert secret.casefold() not in text.casefold()
    assert {file.name for file in out.glob("*/lesions/*")} == {"slice-0001.png", "slice-0002.png"}
    assert not list(out.glob("*/*.dcm"))


def test_with_identity_sources_are_told_and_dicom_is_written(scan_file: Path, tmp_path: Path) -> None:
    source, out = planted(tmp_path, scan_file), tmp_path / "out"
    done = command(source, "-o", out, "--with-identity")
    assert done.returncode == 4
    told = rows(out)
    (series,) = [row for row in told.values() if row["source"] == str(source / "dicom PLANTED")]
    assert series["case"].startswith("dicom_PLANTED-")
    assert (out / series["case"] / "lesions.dcm").is_file()
    assert NAME in (out / series["case"] / "findings.json").read_text()
    assert any("PLANTED 5.png is coloured" in row["reason"] for row in told.values())
    assert not (out / "key.csv").exists()
    with pytest.raises(ConfigError, match="was begun with --with-identity: go on so"):
        plan(str(source), out)


# What is shown


def test_the_table_counts_and_names_what_runs_and_what_failed(tmp_path: Path) -> None:
    source = orders(tmp_path / "in", a="fine", b="fine", c="fine")
    planned = plan(str(source), tmp_path / "out")
    progress = BatchProgress(replace(planned, waiting=planned.waiting[1:]))
    assert progress.line == "1 of 3 done (1 before)"
    reason = "[red]unread[/red]"
    record = CaseRecord(
        case="x", status=CaseStatus.FAILED, reason=reason, seconds=1, source=None, fingerprint="", intensity=None,
        model=planned.settings.used,
    )  # fmt: skip
    progress.ended.append(record)
    progress.running["y"] = 0.0
    lines = [str(cell) for cell in progress_table(progress).columns[0].cells]
    assert lines[0].startswith("1 of 3 done (1 before), 1 failed, ")
    assert lines[0].endswith(" left")
    assert lines[1].startswith("  y  ")
    assert lines[2] == f"  x: failed: {reason}"


@pytest.mark.slow
def test_memory_stays_flat(scan_file: Path) -> None:
    bench = Path(__file__).parents[3] / "bench" / "batch.py"
    words = [sys.executable, str(bench), "memory", "--scans", "80", "--growth-mib", "40"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wish_is_what_the_job_carries(tmp_path: Path) -> None:
    source = orders(tmp_path / "in", a="fine")
    planned = plan(str(source), tmp_path / "out", BatchOptions(with_identity=True))
    assert planned.settings == BatchSettings(
        (tmp_path / "out").absolute(), planned.settings.used, BatchOptions(with_identity=True)
    )
