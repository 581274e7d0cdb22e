"""A scan's lesions: every slice with lung through the network, back on the slice's own pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from groundglass.errors import ModelError
from groundglass.inference.card import ModelCard, bundled_model, read_card
from groundglass.inference.engine import Engine, choose, open_engine
from groundglass.inference.engine_config import ON_THIS_MACHINE, EngineConfig, Precision
from groundglass.scan.crop import Letterbox, slices_apart
from groundglass.scan.intensity import AIR_HU, HuVolume
from groundglass.scan.lungs import Box, LungField
from groundglass.scan.packed import Packed, pack

BATCH = 4


class Plane(NamedTuple):
    """What the network says of a slice.

    Attributes:
        z: Of the slice, from 0 in the upright axial view.
        box: The part of it that was looked at.
        probability: (classes, box height, box width) on the slice's own pixels; the first map is lesion.
    """

    z: int
    box: Box
    probability: NDArray[np.float32]


class Place(NamedTuple):
    """What the network sees of a slice.

    Attributes:
        z: Of the slice, from 0 in the upright axial view.
        letterbox: Its field of view, and its neighbours'.
        seen: The input's slices: itself, or from feet to head it between its neighbours.
    """

    z: int
    letterbox: Letterbox
    seen: tuple[int, ...]


def selected(model: Path | None = None, config: EngineConfig = ON_THIS_MACHINE) -> tuple[Path, ModelCard, EngineConfig]:
    """The file that runs, its card, and how: of the model itself or of its int8 twin. None: the bundled model.

    Raises:
        ModelError: Model or card is missing or damaged, or the twin is another model's.
        EngineError: int8 is asked for, and there is no twin.
    """
    model = model or bundled_model()
    file, config = choose(model, config)
    card = read_card(file)
    if card.quantized and file != model and card.quantized.of != read_card(model).sha256:
        raise ModelError(f"{file} was made of another model: remove it, or make it anew with groundglass quantize")
    return file, card, replace(config, precision=Precision.INT8) if card.quantized else config


class Segmenter:
    """A model, ready to run: its card and its engine."""

    def __init__(self, card: ModelCard, engine: Engine) -> None:
        self.card, self.engine = card, engine

    @classmethod
    def load(cls, model: Path | None = None, config: EngineConfig = ON_THIS_MACHINE) -> Segmenter:
        """Open an ONNX file with its card; None: the bundled model.

        Raises:
            ModelError: Model or card is missing or damaged.
            EngineError: No engine on this machine can run it.
        """
        file, card, config = selected(model, config)
        return cls(card, open_engine(file, config, card.input_shape))

    def places(self, field: LungField) -> list[Place]:
        """The slices with lung. A neighbour that is not there, or has no lung, is the slice itself."""
        step = slices_apart(self.card.neighbours_mm, field.spacing_mm)
        boxes = {z: box for z, box in enumerate(field.boxes) if box is not None}
        ways = (-step, 0, step) if self.card.neighbours_mm else (0,)
        return [
            Place(z, Letterbox(box, self.card.size), tuple(z + way if z + way in boxes else z for way in ways))
            for z, box in boxes.items()
        ]

    def grids(self, hu: HuVolume, places: Sequence[Place]) -> Iterator[NDArray[np.float32]]:
        """Some slices through the network, a batch at a time.

        Args:
            hu: (z, y, x) upright axial slices, approximate HU.
            places: Which slices, and what of each.

        Yields:
            (classes, height, width) probability on the network's own grid, one for each place.
        """
        window = self.card.window
        crops: dict[int, NDArray[np.float32]] = {}  # of the group and of the one before: neighbours cut each other's
        for start in range(0, len(places), BATCH):
            group = places[start : start + BATCH]
            wanted = {z: place.letterbox for place in group for z in place.seen}
            crops = {
                z: crops[z] if z in crops else window.scale(letterbox.take(hu[z], AIR_HU))
                for z, letterbox in wanted.items()
            }
            yield from expit(self.engine.run(np.stack([[crops[z] for z in place.seen] for place in group])))

    def planes(self, hu: HuVolume, field: LungField) -> Iterator[Plane]:
        """Every slice with lung through the network, and back on its own pixels; never more than a batch is held.

        Args:
            hu: (z, y, x) upright axial slices, approximate HU.
            field: Where the lungs are; slices without a box are not looked at.
        """
        places = self.places(field)
        for (z, letterbox, _), grid in zip(places, self.grids(hu, places), strict=True):
            yield Plane(z, letterbox.box, np.stack([letterbox.put_back(plane) for plane in grid]))

    def lesions(
        self,
        hu: HuVolume,
        field: LungField,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> Packed:
        """Find the lesions of a scan.

        Args:
            hu: (z, y, x) upright axial slices, approximate HU.
            field: Where the lungs are; slices without a box are not looked at.
            progress: Called with the slices done and their number.

        Returns:
            (z, y, x) uint8: 0 where there is none; else 1, or of a model with class maps the number of the strongest
            class.
        """
        nothing = np.zeros(hu.shape[1:], dtype=np.uint8)
        found = [pack(nothing)] * len(hu)
        total = sum(box is not None for box in field.boxes)
        for done, (z, box, probability) in enumerate(self.planes(hu, field), start=1):
            plane = nothing.copy()
            kind = 1 + probability[1:].argmax(0) if len(probability) > 1 else 1
            plane[box.top : box.bottom, box.left : box.right] = (probability[0] >= self.card.threshold) * kind
            found[z] = pack(plane)
            if done % BATCH == 0 or done == total:
                progress(done, total)
        return Packed(tuple(found))
