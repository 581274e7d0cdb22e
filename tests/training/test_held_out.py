from dataclasses import replace

import numpy as np
import pytest

from groundglass.errors import DatasetError
from groundglass.training.held_out import OFFSET_PERCENT, HeldOutScan, burden_interval, deciding_scans


def scan(case: str, found: float, *read: float) -> HeldOutScan:
    """Return a scan of which this share of the lung is found at the only threshold, and these shares are read."""
    return HeldOutScan(case, case, True, np.array([0.8]), np.array([found]), tuple(read))


def test_the_interval_of_eleven_scans_is_between_the_smallest_and_the_largest_ratio() -> None:
    ratios = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 2.0]
    scans = [scan(f"volumes/{n}", 10 - OFFSET_PERCENT, 10 * ratio - OFFSET_PERCENT) for n, ratio in enumerate(ratios)]
    interval = burden_interval(scans, 0)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((0.5, 2.0))
    assert (interval.scans, interval.pictures, interval.picture_coverage) == (11, 0, None)
    assert interval.coverage == pytest.approx(9 / 11, abs=1e-4)  # the two at the ends are outside that of the others


def test_the_interval_of_many_scans_leaves_a_tenth_out_at_either_end() -> None:
    ratios = np.linspace(0.5, 1.5, 99)
    scans = [scan(f"volumes/{n}", 9.9, 10 * ratio - OFFSET_PERCENT) for n, ratio in enumerate(ratios)]
    interval = burden_interval(scans, 0)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((ratios[9], ratios[-10]), abs=1e-4)
    assert interval.coverage == pytest.approx(0.8, abs=0.03)


def test_both_readers_of_a_scan_count_and_neither_stands_for_the_other() -> None:
    scans = [scan(f"volumes/{n}", 9.9, 9.9, 9.9) for n in range(5)] + [scan("volumes/9", 9.9, 49.9, 49.9)]
    interval = burden_interval(scans, 0)
    assert interval is not None
    assert interval.high == pytest.approx(5.0)
    assert interval.scans == 6
    assert interval.coverage == pytest.approx(10 / 12, abs=1e-4)


def test_no_other_scan_of_a_patient_tells_whether_one_lies_in_the_interval() -> None:
    scans = [scan(f"volumes/{n}", 9.9, 9.9) for n in range(5)] + [scan(f"volumes/{n}", 9.9, 49.9) for n in (6, 7)]
    apart, together = (
        burden_interval([*scans[:5], *(replace(one, patient=one.patient[:length]) for one in scans[5:])], 0)
        for length in (None, -1)
    )
    assert apart is not None
    assert together is not None
    assert (apart.high, together.high) == pytest.approx((5.0, 5.0))
    assert (apart.coverage, together.coverage) == pytest.approx((1.0, 5 / 7), abs=1e-4)


def test_pictures_count_as_much_as_the_scans_whose_ends_chance_would_give() -> None:
    """The interval of eleven scans alone reaches to the two of which far too much or too little is found."""
    ratios = [0.01, *np.linspace(0.7, 1.3, 9), 2.5]
    scans = [scan(f"volumes/{n}", 9.9, 10 * ratio - OFFSET_PERCENT) for n, ratio in enumerate(ratios)]
    of_pictures = np.linspace(0.5, 1.5, 100)
    pictures = [scan(f"slices/{n}", 9.9, 10 * ratio - OFFSET_PERCENT) for n, ratio in enumerate(of_pictures)]
    pictures = [replace(picture, is_volume=False) for picture in pictures]
    alone, together = burden_interval(scans, 0), burden_interval(scans + pictures, 0)
    assert alone is not None
    assert together is not None
    assert (alone.low, alone.high) == pytest.approx((0.01, 2.5))
    assert (together.low, together.high) == pytest.approx((of_pictures[11 - 1], of_pictures[-11]), abs=0.02)
    assert together.coverage == pytest.approx(9 / 11, abs=1e-4)
    assert together.picture_coverage == pytest.approx(0.8, abs=0.03)


def test_small_burdens_differ_by_an_amount_rather_than_by_a_ratio() -> None:
    scans = [scan(f"volumes/{n}", 0.001, 0.01) for n in range(5)]  # ten times as much, of next to nothing
    interval = burden_interval(scans, 0)
    assert interval is not None
    assert interval.high < 1.1


def test_four_scans_are_too_few() -> None:
    assert burden_interval([scan(f"volumes/{n}", 1.0, 1.0) for n in range(4)], 0) is None


def test_a_threshold_is_chosen_by_scans_with_lesion() -> None:
    ill, healthy, picture = (
        scan("a/1", 1.0, 2.0),
        scan("a/2", 1.0, 0.0),
        replace(scan("b/1", 1.0, 2.0), is_volume=False),
    )
    assert deciding_scans([ill, healthy, picture]) == [ill]
    assert deciding_scans([healthy, picture]) == [picture]
    with pytest.raises(DatasetError, match="no scan that the folds hold out shows lesion"):
        deciding_scans([healthy])
