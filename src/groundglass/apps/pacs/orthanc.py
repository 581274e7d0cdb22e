"""Orthanc as a source of new series: its log of changes states when a series is stable.

Orthanc logs NewSeries when the first instance of a series arrives, and StableSeries when none has arrived for
`StableAge` seconds. If it is killed in between, the second entry never comes. So a new series is looked up at every
poll until it is stable, and the bookmark stays before the first one that is not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import quote

import requests

from groundglass.apps.pacs.access import TIMEOUT_S, DeniedError, pacs_errors
from groundglass.apps.pacs.answers import storable_text
from groundglass.apps.pacs.ledger import ChangeMark, Ledger, SeriesArrival
from groundglass.errors import PacsError

DICOM_WEB = "/dicom-web"
_PAGE = 1000


@dataclass(frozen=True)
class _Change:
    """A change of Orthanc's log: its type, Orthanc's ID of what changed, and what it is known by."""

    kind: str
    series: str
    mark: ChangeMark


class OrthancSource:
    """Finds new series in the log of changes of an Orthanc server, through its REST API."""

    def __init__(self, url: str, session: requests.Session, since: date | None) -> None:
        self._url, self._session, self._since = url, session, since
        self._position: int | None = None  # number of the last change that was read
        self._unstable: dict[str, int] = {}  # {Orthanc's ID of a series to look up again: number of its change}
        self._failure: PacsError | None = None  # of a series that could not be looked up at the last poll

    def poll(self, ledger: Ledger) -> bool:
        """Read the changes since the last poll, and add the CT series that are stable to the ledger.

        After an error nothing is lost: the same changes are read again. A series that cannot be looked up, although
        the server answers other requests, keeps no others waiting.

        Returns:
            True: every stable series is in the ledger.
        """
        if self._position is None:
            self._position = ledger.bookmark
        self._failure = None
        is_new_database = False
        while True:
            request, known = "the request for changes", ledger.last_change
            # from the last one on that was read, so that it is seen whether it is the same
            page = self._get(f"/changes?since={max(0, self._position - 1)}&limit={_PAGE}", request)
            with pacs_errors(request):
                changes = [_parse_change(change) for change in page["Changes"]]
                last, is_last_page = _parse_number(page["Last"]), bool(page["Done"])
            differs = any(change.mark.number == known.number and change.mark != known for change in changes)
            if (last < self._position - 1 or differs) and not is_new_database:
                ledger.forget_changes()
                self._position, is_new_database = 0, True
                self._unstable.clear()
                continue
            last = max(last, self._position)  # some versions repeat the number that was asked for
            if last == self._position and not is_last_page:
                raise PacsError("the server's changes come to no end: check that the URL is that of an Orthanc")
            fresh = [change for change in changes if change.mark.number > self._position]
            unstable = self._unstable | _numbers(fresh, "NewSeries")
            arrivals = self._look_up(_numbers(fresh, "StableSeries"), unstable)
            if is_last_page:
                arrivals += self._look_up(dict(unstable), unstable)
            bookmark = min([last, *(number - 1 for number in unstable.values())])
            ledger.add_arrivals(arrivals, bookmark, fresh[-1].mark if fresh else None)
            self._position, self._unstable = last, unstable
            if is_last_page:
                if self._failure is not None:
                    raise self._failure
                return True

    def _look_up(self, series_changes: dict[str, int], unstable: dict[str, int]) -> list[SeriesArrival]:
        """Return the series that are stable now, CT and recent enough.

        Args:
            series_changes: {Orthanc's ID of a series: number of its change}.
            unstable: Changed in place: gets the series that are not stable or cannot be looked up, loses the others.
        """
        arrivals = []
        for identifier, number in series_changes.items():
            try:
                series = self._find(f"/series/{quote(identifier, safe='')}")
                is_stable = series is None or series.get("IsStable", True)
                arrival = self._arrival(series, number) if series is not None and is_stable else None
            except PacsError as error:
                self._get("/changes?limit=1", "the request for changes")  # raises if the fault is not of this series
                self._failure, is_stable, arrival = error, False, None
            if is_stable:
                unstable.pop(identifier, None)
            else:
                unstable.setdefault(identifier, number)
            arrivals += [arrival] if arrival is not None else []
        return arrivals

    def _arrival(self, series: dict[str, Any], number: int) -> SeriesArrival | None:
        with pacs_errors("the request for a series"):
            if series["MainDicomTags"].get("Modality") != "CT":  # results that were stored are not CT either
                return None
            series_uid = storable_text(series["MainDicomTags"].get("SeriesInstanceUID", ""))
            count = len(series["Instances"])
            parent = storable_text(series["ParentStudy"])
        study = self._find(f"/studies/{quote(parent, safe='')}")
        if study is None:
            return None
        with pacs_errors("the request for a study"):
            tags = study["MainDicomTags"]
            if self._since is not None and str(tags.get("StudyDate", "")) < f"{self._since:%Y%m%d}":
                return None
            return SeriesArrival(series_uid, storable_text(tags.get("StudyInstanceUID", "")), count, stamp=number)

    def _find(self, path: str) -> dict[str, Any] | None:
        """Return the resource; None if it was deleted meanwhile."""
        try:
            return self._get(path, "the request for a series or study")
        except DeniedError as error:
            if error.status == 404:
                return None
            raise

    def _get(self, path: str, request: str) -> dict[str, Any]:
        with pacs_errors(request):
            answer = self._session.get(self._url + path, timeout=TIMEOUT_S)
            answer.raise_for_status()
            content = answer.json()
        if not isinstance(content, dict):
            raise PacsError(
                f"the server's answer to {request} is no JSON object, expected one of Orthanc: check that the URL is "
                "that of an Orthanc"
            )
        return content


def _parse_change(change: dict[str, Any]) -> _Change:
    number = _parse_number(change["Seq"])
    kind, series = str(change["ChangeType"]), storable_text(change["ID"])
    digest = hashlib.sha256(repr((kind, series, change.get("Date"))).encode(errors="replace")).hexdigest()
    return _Change(kind, series, ChangeMark(number, digest))


def _numbers(changes: list[_Change], kind: str) -> dict[str, int]:
    """Return {Orthanc's ID of a series: number of its last change of a kind}."""
    return {change.series: change.mark.number for change in changes if change.kind == kind}


def _parse_number(value: Any) -> int:
    """Return the number of a change.

    Raises:
        ValueError: It is negative, or larger than the ledger can hold.
    """
    number = int(value)
    if not 0 <= number < 1 << 63:
        raise ValueError(f"no number of a change: {number}")
    return number
