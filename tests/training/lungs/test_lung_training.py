"""Batches of the lung network, and a training of a few steps."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from groundglass.errors import ConfigError
from groundglass.inference.engine import OnnxRuntimeEngine
from groundglass.inference.lungs.finding import LIMITS_HU
from groundglass.inference.lungs.network import INSIDE, SIDE, LungNetwork
from groundglass.inference.model_card import BUNDLED_LUNGS, TrainedOn, bundled_model, read_card, write_card
from groundglass.training.lungs.batches import (
    PICTURES_SHARE,
    LungBatches,
    LungSampling,
    augment_lungs,
    darken_lungs,
    scale_by_extremes,
    slice_weights,
)
from groundglass.training.lungs.slices import LEFT, NO_CHEST, RIGHT, STORED_SIDE, LungSlices
from groundglass.training.lungs.train import TRAINING, train_lungs
from groundglass.training.lungs.wrong_pixels import count_wrong_pixels

ROOT = Path(__file__).parents[3]


def two_lungs(count: int = 6) -> LungSlices:
    """Dark discs in a bright body: the right lung on the left of the image; the last slice shows no chest."""
    y, x = np.mgrid[:STORED_SIDE, :STORED_SIDE] / STORED_SIDE - 0.5
    hu = np.where((x / 0.42) ** 2 + (y / 0.32) ** 2 < 1, 40, -1000).astype(np.int16)
    label = np.zeros((STORED_SIDE, STORED_SIDE), np.uint8)
    for side, centre in ((RIGHT, -0.18), (LEFT, 0.18)):
        label[(x - centre) ** 2 + y**2 < 0.13**2] = side
    lungs = np.where(label > 0, -850, hu).astype(np.int16)
    hus, labels = [lungs] * count + [hu], [label] * count + [np.zeros_like(label)]
    return LungSlices(np.array(hus), np.array(labels), np.array(["volumes/1"] * count + [NO_CHEST]))


def test_an_epoch_is_the_same_each_time_and_another_one_is_not() -> None:
    batches = LungBatches(two_lungs(), LungSampling(steps=2, batch_size=3))
    first, again = list(batches), list(batches)
    batches.set_epoch(1)
    other = list(batches)
    assert len(batches) == len(first) == 2
    for (image, maps), (same_image, same_maps), (other_image, _) in zip(first, again, other, strict=True):
        assert image.shape == (3, 1, SIDE, SIDE)
        assert maps.shape == (3, 2, SIDE, SIDE)
        assert torch.equal(image, same_image)
        assert torch.equal(maps, same_maps)
        assert not torch.equal(image, other_image)


def test_every_image_runs_from_0_to_1_and_every_map_is_0_or_1() -> None:
    for image, maps in LungBatches(two_lungs(), LungSampling(steps=10, batch_size=4)):
        assert image.amin() >= 0
        assert image.amax() <= 1
        assert set(maps.unique().tolist()) <= {0.0, 1.0}
        assert not (maps[:, 0] * maps[:, 1]).any()


def test_the_right_lung_is_always_the_one_on_the_left_of_the_image() -> None:
    """Also where the slice is mirrored or turned upside down."""
    seen = 0
    for _, maps in LungBatches(two_lungs(), LungSampling(steps=40, batch_size=4)):
        for right, left in maps:
            if right.sum() > 200 and left.sum() > 200:
                columns = [float(side.nonzero()[:, 1].float().mean()) for side in (right, left)]
                seen += columns[0] < columns[1] - 5
                assert columns[0] < columns[1] + 25  # a slice turned by about 90 degrees has no left and right
    assert seen > 60


@pytest.mark.thorough
def test_no_chest_has_its_share() -> None:
    slices = two_lungs()
    batches = LungBatches(slices, LungSampling(steps=60, batch_size=4))
    empty = sum(int((maps.sum((1, 2, 3)) == 0).sum()) for _, maps in batches)
    assert 0.05 < empty / 240 < 0.25  # cut away or zoomed out of view counts too


def test_scaling_needs_no_window() -> None:
    image = torch.rand(2, 1, 8, 8)
    scaled = scale_by_extremes(image)
    assert torch.allclose(scaled, scale_by_extremes(0.3 * image + 0.1), atol=1e-5)
    assert (float(scaled.amin()), float(scaled.amax())) == (0.0, 1.0)


def test_aerated_lung_becomes_darker_and_dense_lung_stays() -> None:
    hu = torch.tensor([-900.0, -850.0, 30.0, -900.0]).expand(2, 1, 1, 4)
    maps = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])[:, None].expand(2, 2, 1, 4)
    darker = darken_lungs(hu, maps, torch.tensor([0.2, 1.0]))
    assert darker[:, 0, 0].tolist() == [[-980, -970, 30, -900], [-900, -850, 30, -900]]


def test_pictures_have_their_share_and_slices_with_little_lung_count_double() -> None:
    label = np.zeros((5, STORED_SIDE, STORED_SIDE), np.uint8)
    label[0, :100] = label[1, :90] = label[3, :50] = label[4, :50] = RIGHT
    group = np.array(["volumes/1", "volumes/1", "volumes/1", "slices/001", "slices/002"])
    weights = slice_weights(LungSlices(np.zeros(label.shape, np.int16), label, group))
    assert weights[3:].tolist() == pytest.approx([PICTURES_SHARE / 2] * 2)
    assert weights[:3].tolist() == pytest.approx([(1 - PICTURES_SHARE) * share for share in (0.25, 0.25, 0.5)])


def test_slices_in_which_an_earlier_network_was_wrong_are_drawn_more_often() -> None:
    slices = two_lungs(5)
    weights = slice_weights(slices, np.array([0, 0, 0, 100, 300, 0]))
    assert (weights / weights[0])[:5].tolist() == pytest.approx([1, 1, 1, 2.25, 4.75])
    assert weights[5] == pytest.approx(slice_weights(slices)[5])  # the share of what shows no chest stays


def test_what_an_exported_network_gets_wrong_is_counted_without_the_outline() -> None:
    slices = two_lungs()
    exchanged = replace(slices, label=np.where(slices.label > 0, RIGHT + LEFT - slices.label, 0).astype(np.uint8))
    model = bundled_model(BUNDLED_LUNGS)
    right, wrong = (count_wrong_pixels(model, labelled) for labelled in (slices, exchanged))
    assert right.max() < 0.1 * wrong[:6].min()
    assert right[6] == wrong[6] == 0  # the last one shows no lung, and the network finds none


def test_blanked_slices_keep_their_lungs() -> None:
    slices, rng = two_lungs(), np.random.default_rng(1)
    image, maps = augment_lungs(
        torch.from_numpy(slices.hu[:6]).float()[:, None], torch.from_numpy(slices.label[:6]), rng
    )
    assert image.isfinite().all()
    assert maps.sum() > 0


@pytest.mark.slow
def test_a_short_training_ends_in_a_model_that_runs(tmp_path: Path) -> None:
    slices, short = two_lungs(), replace(TRAINING, epochs=1, compile=False)
    sampling = LungSampling(steps=2, batch_size=2)
    model = train_lungs(slices, tmp_path / "run", sampling=sampling, training=short)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ConfigError, match="already holds a training: continue it with --resume"):
        train_lungs(slices, tmp_path / "run", sampling=sampling, training=short)
    with pytest.raises(ConfigError, match="started with other slices or settings"):
        train_lungs(replace(slices, hu=slices.hu + 1), tmp_path / "run", resume=True, sampling=sampling, training=short)
    with pytest.raises(ConfigError, match="started with other slices or settings"):
        train_lungs(slices, tmp_path / "run", resume=True, sampling=sampling, training=replace(short, epochs=2))
    (tmp_path / "run" / "last.ckpt").rename(tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match=r"what is left of a training \(groundglass-lungs\.onnx\), but no last\.ckpt"):
        train_lungs(slices, tmp_path / "run", sampling=sampling, training=short)
    (tmp_path / "last.ckpt").rename(tmp_path / "run" / "last.ckpt")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert model.name == "groundglass-lungs.onnx"
    card = read_card(model)
    assert card.trained_on == TrainedOn(members=("volumes/1",), patients=("volumes/1",))
    assert card.never_trained_on == ("volumes/4", "volumes/5", "volumes/8")
    assert any("abdomen" in text for text in card.training_data)
    assert model.stat().st_size < 3_000_000
    assert not any(word in model.read_bytes() for word in (b"site-packages", str(ROOT).encode()))  # of this machine
    found = list(LungNetwork(OnnxRuntimeEngine(model), 2).maps(slices.hu, LIMITS_HU))
    assert len(found) == len(slices)
    assert found[0].probability.shape == (2, INSIDE, INSIDE)


@pytest.mark.slow
def test_a_training_starts_from_an_exported_network(tmp_path: Path) -> None:
    rested = replace(TRAINING, epochs=1, compile=False, learning_rate=1e-12, weight_decay=0.0)
    sampling, start = LungSampling(steps=1, batch_size=2), bundled_model(BUNDLED_LUNGS)
    model = train_lungs(two_lungs(), tmp_path, start=start, sampling=sampling, training=rested)
    image = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(1, 1, SIDE, SIDE)
    before, after = (OnnxRuntimeEngine(path).run(image) for path in (start, model))
    assert np.abs(before - after).max() < 1e-3
    trained_on = read_card(model).trained_on
    assert trained_on is not None
    assert set(trained_on.members) == {"volumes/1", *(read_card(start).trained_on or TrainedOn()).members}
    with pytest.raises(ConfigError, match="started with other slices or settings"):
        train_lungs(two_lungs(), tmp_path, resume=True, sampling=sampling, training=rested)


@pytest.mark.slow
def test_a_card_names_no_test_volume_that_the_first_network_was_trained_on(tmp_path: Path) -> None:
    start = Path(shutil.copy(bundled_model(BUNDLED_LUNGS), tmp_path / "start.onnx"))
    write_card(
        start,
        read_card(bundled_model(BUNDLED_LUNGS)).model_copy(update={"trained_on": TrainedOn(members=("volumes/4",))}),
    )
    rested, sampling = replace(TRAINING, epochs=1, compile=False), LungSampling(steps=1, batch_size=2)
    card = read_card(train_lungs(two_lungs(), tmp_path / "run", start=start, sampling=sampling, training=rested))
    assert card.never_trained_on == ("volumes/5", "volumes/8")
