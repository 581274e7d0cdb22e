"""The rules that every figure follows, in words: they stand in each report."""

from __future__ import annotations

from groundglass.data.slices import UNSTATED
from groundglass.evaluation.calibration import BINS
from groundglass.evaluation.intervals import FEWEST_PATIENTS, RESAMPLES, SEED
from groundglass.evaluation.lesions import EDGES, HIT_PERCENT
from groundglass.evaluation.surface import PERCENTILE, TOLERANCE_MM


def _edges(unit: str) -> str:
    return ", ".join(f"{edge:g}" for edge in EDGES[unit])


EMPTY_MASKS = (
    "A score whose denominator is 0 is undefined: null in JSON, an empty cell in CSV, - in tables. Undefined scores "
    "are left out of means, and how many were left out is stated. So the Dice of an empty prediction on an empty "
    "reference is undefined, not 1, and that of any other prediction on an empty reference is 0. HD95 is undefined "
    "where either mask is empty; the surface Dice is undefined where both are, and 0 where one is."
)

RULES = {
    "empty masks": EMPTY_MASKS,
    "counting": (
        "Any label but 0 is lesion. 'Every slice' counts every pixel of every slice that is scored, slices without "
        "lesion or lung included; 'lesion slices' those whose reference shows lesion; 'crops' the latter as the "
        "network sees them, on its own grid and before regions that touch no lung are dropped."
    ),
    "means": (
        "Pooled scores add all pixels before they divide. Means give each slice, volume or patient the same weight; a "
        "volume is scored on all its counted slices together, and pictures and stacks of different patients are no "
        "volumes, but patients are scored on all their counted slices together, whatever files they are in."
    ),
    "intervals": (
        f"95 %: percentiles of {RESAMPLES} draws of the patients with replacement (seed {SEED}). Patients with nothing "
        f"to count are not drawn; fewer than {FEWEST_PATIENTS} others give no interval. Slices that stand alone are a "
        "patient each."
    ),
    "surfaces": (
        f"HD95 is the larger of the two directions' {PERCENTILE}th percentile of the distances between surface voxels; "
        f"the surface Dice is the share of both surfaces within {TOLERANCE_MM:g} mm of the other. In 3-D and mm, for "
        "whole volumes of known spacing; a voxel is surface where one of its six faces is. No surface Dice where "
        "pixels are wider than the tolerance."
    ),
    "lesions": (
        "A lesion is a connected region: 26-connected in whole volumes of known spacing, 8-connected in slices that "
        f"stand alone. It is found if at least {HIT_PERCENT} % of it is marked; a marked region is right if at least "
        f"{HIT_PERCENT} % of it is lesion. Size classes begin at {_edges('ml')} ml in volumes and at {_edges('px')} "
        "pixels of the slice elsewhere; recall goes by the lesion's size, precision by the marked region's."
    ),
    "volume and burden": (
        "Error is prediction minus reference, for whole volumes of known spacing. Burden is lesion inside the lung "
        "field, in percent of the field, with the respective lesions counted in; its error is in points of percent. "
        "Limits of agreement are the bias -+ 1.96 standard deviations of the errors (Bland and Altman 1986), from two "
        "volumes on."
    ),
    "false positives": "What is marked in slices whose reference shows no lesion, in ml, for volumes of known spacing.",
    "calibration": (
        f"Over the pixels that the network looked at. Reliability in {BINS} bins of equal width; ECE is the mean of "
        "|lesion share - mean probability| over the bins, weighted by pixels. Precision and recall by threshold are "
        "those of the network alone: regions that touch no lung are still in, lesions outside its view are not."
    ),
    "classes": (
        "A pixel is of a class where it is marked as lesion and that class has the highest probability. Pixels whose "
        f"class the reference does not state (label {UNSTATED}) are left out of the class's counts, not of the "
        "lesion's; a case that states no class of its lesions is left out of the class's scores as a whole."
    ),
}
