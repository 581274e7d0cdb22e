"""A DICOMweb server: search (QIDO-RS), retrieve (WADO-RS), store (STOW-RS); and as a source of news, by searching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread, dcmwrite

from groundglass.apps.pacs.access import TIMEOUT_S, asking
from groundglass.apps.pacs.ledger import Arrival, Ledger
from groundglass.errors import OutputError, PacsError

_PAGE = 500
_STUDY, _SERIES, _MODALITY, _COUNT = "0020000D", "0020000E", "00080060", "00201209"
_DUPLICATE = 0x0111  # a reason of "failure" (PS3.18 table I.2-2): it is there already
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Listed:
    """A CT series as a search finds it."""

    series_uid: str
    study_uid: str
    instances: int


class DicomWeb:
    """A server, asked through dicomweb-client. Every method raises `PacsError` where the server does not play along."""

    def __init__(self, url: str, session: requests.Session) -> None:
        # UIDs are checked when they are noted; the client's own check refuses some that scanners write.
        self._client = DICOMwebClient(url, session, timeout=TIMEOUT_S, permissive_uid=True)
        self._client.set_http_retry_params(retry=False)  # its own way is to try everything again, even Ctrl-C
        # Up to this size a body is sent with its length, which every server takes.
        self._client.set_chunk_size(_CHUNK)

    def reach(self) -> None:
        """See that it answers at all, to a question that is quick for a full archive too."""
        with asking("a search for a study"):
            self._client.search_for_studies(limit=1, search_filters={"StudyInstanceUID": "2.25.0"})

    def list_series(self, since: date | None) -> list[Listed]:
        """Its CT series, of studies of a day or later; None: all."""
        filters = {"Modality": "CT"} | ({"StudyDate": f"{since:%Y%m%d}-"} if since else {})
        found: dict[str, Listed] = {}
        offset = 0
        while True:
            with asking("a search for series"):
                page = self._client.search_for_series(
                    limit=_PAGE, offset=offset, fields=[_COUNT], search_filters=filters
                )
                listed = [each for item in page if (each := _listed(item))]
            new = [each for each in listed if each.series_uid not in found]
            found.update((each.series_uid, each) for each in new)
            offset += len(page)
            if not page or (listed and not new):  # the second: a server that always gives all
                return list(found.values())

    def retrieve(self, study_uid: str, series_uid: str, folder: Path) -> int:
        """Write a series' instances into a folder, as they are stored; one at a time is held in memory.

        Returns:
            How many there are.

        Raises:
            OutputError: The folder cannot be written.
        """
        count = 0
        with asking("the retrieval of a series"):
            wanted = (("application/dicom", "*"),)  # not unpacked by the server
            for count, instance in enumerate(self._client.iter_series(study_uid, series_uid, wanted), start=1):
                _write(instance, folder / f"{count:06}.dcm")
        return count

    def has(self, study_uid: str, instance_uid: str) -> bool:
        """Whether an instance is in a study."""
        with asking("a search for an instance"):
            found = self._client.search_for_instances(study_uid, search_filters={"SOPInstanceUID": instance_uid})
            return any(_first(item, "00080018") == instance_uid for item in found)

    def store(self, study_uid: str, files: Sequence[Path]) -> None:
        """Store instances into a study, in one request."""
        with asking("the storing of results"):
            instances = [dcmread(file) for file in files]
            answer = self._client.store_instances(instances, study_uid)
            failed = [item for item in answer.get("FailedSOPSequence") or () if item.get("FailureReason") != _DUPLICATE]
        if failed:
            reason = failed[0].get("FailureReason")
            raise PacsError(
                f"the server did not store {len(failed)} of {len(files)} results (reason "
                f"{f'{reason:04X}H' if isinstance(reason, int) else 'not stated'}): see its own log"
            )


class Searched:
    """News by searching: a series is whole when it has as many instances as a poll ago."""

    def __init__(self, server: DicomWeb, since: date | None) -> None:
        self._server, self._since = server, since
        self._seen: dict[str, int] = {}

    def look(self, ledger: Ledger) -> bool:
        """Note what is new; False: some of it is to be seen once more before it counts as whole."""
        listed = self._server.list_series(self._since)
        still = [each for each in listed if self._seen.get(each.series_uid) == each.instances]
        arrivals = [Arrival(each.series_uid, each.study_uid, each.instances, each.instances) for each in still]
        ledger.take(arrivals, bookmark=0)
        self._seen = {each.series_uid: each.instances for each in listed}
        return len(still) == len(listed)


def _listed(item: dict[str, Any]) -> Listed | None:
    """A series of a search's answer; None: no CT, or it has no UIDs to ask for it by."""
    series, study, count = (_first(item, tag) for tag in (_SERIES, _STUDY, _COUNT))
    if _first(item, _MODALITY) != "CT" or not series or not study:
        return None
    if count is None:
        raise PacsError("the server states no NumberOfSeriesRelatedInstances, by which a series is known to be whole")
    return Listed(str(series), str(study), int(count))


def _first(item: dict[str, Any], tag: str) -> Any:
    """A tag's first value in the DICOM JSON model; None where it has none."""
    values = item.get(tag, {}).get("Value") or [None]
    return values[0]


def _write(instance: Dataset, path: Path) -> None:
    try:
        with path.open("wb") as file:
            dcmwrite(file, instance)
    except OSError as error:
        raise OutputError(
            f"the spool cannot be written: {error.strerror or error}; make room, or name another folder with -o"
        ) from None
