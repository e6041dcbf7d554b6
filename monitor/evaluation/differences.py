"""Differences between the default and every other method, with paired bootstrap intervals.

Input: rows of `MethodResult.row`. Output: a `Difference` for each other method.
Invariants: only series on which both methods have a figure count. The mean is that of set means, as everywhere. Series
are drawn within their sets, so a set of one series adds no width to an interval.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.evaluation.methods import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

FIGURE = "vus_pr"
"""The figure that methods are compared by."""
N_DRAWS, SEED, CONFIDENCE = 2000, 0, 0.95
DECIMALS = 3
"""A series is a draw if both figures are alike in print."""


@dataclass(frozen=True, slots=True)
class SetDifference:
    """Difference within one set."""

    difference: float
    """Mean over its series."""
    better: int
    worse: int
    n_series: int


@dataclass(frozen=True, slots=True)
class Difference:
    """VUS-PR of the base less that of another method, positive where the base is better."""

    method: str
    base: str
    """The default, or the first method where the default was not asked for."""
    difference: float
    """Mean of set means."""
    low: float | None
    high: float | None
    """Ends of the paired bootstrap interval, 95 %. None = no set has two series to draw from."""
    better: int
    """Series on which the base is better."""
    worse: int
    n_series: int
    is_beaten: bool
    """The whole interval is above 0. Without an interval, the difference is."""
    per_set: dict[str, SetDifference]

    def row(self) -> dict[str, Any]:
        """Return it with the keys of `--json`."""
        return asdict(self)


def differences(rows: Sequence[dict[str, Any]]) -> list[Difference]:
    """Compare the default, else the first method, with each other one, in their order."""
    figures: dict[str, dict[tuple[str, str, str], float]] = {}
    for row in rows:
        of_method = figures.setdefault(row["method"], {})
        if row[FIGURE] is not None:
            of_method[row["set"], row["path"], row["name"]] = row[FIGURE]
    base = DEFAULT if DEFAULT in figures else next(iter(figures), "")
    found = []
    for method, of_method in figures.items():
        by_set: dict[str, list[float]] = {}
        for key, of_base in figures[base].items():
            if method != base and key in of_method:
                by_set.setdefault(key[0], []).append(of_base - of_method[key])
        if by_set:
            found.append(_difference(method, base, {name: np.array(each) for name, each in by_set.items()}))
    return found


def _difference(method: str, base: str, by_set: dict[str, Float64]) -> Difference:
    per_set = {name: _of_set(each) for name, each in by_set.items()}
    mean = float(np.mean([one.difference for one in per_set.values()]))
    low, high = bootstrap_interval(list(by_set.values()))
    return Difference(
        method=method,
        base=base,
        difference=_rounded(mean),
        low=None if low is None else _rounded(low),
        high=None if high is None else _rounded(high),
        better=sum(one.better for one in per_set.values()),
        worse=sum(one.worse for one in per_set.values()),
        n_series=sum(one.n_series for one in per_set.values()),
        is_beaten=(mean if low is None else low) > 0,
        per_set=per_set,
    )


def _of_set(each: Float64) -> SetDifference:
    rounded = each.round(DECIMALS)
    return SetDifference(_rounded(float(each.mean())), int((rounded > 0).sum()), int((rounded < 0).sum()), len(each))


def bootstrap_interval(by_set: Sequence[Float64]) -> tuple[float, float] | tuple[None, None]:
    """Return the percentile interval of the mean of set means, from series drawn again within each set."""
    if all(len(each) < 2 for each in by_set):
        return None, None
    draw = np.random.default_rng(SEED)
    means = [each[draw.integers(len(each), size=(N_DRAWS, len(each)))].mean(axis=1) for each in by_set]
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.mean(means, axis=0), (outside, 1 - outside))
    return float(low), float(high)


def verdict(found: Sequence[Difference]) -> str | None:
    """Return in a sentence which methods the base does not beat. None = there is nothing to compare."""
    if not found:
        return None
    base, missed = found[0].base, [one for one in found if not one.is_beaten]
    if not missed:
        return f"{base} beats every other row."
    names = ", ".join(f"{one.method} ({interval_text(one)})" for one in missed)
    return f"{base} does not beat {names}."


def interval_text(one: Difference) -> str:
    """Return the interval in words, or the difference where there is none."""
    if one.low is None or one.high is None:
        return signed(one.difference)
    return f"{signed(one.low)} to {signed(one.high)}"


def signed(value: float) -> str:
    """Return a difference with its sign: "+0.031", "−0.004", "0.000"."""
    text = f"{abs(value):.{DECIMALS}f}"
    return text if not float(text) else f"{'+' if value > 0 else '−'}{text}"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
