"""Warnings of lungs that cannot be: they appear at a wrong spacing or wrong regions, and never on good scans."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.errors import LungError
from groundglass.inference.open_model import open_model
from groundglass.inference.pipeline import segment_lungs
from groundglass.inference.segmenter import Segmenter
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.report.plausibility import check_plausibility
from groundglass.scan.geometry import Geometry
from groundglass.scan.lung_field import LungField
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import ImageStack, Scan
from helpers.segmented import segmented_scan


def rescaled(scan: Scan, z: float = 1.0, y: float = 1.0, x: float = 1.0) -> Scan:
    """The scan with another spacing in its header."""
    affine = scan.geometry.affine_lps @ np.diag([z, y, x, 1])
    return Scan(scan.values, Geometry(scan.geometry.shape, affine))


def part(scan: Scan, *slices: slice) -> Scan:
    values = scan.values[slices]
    return Scan(values, Geometry(values.shape, scan.geometry.affine_lps))


def warnings_of(scan: Scan, segmenter: Segmenter) -> tuple[str, ...]:
    return check_plausibility(segment_lungs(scan, segmenter.card))


def test_a_whole_chest_of_known_volume_gives_no_warning(phantom: Phantom, grey_band: Segmenter) -> None:
    assert warnings_of(phantom.scan, grey_band) == ()


@pytest.mark.parametrize("shown", [slice(0, 16), slice(16, 32), slice(10, 22), slice(15, 18), slice(14, 15)])
def test_a_part_of_the_lungs_gives_no_warning(phantom: Phantom, grey_band: Segmenter, shown: slice) -> None:
    assert warnings_of(part(phantom.scan, shown), grey_band) == ()


@pytest.mark.parametrize("factor", [0.6, 0.85, 1.15])
def test_chests_of_children_and_of_large_adults_give_no_warning(
    phantom: Phantom, grey_band: Segmenter, factor: float
) -> None:
    assert warnings_of(rescaled(phantom.scan, factor, factor, factor), grey_band) == ()


@pytest.mark.parametrize("factors", [(10, 10, 10), (10, 1, 1), (5, 1, 1), (1, 3, 3), (3, 1, 1)])
def test_a_spacing_that_is_too_large_is_named(
    phantom: Phantom, grey_band: Segmenter, factors: tuple[float, float, float]
) -> None:
    (warning,) = warnings_of(rescaled(phantom.scan, *factors), grey_band)
    assert warning.startswith("the lungs ")
    spacing = rescaled(phantom.scan, *factors).geometry.spacing[0]
    assert f"check the spacing, {spacing:.3g} mm between slices" in warning
    assert warning.endswith("volumes are probably wrong, shares of the lung are not affected")


@pytest.mark.parametrize("factor", [0.1, 0.2])
def test_a_slice_distance_that_is_too_small_is_named(phantom: Phantom, grey_band: Segmenter, factor: float) -> None:
    (warning,) = warnings_of(rescaled(phantom.scan, z=factor), grey_band)
    assert "those of an adult hold 2000 to 8000 ml" in warning
    assert f"check the slice distance ({7.5 * factor:.3g} mm)" in warning


@pytest.mark.parametrize("factors", [(0.13, 0.5, 0.5), (0.3, 1.0, 1.0), (2.3, 0.5, 0.5)])
def test_lungs_that_are_far_from_as_high_as_wide_are_named(
    phantom: Phantom, grey_band: Segmenter, factors: tuple[float, float, float]
) -> None:
    """Such as those of slices 5 mm apart that were saved with voxels of 1 x 1 x 1 mm."""
    (warning,) = warnings_of(rescaled(phantom.scan, *factors), grey_band)
    assert "lungs are about as high as wide: check the spacing" in warning


def test_the_warning_reaches_the_findings(phantom: Phantom, grey_band: Segmenter) -> None:
    findings = segment(rescaled(phantom.scan, z=10), grey_band).findings
    assert any("check the spacing, 75 mm between slices" in warning for warning in findings.warnings)


SHAPE = (20, 60, 80)
UPRIGHT = Geometry(SHAPE, np.array([[0, 0, 4, 0], [0, 4, 0, 0], [10, 0, 0, 0], [0, 0, 0, 1]]))


def block(z: slice, y: slice, x: slice) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, dtype=np.bool_)
    mask[z, y, x] = True
    return mask


BODY = block(slice(0, 20), slice(5, 55), slice(5, 75))
RIGHT, LEFT = block(slice(2, 18), slice(15, 45), slice(12, 34)), block(slice(2, 18), slice(15, 45), slice(46, 68))


def judge(right: NDArray[np.bool_], left: NDArray[np.bool_], geometry: Geometry = UPRIGHT) -> tuple[str, ...]:
    hu = np.where(right | left, -850, np.where(finer(BODY, right.shape[1] // SHAPE[1]), 40, -1000)).astype(np.float32)
    field = LungField(right, left, (None,) * SHAPE[0])
    return check_plausibility(segmented_scan(geometry, field, np.zeros(right.shape, dtype=np.bool_), hu))


def finer(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    return mask.repeat(times, axis=1).repeat(times, axis=2)


def test_two_lungs_of_common_size_give_no_warning() -> None:
    assert judge(RIGHT, LEFT) == ()


def test_lungs_that_fill_little_of_the_body_are_named() -> None:
    """An adult's lungs of 150 ml in 16 slices."""
    small = block(slice(2, 18), slice(20, 28), slice(12, 16)), block(slice(2, 18), slice(20, 28), slice(60, 64))
    *_, warning = judge(*small)
    assert warning.startswith("the lungs fill 2.0 % of the body in the 16 slices that show them, expected 15 to 40 %")


def test_air_that_fills_less_than_a_hundredth_of_the_body_is_refused_as_no_lung() -> None:
    specks = block(slice(2, 18), slice(20, 24), slice(20, 24)), block(slice(2, 18), slice(20, 24), slice(60, 64))
    with pytest.raises(LungError, match=r"no lung was found: the only air inside the body fills 1\.0 % of it"):
        judge(*specks)


def test_the_tips_of_the_lungs_at_the_end_of_a_scan_are_not_refused() -> None:
    assert (
        judge(block(slice(18, 20), slice(20, 24), slice(20, 24)), block(slice(18, 20), slice(20, 24), slice(60, 64)))
        == ()
    )


def test_a_very_small_lung_is_named_unless_the_sides_are_unknown() -> None:
    tiny = block(slice(2, 18), slice(28, 34), slice(46, 55))
    (warning,) = judge(RIGHT, tiny)
    assert warning.startswith("the left lung has 8 % of both lungs, expected 40 to 60 %")
    (warning,) = judge(tiny[..., ::-1], RIGHT[..., ::-1])
    assert warning.startswith("the right lung has 8 %")
    assert judge(RIGHT, tiny, Geometry(SHAPE, UPRIGHT.affine_lps, has_directions=False)) == ()


def test_slices_without_lung_between_slices_with_lung_are_counted() -> None:
    right, left = RIGHT.copy(), LEFT.copy()
    right[6:9], left[6:9] = False, False
    (warning,) = judge(right, left)
    assert warning.startswith("3 of the 16 slices between the lowest and the highest lung show no lung")


def test_lungs_smaller_than_a_newborns_are_named() -> None:
    (warning,) = judge(RIGHT, LEFT, Geometry(SHAPE, UPRIGHT.affine_lps @ np.diag([0.2, 0.2, 0.2, 1])))
    assert warning.startswith("the lungs are 45 mm wide and 32 mm high, smaller than a newborn's")


@pytest.mark.parametrize(("mm", "is_named"), [(1.0, True), (0.99, False), (1.01, False)])
@pytest.mark.parametrize(("times", "z_mm", "size"), [(7, 9, "392 mm wide and 144"), (3, 8, "168 mm wide and 128")])
def test_pixels_of_exactly_1_mm_are_named_where_they_make_lungs_of_unusual_width(
    times: int, z_mm: int, size: str, mm: float, is_named: bool
) -> None:
    """As in scans of 512 or 256 pixels whose spacing was lost: 9.3 l, or 1.5 l as of a child, which may be."""
    right, left = finer(RIGHT, times), finer(LEFT, times)
    steps = np.array([[0, 0, mm, 0], [0, mm, 0, 0], [z_mm, 0, 0, 0], [0, 0, 0, 1]])
    named = [
        f"the lungs are {size} mm high, and an adult's are 220 to 350 mm wide: the pixels are exactly 1 x 1 mm, as "
        f"programs write where they know no spacing; check the spacing, {z_mm} mm between slices and 1 x 1 mm in them: "
        "volumes are probably wrong, shares of the lung are not affected"
    ]
    assert list(judge(right, left, Geometry(right.shape, steps))) == (named if is_named else [])


def test_pictures_and_scans_without_lung_are_not_judged() -> None:
    empty = np.zeros(SHAPE, dtype=np.bool_)
    assert judge(empty, empty) == ()
    specks = block(slice(2, 18), slice(20, 24), slice(20, 24)), empty
    assert judge(*specks, Geometry.pixels(SHAPE)) == ()


def good_scans(data: Path, every: bool) -> list[Path]:
    volumes = sorted((data / "medseg" / "dataset2" / "rp_im").glob("*.nii.gz"))
    cases = sorted((data / "coronacases" / "ct").glob("*.nii.gz"))
    normal = data.parent / "more" / "odd" / "normal_chest"
    found = [*volumes, *cases, *([normal] if normal.is_dir() else [])]
    return found if every else [volumes[7], cases[0]]


@pytest.mark.slow
def test_real_scans_give_no_warning(data: Path) -> None:
    card = open_model().card
    for path in good_scans(data, every=False):
        scan = read_scan(path)
        assert not isinstance(scan, ImageStack)
        assert check_plausibility(segment_lungs(scan, card)) == (), path.name
        assert scan.notes == ()
