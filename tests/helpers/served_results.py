"""The results of a job on a server, to compare with what the page shows."""

from __future__ import annotations

import gzip
import json
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

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
    """Return a .nii.gz as nibabel's image."""
    return nib.Nifti1Image.from_bytes(gzip.decompress(download(server, path)))


def view_slices(server: Server, job: str, name: str) -> tuple[NDArray[Any], tuple[float, float]]:
    """Return slices as they appear on the screen, and the size of their voxels.

    Args:
        server: The server.
        job: Id of the job.
        name: `scan` (HU) or `lesions` (class of each voxel).

    Returns:
        (z, y, x) from feet to head, front to back, right to left; and mm along (y, x).
    """
    image = nib.as_closest_canonical(nifti_image(server, f"{job}/view/{name}.nii.gz"))
    dx, dy, _ = image.header.get_zooms()
    return np.asarray(image.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1], (float(dy), float(dx))


def foreground_positions_mm(mask: Any) -> set[tuple[float, ...]]:
    """Return the positions of the foreground voxels of a mask in the patient, rounded to tenths of mm."""
    voxels = np.argwhere(np.asarray(mask.dataobj) != 0)
    return {tuple(np.round(position, 1) + 0.0) for position in nib.affines.apply_affine(mask.affine, voxels)}
