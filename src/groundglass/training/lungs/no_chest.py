"""Slices that show no chest, drawn at random: phantoms, limbs, noise, screens, and radiographs projected from scans."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

AIR_HU, FAT_HU, MUSCLE_HU, BONE_HU = -1000.0, -100.0, 50.0, 900.0


def draw_no_chest(count: int, side: int, seed: int = 0) -> list[NDArray[np.float32]]:
    """Draw slices without lung, each kind in turn.

    Args:
        count: Number of images to draw.
        side: Pixels of their sides.
        seed: Seed of all random numbers.

    Returns:
        (side, side) each, in HU as far as they have any.
    """
    rng = np.random.default_rng(seed)
    return [_KINDS[i % len(_KINDS)](rng, side).astype(np.float32) for i in range(count)]


def radiographs(hu: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Project a chest scan onto the coronal and the sagittal plane, as a radiograph shows it, head up.

    Args:
        hu: (z, y, x) upright axial slices from feet to head.

    Returns:
        The two projections, (z, x) and (z, y), and both with black and white exchanged.
    """
    attenuation = hu.clip(-1000, 1500) + 1000
    projections = []
    for axis in (1, 2):
        plane = attenuation.mean(axis)[::-1]
        low, high = np.percentile(plane, [1, 99])
        plane = ((plane - low) / max(float(high - low), 1.0)).clip(0, 1)
        projections += [(AIR_HU + (BONE_HU - AIR_HU) * grey).astype(np.float32) for grey in (plane, 1 - plane)]
    return projections


def _ellipse(rng: np.random.Generator, side: int, radius: float, centre: tuple[float, float]) -> NDArray[np.float32]:
    """(side, side) 0 at the centre of a random ellipse, 1 on its rim; lengths as shares of the side."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    angle, squeeze = rng.uniform(0, np.pi), rng.uniform(0.7, 1.0)
    along = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
    across = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)
    return np.asarray(np.hypot(along, across / squeeze) / radius, dtype=np.float32)


def _table(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay a thin curved table below."""
    side = len(image)
    y, x = np.mgrid[:side, :side] / side - 0.5
    board = np.abs(y - rng.uniform(0.3, 0.45) + rng.uniform(0, 0.3) * x**2) < 0.006
    return np.where(board & (image < -500), rng.uniform(-600, 200), image)


def _phantom(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """A disc of water or plastic with a wall and inserts, some of air."""
    radius, centre = rng.uniform(0.15, 0.48), (rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05))
    y, x = np.mgrid[:side, :side] / side - 0.5
    distance = np.hypot(x - centre[0], y - centre[1]) / radius
    image = np.where(distance < 1, rng.uniform(-120, 150), AIR_HU)
    if rng.random() < 0.7:
        image[(distance > rng.uniform(0.85, 0.97)) & (distance < 1)] = rng.uniform(50, 300)
    for angle in np.arange(rng.integers(0, 9)) * rng.uniform(0.6, 1.0):
        spot = np.hypot(x - centre[0] - 0.6 * radius * np.cos(angle), y - centre[1] - 0.6 * radius * np.sin(angle))
        image[spot < rng.uniform(0.04, 0.15) * radius] = rng.choice([-1000, -1000, -200, -100, 120, 350, 950])
    return _table(rng, image) if rng.random() < 0.5 else image


def _limbs(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """One or two thighs, shins or arms."""
    image = np.full((side, side), AIR_HU)
    centres = [(-0.22, 0.0), (0.22, 0.0)] if rng.random() < 0.6 else [(rng.uniform(-0.1, 0.1), 0.0)]
    radius = rng.uniform(0.08, 0.2) if len(centres) == 2 else rng.uniform(0.1, 0.4)
    for centre in centres:
        limb = _ellipse(rng, side, radius, centre)
        image = np.where(limb < 1, FAT_HU, image)
        image = np.where(limb < rng.uniform(0.75, 0.97), MUSCLE_HU + rng.uniform(-20, 20), image)
        bone = _ellipse(rng, side, radius * rng.uniform(0.12, 0.35), (centre[0] + rng.uniform(-0.03, 0.03), centre[1]))
        image = np.where(bone < 1, BONE_HU, image)
        image = np.where(bone < rng.uniform(0.4, 0.8), rng.choice([-80.0, 200.0]), image)
    return _table(rng, image) if rng.random() < 0.5 else image


def _head(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """A skull, full of brain or, as a phantom, of air, with sinuses or inserts and a headrest."""
    radius, centre = rng.uniform(0.16, 0.4), (rng.uniform(-0.05, 0.05), rng.uniform(-0.12, 0.05))
    head = _ellipse(rng, side, radius, centre)
    is_phantom = rng.random() < 0.4
    image = np.full((side, side), AIR_HU)
    if not is_phantom:
        image = np.where(head < rng.uniform(1.05, 1.2), rng.uniform(-100, 40), image)
    image = np.where(head < 1, BONE_HU, image)
    image = np.where(head < rng.uniform(0.75, 0.95), AIR_HU if is_phantom else rng.uniform(10, 50), image)
    for _ in range(rng.integers(0, 9)):
        place = (centre[0] + radius * rng.uniform(-0.6, 0.6), centre[1] + radius * rng.uniform(-0.7, 0.7))
        cavity = _ellipse(rng, side, radius * rng.uniform(0.04, 0.25), place)
        image = np.where(cavity < rng.uniform(1.0, 1.3), rng.choice([BONE_HU, 40.0]), image)
        image = np.where(cavity < 1, rng.choice([AIR_HU, AIR_HU, -600.0, 300.0]), image)
    y, x = np.mgrid[:side, :side] / side - 0.5
    rest = np.hypot(x - centre[0], (y - centre[1]).clip(0)) / (radius * rng.uniform(1.2, 1.5))
    image = np.where((np.abs(rest - 1) < 0.03) & (y > centre[1]) & (image < -500), rng.uniform(-500, 900), image)
    foam = (np.abs(rest - 0.9) < 0.08) & (y > centre[1]) & (image <= AIR_HU)
    return np.where(foam, rng.uniform(-1000, -850), image)


def _noise(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Noise of any grain."""
    field = ndimage.gaussian_filter(rng.standard_normal((side, side)), rng.choice([0.0, 0.5, 1.0, 2.0, 5.0, 12.0]))
    noise = rng.uniform(-900, 0) + rng.uniform(50, 600) * field / max(float(field.std()), 1e-6)
    return np.asarray(noise, dtype=np.float32)


def _screen(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Windows, lines of text and curves on a plain ground, as in a screenshot, a dose report or a scanned page."""
    image = Image.new("L", (side, side), int(rng.choice([0, 0, 20, 128, 240, 255])))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 6)):
        left, top = rng.integers(0, side, 2)
        width, height = rng.integers(5, side, 2)
        draw.rectangle((int(left), int(top), int(left + width), int(top + height)), int(rng.integers(0, 256)))
    for _ in range(rng.integers(3, 30)):
        left, top = (int(n) for n in rng.integers(0, side, 2))
        text = "".join(map(chr, rng.integers(48, 122, rng.integers(3, 30))))
        draw.text((left, top), text, fill=int(rng.integers(0, 256)))
    for _ in range(rng.integers(0, 4)):
        points = [(int(x), int(y)) for x, y in rng.integers(0, side, (rng.integers(2, 12), 2))]
        draw.line(points, fill=int(rng.integers(0, 256)), width=int(rng.integers(1, 4)))
    return np.asarray(image, dtype=np.float32) * 8 - 1024


def _shading(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """A few soft shapes, as in a photograph or another organ's image."""
    image = np.full((side, side), rng.uniform(-1000, 100))
    for _ in range(rng.integers(2, 9)):
        centre = (rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5))
        image = np.where(_ellipse(rng, side, rng.uniform(0.03, 0.4), centre) < 1, rng.uniform(-1000, 400), image)
    return ndimage.gaussian_filter(image, rng.uniform(0, side / 60))


_KINDS: tuple[Callable[[np.random.Generator, int], NDArray[np.float32]], ...] = (
    _phantom,
    _limbs,
    _head,
    _noise,
    _screen,
    _shading,
)
