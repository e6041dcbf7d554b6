"""The versions of a fleet: the proposal that waits, the list, trainings, history, and the difference of two.

Input: the database. Output: parts of a fleet's page. Invariant: the page only reads. Promote, reject, roll back and
train are forms, which post to `console/model_forms.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor import drill_report, version_words
from monitor.clock import from_us
from monitor.console.pages.now import fleet_config
from monitor.console.pages.view import Ask, as_us, duration, svg
from monitor.errors import NotFound
from monitor.types import Alias
from monitor.version_differences import differences, replay_command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.store.reader import Reader

    Row = dict[str, Any]

MAX_VERSIONS, MAX_JOBS, MAX_EVENTS, MAX_CHANGES = 20, 5, 30, 6
DECIDED_BEFORE = ("retired", "rolled_back", "rejected")
"""States of a version that an operator may promote although it waits for nothing."""


def fleet_of(reader: Reader, ask: Ask) -> str:
    """Return the fleet of a page. Raises NotFound."""
    name = ask.query["fleet"]
    known = {row["fleet"] for row in reader.fleets()} | {each.name for each in ask.config.fleets}
    if name not in known:
        raise NotFound(f"fleet {name}; there are {', '.join(sorted(known))}")
    return name


def _of_alias(rows: list[Row], alias: Alias) -> Row | None:
    return next((row for row in rows if alias in (row["state"], *row["aliases"])), None)


def proposal(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the version that waits for a decision or is in shadow, beside the champion."""
    name = fleet_of(reader, ask)
    rows = reader.models(fleet=name)
    row, champion = _of_alias(rows, Alias.CHALLENGER), _of_alias(rows, Alias.CHAMPION)
    if row is None:
        return {"fleet": name, "row": None}
    changes = [] if champion is None else _changes(reader, champion, row)
    changes.sort(key=lambda change: not change["is_large"])
    config = fleet_config(ask, name)
    period = None if config is None or row["state"] != "shadow" else config.retrain.promote.shadow
    shadow = next(iter(reader.model_checks(kind="shadow", version=row["version"], limit=1)), None)
    return {
        "fleet": name,
        "row": row,
        "champion": champion,
        "verdict": row["gate_verdict"],
        "judgement": version_words.judgement(row["gate_verdict"]),
        "checks": version_words.checks(row["gate_verdict"]),
        "lost": version_words.lost_faults(row["gate_verdict"]),
        "alerts": _counts(row["gate_verdict"]) if champion else None,
        "shadow": shadow,
        "until": None if period is None else (as_us(row["trained_at"]) or 0) + round(period.total_seconds() * 1e6),
        "changes": changes[:MAX_CHANGES],
        "n_changes": len(changes),
        "replay": None if champion is None else replay_command(champion["version"], row["version"]),
    }


def _counts(verdict: Mapping[str, Any] | None) -> dict[str, int] | None:
    """Return the alerts of both versions on the windows that the gate judged. None = it judged none."""
    counts = (verdict or {}).get("alerts")
    return {name: int(counts.get(name) or 0) for name in ("same", "gained", "lost")} if counts else None


def versions(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the versions of a fleet, and the one that a roll-back returns to."""
    name = fleet_of(reader, ask)
    rows = reader.models(fleet=name)
    previous = _of_alias(rows, Alias.PREVIOUS)
    return {
        "fleet": name,
        "rows": [row | {"chips": [alias for alias in row["aliases"] if alias != row["state"]]} for row in rows][
            :MAX_VERSIONS
        ],
        "n": len(rows),
        "champion": _of_alias(rows, Alias.CHAMPION),
        "previous": None if previous is None or previous["pruned_at"] else previous,
    }


def trainings(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the trainings of a fleet, with the time that the running one still needs."""
    name = fleet_of(reader, ask)
    jobs = [job for job in reader.jobs(fleet=name, limit=4 * MAX_JOBS) if job["kind"] == "retrain"][:MAX_JOBS]
    now = from_us(ask.now_us)
    rows = [
        job | {"why": version_words.reason_words(job), "left": _left(version_words.time_left_s(job, now))}
        for job in jobs
    ]
    return {
        "fleet": name,
        "rows": rows,
        "is_training": any(job["state"] in ("queued", "running") for job in jobs),
        "is_configured": fleet_config(ask, name) is not None,
    }


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"about {duration(seconds)} left"


def history(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the events of a fleet's versions, the newest first."""
    name = fleet_of(reader, ask)
    events = reader.model_events(fleet=name, limit=MAX_EVENTS)
    return {"fleet": name, "rows": version_words.history(events)}


def drill(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the newest drill of a fleet: its picture, its words, and its problem."""
    name = fleet_of(reader, ask)
    row = next(iter(reader.model_checks(kind="drill", fleet=name, limit=1)), None)
    recent = [job for job in reader.jobs(fleet=name, limit=4 * MAX_JOBS) if job["kind"] == "drill"]
    found = {
        "fleet": name,
        "row": row,
        "job": next((job for job in recent if job["state"] in ("queued", "running")), None),
        "is_configured": fleet_config(ask, name) is not None,
    }
    if row is None:
        return found
    return found | {
        "picture": svg(drill_report.picture(row["result"])),
        "said": drill_report.sentences(row["result"]),
        "legend": drill_report.LEGEND,
    }


def difference(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the differences of two versions of a fleet. Default: the champion and the challenger. Raises NotFound."""
    name = fleet_of(reader, ask)
    before = reader.model(ask.query.get("before", Alias.CHAMPION), fleet=name)
    after = reader.model(ask.query.get("after", Alias.CHALLENGER), fleet=name)
    changes = _changes(reader, before, after)
    parts = dict.fromkeys(change["part"] for change in changes)
    return {
        "fleet": name,
        "before": before,
        "after": after,
        "parts": {part: [change for change in changes if change["part"] == part] for part in parts},
        "versions": [row["version"] for row in reader.models(fleet=name)],
        "checks": version_words.checks(after["gate_verdict"]),
        "projected": version_words.projected_alerts(after["gate_verdict"]),
        "replay": replay_command(before["version"], after["version"]),
    }


def _changes(reader: Reader, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Row]:
    first, second = ({**row, "card": reader.whole_card(row)} for row in (before, after))
    return [change.as_json() for change in differences(first, second)]
