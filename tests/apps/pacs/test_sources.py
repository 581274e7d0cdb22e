"""Sources of new series: the changes of a fake Orthanc, and searches of a DICOMweb server."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from groundglass.apps.pacs.access import Credentials, DeniedError, open_session
from groundglass.apps.pacs.dicomweb import DicomWebArchive, DicomWebSource, SeriesMatch
from groundglass.apps.pacs.ledger import Ledger, State
from groundglass.apps.pacs.orthanc import OrthancSource
from groundglass.errors import PacsError

Answer = tuple[int, Any]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path)) as ledger:
        ledger.bind_to_server("server")
        yield ledger


class FakeOrthanc:
    """Answers as Orthanc does.

    Attributes:
        changes: (type, series) in the order of their numbers, from 1.
        series: {name: the answer about a series}.
        requests: Paths that were requested.
        failing_path: A path that is answered with status 503.
        date: Date of all changes.
    """

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []
        self.series: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.failing_path = ""
        self.date = "20260101T101010"

    def add_series(self, name: str, kinds: tuple[str, ...] = ("NewSeries", "StableSeries"), **answer: Any) -> None:
        self.changes += [(kind, name) for kind in kinds]
        tags = {"Modality": answer.pop("modality", "CT"), "SeriesInstanceUID": f"1.2.{len(self.series)}"}
        self.series[name] = {"MainDicomTags": tags, "Instances": ["a", "b"], "ParentStudy": "study", **answer}

    def __call__(self, path: str, query: dict[str, str]) -> Answer:
        self.requests.append(path)
        if path == self.failing_path:
            return 503, {}
        if path == "/changes":
            since, limit = int(query.get("since", "0")), int(query["limit"])
            changes = [
                {"ChangeType": kind, "Date": self.date, "ID": name, "Seq": number, "ResourceType": "Series"}
                for number, (kind, name) in enumerate(self.changes, start=1)
                if number > since
            ]
            is_last_page = len(changes) <= limit
            last = changes[:limit][-1]["Seq"] if changes else len(self.changes)
            return 200, {"Changes": changes[:limit], "Done": is_last_page, "Last": last}
        if path == "/studies/study":
            return 200, {"MainDicomTags": {"StudyInstanceUID": "1.9", "StudyDate": "20200301"}}
        found = self.series.get(path.removeprefix("/series/"))
        return (200, found) if found else (404, {})


def orthanc_source(url: str, since: date | None = None) -> OrthancSource:
    return OrthancSource(url, open_session(Credentials()), since)


def waiting(ledger: Ledger) -> int:
    return ledger.counts().get(State.WAITING, 0)


@pytest.mark.thorough
def test_ten_thousand_old_changes_are_read_once_even_if_the_connection_is_lost(
    serve: Callable[..., str], ledger: Ledger
) -> None:
    server = FakeOrthanc()
    url = serve(server)
    for number in range(300):
        server.changes += [("NewInstance", "x")] * 31
        server.add_series(f"s{number}", modality="CT" if number % 3 else "MR")
    server.changes += [("NewSeries", "deleted"), ("StableSeries", "deleted")]
    assert len(server.changes) > 9900
    is_down = False

    def lose_connection(path: str, query: dict[str, str]) -> Answer:
        nonlocal is_down
        is_down |= path == "/series/s150"
        return (503, {}) if is_down else server(path, query)

    with pytest.raises(PacsError, match="503 to the request for changes"):
        orthanc_source(serve(lose_connection)).poll(ledger)
    before = ledger.bookmark
    assert 3900 <= before < 5200
    assert orthanc_source(url).poll(ledger)  # a new source, as after a restart, begins at the bookmark
    assert waiting(ledger) == 200
    assert ledger.bookmark == len(server.changes)
    server.requests.clear()
    assert orthanc_source(url).poll(ledger)
    assert server.requests == ["/changes"]


def test_the_bookmark_stays_before_a_series_that_is_not_stable_yet(serve: Callable[..., str], ledger: Ledger) -> None:
    server = FakeOrthanc()
    url = serve(server)
    server.add_series("whole")
    server.add_series("arriving", ("NewSeries",), IsStable=False)
    server.add_series("another")
    source = orthanc_source(url)
    source.poll(ledger)
    assert (waiting(ledger), ledger.bookmark) == (2, 2)
    server.series["arriving"]["IsStable"] = True  # Orthanc was killed: there will be no StableSeries
    orthanc_source(url).poll(ledger)
    source.poll(ledger)
    assert (waiting(ledger), ledger.bookmark) == (3, 5)


def test_a_series_that_became_stable_before_a_lost_connection_is_not_forgotten(
    serve: Callable[..., str], ledger: Ledger
) -> None:
    server = FakeOrthanc()
    source = orthanc_source(serve(server))
    for name in ("first", "second"):
        server.add_series(name, ("NewSeries",), IsStable=False)
    source.poll(ledger)
    for name in ("first", "second"):
        server.series[name]["IsStable"] = True
    server.failing_path = "/series/second"
    with pytest.raises(PacsError):
        source.poll(ledger)
    server.failing_path = ""
    source.poll(ledger)
    assert waiting(ledger) == 2


def test_a_series_that_cannot_be_looked_up_keeps_no_other_waiting(serve: Callable[..., str], ledger: Ledger) -> None:
    server = FakeOrthanc()
    url = serve(server)
    for number in range(3):
        server.add_series(f"s{number}")
    server.failing_path = "/series/s1"
    source = orthanc_source(url)
    for _ in range(2):
        with pytest.raises(PacsError, match="503 to the request for a series"):
            source.poll(ledger)
        assert (waiting(ledger), ledger.bookmark) == (2, 2)  # a restart looks the series up again
    server.failing_path = ""
    assert source.poll(ledger)
    assert (waiting(ledger), ledger.bookmark) == (3, 6)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_database_that_was_restored_and_has_grown_since_is_read_from_its_start(
    serve: Callable[..., str], ledger: Ledger, is_restarted: bool
) -> None:
    server = FakeOrthanc()
    url = serve(server)
    for number in range(5):
        server.add_series(f"s{number}")
    source = orthanc_source(url)
    source.poll(ledger)
    del server.changes[6:]  # as in a copy of an hour ago
    for number in range(5, 9):
        server.add_series(f"s{number}")
    (orthanc_source(url) if is_restarted else source).poll(ledger)
    assert (waiting(ledger), ledger.bookmark) == (9, 14)


def test_what_was_done_before_a_database_was_restored_is_looked_for_in_it(
    serve: Callable[..., str], ledger: Ledger
) -> None:
    server = FakeOrthanc()
    source = orthanc_source(serve(server))
    server.add_series("s")
    source.poll(ledger)
    entry = ledger.get("1.2.0")
    assert entry is not None
    ledger.mark_segmented(entry, 2, ["2.25.1"])
    ledger.mark_done(entry)
    server.date = "20260102T101010"
    source.poll(ledger)
    entry = ledger.get("1.2.0")
    assert entry is not None
    assert (entry.state, entry.result_uids) == (State.WAITING, ("2.25.1",))


def test_a_change_whose_series_was_deleted_makes_no_other_database(serve: Callable[..., str], ledger: Ledger) -> None:
    server = FakeOrthanc()
    url = serve(lambda path, query: forget(server, *server(path, query)))
    server.add_series("s")
    orthanc_source(url).poll(ledger)
    server.add_series("another")
    server.requests.clear()
    orthanc_source(url).poll(ledger)
    assert server.requests.count("/changes") == 1
    assert (waiting(ledger), ledger.bookmark) == (2, 4)


def forget(server: FakeOrthanc, status: int, content: Any) -> Answer:
    """Leave out what Orthanc forgets with a series: its changes."""
    if "Changes" in content and len(server.changes) > 2:
        content["Changes"] = [change for change in content["Changes"] if change["ID"] != "s"]
    return status, content


def test_a_series_that_grows_again_is_taken_at_its_next_change(serve: Callable[..., str], ledger: Ledger) -> None:
    server = FakeOrthanc()
    source = orthanc_source(serve(server))
    server.add_series("growing", IsStable=False)
    source.poll(ledger)
    assert waiting(ledger) == 0
    server.series["growing"].update(IsStable=True, Instances=["a", "b", "c"])
    server.changes.append(("StableSeries", "growing"))
    source.poll(ledger)
    entry = ledger.next_entry(0.0, longest_pause_s=60.0)
    assert entry is not None
    assert entry.instance_count == 3


def test_a_database_that_is_created_anew_is_read_from_its_start(serve: Callable[..., str], ledger: Ledger) -> None:
    server = FakeOrthanc()
    source = orthanc_source(serve(server))
    for number in range(5):
        server.add_series(f"s{number}")
    source.poll(ledger)
    assert ledger.bookmark == 10
    server.changes = []
    source.poll(ledger)
    assert (waiting(ledger), ledger.bookmark) == (5, 0)


def test_studies_before_the_given_day_are_skipped(serve: Callable[..., str], ledger: Ledger) -> None:
    server = FakeOrthanc()
    url = serve(server)
    server.add_series("s")
    orthanc_source(url, date(2020, 3, 2)).poll(ledger)
    assert waiting(ledger) == 0
    ledger.add_arrivals([], 0)
    orthanc_source(url, date(2020, 3, 1)).poll(ledger)
    assert waiting(ledger) == 1


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (503, {}, "answers 503 to the request for changes"),
        (200, b"<html>", "answer to the request for changes is not understood"),
        (200, [], "is no JSON object, expected one of Orthanc"),
        (200, {}, "answer to the request for changes is not understood"),
        (200, {"Changes": [{}], "Last": 1, "Done": True}, "answer to the request for changes is not understood"),
    ],
)
def test_bad_answers_of_orthanc_are_reported(
    serve: Callable[..., str], ledger: Ledger, status: int, content: Any, message: str
) -> None:
    with pytest.raises(PacsError, match=message):
        orthanc_source(serve(lambda *_: (status, content))).poll(ledger)


@pytest.mark.parametrize(
    ("status", "denied"), [(401, True), (403, True), (404, True), (400, True), (429, False), (500, False)]
)
def test_refusals_and_failures_raise_different_errors(serve: Callable[..., str], status: int, denied: bool) -> None:
    with pytest.raises(PacsError) as caught:
        DicomWebArchive(serve(lambda *_: (status, {})), open_session(Credentials())).check_connection()
    assert isinstance(caught.value, DeniedError) == denied


class FakeArchive(DicomWebArchive):
    """Finds the series that it is given."""

    def __init__(self) -> None:
        self.matches: list[SeriesMatch] = []

    def list_series(self, since: date | None, on_note: Callable[[str], None] = lambda _: None) -> list[SeriesMatch]:
        return self.matches


def test_a_series_is_complete_when_it_has_not_grown_between_two_searches(ledger: Ledger) -> None:
    archive = FakeArchive()
    source = DicomWebSource(archive, None)
    assert source.poll(ledger)
    archive.matches = [SeriesMatch("1.2.3", "1.2", 5)]
    assert not source.poll(ledger)
    archive.matches = [SeriesMatch("1.2.3", "1.2", 9), SeriesMatch("1.2.4", "1.2", 7)]
    assert not source.poll(ledger)
    assert waiting(ledger) == 0
    assert source.poll(ledger)
    assert waiting(ledger) == 2


def search_result(series: str, modality: str = "CT", count: int | None = 3) -> dict[str, Any]:
    tags = {"0020000D": "1.2", "0020000E": series, "00080060": modality, "00201209": count}
    return {tag: {"Value": [value]} if value is not None else {} for tag, value in tags.items()}


@pytest.mark.parametrize("obeys_offset", [True, False])
def test_a_search_reads_all_pages_and_skips_series_that_are_not_ct(
    serve: Callable[..., str], obeys_offset: bool
) -> None:
    series = [search_result(f"1.2.{number}") for number in range(1200)]
    series += [search_result("1.3", "SEG", 1), {"00080060": {"vr": "CS"}}]
    queries: list[dict[str, str]] = []

    def answer(path: str, query: dict[str, str]) -> Answer:
        queries.append(query)
        start = int(query["offset"]) if obeys_offset else 0
        return 200, series[start : start + int(query["limit"])] if obeys_offset else series

    archive = DicomWebArchive(serve(answer), open_session(Credentials()))
    found = archive.list_series(date(2026, 1, 2))
    assert len(found) == 1200
    assert queries[0]["StudyDate"] == "20260102-"
    assert len(queries) == (4 if obeys_offset else 2)


def test_a_server_that_states_no_instance_counts_is_refused(serve: Callable[..., str]) -> None:
    url = serve(lambda *_: (200, [search_result("1.2.3", count=None)]))
    archive = DicomWebArchive(url, open_session(Credentials()))
    with pytest.raises(PacsError, match="states no NumberOfSeriesRelatedInstances"):
        archive.list_series(None)


@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        (
            search_result("1.2.3", count=None),
            "no NumberOfSeriesRelatedInstances, which is needed to know when a series is complete",
        ),
        (search_result("1.2.3") | {"00201209": {"Value": [""]}}, "no NumberOfSeriesRelatedInstances"),
        (search_result("1.2.3") | {"00201209": {"Value": [float("nan")]}}, "in another way than DICOM"),
        (search_result("1.2.3") | {"00080060": {"Value": "CT"}}, "in another way than DICOM"),
        (search_result("1.2.3") | {"00080060": {}}, "no Modality"),
        (
            search_result("1.2.3") | {"0020000E": {"vr": "UI", "BulkDataURI": "http://127.0.0.1"}},
            "no SeriesInstanceUID",
        ),
        (None, "in another way than DICOM"),
    ],
)
def test_a_series_that_the_server_describes_oddly_is_told_and_keeps_no_other_waiting(
    serve: Callable[..., str], ledger: Ledger, odd: dict[str, Any] | None, fault: str
) -> None:
    listed = [odd, search_result("1.2.9")]
    messages: list[str] = []
    archive = DicomWebArchive(serve(lambda *_: (200, listed)), open_session(Credentials()))
    source = DicomWebSource(archive, None, messages.append)
    for _ in range(3):
        source.poll(ledger)
    assert waiting(ledger) == 1
    assert len(messages) == 1
    assert re.search(f"some series are left out: the server .*{fault}", messages[0])
    listed.pop()
    with pytest.raises(PacsError, match=fault):
        source.poll(ledger)
    with pytest.raises(PacsError, match=fault):  # and not None, which says that the series is gone
        archive.count_instances("1.2.3")


def test_uids_are_read_without_what_pads_them_in_files(serve: Callable[..., str]) -> None:
    url = serve(lambda *_: (200, [search_result("1.2.3\0", modality="CT ") | {"0020000D": {"Value": ["1.2 "]}}]))
    archive = DicomWebArchive(url, open_session(Credentials()))
    assert archive.list_series(None) == [SeriesMatch("1.2.3", "1.2", 3)]
    assert archive.count_instances("1.2.3") == 3
