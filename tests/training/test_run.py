"""The life of a model on phantoms: preparation, training, export, segmentation, scores, int8."""

import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundglass.data.case import Case
from groundglass.data.catalogue import find_cases
from groundglass.data.cutting import cut_case
from groundglass.data.prepare import PreparationSettings, prepare
from groundglass.data.prepared import read_prepared
from groundglass.data.splits import Split
from groundglass.errors import ConfigError, DatasetError, EngineError, ModelError, TrainingError
from groundglass.evaluation.evaluate import evaluate
from groundglass.evaluation.tables import write_scores
from groundglass.evaluation.targets import EvaluationTarget, find_targets, training_warnings
from groundglass.files import sha256_of
from groundglass.inference.engine_config import EngineConfig, EngineName, Precision
from groundglass.inference.lungs.finding import find_intensity
from groundglass.inference.model_card import ModelCard, TrainedOn, read_card, write_card
from groundglass.inference.open_model import open_model
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.metrics import Confusion
from groundglass.report.analysis import segment
from groundglass.scan.intensity import AIR_HU
from groundglass.scan.kinds import FieldOfView
from groundglass.scan.scan import Scan
from groundglass.training.config import RunConfig, read_config
from groundglass.training.export import export, open_run_segmenter, real_images
from groundglass.training.finished_run import open_run
from groundglass.training.held_out import calibrate_on_folds, calibrated_card, predict_scan
from groundglass.training.quantize import LARGEST_DICE_LOSS, quantize
from groundglass.training.run import THRESHOLDS, train
from groundglass.training.study.leakage import estimate_leakage, leakage_table
from helpers.fake_engine import RecordingEngine
from helpers.kills import kill_at_random_moments, run_whole, visible
from helpers.medseg_phantoms import write_phantoms
from helpers.tiny_training import nan_loss

pytestmark = pytest.mark.thorough

CONFIG = """
name = "tiny"
classes = ["ground-glass", "consolidation"]
[network]
widths = [8, 16]
[sampling]
batch_size = 4
lesion_free = true
[training]
optimiser = "adamw"
learning_rate = 5e-3
epochs = 12
early_stopping_patience = 0
"""
SPLIT = Split(name="apart", protocol="B", rule="", train=("volumes/1",), validation=("volumes/5",), test=("volumes/4",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("data"), grey=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG)
    return read_config(path)


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "all"
    prepare([folder], path, PreparationSettings((72, 96)))
    return path


@pytest.fixture(scope="module")
def run(prepared: Path, config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    train(config, prepared, SPLIT, path)
    return path


@pytest.fixture(scope="module")
def model(run: Path, prepared: Path) -> Path:
    path, differences = export(run, "tiny", run.parent / "models", prepared=prepared)
    assert differences["OnnxRuntimeEngine"] < 1e-4
    return path


def target(folder: Path, name: str) -> EvaluationTarget:
    (found,) = find_targets(folder, [name])
    return found


def test_a_run_folder_describes_the_training(run: Path, config: RunConfig) -> None:
    assert {"config.json", "machine.json", "split.json", "metrics.csv", "last.ckpt", "best.ckpt", "result.json"} <= {
        path.name for path in run.iterdir()
    }
    written = RunConfig.model_validate_json((run / "config.json").read_text())
    assert (written.field.size, written.field.view) == ((72, 96), FieldOfView.LUNGS)
    assert (written.network, written.training, written.classes) == (config.network, config.training, config.classes)
    assert Split.model_validate_json((run / "split.json").read_text()) == SPLIT
    result = json.loads((run / "result.json").read_text())
    assert 0 < result["threshold"] < 1
    assert result["validation"]["dice"] > 0.3
    assert set(result["slices"]) == {"train", "validation", "test"}


def test_a_second_training_into_the_same_folder_is_refused(run: Path, prepared: Path, config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="already holds a training: continue it with --resume"):
        train(config, prepared, SPLIT, run)


def test_a_validation_part_without_lesion_is_refused(prepared: Path, config: RunConfig, tmp_path: Path) -> None:
    _, slices = read_prepared(prepared)
    free = slices.name[(slices.case == "volumes/5") & ~slices.has_lesion]
    split = SPLIT.model_copy(update={"validation": tuple(free.tolist()), "leaky": True})
    with pytest.raises(DatasetError, match="the validation part of split apart shows no lesion"):
        train(config, prepared, split, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_only_with_its_own_configuration_and_split(
    run: Path, prepared: Path, config: RunConfig
) -> None:
    other = config.model_copy(update={"classes": ()})
    with pytest.raises(ConfigError, match="started with another configuration"):
        train(other, prepared, SPLIT, run, resume=True)
    with pytest.raises(ConfigError, match="started with another split"):
        train(config, prepared, SPLIT.model_copy(update={"seed": 7}), run, resume=True)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run folder but for TensorBoard's."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("events")}


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"training": replace(config.training, **changes)})


def test_a_finished_one_cycle_run_is_not_extended_and_stays_finished(
    run: Path, prepared: Path, config: RunConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    before = contents(folder)
    for epochs in (14, 11):
        with pytest.raises(
            ConfigError,
            match=rf"started with training.epochs = 12, .* not for {epochs}: resume it with 12, or .* --from",
        ):
            train(with_training(config, epochs=epochs), prepared, SPLIT, folder, resume=True)
        assert contents(folder) == before
    assert open_run(folder, "goes-on")


@pytest.mark.slow
def test_a_finished_run_of_adam_goes_on_and_is_finished_again_and_a_refusal_or_failure_leaves_its_result(
    prepared: Path, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, short = tmp_path / "run", with_training(config, optimiser="adam", epochs=2)
    train(short, prepared, SPLIT, folder)
    before = contents(folder)
    with pytest.raises(ConfigError, match=r"has 2 epochs already, more than training.epochs = 1: raise it"):
        train(with_training(short, epochs=1), prepared, SPLIT, folder, resume=True)
    longer = with_training(short, epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr("groundglass.training.module.segmentation_loss", nan_loss)
        with pytest.raises(TrainingError, match="the loss became nan"):
            train(longer, prepared, SPLIT, folder, resume=True)
    assert contents(folder) == before
    assert (folder / "result.json").is_file()
    train(longer, prepared, SPLIT, folder, resume=True)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 3
    assert open_run(folder, "goes-on")


@pytest.mark.parametrize(
    ("field", "message"), [("size = [64, 64]", "--size 64 64"), ('view = "slice"', "--view slice")]
)
def test_a_folder_prepared_with_other_settings_is_refused(
    prepared: Path, tmp_path: Path, field: str, message: str
) -> None:
    (tmp_path / "other.toml").write_text(f'name = "other"\n[field]\n{field}\n')
    with pytest.raises(ConfigError, match=message):
        train(read_config(tmp_path / "other.toml"), prepared, SPLIT, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_and_segment_use_the_same_slices(folder: Path, model: Path) -> None:
    case, engine = find_cases(folder)[0], RecordingEngine()
    card = read_card(model)
    segment(read_scan(case.image), Segmenter(card, engine))
    cut = card.window.scale(cut_case(case, card.size).hu.astype(np.float32))
    segmented = np.concatenate(engine.inputs)[:, 0]
    inside = (cut > 0.2) | (segmented > 0.2)  # the letterbox is air in one, and the window's lower end in the other
    assert np.abs(cut - segmented)[inside].max() < 0.003  # prepared slices keep whole grey levels


@pytest.mark.slow
def test_an_exported_model_is_scored_on_the_masks_that_segment_gives(model: Path, folder: Path) -> None:
    segmenter, chosen = open_model(model), target(folder, "volumes/4")
    score = evaluate([chosen], segmenter).pooled_counts["whole"]
    result = segment(read_scan(chosen.case.image), segmenter)
    truth = read_scan(chosen.case.mask).values > 0
    assert score.true_positive == (result.lesions.voxels & truth).sum()
    assert score.false_positive == (result.lesions.voxels & ~truth).sum()
    assert (score.dice or 0) > 0.3


@pytest.mark.parametrize("kind", ["8-bit", "HU"])
def test_segment_gives_the_network_the_slices_of_the_prepared_folder(
    kind: str, folder: Path, run: Path, tmp_path: Path
) -> None:
    """Compare them including the bars of the letterbox."""
    image = folder / "rp_im" / "4.nii.gz"
    if kind == "HU":
        image, grey = tmp_path / "4.nii.gz", read_scan(image)
        nifti.write_scan(Scan(np.rint(find_intensity(grey).to_hu(grey.values)).astype(np.int16), grey.geometry), image)
    size = (72, 72)  # the lungs have another shape, so there are bars
    cut = cut_case(Case("volumes/4", "4", image, folder / "rp_msk" / "4.nii.gz"), size)
    card = open_run_segmenter(run).card.model_copy(update={"size": size})
    assert card.window_hu[0] != AIR_HU
    engine = RecordingEngine()
    segment(read_scan(image), Segmenter(card, engine))
    trained_on = card.window.scale(cut.hu.astype(np.float32))
    given = np.concatenate(engine.inputs)[:, 0]
    assert given.shape == trained_on.shape
    assert np.abs(given - trained_on).max() < 4 / 1500  # a grey level is 6 HU


def test_a_run_and_its_export_have_the_same_dice(run: Path, model: Path, folder: Path) -> None:
    chosen = target(folder, "volumes/4")
    of_run, of_model = (
        evaluate([chosen], s).pooled_counts["whole"].dice for s in (open_run_segmenter(run), open_model(model))
    )
    assert of_run == pytest.approx(of_model, abs=0.002)
    assert open_run_segmenter(run).card.classes == ("lesion", "ground-glass", "consolidation")


def test_a_part_of_a_split_is_scored_slice_by_slice(model: Path, folder: Path, prepared: Path) -> None:
    split = SPLIT.model_copy(update={"test": ("volumes/4:9", "volumes/4:10")})
    (chosen,) = find_targets(prepared, (), split)
    assert (chosen.case.name, chosen.slices) == ("volumes/4", frozenset({9, 10}))
    assert [each.z for each in evaluate([chosen], open_model(model)).slices] == [9, 10]


def test_scoring_on_training_data_is_warned_about(run: Path, model: Path, prepared: Path) -> None:
    for card in (open_run_segmenter(run).card, read_card(model)):
        assert training_warnings(find_targets(prepared, (), SPLIT), card.trained_on) == ()
        (warning,) = training_warnings(find_targets(prepared), card.trained_on)
        assert warning.startswith("2 of 3 cases (volumes/1, volumes/5) trained this model or chose its threshold")


def test_scoring_on_other_slices_of_training_patients_is_warned_about(prepared: Path) -> None:
    (chosen,) = find_targets(prepared, (), SPLIT.model_copy(update={"test": ("volumes/4:9",)}))
    trained_on = TrainedOn(members=("volumes/4:3",), patients=("volumes/4",))
    (warning,) = training_warnings([chosen], trained_on)
    assert "of patients that trained this model: these scores leak" in warning
    (warning,) = training_warnings([replace(chosen, slices=frozenset({3, 9}))], trained_on)
    assert "trained this model or chose its threshold" in warning
    (warning,) = training_warnings([chosen], None)
    assert warning.startswith("the data that this model was trained on is not known")


def test_patients_of_a_stack_are_distinguished() -> None:
    case = Case("stack/tr", "stack/tr", Path("i"), Path("m"), unrelated_slices=True)
    stack = EvaluationTarget(case, "stack/tr", groups={0: "p", 1: "q"})
    trained_on = TrainedOn(members=("stack/tr:0",), patients=("p",))
    assert training_warnings([replace(stack, slices=frozenset({1}))], trained_on) == ()
    assert training_warnings([stack], trained_on) != ()


def test_scoring_a_split_that_mixes_patients_is_refused(prepared: Path, tmp_path: Path) -> None:
    twice = SPLIT.model_copy(update={"train": ("volumes/1", "volumes/4:9"), "test": ("volumes/4:10",)})
    with pytest.raises(DatasetError, match="volumes/4 is in train and volumes/4 in test"):
        find_targets(prepared, (), twice)


def test_scoring_changed_original_files_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)
    prepare([copy], tmp_path / "out", PreparationSettings((72, 96)))
    mask = copy / "rp_msk" / "4.nii.gz"
    mask.write_bytes((copy / "rp_msk" / "1.nii.gz").read_bytes())
    with pytest.raises(DatasetError, match=r"4\.nii\.gz is missing or was changed since"):
        find_targets(tmp_path / "out", ["volumes/4"])


def test_scores_are_added_to_the_card_and_the_rest_stays(model: Path, folder: Path) -> None:
    before = read_card(model)
    write_scores(model, evaluate([target(folder, "volumes/4")], open_model(model)), "groundglass evaluate …")
    after = read_card(model)
    assert after.scores["test"]["pooled"]["whole"]["dice"] > 0.3
    assert after.scores["command"] == "groundglass evaluate …"
    assert after.scores["validation"] == before.scores["validation"]
    assert after.model_copy(update={"scores": {}}) == before.model_copy(update={"scores": {}})


def test_the_card_names_the_training_data(model: Path) -> None:
    card = read_card(model)
    assert card.never_trained_on == ("volumes/4",)
    assert len(card.training_data) == 1
    assert "MedSeg COVID-19 CT dataset 2" in card.training_data[0]
    assert (card.size, card.window_hu) == ((72, 96), (-1250, 250))


def test_leakage_is_estimated_from_two_trainings(prepared: Path, config: RunConfig, tmp_path: Path) -> None:
    short = config.model_copy(update={"training": replace(config.training, epochs=1)})
    messages: list[str] = []
    estimate = estimate_leakage(short, prepared, tmp_path, on_message=messages.append)
    assert [line.split(":")[0] for line in messages] == ["A-slice", "B-patient"]
    stored = json.loads((tmp_path / "leakage.json").read_text())
    assert stored["difference"] == estimate.difference
    assert estimate.by_slice.scores == stored["by_slice"]
    assert leakage_table(estimate).row_count == 3
    assert estimate_leakage(short, prepared, tmp_path, resume=True) == estimate  # finished runs are not trained again
    with pytest.raises(ConfigError, match="already holds a training"):
        estimate_leakage(short, prepared, tmp_path)
    other = short.model_copy(update={"classes": ()})
    with pytest.raises(ConfigError, match="started with another configuration"):
        estimate_leakage(other, prepared, tmp_path, resume=True)


@pytest.mark.slow
def test_the_threshold_of_folds_has_the_best_mean_dice_over_held_out_scans(
    run: Path, prepared: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    swapped = SPLIT.model_copy(update={"validation": SPLIT.test, "test": SPLIT.validation})
    (other / "split.json").write_text(swapped.model_dump_json())
    chosen = calibrate_on_folds([run, other], prepared)
    module, card = open_run(run, "tiny", last_epoch=True)
    _, slices = read_prepared(prepared)
    scans = {name: slices.where(slices.case == name) for name in ("volumes/4", "volumes/5")}
    predicted = {name: predict_scan(module, scan, calibrated_card(card, False)) for name, scan in scans.items()}

    def dice(name: str, at: float) -> float:
        return Confusion.count(predicted[name][:, 0] >= at, scans[name].labels > 0).dice or 0.0

    means = [(dice("volumes/4", at) + dice("volumes/5", at)) / 2 for at in THRESHOLDS]
    assert chosen.threshold == THRESHOLDS[int(np.argmax(means))]
    assert chosen.dice == {name: dice(name, chosen.threshold) for name in ("volumes/4", "volumes/5")}
    assert chosen.exposure == TrainedOn(members=("volumes/4", "volumes/5"), patients=("volumes/4", "volumes/5"))
    path, _ = export(run, "calibrated", tmp_path / "model", calibration=chosen)
    exported = read_card(path)
    assert (exported.smoothing_mm, exported.light_hu, exported.smallest_ml) == (2.5, -500, 0.05)
    assert exported.consolidation_hu == -350


def test_of_two_folds_on_one_split_the_second_predicts_the_mirror_images(
    run: Path, prepared: Path, tmp_path: Path
) -> None:
    same, silent = (shutil.copytree(run, tmp_path / name) for name in ("same", "silent"))
    checkpoint = torch.load(silent / "last.ckpt", weights_only=True)
    for name, weight in checkpoint["state_dict"].items():
        if ".segment." in name:
            weight[:] = -20 if name.endswith("bias") else 0  # no lesion anywhere
    torch.save(checkpoint, silent / "last.ckpt")
    alone = calibrate_on_folds([run], prepared, mirrored=True, threshold=0.25)
    assert calibrate_on_folds([run, same], prepared, mirrored=True, threshold=0.25).dice == alone.dice
    (of_both,) = calibrate_on_folds([run, silent], prepared, mirrored=True, threshold=0.75).dice.values()
    assert of_both == 0  # the mean of the two is at most a half
    assert alone.dice["volumes/4"] > 0
    for runs, mirrored in (([run, same], False), ([run, same, silent], True)):
        with pytest.raises(DatasetError, match="hold out the same scans: give one of them, or with --mirrored two"):
            calibrate_on_folds(runs, prepared, mirrored=mirrored)


@pytest.mark.slow
def test_a_network_of_its_own_predicts_the_mirror_images_of_a_model(
    run: Path, model: Path, prepared: Path, tmp_path: Path
) -> None:
    pair, differences = export(run, "pair", tmp_path, prepared=prepared, mirrored=True, mirror=model)
    card = read_card(pair)
    assert card.mirrored
    assert card.mirror_sha256 == sha256_of(tmp_path / "pair-mirror.onnx")
    assert card.trained_on == read_card(model).trained_on
    assert set(card.export_check) == set(differences) == {"OnnxRuntimeEngine", "OpenVINOEngine"}
    image, exact = real_images(prepared, card)[:2], EngineConfig(precision=Precision.F32)
    logits = open_model(pair, exact).logits(image)
    of_one = open_model(model, exact).engine.run(np.concatenate([image, image[..., ::-1]]))
    assert np.allclose(logits, of_one, atol=1e-4)  # here the second network is the first once more
    fast = open_model(pair, EngineConfig(fast=True))
    assert (fast.card.mirrored, fast.mirror_engine) == (False, None)
    (tmp_path / "pair-mirror.onnx").unlink()
    with pytest.raises(ModelError, match=r"pair-mirror\.onnx is not there, and its model's card names it"):
        open_model(pair)


def test_mirror_images_of_another_kind_of_input_are_refused(run: Path, copied: Path, tmp_path: Path) -> None:
    write_card(copied, read_card(copied).model_copy(update={"window_hu": (-1000.0, 100.0)}))
    with pytest.raises(ConfigError, match=r"has window_hu \(-1000\.0, 100\.0\), but the run .*of the same input"):
        export(run, "pair", tmp_path / "models", mirrored=True, mirror=copied)
    assert not (tmp_path / "models").exists()


def test_without_folds_a_model_has_the_rules_that_its_threshold_was_chosen_by(model: Path) -> None:
    card = read_card(model)
    assert (card.smoothing_mm, card.light_hu, card.smallest_ml, card.consolidation_hu) == (0, None, 0, -350)


def test_folds_that_hold_no_scan_out_are_refused(run: Path, prepared: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    (other / "split.json").write_text(SPLIT.model_copy(update={"test": ()}).model_dump_json())
    with pytest.raises(DatasetError, match="no scan is held out by the folds"):
        calibrate_on_folds([other], prepared)


def test_an_unfinished_run_is_not_exported(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a finished run"):
        export(tmp_path, "x", tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_export_leaves_the_earlier_model(run: Path, copied: Path) -> None:
    command = ("export", run, "--name", "tiny", "-o", copied.parent)
    before = visible(copied.parent)
    for _ in kill_at_random_moments(run_whole("export", run, "-o", run.parent / "undisturbed"), 3, *command):
        assert set(visible(copied.parent)) == set(before)
        open_model(copied)  # weights and card belong together
    run_whole(*command)
    assert set(visible(copied.parent)) == set(before)
    assert visible(copied.parent)["tiny.json"] != before["tiny.json"]  # it was checked on other slices
    open_model(copied)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_line_prepares_splits_trains_and_scores_the_real_data(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from groundglass.cli import main

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["groundglass", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert not caught.value.code, captured.err
        return captured.out

    debug = Path(__file__).parents[2] / "configs" / "debug.toml"
    prepared, split = tmp_path / "prepared", tmp_path / "splits" / "B-patient.json"
    run("prepare", data, "-o", prepared, "--size", 64, 64)
    assert "nothing to do" in run("prepare", data, "-o", prepared, "--size", 64, 64)
    run("split", prepared, "-o", tmp_path / "splits")
    start = time.monotonic()
    run("train", debug, "--data", prepared, "--split", split, "-o", tmp_path / "run")
    assert time.monotonic() - start < 60
    out = run("evaluate", tmp_path / "run", "--data", prepared, "--split", split, "-o", tmp_path / "scores")
    assert "volumes/8" in out
    assert (tmp_path / "scores" / "report.md").is_file()


@pytest.fixture
def copied(model: Path, tmp_path: Path) -> Path:
    """The model with its card, in a folder of its own."""
    for path in (model, model.with_suffix(".json")):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / model.name


@pytest.fixture(scope="module")
def quantized(model: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelCard]:
    """The int8 version of the model beside a copy of it, and its card; so small a network may lose more than others."""
    folder = tmp_path_factory.mktemp("int8")
    for path in (model, model.with_suffix(".json")):
        shutil.copy(path, folder / path.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("groundglass.training.quantize.LARGEST_DICE_LOSS", 0.02)
        return quantize(folder / model.name, prepared, SPLIT)


def test_an_int8_version_is_written_and_then_opened(
    quantized: tuple[Path, ModelCard], prepared: Path, folder: Path
) -> None:
    path, card = quantized
    copied = path.with_name("tiny.onnx")
    before = open_model(copied)
    assert path.name == "tiny-int8.onnx"
    assert read_card(path) == card
    assert card.name == "tiny-int8"
    assert card.quantized is not None
    assert (card.quantized.of, card.threshold) == (before.card.sha256, before.card.threshold)
    after = open_model(copied, EngineConfig(precision=Precision.INT8))
    assert (after.card.sha256, after.engine.card.precision) == (card.sha256, "int8")
    assert after.engine.card.reason.startswith("the model comes in int8, the rest of it in ")
    assert open_model(path).engine.card.precision == "int8"
    for precision, engine in ((Precision.F32, None), (None, None), (None, EngineName.ONNXRUNTIME)):
        other = open_model(copied, EngineConfig(engine=engine, precision=precision))
        assert other.card.sha256 == before.card.sha256
        assert other.engine.card.precision != "int8"
    image = real_images(prepared, card)[:4]
    exact = open_model(copied, EngineConfig(precision=Precision.F32)).engine.run(image)
    difference = np.abs(1 / (1 + np.exp(-exact)) - 1 / (1 + np.exp(-after.engine.run(image))))
    assert difference.max() > 0  # it computes in int8 indeed
    assert difference.mean() < 0.02
    assert evaluate([target(folder, "volumes/4")], after).pooled_counts


def test_an_int8_version_of_another_model_is_refused(
    quantized: tuple[Path, ModelCard], copied: Path, prepared: Path
) -> None:
    card, path = quantized[1], copied.with_name("tiny-int8.onnx")
    shutil.copy(quantized[0], path)
    assert card.quantized is not None
    write_card(path, card.model_copy(update={"quantized": card.quantized.model_copy(update={"of": "0" * 64})}))
    with pytest.raises(ModelError, match=r"tiny-int8\.onnx was made from another model: remove it, or make it again"):
        open_model(copied, EngineConfig(precision=Precision.INT8))
    with pytest.raises(ModelError, match="is already int8"):
        quantize(path, prepared, SPLIT)


@pytest.mark.slow
def test_an_int8_version_that_loses_dice_is_not_kept(
    copied: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundglass.training.quantize.LARGEST_DICE_LOSS", -1.0)
    assert LARGEST_DICE_LOSS == 0.003
    with pytest.raises(ModelError, match=r"int8 loses .* of Dice on the validation part"):
        quantize(copied, prepared, SPLIT)
    assert sorted(path.name for path in copied.parent.iterdir()) == ["tiny.json", "tiny.onnx"]


def test_an_int8_version_needs_validation_slices_and_the_models_size(copied: Path, prepared: Path) -> None:
    with pytest.raises(EngineError, match=r"tiny-int8\.onnx is not there: make it with groundglass quantize"):
        open_model(copied, EngineConfig(precision=Precision.INT8))
    with pytest.raises(DatasetError, match="has no validation slices"):
        quantize(copied, prepared, SPLIT.model_copy(update={"validation": ()}))
    card = read_card(copied)
    write_card(copied, card.model_copy(update={"size": (64, 64)}))
    with pytest.raises(DatasetError, match=r"the model takes \(64, 64\) \(lungs\): prepare a folder"):
        quantize(copied, prepared, SPLIT)
