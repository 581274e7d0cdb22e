import dataclasses
import json
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from groundglass.data.catalogue import find_cases
from groundglass.data.cutting import cut_case
from groundglass.data.duplicates import SimilarSlices
from groundglass.data.overview import (
    CLASS_COLOURS,
    case_table,
    draw_examples,
    draw_pairs,
    joined_groups,
    source_table,
    split_table,
    write_examples,
)
from groundglass.data.prepare import PreparationSettings, prepare
from groundglass.data.prepared import png_path, read_manifest, read_prepared
from groundglass.data.protocols import write_splits
from groundglass.errors import DatasetError
from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan

SMALL = PreparationSettings((72, 96))


def as_text(table: object) -> str:
    from rich.console import Console

    console = Console(width=250)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms as 8-bit volumes of MedSeg, each with an upside-down picture, and one in HU as coronacases."""
    root = tmp_path_factory.mktemp("data")
    medseg = ("rp_im", "rp_msk")
    for seed, (name, (images, masks)) in enumerate((("1", medseg), ("4", medseg), ("001", ("ct", "lesion")))):
        phantom = chest_phantom(seed, (16, 96, 128))
        values = phantom.scan.values
        if images == "rp_im":
            values = np.clip((values.astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
        for directory, content in ((images, values), (masks, phantom.lesions.voxels.astype(np.uint8))):
            nifti.write_scan(Scan(content, phantom.scan.geometry), root / directory / f"{name}.nii.gz")
        if images == "rp_im":
            for part, plane in (("images", values[8]), ("masks", phantom.lesions.voxels[8].astype(np.uint8) * 2)):
                (root / part).mkdir(exist_ok=True)
                Image.fromarray(np.ascontiguousarray(plane[::-1])).save(root / part / f"{seed:03}.png")
    return root


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "all"
    prepare([folder], path, SMALL)
    return path


@pytest.mark.thorough
def test_slices_too_small_to_compare_patients_are_warned_of(folder: Path, tmp_path: Path) -> None:
    def warnings(source: Path, width: int) -> str:
        settings = PreparationSettings((72, width))
        return " ".join(prepare([source], tmp_path / f"{source.name}{width}", settings).warnings)

    assert "slices 64 pixels wide show too few vessels" in warnings(folder, 64)
    assert "vessels" not in warnings(folder, 96)
    assert "vessels" not in warnings(_of_one_case(folder, tmp_path / "one"), 64)


def _of_one_case(folder: Path, root: Path) -> Path:
    shutil.copytree(folder / "ct", root / "ct")
    shutil.copytree(folder / "lesion", root / "lesion")
    return root


@pytest.mark.thorough
def test_slices_are_stored_without_loss(folder: Path, prepared: Path) -> None:
    manifest, slices = read_prepared(prepared)
    names = ["slices/000", "slices/001", "volumes/1", "volumes/4", "coronacases/001"]
    assert [case.name for case in manifest.cases] == names
    for case in manifest.cases:
        cut = cut_case(case.case, SMALL.size)
        kept = slices.where(slices.case == case.name)
        assert (kept.hu == cut.hu).all()
        assert (kept.labels == cut.labels).all()
        assert (kept.number == cut.number).all()


def test_the_manifest_describes_each_case(folder: Path, prepared: Path) -> None:
    cases = {case.name: case for case in read_manifest(prepared).cases}
    volume, picture, hu = cases["volumes/1"], cases["slices/000"], cases["coronacases/001"]
    assert volume.image == folder / "rp_im" / "1.nii.gz"
    assert (volume.kind, volume.calibrated) == ("8-bit-window", False)
    assert (hu.kind, hu.calibrated) == ("hu", True)
    assert picture.spacing_mm is None
    assert volume.spacing_mm == pytest.approx((15, 3, 2.97), abs=0.01)
    assert (set(volume.pixels), set(picture.pixels), set(hu.pixels)) == ({1}, {2}, {4})
    assert all(len(case.image_sha256) == len(case.mask_sha256) == 64 for case in cases.values())


@pytest.mark.slow
def test_processes_cut_what_this_process_cuts(
    folder: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundglass.data.prepare.ProcessPoolExecutor", ProcessPoolExecutor)
    prepare([folder], tmp_path, SMALL)
    for file in prepared.rglob("*"):
        assert file.is_dir() or (tmp_path / file.relative_to(prepared)).read_bytes() == file.read_bytes()


def test_a_second_call_changes_no_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare([folder], tmp_path, SMALL)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def never(*_: object) -> None:
        raise AssertionError("compared again")

    monkeypatch.setattr("groundglass.data.grouping.closest_pairs", never)
    again = prepare([folder], tmp_path, SMALL)
    assert (first.newly_cut, again.newly_cut) == (5, 0)
    assert again.manifest == first.manifest
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps


def test_headers_with_their_voxels_in_a_file_beside_them_are_prepared_and_new_voxels_are_seen(tmp_path: Path) -> None:
    phantom = chest_phantom(0, (8, 96, 128))
    for part, values in (("images", phantom.scan.values), ("masks", phantom.lesions.voxels.astype(np.uint8))):
        (tmp_path / "data" / part).mkdir(parents=True)
        image: Any = SimpleITK.GetImageFromArray(values)
        image.SetSpacing((3, 3, 30))
        SimpleITK.WriteImage(image, str(tmp_path / "data" / part / "1.mhd"))
    first = prepare([tmp_path / "data"], tmp_path / "out", SMALL)
    assert [case.name for case in first.manifest.cases] == ["pairs/1"]
    assert prepare([tmp_path / "data"], tmp_path / "out", SMALL).newly_cut == 0
    voxels = tmp_path / "data" / "masks" / "1.raw"
    voxels.write_bytes(voxels.read_bytes()[::-1])
    assert prepare([tmp_path / "data"], tmp_path / "out", SMALL).newly_cut == 1


def test_a_missing_png_is_written_again(folder: Path, prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "out")
    png_path(tmp_path / "out", "labels", "volumes/4").unlink()
    assert prepare([folder], tmp_path / "out", SMALL).newly_cut == 0  # the entry is the same, though written again
    read_prepared(tmp_path / "out")


def test_an_interrupted_call_is_continued_by_the_next(folder: Path, tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([folder], tmp_path, SMALL, progress=stop)
    with pytest.raises(DatasetError, match="unfinished: call groundglass prepare again"):
        read_prepared(tmp_path)
    assert prepare([folder], tmp_path, SMALL).newly_cut == 2
    read_prepared(tmp_path)


def test_a_folder_prepared_with_other_settings_is_refused(folder: Path, prepared: Path) -> None:
    with pytest.raises(DatasetError, match="name another folder"):
        prepare([folder], prepared, PreparationSettings((64, 64)))


def test_a_folder_with_other_content_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is the dataset itself"):
        prepare([folder], folder, SMALL)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(DatasetError, match="holds something else"):
        prepare([folder], tmp_path, SMALL)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems take no such names")
def test_names_that_are_no_utf_8_are_refused_before_anything_is_cut(tmp_path: Path) -> None:
    phantom = chest_phantom(shape=(6, 48, 64))
    folder = tmp_path / "data" / os.fsdecode(b"M\xfcller")
    folder.mkdir(parents=True)
    nifti.write_scan(phantom.scan, folder / "ct.nii.gz")
    nifti.write_mask(phantom.lesions, folder / "mask.nii.gz")
    with pytest.raises(DatasetError, match=r"data/M\?ller/ct\.nii\.gz has bytes in its name .*: rename it"):
        prepare([tmp_path / "data"], tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_a_folder_prepared_from_other_sources_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    out, everything = tmp_path / "out", tmp_path / "everything"
    volumes, other = tmp_path / "volumes-alone", tmp_path / "other"
    for part in ("rp_im", "rp_msk"):
        shutil.copytree(folder / part, volumes / part)
    shutil.copytree(folder, everything)
    prepare([volumes], out, SMALL)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in ("image", "mask"):
        (other / name).mkdir(parents=True)
        (other / name / "1.nii.gz").write_bytes((folder / "rp_msk" / "1.nii.gz").read_bytes())
    with pytest.raises(
        DatasetError,
        match=r"out was prepared from other sources \(2 cases: volumes/1, volumes/4\), which this call would replace: "
        "name another folder with -o",
    ):
        prepare([other], out, SMALL)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert prepare([everything], out, SMALL).newly_cut == 5  # the volumes, which were moved, and three more cases
    with pytest.raises(DatasetError, match=r"other sources \(3 cases: slices/000, slices/001, coronacases/001\)"):
        prepare([volumes], out, SMALL)


def test_a_dataset_of_the_same_names_does_not_replace_another_and_one_with_a_case_less_is_prepared(
    folder: Path, tmp_path: Path
) -> None:
    def write(directory: Path, *sources: str) -> Path:
        for number, source in enumerate(sources):
            for part, place in (("rp_im", "images"), ("rp_msk", "masks")):
                (directory / place).mkdir(parents=True, exist_ok=True)
                copy = directory / place / f"p{number}.nii.gz"
                copy.write_bytes((folder / part / f"{source}.nii.gz").read_bytes())
        return directory

    mine, out = write(tmp_path / "mine", "1", "4"), tmp_path / "out"
    prepare([mine], out, SMALL)
    with pytest.raises(DatasetError, match=r"other sources \(2 cases: pairs/p0, pairs/p1\)"):
        prepare([write(tmp_path / "yours", "4")], out, SMALL)
    for place in ("images", "masks"):
        (mine / place / "p1.nii.gz").unlink()
    assert [case.name for case in prepare([mine], out, SMALL).manifest.cases] == ["pairs/p0"]


@pytest.mark.thorough
def test_a_scan_of_more_pixels_than_pillow_allows_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    phantom = chest_phantom(3, (16, 96, 128))
    for name, values in (("ct", phantom.scan.values), ("ct_mask", phantom.lesions.voxels.astype(np.uint8))):
        nifti.write_scan(Scan(values, phantom.scan.geometry), tmp_path / f"{name}.nii.gz")
    prepare([tmp_path], tmp_path / "out", SMALL)
    assert len(read_prepared(tmp_path / "out")[1]) > 8


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("changed", "does not fit the manifest: remove"),
        ("missing", "is missing: remove"),
        ("manifest", "manifest.json is damaged"),
        ("nested", "manifest.json is damaged"),
        ("older format", r"was prepared by an older version of groundglass \(format 1, expected 5\): remove it and"),
        ("newer format", r"was prepared by another version of groundglass \(format 99, expected 5\): remove it and"),
    ],
)
def test_a_damaged_folder_is_refused(folder: Path, prepared: Path, tmp_path: Path, damage: str, message: str) -> None:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    path, manifest = png_path(tmp_path, "levels", "volumes/1"), tmp_path / "manifest.json"
    content = json.loads(manifest.read_text())
    if damage == "changed":
        with Image.open(path) as image:
            plane = np.asarray(image).copy()
        plane[0, 0] ^= 1
        Image.fromarray(plane).save(path)
    elif damage == "missing":
        path.unlink()
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:-40])
    elif damage == "nested":
        manifest.write_text("[" * 100_000)
    elif damage == "older format":
        cases = [case | {"strangers": case["unrelated_slices"]} for case in content["cases"]]
        for case in cases:
            del case["unrelated_slices"]
        manifest.write_text(json.dumps(content | {"format": 1, "cases": cases}))
    else:
        manifest.write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(DatasetError, match=message):
        read_prepared(tmp_path)
    if damage.endswith("format"):
        with pytest.raises(DatasetError, match=message):
            prepare([folder], tmp_path, SMALL)


def test_invalid_cases_are_all_named_and_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, label in (("no_ct", 1), ("bad_mask", 9)):
        Image.fromarray(rng.integers(100, 110, (64, 64)).astype(np.uint8)).save(tmp_path / f"{name}.png")
        Image.fromarray((np.eye(64) * label).astype(np.uint8)).save(tmp_path / f"{name}_mask.png")
    with pytest.raises(DatasetError, match=r"2 of 7 cases are refused: .*--skip-invalid") as caught:
        prepare([folder, tmp_path], tmp_path / "out", SMALL)
    assert all(f"pairs/{name}: " in str(caught.value) for name in ("no_ct", "bad_mask"))
    outcome = prepare([folder, tmp_path], tmp_path / "out", SMALL, skip_invalid=True)
    assert set(outcome.refused) == {"pairs/no_ct", "pairs/bad_mask"}
    assert outcome.newly_cut == 0
    assert len(outcome.manifest.cases) == 5


@pytest.mark.thorough
def test_cases_with_identical_images_are_one_patient(folder: Path, tmp_path: Path) -> None:
    lines = ["image,mask,patient"]
    for name, source in (("a", "1"), ("b", "4"), ("again", "1")):
        for part in ("rp_im", "rp_msk"):
            (tmp_path / f"{name}-{part}.nii.gz").write_bytes((folder / part / f"{source}.nii.gz").read_bytes())
        lines.append(f"{name}-rp_im.nii.gz,{name}-rp_msk.nii.gz,{name}")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    cases = prepare([tmp_path / "mine.csv"], tmp_path / "out", SMALL).manifest.cases
    first, other, again = cases
    assert first.group == again.group != other.group
    assert joined_groups(read_manifest(tmp_path / "out")) == ("one patient: mine/a-rp_im, mine/again-rp_im",)
    assert again.notes == ("the same image as mine/a-rp_im",)


def test_tables_show_sources_cases_and_splits(prepared: Path, tmp_path: Path) -> None:
    manifest = read_manifest(prepared)
    sources, cases = as_text(source_table(manifest)), as_text(case_table(manifest))
    assert "slices, 2" in cases
    assert "8-bit-window" in cases
    lesions = (chest_phantom(seed, (16, 96, 128)).lesions.voxels.sum() for seed in (0, 1))
    assert f"{sum(lesions):,}" in sources
    assert "A-slice" in as_text(split_table(write_splits(prepared, tmp_path, folds=2)))


def test_the_closest_pairs_are_drawn_and_near_duplicates_framed(prepared: Path) -> None:
    assert (prepared / "closest-pairs.png").is_file()
    _, slices = read_prepared(prepared)
    same, apart = SimilarSlices(0, 2, 0.9, mirrored=False), SimilarSlices(0, 3, 0.2, mirrored=True)

    def framed(*pairs: SimilarSlices) -> int:
        return int((np.abs(np.asarray(draw_pairs(slices, pairs)).astype(int) - (230, 159, 0)).sum(-1) == 0).sum())

    assert framed(apart) == 0
    assert framed(same, apart) > 1000


def test_examples_are_drawn_with_a_colour_for_each_class(prepared: Path, tmp_path: Path) -> None:
    _, slices = read_prepared(prepared)
    sheet = np.asarray(draw_examples(slices, 6)).astype(int)
    for colour in ((86, 180, 233), (230, 159, 0), (204, 121, 167)):  # the three in the legend
        assert (np.abs(sheet - colour).sum(-1) == 0).sum() > 50
    write_examples(prepared, tmp_path / "figure.png", 6)
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.size == (sheet.shape[1], sheet.shape[0])


def test_long_names_and_all_classes_fit_a_single_example(prepared: Path) -> None:
    _, slices = read_prepared(prepared)
    shown = slices.where(np.flatnonzero(slices.has_lesion)[:1])
    labels = np.zeros_like(shown.labels)
    for label in CLASS_COLOURS:
        labels[:, 10 * label, 40:60] = label
    shown = dataclasses.replace(shown, labels=labels, case=np.array(["a_case_of_a_hospital_" * 4]))
    sheet = np.asarray(draw_examples(shown, 1)).astype(int)
    legend = sheet[-2 * 29 :]  # two lines, for four classes are wider than a slice
    for colour in CLASS_COLOURS.values():
        assert (np.abs(legend - colour).sum(-1) == 0).sum() >= 15 * 15
    edge = sheet[8 : 8 + 24, -8 - 5 : -8]  # beside the name, whose end names the slice
    assert not (np.abs(edge - (235, 238, 240)).sum(-1) == 0).any()


@pytest.mark.thorough
def test_slices_whose_lesion_is_out_of_view_are_no_lesion_slices(tmp_path: Path) -> None:
    phantom = chest_phantom(shape=(16, 96, 128))
    mask = phantom.lesions.voxels.astype(np.uint8)
    lung, lesion = phantom.lungs.voxels.any((1, 2)), mask.any((1, 2))
    stray = int(np.flatnonzero(lung & ~lesion)[0])
    mask[stray, 0, 0] = 1
    for name, values in (("ct", phantom.scan.values), ("lesion", mask)):
        nifti.write_scan(Scan(values, phantom.scan.geometry), tmp_path / name / "001.nii.gz")
    (case,) = find_cases(tmp_path)
    cut = cut_case(case, SMALL.size, lesion_slices_only=True)
    assert cut.labels.any((1, 2)).all()
    assert len(cut.number) == lesion.sum() == cut.lesion_slices - 1
    assert cut.notes == ("lesion out of view: 1 slice",)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_medseg_has_the_published_number_of_slices_and_fits_40_mib(data: Path, tmp_path: Path) -> None:
    outcome = prepare([data / "medseg"], tmp_path, PreparationSettings((352, 352), lesion_slices_only=True))
    _, slices = read_prepared(tmp_path)
    by_source = {source: int((slices.source == source).sum()) for source in ("slices", "volumes")}
    # 373 slices of volumes have a label; that of volume 1's last one is a stray mark at the edge, out of view.
    assert by_source == {"slices": 98, "volumes": 372}
    assert slices.has_lesion.sum() == 470
    notes = {case.name: case.notes for case in outcome.manifest.cases if case.notes}
    assert notes == {"volumes/1": ("lesion out of view: 1 slice",)}
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if "closest" not in path.name) < 40 * 2**20
    assert {case.kind for case in outcome.manifest.cases} == {"8-bit-window"}
    groups = {case.name: set(case.group) for case in outcome.manifest.cases}
    assert groups["volumes/2"] == groups["volumes/3"]
    assert groups["volumes/6"] == groups["volumes/7"]
