"""What was used of a fleet's false-alarm budget: windows that were scored and alerts that were opened.

In: any door that answers a SELECT (the operators' `Reader`, or the daemon's connection through `door`). Out: a
`Standing`, for the command line and the daemon alike. Law: cheap. The time watched is an estimate from at most
`N_STRIPES` moments, each a seek in the scores' key; exact while a version has scored fewer windows of an asset.
Imports nothing heavy: this is on the way of a read command.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from monitor.budget import DAY_US, Alarm, Burn, Status, burn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Connection

    Fetch = Callable[[str, Mapping[str, object]], Iterable[Mapping[str, Any]]]
    """One SELECT, `:name` for a value."""

N_STRIPES, LEAST_STRIPES, MOST_ROWS = 400, 40, 100_000
"""Moments at which one looks who was watched, fewer in a large fleet: one asset's time is known within 5 to 15 %, and a
large fleet's as well."""

RECENT_US = 28 * DAY_US
"""The fleet's budget is looked at over this time, whichever versions decided in it: a retraining every day must not
wipe the slate clean every day."""

WEEK_US = 7 * DAY_US

FAMILIES = 3
"""The version, the fleet, and its assets are each looked at, and one that is violated is enough: a wrong verdict of any
must be as rare as one of all is said to be."""


class Promise(NamedTuple):
    """What of a stored threshold is audited."""

    alarms_per_week: float
    step_s: float
    n_episodes: int
    weeks: float
    """Held out, as far as they are evidence."""

    @classmethod
    def read(cls, threshold: object) -> Promise | None:
        """Read a card's threshold; None = it is none, or of a format that promised nothing."""
        if not isinstance(threshold, dict):
            return None
        found = [value for name in cls._fields if isinstance(value := threshold.get(name), int | float)]
        if len(found) < len(cls._fields) or not all(0 <= value < inf for value in found):
            return None
        alarms_per_week, step_s, n_episodes, weeks = found
        promise = cls(alarms_per_week, step_s, int(n_episodes), weeks)
        if not (promise.alarms_per_week > 0 and promise.step_us > 0):
            return None
        return promise._replace(weeks=0.0) if threshold.get("n_overlapping") else promise

    @property
    def step_us(self) -> int:
        """Time between two windows of an asset."""
        return round(self.step_s * 1e6)


class NoPromise(NamedTuple):
    """A champion whose stored threshold cannot be read."""

    fleet: str
    version: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How a fleet's promise stands, from the version that made it and from what happened since."""

    fleet: str
    version: str
    from_us: int
    to_us: int
    """Event time (from, to] in which the version decided, as far as its scores are still kept."""
    own: Burn
    """The version's, from then on; the held-out data count as evidence."""
    recent: Burn
    """The whole fleet's, in the last four weeks of event time."""
    worst: tuple[tuple[str, Burn], ...]
    """Assets with an alarm in those weeks, the one that burns fastest first."""

    @property
    def status(self) -> Status:
        """Violated if the version, the fleet or any asset alone is; else what is known of the version."""
        every = (self.own, self.recent, *(burn for _, burn in self.worst))
        return Status.VIOLATED if any(burn.status is Status.VIOLATED for burn in every) else self.own.status

    @property
    def culprits(self) -> tuple[str, ...]:
        """Assets that break the promise on their own."""
        return tuple(name for name, burn in self.worst if burn.status is Status.VIOLATED)


def standing(fetch: Fetch, fleet: str, version: str, threshold: object) -> Standing | None:
    """Return how the promise of a version's threshold (its card's) stands; None = it made none, or decided nothing."""
    promise = Promise.read(threshold)
    if promise is None:
        return None
    step_us, budget = promise.step_us, promise.alarms_per_week
    extent = _extent(fetch, fleet, version, step_us)
    if extent is None:
        return None
    mine, watched = _kept(fetch, _Scope(fleet, version, extent.from_us, extent.to_us), extent, step_us)
    alarms = _alarms(fetch, mine)
    before = (promise.n_episodes, promise.weeks)
    own = _burn(mine, watched, alarms, budget, before)
    recent = _Scope(fleet, None, max(extent.oldest_us, extent.newest_us - RECENT_US), extent.newest_us)
    recent, watched = _kept(fetch, recent, extent, step_us)
    alarms = _alarms(fetch, recent)
    each = []
    for name, found in alarms.items():
        from_us, weeks = watched.assets.get(name, (recent.from_us, 0.0))
        one_of = FAMILIES * max(1, len(watched.assets))
        each.append((name, burn(found, from_us, recent.to_us, weeks, budget, one_of=one_of)))
    each.sort(key=lambda one: (-one[1].ratio, one[0]))
    whole = _burn(recent, watched, alarms, budget)
    return Standing(fleet, version, mine.from_us, mine.to_us, own, whole, tuple(each))


def of_champion(connection: Connection, fleet: str) -> Standing | NoPromise | None:
    """Return how the promise of a fleet's champion stands; None = there is no champion, or it decided nothing yet."""
    import json

    fetch = door(connection)
    for row in fetch(_CHAMPION, {"fleet": fleet}):
        try:
            card = json.loads(row["card"])
        except ValueError:
            card = None
        threshold = card.get("threshold") if isinstance(card, dict) else None
        if Promise.read(threshold) is None:
            return NoPromise(fleet, row["version"])
        return standing(fetch, fleet, row["version"], threshold)
    return None


def door(connection: Connection) -> Fetch:
    """Let the daemon ask through its own connection."""
    from sqlalchemy import text

    return lambda sql, values: [dict(row) for row in connection.execute(text(sql), values).mappings()]


# ---------------------------------------------------------------- the statements

_CHAMPION = "SELECT version, card FROM model_version WHERE fleet = :fleet AND state = 'champion'"
_RANGE = """
    SELECT from_window_end_us AS from_us, (
        SELECT MIN(later.from_window_end_us) FROM model_activation AS later
        WHERE later.fleet = :fleet AND later.from_window_end_us > model_activation.from_window_end_us
    ) AS to_us
    FROM model_activation JOIN model_version ON model_version.id = version_id
    WHERE model_activation.fleet = :fleet AND version = :version
    ORDER BY from_window_end_us DESC LIMIT 1
"""
_NEWEST = """
    SELECT MAX(score.end_us) AS newest_us, MAX(score.end_us - score.start_us) AS span_us, COUNT(*) AS n_assets
    FROM asset JOIN last_window ON last_window.asset_id = asset.id
    JOIN score ON score.start_us = last_window.start_us AND score.asset_id = asset.id
    WHERE fleet = :fleet
"""
_OLDEST = "SELECT MIN(start_us) AS oldest_us FROM score"
# A stripe is one step wide: of an asset that was watched it holds one window, whatever the stride.
_STRIPES = """
    WITH RECURSIVE stripe (at_us) AS (
        SELECT CAST(:first_us AS BIGINT)
        UNION ALL
        SELECT at_us + CAST(:apart_us AS BIGINT) FROM stripe WHERE at_us + CAST(:apart_us AS BIGINT) < :beyond_us
    )
    SELECT {key}, MIN(at_us) AS at_us, COUNT(*) AS n
    FROM stripe CROSS JOIN score JOIN asset ON asset.id = asset_id
    WHERE score.start_us >= at_us AND score.start_us < at_us + CAST(:step_us AS BIGINT)
        AND score.start_us < :beyond_us AND score.score IS NOT NULL AND asset.fleet = :fleet {only}
    GROUP BY {key}
"""
_BY_VERSION = "version_id = (SELECT id FROM model_version WHERE version = :version)"
_ALARMS = """
    SELECT asset.name AS asset, opened_us, closed_us FROM alert JOIN asset ON asset.id = asset_id
    WHERE asset.fleet = :fleet AND (label IS NULL OR label <> 'fault') AND opened_us <= :to_us
        AND (closed_us IS NULL OR closed_us > :from_us) {only}
    ORDER BY opened_us
"""


class _Extent(NamedTuple):
    """Ends of windows."""

    oldest_us: int
    """Just before the oldest score that is kept, of whichever fleet."""
    from_us: int
    to_us: int
    """The version decided in (from, to]."""
    newest_us: int
    span_us: int
    """A window's length."""
    n_assets: int


class _Scope(NamedTuple):
    fleet: str
    version: str | None
    """None: any."""
    from_us: int
    to_us: int


class _Watched(NamedTuple):
    assets: dict[str, tuple[int, float]]
    """Name → since when, and how many weeks."""
    by_day: list[float]
    """Share of all the time that was watched on each day of the scope."""


def _extent(fetch: Fetch, fleet: str, version: str, step_us: int) -> _Extent | None:
    decided = next(iter(fetch(_RANGE, {"fleet": fleet, "version": version})), None)
    newest = next(iter(fetch(_NEWEST, {"fleet": fleet})))
    oldest = next(iter(fetch(_OLDEST, {})))
    if decided is None or newest["newest_us"] is None:
        return None
    newest_us, span_us = newest["newest_us"], newest["span_us"]
    oldest_us = oldest["oldest_us"] + span_us - step_us
    from_us = max(decided["from_us"], oldest_us)
    to_us = newest_us if decided["to_us"] is None else min(decided["to_us"], newest_us)
    return None if to_us <= from_us else _Extent(oldest_us, from_us, to_us, newest_us, span_us, newest["n_assets"])


def _kept(fetch: Fetch, scope: _Scope, extent: _Extent, step_us: int) -> tuple[_Scope, _Watched]:
    """Return who was watched, and the scope without the beginning of which retention left no scores: alerts outlive
    them, and are no evidence without the time that was watched.
    """
    watched = _watched(fetch, scope, extent, step_us)
    since_us = min((since_us for since_us, _ in watched.assets.values()), default=scope.from_us)
    if since_us == scope.from_us:
        return scope, watched
    scope = scope._replace(from_us=since_us)
    return scope, _watched(fetch, scope, extent, step_us)


def _watched(fetch: Fetch, scope: _Scope, extent: _Extent, step_us: int) -> _Watched:
    first_us, beyond_us = (us - extent.span_us + 1 for us in (scope.from_us, scope.to_us))   # of the windows' starts
    n_steps = -(-(beyond_us - first_us) // step_us)
    n_stripes = max(LEAST_STRIPES, min(N_STRIPES, MOST_ROWS // extent.n_assets))
    apart_us = step_us * max(1, n_steps // n_stripes)
    values = {"fleet": scope.fleet, "first_us": first_us, "beyond_us": beyond_us, "apart_us": apart_us}
    values |= {"step_us": step_us} | _only(scope)
    sql = _STRIPES.replace("{only}", "AND " + _BY_VERSION if scope.version else "")
    assets = {}
    for row in fetch(sql.format(key="asset.name"), values):
        # The last stripe may stand for less than the others.
        weeks = min((scope.to_us - scope.from_us) / WEEK_US, row["n"] * apart_us / WEEK_US)
        assets[row["name"]] = (scope.from_us + row["at_us"] - first_us, weeks)
    by_day = [0.0] * max(1, -(-(scope.to_us - scope.from_us) // DAY_US))
    for row in fetch(sql.format(key="at_us"), values):
        by_day[(row["at_us"] - first_us) // DAY_US] += row["n"]
    total = sum(by_day)
    return _Watched(assets, [n / total for n in by_day] if total else by_day)


def _alarms(fetch: Fetch, scope: _Scope) -> dict[str, list[Alarm]]:
    """Return each asset's alerts that were open in the scope's time and are not labelled faults."""
    values = {"fleet": scope.fleet, "from_us": scope.from_us, "to_us": scope.to_us} | _only(scope)
    found: dict[str, list[Alarm]] = {}
    for row in fetch(_ALARMS.format(only="AND version = :version" if scope.version else ""), values):
        found.setdefault(row["asset"], []).append(Alarm(row["opened_us"], row["closed_us"]))
    return found


def _only(scope: _Scope) -> dict[str, object]:
    return {} if scope.version is None else {"version": scope.version}


def _burn(
    scope: _Scope,
    watched: _Watched,
    alarms: Mapping[str, list[Alarm]],
    alarms_per_week: float,
    before: tuple[int, float] = (0, 0.0),
) -> Burn:
    every = [alarm for found in alarms.values() for alarm in found]
    weeks = sum(weeks for _, weeks in watched.assets.values())
    return burn(
        every, scope.from_us, scope.to_us, weeks, alarms_per_week,
        by_day=watched.by_day, before=before, one_of=FAMILIES,
    )
