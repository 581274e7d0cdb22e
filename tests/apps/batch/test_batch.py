"""Batches: the command line, the folder of results, crashes, interruptions and privacy."""

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from groundglass import cli
from groundglass.apps.batch import processing
from groundglass.apps.batch.items import BatchItem
from groundglass.apps.batch.records import (
    BatchOptions,
    BatchSettings,
    ItemRecord,
    ItemStatus,
    is_done,
    read_record,
    remove_results,
    write_record,
)
from groundglass.apps.batch.run import BatchPlan, BatchProgress, plan_batch, progress_table, run_batch
from groundglass.apps.batch.summary import Summary, write_key
from groundglass.errors import ConfigError, OutputError
from groundglass.files import staged_folder, write_atomic
from groundglass.inference.engine_config import EngineConfig, EngineName, Precision
from groundglass.inference.open_model import resolve_model
from groundglass.io import nifti
from groundglass.report.findings import ModelRef
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.phantom import chest_phantom
from helpers.character_sets import SETS, write_named_series
from helpers.dicom_phantom import NAME, NUMBER, write_series
from helpers.fake_batch import FakeBatchWorkerFactory, GreyBandBatchWorkerFactory, summary_rows, write_scripts
from helpers.fake_engine import fake_segmenter
from helpers.scripted_worker import hanging_pids, is_alive, wait_until

pytestmark = pytest.mark.thorough

SHAPE = (6, 72, 96)  # of the phantoms
COMMAND = [sys.executable, "-c", "from groundglass.cli import main; main()", "batch"]


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phantom") / "ct.nii.gz"
    nifti.write_scan(chest_phantom(shape=SHAPE).scan, path)
    return path


def command(*arguments: object, temporary: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    environment = {**os.environ, "TMPDIR": str(temporary)} if temporary else None
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, env=environment)


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the command in this process, with its workers in theirs; return exit code, stdout and stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["groundglass", "batch", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    output = capsys.readouterr()
    return int(end.value.code or 0), output.out, output.err


def by_source(folder: Path) -> dict[str, dict[str, str]]:
    """Read the summary's rows as {file name of the source: row}."""
    if not (folder / "key.csv").exists():
        return {Path(row["source"]).name: row for row in summary_rows(folder).values()}
    with (folder / "key.csv").open(newline="") as stream:
        key = {row["case"]: Path(row["scan"]).name for row in csv.DictReader(stream)}
    return {key[case]: row for case, row in summary_rows(folder).items()}


def run_scripts(source: Path, out: Path, workers: int = 2, time_limit_s: float = 60) -> tuple[BatchPlan, BatchProgress]:
    """Run a batch over the scripts in a folder."""
    planned = plan_batch(str(source), out)
    progress = BatchProgress(planned)
    run_batch(planned, progress, workers, time_limit_s, worker_factory=FakeBatchWorkerFactory(planned.settings))
    return planned, progress


# From the command line to the results


@pytest.mark.slow
def test_a_damaged_scan_becomes_a_failed_row_and_the_next_call_retries_it_alone(
    scan_file: Path, grey_band_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    arguments = (source, "-o", out, "--model", grey_band_model)
    (source / "deep").mkdir(parents=True)
    shutil.copy(scan_file, source / "good.nii.gz")
    shutil.copy(scan_file, source / "deep/also.nii.gz")
    (source / "bad.nii.gz").write_bytes(scan_file.read_bytes()[:5000])

    code, output, error = call(capsys, *arguments, "--workers", 2)
    assert code == 4
    assert error == (
        "groundglass: 1 of 3 scans failed for the reasons in summary.csv; run the same command again to retry them\n"
    )
    assert output.splitlines()[-3].startswith("2 of 3 done, 1 failed")
    assert len(output.splitlines()) == 6  # one for each scan, the counts, the paths of summary and overview
    by_name = by_source(out)
    assert by_name["bad.nii.gz"]["status"] == "failed"
    assert by_name["bad.nii.gz"]["reason"].startswith("bad.nii.gz is damaged or cut short")
    assert by_name["bad.nii.gz"]["lesion_ml"] == ""
    for name in ("good.nii.gz", "also.nii.gz"):
        row = by_name[name]
        assert (row["status"], row["reason"], row["slices"]) == ("done", "", "6")
        assert float(row["lesion_ml"]) > 100
        assert {file.name for file in (out / row["case"]).iterdir()} >= {"findings.json", "lesions.nii.gz"}
    folders = set(summary_rows(out)) - {by_name["bad.nii.gz"]["case"]}
    assert folders == {"good", "deep__also"}
    assert {entry.name for entry in out.iterdir()} == {"summary.csv", "overview.html", "records"} | folders

    shutil.copy(scan_file, source / "bad.nii.gz")
    before = (out / by_name["good.nii.gz"]["case"] / "findings.json").stat().st_mtime_ns
    code, output, error = call(capsys, *arguments)
    assert (code, error) == (0, "")
    assert output.splitlines()[-3].startswith("3 of 3 done (2 before)")
    assert (out / by_name["good.nii.gz"]["case"] / "findings.json").stat().st_mtime_ns == before
    assert {row["status"] for row in summary_rows(out).values()} == {"done"}
    assert call(capsys, *arguments)[0] == 0  # nothing left to do


def test_a_csv_gives_the_scans_their_names(
    scan_file: Path, grey_band_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "list.csv"
    table.write_text(f"scan,case\n{scan_file},first\ngone.nii,second\n")
    assert call(capsys, table, "-o", tmp_path / "out", "--model", grey_band_model, "--workers", 1)[0] == 4
    by_name = summary_rows(tmp_path / "out")
    assert {name: row["status"] for name, row in by_name.items()} == {"first": "done", "second": "failed"}
    assert "there is no such file" in by_name["second"]["reason"]
    assert not (tmp_path / "out" / "key.csv").exists()
    assert (tmp_path / "out" / "first" / "findings.json").is_file()


@pytest.mark.slow
def test_two_shards_at_the_same_time_write_one_summary(scan_file: Path, grey_band_model: Path, tmp_path: Path) -> None:
    for number in range(4):
        shutil.copy(scan_file, tmp_path / f"ct{number}.nii.gz")
    scans, out, model = map(str, (tmp_path / "ct*.nii.gz", tmp_path / "out", grey_band_model))
    arguments = [*COMMAND, scans, "-o", out, "--model", model, "--shard"]
    both = [subprocess.Popen([*arguments, f"{number}/2"], stdout=subprocess.PIPE, text=True) for number in (1, 2)]
    for process in both:
        assert "2 of 2 done" in process.communicate()[0]
        assert process.returncode == 0
    assert [row["status"] for row in summary_rows(tmp_path / "out").values()] == ["done"] * 4


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("empty", "-o", "out"), 3, "no scan was found"),
        (("empty",), 2, "--output"),
        (("empty", "-o", "out", "--shard", "0/2"), 2, "expected i/n"),
        (("empty", "-o", "out", "--shard", "3/2"), 2, "expected i/n"),
        (("empty", "-o", "out", "--workers", "0"), 2, "--workers"),
        (("empty", "-o", "out", "--workers", "2", "--scheduler", "tcp://x:1"), 2, "leave one of the two out"),
        (("empty", "-o", "out", "--model", "no.onnx"), 1, "no.onnx is not there"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    arguments: tuple[str, ...],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    exit_code, output, error = call(capsys, *arguments)
    assert (exit_code, output) == (code, "")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_a_current_folder_that_was_removed_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, gone = write_scripts(tmp_path / "in", a="fine"), tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, _, error = call(capsys, source, "-o", "out")
    assert (code, error) == (1, "groundglass: the current folder was removed: change to one that exists\n")


def test_a_missing_dask_is_reported_with_the_command_that_installs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, error = call(capsys, tmp_path, "-o", tmp_path / "out", "--scheduler", "tcp://x:1")
    assert code == 1
    assert error == "groundglass: distributed is not installed: pip install 'groundglass[batch]'\n"


# Crashes and time limits


def test_a_scan_that_kills_its_process_twice_becomes_a_failed_row(tmp_path: Path) -> None:
    source = write_scripts(tmp_path / "in", a="fine", b="die", c="fine", d=f"die once {tmp_path / 'd'}", e="fine")
    _, progress = run_scripts(source, tmp_path / "out")
    assert len(progress.finished) == 5
    by_name = by_source(tmp_path / "out")
    assert {name: row["status"] for name, row in by_name.items() if row["status"] != "done"} == {"b.nii": "failed"}
    assert by_name["b.nii"]["reason"].startswith("its process died twice (signal 9)")
    assert not (tmp_path / "out" / by_name["b.nii"]["case"]).exists()
    assert not list((tmp_path / "out").glob(".groundglass-*"))


def test_cases_that_are_no_longer_in_the_source_are_told(tmp_path: Path) -> None:
    source = write_scripts(tmp_path / "in", a="", b="")
    assert run_scripts(source, tmp_path / "out")[0].notes == ()
    (source / "b.nii").rename(source / "c.nii")
    note = "1 case is not in the source now, but still in summary.csv and overview.html: b; to leave out a case, remove"
    assert run_scripts(source, tmp_path / "out")[0].notes[0].startswith(note)
    assert set(summary_rows(tmp_path / "out")) == {"a", "b", "c"}
    shutil.copy(source / "a.nii", source / "A.mha")  # both are named with a hash now
    assert "2 cases are" in plan_batch(str(source), tmp_path / "out", shard=(1, 2)).notes[0]
    for name in ("a", "b"):
        (tmp_path / "out" / "records" / f"{name}.json").unlink()
    assert run_scripts(source, tmp_path / "out")[0].notes == ()
    assert len(summary_rows(tmp_path / "out")) == 3


def test_a_worker_that_is_killed_is_replaced_and_its_scan_done(tmp_path: Path) -> None:
    source = write_scripts(tmp_path / "in", a="fine", b=f"hang once {tmp_path / 'b'}", c="fine", d="fine")
    killer = threading.Thread(target=lambda: os.kill(hanging_pids(tmp_path / "b")[0], signal.SIGKILL))
    killer.start()
    _, progress = run_scripts(source, tmp_path / "out", workers=1)
    killer.join()
    assert [record.status for record in progress.finished] == [ItemStatus.DONE] * 4
    assert len(summary_rows(tmp_path / "out")) == 4


def test_a_scan_that_exceeds_the_time_limit_becomes_a_row(tmp_path: Path) -> None:
    source = write_scripts(tmp_path / "in", a="fine", b=f"hang {tmp_path / 'b'}", c="fine")
    _, progress = run_scripts(source, tmp_path / "out", time_limit_s=1.5)
    assert not is_alive(hanging_pids(tmp_path / "b")[0])
    by_name = by_source(tmp_path / "out")
    statuses = {name: row["status"] for name, row in by_name.items()}
    assert statuses == {"a.nii": "done", "b.nii": "timed out", "c.nii": "done"}
    assert by_name["b.nii"]["reason"] == "took more than 1.5 s: give it more with --time-limit"
    assert not list((tmp_path / "out").glob(".groundglass-*"))
    assert len(progress.failed) == 1


def test_results_that_cannot_be_written_end_the_batch(tmp_path: Path) -> None:
    source = write_scripts(tmp_path / "in", a="fine", b="fine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "records").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        run_scripts(source, tmp_path / "out")


def test_a_batch_is_not_begun_beside_results_of_another_command(tmp_path: Path) -> None:
    source = write_scripts(tmp_path / "in", a="fine")
    (tmp_path / "findings.json").write_text("of another patient")
    with pytest.raises(OutputError, match="holds results of groundglass segment: name another folder"):
        plan_batch(str(source), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "findings.json"}


# Interrupted and resumed


def test_ctrl_c_leaves_no_process_and_no_partial_results_and_the_next_call_resumes(tmp_path: Path) -> None:
    source, out = write_scripts(tmp_path / "in", a="fine", b=f"hang {tmp_path / 'b'}"), tmp_path / "out"
    code = (
        "import signal; from groundglass.apps.batch import run; from helpers.fake_batch import FakeBatchWorkerFactory\n"
        "run.BatchWorkerFactory = lambda settings, threads: FakeBatchWorkerFactory(settings)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # the background jobs of a shell ignore it\n"
        "from groundglass.cli import main; main()"
    )
    arguments = [sys.executable, "-c", code, "batch", str(source), "-o", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    pid, owner = hanging_pids(tmp_path / "b")
    assert owner == process.pid
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert error.startswith("groundglass: interrupted: 1 of 2 done")
    assert error.endswith("run the same command again to continue\n")
    wait_until(lambda: not is_alive(pid), 10)
    assert [row["status"] for row in summary_rows(out).values()] == ["done"]
    assert not list(out.glob(".groundglass-*"))

    (source / "b.nii").write_text("fine")
    planned, _ = run_scripts(source, out)
    assert [item.source.name for item in planned.pending] == ["b.nii"]
    assert [row["status"] for row in summary_rows(out).values()] == ["done"] * 2


def test_partial_results_of_a_killed_batch_are_removed(tmp_path: Path) -> None:
    source, out = write_scripts(tmp_path / "in", a="fine"), tmp_path / "out"
    (item,) = plan_batch(str(source), out).items
    partial = out / f".groundglass-{item.name}-0123abcd" / "lesions"
    partial.mkdir(parents=True)
    (partial / "lesions.nii.gz").write_bytes(b"half")
    run_scripts(source, out)
    assert {file.name for file in (out / item.name).iterdir()} == {"findings.json"}
    assert not partial.parent.exists()


def test_results_whose_record_was_never_written_are_removed_with_the_item(tmp_path: Path) -> None:
    """A process was killed between the two; if the scan fails from then on, they would stay beside its failed row."""
    (tmp_path / "ct" / "lesions").mkdir(parents=True)
    for name in ("findings.json", "report.html", "lesions.dcm", "lesions/a.png", "notes.txt"):
        (tmp_path / "ct" / name).touch()
    remove_results(tmp_path, "ct")
    assert {path.name for path in (tmp_path / "ct").iterdir()} == {"notes.txt"}
    (tmp_path / "ct" / "report.html").touch()  # without findings it is no result
    remove_results(tmp_path, "ct")
    assert {path.name for path in (tmp_path / "ct").iterdir()} == {"notes.txt", "report.html"}


def test_findings_are_removed_last_where_no_record_lists_the_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ct").mkdir()
    for name in ("findings.json", "report.html", "preview.png"):
        (tmp_path / "ct" / name).touch()
    removed: list[str] = []
    monkeypatch.setattr(Path, "unlink", lambda path, **_: removed.append(path.name))
    remove_results(tmp_path, "ct")
    assert removed.index("findings.json") > max(map(removed.index, ("report.html", "preview.png")))


def test_files_of_others_where_results_belong_cost_one_scan_and_stay(tmp_path: Path) -> None:
    """As where a batch is written into the folder of its data set, whose masks are called like ours."""
    for name in ("a.nii", "b.nii"):
        nifti.write_scan(chest_phantom(shape=SHAPE).scan, tmp_path / name)
    mask = tmp_path / "a" / "lesions.nii.gz"
    mask.parent.mkdir()
    mask.write_text("drawn by hand")
    planned = plan_batch([tmp_path / "a.nii", tmp_path / "b.nii"], tmp_path)
    for _ in range(2):
        records = [processing.process_item(item, planned.settings, fake_segmenter()) for item in planned.items]
        assert [record.status for record in records] == [ItemStatus.FAILED, ItemStatus.DONE]
        assert str(records[0].reason).endswith("is not a file of an earlier result: name another folder, or remove it")
        assert [path.name for path in mask.parent.iterdir()] == [mask.name]
        assert mask.read_text() == "drawn by hand"


def test_a_record_names_no_file_outside_of_its_item_to_be_removed(tmp_path: Path) -> None:
    """A folder of results may come from someone else."""
    source, out = write_scripts(tmp_path / "in", a="fine"), tmp_path / "out"
    planned, _ = run_scripts(source, out)
    (name,) = (item.name for item in planned.items)
    record = read_record(out, name)
    assert record is not None
    outside = [out / "mine.txt", tmp_path / "mine.txt"]
    for path in outside:
        path.touch()
    write_record(record.model_copy(update={"files": ("../mine.txt", str(outside[1]), "findings.json")}), out)
    remove_results(out, name)
    assert all(path.exists() for path in outside)
    assert not (out / name).exists()


@pytest.mark.parametrize("step", range(3))
def test_a_kill_while_results_are_removed_leaves_an_item_that_is_not_done_and_no_unknown_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    source, out = write_scripts(tmp_path / "in", a="fine"), tmp_path / "out"
    planned, _ = run_scripts(source, out)
    (item,) = planned.items
    (out / item.name / "lesions.nii.gz").touch()
    record = read_record(out, item.name)
    assert record is not None
    write_record(record.model_copy(update={"files": ("lesions.nii.gz", "findings.json")}), out)
    assert is_done(item, planned.settings)
    unlink, calls = Path.unlink, list[Path]()

    def unlink_or_end(path: Path, missing_ok: bool = False) -> None:
        if len(calls) > step:
            raise KeyboardInterrupt
        calls.append(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_or_end)
    with pytest.raises(KeyboardInterrupt):
        remove_results(out, item.name)
    monkeypatch.undo()
    assert not is_done(item, planned.settings)
    remove_results(out, item.name)
    assert not (out / item.name).exists()


def test_removing_the_results_of_an_item_leaves_those_that_another_process_is_writing(tmp_path: Path) -> None:
    """Names may begin alike: two shards, or two Dask workers, write `ct` and `ct-2` at the same time."""
    with staged_folder(tmp_path / "ct-2") as other:
        (tmp_path / "records").mkdir()
        (tmp_path / "records" / "ct-2.json").touch()
        remove_results(tmp_path, "ct")
        (other / "findings.json").write_text("{}")
    assert (tmp_path / "ct-2" / "findings.json").is_file()
    assert (tmp_path / "records" / "ct-2.json").is_file()


def test_two_processes_that_write_the_same_item_leave_one_whole_result(tmp_path: Path) -> None:
    """A Dask scheduler may give an item to a second worker while the first is cut off but still runs."""
    with staged_folder(tmp_path / "ct") as slow:
        (slow / "findings.json").write_text("{}")
        with staged_folder(tmp_path / "ct") as fast:
            (fast / "findings.json").write_text("{}")
    assert [path.name for path in tmp_path.rglob("*")] == ["ct", "findings.json"]


@pytest.mark.parametrize("fails", [False, True])
def test_two_batches_at_once_with_other_options_leave_no_record_beside_the_results_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    write_series(chest_phantom(shape=SHAPE).scan, tmp_path / "in" / "series")
    planned = plan_batch(str(tmp_path / "in"), tmp_path / "out")
    (item,), settings = planned.items, planned.settings
    named = replace(settings, options=replace(settings.options, with_identity=True))
    write, remove, segmenter, begun = write_record, remove_results, fake_segmenter(), threading.Event()
    other = threading.Thread(target=processing.process_item, args=(item, named, segmenter))

    def remove_results_and_tell(folder: Path, name: str) -> None:
        if threading.current_thread() is other:
            begun.set()
        remove(folder, name)

    def write_after_the_other(record: ItemRecord, folder: Path) -> None:
        monkeypatch.setattr(processing, "write_record", write)
        other.start()
        if begun.wait(1):  # it may write between the results and the record of this one
            other.join()
        write(record, folder)

    monkeypatch.setattr(processing, "remove_results", remove_results_and_tell)
    monkeypatch.setattr(processing, "write_record", write_after_the_other)
    if fails:
        processing.record_loss(item, settings, ItemStatus.FAILED, 0.0, "died")
    else:
        processing.process_item(item, settings, segmenter)
    other.join()
    record = read_record(tmp_path / "out", item.name)
    assert record is not None
    assert record.status is ItemStatus.DONE
    assert record.with_identity == (NAME in (tmp_path / "out" / item.name / "findings.json").read_text())
    assert is_done(item, named)


def test_an_item_is_done_if_its_results_are_of_the_same_source_version_model_and_options(tmp_path: Path) -> None:
    source, out = write_scripts(tmp_path / "in", a="fine"), tmp_path / "out"
    planned, _ = run_scripts(source, out)
    (item,), settings = planned.items, planned.settings
    assert is_done(item, settings)
    assert not is_done(item, replace(settings, model=settings.model.model_copy(update={"sha256": "1" * 64})))
    for changes in ({"intensity": IntensityKind.HU}, {"with_identity": True}):
        assert not is_done(item, replace(settings, options=replace(settings.options, **changes)))
    others = EngineConfig(fast=True), EngineConfig(precision=Precision.F32), EngineConfig(EngineName.ONNXRUNTIME)
    for engine in others:
        other = plan_batch(str(source), out, BatchOptions(engine=engine))
        assert other.pending == other.items
    assert not is_done(item, replace(settings, version="9.9.9"))
    findings = out / item.name / "findings.json"
    findings.rename(out / "elsewhere")
    assert not is_done(item, settings)
    (out / "elsewhere").rename(findings)
    os.utime(item.source, (1, 1))
    assert not is_done(item, settings)


@pytest.mark.parametrize("changed", ["case;scan\r\nab;/data/a.nii\r\n", "case,scan\r\nab\r\n", "a,b\r\nab,cd\r\n"])
def test_a_key_that_a_spreadsheet_changed_is_refused_and_kept(tmp_path: Path, changed: str) -> None:
    items = [BatchItem("cd", Path("/data/b.nii"), "b.nii")]
    (tmp_path / "key.csv").write_text(changed)
    with pytest.raises(ConfigError, match=r"key.csv was changed"):
        write_key(items, tmp_path)
    assert (tmp_path / "key.csv").read_text() == changed.replace("\r\n", "\n")


@pytest.mark.slow
def test_an_item_that_fails_later_loses_its_results_and_keeps_the_files_of_others(tmp_path: Path) -> None:
    source, out = write_scripts(tmp_path / "in", a="fine"), tmp_path / "out"
    planned, _ = run_scripts(source, out)
    folder = out / planned.items[0].name
    (folder / "notes.txt").write_text("mine")
    (source / "a.nii").write_text("die")
    run_scripts(source, out)
    assert {file.name for file in folder.iterdir()} == {"notes.txt"}
    (source / "a.nii").write_text("fine again")
    run_scripts(source, out)
    assert {file.name for file in folder.iterdir()} == {"notes.txt", "findings.json"}


def test_the_last_writer_of_a_summary_writes_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_scripts(tmp_path / "in", a="fine", b="fine"), tmp_path / "out"
    planned, _ = run_scripts(source, out)
    second = out / "records" / f"{planned.items[1].name}.json"
    late = second.read_bytes()
    second.unlink()
    summary = Summary(out, pseudonyms=False)

    def write_and_finish_another(path: Path, data: bytes) -> None:  # another shard finishes an item meanwhile
        write_atomic(path, data)
        if not second.exists():
            second.write_bytes(late)

    monkeypatch.setattr("groundglass.apps.batch.summary.write_atomic", write_and_finish_another)
    summary.write()
    assert len(summary_rows(out)) == 2


def test_an_item_with_a_damaged_record_is_processed_again(tmp_path: Path) -> None:
    source, out = write_scripts(tmp_path / "in", a="fine"), tmp_path / "out"
    planned, _ = run_scripts(source, out)
    record = out / "records" / f"{planned.items[0].name}.json"
    record.write_bytes(record.read_bytes()[:40])
    assert read_record(out, planned.items[0].name) is None
    again, _ = run_scripts(source, out)
    assert again.pending == planned.items
    assert len(summary_rows(out)) == 1


# Privacy


def write_named_sources(folder: Path, scan_file: Path) -> Path:
    """Write sources of every format, good and bad, with a patient's name in files, folders and headers."""
    source = folder / "PLANTED_root"
    (source / "PLANTED^Josephine").mkdir(parents=True)
    shutil.copy(scan_file, source / "PLANTED^Josephine" / "PLANTED-1.nii.gz")
    (source / "PLANTED^Josephine" / "bad PLANTED.nii.gz").write_bytes(b"PLANTED" * 40)
    (source / "PLANTED.nrrd").write_bytes(b"NRRD0004\ntype: PLANTED\ndimension: 3\nsizes: 4 4 4\n\n")
    phantom = chest_phantom(shape=SHAPE, oblique=False)
    write_series(phantom.scan, source / "dicom PLANTED")
    write_series(replace(phantom.scan, values=phantom.scan.values), source / "PLANTED MR", Modality="MR")
    for name in ("PLANTED slices", "PLANTED colour"):
        (source / name).mkdir()
        grey = np.clip((phantom.scan.values + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
        for z in (2, 3):
            colours = grey[z] if name.endswith("slices") else np.stack([grey[z], 255 - grey[z], grey[z]], -1)
            Image.fromarray(colours).save(source / name / f"PLANTED {z}.png")
    return source


def name_and_content(path: Path) -> str:
    """Return a file's name and its content, uncompressed."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    return f"{path.name} {content.decode('latin-1')}"


@pytest.mark.slow
def test_with_pseudonyms_no_output_holds_a_name_or_a_path(
    scan_file: Path, grey_band_model: Path, tmp_path: Path
) -> None:
    source, out, temporary = write_named_sources(tmp_path, scan_file), tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    done = command(source, "-o", out, "--model", grey_band_model, "--pseudonyms", temporary=temporary)
    assert done.returncode == 4, done.stderr
    statuses = {name: row["status"] for name, row in by_source(out).items()}
    assert sorted(name for name, status in statuses.items() if status == "done") == [
        "PLANTED slices",
        "PLANTED-1.nii.gz",
        "dicom PLANTED",
    ]
    assert len(statuses) == 7
    files = [
        file for folder in (out, temporary) for file in folder.rglob("*") if file.is_file() and file.name != "key.csv"
    ]
    assert len(files) > 15
    assert (out / "key.csv").stat().st_mode & 0o777 == 0o600
    for text in (done.stdout, done.stderr, *map(name_and_content, files)):
        for secret in ("planted", NAME, NUMBER, "josephine", "2020-03-01", "20200301", str(tmp_path / "PLANTED_root")):
            assert secret.casefold() not in text.casefold()
    assert {file.name for file in out.glob("*/lesions/*")} == {"slice-0001.png", "slice-0002.png"}
    assert not list(out.glob("*/*.dcm"))


def test_sources_are_named_and_dicom_is_written_and_patients_are_named_only_with_identity(
    scan_file: Path, grey_band_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_named_sources(tmp_path, scan_file), tmp_path / "out"
    options = ("--model", grey_band_model, "--workers", 1)
    assert call(capsys, source, "-o", out, *options)[0] == 4
    by_name = summary_rows(out)
    (series,) = [row for row in by_name.values() if row["source"] == str(source / "dicom PLANTED")]
    assert series["case"] == "dicom_PLANTED"
    assert (out / series["case"] / "lesions.dcm").is_file()
    findings = (out / series["case"] / "findings.json").read_text()
    assert NAME not in findings
    assert '"label": "dicom_PLANTED"' in findings
    assert any("PLANTED 2.png is coloured" in row["reason"] for row in by_name.values())
    assert not (out / "key.csv").exists()
    with pytest.raises(ConfigError, match="was begun without --pseudonyms: continue in the same way"):
        plan_batch(str(source), out, BatchOptions(pseudonyms=True))
    named = tmp_path / "named"
    assert call(capsys, source / "dicom PLANTED", "-o", named, "--with-identity", *options)[0] == 0
    assert NAME in next(named.glob("*/findings.json")).read_text()


def test_the_summary_holds_zones_density_thickness_largest_lesion_and_warnings_in_words(
    scan_file: Path, grey_band_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    write_series(chest_phantom(shape=SHAPE).scan, tmp_path / "in" / "series", ConvolutionKernel="B60f")
    assert call(capsys, tmp_path / "in", "-o", out, "--model", grey_band_model, "--workers", 1)[0] == 0
    (row,) = summary_rows(out).values()
    findings = json.loads((out / row["case"] / "findings.json").read_text())
    for zone in findings["zones"]:
        assert float(row[f"{zone['side']}_{zone['third']}_percent"]) == zone["lesion_share_of_lung_percent"]
    bands = [
        float(row[f"{name}_percent"]) for name in ("hyperinflated", "normally_aerated", "poorly_aerated", "not_aerated")
    ]
    assert bands == [band["share_of_lung_percent"] for band in findings["density_bands"]]
    largest = findings["largest_lesions"][0]
    assert float(row["largest_lesion_ml"]) == largest["volume_ml"]
    assert row["largest_lesion_where"] == f"{largest['side']} {largest['zone']}"
    assert int(row["largest_lesion_image"]) == findings["input"]["image_numbers"][largest["slice"]]
    assert float(row["lesion_hu"]) == findings["mean_intensity"]["lesion_hu"]
    assert float(row["slice_thickness_mm"]) == pytest.approx(40, abs=1)
    assert (row["kernel"], row["extent"]) == ("B60f", findings["extent"]["name"])
    assert row["warnings"] == "; ".join(findings["warnings"])
    assert row["lesion_ml_low"] == row["consolidation_ml"] == ""


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
def test_names_in_any_character_set_come_through_a_batch(named: bool, tmp_path: Path) -> None:
    """Also if the folders are named after the patients, in bytes that are no Unicode."""
    scan, folders = chest_phantom(shape=SHAPE).scan, {}
    kinds = list(SETS) if named else ["western", "japanese", "misspelt", "unstated"]
    for number, kind in enumerate(kinds):
        _, raw, _ = SETS[kind]
        write_named_series(scan, tmp_path / "in" / str(number), kind)
        folder = (tmp_path / "in" / str(number)).rename(tmp_path / "in" / f"{number} {os.fsdecode(raw)}")
        folders[str(folder)] = kind
    planned = plan_batch(
        str(tmp_path / "in"), tmp_path / "out", BatchOptions(with_identity=named, pseudonyms=not named)
    )
    progress = BatchProgress(planned)
    run_batch(planned, progress, 1, 60, worker_factory=GreyBandBatchWorkerFactory(planned.settings))
    rows = summary_rows(tmp_path / "out")
    assert [(row["status"], row["reason"]) for row in rows.values()] == [("done", "")] * len(kinds)
    if named:
        for item in planned.items:
            _, _, name = SETS[folders[str(item.source)]]
            findings = json.loads((tmp_path / "out" / item.name / "findings.json").read_text(encoding="utf-8"))
            assert findings["input"]["identity"]["patient_name"] == name
            for file in ("lesions.dcm", "findings.dcm"):
                assert str(pydicom.dcmread(tmp_path / "out" / item.name / file).PatientName) == name
    else:
        assert not list((tmp_path / "out").rglob("*.dcm"))
        content = b"".join(path.read_bytes() for path in (tmp_path / "out").glob("*/*.[jh][st]*"))
        content += (tmp_path / "out" / "summary.csv").read_bytes()
        assert content
        for _, raw, name in map(SETS.__getitem__, kinds):
            for part in (raw, name.encode(), json.dumps(name)[1:-1].encode()):
                assert part not in content


# Progress


def test_the_progress_table_shows_counts_running_items_and_failures(tmp_path: Path) -> None:
    source = write_scripts(tmp_path / "in", a="fine", b="fine", c="fine")
    planned = plan_batch(str(source), tmp_path / "out")
    progress = BatchProgress(replace(planned, pending=planned.pending[1:]))
    assert progress.line == "1 of 3 done (1 before)"
    reason = "[red]unread[/red]"
    record = ItemRecord(
        case="x", status=ItemStatus.FAILED, reason=reason, seconds=1, source=None, fingerprint="", intensity=None,
        model=planned.settings.model,
    )  # fmt: skip
    progress.finished.append(record)
    progress.running["y"] = 0.0
    lines = [str(cell) for cell in progress_table(progress).columns[0].cells]
    assert lines[0].startswith("1 of 3 done (1 before), 1 failed, ")
    assert lines[0].endswith(" left")
    assert lines[1].startswith("  y  ")
    assert lines[2] == f"  x: failed: {reason}"


@pytest.mark.slow
def test_memory_stays_flat(scan_file: Path) -> None:
    bench = Path(__file__).parents[3] / "bench" / "batch.py"
    arguments = [sys.executable, str(bench), "memory", "--scans", "80", "--growth-mib", "40"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_plan_carries_the_folder_the_model_and_the_options(tmp_path: Path) -> None:
    source, options = write_scripts(tmp_path / "in", a="fine"), BatchOptions(with_identity=True)
    _, card, _ = resolve_model(None, options.engine)
    model = ModelRef(name=card.name, sha256=card.sha256)
    plan = plan_batch(str(source), tmp_path / "out", options)
    assert plan.settings == BatchSettings(tmp_path / "out", model, options, card.rules)
