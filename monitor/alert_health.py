"""Arithmetic of alarm health: the figures of ISA-18.2 and EEMUA 191, each beside its target.

Input: alerts as they were announced, in event time. Output: figures of a range, and of each of its weeks. No I/O: the
command line, the console and the tests use this module. An alarm is an alert that operators were told of: suppressed
ones (shelf, maintenance) are counted apart. One operator answers all fleets.

    rate        alarms per operator hour, per 10 minutes, and per asset and week
    flood       a period of 10 minutes with more than ten alarms
    chattering  an alarm of a subject that came three times within 10 minutes, or within `CHATTER_LIVES` of the shortest
                lives that an alert can have, if that is longer: windows come slower than the readings of a control room
    stale       open for more than 24 hours
    standing    open at the end of the range
    precision   share of real ones among the judged, at least: in the range, by a bound for one look (Clopper & Pearson
                1934, one-sided, 95 %); of all that were ever judged, by one that may be looked at every day

Sources of the targets: ANSI/ISA-18.2-2016, table of performance metrics, and EEMUA publication 191, for one operator.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from monitor.budget import CONFIDENCE, log_mixture
from monitor.clock import from_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta

HOUR_US = 3_600_000_000
PERIOD_US = HOUR_US // 6
"""The ten minutes of both guidelines."""
WEEK_US = 168 * HOUR_US
FLOOD = 10
"""A period with more alarms is a flood."""
CHATTER = 3
CHATTER_LIVES = 6
STALE_US = 24 * HOUR_US
TOP = 10
"""The most frequent alarms. Both guidelines limit their share."""


class Alarm(NamedTuple):
    """An alert, as far as its figures need it."""

    id: int
    alert_class: str
    subject: str
    """Asset, or partition and kind of an alert about the data."""
    severity: str
    opened_us: int
    closed_us: int | None
    """None = open."""
    label: str | None = None
    suppressed_by: str | None = None
    stored_us: int | None = None
    """Processing time of its opening; None = unknown."""
    acknowledged_us: int | None = None
    """Processing time of the first acknowledgement; None = never."""
    is_shelved: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A guideline's target of one figure."""

    figure: str
    most: float
    """The target is met up to this value."""
    text: str
    source: str
    meaning: str


TARGETS = (
    Target("alarms_per_hour", 6, "≤ 6", "ISA, EEMUA", "alarms per operator hour"),
    Target("peak", 10, "≤ 10", "ISA", "most alarms in 10 minutes"),
    Target("flood_share", 0.01, "< 1 %", "ISA", "10-minute periods with more than 10 alarms"),
    Target("chattering", 0, "0", "ISA", "subjects whose alarm chatters"),
    Target("stale", 4, "< 5", "ISA", "alarms open for more than 24 h"),
    Target("standing", 9, "< 10", "EEMUA", "alarms open at the end"),
    Target("top_share", 0.05, "≤ 5 %", "ISA", "share of the ten most frequent"),
    Target("critical_share", 0.05, "≤ 5 %", "ISA", "share of critical alarms"),
)
"""Figures with a target. ISA's 1 % and 5 % are meant for thousands of alarms: a few assets cannot keep the top's."""


class Range(NamedTuple):
    """A range [from_us, to_us) of event time."""

    from_us: int
    to_us: int

    @property
    def hours(self) -> float:
        """Its length in hours."""
        return (self.to_us - self.from_us) / HOUR_US


def figures(
    alarms: Sequence[Alarm],
    within: Range,
    n_assets: int,
    shortest_life_us: int = 0,
    by_week: bool = True,
    judged: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """Return the figures of one fleet, or of all, in a range.

    `alarms`: in any order, all that opened in the range or were open in it. `shortest_life_us`: of an alert of this
    fleet, for chattering. `judged`: alerts found real, and alerts judged, at any time. Keys are contracts: shares are
    0..1, durations are seconds, None = there is no evidence.
    """
    opened = sorted(
        (alarm for alarm in alarms if within.from_us <= alarm.opened_us < within.to_us), key=lambda each: each.opened_us
    )
    told = [alarm for alarm in opened if alarm.suppressed_by is None]
    periods = Counter((alarm.opened_us - within.from_us) // PERIOD_US for alarm in told)
    n_periods = max(1, -(-(within.to_us - within.from_us) // PERIOD_US))
    peak_period, peak = max(periods.items(), key=lambda item: (item[1], -item[0]), default=(None, 0))
    subjects = Counter(alarm.subject for alarm in told)
    top = sorted(subjects.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    chattering = chattering_subjects(told, max(PERIOD_US, CHATTER_LIVES * shortest_life_us))
    present = [alarm for alarm in alarms if alarm.suppressed_by is None and alarm.opened_us < within.to_us]
    standing = [alarm for alarm in present if alarm.closed_us is None or alarm.closed_us >= within.to_us]
    stale = [alarm for alarm in present if _stale_in(alarm, within)]
    critical = sum(alarm.severity == "critical" for alarm in told)
    found: dict[str, Any] = {
        "from": _iso(within.from_us),
        "to": _iso(within.to_us),
        "assets": n_assets,
        "alarms": len(told),
        "alarms_per_hour": len(told) / within.hours if within.hours else 0.0,
        "alarms_per_asset_week": len(told) / n_assets / within.hours * 168 if n_assets and within.hours else None,
        "peak": peak,
        "peak_at": None if peak_period is None else _iso(within.from_us + peak_period * PERIOD_US),
        "flood_share": sum(n > FLOOD for n in periods.values()) / n_periods,
        "chattering": len(chattering),
        "stale": len(stale),
        "standing": len(standing),
        # Ten subjects or fewer have all alarms, which is no finding about a small fleet.
        "top_share": sum(n for _, n in top) / len(told) if len(subjects) > TOP else None,
        "critical_share": critical / len(told) if told else None,
    }
    if by_week:
        found |= {
            "by_class": dict(sorted(Counter(alarm.alert_class for alarm in told).items())),
            "by_severity": {"critical": critical, "warning": len(told) - critical},
            "suppressed": len(opened) - len(told),
            "suppressed_by": dict(sorted(Counter(each.suppressed_by for each in opened if each.suppressed_by).items())),
            "shelved": sum(alarm.is_shelved for alarm in opened),
            "chattering_subjects": chattering,
            "stale_alerts": [alarm.id for alarm in stale],
            "top": [{"subject": name, "alarms": n, "share": n / len(told)} for name, n in top],
            "acknowledged": _acknowledged(told),
            "precision": _precision(opened) | {"any_time": precision_at_any_time(*judged)},
            "targets": [_beside(found, target) for target in TARGETS],
            "weeks": [
                figures(present, week, n_assets, shortest_life_us, by_week=False) | {"week": _week(week.from_us)}
                for week, present in _by_week(alarms, within)
            ],
        }
    return found


def chattering_subjects(alarms: Iterable[Alarm], within_us: int) -> list[str]:
    """Return the subjects, by name, of which `CHATTER` alarms opened within `within_us`. `alarms`: in order of time."""
    opened: dict[str, list[int]] = {}
    for alarm in alarms:
        opened.setdefault(alarm.subject, []).append(alarm.opened_us)
    return sorted(
        name
        for name, times in opened.items()
        if any(last - first <= within_us for first, last in zip(times, times[CHATTER - 1 :], strict=False))
    )


def weeks(within: Range) -> list[Range]:
    """Return the parts of a range that lie in one ISO week each (Monday to Sunday, UTC)."""
    parts = []
    from_us = within.from_us
    while from_us < within.to_us:
        monday_us = (from_us - _FIRST_MONDAY_US) // WEEK_US * WEEK_US + _FIRST_MONDAY_US
        to_us = min(within.to_us, monday_us + WEEK_US)
        parts.append(Range(from_us, to_us))
        from_us = to_us
    return parts


def _by_week(alarms: Iterable[Alarm], within: Range) -> Iterable[tuple[Range, list[Alarm]]]:
    """Return each week with the alarms that opened in it or were open in it."""
    parts = weeks(within)
    found: list[list[Alarm]] = [[] for _ in parts]
    ends = [part.to_us for part in parts]
    for alarm in alarms:
        last_us = within.to_us if alarm.closed_us is None else max(alarm.closed_us, alarm.opened_us)
        place = bisect_right(ends, alarm.opened_us)
        while place < len(parts) and parts[place].from_us <= last_us:
            found[place].append(alarm)
            place += 1
    return zip(parts, found, strict=True)


_FIRST_MONDAY_US = 4 * 24 * HOUR_US  # 1970-01-05


def _week(us: int) -> str:
    year, week, _ = from_us(us).isocalendar()
    return f"{year}-W{week:02d}"


def _iso(us: int) -> str:
    return from_us(us).isoformat().replace("+00:00", "Z")


def _stale_in(alarm: Alarm, within: Range) -> bool:
    """Return True if the alarm passed 24 hours before the end of the range, and was open in the range after that."""
    from_us = max(within.from_us, alarm.opened_us + STALE_US)
    return from_us < (within.to_us if alarm.closed_us is None else min(within.to_us, alarm.closed_us))


def _beside(found: Mapping[str, Any], target: Target) -> dict[str, Any]:
    value = found[target.figure]
    return {
        "figure": target.figure,
        "meaning": target.meaning,
        "value": value,
        "target": target.text,
        "source": target.source,
        "is_met": None if value is None else value <= target.most,
    }


def _acknowledged(told: Sequence[Alarm]) -> dict[str, Any]:
    from statistics import median  # slow to import, and most commands need none

    answered = [alarm for alarm in told if alarm.acknowledged_us is not None]
    took_s = [
        (alarm.acknowledged_us - alarm.stored_us) / 1e6
        for alarm in answered
        if alarm.acknowledged_us is not None and alarm.stored_us is not None
    ]
    return {
        "alarms": len(answered),
        "share": len(answered) / len(told) if told else None,
        "median_s": median(took_s) if took_s else None,
    }


def _precision(opened: Sequence[Alarm]) -> dict[str, Any]:
    n_real = sum(alarm.label == "fault" for alarm in opened)
    n_judged = n_real + sum(alarm.label == "normal" for alarm in opened)
    return _share_of_real(n_real, n_judged, proportion_at_least)


def precision_at_any_time(n_real: int, n_judged: int) -> dict[str, Any]:
    """Return the share of real ones among all alerts that were ever judged, with a bound that holds at any time."""
    return _share_of_real(n_real, n_judged, proportion_at_any_time)


def _share_of_real(n_real: int, n_judged: int, bound: Callable[[int, int], float]) -> dict[str, Any]:
    at_least = bound(n_real, n_judged) if n_judged else None
    return {"judged": n_judged, "real": n_real, "at_least": at_least, "confidence": CONFIDENCE}


def shortest_life(step: timedelta, confirm: int, recover: int) -> timedelta:
    """Return the shortest time between the openings of two alerts of an asset: it must be confirmed and recover."""
    return step * (confirm + recover)


# ---------------------------------------------------------------- the binomial bound


def proportion_at_least(k: int, n: int, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided lower bound of a proportion of which k in n were seen (Clopper & Pearson 1934).

    The largest p at which k or more of n would be as rare as 1 - confidence. Exact: the bound holds at least as often
    as it says. Raises ValueError unless 0 ≤ k ≤ n and n > 0.
    """
    if not 0 <= k <= n or n == 0:
        raise ValueError(f"{k} of {n} is no proportion")
    if k == 0:
        return 0.0
    low, high = 0.0, k / n
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if at_least_probability(k, n, middle) > 1 - confidence else (middle, high)
    return low


def proportion_at_any_time(k: int, n: int) -> float:
    """Return a lower bound of a proportion of which k in n were seen. It may be looked at after each of the n.

    The largest p that the evidence has not refuted. It is a mixture of likelihood ratios, as of the budget: for shares
    of 1 - p, the rate of the others. If each of the n, given those before it, has a chance of p at most, the evidence
    ever reaches 20 with a chance of at most 5 % (Ville 1939; for confidence sequences of a mean by betting, see
    Waudby-Smith & Ramdas 2024). Raises ValueError unless 0 ≤ k ≤ n and n > 0.
    """
    if not 0 <= k <= n or n == 0:
        raise ValueError(f"{k} of {n} is no proportion")
    if k == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(50):
        p = (low + high) / 2

        def log_ratio(share: float, p: float = p) -> float:
            others = (n - k) * math.log(share) if n > k else 0.0
            return others + k * math.log((1 - share * (1 - p)) / p)

        low, high = (p, high) if log_mixture(log_ratio) >= -math.log(1 - CONFIDENCE) else (low, p)
    return low


def at_least_probability(k: int, n: int, p: float) -> float:
    """Return the binomial probability of k or more of n, for 0 < p < 1, summed from its largest term on."""
    if p <= 0 or p >= 1:
        return float(p >= 1 or k <= 0)
    odds = p / (1 - p)
    mode = min(n, max(k, int((n + 1) * p)))
    log_mode = (
        math.lgamma(n + 1) - math.lgamma(mode + 1) - math.lgamma(n - mode + 1)
        + mode * math.log(p) + (n - mode) * math.log1p(-p)
    )  # fmt: skip
    total = term = 1.0
    for i in range(mode, n):  # up from the mode, until the terms no longer count
        term *= (n - i) / (i + 1) * odds
        total += term
        if term < 1e-17 * total:
            break
    term = 1.0
    for i in range(mode, k, -1):
        term *= i / (n - i + 1) / odds
        total += term
        if term < 1e-17 * total:
            break
    return min(1.0, total * math.exp(log_mode))
