"""The gate lets in who may come in, and every answer has its headers."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from monitor.store import tokens
from monitor.store.engine import AsyncStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx
    from fastapi import FastAPI

    Make = Callable[..., FastAPI]
    Client = Callable[..., httpx.AsyncClient]

API = "/api/v1/openapi.json"
PAGE = {"accept": "text/html"}


@pytest.fixture
def add_token(database: Path) -> Callable[..., Any]:
    async def add(name: str = "ann", scope: str = "act", expires_us: int | None = None) -> str:
        async with AsyncStore(f"sqlite:///{database}") as store:
            return (await store.run(tokens.add, name, scope, 0, expires_us)).token

    return add


async def test_this_machine_needs_no_token(make_app: Make, client: Client) -> None:
    async with client(make_app()) as browser:
        assert (await browser.get(API)).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8420", "0x7f.1"])
async def test_foreign_host_names_are_refused(make_app: Make, client: Client, host: str) -> None:
    async with client(make_app(), host=host) as browser:
        answer = await browser.get(API)
    assert answer.status_code == 421
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_token_ends_access_without_one(make_app: Make, client: Client, add_token: Any) -> None:
    token = await add_token()
    async with client(make_app()) as browser:
        refused = await browser.get(API)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert (await browser.get(API, headers={"authorization": f"Bearer {token}"})).status_code == 200
        page = await browser.get("/alerts?state=open", headers=PAGE)
    assert page.status_code == 303
    assert page.headers["location"] == "/login?next=%2Falerts%3Fstate%3Dopen"


async def test_other_machines_need_a_token(make_app: Make, client: Client) -> None:
    async with client(make_app(listen="10.0.0.1:8420", allow_remote=True), "10.0.0.7", "10.0.0.1:8420") as browser:
        assert (await browser.get(API)).status_code == 401


async def test_a_request_that_was_forwarded_is_not_local(make_app: Make, client: Client) -> None:
    async with client(make_app(), headers={"x-forwarded-for": "10.0.0.7"}) as browser:
        assert (await browser.get(API)).status_code == 401


async def test_every_answer_has_the_headers(make_app: Make, client: Client) -> None:
    async with client(make_app()) as browser:
        answers = [await browser.get(path) for path in ("/live", "/login", "/nothing", API, "/static/x/nothing")]
    answers.append(await client(make_app(), host="evil.example").get("/live"))
    for answer in answers:
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


async def test_a_login_gives_a_session_that_acts(make_app: Make, client: Client, add_token: Any) -> None:
    token = await add_token()
    async with client(make_app()) as browser:
        answer = await browser.post("/login", data={"token": token, "next": "/alerts"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/alerts")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert (await browser.get(API)).status_code == 200
        assert (await browser.post("/logout")).status_code == 403, "without a CSRF token"


@pytest.mark.parametrize("next_", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x"])
async def test_a_login_never_leads_elsewhere(make_app: Make, client: Client, add_token: Any, next_: str) -> None:
    token = await add_token()
    async with client(make_app()) as browser:
        answer = await browser.post("/login", data={"token": token, "next": next_})
    assert answer.headers["location"] == "/"


async def test_a_revoked_token_ends_its_sessions(
    make_app: Make, client: Client, add_token: Any, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.console.security.TOKENS_KEPT_S", 0.0)
    token = await add_token()
    async with client(make_app()) as browser:
        await browser.post("/login", data={"token": token})
        assert (await browser.get(API)).status_code == 200
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("UPDATE console_token SET revoked_us = 1")
            connection.commit()
        assert (await browser.get(API)).status_code == 401
        assert (await browser.get(API, headers={"authorization": f"Bearer {token}"})).status_code == 401


async def test_wrong_tokens_are_throttled_by_address(make_app: Make, client: Client, add_token: Any) -> None:
    token = await add_token()
    app = make_app()
    async with client(app) as browser, client(app, peer="127.0.0.2") as other:
        wrong = [{"authorization": f"Bearer monitor_{number}"} for number in range(12)]
        codes = [(await browser.get(API, headers=headers)).status_code for headers in wrong]
        assert codes == [401] * 10 + [429] * 2
        assert (await browser.post("/login", data={"token": token})).status_code == 429
        assert (await other.post("/login", data={"token": token})).status_code == 303
        assert (await browser.post("/login", data={"token": token})).status_code == 303, "it was right elsewhere"


async def test_a_proxy_names_the_user(make_app: Make, client: Client) -> None:
    app = make_app(user_header="X-Forwarded-User", user_scope="read")
    named = {"x-forwarded-user": "ann", "x-forwarded-for": "10.0.0.7"}
    async with client(app) as proxy, client(app, peer="10.0.0.9") as other:
        assert (await proxy.get(API, headers=named)).status_code == 200
        assert (await proxy.get(API)).status_code == 401
        assert (await other.get(API, headers=named)).status_code == 401
        twice = [("x-forwarded-user", "root"), ("x-forwarded-user", "ann")]
        assert (await proxy.get(API, headers=twice)).status_code == 401
        assert (await proxy.post("/logout", headers=named)).status_code == 403


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
    ],
)
async def test_requests_of_other_sites_are_refused(make_app: Make, client: Client, name: str, value: str) -> None:
    async with client(make_app()) as browser:
        answer = await browser.post("/login", data={"token": "x"}, headers={name: value})
    assert answer.status_code == 403


async def test_a_long_body_is_refused(make_app: Make, client: Client) -> None:
    async def parts() -> Any:
        for _ in range(100):
            yield b"x" * 1024

    async with client(make_app()) as browser:
        assert (await browser.post("/login", content=b"x" * 70_000)).status_code == 413
        assert (await browser.post("/login", content=parts())).status_code == 413


async def test_without_a_database_the_answer_says_so(make_app: Make, client: Client, database: Path) -> None:
    app = make_app()
    kept = await asyncio.to_thread(database.rename, database.with_suffix(".kept"))
    async with client(app) as browser:
        away = await browser.get("/", headers=PAGE)
        assert away.status_code == 503
        assert "no database at" in away.text
        assert away.headers["retry-after"] == "5"
        await asyncio.to_thread(kept.rename, database)
        assert (await browser.get(API)).status_code == 200


async def test_a_replaced_database_is_opened_again(make_app: Make, database: Path, tmp_path: Path) -> None:
    app = make_app()
    console = app.state.console
    assert len(await console.read(lambda reader: reader.alerts())) == 2
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
        new.execute("DELETE FROM alert_transition")
        new.execute("DELETE FROM alert")
        new.commit()
    await asyncio.to_thread(copy.rename, database)
    assert await console.read(lambda reader: reader.alerts()) == []
