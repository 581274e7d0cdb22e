"""What a server has of a job, for comparison with what the page shows of it."""

from __future__ import annotations

import gzip
import json
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from helpers.server import Server


def get(server: Server, path: str) -> bytes:
    """The body of `/api/jobs/...`."""
    with server.client() as client:
        return client.get(f"/api/jobs/{path}").raise_for_status().content


def slice_numbers(server: Server, job: str) -> list[int]:
    """Of each slice of the view, its number in the file."""
    numbers: list[int] = json.loads(get(server, f"{job}/view/slices.json"))["file_slice_of_view"]
    return numbers


def image(server: Server, path: str) -> Any:
    """A packed NIfTI."""
    return nib.Nifti1Image.from_bytes(gzip.decompress(get(server, path)))


def lesions(server: Server, job: str) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """The mask of the view, (z, y, x) from feet to head, front to back, right to left; and mm along (y, x)."""
    found = nib.as_closest_canonical(image(server, f"{job}/view/lesions.nii.gz"))
    dx, dy, _ = found.header.get_zooms()
    return np.asarray(found.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1], (float(dy), float(dx))


def places(found: Any) -> set[tuple[float, ...]]:
    """Where in the patient the marked voxels of a mask are, in tenths of mm."""
    marked = np.argwhere(np.asarray(found.dataobj) != 0)
    return {tuple(np.round(place, 1) + 0.0) for place in nib.affines.apply_affine(found.affine, marked)}
