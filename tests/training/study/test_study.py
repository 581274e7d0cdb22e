"""A small study on phantoms, from the study file to the report."""

import csv
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from groundglass import cli
from groundglass.data.prepare import PreparationSettings, prepare
from groundglass.errors import ConfigError
from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from groundglass.training.provenance import read_provenance
from groundglass.training.run import train
from groundglass.training.study.plan import Study, TrainingJob, plan, read_study, select_rows
from groundglass.training.study.report import write_study
from groundglass.training.study.results import read_counts
from groundglass.training.study.run import completed_outcome, progress_table, run_job, run_jobs

pytestmark = pytest.mark.slow
STUDY = """
name = "tiny"
protocols = ["A-slice", "B-patient"]
[change.training]
optimiser = "adamw"
learning_rate = 5e-3
epochs = 2
early_stopping_patience = 0
[[rows]]
name = "plain"
config = "base.toml"
change.network.attention = false
[[rows]]
name = "attention"
config = "base.toml"
paper = { dice = 83.1, sensitivity = 86.7, specificity = 99.3 }
[[rows]]
name = "baseline"
config = "base.toml"
change.baseline = "AttentionUnet"
"""
DISTILLED = """
[[rows]]
name = "distilled"
config = "base.toml"
change.teachers.weight = 0.5
change.loss.cross_entropy = 0.5
teachers = ["plain", "attention"]
[[rows]]
name = "further"
config = "base.toml"
begin = "distilled"
"""
BASE = 'name = "base"\n[network]\nwidths = [4, 8, 8]\n[sampling]\nbatch_size = 4\nsamples = 16\n'


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five phantoms in the layout of the MedSeg volumes, prepared."""
    root = tmp_path_factory.mktemp("data")
    for directory in ("rp_im", "rp_msk"):
        (root / directory).mkdir()
    for seed, name in enumerate("14589"):
        phantom = chest_phantom(seed, (12, 96, 128))
        grey = np.clip((phantom.scan.values.astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
        for directory, values in (("rp_im", grey), ("rp_msk", phantom.lesions.voxels.astype(np.uint8))):
            nifti.write_scan(Scan(values, phantom.scan.geometry), root / directory / f"{name}.nii.gz")
    folder = tmp_path_factory.mktemp("prepared") / "all"
    prepare([root], folder, PreparationSettings((48, 64)))
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "base.toml").write_text(BASE)
    (folder / "study.toml").write_text(STUDY)
    return folder / "study.toml"


def call(*arguments: object) -> int:
    """Run `groundglass study`, and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["groundglass", "study", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def done(file: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished study: all but one were trained one by one, the last by the command, in a process of its own."""
    folder = tmp_path_factory.mktemp("study")
    _, jobs = planned(file, prepared, folder)
    for job in jobs[:-1]:
        run_job(job, prepared)
    assert call(file, "--data", prepared, "-o", folder, "--workers", "2") == 0
    return folder


def planned(file: Path, prepared: Path, folder: Path) -> tuple[Study, tuple[TrainingJob, ...]]:
    study = read_study(file)
    return study, plan(study, prepared, folder)


def table(folder: Path, name: str = "table.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_row_is_trained_and_scored_under_every_protocol(done: Path, file: Path, prepared: Path) -> None:
    _, jobs = planned(file, prepared, done)
    assert len(jobs) == 6
    for job in jobs:
        counts = read_counts(job.run)
        parts = {member.split(":")[0] for member in job.split.test}
        assert {name.split(":")[0] for name in counts.slices} == parts
        (row,) = (
            each
            for each in table(done)
            if (each["row"], each["protocol"], each["counted"], each["score"])
            == (job.row, job.protocol, "every slice", "dice")
        )
        true_positive, false_positive, false_negative, _ = counts.counts.sum(0)
        dice = 2 * true_positive / (2 * true_positive + false_positive + false_negative)
        assert float(row["value"]) == pytest.approx(dice, abs=1e-5)


def test_the_report_shows_the_papers_scores_beside_ours(done: Path) -> None:
    text = (done / "study.md").read_text()
    assert "6 of 6 trainings done" in text
    assert "| 83.1 | 86.7 | 99.3 |" in text
    assert "**Leaks" in text.split("## B-patient")[0]
    assert "**Leaks" not in text.split("## B-patient")[1]
    rows = ("plain", "attention", "baseline")
    pairs = {(each["row"], each["against"]) for each in table(done, "differences.csv")}
    assert pairs == {(row, before) for i, row in enumerate(rows) for before in rows[:i]}
    beside = {
        (row["row"], row["score"]): row["paper_percent"] for row in table(done) if row["counted"] == "lesion slices"
    }
    assert (beside["attention", "sensitivity"], beside["plain", "sensitivity"]) == ("86.7", "")
    for name in ("figure-6.png", "learning-curves.png"):
        with Image.open(done / name) as picture:
            assert np.asarray(picture).std() > 10


def test_a_row_is_distilled_from_the_trainings_of_its_protocol(
    done: Path, file: Path, prepared: Path, tmp_path: Path
) -> None:
    folder, distilled = shutil.copytree(done, tmp_path / "study"), file.with_name("distilled.toml")
    distilled.write_text(STUDY + DISTILLED)
    assert call(distilled, "--data", prepared, "-o", folder, "--workers", "2") == 0
    _, jobs = planned(distilled, prepared, folder)
    assert "10 of 10 trainings done" in (folder / "study.md").read_text()
    for job in jobs:
        provenance = read_provenance(job.run)
        assert provenance is not None
        rows = ("plain", "attention") if job.row == "distilled" else ()
        assert [teacher.path.parts[-3:-1] for teacher in provenance.teachers] == [(row, job.protocol) for row in rows]
        start = provenance.start.path.parts[-3:-1] if provenance.start else None
        assert start == (("distilled", job.protocol) if job.row == "further" else None)
        assert set(provenance.trained_on.members) == {*job.split.train, *job.split.validation}
    job = next(job for job in jobs if job.teachers)
    run_job(job, prepared)
    with pytest.raises(ConfigError, match="was started with other teachers, or they were trained again"):
        run_job(replace(job, teachers=job.teachers[:1]), prepared)


def test_finished_trainings_are_not_repeated(done: Path, file: Path, prepared: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("runs/**/*.c*") if path.suffix in (".csv", ".ckpt")}
    assert before
    assert call(file, "--data", prepared, "-o", done) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_run_copied_from_elsewhere_is_resumed(done: Path, file: Path, prepared: Path, tmp_path: Path) -> None:
    """Resume an interrupted run, which has one epoch of two and no result."""
    study, jobs = planned(file, prepared, tmp_path)
    job = next(job for job in jobs if job.row == "plain")
    one_epoch = replace(job.config.training, optimiser="adam", epochs=1)
    two_epochs = job.config.model_copy(update={"training": replace(one_epoch, epochs=2)})
    elsewhere = tmp_path / "elsewhere"
    train(two_epochs.model_copy(update={"training": one_epoch}), prepared, job.split, elsewhere)
    (elsewhere / "result.json").unlink()
    job.run.parent.mkdir(parents=True)
    shutil.move(elsewhere, job.run)
    run_job(replace(job, config=two_epochs), prepared)
    assert len(table(job.run, "metrics.csv")) == 2
    assert json.loads((job.run / "result.json").read_text())["checkpoint"]
    write_study(study, jobs, prepared, tmp_path)
    assert "1 of 6 trainings done" in (tmp_path / "study.md").read_text()


def test_a_training_that_fails_does_not_stop_the_others(
    done: Path, file: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(done, tmp_path / "study")
    _, jobs = planned(file, prepared, tmp_path / "study")
    (bad,) = (job for job in select_rows(jobs, ["plain"]) if job.protocol == "A-slice")
    config = json.loads((bad.run / "config.json").read_text())
    config["training"]["learning_rate"] = 1.0
    (bad.run / "config.json").write_text(json.dumps(config))
    (last,) = (job for job in select_rows(jobs, ["plain"]) if job.protocol == "B-patient")
    (last.run / "test.csv").unlink()
    assert call(file, "--data", prepared, "-o", tmp_path / "study", "--only", "plain") == 1
    printed = capsys.readouterr()
    assert "started with another configuration" in printed.out
    assert "1 of 2 trainings failed" in printed.err
    assert (last.run / "test.csv").is_file()


def test_without_the_original_files_scoring_is_left_to_a_later_call(
    done: Path, file: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "study"
    shutil.copytree(prepared, elsewhere)
    manifest = elsewhere / "manifest.json"
    manifest.write_text(manifest.read_text().replace("/rp_im/", "/gone/"))
    shutil.copytree(done, folder)
    _, jobs = planned(file, prepared, folder)
    (job,) = (job for job in select_rows(jobs, ["plain"]) if job.protocol == "B-patient")
    (job.run / "test.csv").unlink()
    assert call(file, "--data", elsewhere, "-o", folder, "--only", "plain") == 0
    printed = capsys.readouterr().out
    assert "to be scored" in printed
    assert "call study there" in printed
    assert not job.done
    assert call(file, "--data", prepared, "-o", folder, "--only", "plain") == 0
    assert job.done


def test_a_job_with_damaged_scores_is_not_complete(done: Path, file: Path, prepared: Path, tmp_path: Path) -> None:
    _, jobs = planned(file, prepared, done)
    job = replace(jobs[0], run=shutil.copytree(jobs[0].run, tmp_path / "run"))
    assert re.fullmatch(r"Dice \d+\.\d", completed_outcome(job, prepared) or "")
    (job.run / "test.csv").write_text("case\nvolumes/4\n")
    assert completed_outcome(job, prepared) is None


def test_a_job_whose_folder_cannot_be_written_fails_with_the_reason(
    done: Path, file: Path, prepared: Path, tmp_path: Path
) -> None:
    _, jobs = planned(file, prepared, done)
    blocked = replace(jobs[0], run=tmp_path / "file" / "run")
    (tmp_path / "file").write_text("")
    failed: dict[Path, str] = {}
    messages: list[str] = []
    run_jobs([blocked, jobs[1]], prepared, failed, on_message=lambda job, outcome: messages.append(outcome))
    assert re.fullmatch(r"\S+/file/run cannot be written: Not a directory; .*", failed.pop(blocked.run))
    assert not failed
    assert len(messages) == 2
    assert messages[0].startswith("Dice")  # the job that is done
    assert messages[1].startswith("failed: ")


def test_a_row_starts_from_the_weights_of_another(done: Path, file: Path, prepared: Path, tmp_path: Path) -> None:
    further = file.with_name("further.toml")
    row = '[[rows]]\nname = "further"\nconfig = "base.toml"\nbegin = "plain"\nchange.network.attention = false\n'
    row += "change.field.neighbours_mm = 5.0\nchange.sampling.lesion_free = true\n"
    further.write_text(STUDY + row)
    study, jobs = planned(further, prepared, done)
    job = next(job for job in jobs if job.row == "further")
    own = replace(job, run=tmp_path / "further")
    run_job(own, prepared)
    run_job(own, prepared)  # is already done
    provenance = read_provenance(own.run)
    assert provenance is not None
    assert provenance.start is not None
    assert provenance.start.path == job.start == done / "runs" / "plain" / job.protocol / "seed-0"
    result = (own.run / "result.json").read_bytes()
    for content in (result, b"{"):  # finished, and with a result that has to be made again
        (own.run / "result.json").write_bytes(content)
        for start in (None, done / "runs" / "attention" / job.protocol / "seed-0"):
            with pytest.raises(ConfigError, match="was started from other weights, or they were trained again"):
                run_job(replace(own, start=start), prepared)
    (own.run / "result.json").write_bytes(result)
    write_study(study, [own], prepared, tmp_path)
    assert "| further | " in (tmp_path / "study.md").read_text()


def test_a_dry_run_trains_nothing(
    file: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(file, "--data", prepared, "-o", tmp_path, "--only", "plain", "--dry-run") == 0
    assert "one after another" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_the_progress_table_is_read_from_the_run_folders(done: Path, file: Path, prepared: Path) -> None:
    _, jobs = planned(file, prepared, done)
    states = list(progress_table(jobs, {jobs[0].run: "no power"}).columns[-1].cells)
    assert states == ["failed: no power", *["done"] * 5]
    _, jobs = planned(file, prepared, done / "nowhere")
    assert set(progress_table(jobs).columns[-1].cells) == {""}


def test_unknown_rows_and_protocols_are_refused(
    file: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(file, "--data", prepared, "-o", tmp_path, "--only", "other") == 2
    assert "expected any of plain, attention, baseline" in capsys.readouterr().err
    wrong = file.with_name("wrong.toml")
    wrong.write_text(STUDY.replace('"B-patient"]', '"E"]'))
    assert call(wrong, "--data", prepared, "-o", tmp_path) == 2
    assert "no protocol 'E'" in capsys.readouterr().err
