"""A small dataset in the publisher's layout, all of one phantom, and its evaluation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from groundglass.data.catalogue import find_cases
from groundglass.evaluation.evaluate import evaluate
from groundglass.evaluation.results import Evaluation
from groundglass.evaluation.targets import EvaluationTarget
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan

STACK = slice(10, 14)
PICTURE = 12


def head_first(scan: Scan) -> Scan:
    """The same voxels at the same places, the first axis the other way round."""
    affine = scan.geometry.affine_lps.copy()
    affine[:, 3] += affine[:, 0] * (len(scan.values) - 1)
    affine[:, 0] *= -1
    return Scan(scan.values[::-1], Geometry(scan.geometry.shape, affine))


@pytest.fixture(scope="session")
def folder(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, a stack, and volumes.

    volumes/1 runs from head to feet; 4 states classes in its upper half, 1 and 5 everywhere, 8 and the stack nowhere;
    5 has no lesion; those of 8 are moved.
    """
    root = tmp_path_factory.mktemp("data")
    for directory in ("rp_im", "rp_msk", "images", "masks"):
        (root / directory).mkdir()
    scan, lesions = phantom.scan, phantom.lesions.voxels
    classes = np.where(lesions, np.where(scan.values > -300, 2, 1), 0)
    classes[: len(classes) // 2] = 4 * lesions[: len(classes) // 2]
    moved = 255 * np.roll(lesions, 2, axis=2)
    for name, labels in {"1": lesions, "4": classes, "5": np.zeros_like(lesions), "8": moved}.items():
        for part, values in (("rp_im", scan.values), ("rp_msk", labels.astype(np.uint8))):
            volume = Scan(values, scan.geometry)
            nifti.write_scan(head_first(volume) if name == "1" else volume, root / part / f"{name}.nii.gz")
    for name, values in (("tr_im", scan.values[STACK]), ("tr_mask", 255 * lesions[STACK].astype(np.uint8))):
        grid = Geometry((len(values), *scan.geometry.shape[1:]), scan.geometry.affine_lps)
        nifti.write_scan(Scan(values, grid), root / f"{name}.nii.gz")
    view = AxialView(scan.geometry)
    grey = np.clip((view.to_axial(scan.values)[PICTURE].astype(np.float32) + 1250) / 1500 * 255, 0, 255)
    Image.fromarray(grey.astype(np.uint8)).save(root / "images" / "000.png")
    Image.fromarray(view.to_axial(lesions)[PICTURE].astype(np.uint8)).save(root / "masks" / "000.png")
    return root


@pytest.fixture(scope="session")
def targets(folder: Path) -> dict[str, EvaluationTarget]:
    return {case.name: EvaluationTarget(case, case.patient) for case in find_cases(folder)}


@pytest.fixture(scope="session")
def everything(targets: dict[str, EvaluationTarget], class_bands: Segmenter) -> Evaluation:
    return evaluate(list(targets.values()), class_bands)
