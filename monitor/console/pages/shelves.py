"""Shelves and maintenance: alerts without notifications, with end and reason.

Input: the database. Output: the page, with the form to plan maintenance. Invariant: each row has an operator, a
reason, and an end or a button that ends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from monitor.console.pages.view import HOUR_US, Ask, Part, show

if TYPE_CHECKING:
    from monitor.store.reader import Reader

router = APIRouter(include_in_schema=False)

MAX_ENDED = 20


@router.get("/shelves")
async def shelf_page(request: Request, fragment: str | None = None) -> Response:
    """Answer with the page."""
    return await show(request, "shelves", "/shelves", PARTS, fragment=fragment)


def shelves(reader: Reader, _ask: Ask) -> dict[str, Any]:
    """Return the shelves in force, and the newest that ended."""
    rows = reader.shelves(is_active=None)
    return {
        "active": [row for row in rows if row["ended_at"] is None],
        "ended": [row for row in rows if row["ended_at"] is not None][:MAX_ENDED],
    }


def maintenance(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the windows in force and planned, and the form's first values."""
    begin = ask.now_us // HOUR_US * HOUR_US + HOUR_US
    rows = reader.maintenance(is_active=None, now_us=ask.now_us)
    return {
        "planned": [row for row in rows if row["state"] != "over"],
        "over": [row for row in reversed(rows) if row["state"] == "over"][:MAX_ENDED],
        "fleets": [row["fleet"] for row in reader.fleets()],
        "from": begin,
        "to": begin + 4 * HOUR_US,
    }


PARTS = {"shelves": Part(shelves, "alerts"), "maintenance": Part(maintenance, "alerts")}
