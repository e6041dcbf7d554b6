"""Names and texts from outside on every page: markup in them is text, and every address leads back to its asset."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from html import unescape
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx
    from fastapi import FastAPI

    Make = Callable[..., FastAPI]
    Client = Callable[..., httpx.AsyncClient]

MARKUP = "\"><script>x()</script><img src=x onerror='x()'>{{7*7}}"
NAMES = [MARKUP, "a/b", "%2F", "//evil.example", "a?b#c&d=e+f g", "javascript:x()", "A" * 128]
SCREENS = ["/", "/?range=7d", "/alerts?state=all&suppressed=1", "/alerts/1", "/alerts/2", "/incidents", "/shelves",
           "/models", "/models/turbines", "/ingestion"]  # fmt: skip


@pytest.fixture(params=NAMES, ids=lambda name: name[:16])
def named(request: pytest.FixtureRequest, database: Path) -> str:
    """An example database whose texts are all hostile, and the name of its asset."""
    name: str = request.param
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE asset SET name = ? WHERE name = 'R80711'", (name,))
        connection.execute("UPDATE alert SET asset_name = ?, message = ?, label_note = ?", (name, MARKUP, MARKUP))
        for alert_id, sensors in connection.execute("SELECT id, sensors FROM alert").fetchall():
            changed = [sensor | {"name": MARKUP} for sensor in json.loads(sensors or "[]")]
            connection.execute("UPDATE alert SET sensors = ? WHERE id = ?", (json.dumps(changed), alert_id))
        connection.execute("UPDATE quarantine SET reason = ?, sample = ?", (MARKUP, MARKUP.encode()))
        connection.execute("UPDATE job SET message = ?", (MARKUP,))
    return name


async def test_texts_from_outside_are_text_and_lead_nowhere_else(make_app: Make, client: Client, named: str) -> None:
    async with client(make_app(), headers={"accept": "text/html"}) as browser:
        links = set()
        for screen in SCREENS:
            page = await browser.get(screen)
            assert page.status_code == 200, screen
            assert "<script>x" not in page.text
            assert "<img" not in page.text
            assert ">49" not in page.text, "a template in a name was rendered"
            addresses = [unescape(each) for each in re.findall(r'href="([^"]*)"', page.text)]
            assert all(re.match(r"/(?![/\\])|#", each) for each in addresses), screen
            links |= {each.partition("?")[0] for each in addresses if each.startswith("/assets/")}
        pages = [await browser.get(link) for link in links]
    assert all(page.status_code == 200 and "<script>x" not in page.text for page in pages)
    assert any(f"<h1>{named}</h1>" in unescape(page.text) for page in pages)
