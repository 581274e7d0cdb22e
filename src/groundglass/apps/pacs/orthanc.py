"""Orthanc as a source of news: its log of changes tells when a series is stable.

Orthanc logs NewSeries when the first instance of a series arrives, and StableSeries when none has for `StableAge`
seconds. When it is killed in between, the second never comes; so a new series is looked at until it is stable, and the
bookmark stays in front of the first that is not.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import requests

from groundglass.apps.pacs.access import TIMEOUT_S, DeniedError, asking
from groundglass.apps.pacs.ledger import Arrival, Ledger
from groundglass.errors import PacsError

DICOM_WEB = "/dicom-web"
_PAGE = 1000


class Orthanc:
    """An Orthanc server, asked through its REST API."""

    def __init__(self, url: str, session: requests.Session, since: date | None) -> None:
        self._url, self._session, self._since = url, session, since
        self._cursor: int | None = None
        self._unsettled: dict[str, int] = {}  # {Orthanc's own ID of a series that is not stable yet: its change}

    def look(self, ledger: Ledger) -> bool:
        """Read the changes since the last time, and note the CT series that are stable; True: that is all for now.

        Raises:
            PacsError: The server does not play along; nothing is lost, the same changes are read again.
        """
        if self._cursor is None:
            self._cursor = ledger.bookmark
        while True:
            what = "the question what changed"
            page = self._get(f"/changes?since={self._cursor}&limit={_PAGE}", what)
            with asking(what):
                changes = [_change(each) for each in page["Changes"]]
                last, is_all = int(page["Last"]), bool(page["Done"])
            if last < self._cursor:  # its database was made anew
                self._cursor = 0
                self._unsettled.clear()
                continue
            unsettled = self._unsettled | {name: number for kind, name, number in changes if kind == "NewSeries"}
            stable = {name: number for kind, name, number in changes if kind == "StableSeries"}
            arrivals = self._settle(stable, unsettled)
            if is_all:
                arrivals += self._settle(dict(unsettled), unsettled)
            ledger.take(arrivals, bookmark=min([last, *(number - 1 for number in unsettled.values())]))
            self._cursor, self._unsettled = last, unsettled
            if is_all:
                return True

    def _settle(self, changed: dict[str, int], unsettled: dict[str, int]) -> list[Arrival]:
        """The news of some series: those that are stable now, CT and recent enough.

        Args:
            changed: {Orthanc's ID of a series: its change}.
            unsettled: Gets those that are not stable; loses the others.
        """
        arrivals = []
        for identifier, number in changed.items():
            series = self._find(f"/series/{identifier}")
            if series is not None and not series.get("IsStable", True):
                unsettled.setdefault(identifier, number)
                continue
            arrival = self._arrival(series, number) if series is not None else None
            arrivals += [arrival] if arrival is not None else []
            unsettled.pop(identifier, None)
        return arrivals

    def _arrival(self, series: dict[str, Any], number: int) -> Arrival | None:
        with asking("the question about a series"):
            if series["MainDicomTags"].get("Modality") != "CT":  # not our own results either
                return None
            series_uid, instances = str(series["MainDicomTags"].get("SeriesInstanceUID", "")), len(series["Instances"])
            parent = str(series["ParentStudy"])
        study = self._find(f"/studies/{parent}")
        if study is None:
            return None
        with asking("the question about a study"):
            tags = study["MainDicomTags"]
            if self._since is not None and str(tags.get("StudyDate", "")) < f"{self._since:%Y%m%d}":
                return None
            return Arrival(series_uid, str(tags.get("StudyInstanceUID", "")), instances, number)

    def _find(self, path: str) -> dict[str, Any] | None:
        """What is there; None: it was deleted meanwhile."""
        try:
            return self._get(path, "the question about a series or study")
        except DeniedError as error:
            if error.status == 404:
                return None
            raise

    def _get(self, path: str, what: str) -> dict[str, Any]:
        with asking(what):
            answer = self._session.get(self._url + path, timeout=TIMEOUT_S)
            answer.raise_for_status()
            found = answer.json()
        if not isinstance(found, dict):
            raise PacsError(
                f"the server answers to {what} with no record, expected Orthanc: see that the URL is its own"
            )
        return found


def _change(each: dict[str, Any]) -> tuple[str, str, int]:
    """Kind, Orthanc's ID of what changed, and the number of a change."""
    return str(each["ChangeType"]), str(each["ID"]), int(each["Seq"])
