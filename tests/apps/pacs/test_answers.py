"""Answers of a server that are too large, too slow, too deep, or not what was asked for."""

import gzip
import itertools
import json
import socketserver
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid

from groundglass.apps.pacs import answers, dicomweb
from groundglass.apps.pacs.access import BusyError, Credentials, open_session
from groundglass.apps.pacs.answers import MAX_DEPTH, MAX_ITEMS, AnswerLimitError, check_json_size
from groundglass.apps.pacs.dicomweb import DicomWebArchive
from groundglass.apps.pacs.ledger import Ledger, State
from groundglass.apps.pacs.orthanc import OrthancSource
from groundglass.apps.pacs.watch import WatchOptions, watch
from groundglass.apps.pacs.watcher import RetryPolicy
from groundglass.errors import PacsError
from helpers.fake_watch import fake_worker_factory, ledger_rows
from helpers.orthanc import series, uid_of

JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n"
CHUNK = b"10000\r\n" + b" " * 65536 + b"\r\n"
SendBytes = Callable[[Callable[[str], Iterable[bytes]]], str]


@pytest.fixture
def send_bytes(run_server: Callable[[socketserver.BaseServer], None]) -> SendBytes:
    """Serve the bytes that a function of the request's first line yields, until the client has enough."""

    def start(answer: Callable[[str], Iterable[bytes]]) -> str:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line, size = self.rfile.readline().decode(), 0
                while (header := self.rfile.readline().strip()) != b"":
                    if header.lower().startswith(b"content-length:"):
                        size = int(header.split(b":")[1])
                self.rfile.read(size)
                with suppress(OSError):  # the client has enough
                    self.wfile.writelines(answer(line))

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        run_server(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    return start


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path)) as ledger:
        ledger.bind_to_server("server")
        yield ledger


def archive_at(url: str) -> DicomWebArchive:
    return DicomWebArchive(url, open_session(Credentials()))


def with_length(body: bytes, headers: bytes = b"") -> list[bytes]:
    return [JSON_HEAD, headers, f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode(), body]


def endless(_: str) -> Iterator[bytes]:
    yield JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    yield from itertools.repeat(CHUNK)


def test_an_endless_answer_ends_with_a_line_that_says_the_limit(send_bytes: SendBytes, ledger: Ledger) -> None:
    url = send_bytes(endless)
    with pytest.raises(PacsError, match="answer to a search for series is larger than 16,777,216 bytes"):
        archive_at(url).list_series(None)
    with pytest.raises(PacsError, match="answer to a search for an instance is larger than 16,777,216 bytes"):
        archive_at(url).has_instance("1.2", "1.2.3")
    with pytest.raises(PacsError, match="answer to the request for changes is larger than 16,777,216 bytes"):
        OrthancSource(url, open_session(Credentials()), None).poll(ledger)


def test_an_endless_answer_to_the_storage_of_results_is_no_success(send_bytes: SendBytes, tmp_path: Path) -> None:
    with pytest.raises(PacsError, match="answer to the storage of results is larger than 16,777,216 bytes"):
        archive_at(send_bytes(endless)).store("1.2", series(tmp_path)[:1])


def test_a_packed_answer_is_counted_unpacked(send_bytes: SendBytes) -> None:
    packed = gzip.compress(b"[" + b" " * (64 << 20) + b"]")
    assert len(packed) < 100_000
    url = send_bytes(lambda _: with_length(packed, b"Content-Encoding: gzip\r\n"))
    with pytest.raises(PacsError, match="is larger than 16,777,216 bytes"):
        archive_at(url).list_series(None)


def test_an_answer_that_trickles_ends_at_a_time_limit(send_bytes: SendBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def trickle(_: str) -> Iterator[bytes]:
        yield JSON_HEAD + b"Content-Length: 100000\r\n\r\n"
        while True:
            yield b" "
            time.sleep(0.02)

    monkeypatch.setattr(answers, "ANSWER_S", 0.2)
    with pytest.raises(PacsError, match=r"answer to a search for series did not arrive within 0\.2 s"):
        archive_at(send_bytes(trickle)).list_series(None)


@pytest.mark.parametrize(
    "beginning", [b"", b"HTTP/1.1 200 OK\r\nX: "], ids=["endless answers of 100", "endless header"]
)
def test_a_head_that_trickles_ends_at_a_time_limit(
    send_bytes: SendBytes, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    pieces: list[bytes] = []

    def trickle(_line: str) -> Iterator[bytes]:
        yield beginning
        for _ in range(150):
            time.sleep(0.02)
            pieces.append(b"a" if beginning else b"HTTP/1.1 100 Continue\r\n\r\n")
            yield pieces[-1]

    monkeypatch.setattr(answers, "ANSWER_S", 0.2)
    with pytest.raises(PacsError, match=r"answer to a search for series did not arrive within 0\.2 s"):
        archive_at(send_bytes(trickle)).list_series(None)
    assert len(pieces) < 100


def test_the_body_of_an_error_is_not_read(send_bytes: SendBytes) -> None:
    def fail(_: str) -> Iterator[bytes]:
        yield b"HTTP/1.1 500 Error\r\nTransfer-Encoding: chunked\r\n\r\n"
        yield from itertools.repeat(CHUNK)

    with pytest.raises(PacsError, match=r"the server answers 500 to a search for series$"):
        archive_at(send_bytes(fail)).list_series(None)


@pytest.mark.parametrize("body", [b"[1", b"\xff\xfe[\x001\x00]\x00", b"[\xc3", b"<html>", b'"text"', b"null", b"7"])
def test_an_answer_that_is_no_list_in_utf_8_is_not_understood(send_bytes: SendBytes, body: bytes) -> None:
    with pytest.raises(PacsError, match="answer to a search for series is not understood"):
        archive_at(send_bytes(lambda _: with_length(body))).list_series(None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[" * (MAX_DEPTH + 1), f"is nested more than {MAX_DEPTH} deep"),
        (b'{"a":' * (MAX_DEPTH + 1), f"is nested more than {MAX_DEPTH} deep"),
        (b"[" + b"1," * MAX_ITEMS + b"1]", "holds more than 1,000,000 values"),
        (b"[" + b"[]," * (MAX_ITEMS // 2) + b"1]", "holds more than 1,000,000 values"),
        (b"{}" * (MAX_ITEMS + 1), "holds more than 1,000,000 values"),
        (rb'["\"",' + b"{}," * MAX_ITEMS + b"1]", "holds more than 1,000,000 values"),
        (rb'["\\",' + b"{}," * MAX_ITEMS + b"1]", "holds more than 1,000,000 values"),
    ],
)
def test_a_text_that_holds_too_much_is_refused_before_it_is_parsed(body: bytes, message: str) -> None:
    with pytest.raises(AnswerLimitError, match=message):
        check_json_size(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b"[[]," * (MAX_DEPTH - 1),
        json.dumps("[" * 1000 + "," * (MAX_ITEMS + 1)).encode(),
        json.dumps(['"[{' * 1000, "\\"]).encode(),
        b'"' + b'\\"' * 100_000,  # a text without an end
        b'"\\',
        b"",
    ],
)
def test_what_texts_hold_is_no_structure(body: bytes) -> None:
    check_json_size(body)


def test_nothing_is_lost_when_an_answer_was_too_large_once(
    serve: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [search_result("x")]
    polls: list[int] = []
    lines: list[str] = []

    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        if not path.endswith("/series"):
            return 200, []
        polls.append(1)
        return 200, b" " * (answers.ANSWER_BYTES + 1) if len(polls) == 1 else found * (query["offset"] == "0")

    def stop(line: str) -> None:
        lines.append(line)
        if "refused" in line:
            raise KeyboardInterrupt

    monkeypatch.setattr("groundglass.apps.pacs.backoff.time.sleep", lambda _: None)
    factory = fake_worker_factory(tmp_path / "scripts")
    options = WatchOptions(serve(answer), tmp_path / "watch", dicomweb=True)
    with pytest.raises(KeyboardInterrupt):
        watch(options, RetryPolicy(poll_s=0.01), on_message=stop, worker_factory=factory)
    assert sum("waiting: the server's answer to a search for series is larger" in line for line in lines) == 1
    assert "resumed after 0 s" in lines
    assert ledger_rows(tmp_path / "watch")["x"][0] == "refused"


def search_result(uid: str, count: Any = 3, modality: str = "CT") -> dict[str, Any]:
    values = {"0020000D": "1.2", "0020000E": uid, "00080060": modality, "00201209": count}
    return {tag: {"Value": [value]} for tag, value in values.items()}


@pytest.mark.parametrize(
    "result", [search_result("1.2.3", 10**30), search_result("\ud800"), search_result("1", -(10**30))]
)
def test_numbers_and_texts_that_no_ledger_holds_do_not_end_the_watch(
    serve: Callable[..., str], ledger: Ledger, result: dict[str, Any]
) -> None:
    archive = archive_at(serve(lambda _, query: (200, [result] if query["offset"] == "0" else [])))
    source = dicomweb.DicomWebSource(archive, None)
    source.poll(ledger)
    source.poll(ledger)
    assert ledger.counts() == {State.WAITING: 1}


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_server_that_gives_the_same_page_for_ever_is_read_once(serve: Callable[..., str], modality: str) -> None:
    queries: list[str] = []

    def answer(_: str, query: dict[str, str]) -> tuple[int, Any]:
        queries.append(query["offset"])
        return 200, [search_result("1.2.3", modality=modality)]

    archive_at(serve(answer)).list_series(None)
    assert queries == ["0", "1"]


def test_a_server_that_lists_series_without_end_is_refused(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "_MAX_SERIES", 20)
    archive = archive_at(serve(lambda _, query: (200, [search_result(f"1.{query['offset']}", modality="MR")])))
    with pytest.raises(PacsError, match="lists more than 20 series: name a day with --since"):
        archive.list_series(None)


@pytest.mark.parametrize(
    "pages",
    [
        [{"Changes": [], "Last": 0, "Done": False}],
        [{"Changes": [], "Last": 5, "Done": False}, {"Changes": [], "Last": 3, "Done": False}],
        [{"Changes": [], "Last": -1, "Done": True}],
        [{"Changes": [], "Last": 10**30, "Done": True}],
        [{"Changes": [{"ChangeType": "NewSeries", "ID": "x", "Seq": 10**30}], "Last": 1, "Done": True}],
    ],
)
def test_changes_that_come_to_no_end_are_reported(
    serve: Callable[..., str], ledger: Ledger, pages: list[dict[str, Any]]
) -> None:
    rest = itertools.cycle(pages)
    source = OrthancSource(serve(lambda *_: (200, next(rest))), open_session(Credentials()), None)
    with pytest.raises(PacsError, match=r"come to no end|is not understood"):
        source.poll(ledger)


def test_names_of_a_server_change_no_path(serve: Callable[..., str], ledger: Ledger) -> None:
    paths: list[str] = []

    def answer(path: str, _: dict[str, str]) -> tuple[int, Any]:
        paths.append(path)
        change = {"ChangeType": "StableSeries", "ID": "../instances/\ud800?x", "Seq": 1}
        return (200, {"Changes": [change], "Last": 1, "Done": True}) if path == "/changes" else (404, {})

    OrthancSource(serve(answer), open_session(Credentials()), None).poll(ledger)
    assert paths == ["/changes", "/series/..%2Finstances%2F%3F%3Fx"]


def multipart(files: Iterable[Path]) -> bytes:
    part = b"--b\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(part + file.read_bytes() + b"\r\n" for file in files) + b"--b--\r\n"


def images(body: Iterable[bytes]) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary=b\r\nConnection: close\r\n\r\n"
    yield from body


def test_images_of_another_series_and_repeated_ones_do_not_stand_for_those_that_are_missing(
    send_bytes: SendBytes, tmp_path: Path
) -> None:
    wanted, others = series(tmp_path / "wanted"), series(tmp_path / "others")
    folder = tmp_path / "retrieved"
    folder.mkdir()
    url = send_bytes(lambda _: images([multipart(wanted[:3] + others[:2] + wanted[:2])]))
    assert archive_at(url).retrieve("1.2", uid_of(wanted), folder) == 3
    assert {uid_of([file]) for file in folder.iterdir()} == {uid_of(wanted)}
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("lost", [3, 40, 2000], ids=["the end marker", "some pixels", "most pixels"])
@pytest.mark.parametrize("chunk_bytes", [1 << 24, 5], ids=["at once", "in pieces"])
def test_images_that_break_off_are_no_series(
    send_bytes: SendBytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int, chunk_bytes: int
) -> None:
    monkeypatch.setattr(dicomweb, "_CHUNK_BYTES", chunk_bytes)
    wanted = series(tmp_path / "wanted")[:2]
    folder = tmp_path / "retrieved"
    folder.mkdir()
    whole = multipart(wanted)
    assert archive_at(send_bytes(lambda _: images([whole]))).retrieve("1.2", uid_of(wanted), folder) == 2
    with pytest.raises(PacsError, match=r"the connection failed during the retrieval of a series"):
        archive_at(send_bytes(lambda _: images([whole[:-lost]]))).retrieve("1.2", uid_of(wanted), folder)


@pytest.mark.parametrize("lost", [3, 2000], ids=["the end marker", "most of an image"])
@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "in chunks"])
def test_images_that_broke_off_before_a_proxy_are_no_series(
    send_bytes: SendBytes, tmp_path: Path, is_packed: bool, lost: int
) -> None:
    wanted = series(tmp_path / "wanted")[:2]
    folder = tmp_path / "retrieved"
    folder.mkdir()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary=b\r\n"

    def pass_on(body: bytes) -> Iterator[bytes]:
        if is_packed:
            body = gzip.compress(body)
            yield head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        else:
            yield head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"

    whole = multipart(wanted)
    assert archive_at(send_bytes(lambda _: pass_on(whole))).retrieve("1.2", uid_of(wanted), folder) == 2
    with pytest.raises(PacsError, match=r"the connection failed during the retrieval of a series"):
        archive_at(send_bytes(lambda _: pass_on(whole[:-lost]))).retrieve("1.2", uid_of(wanted), folder)


@pytest.mark.parametrize("limit", ["MAX_FILES", "SERIES_BYTES"])
def test_images_without_end_do_not_fill_the_disk(
    send_bytes: SendBytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    image = pydicom.dcmread(series(tmp_path / "study")[0])
    size = len(multipart(series(tmp_path / "again")[:1]))
    monkeypatch.setattr(dicomweb, "_CHUNK_BYTES", 1 << 14)
    monkeypatch.setattr(dicomweb, limit, 5 if limit == "MAX_FILES" else 5 * size)
    folder = tmp_path / "retrieved"
    folder.mkdir()

    def repeat(_: str) -> Iterator[bytes]:
        def parts() -> Iterator[bytes]:
            while True:
                image.SOPInstanceUID = generate_uid()
                image.save_as(tmp_path / "image.dcm")
                yield multipart([tmp_path / "image.dcm"]).removesuffix(b"--b--\r\n")

        return images(parts())

    with pytest.raises(PacsError, match=r"the server gives more than .* than are read"):
        archive_at(send_bytes(repeat)).retrieve("1.2", str(image.SeriesInstanceUID), folder)
    assert len(list(folder.iterdir())) < 10


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Type: text/html",
        b"Content-Type: multipart/related",
        b'Content-Type: multipart/related; boundary="other"',
        b"Content-Type: application/dicom",
    ],
)
def test_a_retrieval_that_is_answered_by_something_else_is_a_line(
    send_bytes: SendBytes, tmp_path: Path, head: bytes
) -> None:
    url = send_bytes(lambda _: [b"HTTP/1.1 200 OK\r\n", head, b"\r\nContent-Length: 6\r\n\r\n<html>"])
    with pytest.raises(PacsError, match="answer to the retrieval of a series is not understood"):
        archive_at(url).retrieve("1.2", "1.2.3", tmp_path)


def stow_answer(**sequences: list[dict[str, Any]]) -> bytes:
    tags = {"failed": "00081198", "stored": "00081199"}
    return json.dumps({tags[name]: {"vr": "SQ", "Value": items} for name, items in sequences.items()}).encode()


@pytest.mark.parametrize(
    "content_type",
    ["application/dicom+json; charset=utf-8", "text/html", "application/dicom+json", "application/dicom+xml"],
)
@pytest.mark.parametrize("body", ["failed", "empty"])
def test_what_the_server_does_not_say_that_it_stored_is_searched_for(
    send_bytes: SendBytes, tmp_path: Path, content_type: str, body: str
) -> None:
    file = series(tmp_path)[0]
    uid = str(pydicom.dcmread(file).SOPInstanceUID)
    failure = {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [0x0110]}}
    content = stow_answer(failed=[failure]) if body == "failed" else b"{}"
    searches: list[str] = []
    found: list[dict[str, Any]] = []

    def answer(line: str) -> Iterable[bytes]:
        if line.startswith("GET"):
            searches.append(line)
            return with_length(json.dumps(found).encode())
        head = f"HTTP/1.1 202 Accepted\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\n\r\n"
        return [head.encode(), content]

    archive = archive_at(send_bytes(answer))
    with pytest.raises(PacsError, match="the server did not store 1 of 1 results"):
        archive.store("1.2", [file])
    found.append({"00080018": {"vr": "UI", "Value": [uid]}})
    archive.store("1.2", [file])
    assert len(searches) == 2


@pytest.mark.parametrize(("status", "is_busy"), [(503, True), (429, True), (507, True), (500, False), (409, False)])
def test_a_server_that_asks_to_try_again_later_is_told_from_one_that_fails(
    send_bytes: SendBytes, tmp_path: Path, status: int, is_busy: bool
) -> None:
    head = f"HTTP/1.1 {status} Odd\r\nRetry-After: 60\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    with pytest.raises(PacsError, match=f"the server answers {status} to the storage of results") as raised:
        archive_at(send_bytes(lambda _: [head])).store("1.2", series(tmp_path)[:1])
    assert isinstance(raised.value, BusyError) == is_busy


@pytest.mark.parametrize("status", ["200 OK", "409 Conflict"])
@pytest.mark.parametrize(("reason", "is_busy"), [(0xA700, True), (0xA900, False)])
def test_a_server_without_room_is_busy(
    send_bytes: SendBytes, tmp_path: Path, status: str, reason: int, is_busy: bool
) -> None:
    file = series(tmp_path)[0]
    uid = str(pydicom.dcmread(file).SOPInstanceUID)
    failure = {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
    content = stow_answer(failed=[failure])

    def answer(line: str) -> Iterable[bytes]:
        head, *rest = with_length(b"[]" if line.startswith("GET") else content)
        return [head if line.startswith("GET") else head.replace(b"200 OK", status.encode()), *rest]

    url = send_bytes(answer)
    with pytest.raises(PacsError, match=f"reason {reason:04X}H") as raised:
        archive_at(url).store("1.2", [file])
    assert isinstance(raised.value, BusyError) == is_busy
