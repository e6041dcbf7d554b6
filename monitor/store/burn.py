"""Burn of a fleet's false-alarm budget, from its scored windows and its alerts.

Input: a function that runs a SELECT (`Reader.fetch`, or `fetch_through` the daemon's connection). Output: a
`BudgetReport`, for the command line and the daemon alike. Invariant: the cost is bounded. The time watched is estimated
from at most `N_STRIPES` moments, each a seek in the scores' key. It is exact while a version has scored fewer windows
of an asset. This module imports nothing slow, because every read command imports it.

Times in maintenance, and those labelled fault or ignore, are neither watched nor do their alerts count
(`left_out.py`). An alert counts unless it is labelled fault or ignore, and until it was closed by hand.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from monitor.budget import (
    DAY_US,
    Alarm,
    BudgetReport,
    BudgetTerms,
    Burn,
    UnreadableThreshold,
    burn,
    count_moments,
)
from monitor.store import left_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Connection

    from monitor.store.left_out import LeftOut

    Fetch = Callable[[str, Mapping[str, object]], Iterable[Mapping[str, Any]]]
    """Run one SELECT with `:name` for a value, and return rows by column name."""

N_STRIPES, LEAST_STRIPES, MOST_ROWS = 400, 40, 100_000
"""Most and fewest sampled moments, and the most rows in all: a large fleet is sampled at fewer moments. The watched
time of one asset is known within 5 to 15 %, and so is that of a large fleet."""

RECENT_US = 28 * DAY_US
"""Period of the fleet's own report, over all versions: a retraining every day must not reset the count every day."""

HOUR_US = DAY_US // 24
WEEK_US = 7 * DAY_US
MOST_FORMER = 1000
"""Former versions that are evidence, too: more than two years of a retraining a day, as long as roll-ups are kept. Each
card takes about 0.05 ms to read."""
MOST_HOURS = 20_000
"""Hourly roll-ups that are read. Of more, one in so many hours, at all times of day and week alike."""

FAMILIES = 3
"""Families of tests: the version, the fleet and the assets. One violation is enough for the verdict. So all of them
together may be wrong as rarely as one test alone."""


def budget_report(fetch: Fetch, fleet: str, version: str, threshold: object) -> BudgetReport | None:
    """Report on the budget of a version's threshold (from its card). None = no terms in it, or nothing decided yet."""
    terms = BudgetTerms.read(threshold)
    if terms is None:
        return None
    step_us, budget = terms.step_us, terms.alarms_per_week
    extent = _extent(fetch, fleet, version, step_us)
    if extent is None:
        return None
    scope = _Scope(fleet, version, extent.from_us, extent.to_us)
    recent = _Scope(fleet, None, max(extent.oldest_us, extent.newest_us - RECENT_US), extent.newest_us)
    judged = left_out.read(fetch, fleet, min(scope.from_us, recent.from_us), extent.newest_us + 1)
    scope, watched = _retained(fetch, scope, extent, step_us, judged)
    earlier = scope._replace(from_us=extent.since_us, to_us=scope.from_us)
    own = _burn(
        scope, watched, _alarms(fetch, scope, judged), budget,
        before=(terms.n_episodes, terms.weeks), earlier=_earlier(fetch, earlier, extent, step_us),
        former=_former(fetch, earlier, extent, step_us), is_tested=terms.is_tested,
    )  # fmt: skip
    recent, watched = _retained(fetch, recent, extent, step_us, judged)
    alarms = _alarms(fetch, recent, judged)
    worst = []
    for name, found in alarms.items():
        from_us, weeks = watched.assets.get(name, (recent.from_us, 0.0))
        one_of = FAMILIES * max(1, len(watched.assets))
        worst.append((name, burn(found, from_us, recent.to_us, weeks, budget, one_of=one_of, is_sliding=True)))
    worst.sort(key=lambda each: (-each[1].ratio, each[0]))
    whole = _burn(recent, watched, alarms, budget, is_sliding=True)
    return BudgetReport(fleet, version, scope.from_us, scope.to_us, own, whole, tuple(worst))


def champion_budget_report(connection: Connection, fleet: str) -> BudgetReport | UnreadableThreshold | None:
    """Report on the budget of a fleet's champion. None = there is no champion, or it has decided nothing yet."""
    fetch = fetch_through(connection)
    for row in fetch(_CHAMPION, {"fleet": fleet}):
        try:
            card = json.loads(row["card"])
        except ValueError:
            card = None
        threshold = card.get("threshold") if isinstance(card, dict) else None
        if BudgetTerms.read(threshold) is None:
            return UnreadableThreshold(fleet, row["version"])
        return budget_report(fetch, fleet, row["version"], threshold)
    return None


def fetch_through(connection: Connection) -> Fetch:
    """Return a `Fetch` over the daemon's connection."""
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
_ACTIVATED = """
    SELECT from_window_end_us AS from_us, card
    FROM model_activation JOIN model_version ON model_version.id = version_id
    WHERE model_activation.fleet = :fleet AND from_window_end_us <= :until_us
    ORDER BY from_window_end_us DESC LIMIT :n
"""
_NEWEST = """
    SELECT MAX(score.end_us) AS newest_us, MAX(score.end_us - score.start_us) AS span_us, COUNT(*) AS n_assets
    FROM asset JOIN last_window ON last_window.asset_id = asset.id
    JOIN score ON score.start_us = last_window.start_us AND score.asset_id = asset.id
    WHERE fleet = :fleet AND score.end_us <= (
        SELECT COALESCE(MAX(saved_us), score.end_us) + 3600000000 FROM source_partition  -- the rest is in the future
    )
"""
_OLDEST = "SELECT MIN(start_us) AS oldest_us FROM score"
# A stripe is one step wide: it holds one window of each watched asset, for any stride.
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
_OLDEST_HOUR = "SELECT MIN(hour_us) AS oldest_us FROM score_hour"
_HOURS = """
    WITH RECURSIVE stripe (at_us) AS (
        SELECT CAST(:first_us AS BIGINT)
        UNION ALL
        SELECT at_us + CAST(:apart_us AS BIGINT) FROM stripe WHERE at_us + CAST(:apart_us AS BIGINT) < :beyond_us
    )
    SELECT {columns}
    FROM stripe JOIN score_hour ON hour_us = at_us JOIN asset ON asset.id = asset_id
    WHERE asset.fleet = :fleet
"""
_BY_VERSION = "version_id = (SELECT id FROM model_version WHERE version = :version)"
_ALARMS = """
    SELECT asset.name AS asset, opened_us, COALESCE(closed_by_hand_us, closed_us) AS closed_us, label
    FROM alert JOIN asset ON asset.id = asset_id
    WHERE asset.fleet = :fleet AND (label IS NULL OR label NOT IN ('fault', 'ignore')) AND opened_us <= :to_us
        AND (COALESCE(closed_by_hand_us, closed_us) IS NULL OR COALESCE(closed_by_hand_us, closed_us) > :from_us)
        AND (suppressed_by IS NULL OR suppressed_by <> 'maintenance') {only}
    ORDER BY opened_us
"""


class _Extent(NamedTuple):
    """Bounds of the stored windows, by their ends."""

    oldest_us: int
    """Just before the oldest stored score of any fleet."""
    since_us: int
    """The version decides from here on. Earlier than `from_us` where retention has deleted scores."""
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
    """None = all versions."""
    from_us: int
    to_us: int


class _Watched(NamedTuple):
    assets: dict[str, tuple[int, float]]
    """Name → (start of the time watched in µs, weeks watched)."""
    by_day: list[float]
    """Share of the watched time on each day of the scope."""


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
    if to_us <= from_us:
        return None
    return _Extent(oldest_us, decided["from_us"], from_us, to_us, newest_us, span_us, newest["n_assets"])


def _retained(
    fetch: Fetch, scope: _Scope, extent: _Extent, step_us: int, judged: LeftOut
) -> tuple[_Scope, _Watched]:
    """Cut the scope to the range with stored scores. Return it with the time watched in it.

    Retention deletes scores earlier than alerts, and alerts without the time watched are no evidence.
    """
    watched = _watched(fetch, scope, extent, step_us, judged)
    since_us = min((since_us for since_us, _ in watched.assets.values()), default=scope.from_us)
    if since_us == scope.from_us:
        return scope, watched
    scope = scope._replace(from_us=since_us)
    return scope, _watched(fetch, scope, extent, step_us, judged)


def _watched(fetch: Fetch, scope: _Scope, extent: _Extent, step_us: int, judged: LeftOut) -> _Watched:
    first_us, beyond_us = (us - extent.span_us + 1 for us in (scope.from_us, scope.to_us))   # of the windows' starts
    n_steps = -(-(beyond_us - first_us) // step_us)
    n_stripes = max(LEAST_STRIPES, min(N_STRIPES, MOST_ROWS // extent.n_assets))
    apart_us = step_us * max(1, n_steps // n_stripes)
    values = {"fleet": scope.fleet, "first_us": first_us, "beyond_us": beyond_us, "apart_us": apart_us}
    values |= {"step_us": step_us} | _only(scope)
    sql = _STRIPES.replace("{only}", "AND " + _BY_VERSION if scope.version else "")
    names: dict[str, tuple[int, int]] = {}
    moments: dict[int, int] = {}
    if judged:  # an asset's windows count one by one: some of its stripes are left out
        for row in fetch(sql.format(key="asset.name, at_us"), values):
            name, at_us, n = row["name"], row["at_us"], row["n"]
            if not judged.leaves_out(name, at_us + step_us - 1 + extent.span_us):  # by the end of its window
                first, n_before = names.get(name, (at_us, 0))
                names[name] = min(first, at_us), n_before + n
                moments[at_us] = moments.get(at_us, 0) + n
    else:
        names = {row["name"]: (row["at_us"], row["n"]) for row in fetch(sql.format(key="asset.name"), values)}
        moments = {row["at_us"]: row["n"] for row in fetch(sql.format(key="at_us"), values)}
    # The last stripe may stand for less than the others.
    longest = (scope.to_us - scope.from_us) / WEEK_US
    assets = {
        name: (scope.from_us + at_us - first_us, min(longest, n * apart_us / WEEK_US))
        for name, (at_us, n) in names.items()
    }
    by_day = [0.0] * max(1, -(-(scope.to_us - scope.from_us) // DAY_US))
    for at_us, n in moments.items():
        by_day[(at_us - first_us) // DAY_US] += n
    total = sum(by_day)
    return _Watched(assets, [n / total for n in by_day] if total else by_day)


def _former(fetch: Fetch, own: _Scope, extent: _Extent, step_us: int) -> tuple[int, float] | None:
    """Return the evidence of former versions without a break, with the held-out time of the first. None = no former.

    They have the budget and the alert policy of this version, and no higher factor of labels: at a lower threshold the
    alarms are only more.
    """
    rows = iter(fetch(_ACTIVATED, {"fleet": own.fleet, "until_us": own.from_us, "n": MOST_FORMER}))
    present, first, since_us = next(rows, None), None, own.from_us
    terms = None if present is None else _same_terms(present["card"])
    for row in rows:
        found = _same_terms(row["card"])
        if terms is None or found is None or found.policy != terms.policy or found.factor > terms.factor:
            break
        first, since_us = found, row["from_us"]
    if first is None:
        return None
    n, weeks = _earlier(fetch, _Scope(own.fleet, None, since_us, own.from_us), extent, step_us)
    return n + first.held_out[0], weeks + first.held_out[1]


class _SameTerms(NamedTuple):
    policy: tuple[float, ...]
    """Budget and alert policy."""
    factor: float
    """Of the threshold, by labels."""
    held_out: tuple[int, float]
    """Alarms and asset-weeks."""


def _same_terms(text: str) -> _SameTerms | None:
    try:
        card = json.loads(text)
        threshold, factor = card["threshold"], (card.get("labels") or {"factor": 1.0})["factor"]
        policy = tuple(threshold[name] for name in ("alarms_per_week", "confirm", "among", "recover", "step_s"))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    terms = BudgetTerms.read(threshold)
    return None if terms is None else _SameTerms(policy, float(factor), (terms.n_episodes, terms.weeks))


def _earlier(fetch: Fetch, scope: _Scope, extent: _Extent, step_us: int) -> tuple[int, float]:
    """Return the alarms and the asset-weeks of a time that may lie before the stored scores, from the hourly roll-ups.

    Without them, a fleet exactly at its budget would be certified at some time in a year with a chance of 11 %: by the
    90 days of scores alone the evidence would begin anew with each day.
    """
    oldest = next(iter(fetch(_OLDEST_HOUR, {})))["oldest_us"]
    if oldest is None:
        return 0, 0.0
    scope = scope._replace(from_us=max(scope.from_us, oldest - 1))
    first_us, beyond_us = -(-scope.from_us // HOUR_US) * HOUR_US, scope.to_us // HOUR_US * HOUR_US
    if first_us >= beyond_us:
        return 0, 0.0
    n_hours = (beyond_us - first_us) // HOUR_US
    apart = max(1, n_hours * extent.n_assets // MOST_HOURS)
    while math.gcd(apart, 168) > 1:  # the hours of a week
        apart += 1
    judged = left_out.read(fetch, scope.fleet, scope.from_us, scope.to_us)
    values = {"fleet": scope.fleet, "first_us": first_us, "beyond_us": beyond_us, "apart_us": apart * HOUR_US}
    if judged:
        rows = fetch(_HOURS.format(columns="asset.name AS name, at_us, n_windows - n_unscored AS n"), values)
        n = sum(row["n"] for row in rows if not judged.leaves_out(row["name"], row["at_us"] + HOUR_US // 2))
    else:
        [row] = fetch(_HOURS.format(columns="COALESCE(SUM(n_windows - n_unscored), 0) AS n"), values)
        n = int(row["n"])
    alarms = [alarm for found in _alarms(fetch, scope, judged).values() for alarm in found]
    return len(count_moments(alarms, scope.from_us, scope.to_us)), n * apart * step_us / WEEK_US


def _alarms(fetch: Fetch, scope: _Scope, judged: LeftOut) -> dict[str, list[Alarm]]:
    """Return each asset's alerts that were open in the scope's time and count as false until a label says more."""
    values = {"fleet": scope.fleet, "from_us": scope.from_us, "to_us": scope.to_us} | _only(scope)
    found: dict[str, list[Alarm]] = {}
    for row in fetch(_ALARMS.format(only="AND version = :version" if scope.version else ""), values):
        # A word on the alert itself is stronger than one on a time.
        if row["label"] is not None or not judged.leaves_out(row["asset"], row["opened_us"]):
            found.setdefault(row["asset"], []).append(Alarm(row["opened_us"], row["closed_us"]))
    return found


def _only(scope: _Scope) -> dict[str, object]:
    return {} if scope.version is None else {"version": scope.version}


def _burn(
    scope: _Scope,
    watched: _Watched,
    alarms: Mapping[str, list[Alarm]],
    alarms_per_week: float,
    **evidence: Any,
) -> Burn:
    """`evidence`: see `budget.burn`."""
    every = [alarm for found in alarms.values() for alarm in found]
    weeks = sum(weeks for _, weeks in watched.assets.values())
    return burn(
        every, scope.from_us, scope.to_us, weeks, alarms_per_week,
        by_day=watched.by_day, one_of=FAMILIES, **evidence,
    )
