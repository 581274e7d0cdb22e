"""Agreement of two measurements after Bland and Altman (1986): bias and 95 % limits of agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundglass.evaluation.intervals import Estimate, estimate

MIN_VOLUMES = 2


@dataclass(frozen=True)
class PairedMeasurement:
    """One quantity of one volume, measured on the prediction and on the reference."""

    predicted: float
    reference: float

    @property
    def error(self) -> float:
        """Predicted minus reference."""
        return self.predicted - self.reference


@dataclass(frozen=True)
class Agreement:
    """Agreement of prediction and reference over all volumes.

    Attributes:
        volumes: Number of volumes.
        bias: Mean error.
        mean_absolute_error: Mean of the absolute errors.
        limits: Bias -+ 1.96 standard deviations (n - 1) of the errors; None for fewer than `MIN_VOLUMES` volumes.
    """

    volumes: int
    bias: Estimate
    mean_absolute_error: Estimate
    limits: tuple[float, float] | None


def measure_agreement(pairs: Sequence[PairedMeasurement], patients: Sequence[str]) -> Agreement:
    """Summarise the errors of (n,) pairs of the (n,) patients."""
    errors, ones = np.array([pair.error for pair in pairs]), np.ones(len(pairs))
    limits = None
    if len(pairs) >= MIN_VOLUMES:
        bias, half_width = float(errors.mean()), 1.96 * float(errors.std(ddof=1))
        limits = (bias - half_width, bias + half_width)
    return Agreement(len(pairs), estimate(errors, ones, patients), estimate(np.abs(errors), ones, patients), limits)
