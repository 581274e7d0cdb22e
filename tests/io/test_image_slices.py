import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

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
    deep = GREY.astype(np.uint16) * 256 + 1
    scan = read_scan(save(tmp_path / "deep.png", deep))
    assert scan.values.dtype == np.uint16
    np.testing.assert_array_equal(scan.values[0], deep)


@pytest.mark.parametrize("factor", [256, 257])
def test_eight_bits_written_in_sixteen_are_read_as_eight(tmp_path: Path, factor: int) -> None:
    for name, levels in [("a.png", GREY), ("b.png", np.zeros_like(GREY))]:
        save(tmp_path / name, levels.astype(np.uint16) * factor)
    scan = read_scan(tmp_path)
    assert scan.values.dtype == np.uint8
    np.testing.assert_array_equal(scan.values, [GREY, np.zeros_like(GREY)])


def test_a_jpeg_in_grey_or_grey_rgb_is_read(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(40, dtype=np.uint8) * 6, (30, 1))
    for mode in ("L", "RGB"):
        scan = read_scan(save(tmp_path / "a.jpeg", smooth, mode))
        assert np.abs(scan.values[0].astype(int) - smooth).max() < 8
        assert scan.values.dtype == np.uint8


def colour_of(grey: NDArray[Any] = GREY, alpha: int | None = None) -> NDArray[Any]:
    """The grey picture as (y, x, RGB or RGBA)."""
    planes = [grey] * 3 + ([] if alpha is None else [np.full_like(grey, alpha)])
    return np.stack(planes, axis=-1)


def test_a_picture_with_a_coloured_pixel_is_refused(tmp_path: Path) -> None:
    colour = colour_of()
    colour[5, 5, 2] ^= 128
    with pytest.raises(FormatError, match=r"c\.png is coloured .*differ by up to 128 levels\), expected a grey CT"):
        read_scan(save(tmp_path / "c.png", colour))


def test_a_pale_overlay_beyond_the_tint_is_refused_and_a_tint_up_to_it_is_read(tmp_path: Path) -> None:
    grey = np.full((30, 40), 100, np.uint8)
    for levels, is_read in ((16, True), (17, False)):
        colour = colour_of(grey)
        colour[3:6, 3:6, 0] += levels
        path = save(tmp_path / f"{levels}.png", colour)
        if is_read:
            assert np.abs(read_scan(path).values[0].astype(int) - grey).max() <= 5
        else:
            with pytest.raises(FormatError, match="is coloured"):
                read_scan(path)


def test_masks_among_the_slices_are_left_out_and_counted(tmp_path: Path) -> None:
    for name, picture in (("1", GREY), ("2", GREY), ("2_mask", np.where(GREY > 90, 255, 0)), ("3", GREY * 0)):
        save(tmp_path / f"{name}.png", picture.astype(np.uint8))
    stack = read_scan(tmp_path)
    assert isinstance(stack, ImageStack)
    assert stack.names == ("1.png", "2.png", "3.png")
    assert stack.notes == ("left out: 1 of 4 pictures, with fewer than 16 shades of grey, as masks have",)


def test_masks_of_another_depth_than_the_slices_are_left_out(tmp_path: Path) -> None:
    save(tmp_path / "1.png", GREY.astype(np.uint16) * 16)
    save(tmp_path / "1_mask.png", np.where(GREY > 90, 255, 0).astype(np.uint8))
    assert np.array_equal(read_scan(tmp_path).values[0], GREY.astype(np.uint16) * 16)


def test_a_folder_of_masks_alone_keeps_them(tmp_path: Path) -> None:
    for name in ("1", "2"):
        save(tmp_path / f"{name}.png", np.where(GREY > 90, 255, 0).astype(np.uint8))
    assert len(read_scan(tmp_path).values) == 2


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_picture_that_is_off_by_one_in_a_colour_is_taken_as_grey_with_a_note(tmp_path: Path, channel: int) -> None:
    colour = colour_of(np.clip(GREY, 1, 254))
    colour[..., channel] += np.random.default_rng(0).integers(0, 2, GREY.shape, dtype=np.uint8)
    scan = read_scan(save(tmp_path / "tinted.png", colour))
    assert np.abs(scan.values[0].astype(int) - np.clip(GREY, 1, 254)).max() <= 1
    assert scan.notes == ("the picture is nearly grey, with a slight tint: taken as grey",)


@pytest.mark.parametrize("subsampling", [0, 2])
def test_the_chroma_noise_of_a_jpeg_is_taken_as_grey(tmp_path: Path, subsampling: int) -> None:
    smooth = np.tile(np.arange(40, dtype=np.uint8) * 6, (30, 1))
    colour = colour_of(smooth)
    colour[::2, ::2, 0] += 3
    Image.fromarray(colour).save(tmp_path / "a.jpg", quality=60, subsampling=subsampling)
    assert np.abs(read_scan(tmp_path / "a.jpg").values[0].astype(int) - smooth).max() < 12


def test_notes_count_the_pictures_of_a_folder_that_they_concern(tmp_path: Path) -> None:
    tinted = colour_of(np.full((30, 40), 9, np.uint8))
    tinted[..., 1] += 2
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png", tinted)
    save(tmp_path / "c.png", colour_of(alpha=100))
    assert read_scan(tmp_path).notes == (
        "2 of 3 pictures are nearly grey, with a slight tint: taken as grey",
        "1 of 3 pictures are transparent in places: taken as shown on black",
    )


def test_transparent_pixels_are_read_as_shown_on_black(tmp_path: Path) -> None:
    clear = colour_of(alpha=255)
    clear[:10, :, 3], clear[10:20, :, 3] = 0, 128
    clear[0, 0] = (255, 0, 0, 0)  # the colour of a pixel that nobody sees
    scan = read_scan(save(tmp_path / "t.png", clear))
    expected = np.rint(GREY * (clear[..., 3] / 255))
    assert np.abs(scan.values[0] - expected).max() <= 1
    assert (scan.values[0, :10] == 0).all()
    np.testing.assert_array_equal(scan.values[0, 20:], GREY[20:])
    assert scan.notes == ("the picture is transparent in places: taken as shown on black",)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_every_mode_with_a_transparent_background_is_read(tmp_path: Path, mode: str) -> None:
    grey = np.clip(GREY, 1, 255)
    grey[:10] = 0
    if mode == "P":
        Image.fromarray(grey).convert("P").save(tmp_path / "a.png", transparency=0)
    else:
        alpha = np.where(grey == 0, 0, 255).astype(np.uint8)
        Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha))).convert(mode).save(tmp_path / "a.png")
    scan = read_scan(tmp_path / "a.png")
    np.testing.assert_array_equal(scan.values[0], grey)
    assert "transparent in places" in scan.notes[0]


def test_a_level_of_grey_that_stands_for_transparent_is_read_as_black(tmp_path: Path) -> None:
    """Programs that make pictures smaller write so; a white background stayed white."""
    grey = np.clip(GREY, 0, 254)
    grey[:10] = 255
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=255)
    scan = read_scan(tmp_path / "a.png")
    assert (scan.values[0, :10] == 0).all()
    np.testing.assert_array_equal(scan.values[0, 10:], grey[10:])
    assert scan.notes == ("the picture is transparent in places: taken as shown on black",)


def test_a_picture_that_is_transparent_everywhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is transparent everywhere, expected a CT slice: save it without alpha"):
        read_scan(save(tmp_path / "t.png", colour_of(alpha=0)))


def test_a_cmyk_jpeg_of_greys_is_read_and_a_coloured_one_refused(tmp_path: Path) -> None:
    black = Image.fromarray(255 - np.tile(np.arange(40, dtype=np.uint8) * 6, (30, 1)))
    none, full = Image.new("L", (40, 30), 0), Image.new("L", (40, 30), 200)
    Image.merge("CMYK", (none, none, none, black)).save(tmp_path / "grey.jpg", quality=95)
    Image.merge("CMYK", (full, none, none, none)).save(tmp_path / "cyan.jpg", quality=95)
    found = read_scan(tmp_path / "grey.jpg").values[0].astype(int)
    assert np.abs(found - np.arange(40) * 6).max() < 8
    with pytest.raises(FormatError, match="is coloured"):
        read_scan(tmp_path / "cyan.jpg")


def test_an_animated_png_is_refused_with_the_number_of_its_pictures(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(GREY, shift, axis=0)) for shift in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(FormatError, match="is an animation of 3 pictures, expected one slice: save each picture"):
        read_scan(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_is_read_as_its_exif_orientation_shows_it(tmp_path: Path, orientation: int, suffix: str) -> None:
    path, exif = tmp_path / f"turned.{suffix}", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.repeat(np.repeat(GREY[:4, :5], 8, 0), 8, 1)).save(path, exif=exif, quality=95)
    with Image.open(path) as image:
        shown_as = np.asarray(ImageOps.exif_transpose(image))
    scan = read_scan(path)
    assert isinstance(scan, ImageStack)
    np.testing.assert_array_equal(scan.values[0], shown_as)
    assert scan.sizes == (shown_as.shape,)
    (written,) = image_slices.write_mask(Mask(scan.values > 100, scan.geometry), scan, tmp_path / "out")
    np.testing.assert_array_equal(np.asarray(Image.open(written)) > 0, shown_as > 100)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_exif_orientation_that_does_not_exist_turns_nothing(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.png").values[0], GREY)


def test_a_folder_of_upright_and_lying_pictures_is_padded_to_the_shown_sizes(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    save(tmp_path / "b.png")
    scan = read_scan(tmp_path)
    assert isinstance(scan, ImageStack)
    assert (scan.sizes, scan.values.shape) == (((40, 30), (30, 40)), (2, 40, 40))


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


def test_pictures_of_one_name_in_several_folders_get_a_mask_each(tmp_path: Path) -> None:
    """Only that of the last one was left."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    paths = [save(tmp_path / name / "slice.png") for name in ("a", "b")]
    scan = image_slices.read_image_slices(paths, tmp_path / "a")
    marked = np.zeros(scan.values.shape, dtype=np.bool_)
    marked[0] = True
    written = image_slices.write_mask(Mask(marked, scan.geometry), scan, tmp_path)
    assert [path.name for path in written] == ["0001-slice.png", "0002-slice.png"]
    assert [np.asarray(Image.open(path)).max() for path in written] == [255, 0]


def test_a_stack_from_one_file_has_no_picture_mask(tmp_path: Path) -> None:
    scan = ImageStack(np.zeros((2, 20, 20)), Geometry((2, 20, 20), np.eye(4)), sizes=((20, 20),) * 2)
    with pytest.raises(ValueError, match=r"nifti\.write_mask"):
        image_slices.write_mask(Mask(scan.values > 0, scan.geometry), scan, tmp_path)


def test_pictures_of_other_formats_in_a_folder_are_counted(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    for name in ("b.gif", "c.gif", "d.tif"):
        Image.fromarray(GREY).save(tmp_path / name)
    expected = "left out: 2 x a GIF picture, save it as PNG, 1 x a TIFF picture, save it as PNG"
    assert expected in read_scan(tmp_path).notes
