"""MetaImage headers whose grid is stated in part, twice, or in other units."""

from pathlib import Path

import numpy as np
import pytest

from groundglass.errors import FormatError
from groundglass.inference.segmenter import Segmenter
from groundglass.io.grid import NEVER_SET, NO_DIRECTIONS, NO_SPACING, NO_THICKNESS
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.scan.phantom import Phantom, chest_phantom

SHAPE = (3, 150, 140)
MATRIX, SCALED = "0 1 0 -1 0 0 0 0 1", "0 0.7 0 -0.8 0 0 0 0 5"
FIELDS = {
    "ObjectType": "Image",
    "NDims": "3",
    "TransformMatrix": MATRIX,
    "Offset": "-50 -60 -70",
    "ElementSpacing": "0.7 0.8 5",
    "DimSize": "140 150 3",
    "ElementType": "MET_SHORT",
}


def write(path: Path, voxels: bytes = bytes(2 * 3 * 150 * 140), **changes: str | None) -> Path:
    """Write a file with the fields above replaced, added to or (None) left out."""
    lines = [f"{name} = {value}" for name, value in (FIELDS | changes).items() if value is not None]
    path.write_bytes("\n".join([*lines, "ElementDataFile = LOCAL", ""]).encode() + voxels)
    return path


@pytest.fixture(scope="module")
def upright() -> Phantom:
    """A chest whose array is upright: z to the head, y to the back, x to the left."""
    return chest_phantom(shape=(28, 144, 190), oblique=False)


def test_directions_that_hold_the_spacing_too_do_not_square_it(tmp_path: Path) -> None:
    scan = read_scan(write(tmp_path / "a.mha", TransformMatrix=SCALED))
    assert scan.geometry.matches(read_scan(write(tmp_path / "b.mha")).geometry)
    assert scan.notes == ("TransformMatrix and ElementSpacing both hold the spacing: it counts once",)


@pytest.mark.thorough
def test_directions_that_hold_the_spacing_give_the_volumes_of_the_phantom(
    upright: Phantom, tmp_path: Path, grey_band: Segmenter
) -> None:
    """Each side of a voxel was squared."""
    geometry = upright.scan.geometry
    z, y, x = geometry.spacing
    path = write(
        tmp_path / "a.mha",
        upright.scan.values.astype("<i2").tobytes(),
        DimSize=" ".join(map(str, geometry.shape[::-1])),
        ElementSpacing=f"{x} {y} {z}",
        TransformMatrix=f"{x} 0 0 0 {y} 0 0 0 {z}",
    )
    findings, expected = (segment(scan, grey_band).findings for scan in (read_scan(path), upright.scan))
    assert findings.lung_volume_ml == pytest.approx(expected.lung_volume_ml, rel=1e-3)
    assert findings.lesion_volume_ml == pytest.approx(expected.lesion_volume_ml, rel=1e-3)


@pytest.mark.parametrize("spacing", ["1 1 1", None])
def test_directions_alone_may_hold_the_spacing(tmp_path: Path, spacing: str | None) -> None:
    scan = read_scan(write(tmp_path / "a.mha", TransformMatrix="0.7 0 0 0 0.8 0 0 0 5", ElementSpacing=spacing))
    assert (scan.geometry.in_mm, scan.notes) == (True, ())
    np.testing.assert_allclose(scan.geometry.spacing, (5, 0.8, 0.7))


def test_directions_of_another_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"of the lengths 2 x 2 x 2, expected 1, so that the size of its voxels is"):
        read_scan(write(tmp_path / "a.mha", TransformMatrix="2 0 0 0 2 0 0 0 2"))
    with pytest.raises(FormatError, match="directions"):
        read_scan(write(tmp_path / "b.mha", TransformMatrix="1e200 0 0 0 1 0 0 0 1"))


def test_without_a_spacing_volumes_are_unknown(tmp_path: Path) -> None:
    """It was taken as 1 mm where the position was stated."""
    scan = read_scan(write(tmp_path / "a.mha", ElementSpacing=None))
    assert (scan.geometry.in_mm, scan.geometry.has_directions, scan.notes) == (False, True, (NO_SPACING,))


@pytest.mark.parametrize("orientation", ["RAI", "LPI", None])
def test_without_directions_sides_are_unknown(tmp_path: Path, orientation: str | None) -> None:
    scan = read_scan(write(tmp_path / "a.mha", TransformMatrix=None, AnatomicalOrientation=orientation))
    assert (scan.geometry.in_mm, scan.geometry.has_directions, scan.notes) == (True, False, (NO_DIRECTIONS,))


def test_without_any_grid_it_was_never_set(tmp_path: Path) -> None:
    scan = read_scan(write(tmp_path / "a.mha", TransformMatrix=None, ElementSpacing=None, Offset=None))
    assert (scan.geometry.in_mm, scan.notes) == (False, (NEVER_SET,))


@pytest.mark.parametrize(
    ("unit", "factor", "notes"),
    [
        ("mm", 1, 0),
        ("cm", 0.1, 0),
        ("um", 1000, 0),
        ("?", 1, 0),
        ("cm", 1, 0),  # 980 mm wide: large, but possible
        ("um", 1, 1),
    ],
)
def test_lengths_are_converted_from_the_unit_that_is_stated_if_it_makes_a_chest(
    tmp_path: Path, unit: str, factor: float, notes: int
) -> None:
    spacing = " ".join(f"{factor * mm:g}" for mm in (0.7, 0.8, 5))
    scan = read_scan(write(tmp_path / "a.mha", ElementSpacing=spacing, DistanceUnits=unit))
    expected = np.array((5, 0.8, 0.7)) * (10 if (unit, factor) == ("cm", 1) else 1)
    np.testing.assert_allclose(scan.geometry.spacing, expected)
    assert len(scan.notes) == notes
    assert all("makes no chest: they are taken as millimetres" in note for note in scan.notes)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("cm", 0.1), ("um", 1000)])
def test_a_slice_of_two_axes_is_1_mm_thick_in_every_unit_with_a_note(tmp_path: Path, unit: str, factor: float) -> None:
    """Of lengths in cm it was 10 mm, and nothing was said."""
    grid = {"NDims": "2", "DimSize": "140 150", "TransformMatrix": "1 0 0 1", "Offset": "-50 -60"}
    spacing = f"{0.7 * factor:g} {0.8 * factor:g}"
    path = write(tmp_path / "a.mha", bytes(2 * 150 * 140), **grid, ElementSpacing=spacing, DistanceUnits=unit)
    scan = read_scan(path)
    np.testing.assert_allclose(scan.geometry.spacing, (1, 0.8, 0.7))
    assert scan.notes == (NO_THICKNESS,)


def test_decimal_commas_are_read(tmp_path: Path) -> None:
    scan = read_scan(write(tmp_path / "a.mha", ElementSpacing="0,7 0,8 5", Offset="-50,5 -60 -70"))
    np.testing.assert_allclose(scan.geometry.spacing, (5, 0.8, 0.7))
    np.testing.assert_allclose(scan.geometry.position((0, 0, 0)), (-50.5, -60, -70))


@pytest.mark.parametrize(
    ("size", "mend"),
    [
        ("140 150 1 3", "without the axis of length 1, e.g. with SimpleITK image[:, :, 0, :]"),
        ("1 140 150 3", "without the axis of length 1, e.g. with SimpleITK image[0, :, :, :]"),
        ("140 75 3 2", "take one, e.g. with SimpleITK image[:, :, :, 0]"),
    ],
)
def test_four_axes_are_refused_with_the_one_to_leave_out(tmp_path: Path, size: str, mend: str) -> None:
    """Slices along the fourth axis were called volumes, of which one should be taken: a single slice."""
    eye = " ".join(map(str, np.eye(4).ravel()))
    path = write(
        tmp_path / "a.mha", NDims="4", DimSize=size, ElementSpacing="1 1 1 1", Offset="0 0 0 0", TransformMatrix=eye
    )
    with pytest.raises(FormatError) as caught:
        read_scan(path)
    assert str(caught.value).endswith(f"expected one volume: {'save it ' if 'without' in mend else ''}{mend}")


@pytest.mark.parametrize("key", ["ElementType", "DimSize", "ElementSpacing", "TransformMatrix", "ElementDataFile"])
def test_no_message_quotes_the_text_of_a_header(tmp_path: Path, key: str) -> None:
    fields = {"NDims": "3", "DimSize": "20 20 20", "ElementType": "MET_SHORT", "ElementDataFile": "LOCAL"}
    lines = [f"{name} = {value}" for name, value in ({key: ""} | fields | {key: "PLANTED^NAME"}).items()]
    lines.sort(key=lambda line: line.startswith("ElementDataFile"))
    (tmp_path / "a.mha").write_bytes("\n".join(lines).encode() + b"\n" + bytes(16_000))
    with pytest.raises(FormatError) as caught:
        read_scan(tmp_path / "a.mha")
    assert "PLANTED" not in str(caught.value)


@pytest.mark.parametrize("true", ["True", "T", "1"])
def test_the_order_of_bytes_is_true_as_itk_has_it(tmp_path: Path, true: str) -> None:
    values = np.linspace(-1000, 500, 3 * 20 * 20).astype(">i2")
    fields = {"NDims": "3", "DimSize": "20 20 3", "ElementSpacing": "1 1 5", "ElementType": "MET_SHORT"}
    fields |= {"BinaryDataByteOrderMSB": true, "ElementDataFile": "LOCAL"}
    header = "".join(f"{name} = {value}\n" for name, value in fields.items())
    (tmp_path / "a.mha").write_bytes(header.encode() + values.tobytes())
    assert np.array_equal(np.ravel(read_scan(tmp_path / "a.mha").values), values)
