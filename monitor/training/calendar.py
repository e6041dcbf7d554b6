"""Hours and days that explain scores, found in held-out time and tried on later held-out time.

Input: raw scores of held-out windows with their times. Output: a calendar, or None where it explains nothing.
Invariant: the choice is made by windows later than those that the hours are measured on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from monitor.models.calendar import KINDS, MAX_FACTOR, N_HOURS, Calendar, Days

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from monitor.config.states import CalendarConfig
    from monitor.models.held_out import HeldOut
    from monitor.types import Int64

    Float64 = NDArray[np.float64]

MIN_DAYS = 14
"""Days of held-out time: seven to measure the hours on, and seven later ones to try them on."""
MIN_GAIN, MIN_T = 0.05, 3.0
"""Least share of the variance of log scores that the hours of the earlier half explain in the later half, and least
number of standard errors, by days, that this is above zero."""
PRIOR_DAYS = 3.0
"""Days without a difference that each hour is weighed against."""
SMOOTH_H = 1.5
"""Standard deviation of the moving mean over hours."""
_DAY_US = 86_400_000_000


def find_calendar(held_out: HeldOut, settings: CalendarConfig) -> Calendar | None:
    """Return the calendar of a fleet. None = its hours explain too little, or it is not wanted."""
    if settings.use == "never":
        return None
    unit = 1.0 if (known_unit := held_out.unit()) is None else known_unit
    usable = np.flatnonzero(np.isfinite(held_out.raw) & ~held_out.outlier)
    if not len(usable):
        return None
    raw, end_us = (held_out.raw / unit)[usable].astype(np.float64), held_out.end_us[usable]
    day = end_us // _DAY_US
    known = np.unique(day)
    if len(known) < MIN_DAYS:
        return None
    log = np.log(raw + 0.1 * max(float(np.median(raw)), 1e-9))
    days = Days(settings.timezone, settings.dates)
    cell = days.cells(end_us)
    is_early = day < known[len(known) // 2]
    centre = log[is_early].mean()
    table = _table(log[is_early] - centre, cell[is_early], day[is_early])
    rest, expected = log[~is_early] - centre, table[cell[~is_early]]
    # The level of the later half is its own matter.
    rest, expected = rest - rest.mean(), expected - expected.mean()
    better = np.square(rest) - np.square(rest - expected)
    of_day = np.array([better[day[~is_early] == one].mean() for one in np.unique(day[~is_early])])
    gain = float(better.mean() / max(float(rest.var()), 1e-12))
    error = float(of_day.std(ddof=1)) / np.sqrt(len(of_day))
    if gain < MIN_GAIN or of_day.mean() < MIN_T * error:
        return None
    table = _table(log - log.mean(), cell, day)
    limit = np.log(MAX_FACTOR)
    factors = tuple(float(f"{each:.4g}") for each in np.exp(np.clip(table, -limit, limit)).tolist())
    return Calendar(days, factors, round(gain, 4))


def _table(log: Float64, cell: Int64, day: Int64) -> Float64:
    """Return the mean of each cell [72]: the hour's, and the difference of the kind of day, both shrunk towards 0."""
    hour, kind = cell % N_HOURS, cell // N_HOURS
    of_hour = _by_hour(log, hour, day)
    out = np.tile(of_hour, len(KINDS))
    for number in range(len(KINDS)):
        mine, part = kind == number, slice(number * N_HOURS, (number + 1) * N_HOURS)
        out[part] += _by_hour(log[mine] - of_hour[hour[mine]], hour[mine], day[mine])
    return out


def _by_hour(log: Float64, hour: Int64, day: Int64) -> Float64:
    total, n_days = np.zeros(N_HOURS), len(np.unique(day))
    count = np.zeros(N_HOURS)
    np.add.at(total, hour, log)
    np.add.at(count, hour, 1.0)
    apart = np.minimum(np.arange(N_HOURS), N_HOURS - np.arange(N_HOURS))
    weight = np.exp(-0.5 * np.square(apart / SMOOTH_H))
    around = np.stack([np.roll(weight, shift) for shift in range(N_HOURS)])
    mean = around @ total / np.maximum(around @ count, 1e-9)
    shrunk: Float64 = mean * n_days / (n_days + PRIOR_DAYS)
    return shrunk
