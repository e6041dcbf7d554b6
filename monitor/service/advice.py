"""Settings that fit what a survey has seen, each with its reason.

Input: a `FleetSurvey`, and the fleet's settings. Output: `Proposal`s. Invariant: nothing is proposed that the sample
does not show, and nothing where the present setting fits.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from monitor.config.spacing import interval_for, round_up, spoken
from monitor.config.values import format_duration

if TYPE_CHECKING:
    from datetime import timedelta

    from monitor.config import FleetConfig
    from monitor.service.survey import FleetSurvey

SHORTER = 0.6
"""Ratio of the fitting interval to the configured one from which several readings share a cell."""
MAX_LATENESS_S = 86_400.0
"""A reading that comes later belongs to a backlog, not to a lateness."""
AHEAD_S = 60.0
"""A clock that is so far ahead of Kafka's is mentioned."""
WINDOWS = (64, 48, 32, 24, 16)
"""Lengths of a window in cells, the usual one first."""


class Proposal(NamedTuple):
    """A line of configuration."""

    table: str
    """"kafka", "kafka.fields" or "fleet"."""
    key: str
    value: str
    """As TOML."""
    reason: str
    is_needed: bool = True
    """False: the present setting works, and this one uses more of the data."""

    @property
    def line(self) -> str:
        """The line in the file."""
        return f"{self.key} = {self.value}"


def proposals(survey: FleetSurvey, fleet: FleetConfig) -> list[Proposal]:
    """Return the settings of a fleet that the sample contradicts, with better ones."""
    found: list[Proposal] = []
    interval = fleet.interval
    if (spacing := survey.spacing) is not None:
        better, interval_s = interval_for(spacing), fleet.interval.total_seconds()
        wanted_s = better.total_seconds()
        if spacing.leaves_holes_in(fleet.interval):
            why = f"{spacing.words}: with {format_duration(interval)} most cells stay empty, and no window is full"
            found.append(Proposal("fleet", "interval", f'"{format_duration(better)}"', why))
            interval = better
        elif wanted_s < SHORTER * interval_s and spacing.is_regular:
            n = round(interval_s / wanted_s)
            why = f"{spacing.words}: of {n} in a cell of {format_duration(interval)} one is used"
            found.append(Proposal("fleet", "interval", f'"{format_duration(better)}"', why, is_needed=False))
    needed = lateness_for(survey, interval)
    if needed > interval and survey.late_s > fleet.lateness.total_seconds():
        why = f"readings came up to {spoken(survey.late_s)} behind a newer one of their asset"
        found.append(Proposal("fleet", "lateness", f'"{format_duration(needed)}"', why))
    return found


def lateness_for(survey: FleetSurvey, interval: timedelta) -> timedelta:
    """Return the lateness that covers the sample: at least one interval."""
    return max(interval, round_up(survey.late_s)) if 0 < survey.late_s <= MAX_LATENESS_S else interval


def as_toml(value: object) -> str:
    """Return a text, number, boolean or list as TOML."""
    return json.dumps(value, ensure_ascii=False)


class Window(NamedTuple):
    """A length for windows, in cells, and the reason."""

    cells: int
    reason: str


def window_for(interval: timedelta, n_readings: int, min_windows: int) -> Window:
    """Return the length of windows with which the history suffices for a first model, the usual one if possible.

    `n_readings`: of a usual asset.
    """
    usual = WINDOWS[0]
    for cells in WINDOWS:
        if n_readings >= cells + min_windows:
            short = "" if cells == usual else f": with the usual {usual} a first model would have to wait"
            return Window(cells, f"{format_duration(cells * interval)} are judged together{short}")
    wait = format_duration((usual + min_windows) * interval)
    return Window(usual, f"{format_duration(usual * interval)} are judged together; a first model needs about {wait}")
