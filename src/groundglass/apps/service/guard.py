"""Who may speak to the server, and what every answer says of itself.

A page on the internet that its reader's browser lets speak to this machine is the attacker to think of: the Host header
defeats rebinding of its name to this address, Origin and Sec-Fetch-Site defeat forms and fetches sent from it, no CORS
header ever lets it read. On a network the token keeps everyone else out.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundglass.apps.service.config import ServiceConfig

COOKIE = "groundglass"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
PAGE_POLICY = (  # NiiVue's font is a picture in a data: address
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
REPORT_POLICY = "sandbox allow-scripts; frame-ancestors 'none'"  # it brings a stricter one of its own
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
_WITHOUT_TOKEN = ("/", "/healthz", "/readyz", "/api/session", "/favicon.ico")


def session_of(token: str) -> str:
    """What the cookie holds: it shows that its bearer has had the token, and does not tell it."""
    return hmac.new(token.encode(), b"groundglass session", hashlib.sha256).hexdigest()


def is_signed_in(headers: Headers, token: str | None) -> bool:
    """Whether a request shows the token, or the cookie that was given for it; compared in constant time."""
    if token is None:
        return True
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), token.encode()):
        return True
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return False
    return cookie is not None and hmac.compare_digest(cookie.value.encode(), session_of(token).encode())


class Guard:
    """Refuses what is not meant for this server, from another site, or without the token; before any route is asked."""

    def __init__(self, app: ASGIApp, config: ServiceConfig) -> None:
        self._app, self._token = app, config.token
        named = f"[{config.host}]" if ":" in config.host else config.host
        self._names = {name.lower() for name in (*LOOPBACK_NAMES, named, *config.names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
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

        refusal = self._refusal(scope["path"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await _refuse(send_with_headers, *refusal)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        name = host.lower() if host.endswith("]") else host.rpartition(":")[0].lower() or host.lower()
        if name not in self._names:
            return 421, f"this server is not called {name or 'nothing'!r}: start it with --name {name or 'NAME'}"
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "the request comes from another site's page"
        if path.startswith("/api/") and site not in (None, "same-origin", "none"):
            return 403, "the request comes from another site's page"
        free = path in _WITHOUT_TOKEN or path.startswith("/assets/")
        if not free and not is_signed_in(headers, self._token):
            return 401, "show the token: Authorization: Bearer TOKEN"
        return None


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
