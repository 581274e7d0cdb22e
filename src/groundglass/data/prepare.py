"""Dataset folders -> a prepared folder: every case checked, cut once, hashed, and grouped by patient."""

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

import numpy as np
from PIL import Image

from groundglass.data.catalogue import Case, find_cases
from groundglass.data.duplicates import SimilarSlices, closest_pairs, join
from groundglass.data.overview import draw_pairs
from groundglass.data.prepared import FORMAT, Manifest, PreparedCase, SimilarCases, png_of, read_manifest, read_slices
from groundglass.data.slices import Levels, Slices, cut_case
from groundglass.errors import DatasetError, InputError
from groundglass.files import sha256_of, write_atomic
from groundglass.scan.kinds import FieldOfView

KEEP_SECONDS = 20  # between two writings of the manifest, so that a killed call has little to do again


@dataclass(frozen=True)
class PreparationSettings:
    """How slices are cut.

    Attributes:
        size: (height, width) of every slice.
        field_of_view: What of a slice is seen.
        lesion_slices_only: Leave slices without lesion out, as the paper does.
    """

    size: tuple[int, int]
    field_of_view: FieldOfView = FieldOfView.LUNGS
    lesion_slices_only: bool = False


@dataclass(frozen=True)
class Prepared:
    """What a call of `prepare` did.

    Attributes:
        manifest: Of the folder.
        cut: How many cases were cut; 0: everything was there.
        refused: {case: why} of the cases left out.
    """

    manifest: Manifest
    cut: int
    refused: dict[str, str]


def prepare(
    places: Sequence[Path],
    folder: Path,
    settings: PreparationSettings,
    skip_invalid: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Check and cut all cases into a prepared folder; what an earlier call did is not done again.

    Args:
        places: Dataset folders and CSV lists, as `find_cases` takes them.
        folder: The prepared folder; made if need be.
        settings: How slices are cut.
        leave_out_bad: Go on without the cases that are refused.
        progress: Called with the cases done and their number.
        say: Called with what is begun after that.

    Raises:
        DatasetError: Nothing was found, the folder holds something else, or cases are refused (all of them named).
        OutputError: The folder cannot be written.
    """
    cases = find_cases(*places)
    _refuse_foreign(folder, places)
    known = _known(folder, settings)
    done: dict[str, PreparedCase] = {}
    refused: dict[str, str] = {}
    fresh, written = 0, time.monotonic()

    def keep() -> None:
        _write(folder, _manifest(settings, [done[case.name] for case in cases if case.name in done], whole=False))

    if not known:
        keep()  # what a killed call leaves is known for ours
    try:
        with ProcessPoolExecutor() as pool:
            outcomes = pool.map(partial(_prepare_case, folder=folder, settings=settings, known=known), cases)
            for count, (case, outcome) in enumerate(zip(cases, outcomes, strict=True), start=1):
                if isinstance(outcome, str):
                    refused[case.name] = outcome
                else:
                    done[case.name] = outcome
                    fresh += outcome != known.get(case.name)
                if fresh and time.monotonic() - written > KEEP_SECONDS:
                    keep()
                    written = time.monotonic()
                progress(count, len(cases))
    except BrokenProcessPool as error:
        raise DatasetError("a process that cut slices was killed (out of memory?): call prepare again") from error
    finally:
        whole = len(done) + len(refused) == len(cases)
        if not whole or fresh or set(done) != set(known):
            keep()
    if refused and not skip_invalid:
        raise DatasetError(
            f"{len(refused)} of {len(cases)} cases are refused: {'; '.join(f'{k}: {v}' for k, v in refused.items())}; "
            "mend them, or go on without them with --leave-out-bad"
        )
    manifest = read_manifest(folder)
    if not manifest.complete:
        say("comparing the slices of different patients")
        _group(folder, manifest)
    return Prepared(read_manifest(folder), fresh, refused)


def _refuse_foreign(folder: Path, places: Sequence[Path]) -> None:
    """Only an empty or a prepared folder is written into, never a dataset's.

    Raises:
        DatasetError: It is another.
    """
    if folder.resolve() in {place.resolve() for place in places}:
        raise DatasetError(f"{folder} is the dataset itself: name another folder with -o")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "manifest.json").is_file():
        raise DatasetError(f"{folder} holds something else: name an empty folder with -o")


def _known(folder: Path, settings: PreparationSettings) -> dict[str, PreparedCase]:
    """What an earlier call left in the folder.

    Raises:
        DatasetError: It was made with other settings.
    """
    if not (folder / "manifest.json").is_file():
        return {}
    manifest = read_manifest(folder)
    found = PreparationSettings(manifest.size, manifest.field_of_view, manifest.lesion_slices_only)
    if found != settings:
        raise DatasetError(f"{folder} was prepared with {found}, now asked for {settings}: name another folder")
    return {case.name: case for case in manifest.cases}


def _manifest(settings: PreparationSettings, cases: Sequence[PreparedCase], whole: bool) -> Manifest:
    return Manifest(
        format=FORMAT,
        version=version("groundglass"),
        size=settings.size,
        field_of_view=settings.field_of_view,
        lesion_slices_only=settings.lesion_slices_only,
        complete=whole,
        cases=tuple(cases),
    )


def _write(folder: Path, manifest: Manifest) -> None:
    write_atomic(folder / "manifest.json", (manifest.model_dump_json(indent=1) + "\n").encode())


def _prepare_case(
    case: Case, folder: Path, settings: PreparationSettings, known: dict[str, PreparedCase]
) -> PreparedCase | str:
    """The case's entry, cut afresh where its files or what is kept of them changed; or why it is refused."""
    try:
        case = replace(case, image=case.image.resolve(), lesion=case.lesion.resolve())
        image_sha256, mask_sha256 = sha256_of(case.image), sha256_of(case.lesion)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    before = known.get(case.name)
    if (
        before is not None
        and before.case == case
        and (before.image_sha256, before.mask_sha256) == (image_sha256, mask_sha256)
        and _is_kept(folder, before)
    ):
        return before
    try:
        cut = cut_case(case, settings.size, settings.field_of_view, settings.lesion_slices_only)
    except InputError as error:
        return str(error)
    sums = {}
    for part, planes in (("levels", cut.levels), ("labels", cut.labels)):
        path = png_of(folder, part, case.name)
        if len(planes):
            write_atomic(path, _column(planes))
        sums[part] = sha256_of(path) if len(planes) else ""
    return PreparedCase(
        name=case.name,
        image=case.image,
        mask=case.lesion,
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
        number=tuple(cut.number.tolist()),
        group=_stated_groups(case, cut.number.tolist()),
        slope=tuple(cut.slope.tolist()),
        intercept=tuple(cut.intercept.tolist()),
        levels_sha256=sums["levels"],
        labels_sha256=sums["labels"],
        notes=cut.notes,
    )


def _is_kept(folder: Path, case: PreparedCase) -> bool:
    kept = {"levels": case.levels_sha256, "labels": case.labels_sha256} if case.number else {}
    paths = {png_of(folder, part, case.name): expected for part, expected in kept.items()}
    return all(path.is_file() and sha256_of(path) == expected for path, expected in paths.items())


def _column(planes: Levels) -> bytes:
    """Slices one below the other, as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(planes.reshape(-1, planes.shape[2])).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _group(folder: Path, manifest: Manifest) -> None:
    """Join the patient groups that near-duplicates connect, and complete the manifest."""
    stated = [case.model_copy(update={"group": _stated_groups(case.case, case.number)}) for case in manifest.cases]
    slices = read_slices(folder, manifest.model_copy(update={"cases": tuple(stated)}))
    pairs = closest_pairs(slices.hu, slices.patient)
    identical = _identical(stated)
    groups = join(slices.patient, [*pairs, *(_first_slices(slices, *names) for names in identical)])
    twins = {second: (f"{_SAME} {first}",) for first, second in identical}
    cases = tuple(
        case.model_copy(
            update={
                "group": tuple(groups[slices.case == case.name].tolist()),
                "notes": tuple(note for note in case.notes if not note.startswith(_SAME)) + twins.get(case.name, ()),
            }
        )
        for case in stated
    )
    names = [f"{case}:{number}" for case, number in zip(slices.case, slices.number, strict=True)]
    like = tuple(
        SimilarCases(
            first=names[p.first], second=names[p.second], similarity=round(p.similarity, 4), mirrored=p.mirrored
        )
        for p in pairs
    )
    if pairs:
        buffer = io.BytesIO()
        draw_pairs(slices, pairs).save(buffer, "PNG")
        write_atomic(folder / "closest-pairs.png", buffer.getvalue())
    _write(folder, manifest.model_copy(update={"cases": cases, "pairs": like, "complete": True}))


def _stated_groups(case: Case, numbers: Sequence[int]) -> tuple[str, ...]:
    """The patient of each slice, as the dataset states it: each of a stack of strangers is one."""
    return tuple(f"{case.patient}-{z}" if case.unrelated_slices else case.patient for z in numbers)


_SAME = "the same image as"


def _identical(cases: Sequence[PreparedCase]) -> list[tuple[str, str]]:
    """Cases whose images hold equal numbers, in pairs with the first of them."""
    by_content: dict[str, list[str]] = {}
    for case in cases:
        if case.number:
            by_content.setdefault(case.content_sha256, []).append(case.name)
    return [(names[0], other) for names in by_content.values() for other in names[1:]]


def _first_slices(slices: Slices, first: str, second: str) -> SimilarSlices:
    i, j = (int(np.flatnonzero(slices.case == name)[0]) for name in (first, second))
    return SimilarSlices(i, j, 1.0, mirrored=False)
