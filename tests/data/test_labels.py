"""What the numbers in a mask mean."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from groundglass.data.case import Case
from groundglass.data.case_files import read_case, read_case_with_notes
from groundglass.data.catalogue import find_cases, find_cases_with_notes
from groundglass.data.cutting import cut_case
from groundglass.data.label_files import labels_beside, labels_in
from groundglass.data.labels import label_of_name, parse_labels, read_dataset_json
from groundglass.data.prepare import PreparationSettings, prepare
from groundglass.errors import ConfigError, DatasetError, FormatError
from groundglass.evaluation.targets import find_targets
from groundglass.io import nifti
from groundglass.scan.geometry import Geometry
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_series

SIZE = (72, 96)


def write_nnunet(folder: Path, phantom: Phantom, labels: Any, lung: int = 1, lesion: int = 2) -> Path:
    """A phantom in nnU-Net's layout whose mask holds lung and lesion, and a dataset.json with these labels."""
    mask = np.where(phantom.lungs.voxels, lung, 0).astype(np.int16)
    mask[phantom.lesions.voxels] = lesion
    for name, values in (("imagesTr/a_0000", phantom.scan.values), ("labelsTr/a", mask)):
        nifti.write_scan(Scan(values, phantom.scan.geometry), folder / f"{name}.nii.gz")
    if labels is not None:
        content = {"labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "numTraining": 1}
        (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("labels", "lung", "lesion", "stored"),
    [
        ({"background": 0, "lung": 1, "infection": 2}, 1, 2, 4),
        ({"0": "background", "1": "lung", "2": "infection"}, 1, 2, 4),
        ({"0": "Background", "1": "Infection", "2": "Left Lung"}, 2, 1, 4),
        ({"background": 0, "left_lung": 1, "right_lung": 1, "GGO": 3}, 1, 3, 1),
        ({"background": 0, "lung": 1, "Consolidation": 7}, 1, 7, 2),
        ({"background": 0, "lung": [1, 2], "infection": [2]}, 1, 2, 4),  # regions: infection is part of the lung
        ({"background": "0", "lung": "1", "ground-glass": "300"}, 1, 300, 1),
        (["background", "lung", "COVID-19 lesion"], 1, 2, 4),
        ({"background": 0, "lung": 1, "lesions": [2, 3], "consolidation": [2]}, 1, 2, 2),
    ],
)
def test_dataset_json_states_which_numbers_are_lesion(
    labels: Any, lung: int, lesion: int, stored: int, phantom: Phantom, tmp_path: Path
) -> None:
    folder = write_nnunet(tmp_path, phantom, labels, lung, lesion)
    (case,) = find_cases(folder)
    _, found = read_case(case)
    assert ((found > 0) == phantom.lesions.voxels).all()
    assert set(np.unique(found)) == {0, stored}
    (note,) = find_cases_with_notes([folder]).notes
    assert (
        f"dataset.json: label{'s 2, 3' if 'lesions' in labels else f' {lesion}'} taken as lesion, {lung} as no" in note
    )


def test_dataset_json_may_begin_with_a_capital(phantom: Phantom, tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path, phantom, {"background": 0, "lung": 1, "infection": 2})
    (folder / "dataset.json").rename(folder / "Dataset.json")
    (case,) = find_cases(folder)
    assert ((read_case(case)[1] > 0) == phantom.lesions.voxels).all()


def test_a_csv_of_the_same_masks_is_read_by_the_same_dataset_json(phantom: Phantom, tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path, phantom, {"background": 0, "lung": 1, "infection": 2})
    (folder / "mine.csv").write_text("image,mask\nimagesTr/a_0000.nii.gz,labelsTr/a.nii.gz\n")
    _, found = read_case(find_cases(folder / "mine.csv")[0])
    assert ((found > 0) == phantom.lesions.voxels).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"0": "background", "1": "cancer"},
            "names the label 1 'cancer', which may be lesion or not: .* --labels lesion=1;",
        ),
        ({"background": 0, "keuhko": 1, "infection": 2}, "label 1 'keuhko', .* such as --labels lesion=2; all others"),
        ({"background": 0, "keuhko": 1, "tulehdus": 2}, "labels 1 'keuhko', 2 'tulehdus', .* --labels lesion=NUMBER;"),
        ({"background": 0, "infection": 1, "ignore": 2}, "label 2 'ignore', .* such as --labels lesion=1; all others"),
        ({"background": 0, "lung without lesion": 1}, "names the label 1 'lung without lesion', which may be"),
        ({"background": 0, "1": 1, "2": 2}, "names the labels 1 '1', 2 '2', which"),
        (
            {"background": 0, "left lung": 1, "right lung": 2},
            r"names no lesion \(1 left lung, 2 right lung\): expected",
        ),
        ({"0": "lesion", "1": "background"}, r"names no lesion \(1 background\)"),
        (
            {"background": 0, "infection": "two"},
            r"dataset.json cannot be read \(ValueError\): expected JSON with labels",
        ),
        ({"background": 0, "infection": 1.5}, r"cannot be read \(ValueError\)"),
        ({"background": 0, "infection": {"value": 1}}, r"cannot be read \(TypeError\)"),
        ({"background": 0, "infection": -1}, r"cannot be read \(ValueError\)"),
        ({"background": 0, "infection": float("inf")}, r"cannot be read \(OverflowError\)"),
        ("infection", r"cannot be read \(ValueError\)"),
    ],
)
def test_a_dataset_json_that_does_not_tell_what_is_lesion_is_refused_with_the_option_that_does(
    labels: Any, message: str, phantom: Phantom, tmp_path: Path
) -> None:
    folder = write_nnunet(tmp_path, phantom, labels)
    with pytest.raises(DatasetError, match=message):
        find_cases(folder)
    (case,) = find_cases_with_notes([folder], parse_labels(["lesion=2"], "--labels")).cases
    assert ((read_case(case)[1] > 0) == phantom.lesions.voxels).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"{", "JSONDecodeError"), (b"\xff\xfe", "UnicodeDecodeError"), (b"[" * 100_000, "RecursionError")],
)
def test_a_damaged_dataset_json_is_refused(text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(text)
    with pytest.raises(DatasetError, match=rf"dataset.json cannot be read \({message}\)"):
        read_dataset_json(tmp_path / "dataset.json")


@pytest.mark.timeout(60)
def test_a_pipe_that_is_called_dataset_json_is_not_waited_for(phantom: Phantom, tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no such pipes")
    os.mkfifo(tmp_path / "dataset.json")
    with pytest.raises(DatasetError, match=r"dataset.json cannot be read \(FileNotFoundError\)"):
        read_dataset_json(tmp_path / "dataset.json")
    with pytest.raises(DatasetError):
        find_cases(tmp_path)


@pytest.mark.parametrize("text", [b"{}", b"[]", b'\xef\xbb\xbf{"labels": {}}', b'{"labels": {"background": 0}}'])
def test_a_dataset_json_without_labels_states_nothing(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(text)
    assert read_dataset_json(tmp_path / "dataset.json") is None


def test_a_number_that_dataset_json_does_not_name_is_refused(phantom: Phantom, tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path, phantom, {"background": 0, "infection": 2})
    with pytest.raises(
        DatasetError, match=r"holds 0, 1, 2…: expected whole numbers that .*dataset.json names \(lesion=2\)"
    ):
        read_case(find_cases(folder)[0])


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (
            0,
            "background BG none lung Lungs left_lung leftLung LeftLung lung_upper_lobe_left airways normal-lung "
            "Hintergrund linke_Lunge poumon_gauche pulmón pulmão polmone fondo sfondo 肺 左肺 背景 폐",
        ),
        (1, "GGO GGOs ground-glass Ground_Glass ground-glass-opacities GroundGlass Milchglas verre_dépoli 磨玻璃影"),
        (2, "consolidation Consolidations lung-consolidation Konsolidierung consolidación 实变"),
        (3, "effusion pleural-effusion Pleuraerguss épanchement 胸腔积液"),
        (
            4,
            "infection Infections lesion COVID-19 covid19 pneumonia lung_lesion crazy-paving GGO_and_consolidation "
            "Infektion lésion lesión lesão infección neumonía polmonite 感染 肺炎 病灶",
        ),
        (
            None,
            "cancer nodule lung-cancer lung_tumor emphysema 1 class1 ignore non-infected no_lesion uninfected other x "
            "ohne_Infektion sans_lésion 无感染 keuhko",
        ),
    ],
)
def test_names_of_structures_are_lesion_no_lesion_or_unclear(label: int | None, names: str) -> None:
    assert {name: label_of_name(name) for name in names.split()} == dict.fromkeys(names.split(), label)


@pytest.mark.parametrize(
    ("items", "values"),
    [
        (["lesion=2"], {2: 4}),
        (["ground-glass=1", "consolidation=2"], {1: 1, 2: 2}),
        (["Lesion=2,3", "ignore=1"], {2: 4, 3: 4, 1: 0}),
        (["effusion=3 lesion=4+255; ignore=9"], {3: 3, 4: 4, 255: 4, 9: 0}),
    ],
)
def test_labels_are_named_with_their_numbers(items: list[str], values: dict[int, int]) -> None:
    labels = parse_labels(items, "--labels")
    assert dict(labels.values) == values
    assert parse_labels([labels.text], "--labels") == labels


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["lung=1"], "--labels: 'lung=1' is no label: expected lesion, ground-glass, consolidation, effusion, ignore"),
        (["2=lesion"], "'2=lesion' is no label"),
        (["lesion"], "'lesion' is no label"),
        (["lesion=-1"], "'lesion=-1' is no label"),
        (["lesion=0"], "0 is always no lesion"),
        (["lesion=70000"], "expected 1 to 65535"),
        (["lesion=1", "ignore=1"], "1 has two meanings"),
        (["ignore=1"], "no number is lesion"),
    ],
)
def test_labels_of_another_form_are_refused(items: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_labels(items, "--labels")


@pytest.mark.thorough
def test_numbers_that_labels_does_not_name_are_no_lesion_and_noted_unless_they_are_ignored(
    phantom: Phantom, tmp_path: Path
) -> None:
    folder = write_nnunet(tmp_path, phantom, None)
    for items, notes in ((["lesion=2"], ("not named, so no lesion: 1",)), (["lesion=2", "ignore=1"], ())):
        (case,) = find_cases_with_notes([folder], parse_labels(items, "--labels")).cases
        cut = cut_case(case, SIZE)
        assert cut.pixels == {4: int(phantom.lesions.voxels.sum())}
        assert cut.notes == notes


@pytest.mark.thorough
def test_a_csv_may_state_the_labels_of_each_case(phantom: Phantom, tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path, phantom, None)
    pair = "imagesTr/a_0000.nii.gz;labelsTr/a.nii.gz"
    (folder / "mine.csv").write_text(f"image;mask;labels\n{pair};consolidation=2 ignore=1\n")
    assert cut_case(find_cases(folder / "mine.csv")[0], SIZE).pixels == {2: int(phantom.lesions.voxels.sum())}
    (folder / "mine.csv").write_text(f"image;mask;labels\n{pair};2\n")
    with pytest.raises(DatasetError, match=r"mine\.csv, line 2: '2' is no label: expected lesion"):
        find_cases(folder / "mine.csv")


@pytest.mark.parametrize("lungs", ["both", "right", "other label"])
def test_a_mask_of_the_lungs_is_warned_of(lungs: str, phantom: Phantom, tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path, phantom, None, lesion=1)
    image = phantom.scan.geometry
    voxels = phantom.lungs.voxels.copy()
    if lungs == "right":
        voxels[:, :, voxels.shape[2] // 2 :] = False
    values = voxels.astype(np.uint8) * (2 if lungs == "other label" else 1)
    nifti.write_scan(Scan(values, image), folder / "labelsTr/a.nii.gz")
    result = prepare([folder], tmp_path / "out", PreparationSettings(SIZE))
    (case,) = result.manifest.cases
    side = r"right lung" if lungs == "right" else "lung"
    assert any(note.startswith("lesion fills ") and f"% of the {side}: check" in note for note in case.notes)
    assert result.warnings == (
        "in 1 of 1 cases (pairs/a) lesion fills most of a lung: if the masks hold lung too, state which labels are "
        "lesion, such as --labels lesion=2",
    )
    if lungs == "other label":
        assert "labels taken by default: 2 as consolidation" in case.notes


@pytest.mark.thorough
def test_pictures_are_warned_of_together_as_one_slice_may_be_full_of_lesion(phantom: Phantom, tmp_path: Path) -> None:
    window = np.clip((phantom.scan.values.astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    lungs, lesions = phantom.lungs.voxels, phantom.lesions.voxels
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()

    def write(full: int) -> None:
        for number, z in enumerate(range(13, 18)):
            mask = (lungs if number < full else lesions)[z].astype(np.uint8)
            for part, plane in (("images", window[z]), ("masks", mask)):
                Image.fromarray(np.ascontiguousarray(plane[::-1, ::-1])).save(tmp_path / part / f"p{number}.png")

    write(full=1)
    result = prepare([tmp_path], tmp_path / "one", PreparationSettings(SIZE))
    assert (result.warnings, {case.notes for case in result.manifest.cases}) == ((), {()})
    write(full=5)
    assert prepare([tmp_path], tmp_path / "all", PreparationSettings(SIZE)).warnings == (
        "in 5 of 5 cases (pairs/p0, pairs/p1, pairs/p2, pairs/p3, …) lesion fills most of a lung: if the masks hold "
        "lung too, state which labels are lesion, such as --labels lesion=2",
    )


def test_a_prepared_folder_remembers_the_labels_and_is_cut_again_with_others(phantom: Phantom, tmp_path: Path) -> None:
    folder, out, settings = write_nnunet(tmp_path, phantom, None), tmp_path / "out", PreparationSettings(SIZE)
    lesion = parse_labels(["lesion=2"], "--labels")
    assert prepare([folder], out, settings, labels=lesion).newly_cut == 1
    assert prepare([folder], out, settings, labels=lesion).newly_cut == 0
    (target,) = find_targets(out)
    assert ((read_case(target.case)[1] > 0) == phantom.lesions.voxels).all()
    again = prepare([folder], out, settings, labels=parse_labels(["ground-glass=2"], "--labels"))
    assert again.newly_cut == 1
    assert again.manifest.cases[0].pixels == {1: int(phantom.lesions.voxels.sum())}


# Files of other programs


def write_both(folder: Path, phantom: Phantom, mask: str = "masks/a.nii.gz") -> None:
    """Write a scan with a mask that holds 1 for lung and 2 for lesion."""
    values = np.where(phantom.lesions.voxels, 2, phantom.lungs.voxels).astype(np.uint8)
    for name, scan in (("images/a.nii.gz", phantom.scan), (mask, Scan(values, phantom.scan.geometry))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nifti.write_scan(scan, folder / name)


ITK_SNAP = """################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0    0        1  1  1    "lung"
    2     0  255    0      0.5  1  1    "infection"
    3     0  255    0        1  1  1    "Label 3"
"""


@pytest.mark.parametrize("name", ["labels.txt", "masks/covid.label"])
def test_the_label_description_of_itk_snap_states_the_labels(name: str, phantom: Phantom, tmp_path: Path) -> None:
    write_both(tmp_path, phantom)
    (tmp_path / name).write_text(ITK_SNAP)
    found = find_cases_with_notes([tmp_path])
    assert found.notes == (f"{tmp_path / name}: label 2 taken as lesion, 1 as no lesion (ignore=1 lesion=2)",)
    assert ((read_case(found.cases[0])[1] > 0) == phantom.lesions.voxels).all()


def test_the_names_in_a_segmentation_of_3d_slicer_state_the_labels(phantom: Phantom, tmp_path: Path) -> None:
    geometry = phantom.scan.geometry
    nifti.write_scan(phantom.scan, tmp_path / "ct.nii.gz")
    header = {
        "space": "left-posterior-superior",
        "space directions": geometry.affine_lps[:3, 2::-1].T,
        "space origin": geometry.affine_lps[:3, 3],
        **{"Segment0_Name": "Lunge", "Segment0_LabelValue": "1"},
        **{"Segment1_Name": "infection", "Segment1_LabelValue": "2"},
    }
    values = np.where(phantom.lesions.voxels, 2, phantom.lungs.voxels).astype(np.uint8)
    nrrd.write(str(tmp_path / "Segmentation.seg.nrrd"), values.T, header)
    (case,) = find_cases(tmp_path)
    assert ((read_case(case)[1] > 0) == phantom.lesions.voxels).all()


@pytest.mark.parametrize("list_axis", [0, 3])
@pytest.mark.parametrize("lesion_first", [True, False])
@pytest.mark.parametrize("is_old", [True, False])
def test_overlapping_segments_of_3d_slicer_are_read_by_their_names(
    phantom: Phantom, tmp_path: Path, is_old: bool, lesion_first: bool, list_axis: int
) -> None:
    nifti.write_scan(phantom.scan, tmp_path / "ct.nii.gz")
    segments = [("infection", phantom.lesions.voxels), ("lungs", phantom.lungs.voxels)][:: 1 if lesion_first else -1]
    affine = phantom.scan.geometry.affine_lps
    steps = affine[:3, 2::-1].T.tolist()
    header: dict[str, Any] = {
        "space": "left-posterior-superior",
        "space directions": np.array([*steps[:list_axis], [np.nan] * 3, *steps[list_axis:]]),
        "kinds": [*["domain"] * list_axis, "list", *["domain"] * (3 - list_axis)],
        "space origin": affine[:3, 3],
    }
    for number, (name, _) in enumerate(segments):
        header[f"Segment{number}_Name"] = name
        if not is_old:
            header |= {f"Segment{number}_LabelValue": "1", f"Segment{number}_Layer": str(number)}
    values = np.stack([voxels.T for _, voxels in segments], axis=list_axis).astype(np.uint8)
    nrrd.write(str(tmp_path / "Segmentation.seg.nrrd"), values, header)
    (case,) = find_cases(tmp_path)
    assert np.array_equal(read_case(case)[1] > 0, phantom.lesions.voxels)


def test_overlapping_segments_without_names_are_refused_with_their_numbers(phantom: Phantom, tmp_path: Path) -> None:
    nifti.write_scan(phantom.scan, tmp_path / "ct.nii.gz")
    affine = phantom.scan.geometry.affine_lps
    header = {
        "space": "left-posterior-superior",
        "space directions": np.array([[np.nan] * 3, *affine[:3, 2::-1].T.tolist()]),
        "kinds": ["list", "domain", "domain", "domain"],
        "space origin": affine[:3, 3],
    }
    values = np.stack([phantom.lungs.voxels.T, phantom.lesions.voxels.T]).astype(np.uint8)
    nrrd.write(str(tmp_path / "Segmentation.seg.nrrd"), values, header)
    with pytest.raises(DatasetError, match=r"holds 0, 1, 257…: .*such as --labels lesion=257"):
        read_case(find_cases(tmp_path)[0])
    (case,) = find_cases_with_notes([tmp_path], parse_labels(["lesion=257"], "--labels")).cases
    assert np.array_equal(read_case(case)[1] > 0, phantom.lesions.voxels)


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.66.4"])
def test_a_mask_in_dicom_is_refused_with_the_way_to_convert_it(
    sop_class: str, phantom: Phantom, tmp_path: Path
) -> None:
    nifti.write_scan(phantom.scan, tmp_path / "ct.nii.gz")
    mask = Scan(np.zeros((1, 32, 32), np.int16), Geometry((1, 32, 32), np.eye(4)))
    (path,) = write_series(mask, tmp_path, SOPClassUID=sop_class, Modality="SEG", Rows=None)
    (tmp_path / "cases.csv").write_text(f"image,mask\nct.nii.gz,{path.name}\n")
    (case,) = find_cases(tmp_path / "cases.csv")
    with pytest.raises(DatasetError, match=r"is DICOM that holds no image.*: 3D Slicer opens it and saves it as"):
        read_case(case)


@pytest.mark.parametrize("name", ["labels.json", "masks/classes.txt", "label_map.csv", "colors.ctbl"])
def test_a_file_that_may_state_the_labels_and_is_not_read_is_noted(name: str, phantom: Phantom, tmp_path: Path) -> None:
    write_both(tmp_path, phantom)
    (tmp_path / name).write_text("1 lung\n2 infection\n")
    (note,) = find_cases_with_notes([tmp_path]).notes
    assert note == (
        f"{tmp_path / name} is not read: if it says what the numbers of the masks mean, state it, such as --labels "
        "lesion=2"
    )
    assert find_cases_with_notes([tmp_path], parse_labels(["lesion=2"], "--labels")).notes == ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda lesion: lesion * np.float32(0.7), "holds fractions, as probabilities are: save it as 0 and 1"),
        (lambda lesion: -lesion, "holds -1: labels are not negative, save those of lesion as 1"),
        (lambda lesion: lesion * 128, "holds 0, 128…: .*--labels lesion=128"),
        (
            lambda lesion: np.arange(lesion.size).reshape(lesion.shape) % 1000,
            "1000 different numbers, as an image does",
        ),
    ],
)
def test_what_is_no_mask_is_refused_by_what_it_looks_like(
    values: Callable[[NDArray[np.int16]], NDArray[Any]], message: str, phantom: Phantom, tmp_path: Path
) -> None:
    write_both(tmp_path, phantom)
    mask = values(phantom.lesions.voxels.astype(np.int16))
    nifti.write_scan(Scan(mask, phantom.scan.geometry), tmp_path / "masks" / "a.nii.gz")
    with pytest.raises(DatasetError, match=message):
        read_case(find_cases(tmp_path)[0])


def test_the_blurred_edges_of_a_mask_in_jpeg_are_lesion_from_the_middle_on(tmp_path: Path) -> None:
    drawn = np.zeros((96, 128), np.uint8)
    drawn[20:60, 30:71] = 255
    for folder, levels in (("images", np.full(drawn.shape, 90, np.uint8)), ("masks", drawn)):
        (tmp_path / folder).mkdir()
        Image.fromarray(levels).save(tmp_path / folder / "a.jpg", quality=80)
    _, labels, notes = read_case_with_notes(find_cases(tmp_path)[0])
    assert notes == ("JPEG blurs a mask: from 128 on it is lesion",)
    assert ((labels[0] > 0) != (drawn > 0)).sum() < 0.01 * (drawn > 0).sum()
    Image.fromarray(np.linspace(0, 255, drawn.size).reshape(drawn.shape).astype(np.uint8)).save(
        tmp_path / "masks" / "a.jpg"
    )
    with pytest.raises(DatasetError, match="expected 0 and 1, 0 and 255"):
        read_case(find_cases(tmp_path)[0])


NUMBERS = np.zeros((64, 64), np.uint8)  # of a mask that is saved in colours
NUMBERS[8:20, 8:40], NUMBERS[30:50, 20:60] = 1, 2
RED, GREEN, ORANGE, WHITE = (255, 0, 0), (0, 128, 0), (255, 165, 0), (255, 255, 255)


def case_of_colours(folder: Path, mask: Image.Image, labels: list[str] | None = None, name: str = "a.png") -> Case:
    """A picture whose mask has this file."""
    for part, picture in (("images", Image.new("L", (64, 64), 90)), ("masks", mask)):
        (folder / part).mkdir(parents=True)
        picture.save(folder / part / name)
    (case,) = find_cases_with_notes([folder], parse_labels(labels, "--labels") if labels else None).cases
    return case


def in_colours(first: tuple[int, int, int], second: tuple[int, int, int], mode: str = "RGB") -> Image.Image:
    """The mask with its numbers 1 and 2 in two colours on black."""
    return Image.fromarray(np.array([(0, 0, 0), first, second], np.uint8)[NUMBERS]).convert(mode)


def with_palette(*colours: tuple[int, int, int], length: int) -> Image.Image:
    """The mask with a palette that begins with these colours."""
    picture = Image.fromarray(NUMBERS, "P")
    picture.putpalette([channel for colour in colours for channel in colour] + [77] * 3 * (length - len(colours)))
    return picture


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(("colour", "name"), [(RED, "red"), (GREEN, "green"), (ORANGE, "#ffa500")])
def test_the_only_colour_of_a_mask_is_lesion(
    tmp_path: Path, colour: tuple[int, int, int], name: str, mode: str
) -> None:
    _, found, notes = read_case_with_notes(case_of_colours(tmp_path, in_colours(colour, colour, mode)))
    assert np.array_equal(found[0], np.where(NUMBERS > 0, 4, 0))
    assert notes == (f"{name} is taken as lesion, black as none",)


def test_what_is_transparent_in_a_mask_is_no_lesion(tmp_path: Path) -> None:
    pixels = np.full((64, 64, 4), (*RED, 0), np.uint8)
    pixels[NUMBERS > 0, 3] = 120
    _, found, _ = read_case_with_notes(case_of_colours(tmp_path, Image.fromarray(pixels)))
    assert np.array_equal(found[0], np.where(NUMBERS > 0, 4, 0))


def test_several_colours_have_numbers_that_labels_give_a_meaning(tmp_path: Path) -> None:
    mask = in_colours(RED, GREEN)
    with pytest.raises(DatasetError, match=r"coloured \(red, green\): .*, red 1, green 2, such as --labels lesion=1"):
        read_case(case_of_colours(tmp_path / "a", mask))
    case = case_of_colours(tmp_path / "b", mask, ["consolidation=2"])
    _, found, notes = read_case_with_notes(case)
    assert np.array_equal(found[0], np.where(NUMBERS == 2, 2, 0))
    assert notes == ("colours have the numbers red 1, green 2", "not named, so no lesion: 1")


def test_the_numbers_of_a_palette_are_the_labels_if_it_has_more_than_the_picture(tmp_path: Path) -> None:
    case = case_of_colours(tmp_path, with_palette((0, 0, 0), ORANGE, (31, 119, 180), length=256), ["lesion=1"])
    _, found, notes = read_case_with_notes(case)
    assert np.array_equal(found[0], np.where(NUMBERS == 1, 4, 0))
    assert notes[0] == "the numbers of the picture's palette are taken as labels"


def test_a_palette_of_the_colours_in_use_alone_may_be_in_any_order(tmp_path: Path) -> None:
    case = case_of_colours(tmp_path, with_palette((0, 0, 0), GREEN, RED, length=3), ["lesion=1"])
    assert np.array_equal(read_case(case)[1][0], np.where(NUMBERS == 2, 4, 0))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (in_colours(ORANGE, RED), r"has colours that stand for no number \(#ffa500\), expected black and red, green"),
        (Image.new("RGB", (64, 64), RED), r"is a coloured picture, expected a mask of a few plain colours on black"),
    ],
    ids=["unnamed", "no black"],
)
def test_colours_that_map_to_no_number_are_refused(tmp_path: Path, mask: Image.Image, message: str) -> None:
    with pytest.raises(FormatError, match=rf"a\.png {message}.*save it in grey"):
        read_case(case_of_colours(tmp_path, mask))


def test_a_photograph_as_a_mask_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    with pytest.raises(FormatError, match=r"a\.png is a coloured picture, expected a mask"):
        read_case(case_of_colours(tmp_path, Image.fromarray(noise)))


def test_labels_may_have_blanks_around_their_signs() -> None:
    assert dict(parse_labels(["lesion = 2, 3  ignore =1"], "--labels").values) == {2: 4, 3: 4, 1: 0}


def test_a_number_of_thousands_of_digits_in_the_header_of_a_mask_is_no_label(tmp_path: Path) -> None:
    mask = tmp_path / "a.seg.nrrd"
    mask.write_bytes(b"NRRD0004\nSegment0_Name:=lesion\nSegment0_LabelValue:=" + b"9" * 5000 + b"\n\n")
    assert labels_beside(mask, lambda _: None) is None


def test_many_blanks_in_labels_take_no_time_that_grows_with_their_square(tmp_path: Path) -> None:
    assert parse_labels([f"lesion{' ' * 200_000}=1"], "a list") == parse_labels(["lesion=1"], "a list")
    (tmp_path / "labels.txt").write_bytes(b"# ITK-SnAP Label Description File" + b"\n" * 60_000)
    assert not labels_in(tmp_path)
