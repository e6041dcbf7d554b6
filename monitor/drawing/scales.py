"""Positions of values and times on a drawing, and the ticks of their axes.

Input: ranges. Output: positions from 0 to 1, ticks with labels. Invariant: a tick lies at a round value, or at a round
time of the reader's time zone on both sides of a change of daylight saving.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monitor.clock import from_us, to_us

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

THRESHOLD_SHARE = 0.52
"""Height of the score 1.0 in a drawing of scores. It is the same in all of them, so that they can be compared."""
DECADES = 2.0
"""Decades above the threshold, where the axis is logarithmic. It ends at a hundred times the threshold."""

_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_DAYS = (1, 2, 3, 7, 14)
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)
_DAY_S = 86_400


class Tick(NamedTuple):
    """One tick of a time axis."""

    at_us: int
    label: str
    is_major: bool
    """A new day among hours, a new year among months."""


def score_position(score: Float64, threshold: float = THRESHOLD_SHARE, decades: float = DECADES) -> Float64:
    """Return heights 0..1 of scores: linear up to the threshold 1.0, logarithmic above it."""
    above = np.clip(np.log10(np.maximum(score, 1.0)) / decades, 0, 1)
    height: Float64 = threshold * np.clip(score, 0, 1) + (1 - threshold) * above
    return height


def value_ticks(low: float, high: float, n: int = 3) -> list[float]:
    """Return about `n` round values in [low, high], two at least."""
    span = high - low
    if not (math.isfinite(span) and span > 1e-9 * max(abs(low), abs(high))):
        return [low] if math.isfinite(low) else []
    return next((found for k in range(n, n + 8) if len(found := _multiples(low, high, k)) > 1), [low, high])


def _multiples(low: float, high: float, n: int) -> list[float]:
    """Return the multiples in [low, high] of a round step, of which about `n` fit."""
    raw = (high - low) / n
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def time_ticks(since_us: int, until_us: int, zone: tzinfo = UTC, n: int = 7) -> list[Tick]:
    """Return at most about `n` ticks in [since, until] at round times of the time zone."""
    span_s = max(1e-6, (until_us - since_us) / 1e6)
    seconds = next((step for step in _SECONDS if span_s / step <= n), None)
    if seconds is not None:
        return list(_within_days(since_us, until_us, zone, seconds))
    days = next((step for step in _DAYS if span_s / (step * _DAY_S) <= n), None)
    if days is not None:
        return list(_days(since_us, until_us, zone, days))
    months = next((step for step in _MONTHS if span_s / (step * 30.44 * _DAY_S) <= n), _MONTHS[-1])
    return list(_months(since_us, until_us, zone, months))


def _within_days(since_us: int, until_us: int, zone: tzinfo, step_s: int) -> Iterator[Tick]:
    """Yield ticks at multiples of the step since midnight. Each day is divided anew: a day may have 23 hours."""
    for midnight in _midnights(since_us, until_us, zone):
        beyond_us = to_us(_local(midnight.date() + timedelta(days=1), zone))
        seen = None
        for at_us in range(to_us(midnight), beyond_us, step_s * 1_000_000):
            # Behind a change of daylight saving, multiples of the step are an hour off: move to the round local time.
            round_us = at_us - _off_s(at_us, zone, step_s) * 1_000_000
            if round_us == seen or _off_s(round_us, zone, step_s) or not since_us <= round_us <= until_us:
                continue
            seen, at = round_us, from_us(round_us).astimezone(zone)
            is_midnight = (at.hour, at.minute, at.second) == (0, 0, 0)
            clock = f"{at:%H:%M:%S}" if step_s < 60 else f"{at:%H:%M}"
            yield Tick(round_us, f"{at:%b} {at.day}" if is_midnight else clock, is_midnight)


def _off_s(at_us: int, zone: tzinfo, step_s: int) -> int:
    at = from_us(at_us).astimezone(zone)
    return (at.hour * 3600 + at.minute * 60 + at.second) % step_s


def _days(since_us: int, until_us: int, zone: tzinfo, step: int) -> Iterator[Tick]:
    for midnight in _midnights(since_us, until_us, zone):
        at_us = to_us(midnight)
        if midnight.date().toordinal() % step == 0 and since_us <= at_us <= until_us:
            yield Tick(at_us, f"{midnight:%b} {midnight.day}", midnight.day == 1)


def _months(since_us: int, until_us: int, zone: tzinfo, step: int) -> Iterator[Tick]:
    first = from_us(since_us).astimezone(zone)
    n = first.year * 12 + first.month - 1
    while True:
        if n % step == 0:
            at = datetime(n // 12, n % 12 + 1, 1, tzinfo=zone)
            if to_us(at) > until_us:
                return
            if to_us(at) >= since_us:
                is_year = at.month == 1
                yield Tick(to_us(at), f"{at:%Y}" if is_year else f"{at:%b}", is_year)
        n += 1
        if n // 12 > 9998:
            return


def _midnights(since_us: int, until_us: int, zone: tzinfo) -> Iterator[datetime]:
    day, last = (from_us(us).astimezone(zone).date() for us in (since_us, until_us))
    while day <= last:
        yield _local(day, zone)
        day += timedelta(days=1)


def _local(day: object, zone: tzinfo) -> datetime:
    return datetime.fromisoformat(f"{day}T00:00:00").replace(tzinfo=zone)


def short_number(value: float) -> str:
    """Return a number in at most about five characters: 1,240 as "1,240", 0.01234 as "0.0123", 1.2e6 as "1.2M"."""
    size = abs(value)
    for factor, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= factor:
            shown = value / (1e3 if sign == "k" else factor)
            return f"{shown:.3g}{sign}".replace("e+03", "000") if abs(shown) < 1000 else f"{shown:,.0f}{sign}"
    if size >= 1000:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")
