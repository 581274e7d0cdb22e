"""Commands that are killed at random moments: what they leave is whole, or not taken for it; a rerun completes it."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from groundglass.data.prepared import read_manifest, read_prepared
from groundglass.errors import DatasetError
from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from helpers.kills import kill_at_random_moments, run_whole, visible
from helpers.medseg_phantoms import write_phantoms

pytestmark = pytest.mark.slow
VISITS = ("2020-03-01", "2020-03-20")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), grey=False)


def test_a_killed_follow_up_leaves_the_earlier_one(grey_band_model: Path, tmp_path: Path) -> None:
    scans = [tmp_path / f"{seed}.nii.gz" for seed in range(4)]
    for seed, path in enumerate(scans):
        nifti.write_scan(chest_phantom(seed, (16, 72, 96)).scan, path)
    dates = [word for visit in VISITS for word in ("--date", visit)]
    options = [*dates, "-o", tmp_path / "out", "--model", grey_band_model]
    seconds = run_whole("follow", *scans[:2], *options)
    before, others = visible(tmp_path / "out"), ("follow", *scans[2:], *options)

    def check_new(found: dict[str, bytes]) -> None:
        assert set(found) == set(before)
        for visit in json.loads(found["follow.json"])["visits"]:
            findings = found[f"{visit['folder']}/findings.json"]
            assert json.loads(findings)["lesion_volume_ml"] == visit["lesion_volume_ml"]
            assert findings != before[f"{visit['folder']}/findings.json"]

    for _ in kill_at_random_moments(seconds, 0, *others):
        if (found := visible(tmp_path / "out")) != before:  # it was at its end already
            check_new(found)
    run_whole(*others)
    check_new(visible(tmp_path / "out"))


def test_a_killed_evaluation_leaves_the_earlier_one(phantoms: Path, grey_band_model: Path, tmp_path: Path) -> None:
    command = ("evaluate", grey_band_model, "--data", phantoms, "-o", tmp_path / "out", "--case")
    seconds = run_whole(*command, "volumes/1")
    before = visible(tmp_path / "out")

    def check_new(found: dict[str, bytes]) -> None:
        assert {name for name in found if "/" not in name} == {name for name in before if "/" not in name}
        assert {row["case"] for row in csv.DictReader(found["cases.csv"].decode().splitlines())} == {"volumes/4"}
        assert b"volumes/1" not in b"".join(found.values())

    for _ in kill_at_random_moments(seconds, 1, *command, "volumes/4"):
        if (found := visible(tmp_path / "out")) != before:  # it was at its end already
            check_new(found)
    run_whole(*command, "volumes/4")
    check_new(visible(tmp_path / "out"))


def test_a_killed_preparation_is_not_taken_for_whole_and_goes_on(phantoms: Path, tmp_path: Path) -> None:
    command = ("prepare", phantoms, "--size", "72", "96", "-o")
    seconds = run_whole(*command, tmp_path / "undisturbed")
    manifest, expected = read_prepared(tmp_path / "undisturbed")
    for number, _ in enumerate(kill_at_random_moments(seconds, 2, *command, tmp_path / "out")):
        try:
            slices = read_prepared(tmp_path / "out")[1]
        except DatasetError:
            if (tmp_path / "out" / "manifest.json").exists():
                assert not read_manifest(tmp_path / "out").complete
        else:
            assert np.array_equal(slices.hu, expected.hu)
        if number == 2:
            shutil.rmtree(tmp_path / "out", ignore_errors=True)  # the later kills meet a folder that is begun anew
    run_whole(*command, tmp_path / "out")
    assert read_prepared(tmp_path / "out")[0] == manifest
    assert np.array_equal(read_prepared(tmp_path / "out")[1].labels, expected.labels)
