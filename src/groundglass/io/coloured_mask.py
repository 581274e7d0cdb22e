"""Read the pictures of masks in which colours stand for numbers: PNG with a palette, or in red, green and blue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import FormatError
from groundglass.io.image_slices import decode_picture_as, palette_length
from groundglass.io.limits import shown

# Each of these colours has its number in the palette of PASCAL VOC, which labelling programs use: the sum of 1, 2 and 4
# for red, green and blue.
COLOUR_NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_MOST_COLOURS = 64  # a picture with more is no mask
_BRIGHTEST_BLACK = 15  # levels
_FAINT, _FULL = 0.25, 0.75  # parts of the brightest channel: up to the first a channel is off, from the second on


@dataclass(frozen=True, eq=False)
class ColouredMask:
    """A mask of colours.

    Attributes:
        numbers: (height, width) uint8: the palette's numbers, or those of `COLOUR_NAMES`; without a name of its own,
            the only colour is 1. Black, and what is transparent, is 0.
        names: {number: name of its colour}; empty if the numbers are the palette's own.
    """

    numbers: NDArray[np.uint8]
    names: dict[int, str]

    @property
    def has_other_colours(self) -> bool:
        """Whether the only colour is none of `COLOUR_NAMES`, so that it has no number that holds for other masks."""
        return any(name not in COLOUR_NAMES for name in self.names.values())


def read_coloured_mask(path: Path) -> ColouredMask:
    """Read the numbers of a mask that is a coloured picture.

    The numbers of a palette count where it has more colours than the picture, as those of labelling programs have; the
    palette of a program that makes pictures smaller has no more, in any order.

    Raises:
        FormatError: The picture is damaged, has no black background, or has colours without a number.
    """
    colours = decode_picture_as(path)
    shades = (colours[..., :3] * (colours[..., 3:] > 0)).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1])
    different, place = np.unique(shades, return_inverse=True)
    few = len(different) <= _MOST_COLOURS
    numbers = {int(shade): _number(int(shade).to_bytes(3, "big")) for shade in different} if few else {}
    if 0 not in numbers.values():
        raise FormatError(
            f"{shown(path)} is a coloured picture, expected a mask of a few plain colours on black: save it in grey, 0 "
            "where no lesion is and one number for each colour"
        )
    length = palette_length(path)
    if length is not None and length > len(different):
        indices = decode_picture_as(path, {"P": "P"})
        if not indices[shades == 0].any():
            return ColouredMask(indices, {})
    return _by_colour(path, numbers, place.reshape(shades.shape))


def _by_colour(path: Path, numbers: dict[int, int | None], place: NDArray[Any]) -> ColouredMask:
    """Number the colours of a picture by their names.

    Args:
        path: The picture.
        numbers: {colour: its number}; None for one without a name.
        place: (height, width) which of these colours each pixel has.

    Raises:
        FormatError: Several colours are there, and one has no name.
    """
    unnamed = [f"#{shade:06x}" for shade, number in numbers.items() if number is None]
    if unnamed and (len(unnamed) > 1 or set(numbers.values()) != {0, None}):
        raise FormatError(
            f"{shown(path)} has colours that stand for no number ({', '.join(unnamed[:4])}), expected black and "
            f"{', '.join(COLOUR_NAMES[1:])}: save it in grey, 0 where no lesion is and one number for each colour"
        )
    known = [1 if number is None else number for number in numbers.values()]
    names = {1: unnamed[0]} if unnamed else {number: COLOUR_NAMES[number] for number in sorted(set(known) - {0})}
    return ColouredMask(np.array(known, dtype=np.uint8)[place], names)


def _number(colour: bytes) -> int | None:
    """Return the number of a colour, bright or dark; None for one between these."""
    brightest = max(colour)
    if brightest <= _BRIGHTEST_BLACK:
        return 0
    if any(_FAINT * brightest < channel < _FULL * brightest for channel in colour):
        return None
    return sum(bit for bit, channel in zip((1, 2, 4), colour, strict=True) if channel > _FAINT * brightest)
