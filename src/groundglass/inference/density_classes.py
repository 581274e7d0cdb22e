"""Ground-glass and consolidation told apart by density, as readers do: what hides the vessels is consolidation."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

DENSITY_CLASSES = ("ground-glass", "consolidation")
REACH = 1 / 128  # standard deviation of the Gaussian, as a share of the input's height: about 2 mm
SOFTNESS_HU = np.float32(50)


def lesion_density(hu: NDArray[np.float32], lesion: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean HU of the lesion around each pixel: a Gaussian, weighted by the probability of lesion.

    Args:
        hu: (height, width).
        lesion: (height, width) probability of lesion, above 0.
    """
    sigma = hu.shape[0] * REACH
    weighted, weight = (cv2.GaussianBlur(plane, (0, 0), sigma) for plane in (hu * lesion, lesion))
    return np.asarray(weighted / np.maximum(weight, np.float32(1e-6)), dtype=np.float32)


def class_probabilities(
    hu: NDArray[np.float32], lesion: NDArray[np.float32], consolidation_hu: float
) -> NDArray[np.float32]:
    """Return (2, height, width): how probably lesion at each pixel is of each of `DENSITY_CLASSES`.

    Args:
        hu: (height, width).
        lesion: (height, width) probability of lesion, above 0.
        consolidation_hu: Mean density from which on consolidation is the more probable one.
    """
    log_odds = np.clip((lesion_density(hu, lesion) - np.float32(consolidation_hu)) / SOFTNESS_HU, -30, 30)
    consolidation = 1 / (1 + np.exp(-log_odds))
    return np.stack((1 - consolidation, consolidation))
