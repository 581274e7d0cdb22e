"""NRRD files are read as SimpleITK reads them; what is damaged or ambiguous is refused."""

import gzip
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from groundglass.errors import FormatError
from groundglass.io.grid import NO_DIRECTIONS, NO_THICKNESS
from groundglass.io.reader import read_scan

VALUES = np.random.default_rng(3).integers(-1000, 1000, (5, 24, 20)).astype(np.int16)
SCALED = "(0.42,0.56,0) (-0.64,0.48,0) (0,0,-5)"  # of 0.7, 0.8 and 5 mm
STEPS = "(0.56,0.42,0) (-0.48,0.64,0) (0,0,-5)"
Fields = dict[str, str | None]
FIELDS: Fields = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "20 24 5",
    "space directions": STEPS,
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(-100,-80,30)",
}
NO_GRID: Fields = {"space": None, "space directions": None, "space origin": None}


def write(path: Path, changes: Fields, voxels: bytes = VALUES.tobytes()) -> Path:
    """Write a file of these voxels, with the fields above replaced, added to or (None) left out."""
    lines = [f"{name}: {value}" for name, value in (FIELDS | changes).items() if value is not None]
    path.write_bytes(
        "\n".join(["NRRD0004", "# a comment: not a field", *lines, "modality:=CT", "", ""]).encode() + voxels
    )
    return path


def encoded(values: NDArray[Any], encoding: str) -> bytes:
    raw = values.tobytes()
    text = "\n".join(" ".join(map(str, row)) for row in values.reshape(-1, values.shape[-1])).encode()
    return {"raw": raw, "gzip": gzip.compress(raw), "hex": raw.hex().encode()}.get(encoding, text)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "hex", "ascii", "text"])
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize(
    ("nrrd_type", "dtype"),
    [
        *(("int8", "i1"), ("uchar", "u1"), ("short", "i2"), ("unsigned short", "u2"), ("int", "i4")),
        *(("uint32_t", "u4"), ("long long", "i8"), ("uint64", "u8"), ("float", "f4"), ("double", "f8")),
    ],
)
def test_every_type_and_encoding_is_read_as_by_itk(
    tmp_path: Path, nrrd_type: str, dtype: str, endian: str, encoding: str
) -> None:
    values = (np.abs(VALUES) % 120).astype(np.dtype(dtype).newbyteorder("<" if endian == "little" else ">"))
    path = write(
        tmp_path / "a.nrrd",
        {"type": nrrd_type, "endian": endian, "encoding": encoding},
        encoded(values, encoding),
    )
    scan = read_scan(path)
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    np.testing.assert_array_equal(scan.values, expected)
    np.testing.assert_array_equal(scan.values, values)
    assert scan.values.dtype == (np.float32 if dtype == "f8" else expected.dtype)
    assert scan.values.dtype.isnative


@pytest.mark.parametrize(
    "space",
    [
        *("left-posterior-superior", "LPS", "right-anterior-superior", "RAS", "left-anterior-superior", "las"),
        *("Left-Posterior-Superior", "scanner-xyz", "3D-right-handed", "3D-left-handed"),
    ],
)
@pytest.mark.parametrize(
    "steps", [STEPS, "(1,0,0) (0,1,0) (0,0,5)", "(0.7,0,0) (0,0.7,0) (0,-1.06,5)", "(-1, 0, 0)  (0, -1, 0) (0, 0, 5)"]
)
def test_every_space_puts_voxels_where_itk_puts_them(tmp_path: Path, space: str, steps: str) -> None:
    assert_grid_of_itk(write(tmp_path / "a.nrrd", {"space": space, "space directions": steps}))


@pytest.mark.parametrize(
    "changes",
    [NO_GRID | {"spacings": "0.7 0.8 5"}, NO_GRID, {"space directions": None}, {"kinds": None}],
    ids=["spacings", "no grid", "no directions", "no kinds"],
)
def test_headers_that_leave_fields_out_give_the_grid_of_itk(tmp_path: Path, changes: Fields) -> None:
    assert_grid_of_itk(write(tmp_path / "a.nrrd", changes))


def assert_grid_of_itk(path: Path) -> None:
    image: Any = SimpleITK.ReadImage(str(path))
    geometry = read_scan(path).geometry
    for x, y, z in ((0, 0, 0), (19, 0, 0), (0, 23, 0), (3, 7, 4)):
        expected = image.TransformIndexToPhysicalPoint((x, y, z))
        np.testing.assert_allclose(geometry.position((z, y, x)), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("unit", "millimetres"), [("mm", 1), ("cm", 10), ("m", 1000), ("microns", 1e-3), ("???", 1), ("pixels", 1)]
)
@pytest.mark.parametrize("by_spacings", [False, True])
def test_lengths_in_other_units_than_millimetres_are_converted(
    tmp_path: Path, unit: str, millimetres: float, by_spacings: bool
) -> None:
    units = " ".join([f'"{unit}"'] * 3)
    lengths = [round(mm / millimetres, 9) for mm in (0.7, 0.8, 5.0)]
    if by_spacings:
        changes: Fields = NO_GRID | {"spacings": " ".join(map(str, lengths)), "units": units}
    else:
        steps = " ".join(str(tuple(lengths[i] if i == j else 0 for j in range(3))) for i in range(3))
        changes = {"space directions": steps, "space origin": "(0,0,0)", "space units": units}
    geometry = read_scan(write(tmp_path / "a.nrrd", changes)).geometry
    assert geometry.in_mm
    assert geometry.spacing == pytest.approx((5.0, 0.8, 0.7))


@pytest.mark.parametrize(
    "changes", [{"space units": '"mm" "mm"'}, NO_GRID | {"spacings": "1 1 5", "units": '"mm" "mm" "mm" "mm"'}]
)
def test_units_of_another_number_of_axes_are_refused(tmp_path: Path, changes: Fields) -> None:
    with pytest.raises(FormatError, match=r"units of \d axes"):
        read_scan(write(tmp_path / "a.nrrd", changes))


def test_ras_becomes_lps(tmp_path: Path) -> None:
    geometry = read_scan(write(tmp_path / "a.nrrd", {"space": "right-anterior-superior"})).geometry
    # By hand: (x, y, z) = (2, 1, 1) lies at R -100 + 1.12 - 0.48, A -80 + 0.84 + 0.64, S 30 - 5.
    np.testing.assert_allclose(geometry.position((1, 1, 2)), (99.36, 78.52, 25), atol=1e-9)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "ascii"])
def test_what_pynrrd_writes_is_read(tmp_path: Path, encoding: str) -> None:
    header = {
        "space": "RAS",
        "space directions": np.diag([0.7, 0.8, 5.0]),
        "space origin": [1.0, 2, 3],
        "encoding": encoding,
    }
    nrrd.write(str(tmp_path / "a.nrrd"), VALUES.T, header)
    scan = read_scan(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(scan.values, VALUES)
    np.testing.assert_allclose(scan.geometry.position((1, 1, 1)), (-1.7, -2.8, 8))


@pytest.mark.parametrize(
    ("sizes", "kinds", "directions"),
    [
        ("20 24 5 1", "domain domain domain list", f"{STEPS} none"),
        ("1 20 24 5", "vector domain domain domain", f"none {STEPS}"),
        ("1 20 24 5", "scalar domain domain domain", f"none {STEPS}"),
    ],
)
def test_an_axis_of_one_number_per_voxel_is_dropped(tmp_path: Path, sizes: str, kinds: str, directions: str) -> None:
    changes: Fields = {"dimension": "4", "sizes": sizes, "kinds": kinds, "space directions": directions}
    scan = read_scan(write(tmp_path / "a.nrrd", changes))
    np.testing.assert_array_equal(scan.values, VALUES)
    assert scan.geometry.matches(read_scan(write(tmp_path / "b.nrrd", {})).geometry)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "block"}, "a type that is not known, expected integers or floats"),
        ({"type": None}, r"\(no type\)"),
        ({"encoding": "bzip2"}, "an encoding that is not known, expected one of raw, gzip"),
        ({"endian": None}, "an endian that is not stated, expected little or big"),
        ({"space": "right-posterior-superior"}, "a space that is not known, expected left-posterior-superior"),
        ({"space": None}, "space directions without a space"),
        ({"space directions": "(1,0,0) (0,1,0)"}, "sizes of 3 axes, other fields of more or fewer"),
        ({"space directions": "(1,0) (0,1) (0,0)"}, "3 axes in a space of 2 dimensions"),
        ({"space directions": "(1,0,0) (0,1,0) (0,0,nan)"}, "no usable grid"),
        ({"space directions": "(1,0,0) (0,1,0) none"}, "5 numbers per voxel"),
        ({"space origin": "(1,2)"}, "whose origin has 2"),
        ({"space origin": "none"}, "header that is damaged or not supported"),
        ({"sizes": "20 24 1e300"}, "expected 1 or more along each axis"),
        ({"sizes": "20 24 x"}, "header that is damaged or not supported"),
        ({"dimension": "4"}, "sizes of 3 axes, other fields of more or fewer"),
        ({"line skip": "4"}, "lines or packed bytes to skip"),
        ({"byte skip": "4", "encoding": "gzip"}, "lines or packed bytes to skip"),
        ({"byte skip": "4"}, "cut short"),
        ({"spacings": "0.7 0.8 4"}, "spacings that differ from the lengths of its space directions"),
        ({"Data File": "../other.raw"}, r"keeps its voxels in another file \(\.raw\)"),
        ({"Type": "short"}, "a field is missing, or cannot be read"),
        (NO_GRID | {"spacings": "0.7 0.8 nan"}, "no usable grid"),
        (NO_GRID | {"spacings": "0.7 0.8 0"}, "no usable grid"),
    ],
)
def test_unsupported_and_damaged_headers_are_refused(tmp_path: Path, changes: Fields, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_scan(write(tmp_path / "a.nrrd", changes))
    assert "\n" not in str(caught.value)


TEXT = encoded(VALUES, "text")


@pytest.mark.parametrize(
    ("encoding", "voxels", "message"),
    [
        ("gzip", gzip.compress(VALUES.tobytes() + bytes(50_000_000)), "states 4,800 bytes of voxels, more were found"),
        ("gzip", gzip.compress(VALUES.tobytes()[:-2]), "states 4,800 bytes of voxels, 4,798 were found"),
        ("gzip", gzip.compress(VALUES.tobytes())[:-4], "damaged or cut short"),
        ("gzip", VALUES.tobytes(), "do not unpack"),
        ("hex", VALUES.tobytes().hex()[:-2].encode(), "does not hold 2,400 int16 voxels as hex"),
        ("hex", VALUES.tobytes().hex().encode().replace(b"a", b"\xff"), "does not hold 2,400 int16 voxels as hex"),
        ("text", TEXT[:-6], "does not hold 2,400 int16 voxels as text"),
        ("text", TEXT[:200], "does not hold 2,400 int16 voxels as text"),
        ("text", TEXT.replace(b" ", b" x ", 1), "does not hold 2,400 int16 voxels as text"),
        ("text", TEXT.replace(b" ", b" 99999 ", 1), "does not hold 2,400 int16 voxels as text"),
        ("text", TEXT.replace(b" ", b" 7.5 ", 1), "does not hold 2,400 int16 voxels as text"),
    ],
)
def test_voxels_that_do_not_match_their_header_are_refused(
    tmp_path: Path, encoding: str, voxels: bytes, message: str
) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_scan(write(tmp_path / "a.nrrd", {"encoding": encoding}, voxels))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("skip", ["0", "4", "-1"])
def test_bytes_in_front_of_the_voxels_are_skipped(tmp_path: Path, skip: str) -> None:
    path = write(tmp_path / "a.nrrd", {"byte skip": skip}, bytes(0 if skip == "0" else 4) + VALUES.tobytes())
    np.testing.assert_array_equal(read_scan(path).values, VALUES)


def test_blanks_within_vectors_do_not_count(tmp_path: Path) -> None:
    steps = "( 0.56 , 0.42, 0 ) ( -0.48,0.64 ,0) (0,0, -5 )"
    assert_grid_of_itk(write(tmp_path / "b.nrrd", {}))
    grid = read_scan(write(tmp_path / "a.nrrd", {"space directions": steps})).geometry
    assert grid.matches(read_scan(tmp_path / "b.nrrd").geometry)


def test_spacings_beside_directions_of_length_1_give_them_their_length(tmp_path: Path) -> None:
    """Voxels were 1 mm, without a word."""
    changes: Fields = {"space directions": "(0.8,0.6,0) (-0.6,0.8,0) (0,0,-1)", "spacings": "0.7 0.8 5"}
    scan = read_scan(write(tmp_path / "a.nrrd", changes))
    np.testing.assert_allclose(scan.geometry.spacing, (5, 0.8, 0.7))
    assert "the directions of the file are without a length: its spacings give it" in scan.notes


@pytest.mark.parametrize("spacings", ["0.7 0.8 5", "1 1 1", "nan nan nan"])
def test_spacings_that_are_those_of_the_directions_or_say_nothing_change_nothing(tmp_path: Path, spacings: str) -> None:
    changes: Fields = {"spacings": spacings, "space directions": SCALED}
    scan = read_scan(write(tmp_path / "a.nrrd", changes))
    np.testing.assert_allclose(scan.geometry.spacing, (5, 0.8, 0.7))


def test_a_slice_of_two_axes_is_1_mm_thick_with_a_note(tmp_path: Path) -> None:
    plane: Fields = {"dimension": "2", "sizes": "20 24", "kinds": "domain domain", "spacings": "2.5 2.5"}
    scan = read_scan(write(tmp_path / "a.nrrd", NO_GRID | plane, VALUES[0].tobytes()))
    assert scan.geometry.spacing == (1, 2.5, 2.5)
    assert scan.notes == (NO_DIRECTIONS, NO_THICKNESS)
