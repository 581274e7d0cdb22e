"""The model card: what a model is, what input it expects, and what it scored. It lies beside the weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from groundglass.errors import ModelError
from groundglass.files import write_atomic
from groundglass.scan.intensity import Window
from groundglass.scan.kinds import FieldOfView
from groundglass.strict_model import StrictModel, WindowEnds, first_error

BUNDLED, BUNDLED_LUNGS = "groundglass-ct", "groundglass-lungs"
# The key of an entry of TensorProto.external_data (onnx.proto), whose numbers may have more bytes than they need.
EXTERNAL_DATA = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")


class Quantized(StrictModel):
    """How an int8 model was made.

    Attributes:
        of: SHA-256 of the float32 model.
        slices: Number of slices that the ranges of the activations were calibrated on.
        dice: Pooled Dice on the validation part, on the network's own grid.
        dice_f32: Dice of the float32 model on the same slices.
    """

    of: str
    slices: int
    dice: float
    dice_f32: float


class TrainedOn(StrictModel):
    """Data that a model depends on through its own training and those of its parents.

    Data that an epoch or a threshold was chosen on counts too.

    Attributes:
        members: CASE, or CASE:NUMBER for a single slice of it, as in a split file.
        patients: The patients of the members: groups of near-duplicates, and patients as the dataset states them.
    """

    members: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    def __or__(self, other: TrainedOn) -> TrainedOn:
        """Return the data of both."""
        return TrainedOn(
            members=tuple(sorted({*self.members, *other.members})),
            patients=tuple(sorted({*self.patients, *other.patients})),
        )

    def holds(self, case: str, numbers: Collection[int] | None = None) -> bool:
        """Return whether a case, or any of these slices of it, is among the members."""
        if numbers is None:
            return any(member == case or member.startswith(f"{case}:") for member in self.members)
        return bool({case, *(f"{case}:{number}" for number in numbers)} & set(self.members))


_OF_NO_EFFECT = {  # fields of a card on which no result depends
    *("name", "network", "training_data", "trained_on", "never_trained_on"),
    *("scores", "export_check", "repeatability", "intended_use", "limits"),
}


class BurdenInterval(StrictModel):
    """How far the true share of lung that lesion fills may be from the one found, from scans that folds held out.

    The share that a reader would mark is taken to lie in [low * (share + offset) - offset, high * (share + offset) -
    offset]. `low` and `high` are weighted conformal quantiles (Tibshirani et al. 2019) that hold 80 % of what readers
    mark in new scans and pictures, each kind half.

    Attributes:
        offset_percent: Share of lung in percent below which differences no longer scale with the share.
        low: Ratio at the lower end.
        high: Ratio at the upper end.
        scans: Number of scans that it comes from.
        coverage: Share of them whose reading lies in the interval that the others give; two readers of one count half.
        pictures: Number of single pictures that it comes from, which count as much as the scans.
        picture_coverage: Share of the pictures whose reading lies in that interval; None without pictures.
    """

    offset_percent: NonNegativeFloat
    low: NonNegativeFloat
    high: NonNegativeFloat
    scans: NonNegativeInt
    coverage: float = Field(ge=0, le=1)
    pictures: NonNegativeInt = 0
    picture_coverage: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is greater than high")
        return self

    def of(self, share_percent: float) -> tuple[float, float]:
        """Return the interval of a share, from 0 to 100 %."""
        ends = ((share_percent + self.offset_percent) * ratio - self.offset_percent for ratio in (self.low, self.high))
        low, high = (min(100.0, max(0.0, end)) for end in ends)
        return low, high


class ModelCard(StrictModel):
    """Everything that inference needs to know of a model, and everything that a user should know.

    Attributes:
        name: Name of the model.
        sha256: SHA-256 of the ONNX file.
        network: Options that the network was built with.
        window_hu: Lower and upper end in HU of the intensity window, which is scaled to [0, 1].
        field_of_view: The part of a slice that is the input.
        size: (height, width) of the input in pixels; the field of view is letterboxed into it.
        neighbours_mm: Distance in mm of the slices below and above that are input channels too; 0: the slice alone.
        classes: Meaning of each output map.
        light_hu: Density in HU below which it speaks against lesion: the log-odds fall by 1 with every 100 HU; None: it
            does not count.
        consolidation_hu: Mean density in HU from which on a lesion is consolidation and not ground-glass, the two
            classes after lesion; None: the network's own class maps decide.
        threshold: Probability from which on a pixel is lesion.
        mirrored: Whether the prediction of each slice is averaged with that of its mirror image.
        mirror_sha256: SHA-256 of NAME-mirror.onnx, a second network that predicts the mirror images; None: they are
            predicted by the same network.
        smoothing_mm: Standard deviation of the Gaussian with which log-odds of lesion are averaged between slices of a
            volume; 0: each slice by itself.
        smallest_ml: Volume in ml below which a connected region is no lesion; pictures have no volume.
        burden_interval: How certain the share of lung is that lesion fills; None: not known.
        training_data: Datasets that it was trained on, and their licences.
        trained_on: The training data case by case; None: not known, the card is from an older version.
        never_trained_on: The public test part.
        scores: Test scores, with the data and the command that gave them.
        export_check: {engine: its largest difference from torch in probability}.
        repeatability: Coefficient of variation of a scan's lesion volume over simulated repeats of the scan (other
            kernels, doses and pixels; `evaluation.variants`); None: not measured.
        quantized: How the int8 version was made; None: the model is float32.
        intended_use: Purpose of the model.
        limits: Uses that it is not meant for, and known failures.
    """

    name: str
    sha256: str
    network: dict[str, Any]
    window_hu: WindowEnds
    field_of_view: FieldOfView = FieldOfView.LUNGS
    size: tuple[PositiveInt, PositiveInt]
    neighbours_mm: NonNegativeFloat = 0.0
    classes: tuple[str, ...] = Field(default=("lesion",), min_length=1)
    light_hu: float | None = None
    consolidation_hu: float | None = None
    threshold: float = Field(gt=0, lt=1)
    mirrored: bool = False
    mirror_sha256: str | None = None
    smoothing_mm: NonNegativeFloat = 0.0
    smallest_ml: NonNegativeFloat = 0.0
    burden_interval: BurdenInterval | None = None
    training_data: tuple[str, ...]
    trained_on: TrainedOn | None = None
    never_trained_on: tuple[str, ...]
    scores: dict[str, Any] = Field(default_factory=dict)
    export_check: dict[str, float] = Field(default_factory=dict)
    repeatability: NonNegativeFloat | None = None
    quantized: Quantized | None = None
    intended_use: str
    limits: tuple[str, ...]

    @property
    def window(self) -> Window:
        """The intensity window that the network was trained with."""
        return Window(*self.window_hu)

    @property
    def rules(self) -> str:
        """A hash of all that results follow from: the weights, the threshold, the density of consolidation, ..."""
        return hashlib.sha256(self.model_dump_json(exclude=_OF_NO_EFFECT).encode()).hexdigest()[:12]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(slices, height, width) of the input: the slice alone, or between its neighbours from feet to head."""
        return (3 if self.neighbours_mm else 1, *self.size)


def bundled_model(name: str = BUNDLED) -> Path:
    """Return the path of a model that comes with the package: the one that finds lesions, or `BUNDLED_LUNGS`."""
    return Path(str(resources.files("groundglass"))) / "models" / f"{name}.onnx"


def mirror_model_path(model: Path) -> Path:
    """Return where the network lies that predicts a model's mirror images, if it has one of its own."""
    return model.with_name(f"{model.stem}-mirror.onnx")


def write_card(model: Path, card: ModelCard) -> None:
    """Write a card beside an ONNX file; an earlier card is replaced.

    Raises:
        OutputError: The card cannot be written.
    """
    write_atomic(model.with_suffix(".json"), (card.model_dump_json(indent=2) + "\n").encode())


def read_card(model: Path) -> ModelCard:
    """Read the card beside an ONNX file, and check that it belongs to this file, and to that of the mirror images.

    Raises:
        ModelError: Model or card is missing or damaged, or a sha256 differs.
    """
    path = model.with_suffix(".json")
    for file in (model, path):
        if not file.is_file():
            raise ModelError(f"{file} is not there: a model is NAME.onnx with its card NAME.json beside it")
    try:
        card = ModelCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelError(f"{path} is not a model card: {first_error(error)}") from error
    _check_weights(model, card.sha256)
    if card.mirror_sha256 is not None:
        _check_weights(mirror_model_path(model), card.mirror_sha256)
    return card


def _check_weights(model: Path, sha256: str) -> None:
    """Check that an ONNX file is the one that a card states, and holds its weights itself.

    Raises:
        ModelError: It is missing, another one, or keeps weights in other files.
    """
    if not model.is_file():
        raise ModelError(f"{model} is not there, and its model's card names it: take all files from one export")
    content = model.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError(f"{model} has sha256 {found[:12]}…, its card states {sha256[:12]}…: take both from one export")
    if b"location" in content and EXTERNAL_DATA.search(content):  # the word alone is found ten times as fast
        raise ModelError(
            f"{model} keeps weights in other files, which its card's checksum does not cover: save it with its weights "
            "inside (onnx.save_model with save_as_external_data=False)"
        )
