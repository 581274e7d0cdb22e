from pathlib import Path

import numpy as np
import pytest

from groundglass.data.protocols import make_splits, slice_and_patient, write_splits
from groundglass.data.slices import Slices
from groundglass.data.splits import Split, read_split, sides_of
from groundglass.errors import ConfigError, DatasetError


def slices(cases: dict[str, tuple[str, int, int]]) -> Slices:
    """{case: (patient, slices with lesion, slices without)}."""
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


# As MedSeg is: volumes 2 and 3 of one patient, pictures 10 and 11 too, picture 12 of volume 9's patient.
MEDSEG = slices(
    {
        **{f"slices/{i:03}": ("p10" if i < 12 else "v9" if i == 12 else f"p{i}", 1, 0) for i in range(10, 50)},
        **{f"volumes/{i}": (f"v{i}", 10 + i, 5) for i in (1, 4, 5, 6, 7, 8, 9)},
        **{f"volumes/{i}": ("v2+3", 8, 2) for i in (2, 3)},
        **{f"coronacases/00{i}": (f"c{i}", 12, 0) for i in range(1, 6)},
    }
)
SPLITS = {split.name: split for split in make_splits(MEDSEG)}


def split(**parts: tuple[str, ...]) -> Split:
    return Split(
        name="x",
        protocol="B",
        rule="",
        **{"train": (), "validation": (), "test": (), **parts},  # type: ignore[arg-type]
    )


def test_every_protocol_is_there() -> None:
    assert set(SPLITS) == {
        "A-slice",
        *(f"B-patient-fold-{fold}" for fold in range(1, 6)),
        *(f"final-fold-{fold}" for fold in range(1, 4)),
        *("B-patient", "B-pictures", "C-pictures-to-volumes", "C-volumes-to-pictures", "D-external", "final"),
    }


@pytest.mark.parametrize("name", SPLITS)
def test_no_slice_has_two_parts_and_each_part_is_there(name: str) -> None:
    sides = sides_of(SPLITS[name], MEDSEG)
    masks = np.stack([sides.train, sides.validation, sides.test])
    assert masks.sum(0).max() == 1
    assert masks.any(1).tolist() == [True, name != "final", True]


def test_a_recipe_is_chosen_without_the_public_test_part() -> None:
    folds = [SPLITS[f"final-fold-{fold}"] for fold in range(1, 4)]
    public = {"volumes/4", "volumes/5", "volumes/8"}
    for fold in folds:
        assert not public & {member.split(":")[0] for member in (*fold.train, *fold.validation, *fold.test)}
    tested = [member for fold in folds for member in fold.test]
    assert len(tested) == len(set(tested))
    assert set(tested) == {case for case in MEDSEG.case.tolist() if not case.startswith("slices/")} - public


def test_there_are_no_more_folds_than_patients() -> None:
    mine = slices({f"mine/{i}": (f"m{i}", 5, 1) for i in range(3)})
    assert [split.name for split in make_splits(mine)] == ["A-slice", *(f"B-patient-fold-{i}" for i in (1, 2, 3))]


@pytest.mark.parametrize("name", [name for name in SPLITS if name != "A-slice"])
def test_patients_are_apart_in_all_but_the_papers_split(name: str) -> None:
    sides = sides_of(SPLITS[name], MEDSEG)
    parts = [set(MEDSEG.patient[mask]) for mask in (sides.train, sides.validation, sides.test)]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert not SPLITS[name].leaky


def test_the_papers_split_takes_a_fifth_of_medsegs_lesion_slices_and_is_called_leaky() -> None:
    sides = sides_of(SPLITS["A-slice"], MEDSEG)
    medseg = MEDSEG.has_lesion & (MEDSEG.source != "coronacases")
    assert ((sides.train | sides.validation | sides.test) == medseg).all()
    assert sides.test.sum() == round(0.2 * medseg.sum())
    assert sides.validation.sum() == round(0.1 * (medseg.sum() - sides.test.sum()))
    assert SPLITS["A-slice"].leaky
    assert set(MEDSEG.patient[sides.train]) & set(MEDSEG.patient[sides.test])


def test_the_public_test_part_is_tested_on_and_nothing_else() -> None:
    for name in ("B-patient", "final"):
        assert SPLITS[name].test == ("volumes/4", "volumes/5", "volumes/8")
    assert any(member.startswith("coronacases") for member in SPLITS["final"].train)
    assert not any(member.startswith("coronacases") for member in SPLITS["B-patient"].train)


def test_each_volume_is_tested_in_one_fold_and_never_trained_on_there() -> None:
    tested = [member for name, split in SPLITS.items() if name.startswith("B-patient-fold") for member in split.test]
    assert sorted(tested) == [f"volumes/{i}" for i in range(1, 10)]
    for name, split in SPLITS.items():
        if name.startswith("B-patient-fold"):
            assert any(member.startswith("slices/") for member in split.train)


def test_a_picture_of_a_test_patient_is_left_out_of_the_training() -> None:
    to_volumes, to_pictures = SPLITS["C-pictures-to-volumes"], SPLITS["C-volumes-to-pictures"]
    assert "slices/012" not in to_volumes.train + to_volumes.validation
    assert "volumes/9" not in to_pictures.train + to_pictures.validation


def test_sources_are_apart() -> None:
    for name, trained, tested in (
        ("C-pictures-to-volumes", {"slices"}, {"volumes"}),
        ("C-volumes-to-pictures", {"volumes"}, {"slices"}),
        ("D-external", {"slices", "volumes"}, {"coronacases"}),
    ):
        split = SPLITS[name]
        assert {member.split("/")[0] for member in split.train + split.validation} == trained
        assert {member.split("/")[0] for member in split.test} == tested


def test_the_seed_decides() -> None:
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


def test_anybodys_data_is_split_by_slice_and_by_patient() -> None:
    mine = slices({f"mine/{i}": (f"mine/{i // 2}", 5, 1) for i in range(12)})
    splits = {split.name: split for split in make_splits(mine, test=["mine/0", "mine/1"], folds=3)}
    assert set(splits) == {
        "A-slice",
        "B-patient",
        "final",
        *(f"{name}-fold-{i}" for name in ("B-patient", "final") for i in (1, 2, 3)),
    }
    assert splits["B-patient"].test == ("mine/0", "mine/1")


def test_a_group_on_two_sides_is_refused_and_both_cases_named() -> None:
    with pytest.raises(DatasetError, match=r"volumes/2 is in train and volumes/3 in test, but both are patient v2\+3"):
        sides_of(split(train=("volumes/2", "volumes/1"), test=("volumes/3",)), MEDSEG)


def test_a_slice_on_two_sides_is_refused_even_where_leaks_are_meant() -> None:
    twice = split(train=("volumes/1:3",), test=("volumes/1:3",)).model_copy(update={"leaky": True})
    with pytest.raises(DatasetError, match="volumes/1:3 is in train and in test"):
        sides_of(twice, MEDSEG)


@pytest.mark.parametrize("member", ["volumes/99", "volumes/1:99"])
def test_a_member_that_was_not_prepared_is_refused(member: str) -> None:
    with pytest.raises(DatasetError, match=f"names {member}, which is not in the prepared folder"):
        sides_of(split(train=(member,)), MEDSEG)


def test_a_split_that_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DatasetError, match="no slice to train on"):
        sides_of(split(test=("volumes/1",)), MEDSEG)


def test_wishes_that_cannot_be_met_are_refused(tmp_path: Path) -> None:
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


def test_what_cannot_be_split_says_why() -> None:
    with pytest.raises(DatasetError, match="no slice shows lesion"):
        make_splits(slices({"mine/1": ("a", 0, 9), "mine/2": ("b", 0, 9)}))
    with pytest.raises(DatasetError, match="all slices are of one patient"):
        make_splits(slices({"mine/1": ("a", 9, 0), "mine/2": ("a", 9, 0)}))
    with pytest.raises(ValueError, match="volumes/4:x names no slice"):
        split(train=("volumes/4:x",))


def test_fewer_folds_leave_no_old_ones_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundglass.data.protocols.read_prepared", lambda _: (None, MEDSEG))
    write_splits(tmp_path, tmp_path / "splits", folds=5)
    write_splits(tmp_path, tmp_path / "splits", folds=3)
    assert len(list((tmp_path / "splits").glob("B-patient-fold*"))) == 3


def test_a_leak_is_measured_on_parts_of_about_one_size() -> None:
    by_slice, by_patient = (sides_of(split, MEDSEG) for split in slice_and_patient(MEDSEG))
    sizes = [(int(sides.train.sum()), int(sides.test.sum())) for sides in (by_slice, by_patient)]
    assert abs(sizes[0][1] - sizes[1][1]) < 0.4 * sizes[0][1]
    assert abs(sizes[0][0] - sizes[1][0]) < 0.25 * sizes[0][0]
    one = slices({"mine/1": ("a", 9, 0), "mine/2": ("a", 9, 0)})
    with pytest.raises(DatasetError, match="no patient can be kept apart"):
        slice_and_patient(one)
