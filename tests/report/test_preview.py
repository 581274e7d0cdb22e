from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from groundglass.font import picture_font
from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.charts import Chart
from groundglass.report.colours import CLASSES
from groundglass.report.findings import ClassBurden, ModelRef
from groundglass.report.measurement import measure
from groundglass.report.preview import GAP, HEADER, SIDE_ROOM, TILE, choose_slices, draw_preview
from groundglass.report.solid_view import VOXELS, make_solid_model
from groundglass.report.thumbnail import read_thumbnail, save_preview
from groundglass.report.viewer import draw_viewer_slices
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.lung_field import Box, LungField
from groundglass.scan.packed_mask import PackedMask
from helpers.segmented import segmented_scan

LESION_COLOUR = CLASSES["lesion"]


@pytest.fixture(autouse=True)
def fine_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw views from as many cells as outside of tests."""
    monkeypatch.setattr("groundglass.report.solid_view.VOXELS", VOXELS)


def scan(
    slices: int = 12,
    side: int = 100,
    lesion_slices: tuple[int, ...] = (3, 4),
    spacing: float = 0.7,
    first_mm: float = 0.0,
) -> SegmentedScan:
    shape = (slices, side, side)
    geometry = Geometry(shape, np.array([[0, 0, 0.7, 0], [0, spacing, 0, 0], [5, 0, 0, first_mm], [0, 0, 0, 1]]))
    lung, lesions = np.zeros(shape, bool), np.zeros(shape, bool)
    lung[:, side // 5 : -side // 5, side // 5 : -side // 5] = True
    for z in lesion_slices:
        lesions[z, side * 2 // 5 : side // 2, side * 2 // 5 : side // 2] = True
    field = LungField(lung, np.zeros_like(lung), (Box(0, side, 0, side),) * slices)
    return segmented_scan(geometry, field, lesions, np.where(lung, -850, 40).astype(np.float32))


def draw(segmented: SegmentedScan) -> Image.Image:
    return draw_preview(segmented, measure(segmented, ModelRef(name="m", sha256="0" * 64)))


def test_the_font_has_every_character_that_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = ""

    def text(self: ImageDraw.ImageDraw, position: object, written: str, *_: object, **__: object) -> None:
        nonlocal drawn
        drawn += written

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    draw(scan(first_mm=-200.0))
    assert "\N{MINUS SIGN}" in drawn
    names = "Jürgen Groß, Zoë Łękowska, Δημήτρης, Пётр Щукин, שרה, Ελένη, Nguyễn, Åse Çelik…"
    font = picture_font(14)
    missing = bytes(font.getmask("\uffff"))
    assert [character for character in set(drawn + names) if bytes(font.getmask(character)) == missing] == []


def tiles(image: Image.Image) -> Image.Image:
    """The preview without header, footer and 3-D views."""
    return image.crop((0, HEADER, image.width - TILE - GAP, image.height - 28))


def only_tile(image: Image.Image) -> Image.Image:
    """The slice of a preview of one, without the frame, name and sides at its rim."""
    left = (image.width - TILE) // 2
    return image.crop((left + 30, HEADER + 30, left + TILE - 30, image.height - GAP - 28 - 30))


def near(image: Image.Image, colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray(np.abs(np.asarray(image).astype(int) - colour).sum(-1) < 40)


def test_the_contour_is_at_the_position_of_the_lesion() -> None:
    image = only_tile(draw(scan(slices=1, lesion_slices=(0,))))
    rows, columns = np.nonzero(near(image, LESION_COLOUR))
    for found in (rows, columns):
        assert found.min() + 30 == pytest.approx(0.4 * TILE, abs=4)
        assert found.max() + 30 == pytest.approx(0.5 * TILE, abs=4)


def test_nine_slices_are_spread_over_the_lungs_and_the_worst_is_among_them() -> None:
    lesions = {10: 4, 11: 9, 12: 2, 40: 1}
    segmented = scan(slices=45, lesion_slices=())
    mask = np.zeros(segmented.lesions.shape, bool)
    for z, size in lesions.items():
        mask[z, 30 : 30 + size, 30] = True
    segmented = replace(segmented, class_map=PackedMask.from_slices(mask.astype(np.uint8)))
    chosen = choose_slices(segmented)
    assert len(chosen) == 9
    assert {11, 40} <= set(chosen)
    assert 10 not in chosen
    assert 12 not in chosen
    assert [z // 5 for z in chosen] == list(range(8, -1, -1))  # one of each ninth, from head to feet


def test_the_slice_with_most_lesion_is_marked() -> None:
    image = tiles(draw(scan(slices=9, lesion_slices=(6,))))
    framed = [near(image, LESION_COLOUR)[:, GAP + i * (TILE + GAP)].sum() for i in range(3)]
    assert framed[2] > 0.9 * TILE > 100 > max(framed[:2])  # the third of the first row: slices 8, 7, 6


def test_the_slice_with_most_lesion_and_the_view_from_the_front_make_the_thumbnail(tmp_path: Path) -> None:
    preview = draw(scan(slices=9, lesion_slices=(6,)))
    save_preview(preview, tmp_path / "preview.png")
    thumbnail = read_thumbnail(tmp_path / "preview.png", (2 * TILE, TILE))
    assert thumbnail.size == (2 * TILE, TILE)
    assert near(thumbnail, LESION_COLOUR)[:, 0].mean() > 0.9  # the frame of the slice with most lesion
    front = preview.crop((preview.width - TILE - GAP, HEADER, preview.width - GAP, HEADER + TILE))
    assert np.array_equal(np.asarray(thumbnail)[:, TILE:], np.asarray(front))


def test_lung_slices_are_drawn_where_there_is_no_lesion() -> None:
    image = tiles(draw(scan(lesion_slices=())))
    assert not near(image, LESION_COLOUR).any()
    assert image.height > 2 * TILE
    assert (np.asarray(image)[..., 2].astype(int) - np.asarray(image)[..., 0] > 30).any()  # the lungs' blue outline


@pytest.mark.parametrize(("slices", "side"), [(1, 16), (1, 100), (2, 1500)])
def test_single_tiny_and_large_slices_are_drawn(slices: int, side: int) -> None:
    assert near(draw(scan(slices=slices, side=side, lesion_slices=(0,))), LESION_COLOUR).any()


def test_the_meaning_of_all_colours_stands_whole_below_a_single_slice() -> None:
    segmented = scan(slices=1, lesion_slices=(0,))
    findings = measure(segmented, ModelRef(name="m", sha256="0" * 64))
    classes = tuple(
        ClassBurden(name=name, volume_ml=1.0, lesion_share_of_lung_percent=1.0)
        for name in ("ground-glass", "consolidation", "effusion")
    )
    image = draw_preview(segmented, findings.model_copy(update={"classes": classes}))
    footer = np.asarray(image)[-24:]
    assert (footer[:, :-GAP] < 160).any()
    assert (footer[:, -GAP:] == 255).all()  # nothing runs into the margin


def test_anisotropic_pixels_are_drawn_in_proportion() -> None:
    tile = only_tile(draw(scan(slices=1, lesion_slices=(0,), spacing=0.35)))
    rows, columns = np.nonzero(near(tile, LESION_COLOUR))
    assert np.ptp(columns) == pytest.approx(2 * np.ptp(rows), abs=5)


def test_the_views_from_the_front_and_the_back_are_mirrored_and_show_the_lesion_before_the_lung() -> None:
    segmented = scan(slices=20, lesion_slices=())
    mask = np.zeros(segmented.lesions.shape, bool)
    mask[14:18, 22:30, 22:30] = True  # high, in front, at the patient's right
    model = make_solid_model(replace(segmented, class_map=PackedMask.from_slices(mask.astype(np.uint8))))
    assert model is not None

    def lesion(picture: Image.Image) -> tuple[float, float]:
        pixels = np.asarray(picture).astype(int)
        rows, columns = np.nonzero(pixels[..., 0] - pixels[..., 2] > 25)
        return rows.mean() / picture.height, columns.mean() / picture.width

    front, back, left = (model.draw(direction, (200, 200), (LESION_COLOUR,)) for direction in ("front", "back", "left"))
    assert lesion(front)[0] < 0.4
    assert lesion(front)[1] < 0.4  # the patient's right is at the viewer's left
    assert lesion(back)[1] > 0.6
    assert lesion(left)[1] < 0.4  # seen from the left, the front is at the viewer's left
    pixels = [np.asarray(picture).astype(int) for picture in (front, back)]
    most_coloured = [int((each[..., 0] - each[..., 2]).max()) for each in pixels]
    assert most_coloured[0] > most_coloured[1] + 20  # from the back it lies deep behind the lung


def test_views_are_left_out_where_it_is_not_known_how_the_patient_lies() -> None:
    segmented = scan()
    geometry = replace(segmented.view.source, has_directions=False)
    unknown = replace(segmented, view=AxialView(geometry), scan=replace(segmented.scan, geometry=geometry))
    assert draw(segmented).width - draw(unknown).width == TILE + GAP


@pytest.mark.parametrize(("slices", "views"), [(3, 0), (7, 0), (8, 1)])
def test_a_slab_of_a_few_slices_is_not_drawn_in_3_d(slices: int, views: int) -> None:
    assert draw(scan(slices=slices, lesion_slices=(0,))).width == (3 + views) * (TILE + GAP) + GAP


def test_nothing_of_a_3_d_view_lies_under_the_names_of_the_sides() -> None:
    image = draw(scan(slices=10, side=300, lesion_slices=(3,)))  # low and wide, so that it takes the whole width
    view = np.asarray(image.crop((image.width - TILE - GAP, HEADER + 30, image.width - GAP, HEADER + 240))).astype(int)
    drawn = np.flatnonzero((255 - view.min(-1) > 8).sum(0) > 30)  # columns with more than a letter
    assert drawn.size
    assert drawn[0] >= SIDE_ROOM
    assert drawn[-1] < TILE - SIDE_ROOM


def test_a_single_slice_is_not_marked_as_the_one_with_most_lesion() -> None:
    tile = np.asarray(draw(scan(slices=1, lesion_slices=(0,))))[HEADER, :, :]
    assert not near(Image.fromarray(tile[None]), LESION_COLOUR).any()


def test_a_lesion_where_no_lung_was_found_is_shown_in_the_viewer() -> None:
    segmented = scan(lesion_slices=(3, 10))
    boxes = tuple(None if z >= 9 else box for z, box in enumerate(segmented.lung_field.boxes))
    segmented = replace(segmented, lung_field=replace(segmented.lung_field, boxes=boxes))
    findings = measure(segmented, ModelRef(name="m", sha256="0" * 64))
    shown = draw_viewer_slices(segmented, findings, Chart((0, 12), 1.0))
    assert [each["number"] for each in shown] == [*range(9), 10]
    assert shown[-1]["contour"]


def test_a_picture_with_lesion_and_without_lung_is_among_those_shown() -> None:
    lungs, lesions = np.zeros((2, 12, 50, 50), bool)
    lungs[:11, 10:40, 10:40] = True
    lesions[11, 20:30, 20:30] = True
    field = LungField(lungs, np.zeros_like(lungs), (Box(0, 50, 0, 50),) * 12)
    grid = Geometry((12, 50, 50), np.eye(4)[[2, 1, 0, 3]], in_mm=False, has_directions=False)
    pictures = segmented_scan(grid, field, lesions)
    assert 11 in choose_slices(pictures)
