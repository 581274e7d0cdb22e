"""The whole life of a model on made-up data: folder, training, export, segmentation, scores."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from groundglass.analysis import segment
from groundglass.config import RunConfig, read_config
from groundglass.data.catalogue import find_cases
from groundglass.data.slices import cut_case, load_slices
from groundglass.errors import ConfigError, ModelError
from groundglass.evaluation.evaluate import evaluate, pooled, write_scores
from groundglass.experiment import train
from groundglass.export import export, never_trained_on
from groundglass.inference.card import read_card
from groundglass.inference.segmenter import Segmenter
from groundglass.scan import nifti
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.reader import read_scan
from groundglass.scan.scan import Scan

CONFIG = """
name = "tiny"
[field]
size = [72, 96]
[network]
widths = [8, 16, 32]
[draw]
batch_size = 4
[split]
test = ["volumes/4"]
validation = ["volumes/5"]
lesion_free = true
[training]
optimiser = "adamw"
learning_rate = 5e-3
epochs = 20
stop_after = 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms in the publisher's layout, as 8-bit lung windows."""
    root = tmp_path_factory.mktemp("data")
    for directory in ("rp_im", "rp_msk"):
        (root / directory).mkdir()
    for seed, name in enumerate(("1", "4", "5")):
        phantom = chest_phantom(seed, (24, 96, 128))
        grey = np.clip((phantom.scan.values.astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
        for directory, values in (("rp_im", grey), ("rp_msk", phantom.lesions.voxels.astype(np.uint8))):
            nifti.write_scan(Scan(values, phantom.scan.geometry), root / directory / f"{name}.nii.gz")
    return root


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG)
    return read_config(path)


@pytest.fixture(scope="module")
def run(folder: Path, config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    train(config, folder, path, path.parent / "cache")
    return path


@pytest.fixture(scope="module")
def model(run: Path, folder: Path) -> Path:
    path, differences = export(run, "tiny", run.parent / "models", data=folder)
    assert differences["OnnxRuntimeEngine"] < 1e-4
    return path


def test_a_run_folder_tells_what_was_done(run: Path, config: RunConfig) -> None:
    assert {"config.json", "machine.json", "split.json", "metrics.csv", "last.ckpt", "best.ckpt", "result.json"} <= {
        path.name for path in run.iterdir()
    }
    assert RunConfig.model_validate_json((run / "config.json").read_text()) == config
    split = json.loads((run / "split.json").read_text())
    assert {side: part["cases"] for side, part in split.items()} == {
        "train": ["volumes/1"],
        "validation": ["volumes/5"],
        "test": ["volumes/4"],
    }
    result = json.loads((run / "result.json").read_text())
    assert 0 < result["threshold"] < 1
    assert result["validation"]["dice"] > 0.3


def test_a_second_training_into_the_same_folder_is_refused(run: Path, folder: Path, config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="holds a training already: go on with --resume"):
        train(config, folder, run, run.parent / "cache")


def test_slices_are_cut_once(folder: Path, tmp_path: Path) -> None:
    cases = find_cases(folder)
    calls: list[int] = []
    first = load_slices(cases, (48, 64), tmp_path, lambda done, total: calls.append(done))
    again = load_slices(cases, (48, 64), tmp_path, lambda done, total: calls.append(done))
    assert calls == [1, 2, 3]
    assert (first.hu == again.hu).all()
    assert (first.case == again.case).all()


def test_training_sees_what_segment_sees(folder: Path, model: Path) -> None:
    seen = []

    class Recorder:
        def run(self, images: np.ndarray) -> np.ndarray:
            seen.append(images)
            return np.zeros_like(images)

    case = find_cases(folder)[0]
    card = read_card(model)
    segment(read_scan(case.image), Segmenter(card, Recorder()))
    cut = card.window.scale(cut_case(case, card.size).hu.astype(np.float32))
    segmented = np.concatenate(seen)[:, 0]
    inside = (cut > 0.2) | (segmented > 0.2)  # the letterbox is air in one, the window's lower end in the other
    assert np.abs(cut - segmented)[inside].max() < 0.002  # whole HU in the cache


def test_the_exported_model_segments_and_is_scored_through_the_same_code(model: Path, folder: Path) -> None:
    segmenter = Segmenter.load(model)
    (case,) = [case for case in find_cases(folder) if case.name == "volumes/4"]
    (score,) = evaluate([case], segmenter)
    result = segment(read_scan(case.image), segmenter)
    truth = read_scan(case.lesion).values > 0
    assert score.whole.true_positive == (result.lesions.voxels & truth).sum()
    assert score.whole.false_positive == (result.lesions.voxels & ~truth).sum()
    assert (score.whole.dice or 0) > 0.3
    assert score.lesion_slices.false_positive <= score.whole.false_positive
    assert score.lesion_slices.true_positive == score.whole.true_positive
    assert pooled([score, score])["whole"].true_positive == 2 * score.whole.true_positive


def test_scores_go_into_the_card_and_leave_the_rest(model: Path, folder: Path) -> None:
    before = read_card(model)
    cases = [case for case in find_cases(folder) if case.name == "volumes/4"]
    write_scores(model, evaluate(cases, Segmenter.load(model)))
    after = read_card(model)
    assert after.scores["test"]["pooled"]["whole"]["dice"] > 0.3
    assert after.scores["validation"] == before.scores["validation"]
    assert after.model_copy(update={"scores": {}}) == before.model_copy(update={"scores": {}})


def test_the_card_says_what_it_was_trained_on(model: Path) -> None:
    card = read_card(model)
    assert card.never_trained_on == ("volumes/4",)
    assert len(card.training_data) == 1
    assert "MedSeg COVID-19 CT dataset 2" in card.training_data[0]
    assert (card.size, card.window_hu) == ((72, 96), (-1250, 250))


def test_a_case_with_slices_on_both_sides_was_trained_on() -> None:
    split = {"train": {"cases": ["volumes/1", "volumes/4"]}, "test": {"cases": ["volumes/8", "volumes/4", "slices/7"]}}
    assert never_trained_on(split) == ("slices/7", "volumes/8")


def test_an_unfinished_run_is_not_exported(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no finished run"):
        export(tmp_path, "x", tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_the_command_line_trains_on_the_real_data(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from groundglass.cli import main

    debug = Path(__file__).parent.parent / "configs" / "debug.toml"
    words = ["groundglass", "train", debug, "--data", data, "-o", tmp_path / "run", "--cache", tmp_path / "cache"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert split["test"]["cases"] == ["volumes/4", "volumes/5", "volumes/8"]
    assert split["train"]["slices"] > 400
