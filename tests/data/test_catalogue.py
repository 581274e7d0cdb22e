from pathlib import Path

import pytest

from groundglass.data.catalogue import find_cases, select
from groundglass.errors import DatasetError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_every_known_layout_is_found_at_its_depth(tmp_path: Path) -> None:
    touch(tmp_path, "medseg/dataset1/images/010.png", "medseg/dataset1/masks/010.png")
    touch(tmp_path, "medseg/dataset2/rp_im/2.nii.gz", "medseg/dataset2/rp_msk/2.nii.gz")
    touch(tmp_path, "coronacases/ct/001.nii.gz", "coronacases/lesion/001.nii.gz")
    assert [case.name for case in find_cases(tmp_path)] == ["coronacases/001", "slices/010", "volumes/2"]


def test_the_publishers_layout_is_found(tmp_path: Path) -> None:
    touch(tmp_path, "tr_im.nii.gz", "tr_mask.nii.gz", "val_im.nii.gz")
    touch(tmp_path, *(f"{folder}/{n}.nii.gz" for folder in ("rp_im", "rp_msk", "rp_lung_msk") for n in range(1, 10)))
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["stack/tr", *(f"volumes/{n}" for n in range(1, 10))]
    assert [case.strangers for case in cases] == [True] + [False] * 9


def test_two_series_of_one_patient_are_one_patient(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{n}.nii.gz" for folder in ("rp_im", "rp_msk") for n in range(1, 10)))
    patient = {case.name: case.patient for case in find_cases(tmp_path)}
    assert patient["volumes/2"] == patient["volumes/3"]
    assert patient["volumes/6"] == patient["volumes/7"]
    assert len(set(patient.values())) == 7


def test_a_picture_numbered_like_a_volume_is_nobody_elses_patient(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{n}.png" for folder in ("images", "masks") for n in (2, 3)))
    assert len({case.patient for case in find_cases(tmp_path)}) == 2


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "rp_im/1.nii.gz", "rp_im/2.nii.gz", "rp_msk/1.nii.gz")
    with pytest.raises(DatasetError, match=r"2\.nii\.gz has no mask: expected .*rp_msk"):
        find_cases(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(DatasetError, match="holds no dataset"):
        find_cases(tmp_path)
    with pytest.raises(DatasetError, match="is no folder"):
        find_cases(tmp_path / "absent")


def test_two_copies_of_a_dataset_are_refused(tmp_path: Path) -> None:
    for copy in ("a", "b"):
        touch(tmp_path / copy, "ct/001.nii.gz", "lesion/001.nii.gz")
    with pytest.raises(DatasetError, match="coronacases/001 twice"):
        find_cases(tmp_path)


def test_select_takes_patterns_and_refuses_one_without_a_match(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{n}.nii.gz" for folder in ("rp_im", "rp_msk") for n in range(1, 10)))
    cases = find_cases(tmp_path)
    assert [case.name for case in select(cases, ["volumes/[45]", "volumes/8"])] == [
        "volumes/4",
        "volumes/5",
        "volumes/8",
    ]
    with pytest.raises(DatasetError, match="no case matches 'volumes/10'"):
        select(cases, ["volumes/10"])
