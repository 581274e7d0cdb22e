"""Scores and differences of a study, against calculations by hand."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from groundglass.errors import DatasetError
from groundglass.evaluation.intervals import RESAMPLES, SEED, paired_difference
from groundglass.training.study.results import RowResult, SliceCounts, compare_rows, read_counts

PATIENTS = ("a", "a", "b", "c", "c")
COUNTS = np.array([[8, 2, 2, 88], [5, 0, 5, 90], [20, 10, 0, 70], [6, 6, 2, 86], [0, 3, 0, 97]])
BETTER = np.array([[9, 1, 1, 89], [8, 0, 2, 90], [20, 4, 0, 76], [7, 2, 1, 90], [0, 0, 0, 100]])


def result(row: str, *counts: np.ndarray, patients: tuple[str, ...] = PATIENTS) -> RowResult:
    slices = tuple(f"volumes/1:{i}" for i in range(len(patients)))
    return RowResult(row, "B", tuple(range(len(counts))), tuple(SliceCounts(slices, patients, each) for each in counts))


def dice(counts: np.ndarray) -> float:
    true_positive, false_positive, false_negative, _ = counts.sum(0)
    return float(2 * true_positive / (2 * true_positive + false_positive + false_negative))


def test_seeds_are_summed_and_lesion_slices_selected() -> None:
    both = result("row", COUNTS, BETTER)
    assert both.pooled_scores("whole")["dice"].value == pytest.approx(dice(np.concatenate([COUNTS, BETTER])))
    assert both.pooled_scores("lesion_slices")["dice"].value == pytest.approx(
        dice(np.concatenate([COUNTS[:4], BETTER[:4]]))
    )
    assert both.dice_by_seed("lesion_slices") == pytest.approx((dice(COUNTS[:4]), dice(BETTER[:4])))
    single = [dice(each[None]) for each in np.concatenate([COUNTS[:4], BETTER[:4]])]
    assert both.mean_scores()["dice"].value == pytest.approx(np.mean(single))
    assert both.pooled_scores("whole")["dice"].patients == 3


def test_a_row_does_not_differ_from_itself() -> None:
    (same,) = compare_rows([result("a", COUNTS), result("b", COUNTS)], "whole")
    assert (same.difference.value, same.difference.interval, same.p_value) == (0, (0, 0), 1)


def test_the_p_value_depends_on_the_number_of_patients() -> None:
    (few,) = compare_rows([result("a", COUNTS), result("b", BETTER)], "lesion_slices")
    assert (few.row, few.against) == ("b", "a")
    assert few.difference.value == pytest.approx(dice(BETTER[:4]) - dice(COUNTS[:4]))
    assert few.p_value == pytest.approx(2 / 2**3)
    names = tuple("abcdefghij")
    worse, better = np.tile(COUNTS[:1], (10, 1)), np.tile(BETTER[:1], (10, 1))
    (many,) = compare_rows([result("a", worse, patients=names), result("b", better, patients=names)], "whole")
    assert many.p_value == pytest.approx(2 / 2**10)


def test_the_permutation_test_counts_every_exchange() -> None:
    mixed = COUNTS.copy()
    mixed[2] = BETTER[2]
    (found,) = compare_rows([result("a", COUNTS), result("b", mixed)], "whole")
    owner = np.array([0, 0, 1, 2, 2])
    permuted = []
    for swaps in product((False, True), repeat=3):
        swapped = np.array(swaps)[owner][:, None]
        permuted.append(dice(np.where(swapped, COUNTS, mixed)) - dice(np.where(swapped, mixed, COUNTS)))
    observed = dice(mixed) - dice(COUNTS)
    expected = 2 * min(np.mean(np.array(permuted) >= observed - 1e-12), np.mean(np.array(permuted) <= observed + 1e-12))
    assert found.p_value == pytest.approx(min(1, expected))


def test_rows_are_compared_on_their_shared_seeds() -> None:
    one = result("a", COUNTS, COUNTS)
    other = RowResult("b", "B", (1,), result("b", BETTER).by_seed)
    (found,) = compare_rows([one, other], "whole")
    assert found.difference.value == pytest.approx(dice(BETTER) - dice(COUNTS))
    assert compare_rows([one, RowResult("b", "B", (5,), other.by_seed)], "whole") == ()
    assert compare_rows([one, RowResult("b", "A", (0,), other.by_seed)], "whole") == ()


def test_the_interval_resamples_patients_for_both_rows_alike() -> None:
    found = paired_difference(BETTER, COUNTS, PATIENTS, "dice")
    draws = np.random.default_rng(SEED).integers(0, 3, (RESAMPLES, 3))
    of = [np.stack([each[[0, 1]].sum(0), each[2], each[[3, 4]].sum(0)]) for each in (BETTER, COUNTS)]
    differences = [dice(of[0][drawn]) - dice(of[1][drawn]) for drawn in draws]
    assert found.interval == pytest.approx(tuple(np.percentile(differences, (2.5, 97.5))))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("case,slice,patient\nvolumes/1,0,1\n")
    with pytest.raises(DatasetError, match=r"test\.csv is damaged"):
        read_counts(tmp_path)
