"""Noise in the numbers of DICOM headers neither refuses a series nor costs slices; real differences are named."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from groundglass.errors import FormatError
from groundglass.io.reader import read_scan
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_enhanced, write_series


@pytest.fixture(scope="module")
def scan() -> Scan:
    return chest_phantom(shape=(8, 48, 64), oblique=False).scan


def set_each(paths: list[Path], keyword: str, values: Sequence[object]) -> None:
    for index, path in enumerate(paths):
        data = pydicom.dcmread(path)
        setattr(data, keyword, values[index % len(values)])
        data.save_as(path)


@pytest.mark.parametrize(
    ("spacings", "notes"),
    [
        ([[6, 5.9375], [6.000001, 5.937501]], ()),
        ([[6, 5.9375], [6.0005, 5.9375]], ()),
        ([[6, 5.9375], [6.003, 5.9375]], ("the pixel spacing varies by 0.05 %: 6.0015 x 5.9375 mm is taken",)),
        ([[6, 5.9375], None], ("4 of 8 images state no pixel spacing: the others' is taken",)),
    ],
    ids=["1e-6", "1e-4", "5e-4", "missing in some"],
)
def test_pixel_spacings_that_differ_by_noise_are_one(
    spacings: list[object], notes: tuple[str, ...], scan: Scan, tmp_path: Path
) -> None:
    set_each(write_series(scan, tmp_path / "a"), "PixelSpacing", spacings)
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.geometry.spacing == pytest.approx(scan.geometry.spacing, rel=1e-3)
    assert found.notes == notes


def test_several_pixel_spacings_are_refused_with_their_values(scan: Scan, tmp_path: Path) -> None:
    set_each(write_series(scan, tmp_path / "a"), "PixelSpacing", [[6, 5.9375], [6.5, 5.9375]])
    with pytest.raises(FormatError, match=r"several pixel spacings, 6 x 5\.9375 and 6\.5 x 5\.9375 mm, expected one"):
        read_scan(tmp_path / "a")


@pytest.mark.parametrize("noise", [2e-6, 5e-5])
@pytest.mark.parametrize("base", [0.0, 0.005, 0.015])
def test_orientations_that_differ_by_noise_leave_out_no_slice(
    base: float, noise: float, scan: Scan, tmp_path: Path
) -> None:
    """Wherever a cosine is rounded to hundredths, slices on either side of the limit belong together."""
    orientations = [[1, base + sign * noise, 0, -(base + sign * noise), 1, 0] for sign in (-1, 1)]
    set_each(write_series(scan, tmp_path / "a"), "ImageOrientationPatient", orientations)
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ()


def test_orientations_that_vary_visibly_are_noted(scan: Scan, tmp_path: Path) -> None:
    turned = [[1, 0, 0, 0, 1, 0], [1, 0.004, 0, -0.004, 1, 0]]
    set_each(write_series(scan, tmp_path / "a"), "ImageOrientationPatient", turned)
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ("the orientation varies by up to 0.23 degrees: that of the first image is taken",)


def with_commas(path: Path) -> None:
    """Replace the points of all decimal strings of a file by commas."""
    content = bytearray(path.read_bytes())
    begin = 0
    while (begin := content.find(b"DS", begin)) >= 0:
        length = int.from_bytes(content[begin + 2 : begin + 4], "little")
        value = content[begin + 4 : begin + 4 + length]
        if length < 120 and all(byte in b"+-0123456789.eE\\ " for byte in value):
            content[begin + 4 : begin + 4 + length] = value.replace(b".", b",")
        begin += 2
    path.write_bytes(content)


@pytest.mark.parametrize("form", ["series", "enhanced"])
def test_decimal_commas_are_read_as_meant(form: str, tmp_path: Path) -> None:
    scan = chest_phantom(shape=(8, 48, 64)).scan
    (tmp_path / "a").mkdir()
    if form == "series":
        paths = write_series(scan, tmp_path / "a", RescaleSlope="1.0", RescaleIntercept="-1024.0")
    else:
        paths = [write_enhanced(scan, tmp_path / "a" / "1.dcm")]
    for path in paths:
        with_commas(path)
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.geometry.matches(scan.geometry)
    assert found.notes == ("numbers in the header have decimal commas, expected points: they are read as meant",)


@pytest.mark.parametrize("stated", ["3.0", "-3.0\\-3.0", "3.0,2.9", "3 mm\\3 mm"])
def test_a_pixel_spacing_that_is_none_is_refused_with_what_is_stated(stated: str, scan: Scan, tmp_path: Path) -> None:
    tag = Tag("PixelSpacing")
    for path in write_series(scan, tmp_path / "a"):
        data = pydicom.dcmread(path)
        value = stated.encode() + b" " * (len(stated) % 2)
        data[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)
        data.save_as(path)
    with pytest.raises(FormatError, match=r"a states the pixel spacing .*3.*, expected two numbers above 0"):
        read_scan(tmp_path / "a")


def test_numbers_under_a_value_representation_of_text_are_read(scan: Scan, tmp_path: Path) -> None:
    for path in write_series(scan, tmp_path / "a"):
        data = pydicom.dcmread(path)
        stated = "\\".join(map(str, data.PixelSpacing))
        data[Tag("PixelSpacing")] = pydicom.DataElement(Tag("PixelSpacing"), "UT", stated)
        data.save_as(path)
    found = read_scan(tmp_path / "a")
    assert found.geometry.spacing == pytest.approx(scan.geometry.spacing)
    assert np.array_equal(found.values, scan.values)


@pytest.mark.parametrize("stated", [None, [0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0]])
@pytest.mark.parametrize("without", [[0], [3], [1, 3, 5, 7]])
def test_images_without_a_usable_orientation_get_that_of_the_others(
    without: list[int], stated: list[int] | None, scan: Scan, tmp_path: Path
) -> None:
    paths = write_series(scan, tmp_path / "a")
    for index in without:
        data = pydicom.dcmread(paths[index])
        data.ImageOrientationPatient = stated
        data.save_as(paths[index])
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.geometry.matches(scan.geometry)
    assert found.notes == (f"{len(without)} of 8 images state no orientation: that of the others is taken",)
