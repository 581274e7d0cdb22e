"""Agreement of two measurements after Bland and Altman (1986): bias and 95 % limits of agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundglass.evaluation.intervals import Estimate, estimate

FEWEST_VOLUMES = 2


@dataclass(frozen=True)
class PairedMeasurement:
    """One quantity of one volume, measured twice."""

    predicted: float
    reference: float

    @property
    def error(self) -> float:
        """Predicted minus reference."""
        return self.predicted - self.reference


@dataclass(frozen=True)
class Agreement:
    """Of all volumes.

    Attributes:
        volumes: How many.
        bias: Mean error.
        mean_absolute_error: The mean size of the error.
        limits: Bias -+ 1.96 standard deviations (n - 1) of the errors; None for fewer than two volumes.
    """

    volumes: int
    bias: Estimate
    mean_absolute_error: Estimate
    limits: tuple[float, float] | None


def agreement(pairs: Sequence[PairedMeasurement], patients: Sequence[str]) -> Agreement:
    """Compare the pairs; `patients` names whose each is."""
    errors, ones = np.array([pair.error for pair in pairs]), np.ones(len(pairs))
    limits = None
    if len(pairs) >= FEWEST_VOLUMES:
        centre, reach = float(errors.mean()), 1.96 * float(errors.std(ddof=1))
        limits = (centre - reach, centre + reach)
    return Agreement(len(pairs), estimate(errors, ones, patients), estimate(np.abs(errors), ones, patients), limits)
