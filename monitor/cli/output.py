"""How things are printed: JSON for programs, tables for people, the same words and colours everywhere.

Law: stdout carries the answer and nothing else.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.terminal import Styled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from monitor.store.reader import Reader

STATES = {"pending": ("◌", "cyan"), "firing": ("●", "bold red"), "recovering": ("◐", "yellow"), "closed": ("○", "dim")}
MODEL_STATES = {"champion": ("★", "bold green"), "candidate": ("◌", "cyan"), "retired": ("○", "dim")}


def emit(document: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2, default=_plain, allow_nan=False))


def emit_list(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print a JSON list, a row on a line, without ever holding all of it."""
    encode = json.JSONEncoder(ensure_ascii=False, default=_plain, allow_nan=False).encode
    separator = "["
    for row in rows:
        sys.stdout.write(f"{separator}\n  {encode(row)}")
        separator = ","
    sys.stdout.write("\n]\n" if separator == "," else "[]\n")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def state(name: str) -> Styled:
    """Show an alert's state, legible without colour too."""
    sign, look = STATES.get(name, ("·", ""))
    return Styled(f"{sign} {name}", look)


def moment(value: datetime | str | None, *, local: bool = False) -> str:
    """Show a time to the second, or to the minute when the seconds are zero."""
    if value is None:
        return "–"
    at = as_datetime(value)
    at = at.astimezone() if local else at.astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}" if at.second else f"{at:%Y-%m-%d %H:%M}"


def zone(*, local: bool) -> str:
    """Name the zone that times are shown in."""
    return f"Times are local ({datetime.now(UTC).astimezone():%Z})." if local else "Times are UTC."


def in_zone(times: Iterable[datetime], *, local: bool) -> list[datetime]:
    """Turn times into the zone they are shown in."""
    return [at.astimezone() if local else at.astimezone(UTC) for at in times]


def duration(length: timedelta) -> str:
    """Show a duration in its two largest units: "3 h 20 min"."""
    seconds = max(0, round(length.total_seconds()))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min"
    return f"{seconds} s"


def contributions(sensors: Iterable[Mapping[str, Any]], most: int = 3) -> str:
    """Name the sensors that contribute most: "power 61 %, pitch 22 %"."""
    named = [sensor for sensor in sensors if sensor["share"] >= 0.05][:most]
    return ", ".join(f"{sensor['name']}\xa0{percent(sensor['share'])}" for sensor in named) or "–"


def nothing(what: str, store: Reader, **only: object) -> str:
    """Say that nothing was found, among what, and whether anybody is at work."""
    words = {"asset": "of", "fleet": "in fleet", "topic": "of topic", "state": "that are", "reason": "for"}
    words |= {"alert_class": "of class"}
    times = {"since": "since", "until": "before"}
    said = [f"{words[name]} {value}" for name, value in only.items() if value is not None and name in words]
    said += [
        f"{times[name]} {moment(at.replace(microsecond=0))} UTC"
        for name, at in only.items()
        if isinstance(at, datetime)
    ]
    return f"No {' '.join([what, *said])}. {at_work(store)}"


def at_work(store: Reader) -> str:
    """Say when a daemon was last heard of."""
    if daemons := store.daemons():
        return f"The daemon was heard of {ago(daemons[0]['heartbeat_at'])}: {daemons[0]['status']}"
    saved = max((row["saved_at"] for row in store.partitions() if row["saved_at"]), default=None)
    last = f"A daemon last wrote {ago(saved)}" if saved else "No daemon has written here yet"
    return f"{last}, none is running: start one with `monitor run`."


def ago(value: datetime | str) -> str:
    """Say how long ago something was."""
    return f"{duration(datetime.now(UTC) - as_datetime(value))} ago"


def percent(share: float) -> str:
    """Show a share, never broken between number and sign."""
    return f"{share * 100:.0f}\xa0%"


def as_datetime(value: datetime | str) -> datetime:
    """Read back a time that is printed as ISO 8601."""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def number(value: float | None, digits: int = 3) -> str:
    """Show a measured value to so many significant digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
