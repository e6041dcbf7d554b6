"""A rich database for the console's tests: a large fleet, a small one, and one that has no model yet.

    python -m tests.console_database FILE [ASSETS]

Input: a path and a moment. Output: a SQLite file as a daemon leaves it: scores of two days, hours of eight, alerts of
all classes with evidence, answers, shelves, incidents, quarantine, trainings. Invariant: a function of its arguments.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from monitor.drill_report import KINDS
from monitor.store.engine import AsyncStore
from monitor.store.evidence_chunks import chunk_of, encode
from monitor.types import EvidencePart

HOUR_US = 3_600_000_000
STEP_US = 1_800_000_000
"""Time between two windows of an asset."""
SPAN_US = 6 * HOUR_US
"""Length of a window."""
HOURS = 8 * 24
STEPS = 96
SENSORS = ("power", "wind_speed", "pitch", "rotor_speed", "gearbox_temperature", "vane")
CONFIG = """
[kafka]
bootstrap = "127.0.0.1:9092"
topics = ["plant"]
[store]
url = "sqlite:///{path}"
[[fleet]]
name = "turbines"
assets = "T*"
interval = "10m"
window = 36
stride = 3
lateness = "20m"
[fleet.sensor.power]
unit = "kW"
[fleet.sensor.wind_speed]
unit = "m/s"
[[fleet]]
name = "pumps"
assets = "P*"
interval = "10m"
window = 36
stride = 3
[fleet.retrain]
promote = "shadow:24h"
[[fleet]]
name = "compressors"
interval = "10m"
window = 36
"""
THRESHOLD = {
    "raw": 0.0213, "alarms_per_week": 1.0, "bound_per_week": 0.4, "weeks": 7.4, "n_assets": 40, "n_episodes": 1,
    "state": "certified", "weeks_missing": 0.0, "worst_asset": "T0007", "worst_per_week": 0.6, "confirm": 3, "among": 5,
    "recover": 6, "step_s": 1800.0, "method": "order statistic of held-out scores",
    "reason": "1 alarm in 7.4 held-out asset-weeks: at most 0.64 a week (95 %), within the budget of 1",
}  # fmt: skip
CARD = {
    "architecture": "auto", "length": 36, "interval_s": 600, "sensors": list(SENSORS), "seed": 0,
    "members": [{"name": "pca", "hyper": {}}, {"name": "conv", "hyper": {"width": 32}}],
    "choice": {"objective": "plain", "n_faults": 240, "chosen": "conv", "false_share": 0.01, "renewed": "conv",
               "failed": {}, "rows": [{"members": ["pca", "conv"], "found": 0.83, "by_kind": {"drift": 0.61}}]},
    "training": {"n_train": 4120, "n_held_out": 980, "n_assets": 40,
                 "from": "2026-01-05T00:00:00+00:00", "to": "2026-02-02T00:00:00+00:00",
                 "held_out_error": {"mean": 0.11}, "took_s": 41.0, "stopped": "no better",
                 "left_out": {"alerted": 36, "too_many_gaps": 12}, "suspected_faults": [], "troubles": [], "inputs": [],
                 "explained_variance": {"all": 0.94, "power": 0.97, "wind_speed": 0.95, "pitch": 0.91,
                                        "rotor_speed": 0.98, "gearbox_temperature": 0.88, "vane": 0.07}},
    "threshold": THRESHOLD,
    "thresholds": {"per_week": [0.04, 0.25, 1.0, 7.0, 28.0], "recover": 6, "policies": [
        {"confirm": m, "among": n, "raw": [0.0213 * factor * (0.75 + 0.75 / m) for factor in (6, 2, 1, 0.8, 0.6)]}
        for m, n in ((1, 1), (2, 3), (3, 5), (5, 8))
    ]},
}  # fmt: skip


RECEIPT = {
    "seed": 0, "data_digest": "6f0c1e9ab2d4487e", "config_digest": "91ab77c0d2e34f55",
    "totals": [
        {"use": "trained", "reason": "normal", "n_windows": 4080, "n_intervals": 44, "hours": 2040.0},
        {"use": "trained", "reason": "accepted", "n_windows": 40, "n_intervals": 1, "hours": 20.0},
        {"use": "held_out", "reason": "normal", "n_windows": 980, "n_intervals": 40, "hours": 490.0},
        {"use": "left_out", "reason": "unlabelled", "n_windows": 24, "n_intervals": 2, "hours": 12.0},
        {"use": "left_out", "reason": "fault", "n_windows": 12, "n_intervals": 1, "hours": 6.0},
        {"use": "left_out", "reason": "gap", "n_windows": 12, "n_intervals": 1, "hours": 6.0},
    ],
    "intervals": [
        {"asset": asset, "from": f"2026-01-{day:02}T00:00:00+00:00", "to": f"2026-01-{day + 1:02}T00:00:00+00:00",
         "use": use, "reason": reason, "why": why, "n_windows": n, **more}
        for asset, day, use, reason, why, n, more in (
            ("T0001", 5, "trained", "normal", "nothing speaks against it", 48, {}),
            ("T0001", 6, "trained", "accepted", "label 1 accepts it as normal", 40, {"source": "label", "id": 1}),
            ("T0001", 7, "left_out", "unlabelled", "alert 1 has no label", 18, {"source": "alert", "id": 1}),
            ("T0018", 5, "left_out", "fault", "alert 3 is labelled fault", 12, {"source": "alert", "id": 3}),
            ("T0020", 5, "left_out", "unlabelled", "alert 5 has no label", 6, {"source": "alert", "id": 5}),
            ("T0005", 9, "left_out", "sensor", "the sensor had an alert of its own", 9, {"sensor": "vane"}),
            ("*", 5, "held_out", "normal", "nothing speaks against it", 980, {"n_joined": 40}),
        )
    ],
    "warnings": [
        ("alert 1 of T0001 has had no label for 21 days; if it is a fault: monitor alerts label 1 fault (or normal); "
         "if it is the new normal: monitor retrain turbines --accept-normal 2026-01-07T00:00:00+00:00 "
         "2026-01-08T00:00:00+00:00 --asset T0001")
    ],
}  # fmt: skip


def fill(path: Path, *, n_assets: int = 1000, now_us: int | None = None) -> int:
    """Create the file. Return the end of the newest window in µs."""
    create(path)
    now = time.time_ns() // 1000 if now_us is None else now_us
    end_us = now // STEP_US * STEP_US
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        _fleets(connection, n_assets, end_us, now)
        scores = _scores(connection, n_assets, end_us)
        _alerts(connection, scores, end_us, now)
        _ingestion(connection, now)
        connection.commit()
    return end_us


def create(path: Path) -> None:
    """Create the tables without any rows."""
    asyncio.run(_create(path))


async def _create(path: Path) -> None:
    async with AsyncStore(f"sqlite:///{path}", owner=True):
        pass


def _put(connection: sqlite3.Connection, table: str, *rows: dict[str, Any]) -> list[int]:
    ids = []
    for row in rows:
        names = ", ".join(f'"{name}"' for name in row)
        marks = ", ".join("?" * len(row))
        cursor = connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
        ids.append(cursor.lastrowid or 0)
    return ids


def _fleets(connection: sqlite3.Connection, n_assets: int, end_us: int, now: int) -> None:
    for fleet, sensors in (("turbines", SENSORS), ("pumps", ("pressure", "flow")), ("compressors", ("current",))):
        _put(connection, "fleet", {"name": fleet, "sensors": json.dumps(sensors), "activation_seq": 1})
    names = [("turbines", f"T{n + 1:04}") for n in range(n_assets)]
    names += [("pumps", f"P{n + 1:02}") for n in range(8)] + [("compressors", "C1")]
    connection.executemany(
        "INSERT INTO asset (id, fleet, name, topic, partition, since_offset) VALUES (?, ?, ?, 'plant', ?, 0)",
        [(n + 1, fleet, name, n % 4) for n, (fleet, name) in enumerate(names)],
    )
    week = 7 * 24 * HOUR_US
    for n, fleet in enumerate(("turbines", "pumps")):
        _versions(connection, fleet, end_us, now)
        job = {
            "kind": "retrain", "fleet": fleet, "state": "done", "progress": 1.0, "message": f"{fleet}-2 decides now",
            "requested_by": "schedule", "version": f"{fleet}-2", "requested_us": now - week - n,
            "started_us": now - week, "finished_us": now - week + 41_000_000, "reason": "schedule",
        }  # fmt: skip
        _put(connection, "job", job)
    rejected = {
        "kind": "retrain", "fleet": "turbines", "state": "done", "progress": 1.0,
        "message": "turbines-4 is rejected: 2 of 5 confirmed faults would score below the threshold",
        "requested_by": "monitor", "version": "turbines-4", "requested_us": now - 30 * HOUR_US,
        "started_us": now - 30 * HOUR_US, "finished_us": now - 30 * HOUR_US + 44_000_000, "reason": "drift",
    }  # fmt: skip
    _put(connection, "job", rejected)
    running = {
        "kind": "retrain", "fleet": "turbines", "state": "running", "progress": 0.42, "message": "conv, step 1,200",
        "requested_by": "maria", "requested_us": now - 60_000_000, "started_us": now - 55_000_000,
        "reason": "operator", "note": "after the yearly inspection",
    }  # fmt: skip
    _put(connection, "job", running)


def _versions(connection: sqlite3.Connection, fleet: str, end_us: int, now: int) -> None:
    """Write the versions of a fleet with their verdicts, aliases, activations and history.

    Turbines: 1 retired, 2 is the champion, 3 was rolled back, 4 was rejected by the gate, 5 waits for a decision.
    Pumps: 1 retired and pruned, 2 is the champion, 3 is in shadow.
    """
    day = 24 * HOUR_US
    histories = {
        "turbines": {"retired": 14, "champion": 7, "rolled_back": 3, "rejected": 1.25, "candidate": 0.2},
        "pumps": {"retired": 14, "champion": 7, "shadow": 0.4},
    }
    ids, trained = [], []
    for k, (state, days) in enumerate(histories[fleet].items(), 1):
        trained.append(now - int(days * day))
        row = {
            "version": f"{fleet}-{k}", "fleet": fleet, "state": state, "path": f"checkpoints/{k}",
            "trained_us": trained[-1], "card": json.dumps(_card(state)), "metrics": '{"loss": 0.012}',
            "gate_verdict": None if k == 1 else json.dumps(_verdict(fleet, k, state, trained[-1])),
            "rolled_back_us": now - 2 * day if state == "rolled_back" else None,
            "pruned_us": now - day if fleet == "pumps" and k == 1 else None,
        }  # fmt: skip
        ids += _put(connection, "model_version", row)
    boundaries = {-(2**62): ids[0], end_us - 7 * day: ids[1]}
    aliases = {"champion": ids[1], "challenger": ids[-1], "previous": ids[0]}
    if fleet == "turbines":
        boundaries |= {end_us - 3 * day: ids[2], end_us - 2 * day: ids[1]}
        aliases["previous"] = ids[2]
    for from_us, number in boundaries.items():
        _put(connection, "model_activation", {"fleet": fleet, "from_window_end_us": from_us, "version_id": number})
    for alias, number in aliases.items():
        row = {"fleet": fleet, "alias": alias, "version_id": number, "moved_us": now - 7 * day}
        _put(connection, "model_alias", row)
    by_gate = [(at, number, "trained") for at, number in zip(trained, ids, strict=True)]
    by_gate += [(trained[0], ids[0], "promoted"), (trained[1], ids[1], "promoted")]
    if fleet == "turbines":
        by_gate += [(trained[2], ids[2], "promoted"), (trained[3], ids[3], "rejected")]
        by_gate += [(trained[4], ids[4], "proposed")]
    else:
        by_gate += [(trained[2], ids[2], "shadowed"), (now - day, ids[0], "pruned")]
    events = [
        {"at_us": at, "version_id": number, "event": event, "actor": "monitor", "via": "daemon", "note": ""}
        for at, number, event in by_gate
    ]
    if fleet == "turbines":
        detail = {"from_window_end_us": end_us - 2 * day, "to": "turbines-2"}
        note = "alarmed at every start of T0021 <b>"
        events.append({"at_us": now - 2 * day, "version_id": ids[2], "event": "rolled_back", "actor": "maria",
                       "via": "cli", "note": note, "detail": json.dumps(detail)})  # fmt: skip
    for event in sorted(events, key=lambda each: each["at_us"]):
        _put(connection, "model_event", event | {"fleet": fleet})
    drill = {"kind": "drill", "fleet": fleet, "version_id": ids[1], "at_us": now - 14 * HOUR_US}
    drill["requested_by"] = "monitor"
    _put(connection, "model_check", drill | {"problem": None, "result": json.dumps(_drill(fleet))})
    if fleet == "pumps":
        shadow = drill | {"kind": "shadow", "version_id": ids[2], "at_us": now - HOUR_US}
        _put(connection, "model_check", shadow | {"problem": None, "result": json.dumps({"n_windows": 640})})


def _drill(fleet: str) -> dict[str, Any]:
    """Return the document of a drill: the least fault of each kind that is detected, by sensor."""
    sized = {"bias": 8.0, "ramp": 16.0, "spike": 16.0, "noise": 8.0, "lag": 24.0}
    names = SENSORS if fleet == "turbines" else ("pressure", "flow")
    found = {}
    for row, name in enumerate(names):
        cells: dict[str, Any] = {}
        for column, kind in enumerate(KINDS):
            is_found = name != "vane" or kind in ("stuck", "dropout")
            size = sized[kind] / 2 ** ((row + column) % 5) if kind in sized and is_found else None
            cells[kind] = {
                "n": 30, "found": 28 if is_found else 4, "is_found": is_found, "recall": 0.93 if is_found else 0.13,
                "size": size, "largest": sized.get(kind, 0.0) * 2 if kind in sized else None,
                "unit": None if kind not in sized else "rows" if kind == "lag" else "spreads",
                "delay_s": 3600.0 * (1 + (row + column) % 4), "by": {"process": 28 if is_found else 4, "sensor": 0},
                "reference": {"size": sized.get(kind), "found": 28},
            }  # fmt: skip
        found[name] = cells
    kinds = {
        kind: {
            "sensors": len(names), "found": sum(cells[kind]["is_found"] for cells in found.values()),
            "size": sized.get(kind, 0.0) / 4 or None, "unit": cells[kind]["unit"], "reference": sized.get(kind),
            "delay_s": 5400.0,
        } for kind in KINDS for cells in [found[names[0]]]
    }  # fmt: skip
    return {
        "fleet": fleet, "version": f"{fleet}-2", "copies": 30, "assets": 8, "interval_s": 600.0, "window_s": 21600.0,
        "horizon_s": 43200.0, "n_sensors": len(names), "n_drilled": len(names), "kinds": kinds,
        "healthy": {"copies": 60, "alarmed": 1, "allowed": 0.1},
        "sensors": [{"name": name, "kinds": cells} for name, cells in found.items()],
    }  # fmt: skip


def _card(state: str) -> dict[str, Any]:
    """Return a card. The newest versions see a warmer gearbox, and one sensor more."""
    scale = {"power": (611.0, 402.0), "wind_speed": (9.1, 3.2), "pitch": (0.6, 1.1), "rotor_speed": (13.9, 3.0),
             "gearbox_temperature": (57.4, 4.1), "vane": (0.2, 5.6)}  # fmt: skip
    card = json.loads(json.dumps(CARD))
    if state in ("candidate", "shadow"):
        scale |= {"gearbox_temperature": (63.5, 4.3), "wind_speed": (8.2, 3.3), "oil_pressure": (3.1, 0.4)}
        card["sensors"] = list(scale)
        card["threshold"] |= {"raw": 0.0241, "bound_per_week": 0.6}
        card["training"] |= {"n_train": 4460, "n_held_out": 1010, "left_out": {"alerted": 21, "too_many_gaps": 12}}
        card["members"] = [{"name": "pca", "hyper": {}, "weight": 0.25}, {"name": "conv", "hyper": {"width": 32}}]
    card["training"]["receipt"] = RECEIPT
    said = ["off (power below 20) in 12 % of the windows, running in the rest; each has a threshold of its own"]
    card["states"] = {"states": [{"name": "off"}, {"name": "running"}], "says": said}
    card["scaler"] = [
        {"name": name, "kind": "continuous", "centre": centre, "scale": width}
        for name, (centre, width) in scale.items()
    ]
    return card


def _verdict(fleet: str, k: int, state: str, at_us: int) -> dict[str, Any]:
    """Return the gate's verdict on the version with this number."""
    at, begin = (datetime.fromtimestamp(us / 1e6, UTC).isoformat() for us in (at_us, at_us - 7 * 24 * HOUR_US))
    failed = state == "rejected"
    why = "it keeps the budget, finds 83 % of the injected faults (the champion 81 %) and all 5 confirmed ones"
    lost = "2 of 5 confirmed faults would score below the threshold: alerts 3 and 6"
    faults = [
        {"alert": alert, "asset": f"T{15 + alert:04}", "opened_at": at, "sensors": ["power"], "challenger": 0.7,
         "champion": 3.1, "lost": failed and alert in (3, 6)} for alert in (3, 4, 5, 6)
    ]  # fmt: skip
    by_kind = {
        kind: {"n": 30, "recall": mine, "champion_recall": other}
        for kind, mine, other in (("bias", 0.93, 0.9), ("ramp", 0.8, 0.83), ("stuck", 0.71, 0.6), ("noise", 0.88, 0.9))
    }
    checks = [
        {"name": "budget", "why": "4 alerts in 9.4 recent normal asset-weeks", "n_alerts": 4, "weeks": 9.4,
         "per_week": 1.0, "low_per_week": 0.15, "high_per_week": 0.97, "champion_alerts": 5},
        {"name": "history", "why": "trained on 4,460 windows", "n_windows": 4460, "n_there": 5100, "weeks": 7.4,
         "champion_weeks": 7.1},
        {"name": "faults", "why": "it finds 83 % of 240 injected faults, and the champion 81 %", "n": 240,
         "recall": 0.83, "champion_recall": 0.81, "margin": 0.05, "compared": True, "by_kind": by_kind},
        {"name": "memory", "why": lost if failed else "it finds all 5 confirmed faults", "n": 5, "n_judged": 5,
         "n_lost": 2 if failed else 0, "faults": faults},
        {"name": "latency", "why": "0.9 ms a window, the champion 0.8 ms", "us_per_window": 900,
         "champion_us_per_window": 800},
        {"name": "schema", "why": "sensors, interval and window are those of the fleet"},
    ]  # fmt: skip
    return {
        "passed": not failed, "why": lost if failed else why, "at": at, "challenger": f"{fleet}-{k}",
        "champion": f"{fleet}-{min(k - 1, 2)}", "from": begin, "to": at, "n_windows": 980, "n_assets": 40,
        "took_s": 11.2, "alerts": {"same": 12, "gained": 2, "lost": 1},
        "checks": [{"passed": not (failed and check["name"] == "memory"), **check} for check in checks],
    }  # fmt: skip


def _scores(connection: sqlite3.Connection, n_assets: int, end_us: int) -> np.ndarray:
    """Write windows and hours. Return the scores [assets, STEPS]."""
    random = np.random.default_rng(7)
    n = n_assets + 8
    hourly = random.gamma(6.0, 0.07, (n, HOURS)).astype(np.float32)
    for k in range(0, n, 17):  # each 17th had a fault once
        begin = int(random.integers(0, HOURS - 8))
        hourly[k, begin : begin + int(random.integers(2, 8))] = random.uniform(1.1, 9.0)
    scores = np.repeat(hourly[:, -STEPS // 2 :], 2, axis=1) * random.uniform(0.7, 1.0, (n, STEPS)).astype(np.float32)
    scores[0, -40:] = 18.4 * np.linspace(0.6, 1.0, 40)
    scores[1, -12:] = 1.4
    hourly[:, -STEPS // 2 :] = np.maximum(scores[:, ::2], scores[:, 1::2])
    last = np.full(n, STEPS - 1)
    last[3::200] = STEPS - 30  # silent assets
    champions = connection.execute("SELECT fleet, id FROM model_version WHERE state = 'champion'")
    versions = dict(champions.fetchall())
    rows = []
    for k in range(STEPS):
        stop = end_us - (STEPS - 1 - k) * STEP_US
        for a in range(n):
            if k <= last[a]:
                score = float(scores[a, k])
                version = versions["turbines" if a < n_assets else "pumps"]
                rows.append((a + 1, stop - SPAN_US, stop, score, int(score >= 1), version, 36, k * n + a, k * n + a))
    connection.executemany("INSERT INTO score VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    top = end_us // HOUR_US * HOUR_US
    hours = [
        (top - (HOURS - 1 - h) * HOUR_US, a + 1, float(hourly[a, h]), 2, int(hourly[a, h] >= 1), 0)
        for h in range(HOURS)
        for a in range(n)
        if h <= HOURS - 1 - (STEPS - 1 - last[a]) // 2
    ]
    hours += [(top - h * HOUR_US, n + 1, None, 2, 0, 2) for h in range(30)]  # compressors are not scored yet
    connection.executemany("INSERT INTO score_hour VALUES (?, ?, ?, ?, ?, ?)", hours)
    ends = [end_us - (STEPS - 1 - int(k)) * STEP_US for k in last] + [end_us]
    connection.executemany(
        "INSERT INTO last_window (asset_id, start_us, end_us) VALUES (?, ?, ?)",
        [(a + 1, stop - SPAN_US, stop) for a, stop in enumerate(ends)],
    )
    return scores


def _alerts(connection: sqlite3.Connection, scores: np.ndarray, end_us: int, now: int) -> None:
    opened = end_us - 39 * STEP_US
    [incident] = _put(
        connection,
        "incident",
        {"fleet": "turbines", "opened_us": opened, "closed_us": None, "severity": "critical", "n_alerts": 2},
    )
    first = _process(connection, 1, opened, None, 18.4, end_us, incident_id=incident)
    _evidence(connection, first, opened, end_us, scores[0])
    _process(connection, 2, end_us - 10 * STEP_US, None, 1.42, end_us, severity="warning", incident_id=incident)
    words = (("fault", "pitch bearing"), ("normal", "cleaning"), (None, None), ("fault", ""))
    for n, (label, note) in enumerate(words):
        asset, begin = 18 + n, end_us - (60 + 24 * n) * HOUR_US
        old = {"fleet": "turbines", "opened_us": begin, "closed_us": begin + 5 * HOUR_US, "severity": "warning"}
        [number] = _put(connection, "incident", old | {"n_alerts": 1})
        answers = {"label": label, "label_note": note, "incident_id": number}
        answers["version"] = "turbines-3" if n == 0 else "turbines-2"  # of the version that was rolled back
        closed = _process(connection, asset, begin, begin + 5 * HOUR_US, 3.1 + n, end_us, severity="warning", **answers)
        _evidence(connection, closed, begin, begin + 5 * HOUR_US, np.full(STEPS, 3.0 + n, np.float32))
    acknowledged = _process(
        connection, 9, end_us - 30 * STEP_US, None, 2.2, end_us, severity="warning",
        acknowledged_by="maria", acknowledged_us=now - HOUR_US, acknowledged_peak=2.0,
    )  # fmt: skip
    shelved = _process(
        connection, 12, end_us - 50 * STEP_US, None, 1.7, end_us, severity="warning", suppressed_by="shelf"
    )
    data = {"n_anomalous": 1, "sensors": "[]", "severity": "warning", "topic": "plant", "partition": 1}
    data["updated_us"] = end_us
    sensor = data | {
        "class": "sensor", "kind": "stuck", "subject": "T0005/vane", "asset_name": "T0005", "sensor": "vane",
        "opened_us": end_us - 3 * HOUR_US, "state": "firing", "fleet": "turbines", "from_offset": 4711,
        "message": "vane of T0005 has not moved since 09:10: check the sensor and its wiring",
    }  # fmt: skip
    late = data | {
        "class": "data", "kind": "records_lost", "subject": "", "opened_us": end_us - 26 * HOUR_US, "state": "firing",
        "from_offset": 90_000, "n_anomalous": 1200,
        "message": "up to 1,200 records are lost: give the topic a longer retention.ms",
    }  # fmt: skip
    ids = _put(connection, "alert", sensor, late)
    for number in ids:
        _put(connection, "alert_transition", _step(number, 1, "firing", "warning", end_us - 3 * HOUR_US, None, 1))
    told = {"at_us": now - HOUR_US, "actor": "maria", "via": "link", "act": "acknowledge", "alert_id": acknowledged}
    put_off = {"at_us": now - 2 * HOUR_US, "actor": "jo", "via": "cli", "act": "shelve", "alert_id": shelved}
    _put(connection, "act", told, put_off | {"note": "part is ordered", "detail": json.dumps({"until": "7d"})})
    shelf = {
        "alert_id": shelved, "made_us": now - 2 * HOUR_US, "until_us": now + 160 * HOUR_US, "until": "7d",
        "reason": "part is ordered", "actor": "jo", "peak_score": 1.7,
    }  # fmt: skip
    _put(connection, "shelf", shelf)
    plan = {
        "fleet": "turbines", "asset": "T00*", "from_us": now + 20 * HOUR_US, "to_us": now + 24 * HOUR_US,
        "reason": "yearly inspection", "actor": "maria", "made_us": now,
    }  # fmt: skip
    _put(connection, "maintenance", plan)
    label = {
        "asset_id": 1, "from_us": end_us - 90 * HOUR_US, "to_us": end_us - 88 * HOUR_US, "label": "ignore",
        "note": "cleaning", "actor": "jo", "made_us": now,
    }  # fmt: skip
    _put(connection, "interval_label", label)


def _step(number: int, seq: int, state: str, severity: str, at: int, peak: float | None, n: int) -> dict[str, Any]:
    return {
        "alert_id": number, "seq": seq, "state": state, "severity": severity, "at_us": at, "peak_score": peak,
        "n_anomalous": n,
    }  # fmt: skip


def _process(
    connection: sqlite3.Connection,
    asset_id: int,
    opened: int,
    closed: int | None,
    peak: float,
    end_us: int,
    severity: str = "critical",
    **answers: Any,
) -> int:
    sensors = [
        {"name": "power", "share": 0.61, "expected": 560.0, "actual": -3.1, "quantity": "value",
         "onset": {"share": 0.44, "expected": 610.0, "actual": 120.0}},
        {"name": "pitch", "share": 0.22, "expected": 0.5, "actual": 89.9, "quantity": "value",
         "onset": {"share": 0.41, "expected": 0.4, "actual": 45.0}},
        {"name": "rotor_speed", "share": 0.12, "expected": 14.2, "actual": 0.3, "quantity": "value",
         "onset": {"share": 0.1, "expected": 14.0, "actual": 9.0}},
        {"name": "gearbox_temperature", "share": 0.05, "expected": 61.0, "actual": 48.0, "quantity": "value",
         "onset": {"share": 0.05, "expected": 61.0, "actual": 60.0}},
    ]  # fmt: skip
    row = {
        "class": "process", "asset_id": asset_id, "opened_us": opened, "state": "closed" if closed else "firing",
        "severity": severity, "updated_us": closed or end_us, "closed_us": closed, "peak_score": peak,
        "peak_us": min(opened + 4 * STEP_US, closed or end_us), "n_anomalous": 12, "sensors": json.dumps(sensors),
        "version": "turbines-2", "clearing": json.dumps(["power", "pitch"]), "fleet": None,
    } | answers  # fmt: skip
    [number] = _put(connection, "alert", row)
    steps = [("firing", opened + STEP_US)]
    if closed:
        steps += [("recovering", closed - 2 * STEP_US), ("closed", closed)]
    for seq, (state, at) in enumerate(steps, 1):
        _put(connection, "alert_transition", _step(number, seq, state, severity, at, peak, 12))
    return number


def _evidence(connection: sqlite3.Connection, alert_id: int, opened: int, end: int, scores: np.ndarray) -> None:
    """Write the evidence of a turbine that stops in wind: no power, feathered blades."""
    random = np.random.default_rng(alert_id)
    cell = np.arange(opened - SPAN_US, end + 1, 600_000_000, dtype=np.int64)
    wind = 9 + 2 * np.sin(np.arange(len(cell)) / 11) + random.normal(0, 0.3, len(cell))
    expected = np.column_stack(
        (62 * wind, wind, np.full(len(cell), 0.5), 1.4 * wind + 2, 48 + wind, 4 * np.sin(np.arange(len(cell)) / 7))
    )
    values = expected + random.normal(0, 1, expected.shape) * (22, 0.15, 0.3, 0.25, 0.5, 1.5)
    stopped = cell > opened - 2 * STEP_US
    values[stopped, 0] = -3
    values[stopped, 2] = 89.9
    values[stopped, 3] = 0.2
    values[stopped, 4] -= np.minimum(14, 0.25 * np.arange(stopped.sum()))
    ends = np.arange(opened, end + 1, STEP_US, dtype=np.int64)
    part = EvidencePart(
        asset=0,
        opened_us=opened,
        sensors=SENSORS,
        cell_us=cell,
        values=values.astype(np.float32),
        expected=expected.astype(np.float32),
        end_us=ends,
        score=scores[-len(ends) :].astype(np.float32),
        limit=4 * 36,
    )
    body = encode(chunk_of(part))
    _put(connection, "evidence", {"alert_id": alert_id, "seq": 1, "n_cells": len(cell), "body": body})


def _ingestion(connection: sqlite3.Connection, now: int) -> None:
    counters = {
        "records": 1_204_331, "accepted": 1_203_000, "quarantined": 412, "late": 733, "duplicate": 186, "tombstones": 0,
        "readings": 1_203_000, "windows": 96_768, "scored": 96_000, "reasons": {"not_json": 300, "late": 733},
    }  # fmt: skip
    for number in range(4):
        partition = {
            "pipeline": "monitor", "topic": "plant", "partition": number, "epoch": 3, "owner": "plant-host:4121",
            "start_offset": 0, "next_offset": 1_204_331, "rewind_offset": 1_200_000, "rewind_state": "{}",
            "counters": json.dumps(counters), "log_end": 1_204_331 + 3 * number, "saved_us": now - 2_000_000,
        }  # fmt: skip
        _put(connection, "source_partition", partition)
    samples = [('not_json: begins with "{oops"', b'{oops\xff <b>"'), ("wrong_type: power is text", b'{"power": "on"}')]
    for n, (reason, sample) in enumerate(samples * 3):
        row = {
            "topic": "plant", "partition": n % 4, "record_offset": 900 + n, "reason": reason, "sample": sample,
            "at_us": now - n * HOUR_US, "saved_us": now - n * HOUR_US,
        }  # fmt: skip
        _put(connection, "quarantine", row)
    gap = {"pipeline": "monitor", "topic": "plant", "partition": 1, "from_offset": 90_000, "to_offset": 91_200}
    _put(connection, "gap", gap | {"at_us": now - 26 * HOUR_US})
    daemon = {"owner": "plant-host:4121", "pipeline": "monitor", "started_us": now - 90 * HOUR_US}
    _put(connection, "daemon", daemon | {"heartbeat_us": now - 2_000_000, "status": "4 partitions, all caught up"})
    body = {"dedup_key": "x", "channel": "chat", "body": "{}", "created_us": now - HOUR_US, "next_try_us": now}
    _put(connection, "outbox", body | {"attempts": 9, "error": "connection refused"})


if __name__ == "__main__":
    started = time.perf_counter()
    fill(Path(sys.argv[1]), n_assets=int(sys.argv[2]) if sys.argv[2:] else 1000)
    print(f"{time.perf_counter() - started:.1f} s")
