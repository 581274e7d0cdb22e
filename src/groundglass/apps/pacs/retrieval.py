"""Retrieve a series in a process of its own: the answer of a server is parsed there, where it can end nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from groundglass.apps.pacs.access import Credentials, open_session
from groundglass.apps.pacs.dicomweb import DicomWebArchive

RETRIEVAL_BYTES = 4 << 30  # of memory for the retrieval of a series, of which one instance is held at a time
RETRIEVAL_S = 3600.0  # for the retrieval of a series


@dataclass(frozen=True)
class RetrievalTask:
    """A series to be retrieved.

    Attributes:
        study_uid: Study instance UID.
        series_uid: Series instance UID.
        folder: Empty folder for its instances.
    """

    study_uid: str
    series_uid: str
    folder: Path


@dataclass(frozen=True)
class RetrieverFactory:
    """Creates the function that retrieves a series and returns the number of its instances; called in its process.

    Attributes:
        url: Root of the DICOMweb server.
        credentials: Credentials for each request.
        ca: PEM file of the certificate authorities to trust; None for those of certifi.
    """

    url: str
    credentials: Credentials
    ca: Path | None

    def __call__(self) -> Callable[[RetrievalTask], int]:
        """Open a session of its own.

        Raises:
            ConfigError: The PEM file does not exist.
        """
        return partial(_retrieve, DicomWebArchive(self.url, open_session(self.credentials, self.ca)))


def _retrieve(archive: DicomWebArchive, task: RetrievalTask) -> int:
    return archive.retrieve(task.study_uid, task.series_uid, task.folder)
