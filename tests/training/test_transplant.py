import numpy as np
import torch

from groundglass.data.slices import Slices
from groundglass.training.batches import NO_AUGMENTATION, SamplingConfig, training_batches
from groundglass.training.transplant import transplant

LUNG_HU, VESSEL_HU, LESION_HU = -850.0, 30.0, -400.0
SEEDS = np.arange(64)


def receivers() -> tuple[torch.Tensor, torch.Tensor]:
    """Return HU and maps (lesion, lungs) of slices: lung left of column 16, a vessel in row 4."""
    hu = torch.full((len(SEEDS), 1, 32, 32), LUNG_HU)
    hu[..., 4, :], hu[..., 16:] = VESSEL_HU, 40.0
    maps = torch.zeros((len(SEEDS), 2, 32, 32))
    maps[:, 1, :, :16] = 1
    return hu, maps


def donors() -> tuple[torch.Tensor, torch.Tensor]:
    """Return slices with two lesions: one in rows 2 to 10, from lung to soft tissue, the other in rows 20 to 28."""
    hu, maps = torch.full((len(SEEDS), 1, 32, 32), -900.0), torch.zeros((len(SEEDS), 2, 32, 32))
    for rows in (slice(2, 10), slice(20, 28)):
        hu[..., rows, 8:24], maps[:, 0, rows, 8:24] = LESION_HU, 1
    return hu, maps


def test_a_lesion_makes_lung_dense_at_its_place_and_changes_nothing_else() -> None:
    (hu, maps), (donor_hu, donor_maps) = receivers(), donors()
    changed, lesions = transplant(hu, maps, donor_hu, donor_maps, SEEDS)
    upper = lesions[:, 0, 5, 12] > 0
    assert 32 < upper.sum() < 60  # most lesions are chosen, not all
    assert (changed[upper, 0, 6:9, 9:15] == LESION_HU).all()
    assert (changed[~upper, 0, :10] == hu[~upper, 0, :10]).all()
    assert (changed[:, 0, 12:18] == hu[:, 0, 12:18]).all()  # between the lesions
    assert (changed[:, 0, 4] == hu[:, 0, 4]).all()  # a vessel
    assert (changed[..., 17:] == hu[..., 17:]).all()  # soft tissue
    assert not lesions[:, 0, :, 16:].any()
    assert torch.equal(lesions[:, 1], maps[:, 1])  # the lungs are where they were


def test_lesions_of_a_donor_are_chosen_apart() -> None:
    _, lesions = transplant(*receivers(), *donors(), SEEDS)
    both = {(bool(one[0, 5, 12]), bool(one[0, 24, 12])) for one in lesions}
    assert both == {(False, False), (False, True), (True, False), (True, True)}


def test_lesions_that_were_there_stay_and_a_transplanted_one_brings_its_classes() -> None:
    (hu, maps), (donor_hu, donor_maps) = receivers(), donors()
    maps = torch.cat((maps[:, :1], torch.zeros_like(maps[:, :1]), maps[:, 1:]), dim=1)
    donor_maps = torch.cat((donor_maps[:, :1], donor_maps[:, :1], donor_maps[:, 1:]), dim=1)
    maps[:, 0, 14:17, 4:8] = 1
    _, lesions = transplant(hu, maps, donor_hu, donor_maps, SEEDS)
    assert (lesions[:, 0, 14:17, 4:8] == 1).all()
    assert not lesions[:, 1, 14:17, 4:8].any()
    assert torch.equal(lesions[:, 1, 20:28], lesions[:, 0, 20:28])


def two_scans() -> Slices:
    """Return 20 slices of healthy lung, and one slice full of lesion."""
    hu, labels = np.full((21, 8, 8), LUNG_HU, np.int16), np.zeros((21, 8, 8), np.uint8)
    hu[-1], labels[-1] = LESION_HU, 1
    names = np.array(["healthy"] * 20 + ["ill"])
    return Slices(hu, labels, names, np.arange(21), names, np.full(21, 6.0), np.ones(hu.shape, bool))


def batch(slices: Slices, probability: float) -> tuple[torch.Tensor, torch.Tensor]:
    sampling = SamplingConfig(batch_size=21, lesion_free=True, transplant_prob=probability)
    return next(iter(training_batches(slices, (-1000.0, 0.0), sampling, NO_AUGMENTATION, seed=1, lung_map=True)))


def test_slices_of_a_batch_get_lesions_of_others_with_their_density() -> None:
    (image, target), (_, plain) = batch(two_scans(), 1.0), batch(two_scans(), 0.0)
    assert plain[:, 0].amax((1, 2)).sum() == 1
    ill = target[:, 0].amax((1, 2)) > 0
    assert 8 < ill.sum() < 21
    assert torch.allclose(image[ill].amax((1, 2, 3)), torch.tensor(0.6), atol=1e-3)
    assert torch.allclose(image[~ill], torch.tensor(0.15), atol=1e-3)


def test_the_share_of_slices_with_transplanted_lesions_follows_the_probability() -> None:
    shares = []
    for probability in (0.3, 1.0):
        sampling = SamplingConfig(batch_size=21, samples=21, lesion_free=True, transplant_prob=probability)
        loader = training_batches(two_scans(), (-1000.0, 0.0), sampling, NO_AUGMENTATION, seed=1, lung_map=True)
        ill = []
        for epoch in range(30):
            loader.set_epoch(epoch)
            ill += [float(target[:, 0].amax((1, 2)).mean()) for _, target in loader]
        shares.append(np.mean(ill))
    assert abs(shares[0] / shares[1] - 0.3) < 0.1


def test_without_any_lesion_nothing_is_transplanted() -> None:
    healthy = two_scans().where(np.arange(21) < 20)
    sampling = SamplingConfig(batch_size=20, lesion_free=True, transplant_prob=1.0)
    loader = training_batches(healthy, (-1000.0, 0.0), sampling, NO_AUGMENTATION, seed=1, lung_map=True)
    assert sum(float(target[:, 0].sum()) for _, target in loader) == 0
