"""A small study on phantoms, from the file to the table."""

import csv
import json
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
from groundglass.training.study.run import _is_over, progress_table, run_job

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
name = "peer"
config = "base.toml"
change.baseline = "AttentionUnet"
"""
TAUGHT = """
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
    """Five phantoms in the publisher's layout."""
    root = tmp_path_factory.mktemp("data")
    for directory in ("rp_im", "rp_msk"):
        (root / directory).mkdir()
    for seed, name in enumerate("14589"):
        phantom = chest_phantom(seed, (20, 96, 128))
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


def call(*words: object) -> int:
    """The command line's exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["groundglass", "study", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def done(file: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole study: two rows one training after another, then the command does what is left, two at a time."""
    folder = tmp_path_factory.mktemp("study")
    _, jobs = planned(file, prepared, folder)
    for job in select_rows(jobs, ["plain", "attention"]):
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
        true_positive, false_positive, false_negative, _ = counts.of.sum(0)
        dice = 2 * true_positive / (2 * true_positive + false_positive + false_negative)
        assert float(row["value"]) == pytest.approx(dice, abs=1e-5)


def test_the_report_shows_the_papers_figures_beside_ours(done: Path) -> None:
    text = (done / "study.md").read_text()
    assert "6 of 6 trainings done" in text
    assert "| 83.1 | 86.7 | 99.3 |" in text
    assert "**Leaks" in text.split("## B-patient")[0]
    assert "**Leaks" not in text.split("## B-patient")[1]
    rows = ("plain", "attention", "peer")
    pairs = {(each["row"], each["against"]) for each in table(done, "differences.csv")}
    assert pairs == {(row, before) for i, row in enumerate(rows) for before in rows[:i]}
    beside = {
        (row["row"], row["score"]): row["paper_percent"] for row in table(done) if row["counted"] == "lesion slices"
    }
    assert (beside["attention", "sensitivity"], beside["plain", "sensitivity"]) == ("86.7", "")
    for name in ("figure-6.png", "learning-curves.png"):
        with Image.open(done / name) as picture:
            assert np.asarray(picture).std() > 10


@pytest.mark.slow
def test_a_row_is_taught_by_the_trainings_of_its_protocol(
    done: Path, file: Path, prepared: Path, tmp_path: Path
) -> None:
    folder, taught = shutil.copytree(done, tmp_path / "study"), file.with_name("taught.toml")
    taught.write_text(STUDY + TAUGHT)
    assert call(taught, "--data", prepared, "-o", folder, "--workers", "2") == 0
    _, jobs = planned(taught, prepared, folder)
    assert "10 of 10 trainings done" in (folder / "study.md").read_text()
    for job in jobs:
        lineage = read_provenance(job.run)
        assert lineage is not None
        rows = ("plain", "attention") if job.row == "distilled" else ()
        assert [teacher.path.parts[-3:-1] for teacher in lineage.teachers] == [(row, job.protocol) for row in rows]
        start = lineage.start.path.parts[-3:-1] if lineage.start else None
        assert start == (("distilled", job.protocol) if job.row == "further" else None)
        assert set(lineage.trained_on.members) == {*job.split.train, *job.split.validation}
    job = next(job for job in jobs if job.teachers)
    run_job(job, prepared)
    with pytest.raises(ConfigError, match="was begun with other teachers, or they were trained anew"):
        run_job(replace(job, teachers=job.teachers[:1]), prepared)


def test_what_is_done_is_not_done_again(done: Path, file: Path, prepared: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("runs/**/*.c*") if path.suffix in (".csv", ".ckpt")}
    assert before
    assert call(file, "--data", prepared, "-o", done) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_run_that_was_copied_from_elsewhere_is_gone_on_with(
    done: Path, file: Path, prepared: Path, tmp_path: Path
) -> None:
    """As after a cut: one epoch of two is there, without a result."""
    study, jobs = planned(file, prepared, tmp_path)
    job = next(job for job in jobs if job.row == "plain")
    once = replace(job.config.training, optimiser="adam", epochs=1)
    twice = job.config.model_copy(update={"training": replace(once, epochs=2)})
    elsewhere = tmp_path / "elsewhere"
    train(twice.model_copy(update={"training": once}), prepared, job.split, elsewhere)
    (elsewhere / "result.json").unlink()
    job.run.parent.mkdir(parents=True)
    shutil.move(elsewhere, job.run)
    run_job(replace(job, config=twice), prepared)
    assert len(table(job.run, "metrics.csv")) == 2
    assert json.loads((job.run / "result.json").read_text())["checkpoint"]
    write_study(study, jobs, prepared, tmp_path)
    assert "1 of 6 trainings done" in (tmp_path / "study.md").read_text()


@pytest.mark.slow
def test_a_training_that_fails_is_a_row_and_not_the_end(
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
    on_message = capsys.readouterr()
    assert "begun with another configuration" in on_message.out
    assert "1 of 2 trainings failed" in on_message.err
    assert (last.run / "test.csv").is_file()


@pytest.mark.slow
def test_without_the_original_files_the_scoring_waits(
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
    on_message = capsys.readouterr().out
    assert "to be scored" in on_message
    assert "call study there" in on_message
    assert not job.done
    assert call(file, "--data", prepared, "-o", folder, "--only", "plain") == 0
    assert job.done


def test_damaged_scores_are_left_to_the_jobs_own_process(
    done: Path, file: Path, prepared: Path, tmp_path: Path
) -> None:
    _, jobs = planned(file, prepared, done)
    job = replace(jobs[0], run=shutil.copytree(jobs[0].run, tmp_path / "run"))
    on_message: list[str] = []
    assert _is_over(job, prepared, lambda _, how: on_message.append(how))
    assert len(on_message) == 1
    (job.run / "test.csv").write_text("case\nvolumes/4\n")
    assert not _is_over(job, prepared, lambda _, how: on_message.append(how))
    assert len(on_message) == 1


def test_a_row_begins_with_the_training_of_another(done: Path, file: Path, prepared: Path, tmp_path: Path) -> None:
    further = file.with_name("further.toml")
    row = '[[rows]]\nname = "further"\nconfig = "base.toml"\nbegin = "plain"\nchange.network.attention = false\n'
    row += "change.field.neighbours_mm = 5.0\nchange.sampling.lesion_free = true\n"
    further.write_text(STUDY + row)
    study, jobs = planned(further, prepared, done)
    job = next(job for job in jobs if job.row == "further")
    own = replace(job, run=tmp_path / "further")
    run_job(own, prepared)
    run_job(own, prepared)  # is done
    lineage = read_provenance(own.run)
    assert lineage is not None
    assert lineage.start is not None
    assert lineage.start.path == job.start == done / "runs" / "plain" / job.protocol / "seed-0"
    for start in (None, done / "runs" / "attention" / job.protocol / "seed-0"):
        with pytest.raises(ConfigError, match="was begun with other weights, or they were trained anew"):
            run_job(replace(own, start=start), prepared)
    write_study(study, [own], prepared, tmp_path)
    assert "| further | " in (tmp_path / "study.md").read_text()


def test_a_dry_run_trains_nothing(
    file: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(file, "--data", prepared, "-o", tmp_path, "--only", "plain", "--dry-run") == 0
    assert "one after another" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_the_table_of_progress_is_read_from_the_folders(done: Path, file: Path, prepared: Path) -> None:
    _, jobs = planned(file, prepared, done)
    states = list(progress_table(jobs, {jobs[0].run: "no power"}).columns[-1].cells)
    assert states == ["failed: no power", *["done"] * 5]
    _, jobs = planned(file, prepared, done / "nowhere")
    assert set(progress_table(jobs).columns[-1].cells) == {""}


def test_unknown_rows_and_protocols_are_named(
    file: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(file, "--data", prepared, "-o", tmp_path, "--only", "other") == 2
    assert "expected plain, attention, peer" in capsys.readouterr().err
    wrong = file.with_name("wrong.toml")
    wrong.write_text(STUDY.replace('"B-patient"]', '"E"]'))
    assert call(wrong, "--data", prepared, "-o", tmp_path) == 2
    assert "no protocol 'E'" in capsys.readouterr().err
