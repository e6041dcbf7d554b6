"""Preview of a budget: the alerts that other budgets and alert policies would have raised, from stored scores.

Input: scores, and the thresholds on the card of each version (`models.held_out.HeldOut.table`). Output: a row for each
budget and policy. Invariant: alerts are counted as `stream.alerting` opens and closes them. Nothing is trained and no
checkpoint is read.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from monitor.budget import DAY_US, WEEK_S, weekly
from monitor.errors import NotFound
from monitor.store.queries.backend import Backend, Row, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.config.values import Confirm, Rate
    from monitor.types import Bool, Float32, Int64

DEFAULT_BUDGETS = ("1/90d", "1/month", "1/week", "2/week", "1/day", "2/day")
DEFAULT_CONFIRMS = ("1 of 1", "2 of 3", "3 of 5", "5 of 8")


class PreviewQueries(Backend):
    """Queries of the alerts that other settings would have given."""

    def budget_preview(
        self,
        fleet: str,
        budgets: Sequence[str | Rate] = DEFAULT_BUDGETS,
        confirms: Sequence[str | Confirm] = DEFAULT_CONFIRMS,
        recover: int | None = None,
        days: float = 30,
    ) -> list[Row]:
        """Return the alerts of the fleet's last `days` of event time for each budget and number of confirmations.

        A row has budget, confirm, threshold (as a multiple of the present one), alerts, alerts_per_asset_week, weeks
        (asset-weeks), is_present (the champion's own setting), is_estimate (the threshold is from the nearest policy
        with as many or fewer confirmations, or beyond the table) and reason. threshold, alerts and
        alerts_per_asset_week are None where the champion's card has no table of thresholds: `reason` says so.
        `recover`: None = the champion's. Raises NotFound (no champion), ValueError for a malformed budget or confirm.
        """
        from monitor.config.values import Confirm, Rate

        rates, policies = [Rate.parse(each) for each in budgets], [Confirm.parse(each) for each in confirms]
        champion, tables = self._tables(fleet)
        settings = [(rate, policy) for policy in policies for rate in rates]
        placed = [_placed(champion, rate, policy) for rate, policy in settings]
        if champion.table is None:
            reason = f"{champion.version} keeps no held-out scores; `monitor retrain {fleet}` makes a version with them"
            return [_row(champion, *setting, None, reason=reason) for setting in settings]
        recover = champion.recover if recover is None else recover
        lowest = min(each.factor for each in placed)
        ratios = {version: [_placed(own, *setting).factor for setting in settings] for version, own in tables.items()}
        lowest = min([lowest, *(ratio for own in ratios.values() for ratio in own)])
        n_windows, high = self._high_scores(fleet, lowest, days)
        weeks = n_windows * champion.step_s / WEEK_S
        rows = []
        for place, (setting, at) in enumerate(zip(settings, placed, strict=True)):
            factor = high.factors({version: own[place] for version, own in ratios.items()}, at.factor)
            n = count_alerts(high.asset, high.place, high.score >= factor, setting[1].m, setting[1].n, recover)
            rows.append(_row(champion, *setting, at, alerts=n, weeks=weeks))
        return rows

    def _tables(self, fleet: str) -> tuple[_Thresholds, dict[int, _Thresholds]]:
        """Return the champion's thresholds, and those of all versions of the fleet that have a table, by id."""
        found: dict[int, _Thresholds] = {}
        champion = None
        for row in self.fetch(_VERSIONS, {"fleet": fleet}):
            own = _Thresholds.read(row["version"], json.loads(row["card"]))
            if own is not None and own.table is not None:
                found[row["id"]] = own
            if row["state"] == "champion":
                champion = own
        if champion is None:
            raise NotFound(f"a champion of {fleet}; `monitor models list` shows the versions there are")
        return champion, found

    def _high_scores(self, fleet: str, lowest: float, days: float) -> tuple[int, _HighScores]:
        """Return the number of scored windows in the range, and those with a score of at least `lowest`."""
        import numpy as np

        newest = next(iter(self.fetch(_NEWEST, {"fleet": fleet})), None)
        if newest is None or newest["newest_us"] is None:
            return 0, _HighScores.of([])
        since_us = newest["newest_us"] - round(days * DAY_US)
        values = {"since": since_us, "until": newest["newest_us"]}
        # A list, not a join: without statistics PostgreSQL reads the whole range once for each asset (measured: 9 s).
        ids = ", ".join(str(int(row["id"])) for row in self.fetch(_ASSETS, {"fleet": fleet}))
        [counted] = self.fetch(_COUNT.format(ids=ids), values)
        rows = self.fetch(_HIGH.format(ids=ids), values | {"lowest": float(np.float32(lowest))})
        return counted["n"], _HighScores.of(list(rows))


class _HighScores(NamedTuple):
    """N scored windows, sorted by asset and time."""

    asset: Int64
    place: Int64
    """[N], number of the window among the scored ones of its asset."""
    score: Float32
    version: Int64
    """[N], id."""

    @classmethod
    def of(cls, rows: Sequence[Any]) -> _HighScores:
        import numpy as np

        def column(name: str, dtype: type) -> Any:
            return np.array([row[name] for row in rows], dtype=dtype)

        asset, place = column("asset_id", np.int64), column("place", np.int64)
        order = np.lexsort((place, asset))
        score, version = column("score", np.float32), column("version_id", np.int64)
        return cls(asset[order], place[order], score[order], version[order])

    def factors(self, by_version: dict[int, float], default: float) -> Float32:
        """Return the threshold [N] of each window, in units of the one that its score is in."""
        import numpy as np

        out = np.full(len(self.score), default, dtype=np.float32)
        for version, factor in by_version.items():
            out[self.version == version] = factor
        return out


def count_alerts(
    asset: Int64, place: Int64, is_anomalous: Bool, confirm: int, among: int, recover: int
) -> int:
    """Return the number of alerts that these windows open, as `stream.alerting.Decider` does.

    `asset`, `place`: [N], sorted; the number of each window among the scored ones of its asset. Windows that are left
    out are normal. `is_anomalous`: [N]. An alert opens at the `confirm`-th anomalous window among the last `among`, and
    closes after `recover` normal ones in a row.
    """
    import numpy as np

    owner, at = asset[is_anomalous], place[is_anomalous]
    if len(at) < confirm:
        return 0
    is_first = np.ones(len(at), dtype=bool)
    is_first[1:] = (owner[1:] != owner[:-1]) | (at[1:] - at[:-1] > recover)
    run = np.cumsum(is_first)
    earlier = slice(None, len(at) - confirm + 1)
    opens = (owner[confirm - 1 :] == owner[earlier]) & (at[confirm - 1 :] - at[earlier] < among)
    return len(np.unique(run[confirm - 1 :][opens]))


# ---------------------------------------------------------------- thresholds


class _Placed(NamedTuple):
    """A threshold, as a multiple of the present one of its version."""

    factor: float
    is_estimate: bool


class _Thresholds(NamedTuple):
    """The fields of a card that a preview needs."""

    version: str
    raw: float
    alarms_per_week: float
    confirm: int
    among: int
    recover: int
    step_s: float
    table: dict[str, Any] | None

    @classmethod
    def read(cls, version: str, card: object) -> _Thresholds | None:
        """Read a card. None = it has no readable threshold."""
        found = card.get("threshold") if isinstance(card, dict) else None
        if not isinstance(card, dict) or not isinstance(found, dict):
            return None
        try:
            own = {name: found[name] for name in cls._fields[1:-1]}
        except KeyError:
            return None
        return cls(version=version, table=card.get("thresholds"), **own)


def _placed(own: _Thresholds, rate: Rate, policy: Confirm) -> _Placed:
    """Return the threshold for a budget: interpolated between those of the table, on logarithmic scales."""
    per_week = weekly(rate.count, rate.per)
    if math.isclose(per_week, own.alarms_per_week, rel_tol=1e-5) and (policy.m, policy.n) == (own.confirm, own.among):
        return _Placed(1.0, is_estimate=False)
    if own.table is None:
        return _Placed(1.0, is_estimate=True)
    rows = own.table["policies"]
    exact = [row for row in rows if (row["confirm"], row["among"]) == (policy.m, policy.n)]
    # With fewer confirmations the threshold is higher: the estimate errs to fewer alerts.
    fewer = [row for row in rows if row["confirm"] <= policy.m]
    row = exact[0] if exact else max(fewer, key=lambda each: (each["confirm"], each["among"]))
    known = list(zip(own.table["per_week"], row["raw"], strict=True))
    wanted = min(max(per_week, known[0][0]), known[-1][0])
    is_estimate = not exact or not math.isclose(wanted, per_week, rel_tol=1e-6)
    for (low, below), (high, above) in pairwise(known):
        if low <= wanted <= high:
            share = math.log(wanted / low) / math.log(high / low)
            return _Placed(math.exp(math.log(below) * (1 - share) + math.log(above) * share) / own.raw, is_estimate)
    return _Placed(known[0][1] / own.raw, is_estimate)


def _row(
    champion: _Thresholds,
    rate: Rate,
    policy: Confirm,
    at: _Placed | None,
    *,
    alerts: int | None = None,
    weeks: float | None = None,
    reason: str | None = None,
) -> Row:
    is_same = math.isclose(weekly(rate.count, rate.per), champion.alarms_per_week, rel_tol=1e-5)
    return {
        "budget": str(rate),
        "confirm": str(policy),
        "threshold": None if at is None else number(at.factor),
        "alerts": alerts,
        "alerts_per_asset_week": number(alerts / weeks) if alerts is not None and weeks else None,
        "weeks": None if weeks is None else number(weeks),
        "is_present": is_same and (policy.m, policy.n) == (champion.confirm, champion.among),
        "is_estimate": at is not None and at.is_estimate,
        "reason": reason,
    }


_VERSIONS = "SELECT id, version, state, card FROM model_version WHERE fleet = :fleet"
_NEWEST = """
    SELECT MAX(score.end_us) AS newest_us
    FROM asset JOIN last_window ON last_window.asset_id = asset.id
    JOIN score ON score.start_us = last_window.start_us AND score.asset_id = asset.id
    WHERE fleet = :fleet AND score.end_us <= (
        SELECT COALESCE(MAX(saved_us), score.end_us) + 3600000000 FROM source_partition  -- the rest is in the future
    )
"""
_ASSETS = "SELECT id FROM asset WHERE fleet = :fleet"
_COUNT = """
    SELECT COUNT(*) AS n FROM score
    WHERE start_us > :since AND start_us <= :until AND score IS NOT NULL AND asset_id IN ({ids})
"""
# A few percent of the scores are high: only these leave the database, each with its number among its asset's.
_HIGH = """
    SELECT asset_id, place, score, version_id FROM (
        SELECT asset_id, score, version_id, ROW_NUMBER() OVER (PARTITION BY asset_id ORDER BY start_us) AS place
        FROM score
        WHERE start_us > :since AND start_us <= :until AND score IS NOT NULL AND asset_id IN ({ids})
    ) AS numbered
    WHERE score >= :lowest
"""
