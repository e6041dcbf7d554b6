"""The OpenAPI document: FastAPI's, with the problem documents that every operation may answer with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from monitor.console.problems import PROBLEM_TYPE, Problem

if TYPE_CHECKING:
    from fastapi import FastAPI

_ALWAYS = (400, 401, 403, 405, 421, 422, 429, 500, 503)
_OF_ACTS = (408, 409, 413, 415)
_TITLES = {
    400: "The request cannot be read.",
    401: "A token is needed.",
    403: "The token's scope is too small, or the CSRF token is missing.",
    404: "There is no such thing.",
    405: "Another method is needed.",
    408: "The request took too long.",
    409: "The present state does not allow this.",
    413: "The request is too long.",
    415: "The body must be JSON.",
    421: "The host name is not the console's.",
    422: "A value cannot be used.",
    429: "Too many wrong tokens.",
    500: "A defect of the console.",
    503: "The database is away, or busy.",
}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of an application, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        schemas = made["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
        for path, methods in made["paths"].items():
            for method, operation in methods.items():
                codes = {*_ALWAYS, *(_OF_ACTS if method != "get" else ()), *((404,) if "{" in path else ())}
                if method != "get" or path.endswith(("/scores", "/health")):
                    codes.add(404)
                operation["responses"].pop("422", None)
                operation["responses"].update({str(code): _response(code) for code in sorted(codes)})
        app.openapi_schema = made
    return app.openapi_schema


def _response(code: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": _TITLES[code], "content": {PROBLEM_TYPE: {"schema": schema}}}
