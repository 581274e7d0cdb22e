"""Follow-up: several scans of one patient, compared."""

import csv
import io
import json
import math
import os
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from groundglass.apps.follow import follow
from groundglass.cli import main
from groundglass.errors import ConfigError, FormatError, OutputError
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.report.dicom_results import DicomResults
from groundglass.report.findings import ClassBurden, ModelRef
from groundglass.report.follow_up import FollowUp, Visit, VolumeChange, compare_visits
from groundglass.report.follow_up_page import render_follow_up
from groundglass.report.level_images import LEVELS, LevelImage, choose_levels
from groundglass.scan.geometry import Geometry
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.scan.scan import DicomSeries, Scan
from helpers.browser import chromium
from helpers.dicom_phantom import write_series

VARIATION = 0.03
MODEL = ModelRef(name="made-up", sha256="0" * 64)
CUT_LUNGS = "the lungs reach the lowest slice: the scan does not cover them whole, and volumes are of the covered part"
DAYS = [datetime(2020, 3, 20), datetime(2020, 3, 1), datetime(2020, 4, 2)]


@pytest.fixture(scope="module")
def segmenter_with_repeatability(grey_band: Segmenter) -> Segmenter:
    """A segmenter whose repeatability is known."""
    return Segmenter(grey_band.card.model_copy(update={"repeatability": VARIATION}), grey_band.engine)


@pytest.fixture(scope="module")
def scans(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write one chest three times: unchanged, with most lesions healed, and with slices twice as far apart."""
    folder = tmp_path_factory.mktemp("scans")
    values = phantom.scan.values
    healed = values.copy()
    right = np.arange(values.shape[2]) < values.shape[2] / 2
    healed[phantom.lesions.voxels & right] = -850
    affine = phantom.scan.geometry.affine_lps.copy()
    affine[:3, 0] *= 2
    thick = Scan(values[::2], Geometry((len(values[::2]), *values.shape[1:]), affine))
    paths = [folder / f"PLANTED^NAME {i}.nii.gz" for i in range(3)]
    for path, scan in zip(paths, (phantom.scan, replace(phantom.scan, values=healed), thick), strict=True):
        nifti.write_scan(scan, path)
    return paths


@pytest.fixture(scope="module")
def small_scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small chests, for what does not depend on what they show."""
    paths = [tmp_path_factory.mktemp("small") / f"{seed}.nii.gz" for seed in range(2)]
    for seed, path in enumerate(paths):
        nifti.write_scan(chest_phantom(seed, (8, 72, 96)).scan, path)
    return paths


@pytest.fixture(scope="module")
def followed(
    scans: list[Path], segmenter_with_repeatability: Segmenter, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FollowUp, Path]:
    folder = tmp_path_factory.mktemp("follow")
    return follow(scans, folder, segmenter_with_repeatability, DAYS), folder


@pytest.mark.thorough
def test_scans_are_ordered_by_date(followed: tuple[FollowUp, Path]) -> None:
    result, folder = followed
    assert [visit.taken for visit in result.visits] == sorted(DAYS)
    assert [visit.folder for visit in result.visits] == ["2020-03-01", "2020-03-20", "2020-04-02"]
    for visit in result.visits:
        findings = json.loads((folder / visit.folder / "findings.json").read_text())
        assert findings["lesion_volume_ml"] == visit.lesion_volume_ml
        assert findings["lesion_share_of_lung_percent"] == visit.lesion_share_of_lung_percent


def test_changes_are_differences_with_intervals_of_repeats(followed: tuple[FollowUp, Path]) -> None:
    result, _ = followed
    assert [(change.earlier, change.later) for change in result.changes] == [(1, 2), (2, 3), (1, 3)]
    before, after = result.visits[0].lesion_volume_ml, result.visits[1].lesion_volume_ml
    assert before is not None
    assert after is not None
    change = result.changes[0]
    assert change.lesion_volume_ml == pytest.approx(after - before, abs=1e-3)
    half_width = 1.96 * VARIATION * math.hypot(before, after)
    assert change.lesion_interval_ml == pytest.approx(
        (after - before - half_width, after - before + half_width), abs=1e-3
    )
    assert change.verdict == "more"  # the lesions came back
    assert result.visits[0].lesion_interval_ml == pytest.approx(
        (before * math.exp(-1.96 * VARIATION), before * math.exp(1.96 * VARIATION)), abs=1e-3
    )


def test_different_slice_distances_give_a_warning(followed: tuple[FollowUp, Path]) -> None:
    result, _ = followed
    assert [warning.partition(" have slices")[0] for warning in result.warnings] == ["scans 2 and 3", "scans 1 and 3"]


def test_the_files_hold_the_numbers_and_no_file_names(followed: tuple[FollowUp, Path]) -> None:
    result, folder = followed
    rows = list(csv.DictReader(io.StringIO((folder / "follow.csv").read_text())))
    assert [float(row["lesion_volume_ml"]) for row in rows] == [visit.lesion_volume_ml for visit in result.visits]
    assert [row["change_ml"] for row in rows] == ["", *(str(change.lesion_volume_ml) for change in result.changes[:2])]
    content = json.loads((folder / "follow.json").read_text())
    assert content["schema"] == 2
    assert content["changes"][0]["lesion_volume_ml"] == result.changes[0].lesion_volume_ml
    page = (folder / "follow.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert page.count('class="dot"') == 6
    for file in folder.rglob("*"):
        assert "PLANTED" not in str(file)
        assert not file.is_file() or b"PLANTED" not in file.read_bytes()


def make_plain_visit(ml: float | None, **changes: object) -> Visit:
    plain = Visit(
        folder="x", taken=None, lesion_volume_ml=ml, lesion_interval_ml=None, lung_volume_ml=4000.0,
        lesion_share_of_lung_percent=None if ml is None else ml / 40, share_interval_percent=None,
        slice_distance_mm=1.0, kernel=None, calibrated=True, warnings=(),
    )  # fmt: skip
    return plain.model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"lung_volume_ml": 4500.0}, None),
        ({"lung_volume_ml": 4700.0}, "breath or coverage differ (lungs of 4000 and 4700 ml)"),
        ({"lung_volume_ml": None}, "a lung volume is unknown, as of pictures and of scans without a spacing"),
        ({"taken": DAYS[1]}, None),
        ({"taken": DAYS[0]}, "both scans have one date, 2020-03-20, and no different times"),
        ({"warnings": (CUT_LUNGS,)}, "the later one does not cover the lungs whole: lesions outside the covered part"),
        ({"warnings": (CUT_LUNGS,), "lung_volume_ml": 3000.0}, "breath or coverage differ"),
        ({"slice_distance_mm": 1.5}, None),
        ({"slice_distance_mm": 5.0}, "have slices 1 and 5 mm apart"),
        ({"kernel": "B70f"}, None),
        ({"calibrated": False}, "one scan is in HU, the other in grey levels of a window"),
    ],
)
def test_reasons_against_a_comparison_are_warnings(changes: dict[str, object], warning: str | None) -> None:
    visits = [make_plain_visit(100.0, taken=DAYS[0]), make_plain_visit(100.0, **changes)]
    warnings = compare_visits(visits, VARIATION, MODEL).warnings
    assert [warning in text for text in warnings] == [True] if warning else not warnings


def test_no_sentence_claims_a_change_between_scans_that_do_not_compare() -> None:
    result = compare_visits(
        [make_plain_visit(100.0), make_plain_visit(300.0, lung_volume_ml=7000.0), make_plain_visit(110.0)], None, MODEL
    )
    doubt = "cannot be told: breath or coverage differ (lungs of 4000 and 7000 ml), so that neither ml nor % compare"
    assert result.changes[0].verdict == doubt
    assert result.changes[0].in_words == f"{doubt} (+200 ml, +5.0 percentage points)"
    assert result.changes[2].verdict == "more"  # the first and the last scan do compare
    page = render_follow_up(result).replace("\N{NO-BREAK SPACE}", " ")
    assert '<p class="lead">From scan 1 to scan 3: more (+10 ml, +0.2 percentage points).</p>' in page
    assert page.count("<td>more</td>") == 1


def test_changes_of_a_share_are_points_and_shares_are_percent() -> None:
    page = render_follow_up(compare_visits([make_plain_visit(100.0), make_plain_visit(200.0)], 0.1, MODEL))
    assert "(+100\N{NO-BREAK SPACE}ml, +2.5\N{NO-BREAK SPACE}percentage points)" in page
    assert '<th scope="col">percentage points</th>' in page
    assert "points of %" not in page


@pytest.mark.parametrize(
    ("days", "labels"),
    [
        ((1, 3, 20, 90), ["1, 2", "3", "4"]),
        ((1, 2, 3, 90), ["1, 2, 3", "4"]),
        ((1, 30, 60, 90), ["2020-01-01", "2020-01-30", "2020-02-29", "2020-03-30"]),
    ],
)
def test_scans_of_neighbouring_days_share_a_label_in_the_charts(days: tuple[int, ...], labels: list[str]) -> None:
    visits = [make_plain_visit(100.0, taken=datetime(2020, 1, 1) + timedelta(day - 1)) for day in days]
    chart = render_follow_up(compare_visits(visits, VARIATION, MODEL)).partition("<svg")[2].partition("</svg>")[0]
    found = re.findall(r'text-anchor="middle">([^<]+)<', chart)
    assert [label for label in found if label != "scan"] == labels


@pytest.mark.parametrize(
    "days",
    [
        (datetime.min, datetime(2020, 1, 1)),
        (datetime(2020, 1, 1), datetime.max),
        (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC)),
    ],
)
def test_dates_that_an_anonymiser_wrote_and_dates_with_a_time_zone_are_drawn(days: tuple[datetime, datetime]) -> None:
    visits = [make_plain_visit(100.0, taken=day) for day in days]
    assert f"{days[0]:%Y-%m-%d}" in render_follow_up(compare_visits(visits, VARIATION, MODEL))


@pytest.mark.thorough
def test_the_table_of_four_scans_fits_a_window_and_no_number_is_parted_from_its_unit(tmp_path: Path) -> None:
    visits = [
        make_plain_visit(
            1415.6, taken=day, lesion_volume_interval_ml=(1252.0, 1657.9), lesion_share_interval_percent=(26.8, 47.8),
            classes=tuple(
                ClassBurden(name=name, volume_ml=700.0, lesion_share_of_lung_percent=17.5)
                for name in ("ground-glass", "consolidation")
            ),
            kernel="Br59d", warnings=("a warning",),
        )
        for day in (*DAYS, datetime(2020, 5, 2))
    ]  # fmt: skip
    level = LevelImage(50.0, "data:,", "image 120 of 300, −138 mm: lesion on 18 % of the lung", 18.0)
    (tmp_path / "follow.html").write_text(
        render_follow_up(compare_visits(visits, VARIATION, MODEL), [(level,) * LEVELS] * len(visits))
    )
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto((tmp_path / "follow.html").as_uri())
        widths = "(name) => { const each = document.querySelector(name); return [each.scrollWidth, each.clientWidth]; }"
        needed, given = page.evaluate(widths, ".scroll:has([aria-label=Scans])")
        assert needed == given
        assert "18\N{NO-BREAK SPACE}% of the lung" in page.locator(".levels td span").first.inner_text()


def test_slices_at_matching_heights_stand_side_by_side(followed: tuple[FollowUp, Path]) -> None:
    result, folder = followed
    page = (folder / "follow.html").read_text()
    assert page.count("data:image/jpeg") == 5 * len(result.visits)
    rows = page[page.index("Slices side by side") :].split("<tr>")[2:]
    heights = [float(re.findall(r'<th scope="row">(\d+) %', row)[0]) for row in rows]
    assert heights == sorted(heights, reverse=True)
    for row in rows:
        first, second, thick = (
            float(mm.replace("−", "-")) for mm in re.findall(r'alt="image \d+ of \d+, (−?\d+) mm:', row)
        )
        assert first == second  # the same chest
        assert abs(first - thick) < 16  # every other slice of it, 15 mm apart


def test_of_each_part_of_the_height_the_level_with_most_lesion_in_any_scan_is_shown() -> None:
    def scan(**lesion: float) -> list[LevelImage]:
        shares = {int(level[1:]): share for level, share in lesion.items()}
        return [LevelImage(5 * level + 2.5, "", "", shares.get(level, 0.0)) for level in range(LEVELS)]

    assert choose_levels([scan(_3=5.0, _9=1.0), scan(_0=4.0, _10=2.0)]) == [17, 13, 10, 5, 3]
    assert choose_levels([scan(_7=9.0, _8=8.0, _10=1.0)])[2:4] == [10, 7]  # not both of a pair of neighbours


def test_the_volumes_of_classes_and_intervals_by_calibration_are_shown_where_they_are_known() -> None:
    classes = (ClassBurden(name="consolidation", volume_ml=12.0, lesion_share_of_lung_percent=0.3),)
    known = make_plain_visit(100.0, classes=classes, lesion_share_interval_percent=(1.5, 3.5))
    page = render_follow_up(compare_visits([known, make_plain_visit(100.0)], None, MODEL))
    assert '<th scope="col">consolidation, % of lung</th>' in page
    assert '<th scope="col">80 % by calibration</th>' in page
    assert "<td>1.5 to 3.5</td>" in page
    assert "By calibration: 80 % of readings in held-out scans and pictures." in page
    plain = render_follow_up(compare_visits([make_plain_visit(100.0)] * 2, None, MODEL))
    assert "calibration" not in plain


def test_different_kernels_give_a_warning() -> None:
    visits = [make_plain_visit(100.0, kernel="B30f"), make_plain_visit(100.0, kernel="B70f")]
    [warning] = compare_visits(visits, VARIATION, MODEL).warnings
    assert "other kernels (B30f, B70f)" in warning
    assert warning.endswith("which may be part of a change")


def test_the_first_and_the_last_scan_are_compared_too_before_their_change_is_stated() -> None:
    """Slices grow from scan to scan by less than is warned of, but by more over all."""
    visits = [make_plain_visit(100.0, slice_distance_mm=mm) for mm in (5.0, 7.0, 10.0)]
    [warning] = compare_visits(visits, VARIATION, MODEL).warnings
    assert warning == (
        "scans 1 and 3 have slices 5 and 10 mm apart: small lesions and rims are measured differently, which may be "
        "part of a change"
    )


@pytest.mark.parametrize(
    ("before", "after", "variation", "verdict"),
    [
        (100.0, 200.0, 0.1, "more"),
        (200.0, 100.0, 0.1, "less"),
        (100.0, 110.0, 0.1, "no change beyond what repeats differ by"),
        (100.0, 110.0, None, "more"),
        (100.0, 100.0, None, "the same"),
        (None, 100.0, 0.1, "unknown"),
        (0.0, 0.0, 0.1, "neither scan shows lesion of relevant size"),
        (0.2, 1.2, 0.1, "neither scan shows lesion of relevant size"),  # 0.03 % of the lung
        (1.2, 0.0, None, "neither scan shows lesion of relevant size"),
        (1.2, 8.0, 0.1, "more"),
    ],
)
def test_the_verdict_on_a_change_depends_on_the_repeatability(
    before: float | None, after: float, variation: float | None, verdict: str
) -> None:
    (change,) = compare_visits([make_plain_visit(before), make_plain_visit(after)], variation, MODEL).changes
    assert change.verdict == verdict
    page = render_follow_up(compare_visits([make_plain_visit(before), make_plain_visit(after)], variation, MODEL))
    assert f"From scan 1 to scan 2: {verdict}" in page
    assert (page.count('class="bar"') > 0) is False  # these made-up scans carry no interval of their own


def test_lesions_outside_the_lung_field_are_of_relevant_size() -> None:
    before, after = make_plain_visit(0.0), make_plain_visit(0.2).model_copy(update={"lesion_volume_ml": 200.0})
    (change,) = compare_visits([before, after], 0.1, MODEL).changes
    assert (change.negligible, change.verdict) == (False, "more")


@pytest.mark.thorough
def test_an_unknown_repeatability_gives_no_intervals_and_a_warning(
    scans: list[Path], grey_band: Segmenter, tmp_path: Path
) -> None:
    result = follow(scans[:2], tmp_path, grey_band)
    assert result.changes == (
        VolumeChange(
            earlier=1, later=2, lesion_interval_ml=None, share_interval_points=None,
            lesion_volume_ml=result.changes[0].lesion_volume_ml,
            lesion_share_of_lung_points=result.changes[0].lesion_share_of_lung_points,
        ),
    )  # fmt: skip
    assert any("repeatability is not known" in warning for warning in result.warnings)
    assert [visit.folder for visit in result.visits] == ["scan-1", "scan-2"]


def test_too_few_scans_missing_dates_and_unreadable_scans_are_refused(
    scans: list[Path], grey_band: Segmenter, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="needs two or more scans, found 1"):
        follow(scans[:1], tmp_path, grey_band)
    with pytest.raises(ConfigError, match="1 dates were given for 2 scans"):
        follow(scans[:2], tmp_path, grey_band, DAYS[:1])
    with pytest.raises(ConfigError, match="some dates state a time zone"):
        follow(scans[:2], tmp_path, grey_band, ["2026-01-31T10:00+01:00", "2026-02-01"])
    with pytest.raises(FormatError, match=r"scan 2 of 2: .*no such file"):
        follow([scans[0], tmp_path / "none"], tmp_path, grey_band)
    assert not list(tmp_path.glob("*"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "nested", "text"])
def test_what_is_no_earlier_follow_up_is_not_waited_for_and_not_removed(
    kind: str, grey_band: Segmenter, tmp_path: Path
) -> None:
    if kind == "pipe":
        os.mkfifo(tmp_path / "follow.json")
    else:
        (tmp_path / "follow.json").write_text("[" * 100_000 if kind == "nested" else '{"visits": [{"folder": ".."}]}')
    with pytest.raises(FormatError, match=r"scan 1 of 2: .*no such file"):
        follow([tmp_path / "none"] * 2, tmp_path, grey_band)
    assert [path.name for path in tmp_path.iterdir()] == ["follow.json"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "command"), [("findings.json", "segment"), ("overview.html", "batch")])
def test_a_follow_up_is_not_written_beside_results_of_another_command(
    scans: list[Path], segmenter_with_repeatability: Segmenter, tmp_path: Path, name: str, command: str
) -> None:
    (tmp_path / name).write_text("of another patient")
    with pytest.raises(OutputError, match=f"holds results of groundglass {command}: name another folder"):
        follow(scans, tmp_path, segmenter_with_repeatability, DAYS)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.thorough
def test_a_follow_up_is_not_written_beside_another_that_was_written_meanwhile(
    scans: list[Path], grey_band: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundglass.report.analysis.draw_preview", lambda *_, **__: Image.new("RGB", (9, 9)))

    def write_another(*_: int) -> None:
        (tmp_path / "2019-01-01").mkdir(exist_ok=True)
        (tmp_path / "follow.json").write_text('{"visits": [{"folder": "2019-01-01"}]}')

    with pytest.raises(OutputError, match="another follow-up was written"):
        follow(scans[:2], tmp_path, grey_band, DAYS[:2], progress=write_another)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2019-01-01", "follow.json"]


@pytest.mark.thorough
def test_a_follow_up_replaces_an_earlier_one_as_a_whole_or_not_at_all(
    small_scans: list[Path], grey_band: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundglass.report.analysis.draw_preview", lambda *_, **__: Image.new("RGB", (9, 9)))
    follow(small_scans[:2], tmp_path, grey_band, DAYS[:2])
    (tmp_path / "notes.txt").touch()
    (tmp_path / "scan-1").mkdir()  # not of the follow-up
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FormatError):
        follow([small_scans[1], small_scans[0], tmp_path / "none"], tmp_path, grey_band)

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(small_scans[:2], tmp_path, grey_band, DAYS[::-1][:2], progress=stop)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match="scan-1 is not a folder of an earlier follow-up"):
        follow(small_scans[:2], tmp_path, grey_band)
    mine = tmp_path / "2020-03-01" / "mine.txt"
    mine.touch()
    with pytest.raises(OutputError, match=r"mine.txt is not of the follow-up"):
        follow(small_scans[:2], tmp_path, grey_band, DAYS[:2])
    mine.unlink()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    later = [datetime(2021, 5, day) for day in (1, 2)]
    result = follow(small_scans[:2], tmp_path, grey_band, later)
    assert {path.name for path in tmp_path.iterdir()} == {
        *(visit.folder for visit in result.visits),
        *("follow.html", "follow.csv", "follow.json", "notes.txt", "scan-1"),
    }


@pytest.mark.thorough
def test_dicom_dates_give_the_order_and_different_patients_a_warning(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    days = ("20200320", "20200301")
    for i, day in enumerate(days):
        write_series(phantom.scan, tmp_path / str(i), AcquisitionDate=day, PatientID=f"P{i}", ConvolutionKernel=f"B{i}")
    result = follow([tmp_path / "0", tmp_path / "1"], tmp_path / "out", grey_band)
    assert [visit.folder for visit in result.visits] == ["2020-03-01", "2020-03-20"]
    assert result.warnings[0] == "the scans state different patients: check that they are of the same one"
    assert result.warnings[1] == "scans 1 and 2 are the same images: check that each scan was given once"
    assert "scans 1 and 2 were reconstructed with other kernels (B1, B0): " in result.warnings[2]
    assert (tmp_path / "out" / "2020-03-20" / "lesions.dcm").is_file()
    write_series(phantom.scan, tmp_path / "2", AcquisitionDate="", StudyDate="", SeriesDate="")
    with pytest.raises(ConfigError, match="scan 2 states no date, scan 1 does: give --date for each"):
        follow([tmp_path / "0", tmp_path / "2"], tmp_path / "out", grey_band)


@pytest.fixture
def without_results_of_each_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes time, and does not depend on how scans compare."""
    monkeypatch.setattr("groundglass.report.analysis.draw_preview", lambda *_, **__: Image.new("RGB", (9, 9)))
    monkeypatch.setattr("groundglass.report.analysis.make_dicom_results", lambda *_: DicomResults({}))


def dated(day: str, time: str = "101500", **changes: str) -> dict[str, str]:
    """Return attributes of a series that was taken on a day."""
    names = [f"{level}{part}" for part in ("Date", "Time") for level in ("Acquisition", "Series", "Study")]
    return dict(zip(names, [day] * 3 + [time] * 3, strict=True)) | changes


@pytest.mark.usefixtures("without_results_of_each_scan")
@pytest.mark.parametrize(
    ("first", "second", "dates", "warnings"),
    [
        (dated("20200301", PatientID=""), dated("20200320"), (), []),  # an anonymised scan states no other patient
        (
            dated("20200301", StudyInstanceUID="1.2.3"),
            dated("20200301", "102000", StudyInstanceUID="1.2.3"),
            (),
            ["scans 1 and 2 are of one study: check that they are not two series of one examination"],
        ),
        (
            dated("20200301"),
            dated("20200301", ""),
            (),
            ["scans 1 and 2 are of one day, and only one states a time: their order is not known"],
        ),
        (
            dated("20200301"),
            dated("20200320"),
            ("2020-03-20", "2020-03-01"),
            [
                "scans 1 and 2 are in the order of the dates that were given; by their headers, which state 2020-03-20 "
                "and 2020-03-01, it is the other one: check the dates"
            ],
        ),
        (dated("19000101"), dated("19000102"), ("2020-03-01", "2020-03-20"), []),  # shifted dates in the same order
        (
            dated("19000101"),
            dated("19000101"),
            (),
            [
                "scans 1 and 2: both scans have one date, 1900-01-01, and no different times, so that what differs is "
                "no change over time; check the dates"
            ],
        ),
    ],
)
@pytest.mark.thorough
def test_dates_and_studies_that_make_no_course_are_warned_of(
    grey_band: Segmenter,
    tmp_path: Path,
    first: dict[str, str],
    second: dict[str, str],
    dates: tuple[str, ...],
    warnings: list[str],
) -> None:
    for seed, changes in enumerate((first, second)):
        changes = {"StudyInstanceUID": f"1.2.4.{seed}", **changes}
        write_series(chest_phantom(seed, (8, 72, 96)).scan, tmp_path / str(seed), **changes)
    segmenter = Segmenter(grey_band.card.model_copy(update={"repeatability": VARIATION}), grey_band.engine)
    result = follow([tmp_path / "0", tmp_path / "1"], tmp_path / "out", segmenter, dates)
    assert [text for text in result.warnings if "breath or coverage" not in text] == warnings


@pytest.mark.usefixtures("without_results_of_each_scan")
@pytest.mark.thorough
def test_the_same_images_are_known_in_any_format_and_orientation(grey_band: Segmenter, tmp_path: Path) -> None:
    scan = chest_phantom(0, (8, 72, 96), oblique=False).scan
    write_series(scan, tmp_path / "dicom")
    nifti.write_scan(scan, tmp_path / "0.nii.gz")
    nibabel: Any = nib
    turned = nibabel.load(tmp_path / "0.nii.gz").as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    nibabel.save(turned, tmp_path / "1.nii.gz")
    sources = [tmp_path / name for name in ("dicom", "0.nii.gz", "1.nii.gz")]
    result = follow(sources, tmp_path / "out", grey_band, [datetime(2020, 3, day) for day in (1, 2, 3)])
    assert list(result.warnings[:3]) == [
        f"scans {pair} are the same images: check that each scan was given once"
        for pair in ("1 and 2", "1 and 3", "2 and 3")
    ]
    assert {change.lesion_volume_ml for change in result.changes} == {0.0}
    assert result.visits[0].lesion_volume_ml == result.visits[2].lesion_volume_ml


@pytest.mark.usefixtures("without_results_of_each_scan")
@pytest.mark.thorough
def test_a_scan_that_cuts_the_lungs_a_little_is_warned_of(
    phantom: Phantom, segmenter_with_repeatability: Segmenter, tmp_path: Path
) -> None:
    lung = phantom.lungs.voxels.sum((1, 2))
    start = int(np.flatnonzero(lung.cumsum() > 0.08 * lung.sum())[0])
    grid, values = phantom.scan.geometry, phantom.scan.values[start:]
    affine = grid.affine_lps.copy()
    affine[:3, 3] = grid.position((start, 0, 0))
    cut = Scan(values, Geometry((len(values), *values.shape[1:]), affine))
    result = follow([phantom.scan, cut], tmp_path / "out", segmenter_with_repeatability)
    whole_ml, cut_ml = (visit.lung_volume_ml for visit in result.visits)
    assert cut_ml == pytest.approx(whole_ml * lung[start:].sum() / lung.sum(), rel=0.02)
    assert result.warnings == (
        "scans 1 and 2: the later one does not cover the lungs whole: lesions outside the covered part are missing, "
        "which may be part of a change",
    )


@pytest.mark.parametrize(
    ("stated", "taken"),
    [
        ({"AcquisitionDateTime": "20200301101500.00"}, datetime(2020, 3, 1, 10, 15)),
        ({"AcquisitionDate": "20200301", "AcquisitionTime": "101500.5"}, datetime(2020, 3, 1, 10, 15)),
        ({"AcquisitionDate": "20200301", "AcquisitionTime": "1015"}, datetime(2020, 3, 1, 10, 15)),
        ({"AcquisitionDateTime": "202003011015+0100"}, datetime(2020, 3, 1, 10, 15)),
        ({"SeriesDate": "20200301", "SeriesTime": "10"}, datetime(2020, 3, 1, 10)),
        ({"AcquisitionDateTime": "2020", "StudyDate": "20200301"}, datetime(2020, 3, 1)),
        ({"AcquisitionDate": "20200301"}, datetime(2020, 3, 1)),
        ({"AcquisitionDate": "", "StudyDate": "20200301", "StudyTime": ""}, datetime(2020, 3, 1)),
        ({"SeriesDate": "20200302", "StudyDate": "20200301"}, datetime(2020, 3, 2)),
        ({}, None),
    ],
)
def test_the_date_of_a_series_is_that_of_its_most_exact_header(stated: dict[str, str], taken: datetime | None) -> None:
    header = Dataset()
    for name, value in stated.items():
        setattr(header, name, value)
    assert DicomSeries((header,)).acquired == taken


@pytest.mark.slow
def test_the_command_writes_the_report_and_prints_no_file_names(
    scans: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["follow", *map(str, scans[:2]), "-o", str(tmp_path), "--date", "2020-03-20", "--date", "2020-03-01"]
    monkeypatch.setattr(sys, "argv", ["groundglass", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    out = capsys.readouterr().out
    assert re.match(
        r"scan 1 to 2: (more|the same|less|no change).* \([+-][\d.]+ ml, [+-][\d.]+ percentage points\)", out
    )
    assert "PLANTED" not in out
    assert (tmp_path / "follow.html").is_file()
    counts = [len(json.loads((path / "findings.json").read_text())["warnings"]) for path in sorted(tmp_path.glob("2*"))]
    named = [line for line in out.splitlines() if re.match(r"scan \d: \d+ warnings? in ", line)]
    assert len(named) == sum(count > 0 for count in counts)
