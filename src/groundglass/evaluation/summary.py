"""An evaluation as strict JSON: no NaN or Infinity; an undefined value is null, with its reason in `unknown`."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from groundglass.evaluation.agreement import MIN_VOLUMES, Agreement, PairedMeasurement
from groundglass.evaluation.calibration import expected_calibration_error, precision_recall_curve, reliability_bins
from groundglass.evaluation.intervals import MIN_PATIENTS, Estimate
from groundglass.evaluation.lesions import SIZE_EDGES, SizeClassScores, score_by_size
from groundglass.evaluation.results import CaseScore, Evaluation, Scores
from groundglass.evaluation.rules import RULES
from groundglass.evaluation.surface import TOLERANCE_MM
from groundglass.evaluation.tables import DIGITS
from groundglass.evaluation.volume import QUANTITIES
from groundglass.metrics import Confusion
from groundglass.unknown import known, resolve

SCHEMA = 1
NOTHING = "there is nothing to count: the denominator is 0"


def to_json(evaluation: Evaluation) -> str:
    """Format an evaluation as the text of `scores.json`, rounded to `DIGITS`."""
    values, unknown = resolve(_tree(evaluation))
    return json.dumps(_rounded(values) | {"unknown": unknown}, indent=2, allow_nan=False) + "\n"


def _rounded(node: Any) -> Any:
    """Copy a tree with every float rounded."""
    if isinstance(node, dict):
        return {key: _rounded(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_rounded(value) for value in node]
    return round(node, DIGITS) if isinstance(node, float) else node


def _tree(evaluation: Evaluation) -> dict[str, Any]:
    slices = evaluation.slices
    return {
        "schema": SCHEMA,
        "version": version("groundglass"),
        "model": evaluation.model.model_dump()
        | {"threshold": evaluation.threshold, "classes": ("lesion", *evaluation.classes)},
        "warnings": evaluation.warnings,
        "counted": {
            "cases": len(evaluation.cases),
            "volumes": len(evaluation.volumes),
            "patients": len({score.patient for score in slices}),
            "slices": len(slices),
            "lesion_slices": sum(score.has_lesion for score in slices),
            "slices_looked_at": sum(score.box is not None for score in slices),
        },
        "pooled": {kind: _scores(scores) for kind, scores in evaluation.pooled_scores().items()},
        "mean_over": {unit: _scores(scores, means=True) for unit, scores in evaluation.mean_scores().items()},
        "classes": {name: _class(evaluation, name) for name in evaluation.classes},
        "surface": {"tolerance_mm": TOLERANCE_MM}
        | {name: _estimate(value, means=True) for name, value in evaluation.surface_scores().items()},
        "lesions": {unit: [_size_class(row) for row in score_by_size(evaluation.regions, unit)] for unit in SIZE_EDGES},
        "volume_ml": _agreement(evaluation.agreement("volume_ml")),
        "burden_points": _agreement(evaluation.agreement("burden_percent")),
        "false_positive_ml_per_lesion_free_slice": _estimate(evaluation.false_positive_ml_per_slice()),
        "calibration": _calibration(evaluation),
        "cases": {case.case: _case(case, evaluation.classes) for case in evaluation.cases},
        "rules": RULES,
    }


def _estimate(value: Estimate, means: bool = False) -> dict[str, Any]:
    reason = NOTHING if value.value is None else f"{value.patients} of at least {MIN_PATIENTS} patients"
    rows = {"counted": value.rows, "left_out": value.undefined} if means else {}
    return {"value": known(value.value, NOTHING), "interval_95": known(value.interval, reason)} | rows


def _scores(scores: Scores, means: bool = False) -> dict[str, Any]:
    return {name: _estimate(value, means) for name, value in scores.items()}


def _class(evaluation: Evaluation, name: str) -> dict[str, Any]:
    scores = evaluation.class_scores(name)
    return {
        "pooled": _scores(scores["pooled"]),
        "mean_over": {unit: _scores(scores[unit], means=True) for unit in ("slices", "volumes")},
    }


def _size_class(row: SizeClassScores) -> dict[str, Any]:
    return {
        "size_class": row.size_class,
        "lesions": row.recall.rows,
        "found": row.found,
        "recall": _estimate(row.recall),
        "marked": row.precision.rows,
        "right": row.right,
        "precision": _estimate(row.precision),
    }


def _agreement(agreement: Agreement) -> dict[str, Any]:
    return {
        "volumes": agreement.volumes,
        "bias": _estimate(agreement.bias),
        "mean_absolute_error": _estimate(agreement.mean_absolute_error),
        "limits_of_agreement_95": known(agreement.limits, f"{agreement.volumes} of at least {MIN_VOLUMES} volumes"),
    }


def _calibration(evaluation: Evaluation) -> dict[str, Any]:
    histogram, curve = evaluation.histogram, precision_recall_curve(evaluation.histogram)
    bins = reliability_bins(histogram)
    no_lesion, empty = "no lesion pixel was looked at", "no pixel has such a probability"
    precision, recall = curve.at_threshold(evaluation.threshold) if curve else (None, None)
    return {
        "pixels": histogram.pixels,
        "lesion_pixels": int(histogram.lesion.sum()),
        "ece": known(expected_calibration_error(bins), "no pixel was looked at"),
        "average_precision": known(curve.average_precision if curve else None, no_lesion),
        "at_threshold": {
            "precision": known(precision, empty if curve else no_lesion),
            "recall": known(recall, no_lesion),
        },
        "bins": [
            {
                "from": each.low,
                "to": each.high,
                "pixels": each.pixels,
                "mean_probability": known(each.mean_probability, empty),
                "lesion_share": known(each.lesion_share, empty),
            }
            for each in bins
        ],
    }


def _case(case: CaseScore, classes: tuple[str, ...]) -> dict[str, Any]:
    reasons = case.volume.unknown
    quantities = {name: known(getattr(case.volume, name), reasons.get(name, "")) for name in QUANTITIES}
    false_per_slice = known(case.false_positive_ml_per_slice, reasons.get("false_positive_ml", ""))
    return {
        "patient": case.patient,
        "slices": len(case.slices),
        "lesion_slices": len(case.slices) - case.lesion_free_slices,
        "pooled": {kind: _confusion(confusion) for kind, confusion in case.pooled_counts.items()},
        "classes": {name: _confusion(case.class_counts(name)) for name in classes},
        **{name: _pair(value) if isinstance(value, PairedMeasurement) else value for name, value in quantities.items()},
        "false_positive_ml_per_lesion_free_slice": false_per_slice,
    }


def _confusion(confusion: Confusion) -> dict[str, Any]:
    return {name: known(value, NOTHING) for name, value in confusion.scores.items()}


def _pair(pair: PairedMeasurement) -> dict[str, float]:
    return {"predicted": pair.predicted, "reference": pair.reference, "error": pair.error}
