"""What was used of a fleet's false-alarm budget: windows that were scored and alerts that were opened.

In: any door that answers a SELECT (the operators' `Reader`, or the daemon's connection through `door`). Out: a
`Standing`, for the command line and the daemon alike. Law: cheap. The time watched is an estimate from at most
`N_STRIPES` moments, each a seek in the scores' key; exact while a version has scored fewer windows of an asset.
Imports nothing heavy: this is on the way of a read command.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monitor.budget import Alarm, Burn, Status, burn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Connection

    Fetch = Callable[[str, Mapping[str, object]], Iterable[Mapping[str, Any]]]
    """One SELECT, `:name` for a value."""

N_STRIPES, LEAST_STRIPES, MOST_ROWS = 400, 40, 100_000
"""Moments at which one looks who was watched, fewer in a large fleet: one asset's time is known within 5 to 15 %, and a
large fleet's as well."""

RECENT_US = 28 * 24 * 3600 * 1_000_000
"""The fleet's budget is looked at over this time, whichever versions decided in it: a retraining every day must not
wipe the slate clean every day."""

WEEK_US = 7 * 24 * 3600 * 1_000_000


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


def standing(fetch: Fetch, fleet: str, version: str, threshold: Mapping[str, Any]) -> Standing | None:
    """Return how the promise of a version's threshold (its card's) stands; None = it has decided nothing yet."""
    step_us = round(threshold["step_s"] * 1e6)
    extent = _extent(fetch, fleet, version, step_us)
    if extent is None:
        return None
    oldest_us, from_us, to_us, newest_us, span_us, n_assets = extent
    budget = float(threshold["alarms_per_week"])
    before = (int(threshold["n_episodes"]), float(threshold["weeks"]))

    def used(from_us: int, to_us: int, version: str | None) -> tuple[dict[str, float], dict[str, list[Alarm]]]:
        scope = {"fleet": fleet, "version": version, "from_us": from_us, "to_us": to_us}
        return _watched(fetch, scope, step_us, span_us, n_assets), _alarms(fetch, scope)

    weeks, alarms = used(from_us, to_us, version)
    every = [alarm for found in alarms.values() for alarm in found]
    own = burn(every, from_us, to_us, sum(weeks.values()), budget, before=before)
    since_us = max(oldest_us, newest_us - RECENT_US)
    weeks, alarms = used(since_us, newest_us, None)
    every = [alarm for found in alarms.values() for alarm in found]
    recent = burn(every, since_us, newest_us, sum(weeks.values()), budget)
    n_watched = max(1, len(weeks))
    each = [
        (name, burn(found, since_us, newest_us, weeks.get(name, 0.0), budget, one_of=n_watched))
        for name, found in alarms.items()
    ]
    each.sort(key=lambda one: (-one[1].ratio, one[0]))
    return Standing(fleet, version, from_us, to_us, own, recent, tuple(each))


def of_champion(connection: Connection, fleet: str) -> Standing | None:
    """Return how the promise of a fleet's champion stands; None = there is none, or none that is known."""
    import json

    fetch = door(connection)
    for row in fetch(_CHAMPION, {"fleet": fleet}):
        threshold = json.loads(row["card"]).get("threshold")
        return None if threshold is None else standing(fetch, fleet, row["version"], threshold)
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
    SELECT MAX(end_us) AS newest_us, MAX(end_us - score.start_us) AS span_us, COUNT(*) AS n_assets
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
    SELECT asset.name AS asset, COUNT(*) AS n
    FROM stripe CROSS JOIN score JOIN asset ON asset.id = asset_id
    WHERE score.start_us >= at_us AND score.start_us < at_us + CAST(:step_us AS BIGINT)
        AND score.start_us < :beyond_us AND score.score IS NOT NULL AND asset.fleet = :fleet {only}
    GROUP BY asset.name
"""
_BY_VERSION = "AND version_id = (SELECT id FROM model_version WHERE version = :version)"
_ALARMS = """
    SELECT asset.name AS asset, opened_us, closed_us FROM alert JOIN asset ON asset.id = asset_id
    WHERE fleet = :fleet AND (label IS NULL OR label <> 'fault') AND opened_us <= :to_us
        AND (closed_us IS NULL OR closed_us > :from_us) {only}
    ORDER BY opened_us
"""


def _extent(fetch: Fetch, fleet: str, version: str, step_us: int) -> tuple[int, int, int, int, int, int] | None:
    """Return where the kept scores begin, the version's event time in them, where they end, a window's length, and the
    number of assets. Times are ends of windows.
    """
    decided = next(iter(fetch(_RANGE, {"fleet": fleet, "version": version})), None)
    newest = next(iter(fetch(_NEWEST, {"fleet": fleet})))
    oldest = next(iter(fetch(_OLDEST, {})))
    if decided is None or newest["newest_us"] is None:
        return None
    oldest_us = oldest["oldest_us"] + newest["span_us"] - step_us
    from_us = max(decided["from_us"], oldest_us)
    to_us = newest["newest_us"] if decided["to_us"] is None else min(decided["to_us"], newest["newest_us"])
    if to_us <= from_us:
        return None
    return oldest_us, from_us, to_us, newest["newest_us"], newest["span_us"], newest["n_assets"]


def _watched(
    fetch: Fetch, scope: Mapping[str, Any], step_us: int, span_us: int, n_assets: int
) -> dict[str, float]:
    """Return the weeks that each asset was watched."""
    first_us, beyond_us = scope["from_us"] - span_us + 1, scope["to_us"] - span_us + 1   # of the windows' starts
    n_steps = -(-(beyond_us - first_us) // step_us)
    n_stripes = max(LEAST_STRIPES, min(N_STRIPES, MOST_ROWS // n_assets))
    apart_us = step_us * max(1, n_steps // n_stripes)
    values = {"fleet": scope["fleet"], "first_us": first_us, "beyond_us": beyond_us, "apart_us": apart_us}
    by_version = {} if scope["version"] is None else {"version": scope["version"]}
    sql = _STRIPES.format(only=_BY_VERSION if by_version else "")
    rows = fetch(sql, values | {"step_us": step_us} | by_version)
    # The last stripe may stand for less than the others.
    most = (scope["to_us"] - scope["from_us"]) / WEEK_US
    return {row["asset"]: min(most, row["n"] * apart_us / WEEK_US) for row in rows}


def _alarms(fetch: Fetch, scope: Mapping[str, Any]) -> dict[str, list[Alarm]]:
    """Return each asset's alerts that were open in the scope's time and are not labelled faults."""
    by_version = {} if scope["version"] is None else {"version": scope["version"]}
    values = {name: scope[name] for name in ("fleet", "from_us", "to_us")}
    found: dict[str, list[Alarm]] = {}
    for row in fetch(_ALARMS.format(only="AND version = :version" if by_version else ""), values | by_version):
        found.setdefault(row["asset"], []).append(Alarm(row["opened_us"], row["closed_us"]))
    return found
