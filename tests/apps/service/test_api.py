"""Scans in, results out, over HTTP, on a real server."""

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
import pytest
from PIL import Image

from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.scan.geometry import Geometry
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import NAME, NUMBER, write_series
from helpers.fake_batch import until
from helpers.server import Server

Start = Callable[..., Server]


def fetch(server: Server, path: str, to: Path) -> Path:
    with server.client() as client:
        answer = client.get(path)
    assert answer.status_code == 200, answer.text
    to.write_bytes(answer.content)
    return to


@pytest.fixture(scope="module")
def done(server: Server, scan_file: Path) -> dict[str, Any]:
    """A scan that was sent, and is done."""
    sent = server.post(scan_file)
    assert sent.status_code == 202
    assert sent.headers["Location"] == f"/api/jobs/{sent.json()['id']}"
    assert sent.json()["label"] == "ct.nii.gz"
    return server.over(sent.json()["id"])


def test_a_nifti_gives_what_segment_gives(
    server: Server, done: dict[str, Any], scan_file: Path, tmp_path: Path
) -> None:
    assert done["status"] == "done", done
    expected = segment(read_scan(scan_file))
    assert done["summary"] == expected.findings.summary
    assert [file["name"] for file in done["files"]] == ["lesions.nii.gz", "findings.json", "preview.png", "report.html"]
    url = f"/api/jobs/{done['id']}"
    mask = read_scan(fetch(server, f"{url}/files/lesions.nii.gz", tmp_path / "mask.nii.gz"))
    assert np.array_equal(mask.values > 0, expected.lesions.voxels)
    assert mask.geometry.matches(expected.lesions.geometry)
    with server.client() as client:
        findings = client.get(f"{url}/findings").json()
        for file in done["files"]:
            answer = client.get(f"{url}/files/{file['name']}", params={"download": "true"})
            assert len(answer.content) == file["bytes"]
            assert answer.headers["content-disposition"] == f'attachment; filename="{file["name"]}"'
    assert findings["lesion_volume_ml"] == expected.findings.lesion_volume_ml
    assert not findings["corrected_by_hand"]


def test_the_view_is_the_scan_and_its_lesions_upright(
    server: Server, done: dict[str, Any], scan_file: Path, tmp_path: Path
) -> None:
    url, expected = f"/api/jobs/{done['id']}/view", segment(read_scan(scan_file))
    scan = read_scan(fetch(server, f"{url}/scan.nii.gz", tmp_path / "scan.nii.gz"))
    lesions = read_scan(fetch(server, f"{url}/lesions.nii.gz", tmp_path / "lesions.nii.gz"))
    assert scan.values.dtype == np.int16
    assert np.abs(scan.values - np.stack(list(expected.segmented.hu))).max() <= 0.5
    assert scan.geometry.matches(expected.segmented.view.geometry)
    assert np.array_equal(lesions.values, expected.segmented.class_map)
    assert lesions.geometry.matches(scan.geometry)
    with server.client() as client:
        numbers = client.get(f"{url}/slices.json").json()["file_slice_of_view"]
        assert client.get(f"{url}/other").status_code == 404
    assert numbers == expected.segmented.view.slice_numbers.tolist()


def test_a_dicom_folder_in_any_order_gives_dicom_back(server: Server, phantom: Phantom, tmp_path: Path) -> None:
    files = write_series(phantom.scan, tmp_path / "series")
    random.Random(0).shuffle(files)
    sent = server.post(*((f"CT/../../{i}/{file.name}", file.read_bytes()) for i, file in enumerate(files)))
    job = server.over(sent.json()["id"])
    assert job["status"] == "done", job
    assert job["label"] == f"{len(files)} files"
    assert {"lesions.dcm", "findings.dcm"} <= {file["name"] for file in job["files"]}
    mask = read_scan(fetch(server, f"/api/jobs/{job['id']}/files/lesions.nii.gz", tmp_path / "mask.nii.gz"))
    assert np.array_equal(mask.values > 0, segment(read_scan(tmp_path / "series")).lesions.voxels)


def test_a_zip_is_taken(server: Server, phantom: Phantom, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        for file in write_series(phantom.scan, tmp_path / "series"):
            archive.write(file, f"../{file.name}")
    assert server.over(server.post(tmp_path / "series.zip").json()["id"])["status"] == "done"


def test_pictures_are_read_in_the_natural_order_of_their_names(
    server: Server, phantom: Phantom, tmp_path: Path
) -> None:
    grey = np.clip((phantom.scan.values[10:22] + 1250.0) / 1500 * 255, 0, 255).astype(np.uint8)
    for i, plane in enumerate(grey):
        Image.fromarray(plane).save(tmp_path / f"slice{i}.png")
    files = list(tmp_path.glob("*.png"))
    random.Random(1).shuffle(files)
    job = server.over(server.post(*files).json()["id"])
    assert job["status"] == "done", job
    shown = read_scan(fetch(server, f"/api/jobs/{job['id']}/view/scan.nii.gz", tmp_path / "view.nii.gz")).values
    there = [int(np.argmin([np.abs(plane - hu).mean() for plane in shown])) for hu in grey / 255 * 1500.0 - 1250]
    assert there == list(range(12))


@pytest.mark.parametrize("axes", ["as they are", "turned"])
def test_a_correction_is_a_job_of_its_own(
    server: Server, done: dict[str, Any], scan_file: Path, tmp_path: Path, axes: str
) -> None:
    lesions = read_scan(fetch(server, f"/api/jobs/{done['id']}/view/lesions.nii.gz", tmp_path / "lesions.nii.gz"))
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
        job = server.over(sent.json()["id"])
        assert job["status"] == "done", job
        findings = client.get(f"/api/jobs/{job['id']}/findings").json()
        before = client.get(f"/api/jobs/{done['id']}/findings").json()
        lung, lesion = findings["profile"]["lung"], findings["profile"]["lesion"]
    mask = read_scan(fetch(server, f"/api/jobs/{job['id']}/files/lesions.nii.gz", tmp_path / "mask.nii.gz"))
    scan = segment(read_scan(scan_file))
    assert np.array_equal(scan.segmented.view.turn(mask.values), drawn)
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
        ("another value", "values other than 0 to 1"),
        ("no nifti", "mask.nii is text, expected NIfTI"),
    ],
)
def test_a_wrong_correction_fails_with_its_reason(
    server: Server, done: dict[str, Any], tmp_path: Path, body: str, reason: str
) -> None:
    lesions = read_scan(fetch(server, f"/api/jobs/{done['id']}/view/lesions.nii.gz", tmp_path / "lesions.nii.gz"))
    if body == "another grid":
        nifti.write_scan(
            Scan(lesions.values[1:], Geometry(lesions.values[1:].shape, lesions.geometry.affine_lps)),
            tmp_path / "drawn.nii",
        )
    elif body == "another value":
        nifti.write_scan(Scan(lesions.values * np.uint8(3), lesions.geometry), tmp_path / "drawn.nii")
    else:
        (tmp_path / "drawn.nii").write_bytes(b"hello" * 300)
    with server.client() as client:
        sent = client.post(f"/api/jobs/{done['id']}/corrections", content=(tmp_path / "drawn.nii").read_bytes())
        assert client.post(f"/api/jobs/{done['id']}/corrections", content=b"").status_code == 400
    job = server.over(sent.json()["id"])
    assert job["status"] == "failed"
    assert reason in job["reason"]


def test_a_bad_file_fails_with_a_reason_that_names_no_place(server: Server) -> None:
    for name, content, reason in (
        ("hello.nii.gz", b"hello" * 100, "scan is text, expected a CT"),
        ("empty.dcm", b"", "scan is empty (0 bytes)"),
        ("cut.nii.gz", gzip.compress(bytes(400))[:-6], "scan"),
    ):
        job = server.over(server.post((name, content)).json()["id"])
        assert job["status"] == "failed"
        assert job["reason"].startswith(reason), job["reason"]
        assert str(server.folder) not in job["reason"]
        with server.client() as client:
            assert client.get(f"/api/jobs/{job['id']}/findings").status_code == 409
            assert client.get(f"/api/jobs/{job['id']}/files/report.html").status_code == 409


def test_events_tell_every_change_and_then_end(server: Server, long_scan: Path) -> None:
    number = server.post(long_scan).json()["id"]
    with server.client() as client, client.stream("GET", f"/api/jobs/{number}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        seen = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line.startswith("data: ")]
    states = [job["status"] for job in seen]
    assert states[-1] == "done"
    assert states == sorted(states, key=["queued", "running", "done"].index)
    slices = [job["progress"]["done"] for job in seen if job["progress"]]
    assert len(set(slices)) > 3
    assert slices == sorted(slices)


FORM = "multipart/form-data; boundary=x"
NAMED = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", FORM),
        (b"nonsense", FORM),
        (b"nonsense", "multipart/form-data"),
        (b"nonsense", "application/json"),
        (NAMED, FORM),  # cut off
        (NAMED.replace(b"files", b"other") + b"\r\n--x--\r\n", FORM),
        (NAMED.replace(b'; filename="a"', b"") + b"\r\n--x--\r\n", FORM),
        (b"--x\r\n\r\nabc\r\n--x--\r\n", FORM),
        (b"--x--\r\n", FORM),
    ],
)
def test_a_broken_body_is_refused_and_leaves_nothing(server: Server, body: bytes, content_type: str) -> None:
    with server.client() as client:
        answer = client.post("/api/scans", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert answer.json()["detail"]
    assert not list((server.folder / "incoming").iterdir())


def test_a_sender_that_goes_away_leaves_nothing_and_frees_its_place(server: Server) -> None:
    address = server.url.removeprefix("http://").split(":")
    with server.client() as client:
        free = client.get("/api/limits").json()["free"]
        with socket.create_connection((address[0], int(address[1]))) as line:
            head = f"POST /api/scans HTTP/1.1\r\nHost: {address[0]}\r\nContent-Length: 1000000\r\n"
            part = '--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc'
            line.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n{part}".encode())
            until(lambda: client.get("/api/limits").json()["free"] == free - 1)
        until(lambda: client.get("/api/limits").json()["free"] == free)
    until(lambda: not list((server.folder / "incoming").iterdir()))


def test_what_is_not_there_is_404(server: Server, done: dict[str, Any]) -> None:
    nobody = "0" * 32
    with server.client() as client:
        for path in ("", "/findings", "/events", "/files/report.html", "/view/scan.nii.gz"):
            assert client.get(f"/api/jobs/{nobody}{path}").status_code == 404
        assert client.delete(f"/api/jobs/{nobody}").status_code == 404
        assert client.post(f"/api/jobs/{nobody}/corrections", content=b"x").status_code == 404
        for name in ("..%2f..%2f..%2fjobs.sqlite", "..%2fscan", "scan", "%2fetc%2fpasswd"):
            answer = client.get(httpx.URL(f"{server.url}/api/jobs/{done['id']}/files/{name}"))
            assert answer.status_code == 404, name
        assert client.get("/api/jobs/not-an-id").status_code == 422


def test_a_job_can_be_removed_before_during_and_after(start_server: Start, scan_file: Path, long_scan: Path) -> None:
    server = start_server()
    running, waiting = (server.post(long_scan).json()["id"] for _ in range(2))
    last = server.post(scan_file).json()["id"]
    server.wait(lambda _: server.job(running)["progress"])
    assert [server.job(each)["position"] for each in (running, waiting, last)] == [None, 1, 2]
    pid = server.worker_pid()
    with server.client() as client:
        assert client.delete(f"/api/jobs/{waiting}").status_code == 204
        assert client.delete(f"/api/jobs/{running}").status_code == 204
        assert server.over(last)["status"] == "done"
        assert server.worker_pid() != pid
        assert [job["id"] for job in client.get("/api/jobs").json()] == [last]
        until(lambda: [path.name for path in (server.folder / "scans").iterdir()] == [last])
        assert client.delete(f"/api/jobs/{last}").status_code == 204
        assert client.get(f"/api/jobs/{last}").status_code == 404
    assert not list((server.folder / "scans").iterdir())


def test_a_killed_server_loses_no_accepted_scan(start_server: Start, scan_file: Path, long_scan: Path) -> None:
    server = start_server()
    accepted = [server.post(file).json()["id"] for file in (long_scan, scan_file, scan_file)]
    server.wait(lambda _: server.job(accepted[0])["progress"])
    (server.folder / "incoming" / ("0" * 32)).mkdir()  # as of a scan that was being sent
    worker = server.worker_pid()
    server.kill()
    until(lambda: not Path(f"/proc/{worker}").exists())
    server.start()
    for number in accepted:
        assert server.over(number)["status"] == "done"
    with server.client() as client:
        assert sorted(job["id"] for job in client.get("/api/jobs").json()) == sorted(accepted)
    assert not list((server.folder / "incoming").iterdir())


@pytest.mark.slow
def test_a_server_that_ends_in_order_goes_on_with_the_queue_later(start_server: Start, long_scan: Path) -> None:
    server = start_server()
    numbers = [server.post(long_scan).json()["id"] for _ in range(2)]
    server.wait(lambda _: server.job(numbers[0])["progress"])
    assert server.stop() == 0
    server.start()
    assert [server.over(number)["status"] for number in numbers] == ["done", "done"]


@pytest.mark.slow
def test_a_worker_that_dies_takes_neither_server_nor_scan_along(
    start_server: Start, scan_file: Path, long_scan: Path
) -> None:
    server = start_server()
    number, after = (server.post(file).json()["id"] for file in (long_scan, scan_file))
    server.wait(lambda _: server.job(number)["progress"])
    os.kill(server.worker_pid(), signal.SIGKILL)
    assert server.over(number)["status"] == "done"
    assert server.over(after)["status"] == "done"


def test_a_scan_that_takes_too_long_is_given_up(start_server: Start, scan_file: Path, long_scan: Path) -> None:
    server = start_server("--time-limit", "1")
    number, after = (server.post(file).json()["id"] for file in (long_scan, scan_file))
    job = server.over(number)
    assert job["status"] == "failed"
    assert job["reason"] == "it took more than 1 s, which is the limit of this server"
    assert server.job(after)["status"] in ("queued", "running", "done")


def test_limits_are_said_and_held(start_server: Start, scan_file: Path, long_scan: Path) -> None:
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
        small = gzip.compress(nifti_of(101))
        too_many = server.over(server.post(("many.nii.gz", small)).json()["id"])
        assert "101 slices, expected at most 100" in too_many["reason"]
        running = server.post(("100.nii.gz", gzip.compress(nifti_of(100, 1024), 1))).json()["id"]
        server.wait(lambda _: server.job(running)["status"] != "queued")
        server.post(scan_file)
        answer = server.post(scan_file)
        assert answer.status_code == 429
        assert 5 <= int(answer.headers["Retry-After"]) <= 300
        assert client.get("/readyz").status_code == 503
        assert 'groundglass_refused_total{status="429"} 1.0' in client.get("/metrics").text


def nifti_of(slices: int, side: int = 16) -> bytes:
    """A NIfTI file of HU of air."""
    values = np.full((side, side, slices), -1000, dtype=np.int16)
    return bytes(nibabel.Nifti1Image(values, np.eye(4)).to_bytes())


def test_results_go_when_their_time_is_over(start_server: Start, scan_file: Path) -> None:
    server = start_server("--keep", "0.01")
    job = server.over(server.post(scan_file).json()["id"])
    assert job["expires"] > job["finished"]
    server.stop()
    with sqlite3.connect(server.folder / "jobs.sqlite") as database:
        database.execute("update jobs set finished = '2020-01-01T00:00:00+00:00'")
    database.close()
    server.start()
    until(lambda: not list((server.folder / "scans").iterdir()))
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


def test_names_reach_neither_log_nor_disk(start_server: Start, phantom: Phantom, tmp_path: Path) -> None:
    server = start_server()
    files = write_series(phantom.scan, tmp_path / "series")
    good = server.over(server.post(*((f"{NAME}/{NUMBER}-{f.name}", f.read_bytes()) for f in files)).json()["id"])
    bad = server.over(server.post(*((f"{NAME}/{f.name}", f.read_bytes()) for f in files[:1])).json()["id"])
    refused = server.over(server.post((f"../../{NAME}.nii", b"hello")).json()["id"])
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
