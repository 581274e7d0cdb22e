"""Damaged files of every kind are read or give a one-line error; `bench/fuzz.py` tries many more of them."""

import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from groundglass.io.reader import read_scan
from helpers.fuzz_seeds import write_seeds

SLOW = "177-m.dcm"  # tests/io/test_decoding.py reads it too, which takes seconds
FORMER_FAILURES = [
    pytest.param(path, id=path.name, marks=[pytest.mark.slow] if path.name == SLOW else [])
    for path in sorted((Path(__file__).parent / "fuzz").iterdir())
]
sys.path.append(str(Path(__file__).parent.parent / "bench"))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.mark.parametrize("path", FORMER_FAILURES)
def test_files_that_failed_before_are_read_or_refused_in_one_line(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from fuzz import outcome

    assert outcome(path) in ("read", "refused")
    assert capfd.readouterr() == ("", "")


@pytest.mark.thorough
def test_intact_seeds_are_read(seeds: list[Path]) -> None:
    from fuzz import outcome

    assert Counter(path.suffix for path in seeds) == {
        **{".dcm": 27, ".zip": 3, ".csv": 4, ".json": 3},
        **{".nii": 4, ".gz": 1, ".mha": 2, ".nrrd": 4, ".png": 2, ".jpg": 1},
    }
    for path in seeds:
        assert outcome(path) == "read"
        if path.suffix not in (".csv", ".json") and "mask" not in path.name:
            assert np.isfinite(read_scan(path).values).all()


@pytest.mark.parametrize("count", [150, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.thorough
def test_damaged_files_are_read_or_refused(seeds: list[Path], tmp_path: Path, count: int) -> None:
    from fuzz import fuzz

    counts, failures = fuzz(seeds, count, seed=1, workers=1, output=tmp_path / "failures")
    assert not failures
    assert sum(counts.values()) == count
    assert len([name for name in counts if name.endswith("refused")]) > 10
    assert len([name for name in counts if name.endswith("read")]) > 10


@pytest.mark.thorough
def test_fuzzing_detects_an_error_a_dead_process_and_a_hang(
    seeds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fuzz

    def fake_outcome(path: Path) -> str:
        match int(path.name.split("-")[0]):
            case 1:
                os._exit(3)
            case 2:
                time.sleep(60)
            case 3:
                return "a traceback"
            case 4:
                while True:
                    pass
            case 5:  # other programs had the core
                time.sleep(1.5)
        return "read"

    monkeypatch.setattr(fuzz, "outcome", fake_outcome)
    monkeypatch.setattr(fuzz, "CORE_S", 1)
    monkeypatch.setattr(fuzz, "CLOCK_S", 12)
    counts, failures = fuzz.fuzz(seeds, 7, seed=1, workers=1, output=tmp_path / "failures")
    assert sum(counts.values()) == 7
    assert [failure.split(": ")[1] for failure in failures] == [
        "the process died with exit code 3",
        "more than 12 s by the clock",
        "a traceback",
        "more than 1 s of a core",
    ]
    assert len(list((tmp_path / "failures").iterdir())) == 4
