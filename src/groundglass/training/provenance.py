"""What is trained already, opened again, and what a training that builds on it keeps of that.

A finished run opens as its network and its card; so does an exported model. A training may begin with the weights of
one and be taught by several. Its folder remembers which, and all that they and it have learnt from, so that nothing of
it is ever scored as a test without a word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from groundglass.data.prepared import Manifest
from groundglass.data.slices import Slices
from groundglass.data.splits import Members, Split
from groundglass.errors import ConfigError, ModelError
from groundglass.files import sha256_of
from groundglass.inference.model_card import BUNDLED, ModelCard, TrainedOn, bundled_model, read_card
from groundglass.network.baselines import network_of
from groundglass.training.batches import SCORING_BATCH, plain_batches
from groundglass.training.config import RunConfig
from groundglass.training.module import LesionModule
from groundglass.training.weights import State, exported_weights, fresh, load_network, widened

PROVENANCE_FILE = "provenance.json"
INTENDED_USE = (
    "Research on COVID-19 lung disease in chest CT of adults: lesion masks and burden for study cohorts. "
    "Not a medical device; not for diagnosis or treatment of a patient."
)
LIMITS = (
    "Trained on few patients of few scanners, most of them with lesions; other pneumonias, tumours, fibrosis, "
    "effusion and motion look alike and may be marked.",
    "Two radiologists agree to a Dice of about 0.70 on such lesions; expect no more.",
    "8-bit pictures carry no HU: their intensities are estimated from two tissues.",
)
TERMS = {
    "slices": "MedSeg COVID-19 CT dataset 1, as single slices (Italian Society of Medical and Interventional "
    "Radiology; segmented by MedSeg; one copy used is for non-commercial purposes only)",
    "stack": "MedSeg COVID-19 CT dataset 1 (Italian Society of Medical and Interventional Radiology; "
    "segmented by MedSeg)",
    "volumes": "MedSeg COVID-19 CT dataset 2 (Radiopaedia cases; segmented by MedSeg; one copy used is for "
    "non-commercial purposes only)",
    "coronacases": "coronacases.org via Ma et al., Zenodo 3757476 (CC BY), approximate HU",
}


class Origin(BaseModel):
    """A run's checkpoint or a model's ONNX file that another training builds on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    sha256: str


class Provenance(BaseModel):
    """What a run builds on, as its folder keeps it.

    Attributes:
        start: What its first weights came from; None: from chance.
        teachers: What it was taught by.
        trained_on: What the run and all of those have learnt from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: Origin | None = None
    teachers: tuple[Origin, ...] = ()
    trained_on: TrainedOn


@dataclass(frozen=True, eq=False)
class ParentModel:
    """A finished run or an exported model that another training builds on: where it lies, its weights, its card."""

    path: Path
    weights: State
    card: ModelCard

    def __repr__(self) -> str:
        return f"Ancestor({self.path})"

    @property
    def origin(self) -> Origin:
        """As a run remembers it."""
        return Origin(path=self.path, sha256=self.card.sha256)


@dataclass(frozen=True)
class ParentModels:
    """What a training builds on: at most one to begin with, and any number of teachers."""

    start: ParentModel | None = None
    teachers: tuple[ParentModel, ...] = ()

    @property
    def everyone(self) -> tuple[ParentModel, ...]:
        """Start and teachers."""
        return (*((self.start,) if self.start else ()), *self.teachers)

    def lineage(self, own: TrainedOn) -> Provenance:
        """What is kept of them in the folder of a run that learns from `own` besides."""
        return Provenance(
            start=self.start.origin if self.start else None,
            teachers=tuple(teacher.origin for teacher in self.teachers),
            trained_on=reduce(TrainedOn.__or__, (_known(each) for each in self.everyone), own),
        )

    def initial_weights(self, config: RunConfig) -> State | None:
        """The first weights of a training; None: random ones.

        Raises:
            ConfigError: The maps mean something else.
            TrainingError: They are of another network.
        """
        if self.start is None:
            return None
        if self.start.card.classes != config.maps:
            raise ConfigError(
                f"{self.start.path} has maps of {', '.join(self.start.card.classes)}, {config.name} of "
                f"{', '.join(config.maps)}: begin with a model of the same classes"
            )
        return widened(self.start.weights, network_of(self.start.card.network), config.built)

    @torch.inference_mode()
    def soft_targets(self, slices: Slices, config: RunConfig) -> NDArray[np.float16] | None:
        """The teachers' mean probability of lesion with `teachers.weight`, the reader's mask with the rest.

        Hinton, Vinyals and Dean (2015), arXiv 1503.02531: an ensemble distilled into one network.

        Args:
            slices: Unchanged, lesion-free ones among them: a teacher may see neighbours.
            config: Of the training.

        Returns:
            (n, height, width) in [0, 1]; None: there are no teachers.

        Raises:
            ConfigError: A teacher sees other slices.
        """
        if not self.teachers:
            return None
        weight = config.teachers.weight
        soft = np.where(slices.labels > 0, np.float32(1 - weight), np.float32(0))
        for teacher in self.teachers:
            card = teacher.card
            if (card.size, card.field_of_view) != (config.field.size, config.field.view):
                raise ConfigError(
                    f"{teacher.path} sees {card.size} ({card.field_of_view}), {config.name} {config.field.size} "
                    f"({config.field.view}): a teacher sees the same"
                )
            module, at = fresh(network_of(card.network)).eval(), 0
            module.load_state_dict(teacher.weights)
            for image, _ in plain_batches(slices, card.window_hu, SCORING_BATCH, neighbours_mm=card.neighbours_mm):
                said = torch.sigmoid(module(image)[:, 0]).numpy()
                soft[at : at + len(said)] += said * np.float32(weight / len(self.teachers))
                at += len(said)
        return soft.astype(np.float16)


def find_parents(
    start: Path | None, teachers: Sequence[Path], config: RunConfig, run: Path, resume: bool
) -> ParentModels:
    """What a training is to build on; when it is resumed, what it began with.

    Raises:
        ConfigError: Teachers are wanted and not named, or named and not wanted; or a resumed training is to build on
            something else than it began with, or on what is no longer there.
        ModelError: One is no finished run and no exported model.
        TrainingError: Its weights are not there.
    """
    before = read_provenance(run) if resume else None
    if resume and start is not None:
        raise ConfigError("--from begins a training, --resume goes on with its own weights: leave --from out")
    if before and not teachers:
        teachers = [teacher.path for teacher in before.teachers]
        for path in teachers:
            if not path.exists():
                raise ConfigError(f"{path} taught {run} and is not there any more: name where it is with --teacher")
    if bool(teachers) != bool(config.teachers.weight):
        raise ConfigError(
            f"{config.name} has teachers.weight = {config.teachers.weight:g}, and {len(teachers)} teachers teach it: "
            "name them with --teacher, or leave both out"
        )
    found = ParentModels(open_parent(start) if start else None, tuple(open_parent(teacher) for teacher in teachers))
    if before:
        check_teachers(before, [teacher.card.sha256 for teacher in found.teachers], run)
    return found


def check_teachers(lineage: Provenance, sha256: Sequence[str], run: Path) -> None:
    """Hold teachers against those that a run began with.

    Raises:
        ConfigError: They are others.
    """
    if sorted(teacher.sha256 for teacher in lineage.teachers) != sorted(sha256):
        raise ConfigError(f"{run} was begun with other teachers, or they were trained anew: name another folder")


def check_builds_on(run: Path, start: Path | None, teachers: Sequence[Path]) -> None:
    """Hold runs against those that a run folder, if it is there, was begun with; where one is gone nothing is compared.

    Raises:
        ConfigError: They are others.
        ModelError: One is damaged.
    """
    begun, named = read_provenance(run), [each for each in (start, *teachers) if each]
    if begun is None or not all((each / "result.json").is_file() for each in named):
        return
    sha256 = {each: open_run(each, each.name)[1].sha256 for each in named}
    if (begun.start.sha256 if begun.start else None) != (sha256[start] if start else None):
        raise ConfigError(f"{run} was begun with other weights, or they were trained anew: name another folder")
    check_teachers(begun, [sha256[teacher] for teacher in teachers], run)


def open_parent(path: Path) -> ParentModel:
    """A finished run, an exported model, or by its name the bundled one.

    Raises:
        ConfigError: The model is int8.
        ModelError: It is no finished run and no exported model, or what it has learnt from is not known.
        TrainingError: Its weights are not there.
    """
    if path == Path(BUNDLED) and not path.exists():
        path = bundled_model()
    path = path.resolve()
    if path.suffix == ".onnx":
        card = read_card(path)
        if card.quantized:
            raise ConfigError(f"{path} is int8: take the float32 model that it was made of")
        found = ParentModel(path, exported_weights(path, network_of(card.network)), card)
    else:
        module, card = open_run(path, path.name)
        found = ParentModel(path, module.state_dict(), card)
    _known(found)
    return found


def _known(found: ParentModel) -> TrainedOn:
    if found.card.trained_on is None:
        raise ModelError(
            f"what {found.path} was trained on is not known, it is of an older version: train or export it again"
        )
    return found.card.trained_on


def check_test_leakage(parents: ParentModels, split: Split, tested: Members, slices: Slices) -> None:
    """Keep what a training builds on apart from what its split tests on.

    Args:
        builds_on: Start and teachers.
        split: Where it is leaky, other slices of a patient may be on both sides.
        tested: (n,) which slices are its test part.
        slices: Of the prepared folder.

    Raises:
        ConfigError: One was trained on a slice of the test part, or on its patient.
    """
    for each in parents.everyone:
        known = _known(each)
        # Near-duplicates found here may have joined a patient that it knows by another name.
        numbered = zip(slices.case.tolist(), slices.number.tolist(), strict=True)
        learnt = np.array([known.holds(case, {number}) for case, number in numbered], dtype=bool)
        patients = set() if split.leaky else {*known.patients, *slices.patient[learnt].tolist()}
        for case in dict.fromkeys(slices.case[tested].tolist()):
            of_case = tested & (slices.case == case)
            if (
                known.holds(case, slices.number[of_case].tolist())
                or {case, *slices.patient[of_case].tolist()} & patients
            ):
                raise ConfigError(
                    f"{each.path} was trained on {case} or its patient, which split {split.name} tests on: "
                    "the scores would be no test; take another model, or another split"
                )


def training_exposure(members: Sequence[str], where: Members, slices: Slices, manifest: Manifest) -> TrainedOn:
    """Parts of a split as cards and runs remember them.

    Args:
        members: As the split names them.
        where: (n,) which slices they are.
        slices: Of the prepared folder.
        manifest: Its manifest.
    """
    cases = set(slices.case[where].tolist())
    stated = {case.patient for case in manifest.cases if case.name in cases and not case.unrelated_slices}
    return TrainedOn(members=tuple(sorted(members)), patients=tuple(sorted({*slices.patient[where].tolist(), *stated})))


def read_provenance(run: Path) -> Provenance | None:
    """What a run folder says that the run builds on; None: it is of an older version.

    Raises:
        ModelError: The file is damaged.
    """
    path = run / PROVENANCE_FILE
    if not path.is_file():
        return None
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"{path} is damaged: train the run anew") from error


def open_run(run: Path, name: str, threshold: float | None = None) -> tuple[LesionModule, ModelCard]:
    """A finished run's network and its card, whose sha256 is the checkpoint's.

    Raises:
        ModelError: The run is not finished, or damaged.
    """
    try:
        config = RunConfig.model_validate_json((run / "config.json").read_bytes())
        result: dict[str, Any] = json.loads((run / "result.json").read_bytes())
        split = Split.model_validate_json((run / "split.json").read_bytes())
        lineage = read_provenance(run)
    except FileNotFoundError as error:
        raise ModelError(
            f"{error.filename} is not there: {run} is no finished run; go on with train --resume"
        ) from error
    except ValueError as error:  # of pydantic and json
        raise ModelError(f"{run} is damaged or of an older version: train it anew") from error
    threshold = threshold if threshold is not None else float(result["threshold"])
    size, view = config.field.size, config.field.view
    assert size is not None, "a run's configuration states what was prepared"
    assert view is not None, "a run's configuration states what was prepared"
    checkpoint = run / result["checkpoint"]
    known = lineage.trained_on if lineage else None
    seen = known or TrainedOn(members=(*split.train, *split.validation))
    sources = sorted({member.split("/")[0] for member in seen.members})
    tested = {member.partition(":")[0] for member in split.test}
    card = ModelCard(
        name=name,
        sha256=sha256_of(checkpoint),
        network=asdict(config.built),
        window_hu=config.field.window_hu,
        field_of_view=view,
        size=size,
        neighbours_mm=config.field.neighbours_mm,
        classes=config.maps,
        threshold=threshold,
        training_data=tuple(TERMS.get(s, f"{s}: a collection of the trainer's own") for s in sources),
        trained_on=known,
        never_trained_on=tuple(sorted(case for case in tested if not seen.holds(case))),
        scores={"validation": result["validation"]},
        intended_use=INTENDED_USE,
        limits=LIMITS,
    )
    return load_network(checkpoint, config.built), card
