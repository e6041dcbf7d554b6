"""One alert: its course, its sensors beside the expected values, similar alerts, and the answers to it.

Input: the alert with its evidence. Output: the page. Invariant: an alert about a sensor or the records has no scores,
and its page shows its message and its remedy in their place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from monitor import drawing, explain
from monitor.clock import from_us
from monitor.console.pages.now import fleet_config, subject
from monitor.console.pages.view import HOUR_US, Ask, Part, address, as_us, duration, lasted_s, number, show, svg
from monitor.wording import contributions, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.explain import Evidence
    from monitor.store.reader import Reader

router = APIRouter(include_in_schema=False)

MAX_SENSORS = 6
"""Sensors that are drawn, those blamed most first. The others are in a list below them."""
MAX_ROWS = 24
"""Rows of the table behind a drawing."""


@router.get("/alerts/{alert_id:int}")
async def alert_page(request: Request, alert_id: int, fragment: str | None = None) -> Response:
    """Answer with the alert. Raises NotFound."""
    return await show(request, "alert", "/alerts", PARTS, fragment=fragment, alert_id=str(alert_id))


def summary(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the title, the facts, the states and the history."""
    row = _alert(reader, ask)
    evidence = _evidence(reader, row)
    opened, last = _times(row)
    return {
        "row": row,
        "where": subject(row),
        "sentence": _sentence(ask, row, evidence),
        "is_open": _is_open(row),
        "strip": svg(_strip(ask, row, opened, last)),
        "states": row["transitions"],
        "acts": row["acts"],
        "shelves": [shelf for shelf in row["shelves"] if shelf["ended_at"] is None],
        "incident": row["incident"],
        "lasted": duration(lasted_s(row)),
        "asset_page": _asset_page(row, opened, last),
    }


def charts(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the score and the sensors over the time of the alert."""
    row = _alert(reader, ask)
    if row["class"] != "process":
        return {"row": row, "score": None, "sensors": [], "others": [], "has_evidence": False}
    evidence = _evidence(reader, row)
    opened, last = _times(row)
    ends, scores = _scores(reader, row, evidence, opened, last)
    since, until = (int(ends[0]), int(ends[-1])) if len(ends) else (opened, last)
    if evidence is not None and len(evidence.cell_us):
        since, until = min(since, int(evidence.cell_us[0])), max(until, int(evidence.cell_us[-1]))
    edges = [opened, *([last] if row["closed_at"] else [])]
    units = _units(ask, row["fleet"])
    sensors = [] if evidence is None else _sensors(ask, row, evidence, since, until, edges, units)
    return {
        "row": row,
        "has_evidence": evidence is not None,
        "score": None if not len(ends) else svg(_score_chart(ask, row, ends, scores, since, until, edges)),
        "score_rows": _thin([(int(at), number(float(one))) for at, one in zip(ends, scores, strict=True)]),
        "sensors": sensors[:MAX_SENSORS],
        "others": sensors[MAX_SENSORS:],
    }


def causes(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the contributions, the clearing set and the similar alerts."""
    row = _alert(reader, ask)
    units = _units(ask, row["fleet"])
    return {
        "row": row,
        "contributions": [_contribution(sensor, units) for sensor in row["sensors"][:8] if sensor["share"] >= 0.005],
        "has_onset": any(sensor.get("onset") for sensor in row["sensors"]),
        "clearing": row["clearing"],
        "similar": reader.similar(row["id"], n=5) if row["class"] == "process" else [],
    }


def _alert(reader: Reader, ask: Ask) -> dict[str, Any]:
    alert_id = int(ask.query["alert_id"])
    found: dict[str, Any] = reader.alert(alert_id)
    return found


def _is_open(row: Mapping[str, Any]) -> bool:
    return bool(row["state"] != "closed")


def _evidence(reader: Reader, row: Mapping[str, Any]) -> Evidence | None:
    return reader.evidence(row["id"]) if row["class"] == "process" else None


def _times(row: Mapping[str, Any]) -> tuple[int, int]:
    opened, last = as_us(row["opened_at"]), as_us(row["closed_at"] or row["updated_at"])
    return opened or 0, max(last or 0, opened or 0)


def _units(ask: Ask, fleet: str | None) -> dict[str, str]:
    config = fleet_config(ask, fleet or "")
    return {} if config is None else {name: each.unit for name, each in config.sensor.items() if each.unit}


def _sentence(ask: Ask, row: Mapping[str, Any], evidence: Evidence | None) -> str:
    if row["class"] != "process":
        message = str(row["message"] or row["kind"])
        is_name = message.startswith(row["sensor"] or "\n")  # names keep their case
        first = message[:1] if is_name else message[:1].upper()
        return first + message[1:] + ("" if message.endswith(".") else ".")
    if told := explain.sentence(row, evidence, _units(ask, row["fleet"])):
        return f"{told}."
    peak = f"Its score reached {number(row['peak_score'])} times the threshold"
    sensors = contributions(row["sensors"])
    return f"{peak}{f', most of it by {sensors}' if sensors else ''}, for {duration(lasted_s(row))}."


def _asset_page(row: Mapping[str, Any], opened: int, last: int) -> str | None:
    name = row["asset"]
    if not name or not row["fleet"]:
        return None
    room = max(HOUR_US, (last - opened) // 2)
    first, end = (from_us(at).strftime("%Y-%m-%dT%H:%M:%SZ") for at in (opened - room, last + room))
    return address("assets", row["fleet"], name, **{"from": first, "to": end})


def _strip(ask: Ask, row: Mapping[str, Any], opened: int, last: int) -> str:
    steps = [(step["state"], as_us(step["at"]) or 0) for step in row["transitions"]]
    room = max((last - opened) // 12, 60_000_000)
    since, until = min([opened, *(at for _, at in steps)]), last + room
    ends = [at for _, at in steps[1:]] + [until]
    states = [("pending", since, steps[0][1])] if steps and steps[0][1] > since else []
    states += [(state, at, end) for (state, at), end in zip(steps, ends, strict=True)]
    return drawing.state_strip(
        states,
        since,
        until,
        title="States of the alert",
        desc=", then ".join(f"{state} from {ask.when(at)}" for state, at in steps),
        zone=ask.zone,
        marks=[(as_us(act["at"]) or 0, f"{act['act']} by {act['by']}") for act in row["acts"]],
    )


def _scores(
    reader: Reader, row: Mapping[str, Any], evidence: Evidence | None, opened: int, last: int
) -> tuple[Sequence[int], Sequence[float]]:
    """Return ends and scores: those stored around the alert, or those of its evidence once they are deleted."""
    around = max((last - opened) // 3, HOUR_US)
    first, end = from_us(opened - around), from_us(last + around)
    stored = [
        (at, window["score"])
        for window in reader.scores(row["asset"], row["fleet"], since=first, until=end, limit=5000)
        if (at := as_us(window["end"])) is not None and window["score"] is not None
    ]
    if stored:
        return [at for at, _ in stored], [score for _, score in stored]
    if evidence is not None:
        return evidence.end_us.tolist(), evidence.score.tolist()
    return [], []


def _score_chart(
    ask: Ask,
    row: Mapping[str, Any],
    ends: Sequence[int],
    scores: Sequence[float],
    since: int,
    until: int,
    edges: list[int],
) -> str:
    return drawing.score_chart(
        ends,
        scores,
        title="Anomaly score against the threshold",
        desc=f"The peak is {number(row['peak_score'])} times the threshold, at {ask.when(as_us(row['peak_at']) or 0)}.",
        since_us=since,
        until_us=until,
        zone=ask.zone,
        edges_us=edges,
        height=132,
    )


def _sensors(
    ask: Ask,
    row: Mapping[str, Any],
    evidence: Evidence,
    since: int,
    until: int,
    edges: list[int],
    units: dict[str, str],
) -> list[dict[str, Any]]:
    """Return a drawing of each sensor, those blamed most first."""
    share = {sensor["name"]: sensor["share"] for sensor in row["sensors"]}
    order = sorted(range(len(evidence.sensors)), key=lambda c: (-share.get(evidence.sensors[c], 0.0), c))
    bands = explain.bands(evidence)
    found = []
    for place, c in enumerate(order):
        name = evidence.sensors[c]
        unit = units.get(name, "")
        low, high = bands.low[:, c], bands.high[:, c]
        actual, expected = evidence.values[:, c], evidence.expected[:, c]
        times = evidence.cell_us
        chart = drawing.sensor_chart(
            times,
            actual,
            expected=expected,
            low=low,
            high=high,
            title=f"{name}{f' in {unit}' if unit else ''}",
            desc=f"Measured values against the expected band; {percent(share.get(name, 0.0))} of the peak score.",
            since_us=since,
            until_us=until,
            zone=ask.zone,
            edges_us=edges,
            with_axis=place == min(len(order), MAX_SENSORS) - 1,
        )
        rows = _thin(
            [
                (int(at), number(_known(a)), number(_known(e)), f"{number(_known(lo))} … {number(_known(hi))}")
                for at, a, e, lo, hi in zip(times, actual, expected, low, high, strict=True)
            ]
        )
        found.append({"name": name, "unit": unit, "share": share.get(name), "chart": svg(chart), "rows": rows})
    return found


def _known(value: Any) -> float | None:
    return None if value != value else float(value)


def _thin(rows: list[Any]) -> list[Any]:
    """Return at most `MAX_ROWS` rows at even distances, with the first and the last."""
    if len(rows) <= MAX_ROWS:
        return rows
    return [rows[round(k * (len(rows) - 1) / (MAX_ROWS - 1))] for k in range(MAX_ROWS)]


def _contribution(sensor: Mapping[str, Any], units: Mapping[str, str]) -> dict[str, Any]:
    onset = sensor.get("onset") or {}
    title = f"{sensor['name']}: {percent(sensor['share'])} at the peak"
    if onset:
        title += f", {percent(onset['share'])} at the onset"
    return {
        "name": sensor["name"],
        "share": sensor["share"],
        "onset": onset.get("share"),
        "expected": sensor["expected"],
        "actual": sensor["actual"],
        "unit": units.get(sensor["name"], ""),
        "is_change": sensor.get("quantity") == "change",
        "bar": svg(drawing.contributions(sensor["share"], onset.get("share"), title=title)),
    }


PARTS = {
    "summary": Part(summary, "alerts"),
    "charts": Part(charts, "alerts"),
    "causes": Part(causes, "alerts"),
}
