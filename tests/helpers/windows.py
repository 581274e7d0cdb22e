"""HU as grey levels of a window."""

import numpy as np
from numpy.typing import NDArray

WINDOWS = [(-2048, 1700), (-1024, 1500), (-1500, 500), (-1350, 150), (-1000, 400), (-1000, 50)]


def grey_levels(
    hu: NDArray[np.integer] | NDArray[np.floating], low: float = -1250, high: float = 250
) -> NDArray[np.uint8]:
    """Scale HU from `low` to `high` to 0 to 255, as an 8-bit export in that window does."""
    grey: NDArray[np.uint8] = np.rint(np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(
        np.uint8
    )
    return grey
