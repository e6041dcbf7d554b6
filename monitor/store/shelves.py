"""Shelves: alerts without notifications until an end that the operator gave.

Input: a target, and the ends in words: `7d`, `2026-01-31T08:00Z`, `recovered`, `worse:2x`, `5x/1d`, joined by "or".
Output: rows of `shelf`. Invariant: every shelf ends, at the latest at `until_us`, by processing time. The first end
that comes true ends it. Alerts that still fire then are notified (`store/releases.py`).

    7d, a time   this long, or until then
    recovered    the alert closed; of a pattern, the last alert that matches closed
    worse:2x     a peak is twice the highest one when the shelf was made, which is 1.0 where none was open
    5x/1d        more than five alerts that match opened within a day of event time. For patterns only

A shelf of one alert also ends when that alert closes.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sqlalchemy import text

from monitor.clock import from_us, to_us
from monitor.config.values import Multiple, parse_duration
from monitor.errors import ConfigError, NotFound, WrongState
from monitor.printable import escape_unprintable
from monitor.store import acts, assets, incidents, subjects
from monitor.store.matching import Target
from monitor.types import Act

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Connection, Row

    from monitor.store.acts import Actor
    from monitor.store.matching import Subject

T = TypeVar("T")

DAY = timedelta(days=1)
LONGEST = 366 * DAY
"""Longest time for which something may be shelved."""
LONGEST_CONDITION = 30 * DAY
"""After which a shelf ends that has only conditions: the condition may never come true."""
THRESHOLD = 1.0
HELP = 'write "7d", "2026-01-31T08:00Z", "recovered", "worse:2x" or "5x/1d", or several joined by " or "'
_COUNT = re.compile(r"(\d+)\s*[x×]\s*/\s*(.+)")


class Until(NamedTuple):
    """The ends of a shelf. The first one that comes true ends it."""

    until_us: int
    """Processing time."""
    is_recovered: bool = False
    worse: float | None = None
    """Factor."""
    n_alerts: int | None = None
    within_us: int = 0

    @classmethod
    def parse(cls, words: str, now_us: int) -> Until:
        """Read the ends. Raises ConfigError."""
        times: list[int] = []
        is_recovered, worse, n_alerts, within_us = False, None, None, 0
        for word in re.split(r"\s+or\s+|,", words.strip()):
            term = word.strip()
            if term == "recovered":
                is_recovered = True
            elif term.startswith("worse:"):
                worse = _read(Multiple.parse, term.removeprefix("worse:"), words).factor
            elif match := _COUNT.fullmatch(term):
                n_alerts = int(match[1])
                within = _read(parse_duration, match[2], words)
                if not 1 <= n_alerts <= 1000 or not timedelta(minutes=1) <= within <= LONGEST_CONDITION:
                    raise ConfigError(f'until "{term}" needs 1 to 1000 alerts within 1m to 30d')
                within_us = within // timedelta(microseconds=1)
            else:
                times.append(_time(term, words, now_us))
        if times and min(times) <= now_us:
            raise ConfigError(f'until "{_shown(words)}" is over already')
        if times and min(times) > now_us + LONGEST // timedelta(microseconds=1):
            raise ConfigError(f'until "{_shown(words)}" is longer than {LONGEST.days} days; shelve for less, again')
        latest = min(times) if times else now_us + LONGEST_CONDITION // timedelta(microseconds=1)
        return cls(latest, is_recovered, worse, n_alerts, within_us)


def _read(parse: Callable[[object], T], value: str, words: str) -> T:
    try:
        return parse(value.strip())
    except ValueError as error:
        raise ConfigError(f'until "{_shown(words)}": {_shown(value)} {error}') from None


def _time(term: str, words: str, now_us: int) -> int:
    try:
        return now_us + parse_duration(term.removeprefix("now+")) // timedelta(microseconds=1)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(term)
        return to_us(at.replace(tzinfo=UTC) if at.tzinfo is None else at)
    except (ValueError, OverflowError):
        raise ConfigError(f'until "{_shown(words)}" cannot be read; {HELP}') from None


def _shown(words: str) -> str:
    return escape_unprintable(words)[:100]


# ---------------------------------------------------------------- make and end

_NEWEST_ALERT = text("SELECT COALESCE(MAX(id), 0) FROM alert")
_PUT = text("""
    INSERT INTO shelf (alert_id, fleet, asset, sensor, made_us, until_us, until, peak_score, since_alert_id, reason,
        actor)
    VALUES (:alert_id, :fleet, :asset, :sensor, :made_us, :until_us, :until, :peak_score, :since_alert_id, :reason,
        :actor)
    RETURNING id
""")
_SAME = text("""
    SELECT id FROM shelf WHERE ended_us IS NULL AND until_us > :now_us
        AND COALESCE(alert_id, 0) = COALESCE(:alert_id, 0) AND COALESCE(fleet, '') = COALESCE(:fleet, '')
        AND COALESCE(asset, '') = COALESCE(:asset, '') AND COALESCE(sensor, '') = COALESCE(:sensor, '')
""")
_SUPPRESS = text("""
    UPDATE alert SET suppressed_by = 'shelf' WHERE id = :id AND suppressed_by IS NULL AND state <> 'closed'
""")
_END = text("""
    UPDATE shelf SET ended_us = :now_us, ended_why = :why WHERE id = :id AND ended_us IS NULL
    RETURNING alert_id, fleet, asset
""")
_GET = text("SELECT ended_us, ended_why FROM shelf WHERE id = :id")
_ACTIVE = text("""
    SELECT id, alert_id, fleet, asset, sensor, until, made_us, until_us, peak_score, since_alert_id FROM shelf
    WHERE ended_us IS NULL ORDER BY id
""")
_EXPIRED = text("SELECT id FROM shelf WHERE ended_us IS NULL AND until_us <= :now_us ORDER BY id")


def shelve(connection: Connection, target: Target, until: str, reason: str, actor: Actor, now_us: int) -> int:
    """Make a shelf and return its id. Open alerts that it covers are suppressed from now on.

    Raises NotFound for names that do not exist, ConfigError, or WrongState if the alert is closed, there is such a
    shelf already, or nothing could recover.
    """
    if target.alert_id is not None:
        if target != Target(target.alert_id):
            raise ConfigError("name an alert, or a fleet, asset or sensor; not both")
        alert = acts.alert_row(connection, target.alert_id)
        alert.check_open(target.alert_id)
        incidents.lock(connection, [alert.fleet])
    elif target == Target():
        raise ConfigError("name what to shelve: an alert, an asset, a fleet or a sensor")
    else:
        target = target.normal()
        subjects.check_known(connection, target.fleet, target.asset)
        incidents.lock(connection, assets.fleets(connection))
    ends = Until.parse(until, now_us)
    reason = acts.clean_reason(reason)
    if (same := connection.execute(_SAME, target._asdict() | {"now_us": now_us}).scalars().first()) is not None:
        raise WrongState(f"shelf {same} covers this already; end it first (monitor alerts unshelve {same})")
    covered = [each for each in subjects.open_alerts(connection) if target.covers(each)]
    if ends.n_alerts is not None and target.alert_id is not None:
        raise ConfigError("until 5x/1d counts alerts, so it needs --asset, --fleet or --sensor instead of one alert")
    if ends.is_recovered and not covered:
        raise WrongState("nothing can recover: no alert that matches is open; shelve until a time instead")
    row = target._asdict() | {
        "made_us": now_us,
        "until_us": ends.until_us,
        "until": _shown(until.strip()),
        "peak_score": max((each.peak_score or THRESHOLD for each in covered), default=THRESHOLD),
        "since_alert_id": connection.execute(_NEWEST_ALERT).scalar_one(),
        "reason": reason,
        "actor": escape_unprintable(actor.name)[: acts.MAX_ACTOR],
    }
    shelf_id: int = connection.execute(_PUT, row).scalar_one()
    for each in covered:
        connection.execute(_SUPPRESS, {"id": each.alert_id})
    detail = {"shelf": shelf_id, "until": row["until"], "ends_at_latest": from_us(ends.until_us).isoformat()}
    if target.sensor is not None:
        detail["sensor"] = target.sensor
    acts.record(connection, Act.SHELVE, actor, now_us, alert_id=target.alert_id, fleet=target.fleet,
                asset=target.asset, note=reason, detail=detail)  # fmt: skip
    return shelf_id


def end(connection: Connection, shelf_id: int, why: str, actor: Actor, now_us: int) -> bool:
    """End a shelf unless it has ended. Return whether this call ended it."""
    row = connection.execute(_END, {"id": shelf_id, "now_us": now_us, "why": why}).one_or_none()
    if row is None:
        return False
    acts.record(connection, Act.UNSHELVE, actor, now_us, alert_id=row.alert_id, fleet=row.fleet, asset=row.asset,
                note=why, detail={"shelf": shelf_id})  # fmt: skip
    return True


def end_by_hand(connection: Connection, shelf_id: int, note: str, actor: Actor, now_us: int) -> None:
    """End a shelf. Raises NotFound, WrongState."""
    if not end(connection, shelf_id, acts.clean_note(note) or "by hand", actor, now_us):
        row = connection.execute(_GET, {"id": shelf_id}).one_or_none()
        if row is None:
            raise NotFound(f"shelf {shelf_id}; monitor alerts shelves lists those in force")
        raise WrongState(f"shelf {shelf_id} ended at {from_us(row.ended_us):%Y-%m-%d %H:%M} UTC: {row.ended_why}")


def end_expired(connection: Connection, now_us: int) -> list[int]:
    """End shelves by their time, and return their ids."""
    due = list(connection.execute(_EXPIRED, {"now_us": now_us}).scalars())
    return [shelf_id for shelf_id in due if end(connection, shelf_id, "its time is over", acts.MONITOR, now_us)]


# ---------------------------------------------------------------- in force


class Shelf(NamedTuple):
    """A shelf in force."""

    id: int
    target: Target
    ends: Until
    peak_score: float
    since_alert_id: int


def active(connection: Connection, now_us: int) -> list[Shelf]:
    """Return the shelves in force."""
    return [_shelf(row) for row in connection.execute(_ACTIVE) if row.until_us > now_us]


def _shelf(row: Row[tuple[object, ...]]) -> Shelf:
    ends = Until.parse(row.until, row.made_us)._replace(until_us=row.until_us)
    target = Target(row.alert_id, row.fleet, row.asset, row.sensor)
    return Shelf(row.id, target, ends, row.peak_score or THRESHOLD, row.since_alert_id)


def covering(shelves: Iterable[Shelf], subject: Subject) -> Shelf | None:
    """Return a shelf that covers an alert, or None."""
    return next((shelf for shelf in shelves if shelf.target.covers(subject)), None)


def end_by_alert(
    connection: Connection,
    in_force: Iterable[Shelf],
    subject: Subject,
    *,
    is_new: bool,
    is_closed: bool,
    now_us: int,
) -> tuple[list[Shelf], bool]:
    """End those shelves that an alert's change ends. Return the others, and whether one of them covers the alert."""
    kept, is_covered = list[Shelf](), False
    for shelf in in_force:
        covers = shelf.target.covers(subject)
        why = _why_over(connection, shelf, subject, is_new=is_new, is_closed=is_closed) if covers else None
        if why is None:
            kept.append(shelf)
            is_covered |= covers
        else:
            end(connection, shelf.id, why, acts.MONITOR, now_us)
    return kept, is_covered


def _why_over(
    connection: Connection, shelf: Shelf, subject: Subject, *, is_new: bool, is_closed: bool
) -> str | None:
    ends = shelf.ends
    if is_closed and shelf.target.alert_id is not None:
        return "the alert closed"
    if is_closed and ends.is_recovered:
        others = (each for each in subjects.open_alerts(connection) if each.alert_id != subject.alert_id)
        return None if any(shelf.target.covers(each) for each in others) else "recovered"
    peak = subject.peak_score or 0.0
    if ends.worse is not None and peak >= ends.worse * shelf.peak_score:
        return f"worse: peak {peak:.2f} after {shelf.peak_score:.2f}"
    if ends.n_alerts is not None and is_new:
        since = subjects.opened_after(connection, subject.opened_us - ends.within_us, shelf.since_alert_id)
        n_found = sum(shelf.target.covers(each) for each in since)
        return f"{n_found} alerts" if n_found > ends.n_alerts else None
    return None
