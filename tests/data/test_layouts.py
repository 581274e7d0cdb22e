"""Public datasets in the layouts of their publishers, written with phantoms whose lesions are known."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.data.case_files import read_case
from groundglass.data.case_list_writer import write_list
from groundglass.data.catalogue import find_cases, find_cases_with_notes
from groundglass.data.labels import CLASS_LABELS
from groundglass.data.prepare import PreparationSettings, prepare
from groundglass.errors import DatasetError, OutputError
from groundglass.io import nifti
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.scan.scan import Scan

nibabel: Any = nib
Layout = Callable[[Path, list[Phantom]], None]


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [chest_phantom(seed, (16, 96, 128)) for seed in range(3)]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write(path: Path, phantom: Phantom, values: NDArray[Any] | None = None) -> None:
    """Write the scan of a phantom, or values on its grid, as .nii or .nii.gz."""
    gz = path if path.name.endswith(".gz") else path.with_name(f"{path.name}.gz")
    nifti.write_scan(Scan(phantom.scan.values if values is None else values, phantom.scan.geometry), gz)
    if gz != path:
        path.write_bytes(gzip.decompress(gz.read_bytes()))
        gz.unlink()


def lesion(phantom: Phantom) -> NDArray[np.uint8]:
    return phantom.lesions.voxels.astype(np.uint8)


def lung(phantom: Phantom) -> NDArray[np.uint8]:
    """1 the left lung, 2 the right one."""
    left = np.arange(phantom.lungs.voxels.shape[2]) >= phantom.lungs.voxels.shape[2] // 2
    return np.where(phantom.lungs.voxels, np.where(left, 1, 2), 0).astype(np.uint8)


def lung_and_lesion(phantom: Phantom) -> NDArray[np.uint8]:
    return np.where(phantom.lesions.voxels, 3, lung(phantom)).astype(np.uint8)


ZENODO = ("coronacases_001", "radiopaedia_10_85902_1", "radiopaedia_10_85902_3")


def zenodo(folder: Path, phantoms: list[Phantom], masks: tuple[str, ...] = ()) -> None:
    """COVID-19-CT-Seg, Zenodo 3757476."""
    contents = {"Infection_Mask": lesion, "Lung_Mask": lung, "Lung_and_Infection_Mask": lung_and_lesion}
    for name, phantom in zip(ZENODO, phantoms, strict=True):
        write(folder / "COVID-19-CT-Seg_20cases" / f"{name}.nii.gz", phantom)
        for mask in masks or contents:
            write(folder / mask / f"{name}.nii.gz", phantom, contents[mask](phantom))


def zenodo_lung_and_infection(folder: Path, phantoms: list[Phantom]) -> None:
    zenodo(folder, phantoms, ("Lung_Mask", "Lung_and_Infection_Mask"))


def zenodo_unpacked_twice(folder: Path, phantoms: list[Phantom]) -> None:
    """As programs unpack archives: a folder of the archive's name around the folder in it."""
    zenodo(folder, phantoms)
    for part in ("COVID-19-CT-Seg_20cases", "Infection_Mask"):
        (folder / part).rename(folder / "inner")
        (folder / part).mkdir()
        (folder / "inner").rename(folder / part / part)


def kaggle(folder: Path, phantoms: list[Phantom], nested: bool = False) -> None:
    """COVID-19 CT scans on Kaggle: the same scans, whose images and masks have different names."""
    images = ("coronacases_org_001", *(f"radiopaedia_org_covid-19-pneumonia-10_85902_{n}-dcm" for n in (1, 3)))
    for image, name, phantom in zip(images, ZENODO, phantoms, strict=True):
        for part, stem, values in (
            ("ct_scans", image, None),
            ("infection_mask", name, lesion(phantom)),
            ("lung_mask", name, lung(phantom)),
            ("lung_and_infection_mask", name, lung_and_lesion(phantom)),
        ):
            file = f"{stem}.nii"
            write(folder / part / (f"{file}/{file}" if nested else file), phantom, values)
    columns = "ct_scan,lung_mask,infection_mask,lung_and_infection_mask"
    (folder / "metadata.csv").write_text(f"{columns}\n../input/covid19-ct-scans/ct_scans/coronacases_org_001.nii,,,\n")


def kaggle_downloaded_file_by_file(folder: Path, phantoms: list[Phantom]) -> None:
    kaggle(folder, phantoms, nested=True)


def mosmed(folder: Path, phantoms: list[Phantom]) -> None:
    """MosMedData COVID19_1110: 1110 studies by severity, 50 of which have a mask."""
    for number, phantom in zip((255, 256, 304), phantoms, strict=True):
        write(folder / f"COVID19_1110/studies/CT-1/study_0{number}.nii.gz", phantom)
        write(folder / f"COVID19_1110/masks/study_0{number}_mask.nii.gz", phantom, lesion(phantom))
    touch(folder / "COVID19_1110", "studies/CT-0/study_0001.nii.gz", "studies/CT-4/study_1109.nii.gz", "README_EN.pdf")


def challenge(folder: Path, phantoms: list[Phantom]) -> None:
    """COVID-19-20."""
    for number, phantom in zip(("0003", "0011", "0014"), phantoms, strict=True):
        write(folder / f"COVID-19-20_v2/Train/volume-covid19-A-{number}_ct.nii.gz", phantom)
        write(folder / f"COVID-19-20_v2/Train/volume-covid19-A-{number}_seg.nii.gz", phantom, lesion(phantom))
    touch(folder, "COVID-19-20_v2/Validation/volume-covid19-A-0698_ct.nii.gz")


def nnunet(folder: Path, phantoms: list[Phantom]) -> None:
    """nnU-Net's second version: lung and infection, a second channel, a test set without labels."""
    root = folder / "Dataset101_COVID"
    for number, phantom in enumerate(phantoms):
        write(root / f"imagesTr/COVID_{number:03}_0000.nii.gz", phantom, lung(phantom))
        write(root / f"imagesTr/COVID_{number:03}_0001.nii.gz", phantom)
        values = np.where(phantom.lesions.voxels, 2, lung(phantom) > 0).astype(np.uint8)
        write(root / f"labelsTr/COVID_{number:03}.nii.gz", phantom, values)
    touch(root, "imagesTs/COVID_900_0000.nii.gz")
    labels = {"background": 0, "lung": 1, "infection": 2}
    channels = {"0": "noNorm", "1": "CT"}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": channels, "numTraining": 3}))


def decathlon(folder: Path, phantoms: list[Phantom]) -> None:
    """The Medical Segmentation Decathlon, as its archives hold it: with the hidden files of macOS."""
    root = folder / "Task51_COVID"
    for number, phantom in enumerate(phantoms):
        write(root / f"imagesTr/covid_0{number:03}.nii.gz", phantom)
        write(root / f"labelsTr/covid_0{number:03}.nii.gz", phantom, lesion(phantom) * 2)
        touch(root, f"imagesTr/._covid_0{number:03}.nii.gz", f"labelsTr/._covid_0{number:03}.nii.gz")
    labels = {"0": "background", "1": "lung", "2": "infection"}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "modality": {"0": "CT"}, "tensorImageSize": "3D"}))


CT_SEG = tuple(f"covid-ct-seg/{name}" for name in ZENODO)


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (zenodo, CT_SEG),
        (zenodo_lung_and_infection, CT_SEG),
        (zenodo_unpacked_twice, CT_SEG),
        (kaggle, CT_SEG),
        (kaggle_downloaded_file_by_file, CT_SEG),
        (mosmed, ("mosmed/study_0255", "mosmed/study_0256", "mosmed/study_0304")),
        (challenge, tuple(f"covid-19-20/volume-covid19-A-{number}" for number in ("0003", "0011", "0014"))),
        (nnunet, ("pairs/COVID_000", "pairs/COVID_001", "pairs/COVID_002")),
        (decathlon, ("pairs/covid_0000", "pairs/covid_0001", "pairs/covid_0002")),
    ],
)
@pytest.mark.thorough
def test_a_public_dataset_is_read_as_published_and_directly_or_through_its_csv_gives_its_lesions(
    layout: Layout, names: tuple[str, ...], phantoms: list[Phantom], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    layout(data, phantoms)
    cases = find_cases(data)
    assert tuple(case.name for case in cases) == names
    write_list(tmp_path / "mine.csv", [data])
    listed = find_cases(tmp_path / "mine.csv")
    for case, again, phantom in zip(cases, listed, phantoms, strict=True):
        scan, labels = read_case(case)
        assert (scan.values == phantom.scan.values).all()
        assert ((labels > 0) == phantom.lesions.voxels).all()
        assert set(np.unique(labels)) == {0, 4}
        assert (again.image, again.mask) == (case.image, case.mask)
        assert (read_case(again)[1] == labels).all()


@pytest.mark.parametrize("layout", [zenodo_lung_and_infection, mosmed, nnunet])
@pytest.mark.thorough
def test_a_public_dataset_is_prepared_with_its_number_of_lesion_pixels(
    layout: Layout, phantoms: list[Phantom], tmp_path: Path
) -> None:
    layout(tmp_path / "data", phantoms)
    result = prepare([tmp_path / "data"], tmp_path / "out", PreparationSettings((72, 96)))
    assert [case.pixels for case in result.manifest.cases] == [{4: int(lesion(phantom).sum())} for phantom in phantoms]
    assert result.warnings == ()
    texts: dict[object, tuple[str, ...]] = {
        zenodo_lung_and_infection: ("Lung_and_Infection_Mask: label 3 taken as lesion, 1, 2 as no lesion",),
        mosmed: ("2 of 5 images in ", "studies have no mask, and are left out"),
        nnunet: ("3 images in ", "are of other channels than 0001", "dataset.json: label 2 taken as lesion, 1 as no"),
    }
    for text in texts[layout]:
        assert any(text in note for note in result.notes), result.notes


def test_two_series_of_a_radiopaedia_case_are_one_patient(phantoms: list[Phantom], tmp_path: Path) -> None:
    zenodo(tmp_path, phantoms)
    first, second, third = (case.patient for case in find_cases(tmp_path))
    assert first != second == third


def test_masks_of_the_lungs_alone_are_refused(phantoms: list[Phantom], tmp_path: Path) -> None:
    zenodo(tmp_path, phantoms, ("Lung_Mask",))
    with pytest.raises(
        DatasetError, match="holds masks of the lungs alone, Lung_Mask: expected a folder of lesion masks"
    ):
        find_cases(tmp_path)


def test_the_csv_that_kaggle_ships_is_refused_by_its_columns(phantoms: list[Phantom], tmp_path: Path) -> None:
    kaggle(tmp_path, phantoms)
    with pytest.raises(DatasetError, match=r"has the columns ct_scan, lung_mask, .*; image and mask are missing"):
        find_cases(tmp_path / "metadata.csv")


@pytest.mark.parametrize(
    "files",
    [
        ("CT Images/a.nii.gz", "Lesion Masks/a.nii.gz"),
        ("image/a.nii.gz", "label/a.nii.gz"),
        ("images/a.nii.gz", "masks/a_mask.nii.gz"),
        ("imgs/a_ct.nrrd", "segmentations/a_seg.nrrd"),
        ("scans/ct_a.mha", "annotations/mask_a.mha"),
        ("ct_scans/a/volume.nii.gz", "infection_masks/a.nii.gz"),
        ("a_image.nii.gz", "a_label.nii.gz"),
        ("CT scans/a.nii.gz", "Lesion masks/a mask.nii.gz"),
        ("a CT.nii.gz", "a Lesion Mask.nii.gz"),
        ("volume-a.nii", "segmentation-a.nii"),
        ("ct_a.nii.gz", "lesion_a.nii.gz"),
        ("a_CT.nii.gz", "a_Infection_Mask.nii.gz"),
        ("a/ct.nii.gz", "a/mask.nii.gz"),
        ("a/imaging.nii.gz", "a/segmentation.nii.gz"),
        ("a/image.nii.gz", "a/lesion_mask.nii.gz"),
    ],
)
def test_pairs_under_other_names_are_found(files: tuple[str, str], tmp_path: Path) -> None:
    touch(tmp_path / "deeper", *files)
    if files[0] == "ct_scans/a/volume.nii.gz":
        touch(tmp_path / "deeper", "ct_scans/b/volume.nii.gz", "infection_masks/b.nii.gz")
    (case, *_) = find_cases(tmp_path)
    assert case.name.endswith("/a")
    assert (case.image, case.mask) == tuple(tmp_path / "deeper" / file for file in files)


def test_masks_without_an_image_are_noted(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii", "masks/a.nii", "masks/b.nii")
    found = find_cases_with_notes([tmp_path])
    assert [case.name for case in found.cases] == ["pairs/a"]
    assert found.notes == (f"1 of 2 masks in {tmp_path / 'masks'} have no image, and are left out",)


def test_of_several_masks_of_an_image_the_one_of_lesions_is_read(tmp_path: Path) -> None:
    """Two masks of one image ended in a StopIteration."""
    touch(tmp_path, "p1/ct.nii", "p1/lesion.nii", "p1/mask.nii", "b_ct.nii", "b_mask.nii", "b_infection_mask.nii")
    found = find_cases_with_notes([tmp_path])
    assert [case.mask.name for case in found.cases] == ["b_infection_mask.nii", "lesion.nii"]
    assert [note.rpartition(", ")[2] for note in found.notes] == ["b_infection_mask.nii is read", "lesion.nii is read"]


@pytest.mark.parametrize("masks", [("mask", "label"), ("lesion", "infection"), ("seg", "lesion", "infection")])
def test_several_masks_that_may_each_be_of_lesions_are_refused(tmp_path: Path, masks: tuple[str, ...]) -> None:
    touch(tmp_path, "p1/ct.nii", *(f"p1/{mask}.nii" for mask in masks))
    with pytest.raises(DatasetError, match=r"p1/ct\.nii has several masks, .*: expected one of all lesions; take the"):
        find_cases(tmp_path)
    assert write_list(tmp_path / "cases.csv", [tmp_path]).rows == len(masks) + 1


@pytest.mark.parametrize(
    "files",
    [
        ("images/a.nii", "masks/GGO/a.nii", "masks/Consolidation/a.nii"),
        ("images/a.nii", "masks/a_ggo.nii", "masks/a_consolidation.nii"),
        ("images/a.nii", "masks/a/ground-glass.nii", "masks/a/consolidation.nii"),
        ("images/a.nii", "GGO/a.nii", "CONSOLIDATION/a.nii"),
        ("a/ct.nii", "a/ggo.nii", "a/consolidation.nii"),
        ("a/ct.nii", "a/segmentations/ggo.nii", "a/segmentations/consolidation.nii"),
        ("a_ct.nii", "a_ggo_mask.nii", "a_consolidation_mask.nii"),
    ],
)
def test_masks_of_a_class_each_are_refused_with_the_way_to_join_them(tmp_path: Path, files: tuple[str, ...]) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DatasetError, match=r"each class seems to have a mask of its own: .* in Python with") as caught:
        find_cases(tmp_path)
    geometry = chest_phantom(shape=(8, 40, 48)).scan.geometry
    ggo, consolidation = np.zeros((2, *geometry.shape), np.uint8)
    ggo[2:4], consolidation[3:6] = 1, 255
    command = str(caught.value).rpartition("in Python with ")[2]
    masks = {
        name: nibabel.Nifti1Image(values.T, np.eye(4))
        for name, values in (("ggo", ggo), ("consolidation", consolidation))
    }
    made = np.asarray(eval(command, {"nibabel": nibabel, "numpy": np, **masks}).dataobj).T
    assert [int(number) for number in made[:, 0, 0]] == [0, 0, 1, 2, 2, 2, 0, 0]


@pytest.mark.parametrize("other", ["masks", "labels", "Segmentation"])
def test_masks_of_lesions_are_read_where_a_folder_beside_them_holds_others(tmp_path: Path, other: str) -> None:
    """Masks of the lungs in `masks` were taken for lesions."""
    touch(tmp_path, "images/a.nii", f"{other}/a.nii", "Lesion masks/a.nii")
    found = find_cases_with_notes([tmp_path])
    assert [case.mask.parent.name for case in found.cases] == ["Lesion masks"]
    assert found.notes == (f"masks are those in {tmp_path / 'Lesion masks'}; not read: the folder {other}",)


def test_a_folder_of_unknown_layout_is_refused_with_the_command_that_lists_its_scans(tmp_path: Path) -> None:
    touch(tmp_path, "north/p1/ct-thin.nii.gz", "south/p2.nii.gz", "truth/p2_mask.nii.gz", "truth/p9_mask.nii.gz")
    with pytest.raises(
        DatasetError, match=rf"holds no dataset: .*; groundglass prepare {tmp_path} --write-csv cases.csv"
    ):
        find_cases(tmp_path)
    written = write_list(tmp_path / "cases.csv", [tmp_path])
    assert written.summary == "3 cases, of which 2 have to be completed or removed"
    assert (tmp_path / "cases.csv").read_text("utf-8-sig").splitlines() == [
        "image,mask,patient,labels,unrelated_slices",
        "north/p1/ct-thin.nii.gz,,,,",
        "south/p2.nii.gz,truth/p2_mask.nii.gz,,,",
        ",truth/p9_mask.nii.gz,,,",
    ]
    with pytest.raises(DatasetError, match=r"cases\.csv, line 2: no mask is named"):
        find_cases(tmp_path / "cases.csv")
    with pytest.raises(OutputError, match="exists already and may have been edited"):
        write_list(tmp_path / "cases.csv", [tmp_path])


def test_the_folder_of_images_alone_is_refused_with_the_folder_to_give(tmp_path: Path) -> None:
    touch(tmp_path, "COVID-19-CT-Seg_20cases/a.nii.gz", "Infection_Mask/a.nii.gz")
    with pytest.raises(DatasetError, match=rf"its masks lie beside it: give {tmp_path}$"):
        find_cases(tmp_path / "COVID-19-CT-Seg_20cases")


def test_medseg_keeps_patients_classes_and_its_stack_in_a_csv(tmp_path: Path) -> None:
    names = ("tr_im", "tr_mask", "rp_im/2", "rp_msk/2", "rp_im/3", "rp_msk/3")
    touch(tmp_path, *(f"{name}.nii.gz" for name in names))
    write_list(tmp_path / "mine.csv", [tmp_path])
    stack, second, third = find_cases(tmp_path / "mine.csv")
    assert (stack.unrelated_slices, second.unrelated_slices) == (True, False)
    assert second.patient == third.patient
    assert second.labels is not None
    assert second.labels.text == "ground-glass=1 consolidation=2 effusion=3 lesion=4+255"


# Datasets in parts, and of other formats


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("part1/image", "part1/label", "part2/image", "part2/label"), ("part1-1", "part2-1")),  # UESTC-COVID-19
        (("train/images", "train/masks", "val/images", "val/masks"), ("train-1", "val-1")),
        (("P1/CT", "P1/Mask", "P2/CT", "P2/Mask"), ("P1-1", "P2-1")),
    ],
)
def test_cases_of_equal_names_in_several_folders_are_named_after_these(
    folders: tuple[str, ...], names: tuple[str, ...], phantoms: list[Phantom], tmp_path: Path
) -> None:
    for number, (images, masks) in enumerate((folders[:2], folders[2:])):
        write(tmp_path / "set" / images / "1.nii.gz", phantoms[number])
        write(tmp_path / "set" / masks / "1.nii.gz", phantoms[number], lesion(phantoms[number]))
    found = find_cases_with_notes([tmp_path / "set"])
    assert tuple(case.name for case in found.cases) == tuple(f"pairs/{name}" for name in names)
    assert [case.patient for case in found.cases] == [case.name for case in found.cases]
    assert any(f"named after these, such as pairs/{names[0]}" in note for note in found.notes)
    for case, phantom in zip(found.cases, phantoms, strict=False):
        assert ((read_case(case)[1] > 0) == phantom.lesions.voxels).all()


def test_parts_with_equal_names_are_the_same_cases_through_a_csv(tmp_path: Path) -> None:
    for part in ("part1", "part2"):
        touch(tmp_path / "data" / part, "image/a.png", "label/a.png")
    write_list(tmp_path / "my list.csv", [tmp_path / "data"])
    direct, listed = find_cases(tmp_path / "data"), find_cases(tmp_path / "my list.csv")
    assert [(case.image, case.mask) for case in listed] == [(case.image, case.mask) for case in direct]
    assert [case.name for case in listed] == ["my list/part1-image-a", "my list/part2-image-a"]


def test_pictures_in_a_folder_for_each_patient_are_of_that_patient(tmp_path: Path) -> None:
    """CC-CCII: slices of equal names."""
    touch(tmp_path, *(f"{part}/p{n}/{z}.png" for part in ("image", "mask") for n in (1, 2) for z in (10, 11)))
    cases = find_cases(tmp_path)
    assert [(case.name, case.patient) for case in cases] == [
        (f"pairs/p{n}-{z}", f"pairs/p{n}") for n in (1, 2) for z in (10, 11)
    ]
    assert all(case.image.parent.name == case.mask.parent.name for case in cases)


def test_numbers_in_masks_of_cc_ccii_are_its_own(tmp_path: Path) -> None:
    """1 is the lung there, not ground-glass."""
    touch(tmp_path, *(f"ct_lesion_seg/{part}" for part in ("image/1/000.jpg", "mask/1/000.png")))
    for path in (tmp_path, tmp_path / "ct_lesion_seg"):
        found = find_cases_with_notes([path])
        (case,) = found.cases
        assert case.labels is not None
        assert case.labels.values == ((1, 0), (2, CLASS_LABELS["ground-glass"]), (3, CLASS_LABELS["consolidation"]))
        (note,) = found.notes
        assert note == (
            "ct_lesion_seg: labels 2, 3 taken as lesion, 1 as no lesion (ignore=1 ground-glass=2 consolidation=3)"
        )


def test_layouts_four_levels_below_are_found_once_and_hidden_ones_are_not(tmp_path: Path) -> None:
    """COVID-SemiSeg: Dataset/TrainingSet/LungInfection-Train/Doctor-label/Imgs and GT."""
    touch(tmp_path, *(f"Dataset/TrainingSet/LungInfection-Train/Doctor-label/{part}/1.png" for part in ("Imgs", "GT")))
    touch(tmp_path, *(f"Dataset/TestingSet/LungInfection-Test/{part}/2.png" for part in ("Imgs", "GT")))
    touch(tmp_path, ".trash/images/3.png", ".trash/masks/3.png")
    (tmp_path / "Dataset" / "again").symlink_to(tmp_path / "Dataset")
    assert [case.name for case in find_cases(tmp_path)] == ["pairs/2", "pairs/1"]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{s}/{e}ct/{s}_{v}ct.nii.gz", "derivatives/manual/{s}/{e}ct/{s}_{v}label-lesion_mask.nii.gz"),
        ("{s}/{e}ct/{s}_{v}CT.nii.gz", "derivatives/labels/{s}/{e}ct/{s}_{v}ct_lesion-manual.nii.gz"),
        ("rawdata/{s}/{e}ct/{s}_{v}ct.nii.gz", "derivatives/{s}/{e}ct/{s}_{v}space-ct_dseg.nii.gz"),
        ("{s}/{e}anat/{s}_{v}ct.nii.gz", "{s}/derivatives/{s}_{v}seg.nii.gz"),
        ("imagesTr/{s}_{v}x_0000.nii.gz", "labelsTr/{s}_{v}x.nii.gz"),
        ("{s}_{v}ct.nii.gz", "{s}_{v}seg.nii.gz"),
    ],
)
def test_sessions_of_a_subject_are_of_one_patient(image: str, mask: str, tmp_path: Path) -> None:
    for subject, session in (("sub-01", "ses-1_"), ("sub-01", "ses-2_"), ("sub-02", "ses-1_")):
        names = {"s": subject, "v": session, "e": session.replace("_", "/")}
        touch(tmp_path, image.format(**names), mask.format(**names))
    found = find_cases(tmp_path)
    assert [case.patient for case in found] == ["pairs/sub-01", "pairs/sub-01", "pairs/sub-02"]
    assert [case.image.name.split("_")[:2] == case.mask.name.split("_")[:2] for case in found] == [True] * 3


def test_bids_masks_of_the_lungs_are_not_those_of_lesions(tmp_path: Path) -> None:
    for subject in ("sub-1", "sub-2"):
        touch(
            tmp_path,
            f"{subject}/ct/{subject}_ct.nii.gz",
            f"derivatives/x/{subject}/ct/{subject}_label-lung_mask.nii.gz",
        )
    touch(tmp_path, "derivatives/x/sub-1/ct/sub-1_label-lesion_mask.nii.gz", "sub-1/ct/sub-1_pet.nii.gz")
    touch(tmp_path, "derivatives/x/sub-1/ct/sub-1_label-lesion_mask.json")
    found = find_cases_with_notes([tmp_path])
    assert [(case.image.name, case.mask.name) for case in found.cases] == [
        ("sub-1_ct.nii.gz", "sub-1_label-lesion_mask.nii.gz")
    ]
    assert found.notes == (f"1 of 2 images in {tmp_path} have no mask of lesions, and are left out",)
    touch(tmp_path, "sub-1/ct/sub-1_acq-thick_ct.nii.gz")
    with pytest.raises(DatasetError, match=r"several images, sub-1_acq-thick_ct.nii.gz, sub-1_ct.nii.gz: name the"):
        find_cases(tmp_path)


@pytest.mark.thorough
def test_a_list_in_json_gives_the_lesions_of_its_files(phantoms: list[Phantom], tmp_path: Path) -> None:
    for name, phantom in zip("abc", phantoms, strict=True):
        write(tmp_path / "data" / name / "scan.nii.gz", phantom)
        write(tmp_path / "data" / name / "annot.nii.gz", phantom, 2 * lesion(phantom))
    entries = [{"image": f"./data/{name}/scan.nii.gz", "label": f"./data/{name}/annot.nii.gz"} for name in "abc"]
    content = {"labels": {"0": "background", "1": "lung", "2": "infection"}, "training": entries[:2]}
    content |= {"validation": entries[2:], "test": ["./data/a/scan.nii.gz", {"image": "./data/d/scan.nii.gz"}]}
    file = tmp_path / "datalist.json"
    file.write_text(json.dumps(content))
    found = find_cases_with_notes([tmp_path])
    assert found.cases == find_cases(file)
    assert [case.name for case in found.cases] == [f"datalist/{name}-scan" for name in "abc"]
    assert found.notes[0] == f"{file}: entries without a mask are left out, 1 of 4"
    for case, phantom in zip(found.cases, phantoms, strict=True):
        assert np.array_equal(read_case(case)[1] > 0, phantom.lesions.voxels)
    prepare([tmp_path], tmp_path / "prepared", PreparationSettings(size=(64, 64)))


@pytest.mark.parametrize(
    ("entry", "extra"),
    [
        ({"ct": "x/{}.nii.gz", "seg": "y/{}_m.nii.gz", "fold": 0}, {}),
        ({"image_path": "/elsewhere/set/x/{}.nii.gz", "mask_path": "C:\\set\\y\\{}_m.nii.gz"}, {}),
        ({"image": ["x/{}.nii.gz"], "label": ["y/{}_m.nii.gz"], "label_name": "covid"}, {}),
        ({"image": "{root}/x/{}.nii.gz", "label": "{root}/y/{}_m.nii.gz"}, {"patient_id": 7}),
    ],
)
def test_lists_in_json_have_other_keys_and_roots(entry: dict[str, Any], extra: dict[str, Any], tmp_path: Path) -> None:
    touch(tmp_path, *(f"{file.format(name)}.nii.gz" for name in "ab" for file in ("x/{}", "y/{}_m")))
    text = json.dumps([entry, entry])
    text = text.replace("{root}", tmp_path.as_posix()).replace("{}", "a", 2)
    entries = [item | extra for item in json.loads(text.replace("{}", "b"))]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    found = find_cases(tmp_path)
    assert [(case.image.name, case.mask.name) for case in found] == [
        ("a.nii.gz", "a_m.nii.gz"),
        ("b.nii.gz", "b_m.nii.gz"),
    ]
    assert len({case.patient for case in found}) == (1 if extra else 2)


def test_patients_in_a_list_in_json_are_told_as_in_a_csv(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d", "sub-01_ses-1", "sub-01_ses-2")
    touch(tmp_path, *(f"{part}/{name}.nii.gz" for part in "xy" for name in names))
    patients = ("NA", "unknown", "007", 7, None, "")
    entries = [
        {"image": f"x/{name}.nii.gz", "label": f"y/{name}.nii.gz", "patient": patient}
        for name, patient in zip(names, patients, strict=True)
    ]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    found = [case.patient for case in find_cases(tmp_path / "list.json")]
    assert found == ["list/a", "list/b", "list/007", "list/007", "list/sub-01", "list/sub-01"]


@pytest.mark.parametrize("key", ["patient", "patient_id", "PatientID", "subjectId", "participant_id", "MRN"])
def test_the_patient_0_of_a_list_in_json_is_one_patient_under_any_key(key: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{part}/{name}.nii.gz" for part in "xy" for name in "ab"))
    entries = [{"image": f"x/{name}.nii.gz", "label": f"y/{name}.nii.gz", key: 0} for name in "ab"]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    assert [case.patient for case in find_cases(tmp_path / "list.json")] == ["list/0", "list/0"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no list of images and masks: expected such as"),
        ('{"image": 1', "holds no list of images and masks"),
        ('[{"image": "a.nii.gz", "label": "covid"}]', "holds no list of images and masks"),
        ('[{"image": "a.nii.gz", "label": "b.nii.gz"}]', "names b.nii.gz, which is no file: paths are relative to"),
        ('[{"image": "a.nii.gz", "label": "' + "b" * 300 + '.nii.gz"}]', "which is no file"),
        ('[{"image": "x/a.nii.gz", "label": "y/a.nii.gz"}]', "as an image and as its mask"),
        ('[{"image": ["a.nii.gz", "c.nii.gz"], "label": "c.nii.gz"}]', "names a.nii.gz and c.nii.gz in one entry"),
        ('[{"image": "a.nii.gz", "label": "c.nii.gz"}, {"image": "a.nii.gz", "label": "c.nii.gz"}]', "more than once"),
    ],
)
def test_a_list_in_json_that_cannot_be_followed_is_refused(content: str, message: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "c.nii.gz")
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        find_cases(tmp_path / "list.json")


def test_of_several_lists_in_json_one_is_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "b.nii.gz")
    for name in ("fold0.json", "fold1.json"):
        (tmp_path / name).write_text('[{"image": "a.nii.gz", "label": "b.nii.gz"}]')
    (tmp_path / "coco.json").write_text(
        '{"images": [{"file_name": "a.png"}], "annotations": [{"segmentation": [[1]]}]}'
    )
    with pytest.raises(DatasetError, match=r"holds several lists, fold0.json, fold1.json: give one"):
        find_cases(tmp_path)


def test_scans_without_any_mask_are_refused_with_that_reason(tmp_path: Path) -> None:
    """As STOIC 2021 and the CT Images in COVID-19 of TCIA are."""
    touch(tmp_path, "data/mha/1.mha", "data/mha/2.mha", "metadata/reference.csv")
    with pytest.raises(DatasetError, match="none of its 2 scans is a mask by its name or folder, and cases need masks"):
        find_cases(tmp_path)


def test_frames_and_masks_are_pairs(tmp_path: Path) -> None:
    touch(tmp_path, "frames/bjorke_1.png", "masks/bjorke_1.png")
    assert [case.name for case in find_cases(tmp_path)] == ["pairs/bjorke_1"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("Infection_Mask.zip", "it holds archives: unpack them"),
        ("images_medseg.npy", "it holds NumPy arrays: save each image and mask as NIfTI"),
        ("images/1.tif", "it holds pictures of other formats: save them as PNG"),
        ("images/1.hdr", r"it holds headers with voxels in other files \(\.img\): save them as NIfTI"),
        ("images/1/IM1.dcm", "it holds DICOM: convert each series to NIfTI"),
    ],
)
def test_a_dataset_of_other_formats_is_refused_with_the_way_to_convert_it(
    file: str, message: str, tmp_path: Path
) -> None:
    touch(tmp_path, file)
    with pytest.raises(DatasetError, match=rf"holds no dataset: .*; {message}"):
        find_cases(tmp_path)
