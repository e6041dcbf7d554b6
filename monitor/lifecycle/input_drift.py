"""Test for drift of readings: whether the days since a training differ, sensor by sensor, from the days before it.

Input: windows of a fleet, and the version that learnt from the earlier ones. Output: a value, 1 = drift, and the
sensors that moved.
Invariant: pure. If days are exchangeable while nothing changes, the mean time to a false trigger is at least that of
the setting `[fleet.retrain] drift`, with any number of sensors and assets and any dependence between them.

- The level of a day, asset and channel is the median of its readings, standardised by the asset's days before the end
  of the training. That of the fleet is the median over the assets: one faulty machine is no drift of a fleet of three.
- The days of a channel are ranked from above and from below (`drift.detector`). The mean of the Shiryaev-Roberts sums
  of all channels and both sides is such a sum again, with the same mean time to its bound. So one channel of C must
  reach 2 C times the bound alone, and no other correction is needed.

The test runs with each drill, in the training process, which has the readings. Scores are tested by `drift_watch.py`: a
drift of readings that the members follow moves no score, and is a reason to retrain all the same, because the next step
of it may lie outside of all that was learnt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from monitor.lifecycle.drift import DAY_US, MIN_REFERENCE_DAYS, bound, centres, detector, median, of_fleet
from monitor.models.card import learnt_until_us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from monitor.config.values import Rate
    from monitor.lifecycle.drift import Levels
    from monitor.models.detector import TrainedModel
    from monitor.models.spec import TrainingSet

CHUNK = 4096
"""Windows that are turned into channels at once."""
MIN_DAY_SHARE = 0.5
"""Share of the usual number of windows that a day needs. The day that goes on, and the first one, have fewer."""
N_NAMED = 3
"""Sensors that a sentence names."""


class InputDrift(NamedTuple):
    """Result of the test on the days since the training."""

    value: float
    """Of the detector after the last day, as a multiple of the bound: 1 = drift."""
    moved: list[tuple[str, float]]
    """Channels, by their part of the value, with the level of the last day in spreads of the days before."""
    n_reference: int
    n_days: int

    def to_json(self) -> dict[str, Any]:
        """Return the form that is stored."""
        return {
            "reason": "drift", "value": round(self.value, 4), "n_reference": self.n_reference, "n_days": self.n_days,
            "moved": [{"sensor": name, "spreads": round(level, 2)} for name, level in self.moved],
            "problem": self.problem,
        }  # fmt: skip

    @property
    def problem(self) -> str | None:
        """One sentence where there is drift, else None."""
        if self.value < 1:
            return None
        names = ", ".join(f"{name} by {level:+.1f}" for name, level in self.moved[:N_NAMED])
        return (
            f"drift of readings: {names} spreads of the {self.n_reference} days before the training, "
            f"on {self.n_days} days since"
        )


def input_drift(model: TrainedModel, windows: TrainingSet, sensors: Sequence[str], rate: Rate) -> InputDrift | None:
    """Test the days since a version was trained. None = there are too few days before, or none since.

    `windows`: of the fleet, recent ones of the version's history included. `sensors`: their columns.
    """
    until_us = learnt_until_us(model.card)
    if until_us is None or not len(windows):
        return None
    newest = np.concatenate([
        model.inputs.to_channels(model.inputs.select(windows.values[start : start + CHUNK], sensors))[:, -1]
        for start in range(0, len(windows), CHUNK)
    ])  # fmt: skip
    day = windows.end_us // DAY_US
    levels = daily_levels(newest, windows.asset, day)
    return find_input_drift(levels, until_us // DAY_US, model.inputs.channels, rate)


def daily_levels(values: NDArray[np.floating[Any]], asset: NDArray[Any], day: NDArray[Any]) -> Levels:
    """Return the median of the values [N, K] of each asset on each day with enough of them: by asset, by day, [K]."""
    found: Levels = {}
    for one in np.unique(asset):
        rows = asset == one
        days, counts = np.unique(day[rows], return_counts=True)
        usual = np.median(counts)
        own, own_day = values[rows], day[rows]
        found[one] = {
            int(d): median(own[own_day == d]) for d, n in zip(days, counts, strict=True) if n >= MIN_DAY_SHARE * usual
        }
    return found


def find_input_drift(
    levels: Levels, trained_day: int, channels: Sequence[str], rate: Rate
) -> InputDrift | None:
    """Test the days after `trained_day` (days since 1970). `levels`: by asset and day, [K]. See `input_drift`."""
    before = {
        asset: {day: level for day, level in days.items() if day <= trained_day} for asset, days in levels.items()
    }
    fleet = of_fleet(levels, centres(before))
    old = np.array([level for day, level in fleet.items() if day <= trained_day])
    new = np.array([level for day, level in fleet.items() if day > trained_day])
    if len(old) < MIN_REFERENCE_DAYS or not len(new):
        return None
    known = np.isfinite(old).all(axis=0) & np.isfinite(new).all(axis=0)
    if not known.any():
        return None
    sums = np.zeros(len(channels))
    for channel in np.flatnonzero(known).tolist():
        for side in (1.0, -1.0):
            sums[channel] += detector(side * old[:, channel], side * new[:, channel])[-1]
    value = float(sums.sum() / (2 * known.sum()) / bound(rate))
    order = [channel for channel in np.argsort(-sums).tolist() if known[channel]]
    moved = [(channels[channel], float(new[-1, channel])) for channel in order]
    return InputDrift(value, moved[: 2 * N_NAMED], len(old), len(new))
