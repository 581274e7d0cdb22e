"""The slices that teach where the lungs are."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from groundglass.errors import DatasetError
from groundglass.io import nifti
from groundglass.scan.geometry import AxialView
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.scan.scan import Scan
from groundglass.training.lungs import slices as slices_module
from groundglass.training.lungs.no_chest import draw_no_chest
from groundglass.training.lungs.slices import (
    DRAWN,
    LEFT,
    NO_CHEST,
    PHANTOM,
    RIGHT,
    STORED_SIDE,
    LungSlices,
    read_lung_slices,
)


def write(path: Path, values: np.ndarray, phantom: Phantom) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write_scan(Scan(values, phantom.scan.geometry), path)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(0, (24, 96, 128))


@pytest.fixture(scope="module")
def medseg(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes 1 and 4, whose lung masks leave the lesions out."""
    folder = tmp_path_factory.mktemp("medseg")
    lesions, lungs = phantom.lesions.voxels, phantom.lungs.voxels & ~phantom.lesions.voxels
    for name in ("1.nii.gz", "4.nii.gz"):
        write(folder / "rp_im" / name, phantom.scan.values, phantom)
        write(folder / "rp_msk" / name, lesions.astype(np.uint8), phantom)
        write(folder / "rp_lung_msk" / name, lungs.astype(np.uint8), phantom)
    return folder


@pytest.fixture(scope="module", autouse=True)
def made_once() -> Iterator[None]:
    """Let few synthetic chests and drawings, which are the same for every dataset, be made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices_module, "DRAWN_SLICES", 24)
        patch.setattr(slices_module, "PHANTOM_SEEDS", range(100, 101))
        for name in ("chest_phantom", "draw_no_chest"):
            patch.setattr(slices_module, name, cache(getattr(slices_module, name)))
        yield


def labels_of(slices: LungSlices, group: str) -> np.ndarray:
    return np.asarray(slices.label[slices.group == group])


@pytest.mark.slow
def test_lesions_count_as_lung_and_the_public_test_part_is_left_out(medseg: Path, phantom: Phantom) -> None:
    slices = read_lung_slices([medseg])
    assert set(slices.group) == {"volumes/1", PHANTOM, DRAWN}
    label = labels_of(slices, "volumes/1")
    assert label.shape == (24, STORED_SIDE, STORED_SIDE)
    scale = STORED_SIDE**2 / (96 * 128)
    assert (label > 0).sum() == pytest.approx(phantom.lungs.voxels.sum() * scale, rel=0.02)
    truth = AxialView(phantom.scan.geometry).to_axial(phantom.lungs.voxels)
    assert (label[truth.sum((1, 2)).argmax()] > 0).any()


@pytest.mark.slow
def test_the_right_lung_lies_on_the_left_of_the_slice(medseg: Path) -> None:
    slices = read_lung_slices([medseg])
    columns = {side: np.nonzero(slices.label == side)[2].mean() for side in (RIGHT, LEFT)}
    assert columns[RIGHT] < STORED_SIDE / 2 < columns[LEFT]


@pytest.mark.thorough
def test_cases_can_be_named_for_testing(medseg: Path) -> None:
    assert set(read_lung_slices([medseg], patterns=["volumes/4"]).group) == {"volumes/4", PHANTOM, DRAWN}


def test_slices_whose_lung_is_not_stated_are_labelled_by_thresholds(phantom: Phantom, tmp_path: Path) -> None:
    lungs = phantom.lungs.voxels.astype(np.uint8)
    lungs[:12] = 255
    lesions = phantom.lesions.voxels.astype(np.uint8)
    lesions[5, 40:50, 60:68] = 1  # in the mediastinum, which only the reader's mask calls lung
    write(tmp_path / "ct" / "001.nii.gz", phantom.scan.values, phantom)
    write(tmp_path / "lesion" / "001.nii.gz", lesions, phantom)
    write(tmp_path / "lung" / "001.nii.gz", lungs, phantom)
    slices = read_lung_slices([tmp_path])
    (case,) = set(slices.group) - {PHANTOM, DRAWN}
    found = labels_of(slices, case) > 0
    expected = phantom.lungs.voxels.sum() * STORED_SIDE**2 / (96 * 128)
    assert found.sum() == pytest.approx(expected, rel=0.05)
    assert found[5, 45 * STORED_SIDE // 96, 64 * STORED_SIDE // 128]  # lesions count as lung in these slices too


def test_pictures_are_labelled_by_the_bundled_network_and_their_lesions(phantom: Phantom, tmp_path: Path) -> None:
    z = int(phantom.lungs.voxels.sum((1, 2)).argmax())
    hu, lungs = (
        AxialView(phantom.scan.geometry).to_axial(array)[z] for array in (phantom.scan.values, phantom.lungs.voxels)
    )
    grey = np.rint((np.asarray(hu, np.float32).clip(-1400, 200) + 1400) / 1600 * 255).astype(np.uint8)
    beside = np.zeros_like(grey)
    beside[40:50, 60:68] = 1  # in the mediastinum, which only the reader's mask calls lung
    for folder, name, image in (
        ("images", "1", grey),
        ("images", "2", grey * 0),
        ("masks", "1", beside),
        ("masks", "2", beside),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / folder / f"{name}.png")
    slices = read_lung_slices([tmp_path])
    assert set(slices.group) == {"pairs/1", PHANTOM, DRAWN}  # the other shows no lung
    (label,) = labels_of(slices, "pairs/1") > 0
    stored = [
        np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((STORED_SIDE,) * 2, 0)) > 0 for mask in (lungs, beside)
    ]
    assert label[stored[1]].mean() > 0.9
    assert label[stored[0]].mean() > 0.9
    assert label[~stored[0] & ~stored[1]].mean() < 0.05


def test_slices_without_a_chest_have_no_label(medseg: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64), 2048 + 40, np.uint16)).save(tmp_path / "head.png")
    slices = read_lung_slices([medseg], tmp_path)
    none = slices.group == NO_CHEST
    assert none.sum() == 1
    assert (slices.hu[none] == 40).all()
    assert not slices.label[none | (slices.group == DRAWN)].any()


def test_a_scan_gives_its_radiographs_as_images_of_no_chest(medseg: Path) -> None:
    slices = read_lung_slices([medseg])
    drawn = slices.hu[slices.group == DRAWN][:4]
    assert drawn.shape == (4, STORED_SIDE, STORED_SIDE)
    assert np.corrcoef(drawn[0].ravel(), drawn[1].ravel())[0, 1] < -0.99  # black and white exchanged


def test_drawn_images_are_the_same_each_time_and_of_all_kinds() -> None:
    first, second = draw_no_chest(10, 64), draw_no_chest(10, 64)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert len({image.tobytes() for image in first}) == 10


def test_a_dataset_without_lung_masks_is_refused(tmp_path: Path, phantom: Phantom) -> None:
    write(tmp_path / "rp_im" / "1.nii.gz", phantom.scan.values, phantom)
    write(tmp_path / "rp_msk" / "1.nii.gz", phantom.lesions.voxels.astype(np.uint8), phantom)
    with pytest.raises(DatasetError, match="no lung masks: expected rp_lung_msk or lung beside the images"):
        read_lung_slices([tmp_path])
