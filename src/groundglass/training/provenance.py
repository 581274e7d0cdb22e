"""The origin of a run: the models it builds on, and all data that it and they were trained on.

A run folder keeps this record, so that data which any of them was trained on is never scored as test data unnoticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

from groundglass.data.prepared import Manifest
from groundglass.data.slices import Slices
from groundglass.data.splits import Selection
from groundglass.errors import ModelError
from groundglass.inference.model_card import TrainedOn
from groundglass.strict_model import StrictModel

PROVENANCE_FILE = "provenance.json"


class Origin(StrictModel):
    """A finished run or an exported model that another run builds on.

    Attributes:
        path: The run folder or the ONNX file.
        sha256: SHA-256 of the run's checkpoint or of the ONNX file.
    """

    path: Path
    sha256: str


class Provenance(StrictModel):
    """The content of a run folder's `provenance.json`.

    Attributes:
        start: The model whose weights initialised the run; None means random weights.
        teachers: The models that were distilled into the run.
        trained_on: All data that the run, `start` and `teachers` were trained on.
        slices_sha256: `sha256_of_slices` of those that the run itself is trained on; None if it was not recorded.
    """

    start: Origin | None = None
    teachers: tuple[Origin, ...] = ()
    trained_on: TrainedOn
    slices_sha256: str | None = None


def read_provenance(run: Path) -> Provenance | None:
    """Read the provenance of a run folder; None if the run is of a version that did not record it.

    Raises:
        ModelError: The file is damaged.
    """
    path = run / PROVENANCE_FILE
    if not path.is_file():
        return None
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"{path} is damaged: train the run again") from error


def training_exposure(members: Sequence[str], selected: Selection, slices: Slices, manifest: Manifest) -> TrainedOn:
    """Return the record of some parts of a split, for provenance and model cards.

    Args:
        members: Members of the parts, as the split names them.
        selected: (n,) True for the slices of these parts.
        slices: All slices of the prepared folder.
        manifest: Manifest of the prepared folder.

    Returns:
        The members with their patients, by patient group and as the dataset states them.
    """
    cases = set(slices.case[selected].tolist())
    stated = {case.patient for case in manifest.cases if case.name in cases and not case.unrelated_slices}
    patients = {*slices.patient[selected].tolist(), *stated}
    return TrainedOn(members=tuple(sorted(members)), patients=tuple(sorted(patients)))


def sha256_of_slices(manifest: Manifest, cases: Collection[str]) -> str:
    """Return a SHA-256 over the stored files of some cases, which tells whether their slices are the same.

    Args:
        manifest: Manifest of the prepared folder.
        cases: Names of the cases.
    """
    stated = [
        f"{case.name} {case.levels_sha256} {case.labels_sha256} {case.lungs_sha256} {case.second_sha256}\n"
        for case in manifest.cases
        if case.name in cases
    ]
    return hashlib.sha256("".join(sorted(stated)).encode()).hexdigest()
