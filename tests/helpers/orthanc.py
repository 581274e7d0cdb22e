"""An Orthanc in a folder of its own, on free ports; and phantom series for it."""

import functools
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import requests

from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_series
from helpers.scripted_worker import wait_until

PROGRAM = "/usr/sbin/Orthanc"
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
USER, PASSWORD = "watcher", "secret-word"


@dataclass
class OrthancServer:
    """An Orthanc that can be stopped and started again; its database stays."""

    folder: Path
    stable_age_s: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    _process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self.port, self.dicom_port = free_port(), free_port()
        self.folder.mkdir(parents=True)
        configuration = {
            "Name": "test",
            "StorageDirectory": str(self.folder / "db"),
            "IndexDirectory": str(self.folder / "db"),
            "HttpPort": self.port,
            "DicomPort": self.dicom_port,
            "DicomAlwaysAllowStore": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "StableAge": self.stable_age_s,
            "Plugins": [PLUGIN],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **self.settings,
        }
        (self.folder / "orthanc.json").write_text(json.dumps(configuration))

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, str(self.folder / "orthanc.json")],
                env={**os.environ, "TCP_NODELAY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, 30)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self.signal(number)
            self._process.wait(30)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
        try:
            self.get("/system")
        except requests.ConnectionError:
            return False
        return True

    def get(self, path: str, **params: str) -> Any:
        answer = requests.get(self.url + path, params=params, auth=(USER, PASSWORD), timeout=20)
        answer.raise_for_status()
        return answer.json()

    def delete(self, path: str) -> None:
        requests.delete(self.url + path, auth=(USER, PASSWORD), timeout=20).raise_for_status()

    def send(self, folder: Path) -> None:
        """Send files with storescu."""
        program = shutil.which("storescu")
        assert program is not None, "storescu is missing (Debian: dcmtk)"
        arguments = [program, "-aec", "ORTHANC", "localhost", str(self.dicom_port), "+sd", "+r", str(folder)]
        subprocess.run(arguments, check=True, capture_output=True)

    def stow(self, files: list[Path]) -> None:
        """Store files by STOW-RS, without the client library that the watcher uses."""
        boundary = uuid.uuid4().hex
        parts = [
            f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + file.read_bytes() + b"\r\n"
            for file in files
        ]
        answer = requests.post(
            f"{self.url}/dicom-web/studies",
            data=b"".join(parts) + f"--{boundary}--".encode(),
            headers={"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'},
            auth=(USER, PASSWORD),
            timeout=60,
        )
        answer.raise_for_status()

    def wait_until_stable(self, count: int) -> None:
        """Wait until this number of series has become stable."""
        wait_until(lambda: self.stable >= count, 30)

    @property
    def stable(self) -> int:
        """Number of series that have become stable."""
        changes = self.get("/changes", since="0", limit="100000")["Changes"]
        return len({change["ID"] for change in changes if change["ChangeType"] == "StableSeries"})

    def instances(self, modality: str) -> list[bytes]:
        """Get the files of every series of a modality."""
        found = [series for series in self.get("/series", expand="") if series["MainDicomTags"]["Modality"] == modality]
        urls = [f"{self.url}/instances/{instance}/file" for series in found for instance in series["Instances"]]
        return [requests.get(url, auth=(USER, PASSWORD), timeout=20).content for url in urls]

    def segmented_series(self) -> set[str]:
        """UIDs of the series that the stored Segmentations refer to."""
        segmentations = [pydicom.dcmread(io.BytesIO(content)) for content in self.instances("SEG")]
        return {str(dataset.ReferencedSeriesSequence[0].SeriesInstanceUID) for dataset in segmentations}

    def modalities(self) -> list[str]:
        return sorted(series["MainDicomTags"]["Modality"] for series in self.get("/series", expand=""))


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return int(server.getsockname()[1])


@functools.cache
def small_chest() -> Scan:
    return chest_phantom(shape=(8, 64, 80)).scan


def series(folder: Path, scan: Scan | None = None, **changes: Any) -> list[Path]:
    """Write a series in a study of its own."""
    return write_series(scan or small_chest(), folder / "series", **changes)


def uid_of(files: list[Path]) -> str:
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)
