from pathlib import Path

import numpy as np
import pytest

from groundglass.data.protocols import make_leakage_splits, make_splits, write_splits
from groundglass.data.slices import Slices
from groundglass.data.splits import Split, current_name, read_split, resolve_split
from groundglass.errors import ConfigError, DatasetError, OutputError


def make_slices(cases: dict[str, tuple[str, int, int]]) -> Slices:
    """Make slices of {case: (patient, number of slices with lesion, number of slices without)}."""
    names = [name for name, (_, with_lesion, without) in cases.items() for _ in range(with_lesion + without)]
    patients = [patient for patient, with_lesion, without in cases.values() for _ in range(with_lesion + without)]
    lesion = [i < with_lesion for _, with_lesion, without in cases.values() for i in range(with_lesion + without)]
    number = [i for _, with_lesion, without in cases.values() for i in range(with_lesion + without)]
    labels = np.array(lesion, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint8)
    return Slices(
        np.zeros(labels.shape, np.int16),
        labels,
        np.array(names),
        np.array(number),
        np.array(patients),
        np.full(len(number), np.nan),
    )


# Like MedSeg: volumes 2 and 3 are of one patient, pictures 10 and 11 too, and picture 12 is of the patient of volume 9.
MEDSEG = make_slices(
    {
        **{f"slices/{i:03}": ("p10" if i < 12 else "v9" if i == 12 else f"p{i}", 1, 0) for i in range(10, 50)},
        **{f"volumes/{i}": (f"v{i}", 10 + i, 5) for i in (1, 4, 5, 6, 7, 8, 9)},
        **{f"volumes/{i}": ("v2+3", 8, 2) for i in (2, 3)},
        **{f"coronacases/00{i}": (f"c{i}", 12, 0) for i in range(1, 6)},
    }
)
SPLITS = {split.name: split for split in make_splits(MEDSEG)}


def make_split(name: str = "x", **parts: tuple[str, ...]) -> Split:
    return Split(
        name=name,
        protocol="B",
        rule="",
        **{"train": (), "validation": (), "test": (), **parts},  # type: ignore[arg-type]
    )


def test_medseg_and_coronacases_are_split_by_every_protocol() -> None:
    assert set(SPLITS) == {
        "A-slice",
        *(f"B-patient-fold-{fold}" for fold in range(1, 6)),
        *(f"final-fold-{fold}" for fold in range(1, 4)),
        *("B-patient", "B-pictures", "C-pictures-to-volumes", "C-volumes-to-pictures", "D-external", "final"),
    }


@pytest.mark.parametrize("name", SPLITS)
def test_no_slice_is_in_two_parts_and_only_final_has_no_validation_part(name: str) -> None:
    parts = resolve_split(SPLITS[name], MEDSEG)
    selected = np.stack([parts.train, parts.validation, parts.test])
    assert selected.sum(0).max() == 1
    assert selected.any(1).tolist() == [True, name != "final", True]


def test_final_folds_cover_all_scans_but_the_public_test_part_once() -> None:
    folds = [SPLITS[f"final-fold-{fold}"] for fold in range(1, 4)]
    public = {"volumes/4", "volumes/5", "volumes/8"}
    for fold in folds:
        assert not public & {member.split(":")[0] for member in (*fold.train, *fold.validation, *fold.test)}
    tested = [member for fold in folds for member in fold.test]
    assert len(tested) == len(set(tested))
    assert set(tested) == {case for case in MEDSEG.case.tolist() if not case.startswith("slices/")} - public


def test_there_are_no_more_folds_than_patients() -> None:
    mine = make_slices({f"mine/{i}": (f"m{i}", 5, 1) for i in range(3)})
    assert [split.name for split in make_splits(mine)] == ["A-slice", *(f"B-patient-fold-{i}" for i in (1, 2, 3))]


@pytest.mark.parametrize("name", [name for name in SPLITS if name != "A-slice"])
def test_patients_are_apart_in_every_split_but_the_one_by_slice(name: str) -> None:
    parts = resolve_split(SPLITS[name], MEDSEG)
    patients = [set(MEDSEG.patient[part]) for part in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, patients)) == len(set().union(*patients))
    assert not SPLITS[name].leaky


def test_the_split_by_slice_tests_on_a_fifth_of_the_lesion_slices_of_medseg_and_is_leaky() -> None:
    parts = resolve_split(SPLITS["A-slice"], MEDSEG)
    medseg = MEDSEG.has_lesion & (MEDSEG.source != "coronacases")
    assert ((parts.train | parts.validation | parts.test) == medseg).all()
    assert parts.test.sum() == round(0.2 * medseg.sum())
    assert parts.validation.sum() == round(0.1 * (medseg.sum() - parts.test.sum()))
    assert SPLITS["A-slice"].leaky
    assert set(MEDSEG.patient[parts.train]) & set(MEDSEG.patient[parts.test])


def test_b_patient_and_final_test_on_the_public_test_volumes_alone() -> None:
    for name in ("B-patient", "final"):
        assert SPLITS[name].test == ("volumes/4", "volumes/5", "volumes/8")
    assert any(member.startswith("coronacases") for member in SPLITS["final"].train)
    assert not any(member.startswith("coronacases") for member in SPLITS["B-patient"].train)


def test_each_volume_is_tested_in_exactly_one_fold_and_pictures_train_in_all() -> None:
    tested = [member for name, split in SPLITS.items() if name.startswith("B-patient-fold") for member in split.test]
    assert sorted(tested) == [f"volumes/{i}" for i in range(1, 10)]
    for name, split in SPLITS.items():
        if name.startswith("B-patient-fold"):
            assert any(member.startswith("slices/") for member in split.train)


def test_a_picture_of_a_test_patient_is_left_out_of_the_training_part() -> None:
    to_volumes, to_pictures = SPLITS["C-pictures-to-volumes"], SPLITS["C-volumes-to-pictures"]
    assert "slices/012" not in to_volumes.train + to_volumes.validation
    assert "volumes/9" not in to_pictures.train + to_pictures.validation


def test_protocols_c_and_d_train_and_test_on_different_sources() -> None:
    for name, trained, tested in (
        ("C-pictures-to-volumes", {"slices"}, {"volumes"}),
        ("C-volumes-to-pictures", {"volumes"}, {"slices"}),
        ("D-external", {"slices", "volumes"}, {"coronacases"}),
    ):
        split = SPLITS[name]
        assert {member.split("/")[0] for member in split.train + split.validation} == trained
        assert {member.split("/")[0] for member in split.test} == tested


def test_the_same_seed_gives_the_same_splits_and_another_seed_others() -> None:
    again = {split.name: split for split in make_splits(MEDSEG)}
    other = {split.name: split for split in make_splits(MEDSEG, seed=1)}
    assert again == SPLITS
    assert other["A-slice"].test != SPLITS["A-slice"].test
    assert other["B-patient"].validation != SPLITS["B-patient"].validation


def test_a_split_file_names_the_group_of_every_case(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_text(SPLITS["B-patient"].model_dump_json())
    assert read_split(path) == SPLITS["B-patient"]
    assert set(read_split(path).groups) == set(MEDSEG.case)
    assert read_split(path).groups["volumes/2"] == ("v2+3",)


def test_other_data_are_split_by_slice_and_by_patient() -> None:
    mine = make_slices({f"mine/{i}": (f"mine/{i // 2}", 5, 1) for i in range(12)})
    splits = {split.name: split for split in make_splits(mine, test=["mine/0", "mine/1"], folds=3)}
    assert set(splits) == {
        "A-slice",
        "B-patient",
        "final",
        *(f"{name}-fold-{i}" for name in ("B-patient", "final") for i in (1, 2, 3)),
    }
    assert splits["B-patient"].test == ("mine/0", "mine/1")


@pytest.mark.parametrize(("old", "new"), [("ship", "final"), ("ship-fold-2", "final-fold-2")])
def test_a_split_of_version_0_1_is_refused_with_its_new_name(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / f"{old}.json"
    with pytest.raises(ConfigError, match=f"cannot be read: .*; {old} is called {new} since version 0.2; write splits"):
        read_split(path)
    path.write_text(make_split(old, train=("volumes/1",)).model_dump_json())
    with pytest.raises(ConfigError, match=f"holds the split {old}, which is called {new} since version 0.2: write"):
        read_split(path)


@pytest.mark.parametrize("name", ["shipyard", "my-ship", "ship-2", "B-patient-fold-1"])
def test_other_names_of_splits_are_unchanged(name: str, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(make_split(name, train=("volumes/1",)).model_dump_json())
    assert read_split(path).name == current_name(name) == name


def test_a_patient_in_two_parts_is_refused_and_both_cases_are_named() -> None:
    with pytest.raises(DatasetError, match=r"volumes/2 is in train and volumes/3 in test, but both are patient v2\+3"):
        resolve_split(make_split(train=("volumes/2", "volumes/1"), test=("volumes/3",)), MEDSEG)


def test_a_slice_in_two_parts_is_refused_even_if_the_split_is_leaky() -> None:
    twice = make_split(train=("volumes/1:3",), test=("volumes/1:3",)).model_copy(update={"leaky": True})
    with pytest.raises(DatasetError, match="volumes/1:3 is in train and in test"):
        resolve_split(twice, MEDSEG)


@pytest.mark.parametrize("member", ["volumes/99", "volumes/1:99"])
def test_a_member_that_is_not_in_the_prepared_folder_is_refused(member: str) -> None:
    with pytest.raises(DatasetError, match=f"names {member}, which is not in the prepared folder"):
        resolve_split(make_split(train=(member,)), MEDSEG)


def test_a_split_without_training_slices_is_refused() -> None:
    with pytest.raises(DatasetError, match="no slice to train on"):
        resolve_split(make_split(test=("volumes/1",)), MEDSEG)


def test_wrong_arguments_and_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no case matches 'volumes/77'"):
        make_splits(MEDSEG, test=["volumes/77"])
    with pytest.raises(DatasetError, match="8 patients cannot make 9 folds"):
        make_splits(MEDSEG, folds=9)
    with pytest.raises(ConfigError, match="no part 'tset'"):
        SPLITS["B-patient"].part("tset")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_split(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"name": 3}')
    with pytest.raises(ConfigError, match="is no split: "):
        read_split(tmp_path / "bad.json")


def test_data_that_cannot_be_split_are_refused_with_the_reason() -> None:
    with pytest.raises(DatasetError, match="no slice shows lesion"):
        make_splits(make_slices({"mine/1": ("a", 0, 9), "mine/2": ("b", 0, 9)}))
    with pytest.raises(DatasetError, match="all slices are of one patient"):
        make_splits(make_slices({"mine/1": ("a", 9, 0), "mine/2": ("a", 9, 0)}))
    with pytest.raises(ValueError, match="volumes/4:x names no slice"):
        make_split(train=("volumes/4:x",))


def test_folds_of_an_earlier_call_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundglass.data.protocols.read_prepared", lambda _: (None, MEDSEG))
    write_splits(tmp_path, tmp_path / "splits", folds=5)
    write_splits(tmp_path, tmp_path / "splits", folds=3)
    assert len(list((tmp_path / "splits").glob("B-patient-fold*"))) == 3


def test_split_files_of_others_are_neither_replaced_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundglass.data.protocols.read_prepared", lambda _: (None, MEDSEG))
    for name in ("B-patient.json", "B-patient-fold-9.json"):
        folder = tmp_path / name.removesuffix(".json")
        folder.mkdir()
        (folder / name).write_text("of others")
        with pytest.raises(OutputError, match=rf"{name} is not of an earlier result: name another folder"):
            write_splits(tmp_path, folder)
        assert [path.read_text() for path in folder.iterdir()] == ["of others"]
    write_splits(tmp_path, tmp_path / "splits")
    (tmp_path / "splits" / "my-fold-1.json").write_text("of others")
    write_splits(tmp_path, tmp_path / "splits")
    assert (tmp_path / "splits" / "my-fold-1.json").read_text() == "of others"


def test_leakage_is_measured_on_parts_of_about_the_same_size() -> None:
    by_slice, by_patient = (resolve_split(split, MEDSEG) for split in make_leakage_splits(MEDSEG))
    sizes = [(int(parts.train.sum()), int(parts.test.sum())) for parts in (by_slice, by_patient)]
    assert abs(sizes[0][1] - sizes[1][1]) < 0.4 * sizes[0][1]
    assert abs(sizes[0][0] - sizes[1][0]) < 0.25 * sizes[0][0]
    one = make_slices({"mine/1": ("a", 9, 0), "mine/2": ("a", 9, 0)})
    with pytest.raises(DatasetError, match="no patient can be kept apart"):
        make_leakage_splits(one)
