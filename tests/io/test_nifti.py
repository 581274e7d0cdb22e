import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from groundglass.errors import FormatError, OutputError
from groundglass.io.grid import NO_DIRECTIONS, NO_THICKNESS
from groundglass.io.nifti import write_mask, write_mask_slices, write_scan
from groundglass.io.reader import read_scan
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import ImageStack, Mask, Scan

nibabel: Any = nib
SHAPE_XYZ = (20, 24, 7)
VALUES = np.random.default_rng(1).integers(-1000, 1000, SHAPE_XYZ).astype(np.int16)


def oblique() -> NDArray[np.float64]:
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.7, 0.8, -5.0])
    affine[:3, 3] = (110.0, -95.0, 40.0)
    return affine


def nifti(path: Path, values: NDArray[Any] = VALUES, **header: Any) -> Path:
    """A file as another program would write it, with header fields changed afterwards."""
    image = nibabel.Nifti1Image(values, oblique())
    for field, value in header.items():
        image.header[field] = value
    data = image.header.binaryblock + bytes(4) + values.tobytes(order="F")
    head = np.frombuffer(data[:348], dtype=image.header.template_dtype).copy()
    head["vox_offset"], head["magic"] = 352, b"n+1"
    for field in header:
        head[field] = header[field]
    data = head.tobytes() + data[348:]
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_values_and_positions_are_those_of_nibabel(tmp_path: Path, suffix: str) -> None:
    image = nibabel.Nifti1Image(VALUES, oblique())
    path = tmp_path / f"a scan{suffix}"
    nibabel.save(image, path)
    scan = read_scan(path)
    assert scan.values.dtype == np.int16
    assert scan.source == path
    assert not isinstance(scan, ImageStack)
    np.testing.assert_array_equal(scan.values, VALUES.T)
    right, anterior, superior, _ = oblique() @ (3, 4, 5, 1)
    np.testing.assert_allclose(scan.geometry.position((5, 4, 3)), [-right, -anterior, superior], atol=1e-4)


def test_slope_and_intercept_give_float32(tmp_path: Path) -> None:
    stored = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16, 1)
    scan = read_scan(nifti(tmp_path / "a.nii.gz", stored, scl_slope=10, scl_inter=-1024))
    assert scan.values.dtype == np.float32
    np.testing.assert_array_equal(scan.values, stored.T * 10.0 - 1024)


@pytest.mark.parametrize("slope", [0, 1, np.nan])
def test_no_scaling_keeps_the_type(tmp_path: Path, slope: float) -> None:
    stored = np.full((16, 16, 2), 200, dtype=np.uint8)
    scan = read_scan(nifti(tmp_path / "a.nii", stored, scl_slope=slope, scl_inter=0))
    assert scan.values.dtype == np.uint8


def test_big_endian_nifti2_and_float64_are_read(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    big = nibabel.Nifti1Image(VALUES, oblique(), header)
    nibabel.save(big, tmp_path / "big.nii")
    assert (tmp_path / "big.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    nibabel.save(nibabel.Nifti2Image(VALUES.astype(np.float64), oblique()), tmp_path / "two.nii.gz")
    for name, dtype in [("big.nii", np.int16), ("two.nii.gz", np.float32)]:
        scan = read_scan(tmp_path / name)
        assert scan.values.dtype == np.dtype(dtype)
        assert scan.values.dtype.isnative
        np.testing.assert_array_equal(scan.values, VALUES.T)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [1e10, 1e160, 1e300])
@pytest.mark.parametrize("field", ["srow_x", "pixdim"])
def test_numbers_that_no_scanner_writes_are_refused_without_a_stray_line(
    field: str, number: float, tmp_path: Path
) -> None:
    image = nibabel.Nifti2Image(VALUES, oblique())
    image.header.set_qform(oblique(), 1)
    image.header["sform_code"] = field == "srow_x"
    image.header["qform_code"] = field != "srow_x"
    image.header[field][1] = number
    (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + VALUES.tobytes("F"))
    with pytest.raises(FormatError, match="no usable grid"):
        read_scan(tmp_path / "a.nii")


def test_metres_become_millimetres(tmp_path: Path) -> None:
    metres = oblique()
    metres[:3] /= 1000
    image = nibabel.Nifti1Image(VALUES, metres)
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "m.nii")
    assert read_scan(tmp_path / "m.nii").geometry.spacing == pytest.approx((5, 0.8, 0.7), rel=1e-4)


def test_without_sform_and_qform_the_spacing_is_read(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", sform_code=0, qform_code=0)
    assert read_scan(path).geometry.spacing == pytest.approx((5, 0.8, 0.7), rel=1e-4)


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 1), (20, 24, 7), (20, 24, 1, 1), (20, 24, 7, 1, 1)])
@pytest.mark.parametrize("codes", [(1, 0), (0, 2), (4, 3), (0, 0)])
def test_a_mask_lies_on_exactly_the_grid_of_its_scan(
    tmp_path: Path, shape: tuple[int, ...], codes: tuple[int, int]
) -> None:
    values = VALUES.ravel()[: np.prod(shape)].reshape(shape)
    path = nifti(tmp_path / "ct.nii.gz", values, sform_code=codes[0], qform_code=codes[1], descrip=b"Jane Doe")
    scan = read_scan(path)
    mask = Mask(scan.values > 0, scan.geometry)
    out = tmp_path / "new folder" / "lesions.nii.gz"
    write_mask(mask, out, like=path)

    source, written = nibabel.load(path), nibabel.load(out)
    assert written.shape == shape
    assert written.get_data_dtype() == np.uint8
    assert np.array_equal(written.affine, source.affine)
    assert np.array_equal(written.header.get_sform(), source.header.get_sform())
    for field in ("sform_code", "qform_code", "pixdim", "xyzt_units"):
        assert np.array_equal(written.header[field], source.header[field]), field
    assert (written.dataobj.slope, written.dataobj.inter) == (1, 0)
    assert b"Jane" not in gzip.decompress(out.read_bytes())
    np.testing.assert_array_equal(np.asarray(written.dataobj), values > 0)
    assert read_scan(out).geometry.matches(scan.geometry, 1e-9)


def test_a_mask_without_a_scan_file_gets_its_own_geometry(tmp_path: Path) -> None:
    geometry = Geometry.from_ras(SHAPE_XYZ, oblique())
    write_mask(Mask(VALUES.T > 0, geometry), tmp_path / "m.nii.gz")
    written = nibabel.load(tmp_path / "m.nii.gz")
    np.testing.assert_allclose(written.affine, oblique(), atol=1e-4)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (1, 1)
    assert written.header.get_xyzt_units()[0] == "mm"


def test_a_sheared_grid_is_written_to_the_sform_alone(tmp_path: Path) -> None:
    """A gantry tilt of 12 degrees: a qform would put the corner elsewhere."""
    affine = np.diag([5.0, 0.8, 0.7, 1.0])[[2, 1, 0, 3]]
    affine[1, 0] = -5 * np.tan(np.radians(12))
    geometry = Geometry((7, 24, 20), affine)
    assert geometry.is_sheared
    write_mask(Mask(np.ones((7, 24, 20), dtype=np.bool_), geometry), tmp_path / "m.nii.gz")
    header = nibabel.load(tmp_path / "m.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(header.get_best_affine(), geometry.affine_ras, atol=1e-4)
    assert read_scan(tmp_path / "m.nii.gz").geometry.voxel_ml == pytest.approx(5 * 0.8 * 0.7 / 1000)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    mask = Mask(VALUES.T > 0, Geometry.from_ras(SHAPE_XYZ, oblique()))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_mask(mask, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_written_bytes_are_those_of_the_voxels_packed_or_not(tmp_path: Path) -> None:
    scan = Scan(VALUES.T, Geometry.from_ras(SHAPE_XYZ, oblique()))
    write_scan(scan, tmp_path / "ct.nii")
    assert (tmp_path / "ct.nii").read_bytes()[352:] == VALUES.tobytes(order="F")
    for name in ("m.nii", "m.nii.gz"):
        write_mask(Mask(VALUES.T > 0, scan.geometry), tmp_path / name, like=tmp_path / "ct.nii")
    plain = (tmp_path / "m.nii").read_bytes()
    assert plain[352:] == (VALUES > 0).astype(np.uint8).tobytes(order="F")
    assert plain == gzip.decompress((tmp_path / "m.nii.gz").read_bytes())


def test_an_error_while_slices_are_made_leaves_no_file(tmp_path: Path) -> None:
    def slices() -> Iterator[NDArray[np.bool_]]:
        yield VALUES.T[0] > 0
        raise ValueError("the next one")

    with pytest.raises(ValueError, match="the next one"):
        write_mask_slices(slices(), Geometry.from_ras(SHAPE_XYZ, oblique()), tmp_path / "m.nii.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_a_scan_round_trips(tmp_path: Path, dtype: type) -> None:
    scan = Scan(np.abs(VALUES.T // 8).astype(dtype), Geometry.from_ras(SHAPE_XYZ, oblique()))
    write_scan(scan, tmp_path / "s.nii.gz")
    back = read_scan(tmp_path / "s.nii.gz")
    assert back.values.dtype == dtype
    np.testing.assert_array_equal(back.values, scan.values)
    assert back.geometry.matches(scan.geometry)


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    scan = Scan(VALUES.T, Geometry.from_ras(SHAPE_XYZ, oblique()))
    with pytest.raises(OutputError, match=r"s\.nii cannot be written: No space left"):
        write_scan(scan, tmp_path / "s.nii")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"dim": [3, 10000, 10000, 10000, 1, 1, 1, 1]}, r"1,000,000,000,000 voxels, more than"),
        ({"dim": [3, 20, -24, 7, 1, 1, 1, 1]}, r"20 x -24 x 7, expected 1 or more"),
        ({"dim": [3, 20, 24, 0, 1, 1, 1, 1]}, r"20 x 24 x 0, expected 1 or more"),
        ({"dim": [9, 20, 24, 7, 1, 1, 1, 1]}, r"damaged"),
        ({"dim": [3, 20, 24, 700, 1, 1, 1, 1]}, r"cut short"),
        ({"dim": [4, 20, 24, 7, 2, 1, 1, 1]}, r"holds 2 volumes .* expected one volume: take one"),
        ({"sform_code": 0, "pixdim": [1, 0, 0.8, 5, 0, 0, 0, 0]}, r"0 x 0.8 x 5 mm, expected more than 0"),
        ({"sform_code": 1, "srow_x": [0, 0, 0, 0]}, r"no usable grid: its sform put voxels nowhere"),
        ({"sform_code": 1, "srow_x": [np.nan, 0, 0, 0]}, r"no usable grid: its sform put voxels nowhere"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": np.nan}, r"no usable grid: its qform put voxels nowhere"),
        ({"sform_code": 1, "srow_x": [np.inf] * 4, "qform_code": 1, "quatern_d": np.nan}, r"its sform and qform put"),
        ({"vox_offset": 3e18}, r"voxels begin at byte"),
        ({"datatype": 99}, r"damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_damaged_headers_are_refused(tmp_path: Path, header: dict[str, Any], message: str, suffix: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_scan(nifti(tmp_path / f"bad{suffix}", **header))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("part", [0.2, 0.9, 0.9999])
def test_a_cut_file_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    path = nifti(tmp_path / f"cut{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(FormatError, match="cut short"):
        read_scan(path)


def test_a_flipped_bit_in_a_packed_file_is_refused(tmp_path: Path) -> None:
    path = nifti(tmp_path / "flip.nii.gz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(FormatError, match="damaged"):
        read_scan(path)


def test_a_file_with_far_too_many_voxels_is_refused(tmp_path: Path) -> None:
    path = nifti(tmp_path / "plain.nii")
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(gzip.compress(path.read_bytes() + bytes(50_000_000)))
    with pytest.raises(FormatError, match="goes on after the voxels"):
        read_scan(bomb)


def test_scaling_beyond_float32_is_refused_without_a_warning(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="that are NaN or infinite"):
        read_scan(nifti(tmp_path / "big.nii", scl_slope=3e38, scl_inter=0))


def test_colours_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((20, 20, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "rgb.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((20, 20, 3), np.complex64), np.eye(4)), tmp_path / "complex.nii")
    with pytest.raises(FormatError, match="holds colours, expected one grey value"):
        read_scan(tmp_path / "rgb.nii")
    with pytest.raises(FormatError, match="holds complex64 numbers, expected one grey value"):
        read_scan(tmp_path / "complex.nii")


def test_axial_slices_below_16_pixels_are_refused_in_every_orientation(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="axial slices of 40 x 15 pixels, expected at least 16 x 16"):
        read_scan(nifti(tmp_path / "thin.nii", np.zeros((15, 40, 30), np.int16)))
    coronal = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(np.zeros((40, 3, 30), np.int16), coronal), tmp_path / "coronal.nii")
    assert read_scan(tmp_path / "coronal.nii").values.shape == (30, 3, 40)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.integers(0, 343), st.integers(0, 255), min_size=1, max_size=6))
def test_a_damaged_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, changes: dict[int, int]) -> None:
    path = nifti(tmp_path_factory.mktemp("fuzz") / "x.nii")
    data = bytearray(path.read_bytes())
    for offset, byte in changes.items():
        data[offset] = byte
    path.write_bytes(data)
    try:
        scan = read_scan(path)
    except FormatError:
        return
    assert scan.values.size * scan.values.itemsize <= 16 * len(data)


def test_nothing_is_printed_for_an_odd_header(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    read_scan(nifti(tmp_path / "odd.nii", pixdim=[0, -0.7, 0.8, 5, 0, 0, 0, 0]))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize("offset", [0, 1, 100, 348, 351.9, 352])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_never_begin_inside_the_header(tmp_path: Path, offset: float, suffix: str) -> None:
    scan = read_scan(nifti(tmp_path / f"a{suffix}", vox_offset=offset))
    np.testing.assert_array_equal(scan.values, VALUES.T)


def test_voxels_of_nifti2_begin_at_byte_544_at_the_least(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(VALUES, oblique()), tmp_path / "two.nii")
    data = bytearray((tmp_path / "two.nii").read_bytes())
    data[168:176] = bytes(8)  # vox_offset
    (tmp_path / "two.nii").write_bytes(data)
    np.testing.assert_array_equal(read_scan(tmp_path / "two.nii").values, VALUES.T)


@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("excess", [0, 1e-7, 1e-6, 1e-4, 0.5])
def test_a_quaternion_that_is_too_long_is_brought_to_its_length(tmp_path: Path, version: Any, excess: float) -> None:
    half_turn = np.diag([-0.7, 0.8, -5.0, 1.0])
    image = version(VALUES, None)
    image.header.set_qform(half_turn, code=1)
    image.header["sform_code"] = 0
    for field in ("quatern_b", "quatern_c", "quatern_d"):
        image.header[field] = image.header[field] * (1 + excess)
    data = image.header.binaryblock + bytes(4) + VALUES.tobytes(order="F")
    head = np.frombuffer(data[: image.header.sizeof_hdr], dtype=image.header.template_dtype).copy()
    head["vox_offset"] = image.header.single_vox_offset
    head["magic"] = image.header.single_magic
    (tmp_path / "q.nii").write_bytes(head.tobytes() + data[image.header.sizeof_hdr :])
    scan = read_scan(tmp_path / "q.nii")
    np.testing.assert_allclose(scan.geometry.affine_ras[:3, :3], half_turn[:3, :3], atol=1e-5)
    write_mask(Mask(scan.values > 0, scan.geometry), tmp_path / "m.nii.gz", like=tmp_path / "q.nii")
    np.testing.assert_allclose(nibabel.load(tmp_path / "m.nii.gz").affine, half_turn, atol=1e-5)


@pytest.mark.parametrize("qfac", [0, 1, 7, np.nan])
def test_a_qfac_other_than_minus_one_stands_for_one(tmp_path: Path, qfac: float) -> None:
    fields: dict[str, Any] = {"sform_code": 0, "qform_code": 1, "quatern_b": 0, "quatern_c": 0, "quatern_d": 0}
    scan = read_scan(nifti(tmp_path / "a.nii", pixdim=[qfac, 0.7, 0.8, 5, 0, 0, 0, 0], **fields))
    np.testing.assert_allclose(scan.geometry.affine_ras[:3, :3], np.diag([0.7, 0.8, 5]), atol=1e-6)


def test_negative_spacings_count_by_their_size(tmp_path: Path) -> None:
    for code in (0, 1):
        path = nifti(tmp_path / "a.nii", sform_code=0, qform_code=code, pixdim=[1, -0.7, -0.8, -5, 0, 0, 0, 0])
        assert read_scan(path).geometry.spacing == pytest.approx((5, 0.8, 0.7), rel=1e-4)


@pytest.mark.parametrize("rows", [[np.nan, 0, 0, 0], [0, 0, 0, 0], [np.inf, 0, 0, 0]])
def test_an_unusable_sform_gives_way_to_the_qform_with_a_note(tmp_path: Path, rows: list[float]) -> None:
    image = nibabel.Nifti1Image(VALUES, None)
    image.header.set_qform(oblique(), code=1)
    fields = {name: image.header[name] for name in ("pixdim", "qform_code", "quatern_b", "quatern_c", "quatern_d")}
    path = nifti(tmp_path / "a.nii", sform_code=2, srow_y=rows, **fields)
    scan = read_scan(path)
    np.testing.assert_allclose(scan.geometry.affine_ras[:3, :3], oblique()[:3, :3], atol=1e-4)
    assert scan.notes == ("the sform of the file puts voxels nowhere: its qform is used",)


def test_a_sform_that_was_never_set_gives_way_to_the_qform_with_a_note(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, np.eye(4))
    image.header.set_qform(oblique(), code=1)
    nibabel.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    np.testing.assert_allclose(scan.geometry.affine_ras, oblique(), atol=1e-4)
    assert scan.notes == ("the sform of the file was never set (voxels of 1 x 1 x 1 mm): its qform is used",)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_axis_of_length_1_among_four_is_refused_with_the_way_to_remove_it(tmp_path: Path, axis: int) -> None:
    """Slices along the fourth axis were called volumes, of which one should be taken: a single slice."""
    nibabel.save(nibabel.Nifti1Image(np.expand_dims(VALUES, axis), oblique()), tmp_path / "a.nii")
    image, affine = nibabel.load(tmp_path / "a.nii"), oblique()
    with pytest.raises(FormatError, match=r"expected the three axes of a volume: save it without the axis") as caught:
        read_scan(tmp_path / "a.nii")
    command = str(caught.value).partition("in Python with ")[2]
    made = eval(command, {"nibabel": nibabel, "numpy": np, "image": image, "affine": affine})
    np.testing.assert_array_equal(made.dataobj, VALUES)


def test_forms_that_disagree_are_noted_and_forms_that_agree_are_not(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, oblique())
    image.header.set_qform(oblique(), code=1)
    nibabel.save(image, tmp_path / "same.nii")
    assert read_scan(tmp_path / "same.nii").notes == ()
    image.header.set_qform(oblique() @ np.diag([1, 1, 1.2, 1]), code=1)
    nibabel.save(image, tmp_path / "other.nii")
    scan = read_scan(tmp_path / "other.nii")
    assert scan.geometry.spacing == pytest.approx((5, 0.8, 0.7), rel=1e-4)
    (note,) = scan.notes
    assert note.startswith("sform and qform of the file disagree (voxels of 0.7 x 0.8 x 5 and 0.7 x 0.8 x 6 mm)")
    image.header.set_qform(oblique() @ np.diag([-1, 1, -1, 1]), code=1)
    nibabel.save(image, tmp_path / "turned.nii")
    assert read_scan(tmp_path / "turned.nii").notes == (
        "sform and qform of the file disagree (other directions): the sform is used",
    )


def chest_values() -> NDArray[np.int16]:
    """An array as large as a slice of a chest."""
    return np.zeros((400, 400, 3), np.int16)


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1), ("unknown", 1)])
@pytest.mark.parametrize("form", ["sform", "qform"])
def test_every_unit_gives_millimetres(tmp_path: Path, unit: str, scale: float, form: str) -> None:
    image = nibabel.Nifti1Image(chest_values(), None)
    affine = np.diag([scale, scale, scale, 1]) @ np.diag([-0.7, -0.8, 5.0, 1])
    (image.header.set_sform if form == "sform" else image.header.set_qform)(affine, code=1)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert scan.geometry.spacing == pytest.approx((5, 0.8, 0.7), rel=1e-4)
    assert (scan.geometry.in_mm, scan.notes) == (True, ())


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1), ("unknown", 1)])
@pytest.mark.parametrize("form", ["sform", "qform", "neither"])
def test_a_slice_of_two_axes_is_1_mm_thick_in_every_unit_with_a_note(
    tmp_path: Path, unit: str, scale: float, form: str
) -> None:
    """Of lengths in metres it was 1000 mm, and nothing was said."""
    image = nibabel.Nifti1Image(chest_values()[..., 0], None)
    affine = np.diag([-0.7 * scale, -0.8 * scale, 1, 1])
    (image.header.set_sform if form == "sform" else image.header.set_qform)(affine, code=int(form != "neither"))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert scan.geometry.spacing == pytest.approx((1, 0.8, 0.7), rel=1e-4)
    assert scan.notes == (*([NO_DIRECTIONS] if form == "neither" else []), NO_THICKNESS)


@pytest.mark.parametrize("form", ["sform", "qform"])
def test_a_slice_of_two_axes_keeps_a_thickness_that_its_header_states(tmp_path: Path, form: str) -> None:
    image = nibabel.Nifti1Image(chest_values()[..., 0], None)
    affine = np.diag([-0.7, -0.8, 5, 1])
    (image.header.set_sform if form == "sform" else image.header.set_qform)(affine, code=1)
    if form == "qform":
        image.header["pixdim"][3] = 5
    nibabel.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert scan.geometry.spacing == pytest.approx((5, 0.8, 0.7), rel=1e-4)
    assert scan.notes == ()


@pytest.mark.parametrize(("unit", "name"), [("meter", "metres"), ("micron", "micrometres")])
def test_a_unit_that_makes_no_chest_is_not_believed(tmp_path: Path, unit: str, name: str) -> None:
    image = nibabel.Nifti1Image(chest_values(), np.diag([-0.7, -0.8, 5.0, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert scan.geometry.spacing == pytest.approx((5, 0.8, 0.7), rel=1e-4)
    assert scan.notes == (f"the header states lengths in {name}, which make no chest: they are taken as millimetres",)


@pytest.mark.parametrize("intercept", [np.nan, np.inf])
def test_a_slope_without_an_intercept_is_applied_with_a_note(tmp_path: Path, intercept: float) -> None:
    scan = read_scan(nifti(tmp_path / "a.nii", scl_slope=2, scl_inter=intercept))
    np.testing.assert_array_equal(scan.values, VALUES.T * 2.0)
    assert scan.notes == ("the header states a slope of 2 but no usable intercept: it is taken as 0",)


@pytest.mark.parametrize("slope", [0, np.nan, np.inf])
def test_without_a_slope_the_intercept_means_nothing(tmp_path: Path, slope: float) -> None:
    scan = read_scan(nifti(tmp_path / "a.nii", scl_slope=slope, scl_inter=-1024))
    np.testing.assert_array_equal(scan.values, VALUES.T)


@pytest.mark.parametrize("dim", [[4, 20, 24, 7, 1, 1, 1, 1], [4, 20, 24, 7, 0, 0, 0, 0], [5, 20, 24, 7, 1, 0, 0, 0]])
def test_further_axes_of_one_or_no_value_are_dropped(tmp_path: Path, dim: list[int]) -> None:
    np.testing.assert_array_equal(read_scan(nifti(tmp_path / "a.nii", dim=dim)).values, VALUES.T)


@pytest.mark.parametrize("intent", [0, 3, 1001, 1002, 1007])
def test_the_intent_changes_nothing(tmp_path: Path, intent: int) -> None:
    scan = read_scan(nifti(tmp_path / "a.nii", intent_code=intent, intent_p1=3))
    np.testing.assert_array_equal(scan.values, VALUES.T)
