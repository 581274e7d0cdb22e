from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.errors import ModelError
from groundglass.inference.engine_config import EngineConfig, EngineName, Precision
from groundglass.inference.model_card import ModelCard
from groundglass.inference.open_model import open_model
from groundglass.inference.pipeline import segment_by_mask, segment_lesions, segment_scan
from groundglass.inference.segmenter import Segmenter
from groundglass.scan.geometry import Geometry
from groundglass.scan.lung_field import Box, LungField
from groundglass.scan.packed_mask import voxels_per_slice
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from helpers.fake_engine import FakeEngine, RecordingEngine, fake_segmenter
from helpers.segmented import segmented_scan

WINDOW = (-1000.0, 0.0)


class Brightness(FakeEngine):
    """An engine for which everything brighter than half the window is lesion; it records its inputs."""

    def __init__(self) -> None:
        self.inputs: list[NDArray[np.float32]] = []

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.inputs.append(images)
        return (images - 0.5) * 100


def segmenter(size: tuple[int, int] = (40, 60), threshold: float = 0.5) -> tuple[Segmenter, Brightness]:
    engine = Brightness()
    card = ModelCard(
        name="brightness",
        sha256="0" * 64,
        network={},
        window_hu=WINDOW,
        size=size,
        threshold=threshold,
        training_data=(),
        never_trained_on=(),
        intended_use="tests",
        limits=(),
    )
    return Segmenter(card, engine), engine


def field(shape: tuple[int, int, int], boxes: dict[int, Box]) -> LungField:
    nothing = np.zeros(shape, dtype=np.bool_)
    return LungField(nothing, nothing, tuple(boxes.get(z) for z in range(shape[0])), ())


def lung_with_square() -> NDArray[np.float32]:
    hu = np.full((6, 100, 120), -900, dtype=np.float32)
    hu[:, 40:60, 30:50] = -100
    return hu


def test_a_lesion_is_found_where_it_is() -> None:
    hu = lung_with_square()
    found = np.asarray(segmenter()[0].class_map(hu, field(hu.shape, dict.fromkeys(range(6), Box(10, 90, 10, 110)))))
    truth = hu > -500
    assert set(np.unique(found)) == {0, 1}
    both = (found & truth).sum()
    assert 2 * both / (found.sum() + truth.sum()) > 0.97
    assert np.allclose(np.argwhere(found).mean(0), np.argwhere(truth).mean(0), atol=0.2)


def test_pixels_that_are_no_squares_are_shown_in_proportion() -> None:
    hu = lung_with_square()[:, ::2]  # pixels twice as high as wide
    one, engine = segmenter()
    lungs = replace(field(hu.shape, {0: Box(5, 45, 10, 110)}), pixel_aspect=2.0)
    found = np.asarray(one.class_map(hu, lungs))
    bright = engine.inputs[0][0, 0] > 0.5
    assert bright.any(0).sum() == bright.any(1).sum()  # the square is one
    assert 0.9 < found.sum() / (hu[0] > -500).sum() < 1.2


def test_a_lesion_in_a_picture_touches_no_lung_of_the_next_one() -> None:
    lung, bright = np.zeros((2, 60, 60), np.bool_), np.zeros((2, 60, 60), np.float32)
    lung[0, 20:40, 20:40] = lung[1, 20:40, 30:40] = True
    bright[:, 25:35, 21:26] = 1  # in the lung of the first picture, and beside that of the second one
    lungs = LungField(lung, np.zeros_like(lung), (Box(0, 60, 0, 60),) * 2)
    pictures, volume = (
        segment_lesions(segmented_scan(grid, lungs, np.zeros_like(lung), 900 * bright - 900), segmenter((60, 60))[0])
        for grid in (Geometry.pixels(lung.shape), replace(Geometry.pixels(lung.shape), in_mm=True))
    )
    assert voxels_per_slice(pictures.lesions).tolist() == [50, 0]
    assert voxels_per_slice(volume.lesions).tolist() == [50, 50]


def test_a_volume_that_was_stored_on_its_side_is_shown_upright_and_its_mask_lies_as_it_does() -> None:
    scan = chest_phantom(shape=(8, 120, 160), extent_mm=(240, 288, 384), oblique=False).scan
    grid = replace(scan.geometry, has_directions=False)
    upright = segment_scan(Scan(scan.values, grid), fake_segmenter())
    lying = Scan(scan.values.transpose(0, 2, 1), replace(grid, shape=(8, 160, 120)))
    turned = segment_scan(lying, fake_segmenter())
    assert turned.hu.shape == upright.hu.shape
    lesions = turned.mask(np.asarray(turned.lesions)).voxels
    assert np.array_equal(lesions.transpose(0, 2, 1), upright.mask(np.asarray(upright.lesions)).voxels)
    corrected = segment_by_mask(lying, Scan(lesions.astype(np.uint8), lying.geometry), fake_segmenter().card)
    assert np.array_equal(corrected.lesions, turned.lesions)


def test_slices_without_lung_are_not_run() -> None:
    hu = lung_with_square()
    one, engine = segmenter()
    found = np.asarray(one.class_map(hu, field(hu.shape, {2: Box(10, 90, 10, 110)})))
    assert found.any((1, 2)).tolist() == [False, False, True, False, False, False]
    assert sum(len(batch) for batch in engine.inputs) == 1


def test_nothing_is_found_outside_the_box() -> None:
    hu = lung_with_square()
    found = np.asarray(segmenter()[0].class_map(hu, field(hu.shape, {0: Box(50, 90, 10, 110)})))
    assert not found[0, :50].any()
    assert found[0, 50:60, 30:50].mean() > 0.9


def test_size_window_and_threshold_come_from_the_card() -> None:
    hu = lung_with_square()
    boxes = field(hu.shape, {0: Box(10, 90, 10, 110)})
    one, engine = segmenter(size=(24, 36))
    one.class_map(hu, boxes)
    assert engine.inputs[0].shape == (1, 1, 24, 36)
    assert (engine.inputs[0][..., 0, 0] == 0).all()  # the letterbox is air, -1000 HU
    assert np.isclose(np.median(engine.inputs[0][engine.inputs[0] > 0.05]), 0.1, atol=0.01)  # -900 HU in -1000..0
    strict, _ = segmenter(threshold=0.9)
    assert voxels_per_slice(strict.class_map(hu, boxes)).sum() < voxels_per_slice(one.class_map(hu, boxes)).sum()


def test_planes_hold_every_class_on_the_pixels_of_the_box() -> None:
    class TwoMaps(Brightness):
        def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            logits = super().run(images)
            return np.concatenate([logits, -logits], axis=1)

    hu = lung_with_square()
    boxes = field(hu.shape, dict.fromkeys((1, 2, 3, 4, 5), Box(10, 90, 10, 110)))
    one = Segmenter(segmenter()[0].card.model_copy(update={"classes": ("lesion", "none")}), TwoMaps())
    planes = list(one.slice_predictions(hu, boxes))
    assert [plane.z for plane in planes] == [1, 2, 3, 4, 5]
    found = one.class_map(hu, boxes)
    for plane in planes:
        z, probability = plane.z, plane.probability
        assert plane.box == Box(10, 90, 10, 110)
        assert probability.shape == (2, 80, 100)
        assert probability.dtype == np.float32
        assert np.allclose(probability.sum(0), 1, atol=1e-5)
        assert (found[z, 10:90, 10:110] == (probability[0] >= 0.5)).all()


def test_each_lesion_pixel_has_its_most_probable_class() -> None:
    class Classes(Brightness):
        def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            logits = super().run(images)
            right = np.broadcast_to(np.arange(images.shape[3]) >= images.shape[3] / 2, logits.shape)
            return np.concatenate([logits, np.where(right, -5, 5), np.where(right, 5, -5)], axis=1).astype(np.float32)

    hu = lung_with_square()
    boxes = field(hu.shape, {0: Box(10, 90, 0, 80)})
    card = segmenter()[0].card.model_copy(update={"classes": ("lesion", "left", "right")})
    found = Segmenter(card, Classes()).class_map(hu, boxes)[0]
    truth = hu[0] > -500
    assert ((found > 0) == (segmenter()[0].class_map(hu, boxes)[0] > 0)).all()
    assert set(found[truth & (np.arange(120) < 38)]) <= {0, 1}
    assert set(found[truth & (np.arange(120) >= 42)]) <= {0, 2}
    assert {1, 2} <= set(found[truth])


@pytest.mark.parametrize(("hu_of_lesion", "number"), [(-360.0, 1), (-340.0, 2)])
def test_the_density_of_a_lesion_decides_its_class_where_the_card_says_so(hu_of_lesion: float, number: int) -> None:
    """The class maps of the network say the opposite."""

    class Classes(Brightness):
        def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            lesion = super().run(images)
            odds = (9, -9) if number == 2 else (-9, 9)
            return np.concatenate([lesion, *(np.full_like(lesion, value) for value in odds)], axis=1)

    hu = np.where(lung_with_square() > -500, np.float32(hu_of_lesion), np.float32(-900))
    card = segmenter()[0].card.model_copy(update={"consolidation_hu": -350.0})
    found = Segmenter(card, Classes()).class_map(hu, field(hu.shape, {0: Box(10, 90, 0, 80)}))[0]
    assert set(found[43:57, 33:47].ravel()) == {number}  # within the lesion, whose border is mixed with air
    assert ((found > 0) == (segmenter()[0].class_map(hu, field(hu.shape, {0: Box(10, 90, 0, 80)}))[0] > 0)).all()


def test_regions_below_the_smallest_volume_of_the_card_are_no_lesions() -> None:
    scan, of_all = chest_phantom(3, shape=(24, 96, 128)).scan, fake_segmenter()
    voxel_ml = scan.geometry.voxel_ml
    assert voxel_ml is not None
    found = np.asarray(segment_scan(scan, of_all).lesions)
    regions, _ = ndimage.label(found, np.ones((3, 3, 3)))
    ml = np.bincount(regions.ravel()) * voxel_ml
    assert ml.min() < 1 < ml[1:].max()
    of_large = Segmenter(of_all.card.model_copy(update={"smallest_ml": 1.0}), of_all.engine)
    assert np.array_equal(segment_scan(scan, of_large).lesions, found & (ml >= 1)[regions])


def test_progress_counts_the_slices_with_lung() -> None:
    hu = lung_with_square()
    calls: list[tuple[int, int]] = []
    boxes = field(hu.shape, dict.fromkeys(range(5), Box(0, 100, 0, 120)))
    segmenter()[0].class_map(hu, boxes, lambda done, total: calls.append((done, total)))
    assert calls == [(4, 5), (5, 5)]


@pytest.mark.slow
@pytest.mark.parametrize("engine", EngineName)
def test_in_float32_the_mask_is_the_same_for_every_batch_and_number_of_threads(
    engine: EngineName, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, masks = chest_phantom(shape=(8, 96, 128)).scan, []
    for batch, threads in ((4, None), (1, 1), (3, 2), (7, 1)):
        monkeypatch.setattr("groundglass.inference.segmenter.BATCH", batch)
        loaded = open_model(config=EngineConfig(engine, Precision.F32, threads))
        assert loaded.engine.card.precision == "f32"
        masks.append(segment_scan(scan, loaded).class_map)
    assert voxels_per_slice(masks[0]).any()
    for other in masks[1:]:
        assert np.array_equal(masks[0], other)


@pytest.mark.parametrize(("spacing_mm", "stays"), [(1.0, False), (8.0, True), (None, True)])
def test_what_one_thin_slice_shows_alone_is_smoothed_away_and_pictures_stay(
    spacing_mm: float | None, stays: bool
) -> None:
    hu = lung_with_square()
    hu[:3], hu[4:] = -900, -900
    box = Box(10, 90, 0, 120)
    boxes = replace(field(hu.shape, dict.fromkeys(range(6), box)), spacing_mm=spacing_mm)
    model, engine = segmenter()
    smoothing = Segmenter(model.card.model_copy(update={"smoothing_mm": 2.5}), engine)
    marked = [bool(plane.any()) for plane in smoothing.class_map(hu, boxes)]
    assert marked == [False, False, False, stays, False, False]


def test_a_mirrored_prediction_is_the_mean_of_the_slice_and_its_mirror_image() -> None:
    hu = lung_with_square()
    boxes = field(hu.shape, {2: Box(10, 90, 10, 110)})

    class Sides(FakeEngine):
        """An engine that finds lesion in the left half of whatever it sees."""

        def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            logits = np.full_like(images, -20.0)
            logits[..., : images.shape[3] // 2] = 20.0
            return logits

    card = segmenter()[0].card
    (plain,) = Segmenter(card, Sides()).slice_predictions(hu, boxes)
    (mean,) = Segmenter(card.model_copy(update={"mirrored": True}), Sides()).slice_predictions(hu, boxes)
    assert plain.network_probability[0].mean() == pytest.approx(0.5)
    assert plain.network_probability[0].max() == pytest.approx(1)
    assert mean.network_probability == pytest.approx(0.5)


def test_a_picture_and_its_mirror_image_are_computed_together() -> None:
    plain, engine = segmenter()
    mirrored = Segmenter(plain.card.model_copy(update={"mirrored": True}), engine)
    list(mirrored.slice_predictions(lung_with_square(), field((6, 100, 120), {2: Box(10, 90, 10, 110)})))
    (together,) = engine.inputs
    assert len(together) == 2
    assert np.array_equal(together[0], together[1, ..., ::-1])


def test_a_second_network_sees_the_mirror_image_alone_and_counts_as_much() -> None:
    plain, engine = segmenter()
    other, hu, boxes = RecordingEngine(), lung_with_square(), field((6, 100, 120), {2: Box(10, 90, 10, 110)})
    (alone,) = plain.slice_predictions(hu, boxes)
    mirrored = plain.card.model_copy(update={"mirrored": True})
    (mean,) = Segmenter(mirrored, engine, other).slice_predictions(hu, boxes)
    of_other = 1 / (1 + np.exp(9))  # it finds no lesion
    assert mean.network_probability == pytest.approx((alone.network_probability + of_other) / 2, abs=1e-6)
    assert np.array_equal(other.inputs[0], engine.inputs[0][..., ::-1])


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.full((1, 1, 40, 60), np.nan, np.float32), "computes what is no number"),
        (np.zeros((1, 3, 40, 60), np.float32), "has 3 output maps, and its card 1 classes"),
    ],
)
def test_a_network_that_computes_no_numbers_or_other_maps_than_its_card_names_is_refused(
    logits: NDArray[np.float32], message: str
) -> None:
    model, engine = segmenter()
    engine.run = lambda _: logits  # type: ignore[assignment, method-assign]
    with pytest.raises(ModelError, match=message):
        model.class_map(lung_with_square(), field((6, 100, 120), {2: Box(20, 80, 20, 100)}))
