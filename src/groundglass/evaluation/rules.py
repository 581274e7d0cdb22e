"""The scoring rules in words, as every report and `docs/evaluation.md` state them."""

from __future__ import annotations

from groundglass.data.labels import UNSTATED
from groundglass.evaluation.agreement import MIN_VOLUMES
from groundglass.evaluation.calibration import BINS
from groundglass.evaluation.intervals import MIN_PATIENTS, RESAMPLES, SEED
from groundglass.evaluation.lesions import MIN_OVERLAP_PERCENT, SIZE_EDGES
from groundglass.evaluation.surface import PERCENTILE, TOLERANCE_MM


def _edges(unit: str) -> str:
    return ", ".join(f"{edge:g}" for edge in SIZE_EDGES[unit])


EMPTY_MASKS = (
    "A score whose denominator is 0 is undefined: null in JSON, an empty cell in CSV, - in tables. Undefined scores "
    "are left out of means, and the number left out is stated. The Dice of an empty prediction on an empty reference "
    "is therefore undefined, not 1, and that of any other prediction on an empty reference is 0. HD95 is undefined "
    "where either mask is empty; the surface Dice is undefined where both are, and 0 where one is."
)

RULES = {
    "empty masks": EMPTY_MASKS,
    "counting": (
        "Every label other than 0 is lesion. 'Every slice' counts all pixels of all scored slices, including slices "
        "without lesion or lung. 'Lesion slices' counts the slices whose reference shows lesion. 'Crops' counts the "
        "same slices on the network's own grid, before regions that touch no lung are removed."
    ),
    "means": (
        "Pooled scores add all pixels before they divide. Means give each slice, volume or patient the same weight. A "
        "volume is scored on all its counted slices together; pictures and stacks of different patients are not "
        "volumes. A patient is scored on all counted slices of that patient together, whatever files they are in."
    ),
    "intervals": (
        f"95 % intervals are percentiles of {RESAMPLES} resamplings of the patients with replacement (seed {SEED}). "
        "Patients with nothing to count are not resampled; if there are fewer than "
        f"{MIN_PATIENTS} others, no interval is given. Each slice that stands alone counts as a patient of its own."
    ),
    "surfaces": (
        f"HD95 is the larger of the two directions' {PERCENTILE}th percentile of the distances between surface voxels. "
        f"The surface Dice is the share of both surfaces within {TOLERANCE_MM:g} mm of the other. Both are computed in "
        "3-D and mm, for whole volumes of known spacing; a voxel belongs to the surface if one of its six faces does. "
        "The surface Dice is undefined where pixels are wider than the tolerance."
    ),
    "lesions": (
        "A lesion is a connected region: 26-connected in whole volumes of known spacing, 8-connected in slices that "
        f"stand alone. A lesion is found if at least {MIN_OVERLAP_PERCENT} % of it is predicted; a predicted region is "
        f"right if at least {MIN_OVERLAP_PERCENT} % of it is lesion. Size classes begin at {_edges('ml')} ml in "
        f"volumes and at {_edges('px')} pixels of the slice elsewhere. Recall goes by the size of the lesion, "
        "precision by the size of the predicted region."
    ),
    "volume and burden": (
        "The error is prediction minus reference, for whole volumes of known spacing. Burden is lesion inside the lung "
        "field in percent of the field, which includes the respective lesions; its error is in percentage points. "
        "Limits of agreement are the bias -+ 1.96 standard deviations of the errors (Bland and Altman 1986), given for "
        f"at least {MIN_VOLUMES} volumes."
    ),
    "false positives": (
        "False positives are what is predicted in slices whose reference shows no lesion, in ml, for volumes of known "
        "spacing."
    ),
    "calibration": (
        f"Calibration covers the pixels that the network looked at. Reliability has {BINS} bins of equal width; ECE is "
        "the mean of |lesion share - mean probability| over the bins, weighted by pixels. Precision and recall by "
        "threshold are those of the network alone: regions that touch no lung are still included, lesions outside the "
        "network's view are not."
    ),
    "classes": (
        "A pixel belongs to a class if it is predicted as lesion and that class is the most probable one; ground-glass "
        "and consolidation are told apart by density. Pixels "
        f"whose class the reference does not state (label {UNSTATED}) are left out of the class's counts, not of the "
        "lesion's; a case that states no class of its lesions is left out of the class's scores as a whole."
    ),
}


def rules_as_markdown() -> list[str]:
    """Format the rules as a Markdown list, one line for each rule."""
    return [f"- **{name}**: {text}" for name, text in RULES.items()]
