"""Finding the lungs, in scans and pictures alike, whatever their numbers mean.

The lungs define where lesions are searched for, and the volume that their share refers to. A network finds them, dense
lesions included, on a small grid; what is left here is geometry. The window of grey levels follows from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.errors import IntensityError, LungError
from groundglass.inference.lung_density import check_lung_density
from groundglass.inference.lung_network import INSIDE, LungNetwork, open_lung_network
from groundglass.inference.window import Line, estimate_window
from groundglass.scan.components import CONNECTIVITY_6, find_components
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.intensity import HuSlices, Intensity, StoredNumbers, recognise_numbers
from groundglass.scan.kinds import FieldOfView, IntensityKind
from groundglass.scan.lung_field import Box, LungField
from groundglass.scan.packed_mask import PackedMask, PackedSlice, bounding_box, pack_slice, voxels_per_slice
from groundglass.scan.scan import ImageStack, Scan

LIMITS_HU = (-1350.0, 350.0)  # beyond these, HU all look alike to the network
LOCATE_MM = 15.0  # distance of the slices in which the lungs are looked for first
FEWEST_SLICES = 8  # that are looked at in any case
OUTLINE_MM = 2.5  # slices nearer to each other are not all outlined: the lungs between them are interpolated
AROUND = 0.12  # margin of the part of the slices in which the lungs are outlined, as a share of their extent
MARGIN_MM = 8.0  # of the box around the lungs
IMAGE_WIDTH_MM = 350.0  # assumed for an image, which states no spacing
CROPPED_IMAGE = 0.6  # share of an image: a box that covers more shows that the image was cropped to the lungs
SMALLEST_REGION = 0.04  # share of the largest region: smaller regions are no lung
SMALLEST_LUNG = 0.004  # share of a slice: with less of it in every slice of a volume, or in an image, there is no lung
# Mean probability of lung in what is found, of one slice and of several. Lungs of training scans have 0.98 and more,
# a slice of them seldom less than 0.92; heads and drawn images 0.6 to 0.9.
LEAST_CERTAINTY, LEAST_CERTAINTY_OF_VOLUME = 0.85, 0.9
SMALLEST_SLICE_MM2 = 150.0  # a slice with less lung than this counts as a slice without lung
SAMPLED_SLICES = 40  # slices from which it is told whether all outside the lungs was blanked
BLANK = 0.4  # share of all pixels: with fewer of the most frequent number, nothing was blanked
AIR_LIKE_HU, SOFT_TISSUE_FROM_HU = -950.0, -200.0
LEAST_SOFT_TISSUE = 0.4  # share of what is no air: with less, there is no body around the lungs
REACHED = 0.02  # share of a side of the picture: with more of it beside lung, the lungs reach that side
CLEAR_SIDES = 0.8  # mean certainty about the sides, from 0 to 1, below which they are unknown
POLARITY_PARTS = 8  # pictures, or a volume, whose negative is looked at
MUCH_CERTAINTY, LITTLE_CERTAINTY = 0.08, 0.03  # of 1; a negative of 29 real pictures is told from all but 1 of them
HALF, CERTAIN = 128, 230  # probabilities of 0.5 and 0.9 in a map
NO_LUNG = (
    "no lung was found: expected axial slices of a chest, in HU or a window that shows the lungs; check that it is a "
    f"chest CT, and what its numbers are (--intensity {'|'.join(IntensityKind)})"
)

# (n, 2, y, x) probabilities, 255 for 1: of the lung on the left of the image, and of the other.
Maps = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ScanWithLungs:
    """A scan in upright axial slices, with its lungs and its intensities.

    Attributes:
        scan: The scan as it was read.
        view: Transform from the scan's own grid to upright axial slices and back.
        intensity: How the scan's intensities were interpreted.
        hu: (z, y, x) HU or estimated HU, computed slice by slice.
        lung_field: The lungs.
    """

    scan: Scan
    view: AxialView
    intensity: Intensity
    hu: HuSlices
    lung_field: LungField


def find_lungs(
    scan: Scan,
    field_of_view: FieldOfView = FieldOfView.LUNGS,
    kind: IntensityKind | None = None,
    network: LungNetwork | None = None,
) -> ScanWithLungs:
    """Find the lungs of a scan, or of each picture of a stack, and what its numbers are in HU.

    Args:
        scan: Any orientation; image stacks too.
        field_of_view: The part of a slice with lung that its box holds.
        kind: Meaning of the numbers; None: recognise it from the values.
        network: The lung network; None: the bundled one on all cores.

    Raises:
        IntensityError: The numbers are not recognised as CT, make no lungs in HU, or a window clips lungs or tissue.
        LungError: No slice shows lung.
    """
    numbers = recognise_numbers(scan, kind)
    view = AxialView(scan.geometry)
    values, parts = view.to_axial(scan.values), _parts(scan, view.geometry)
    slices = _Slices(values, _limits(numbers), _blank_number(values, numbers), numbers.shift_hu)
    look, is_window = partial(_look, network or open_lung_network()), numbers.kind.is_window
    whole = [_Seen(part, part.every(LOCATE_MM), Box(0, part.size[0], 0, part.size[1])) for part in parts]
    located = look(slices, whole, keep_levels=is_window)
    if not view.geometry.has_directions:  # rows may have been stored as columns
        transposed = replace(slices, transposed=True)
        turned = look(transposed, whole, keep_levels=is_window)
        if _certain_pixels(turned) > _certain_pixels(located):
            slices, located = transposed, turned
    if not any(seen.maps.any() for seen in located):
        raise LungError(NO_LUNG)
    if is_window:
        _check_polarity(look, slices, located)
    intensity = _estimate(numbers, located) if is_window else numbers.exact
    outlined = look(slices, [_Seen(seen.part, seen.part.every(OUTLINE_MM), _around(seen)) for seen in located])
    lung_field = _lung_field(outlined, scan, view.geometry, field_of_view)
    if not any(lung_field.boxes):
        raise LungError(NO_LUNG)
    hu = intensity.slices(values)
    check_lung_density(hu, lung_field.mask, intensity)
    return ScanWithLungs(scan, view, intensity, hu, lung_field)


def find_intensity(scan: Scan) -> Intensity:
    """Find what a scan's numbers are in HU; only those of a window need the lungs for it.

    Raises:
        IntensityError: The numbers are not recognised as CT, or a window clips lungs or tissue.
        LungError: The numbers are those of a window, and no slice shows lung.
    """
    numbers = recognise_numbers(scan)
    return find_lungs(scan).intensity if numbers.kind.is_window else numbers.exact


@dataclass(frozen=True, eq=False)
class _Part:
    """Slices that belong together: a whole volume, or one image of a stack.

    Attributes:
        slices: Indices of its slices.
        size: (height, width) of these without padding.
        spacing: (z, y, x) in mm; assumed for an image, and where it is not stated.
    """

    slices: range
    size: tuple[int, int]
    spacing: tuple[float, float, float]

    def every(self, distance_mm: float) -> NDArray[np.int64]:
        """Return indices of slices at most this far apart, or next to each other, the first and the last among them.

        They are `FEWEST_SLICES` or more where there are as many: the spacing may be wrong.
        """
        step = max(1, min(int(distance_mm / self.spacing[0]), len(self.slices) // FEWEST_SLICES))
        return np.union1d(np.array(self.slices[::step]), np.array(self.slices[-1:]))


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the network sees of a part, and what it says.

    Attributes:
        part: The part.
        slices: Indices of the slices that are looked at.
        box: The part of each slice that is looked at; None: nothing, because no lung is there.
        levels: (n, y, x) the slices on the network's grid, where the window is to be estimated from them.
        maps: (n, 2, y, x) probabilities of both lungs, 0 in regions that are no lung.
    """

    part: _Part
    slices: NDArray[np.int64]
    box: Box | None
    levels: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, INSIDE, INSIDE), np.float32))
    maps: Maps = field(default_factory=lambda: np.zeros((0, 2, INSIDE, INSIDE), np.uint8))


def _parts(scan: Scan, geometry: Geometry) -> list[_Part]:
    count, height, width = geometry.shape
    if isinstance(scan, ImageStack):
        return [_Part(range(z, z + 1), size, _assumed_spacing(size[1])) for z, size in enumerate(scan.sizes)]
    return [_Part(range(count), (height, width), geometry.spacing if geometry.in_mm else _assumed_spacing(width))]


def _assumed_spacing(width: int) -> tuple[float, float, float]:
    return LOCATE_MM, IMAGE_WIDTH_MM / width, IMAGE_WIDTH_MM / width


def _limits(numbers: StoredNumbers) -> tuple[float, float] | None:
    """Return the numbers of `LIMITS_HU`; None where the window is not known."""
    low, high = LIMITS_HU
    return None if numbers.kind.is_window else (low + numbers.shift_hu, high + numbers.shift_hu)


def _blank_number(values: NDArray[Any], numbers: StoredNumbers) -> float | None:
    """Return the number that all outside the lungs was set to, as some data sets do; None if there is a body."""
    if numbers.kind.is_window:
        return None
    sample = values[:: max(1, len(values) // SAMPLED_SLICES), ::4, ::4]
    found, counts = np.unique(sample, return_counts=True)
    blank = found[counts.argmax()]
    hu = sample[sample != blank] - numbers.shift_hu
    soft = hu[hu > AIR_LIKE_HU] > SOFT_TISSUE_FROM_HU
    is_blanked = counts.max() > BLANK * sample.size and soft.size > 0 and soft.mean() < LEAST_SOFT_TISSUE
    return float(blank) if is_blanked else None


@dataclass(frozen=True, eq=False)
class _Slices:
    """The slices of a scan as the network is to see them.

    Attributes:
        values: (z, y, x) the scan's numbers.
        limits: The numbers of `LIMITS_HU`; None where the window is not known.
        blank: The number of what was blanked, which is shown as soft tissue; None: nothing was.
        tissue: The number of soft tissue, where HU are known.
        transposed: Whether rows and columns are exchanged.
        inverted: Whether bright and dark are exchanged.
    """

    values: NDArray[Any]
    limits: tuple[float, float] | None
    blank: float | None
    tissue: float
    transposed: bool = False
    inverted: bool = False

    def part(self, z: int, box: Box) -> NDArray[Any]:
        """Return (y, x) a part of a slice."""
        plane = self.values[z, box.top : box.bottom, box.left : box.right]
        plane = plane if self.blank is None else np.where(plane == self.blank, self.tissue, plane)
        plane = -plane.astype(np.float32) if self.inverted else plane
        return plane.T if self.transposed else plane


def _look(network: LungNetwork, slices: _Slices, looks: Sequence[_Seen], keep_levels: bool = False) -> list[_Seen]:
    """Run the network on the slices of all parts, one after the other."""
    wanted = [(int(z), look.box) for look in looks if look.box for z in look.slices]
    found = network.maps((slices.part(z, box) for z, box in wanted), slices.limits)
    seen = []
    for look in looks:
        maps = np.zeros((len(look.slices), 2, INSIDE, INSIDE), dtype=np.uint8)
        levels = np.zeros((len(maps) if keep_levels else 0, INSIDE, INSIDE), dtype=np.float32)
        for row, one in enumerate(islice(found, len(maps) if look.box else 0)):
            maps[row] = np.rint(255 * (one.probability.swapaxes(1, 2) if slices.transposed else one.probability))
            if keep_levels:
                levels[row] = one.levels.T if slices.transposed else one.levels
        _drop_doubtful_regions(maps)
        seen.append(replace(look, levels=levels, maps=maps))
    return seen


def _drop_doubtful_regions(maps: Maps) -> None:
    """Set the maps of a part to 0 where regions are too small to be lung, and everywhere if the lungs are doubtful."""
    probability = [plane.max(0) for plane in maps]
    lungs = PackedMask.from_slices(plane >= HALF for plane in probability)
    pixels = voxels_per_slice(lungs)
    certainty = sum(int(plane[lung].sum()) for plane, lung in zip(probability, lungs, strict=True))
    least = LEAST_CERTAINTY_OF_VOLUME if len(maps) > 1 else LEAST_CERTAINTY
    if pixels.max() < SMALLEST_LUNG * INSIDE**2 or certainty < least * 255 * pixels.sum():
        maps[:] = 0
        return
    regions = find_components(lungs, CONNECTIVITY_6)
    kept = regions.select(regions.sizes >= SMALLEST_REGION * regions.sizes.max())
    for plane, lung, keep in zip(maps, lungs, kept, strict=True):
        plane[:, lung & ~keep] = 0


def _certain_pixels(located: Sequence[_Seen]) -> int:
    """Count the pixels that are lung with a probability of 0.9 or more."""
    return sum(int(np.count_nonzero(plane.max(0) >= CERTAIN)) for seen in located for plane in seen.maps)


def _check_polarity(look: Callable[..., list[_Seen]], slices: _Slices, located: Sequence[_Seen]) -> None:
    """Refuse grey levels that are bright where CT is dark: in most parts looked at, the negative shows lungs better.

    Raises:
        IntensityError: They are.
    """
    shown = [seen for seen in located if seen.maps.any()]
    looked_at = shown[:: max(1, len(shown) // POLARITY_PARTS)]
    negatives = look(replace(slices, inverted=True), looked_at)
    if sum(map(_shows_lungs_better, negatives, looked_at)) > len(looked_at) / 2:
        raise IntensityError(
            "the grey levels seem to be inverted, air bright and bone dark, or the picture lies on its side: "
            "invert it, turn it upright, or export it in a lung window"
        )


def _shows_lungs_better(one: _Seen, other: _Seen) -> bool:
    """Return whether lungs are found with much more certainty, or with about the same in more pixels."""
    gain = _mean_certainty(one.maps) - _mean_certainty(other.maps)
    return gain > MUCH_CERTAINTY or (gain > -LITTLE_CERTAINTY and _certain_pixels([one]) > _certain_pixels([other]))


def _mean_certainty(maps: Maps) -> float:
    """Return the mean probability, from 0 to 1, of what is more likely lung than not; 0 without any."""
    lung = maps.max(1)
    return float(lung[lung >= HALF].mean()) / 255 if (lung >= HALF).any() else 0.0


def _around(located: _Seen) -> Box | None:
    """Return the part of the slices that holds the lungs with a margin; None if there are none."""
    bounds = bounding_box((located.maps.max(1) >= HALF).any(0))
    if bounds is None:
        return None
    ends = []
    for side, size in zip(bounds, located.part.size, strict=True):
        margin = AROUND * (side.stop - side.start)
        ends += [
            max(0, round((side.start - margin) / INSIDE * size)),
            min(size, round((side.stop + margin) / INSIDE * size)),
        ]
    return Box(*ends)


def _estimate(numbers: StoredNumbers, located: Sequence[_Seen]) -> Intensity:
    """Estimate the window of each part; an image without lung gets the mean of the others' windows."""
    lines: list[Line | None] = []
    for number, seen in enumerate(located, start=1):
        lungs = seen.maps.max(1) >= HALF
        shown = lungs.any((1, 2))
        try:
            lines.append(estimate_window(seen.levels[shown], lungs[shown]) if shown.any() else None)
        except IntensityError as error:
            raise IntensityError(f"picture {number}: {error}" if len(located) > 1 else str(error)) from None
    mean = np.mean([line for line in lines if line is not None], axis=0)
    slope, intercept = np.array([mean if line is None else line for line in lines]).T
    reason = f"{numbers.reason}; HU are estimated from the lungs and what lies around them"
    return Intensity(numbers.kind, slope, intercept, reason, calibrated=False)


def _lung_field(outlined: Sequence[_Seen], scan: Scan, geometry: Geometry, field_of_view: FieldOfView) -> LungField:
    planes = [plane for seen in outlined for plane in _restore(seen, geometry.shape[1:])]
    right, left = (PackedMask(tuple(side)) for side in zip(*planes, strict=True))
    is_volume = not isinstance(scan, ImageStack)
    boxes = [box for seen in outlined for box in _boxes(right, left, seen.part, not is_volume, field_of_view)]
    lungs = LungField(
        right,
        left,
        tuple(boxes),
        spacing_mm=geometry.spacing[0] if is_volume and geometry.in_mm else None,
        sides_known=_sides_are_clear(outlined),
    )
    return replace(lungs, warnings=_warnings(lungs, scan, geometry))


def _restore(seen: _Seen, shape: tuple[int, ...]) -> Iterator[tuple[PackedSlice, PackedSlice]]:
    """Yield the right and the left lung (y, x) of each slice of a part on the scan's own pixels."""
    _, dy, dx = seen.part.spacing
    smallest, box = SMALLEST_SLICE_MM2 / (dy * dx), seen.box or Box(0, 0, 0, 0)
    position = np.interp(seen.part.slices, seen.slices, np.arange(len(seen.slices)))
    for below, share in zip(np.floor(position).astype(int), position % 1, strict=True):
        between = seen.maps[below] if share == 0 else (1 - share) * seen.maps[below] + share * seen.maps[below + 1]
        sides = np.zeros((2, *shape), dtype=np.bool_)
        if between.max() >= HALF:
            on_right, on_left = (_enlarge(side, box) for side in between)
            lung = np.maximum(on_right, on_left) >= HALF
            if np.count_nonzero(lung) >= smallest:
                inside = sides[:, box.top : box.bottom, box.left : box.right]
                inside[0], inside[1] = lung & (on_right >= on_left), lung & (on_right < on_left)
        yield pack_slice(sides[0]), pack_slice(sides[1])


def _enlarge(probability: NDArray[np.floating | np.uint8], box: Box) -> NDArray[np.uint8]:
    """Scale a map of the network to the pixels of a box."""
    image = Image.fromarray(np.rint(probability).astype(np.uint8))
    return np.asarray(image.resize((box.right - box.left, box.bottom - box.top), Image.Resampling.BILINEAR))


def _boxes(
    right: PackedMask, left: PackedMask, part: _Part, is_image: bool, field_of_view: FieldOfView
) -> list[Box | None]:
    """Return the box of each slice of a part; they are equal, so that the scale is constant.

    An image that the lungs fill was cropped to them: its box is all of it, because its rim may then be lesion.
    """
    height, width = part.size
    found = [side.slices[z].box for z in part.slices for side in (right, left)]
    shown = [z for z in part.slices if right.slices[z].box or left.slices[z].box]
    if not shown:
        return [None] * len(part.slices)
    rows, columns = zip(*(box for box in found if box is not None), strict=True)
    margin = [round(MARGIN_MM / mm) for mm in part.spacing[1:]]
    box = Box(
        max(0, min(row.start for row in rows) - margin[0]),
        min(height, max(row.stop for row in rows) + margin[0]),
        max(0, min(column.start for column in columns) - margin[1]),
        min(width, max(column.stop for column in columns) + margin[1]),
    )
    is_cropped = is_image and (box.bottom - box.top) * (box.right - box.left) > CROPPED_IMAGE * height * width
    if is_cropped or field_of_view is FieldOfView.SLICE:
        box = Box(0, height, 0, width)
    return [box if shown[0] - 1 <= z <= shown[-1] + 1 else None for z in part.slices]


def _sides_are_clear(outlined: Sequence[_Seen]) -> bool:
    """Return whether the network tells the right lung from the left one with some certainty."""
    certainty = pixels = 0.0
    for right, left in (plane.astype(np.float32) for seen in outlined for plane in seen.maps):
        lung = np.maximum(right, left) >= HALF
        certainty += float((np.abs(right - left)[lung] / (right + left)[lung]).sum())
        pixels += float(lung.sum())
    return certainty >= CLEAR_SIDES * max(pixels, 1.0)


def _warnings(lungs: LungField, scan: Scan, geometry: Geometry) -> tuple[str, ...]:
    is_volume = not isinstance(scan, ImageStack)
    warnings = _coverage_warnings(lungs) if is_volume else []
    if not lungs.sides_known:
        warnings.append("which lung is the right one and which the left one cannot be told")
    elif geometry.has_directions:
        assumption = "a picture states no sides: right and left follow the radiological convention by assumption"
        warnings += [*(() if is_volume else (assumption,)), *_side_warnings(lungs)]
    return tuple(warnings)


def _coverage_warnings(lungs: LungField) -> list[str]:
    """Say where the lungs of a volume reach the end of the scan, or a side of its pictures."""
    areas = voxels_per_slice(lungs.mask)
    ends = [name for name, area in (("lowest", areas[0]), ("highest", areas[-1])) if area > 0.25 * areas.max()]
    front, back, right, left = lungs.outline[0], lungs.outline[-1], lungs.outline[:, 0], lungs.outline[:, -1]
    sides = {"front": front, "back": back, "right": right, "left": left}
    reached = [name for name, side in sides.items() if side.mean() > REACHED]
    warnings = []
    if ends and len(areas) > 1:
        warnings.append(
            f"the lungs reach the {' and the '.join(ends)} slice: the scan does not cover them whole, and volumes "
            "are of the covered part"
        )
    if reached:
        warnings.append(
            f"the lungs reach the {' and the '.join(reached)} side of the slices: the field of view does not cover "
            "them whole, and volumes are of the covered part"
        )
    return warnings


def _side_warnings(lungs: LungField) -> list[str]:
    voxels = {"right": voxels_per_slice(lungs.right).sum(), "left": voxels_per_slice(lungs.left).sum()}
    return [f"no {name} lung was found" for name, n in voxels.items() if n < 0.02 * sum(voxels.values())]
