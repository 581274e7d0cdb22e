"""The model card: what a model is, what it expects, and what it scored. It travels beside the weights."""

from __future__ import annotations

from collections.abc import Collection
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from groundglass.errors import ModelError
from groundglass.files import sha256_of, write_atomic
from groundglass.scan.intensity import Window
from groundglass.scan.kinds import FieldOfView
from groundglass.strict_model import first_error

BUNDLED = "groundglass-ct"


class Quantized(BaseModel):
    """How an int8 model was made.

    Attributes:
        of: sha256 of the float32 model.
        slices: How many it was calibrated on.
        dice: Pooled, on the validation part, on the network's grid.
        dice_f32: The same of the float32 model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: str
    slices: int
    dice: float
    dice_f32: float


class TrainedOn(BaseModel):
    """What a model has learnt from, in all trainings that led to it; what chose an epoch or a threshold counts too.

    Attributes:
        members: CASE, or CASE:NUMBER for a single slice of it, as in a split file.
        patients: Their patients: near-duplicate groups, and as the dataset states them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    members: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    def __or__(self, other: TrainedOn) -> TrainedOn:
        """What either has learnt from."""
        return TrainedOn(
            members=tuple(sorted({*self.members, *other.members})),
            patients=tuple(sorted({*self.patients, *other.patients})),
        )

    def holds(self, case: str, numbers: Collection[int] | None = None) -> bool:
        """Whether a case, or any of these slices of it, is among the members."""
        if numbers is None:
            return any(member == case or member.startswith(f"{case}:") for member in self.members)
        return bool({case, *(f"{case}:{number}" for number in numbers)} & set(self.members))


class ModelCard(BaseModel):
    """Everything that inference needs to know of a model, and everything that a user should.

    Attributes:
        name: Of the model.
        sha256: Of the ONNX file.
        network: The switches it was built with.
        window_hu: Lower and upper end of the intensity window, scaled to [0, 1].
        field_of_view: What of a slice is the input.
        size: (height, width) of the input: the field of view, letterboxed.
        neighbours_mm: How far the slices lie, below and above, that are its input besides; 0: none.
        classes: What each output map means.
        threshold: A pixel is lesion from this probability on.
        training_data: What it was trained on, and on what terms.
        trained_on: Case by case; None: not known, the card is of an older version.
        never_trained_on: The public test part.
        scores: What it scored, on what, by which command.
        export_check: Each engine's largest difference from torch, in probability.
        repeatability: Coefficient of variation of a scan's lesion volume over simulated repeats of the scan (other
            kernels, doses and pixels; `evaluation.variants`); None: not measured.
        quantized: How its int8 was made; None: it is float32.
        intended_use: What it is for.
        limits: What it is not for, and where it is known to fail.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str
    network: dict[str, Any]
    window_hu: tuple[float, float]
    field_of_view: FieldOfView = FieldOfView.LUNGS
    size: tuple[int, int]
    neighbours_mm: float = 0.0
    classes: tuple[str, ...] = ("lesion",)
    threshold: float
    training_data: tuple[str, ...]
    trained_on: TrainedOn | None = None
    never_trained_on: tuple[str, ...]
    scores: dict[str, Any] = {}
    export_check: dict[str, float] = {}
    repeatability: float | None = None
    quantized: Quantized | None = None
    intended_use: str
    limits: tuple[str, ...]

    @property
    def window(self) -> Window:
        """The intensity window that the network was trained with."""
        return Window(*self.window_hu)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(slices, height, width): the slice, or from feet to head it between its neighbours."""
        return (3 if self.neighbours_mm else 1, *self.size)


def bundled_model() -> Path:
    """Where the model that comes with the package lies."""
    return Path(str(resources.files("groundglass"))) / "models" / f"{BUNDLED}.onnx"


def write_card(model: Path, card: ModelCard) -> None:
    """Put a card beside an ONNX file, in place of the one that is there.

    Raises:
        OutputError: It cannot be written.
    """
    write_atomic(model.with_suffix(".json"), (card.model_dump_json(indent=2) + "\n").encode())


def read_card(model: Path) -> ModelCard:
    """Read the card beside an ONNX file, and check that it is this file's.

    Raises:
        ModelError: Model or card is missing or damaged, or the sha256 differs.
    """
    path = model.with_suffix(".json")
    for file in (model, path):
        if not file.is_file():
            raise ModelError(f"{file} is not there: a model is NAME.onnx with its card NAME.json beside it")
    try:
        card = ModelCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelError(f"{path} is no model card: {first_error(error)}") from error
    found = sha256_of(model)
    if found != card.sha256:
        raise ModelError(
            f"{model} has sha256 {found[:12]}…, its card says {card.sha256[:12]}…: take both from one export"
        )
    return card
