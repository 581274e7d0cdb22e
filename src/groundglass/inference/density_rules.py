"""What the density of a place tells of lesions, which augmentation with other windows hides from the network."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from groundglass.inference.engine import log_odds, sigmoid
from groundglass.inference.model_card import ModelCard

DENSITY_CLASSES = ("ground-glass", "consolidation")
CONSOLIDATION_HU = -350.0  # from which on readers call it consolidation; chosen on folds, see docs/history.md
REACH = 1 / 128  # standard deviation of the Gaussian, as a share of the input's height: about 2 mm
SLOPE_HU = np.float32(100)  # by which the log-odds of lesion change by 1
SOFTNESS_HU = np.float32(50)  # by which those of consolidation do
SURE = 1e-7  # probability; what is surer counts no more than this


def apply_density_rules(
    probability: NDArray[np.float32], images: NDArray[np.float32], card: ModelCard
) -> NDArray[np.float32]:
    """Apply the density rules of a card to what its network says.

    Args:
        probability: (n, maps, height, width); the first map is lesion.
        images: (n, slices, height, width) inputs of the network, in [0, 1].
        card: The card: its window, and where its rules begin.

    Returns:
        Probabilities of the same form: the log-odds of lesion are lower where it is light, and with
        `card.consolidation_hu` the maps after it are those of `DENSITY_CLASSES`.
    """
    hu, lesion = card.window.to_hu(images[:, images.shape[1] // 2]), probability[:, 0]
    if card.light_hu is not None:
        lesion = np.stack([_less_where_light(*pair, card.light_hu) for pair in zip(lesion, hu, strict=True)])
    classes = probability[:, 1:]
    if card.consolidation_hu is not None:
        classes = np.stack([class_probabilities(*pair, card.consolidation_hu) for pair in zip(hu, lesion, strict=True)])
    return np.concatenate((lesion[:, None], classes), axis=1)


def _less_where_light(lesion: NDArray[np.float32], hu: NDArray[np.float32], light_hu: float) -> NDArray[np.float32]:
    """Lower the log-odds of lesion (height, width) by 1 for each 100 HU that a place is lighter than `light_hu`."""
    return sigmoid(log_odds(lesion, SURE) - np.maximum(0, np.float32(light_hu) - _blurred(hu)) / SLOPE_HU)


def lesion_density(hu: NDArray[np.float32], lesion: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean HU of the lesion around each pixel: a Gaussian, weighted by the probability of lesion.

    Where there is hardly any, as where only the slices beside it show a lesion, all around the pixel counts alike.

    Args:
        hu: (height, width).
        lesion: (height, width) probability of lesion.
    """
    weight, sure = _blurred(lesion), np.float32(SURE)
    return np.where(weight > sure, _blurred(hu * lesion) / np.maximum(weight, sure), _blurred(hu))


def class_probabilities(
    hu: NDArray[np.float32], lesion: NDArray[np.float32], consolidation_hu: float
) -> NDArray[np.float32]:
    """Return (2, height, width): how probably lesion at each pixel is of each of `DENSITY_CLASSES`.

    Args:
        hu: (height, width).
        lesion: (height, width) probability of lesion, above 0.
        consolidation_hu: Mean density from which on consolidation is the more probable one.
    """
    consolidation = sigmoid((lesion_density(hu, lesion) - np.float32(consolidation_hu)) / SOFTNESS_HU)
    return np.stack((1 - consolidation, consolidation))


def _blurred(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), plane.shape[0] * REACH), dtype=np.float32)
