"""What a training sees beside the first reader's mask: a second reader, the lungs, and thick slices."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from groundglass.data.slices import NOT_READ, Slices
from groundglass.network.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.training.batches import NO_AUGMENTATION, Batches, SamplingConfig, plain_batches, training_batches
from groundglass.training.module import LesionModule, TrainingConfig
from groundglass.training.weights import adapt_weights, load_network, untrained_module

WINDOW = (-1000.0, 0.0)
COUNT = 24


def scan(spacing_mm: float = 2.0) -> Slices:
    """Return a scan of which slice i has the value -10 i HU, and lung everywhere but in the first row."""
    hu = np.arange(COUNT)[:, None, None] * -10 * np.ones((1, 8, 8))
    names, lungs = np.array(["volumes/1"] * COUNT), np.ones(hu.shape, bool)
    lungs[:, 0] = False
    labels = np.zeros(hu.shape, np.uint8)
    return Slices(hu.astype(np.int16), labels, names, np.arange(COUNT), names, np.full(COUNT, spacing_mm), lungs)


def batches(slices: Slices, thick_prob: float = 0.0, neighbours_mm: float = 0.0) -> Batches:
    sampling = SamplingConfig(batch_size=COUNT, lesion_free=True, thick_prob=thick_prob)
    return training_batches(slices, WINDOW, sampling, NO_AUGMENTATION, 0, neighbours_mm=neighbours_mm)


def test_a_lung_map_follows_the_lesion_and_is_left_out_where_it_is_not_asked_for() -> None:
    (_, with_lung), (_, without) = (
        next(iter(plain_batches(scan(), WINDOW, COUNT, lung_map=lung_map))) for lung_map in (True, False)
    )
    assert (with_lung.shape[1], without.shape[1]) == (2, 1)
    assert with_lung[:, 1, 0].sum() == 0
    assert bool((with_lung[:, 1, 1:] == 1).all())


def test_about_half_of_the_targets_are_the_second_readers_and_unread_scans_keep_the_first() -> None:
    slices = scan()
    second = np.ones(slices.labels.shape, np.uint8)
    second[:4] = NOT_READ
    source = batches(replace(slices, second_reader=second))
    drawn = []
    for epoch in range(20):
        source.set_epoch(epoch)
        order = next(source.order.keys(epoch))[:, 0]
        _, target = next(iter(source))
        lesion = target.mean((1, 2, 3)).numpy()
        assert set(lesion.tolist()) <= {0.0, 1.0}
        assert not lesion[order < 4].any()
        drawn += lesion[order >= 4].tolist()
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.08)


def test_scores_are_of_the_first_reader_alone() -> None:
    slices = replace(scan(), second_reader=np.ones((COUNT, 8, 8), np.uint8))
    assert next(iter(plain_batches(slices, WINDOW, COUNT)))[1].sum() == 0


def test_thick_slices_are_means_of_neighbours_of_at_most_ten_mm() -> None:
    inputs = batches(scan(2.0), thick_prob=1.0).inputs
    indices, weights = inputs.of(np.stack([np.full(200, 12), np.arange(200)], axis=1))
    counts = (weights > 0).sum(1)
    assert set(counts.tolist()) == {2, 3, 4, 5}
    assert np.allclose(weights.sum(1), 1)
    for row, weight in zip(indices[:, 0], weights, strict=True):
        used = row[weight > 0]
        assert (np.diff(used) == 1).all()
        assert used[0] <= 12 <= used[-1]
    assert set(
        (batches(scan(4.5), thick_prob=1.0).inputs.of(np.stack([np.full(50, 12), np.arange(50)], 1))[1] > 0).sum(1)
    ) == {2}


@pytest.mark.parametrize("spacing_mm", [6.0, np.nan])
def test_thick_slices_and_pictures_stay_as_they_are(spacing_mm: float) -> None:
    _, weights = batches(scan(spacing_mm), thick_prob=1.0).inputs.of(np.stack([np.arange(20), np.arange(20)], 1))
    assert ((weights > 0).sum(1) == 1).all()


def test_the_neighbours_of_a_thick_slice_are_thick_and_beside_it() -> None:
    inputs = batches(scan(2.0), thick_prob=1.0, neighbours_mm=5.0).inputs
    indices, weights = inputs.of(np.stack([np.full(60, 12), np.arange(60)], axis=1))
    for row, weight in zip(indices, weights, strict=True):
        below, middle, above = (channel[weight > 0] for channel in row)
        count = int((weight > 0).sum())
        step = count * max(1, round(5.0 / (2.0 * count)))
        assert (middle - below == step).all()
        assert (above - middle == step).all()


def test_a_thick_slice_holds_the_mean_of_its_slices_and_the_lesion_of_most_of_them() -> None:
    slices = scan(2.0)
    slices.labels[::3] = 1  # a third of the slices, so that most of a thick slice is never lesion but in pairs
    source = batches(slices, thick_prob=1.0)
    key = next(source.order.keys(0))
    (image, target), (indices, weights) = next(iter(source)), source.inputs.of(key)
    expected_hu = (slices.hu[indices[:, 0]].mean((2, 3)) * weights).sum(1)
    assert np.allclose(image.mean((1, 2, 3)), (expected_hu + 1000) / 1000, atol=1e-4)
    share = ((slices.labels[indices[:, 0]] > 0).mean((2, 3)) * weights).sum(1)
    clear = np.abs(share - 0.5) > 0.01
    assert (target.mean((1, 2, 3)).numpy()[clear] == (share > 0.5)[clear]).all()


def test_a_network_is_exported_without_the_map_of_the_lungs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = LesionModule(NetworkConfig((4, 8), classes=2), LossConfig(), TrainingConfig()).eval()
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "last.ckpt")
    exported = load_network(tmp_path / "last.ckpt", NetworkConfig((4, 8), classes=1))
    image = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        assert torch.allclose(exported(image), trained(image)[:, :1], atol=1e-5)


def test_further_maps_start_at_zero_beside_the_lesion_that_was_learned() -> None:
    torch.manual_seed(0)
    source, target = NetworkConfig((4, 8)), NetworkConfig((4, 8), classes=3, slices=3)
    trained = untrained_module(source).eval()
    module = untrained_module(target).eval()
    module.load_state_dict(adapt_weights(trained.state_dict(), source, target))
    image = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        maps = module(image.repeat(1, 3, 1, 1))
        assert torch.allclose(maps[:, :1], trained(image), atol=1e-6)
    assert not maps[:, 1:].any()
