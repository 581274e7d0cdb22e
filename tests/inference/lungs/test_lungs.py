"""The lungs, found by the bundled network in phantoms as scanners, anonymisers and screenshots leave them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.data.case_files import read_case
from groundglass.data.catalogue import find_cases, select
from groundglass.errors import IntensityError, LungError
from groundglass.inference.lungs.finding import ScanWithLungs, find_intensity, find_lungs
from groundglass.inference.lungs.network import INSIDE, LungMaps, LungNetwork, open_lung_network
from groundglass.inference.lungs.parts import Part, View, around_lungs
from groundglass.io.reader import read_scan
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.lung_field import Box
from groundglass.scan.packed_mask import voxels_per_slice
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.scan.scan import Scan
from groundglass.training.lungs.no_chest import draw_no_chest, radiographs
from helpers.cases import sample
from helpers.chests import axial, dice, part_of, pictures, truth
from helpers.windows import WINDOWS, grey_levels


def check_box_holds(found: ScanWithLungs, lesions: NDArray[np.bool_]) -> None:
    for z, box in enumerate(found.lung_field.boxes):
        outside = lesions[z].copy()
        if box:
            outside[box.top : box.bottom, box.left : box.right] = False
        assert not outside.any()


@pytest.fixture(scope="module")
def small() -> Phantom:
    return chest_phantom(shape=(10, 120, 158))


def test_the_lungs_of_a_phantom_are_found_with_their_dense_lesions(phantom: Phantom) -> None:
    found = find_lungs(phantom.scan)
    view = AxialView(phantom.scan.geometry)
    lesions = view.to_axial(phantom.lesions.voxels)
    assert dice(found.lung_field.mask, truth(phantom)) > 0.95
    assert (np.asarray(found.lung_field.mask) & lesions).sum() > 0.85 * lesions.sum()
    assert dice(found.lung_field.including_lesions(lesions).mask, truth(phantom)) > 0.95
    assert found.lung_field.warnings == ()
    check_box_holds(found, lesions)


def test_the_right_lung_lies_at_the_left_of_the_upright_image(phantom: Phantom) -> None:
    field, lungs = find_lungs(phantom.scan).lung_field, truth(phantom)
    columns = np.arange(lungs.shape[2]) < lungs.shape[2] / 2
    assert dice(field.right, lungs & columns) > 0.93
    assert dice(field.left, lungs & ~columns) > 0.93
    assert field.sides_known
    assert not any((right & left).any() for right, left in zip(field.right, field.left, strict=True))


def test_the_lungs_tell_the_proportions_of_pixels_also_of_coronal_slices(upright: Phantom) -> None:
    scan = axial(upright)
    thick = scan.values.reshape(len(scan.values), -1, 4, scan.values.shape[2]).mean(2).astype(np.int16)
    affine = scan.geometry.affine_lps @ np.diag([1.0, 4, 1, 1])
    coronal = Geometry(thick.transpose(1, 0, 2).shape, affine[:, [1, 0, 2, 3]])
    aspects = [find_lungs(one).lung_field.pixel_aspect for one in (scan, Scan(thick.transpose(1, 0, 2), coronal))]
    _, height, width = scan.geometry.spacing
    assert aspects == [1.0, pytest.approx(4 * height / width)]


def test_the_lungs_of_a_small_patient_in_a_wide_field_of_view_are_found() -> None:
    phantom = chest_phantom(shape=(12, 160, 200), oblique=False)
    some = slice(4, 9)
    wide = ((0, 0), (220, 220), (220, 220))
    values = np.pad(axial(phantom).values[some], wide, constant_values=-1000)
    found = find_lungs(Scan(values, replace(axial(phantom).geometry, shape=values.shape)))
    assert dice(found.lung_field.mask, np.pad(truth(phantom)[some], wide)) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 16])
def test_lung_that_is_narrower_than_a_pixel_is_looked_at(size: int) -> None:
    maps = np.zeros((1, 2, INSIDE, INSIDE), np.uint8)
    maps[:, :, 30:130, 138:142] = 255
    content = Box(3, 3 + size, 5, 5 + size)
    box = around_lungs(View(Part(range(1), content, (15, 1, 1)), np.zeros(1, np.int64), content, maps=maps)).box
    assert box is not None
    (top, bottom), (left, right) = box.spans
    assert 3 <= top < bottom <= 3 + size
    assert 5 <= left < right <= 5 + size


def test_thin_slices_have_lungs_between_those_that_the_network_saw() -> None:
    thin = chest_phantom(4, shape=(96, 96, 128), extent_mm=(96.0, 288.0, 380.0), oblique=False)
    assert dice(find_lungs(thin.scan).lung_field.mask, truth(thin)) > 0.94


@pytest.mark.parametrize("padding", sample([-3024, -2000, -1024], every=3))
@pytest.mark.thorough
def test_padding_outside_the_circle_of_reconstruction_changes_nothing(upright: Phantom, padding: int) -> None:
    scan = axial(upright)
    y, x = np.ogrid[-1 : 1 : scan.values.shape[1] * 1j, -1 : 1 : scan.values.shape[2] * 1j]
    padded = replace(scan, values=np.where(x**2 + y**2 > 1, padding, scan.values).astype(np.int16))
    assert dice(find_lungs(padded).lung_field.mask, truth(upright)) > 0.95


@pytest.mark.parametrize("pixels", sample([-3, 0, 5, 20], every=3))
def test_a_scan_cut_close_to_the_lungs_keeps_them_and_says_where_they_are_cut(upright: Phantom, pixels: int) -> None:
    lungs, scan = truth(upright), axial(upright)
    rows, columns = (np.flatnonzero(lungs.any(axis)) for axis in ((0, 2), (0, 1)))
    part = (
        slice(None),
        slice(max(0, rows[0] - pixels), rows[-1] + 1 + pixels),
        slice(max(0, columns[0] - pixels), columns[-1] + 1 + pixels),
    )
    field = find_lungs(part_of(scan, *part)).lung_field
    assert voxels_per_slice(field.mask).sum() == pytest.approx(lungs[part].sum(), rel=0.1 if pixels <= 0 else 0.05)
    assert any("side of the slices" in text for text in field.warnings) or pixels >= 0


@pytest.mark.parametrize("side", sample(["right", "left"], every=2))
@pytest.mark.thorough
def test_one_lung_alone_is_found_and_the_other_is_said_to_be_missing_or_the_side_unknown(
    upright: Phantom, side: str
) -> None:
    lungs, scan = truth(upright), axial(upright)
    middle = scan.values.shape[2] // 2
    part = (slice(None), slice(None), slice(0, middle) if side == "right" else slice(middle, None))
    field = find_lungs(part_of(scan, *part)).lung_field
    assert voxels_per_slice(field.mask).sum() == pytest.approx(lungs[part].sum(), rel=0.07)
    other = {"right": "left", "left": "right"}[side]
    assert not field.sides_known or f"no {other} lung was found" in field.warnings


@pytest.mark.parametrize("kind", IntensityKind)
def test_each_kind_of_numbers_gives_the_same_lungs(small: Phantom, kind: IntensityKind) -> None:
    hu = small.scan.values
    values = {
        IntensityKind.HU: hu,
        IntensityKind.SHIFTED_HU: (np.maximum(hu, -1024) + 1024).astype(np.uint16),
        IntensityKind.WINDOW_8BIT: grey_levels(hu),
        IntensityKind.WINDOW_UNIT: grey_levels(hu).astype(np.float32) / 255,
    }[kind]
    found = find_lungs(Scan(values, small.scan.geometry))
    assert found.intensity.kind is kind
    assert found.intensity.calibrated is not kind.is_window
    assert dice(found.lung_field.mask, truth(small)) > 0.95


@pytest.mark.parametrize(("low", "high"), sample(WINDOWS, every=2))
@pytest.mark.parametrize("cropped", [False, True], ids=["whole", "cut to the lungs"])
def test_pictures_in_any_window_give_the_lungs_and_nearly_the_hu(
    upright: Phantom, low: int, high: int, cropped: bool
) -> None:
    lungs, hu = truth(upright)[14], axial(upright).values[14]
    rows, columns = (np.flatnonzero(lungs.any(axis)) for axis in (1, 0))
    part = (slice(rows[0], rows[-1]), slice(columns[0], columns[-1])) if cropped else (slice(None), slice(None))
    found = find_lungs(pictures(grey_levels(hu[part], low, high)))
    assert dice(found.lung_field.mask, lungs[None][:, part[0], part[1]]) > 0.93
    healthy = lungs[part] & (hu[part] < -500)
    assert np.median(found.hu[0][healthy]) == pytest.approx(np.median(hu[part][healthy]), abs=70)


@pytest.mark.parametrize(
    ("slope", "offset", "kind"),
    [(0.001, 0.0, "hu"), (0.001, 1.0, "hu"), (1.0, 2048.0, "shifted-hu"), (1.0, 1024.0, "hu")],
)
def test_numbers_that_are_no_hu_are_refused_where_they_were_called_so(
    slope: float, offset: float, kind: str, small: Phantom
) -> None:
    values = (small.scan.values * np.float32(slope) + np.float32(offset)).astype(np.float32)
    scan = Scan(values, small.scan.geometry)
    with pytest.raises(IntensityError, match=rf"the numbers are not {kind}; name their kind .*, such as unit-window"):
        find_lungs(scan, kind=IntensityKind(kind))


def test_the_lungs_of_few_slices_are_found_at_any_distance(upright: Phantom) -> None:
    """Such as that of 1 mm in a file whose distance was never set."""
    few = axial(upright)
    values, affine = few.values[::3], few.geometry.affine_lps.copy()
    affine[:, 0] *= 0.02
    found = find_lungs(Scan(values, Geometry(values.shape, affine)))
    assert dice(found.lung_field.mask, truth(upright)[::3]) > 0.9


class UnsureOfParts(LungNetwork):
    """A lung network that is less sure of lungs where it sees a part of a slice alone."""

    def __init__(self, height: int) -> None:
        self._height, self._network, self.threads = height, open_lung_network(), 1

    def maps(self, slices: Iterable[NDArray[Any]], limits: tuple[float, float] | None = None) -> Iterator[LungMaps]:
        seen, looked_at = tee(slices)
        for part, found in zip(seen, self._network.maps(looked_at, limits), strict=True):
            certainty = 1.0 if len(part) == self._height else 0.7
            yield LungMaps(found.levels, found.probability * np.float32(certainty))


def test_lungs_found_in_a_whole_picture_stand_where_the_network_is_less_sure_of_a_part(upright: Phantom) -> None:
    scan = axial(upright)
    unsure = UnsureOfParts(scan.values.shape[1])
    picture = pictures(grey_levels(scan.values[14], -1250, 250))
    assert (
        dice(find_lungs(picture, network=unsure).lung_field.mask, np.asarray(find_lungs(picture).lung_field.mask))
        > 0.95
    )
    with pytest.raises(LungError, match="no lung was found"):
        find_lungs(scan, network=unsure)


def test_each_picture_of_a_folder_has_its_own_window_and_box_inside_its_own_size(upright: Phantom) -> None:
    hu = axial(upright).values
    narrow, wide = grey_levels(hu[14], -1250, 250), grey_levels(hu[16, 10:130, 20:180], -1500, 400)
    found = find_lungs(pictures(narrow, wide))
    assert found.intensity.slope[1] > 1.1 * found.intensity.slope[0]
    box = found.lung_field.boxes[1]
    assert box is not None
    assert box.bottom <= 120
    assert box.right <= 160
    assert any("convention by assumption" in text for text in found.lung_field.warnings)


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [
        (-160, 240, "in HU or a window that shows the lungs|shows the lungs black"),
        (-800, 100, "in HU or a window that shows the lungs|shows the lungs black"),
        (-1000, -300, "tissue around the lungs white.*export it in a lung window"),
    ],
)
def test_a_window_that_clips_what_matters_is_refused(upright: Phantom, low: int, high: int, reason: str) -> None:
    with pytest.raises((IntensityError, LungError), match=reason):
        find_lungs(pictures(grey_levels(axial(upright).values[14], low, high)))


KINDS = ("phantom", "limbs", "head", "noise", "screen", "shading")
NO_CHESTS = ["radiograph", *(f"{name} {number}" for number in (1, 2) for name in KINDS)]


@pytest.fixture(scope="module")
def no_chests() -> dict[str, NDArray[np.float32]]:
    """Images that show no chest, other ones than the network was trained with."""
    chest = axial(chest_phantom(9, shape=(96, 96, 128), extent_mm=(240.0, 288.0, 380.0), oblique=False))
    images = [radiographs(chest.values.astype(np.float32))[0], *draw_no_chest(12, 256, seed=77)]
    return dict(zip(NO_CHESTS, images, strict=True))


@pytest.mark.parametrize(
    "name", [*NO_CHESTS[:7], *(pytest.param(name, marks=pytest.mark.slow) for name in NO_CHESTS[7:])]
)
def test_what_is_no_chest_is_refused(name: str, no_chests: dict[str, NDArray[np.float32]]) -> None:
    grey = grey_levels(no_chests[name], -1350, 350)
    with pytest.raises((LungError, IntensityError)):
        find_lungs(pictures(grey))


def test_a_scan_without_lung_is_refused_with_the_way_to_fix_it(upright: Phantom) -> None:
    with pytest.raises(LungError, match=r"no lung was found: expected axial slices of a chest.*--intensity"):
        find_lungs(part_of(axial(upright), slice(-2, None)))


@pytest.mark.thorough
def test_intensities_alone_need_lungs_only_where_the_window_is_not_stated(phantom: Phantom) -> None:
    assert find_intensity(phantom.scan).calibrated
    assert not find_intensity(Scan(grey_levels(phantom.scan.values), phantom.scan.geometry)).calibrated


@pytest.mark.slow
@pytest.mark.parametrize("name", ["volumes/4", "volumes/5", "volumes/8"])
def test_the_lungs_of_real_scans_that_the_network_has_not_seen_agree_with_the_reference(data: Path, name: str) -> None:
    (case,) = select(find_cases(data), [name])
    scan, labels = read_case(case)
    view = AxialView(scan.geometry)
    lesions = view.to_axial(labels) > 0
    found = find_lungs(scan)
    reference = view.to_axial(read_scan(case.image.parent.parent / "rp_lung_msk" / case.image.name).values) > 0
    lungs = found.lung_field.including_lesions(lesions).mask
    assert dice(lungs, reference | lesions) > 0.965
    assert voxels_per_slice(lungs).sum() == pytest.approx((reference | lesions).sum(), rel=0.05)
    check_box_holds(found, lesions)


@pytest.mark.slow
def test_real_slices_without_lung_are_refused(data: Path) -> None:
    head = data.parent / "more" / "odd" / "head_ct"
    if not head.is_dir():
        pytest.skip(f"{head} is not there")
    with pytest.raises(LungError):
        find_lungs(read_scan(head))


def test_progress_counts_each_slice_that_is_looked_at_and_ends_at_all_of_them() -> None:
    reported: list[tuple[int, int]] = []
    find_lungs(chest_phantom(shape=(8, 96, 128)).scan, progress=lambda done, total: reported.append((done, total)))
    assert reported == [(done, len(reported)) for done in range(1, len(reported) + 1)]
