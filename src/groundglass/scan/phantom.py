"""A synthetic chest CT with lesions of known volume, for the demonstration, the tests and the benchmarks.

Its shapes follow from formulae, in a chest of 345 x 235 mm. Positions below are millimetres: x to the left, y to the
back, z to the head, (0, 0, 0) in the middle of the chest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import Mask, Scan

Field = NDArray[np.float32]
AIR, FAT, MUSCLE, HEART, BONE, LUNG, VESSEL, GAS = -1000.0, -100.0, 45.0, 40.0, 420.0, -870.0, 20.0, -985.0
NOISE_HU = 22.0


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic chest CT.

    Attributes:
        scan: int16 HU.
        lesions: The lesions.
        lungs: Both lungs, lesions and vessels included.
    """

    scan: Scan
    lesions: Mask
    lungs: Mask


def chest_phantom(
    seed: int = 0,
    shape: tuple[int, int, int] = (48, 288, 352),
    extent_mm: tuple[float, float, float] = (240.0, 288.0, 380.0),
    oblique: bool = True,
) -> Phantom:
    """Make a synthetic chest.

    Args:
        seed: Seed of vessels, lesions and noise; the same seed makes the same chest.
        shape: Voxels along (z, y, x).
        extent_mm: Field of view along (z, y, x); with `shape` it gives the spacing.
        oblique: Turn the grid by a few degrees in the scanner's frame, as if the patient lay askew.
    """
    rng = np.random.default_rng(seed)
    dz, dy, dx = (length / n for length, n in zip(extent_mm, shape, strict=True))
    z, y, x = np.meshgrid(
        *(((np.arange(n) - (n - 1) / 2) * d).astype(np.float32) for n, d in zip(shape, (dz, dy, dx), strict=True)),
        indexing="ij",
        sparse=True,
    )
    texture = _Texture(rng, shape, (dz, dy, dx))
    hu, body = _body(z, y, x)
    lungs = _lungs(z, y, x, body)
    hu = np.where(lungs, LUNG + 0.35 * y + texture(6) * 18, hu)  # denser towards the back, where the patient lies
    hu = _vessels(hu, lungs, z, y, x, rng)
    hu, lesions = _lesions(hu, lungs, z, y, x, rng, texture)
    hu = ndimage.gaussian_filter(hu, (0.3, 0.6 / dy, 0.6 / dx))
    hu = np.where(_airway(z, y, x), GAS, hu) + NOISE_HU * texture(0.9)
    geometry = _grid(shape, (dz, dy, dx), oblique)
    values = np.clip(np.round(hu), -1024, 3071).astype(np.int16)
    return Phantom(Scan(values, geometry), Mask(lesions, geometry), Mask(lungs, geometry))


class _Texture:
    """Noise of unit variance whose grain is given in millimetres."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, ...]) -> None:
        self.rng, self.shape, self.spacing = rng, shape, spacing

    def __call__(self, grain_mm: float) -> Field:
        noise = self.rng.standard_normal(self.shape, dtype=np.float32)
        noise = ndimage.gaussian_filter(noise, [grain_mm / 2 / s for s in self.spacing])
        return np.asarray(noise / noise.std(), dtype=np.float32)


def _grid(shape: tuple[int, int, int], spacing: tuple[float, float, float], oblique: bool) -> Geometry:
    """Return the grid, whose middle lies near that of the scanner."""
    turn = np.radians(6.0 if oblique else 0.0)
    tilt = np.radians(-4.0 if oblique else 0.0)
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.eye(3)[:, ::-1] @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + (12.0, -30.0, -150.0)
    return Geometry(shape, affine)


def _ellipse(a: Field, b: Field, half_a: float | Field, half_b: float | Field) -> Field:
    """Return the equation of an ellipse in the axes a and b: below 1 inside."""
    return np.asarray((a / half_a) ** 2 + (b / half_b) ** 2)


def _body(z: Field, y: Field, x: Field) -> tuple[Field, NDArray[np.bool_]]:
    """Return HU of fat, muscle, ribs, spine, sternum and table in air, and the inside of the rib cage."""
    out = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), AIR, dtype=np.float32)
    trunk = (np.abs(x) / 172) ** 2.4 + (np.abs(y) / 118) ** 2.4 < 1
    wall = (np.abs(x) / 158) ** 2.4 + (np.abs(y) / 104) ** 2.4
    out[np.broadcast_to(trunk, out.shape)] = FAT
    out[np.broadcast_to(wall < 1, out.shape)] = MUSCLE
    cage = (np.abs(x) / 136) ** 2.3 + (np.abs(y + 2) / 88) ** 2.3
    # Ribs: rings that slope down towards the front, so that a slice shows arcs of them.
    ring = np.cos((z + 0.45 * y) * 2 * np.pi / 26) > 0.55
    out[(cage > 1.06) & (cage < 1.28) & ring & (np.abs(x) > 22)] = BONE
    spine = _ellipse(x, y - 82, 21, 17) < 1
    out[np.broadcast_to(spine, out.shape)] = 230.0
    out[np.broadcast_to((_ellipse(x, y - 82, 21, 17) > 0.72) & spine, out.shape)] = BONE
    out[np.broadcast_to(_ellipse(x, y + 97, 18, 5) < 1, out.shape)] = BONE  # sternum
    table = np.abs(y - (128 + 0.0012 * x**2)) < 2.5
    out[np.broadcast_to(table & (np.abs(x) < 170), out.shape)] = -300.0
    return out, cage < 1


def _lungs(z: Field, y: Field, x: Field, cage: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return both lungs: the rib cage without mediastinum and diaphragm, narrowing towards the apex."""
    height = (z + 95) / 200  # 0 at the bases, 1 at the apices
    narrow = np.sqrt(np.clip(1 - np.clip((height - 0.45) / 0.6, 0, 1) ** 2.2, 0, 1))
    shape = (np.abs(x) / (132 * np.maximum(narrow, 0.02))) ** 2.2 + (
        np.abs(y + 2) / (84 * np.maximum(narrow, 0.02))
    ) ** 2.2
    heart = _ellipse(x - 18, y + 28, 58 - 0.18 * z, 46 - 0.12 * z) < 1
    mediastinum = _ellipse(x, y + 10, 27, 78) < 1
    vertebra = _ellipse(x, y - 80, 29, 26) < 1
    dome = -62 - 34 * _ellipse(np.abs(x) - 66, y - 4, 80, 78) + 8 * (x < 0)  # the liver lifts the right one
    inside = cage & (shape < 1) & (z > dome) & (z < 108)
    return np.asarray(inside & ~mediastinum & ~vertebra & ~(heart & (z < 40)))


def _airway(z: Field, y: Field, x: Field) -> NDArray[np.bool_]:
    """Return the trachea and both main bronchi."""
    trachea = (_ellipse(x, y - 12, 9, 8) < 1) & (z > 22)
    spread = np.clip(24 - z, 0, 46)
    bronchi = (_ellipse(np.abs(x) - 0.9 * spread, y - 14, 6.5, 6) < 1) & (z <= 24) & (z > -14)
    return np.asarray(trachea | bronchi)


def _vessels(hu: Field, lungs: NDArray[np.bool_], z: Field, y: Field, x: Field, rng: np.random.Generator) -> Field:
    """Add vessels: tubes from the hila outwards, thinner with each branching."""
    spacing = [abs(float(axis.ravel()[1] - axis.ravel()[0])) for axis in (z, y, x)]
    origin = np.array([float(axis.ravel()[0]) for axis in (z, y, x)])
    centres: dict[float, list[NDArray[np.float64]]] = {}  # {radius: centres of the balls that make up the tubes}
    for side in (-1, 1):
        stems = [(np.array([4.0, 12.0, side * 34.0]), _direction(rng, side), 4.2) for _ in range(9)]
        while stems:
            position, heading, radius = stems.pop()
            for bend in rng.normal(0, 0.12, (int(rng.integers(8, 14)), 3)):
                position = position + heading * 2.2
                heading = heading + bend
                heading /= math.sqrt(heading @ heading)
                centres.setdefault(radius, []).append(position)
            if radius > 0.9:
                turns = rng.normal(0, 0.5, (2, 3))
                stems += [
                    (position, (heading + turn) / np.linalg.norm(heading + turn), radius * 0.74) for turn in turns
                ]
    density = np.zeros(hu.shape, dtype=np.float32)
    for radius, positions in centres.items():
        _draw_balls(density, (np.array(positions) - origin) / spacing, radius, spacing)
    return np.where(lungs, hu + (VESSEL - hu) * np.clip(density, 0, 1), hu)


def _direction(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Return a random direction (z, y, x), mostly away from the mediastinum."""
    heading = rng.normal(0, 1, 3) * (1.0, 0.8, 0.6) + (0, 0, 0.7 * side)
    return np.asarray(heading / np.linalg.norm(heading))


def _draw_balls(density: Field, centres: NDArray[np.float64], radius: float, spacing: list[float]) -> None:
    """Draw balls with a soft rim of half a voxel; `centres` (balls, 3) are in voxels."""
    indices, squares = [], []  # (balls, voxels along the axis): index, and squared distance from the centre
    for axis, (n, s) in enumerate(zip(density.shape, spacing, strict=True)):
        reach = int(np.ceil((radius + s) / s))
        centre = centres[:, axis : axis + 1]
        index = centre.astype(np.int64) + np.arange(-reach, reach + 2)
        indices.append(index.clip(0, n - 1))
        squares.append(np.where((index >= 0) & (index < n), ((index - centre) * s) ** 2, np.inf))
    (iz, iy, ix), (z, y, x) = indices, squares
    distance = np.sqrt(z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :])
    ball = np.clip((radius - distance) / spacing[2] + 0.5, 0, 1).astype(np.float32)
    inside = np.nonzero(ball)  # a small share of the box around it, and the rest is slow to draw
    number, a, b, c = inside
    np.maximum.at(density, (iz[number, a], iy[number, b], ix[number, c]), ball[inside])


def _lesions(
    hu: Field, lungs: NDArray[np.bool_], z: Field, y: Field, x: Field, rng: np.random.Generator, texture: _Texture
) -> tuple[Field, NDArray[np.bool_]]:
    """Add ground-glass lesions under the pleura, mostly low and at the back; two have a consolidated core."""
    weight = np.zeros(hu.shape, dtype=np.float32)
    core = np.zeros(hu.shape, dtype=np.float32)
    ragged = 0.16 * texture(14)  # an uneven outline
    for number in range(7):
        side = -1 if number % 2 else 1
        angle = rng.uniform(0.05, 1.25)  # from straight back to the side
        centre_x, centre_y = side * (52 + 66 * np.sin(angle)), -2 + 80 * np.cos(angle)
        centre_z = rng.uniform(-50, 30)
        half_width, half_height = rng.uniform(17, 30), rng.uniform(14, 24)
        across = ((x - centre_x) / half_width) ** 2 + ((y - centre_y) / half_width) ** 2
        distance = np.sqrt(across + ((z - centre_z) / half_height) ** 2)
        weight = np.maximum(weight, np.clip((1.08 - distance - ragged) / 0.25, 0, 1))
        if number < 2:
            core = np.maximum(core, np.clip((0.62 - distance - ragged) / 0.2, 0, 1))
    weight, core = (np.where(lungs, part, 0).astype(np.float32) for part in (weight, core))
    glass = -560 + 90 * texture(4)
    hu = hu + (np.maximum(glass, hu) - hu) * weight  # vessels stay visible through it
    hu = hu + (np.maximum(-10, hu) - hu) * core
    return hu, np.asarray(weight > 0.5)
