"""The results of a job on a server, to compare with what the page shows."""

from __future__ import annotations

import gzip
import json
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from helpers.server import Server


def download(server: Server, path: str) -> bytes:
    """Return the body of `/api/jobs/{path}`."""
    with server.client() as client:
        return client.get(f"/api/jobs/{path}").raise_for_status().content


def slice_numbers(server: Server, job: str) -> list[int]:
    """Return for each slice of the view its number in the file."""
    numbers: list[int] = json.loads(download(server, f"{job}/view/slices.json"))["file_slice_of_view"]
    return numbers


def nifti_image(server: Server, path: str) -> Any:
    """Return a .nii or .nii.gz as nibabel's image."""
    content = download(server, path)
    return nib.Nifti1Image.from_bytes(gzip.decompress(content) if path.endswith(".gz") else content)


def view_slices(server: Server, job: str, name: str) -> tuple[NDArray[Any], tuple[float, float]]:
    """Return slices as they appear on the screen, and the size of their voxels.

    Args:
        server: The server.
        job: Id of the job.
        name: `scan` (HU), `lesions` (class of each voxel) or `lungs` (1 right, 2 left).

    Returns:
        (z, y, x) from feet to head, front to back, right to left; and mm along (y, x).
    """
    file = "scan.nii" if name == "scan" else f"{name}.nii.gz"
    image = nib.as_closest_canonical(nifti_image(server, f"{job}/view/{file}"))
    dx, dy, _ = image.header.get_zooms()
    return np.asarray(image.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1], (float(dy), float(dx))


def is_same_foreground(one: Any, other: Any) -> bool:
    """Return whether the foreground voxels of two masks lie at the same positions in the patient, to 0.05 mm."""
    positions = [
        nib.affines.apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj) != 0)) for mask in (one, other)
    ]
    if len(positions[0]) != len(positions[1]):
        return False
    distances_mm, nearest = cKDTree(positions[1]).query(positions[0])
    return bool(np.max(distances_mm) < 0.05 and np.unique(nearest).size == len(positions[0]))
