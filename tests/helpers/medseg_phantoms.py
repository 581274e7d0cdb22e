"""Three phantoms in the layout of MedSeg dataset 2 as published: volumes 1, 4 and 5."""

from pathlib import Path

import numpy as np

from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from helpers.windows import grey_levels


def write_phantoms(root: Path, grey: bool) -> Path:
    """Write phantoms of 24 x 96 x 128 voxels, in HU or as grey levels of a window (`grey`), and return `root`."""
    for directory in ("rp_im", "rp_msk"):
        (root / directory).mkdir()
    for seed, name in enumerate(("1", "4", "5")):
        phantom = chest_phantom(seed, (24, 96, 128))
        values = phantom.scan.values
        if grey:
            values = grey_levels(values)
        for directory, voxels in (("rp_im", values), ("rp_msk", phantom.lesions.voxels.astype(np.uint8))):
            nifti.write_scan(Scan(voxels, phantom.scan.geometry), root / directory / f"{name}.nii.gz")
    return root
