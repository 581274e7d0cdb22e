"""Who is signed in: the token of the server, the sessions that stand for it, and the slowing of guesses."""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Iterable

import anyio
from starlette.datastructures import Headers

COOKIE = "groundglass"
SESSION_S = 12 * 3600.0  # after which a client has to send the token again
_SESSION_ID = re.compile(r"[\w-]{43}", re.ASCII)  # of `secrets.token_urlsafe(32)`
MAX_SESSIONS = 1000  # the oldest one ends when there would be more
WRONG_TOKEN_S = 0.25  # between the answers to two wrong tokens, whoever sent them
MAX_WAITING = 16  # wrong tokens that wait for their answer; further ones are refused at once


class Sessions:
    """The sessions of a server. They are kept in memory: who signs out, and whoever copied the cookie, is out.

    Args of the constructor:
        token: Secret that clients must send; None asks for none.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._ends: dict[str, float] = {}  # {id of a session: when it ends, by `time.monotonic`}, oldest first
        self._guesses, self._waiting = anyio.Lock(), 0

    @property
    def needs_token(self) -> bool:
        """Whether clients must send a token."""
        return self._token is not None

    def start(self) -> str:
        """Start a session and return its id, which cannot be guessed and does not reveal the token."""
        now = time.monotonic()
        self._ends = {name: end for name, end in self._ends.items() if end > now}
        while len(self._ends) >= MAX_SESSIONS:
            del self._ends[next(iter(self._ends))]
        session = secrets.token_urlsafe(32)
        self._ends[session] = now + SESSION_S
        return session

    def end(self, headers: Headers) -> None:
        """End the session of a request, if it has one."""
        for session in _sessions_of(headers):
            self._ends.pop(session, None)

    def is_signed_in(self, headers: Headers) -> bool:
        """Return whether a request carries the token, or the cookie of a session."""
        if self._token is None or self.is_token(_bearer(headers)):
            return True
        return any(self._ends.get(session, 0.0) > time.monotonic() for session in _sessions_of(headers))

    def is_token(self, guess: str) -> bool:
        """Return whether a text is the token; compares in constant time."""
        return self._token is not None and hmac.compare_digest(
            guess.encode("utf-8", "surrogatepass"), self._token.encode()
        )

    def is_guess(self, headers: Headers) -> bool:
        """Return whether a request carries a wrong token."""
        return bool(_bearer(headers)) and not self.is_token(_bearer(headers))

    async def slow_down(self) -> bool:
        """Wait before a wrong token is answered, one after the other; return False if too many wait already."""
        if self._waiting >= MAX_WAITING:
            return False
        self._waiting += 1
        try:
            async with self._guesses:
                await anyio.sleep(WRONG_TOKEN_S)
        finally:
            self._waiting -= 1
        return True


def _bearer(headers: Headers) -> str:
    """Return the token that a request carries; empty without one."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    return bearer.strip() if scheme.lower() == "bearer" else ""


def own_cookie_only(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request with no cookies but those that may be of its session.

    Programs on other ports of this machine share their cookies with this one, and Python parses some cookies in a time
    that grows with the square of their length: 64 KiB take a minute, during which nobody is answered.
    """
    kept = [(name, value) for name, value in headers if name != b"cookie"]
    sessions = _sessions_of(Headers(raw=list(headers)))
    cookie = "; ".join(f"{COOKIE}={session}" for session in sessions)
    return [*kept, (b"cookie", cookie.encode())] if sessions else kept


def _sessions_of(headers: Headers) -> list[str]:
    """Return what may be the id of the session of a request: another program may have set a cookie of the same name."""
    pairs = (cookie.partition("=") for line in headers.getlist("cookie") for cookie in line.split(";"))
    values = (value.strip() for name, _, value in pairs if name.strip() == COOKIE)
    return [value for value in values if _SESSION_ID.fullmatch(value)]
