"""Running the network over a scan: probabilities for every slice with lung, on the slice's own pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import ModelError
from groundglass.inference.density_rules import apply_density_rules
from groundglass.inference.engine import Engine, sigmoid
from groundglass.inference.model_card import ModelCard
from groundglass.inference.smoothing import smooth_between_slices
from groundglass.parallel import map_in_threads, one_ahead
from groundglass.scan.crop import Letterbox, slices_apart
from groundglass.scan.intensity import AIR_HU, HuVolume
from groundglass.scan.lung_field import Box, LungField
from groundglass.scan.packed_mask import PackedMask, pack_slice

BATCH = 4
AT_ONCE = 2  # batches, so that no core waits while the end of one is computed


@dataclass(frozen=True, eq=False)
class SlicePrediction:
    """Prediction of the network for a slice.

    Attributes:
        z: Index of the slice in the upright axial view, from 0 at the feet.
        letterbox: The field of view, and how it lies on the network's own grid.
        network_probability: (classes, height, width) on the network's own grid; the first map is lesion.
    """

    z: int
    letterbox: Letterbox
    network_probability: NDArray[np.float32]

    @property
    def box(self) -> Box:
        """Part of the slice that the network saw."""
        return self.letterbox.box

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """(classes, box height, box width) the same on the slice's own pixels."""
        return np.stack([self.lesion_probability, *map(self.letterbox.invert, self.network_probability[1:])])

    @cached_property
    def lesion_probability(self) -> NDArray[np.float32]:
        """(box height, box width) the probability of lesion on the slice's own pixels."""
        return self.letterbox.invert(self.network_probability[0])

    def class_numbers(self, threshold: float) -> NDArray[np.uint8]:
        """Return (box height, box width): 0 without lesion; otherwise 1, or the number of the most probable class."""
        found = self.lesion_probability >= threshold
        numbers = found.astype(np.uint8)
        if len(self.network_probability) > 1 and found.any():
            numbers[found] = 1 + np.argmax([self.letterbox.invert(p)[found] for p in self.network_probability[1:]], 0)
        return numbers


class SliceInput(NamedTuple):
    """Input of the network for a slice.

    Attributes:
        z: Index of the slice in the upright axial view, from 0 at the feet.
        letterbox: The field of view of the slice and of its neighbours.
        slice_indices: The slices that are stacked as input channels: the slice alone, or between its neighbours from
            feet to head.
    """

    z: int
    letterbox: Letterbox
    slice_indices: tuple[int, ...]


class Segmenter:
    """A model ready to run: its card and its engine, and that of the mirror images if another network predicts them."""

    def __init__(self, card: ModelCard, engine: Engine, mirror_engine: Engine | None = None) -> None:
        self.card, self.engine, self.mirror_engine = card, engine, mirror_engine

    def __repr__(self) -> str:
        return f"Segmenter({self.card.name} in {self.engine.card.name}, {self.engine.card.precision})"

    def inputs(self, lung_field: LungField) -> list[SliceInput]:
        """Return the network's input for each slice with lung.

        The slice itself takes the place of a neighbour that is missing or shows no lung.
        """
        step = slices_apart(self.card.neighbours_mm, lung_field.spacing_mm)
        offsets = (-step, 0, step) if self.card.neighbours_mm else (0,)
        boxes = {z: box for z, box in enumerate(lung_field.boxes) if box is not None}
        return [
            SliceInput(
                z,
                Letterbox(box, self.card.size, lung_field.pixel_aspect),
                tuple(z + offset if z + offset in boxes else z for offset in offsets),
            )
            for z, box in boxes.items()
        ]

    def network_probabilities(self, hu: HuVolume, inputs: Sequence[SliceInput]) -> Iterator[NDArray[np.float32]]:
        """Run slices through the network, two batches at a time; the next ones are prepared and run meanwhile.

        Args:
            hu: (z, y, x) upright axial slices, HU or estimated HU.
            inputs: The slices to run.

        Yields:
            (classes, height, width) probabilities on the network's own grid, one array for each input.
        """
        for batch in map_in_threads(self._probabilities, one_ahead(self._batches(hu, inputs)), AT_ONCE):
            yield from batch

    def _probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, slices, height, width) in [0, 1] -> (n, classes, height, width), by the rules of the card."""
        logits = self.logits(images)
        self._check_logits(logits)
        probability = sigmoid(logits if self.card.consolidation_hu is None else logits[:, :1])  # rules make the others
        if self.card.mirrored:
            probability, mirrored = np.split(probability, 2)
            probability = (probability + mirrored[..., ::-1]) / np.float32(2)
        return apply_density_rules(probability, images, self.card)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, slices, height, width) in [0, 1] -> (n, classes, height, width), those of all mirror images after it."""
        if not self.card.mirrored:
            return self.engine.run(images)
        mirrored = images[..., ::-1]
        if self.mirror_engine is not None:
            return np.concatenate([self.engine.run(images), self.mirror_engine.run(mirrored)])
        # Both at once, so that of a single picture, too, each core computes one.
        return self.engine.run(np.concatenate([images, mirrored]))

    def _check_logits(self, logits: NDArray[np.float32]) -> None:
        """Check what the network computed: NaN would be taken for no lesion.

        Raises:
            ModelError: There is NaN, or there are other maps than the card names, where these make the classes.
        """
        card = self.card
        if np.isnan(logits).any():
            raise ModelError(
                f"the model {card.name} computes what is no number: its weights are damaged, or its precision does not "
                "do: export it again, or try --precision f32"
            )
        if card.consolidation_hu is None and logits.shape[1] != len(card.classes):
            raise ModelError(
                f"the model {card.name} has {logits.shape[1]} output maps, and its card {len(card.classes)} classes: "
                "take both from one export"
            )

    def _batches(self, hu: HuVolume, inputs: Sequence[SliceInput]) -> Iterator[NDArray[np.float32]]:
        """Yield (n, slices, height, width) images in [0, 1], of `BATCH` inputs or fewer at a time."""
        window = self.card.window
        crops: dict[int, NDArray[np.float32]] = {}  # by z; neighbouring slices share them
        for start in range(0, len(inputs), BATCH):
            batch = inputs[start : start + BATCH]
            needed = {z: item.letterbox for item in batch for z in item.slice_indices}
            crops = {
                z: crops[z] if z in crops else window.scale(letterbox.apply(hu[z], AIR_HU))
                for z, letterbox in needed.items()
            }
            yield np.stack([[crops[z] for z in item.slice_indices] for item in batch])

    def slice_predictions(self, hu: HuVolume, lung_field: LungField) -> Iterator[SlicePrediction]:
        """Run every slice with lung through the network and bring the result back to the slice's own pixels.

        A few batches at most are held in memory, and the slices that smoothing reaches.

        Args:
            hu: (z, y, x) upright axial slices, HU or estimated HU.
            lung_field: The lungs; slices without a box are skipped.
        """
        inputs = self.inputs(lung_field)
        probabilities = self.network_probabilities(hu, inputs)
        if lung_field.spacing_mm is not None:
            numbered = zip((item.z for item in inputs), probabilities, strict=True)
            probabilities = smooth_between_slices(numbered, lung_field.spacing_mm, self.card.smoothing_mm)
        for item, probability in zip(inputs, probabilities, strict=True):
            yield SlicePrediction(item.z, item.letterbox, probability)

    def class_map(
        self,
        hu: HuVolume,
        lung_field: LungField,
        progress: Callable[[int, int], None] = lambda *_: None,
        on_prediction: Callable[[SlicePrediction], None] = lambda _: None,
    ) -> PackedMask:
        """Find the lesions of a scan.

        Args:
            hu: (z, y, x) upright axial slices, HU or estimated HU.
            lung_field: The lungs; slices without a box are skipped.
            progress: Called with the number of slices done and the number of all.
            on_prediction: Called with the prediction of each slice before it is thresholded.

        Returns:
            (z, y, x) uint8: 0 without lesion; otherwise 1, or for a model with class maps the number of the most
            probable class.
        """
        empty = np.zeros(hu.shape[1:], dtype=np.uint8)
        classes = [pack_slice(empty)] * len(hu)
        total = sum(box is not None for box in lung_field.boxes)
        for done, prediction in enumerate(self.slice_predictions(hu, lung_field), start=1):
            on_prediction(prediction)
            box, plane = prediction.box, empty.copy()
            plane[box.top : box.bottom, box.left : box.right] = prediction.class_numbers(self.card.threshold)
            classes[prediction.z] = pack_slice(plane)
            if done % BATCH == 0 or done == total:
                progress(done, total)
        return PackedMask(tuple(classes))
