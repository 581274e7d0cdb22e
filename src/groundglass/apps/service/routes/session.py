"""Signing in and out: the token is sent once, and a cookie stands for it from then on."""

from __future__ import annotations

import hmac

from fastapi import APIRouter, HTTPException, Request, Response

from groundglass.apps.service.api_models import SessionState, SignInToken
from groundglass.apps.service.config import ServiceConfig
from groundglass.apps.service.guard import COOKIE, is_signed_in, session_cookie_value


def session_routes(config: ServiceConfig) -> APIRouter:
    """Return the routes of `/api/session`."""
    router = APIRouter(prefix="/api/session", tags=["session"])

    @router.get("")
    async def session(request: Request) -> SessionState:
        """Return whether the server needs a token, and whether this client has sent it."""
        return SessionState(needs_token=config.token is not None, signed_in=is_signed_in(request.headers, config.token))

    @router.post("", status_code=204)
    async def sign_in(credentials: SignInToken, request: Request, response: Response) -> None:
        """Send the token once and receive a cookie for it."""
        if config.token is None:
            return
        if not hmac.compare_digest(credentials.token.encode("utf-8", "surrogatepass"), config.token.encode()):
            raise HTTPException(401, "wrong token: send the one in the file of --token-file")
        value = session_cookie_value(config.token)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, value, httponly=True, samesite="strict", secure=secure)

    @router.delete("", status_code=204)
    async def sign_out(response: Response) -> None:
        """Delete the cookie."""
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")

    return router
