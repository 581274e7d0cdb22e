import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from groundglass.data.labels import UNSTATED
from groundglass.data.slices import Slices
from groundglass.training.augment import AugmentConfig, augment
from groundglass.training.batches import NO_AUGMENTATION, SamplingConfig, plain_batches, training_batches

WINDOW = (-1000.0, 0.0)


def slices(count: int = 12) -> Slices:
    """Return slices of which number i has the value -10 i HU everywhere, and lesion if i is even."""
    hu = np.arange(count, dtype=np.int16)[:, None, None] * -10 * np.ones((1, 8, 10), np.int16)
    labels = (np.arange(count) % 2 == 0).astype(np.uint8)[:, None, None] * np.ones((1, 8, 10), np.uint8)
    names = np.array(["volumes/1"] * (count - 2) + ["slices/1", "slices/2"])
    return Slices(hu.astype(np.int16), labels, names, np.zeros(count, np.int64), names, np.full(count, np.nan))


def picture(labels: NDArray[np.uint8]) -> Slices:
    """Return one slice with these labels."""
    name = np.array(["a"])
    return Slices(np.zeros(labels.shape, np.int16), labels, name, np.zeros(1, np.int64), name, np.array([np.nan]))


def test_without_augmentation_a_batch_holds_the_windowed_slices() -> None:
    image, target = next(iter(plain_batches(slices(), WINDOW, 4)))
    assert image.shape == target.shape == (4, 1, 8, 10)
    expected = 1 - torch.arange(4) * 10 / 1000
    assert torch.allclose(image.mean((1, 2, 3)), expected, atol=1e-5)
    assert target.mean((1, 2, 3)).tolist() == [1, 0, 1, 0]


def test_plain_batches_hold_every_slice_once() -> None:
    sizes = [len(image) for image, _ in plain_batches(slices(), WINDOW, 5)]
    assert sizes == [5, 5, 2]


def sampled(balance: float, epoch: int, samples: int = 6) -> list[torch.Tensor]:
    loader = training_batches(slices(), WINDOW, SamplingConfig(3, samples, balance), NO_AUGMENTATION, seed=0)
    loader.set_epoch(epoch)
    return [image for image, _ in loader]


def test_an_epoch_is_always_the_same_and_unlike_the_next() -> None:
    first, again, following = sampled(0, 3), sampled(0, 3), sampled(0, 4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, following, strict=True))


def test_a_whole_epoch_takes_every_slice_once() -> None:
    values = torch.cat(sampled(0, 0, samples=0)).mean((1, 2, 3))
    assert sorted(values.tolist()) == pytest.approx([1 - i / 100 for i in reversed(range(12))])


@pytest.mark.thorough
def test_balance_samples_cases_of_one_slice_more_often() -> None:
    def share(balance: float) -> float:
        values = torch.cat([image for epoch in range(200) for image in sampled(balance, epoch)]).mean((1, 2, 3))
        return float((values < 1 - 9.5 / 100).float().mean())  # the last two slices are a case each

    assert share(0) == pytest.approx(2 / 12, abs=0.03)
    assert share(1) > 0.28  # of 6 sampled without replacement at most 2 can be theirs


STRONG_AUGMENTATION = AugmentConfig(window_hu=100, gamma=0.3, noise=0.1, blur_px=1.0)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_batch_whatever_their_number(world: int) -> None:
    def parts_of(rank: int, world: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        loader = training_batches(slices(), WINDOW, SamplingConfig(5), STRONG_AUGMENTATION, seed=0)
        loader.shard(rank, world)
        return list(loader)

    parts = [parts_of(rank, world) for rank in range(world)]
    for number, (image, target) in enumerate(parts_of(0, 1)):
        for rank in range(world):
            part, part_target = parts[rank][number]
            assert torch.allclose(part, image[rank::world], atol=1e-5)
            assert torch.equal(part_target, target[rank::world])


def test_a_process_may_get_nothing_of_the_last_plain_batch() -> None:
    loader = plain_batches(slices(11), WINDOW, 5, ("effusion",))
    loader.shard(1, 2)
    assert [tuple(image.shape) for image, _ in loader] == [(2, 1, 8, 10), (2, 1, 8, 10), (0, 1, 8, 10)]
    assert [tuple(target.shape)[:2] for _, target in loader] == [(2, 2), (2, 2), (0, 2)]


def test_each_class_has_a_target_map_that_is_negative_where_no_class_is_stated() -> None:
    labels = np.array([0, 1, 2, 3, UNSTATED], np.uint8).repeat(2)[None, None] * np.ones((1, 8, 1), np.uint8)
    ((_, target),) = plain_batches(picture(labels), WINDOW, 1, ("consolidation", "ground-glass"))
    expected = [[0, 1, 1, 1, 1], [0, 0, 1, 0, -1], [0, 1, 0, 0, -1]]  # lesion, consolidation, ground-glass
    assert target[0, :, 4, ::2].tolist() == expected
    assert torch.equal(target[..., ::2], target[..., 1::2])


def test_class_maps_move_with_the_lesion() -> None:
    labels = np.zeros((1, 32, 32), np.uint8)
    for label, column in zip((1, 2, UNSTATED), (4, 13, 22), strict=True):
        labels[0, 12:20, column : column + 8] = label
    change = AugmentConfig(flip=1.0, rotate_degrees=30, scale=0.1, shift=0.05)
    loader = training_batches(
        picture(labels), WINDOW, SamplingConfig(1), change, seed=1, classes=("ground-glass", "consolidation")
    )
    ((_, target),) = loader
    lesion, *maps = target[0]
    assert set(target.unique().tolist()) == {-1.0, 0.0, 1.0}
    unstated = maps[0] < 0
    assert torch.equal(unstated, maps[1] < 0)
    assert torch.equal(lesion > 0, unstated | (maps[0] > 0) | (maps[1] > 0))  # the squares are apart and do not overlap
    for part in (unstated, maps[0] > 0, maps[1] > 0):
        assert 40 < part.sum() < 90
    places = [part.nonzero()[:, 1].float().mean() for part in (maps[0] > 0, maps[1] > 0, unstated)]
    assert places == sorted(places, reverse=True)  # mirrored


def test_an_error_of_the_thread_that_makes_batches_is_raised() -> None:
    loader = training_batches(slices(), WINDOW, SamplingConfig(4), NO_AUGMENTATION, seed=0)
    loader.hu, loader.labels = loader.hu[:3], loader.labels[:3]
    with pytest.raises(IndexError):
        list(loader)


def test_a_flip_moves_image_and_target_alike() -> None:
    hu = torch.full((1, 1, 8, 10), -1000.0)
    hu[..., 2:4] = -200
    target = (hu > -500).float()
    image, moved = augment(hu, target, WINDOW, AugmentConfig(1.0, 0, 0, 0), [0])
    assert torch.equal(moved.round(), target.flip(3))
    assert torch.allclose(image, ((hu + 1000) / 1000).flip(3), atol=1e-4)


def test_a_rotation_by_180_degrees_moves_image_and_target_alike() -> None:
    hu = torch.full((1, 1, 8, 10), -1000.0)
    hu[..., 1:3, 2:4] = -200
    image, moved = augment(hu, (hu > -500).float(), WINDOW, AugmentConfig(0, 0, 0, 0, rotate_180_prob=1.0), [0])
    assert torch.equal(moved.round(), (hu > -500).float().flip(2, 3))
    assert torch.allclose(image, ((hu + 1000) / 1000).flip(2, 3), atol=1e-4)


def test_a_rotation_keeps_shapes_on_a_slice_wider_than_high() -> None:
    hu = torch.full((64, 1, 48, 96), -1000.0)
    hu[:, :, 12:36, 36:60] = 0  # a square of 24 x 24
    change = AugmentConfig(0, rotate_degrees=45, scale=0, shift=0)
    _, moved = augment(hu, (hu > -500).float(), WINDOW, change, range(64))
    moved = moved.round()
    area = moved.sum((1, 2, 3))
    assert ((area - 576).abs() < 40).all()
    columns, rows = moved.any(2).sum(2).flatten(), moved.any(3).sum(2).flatten()
    assert ((columns - rows).abs() <= 2).all()  # a rotated square is as wide as it is high; a sheared one is not
    assert columns.max() > 30


def test_pixels_from_outside_the_slice_are_air() -> None:
    hu = torch.zeros((1, 1, 16, 16))
    image, target = augment(hu, torch.ones_like(hu), WINDOW, AugmentConfig(0, 0, 0, shift=0.5), [3])
    assert image.min() == 0
    assert target.min() == 0
    assert ((image > 0.9) == (target > 0.5)).float().mean() > 0.9


def test_window_gamma_noise_and_blur_stay_within_0_and_1_and_keep_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    hu = torch.rand((8, 1, 32, 32), generator=generator) * 1500 - 1250
    target = (hu > -400).float()
    change = AugmentConfig(0, 0, 0, 0, window_hu=150, gamma=0.3, noise=0.1, blur_px=1.0)
    image, moved = augment(hu, target, (-1250, 250), change, range(8))
    plain, _ = augment(hu, target, (-1250, 250), NO_AUGMENTATION, range(8))
    assert torch.equal(moved.round(), target)
    assert 0 <= image.min() < image.max() <= 1
    assert (image - plain).abs().mean((1, 2, 3)).min() > 1e-3


def test_soft_targets_replace_the_lesion_map_without_rounding() -> None:
    given = slices()
    soft = np.full(given.labels.shape, 0.25, np.float16)
    for _, target in training_batches(
        given, WINDOW, SamplingConfig(4), AugmentConfig(), 0, ("consolidation",), soft_targets=soft
    ):
        assert target[:, 0].max() == pytest.approx(0.25, abs=1e-3)
        assert set(target[:, 1].unique().tolist()) <= {-1.0, 0.0, 1.0}
    for _, target in training_batches(given, WINDOW, SamplingConfig(4), AugmentConfig(), 0):
        assert set(target.unique().tolist()) <= {0.0, 1.0}


def test_blur_keeps_the_mean_and_lowers_the_contrast() -> None:
    hu = torch.rand((16, 1, 64, 64), generator=torch.Generator().manual_seed(1)) * 1000 - 1000
    blurred, _ = augment(hu, hu, WINDOW, AugmentConfig(0, 0, 0, 0, blur_px=2.0), range(16))
    assert blurred.mean().item() == pytest.approx(0.5, abs=0.01)
    spread = blurred.std((1, 2, 3))
    assert spread.min() < 0.15 < 0.28 < spread.max()
