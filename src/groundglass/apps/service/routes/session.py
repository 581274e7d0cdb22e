"""Signing in and out: the token is sent once, and a cookie stands for it from then on."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request, Response

from groundglass.apps.service.api_models import SessionState, SignInToken
from groundglass.apps.service.guard import TOO_MANY_GUESSES
from groundglass.apps.service.sessions import COOKIE, SESSION_S, Sessions


def session_routes(sessions: Sessions) -> APIRouter:
    """Return the routes of `/api/session`."""
    router = APIRouter(prefix="/api/session", tags=["session"])

    @router.get("")
    async def session(request: Request) -> SessionState:
        """Return whether the server needs a token, and whether this client has sent it."""
        return SessionState(needs_token=sessions.needs_token, signed_in=sessions.is_signed_in(request.headers))

    @router.post("", status_code=204)
    async def sign_in(credentials: SignInToken, request: Request, response: Response) -> None:
        """Send the token once and receive a cookie for it."""
        if not sessions.needs_token:
            return
        if not sessions.is_token(credentials.token):
            if not await sessions.slow_down():
                raise HTTPException(*TOO_MANY_GUESSES)
            raise HTTPException(401, "wrong token: send the one in the file of --token-file")
        secure = request.url.scheme == "https"
        response.set_cookie(
            COOKIE, sessions.start(), max_age=int(SESSION_S), httponly=True, samesite="strict", secure=secure
        )

    @router.delete("", status_code=204)
    async def sign_out(request: Request, response: Response) -> None:
        """End the session: its cookie is worth nothing from then on, whoever has it."""
        sessions.end(request.headers)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")

    return router
