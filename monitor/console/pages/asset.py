"""One asset: its scores over days, its alerts, its sensors by contribution, and a stretch of time looked at closely.

Input: an asset, a range, and perhaps a stretch in it (`from`, `to`). Output: the page. Invariant: longer ranges than
three days are drawn from hours, which outlive the scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from monitor import drawing
from monitor.clock import from_us
from monitor.console.pages.now import alert_row, newest
from monitor.console.pages.view import DAY_US, HOUR_US, Ask, Part, address, as_us, number, show, svg
from monitor.errors import NotFound
from monitor.wording import count, percent

if TYPE_CHECKING:
    from monitor.store.reader import Reader

router = APIRouter(include_in_schema=False)

RANGES = {"1d": DAY_US, "3d": 3 * DAY_US, "7d": 7 * DAY_US, "30d": 30 * DAY_US, "90d": 90 * DAY_US}
EXACT_US = 3 * DAY_US
"""Up to this range each window is drawn."""
MAX_ASSETS = 8
MAX_ALERTS = 30


@router.get("/assets/{fleet}/{asset:path}")
async def asset_page(request: Request, fleet: str, asset: str, fragment: str | None = None) -> Response:
    """Answer with the asset. Raises NotFound."""
    return await show(request, "asset", "/", PARTS, fragment=fragment, fleet=fleet, asset=asset)


def chart(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the scores of the range, with the alerts below them."""
    fleet, asset = ask.query["fleet"], ask.query["asset"]
    ends = reader.asset_ends(fleet)
    if asset not in ends:
        raise NotFound(f"an asset {asset} in fleet {fleet}")
    period, since, until = _range(reader, ask, fleet, ends[asset])
    is_exact = until - since <= EXACT_US
    points: list[tuple[int, float | None]]
    if is_exact:
        windows = reader.scores(asset, fleet, since=from_us(since), until=from_us(until + 1))
        points = [(as_us(row["end"]) or 0, row["score"]) for row in windows]
    else:
        hours = reader.score_hours(asset, fleet, since=from_us(since), until=from_us(until))
        points = [((as_us(row["start"]) or 0) + HOUR_US // 2, row["score"]) for row in hours]
    alerts = _alerts(reader, fleet, asset, since, until)
    spans = [_span(row, until) for row in alerts]
    scores = [score for _, score in points if score is not None]
    drawn = drawing.score_chart(
        [at for at, _ in points],
        [float("nan") if score is None else score for _, score in points],
        title=f"Anomaly scores of {asset}",
        desc=f"Highest {number(max(scores, default=None))}; {count(len(alerts), 'alert')} in this time.",
        since_us=since,
        until_us=until,
        zone=ask.zone,
        spans=spans,
        height=150,
    )
    worst = sorted((point for point in points if point[1] is not None), key=lambda point: -(point[1] or 0))[:20]
    return {
        "fleet": fleet,
        "asset": asset,
        "range": period,
        "ranges": list(RANGES),
        "since": since,
        "until": until,
        "drawn": svg(drawn),
        "is_exact": is_exact,
        "n": len(points),
        "n_unscored": len(points) - len(scores),
        "last": ends[asset],
        "rows": sorted((at, number(score)) for at, score in worst),
        "alerts": [alert_row(reader, ask, row, with_hours=False) for row in alerts[:MAX_ALERTS]],
        "n_alerts": len(alerts),
        "labels": reader.interval_labels(
            fleet=fleet, asset=_exactly(asset), since=from_us(since), until=from_us(until)
        ),
        "address": address("assets", fleet, asset),
    }


def _range(reader: Reader, ask: Ask, fleet: str, last: int | None) -> tuple[str, int, int]:
    """Return the name of the range, and its limits. A stretch outside of the range moves it."""
    period = ask.query.get("range", "7d") if ask.query.get("range", "7d") in RANGES else "7d"
    end = last or newest(reader, ask).get(fleet) or ask.now_us
    stretch = _stretch(ask)
    if stretch is not None and "range" not in ask.query:
        fitting = [name for name, span in RANGES.items() if span >= 3 * (stretch[1] - stretch[0])]
        period = fitting[0] if fitting else "90d"
    if stretch is not None and not end - RANGES[period] <= stretch[0] <= stretch[1] <= end:
        middle = (stretch[0] + stretch[1]) // 2
        end = middle + RANGES[period] // 2
    return period, end - RANGES[period], end


def _stretch(ask: Ask) -> tuple[int, int] | None:
    begin, end = ask.time("from"), ask.time("to")
    if begin is None or end is None or begin == end:
        return None
    return (begin, end) if begin < end else (end, begin)


def _alerts(reader: Reader, fleet: str, asset: str, since: int, until: int) -> list[dict[str, Any]]:
    found = reader.alerts(fleet=fleet, asset=_exactly(asset), until=from_us(until + 1), show_suppressed=True, limit=500)
    return [
        row
        for row in found
        if row["asset"] == asset and (as_us(row["closed_at"] or row["updated_at"]) or until) >= since
    ]


def _exactly(name: str) -> str:
    """Return a pattern that the name matches. Its own signs become any sign."""
    return name.replace("[", "?")


def _span(row: dict[str, Any], until: int) -> tuple[int, int, str]:
    end = as_us(row["closed_at"]) or until
    kind = row["label"] or ("open" if row["state"] != "closed" else "alert")
    return as_us(row["opened_at"]) or 0, end, kind


def sensors(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the sensors by their part in the alerts of the range."""
    fleet, asset = ask.query["fleet"], ask.query["asset"]
    _, since, until = _range(reader, ask, fleet, reader.asset_ends(fleet).get(asset))
    return {"ranked": _ranked(reader, asset, fleet, since, until)}


def _ranked(reader: Reader, asset: str, fleet: str, since: int, until: int) -> list[dict[str, Any]]:
    found = reader.top_sensors(asset, fleet, from_us(since), from_us(until), limit=8)
    return [
        row | {"bar": svg(drawing.contributions(row["share"], title=f"{row['name']}: {percent(row['share'])}"))}
        for row in found
    ]


def stretch(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the outstanding parts of the chosen stretch: sensors of the asset, and assets of the fleet."""
    fleet, asset = ask.query["fleet"], ask.query["asset"]
    chosen = _stretch(ask)
    end = reader.asset_ends(fleet).get(asset) or ask.now_us
    common = {"fleet": fleet, "asset": asset, "address": address("assets", fleet, asset)}
    common["range"] = ask.query.get("range", "")
    if chosen is None:
        return common | {"is_chosen": False, "from": end - DAY_US, "to": end}
    begin, until = chosen
    windows = list(reader.scores(asset, fleet, since=from_us(begin), until=from_us(until), limit=20_000))
    scores = [row["score"] for row in windows if row["score"] is not None]
    drawn = drawing.score_chart(
        [as_us(row["end"]) or 0 for row in windows],
        [float("nan") if row["score"] is None else row["score"] for row in windows],
        title=f"Anomaly scores of {asset} in the stretch",
        desc=f"Highest {number(max(scores, default=None))}.",
        since_us=begin,
        until_us=until,
        zone=ask.zone,
        height=110,
    )
    alerts = _alerts(reader, fleet, asset, begin, until)
    assets = reader.top_assets(fleet, from_us(begin), from_us(until), limit=MAX_ASSETS)
    most = max((row["score"] or 0.0 for row in assets), default=0.0) or 1.0
    return common | {
        "is_chosen": True,
        "from": begin,
        "to": until,
        "drawn": svg(drawn) if scores else "",
        "n": len(windows),
        "n_anomalous": sum(row["verdict"] == "anomalous" for row in windows),
        "highest": max(scores, default=None),
        "ranked": _ranked(reader, asset, fleet, begin, until),
        "alerts": [alert_row(reader, ask, row, with_hours=False) for row in alerts[:5]],
        "assets": [
            row
            | {
                "address": address("assets", fleet, row["asset"], **{"from": _iso(begin), "to": _iso(until)}),
                "bar": svg(
                    drawing.contributions(
                        (row["score"] or 0.0) / most,
                        title=row["asset"],
                        kind="" if row["n_anomalous"] else "calm",
                    )
                ),
            }
            for row in assets
        ],
    }


def _iso(us: int) -> str:
    return from_us(us).strftime("%Y-%m-%dT%H:%M:%SZ")


PARTS = {
    "chart": Part(chart, "scores alerts"),
    "sensors": Part(sensors, "alerts"),
    "stretch": Part(stretch, "database"),
}
