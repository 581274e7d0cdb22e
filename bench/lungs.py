"""Compare the lung field with reference lungs and lesions, volume by volume.

python bench/lungs.py [DATA]    # a folder that holds medseg/; default: $GROUNDGLASS_DATA, else ../shared/data
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from groundglass.data.case import Case
from groundglass.data.catalogue import find_cases
from groundglass.data.slices import read_case
from groundglass.inference.lungs import find_lungs
from groundglass.io.reader import read_scan
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import recognise_intensity
from groundglass.scan.lung_field import Box
from groundglass.scan.packed_mask import voxels_per_slice


def lesion_in_boxes(boxes: tuple[Box | None, ...], lesions: np.ndarray) -> int:
    """Count the voxels of (z, y, x) lesions inside the box of each slice."""
    return sum(int(lesions[z, b.top : b.bottom, b.left : b.right].sum()) for z, b in enumerate(boxes) if b)


def measure(case: Case) -> dict[str, float]:
    """Measure the lung field of a case: {name of a column: value}."""
    scan, labels = read_case(case)
    view = AxialView(scan.geometry)
    lesions = view.to_axial(labels) > 0
    start = time.perf_counter()
    hu = recognise_intensity(scan).to_hu(view.to_axial(scan.values))
    field = find_lungs(scan, hu, view.geometry)
    seconds = time.perf_counter() - start
    joined = field.including_lesions(lesions)
    whole, whole_joined = np.asarray(field.mask), np.asarray(joined.mask)
    box_pixels = sum((b.bottom - b.top) * (b.right - b.left) for b in field.boxes if b)
    row = {
        "lesion in box %": 100 * lesion_in_boxes(field.boxes, lesions) / max(1, lesions.sum()),
        "in lung %": 100 * (whole & lesions).sum() / max(1, lesions.sum()),
        "box share %": 100 * box_pixels / hu.size,
        "seconds": seconds,
    }
    lung_file = (
        case.image.parent.parent
        / {"volumes": "rp_lung_msk", "coronacases": "lung"}.get(case.source, "-")
        / case.image.name
    )
    if lung_file.is_file():
        reference = view.to_axial(read_scan(lung_file).values) > 0
        for name, mask in (("", whole), (" with lesions", whole_joined)):
            row[f"ratio{name}"] = mask.sum() / reference.sum()
            row[f"Dice{name}"] = 2 * (mask & reference).sum() / (mask.sum() + reference.sum())
        row["right/left"] = voxels_per_slice(field.right).sum() / max(1, voxels_per_slice(field.left).sum())
    return row


def main() -> None:
    root = Path(__file__).parent.parent
    data = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("GROUNDGLASS_DATA", root / "../shared/data"))
    cases = find_cases(data)
    rows = {}
    for case in cases:
        if case.source != "slices":
            rows[case.name] = measure(case)
            print(
                f"{case.name:16}",
                "  ".join(f"{name} {value:.3g}" for name, value in rows[case.name].items()),
                flush=True,
            )
    volumes = [row for name, row in rows.items() if name.startswith("volumes")]
    for name in ("Dice", "Dice with lesions"):
        print(f"mean {name} of the volumes: {np.mean([row[name] for row in volumes]):.3f}")
    pictures = {case.name: measure(case) for case in cases if case.source == "slices"}
    inside = np.array([row["lesion in box %"] for row in pictures.values()])
    print(
        f"pictures: {len(inside)}, lesion in box: mean {inside.mean():.2f} %, worst {inside.min():.1f} %, "
        f"box {np.mean([row['box share %'] for row in pictures.values()]):.0f} % of the picture"
    )
    print("worst pictures:", sorted(pictures, key=lambda name: pictures[name]["lesion in box %"])[:5])


if __name__ == "__main__":
    main()
