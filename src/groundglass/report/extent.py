"""The extent of disease in words, by its share of the lung.

The classes are those of the structured report of the French Society of Radiology, with which radiologists estimate the
extent by eye (Lodé et al. 2020, J Imag Diagn Interv, doi 10.1016/j.jidi.2020.04.011); the STOIC project read 10,735
scans with them (Revel et al. 2021, Radiology 301:E361, doi 10.1148/radiol.2021210384). A share that was measured is not
one that was estimated by eye, and a class says nothing about how ill a patient is.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal

from groundglass.strict_model import StrictModel

ExtentName = Literal["none", "minimal", "moderate", "extensive", "severe", "critical"]
NEGLIGIBLE_PERCENT = 0.04  # of the lung; bundled models marked 0.00 to 0.03 % of a chest without COVID, up to 1.1 ml
EDGES_PERCENT = (10.0, 25.0, 50.0, 75.0)
NAMES: tuple[ExtentName, ...] = ("minimal", "moderate", "extensive", "severe", "critical")
SOURCE = "classes of the French Society of Radiology: Lodé et al. 2020, Revel et al. 2021 (STOIC)"


class Extent(StrictModel):
    """The class of a lesion's share of the lung, and the range of shares that it stands for.

    Attributes:
        name: The class.
        range: The shares of the lung that it stands for.
    """

    name: ExtentName
    range: str


def is_negligible_share(share_percent: float, interval: tuple[float, float] | None) -> bool:
    """Return whether a share of the lung is so little that its interval begins at 0.

    Without an interval, whether it is at most `NEGLIGIBLE_PERCENT` of the lung.
    """
    return share_percent <= NEGLIGIBLE_PERCENT if interval is None else interval[0] == 0


def is_negligible(
    share_percent: float, interval: tuple[float, float] | None, lesion_ml: float | None, lung_ml: float | None
) -> bool:
    """Return whether lesions are as little as is marked in healthy lungs; see `is_negligible_share`.

    What lies outside the lung field, which the share leaves out, is that up to `NEGLIGIBLE_PERCENT` of the lung.

    Args:
        share_percent: Share of the lung that they fill.
        interval: Its interval; None: not known.
        lesion_ml: Volume of all lesions; None: not known.
        lung_ml: Volume of the lungs; None: not known.
    """
    outside = 100 * lesion_ml / lung_ml - share_percent if lesion_ml is not None and lung_ml else 0.0
    return outside <= NEGLIGIBLE_PERCENT and is_negligible_share(share_percent, interval)


def classify_extent(share_percent: float, interval: tuple[float, float] | None = None) -> Extent:
    """Return the class of a share of the lung, whose interval tells whether it is more than nothing."""
    if share_percent == 0:
        return Extent(name="none", range="0 %")
    if is_negligible_share(share_percent, interval):
        return Extent(name="none", range="nearly 0 %")
    index = bisect_right(EDGES_PERCENT, share_percent)
    if index == 0:
        return Extent(name=NAMES[0], range=f"below {EDGES_PERCENT[0]:.0f} %")
    if index == len(EDGES_PERCENT):
        return Extent(name=NAMES[-1], range=f"from {EDGES_PERCENT[-1]:.0f} %")
    return Extent(name=NAMES[index], range=f"{EDGES_PERCENT[index - 1]:.0f} to {EDGES_PERCENT[index]:.0f} %")
