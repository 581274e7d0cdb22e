"""Compare the patients that the near-duplicate search finds in dataset 1 with those of its publisher's case pages.

    groundglass prepare DATA -o PREPARED --size 192 192        # without --patients
    python bench/near_duplicates.py PREPARED MORE/dataset1_cases.csv

Slices whose case the list leaves open are left out. Slices are joined if `prepare` puts them into one patient group.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

from groundglass.data.prepared import read_prepared


def main() -> None:
    prepared, listed = map(Path, sys.argv[1:])
    with listed.open() as lines:
        case_of = {f"slices/{row['slice']}": row["case"] for row in csv.DictReader(lines) if row["case"]}
    _, slices = read_prepared(prepared)
    group_of = dict(zip(slices.case.tolist(), slices.patient.tolist(), strict=True))
    pairs: Counter[tuple[bool, bool]] = Counter()
    for first, second in combinations(sorted(set(case_of) & set(group_of)), 2):
        pairs[case_of[first] == case_of[second], group_of[first] == group_of[second]] += 1
    for one_case, name in ((True, "one case"), (False, "different cases")):
        joined, apart = pairs[one_case, True], pairs[one_case, False]
        print(f"pairs of slices of {name}: {joined} of {joined + apart} joined")


if __name__ == "__main__":
    main()
