"""A model beside two readers: Dice of each pair on the scans that both segmented, whole volumes, on the second's grid.

    python bench/second_reader.py DATA/medseg/dataset2 MORE/reader2 --case 4 --case 5 --case 8 [--model NAME.onnx]

`DATA/rp_im` and `rp_msk` hold the scans and the first reader's masks, the other folder the second reader's. The
second reader drew on 128 x 128 pixels: a pixel of that grid is lesion where half of it is. Pooled over all voxels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.open_model import open_model
from groundglass.inference.pipeline import segment_scan
from groundglass.io.reader import read_scan
from groundglass.metrics import Confusion
from groundglass.scan.crop import resize_slice
from groundglass.scan.geometry import AxialView

PAIRS = (("model", "first"), ("model", "second"), ("first", "second"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--case", action="append", required=True)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    segmenter = open_model(arguments.model)
    pooled = dict.fromkeys(PAIRS, Confusion())
    print("| scan | model and first reader | model and second reader | both readers | interval holds first, second |")
    print("|---|---|---|---|---|")
    for case in arguments.case:
        scan = read_scan(arguments.data / "rp_im" / f"{case}.nii.gz")
        segmented = segment_scan(scan, segmenter)
        first, second = (
            _upright(folder / f"{case}.nii.gz") for folder in (arguments.data / "rp_msk", arguments.second)
        )
        size = second.shape[1:]
        masks = {
            "model": _on_grid(np.asarray(segmented.lesions), size),
            "first": _on_grid(first, size),
            "second": second,
        }
        counts = {pair: Confusion.count(masks[pair[0]], masks[pair[1]]) for pair in PAIRS}
        pooled = {pair: pooled[pair] + counts[pair] for pair in PAIRS}
        lung = _on_grid(np.asarray(segmented.lung_field.mask), size).sum() / 100
        interval = segmenter.card.burden_interval
        holds = "not known"
        if interval:
            low, high = interval.of(masks["model"].sum() / lung)
            holds = ", ".join("yes" if low <= masks[reader].sum() / lung <= high else "no" for reader in PAIRS[2])
        print(
            f"| {case} | {' | '.join(f'{100 * (counts[pair].dice or 0):.1f}' for pair in PAIRS)} | {holds} |",
            flush=True,
        )
    print(f"| pooled | {' | '.join(f'{100 * (pooled[pair].dice or 0):.1f}' for pair in PAIRS)} | |")


def _upright(path: Path) -> NDArray[np.bool_]:
    """Read a mask as upright axial slices (z, y, x)."""
    mask = read_scan(path)
    return np.asarray(AxialView(mask.geometry).to_axial(mask.values) > 0)


def _on_grid(mask: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Scale the slices of a mask (z, y, x) to another size."""
    return np.stack([resize_slice(plane, *size) >= 0.5 for plane in mask])


if __name__ == "__main__":
    main()
