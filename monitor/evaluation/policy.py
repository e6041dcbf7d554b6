"""Other alert parameters over stored scores: the number of alerts under each policy.

Input: "confirm=5 of 8, recover=12" and stored scores. Output: alerts under each policy, gained and lost against the
configured one.
Invariant: no window is scored again and no row is written. Only the decider runs, from the first score of the range on,
as if no alert had been open before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from monitor.budget import WEEK_S
from monitor.config.values import Confirm
from monitor.evaluation.assess import AlertTracker, bare_scores
from monitor.evaluation.compare import group_episodes
from monitor.stream.alerting import AlertPolicy, Decider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from monitor.config import FleetConfig
    from monitor.store.reader import Reader

WINDOWS_AT_ONCE = 8192
MOST = 1000
"""Largest number that `alerts.confirm` and `alerts.recover` allow."""
HELP = 'write "confirm=5 of 8, recover=12", or one of the two'


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """Alert parameters to try. None = unchanged."""

    confirm: Confirm | None = None
    recover: int | None = None

    @classmethod
    def parse(cls, text: str) -> PolicyChange:
        """Read "confirm=5 of 8, recover=12". "5 of 8" alone is confirm. Raises ValueError with the accepted form."""
        change = cls()
        for part in text.split(","):
            field, equals, value = (word.strip() for word in part.partition("="))
            if not equals:
                field, value = "confirm", field
            if field == "confirm":
                is_twice = change.confirm is not None
                if any(int(number[:9]) > MOST for number in re.findall(r"[0-9]+", value)):
                    raise ValueError(f'confirm "{value}" reaches back too far; write "m of n" with 1 ≤ m ≤ n ≤ {MOST}')
                try:
                    change = replace(change, confirm=Confirm.parse(value))
                except ValueError as problem:
                    raise ValueError(f'confirm "{value}" {problem}') from None
            elif field == "recover":
                is_twice = change.recover is not None
                if not value.isdecimal() or not 1 <= int(value) <= MOST:
                    raise ValueError(f'recover "{value}" is not a number of normal windows; write 1 to {MOST}')
                change = replace(change, recover=int(value))
            else:
                raise ValueError(f'"{field}" is no alert parameter (valid: confirm, recover); {HELP}')
            if is_twice:
                raise ValueError(f"{field} stands twice; {HELP}")
        return change

    def apply_to(self, base: AlertPolicy) -> AlertPolicy:
        """Return the base with these parameters changed."""
        confirm = self.confirm or Confirm(base.confirm, base.among)
        return AlertPolicy(confirm.m, confirm.n, self.recover or base.recover)

    def __str__(self) -> str:
        parts = [f"{name}={value}" for name, value in (("confirm", self.confirm), ("recover", self.recover)) if value]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class PolicyTrial:
    """Alerts of one fleet under one policy, by its stored scores."""

    fleet: str
    policy: str
    """As the operator wrote it. `configured` = the fleet's own."""
    confirm: str
    recover: int
    alerts: int
    gained: int
    """Alerts during which the configured policy has none open."""
    lost: int
    """Alerts of the configured policy during which this one has none open."""
    per_week: float | None
    """Alerts per asset and week of scored time. None = no window has a score."""
    assets: int
    windows: int
    """Scored windows."""


def try_policies(
    reader: Reader,
    fleets: Sequence[FleetConfig],
    changes: Sequence[PolicyChange],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    on_progress: Callable[[float | None, str], None] = lambda _share, _text: None,
) -> list[PolicyTrial]:
    """Decide each fleet's stored scores again, by its own policy and by each change of it."""
    found = []
    for fleet in fleets:
        base = AlertPolicy.of(fleet.alerts)
        policies = [base, *(change.apply_to(base) for change in changes)]
        deciders = [(Decider(fleet.name, policy), AlertTracker()) for policy in policies]
        indices: dict[str, int] = {}
        n_windows = 0
        windows = reader.scored_windows(fleet.name, since=since, until=until)
        for asset, end_us, score in _chunks(windows, indices):
            n_windows += len(asset)
            for decider, alerts in deciders:
                alerts.update(decider.decide(bare_scores(score, asset), end_us))
            on_progress(None, f"{fleet.name}: {n_windows:,} windows decided again")
        own, *others = [alerts.spans(tuple(indices)) for _, alerts in deciders]
        asset_weeks = n_windows * fleet.stride * fleet.interval.total_seconds() / WEEK_S
        for name, policy, spans in zip(("configured", *map(str, changes)), policies, (own, *others), strict=True):
            episodes = list(group_episodes(own, spans))
            found.append(
                PolicyTrial(
                    fleet=fleet.name,
                    policy=name,
                    confirm=f"{policy.confirm} of {policy.among}",
                    recover=policy.recover,
                    alerts=len(spans),
                    gained=sum(len(theirs) for ours, theirs in episodes if not ours),
                    lost=sum(len(ours) for ours, theirs in episodes if not theirs),
                    per_week=round(len(spans) / asset_weeks, 6) if asset_weeks else None,
                    assets=len(indices),
                    windows=n_windows,
                )
            )
    return found


def _chunks(
    windows: Iterator[tuple[str, int, float]], indices: dict[str, int]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield asset indices, ends and scores of windows as arrays. Adds new assets to `indices`."""
    while chunk := list(islice(windows, WINDOWS_AT_ONCE)):
        names, ends, scores = zip(*chunk, strict=True)
        yield (
            np.array([indices.setdefault(name, len(indices)) for name in names], np.int32),
            np.array(ends, np.int64),
            np.array(scores, np.float32),
        )
