import numpy as np
import pytest

from groundglass.data.slices import Slices
from groundglass.data.splits import SplitConfig, split_slices
from groundglass.errors import ConfigError, DatasetError


def slices(cases: dict[str, tuple[str, int, int]]) -> Slices:
    """{case: (patient, slices with lesion, slices without)}."""
    names = [name for name, (_, with_lesion, without) in cases.items() for _ in range(with_lesion + without)]
    patients = [patient for patient, with_lesion, without in cases.values() for _ in range(with_lesion + without)]
    lesion = [i < with_lesion for _, with_lesion, without in cases.values() for i in range(with_lesion + without)]
    labels = np.array(lesion, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint8)
    return Slices(np.zeros(labels.shape, np.int16), labels, np.array(names), np.array(patients))


SET = slices({"volumes/1": ("a", 5, 2), "volumes/2": ("b", 6, 0), "volumes/3": ("b", 4, 3), "volumes/4": ("d", 7, 1)})


def test_by_patient_the_named_cases_are_kept_out() -> None:
    split = split_slices(SET, SplitConfig(test=("volumes/4",), validation=("volumes/1",)))
    assert set(SET.case[split.test]) == {"volumes/4"}
    assert set(SET.case[split.validation]) == {"volumes/1"}
    assert set(SET.case[split.train]) == {"volumes/2", "volumes/3"}


def test_lesion_free_slices_train_only_when_asked_but_always_test() -> None:
    without = split_slices(SET, SplitConfig(test=("volumes/4",)))
    assert (without.train.sum(), without.test.sum()) == (15, 8)
    assert split_slices(SET, SplitConfig(test=("volumes/4",), lesion_free=True)).train.sum() == 20


def test_a_patient_on_two_sides_is_refused_and_both_cases_named() -> None:
    with pytest.raises(DatasetError, match=r"volumes/3 is in training and volumes/2 in test"):
        split_slices(SET, SplitConfig(test=("volumes/2",)))


def test_by_slice_every_lesion_slice_is_on_one_side_in_the_stated_shares() -> None:
    split = split_slices(SET, SplitConfig(by="slice", test_share=0.2, validation_share=0.1))
    sides = np.stack([split.train, split.validation, split.test]).sum(0)
    assert sides.tolist() == SET.has_lesion.astype(int).tolist()
    assert (split.test.sum(), split.validation.sum(), split.train.sum()) == (4, 2, 16)


def test_by_slice_the_seed_decides() -> None:
    first, again, other = (split_slices(SET, SplitConfig(by="slice", seed=seed)).test for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_a_pattern_without_a_case_is_refused() -> None:
    with pytest.raises(ConfigError, match="no case matches 'volumes/9'"):
        split_slices(SET, SplitConfig(test=("volumes/9",)))


def test_a_split_that_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DatasetError, match="no slice is left"):
        split_slices(SET, SplitConfig(test=("volumes/*",)))
