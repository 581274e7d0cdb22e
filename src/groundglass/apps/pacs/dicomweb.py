"""Access to a DICOMweb server (QIDO-RS, WADO-RS, STOW-RS), and the source that finds new series by searching it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread, dcmwrite

from groundglass.apps.pacs.access import TIMEOUT_S, BusyError, pacs_errors
from groundglass.apps.pacs.answers import storable_text
from groundglass.apps.pacs.ledger import Ledger, SeriesArrival
from groundglass.errors import PacsError
from groundglass.files import output_errors
from groundglass.io.dicom_files import MAX_FILES
from groundglass.io.dicom_header import DICOM_ERRORS, text_value

SERIES_BYTES = 8 << 30  # of the instances of a series, as they are stored; no more could be read
_MAX_SERIES = 1_000_000  # that searches go through
_MAX_COUNT = 1 << 31  # of the instances of a series, as a server states it
_PAGE = 500
_STUDY, _SERIES, _MODALITY, _COUNT = "0020000D", "0020000E", "00080060", "00201209"
_INSTANCE = "00080018"
_NEEDED = {
    _MODALITY: "Modality",
    _SERIES: "SeriesInstanceUID",
    _STUDY: "StudyInstanceUID",
    _COUNT: "NumberOfSeriesRelatedInstances",
}
_DUPLICATE = 0x0111  # failure reason of PS3.18 table I.2-2: the instance is stored already
_NO_RESOURCES = range(0xA700, 0xA800)  # failure reasons of the same table: no room, for example
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class SeriesMatch:
    """A CT series that a search found.

    Attributes:
        series_uid: Series instance UID.
        study_uid: Study instance UID.
        instance_count: Number of its instances, as the server states it.
    """

    series_uid: str
    study_uid: str
    instance_count: int


class DicomWebArchive:
    """A DICOMweb server. Every method raises `PacsError` where the server fails or refuses."""

    def __init__(self, url: str, session: requests.Session) -> None:
        # UIDs are checked when they enter the ledger; the client's own check refuses some that scanners write.
        self._client = DICOMwebClient(url, session, timeout=TIMEOUT_S, permissive_uid=True)
        self._client.set_http_retry_params(retry=False)  # by default it retries after everything, even Ctrl-C
        # Up to this size a body is sent with its length, which every server accepts.
        self._client.set_chunk_size(_CHUNK_BYTES)

    def check_connection(self) -> None:
        """Send a request that is quick for a full archive too."""
        with pacs_errors("a search for a study"):
            self._client.search_for_studies(limit=1, search_filters={"StudyInstanceUID": "2.25.0"})

    def list_series(self, since: date | None, on_note: Callable[[str], None] = lambda _: None) -> list[SeriesMatch]:
        """List the CT series of all studies, or of those of a day or later.

        Args:
            since: The day; None for all studies.
            on_note: Called with what the server does not state of series that are left out beside others.
        """
        filters = {"Modality": "CT"} | ({"StudyDate": f"{since:%Y%m%d}-"} if since else {})
        found: dict[str, SeriesMatch] = {}
        faults: set[str] = set()
        page: list[dict[str, Any]] = []
        offset = 0
        while offset < _MAX_SERIES:
            before = repr(page)  # in which NaN is equal to itself
            with pacs_errors("a search for series"):
                page = self._client.search_for_series(
                    limit=_PAGE, offset=offset, fields=[_COUNT], search_filters=filters
                )
                matches = _ct_series(page, faults)
            new = [match for match in matches if match.series_uid not in found]
            found.update((match.series_uid, match) for match in new)
            offset += len(page)
            ignores_offset = repr(page) == before or (matches and not new)
            if not page or ignores_offset:
                if faults and not found:
                    raise PacsError(min(faults))
                for fault in sorted(faults):
                    on_note(f"some series are left out: {fault}")
                return list(found.values())
        raise PacsError(f"the server lists more than {_MAX_SERIES:,} series: name a day with --since")

    def retrieve(self, study_uid: str, series_uid: str, folder: Path) -> int:
        """Write the instances of a series into a folder, as they are stored; one at a time is held in memory.

        Instances of another series are left out, and so are repetitions: neither may stand for one that is missing.

        Returns:
            Number of instances.

        Raises:
            OutputError: The folder cannot be written.
        """
        uids: set[str] = set()
        size_bytes = 0
        with pacs_errors("the retrieval of a series"):
            media_types = (("application/dicom", "*"),)  # any transfer syntax: the server need not decompress
            for count, instance in enumerate(self._client.iter_series(study_uid, series_uid, media_types), start=1):
                uid = text_value(instance, "SOPInstanceUID")
                if text_value(instance, "SeriesInstanceUID") == series_uid and uid not in uids:
                    uids.add(uid)
                    size_bytes += _write(instance, folder / f"{len(uids):06}.dcm")
                if count > MAX_FILES or size_bytes > SERIES_BYTES:
                    raise PacsError(
                        f"the server gives more than {MAX_FILES:,} instances or {SERIES_BYTES:,} bytes for a "
                        "series, more than are read"
                    )
        return len(uids)

    def count_instances(self, series_uid: str) -> int | None:
        """Return the number of instances that the server states of a CT series now; None if it finds no such series."""
        with pacs_errors("a search for a series"):
            found = self._client.search_for_series(fields=[_COUNT], search_filters={"SeriesInstanceUID": series_uid})
            faults: set[str] = set()
            counts = {match.series_uid: match.instance_count for match in _ct_series(found, faults)}
        if series_uid not in counts and faults:
            raise PacsError(min(faults))
        return counts.get(series_uid)

    def has_instance(self, study_uid: str, instance_uid: str) -> bool:
        """Return whether a study holds an instance."""
        with pacs_errors("a search for an instance"):
            found = self._client.search_for_instances(study_uid, search_filters={"SOPInstanceUID": instance_uid})
            return any(_first_value(item, _INSTANCE) == instance_uid for item in found)

    def store(self, study_uid: str, files: Sequence[Path]) -> None:
        """Store instances into a study, in one request.

        An instance of which the answer does not say that it was stored is searched for.

        Raises:
            BusyError: The server has no room for it at present.
        """
        with pacs_errors("the storage of results"):
            instances = [dcmread(file) for file in files]
            try:
                answer = self._client.store_instances(instances, study_uid)
            except requests.HTTPError as error:
                answer = _reasons_in(error)
            refused = {
                item.get("ReferencedSOPInstanceUID"): item.get("FailureReason")
                for item in answer.get("FailedSOPSequence") or ()
            }
            stored = {item.get("ReferencedSOPInstanceUID") for item in answer.get("ReferencedSOPSequence") or ()}
            stored |= {uid for uid, reason in refused.items() if reason == _DUPLICATE}
            uids = [str(instance.SOPInstanceUID) for instance in instances]
        failed = [uid for uid in uids if uid not in stored and not self.has_instance(study_uid, uid)]
        if failed:
            reason = refused.get(failed[0])
            raise (BusyError if reason in _NO_RESOURCES else PacsError)(
                f"the server did not store {len(failed)} of {len(files)} results (reason "
                f"{f'{reason:04X}H' if isinstance(reason, int) else 'not stated'}): see the log of the server"
            )


def _reasons_in(error: requests.HTTPError) -> Dataset:
    """Return the answer of a server that stored none of the instances, which it gives with 409 (PS3.18, 10.5.3.1).

    Raises:
        requests.HTTPError: The error, if it says no reasons.
    """
    with suppress(ValueError, *DICOM_ERRORS):
        if error.response is not None and error.response.status_code == requests.codes.conflict:
            answer = Dataset.from_json(error.response.json())
            if answer.get("FailedSOPSequence"):
                return answer
    raise error


class DicomWebSource:
    """Finds new series by searching: a series is complete when it has as many instances as at the poll before."""

    def __init__(
        self, server: DicomWebArchive, since: date | None, on_message: Callable[[str], None] = lambda _: None
    ) -> None:
        self._server, self._since, self._on_message = server, since, on_message
        self._notes: set[str] = set()  # each is a message once
        self._counts: dict[str, int] = {}  # {series UID: number of instances at the last poll}

    def poll(self, ledger: Ledger) -> bool:
        """Add the complete series to the ledger; see `SeriesSource`."""
        matches = self._server.list_series(self._since, self._note)
        complete = [match for match in matches if self._counts.get(match.series_uid) == match.instance_count]
        arrivals = [
            SeriesArrival(match.series_uid, match.study_uid, match.instance_count, stamp=match.instance_count)
            for match in complete
        ]
        ledger.add_arrivals(arrivals, bookmark=0)
        self._counts = {match.series_uid: match.instance_count for match in matches}
        return len(complete) == len(matches)

    def _note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.add(note)
            self._on_message(note)


def _ct_series(items: list[dict[str, Any]], faults: set[str]) -> list[SeriesMatch]:
    """Read the CT series from the answer to a search; add what those lack that are not understood to the faults.

    Raises:
        TypeError: The answer is no list.
    """
    if not isinstance(items, list):
        raise TypeError("the answer to a search is no list")
    matches = []
    for item in items:
        try:
            values = {tag: _first_value(item, tag) for tag in _NEEDED}
            if values[_MODALITY] not in (None, "", "CT"):
                continue
            missing = [name for tag, name in _NEEDED.items() if values[tag] in (None, "")]
            if missing:
                purpose = "know when a series is complete" if missing[0] == _NEEDED[_COUNT] else "process a series"
                faults.add(f"the server states no {missing[0]}, which is needed to {purpose}")
                continue
            count = min(_MAX_COUNT, max(0, int(values[_COUNT])))
        except DICOM_ERRORS:
            faults.add("the server describes a series in another way than DICOM does in JSON")
            continue
        matches.append(SeriesMatch(storable_text(values[_SERIES]), storable_text(values[_STUDY]), count))
    return matches


def _first_value(item: dict[str, Any], tag: str) -> Any:
    """Return the first value of a tag in the DICOM JSON model, without what pads it in files; None if it has none.

    Raises:
        AttributeError: The model has another form.
        TypeError: Likewise.
    """
    values = item.get(tag, {}).get("Value") or [None]
    if not isinstance(values, list):
        raise TypeError(f"the value of {tag} is no list")
    return values[0].strip(" \0") if isinstance(values[0], str) else values[0]


def _write(instance: Dataset, path: Path) -> int:
    """Write an instance, and return its size in bytes."""
    with output_errors(path), path.open("wb") as file:
        dcmwrite(file, instance)
        return file.tell()
