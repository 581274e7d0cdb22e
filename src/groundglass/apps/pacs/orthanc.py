"""Orthanc as a source of new series: its log of changes states when a series is stable.

Orthanc logs NewSeries when the first instance of a series arrives, and StableSeries when none has arrived for
`StableAge` seconds. If it is killed in between, the second entry never comes. So a new series is looked up at every
poll until it is stable, and the bookmark stays before the first one that is not.
"""

from __future__ import annotations

from datetime import date
from typing import Any
from urllib.parse import quote

import requests

from groundglass.apps.pacs.access import TIMEOUT_S, DeniedError, pacs_errors
from groundglass.apps.pacs.answers import storable_text
from groundglass.apps.pacs.ledger import Ledger, SeriesArrival
from groundglass.errors import PacsError

DICOM_WEB = "/dicom-web"
_PAGE = 1000


class OrthancSource:
    """Finds new series in the log of changes of an Orthanc server, through its REST API."""

    def __init__(self, url: str, session: requests.Session, since: date | None) -> None:
        self._url, self._session, self._since = url, session, since
        self._position: int | None = None  # number of the last change that was read
        self._unstable: dict[str, int] = {}  # {Orthanc's ID of a series that is not stable yet: number of its change}

    def poll(self, ledger: Ledger) -> bool:
        """Read the changes since the last poll, and add the CT series that are stable to the ledger.

        After an error nothing is lost: the same changes are read again.

        Returns:
            True: every stable series is in the ledger.
        """
        if self._position is None:
            self._position = ledger.bookmark
        is_new_database = False
        while True:
            request = "the request for changes"
            page = self._get(f"/changes?since={self._position}&limit={_PAGE}", request)
            with pacs_errors(request):
                changes = [_parse_change(change) for change in page["Changes"]]
                last, is_last_page = _parse_number(page["Last"]), bool(page["Done"])
            if last < self._position and not is_new_database:
                self._position, is_new_database = 0, True
                self._unstable.clear()
                continue
            if last <= self._position and not is_last_page:
                raise PacsError("the server's changes come to no end: check that the URL is that of an Orthanc")
            unstable = self._unstable | {name: number for kind, name, number in changes if kind == "NewSeries"}
            stable = {name: number for kind, name, number in changes if kind == "StableSeries"}
            arrivals = self._look_up(stable, unstable)
            if is_last_page:
                arrivals += self._look_up(dict(unstable), unstable)
            ledger.add_arrivals(arrivals, bookmark=min([last, *(number - 1 for number in unstable.values())]))
            self._position, self._unstable = last, unstable
            if is_last_page:
                return True

    def _look_up(self, series_changes: dict[str, int], unstable: dict[str, int]) -> list[SeriesArrival]:
        """Return the series that are stable now, CT and recent enough.

        Args:
            series_changes: {Orthanc's ID of a series: number of its change}.
            unstable: Changed in place: gets the series that are not stable, loses the others.
        """
        arrivals = []
        for identifier, number in series_changes.items():
            series = self._find(f"/series/{quote(identifier, safe='')}")
            if series is not None and not series.get("IsStable", True):
                unstable.setdefault(identifier, number)
                continue
            arrival = self._arrival(series, number) if series is not None else None
            arrivals += [arrival] if arrival is not None else []
            unstable.pop(identifier, None)
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


def _parse_change(change: dict[str, Any]) -> tuple[str, str, int]:
    """Return the type of a change, Orthanc's ID of what changed, and the number of the change."""
    return str(change["ChangeType"]), storable_text(change["ID"]), _parse_number(change["Seq"])


def _parse_number(value: Any) -> int:
    """Return the number of a change.

    Raises:
        ValueError: It is negative, or larger than the ledger can hold.
    """
    number = int(value)
    if not 0 <= number < 1 << 63:
        raise ValueError(f"no number of a change: {number}")
    return number
