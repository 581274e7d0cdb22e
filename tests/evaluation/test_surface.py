import numpy as np
import pytest
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.evaluation.surface import BOTH_EMPTY, COARSE, EMPTY_MASK, TOLERANCE_MM, compare_surfaces

SHAPE = (9, 30, 34)
SPACING = (5.0, 0.9, 0.7)


def blobs(seed: int, share: float = 0.06) -> NDArray[np.bool_]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), (0.8, 2, 2))
    return np.asarray(noise > np.quantile(noise, 1 - share))


def batch(mask: NDArray[np.bool_]) -> torch.Tensor:
    return torch.from_numpy(mask[None, None].astype(np.float32))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI about itself
@pytest.mark.parametrize("seed", range(6))
def test_scores_equal_those_of_monai(seed: int) -> None:
    truth = blobs(seed)
    predicted = np.roll(truth, (0, 1, 2), (0, 1, 2)) | blobs(seed + 50, 0.004) if seed % 2 else blobs(seed + 100, 0.03)
    ours = compare_surfaces(predicted, truth, SPACING)
    pair = batch(predicted), batch(truth)
    hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=SPACING)
    dice = compute_surface_dice(*pair, [TOLERANCE_MM], include_background=True, spacing=SPACING)
    assert ours.hd95_mm == pytest.approx(float(hd95), abs=1e-4)
    assert ours.surface_dice == pytest.approx(float(dice), abs=1e-6)
    assert not ours.unknown


def test_scores_match_a_worked_example() -> None:
    truth = np.zeros((3, 10, 20), dtype=np.bool_)
    truth[1, 2:6, 2:6] = True  # one slice: every voxel is surface
    shifted = np.roll(truth, 3, axis=2)
    scores = compare_surfaces(shifted, truth, (5.0, 1.0, 1.0))
    # columns of four voxels lie 0, 1, 2, 3 mm from the other square, in both directions
    assert scores.surface_dice == pytest.approx(3 / 4)
    assert scores.hd95_mm == pytest.approx(3.0)
    assert compare_surfaces(truth, truth, (5.0, 1.0, 1.0)).hd95_mm == 0
    assert compare_surfaces(np.roll(truth, 1, axis=0), truth, (5.0, 1.0, 1.0)).hd95_mm == 5
    assert compare_surfaces(np.roll(truth, 1, axis=0), truth, (5.0, 1.0, 1.0)).surface_dice == 0


@pytest.mark.parametrize(
    ("predicted", "truth", "dice", "unknown"),
    [
        (True, False, 0.0, {"hd95_mm": EMPTY_MASK}),
        (False, True, 0.0, {"hd95_mm": EMPTY_MASK}),
        (False, False, None, {"hd95_mm": EMPTY_MASK, "surface_dice": BOTH_EMPTY}),
    ],
)
def test_empty_masks_have_a_reason(predicted: bool, truth: bool, dice: float | None, unknown: dict[str, str]) -> None:
    scores = compare_surfaces(np.full((2, 3, 3), predicted), np.full((2, 3, 3), truth), SPACING)
    assert (scores.hd95_mm, scores.surface_dice, scores.unknown) == (None, dice, unknown)


def test_pixels_wider_than_the_tolerance_have_no_surface_dice() -> None:
    mask = blobs(1)
    scores = compare_surfaces(mask, mask, (5.0, 2.5, 2.5))
    assert (scores.hd95_mm, scores.surface_dice, scores.unknown) == (0, None, {"surface_dice": COARSE})
