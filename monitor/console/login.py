"""Login with a token, logout, and the check that the process lives.

Input: a form with a token. Output: a session cookie, which scripts cannot read and other sites cannot send. Invariant:
the token itself is not kept.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from monitor import logs
from monitor.console.rendering import render
from monitor.console.security import SESSION_COOKIE, Refused

if TYPE_CHECKING:
    from monitor.console.state import Console

log = logs.get("console")

router = APIRouter(include_in_schema=False)


@router.get("/live")
async def live() -> Response:
    """Answer that the process lives, for the checks of containers."""
    return JSONResponse({"live": True})


@router.get("/login")
async def login_page(request: Request, next: str = "/") -> Response:  # noqa: A002 (the parameter's name)
    """Show the form."""
    return render(request, "login.html", {"next": local_path(next), "error": ""})


@router.post("/login")
async def login(request: Request) -> Response:
    """Exchange a token for a session."""
    console: Console = request.app.state.console
    form: dict[str, str] = request.state.form
    peer = request.client.host if request.client else ""
    client = console.access.client_address(request.headers, peer)
    try:
        found = await console.access.check_token(form.get("token", "").strip(), client)
    except Refused as error:
        log.warning("login_refused", client=client, reason=error.detail)
        values = {"next": local_path(form.get("next", "/")), "error": error.detail}
        return render(request, "login.html", values, status=error.status)
    log.info("login", client=client, name=found.name, scope=found.scope)
    answer = RedirectResponse(local_path(form.get("next", "/")), 303)
    answer.set_cookie(
        SESSION_COOKIE,
        console.access.new_session(found, secrets.token_hex(16)),
        max_age=int(console.config.console.session.total_seconds()),
        secure=is_encrypted(request),
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/logout")
async def logout() -> Response:
    """End the session in this browser."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
    return answer


def local_path(text: str) -> str:
    """Return a path of the console. A path that could lead to another site becomes "/"."""
    is_local = text.startswith("/") and text[1:2] not in ("/", "\\") and text.isprintable() and len(text) < 2048
    return text if is_local else "/"


def is_encrypted(request: Request) -> bool:
    """Return whether browsers reach the console with TLS, as far as the console knows."""
    public = urlsplit(request.app.state.console.config.console.public_url)
    return request.url.scheme == "https" or (public.scheme == "https" and public.hostname == request.url.hostname)
