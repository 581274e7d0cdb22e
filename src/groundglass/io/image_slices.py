"""Read PNG and JPEG slices, single ones or a folder of them, and write masks of them."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from groundglass.errors import FormatError
from groundglass.files import write_atomic
from groundglass.io.decoding import decode_picture, start_decoder
from groundglass.io.limits import MIN_SIDE, check_voxel_count, open_bounded, shown
from groundglass.io.pixel_codecs import DecodeError, PictureTask
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import ImageStack, Mask

_DAMAGE = (OSError, EOFError, ValueError, SyntaxError, IndexError, KeyError, struct.error, zlib.error)
# Modes that convert to RGBA without losing their alpha.
_WITH_ALPHA = ("L", "LA", "La", "PA", "P", "RGBA", "RGBa", "RGB")
FEWEST_SHADES = 16  # of a CT slice; a mask has fewer
LARGEST_TINT = 16  # levels by which red, green and blue of a grey picture may differ, as after JPEG compression
OF_A_BYTE = (257, 256)  # what multiplies 8 bits that are written in 16: the byte twice, or with zeros behind it
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: the grey of a colour
_LYING = (5, 6, 7, 8)  # EXIF orientations whose rows are stored as columns
# {EXIF orientation: whether rows, and whether columns are reversed, after rows and columns are exchanged}
_FLIPS = {
    **{1: (False, False), 2: (False, True), 3: (True, True), 4: (True, False)},
    **{5: (False, False), 6: (False, True), 7: (True, True), 8: (True, False)},
}
_GREY_MODES = {"1": "L", "L": "L", "I;16": "I;16", "I;16B": "I;16", "I": "I"}


class ColouredPictureError(FormatError):
    """A picture is coloured."""


def natural_order(path: Path) -> tuple[list[str | int], str]:
    """Return a sort key that puts slice2 before slice10."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def read_image_slices(paths: Sequence[Path], source: Path) -> ImageStack:
    """Read pictures as slices, in the given order; smaller ones lie at the top left and are padded with 0.

    A picture is read as it is shown: turned as its EXIF orientation says, on black where it is transparent, and grey if
    its colours differ little. Notes tell of the last two. Masks among other pictures are left out.

    Args:
        paths: PNG or JPEG files, one or more.
        source: The path that the user gave: the file, or the folder of `paths`.

    Raises:
        FormatError: A picture is damaged, coloured, too small or too large, or their bit depths differ.
    """
    start_decoder()
    _common_shape(source, [_stored_size(path) for path in paths])  # before anything is decoded
    paths, pictures, left_out = _without_drawings(paths, [_read_picture(path) for path in paths])
    planes = [picture.plane for picture in pictures]
    sizes = tuple((plane.shape[0], plane.shape[1]) for plane in planes)
    shape = _common_shape(source, sizes)
    depths = {plane.dtype for plane in planes}
    if len(depths) > 1:
        raise FormatError(
            f"{shown(source)} mixes pictures of {' and '.join(sorted(map(str, depths)))}, "
            "expected one kind: keep each in a folder of its own"
        )
    values = np.zeros(shape, dtype=planes[0].dtype)
    for i, ((height, width), plane) in enumerate(zip(sizes, planes, strict=True)):
        values[i, :height, :width] = plane
    names = tuple(path.name for path in paths)
    notes = (*left_out, *_notes(pictures))
    return ImageStack(_of_8_bits(values), Geometry.pixels(shape), source, notes, sizes=sizes, names=names)


def _of_8_bits(values: NDArray[Any]) -> NDArray[Any]:
    """Return pixels of 8 bits that were written in 16 bits, 0 to 255 as 0 to 65535, as they were before."""
    if values.dtype != np.uint16:
        return values
    factor = next((factor for factor in OF_A_BYTE if not (values % factor).any()), None)
    return values if factor is None else (values // factor).astype(np.uint8)


def write_mask(mask: Mask, scan: ImageStack, folder: Path) -> list[Path]:
    """Write 0/255 PNGs of the pictures' own sizes.

    Args:
        mask: A mask on the scan's grid.
        scan: The stack that `read_image_slices` returned.
        folder: Output folder: it gets `lesions.png` for a single picture, `lesions/NAME.png` for each of a folder.

    Returns:
        The files, in the order of the slices.

    Raises:
        OutputError: A file cannot be written.
    """
    if scan.names is None:
        raise ValueError("the stack was read from one file: write its mask with nifti.write_mask_slices")
    if scan.source is not None and scan.names == (scan.source.name,):
        targets = [folder / "lesions.png"]
    else:
        targets = [folder / "lesions" / name for name in _png_names(scan.names)]
    for plane, (height, width), target in zip(mask.voxels, scan.sizes, targets, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(plane[:height, :width].astype(np.uint8) * 255).save(buffer, "PNG")
        write_atomic(target, buffer.getvalue())
    return targets


def _png_names(names: Sequence[str]) -> list[str]:
    """Return NAME.png for each name; if two would become one (a.png, a.jpg), the full names with .png appended.

    Names that are equal, as of pictures in several folders, get the number of the slice.
    """
    stems = [Path(name).stem for name in names]
    numbered = [f"{number:04}-{stem}" for number, stem in enumerate(stems, start=1)]
    chosen = next(each for each in (stems, names, numbered) if len({name.casefold() for name in each}) == len(each))
    return [f"{name}.png" for name in chosen]


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture without decoding it; errors while the context is open become a FormatError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_bounded(path) as file, Image.open(file, formats=("PNG", "JPEG")) as image:
                yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise FormatError(
            f"{shown(path)} states more than {Image.MAX_IMAGE_PIXELS:,} pixels, expected one CT slice: cut it smaller"
        ) from None
    except _DAMAGE as error:
        raise _damaged(path, "no PNG or JPEG" if isinstance(error, UnidentifiedImageError) else str(error)) from None


def _damaged(path: Path, found: str) -> FormatError:
    return FormatError(
        f"{shown(path)} is damaged or cut short ({' '.join(found.split())}), expected a whole PNG or JPEG: copy or "
        "download it again"
    )


def _common_shape(source: Path, sizes: Sequence[tuple[int, int]]) -> tuple[int, int, int]:
    """Return the shape (z, y, x) of a stack that holds slices of these sizes (height, width).

    Raises:
        FormatError: It would be too large.
    """
    shape = (len(sizes), max(height for height, _ in sizes), max(width for _, width in sizes))
    check_voxel_count(shown(source), shape)
    return shape


def _stored_size(path: Path) -> tuple[int, int]:
    """Read (height, width) from the picture's header, before its EXIF orientation turns it."""
    with _opened(path) as image:
        width, height = image.size
        frames = getattr(image, "n_frames", 1) if image.format == "PNG" else 1
    if frames > 1:
        raise FormatError(
            f"{shown(path)} is an animation of {frames} pictures, expected one slice: save each picture as a PNG of "
            "its own, and give their folder"
        )
    if min(height, width) < MIN_SIDE:
        raise FormatError(
            f"{shown(path)} is {height} x {width} pixels, expected at least {MIN_SIDE} x {MIN_SIDE}: "
            "this is no CT slice, give the original picture"
        )
    return height, width


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, which turns nothing, without a valid one."""
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (*_DAMAGE, TypeError, OverflowError):
        return 1
    return orientation if orientation in range(1, 9) else 1


@dataclass(frozen=True, eq=False)
class _Picture:
    """A decoded picture.

    Attributes:
        plane: (height, width) uint8, or uint16 for 16 bits.
        is_tinted: Whether its colours differ by a few levels.
        is_transparent: Whether it has pixels that are not opaque.
    """

    plane: NDArray[Any]
    is_tinted: bool = False
    is_transparent: bool = False


def decode_picture_as(path: Path, modes: Mapping[str, str] | None = None) -> NDArray[Any]:
    """Decode a picture as it is shown: turned as its EXIF orientation says.

    Args:
        path: A PNG or JPEG file.
        modes: {mode of Pillow: mode to convert to}; other modes, and greys of which one level stands for
            transparent, are converted to RGBA.

    Returns:
        (height, width, 4) uint8 red, green, blue and alpha, or (height, width) numbers in a mode of `modes`.

    Raises:
        FormatError: It is damaged.
    """
    with _opened(path) as image:
        orientation, data = _orientation(image), path.read_bytes()
        has_clear_level = image.mode == "L" and "transparency" in image.info  # one of its levels of grey
    kept = {} if has_clear_level else dict(modes or {})
    try:
        decoded = decode_picture(PictureTask(data, kept, _WITH_ALPHA))
    except DecodeError as error:
        raise _damaged(path, str(error)) from None
    width, height = decoded.size
    dtype = {"I;16": "<u2", "I": "<i4"}.get(decoded.mode, "u1")
    pixels = np.frombuffer(decoded.pixels, dtype).reshape(height, width, *((4,) if decoded.mode == "RGBA" else ()))
    return _turned(pixels.astype(np.uint16) if dtype != "u1" else pixels, orientation)


def palette_length(path: Path) -> int | None:
    """Return the number of colours in a picture's palette; None if it has none."""
    with _opened(path) as image:
        return len(image.palette.palette) // 3 if image.mode == "P" and image.palette is not None else None


def _read_picture(path: Path) -> _Picture:
    """Decode a picture as it is shown.

    Raises:
        FormatError: It is damaged, coloured, or transparent everywhere.
    """
    pixels = decode_picture_as(path, _GREY_MODES)
    if pixels.ndim == 2:
        return _Picture(pixels)
    colours, alpha = pixels[..., :3].astype(np.int16), pixels[..., 3]
    if not alpha.any():
        raise FormatError(f"{shown(path)} is transparent everywhere, expected a CT slice: save it without alpha")
    spread = (colours.max(axis=-1) - colours.min(axis=-1))[alpha > 0].max()
    if spread > LARGEST_TINT:
        raise ColouredPictureError(
            f"{shown(path)} is coloured (red, green and blue differ by up to {spread} levels), expected a grey CT "
            "slice: give it without overlays, as grey"
        )
    grey = np.rint(colours @ _LUMA * (alpha / 255.0)).astype(np.uint8)
    return _Picture(grey, bool(spread), bool((alpha < 255).any()))


def _turned(plane: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a picture as a viewer shows it that follows the EXIF orientation."""
    if orientation in _LYING:
        plane = plane.swapaxes(0, 1)
    flips_rows, flips_columns = _FLIPS[orientation]
    return np.ascontiguousarray(plane[:: -1 if flips_rows else 1, :: -1 if flips_columns else 1])


def _without_drawings(
    paths: Sequence[Path], pictures: Sequence[_Picture]
) -> tuple[Sequence[Path], Sequence[_Picture], tuple[str, ...]]:
    """Leave out the pictures that have as few shades as masks, unless all have; blank ones stay.

    Returns:
        The paths and the pictures that stay, and a note on how many were left out.
    """
    shades = [np.count_nonzero(np.bincount(picture.plane.ravel())) for picture in pictures]
    kept = [i for i, count in enumerate(shades) if not 1 < count < FEWEST_SHADES]
    if len(kept) == len(pictures) or max(shades) < FEWEST_SHADES:
        return paths, pictures, ()
    note = (
        f"left out: {len(pictures) - len(kept)} of {len(pictures)} pictures, with fewer than {FEWEST_SHADES} shades of "
        "grey, as masks have"
    )
    return [paths[i] for i in kept], [pictures[i] for i in kept], (note,)


def _notes(pictures: Sequence[_Picture]) -> tuple[str, ...]:
    """Return what was assumed of the pictures, with the number of those that it concerns."""
    count = len(pictures)
    tinted = sum(picture.is_tinted for picture in pictures)
    transparent = sum(picture.is_transparent for picture in pictures)

    def concerned(number: int) -> str:
        return "the picture is" if count == 1 else f"{number} of {count} pictures are"

    return (
        *((f"{concerned(tinted)} nearly grey, with a slight tint: taken as grey",) if tinted else ()),
        *((f"{concerned(transparent)} transparent in places: taken as shown on black",) if transparent else ()),
    )
