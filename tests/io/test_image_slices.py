import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from groundglass.errors import FormatError
from groundglass.io import image_slices
from groundglass.io.reader import read_scan
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import ImageStack, Mask

GREY = np.random.default_rng(2).integers(0, 256, (30, 40), dtype=np.uint8)


def save(path: Path, pixels: NDArray[Any] = GREY, mode: str | None = None) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_grey_pixels_in_every_image_mode_are_read_as_grey(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a b.PNG", mode=mode)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.values, GREY[None])
    assert scan.values.dtype == np.uint8
    assert isinstance(scan, ImageStack)
    assert (scan.sizes, scan.names) == (((30, 40),), ("a b.PNG",))
    assert not scan.geometry.in_mm
    assert scan.source == path


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 257
    scan = read_scan(save(tmp_path / "deep.png", deep))
    assert scan.values.dtype == np.uint16
    np.testing.assert_array_equal(scan.values[0], deep)


def test_a_jpeg_in_grey_or_grey_rgb_is_read(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(40, dtype=np.uint8) * 6, (30, 1))
    for mode in ("L", "RGB"):
        scan = read_scan(save(tmp_path / "a.jpeg", smooth, mode))
        assert np.abs(scan.values[0].astype(int) - smooth).max() < 8
        assert scan.values.dtype == np.uint8


def test_colour_and_transparency_are_refused(tmp_path: Path) -> None:
    colour = np.stack([GREY, GREY, GREY], axis=-1)
    colour[5, 5, 2] ^= 128
    with pytest.raises(FormatError, match=r"c\.png is coloured, expected a grey CT slice"):
        read_scan(save(tmp_path / "c.png", colour))
    clear = np.stack([GREY, GREY, GREY, np.full_like(GREY, 255)], axis=-1)
    clear[0, 0, 3] = 254
    with pytest.raises(FormatError, match=r"transparent pixels.*without alpha"):
        read_scan(save(tmp_path / "t.png", clear))


@pytest.mark.parametrize("shape", [(1, 1), (15, 40), (40, 15)])
def test_a_picture_below_16_pixels_is_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    message = f"is {shape[0]} x {shape[1]} pixels, expected at least 16 x 16"
    with pytest.raises(FormatError, match=message):
        read_scan(save(tmp_path / "s.png", np.zeros(shape, np.uint8)))
    assert read_scan(save(tmp_path / "ok.png", np.zeros((16, 16), np.uint8))).values.shape == (1, 16, 16)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("part", [0.01, 0.3, 0.9])
def test_a_cut_picture_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    data = save(tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: max(8, int(len(data) * part))])
    with pytest.raises(FormatError, match="damaged or cut short") as caught:
        read_scan(path)
    assert "\n" not in str(caught.value)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(("side", "message"), [(12_000, "states more than .* pixels"), (50_000, "states more than")])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, side: int, message: str) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    with pytest.raises(FormatError, match=message):
        read_scan(path)


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "slices of ünï"
    folder.mkdir()
    for name, shape in [("s10.png", (30, 20)), ("s2.PNG", (16, 50)), ("S1.jpg", (20, 20))]:
        save(folder / name, np.full(shape, 7, np.uint8))
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_text("not a picture either")
    (folder / "sub").mkdir()
    return folder


def test_a_folder_in_natural_order_padded_bottom_right(tmp_path: Path) -> None:
    scan = read_scan(folder_of(tmp_path))
    assert isinstance(scan, ImageStack)
    assert scan.names == ("S1.jpg", "s2.PNG", "s10.png")
    assert scan.sizes == ((20, 20), (16, 50), (30, 20))
    assert scan.values.shape == (3, 30, 50)
    for plane, (height, width) in zip(scan.values, scan.sizes, strict=True):
        assert (plane[:height, :width] == 7).all()
        assert plane.sum() == 7 * height * width


def test_a_folder_too_large_when_padded_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path)
    monkeypatch.setattr("groundglass.io.limits.MAX_VOXELS", 3 * 30 * 50 - 1)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("a picture was decoded"))
    with pytest.raises(FormatError, match="3 x 30 x 50 = 4,500 voxels, more than the 4,499"):
        read_scan(folder)


def test_mixed_bit_depths_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", GREY.astype(np.uint16))
    with pytest.raises(FormatError, match="mixes pictures of uint16 and uint8, expected one kind"):
        read_scan(tmp_path)


def test_the_mask_of_one_picture_is_a_png_of_its_size(tmp_path: Path) -> None:
    scan = read_scan(save(tmp_path / "ct.png"))
    assert isinstance(scan, ImageStack)
    paths = image_slices.write_mask(Mask(scan.values > 100, scan.geometry), scan, tmp_path / "out")
    assert paths == [tmp_path / "out" / "lesions.png"]
    with Image.open(paths[0]) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), np.where(GREY > 100, 255, 0))


def test_masks_of_a_folder_have_the_sizes_of_their_pictures(tmp_path: Path) -> None:
    scan = read_scan(folder_of(tmp_path))
    assert isinstance(scan, ImageStack)
    paths = image_slices.write_mask(Mask(scan.values == 7, scan.geometry), scan, tmp_path)
    assert paths == [tmp_path / "lesions" / name for name in ("S1.png", "s2.png", "s10.png")]
    for path, size in zip(paths, scan.sizes, strict=True):
        written = np.asarray(Image.open(io.BytesIO(path.read_bytes())))
        assert written.shape == size
        assert (written == 255).all()


def test_pictures_of_the_same_stem_get_a_mask_each(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    folder.mkdir()
    save(folder / "a.png")
    save(folder / "a.jpg")
    scan = read_scan(folder)
    assert isinstance(scan, ImageStack)
    paths = image_slices.write_mask(Mask(scan.values > 0, scan.geometry), scan, tmp_path)
    assert [path.name for path in paths] == ["a.jpg.png", "a.png.png"]
    assert all(path.is_file() for path in paths)


def test_a_stack_from_one_file_has_no_picture_mask(tmp_path: Path) -> None:
    scan = ImageStack(np.zeros((2, 20, 20)), Geometry((2, 20, 20), np.eye(4)), sizes=((20, 20),) * 2)
    with pytest.raises(ValueError, match=r"nifti\.write_mask"):
        image_slices.write_mask(Mask(scan.values > 0, scan.geometry), scan, tmp_path)
