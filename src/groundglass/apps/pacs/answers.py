"""The JSON answers of a server under limits, since the watcher parses them in its own process.

The limits hold while an answer arrives, and before anything is parsed. Answers that are streamed, the images of a
series, have limits of their own: see `retrieval`.
"""

from __future__ import annotations

import io
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from groundglass.plain_text import in_unicode

ANSWER_BYTES = 16 << 20  # of one answer, unpacked; a page of 500 series takes less than 1 MiB
ANSWER_S = 300.0  # for the head of an answer to arrive, and for its body, however steadily they do
MAX_ITEMS = 1_000_000  # values in one answer
MAX_DEPTH = 64  # of lists and objects within each other; DICOM's JSON has less than 20
_PIECE_BYTES = 1 << 16
_END_BYTES = 1 << 10  # of an answer that are kept, to see its end marker behind blanks and blank lines
_STRING = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL
)  # also one without an end, so that none is sought twice
_OPENING, _CLOSING = b"[{", b"]}"
_NO_BRACKETS = bytes(set(range(256)) - set(_OPENING + _CLOSING))


class AnswerLimitError(Exception):
    """An answer goes beyond a limit; the message continues `the answer to ...`."""


class _TimedHead(HTTPConnection):
    """A connection on which the head of an answer may take `ANSWER_S`: Python waits as long as single bytes arrive."""

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        """Read the head of an answer.

        Raises:
            AnswerLimitError: It does not arrive in time.
        """
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            if self.sock is not None:
                with suppress(OSError):  # it has been closed
                    socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # that of TLS would wait for the server

        timer = threading.Timer(ANSWER_S, give_up)
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()
        finally:
            timer.cancel()
            if is_late.is_set():  # what came until then may look like an empty answer
                raise AnswerLimitError(f"did not arrive within {ANSWER_S:g} s")


class _TimedHeadOverTls(_TimedHead, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _TimedHead


class _PoolOverTls(HTTPSConnectionPool):
    ConnectionCls = _TimedHeadOverTls


class TimedAdapter(HTTPAdapter):
    """Sends requests, and gives up an answer whose head does not arrive in time."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Prepare the connections."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _PoolOverTls}


def read_limited(answer: requests.Response) -> None:
    """Read the body of an answer, and put it where `answer.content` and `answer.json()` find it.

    The body of an error is left out, since its status says all that is used of it, but for the reasons why nothing was
    stored (409 to a POST); so is XML after something was stored: it may grow when it is parsed, and what is not said to
    be stored is searched for. Text is taken to be UTF-8, as JSON must be.

    Raises:
        AnswerLimitError: The body is too large, too slow, or holds too much.
        urllib3.exceptions.HTTPError: The connection failed.
    """
    is_storage = answer.request.method == "POST"
    is_xml = is_storage and "xml" in answer.headers.get("Content-Type", "").lower()
    is_error = answer.status_code >= 400 and not (is_storage and answer.status_code == requests.codes.conflict)
    with answer:
        body = b"" if is_xml or is_error else _join(_pieces(answer))
    check_json_size(body)
    answer.raw = io.BytesIO(body)
    answer.encoding = "utf-8-sig"


def refuse_cut_off(answer: requests.Response) -> None:
    """Let the images of a series that break off count as a failed connection, also where no length tells their end.

    What was cut would be taken for a damaged image, and the series be refused for good. Chunks tell the end of what a
    proxy got from its server, and so does the length of a packed answer.
    """
    headers, read = answer.headers, answer.iter_content
    is_multipart = "multipart" in headers.get("Content-Type", "").lower()
    has_plain_length = "Content-Length" in headers and "Content-Encoding" not in headers
    if not is_multipart or has_plain_length:
        return

    def read_to_the_end(*arguments: Any, **options: Any) -> Iterator[bytes]:
        end = b""
        for piece in read(*arguments, **options):
            end = (end + piece[-_END_BYTES:])[-_END_BYTES:]
            yield piece
        if not end.rstrip().endswith(b"--"):
            raise requests.exceptions.ChunkedEncodingError("the answer ends before its last part does")

    answer.iter_content = read_to_the_end  # type: ignore[method-assign]


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives: `iter_content` would wait until a piece is full."""
    end_s = time.monotonic() + ANSWER_S
    while piece := answer.raw.read1(_PIECE_BYTES, decode_content=True):
        yield piece
        if time.monotonic() > end_s:
            raise AnswerLimitError(f"did not arrive within {ANSWER_S:g} s")


def _join(pieces: Iterator[bytes]) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > ANSWER_BYTES:
            raise AnswerLimitError(f"is larger than {ANSWER_BYTES:,} bytes")
    return bytes(body)


def check_json_size(body: bytes) -> None:
    """Check how many values a JSON text holds, and how deep, without parsing it.

    Raises:
        AnswerLimitError: They are too many or too deep.
    """
    marks = _STRING.sub(b"", body)
    if sum(map(marks.count, (b",", b"[", b"{"))) > MAX_ITEMS:
        raise AnswerLimitError(f"holds more than {MAX_ITEMS:,} values")
    steps = (1 if mark in _OPENING else -1 for mark in marks.translate(None, _NO_BRACKETS))
    if max(accumulate(steps), default=0) > MAX_DEPTH:
        raise AnswerLimitError(f"is nested more than {MAX_DEPTH} deep")


def storable_text(value: object) -> str:
    """Return a value of an answer as text for the ledger; JSON may hold halves of characters, which no file can."""
    return in_unicode(str(value))
