"""Follow-up of a patient: several scans, each analysed by itself, then compared in the order of time."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import combinations
from pathlib import Path

from groundglass.errors import ConfigError, InputError, OutputError
from groundglass.files import read_file, staged_folder, write_atomic
from groundglass.inference.open_model import open_model
from groundglass.inference.pipeline import SegmentedScan
from groundglass.inference.segmenter import Segmenter
from groundglass.io.dicom_header import text_value
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.in_memory import ScanSource, as_scan
from groundglass.report.analysis import segment
from groundglass.report.follow_up import OTHER_PATIENTS, FollowUp, Visit, compare_visits, is_order_known, make_visit
from groundglass.report.follow_up_page import render_follow_up
from groundglass.report.level_images import LevelImage, draw_levels
from groundglass.report.results_folder import RESULT_NAMES, refuse_other_results
from groundglass.scan.kinds import IntensityKind
from groundglass.tables.writing import csv_text

VISIT_COLUMNS = tuple(name for name in Visit.model_fields if name not in ("warnings", "classes"))  # of the CSV
CHANGE_COLUMNS = tuple(f"change_{unit}{end}" for unit in ("ml", "points") for end in ("", "_low", "_high"))
_FILES = ("follow.html", "follow.csv", "follow.json")
_SCAN_FOLDER = re.compile(r"\d{4}-\d\d-\d\d(-scan-\d+)?|scan-\d+")  # names that `_folder_name` gives


def follow(
    sources: Iterable[ScanSource],
    folder: str | os.PathLike[str],
    model: Segmenter | str | os.PathLike[str] | None = None,
    dates: Sequence[datetime | date | str] = (),
    intensity: IntensityKind | str | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
    with_identity: bool = False,
) -> FollowUp:
    """Analyse scans of one patient, and write what changed between them.

    Args:
        sources: Two or more scans: paths, or what else `as_scan` takes.
        folder: Gets a folder of results for each scan, and `follow.html`, `follow.csv` and `follow.json`: all of them
            when every scan is done, or nothing. Those of an earlier follow-up are removed; other files stay.
        model: What `open_model` returned, an ONNX file or a run folder; None for the bundled model.
        dates: Date of each scan, in the order of `sources`, as text such as 2026-01-31 too; empty to take the dates of
            the DICOM headers. If no scan has a date, `sources` are in the order of time.
        intensity: Meaning of the voxel values; None to recognise it.
        progress: Called with the number of scans done and the number of all.
        with_identity: Whether source and patient are named in the results of each scan.

    Raises:
        ConfigError: There are fewer than two scans, the number of dates differs, one is no date, or only some scans
            have a date.
        InputError: A scan is refused; the message states which. The folder is as it was before.
        OutputError: The folder cannot be written, or holds results of another command; it is as it was before.
    """
    if isinstance(sources, str | os.PathLike):
        raise ConfigError("a follow-up needs two or more scans, found one path: give a list of paths")
    sources, kind = list(sources), None if intensity is None else IntensityKind.named(intensity)
    if len(sources) < 2:
        raise ConfigError(f"a follow-up needs two or more scans, found {len(sources)}")
    if dates and len(dates) != len(sources):
        raise ConfigError(f"{len(dates)} dates were given for {len(sources)} scans: give one for each, in their order")
    taken, folder = [_as_datetime(each) for each in dates], Path(folder)
    if len({each.tzinfo is None for each in taken}) > 1:
        raise ConfigError("some dates state a time zone and others do not, so that they have no order: give all alike")
    refuse_other_results(folder, "follow")
    segmenter = model if isinstance(model, Segmenter) else open_model(model)
    earlier = _earlier_folders(folder)

    def check(_: Path) -> None:
        refuse_other_results(folder, "follow")
        if _earlier_folders(folder) != earlier:
            raise OutputError(f"another follow-up was written into {folder} meanwhile: name another folder")

    with staged_folder(folder, (*_FILES, *earlier), check, known_by="follow.json") as staging:
        result = _follow_into(staging, sources, segmenter, taken, kind, progress, with_identity)
        for visit in result.visits:
            if visit.folder not in earlier and (folder / visit.folder).exists():
                raise OutputError(
                    f"{folder / visit.folder} is not a folder of an earlier follow-up: name another folder"
                )
    return result


def _as_datetime(given: datetime | date | str) -> datetime:
    if isinstance(given, date) and not isinstance(given, datetime):
        return datetime(given.year, given.month, given.day)
    try:
        return given if isinstance(given, datetime) else datetime.fromisoformat(given)
    except (TypeError, ValueError):
        raise ConfigError(f"the date of a scan is {given!r}, expected a date, or text such as 2026-01-31") from None


def _follow_into(
    folder: Path,
    sources: Sequence[ScanSource],
    segmenter: Segmenter,
    dates: Sequence[datetime],
    intensity: IntensityKind | None,
    progress: Callable[[int, int], None],
    with_identity: bool,
) -> FollowUp:
    """Write a follow-up into an empty folder; see `follow`."""
    repeatability = segmenter.card.repeatability
    visits: list[tuple[Visit, tuple[LevelImage, ...], _Origin]] = []
    for number, source in enumerate(sources, start=1):
        try:
            scan = as_scan(source, dicom=DicomOptions(with_identity=with_identity))
            taken = dates[number - 1] if dates else scan.series.acquired if scan.series else None
            if visits and (taken is None) != (visits[0][0].taken is None):
                raise ConfigError(
                    f"scan {number} states {'no date' if taken is None else 'a date'}, scan 1 "
                    f"{'does' if taken is None else 'does not'}: give --date for each"
                )
            name = _folder_name(number, taken, {visit.folder for visit, *_ in visits})
            label = f"Follow-up, scan {number}" if taken is None else f"Follow-up, scan of {taken:%Y-%m-%d}"
            analysis = segment(scan, segmenter, intensity, with_identity=with_identity, label=label)
        except InputError as error:
            raise type(error)(f"scan {number} of {len(sources)}: {error}") from error
        analysis.save(folder / name)
        visit = make_visit(analysis.saved_findings, name, taken, repeatability)
        visits.append((visit, draw_levels(analysis.segmented, analysis.findings), _origin(analysis.segmented)))
        progress(number, len(sources))
    visits.sort(key=lambda each: each[0].taken or datetime.min)  # stable: scans without dates keep their order
    result = compare_visits([visit for visit, *_ in visits], repeatability, analysis.findings.model)
    warnings = _warnings_of_origins([visit.taken for visit in result.visits], [origin for *_, origin in visits])
    result = result.model_copy(update={"warnings": (*warnings, *result.warnings)})
    write_follow_up(result, folder, [images for _, images, _ in visits])
    return result


@dataclass(frozen=True)
class _Origin:
    """What tells whether scans are of one patient, and of different times.

    Attributes:
        digest: Hash of the HU of the upright slices, which are the same whatever file the scan was read from.
        patient: PatientID; empty if it is not stated.
        study: StudyInstanceUID; empty if it is not stated.
        acquired: Date that the headers state, whatever date was given.
    """

    digest: bytes
    patient: str
    study: str
    acquired: datetime | None


def _origin(segmented: SegmentedScan) -> _Origin:
    series, digest = segmented.scan.series, hashlib.blake2b(str(segmented.hu.shape).encode())
    for plane in segmented.hu:
        digest.update(plane.tobytes())
    if series is None:
        return _Origin(digest.digest(), "", "", None)
    patient, study = (text_value(series.headers[0], keyword) for keyword in ("PatientID", "StudyInstanceUID"))
    return _Origin(digest.digest(), patient, study, series.acquired)


def _warnings_of_origins(taken: Sequence[datetime | None], origins: Sequence[_Origin]) -> list[str]:
    """Return the reasons to doubt that scans, in the order of time, are of one patient at different times."""
    warnings = []
    if len({origin.patient for origin in origins if origin.patient}) > 1:
        warnings.append(OTHER_PATIENTS)
    for (i, first), (j, second) in combinations(enumerate(origins), 2):
        which, before, after = f"scans {i + 1} and {j + 1}", taken[i], taken[j]
        if first.digest == second.digest:
            warnings.append(f"{which} are the same images: check that each scan was given once")
        elif first.study and first.study == second.study and before != after:
            warnings.append(f"{which} are of one study: check that they are not two series of one examination")
        if first.acquired and second.acquired and first.acquired.date() > second.acquired.date():
            warnings.append(
                f"{which} are in the order of the dates that were given; by their headers, which state "
                f"{first.acquired:%Y-%m-%d} and {second.acquired:%Y-%m-%d}, it is the other one: check the dates"
            )
        if before and after and before != after and not is_order_known(before, after):
            warnings.append(f"{which} are of one day, and only one states a time: their order is not known")
    return warnings


def _earlier_folders(folder: Path) -> tuple[str, ...]:
    """Return the names of the scan folders of an earlier follow-up, which may be another patient's.

    Raises:
        OutputError: One of them holds a file that the follow-up did not write, and that would be lost.
    """
    try:
        visits = json.loads(read_file(folder / "follow.json"))["visits"]
        names = [visit["folder"] for visit in visits if _SCAN_FOLDER.fullmatch(visit["folder"])]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # there is none, or the file is another's
        return ()
    names = [name for name in names if (folder / name).is_dir()]
    for name in names:
        strangers = sorted({path.name for path in (folder / name).iterdir()} - set(RESULT_NAMES))
        if strangers:
            raise OutputError(
                f"{folder / name / strangers[0]} is not of the follow-up: move it, or name another folder"
            )
    return tuple(names)


def _folder_name(number: int, taken: datetime | None, used: set[str]) -> str:
    """Name a scan's folder by its date, or else by its number; a second scan of a day gets both."""
    name = f"scan-{number}" if taken is None else f"{taken:%Y-%m-%d}"
    return name if name not in used else f"{name}-scan-{number}"


def write_follow_up(result: FollowUp, folder: Path, images: Sequence[Sequence[LevelImage]] = ()) -> list[Path]:
    """Write `follow.html`, `follow.csv` and `follow.json`; return their paths.

    Raises:
        OutputError: The folder cannot be written.
    """
    texts = (render_follow_up(result, images), _csv(result), result.to_json() + "\n")
    for name, text in zip(_FILES, texts, strict=True):
        write_atomic(folder / name, text.encode())
    return [folder / name for name in _FILES]


def _csv(result: FollowUp) -> str:
    """Format one row for each scan; an empty cell is unknown."""
    rows = []
    for visit in result.visits:
        row = visit.model_dump(mode="json", include=set(VISIT_COLUMNS))
        for name in (name for name in VISIT_COLUMNS if "interval" in name):
            row[name] = "" if row[name] is None else "{} to {}".format(*row[name])
        rows.append(row)
    for row, change in zip(rows[1:], result.changes, strict=False):  # each scan's change since the one before
        for name, value, interval in (
            ("change_ml", change.lesion_volume_ml, change.lesion_interval_ml),
            ("change_points", change.lesion_share_of_lung_points, change.share_interval_points),
        ):
            low, high = interval or (None, None)
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return csv_text(rows, [*VISIT_COLUMNS, *CHANGE_COLUMNS])
