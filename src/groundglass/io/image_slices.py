"""Read PNG and JPEG slices, single ones or a folder of them, and write masks of them."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from groundglass.errors import FormatError
from groundglass.files import write_atomic
from groundglass.io.limits import MIN_SIDE, check_voxel_count, open_bounded, shown
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import ImageStack, Mask

_DAMAGE = (OSError, EOFError, ValueError, SyntaxError, IndexError, KeyError, struct.error, zlib.error)
_GREY_MODES = {"1": "L", "L": "L", "I;16": "I;16", "I;16B": "I;16", "I": "I"}


def natural_order(path: Path) -> tuple[list[str | int], str]:
    """Return a sort key that puts slice2 before slice10."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def read_image_slices(paths: Sequence[Path], source: Path) -> ImageStack:
    """Read pictures as slices, in the given order; smaller ones lie at the top left and are padded with 0.

    Args:
        paths: PNG or JPEG files, one or more.
        source: The path that the user gave: the file, or the folder of `paths`.

    Raises:
        FormatError: A picture is damaged, coloured, too small or too large, or their bit depths differ.
    """
    sizes = tuple(_size(path) for path in paths)
    shape = (len(paths), max(height for height, _ in sizes), max(width for _, width in sizes))
    check_voxel_count(shown(source), shape)
    planes = [_grey(path) for path in paths]
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
    return ImageStack(values, Geometry.pixels(shape), source, sizes=sizes, names=names)


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
    """Return NAME.png for each name; if two would become one (a.png, a.jpg), the full names with .png appended."""
    stems = [Path(name).stem for name in names]
    unique = len({stem.casefold() for stem in stems}) == len(stems)
    return [f"{stem if unique else name}.png" for stem, name in zip(stems, names, strict=True)]


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
        found = "no PNG or JPEG" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise FormatError(
            f"{shown(path)} is damaged or cut short ({found}), expected a whole PNG or JPEG: copy or download it again"
        ) from None


def _size(path: Path) -> tuple[int, int]:
    """Read (height, width) from the picture's header."""
    with _opened(path) as image:
        width, height = image.size
    if min(height, width) < MIN_SIDE:
        raise FormatError(
            f"{shown(path)} is {height} x {width} pixels, expected at least {MIN_SIDE} x {MIN_SIDE}: "
            "this is no CT slice, give the original picture"
        )
    return height, width


def _grey(path: Path) -> NDArray[Any]:
    """Decode a grey picture to (height, width): uint8, or uint16 for 16 bits."""
    with _opened(path) as image:
        if image.mode in _GREY_MODES:
            plane = np.asarray(image.convert(_GREY_MODES[image.mode]))
            return plane.astype(np.uint16) if image.mode == "I" else plane
        colours = np.asarray(image.convert("RGBA"))
    if (colours[..., 3] != 255).any():
        raise FormatError(f"{shown(path)} has transparent pixels, expected a plain CT slice: save it without alpha")
    if (colours[..., 0] != colours[..., 1]).any() or (colours[..., 0] != colours[..., 2]).any():
        raise FormatError(f"{shown(path)} is coloured, expected a grey CT slice: give it without overlays, as grey")
    return np.ascontiguousarray(colours[..., 0])
