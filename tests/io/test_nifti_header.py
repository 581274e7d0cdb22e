"""NIfTI headers are understood as nibabel understands them, in both versions and byte orders."""

import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from groundglass.io.nifti_header import (
    HEADER_BYTES,
    affine_of,
    complete_header,
    new_header,
    parse_header,
    repair_grid,
    shape_of,
    voxel_type,
)
from groundglass.io.reader import read_scan

nibabel: Any = nib
TYPES = ["u1", "i2", "i4", "f4", "f8", "i1", "u2", "u4", "i8", "u8"]
VERSIONS = {"NIfTI-1": nibabel.Nifti1Header, "NIfTI-2": nibabel.Nifti2Header}


def random_header(version: str, order: str, seed: int) -> Any:
    """A header of any type, 2 to 4 axes, and grids in any orientation that differ between both forms."""
    rng = np.random.default_rng(seed)
    header = VERSIONS[version](endianness=order)
    header.set_data_dtype(TYPES[seed % len(TYPES)])
    header.set_data_shape(tuple(int(n) for n in rng.integers(1, 40, rng.integers(2, 5))))
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.3, 5, 3)
    affine[:3, 3] = rng.normal(size=3) * 99
    header.set_qform(affine, 1)
    header.set_sform(affine + 0.01, 1)
    return header


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", VERSIONS)
def test_shape_type_and_affines_are_those_of_nibabel(version: str, order: str) -> None:
    for seed in range(100):
        theirs = random_header(version, order, seed)
        ours = parse_header(theirs.binaryblock.ljust(540, b"\0"))
        repair_grid(ours)
        assert shape_of(ours) == theirs.get_data_shape()
        assert voxel_type(ours) == theirs.get_data_dtype()
        for form, affine in (
            ("sform", theirs.get_sform()),
            ("qform", theirs.get_qform()),
            ("spacing", theirs.get_base_affine()),
        ):
            np.testing.assert_allclose(affine_of(ours, form), affine, atol=1e-4)
            np.testing.assert_allclose(affine_of(theirs, form), affine, atol=1e-4)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_header_like_another_has_its_grid_for_nibabel(version: str) -> None:
    for seed in range(20):
        theirs = random_header(version, ">", seed)
        head = complete_header(new_header(theirs), np.dtype(np.uint8), b"a mask")
        copied = VERSIONS[version](head[: theirs.sizeof_hdr])
        assert copied.get_data_shape() == theirs.get_data_shape()
        assert copied.get_data_dtype() == np.uint8
        assert len(head) == copied.get_data_offset() == copied.single_vox_offset
        np.testing.assert_allclose(copied.get_qform(), theirs.get_qform(), atol=1e-4)
        np.testing.assert_array_equal(copied.get_sform(), theirs.get_sform())


def test_nifti_2_that_was_changed_as_text_is_refused() -> None:
    head = bytearray(random_header("NIfTI-2", "<", 0).binaryblock)
    head[8:12] = b"\n\x1a\n\0"
    with pytest.raises(ValueError, match="its line ends were changed"):
        parse_header(bytes(head))


def test_an_unusable_qform_gives_way_to_the_sform_with_a_note(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((20, 24, 7), np.int16), np.diag([-5.0, -5, 5, 1]))
    image.set_qform(np.diag([-5.0, -5, 5, 1]), 1)
    image.header["quatern_b"] = np.nan
    head = image.header.copy()
    head["vox_offset"], head["magic"] = 352, b"n+1"
    (tmp_path / "a.nii").write_bytes(head.binaryblock + bytes(4) + bytes(20 * 24 * 7 * 2))
    scan = read_scan(tmp_path / "a.nii")
    assert scan.geometry.spacing == (5, 5, 5)
    assert scan.notes == ("the qform of the file puts voxels nowhere: its sform is used",)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("form", ["sform", "qform", "spacing"])
def test_signalling_numbers_in_a_grid_that_are_none_give_no_warning(version: int, form: str) -> None:
    header = parse_header(bytes(HEADER_BYTES) if version == 1 else b"\0\0\0\0n+2\0\r\n\x1a\n" + bytes(HEADER_BYTES))
    header["dim"][0] = 3
    for name in ("pixdim", *(f"{field}_{axis}" for field in ("srow", "qoffset") for axis in "xyz"), "quatern_b"):
        size = header[name].dtype.itemsize
        bits = {4: 0x7F800001, 8: 0x7FF0000000000001}[size].to_bytes(size, sys.byteorder)
        header[name] = np.frombuffer(bits, header[name].dtype)[0]
    repair_grid(header)
    assert not np.isfinite(affine_of(header, form)).all()
