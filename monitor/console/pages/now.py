"""Now: figures of the day, open alerts, and a swim lane of each asset.

Input: the database. Output: the first screen. Invariant: the lanes end at the newest window of the fleet. Without new
records that is earlier than the clock, and the page says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from monitor import drawing
from monitor.clock import from_us
from monitor.console.pages.view import DAY_US, HOUR_US, Ask, Part, address, as_us, duration, number, show, svg
from monitor.errors import NotFound
from monitor.store.burn import budget_report
from monitor.types import Alias
from monitor.version_words import projected_alerts
from monitor.wording import contributions, count, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.budget import BudgetReport
    from monitor.config.tree import FleetConfig
    from monitor.store.reader import Reader

    Lanes = Mapping[str, Sequence[float | None]]

router = APIRouter(include_in_schema=False)

RANGES = {"6h": 6 * HOUR_US, "24h": DAY_US, "7d": 7 * DAY_US, "30d": 30 * DAY_US}
COLUMNS = 72
HOURS = 48
MAX_ALERTS = 12
PAGE = 25
MAX_SILENT = 12
BEHIND_US = HOUR_US
"""The newest window may be this much older than the clock before the page says so."""


@router.get("/")
async def now(request: Request, fragment: str | None = None) -> Response:
    """Answer with the screen."""
    return await show(request, "now", "/", PARTS, fragment=fragment)


def tiles(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the figures of the day."""
    counts = reader.open_counts()
    return {
        "n_open": sum(row["n"] for row in counts),
        "n_critical": sum(row["n"] for row in counts if row["severity"] == "critical"),
        "n_new": sum(row["n"] for row in counts if not row["is_acknowledged"]),
        "by_class": [(name, n) for name in ("process", "sensor", "data") if (n := _of_class(counts, name))],
        "burn": ask.once("burn", 60, lambda: _worst_burn(reader)),
        "health": ask.once("health", 60, lambda: _health(reader, ask)),
        **_lag(reader, ask),
    }


def proposals(reader: Reader, _ask: Ask) -> dict[str, Any]:
    """Return the versions that wait for a person's decision."""
    rows = [row for row in reader.models() if row["state"] == "candidate" and Alias.CHALLENGER in row["aliases"]]
    return {"rows": [row | {"alerts": projected_alerts(row["gate_verdict"])} for row in rows]}


def _of_class(counts: list[dict[str, Any]], name: str) -> int:
    return sum(row["n"] for row in counts if row["class"] == name)


def _worst_burn(reader: Reader) -> dict[str, Any] | None:
    """Return the budget of the fleet that has used most of it, in the last four weeks."""
    found = [
        (report.status == "violated", report.recent.ratio, row["fleet"], report)
        for row in reader.models()
        if row["state"] == "champion" and (report := report_of(reader, row)) is not None
    ]
    if not found:
        return None
    is_violated, ratio, fleet, report = max(found, key=lambda each: each[:3])
    return {
        "fleet": fleet,
        "ratio": ratio,
        "status": str(report.status),
        "n_alarms": report.recent.n_alarms,
        "allowed": report.recent.allowed,
        "is_violated": is_violated,
    }


def report_of(reader: Reader, row: Mapping[str, Any]) -> BudgetReport | None:
    """Return the budget of a version, by the card in the database."""
    card = row.get("card") or reader.model(row["version"])["card"]
    return budget_report(reader.fetch, row["fleet"], row["version"], card.get("threshold"))


def _health(reader: Reader, ask: Ask) -> dict[str, Any] | None:
    """Return the alarm health of all fleets in the last week of event time."""
    ends = newest(reader, ask)
    if not ends:
        return None
    until = max(ends.values())
    found: dict[str, Any] = reader.alert_health(since=from_us(until - 7 * DAY_US), until=from_us(until + 1))["all"]
    return found


def _lag(reader: Reader, ask: Ask) -> dict[str, Any]:
    partitions = reader.partitions()
    saved = [at for row in partitions if (at := as_us(row["saved_at"])) is not None]
    lags = [row["lag"] for row in partitions if row["lag"] is not None]
    daemons = [at for row in reader.daemons() if (at := as_us(row["heartbeat_at"])) is not None]
    return {
        "lag": sum(lags) if lags else None,
        "n_partitions": len(partitions),
        "written": max(saved, default=None),
        "is_running": any(ask.now_us - at < 60_000_000 for at in daemons),
        "heartbeat": max(daemons, default=None),
    }


def alerts(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the open alerts, the most urgent first."""
    found = reader.alerts(state="open", limit=500, sort="severity")
    found.sort(key=lambda row: row["acknowledged_by"] is not None or row["suppressed_by"] is not None)
    return {
        "rows": [alert_row(reader, ask, row) for row in found[:MAX_ALERTS]],
        "n": len(found),
        "n_new": sum(not (row["acknowledged_by"] or row["suppressed_by"]) for row in found),
        "start": None if found else getting_started(reader, ask),
    }


def alert_row(reader: Reader, ask: Ask, row: dict[str, Any], *, with_hours: bool = True) -> dict[str, Any]:
    """Return an alert as the lists show it."""
    is_process = row["class"] == "process"
    shown = dict(row)
    shown["title"] = f"{subject(row)} · {row['sensor']}" if row["sensor"] else subject(row)
    shown["what"] = contributions(row["sensors"]) if is_process else row["message"] or ""
    shown["kind_words"] = "" if is_process else str(row["kind"] or "").replace("_", " ")
    shown["hours"] = ""
    if with_hours and is_process:
        hours = _hours(reader, ask, row["fleet"]).get(row["asset"])
        if hours is not None:
            shown["hours"] = _hour_bar(row["asset"], hours)
    return shown


def subject(row: Mapping[str, Any]) -> str:
    """Return the thing that an alert is about: an asset, a sensor or field, or a partition."""
    return str(row["asset"] or row["subject"] or f"{row['topic']}/{row['partition']}")


def _hours(reader: Reader, ask: Ask, fleet: str) -> Lanes:
    """Return the worst score of each asset in each of the last 48 hours."""
    until = newest(reader, ask).get(fleet)
    if until is None:
        return {}
    top = -(-until // HOUR_US) * HOUR_US
    return fleet_lanes(reader, ask, fleet, top - HOURS * HOUR_US, top, HOURS)


def _hour_bar(asset: str, hours: Sequence[float | None]) -> Any:
    n_hot = sum(score is not None and score >= 1 for score in hours)
    return svg(drawing.lane(hours, title=f"{asset}, last 48 hours", desc=f"{n_hot} hours above the threshold"))


def newest(reader: Reader, ask: Ask) -> dict[str, int]:
    """Return the end of the newest window of each fleet."""
    found: dict[str, int] = ask.once("newest", 2, reader.newest_windows)
    return found


def fleet_lanes(reader: Reader, ask: Ask, fleet: str, since_us: int, until_us: int, columns: int) -> Lanes:
    """Return the worst score of each asset of a fleet by column."""
    key = ("lanes", fleet, since_us, until_us, columns)
    found: Lanes = ask.once(
        key, 10, lambda: reader.lanes(fleet, from_us(since_us), from_us(until_us), columns)
    )
    return found


def lanes(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return a page of the lanes of one fleet, the worst asset first, and the silent assets."""
    known = sorted((row for row in reader.fleets() if row["assets"]), key=lambda row: -row["assets"])
    fleets = [row["fleet"] for row in known]
    chosen = ask.query.get("fleet") or (fleets[0] if fleets else "")
    if chosen and chosen not in fleets:
        raise NotFound(f"fleet {chosen}; the database knows {', '.join(fleets) or 'none yet'}")
    end_us = newest(reader, ask).get(chosen)
    period = ask.query.get("range", "24h") if ask.query.get("range", "24h") in RANGES else "24h"
    word = ask.query.get("q", "")
    common: dict[str, Any] = {"fleets": fleets, "fleet": chosen, "range": period, "ranges": list(RANGES), "q": word}
    if end_us is None:
        return common | {"rows": [], "n": 0, "silent": [], "n_silent": 0, "is_behind": False}
    columns = _columns(ask, chosen, RANGES[period])
    column_us = RANGES[period] // columns
    until_us = -(-end_us // column_us) * column_us
    since_us = until_us - RANGES[period]
    found = fleet_lanes(reader, ask, chosen, since_us, until_us, columns)
    opened = reader.open_by_asset(chosen)
    names = [name for name in found if word.casefold() in name.casefold()]
    worst = {name: max((score for score in found[name] if score is not None), default=None) for name in names}
    names.sort(key=lambda name: (name not in opened, -_or(worst[name], -1.0), name))
    n_pages = max(1, -(-len(names) // PAGE))
    page = min(ask.number("page"), n_pages)
    hours = _hours(reader, ask, chosen)
    rows = [
        {
            "asset": name,
            "address": address("assets", chosen, name),
            "worst": worst[name],
            "alert": opened.get(name),
            "lane": _lane(ask, chosen, name, found[name], since_us, until_us, worst[name]),
            "bar": _hour_bar(name, hours[name]) if name in hours else "",
        }
        for name in names[(page - 1) * PAGE : page * PAGE]
    ]
    silent = _silent(reader, ask, chosen, end_us)
    return common | {
        "rows": rows,
        "n": len(names),
        "page": page,
        "n_pages": n_pages,
        "since": since_us,
        "until": until_us,
        "axis": svg(drawing.time_axis(since_us, until_us, zone=ask.zone, n=6)),
        "silent": silent[:MAX_SILENT],
        "n_silent": len(silent),
        "is_behind": ask.now_us - end_us > BEHIND_US,
        "newest": end_us,
    }


def _columns(ask: Ask, fleet: str, span_us: int) -> int:
    """Return the number of columns: fewer where windows are further apart than a column is wide."""
    config = fleet_config(ask, fleet)
    step_us = 1 if config is None else config.stride * config.interval_us
    return max(1, min(COLUMNS, span_us // step_us))


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _lane(
    ask: Ask, fleet: str, name: str, scores: Sequence[float | None], since: int, until: int, worst: float | None
) -> Any:
    step = (until - since) // max(1, len(scores))

    def link(begin: int, end: int) -> str:
        # A stretch around it, so that its beginning and end are seen.
        room = max(2, (end - begin) // 2)
        first, last = since + max(0, begin - room) * step, since + min(len(scores), end + room) * step
        return address("assets", fleet, name, **{"from": _iso(first), "to": _iso(last)})

    def words(begin: int, end: int) -> str:
        return f"{name}, above the threshold from {ask.when(since + begin * step)} to {ask.when(since + end * step)}"

    n_hot = sum(score is not None and score >= 1 for score in scores)
    desc = f"Worst score {number(worst)}; {n_hot} of {len(scores)} columns above the threshold"
    return svg(drawing.lane(scores, title=f"Scores of {name}", desc=desc, link=link, name=words))


def _iso(us: int) -> str:
    return from_us(us).strftime("%Y-%m-%dT%H:%M:%SZ")


def _silent(reader: Reader, ask: Ask, fleet: str, end_us: int) -> list[dict[str, Any]]:
    """Return the assets with a last window long before the newest of their fleet, the longest silence first."""
    limit_us = 2 * HOUR_US
    if (config := fleet_config(ask, fleet)) is not None:
        step_us = max(config.stride * config.interval_us, config.interval_us)
        limit_us = max(10 * step_us, config.length * config.interval_us)
    rows = [
        {"asset": name, "address": address("assets", fleet, name), "last": last}
        for name, last in reader.asset_ends(fleet).items()
        if last is not None and end_us - last > limit_us
    ]
    return sorted(rows, key=lambda row: row["last"])


def fleet_config(ask: Ask, fleet: str) -> FleetConfig | None:
    """Return the settings of a fleet. None = the configuration has none of this name."""
    return next((each for each in ask.config.fleets if each.name == fleet), None)


# ---------------------------------------------------------------- cold start


def getting_started(reader: Reader, ask: Ask) -> list[dict[str, Any]] | None:
    """Return the steps to the first scores: the missing parts, and their time. None = all have scores."""
    state = _lag(reader, ask)
    fleets = reader.fleets()
    champions = {row["fleet"] for row in reader.models() if row["state"] == "champion"}
    missing = [fleet.name for fleet in ask.config.fleets if fleet.name not in champions]
    if not missing:
        return None
    records = sum(row["counters"].get("records", 0) for row in reader.partitions())
    used = sum(row["counters"].get("readings", 0) for row in reader.partitions())
    n_all = sum(row["assets"] for row in fleets)
    steps = [
        _step("database", True, "The database is there."),
        _step("daemon", state["is_running"], *_daemon_words(state, ask)),
        _step(
            "records", records > 0, f"{count(records, 'record')} read.",
            f"No record has arrived yet. Topics: {', '.join(ask.config.topics)}.",
        ),
        _step(
            "readings", used > 0, f"{count(used, 'reading')} of {count(n_all, 'asset')}.",
            "No reading could be used yet. Ingestion shows why records are refused.",
        ),
    ]  # fmt: skip
    windows = reader.window_counts()
    active = {job["fleet"]: job for job in reader.jobs(limit=50) if job["state"] in ("queued", "running")}
    n_assets = {row["fleet"]: row["assets"] for row in fleets}
    steps += [_model_step(ask, fleet, windows, n_assets.get(fleet, 0), active.get(fleet)) for fleet in missing]
    is_next = True
    for step in steps:
        step["state"] = "ok" if step["is_done"] else "now" if is_next else "todo"
        is_next = is_next and step["is_done"]
    return steps


def _model_step(
    ask: Ask, fleet: str, windows: Mapping[str, Mapping[str, int]], n_assets: int, job: Mapping[str, Any] | None
) -> dict[str, Any]:
    if job is not None:
        text = f"The first model of {fleet} is being trained, {percent(job['progress'])} done. Then scores begin."
        return _step("model", False, "", text) | {"share": job["progress"]}
    config = fleet_config(ask, fleet)
    n = windows[fleet]["n"] if fleet in windows else 0
    needed = 200 if config is None else config.retrain.min_windows
    if config is None or n >= needed:
        hint = f"monitor retrain {fleet}"
        return _step("model", False, "", f"{fleet} has {n:,} windows and no model yet. Start a training: {hint}")
    text = f"The first model of {fleet} needs {needed:,} healthy windows; there are {n:,}."
    if n_assets:
        rate_us = config.stride * config.interval_us / n_assets
        text += f" At one reading each {duration(config.interval_us / 1e6)} it is trained in about "
        text += f"{duration((needed - n) * rate_us / 1e6)}."
    return _step("model", False, "", text) | {"share": min(1.0, n / needed)}


def _step(name: str, is_done: bool, done: str, missing: str = "") -> dict[str, Any]:
    return {"name": name, "is_done": is_done, "text": done if is_done else missing, "share": None}


def _daemon_words(state: Mapping[str, Any], ask: Ask) -> tuple[str, str]:
    if state["heartbeat"] is None:
        return "A daemon is running.", "No daemon has started yet: monitor run"
    last = duration((ask.now_us - state["heartbeat"]) / 1e6)
    return "A daemon is running.", f"The daemon's last heartbeat is {last} old. Start it: monitor run"


PARTS = {
    "tiles": Part(tiles, "alerts ingestion models"),
    "proposals": Part(proposals, "models"),
    "alerts": Part(alerts, "alerts"),
    "lanes": Part(lanes, "scores"),
}
