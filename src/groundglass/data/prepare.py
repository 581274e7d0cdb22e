"""Prepare datasets: check every case, cut its slices once, and group the slices by patient."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.data.case import Case, sha256_of_scan
from groundglass.data.catalogue import find_cases_with_notes
from groundglass.data.cutting import CaseSlices, cut_case
from groundglass.data.duplicates import LEAST_WIDTH
from groundglass.data.grouping import group_patients, stated_groups
from groundglass.data.labels import MaskLabels
from groundglass.data.mask_remarks import LARGEST_SHARE_OF_LUNGS, LUNG_FILLED, MISPLACED
from groundglass.data.patients import with_stated_patients
from groundglass.data.prepared import Manifest, PreparedCase, png_path, read_manifest
from groundglass.data.second_reader import with_second_reader
from groundglass.errors import DatasetError, InputError
from groundglass.files import sha256_of, write_atomic
from groundglass.parallel import end_with_parent, ended_at_once
from groundglass.plain_text import first_names, in_unicode, printable
from groundglass.scan.kinds import FieldOfView

SHOWN_CASES = 4  # names of cases in a message
SAVE_SECONDS = 20  # at least between two writings of the manifest: all that is lost if the process is killed


@dataclass(frozen=True)
class PreparationSettings:
    """How slices are cut.

    Attributes:
        size: (height, width) of every slice.
        field_of_view: Part of a slice that is cut out.
        lesion_slices_only: Whether to leave out slices without lesion in the field of view, as the paper does.
    """

    size: tuple[int, int]
    field_of_view: FieldOfView = FieldOfView.LUNGS
    lesion_slices_only: bool = False


@dataclass(frozen=True)
class PreparationResult:
    """The result of a call of `prepare`.

    Attributes:
        manifest: The manifest of the folder.
        newly_cut: Number of cases that this call cut; 0 if the folder was complete before.
        refused: {case: reason} of the cases left out.
        notes: What was assumed about the dataset, and what was left out of it.
        warnings: What is probably wrong with it.
    """

    manifest: Manifest
    newly_cut: int
    refused: dict[str, str]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _CutCases:
    """Entries of the cases that were cut or kept, and the reasons why others were refused."""

    entries: dict[str, PreparedCase]
    refused: dict[str, str]


def prepare(
    sources: Sequence[Path],
    folder: Path,
    settings: PreparationSettings,
    skip_invalid: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
    on_message: Callable[[str], None] = lambda _: None,
    labels: MaskLabels | None = None,
    patients: Path | None = None,
    second_reader: Path | None = None,
) -> PreparationResult:
    """Check and cut all cases into a prepared folder; work of an earlier call is not repeated.

    Args:
        sources: Dataset folders and CSV lists, as `find_cases` takes them.
        folder: The prepared folder; created if it does not exist.
        settings: How slices are cut.
        skip_invalid: Leave out the cases that are refused.
        progress: Called with the number of cases done and of all cases.
        on_message: Called with a line of text when another step begins.
        labels: What the numbers of all masks mean; None: as the dataset states it.
        second_reader: A folder with a second reader's masks, named like the cases.
        patients: A CSV that states which cases are of one patient, as `with_stated_patients` takes it.

    Raises:
        DatasetError: There is no case, the folder holds something else, was prepared from other sources, with other
            settings or by another version, or cases are refused (the message names all of them).
        OutputError: The folder cannot be written.
    """
    found = find_cases_with_notes(sources, labels)
    notes = list(found.notes)
    cases = found.cases if patients is None else with_stated_patients(found.cases, patients, notes.append)
    cases = cases if second_reader is None else with_second_reader(cases, second_reader)
    _refuse_names_in_bytes(cases)
    _refuse_other_content(folder, sources)
    earlier = _entries_of_earlier_call(folder, settings)
    _refuse_other_sources(folder, earlier, cases)
    cut = _cut_cases(cases, folder, settings, earlier, progress)
    if cut.refused and not skip_invalid:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in cut.refused.items())
        raise DatasetError(
            f"{len(cut.refused)} of {len(cases)} cases are refused: {reasons}; "
            "correct them, or leave them out with --skip-invalid"
        )
    manifest = read_manifest(folder)
    if not manifest.complete:
        on_message("comparing the slices of different patients")
        manifest = group_patients(folder, manifest)
        _write_manifest(folder, manifest)
    newly_cut = sum(entry != earlier.get(name) for name, entry in cut.entries.items())
    manifest = read_manifest(folder)
    return PreparationResult(manifest, newly_cut, cut.refused, tuple(notes), _warnings(manifest))


def _warnings(manifest: Manifest) -> tuple[str, ...]:
    """Warn of masks that may lie elsewhere, or be of the lungs: of a volume by itself, of pictures by their mean."""
    filled = [case for case in manifest.cases if any(note.startswith(LUNG_FILLED) for note in case.notes)]
    pictures: dict[str, list[PreparedCase]] = {}
    for case in manifest.cases:
        if (case.spacing_mm is None or case.unrelated_slices) and case.lesion_slices and case.lesion_share is not None:
            pictures.setdefault(case.source, []).append(case)
    for cases in pictures.values():
        if np.mean([case.lesion_share for case in cases]) > LARGEST_SHARE_OF_LUNGS:
            filled += cases
    warnings = []
    misplaced = [case.name for case in manifest.cases if any(note.startswith(MISPLACED) for note in case.notes)]
    if misplaced:
        warnings.append(
            f"in {len(misplaced)} of {len(manifest.cases)} cases ({first_names(misplaced, SHOWN_CASES)}) most of what "
            "is marked lies outside the lungs, is plain lung, or would be denser if it were mirrored: check that the "
            "masks are not mirrored or shifted against their images"
        )
    width = manifest.size[1]
    if width < LEAST_WIDTH and len({case.patient for case in manifest.cases}) > 1:
        warnings.append(
            f"slices {width} pixels wide show too few vessels to tell that two cases are of one patient: patients are "
            f"as the dataset states them; prepare at {LEAST_WIDTH} pixels or more to have them compared"
        )
    if not filled:
        return tuple(warnings)
    return (
        *warnings,
        f"in {len(filled)} of {len(manifest.cases)} cases "
        f"({first_names([case.name for case in filled], SHOWN_CASES)}) lesion fills most of a lung: if the "
        "masks hold lung too, state which labels are lesion, such as --labels lesion=2",
    )


def _refuse_names_in_bytes(cases: Sequence[Case]) -> None:
    """Refuse files whose names no manifest can hold, before all cases are cut.

    Raises:
        DatasetError: The path of a file is not in UTF-8.
    """
    paths = (str(path) for case in cases for path in (case.image, case.mask, case.second_mask) if path is not None)
    wrong = next((path for path in paths if path != in_unicode(path)), None)
    if wrong is not None:
        raise DatasetError(f"{printable(wrong)} has bytes in its name that are no characters of UTF-8: rename it")


def _refuse_other_content(folder: Path, sources: Sequence[Path]) -> None:
    """Check that the output folder is new, empty or a prepared one: nothing is written into a dataset.

    Raises:
        DatasetError: The folder is the dataset, or holds something else.
    """
    if folder.resolve() in {source.resolve() for source in sources}:
        raise DatasetError(f"{folder} is the dataset itself: name another folder with -o")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "manifest.json").is_file():
        raise DatasetError(f"{folder} holds something else: name an empty folder with -o")


def _entries_of_earlier_call(folder: Path, settings: PreparationSettings) -> dict[str, PreparedCase]:
    """Return {case: entry} of the cases that are in the folder already.

    Raises:
        DatasetError: The folder was prepared with other settings or by another version.
    """
    if not (folder / "manifest.json").is_file():
        return {}
    manifest = read_manifest(folder)
    found = PreparationSettings(manifest.size, manifest.field_of_view, manifest.lesion_slices_only)
    if found != settings:
        raise DatasetError(f"{folder} was prepared with {found}, not with {settings}: name another folder with -o")
    return {case.name: case for case in manifest.cases}


def _refuse_other_sources(folder: Path, earlier: dict[str, PreparedCase], cases: Sequence[Case]) -> None:
    """Check that the folder was prepared from these sources, or from some of them.

    Raises:
        DatasetError: A source would be lost, or none of its cases is among the new ones.
    """
    new = {case.name: case for case in cases}
    lost = {entry.source for entry in earlier.values()} - {case.source for case in cases}
    if lost or (earlier and not any(name in new and _is_same_image(earlier[name], new[name]) for name in earlier)):
        names = [name for name, entry in earlier.items() if not lost or entry.source in lost]
        raise DatasetError(
            f"{folder} was prepared from other sources ({len(names)} cases: {first_names(names, SHOWN_CASES)}), which "
            "this call would replace: name another folder with -o, name all sources together, or remove the folder"
        )


def _is_same_image(entry: PreparedCase, case: Case) -> bool:
    """Whether a case is the one that was prepared, at its place or moved."""
    try:
        return entry.image == case.image.resolve() or entry.image_sha256 == sha256_of_scan(case.image)
    except (OSError, InputError):
        return False


def _cut_cases(
    cases: Sequence[Case],
    folder: Path,
    settings: PreparationSettings,
    earlier: dict[str, PreparedCase],
    progress: Callable[[int, int], None],
) -> _CutCases:
    """Cut the cases that are not in the folder yet, on several processes.

    The manifest is saved now and then, so that a call that is interrupted can be continued. It is left as it is,
    complete, if nothing changed.

    Raises:
        DatasetError: A process was killed.
        OutputError: The folder cannot be written.
    """
    done = _CutCases({}, {})

    def save() -> None:
        entries = [done.entries[case.name] for case in cases if case.name in done.entries]
        _write_manifest(folder, _incomplete_manifest(settings, entries))

    if not earlier:
        save()  # so that the next call recognises the folder even if this one is killed
    changed, saved_at = False, time.monotonic()
    try:
        with ProcessPoolExecutor(initializer=end_with_parent) as pool, ended_at_once():
            outcomes = pool.map(partial(_prepare_case, folder=folder, settings=settings, earlier=earlier), cases)
            for count, (case, outcome) in enumerate(zip(cases, outcomes, strict=True), start=1):
                if isinstance(outcome, str):
                    done.refused[case.name] = outcome
                else:
                    done.entries[case.name] = outcome
                    changed |= outcome != earlier.get(case.name)
                if changed and time.monotonic() - saved_at > SAVE_SECONDS:
                    save()
                    saved_at = time.monotonic()
                progress(count, len(cases))
    except BrokenProcessPool as error:
        raise DatasetError("a process that cut slices was killed (out of memory?): call prepare again") from error
    finally:
        interrupted = len(done.entries) + len(done.refused) < len(cases)
        if interrupted or done.entries != earlier:
            save()
    return done


def _incomplete_manifest(settings: PreparationSettings, entries: Sequence[PreparedCase]) -> Manifest:
    return Manifest(
        version=version("groundglass"),
        size=settings.size,
        field_of_view=settings.field_of_view,
        lesion_slices_only=settings.lesion_slices_only,
        complete=False,
        cases=tuple(entries),
    )


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    write_atomic(folder / "manifest.json", (manifest.model_dump_json(indent=1) + "\n").encode())


def _prepare_case(
    case: Case, folder: Path, settings: PreparationSettings, earlier: dict[str, PreparedCase]
) -> PreparedCase | str:
    """Return the entry of a case, or the reason why it is refused; cut it only if its files or its PNGs changed."""
    try:
        case = replace(case, image=case.image.resolve(), mask=case.mask.resolve())
        image_sha256, mask_sha256 = sha256_of_scan(case.image), sha256_of_scan(case.mask)
        second_mask_sha256 = None if case.second_mask is None else sha256_of_scan(case.second_mask)
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    entry = earlier.get(case.name)
    if (
        entry is not None
        and entry.case == case
        and (entry.image_sha256, entry.mask_sha256) == (image_sha256, mask_sha256)
        and entry.second_mask_sha256 == second_mask_sha256
        and _has_intact_pngs(folder, entry)
    ):
        return entry
    try:
        cut = cut_case(case, settings.size, settings.field_of_view, settings.lesion_slices_only)
    except InputError as error:
        return str(error)
    return _write_case(case, cut, folder, image_sha256, mask_sha256, second_mask_sha256)


def _has_intact_pngs(folder: Path, case: PreparedCase) -> bool:
    """Whether the PNGs of a case are there and unchanged; a case without slices has none."""
    sha256 = {"levels": case.levels_sha256, "labels": case.labels_sha256, "lungs": case.lungs_sha256}
    if case.second_sha256 is not None:
        sha256["second"] = case.second_sha256
    if not case.number:
        sha256 = {}
    paths = {png_path(folder, subfolder, case.name): expected for subfolder, expected in sha256.items()}
    return all(path.is_file() and sha256_of(path) == expected for path, expected in paths.items())


def _write_case(
    case: Case,
    cut: CaseSlices,
    folder: Path,
    image_sha256: str,
    mask_sha256: str,
    second_mask_sha256: str | None,
) -> PreparedCase:
    """Write the PNGs of a case and return its entry in the manifest."""
    numbers = cut.number.tolist()
    return PreparedCase(
        name=case.name,
        image=case.image,
        mask=case.mask,
        image_sha256=image_sha256,
        mask_sha256=mask_sha256,
        content_sha256=cut.content_sha256,
        patient=case.patient,
        unrelated_slices=case.unrelated_slices,
        kind=cut.kind,
        calibrated=cut.calibrated,
        spacing_mm=cut.spacing_mm,
        lesion_slices=cut.lesion_slices,
        pixels=cut.pixels,
        number=tuple(numbers),
        group=stated_groups(case, numbers),
        slope=tuple(cut.slope.tolist()),
        intercept=tuple(cut.intercept.tolist()),
        levels_sha256=_write_png(png_path(folder, "levels", case.name), cut.levels),
        labels_sha256=_write_png(png_path(folder, "labels", case.name), cut.labels),
        lungs_sha256=_write_png(png_path(folder, "lungs", case.name), cut.lungs),
        second_sha256=None
        if cut.second_reader is None
        else _write_png(png_path(folder, "second", case.name), cut.second_reader),
        second_mask=case.second_mask,
        second_mask_sha256=second_mask_sha256,
        notes=cut.notes,
        labels=case.labels,
        lesion_share=cut.lesion_share,
    )


def _write_png(path: Path, planes: NDArray[Any]) -> str:
    """Write slices one below the other, and return the SHA-256 of the file; write nothing, and return "", for none."""
    if not len(planes):
        return ""
    buffer = io.BytesIO()
    Image.fromarray(planes.reshape(-1, planes.shape[2])).save(buffer, "PNG", optimize=True)
    write_atomic(path, buffer.getvalue())
    return sha256_of(path)
