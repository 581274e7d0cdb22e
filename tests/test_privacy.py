"""Results and output of `segment`, `follow` and `info` name neither patient nor source without --with-identity."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundglass.cli import main
from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from helpers.dicom_phantom import BIRTH, NAME, NUMBER, write_series

pytestmark = pytest.mark.thorough

PLANTED = re.compile("planted|19010203|secret-folder", re.IGNORECASE)
IDENTIFYING_RESULTS = {"lesions.dcm", "findings.dcm"}  # part of the patient's study, which they name


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same chest as DICOM and as NIfTI, under names that identify the patient."""
    root = tmp_path_factory.mktemp("root") / "secret-folder"
    scan = chest_phantom(shape=(6, 96, 128)).scan
    write_series(scan, root / NAME, SeriesDescription=f"chest of {NAME}", PatientComments=NUMBER)
    nifti.write_scan(scan, root / f"{NAME}_{BIRTH}.nii.gz")
    return [root / NAME, root / f"{NAME}_{BIRTH}.nii.gz"]


def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command, and return what it printed."""
    monkeypatch.setattr(sys, "argv", ["groundglass", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capfd.readouterr()
    assert not caught.value.code, captured.err
    return captured.out + captured.err


def identifying(*folders: Path) -> Iterator[Path]:
    """The files and folders whose name or content identifies the patient."""
    for folder in folders:
        for path in folder.rglob("*"):
            name = str(path.relative_to(folder))
            if PLANTED.search(name) or (path.is_file() and PLANTED.search(path.read_bytes().decode("latin-1"))):
                yield path


@pytest.mark.parametrize("which", [0, 1], ids=["dicom", "nifti"])
def test_segment_names_neither_patient_nor_source_by_default(
    which: int,
    sources: list[Path],
    grey_band_model: Path,
    temporary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    output = run(monkeypatch, capfd, "segment", sources[which], "-o", out, "--model", grey_band_model)
    assert not PLANTED.search(output)
    assert {path.name for path in identifying(out, temporary)} == (IDENTIFYING_RESULTS if which == 0 else set())
    named = tmp_path / "named"
    run(monkeypatch, capfd, "segment", sources[which], "-o", named, "--model", grey_band_model, "--with-identity")
    text = (named / "findings.json").read_text()
    assert NAME in text
    if which == 0:
        assert f'"patient_id": "{NUMBER}"' in text
        assert f'"birth_date": "{BIRTH}"' in text


def test_follow_and_info_name_neither_patient_nor_source(
    sources: list[Path],
    grey_band_model: Path,
    temporary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    output = run(monkeypatch, capfd, "follow", sources[0], sources[0], "-o", out, "--model", grey_band_model)
    output += run(monkeypatch, capfd, "info", sources[0], "--json")
    output += run(monkeypatch, capfd, "info", sources[1])
    assert not PLANTED.search(output)
    assert {path.name for path in identifying(out, temporary)} == IDENTIFYING_RESULTS


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt install strace")
@pytest.mark.parametrize("command", ["segment", "info --engine"])
def test_no_library_calls_or_looks_up_a_host(command: str, tmp_path: Path) -> None:
    nifti.write_scan(chest_phantom(shape=(6, 96, 128)).scan, tmp_path / "ct.nii.gz")
    program = [sys.executable, "-c", "from groundglass.cli import main; main()", *command.split()]
    if command == "segment":
        program += [str(tmp_path / "ct.nii.gz"), "-o", str(tmp_path / "out")]
    trace = tmp_path / "trace"
    tracer = ["strace", "-f", "-qq", "--trace=connect,sendto,sendmsg,sendmmsg,openat", "-o", str(trace)]
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run([*tracer, *program], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    traced = trace.read_text()
    assert "libopenvino" in traced  # the engine was loaded while strace recorded
    assert "AF_INET" not in traced
    assert "/etc/resolv.conf" not in traced


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode != 0,
    reason="namespaces cannot be created here",
)
def test_segment_works_without_a_network(tmp_path: Path) -> None:
    nifti.write_scan(chest_phantom(shape=(6, 96, 128)).scan, tmp_path / "ct.nii.gz")
    program = [sys.executable, "-c", "from groundglass.cli import main; main()"]
    arguments = ["segment", str(tmp_path / "ct.nii.gz"), "-o", str(tmp_path / "out")]
    subprocess.run(["unshare", "-rn", *program, *arguments], check=True, capture_output=True)
    assert (tmp_path / "out" / "findings.json").exists()
