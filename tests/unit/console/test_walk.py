"""A walk over every route of the console: none answers without a login, none changes something without permission.

The routes are those of the application itself, so a new one is walked as well.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.routing import iter_route_contexts

from monitor.console.gate import OPEN_PATHS
from monitor.store import tokens
from monitor.store.engine import AsyncStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx
    from fastapi import FastAPI

    Make = Callable[..., FastAPI]
    Client = Callable[..., httpx.AsyncClient]

EXAMPLES = {
    "alert_id": "2", "shelf_id": "1", "maintenance_id": "1", "label_id": "1", "incident_id": "1", "job_id": "1",
    "fleet": "turbines", "asset": "R80711", "version": "turbines-new", "digest": "x", "name": "x", "token": "x",
}  # fmt: skip
ADMIN = {
    *(f"/models/{{fleet}}/{act}" for act in ("retrain", "drill", "promote", "reject", "rollback")),
    *(f"/api/v1/{path}" for path in ("jobs", "models/{version}/promote", "models/{version}/reject")),
    "/api/v1/fleets/{fleet}/rollback",
}
"""Writes that need the scope admin."""


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Every method and path, as the application declares them."""
    found = []
    for route in iter_route_contexts(app.routes):
        found += [(method, route.path) for method in sorted(route.methods or ()) if method != "HEAD"]
    return found


def address(path: str) -> str:
    return re.sub(r"\{(\w+)(:path)?\}", lambda part: EXAMPLES[part[1]], path)


def is_open(path: str) -> bool:
    return path.startswith(OPEN_PATHS)


def dump(database: Path) -> list[str]:
    """All that the database holds."""
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


@pytest.fixture
async def issued(database: Path) -> dict[str, str]:
    async with AsyncStore(f"sqlite:///{database}") as store:
        return {scope: (await store.run(tokens.add, scope, scope, 0, None)).token for scope in ("read", "act", "admin")}


def test_the_walk_meets_the_routes(make_app: Make) -> None:
    found = routes(make_app())
    assert len([path for method, path in found if method == "GET" and path.startswith("/api/")]) >= 20
    writes = [path for method, path in found if method != "GET"]
    assert {"/alerts/{alert_id}/acknowledge", "/models/{fleet}/retrain", "/api/v1/alerts/{alert_id}/label"} <= {*writes}
    assert [path for path in writes if is_open(path)] == ["/login", "/links/{token}"], "these check for themselves"
    opened = {path for _, path in found if is_open(path)}
    assert opened == {"/live", "/login", "/static/{digest}/{name}", "/links/{token}"}


async def test_no_route_answers_without_a_login(make_app: Make, client: Client, issued: dict[str, str]) -> None:
    app = make_app()
    assert issued
    async with client(app) as browser:
        for method, path in routes(app):
            if not is_open(path):
                answer = await browser.request(method, address(path), json={} if method != "GET" else None)
                assert answer.status_code == 401, (method, path)


async def test_no_write_is_done_without_a_csrf_token(make_app: Make, client: Client, database: Path) -> None:
    app = make_app()
    before = dump(database)
    async with client(app) as browser:  # this machine, with all rights
        for method, path in routes(app):
            if method == "GET" or is_open(path):
                continue
            for sent in ({"json": {}}, {"data": {"note": "x", "csrf": "x"}}, {"headers": {"x-csrf-token": ""}}):
                answer = await browser.request(method, address(path), **sent)  # type: ignore[arg-type]
                assert answer.status_code == 403, (method, path, sent)
    assert dump(database) == before


async def test_no_write_is_done_with_the_scope_read(make_app: Make, client: Client, issued: dict[str, str]) -> None:
    app = make_app()
    async with client(app, headers={"authorization": f"Bearer {issued['read']}"}) as program:
        for method, path in routes(app):
            if method != "GET" and not is_open(path):
                answer = await program.request(method, address(path), json={})
                assert answer.status_code == 403, (method, path)


async def test_trainings_need_the_scope_admin(make_app: Make, client: Client, issued: dict[str, str]) -> None:
    app = make_app()
    refused = set()
    async with client(app, headers={"authorization": f"Bearer {issued['act']}"}) as program:
        for method, path in routes(app):
            if method != "GET" and not is_open(path):
                answer = await program.request(method, address(path), json={"fleet": "turbines"})
                assert answer.status_code not in (401, 500), (method, path)
                refused |= {path} if answer.status_code == 403 else set()
    assert refused == ADMIN


@pytest.mark.parametrize("scheme", ["session", "token"])
async def test_a_csrf_token_of_another_session_is_refused(
    make_app: Make, client: Client, issued: dict[str, str], scheme: str
) -> None:
    app = make_app()
    async with client(app) as browser, client(app) as other:
        for each, scope in ((browser, "act"), (other, "admin")):
            await each.post("/login", data={"token": issued[scope]})
        csrf: dict[str, Any] = {}
        for name, each in (("own", browser), ("other", other)):
            csrf[name] = (await each.get("/api/v1/me")).json()["csrf"]
        assert csrf["own"] != csrf["other"]
        sent = {"x-csrf-token": csrf["other"]} if scheme == "session" else {"x-csrf-token": csrf["other"] + "x"}
        path = "/api/v1/alerts/2/acknowledge"
        assert (await browser.post(path, json={}, headers=sent)).status_code == 403
        assert (await browser.post(path, json={}, headers={"x-csrf-token": csrf["own"]})).status_code == 200
