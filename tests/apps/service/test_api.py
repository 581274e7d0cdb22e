"""The HTTP API of a real server: sending scans and corrections, jobs, results, limits."""

import gzip
import json
import os
import random
import signal
import socket
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from groundglass.apps.service.job_states import JobStage
from groundglass.inference.model_card import BUNDLED
from groundglass.inference.open_model import open_model
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.report.analysis import Analysis, segment
from groundglass.scan.geometry import Geometry
from groundglass.scan.intensity import LUNG_WINDOW
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.scan.scan import Scan
from helpers.character_sets import SETS, write_named_series
from helpers.dicom_phantom import NAME, NUMBER, write_series
from helpers.scripted_worker import wait_until
from helpers.server import Server

pytestmark = pytest.mark.thorough

Start = Callable[..., Server]


def save(server: Server, path: str, to: Path) -> Path:
    with server.client() as client:
        answer = client.get(path)
    assert answer.status_code == 200, answer.text
    to.write_bytes(answer.content)
    return to


@pytest.fixture(scope="module")
def done(server: Server, scan_file: Path) -> dict[str, Any]:
    """A job that is done."""
    sent = server.post(scan_file)
    assert sent.status_code == 202
    assert sent.headers["Location"] == f"/api/jobs/{sent.json()['id']}"
    assert sent.json()["label"] == "ct.nii.gz"
    return server.wait_for_job(sent.json()["id"])


@pytest.fixture(scope="module")
def segmenter(grey_band_model: Path) -> Segmenter:
    """The model of the server."""
    return open_model(grey_band_model)


@pytest.fixture(scope="module")
def expected(scan_file: Path, segmenter: Segmenter) -> Analysis:
    return segment(read_scan(scan_file), segmenter)


def test_a_nifti_gives_the_same_results_as_segment(
    server: Server, done: dict[str, Any], expected: Analysis, tmp_path: Path
) -> None:
    assert done["status"] == "done", done
    assert done["summary"] == expected.findings.summary
    assert [file["name"] for file in done["files"]] == ["lesions.nii.gz", "findings.json", "preview.png", "report.html"]
    url = f"/api/jobs/{done['id']}"
    mask = read_scan(save(server, f"{url}/files/lesions.nii.gz", tmp_path / "mask.nii.gz"))
    assert np.array_equal(mask.values > 0, expected.lesions.voxels)
    assert mask.geometry.matches(expected.lesions.geometry)
    with server.client() as client:
        findings = client.get(f"{url}/findings").json()
        for file in done["files"]:
            answer = client.get(f"{url}/files/{file['name']}", params={"download": "true"})
            assert len(answer.content) == file["bytes"]
            assert answer.headers["content-disposition"] == f'attachment; filename="ct-{file["name"]}"'
    assert findings["lesion_volume_ml"] == expected.findings.lesion_volume_ml
    assert not findings["corrected_by_hand"]


def test_the_view_holds_the_upright_scan_and_its_lesions(
    server: Server, done: dict[str, Any], expected: Analysis, tmp_path: Path
) -> None:
    url = f"/api/jobs/{done['id']}/view"
    scan = read_scan(save(server, f"{url}/scan.nii", tmp_path / "scan.nii"))
    lesions = read_scan(save(server, f"{url}/lesions.nii.gz", tmp_path / "lesions.nii.gz"))
    assert scan.values.dtype == np.int16
    assert np.abs(scan.values - np.stack(list(expected.segmented.hu))).max() <= 0.5
    assert scan.geometry.matches(expected.segmented.view.geometry)
    assert np.array_equal(lesions.values, expected.segmented.class_map)
    assert lesions.geometry.matches(scan.geometry)
    with server.client() as client:
        numbers = client.get(f"{url}/slices.json").json()["file_slice_of_view"]
        assert client.get(f"{url}/other").status_code == 404
    assert numbers == expected.segmented.view.slice_numbers.tolist()


def test_a_dicom_folder_in_any_order_gives_dicom_results(
    server: Server, segmenter: Segmenter, phantom: Phantom, tmp_path: Path
) -> None:
    files = write_series(phantom.scan, tmp_path / "series")
    random.Random(0).shuffle(files)
    sent = server.post(*((f"CT/../../{i}/{file.name}", file.read_bytes()) for i, file in enumerate(files)))
    job = server.wait_for_job(sent.json()["id"])
    assert job["status"] == "done", job
    assert job["label"] == "CT"
    assert {"lesions.dcm", "findings.dcm"} <= {file["name"] for file in job["files"]}
    mask = read_scan(save(server, f"/api/jobs/{job['id']}/files/lesions.nii.gz", tmp_path / "mask.nii.gz"))
    assert np.array_equal(mask.values > 0, segment(read_scan(tmp_path / "series"), segmenter).lesions.voxels)


@pytest.mark.parametrize(
    "kind",
    [
        *("japanese", "unstated", "misspelt", "unknown", "Chinese as Unicode"),
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("korean", "chinese", "empty", "Japanese as Latin-1", "Korean, unstated", "unicode as Latin-1")
        ),
        pytest.param("Latin-1 as ASCII", marks=pytest.mark.slow),
    ],
)
def test_names_in_any_character_set_come_through_the_server(server: Server, kind: str, tmp_path: Path) -> None:
    """They are in the results for the PACS alone, as they are to be read."""
    _, raw, name = SETS[kind]
    files = write_named_series(chest_phantom(shape=(6, 72, 96)).scan, tmp_path / "series", kind)
    sent = server.post(*((f"{name}/{file.name}", file.read_bytes()) for file in files))
    job = server.wait_for_job(sent.json()["id"])
    assert job["status"] == "done", job
    url = f"/api/jobs/{job['id']}/files"
    for file in ("lesions.dcm", "findings.dcm"):
        assert str(pydicom.dcmread(save(server, f"{url}/{file}", tmp_path / file)).PatientName) == name
    for file in ("findings.json", "report.html"):
        content = save(server, f"{url}/{file}", tmp_path / file).read_bytes()
        assert raw not in content
        assert name.encode() not in content
        assert json.dumps(name)[1:-1].encode() not in content
    assert name not in server.log.read_text(encoding="utf-8")


def test_a_zip_file_is_accepted(server: Server, phantom: Phantom, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        for file in write_series(phantom.scan, tmp_path / "series"):
            archive.write(file, f"../{file.name}")
    assert server.wait_for_job(server.post(tmp_path / "series.zip").json()["id"])["status"] == "done"


def test_images_are_read_in_the_natural_order_of_their_names(server: Server, phantom: Phantom, tmp_path: Path) -> None:
    grey = np.clip((phantom.scan.values[10:22] + 1250.0) / 1500 * 255, 0, 255).astype(np.uint8)
    for i, plane in enumerate(grey):
        Image.fromarray(plane).save(tmp_path / f"slice{i}.png")
    files = list(tmp_path.glob("*.png"))
    random.Random(1).shuffle(files)
    job = server.wait_for_job(server.post(*files).json()["id"])
    assert job["status"] == "done", job
    shown = read_scan(save(server, f"/api/jobs/{job['id']}/view/scan.nii", tmp_path / "view.nii")).values
    order = [int(np.argmin([np.abs(plane - hu).mean() for plane in shown])) for hu in grey / 255 * 1500.0 - 1250]
    assert order == list(range(12))


@pytest.mark.parametrize("axes", ["as they are", "turned"])
def test_a_correction_is_a_job_of_its_own(
    server: Server, done: dict[str, Any], expected: Analysis, tmp_path: Path, axes: str
) -> None:
    lesions = read_scan(save(server, f"/api/jobs/{done['id']}/view/lesions.nii.gz", tmp_path / "lesions.nii.gz"))
    drawn = lesions.values.copy()
    drawn[:, :, : drawn.shape[2] // 2] = 0  # the patient's right has none
    corrected = Scan(drawn, lesions.geometry)
    if axes == "turned":
        turn = np.diag([1.0, -1.0, -1.0, 1.0])
        turn[1:3, 3] = np.array(drawn.shape[1:]) - 1
        corrected = Scan(drawn[:, ::-1, ::-1], Geometry(drawn.shape, lesions.geometry.affine_lps @ turn))
    nifti.write_scan(corrected, tmp_path / "drawn.nii")
    with server.client() as client:
        sent = client.post(f"/api/jobs/{done['id']}/corrections", content=(tmp_path / "drawn.nii").read_bytes())
        assert sent.status_code == 202
        assert sent.json()["corrects"] == done["id"]
        job = server.wait_for_job(sent.json()["id"])
        assert job["status"] == "done", job
        findings = client.get(f"/api/jobs/{job['id']}/findings").json()
        before = client.get(f"/api/jobs/{done['id']}/findings").json()
        lung, lesion = findings["profile"]["lung"], findings["profile"]["lesion"]
    mask = read_scan(save(server, f"/api/jobs/{job['id']}/files/lesions.nii.gz", tmp_path / "mask.nii.gz"))
    assert np.array_equal(expected.segmented.view.to_axial(mask.values), drawn)
    assert findings["corrected_by_hand"]
    assert findings["warnings"][0] == "the lesions were corrected by hand"
    assert 0 < findings["lesion_volume_ml"] < before["lesion_volume_ml"]
    assert sum(lesion) == pytest.approx(np.count_nonzero(drawn) * (lesions.geometry.voxel_ml or 0))
    assert len(lung) == len(lesion) == len(drawn)
    assert not before["corrected_by_hand"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("another grid", "lies on"),
        ("another place", "lies in another place or direction"),
        ("another value", "values other than 0 to 1"),
        ("no nifti", "mask.nii is text, expected NIfTI"),
    ],
)
def test_an_invalid_correction_fails_with_a_reason(
    server: Server, done: dict[str, Any], tmp_path: Path, body: str, reason: str
) -> None:
    lesions = read_scan(save(server, f"/api/jobs/{done['id']}/view/lesions.nii.gz", tmp_path / "lesions.nii.gz"))
    if body == "another grid":
        nifti.write_scan(
            Scan(lesions.values[1:], Geometry(lesions.values[1:].shape, lesions.geometry.affine_lps)),
            tmp_path / "drawn.nii",
        )
    elif body == "another place":
        moved = lesions.geometry.affine_lps + np.eye(4, k=3) * 3
        nifti.write_scan(Scan(lesions.values, Geometry(lesions.values.shape, moved)), tmp_path / "drawn.nii")
    elif body == "another value":
        nifti.write_scan(Scan(lesions.values * np.uint8(3), lesions.geometry), tmp_path / "drawn.nii")
    else:
        (tmp_path / "drawn.nii").write_bytes(b"hello" * 300)
    with server.client() as client:
        sent = client.post(f"/api/jobs/{done['id']}/corrections", content=(tmp_path / "drawn.nii").read_bytes())
        assert client.post(f"/api/jobs/{done['id']}/corrections", content=b"").status_code == 400
    job = server.wait_for_job(sent.json()["id"])
    assert job["status"] == "failed"
    assert reason in job["reason"]


def test_an_unreadable_file_fails_with_a_reason_that_names_no_folder(server: Server) -> None:
    for name, content, reason in (
        ("hello.nii.gz", b"hello" * 100, "the upload is text, expected a CT"),
        ("empty.dcm", b"", "the upload is empty (0 bytes)"),
        ("cut.nii.gz", gzip.compress(bytes(400))[:-6], "the upload"),
    ):
        job = server.wait_for_job(server.post((name, content)).json()["id"])
        assert job["status"] == "failed"
        assert job["reason"].startswith(reason), job["reason"]
        assert str(server.folder) not in job["reason"]
        with server.client() as client:
            assert client.get(f"/api/jobs/{job['id']}/findings").status_code == 409
            assert client.get(f"/api/jobs/{job['id']}/files/report.html").status_code == 409


@pytest.mark.slow
def test_events_follow_a_job_of_the_bundled_model_to_its_end(start_server: Start, long_scan: Path) -> None:
    server = start_server(bundled=True)
    job_id = server.post(long_scan).json()["id"]
    with server.client() as client, client.stream("GET", f"/api/jobs/{job_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        jobs = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line.startswith("data: ")]
    states = [job["status"] for job in jobs]
    assert states[-1] == "done"
    assert states == sorted(states, key=["queued", "running", "done"].index)
    progress = [job["progress"] for job in jobs if job["progress"]]
    stages = [list(JobStage).index(each["stage"]) for each in progress]
    assert len(set(stages)) > 2
    assert stages == sorted(stages)
    slices = [each["done"] for each in progress if each["stage"] == JobStage.LESIONS]
    assert len(set(slices)) > 3
    assert slices == sorted(slices)
    with server.client() as client:
        assert client.get(f"/api/jobs/{job_id}/findings").json()["model"]["name"] == BUNDLED


FORM = "multipart/form-data; boundary=x"
NAMED = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", FORM),
        (b"nonsense", FORM),
        (b"nonsense", "multipart/form-data"),
        (b"nonsense", "application/json"),
        (NAMED, FORM),  # truncated
        (NAMED.replace(b"files", b"other") + b"\r\n--x--\r\n", FORM),
        (NAMED.replace(b'; filename="a"', b"") + b"\r\n--x--\r\n", FORM),
        (b"--x\r\n\r\nabc\r\n--x--\r\n", FORM),
        (b"--x--\r\n", FORM),
    ],
)
def test_a_damaged_body_is_refused_and_leaves_no_files(server: Server, body: bytes, content_type: str) -> None:
    with server.client() as client:
        answer = client.post("/api/scans", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert answer.json()["detail"]
    assert not list((server.folder / "incoming").iterdir())
    assert "boundary" not in server.log.read_text()  # nor what else a client makes a parser say


def test_a_client_that_disconnects_leaves_no_files_and_frees_its_slot(server: Server) -> None:
    address = server.url.removeprefix("http://").split(":")
    with server.client() as client:
        free = client.get("/api/limits").json()["free"]
        with socket.create_connection((address[0], int(address[1]))) as line:
            head = f"POST /api/scans HTTP/1.1\r\nHost: {address[0]}\r\nContent-Length: 1000000\r\n"
            part = '--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc'
            line.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n{part}".encode())
            wait_until(lambda: client.get("/api/limits").json()["free"] == free - 1)
        wait_until(lambda: client.get("/api/limits").json()["free"] == free)
        wait_until(lambda: not list((server.folder / "incoming").iterdir()))
        client.get("/healthz")
    assert "ClientDisconnect" not in server.log.read_text()  # no traceback: clients must not fill the log


def test_unknown_jobs_and_files_are_404(server: Server, done: dict[str, Any]) -> None:
    unknown = "0" * 32
    with server.client() as client:
        for path in ("", "/findings", "/events", "/files/report.html", "/view/scan.nii"):
            assert client.get(f"/api/jobs/{unknown}{path}").status_code == 404
        assert client.delete(f"/api/jobs/{unknown}").status_code == 404
        assert client.post(f"/api/jobs/{unknown}/corrections", content=b"x").status_code == 404
        for name in ("..%2f..%2f..%2fjobs.sqlite", "..%2fscan", "scan", "%2fetc%2fpasswd"):
            answer = client.get(httpx.URL(f"{server.url}/api/jobs/{done['id']}/files/{name}"))
            assert answer.status_code == 404, name
        assert client.get("/api/jobs/not-an-id").status_code == 422


@pytest.mark.slow
def test_a_job_can_be_deleted_while_it_waits_runs_or_is_done(
    start_server: Start, scan_file: Path, long_scan: Path
) -> None:
    server = start_server(bundled=True)
    running, waiting = (server.post(long_scan).json()["id"] for _ in range(2))
    last = server.post(scan_file).json()["id"]
    server.wait_until(lambda _: server.job(running)["progress"])
    assert [server.job(job_id)["position"] for job_id in (running, waiting, last)] == [None, 1, 2]
    pid = server.worker_pid()
    with server.client() as client:
        assert client.delete(f"/api/jobs/{waiting}").status_code == 204
        assert client.delete(f"/api/jobs/{running}").status_code == 204
        assert server.wait_for_job(last)["status"] == "done"
        assert server.worker_pid() != pid
        assert [job["id"] for job in client.get("/api/jobs").json()] == [last]
        wait_until(lambda: [path.name for path in (server.folder / "scans").iterdir()] == [last])
        assert client.delete(f"/api/jobs/{last}").status_code == 204
        assert client.get(f"/api/jobs/{last}").status_code == 404
    assert not list((server.folder / "scans").iterdir())


@pytest.mark.slow
def test_a_killed_server_loses_no_accepted_scan(start_server: Start, scan_file: Path, long_scan: Path) -> None:
    server = start_server(bundled=True)
    accepted = [server.post(file).json()["id"] for file in (long_scan, scan_file, scan_file)]
    server.wait_until(lambda _: server.job(accepted[0])["progress"])
    (server.folder / "incoming" / ("0" * 32)).mkdir()  # as left by an upload that was interrupted
    worker = server.worker_pid()
    server.kill()
    wait_until(lambda: not Path(f"/proc/{worker}").exists())
    server.start()
    for job_id in accepted:
        assert server.wait_for_job(job_id)["status"] == "done"
    with server.client() as client:
        assert sorted(job["id"] for job in client.get("/api/jobs").json()) == sorted(accepted)
    assert not list((server.folder / "incoming").iterdir())


@pytest.mark.slow
def test_a_stopped_server_continues_its_queue_when_restarted(start_server: Start, long_scan: Path) -> None:
    server = start_server(bundled=True)
    job_ids = [server.post(long_scan).json()["id"] for _ in range(2)]
    server.wait_until(lambda _: server.job(job_ids[0])["progress"])
    assert server.stop() == 0
    server.start()
    assert [server.wait_for_job(job_id)["status"] for job_id in job_ids] == ["done", "done"]


@pytest.mark.skipif(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="the tests run under nohup")
def test_a_closed_terminal_stops_the_server_in_order(start_server: Start) -> None:
    server = start_server()
    server.process.send_signal(signal.SIGHUP)
    assert server.process.wait(60) == 0
    assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_server_and_scan_survive_the_death_of_the_worker(start_server: Start, scan_file: Path, long_scan: Path) -> None:
    server = start_server(bundled=True)
    job_id, next_id = (server.post(file).json()["id"] for file in (long_scan, scan_file))
    server.wait_until(lambda _: server.job(job_id)["progress"])
    os.kill(server.worker_pid(), signal.SIGKILL)
    assert server.wait_for_job(job_id)["status"] == "done"
    assert server.wait_for_job(next_id)["status"] == "done"


@pytest.mark.slow
def test_a_scan_that_exceeds_the_time_limit_fails(start_server: Start, scan_file: Path, long_scan: Path) -> None:
    server = start_server("--time-limit", "1", bundled=True)
    job_id, next_id = (server.post(file).json()["id"] for file in (long_scan, scan_file))
    job = server.wait_for_job(job_id)
    assert job["status"] == "failed"
    assert job["reason"] == "processing took more than 1 s, the limit of this server"
    assert server.job(next_id)["status"] in ("queued", "running", "done")


def test_limits_are_reported_and_enforced(start_server: Start, scan_file: Path, long_scan: Path) -> None:
    server = start_server("--queue", "1", "--max-upload", "2", "--max-slices", "100")
    with server.client() as client:
        limits = client.get("/api/limits").json()
        assert limits == {
            "upload_bytes": 2 << 20,
            "upload_files": 5000,
            "slices": 100,
            "queue": 1,
            "free": 1,
            "keep_hours": 168,
        }

        def unannounced(count: int = 3) -> Any:
            yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
            for _ in range(count):
                yield bytes(1 << 20)
            yield b"\r\n--x--\r\n"

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        assert client.post("/api/scans", content=unannounced(), headers=headers).status_code == 413
        assert server.post(("large.nii", bytes(4 << 20))).status_code == 413
        assert not list((server.folder / "incoming").iterdir())
        assert server.post(*((f"{i}", b"x") for i in range(5001))).status_code == 413
        small = gzip.compress(air(101))
        too_many = server.wait_for_job(server.post(("many.nii.gz", small)).json()["id"])
        assert "101 slices, expected at most 100" in too_many["reason"]
        running = server.post(("100.nii.gz", gzip.compress(air(100, 1024), 1))).json()["id"]
        server.wait_until(lambda _: server.job(running)["status"] != "queued")
        server.post(scan_file)
        answer = server.post(scan_file)
        assert answer.status_code == 429
        assert 5 <= int(answer.headers["Retry-After"]) <= 300
        assert client.get("/readyz").status_code == 503
        assert 'groundglass_refused_total{status="429"} 1.0' in client.get("/metrics").text


def test_the_lung_window_of_the_reports_is_served_to_the_page(server: Server) -> None:
    with server.client() as client:
        settings = client.get("/api/display").json()
    assert settings == {"lung_window": {"low_hu": LUNG_WINDOW.low_hu, "high_hu": LUNG_WINDOW.high_hu}}


def air(slices: int, side: int = 16) -> bytes:
    """A NIfTI file in which every voxel is air."""
    values = np.full((side, side, slices), -1000, dtype=np.int16)
    return bytes(nibabel.Nifti1Image(values, np.eye(4)).to_bytes())


@pytest.mark.slow
def test_expired_results_are_deleted(start_server: Start, scan_file: Path) -> None:
    server = start_server("--keep", "0.01")
    job = server.wait_for_job(server.post(scan_file).json()["id"])
    assert job["expires"] > job["finished"]
    server.stop()
    with sqlite3.connect(server.folder / "jobs.sqlite") as database:
        database.execute("update jobs set kept_s = 1e9")
    database.close()
    server.start()
    wait_until(lambda: not list((server.folder / "scans").iterdir()))
    with server.client() as client:
        assert client.get(f"/api/jobs/{job['id']}").status_code == 404


def test_health_and_metrics(server: Server, done: dict[str, Any]) -> None:
    with server.client() as client:
        assert client.get("/healthz").text == "ok"
        assert client.get("/readyz").text == "ok"
        text = client.get("/metrics").text
    assert "groundglass_job_seconds_count" in text
    assert 'groundglass_jobs_ended_total{status="done"}' in text
    assert done["id"] not in text


@pytest.mark.slow
def test_names_are_written_neither_to_the_log_nor_to_paths(
    start_server: Start, phantom: Phantom, tmp_path: Path
) -> None:
    server = start_server()
    files = write_series(phantom.scan, tmp_path / "series")
    good = server.wait_for_job(
        server.post(*((f"{NAME}/{NUMBER}-{f.name}", f.read_bytes()) for f in files)).json()["id"]
    )
    bad = server.wait_for_job(server.post(*((f"{NAME}/{f.name}", f.read_bytes()) for f in files[:1])).json()["id"])
    refused = server.wait_for_job(server.post((f"../../{NAME}.nii", b"hello")).json()["id"])
    assert (good["status"], bad["status"], refused["status"]) == ("done", "failed", "failed")
    server.stop()
    log = server.log.read_text()
    paths = " ".join(str(path) for path in server.folder.rglob("*"))
    assert good["id"] in log
    for name in (NAME, NUMBER, "IM0", "hello"):
        assert name not in log
        assert name not in paths
    assert NAME not in (server.folder / "scans" / good["id"] / "results" / "findings.json").read_text()
    for path in (server.folder, server.folder / "scans", server.folder / "scans" / good["id"]):
        assert path.stat().st_mode & 0o077 == 0
