"""Times of assets on which alerts and people have a say in training, each with its reason and the row behind it.

Input: a connection, a fleet. Output: `JudgedTime`s by asset, and the times of alerts about sensors.
Invariant: the times of an asset do not overlap. Of several words on one moment the strongest counts: maintenance, then
labels (the newest of them, on alerts and on times alike), then a shelf, then an alert without a label. So a `fault`
label put after a time was accepted as normal wins, and so does an acceptance after an `ignore`.

    open, unlabelled      an alert without a label that lasts, or that closed
    shelved               a shelf: a known problem, of which nobody wanted to hear
    fault, ignore         labels: neither trained on nor held out
    normal                an alert labelled normal: trained on, unless it is trimmed as a suspected fault
    accepted              a time labelled normal: trained on in any case
    maintenance           neither trained on nor held out

A shelf runs in processing time. Its beginning and end are taken as event times, which differ by the lag.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from sqlalchemy import text

from monitor.store import burn, left_out
from monitor.store.matching import matches
from monitor.store.results import LAST_US
from monitor.types import JudgedTime, Label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Row

    from monitor.store.matching import Window

LONGEST_HISTORY_US = 400 * 86_400_000_000
"""Time before the newest window in which alerts, labels, shelves and recurring maintenance are looked up."""
LONGEST_AHEAD_US = 32 * 86_400_000_000

_NEWEST = text("""
    SELECT MAX(COALESCE(last_window.end_us, last_window.start_us)) FROM last_window
    JOIN asset ON asset.id = asset_id WHERE asset.fleet = :fleet
""")
_ASSETS = text("SELECT name FROM asset WHERE fleet = :fleet ORDER BY id")
_ALERTS = text("""
    SELECT asset.name, alert.id, opened_us, closed_us, label,
        CASE WHEN label IS NULL THEN 0 ELSE
            COALESCE((SELECT MAX(act.at_us) FROM act WHERE act.alert_id = alert.id AND act = 'label'), 0) END AS at_us
    FROM alert JOIN asset ON asset.id = asset_id
    WHERE asset.fleet = :fleet AND (closed_us IS NULL OR closed_us > :from_us) ORDER BY opened_us
""")
_LABELS = text("""
    SELECT asset.name, interval_label.id, from_us, to_us, label, made_us FROM interval_label
    JOIN asset ON asset.id = asset_id
    WHERE asset.fleet = :fleet AND removed_us IS NULL AND to_us > :from_us ORDER BY interval_label.id
""")
_SHELVES = text("""
    SELECT id, alert_id, fleet, asset, made_us, COALESCE(ended_us, until_us) AS to_us FROM shelf
    WHERE COALESCE(ended_us, until_us) > :from_us AND sensor IS NULL ORDER BY id
""")


def judged_times(connection: Connection, fleet: str) -> dict[str, list[JudgedTime]]:
    """Return the judged times of each asset of a fleet, in order. An asset without any is missing.

    `opened_us` is the end of a window, and that window belongs to the alert. An open alert ends after any event.
    """
    end_us = newest_us(connection, fleet) or 0
    from_us, to_us = end_us - LONGEST_HISTORY_US, end_us + LONGEST_AHEAD_US
    place = {"fleet": fleet, "from_us": from_us}
    alerts: dict[str, list[Row[tuple[object, ...]]]] = {}
    for row in connection.execute(_ALERTS, place):
        alerts.setdefault(row.name, []).append(row)
    labels: dict[str, list[Row[tuple[object, ...]]]] = {}
    for row in connection.execute(_LABELS, place):
        labels.setdefault(row.name, []).append(row)
    shelves = list(connection.execute(_SHELVES, {"from_us": from_us}))
    windows = left_out.maintenance(burn.fetch_through(connection), from_us, to_us)
    found = {}
    for name in connection.execute(_ASSETS, {"fleet": fleet}).scalars():
        own = alerts.get(name, [])
        # In order of strength: a later one is put over an earlier one.
        over = [
            *_shelved(shelves, fleet, name, own),
            *_labelled(own, labels.get(name, [])),
            *_in_maintenance(windows, fleet, name, from_us, to_us),
        ]
        judged: list[JudgedTime] = []
        for each in over:
            judged = left_out.put_over(judged, each)
        times = [*_unlabelled(own, judged), *judged]
        if times:
            found[name] = sorted(times)
    return found


def newest_us(connection: Connection, fleet: str) -> int | None:
    """Return the end of the fleet's newest window. None = there is none yet."""
    found: int | None = connection.execute(_NEWEST, {"fleet": fleet}).scalar_one_or_none()
    return found


def _unlabelled(alerts: Iterable[Row[tuple[object, ...]]], over: Sequence[JudgedTime]) -> list[JudgedTime]:
    """Return the times of alerts without a label that no stronger word is on. `over`: in order, without overlap."""
    found: list[JudgedTime] = []
    begins, ends = [each.from_us for each in over], [each.to_us for each in over]
    for row in alerts:
        if row.label is not None:
            continue
        reason = "open" if row.closed_us is None else "unlabelled"
        rest = [JudgedTime(row.opened_us - 1, _end(row.closed_us), reason, "alert", row.id, row.opened_us)]
        for each in over[bisect_right(ends, rest[0].from_us) : bisect_left(begins, rest[0].to_us)]:
            rest = left_out.without(rest, each.from_us, each.to_us)
        found.extend(rest)
    return found


def _labelled(
    alerts: Iterable[Row[tuple[object, ...]]], labels: Iterable[Row[tuple[object, ...]]]
) -> list[JudgedTime]:
    """Return the labelled times, the newest label last, as it was put."""
    found = [
        (row.at_us, JudgedTime(row.opened_us - 1, _end(row.closed_us), row.label, "alert", row.id, row.opened_us))
        for row in alerts
        if row.label is not None
    ]
    for row in labels:
        reason = "accepted" if row.label == Label.NORMAL else row.label
        found.append((row.made_us, JudgedTime(row.from_us, row.to_us, reason, "label", row.id, row.from_us)))
    # Of two labels at one time, fault is the safer one.
    found.sort(key=lambda each: (each[0], each[1].reason == Label.FAULT))
    return [each for _, each in found]


def _shelved(
    shelves: Iterable[Row[tuple[object, ...]]], fleet: str, asset: str, alerts: Sequence[Row[tuple[object, ...]]]
) -> list[JudgedTime]:
    by_id = {row.id: row for row in alerts}
    found = []
    for shelf in shelves:
        if shelf.alert_id is not None:
            if (alert := by_id.get(shelf.alert_id)) is not None:
                end_us = _end(alert.closed_us)
                found.append(JudgedTime(alert.opened_us - 1, end_us, "shelved", "shelf", shelf.id, alert.opened_us))
        elif matches(shelf.fleet, fleet) and matches(shelf.asset, asset):
            found.append(JudgedTime(shelf.made_us, shelf.to_us, "shelved", "shelf", shelf.id, shelf.made_us))
    return found


def _in_maintenance(
    windows: Mapping[int, Window], fleet: str, asset: str, from_us: int, to_us: int
) -> list[JudgedTime]:
    return [
        JudgedTime(start_us - 1, end_us - 1, "maintenance", "maintenance", number, start_us)
        for number, window in windows.items()
        if window.covers(fleet, asset)
        for start_us, end_us in window.between(from_us, to_us)
    ]


def _end(closed_us: int | None) -> int:
    return LAST_US if closed_us is None else closed_us


_SENSOR_TIMES = text("""
    SELECT asset_name, opened_us, closed_us, sensor FROM alert
    WHERE class = 'sensor' AND fleet = :fleet AND asset_name IS NOT NULL AND COALESCE(label, '') <> 'normal'
    ORDER BY opened_us
""")


def sensor_times(connection: Connection, fleet: str) -> dict[str, list[tuple[int, int, str]]]:
    """Return the event time (from_us, to_us] and the sensor of each alert of class `sensor`, by asset.

    Training does not learn from this sensor then. An alert that was labelled normal counts as none.
    """
    found: dict[str, list[tuple[int, int, str]]] = {}
    for name, opened_us, closed_us, sensor in connection.execute(_SENSOR_TIMES, {"fleet": fleet}):
        found.setdefault(name, []).append((opened_us - 1, _end(closed_us), sensor))
    return found
