"""Connections under limits: uvicorn itself waits for ever for a request's head, and for a client that does not read.

A client that sends half a head, or takes no answer, would hold a descriptor of the process; with all of them held,
nobody else is answered. So a head has a deadline, and when there are too many connections, the oldest one that is not
working for a client which was let in is closed in favour of a new one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0  # for the head of a request, and for the rest of a body after the answer
UNREAD_S = 60.0  # longest time in which a client takes nothing of its answer
MAX_CONNECTIONS = 512
LET_IN = "groundglass.let_in"  # key in the scope of a request that may use what needs a token
_OTHER_DESCRIPTORS = 64  # that the process needs besides connections and the files which it sends through them
_LOG_EVERY_S = 60.0


def connection_limit() -> int:
    """Return the largest number of connections: each may need a descriptor for a file too."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return MAX_CONNECTIONS
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(8, min(MAX_CONNECTIONS, (descriptors - _OTHER_DESCRIPTORS) // 2))


class LimitedProtocol(H11Protocol):
    """A connection whose client must send its requests and take its answers within a time."""

    limit = MAX_CONNECTIONS  # largest number of connections; set when the server starts
    _deadline: asyncio.TimerHandle | None = None
    _is_unread = False  # whether the client has to take some of its answer before more is written
    _opened = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, and close another one if there are too many."""
        super().connection_made(transport)
        self._opened = time.monotonic()
        self._set_deadline(HEAD_S, self._close)
        if len(self.connections) > self.limit:
            oldest = min(self.connections, key=_order_of_closing)
            if isinstance(oldest, LimitedProtocol):
                oldest.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._lift_deadline()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Lift the deadline when the head of a request is complete."""
        super().handle_events()
        if self.has_request and not self._is_unread:
            self._lift_deadline()

    def on_response_complete(self) -> None:
        """Begin to wait for the next head, or for the rest of a body that nobody reads."""
        if not self._is_unread:
            self._set_deadline(HEAD_S, self._close)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait until the client takes more of its answer, but not for ever, whatever it sends meanwhile."""
        super().pause_writing()
        self._is_unread = True
        self._set_deadline(UNREAD_S, self.abort)

    def resume_writing(self) -> None:
        """Go on sending, or wait for the next head if all is written."""
        super().resume_writing()
        self._is_unread = False
        if self.has_request:
            self._lift_deadline()
        else:
            self._set_deadline(HEAD_S, self._close)

    @property
    def has_request(self) -> bool:
        """Whether there is a request whose head is complete and whose answer is not."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def order_of_closing(self) -> tuple[bool, float]:
        """A sort key: connections without a request that was let in first, the oldest of them first."""
        return self.has_request and LET_IN in self.scope, self._opened

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def _close(self) -> None:
        """Close the connection when what was written has been sent, but not later than `UNREAD_S`."""
        self.transport.close()
        self._set_deadline(UNREAD_S, self.abort)

    def _set_deadline(self, seconds: float, action: Callable[[], None]) -> None:
        self._lift_deadline()
        self._deadline = self.loop.call_later(seconds, action)

    def _lift_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _order_of_closing(connection: object) -> tuple[bool, float]:
    return connection.order_of_closing if isinstance(connection, LimitedProtocol) else (True, 0.0)


class Throttle(logging.Filter):
    """Lets the same message pass once a minute: what clients cause must not fill the disk with log."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the message may be logged."""
        now = time.monotonic()
        message = str(record.msg)
        if len(self._passed) > 100:  # messages of libraries may hold numbers
            self._passed.clear()
        if now - self._passed.get(message, float("-inf")) < _LOG_EVERY_S:
            return False
        self._passed[message] = now
        return True
