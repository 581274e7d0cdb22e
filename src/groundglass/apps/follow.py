"""Several scans of one patient: each analysed by itself, then set beside each other in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from groundglass.errors import ConfigError, InputError
from groundglass.files import write_atomic
from groundglass.inference.open_model import open_model
from groundglass.inference.segmenter import Segmenter
from groundglass.io.reader import read_scan
from groundglass.report.analysis import save, segment
from groundglass.report.follow_up import FollowUp, Visit, compare, visit
from groundglass.report.follow_up_page import follow_up_page
from groundglass.scan.kinds import IntensityKind
from groundglass.tables import csv_text


def follow(
    sources: Sequence[Path],
    folder: Path,
    segmenter: Segmenter | None = None,
    dates: Sequence[datetime] = (),
    intensity: IntensityKind | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
    with_identity: bool = False,
) -> FollowUp:
    """Analyse scans of one patient, and write what changed between them.

    Args:
        sources: Two scans or more.
        folder: Gets each scan's own results, and `follow.html`, `follow.csv` and `follow.json`.
        segmenter: A loaded model; None: the bundled one.
        dates: When each was taken, in the order of `sources`; none: as their DICOM headers say. Where no scan is dated,
            the order of `sources` is that of time.
        intensity: What the numbers are; None: recognise it.
        progress: Called with the scans done and their number.
        with_identity: Name source and patient in each scan's results.

    Raises:
        ConfigError: There are fewer than two scans, another number of dates, or some scans are dated and some not.
        InputError: A scan is refused; the message says which. The results of those before it are kept.
        OutputError: The folder cannot be written.
    """
    if len(sources) < 2:
        raise ConfigError("a follow-up wants two scans or more")
    if dates and len(dates) != len(sources):
        raise ConfigError(f"{len(dates)} dates were given for {len(sources)} scans: give one for each, in their order")
    segmenter = segmenter or open_model()
    repeatability = segmenter.card.repeatability
    visits: list[Visit] = []
    patients: set[str] = set()
    for number, source in enumerate(sources, start=1):
        try:
            scan = read_scan(source)
            taken = dates[number - 1] if dates else scan.series.taken if scan.series else None
            if visits and (taken is None) != (visits[0].taken is None):
                raise ConfigError(
                    f"scan {number} states {'no date' if taken is None else 'a date'}, scan 1 "
                    f"{'does' if taken is None else 'does not'}: give --date for each"
                )
            analysis = segment(scan, segmenter, intensity, with_identity=with_identity)
        except InputError as error:
            raise type(error)(f"scan {number} of {len(sources)}: {error}") from error
        if scan.series:
            patients.add(str(scan.series.headers[0].get("PatientID") or ""))
        name = _folder(number, taken, {each.folder for each in visits})
        save(analysis, folder / name)
        visits.append(visit(analysis.findings, scan, name, taken, repeatability))
        progress(number, len(sources))
    visits.sort(key=lambda each: each.taken or datetime.min)  # stable: undated scans stay as given
    result = compare(visits, repeatability, analysis.findings.model)
    if len(patients) > 1:
        warning = "the scans state different patients: are they of one?"
        result = result.model_copy(update={"warnings": (warning, *result.warnings)})
    write_follow_up(result, folder)
    return result


def _folder(number: int, taken: datetime | None, used: set[str]) -> str:
    """A name by the day, or by the order; a second scan of a day gets a number."""
    name = f"scan-{number}" if taken is None else f"{taken:%Y-%m-%d}"
    return name if name not in used else f"{name}-scan-{number}"


def write_follow_up(result: FollowUp, folder: Path) -> list[Path]:
    """Write follow.html, follow.csv and follow.json.

    Raises:
        OutputError: The folder cannot be written.
    """
    texts = {
        "follow.html": follow_up_page(result),
        "follow.csv": _csv(result),
        "follow.json": result.to_json() + "\n",
    }
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
    return [folder / name for name in texts]


def _csv(result: FollowUp) -> str:
    """One row for each scan; an empty cell is unknown."""
    kept = [name for name in Visit.model_fields if name != "warnings"]
    changes = [f"{name}{end}" for name in ("change_ml", "change_points") for end in ("", "_low", "_high")]
    rows = []
    for i, each in enumerate(result.visits):
        row = each.model_dump(mode="json", include=set(kept))
        for name in ("lesion_interval_ml", "share_interval_percent"):
            row[name] = "" if row[name] is None else "{} to {}".format(*row[name])
        if i:
            change = result.changes[i - 1]
            for name, value, interval in (
                ("change_ml", change.lesion_volume_ml, change.lesion_interval_ml),
                ("change_points", change.lesion_share_of_lung_points, change.share_interval_points),
            ):
                low, high = interval or (None, None)
                row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return csv_text(rows, [*kept, *changes])
