"""Other alert parameters over scores that are already there: what would have rung, and what would not.

In: "confirm=5 of 8, recover=12" and stored scores. Out: alerts under each policy, gained and lost against the
configured one. The law: nothing is scored again and nothing is written; only `decide` runs, from the first score of
the stretch on, as if no alert had been open before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from monitor.config.values import Confirm
from monitor.evaluation.assess import WEEK_S, OpenAlerts, bare_scores
from monitor.evaluation.compare import episodes
from monitor.stream.alerting import AlertPolicy, Decider
from monitor.stream.shard import alert_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from monitor.config import FleetConfig
    from monitor.store.reader import Reader

WINDOWS_AT_ONCE = 8192
MOST = 1000
"""As `alerts.confirm` and `alerts.recover` allow."""
HELP = 'write "confirm=5 of 8, recover=12", or one of the two'


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What an operator would like to try; None = as it is."""

    confirm: Confirm | None = None
    recover: int | None = None

    @classmethod
    def parse(cls, text: str) -> PolicyChange:
        """Read "confirm=5 of 8, recover=12"; "5 of 8" alone is confirm. Raises ValueError with what to write."""
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

    def on(self, base: AlertPolicy) -> AlertPolicy:
        """Return the base with this changed."""
        confirm = self.confirm or Confirm(base.confirm, base.among)
        return AlertPolicy(confirm.m, confirm.n, self.recover or base.recover)

    def __str__(self) -> str:
        parts = [f"{name}={value}" for name, value in (("confirm", self.confirm), ("recover", self.recover)) if value]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A fleet's stored scores under one policy."""

    fleet: str
    policy: str
    """As it was written; `configured` = the fleet's own."""
    confirm: str
    recover: int
    alerts: int
    gained: int
    """Alerts that meet none of the configured policy's."""
    lost: int
    """Alerts of the configured policy that meet none of these."""
    per_week: float | None
    """Alerts per asset and week of scored time; None = nothing is scored."""
    assets: int
    windows: int
    """Scored ones."""


def what_if(
    reader: Reader,
    fleets: Sequence[FleetConfig],
    changes: Sequence[PolicyChange],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    on_progress: Callable[[float | None, str], None] = lambda _share, _text: None,
) -> list[WhatIf]:
    """Decide each fleet's stored scores again, by its own policy and by each change of it."""
    found = []
    for fleet in fleets:
        base = alert_policy(fleet.alerts)
        policies = [base, *(change.on(base) for change in changes)]
        deciders = [(Decider(fleet.name, policy), OpenAlerts()) for policy in policies]
        numbers: dict[str, int] = {}
        n_windows = 0
        windows = reader.scored_windows(fleet.name, since=since, until=until)
        for asset, end_us, score in _parts(windows, numbers):
            n_windows += len(asset)
            for decider, opened in deciders:
                opened.take(decider.decide(bare_scores(score, asset), end_us))
            on_progress(None, f"{fleet.name}: {n_windows:,} windows decided again")
        own, *others = [opened.spans(tuple(numbers)) for _, opened in deciders]
        asset_weeks = n_windows * fleet.stride * fleet.interval.total_seconds() / WEEK_S
        for name, policy, spans in zip(("configured", *map(str, changes)), policies, (own, *others), strict=True):
            met = list(episodes(own, spans))
            found.append(
                WhatIf(
                    fleet=fleet.name,
                    policy=name,
                    confirm=f"{policy.confirm} of {policy.among}",
                    recover=policy.recover,
                    alerts=len(spans),
                    gained=sum(len(theirs) for ours, theirs in met if not ours),
                    lost=sum(len(ours) for ours, theirs in met if not theirs),
                    per_week=round(len(spans) / asset_weeks, 6) if asset_weeks else None,
                    assets=len(numbers),
                    windows=n_windows,
                )
            )
    return found


def _parts(
    windows: Iterator[tuple[str, int, float]], numbers: dict[str, int]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Columns of so many windows at once: asset, end, score; assets are numbered as they come."""
    while part := list(islice(windows, WINDOWS_AT_ONCE)):
        names, ends, scores = zip(*part, strict=True)
        yield (
            np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int32),
            np.array(ends, np.int64),
            np.array(scores, np.float32),
        )
