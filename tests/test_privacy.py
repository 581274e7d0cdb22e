"""Nothing that names a patient or a source leaves `segment`, `follow` and `info` unless it was asked for."""

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
from groundglass.scan.phantom import Phantom, chest_phantom
from helpers.dicom_phantom import BIRTH, NAME, NUMBER, write_series

PLANTED = re.compile("planted|19010203|secret-folder", re.IGNORECASE)
IDENTIFYING_RESULTS = {
    "lesions.dcm",
    "findings.dcm",
}  # DICOM that joins the patient's study names the patient as it does


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same chest as DICOM and as NIfTI, under names that give the patient away."""
    root = tmp_path_factory.mktemp("root") / "secret-folder"
    scan = chest_phantom(shape=(16, 96, 128)).scan
    write_series(scan, root / NAME, SeriesDescription=f"chest of {NAME}", PatientComments=NUMBER)
    nifti.write_scan(scan, root / f"{NAME}_{BIRTH}.nii.gz")
    return [root / NAME, root / f"{NAME}_{BIRTH}.nii.gz"]


def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: object) -> str:
    monkeypatch.setattr(sys, "argv", ["groundglass", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main()
    said = capfd.readouterr()
    assert not caught.value.code, said.err
    return said.out + said.err


def planted(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        for path in folder.rglob("*"):
            where = str(path.relative_to(folder))
            if PLANTED.search(where) or (path.is_file() and PLANTED.search(path.read_bytes().decode("latin-1"))):
                yield path


@pytest.mark.parametrize("which", [0, 1], ids=["dicom", "nifti"])
def test_segment(
    which: int,
    sources: list[Path],
    temporary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    said = run(monkeypatch, capfd, "segment", sources[which], "-o", out)
    assert not PLANTED.search(said)
    assert {path.name for path in planted(out, temporary)} == (IDENTIFYING_RESULTS if which == 0 else set())
    named = tmp_path / "named"
    run(monkeypatch, capfd, "segment", sources[which], "-o", named, "--with-identity")
    text = (named / "findings.json").read_text()
    assert NAME in text
    if which == 0:
        assert f'"patient_id": "{NUMBER}"' in text
        assert f'"birth_date": "{BIRTH}"' in text


def test_follow_and_info(
    sources: list[Path],
    temporary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    said = run(monkeypatch, capfd, "follow", sources[0], sources[0], "-o", out)
    said += run(monkeypatch, capfd, "info", sources[0], "--json")
    said += run(monkeypatch, capfd, "info", sources[1])
    assert not PLANTED.search(said)
    assert {path.name for path in planted(out, temporary)} == IDENTIFYING_RESULTS


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt install strace")
@pytest.mark.parametrize("command", ["segment", "info --engine"])
def test_no_host_is_called_or_looked_up_by_whatever_library(command: str, phantom: Phantom, tmp_path: Path) -> None:
    nifti.write_scan(phantom.scan, tmp_path / "ct.nii.gz")
    program = [sys.executable, "-c", "from groundglass.cli import main; main()", *command.split()]
    if command == "segment":
        program += [str(tmp_path / "ct.nii.gz"), "-o", str(tmp_path / "out")]
    trace = tmp_path / "trace"
    tracer = ["strace", "-f", "-qq", "--trace=connect,sendto,sendmsg,sendmmsg,openat", "-o", str(trace)]
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run([*tracer, *program], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    traced = trace.read_text()
    assert "libopenvino" in traced  # the engine was there, and watched
    assert "AF_INET" not in traced
    assert "/etc/resolv.conf" not in traced


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode != 0,
    reason="no namespaces may be made here",
)
def test_it_works_where_there_is_no_network(phantom: Phantom, tmp_path: Path) -> None:
    nifti.write_scan(phantom.scan, tmp_path / "ct.nii.gz")
    program = [sys.executable, "-c", "from groundglass.cli import main; main()"]
    words = ["segment", str(tmp_path / "ct.nii.gz"), "-o", str(tmp_path / "out")]
    subprocess.run(["unshare", "-rn", *program, *words], check=True, capture_output=True)
    assert (tmp_path / "out" / "findings.json").exists()
