"""Words for values, the same in the shell, on pages and in messages: durations, shares, counts, contributions.

Input: numbers. Output: texts for people. Invariant: pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LEAST_SHARE = 0.05
"""A smaller contribution to a score is not named."""


def duration(seconds: float) -> str:
    """Format a duration in its two largest units: "3 h 20 min"."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else f"{whole} s"


def number(value: float | None, digits: int = 3) -> str:
    """Format a measured value with this many significant digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    """Format a share. No line break separates the number from its sign."""
    return "–" if share is None else f"{share * 100:.0f}\xa0%"


def count(n: int, noun: str) -> str:
    """Format a number of things: "1 window", "1,200 windows"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def contributions(sensors: Iterable[Mapping[str, Any]], limit: int = 3) -> str:
    """Format the largest contributions: "power 61 %, pitch 22 %". Empty = none is large."""
    largest = [sensor for sensor in sensors if sensor["share"] >= LEAST_SHARE][:limit]
    return ", ".join(f"{sensor['name']}\xa0{percent(sensor['share'])}" for sensor in largest)
