"""Measure how the lungs are found, and what that does to the lesions, on the inputs that users have.

python bench/lungs.py scans|cuts|windows|odd|pictures|time [CASE...] [--slices N] [-o rows.json] [--pictures FOLDER]

Data: $GROUNDGLASS_DATA, else ../shared/data, with what lies beside it in ../shared/more. Everything goes through
`segment_scan`, so that an older version of the package can be measured by the same script. `--slices` takes the middle
slices of each case alone, where time is short. `--pictures` writes slices with contours into a folder; these show
patients, and are not to be passed on.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from groundglass.data.case_files import read_case
from groundglass.data.catalogue import find_cases, select
from groundglass.errors import GroundglassError
from groundglass.inference.open_model import open_model
from groundglass.inference.pipeline import SegmentedScan, StageTimer, segment_lungs, segment_scan
from groundglass.io.reader import read_scan
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.packed_mask import voxels_per_slice
from groundglass.scan.scan import Scan

DATA = Path(os.environ.get("GROUNDGLASS_DATA", Path(__file__).parent.parent / "../shared/data"))
MORE = DATA.parent / "more"
LUNG_FOLDERS = {"rp_im": "rp_lung_msk", "ct": "lung"}
NOT_STATED = 255
CUTS_PX = (-3, 0, 5, 20)
WINDOWS_HU = (
    (-2048, 1700), (-1024, 1500), (-1000, 1000), (-1600, 800), (-1500, 500),
    (-1200, 600), (-1350, 150), (-1250, 250), (-1000, 400), (-1000, 50),
)  # fmt: skip
CLIPPED_WINDOWS_HU = ((-160, 240), (-1000, -500))
SLICES_OF_WINDOWS = 6  # slices of a scan that are written as pictures
Row = dict[str, Any]


class Upright:
    """A case in upright axial slices: image, lesions and reference lungs (lesions counted in; None if not stated)."""

    def __init__(self, name: str, slices: int | None = None) -> None:
        (case,) = select(find_cases(DATA), [name])
        scan, labels = read_case(case)
        view = AxialView(scan.geometry)
        self.name = name
        self.scan = replace(scan, values=view.to_axial(scan.values), geometry=view.geometry)
        self.lesions = view.to_axial(labels) > 0
        lungs = view.to_axial(
            read_scan(case.image.parent.parent / LUNG_FOLDERS[case.image.parent.name] / case.image.name).values
        )
        if slices is not None:
            first = max(0, (len(lungs) - slices) // 2)
            middle = slice(first, first + slices)
            self.scan = self.part(middle, slice(0, None), slice(0, None))
            self.lesions, lungs = self.lesions[middle], lungs[middle]
        self.stated = (lungs != NOT_STATED).all((1, 2))
        self.lungs = (lungs == 1) | self.lesions

    def part(self, z: slice, y: slice, x: slice) -> Scan:
        """Cut a part out of the scan; it keeps its place in the patient."""
        geometry = self.scan.geometry
        values = self.scan.values[z, y, x]
        affine = geometry.affine_lps.copy()
        affine[:3, 3] = geometry.position((z.start or 0, y.start or 0, x.start or 0))
        return replace(self.scan, values=values, geometry=replace(geometry, shape=values.shape, affine_lps=affine))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two masks; 1 if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def outside_ml(found: np.ndarray, case: Upright) -> tuple[float, float]:
    """Volumes found more than 5 mm outside the reference lungs of a slice: in the lower half, and in the upper one."""
    pixels = max(1, round(5 / case.scan.geometry.spacing[-1]))
    far = [
        mask & ~ndimage.binary_dilation(lungs, iterations=pixels) for mask, lungs in zip(found, case.lungs, strict=True)
    ]
    voxels = np.where(case.stated, np.sum(far, axis=(1, 2)), 0)
    ml, middle = voxels * np.prod(case.scan.geometry.spacing) / 1000, len(voxels) // 2
    return float(ml[:middle].sum()), float(ml[middle:].sum())


class Bench:
    """The model, how many slices of each case are taken, and where pictures go."""

    def __init__(self, slices: int | None, pictures: Path | None) -> None:
        self.segmenter, self.slices, self.pictures = open_model(), slices, pictures

    def case(self, name: str) -> Upright:
        """Read a case."""
        return Upright(name, self.slices)

    def segment(self, scan: Scan) -> SegmentedScan:
        """Segment a scan."""
        return segment_scan(scan, self.segmenter)

    def draw(self, name: str, segmented: SegmentedScan, every: int = 1) -> None:
        """Write the slices with contours of the right lung (green), the left (blue), and the lesions (orange)."""
        if self.pictures is None:
            return
        tiles = []
        for z in range(0, len(segmented.hu), every):
            grey = np.clip((segmented.hu[z] + 1350) / 1600 * 255, 0, 255).astype(np.uint8)
            rgb = np.stack([grey] * 3, -1)
            field = segmented.lung_field
            for mask, colour in (
                (field.right, (0, 255, 0)),
                (field.left, (80, 160, 255)),
                (segmented.lesions, (255, 140, 0)),
            ):
                rgb[mask[z] & ~ndimage.binary_erosion(mask[z], iterations=max(1, len(grey) // 256))] = colour
            tiles.append(np.asarray(Image.fromarray(rgb).resize((256, 256))))
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 6)
        self.pictures.mkdir(parents=True, exist_ok=True)
        sheet = np.concatenate([np.concatenate(tiles[i : i + 6], 1) for i in range(0, len(tiles), 6)])
        Image.fromarray(sheet).save(self.pictures / f"{name.replace('/', '-')}.png")


def scans(bench: Bench, names: list[str]) -> Iterator[Row]:
    """Target 1: the lungs of whole scans beside reference lungs."""
    for name in names:
        case = bench.case(name)
        segmented = segment_lungs(case.scan, bench.segmenter.card)
        field = segmented.lung_field
        found = np.asarray(field.including_lesions(case.lesions).mask)
        outside = outside_ml(np.asarray(field.mask), case)
        inside = sum(
            int(case.lesions[z, b.top : b.bottom, b.left : b.right].sum()) for z, b in enumerate(field.boxes) if b
        )
        yield {
            "case": name,
            "Dice": dice(found[case.stated], case.lungs[case.stated]),
            "Dice, as found": dice(np.asarray(field.mask)[case.stated], case.lungs[case.stated]),
            "volume": found[case.stated].sum() / case.lungs[case.stated].sum(),
            "outside, lower half, ml": outside[0],
            "outside, upper half, ml": outside[1],
            "lesion in box": inside / max(1, int(case.lesions.sum())),
            "right share": int(voxels_per_slice(field.right).sum()) / int(voxels_per_slice(field.mask).sum()),
        }
        bench.draw(f"scan {name}", segmented, max(1, len(found) // 24))


def cuts(bench: Bench, names: list[str]) -> Iterator[Row]:
    """Target 2: parts of a scan beside the same parts of the whole scan's result."""
    for name in names:
        case = bench.case(name)
        whole = bench.segment(case.scan)
        lungs, lesions = np.asarray(whole.lung_field.mask), np.asarray(whole.lesions)
        rows, columns = (np.flatnonzero(lungs.any(axis)) for axis in ((0, 2), (0, 1)))
        shown = np.flatnonzero(lungs.any((1, 2)))
        every = slice(0, None)
        bounds: dict[str, tuple[slice, slice, slice]] = {
            f"cut at {px:+d} px": (
                every,
                slice(max(0, int(rows[0]) - px), int(rows[-1]) + 1 + px),
                slice(max(0, int(columns[0]) - px), int(columns[-1]) + 1 + px),
            )
            for px in CUTS_PX
        }
        middle, third = (int(columns[0]) + int(columns[-1])) // 2, (int(shown[-1]) - int(shown[0])) // 3
        bounds |= {
            "right lung alone": (every, every, slice(0, middle)),
            "left lung alone": (every, every, slice(middle, None)),
            "apex missing": (slice(0, int(shown[-1]) - third), every, every),
            "base missing": (slice(int(shown[0]) + third, None), every, every),
        }
        for title, part in bounds.items():
            row: Row = {"case": name, "part": title}
            try:
                found = bench.segment(case.part(*part))
            except GroundglassError as error:
                yield row | {"refused": str(error)[:80]}
                continue
            now = np.asarray(found.lung_field.mask), np.asarray(found.lesions)
            for key, mask, before in (("lung", now[0], lungs[part]), ("lesion", now[1], lesions[part])):
                row[key] = mask.sum() / max(1, before.sum())
            row["lesion voxels of the whole"] = int(lesions[part].sum())
            yield row | {
                "said": any("reach" in text for text in found.lung_field.warnings),
                "sides": any(
                    "lung was found" in text or "cannot be told" in text for text in found.lung_field.warnings
                ),
            }
            bench.draw(f"cut {name} {title}", found, max(1, len(now[0]) // 12))


def windows(bench: Bench, names: list[str]) -> Iterator[Row]:
    """Target 3: slices as pictures in ten windows beside the same slices in HU."""
    for name in names:
        case = bench.case(name)
        segmented = bench.segment(case.scan)
        hu = np.stack(list(segmented.hu))
        lesions, lungs = np.asarray(segmented.lesions), np.asarray(segmented.lung_field.mask)
        chosen = np.flatnonzero(lesions.any((1, 2)))
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), SLICES_OF_WINDOWS)).astype(int)]
        rows, columns = (np.flatnonzero(lungs.any(axis)) for axis in ((0, 2), (0, 1)))
        views = {
            "whole": (slice(0, None), slice(0, None)),
            "cut to the lungs": (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)),
        }
        for view, part in views.items():
            alone = [(hu[z][part], *_pictured(bench, _hu_slice(hu[z][part], case.scan))) for z in chosen]
            for low, high in (*WINDOWS_HU, *CLIPPED_WINDOWS_HU):
                for form in ("png", "jpeg"):
                    yield {"case": name, "view": view, "window": f"{low} to {high}", "form": form} | _compare(
                        bench, alone, low, high, form
                    )


def _hu_slice(hu: np.ndarray, scan: Scan) -> Scan:
    values = np.rint(hu)[None].astype(np.int16)
    return Scan(values, replace(scan.geometry, shape=values.shape))


def _pictured(bench: Bench, scan: Scan) -> tuple[np.ndarray | None, str]:
    try:
        return np.asarray(bench.segment(scan).lesions)[0], ""
    except GroundglassError as error:
        return None, str(error)


def _compare(bench: Bench, alone: list[Any], low: float, high: float, form: str) -> Row:
    """Compare pictures in a window with the masks that the same slices in HU gave."""
    counts, refused = np.zeros(3), []
    for hu, expected, _ in alone:
        if expected is None:
            continue
        grey = np.rint(np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(grey).save(
            file, "JPEG" if form == "jpeg" else "PNG", **({"quality": 75} if form == "jpeg" else {})
        )
        path = Path(os.environ.get("TMPDIR", "/tmp")) / f"groundglass-window.{form}"
        path.write_bytes(file.getvalue())
        found, reason = _pictured(bench, read_scan(path))
        if found is None:
            refused.append(reason)
            continue
        counts += int((found & expected).sum()), int(found.sum()), int(expected.sum())
    return {
        "Dice": 2 * counts[0] / (counts[1] + counts[2]) if counts[1:].sum() else None,
        "volume": counts[1] / counts[2] if counts[2] else None,
        "refused": len(refused),
        "reason": refused[0][:70] if refused else "",
    }


def odd(bench: Bench, _: list[str]) -> Iterator[Row]:
    """Target 4: what is no chest, healthy lungs, and pictures with table and air."""
    inputs = [
        MORE / "odd" / "head_ct",
        MORE / "odd" / "normal_chest",
        *sorted((MORE / "odd" / "screenshots").iterdir()),
    ]
    for path in (*inputs, *sorted((MORE / "odd" / "pictures").iterdir()), *sorted((MORE / "no_chest").glob("*.png"))):
        row: Row = {"input": f"{path.parent.name}/{path.name}"}
        try:
            scan = _no_chest_scan(path) if path.parent.name == "no_chest" else read_scan(path)
            found = bench.segment(scan)
        except GroundglassError as error:
            yield row | {"refused": str(error)[:90]}
            continue
        lesion = int(voxels_per_slice(found.lesions).sum())
        voxel_ml = found.view.geometry.voxel_ml
        yield row | {
            "marked %": 100 * lesion / found.hu.values.size,
            "lung %": 100 * int(voxels_per_slice(found.lung_field.mask).sum()) / found.hu.values.size,
            "ml": None if voxel_ml is None else lesion * voxel_ml,
        }
        bench.draw(f"odd {path.parent.name} {path.stem}", found, max(1, len(found.hu) // 24))


def _no_chest_scan(path: Path) -> Scan:
    values = np.asarray(Image.open(path)).astype(np.int32)[None] - 2048
    affine = np.diag([3.0, 1.6, 1.6, 1.0])[:, [2, 1, 0, 3]]
    return Scan(values.astype(np.int16), Geometry(values.shape, affine))


def pictures(bench: Bench, _: list[str]) -> Iterator[Row]:
    """Target 3, real ones: dataset 1 cut to the lungs beside the publisher's whole slices."""
    for title, folder in (("cut", DATA / "medseg" / "dataset1"), ("whole", MORE / "dataset1_full")):
        counts, refused = np.zeros(3), 0
        per_slice = []
        for path in sorted((folder / "images").glob("*.png")):
            truth = np.asarray(Image.open(folder / "masks" / path.name)) > 0
            found, _reason = _pictured(bench, read_scan(path))
            refused += found is None
            found = np.zeros_like(truth) if found is None else found
            counts += int((found & truth).sum()), int(found.sum()), int(truth.sum())
            per_slice.append(dice(found, truth))
        yield {
            "pictures": title,
            "n": len(per_slice),
            "pooled Dice": 2 * counts[0] / (counts[1] + counts[2]),
            "median Dice": float(np.median(per_slice)),
            "refused": refused,
        }


def stage_times(bench: Bench, names: list[str]) -> Iterator[Row]:
    """Target 6: the time that the lungs take beside the network's own."""
    for name in names:
        case = bench.case(name)
        middle = len(case.lesions) // 2
        bench.segment(case.part(slice(middle, middle + 4), slice(0, None), slice(0, None)))  # libraries are loaded
        timer = StageTimer()
        start = time.perf_counter()
        segment_scan(case.scan, bench.segmenter, timer=timer)
        lungs = sum(timer.seconds[stage] for stage in timer.seconds if stage != "lesions")
        yield {"case": name, "slices": len(case.lesions), "lungs s": lungs, "lesions s": timer.seconds["lesions"],
               "ratio": lungs / timer.seconds["lesions"], "all s": time.perf_counter() - start}  # fmt: skip


PARTS: dict[str, Callable[[Bench, list[str]], Iterator[Row]]] = {
    "scans": scans, "cuts": cuts, "windows": windows, "odd": odd, "pictures": pictures, "time": stage_times,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--slices", type=int, help="take this many slices from the middle of each case; default: all")
    parser.add_argument("-o", "--output", type=Path, help="write the rows as JSON too")
    parser.add_argument("--pictures", type=Path, help="folder for slices with contours")
    arguments = parser.parse_args()
    names = arguments.cases or ["volumes/4", "volumes/5", "volumes/8"]
    rows = []
    for row in PARTS[arguments.part](Bench(arguments.slices, arguments.pictures), names):
        rows.append(row)
        print(
            "  ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            ),
            flush=True,
        )
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1, default=float))


if __name__ == "__main__":
    main()
