"""What the page gets besides the results: views, series, notes, masks of others, changes; by the HTTP API."""

import gzip
import sqlite3
from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from groundglass.apps.service import comparison
from groundglass.apps.service.comparison import change_in_percent, compare_jobs
from groundglass.apps.service.job_states import JobStage
from groundglass.apps.service.jobs import JobStore
from groundglass.apps.service.routes.results import file_stem
from groundglass.apps.service.storage import JobFolder
from groundglass.apps.service.uploaded_scan import read_mask
from groundglass.apps.service.view_files import describe_view
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_series
from helpers.served_results import download, view_slices
from helpers.server import Server

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def study(server: Server, phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A job of a study with two CT series and a file of another kind."""
    folder = tmp_path_factory.mktemp("cd") / "study"
    write_series(phantom.scan, folder / "a", SeriesNumber=2, ConvolutionKernel="B70f", SeriesDescription="Thorax lung")
    small = chest_phantom(shape=(20, 96, 128)).scan
    write_series(small, folder / "b", SeriesNumber=3, ConvolutionKernel="B31f", SeriesDescription="Thorax soft")
    (folder / "README").write_text("a text")
    files = [
        (path.relative_to(folder.parent).as_posix(), path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    ]
    return server.wait_for_job(server.post(*files).json()["id"])


def call(server: Server, method: str, path: str, **options: Any) -> tuple[int, Any]:
    with server.client() as client:
        answer = client.request(method, f"/api/jobs/{path}", **options)
    return answer.status_code, answer.json()


def test_a_view_tells_a_point_inside_each_lesion_on_its_largest_slice_and_the_sides_of_the_lungs(
    server: Server, done: str
) -> None:
    lesions, _ = view_slices(server, done, "lesions")
    lungs, _ = view_slices(server, done, "lungs")
    _, view = call(server, "GET", f"{done}/view/slices.json")
    _, findings = call(server, "GET", f"{done}/findings")
    assert len(view["lesion_points"]) == len(findings["largest_lesions"]) > 0
    for (z, y, x), lesion in zip(view["lesion_points"], findings["largest_lesions"], strict=True):
        assert lesions[z, y, x] > 0
        assert view["file_slice_of_view"][z] == lesion["slice"]
    assert set(np.unique(lungs)) == {0, 1, 2}
    columns = [np.argwhere(lungs == side)[:, 2].mean() for side in (1, 2)]
    assert columns[0] < columns[1]  # the patient's right lung lies on the left of the screen


def test_a_study_of_several_series_lists_them_and_another_can_be_taken(server: Server, study: dict[str, Any]) -> None:
    assert study["status"] == "done", study
    assert study["label"] == "study"
    _, series = call(server, "GET", f"{study['id']}/series")
    listed = {(s["label"], s["description"], s["kernel"], s["slices"], s["chosen"]) for s in series}
    assert listed == {("2", "Thorax lung", "B70f", 32, True), ("3", "Thorax soft", "B31f", 20, False)}
    status, sent = call(server, "POST", f"{study['id']}/series", json={"series": "3"})
    assert status == 202
    other = server.wait_for_job(sent["id"])
    assert (other["status"], other["label"]) == ("done", "study, series 3")
    _, findings = call(server, "GET", f"{other['id']}/findings")
    assert findings["slices"] == 20
    _, series = call(server, "GET", f"{other['id']}/series")
    assert [s["label"] for s in series if s["chosen"]] == ["3"]
    status, refusal = call(server, "POST", f"{study['id']}/series", json={"series": "7"})
    assert (status, "no such series" in refusal["detail"]) == (409, True)


def test_a_scan_of_one_series_offers_no_choice(server: Server, done: str) -> None:
    assert call(server, "GET", f"{done}/series") == (200, [])


def test_a_job_can_be_named_and_noted(server: Server, done: str) -> None:
    before = server.job(done)
    assert before["note"] == ""
    status, changed = call(server, "PATCH", done, json={"note": "read by\nA. B."})
    assert (status, changed["note"], changed["label"]) == (200, "read by\nA. B.", before["label"])
    _, changed = call(server, "PATCH", done, json={"label": "Case 7\x1b[2J.nii.gz"})
    assert (changed["note"], "\x1b" in changed["label"]) == ("read by\nA. B.", False)
    with server.client() as client:
        header = client.get(f"/api/jobs/{done}/files/findings.json?download=1").headers["content-disposition"]
    assert "Case-7" in header
    assert header.endswith('-findings.json"')
    call(server, "PATCH", done, json={"label": before["label"], "note": ""})
    assert call(server, "PATCH", "0" * 32, json={"note": "x"})[0] == 404
    assert call(server, "PATCH", done, json={"note": "x" * 2001})[0] == 422


def test_the_report_has_the_name_that_a_person_gives_and_not_that_of_the_upload(
    server: Server, scan_file: Path, tmp_path: Path
) -> None:
    upload = tmp_path / "Doe Jane.nii.gz"
    upload.write_bytes(scan_file.read_bytes())
    job = str(server.wait_for_job(server.post(upload).json()["id"])["id"])
    report = f"{job}/files/report.html"
    unnamed = download(server, report)
    assert b"Doe Jane" not in unnamed
    call(server, "PATCH", job, json={"label": "Doe Jane.nii.gz", "note": "its own name"})
    assert download(server, report) == unnamed

    call(server, "PATCH", job, json={"label": "Müller <1>"})
    mask = gzip.decompress(download(server, f"{job}/view/lesions.nii.gz"))
    with server.client() as client:
        shown = client.get(f"/api/jobs/{report}")
        saved = client.get(f"/api/jobs/{report}?download=1")
        corrected = client.post(f"/api/jobs/{job}/corrections", content=mask).json()["id"]
    assert "<h1>Müller &lt;1&gt;</h1>" in shown.text
    assert "<title>Müller &lt;1&gt;: lesion" in shown.text
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in shown.headers["content-security-policy"]
    assert (saved.text, saved.headers["content-type"]) == (shown.text, "application/octet-stream")
    assert saved.headers["content-disposition"] == "attachment; filename*=utf-8''M%C3%BCller-1-report.html"

    server.wait_for_job(corrected)
    call(server, "PATCH", job, json={"label": "Case 8"})
    assert "<h1>Case 8</h1>" in download(server, report).decode()
    assert "<h1>Müller &lt;1&gt;</h1>" in download(server, f"{corrected}/files/report.html").decode()


def test_the_names_of_downloads_hold_no_character_that_a_file_name_must_not() -> None:
    names = [file_stem(label) for label in ("ct.nii.gz", "a/b: c?.ZIP", "..", "x" * 200, "Müller 1")]
    assert names == ["ct", "a-b-c", "scan", "x" * 60, "Müller-1"]


def test_a_segmentation_of_the_series_is_opened_as_its_mask(server: Server, study: dict[str, Any]) -> None:
    seg = download(server, f"{study['id']}/files/lesions.dcm")
    status, sent = call(server, "POST", f"{study['id']}/corrections", content=seg)
    assert status == 202
    opened = server.wait_for_job(sent["id"])
    assert (opened["status"], opened["corrects"]) == ("done", study["id"]), opened
    kept, drawn = (view_slices(server, job, "lesions")[0] for job in (study["id"], opened["id"]))
    assert kept.any()
    assert np.array_equal(kept, drawn)


def in_two_segments(seg: bytes, labels: tuple[str, str], folder: Path) -> bytes:
    """A Segmentation whose lower half is moved into a second segment."""
    (folder / "seg.dcm").write_bytes(seg)
    dataset = pydicom.dcmread(folder / "seg.dcm")
    dataset.SegmentSequence.append(deepcopy(dataset.SegmentSequence[0]))
    for number, (each, label) in enumerate(zip(dataset.SegmentSequence, labels, strict=True), start=1):
        each.SegmentNumber, each.SegmentLabel = number, label
    (shared,) = dataset.SharedFunctionalGroupsSequence
    of_all = shared.SegmentIdentificationSequence[0]
    del shared.SegmentIdentificationSequence
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.SegmentIdentificationSequence = [deepcopy(of_all)]
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2 if index < dataset.NumberOfFrames // 2 else 1
    dataset.save_as(folder / "two.dcm")
    return (folder / "two.dcm").read_bytes()


@pytest.mark.slow
def test_the_classes_of_a_segmentation_are_kept_and_those_of_a_mask_drawn_from_it(
    server: Server, study: dict[str, Any], tmp_path: Path
) -> None:
    whole = download(server, f"{study['id']}/files/lesions.dcm")
    seg = in_two_segments(whole, ("GGO", "Consolidation"), tmp_path)
    _, sent = call(server, "POST", f"{study['id']}/corrections?opened=true", content=seg)
    opened = server.wait_for_job(sent["id"])
    assert opened["status"] == "done", opened
    drawn = download(server, f"{opened['id']}/view/lesions.nii.gz")
    _, sent = call(server, "POST", f"{opened['id']}/corrections", content=drawn)
    again = server.wait_for_job(sent["id"])
    for job in (opened["id"], again["id"]):
        values, _ = view_slices(server, job, "lesions")
        assert set(np.unique(values)) == {0, 1, 2}
        assert call(server, "GET", f"{job}/view/slices.json")[1]["classes"] == ["ground-glass", "consolidation"]
        _, findings = call(server, "GET", f"{job}/findings")
        volumes = [each["volume_ml"] for each in findings["classes"]]
        assert min(volumes) > 0
        assert sum(volumes) == pytest.approx(findings["lesion_volume_ml"], abs=0.01)


def test_segments_of_unknown_classes_are_opened_as_one_lesion(
    server: Server, study: dict[str, Any], tmp_path: Path
) -> None:
    seg = in_two_segments(download(server, f"{study['id']}/files/lesions.dcm"), ("nodule", "Consolidation"), tmp_path)
    _, sent = call(server, "POST", f"{study['id']}/corrections?opened=true", content=seg)
    opened = server.wait_for_job(sent["id"])
    kept, drawn = (view_slices(server, job, "lesions")[0] for job in (study["id"], opened["id"]))
    assert np.array_equal(kept, drawn)
    assert call(server, "GET", f"{opened['id']}/findings")[1]["classes"] == []


@pytest.mark.parametrize(("opened", "highest", "are_classes"), [(False, 1, True), (True, 1, False), (True, 2, True)])
def test_ones_of_a_mask_from_elsewhere_are_lesion_and_not_the_first_class_of_the_model(
    phantom: Phantom, class_bands: Segmenter, tmp_path: Path, opened: bool, highest: int, are_classes: bool
) -> None:
    folder, card = JobFolder(tmp_path), class_bands.card
    assert len(card.classes) > 2
    values = phantom.lesions.voxels.astype(np.uint8)
    values[0, 0, 0] = highest
    nifti.write_scan(Scan(values, phantom.scan.geometry), folder.mask)
    if opened:
        folder.classes.touch()
    for _ in range(2):  # the second time as if the server had ended during the first
        _, found = read_mask(folder, phantom.scan, card)
        assert found.classes == (card.classes if are_classes else ("lesion",))


@pytest.mark.slow
def test_the_mask_of_another_series_of_a_study_can_be_corrected(server: Server, study: dict[str, Any]) -> None:
    _, sent = call(server, "POST", f"{study['id']}/series", json={"series": "3"})
    other = server.wait_for_job(sent["id"])
    _, sent = call(
        server, "POST", f"{other['id']}/corrections", content=download(server, f"{other['id']}/view/lesions.nii.gz")
    )
    corrected = server.wait_for_job(sent["id"])
    assert corrected["status"] == "done", corrected
    assert call(server, "GET", f"{corrected['id']}/findings")[1]["slices"] == 20


def test_a_segmentation_of_another_series_is_refused(server: Server, study: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "seg.dcm").write_bytes(download(server, f"{study['id']}/files/lesions.dcm"))
    moved = pydicom.dcmread(tmp_path / "seg.dcm")
    for frame in moved.PerFrameFunctionalGroupsSequence:
        plane = frame.PlanePositionSequence[0]
        plane.ImagePositionPatient = [mm + 40 for mm in plane.ImagePositionPatient]
    moved.save_as(tmp_path / "moved.dcm")
    _, sent = call(server, "POST", f"{study['id']}/corrections", content=(tmp_path / "moved.dcm").read_bytes())
    job = server.wait_for_job(sent["id"])
    assert job["status"] == "failed"
    assert "another grid" in job["reason"]


def test_a_change_is_the_difference_of_two_scans_with_its_interval(
    server: Server, done: str, study: dict[str, Any]
) -> None:
    status, change = call(server, "GET", f"{done}/change", params={"other": study["id"]})
    assert status == 200, change
    before, after = (call(server, "GET", f"{job}/findings")[1] for job in (study["id"], done))
    assert (change["earlier"], change["later"], change["by_date"]) == (study["id"], done, False)
    volumes = [findings["lesion_volume_ml"] for findings in (before, after)]
    assert change["volume_ml"] == pytest.approx(volumes[1] - volumes[0], abs=1e-3)
    assert change["volume_percent"] == pytest.approx(100 * (volumes[1] / volumes[0] - 1), abs=0.1)
    assert change["volume_interval_ml"] is None  # the model of this server states no repeatability
    assert any("repeatability" in warning for warning in change["warnings"])
    assert not any("scans 1 and 2" in warning for warning in change["warnings"])  # the page does not number them
    assert call(server, "GET", f"{done}/change", params={"other": "0" * 32})[0] == 404


@pytest.mark.parametrize(
    ("before", "after", "variation", "expected"),
    [
        (100.0, 150.0, None, (50.0, None)),
        (100.0, 50.0, 0.05, (-50.0, (-56.5, -42.6))),  # halved, times or divided by exp(1.96 * 0.05 * sqrt(2))
        (0.0, 50.0, 0.05, (None, None)),
        (100.0, None, 0.05, (None, None)),
    ],
)
def test_a_change_in_percent_has_the_interval_of_a_ratio(
    before: float, after: float | None, variation: float | None, expected: tuple[Any, Any]
) -> None:
    assert change_in_percent(before, after, variation) == expected


def test_a_change_of_lesions_that_were_corrected_by_hand_has_no_interval_of_the_model(
    phantom: Phantom, grey_band: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = segment(phantom.scan, grey_band)
    view = describe_view(analysis).model_copy(update={"repeatability": 0.05})

    def read(folder: JobFolder) -> tuple[Any, Any]:
        is_corrected = folder.path.name == "corrected"
        return analysis.findings.model_copy(update={"corrected_by_hand": is_corrected}), view

    monkeypatch.setattr(comparison, "_read", read)
    plain, other, corrected = ((name, JobFolder(Path(name))) for name in ("plain", "other", "corrected"))
    assert compare_jobs(plain, other).volume_interval_ml
    change = compare_jobs(plain, corrected)
    assert (change.volume_interval_ml, change.volume_percent_interval, change.share_interval_points) == (None,) * 3
    assert any("corrected by hand" in warning for warning in change.warnings)


@pytest.mark.parametrize(
    ("corrected", "words"), [(False, "neither scan shows lesion of relevant size"), (True, "more")]
)
def test_a_change_of_what_is_marked_in_healthy_lungs_is_worded_as_by_follow(
    phantom: Phantom, grey_band: Segmenter, monkeypatch: pytest.MonkeyPatch, corrected: bool, words: str
) -> None:
    analysis = segment(phantom.scan, grey_band)

    def read(folder: JobFolder) -> tuple[Any, Any]:
        found: dict[str, Any] = {
            "lesion_share_of_lung_percent": 0.02 if corrected else 0.05,
            "corrected_by_hand": corrected,
        }
        found |= {"lesion_share_interval_percent": None if corrected else (0.0, 0.1)}
        if folder.path.name == "later":
            found["lesion_share_of_lung_percent"] = 0.03 if corrected else 0.07
        found |= {"lesion_volume_ml": 40 * found["lesion_share_of_lung_percent"], "lung_volume_ml": 4000.0}
        return analysis.findings.model_copy(update=found), describe_view(analysis)

    monkeypatch.setattr(comparison, "_read", read)
    change = compare_jobs(*((name, JobFolder(Path(name))) for name in ("earlier", "later")))
    assert change.in_words.startswith(words)


@pytest.mark.parametrize(("hour", "by_date"), [(0, False), (8, True)])
def test_scans_of_one_day_of_which_only_one_states_a_time_have_no_order(
    phantom: Phantom, grey_band: Segmenter, monkeypatch: pytest.MonkeyPatch, hour: int, by_date: bool
) -> None:
    analysis = segment(phantom.scan, grey_band)

    def read(folder: JobFolder) -> tuple[Any, Any]:
        scanned = datetime(2026, 3, 1, 9 if folder.path.name == "prior" else hour)
        scan = analysis.findings.input.model_copy(update={"scanned": scanned})
        return analysis.findings.model_copy(update={"input": scan}), describe_view(analysis)

    monkeypatch.setattr(comparison, "_read", read)
    change = compare_jobs(*((name, JobFolder(Path(name))) for name in ("prior", "current")))
    assert (change.by_date, change.earlier) == (by_date, "current" if by_date else "prior")


def test_a_change_between_two_thresholds_of_one_model_has_no_interval_and_says_so(
    phantom: Phantom, grey_band: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = segment(phantom.scan, grey_band)
    other_card = grey_band.card.model_copy(update={"threshold": 0.123})
    views = {
        "plain": describe_view(analysis),
        "other": describe_view(replace(analysis, card=other_card)),
        "earlier version": describe_view(analysis).model_copy(update={"rules": ""}),
    }
    monkeypatch.setattr(
        comparison,
        "_read",
        lambda folder: (analysis.findings, views[folder.path.name].model_copy(update={"repeatability": 0.05})),
    )
    plain, *others = ((name, JobFolder(Path(name))) for name in views)
    assert not any("different models" in warning for warning in compare_jobs(plain, plain).warnings)
    for other in others:
        change = compare_jobs(plain, other)
        assert (change.volume_interval_ml, change.volume_percent_interval) == (None, None)
        assert any("measured with different models or settings" in warning for warning in change.warnings)


@pytest.mark.parametrize(("prior", "differs"), [("7", False), ("8", True), (None, False)])
def test_a_change_between_two_patients_says_so(
    phantom: Phantom,
    grey_band: Segmenter,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    prior: str | None,
    differs: bool,
) -> None:
    analysis = segment(phantom.scan, grey_band)
    monkeypatch.setattr(comparison, "_read", lambda _: (analysis.findings, describe_view(analysis)))
    for name, patient in (("prior", prior), ("current", "7")):
        (tmp_path / name).mkdir()
        if patient is not None:
            JobFolder(tmp_path / name).patient.write_text(patient)
    change = compare_jobs(*((name, JobFolder(tmp_path / name)) for name in ("prior", "current")))
    assert ("the scans state different patients: check that they are of the same one" in change.warnings) == differs


def test_the_views_scan_is_not_packed_and_its_masks_are(server: Server, done: str) -> None:
    assert download(server, f"{done}/view/scan.nii")[344:348] == b"n+1\0"
    assert gzip.decompress(download(server, f"{done}/view/lungs.nii.gz"))[344:348] == b"n+1\0"


def test_the_stage_of_a_job_survives_a_progress_file_that_was_cut_short(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert folder.read_progress() is None
    folder.write_progress(JobStage.LESIONS, 3, 9)
    progress = folder.read_progress()
    assert progress is not None
    assert (progress.stage, progress.done, progress.total) == (JobStage.LESIONS, 3, 9)
    (tmp_path / "progress").write_text("lesions 3")
    assert folder.read_progress() is None


def test_a_database_of_an_earlier_version_gets_notes(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite", timedelta(hours=1))
    store.add("a" * 32, "ct.nii")
    store.close()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as database:
        database.execute("alter table jobs drop column note")
    database.close()
    store = JobStore(tmp_path / "jobs.sqlite", timedelta(hours=1))
    job = store.get("a" * 32)
    store.close()
    assert job is not None
    assert (job.label, job.note) == ("ct.nii", "")


def test_a_mask_of_another_program_is_measured(server: Server, done: str, tmp_path: Path) -> None:
    mask = read_scan(write(tmp_path / "m.nii.gz", download(server, f"{done}/view/lesions.nii.gz")))
    z = int(np.argmax(mask.values.sum(axis=(1, 2))))
    mask.values[:z] = 0
    nifti.write_scan(mask, tmp_path / "half.nii.gz")
    _, sent = call(server, "POST", f"{done}/corrections", content=(tmp_path / "half.nii.gz").read_bytes())
    job = server.wait_for_job(sent["id"])
    assert job["status"] == "done", job
    assert np.array_equal(view_slices(server, job["id"], "lesions")[0], mask.values)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
