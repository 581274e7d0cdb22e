"""Access control: which requests reach the routes, and the security headers of every response.

The main attacker is a page on the internet that is open in a browser on this machine. Checking the Host header defeats
DNS rebinding (the attacker's host name resolving to this address); Origin and Sec-Fetch-Site defeat forms and fetches
sent by that page; without any CORS header it can never read a response. On a network the token keeps out everyone else.
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
PAGE_POLICY = (  # NiiVue's font is an image in a data: URL
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
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
_PATHS_WITHOUT_TOKEN = ("/", "/healthz", "/readyz", "/api/session", "/favicon.ico")


def session_cookie_value(token: str) -> str:
    """Return the value of the session cookie: it proves knowledge of the token without revealing it."""
    return hmac.new(token.encode(), b"groundglass session", hashlib.sha256).hexdigest()


def is_signed_in(headers: Headers, token: str | None) -> bool:
    """Return whether a request carries the token or its session cookie; compares in constant time."""
    if token is None:
        return True
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(bearer.strip().encode(), token.encode()):
        return True
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return False
    return cookie is not None and hmac.compare_digest(cookie.value.encode(), session_cookie_value(token).encode())


class Guard:
    """ASGI middleware that refuses requests for another host, from another site, or without the token."""

    def __init__(self, app: ASGIApp, config: ServiceConfig) -> None:
        self._app, self._token = app, config.token
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

        refusal = self._refusal(scope["path"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await _refuse(send_with_headers, *refusal)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        """Return the HTTP status and the reason why a request is refused; None if it may pass."""
        host = headers.get("host", "")
        name = host.lower() if host.endswith("]") else host.rpartition(":")[0].lower() or host.lower()
        if name not in self._host_names:
            return 421, (
                f"{name or 'an empty name'!r} is not a host name of this server: start it with --name {name or 'NAME'}"
            )
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "the request comes from another site's page"
        if path.startswith("/api/") and site not in (None, "same-origin", "none"):
            return 403, "the request comes from another site's page"
        needs_token = path not in _PATHS_WITHOUT_TOKEN and not path.startswith("/assets/")
        if needs_token and not is_signed_in(headers, self._token):
            return 401, "the token is missing or wrong: send Authorization: Bearer TOKEN"
        return None


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
