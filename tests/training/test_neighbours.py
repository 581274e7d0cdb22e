"""2.5D networks: the input has the same three slices in training and in segmentation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from groundglass.data.prepared import read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import Split
from groundglass.errors import ConfigError, TrainingError
from groundglass.inference.open_model import open_model
from groundglass.inference.pipeline import segment_scan
from groundglass.inference.segmenter import Segmenter
from groundglass.io.reader import read_scan
from groundglass.scan.intensity import HuVolume
from groundglass.scan.lung_field import Box, LungField
from groundglass.training.augment import AugmentConfig
from groundglass.training.batches import NO_AUGMENTATION, SamplingConfig, plain_batches, training_batches
from groundglass.training.config import RunConfig, parse_config
from groundglass.training.export import export
from groundglass.training.run import train
from groundglass.training.weights import load_network
from helpers.fake_engine import RecordingEngine, fake_segmenter

pytestmark = pytest.mark.slow
WINDOW = (-1000.0, 0.0)
NEIGHBOURS_MM = 5.0
CONFIG = {
    "name": "between",
    "field": {"neighbours_mm": NEIGHBOURS_MM},
    "network": {"widths": [4, 8, 8]},
    "sampling": {"batch_size": 4, "samples": 8, "lesion_free": True},
    "training": {"optimiser": "adamw", "learning_rate": 1e-3, "epochs": 1, "early_stopping_patience": 0},
}
SPLIT = Split(name="apart", protocol="B", rule="", train=("volumes/1",), validation=("volumes/5",), test=("volumes/4",))


def stack(spacing_mm: float, count: int = 5, name: str = "volumes/1", first: int = 0) -> Slices:
    """Return slices of a case of which number i has the value -100 - i HU everywhere."""
    hu = (-100 - np.arange(first, first + count))[:, None, None] * np.ones((1, 8, 8))
    names = np.array([name] * count)
    numbers, spacing = np.arange(first, first + count), np.full(count, spacing_mm)
    return Slices(hu.astype(np.int16), np.zeros(hu.shape, np.uint8), names, numbers, names, spacing)


@pytest.mark.parametrize(
    ("spacing_mm", "expected"),
    [
        (6.0, [(0, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 4)]),
        (12.0, [(0, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 4)]),
        (2.5, [(0, 0, 2), (1, 1, 3), (0, 2, 4), (1, 3, 3), (2, 4, 4)]),
        (np.nan, [(i, i, i) for i in range(5)]),
    ],
)
def test_neighbours_are_found_at_the_configured_distance(
    spacing_mm: float, expected: list[tuple[int, int, int]]
) -> None:
    assert stack(spacing_mm).neighbour_indices(NEIGHBOURS_MM).tolist() == [list(three) for three in expected]
    assert stack(spacing_mm).neighbour_indices(0.0).tolist() == [[i] for i in range(5)]


def test_slices_of_another_scan_are_no_neighbours() -> None:
    one, other = stack(5.0, 2), stack(5.0, 2, "volumes/2", first=2)
    names = ("hu", "labels", "case", "number", "patient", "spacing_mm")
    both = Slices(*(np.concatenate([getattr(one, name), getattr(other, name)]) for name in names))
    assert both.neighbour_indices(NEIGHBOURS_MM).tolist() == [[0, 0, 1], [0, 1, 1], [2, 2, 3], [2, 3, 3]]


def test_a_slice_whose_neighbours_are_missing_takes_their_place() -> None:
    kept = stack(5.0).where(np.array([True, False, True, True, False]))
    assert kept.neighbour_indices(NEIGHBOURS_MM).tolist() == [[0, 0, 0], [1, 1, 2], [1, 2, 2]]


def test_a_batch_holds_each_slice_between_its_neighbours() -> None:
    (batch,) = plain_batches(stack(5.0), WINDOW, 5, neighbours_mm=NEIGHBOURS_MM)
    assert batch[0].shape == (5, 3, 8, 8)
    assert torch.allclose(
        batch[0][:, :, 4, 4] * 1000 - 1000,
        torch.tensor([-100.0, -101, -102, -103, -104])[
            torch.tensor([(0, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 4)])
        ],
        atol=1e-3,
    )


def test_neighbours_are_dropped_with_the_configured_probability() -> None:
    def spread(probability: float) -> torch.Tensor:
        augmentation = replace(NO_AUGMENTATION, drop_neighbours_prob=probability)
        loader = training_batches(
            stack(5.0, 40), WINDOW, SamplingConfig(40), augmentation, 0, neighbours_mm=NEIGHBOURS_MM
        )
        ((image, _),) = loader
        return image.amax(1) - image.amin(1)

    assert (spread(0.0).amax((1, 2)) > 0).all()
    assert (spread(1.0) == 0).all()
    assert 5 < int((spread(0.5).amax((1, 2)) == 0).sum()) < 35


def test_neighbours_are_augmented_like_the_slice() -> None:
    given = stack(5.0, 3)
    given.hu[:] = np.random.default_rng(0).integers(-900, -100, given.hu.shape[1:])
    augmentation = AugmentConfig(window_hu=100, gamma=0.3, blur_px=2.0, rotate_180_prob=0.5)
    loader = training_batches(given, WINDOW, SamplingConfig(3), augmentation, 0, neighbours_mm=NEIGHBOURS_MM)
    ((image, _),) = loader
    assert torch.allclose(image, image[:, 1:2].expand(-1, 3, -1, -1), atol=1e-5)


def recording_segmenter() -> tuple[Segmenter, RecordingEngine]:
    """Return a 2.5D segmenter that finds nothing, and its engine, which records its input."""
    card, engine = fake_segmenter().card, RecordingEngine()
    return Segmenter(card.model_copy(update={"neighbours_mm": NEIGHBOURS_MM, "size": (72, 96)}), engine), engine


@pytest.mark.parametrize(
    ("spacing_mm", "expected"),
    [
        (5.0, [(1, 1, 2), (1, 2, 3), (2, 3, 3), (5, 5, 5)]),  # slices 1, 2, 3 and 5 show lung
        (2.5, [(1, 1, 3), (2, 2, 2), (1, 3, 5), (3, 5, 5)]),
        (None, [(1, 1, 1), (2, 2, 2), (3, 3, 3), (5, 5, 5)]),
    ],
)
def test_a_segmenter_adds_the_neighbours_that_show_lung(
    spacing_mm: float | None, expected: list[tuple[int, int, int]]
) -> None:
    hu = (-100.0 - np.arange(7, dtype=np.float32))[:, None, None] * np.ones((1, 20, 20), np.float32)
    nothing, box = np.zeros(hu.shape, np.bool_), Box(0, 20, 0, 20)
    boxes = tuple(box if z in (1, 2, 3, 5) else None for z in range(7))
    segmenter, engine = recording_segmenter()
    segmenter.class_map(hu, LungField(nothing, nothing, boxes, (), spacing_mm))
    input_hu = np.concatenate(engine.inputs)[:, :, 36, 48] * 1500 - 1250
    assert np.allclose(input_hu, -100 - np.array(expected), atol=0.01)


def test_training_and_segment_use_the_same_three_slices(phantoms: Path, prepared: Path) -> None:
    segmenter, engine = recording_segmenter()
    segment_scan(read_scan(phantoms / "rp_im" / "4.nii.gz"), segmenter)
    _, slices = read_prepared(prepared)
    scan = slices.where(slices.case == "volumes/4")
    trained_on = scan.network_inputs(segmenter.card.window, NEIGHBOURS_MM)
    assert trained_on.shape == (len(scan), 3, 72, 96)
    assert np.abs(np.concatenate(engine.inputs) - trained_on).max() < 1e-3  # prepared slices are rounded to whole HU
    assert not np.allclose(trained_on[:, 0], trained_on[:, 1], atol=0.1)


def run_config(**changes: object) -> RunConfig:
    return parse_config(CONFIG | changes, "between")


def test_weights_of_a_2d_network_initialise_a_2_5d_network(prepared: Path, tmp_path: Path) -> None:
    alone = run_config(field={})
    train(alone, prepared, SPLIT, tmp_path / "alone")
    still = run_config(training=CONFIG["training"] | {"learning_rate": 1e-12})  # type: ignore[operator]
    train(still, prepared, SPLIT, tmp_path / "between", start=tmp_path / "alone")
    before = load_network(tmp_path / "alone" / "best.ckpt", alone.network_config)
    after = load_network(tmp_path / "between" / "best.ckpt", still.network_config)
    _, slices = read_prepared(prepared)
    for first, other in zip(
        plain_batches(slices, WINDOW, 8), plain_batches(slices, WINDOW, 8, neighbours_mm=NEIGHBOURS_MM), strict=True
    ):
        with torch.inference_mode():
            assert torch.allclose(before(first[0]), after(other[0]), atol=1e-5)


def test_weights_of_any_other_network_are_refused(prepared: Path, tmp_path: Path) -> None:
    train(run_config(), prepared, SPLIT, tmp_path / "between")
    with pytest.raises(TrainingError, match="of another network"):
        train(run_config(field={}), prepared, SPLIT, tmp_path / "new", start=tmp_path / "between")
    wider = run_config(network={"widths": [6, 8, 8]})
    with pytest.raises(TrainingError, match="of another network"):
        train(wider, prepared, SPLIT, tmp_path / "new", start=tmp_path / "between")
    assert not (tmp_path / "new").exists()


def test_neighbours_need_slices_without_lesion() -> None:
    with pytest.raises(ConfigError, match=r"needs sampling.lesion_free = true"):
        run_config(sampling={})
    with pytest.raises(ConfigError, match="a distance must not be negative"):
        run_config(field={"neighbours_mm": -1})


@pytest.mark.parametrize(
    ("baseline", "exported"),
    [(None, False), *(pytest.param(baseline, True, marks=pytest.mark.slow) for baseline in (None, "DynUNet"))],
)
def test_a_2_5d_network_depends_on_the_neighbours_exported_or_not(
    baseline: str | None, exported: bool, phantoms: Path, prepared: Path, tmp_path: Path
) -> None:
    model = tmp_path / "run"
    train(run_config(baseline=baseline), prepared, SPLIT, model)
    if exported:
        model, differences = export(model, "between", tmp_path / "models", prepared=prepared)
        assert differences["OnnxRuntimeEngine"] < 1e-4
    segmenter = open_model(model)
    assert segmenter.card.input_shape == (3, 72, 96)
    scan = read_scan(phantoms / "rp_im" / "4.nii.gz")
    segmented = segment_scan(scan, segmenter)
    hu: HuVolume = segmented.hu
    field = replace(segmented.lung_field, spacing_mm=None)  # as if its slices were unrelated
    alone = [plane.probability for plane in segmenter.slice_predictions(hu, field)]
    beside = [plane.probability for plane in segmenter.slice_predictions(hu, segmented.lung_field)]
    assert len(alone) == len(beside) > 10
    assert max(np.abs(a - b).max() for a, b in zip(alone, beside, strict=True)) > 1e-3
