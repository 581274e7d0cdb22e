"""Comparing the results of two jobs, by the rules of `follow`."""

from __future__ import annotations

import math

from groundglass.apps.service.api_models import Change
from groundglass.apps.service.page_text import for_the_page
from groundglass.apps.service.storage import JobFolder
from groundglass.apps.service.view_files import ViewDescription
from groundglass.report.findings import Findings, Interval
from groundglass.report.follow_up import OTHER_PATIENTS, Z_95, Visit, compare_visits, is_order_known


def compare_jobs(prior: tuple[str, JobFolder], current: tuple[str, JobFolder]) -> Change:
    """Compare two jobs that are done.

    Args:
        prior: Id and folder of the job that counts as the earlier one where the dates of the scans do not tell.
        current: Id and folder of the other one.
    """
    read = [(job_id, *_read(folder)) for job_id, folder in (prior, current)]
    dates = [findings.input.scanned for _, findings, _ in read]
    by_date = dates[0] is not None and dates[1] is not None and is_order_known(dates[0], dates[1])
    if by_date:
        read.sort(key=lambda job: str(job[1].input.scanned))
    (earlier_id, earlier, earlier_view), (later_id, later, view) = read
    corrected = earlier.corrected_by_hand or later.corrected_by_hand
    same_rules = corrected or earlier_view.rules == view.rules  # no threshold of a model decides what a person drew
    same_model = earlier.model == later.model and same_rules
    repeatability = view.repeatability if same_model and not corrected else None
    visits = [_visit(findings, job_id) for job_id, findings, _ in read]
    compared = compare_visits(visits, repeatability, later.model)
    change = compared.changes[0]
    percent, percent_interval = change_in_percent(earlier.lesion_volume_ml, later.lesion_volume_ml, repeatability)
    patients = {folder.read_patient() for _, folder in (prior, current)} - {""}
    doubts = [] if len(patients) < 2 else [OTHER_PATIENTS]
    doubts += [] if same_model else ["the scans were measured with different models or settings: send both again"]
    doubts += ["lesions were corrected by hand: how far repeats would differ is not known"] if corrected else []
    return Change(
        earlier=earlier_id,
        later=later_id,
        by_date=by_date,
        earlier_scanned=earlier.input.scanned,
        later_scanned=later.input.scanned,
        volume_ml=change.lesion_volume_ml,
        volume_interval_ml=change.lesion_interval_ml,
        volume_percent=percent,
        volume_percent_interval=percent_interval,
        share_points=change.lesion_share_of_lung_points,
        share_interval_points=change.share_interval_points,
        in_words=change.in_words,
        warnings=(*doubts, *(for_the_page(_of_both(warning)) for warning in compared.warnings)),
    )


def _of_both(warning: str) -> str:
    """Return a warning of `follow` without the numbers of its scans, of which the page shows two."""
    return warning.removeprefix("scans 1 and 2: ").replace("scans 1 and 2", "the scans")


def change_in_percent(
    before: float | None, after: float | None, variation: float | None
) -> tuple[float | None, Interval | None]:
    """Return a change in % of the earlier value, with the interval of 95 % of repeats of both.

    Args:
        before: Earlier value; without it, or where it is 0, there is no change in %.
        after: Later value.
        variation: Standard deviation of the logarithm of a value over repeats; None: not known, there is no interval.
    """
    if not before or after is None:
        return None, None
    factor = math.exp(Z_95 * math.sqrt(2) * (variation or 0.0))
    change, low, high = (round(100 * (after / before * each - 1), 1) for each in (1.0, 1 / factor, factor))
    return change, None if variation is None else (low, high)


def _read(folder: JobFolder) -> tuple[Findings, ViewDescription]:
    text = (folder.results / "findings.json").read_text(encoding="utf-8")
    findings = Findings.model_validate_json(text.replace('"schema"', '"schema_number"', 1))
    return findings, ViewDescription.model_validate_json((folder.view / "slices.json").read_bytes())


def _visit(findings: Findings, job_id: str) -> Visit:
    """Return the findings of a job as `follow` compares them; the intervals of repeats are not needed here."""
    share, interval = findings.lesion_share_of_lung_percent, findings.lesion_share_interval_percent
    if findings.corrected_by_hand and share is not None:
        interval = share, share  # a person marks nothing that is marked in healthy lungs
    return Visit.model_construct(
        folder=job_id,
        taken=findings.input.scanned,
        lesion_volume_ml=findings.lesion_volume_ml,
        lesion_interval_ml=None,
        lung_volume_ml=findings.lung_volume_ml,
        lesion_share_of_lung_percent=share,
        share_interval_percent=None,
        lesion_share_interval_percent=interval,
        slice_distance_mm=findings.input.slice_distance_mm,
        kernel=findings.input.kernel,
        calibrated=findings.intensity.calibrated,
        warnings=findings.warnings,
    )
