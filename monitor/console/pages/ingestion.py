"""Ingestion: lag, rates, refused records with samples, late ones, gaps, daemons, trainings and notifications.

Input: the database. Output: the page. Invariant: samples of records are text from outside, shown escaped.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from monitor import drawing
from monitor.console.pages.now import newest
from monitor.console.pages.view import HOUR_US, Ask, Part, as_us, duration, number, show, svg
from monitor.printable import escape_unprintable
from monitor.wording import count

if TYPE_CHECKING:
    from monitor.store.reader import Reader

router = APIRouter(include_in_schema=False)

HOURS = 48
ALIVE_US = 60_000_000
"""Age of a heartbeat at which a daemon counts as gone."""
MAX_SAMPLES, MAX_REASONS, MAX_PARTITIONS = 12, 12, 40
SAMPLE = 240


@router.get("/ingestion")
async def ingestion_page(request: Request, fragment: str | None = None) -> Response:
    """Answer with the page."""
    return await show(request, "ingestion", "/ingestion", PARTS, fragment=fragment)


def flow(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return lag, rates and partitions."""
    partitions = reader.partitions()
    total: Counter[str] = Counter()
    for row in partitions:
        total.update({name: n for name, n in row["counters"].items() if isinstance(n, int)})
    ends = newest(reader, ask)
    hours: list[float | None] = []
    until = None
    if ends:
        until = -(-max(ends.values()) // HOUR_US) * HOUR_US
        found = ask.once(("hours", until), 10, lambda: reader.windows_by_hour(until - HOURS * HOUR_US, until))
        starts = range(until - HOURS * HOUR_US, until, HOUR_US)
        hours = [float(found[at]["n"]) if at in found else None for at in starts]
    lags = [row["lag"] for row in partitions if row["lag"] is not None]
    counted = [n for n in hours if n is not None]
    partitions.sort(key=lambda row: -(row["lag"] or 0))
    return {
        "total": total,
        "lag": sum(lags) if lags else None,
        "n_partitions": len(partitions),
        "partitions": partitions[:MAX_PARTITIONS],
        "refused_share": total["quarantined"] / total["records"] if total["records"] else None,
        "late_share": total["late"] / total["records"] if total["records"] else None,
        "per_hour": counted[-2] if len(counted) > 1 else None,
        "hours": svg(
            drawing.sparkline(
                hours, title="Windows by hour, 48 hours", desc=f"At most {number(max(counted, default=0))} in an hour"
            )
        ),
        "axis": svg(drawing.time_axis(until - HOURS * HOUR_US, until, zone=ask.zone)) if until else "",
        "hour_rows": [
            (until - (len(hours) - n) * HOUR_US, "–" if value is None else f"{value:,.0f}")
            for n, value in enumerate(hours)
            if until is not None
        ],
        "newest": max(ends.values(), default=None),
        "gaps": reader.gaps(8),
    }


def quarantine(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the refused records by reason, and the newest of them."""
    reason = ask.query.get("reason", "")[:64]
    counts = reader.quarantine_counts()
    most = max((row["records"] for row in counts), default=1)
    return {
        "reason": reason,
        "counts": [
            row | {"bar": svg(drawing.contributions(row["records"] / most, title=row["reason"], kind="calm"))}
            for row in counts[:MAX_REASONS]
        ],
        "n": sum(row["records"] for row in counts),
        "samples": [
            row | {"shown": escape_unprintable(row["sample"][:SAMPLE]), "is_cut": len(row["sample"]) > SAMPLE}
            for row in reader.quarantine(reason=reason or None, limit=MAX_SAMPLES)
        ],
    }


def processes(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the daemons, the trainings and the notifications that wait."""
    daemons = []
    for row in reader.daemons()[:12]:
        beat = as_us(row["heartbeat_at"]) or 0
        daemons.append(row | {"is_alive": ask.now_us - beat < ALIVE_US, "ago": duration((ask.now_us - beat) / 1e6)})
    return {
        "daemons": daemons,
        "jobs": reader.jobs(limit=8),
        "channels": [row for row in reader.channels() if row["waiting"] or row["given_up"]],
        "n_alive": count(sum(row["is_alive"] for row in daemons), "daemon"),
    }


PARTS = {
    "flow": Part(flow, "ingestion scores"),
    "quarantine": Part(quarantine, "ingestion"),
    "processes": Part(processes, "ingestion models"),
}
