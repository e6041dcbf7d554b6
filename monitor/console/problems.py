"""Errors as answers: a page for browsers, a problem document (RFC 9457) for programs.

Input: an error. Output: a response with the status that the error means, and its sentence. Invariant: the answer has no
traceback and none of the request's own text beyond the sentence, which is escaped.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from monitor import logs
from monitor.console.rendering import render
from monitor.console.security import HEADERS, Refused
from monitor.errors import (
    BadArgument,
    ConfigError,
    Conflict,
    MonitorError,
    NotFound,
    SchemaMismatch,
    StoreDamaged,
    StoreRefused,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI, Request

log = logs.get("console")

API = "/api/"
"""Paths below it answer programs."""
RETRY_AFTER_S = 5
"""Told to clients while the database is away."""
PROBLEM_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[MonitorError], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (ConfigError, 422),
    (BadArgument, 422),
    (StoreUnavailable, 503),
    (SchemaMismatch, 503),
    (StoreDamaged, 503),
    (StoreRefused, 503),
)


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What happened, and what to do about it.")


def add_handlers(app: FastAPI) -> None:
    """Answer every error of a route in the form that the client understands."""

    @app.exception_handler(MonitorError)
    async def on_monitor_error(request: Request, error: MonitorError) -> Response:
        return answer_to(request, error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid_request(request: Request, error: RequestValidationError) -> Response:
        parts = [f"{'.'.join(map(str, each['loc'][1:])) or each['loc'][0]}: {each['msg']}" for each in error.errors()]
        return problem(request, 422, "; ".join(parts))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        is_plain = error.detail == HTTPStatus(error.status_code).phrase
        is_missing = error.status_code == 404 and is_plain
        detail = f"there is nothing at {request.url.path}" if is_missing else str(error.detail)
        headers = error.headers
        if error.status_code == 405 and (methods := _methods(request)):
            headers = {"Allow": ", ".join(methods)}
            detail = f"{request.url.path} takes {' or '.join(methods)}"
        return problem(request, error.status_code, detail, headers)

    @app.exception_handler(Exception)
    async def on_defect(request: Request, _error: Exception) -> Response:
        # The server logs it with its traceback. The gate is left by an exception, so its headers are added here.
        return problem(request, 500, "a defect of the console; its log has the details", HEADERS)


def problem(
    request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the answer to a request that failed."""
    title = HTTPStatus(status).phrase
    if request.url.path.startswith(API) or "text/html" not in request.headers.get("accept", ""):
        document = Problem(title=title, status=status, detail=detail)
        return JSONResponse(document.model_dump(), status, headers, PROBLEM_TYPE)
    return render(request, "problem.html", {"title": title, "detail": detail}, status=status, headers=headers)


def answer_to(request: Request, error: MonitorError) -> Response:
    """Return the answer that an error means."""
    if isinstance(error, Refused):
        headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
        headers |= {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        return problem(request, error.status, error.detail, headers)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status == 500:
        log.error("request_failed", path=request.url.path, error=str(error))
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    # What a person sent needs no headline that blames the configuration or another job.
    is_of_request = status in (409, 422) and error.detail
    return problem(request, status, error.detail if is_of_request else str(error), headers)


def _methods(request: Request) -> list[str]:
    """Return the methods of a path of the API. The router's own answer names those of one route alone."""
    found: set[str] = set()
    for path, operations in request.app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.url.path):
            found |= {method.upper() for method in operations}
    return sorted(found)
