"""An evaluation as strict JSON: never NaN or Infinity; what is undefined is null, with its reason in `unknown`."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from groundglass.evaluation.agreement import FEWEST_VOLUMES, Agreement, PairedMeasurement
from groundglass.evaluation.calibration import expected_calibration_error, precision_recall, reliability
from groundglass.evaluation.intervals import FEWEST_PATIENTS, Estimate
from groundglass.evaluation.lesions import EDGES, BySize, by_size
from groundglass.evaluation.results import CaseScore, Evaluation, Scores
from groundglass.evaluation.rules import RULES
from groundglass.evaluation.surface import TOLERANCE_MM
from groundglass.evaluation.volume import QUANTITIES
from groundglass.metrics import Confusion
from groundglass.unknown import known, resolve

SCHEMA = 1
DIGITS = 4
NOTHING = "there is nothing to count: the denominator is 0"


def to_json(evaluation: Evaluation) -> str:
    """The text of `scores.json`, rounded to four digits."""
    values, unknown = resolve(_tree(evaluation))
    return json.dumps(_rounded(values) | {"unknown": unknown}, indent=2, allow_nan=False) + "\n"


def _rounded(node: Any) -> Any:
    """The same tree with every float rounded."""
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
            "patients": len({each.patient for each in slices}),
            "slices": len(slices),
            "lesion_slices": sum(each.has_lesion for each in slices),
            "slices_looked_at": sum(each.box is not None for each in slices),
        },
        "pooled": {kind: _scores(scores) for kind, scores in evaluation.pooled_scores().items()},
        "mean_over": {unit: _scores(scores, means=True) for unit, scores in evaluation.mean_scores().items()},
        "classes": {name: _class(evaluation, name) for name in evaluation.classes},
        "surface": {"tolerance_mm": TOLERANCE_MM}
        | {name: _estimate(value, means=True) for name, value in evaluation.surface().items()},
        "lesions": {unit: [_by_size(row) for row in by_size(evaluation.regions, unit)] for unit in EDGES},
        "volume_ml": _agreement(evaluation.agreement("volume_ml")),
        "burden_points": _agreement(evaluation.agreement("burden_percent")),
        "false_positive_ml_per_lesion_free_slice": _estimate(evaluation.false_positive_ml()),
        "calibration": _calibration(evaluation),
        "cases": {case.case: _case(case, evaluation.classes) for case in evaluation.cases},
        "rules": RULES,
    }


def _estimate(value: Estimate, means: bool = False) -> dict[str, Any]:
    why = NOTHING if value.value is None else f"{value.patients} of at least {FEWEST_PATIENTS} patients"
    rows = {"counted": value.rows, "left_out": value.undefined} if means else {}
    return {"value": known(value.value, NOTHING), "interval_95": known(value.interval, why)} | rows


def _scores(scores: Scores, means: bool = False) -> dict[str, Any]:
    return {name: _estimate(value, means) for name, value in scores.items()}


def _class(evaluation: Evaluation, name: str) -> dict[str, Any]:
    scores = evaluation.class_scores(name)
    return {
        "pooled": _scores(scores["pooled"]),
        "mean_over": {unit: _scores(scores[unit], means=True) for unit in ("slices", "volumes")},
    }


def _by_size(row: BySize) -> dict[str, Any]:
    return {
        "size_class": row.size_class,
        "lesions": row.recall.rows,
        "found": row.found,
        "recall": _estimate(row.recall),
        "marked": row.precision.rows,
        "right": row.right,
        "precision": _estimate(row.precision),
    }


def _agreement(found: Agreement) -> dict[str, Any]:
    return {
        "volumes": found.volumes,
        "bias": _estimate(found.bias),
        "mean_absolute_error": _estimate(found.mean_absolute_error),
        "limits_of_agreement_95": known(found.limits, f"{found.volumes} of at least {FEWEST_VOLUMES} volumes"),
    }


def _calibration(evaluation: Evaluation) -> dict[str, Any]:
    histogram, curve = evaluation.histogram, precision_recall(evaluation.histogram)
    bins = reliability(histogram)
    none, empty = "no lesion pixel was looked at", "no pixel has such a probability"
    precision, recall = curve.at(evaluation.threshold) if curve else (None, None)
    return {
        "pixels": histogram.pixels,
        "lesion_pixels": int(histogram.lesion.sum()),
        "ece": known(expected_calibration_error(bins), "no pixel was looked at"),
        "average_precision": known(curve.average_precision if curve else None, none),
        "at_threshold": {
            "precision": known(precision, empty if curve else none),
            "recall": known(recall, none),
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
    why = case.volume.unknown
    quantities = {name: known(getattr(case.volume, name), why.get(name, "")) for name in QUANTITIES}
    false_per_slice = known(case.false_positive_ml_per_slice, why.get("false_positive_ml", ""))
    return {
        "patient": case.patient,
        "slices": len(case.slices),
        "lesion_slices": len(case.slices) - case.lesion_free,
        "pooled": {kind: _confusion(confusion) for kind, confusion in case.pooled.items()},
        "classes": {name: _confusion(case.pooled_class(name)) for name in classes},
        **{name: _pair(value) if isinstance(value, PairedMeasurement) else value for name, value in quantities.items()},
        "false_positive_ml_per_lesion_free_slice": false_per_slice,
    }


def _confusion(confusion: Confusion) -> dict[str, Any]:
    return {name: known(value, NOTHING) for name, value in confusion.scores.items()}


def _pair(pair: PairedMeasurement) -> dict[str, float]:
    return {"predicted": pair.predicted, "reference": pair.reference, "error": pair.error}
