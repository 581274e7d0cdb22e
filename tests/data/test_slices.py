from pathlib import Path

import numpy as np
import pytest

from groundglass.data.catalogue import find_cases
from groundglass.data.slices import cut_case, read_pair, take_labels
from groundglass.errors import DatasetError
from groundglass.scan import nifti
from groundglass.scan.crop import Letterbox
from groundglass.scan.geometry import Geometry
from groundglass.scan.lungs import Box
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan


def test_the_publishers_stack_is_a_patient_a_slice(phantom: Phantom, tmp_path: Path) -> None:
    shown = slice(8, 16)
    grid = Geometry((8, *phantom.scan.geometry.shape[1:]), phantom.scan.geometry.affine_lps)
    nifti.write_scan(Scan(phantom.scan.values[shown], grid), tmp_path / "tr_im.nii.gz")
    labels = phantom.lesions.voxels[shown].astype(np.uint8) * 3
    nifti.write_scan(Scan(labels, grid), tmp_path / "tr_mask.nii.gz")
    slices = cut_case(find_cases(tmp_path)[0], (96, 128))
    assert len(slices) == 8
    assert len(set(slices.patient)) == 8
    assert set(np.unique(slices.labels)) == {0, 3}
    assert slices.hu.dtype == np.int16
    assert np.median(slices.hu[slices.labels > 0]) == pytest.approx(-500, abs=150)


def test_a_mask_on_another_grid_is_refused(phantom: Phantom, tmp_path: Path) -> None:
    for folder in ("rp_im", "rp_msk"):
        (tmp_path / folder).mkdir()
    nifti.write_scan(phantom.scan, tmp_path / "rp_im" / "1.nii.gz")
    moved = phantom.scan.geometry.affine_lps.copy()
    moved[2, 3] += 5
    mask = Scan(phantom.lesions.voxels.astype(np.uint8), Geometry(phantom.scan.geometry.shape, moved))
    nifti.write_scan(mask, tmp_path / "rp_msk" / "1.nii.gz")
    with pytest.raises(DatasetError, match="expected the same grid"):
        read_pair(find_cases(tmp_path)[0])


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (33, 57)])
def test_a_letterbox_gives_back_what_it_took(size: tuple[int, int]) -> None:
    plane = np.zeros((120, 150), np.float32)
    plane[50:80, 60:100] = 1
    box = Box(20, 100, 30, 140)
    letterbox = Letterbox(box, size)
    taken = letterbox.take(plane, -7.0)
    assert taken.shape == size
    back = letterbox.put_back(taken)
    assert back.shape == (80, 110)
    assert np.abs((back > 0.5).astype(float) - plane[20:100, 30:140]).mean() < 0.02


def test_a_pixel_takes_the_label_that_covers_most_of_it() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[:20], labels[20:30] = 1, 2
    taken = take_labels(Letterbox(Box(0, 40, 0, 40), (8, 8)), labels)
    assert taken[:, 4].tolist() == [1, 1, 1, 1, 2, 2, 0, 0]
