"""Formats of the output: JSON for programs, and the same words, signs and colours in every table.

Invariant: stdout carries only the answer.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from monitor import wording
from monitor.cli.streams import has_unicode
from monitor.cli.terminal import Styled
from monitor.clock import from_us
from monitor.printable import escape_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitor.store.reader import Reader

SIGNS = {
    # of an alert
    "pending": ("◌", "cyan"),
    "firing": ("●", "bold red"),
    "recovering": ("◐", "yellow"),
    "closed": ("○", "dim"),
    "open": ("●", "bold red"),  # of an incident, beside closed
    # of a model version
    "champion": ("★", "bold green"),
    "candidate": ("◌", "cyan"),
    "shadow": ("◐", "cyan"),
    "rejected": ("✗", "red"),
    "rolled_back": ("↺", "yellow"),
    "retired": ("○", "dim"),
    # of a budget
    "certified": ("✓", "bold green"),
    "provisional": ("◌", "yellow"),
    "violated": ("✗", "bold red"),
}
"""Sign and style of each state. Without colours the sign still tells them apart."""

FILTER_NAMES = {"alert_class": "class", "since": "from", "until": "to"}
"""Names of the filters where the option has another name than the argument."""


def print_json(document: object) -> None:
    """Print one JSON document."""
    click.echo(_json(document, indent=2))


def print_json_list(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print a JSON list, one row a line, without holding all rows in memory."""
    separator = "["
    for row in rows:
        sys.stdout.write(f"{separator}\n  {_json(row)}")
        separator = ","
    sys.stdout.write("\n]\n" if separator == "," else "[]\n")


def _json(document: object, indent: int | None = None) -> str:
    """Return JSON that is safe on a terminal: control and bidirectional characters are escapes."""
    is_ascii = not has_unicode(sys.stdout)
    text = json.dumps(_rounded(document), ensure_ascii=is_ascii, indent=indent, default=_json_value, allow_nan=False)
    return escape_json(text)


def _rounded(value: object) -> object:
    """Round every float to the seven digits that a float32 has: scores, values and contributions are float32."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _json_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no JSON form")


# ---------------------------------------------------------------- times


def as_datetime(value: datetime | str | int) -> datetime:
    """Return a time that is stored as ISO 8601 or as µs since 1970."""
    if isinstance(value, int):
        return from_us(value)
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def in_zone(value: datetime | str | int, *, local: bool) -> datetime:
    """Return a time in the time zone of the output."""
    return as_datetime(value).astimezone(None if local else UTC)


def timestamp(value: datetime | str | int | None, *, local: bool = False) -> str:
    """Format a time to the second, or to the minute where the seconds are zero."""
    if value is None:
        return "–"
    at = in_zone(value, local=local)
    return f"{at:%Y-%m-%d %H:%M:%S}" if at.second else f"{at:%Y-%m-%d %H:%M}"


def period(span: Mapping[str, Any], *, local: bool) -> str:
    """Format the times `from` and `to`."""
    first, last = timestamp(span["from"], local=local), timestamp(span["to"], local=local)
    return first if first == last else f"{first} – {last}"


def time_zone(*, local: bool) -> str:
    """Name the time zone of the output in a sentence."""
    return f"Times are local ({datetime.now(UTC).astimezone():%Z})." if local else "Times are UTC."


# ---------------------------------------------------------------- values


def state(name: str, width: int = 0) -> Styled:
    """Format the state of an alert, a model version or a budget, padded to `width`."""
    sign, style = SIGNS.get(name, ("·", ""))
    return Styled(f"{sign} {name.replace('_', ' '):<{width}}", style)


def severity(name: str) -> Styled:
    """Format the severity of an alert."""
    return Styled(name, "bold red" if name == "critical" else "")


def contributions(sensors: Iterable[Mapping[str, Any]], limit: int = 3) -> str:
    """Format the largest contributions: "power 61 %, pitch 22 %"."""
    return wording.contributions(sensors, limit) or "–"


# ---------------------------------------------------------------- sentences


def list_footer(n_rows: int, limit: int | None, *, local: bool, order: str = "newest") -> Styled:
    """Return the line below a list. It says how to see all rows if the limit cut the list off."""
    more = f" The {order} {limit}; --limit 0 shows all." if n_rows == limit else ""
    return Styled(f"\n{time_zone(local=local)}{more}", "dim")


def argument(name: str) -> str:
    """Return a name as it is typed behind a command: quoted, and never taken for an option."""
    return f"{'-- ' if name.startswith('-') else ''}{shlex.quote(name)}"


def nothing_found(noun: str, store: Reader, **filters: object) -> str:
    """Return a sentence about the filters that match no row, and one about the daemon."""
    given = [
        f"{FILTER_NAMES.get(name, name)} {_filter_value(value)}" for name, value in filters.items() if value is not None
    ]
    return f"No {noun}{' match ' if given else ''}{', '.join(given)}. {_daemon_status(store)}"


def _filter_value(value: object) -> str:
    return f"{timestamp(value.replace(microsecond=0))} UTC" if isinstance(value, datetime) else str(value)


def _daemon_status(store: Reader) -> str:
    if daemons := store.daemons():
        return f"The daemon's last heartbeat was {_ago(daemons[0]['heartbeat_at'])}: {daemons[0]['status']}"
    saved = max((row["saved_at"] for row in store.partitions() if row["saved_at"]), default=None)
    last = f"A daemon last wrote {_ago(saved)}" if saved else "No daemon has written here yet"
    return f"{last}. None is running: start one with `monitor run`."


def _ago(value: datetime | str) -> str:
    return f"{wording.duration((datetime.now(UTC) - as_datetime(value)).total_seconds())} ago"
