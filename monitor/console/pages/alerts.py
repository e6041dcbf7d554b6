"""Lists: all alerts with filters, and incidents.

Input: the database. Output: pages of rows, the newest first. Invariant: a filter is part of the address, so a list can
be sent to a colleague.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from monitor.clock import from_us
from monitor.console.pages.now import alert_row
from monitor.console.pages.view import Ask, Part, address, show

if TYPE_CHECKING:
    from monitor.store.reader import Reader

router = APIRouter(include_in_schema=False)

PAGE = 40
STATES = {"open": "open", "firing": "firing", "recovering": "recovering", "closed": "closed", "all": "all"}
CLASSES = ("process", "sensor", "data")
LABELS = ("fault", "normal", "ignore", "none")
ORDERS = {"opened": "newest", "severity": "severity", "peak": "highest peak", "lasted": "longest", "asset": "asset"}


@router.get("/alerts")
async def alert_list(request: Request, fragment: str | None = None) -> Response:
    """Answer with the alerts."""
    return await show(request, "alerts", "/alerts", {"list": Part(alerts, "alerts")}, fragment=fragment)


@router.get("/incidents")
async def incident_list(request: Request, fragment: str | None = None) -> Response:
    """Answer with the incidents."""
    return await show(request, "incidents", "/alerts", {"list": Part(incidents, "alerts")}, fragment=fragment)


def alerts(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return a page of alerts."""
    chosen = {
        "state": _one_of(ask, "state", STATES, "open"),
        "class": _one_of(ask, "class", CLASSES),
        "label": _one_of(ask, "label", LABELS),
        "fleet": ask.query.get("fleet", ""),
        "asset": ask.query.get("asset", ""),
        "sort": _one_of(ask, "sort", ORDERS, "opened"),
        "suppressed": "1" if ask.query.get("suppressed") else "",
        "incident": str(ask.number("incident", 0, least=0) or ""),
    }
    if chosen["incident"] and "state" not in ask.query:
        chosen["state"] = "all"
    page = min(ask.number("page"), 10_000)
    since, until = ask.time("from"), ask.time("to")
    found = reader.alerts(
        alert_class=chosen["class"] or None,
        fleet=chosen["fleet"] or None,
        asset=_pattern(chosen["asset"]),
        state=None if chosen["state"] == "all" else chosen["state"],
        label=chosen["label"] or None,
        incident=int(chosen["incident"]) if chosen["incident"] else None,
        show_suppressed=bool(chosen["suppressed"] or chosen["incident"]),
        since=None if since is None else from_us(since),
        until=None if until is None else from_us(until),
        sort=chosen["sort"],
        limit=page * PAGE + 1,
    )
    rows = found[(page - 1) * PAGE : page * PAGE]
    given = {name: value for name, value in ask.query.items() if name != "page"}
    return {
        "rows": [alert_row(reader, ask, row, with_hours=False) for row in rows],
        "chosen": chosen,
        "states": STATES,
        "classes": CLASSES,
        "labels": LABELS,
        "orders": ORDERS,
        "fleets": [row["fleet"] for row in reader.fleets()],
        "since": since,
        "until": until,
        "page": page,
        "before": address("alerts", **{**given, "page": page - 1}) if page > 1 else None,
        "after": address("alerts", **{**given, "page": page + 1}) if len(found) > page * PAGE else None,
        "is_filtered": any(name in ask.query for name in ("class", "label", "fleet", "asset", "from", "to", "state")),
    }


def incidents(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return a page of incidents."""
    page = min(ask.number("page"), 10_000)
    found = reader.incidents(fleet=ask.query.get("fleet") or None, limit=page * PAGE + 1)
    return {
        "rows": found[(page - 1) * PAGE : page * PAGE],
        "page": page,
        "before": address("incidents", page=page - 1) if page > 1 else None,
        "after": address("incidents", page=page + 1) if len(found) > page * PAGE else None,
    }


def _one_of(ask: Ask, name: str, known: Any, default: str = "") -> str:
    value = ask.query.get(name, default)
    return value if value in known else default


def _pattern(text: str) -> str | None:
    """Return a pattern for a search: a word without signs finds all names that contain it."""
    return None if not text else text if any(sign in text for sign in "*?") else f"*{text}*"
