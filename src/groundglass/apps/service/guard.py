"""Access control: which requests reach the routes, and the security headers of every response.

The main attacker is a page on the internet that is open in a browser on this machine. Checking the Host header defeats
DNS rebinding (the attacker's host name resolving to this address); Origin and Sec-Fetch-Site defeat forms and fetches
sent by that page; without any CORS header it can never read a response. On a network the token keeps out everyone else.
Bodies are small and quick, or refused, but for uploads, which have limits of their own and pass only after sign-in.
"""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import anyio
from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundglass.apps.service.config import ServiceConfig
from groundglass.apps.service.connections import LET_IN
from groundglass.apps.service.sessions import Sessions, own_cookie_only
from groundglass.plain_text import printable

MAX_BODY_BYTES = 64 << 10  # of a request that is no upload
MAX_SHOWN = 100  # characters of a host name in a message
BODY_S = 10.0  # for such a body to arrive
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
REPORT_POLICY = "sandbox allow-scripts; frame-ancestors 'none'"  # the report itself contains a stricter policy
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
TOO_LARGE = 413, f"the body is too large, expected at most {MAX_BODY_BYTES:,} bytes"
TOO_MANY_GUESSES = 429, "too many wrong tokens: try again in some seconds"
_UPLOAD_PATH = re.compile(r"/api/scans|/api/jobs/[0-9a-f]{32}/corrections")
_HOST = re.compile(r"(?P<name>[^:]*|\[[^]]*\])(:[0-9]*)?")
_PATHS_WITHOUT_TOKEN = ("/", "/healthz", "/readyz", "/api/session", "/favicon.ico")


class Guard:
    """ASGI middleware that refuses requests for another host, from another site, or without the token."""

    def __init__(self, app: ASGIApp, config: ServiceConfig, sessions: Sessions) -> None:
        self._app, self._sessions = app, sessions
        own_host = f"[{config.host}]" if ":" in config.host else config.host
        self._host_names = {name.lower() for name in (*LOOPBACK_NAMES, own_host, *config.host_names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", PAGE_POLICY)
            await send(message)

        own = {**scope, "headers": own_cookie_only(scope["headers"])}
        if own["method"] == "HEAD" and not own["path"].endswith("/events"):  # which do not end
            own["method"] = "GET"  # the routes' own; the server leaves the body out
        path, headers = own["path"], Headers(scope=own)
        refusal = self._refusal(path, headers)
        if refusal and refusal[0] == 401 and self._sessions.is_guess(headers) and not await self._sessions.slow_down():
            refusal = TOO_MANY_GUESSES
        if refusal is not None:
            await _refuse(send_with_headers, *refusal)
            return
        if _needs_token(path):
            scope[LET_IN] = True
        await self._app(own, receive if _takes_upload(path) else _bounded(receive), send_with_headers)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        """Return the HTTP status and the reason why a request is refused; None if it may pass."""
        if "transfer-encoding" in headers and "content-length" in headers:  # a proxy may go by the other one
            return 400, "the request states its length in two ways: leave out Content-Length"
        host = headers.get("host", "")
        parts = _HOST.fullmatch(host)
        name = printable(parts["name"] if parts else host)[:MAX_SHOWN].lower()
        if parts is None or name not in self._host_names:
            return 421, (
                f"{name or 'an empty name'!r} is not a host name of this server: start it with --name {name or 'NAME'}"
            )
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and _host_of(origin) != host.lower():
            return 403, "the request comes from another site's page"
        if path.startswith("/api/") and site not in (None, "same-origin", "none"):
            return 403, "the request comes from another site's page"
        if _needs_token(path) and not self._sessions.is_signed_in(headers):
            return 401, "the token is missing or wrong: send Authorization: Bearer TOKEN"
        if not _takes_upload(path) and int(headers.get("content-length", "0")) > MAX_BODY_BYTES:
            return TOO_LARGE
        return None


def _needs_token(path: str) -> bool:
    """Return whether a path is that of scans and results, rather than of the page, the sign-in or a health check."""
    return path not in _PATHS_WITHOUT_TOKEN and not path.startswith("/assets/")


def _takes_upload(path: str) -> bool:
    """Return whether a route receives a scan or a mask, whose size has limits of its own."""
    return _UPLOAD_PATH.fullmatch(path) is not None


def _host_of(origin: str) -> str:
    """Return the host and port of an origin in lower case; empty if it is no URL."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _bounded(receive: Receive) -> Receive:
    """Pass on a body as it arrives, up to `MAX_BODY_BYTES` and `BODY_S`."""
    size, is_complete, end_s = 0, False, anyio.current_time() + BODY_S

    async def receive_bounded() -> Message:
        nonlocal size, is_complete
        if is_complete:  # what is awaited now is that the client disconnects
            return await receive()
        try:
            with anyio.fail_after(end_s - anyio.current_time()):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {BODY_S:g} s: send it again") from None
        size += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if size > MAX_BODY_BYTES:
            raise HTTPException(*TOO_LARGE)
        return message

    return receive_bounded


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 400:  # where its body ends is not known, so that what follows may be no request
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
