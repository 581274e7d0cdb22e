"""Where news come from: Orthanc's changes as a made-up server tells them, and searches."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from groundglass.apps.pacs.access import Credentials, DeniedError, open_session
from groundglass.apps.pacs.dicomweb import DicomWeb, Listed, Searched
from groundglass.apps.pacs.ledger import Ledger
from groundglass.apps.pacs.orthanc import Orthanc
from groundglass.errors import PacsError

Answer = tuple[int, Any]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path)) as each:
        each.belong("server")
        yield each


class MadeUpOrthanc:
    """Answers as Orthanc does; `changes` are (kind, series) in the order of their numbers, from 1."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []
        self.series: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.broken = ""

    def arrive(self, name: str, kinds: tuple[str, ...] = ("NewSeries", "StableSeries"), **more: Any) -> None:
        self.changes += [(kind, name) for kind in kinds]
        tags = {"Modality": more.pop("modality", "CT"), "SeriesInstanceUID": f"1.2.{len(self.series)}"}
        self.series[name] = {"MainDicomTags": tags, "Instances": ["a", "b"], "ParentStudy": "study", **more}

    def __call__(self, path: str, query: dict[str, str]) -> Answer:
        self.asked.append(path)
        if path == self.broken:
            return 503, {}
        if path == "/changes":
            since, limit = int(query["since"]), int(query["limit"])
            told = [
                {"ChangeType": kind, "ID": name, "Seq": number, "ResourceType": "Series"}
                for number, (kind, name) in enumerate(self.changes, start=1)
                if number > since
            ]
            is_all = len(told) <= limit
            last = told[:limit][-1]["Seq"] if told else len(self.changes)
            return 200, {"Changes": told[:limit], "Done": is_all, "Last": last}
        if path == "/studies/study":
            return 200, {"MainDicomTags": {"StudyInstanceUID": "1.9", "StudyDate": "20200301"}}
        found = self.series.get(path.removeprefix("/series/"))
        return (200, found) if found else (404, {})


def source(url: str, since: date | None = None) -> Orthanc:
    return Orthanc(url, open_session(Credentials()), since)


def waiting(ledger: Ledger) -> int:
    return ledger.counts().get("waiting", 0)


def test_ten_thousand_old_changes_are_read_once_and_a_lost_connection_costs_nothing(
    serve: Callable[..., str], ledger: Ledger
) -> None:
    server = MadeUpOrthanc()
    url = serve(server)
    for number in range(300):
        server.changes += [("NewInstance", "x")] * 31
        server.arrive(f"s{number}", modality="CT" if number % 3 else "MR")
    server.changes += [("NewSeries", "deleted"), ("StableSeries", "deleted")]
    assert len(server.changes) > 9900
    server.broken = "/series/s150"
    with pytest.raises(PacsError, match="503 to the question about a series"):
        source(url).look(ledger)
    before = ledger.bookmark
    assert 4000 <= before < 5200
    server.broken = ""
    assert source(url).look(ledger)  # as after a restart: from the bookmark on
    assert waiting(ledger) == 200
    assert ledger.bookmark == len(server.changes)
    server.asked.clear()
    assert source(url).look(ledger)
    assert server.asked == ["/changes"]


def test_the_bookmark_stays_in_front_of_a_series_that_is_not_stable_yet(
    serve: Callable[..., str], ledger: Ledger
) -> None:
    server = MadeUpOrthanc()
    url = serve(server)
    server.arrive("whole")
    server.arrive("arriving", ("NewSeries",), IsStable=False)
    server.arrive("another")
    watching = source(url)
    watching.look(ledger)
    assert (waiting(ledger), ledger.bookmark) == (2, 2)
    server.series["arriving"]["IsStable"] = True  # Orthanc was killed: there will be no StableSeries
    source(url).look(ledger)
    watching.look(ledger)
    assert (waiting(ledger), ledger.bookmark) == (3, 5)


def test_what_became_stable_before_a_lost_connection_is_not_forgotten(
    serve: Callable[..., str], ledger: Ledger
) -> None:
    server = MadeUpOrthanc()
    watching = source(serve(server))
    for name in ("first", "second"):
        server.arrive(name, ("NewSeries",), IsStable=False)
    watching.look(ledger)
    for name in ("first", "second"):
        server.series[name]["IsStable"] = True
    server.broken = "/series/second"
    with pytest.raises(PacsError):
        watching.look(ledger)
    server.broken = ""
    watching.look(ledger)
    assert waiting(ledger) == 2


def test_a_series_that_grows_again_waits_for_its_next_change(serve: Callable[..., str], ledger: Ledger) -> None:
    server = MadeUpOrthanc()
    watching = source(serve(server))
    server.arrive("growing", IsStable=False)
    watching.look(ledger)
    assert waiting(ledger) == 0
    server.series["growing"].update(IsStable=True, Instances=["a", "b", "c"])
    server.changes.append(("StableSeries", "growing"))
    watching.look(ledger)
    entry = ledger.due(0.0)
    assert entry is not None
    assert entry.instances == 3


def test_a_database_made_anew_is_read_from_its_start(serve: Callable[..., str], ledger: Ledger) -> None:
    server = MadeUpOrthanc()
    watching = source(serve(server))
    for number in range(5):
        server.arrive(f"s{number}")
    watching.look(ledger)
    assert ledger.bookmark == 10
    server.changes = []
    watching.look(ledger)
    assert (waiting(ledger), ledger.bookmark) == (5, 0)


def test_only_studies_of_the_day_or_later(serve: Callable[..., str], ledger: Ledger) -> None:
    server = MadeUpOrthanc()
    url = serve(server)
    server.arrive("s")
    source(url, date(2020, 3, 2)).look(ledger)
    assert waiting(ledger) == 0
    ledger.take([], 0)
    source(url, date(2020, 3, 1)).look(ledger)
    assert waiting(ledger) == 1


@pytest.mark.parametrize(
    ("status", "said", "message"),
    [
        (503, {}, "answers 503 to the question what changed"),
        (200, b"<html>", "with what cannot be understood"),
        (200, [], "with no record, expected Orthanc"),
        (200, {}, "with what cannot be understood"),
        (200, {"Changes": [{}], "Last": 1, "Done": True}, "with what cannot be understood"),
    ],
)
def test_bad_answers_of_orthanc(
    serve: Callable[..., str], ledger: Ledger, status: int, said: Any, message: str
) -> None:
    with pytest.raises(PacsError, match=message):
        source(serve(lambda *_: (status, said))).look(ledger)


@pytest.mark.parametrize(
    ("status", "denied"), [(401, True), (403, True), (404, True), (400, True), (429, False), (500, False)]
)
def test_what_is_refused_is_told_from_what_fails(serve: Callable[..., str], status: int, denied: bool) -> None:
    with pytest.raises(PacsError) as caught:
        DicomWeb(serve(lambda *_: (status, {})), open_session(Credentials())).reach()
    assert isinstance(caught.value, DeniedError) == denied


class MadeUpArchive(DicomWeb):
    def __init__(self) -> None:
        self.listed: list[Listed] = []

    def list_series(self, since: date | None) -> list[Listed]:
        return self.listed


def test_a_search_takes_a_series_for_whole_when_it_did_not_grow(ledger: Ledger) -> None:
    archive = MadeUpArchive()
    searched = Searched(archive, None)
    assert searched.look(ledger)
    archive.listed = [Listed("1.2.3", "1.2", 5)]
    assert not searched.look(ledger)
    archive.listed = [Listed("1.2.3", "1.2", 9), Listed("1.2.4", "1.2", 7)]
    assert not searched.look(ledger)
    assert waiting(ledger) == 0
    assert searched.look(ledger)
    assert waiting(ledger) == 2


def item(series: str, modality: str = "CT", count: int | None = 3) -> dict[str, Any]:
    tags = {"0020000D": "1.2", "0020000E": series, "00080060": modality, "00201209": count}
    return {tag: {"Value": [value]} if value is not None else {} for tag, value in tags.items()}


@pytest.mark.parametrize("heeds_offset", [True, False])
def test_a_search_goes_through_pages_and_passes_over_what_is_no_ct(
    serve: Callable[..., str], heeds_offset: bool
) -> None:
    series = [item(f"1.2.{number}") for number in range(1200)] + [item("1.3", "SEG", 1), {"00080060": {"vr": "CS"}}]
    queries: list[dict[str, str]] = []

    def answer(path: str, query: dict[str, str]) -> Answer:
        queries.append(query)
        start = int(query["offset"]) if heeds_offset else 0
        return 200, series[start : start + int(query["limit"])] if heeds_offset else series

    archive = DicomWeb(serve(answer), open_session(Credentials()))
    found = archive.list_series(date(2026, 1, 2))
    assert len(found) == 1200
    assert queries[0]["StudyDate"] == "20260102-"
    assert len(queries) == (4 if heeds_offset else 2)


def test_a_server_that_states_no_counts_is_told_in_one_line(serve: Callable[..., str]) -> None:
    archive = DicomWeb(serve(lambda *_: (200, [item("1.2.3", count=None)])), open_session(Credentials()))
    with pytest.raises(PacsError, match="states no NumberOfSeriesRelatedInstances"):
        archive.list_series(None)
