"""Operating states of a machine, like off, idle and running, read from one sensor.

Input: windows [N, T, C] in the sensors' own units, NaN = missing. Output: the state of each window.
Invariant: the state is a function of the window alone, so a replay, one window alone and a batch have the same.

    steady        all present readings are within the levels of one state
    transition    readings of two or more states, or on their way between them, as healthy windows have
    unknown       anything else: a level between the states for longer than a healthy change takes, more changes than a
                  healthy window has, or a sensor that is missing. Judged as if no state were known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.types import Bool, Float32, Int8

OFF = "off"
TRANSITION, UNKNOWN = "transition", "unknown"
MIN_PRESENT = 0.5
"""Share of the readings of the state's sensor that a window needs. With fewer its state is unknown."""
MAX_STATES = 3
BETWEEN, MISSING = -1, -2
"""In place of the state of a reading."""


@dataclass(frozen=True, slots=True)
class States:
    """States of a fleet's assets, by rising level of one sensor. Classes of windows are numbered: each state, then
    `transition`, then `unknown`.
    """

    sensor: str
    column: int
    """Of the sensor."""
    names: tuple[str, ...]
    low: tuple[float, ...]
    """Least value of each state. The first is -inf."""
    high: tuple[float, ...]
    """Largest value of each state. The last is inf."""
    max_between: int
    """Most readings between two states in a healthy window."""
    max_changes: int
    """Most changes of the state in a healthy window."""
    left_out: bool = False
    """Whether transitions are not scored."""
    factors: tuple[float, ...] = ()
    """Threshold of each class as a multiple of the fleet's. Empty = all have the fleet's."""
    shares: tuple[float, ...] = ()
    """Share of the healthy windows in each class, for people."""
    from_settings: bool = False
    """Whether the configuration gives the levels. False = found in the data."""

    @property
    def transition(self) -> int:
        """Number of the class of transitions."""
        return len(self.names)

    @property
    def unknown(self) -> int:
        """Number of the class of windows in no known state."""
        return len(self.names) + 1

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes."""
        return (*self.names, TRANSITION, UNKNOWN)

    def classify(self, values: Float32) -> Int8:
        """Return the class [N] of each window [N, T, C]."""
        x = values[:, :, self.column]
        state = np.full(len(x), self.unknown, dtype=np.int8)
        if not len(x):
            return state
        least, largest = x.min(1), x.max(1)                               # NaN where a reading is missing
        for number, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            state[(least >= low) & (largest <= high)] = number
        rest = np.flatnonzero((state == self.unknown) | ~np.isfinite(least) | ~np.isfinite(largest))
        if len(rest):
            state[rest] = self._classify_mixed(x[rest])
        return state

    def is_off(self, state: Int8) -> Bool:
        """Return the mask [N] of windows that are off from their first reading to their last."""
        return state == self.names.index(OFF) if OFF in self.names else np.zeros(len(state), dtype=bool)

    def _classify_mixed(self, x: Float32) -> Int8:
        """Return the class of windows [n, T] of the sensor, slower, for any of them."""
        of_step, n_between, n_changes = self.steps(x)
        present, known = of_step > MISSING, of_step >= 0
        first, last = np.where(known, of_step, 127).min(1), of_step.max(1)
        state = np.full(len(x), self.unknown, dtype=np.int8)
        enough = (present.mean(1) >= MIN_PRESENT) & known.any(1)
        steady = enough & (n_between == 0) & (first == last)
        state[steady] = first[steady]
        mixed = enough & ~steady & (n_between <= self.max_between) & (n_changes <= self.max_changes)
        state[mixed] = self.transition
        return state

    def steps(self, x: Float32) -> tuple[Int8, Any, Any]:
        """Return the state [N, T] of each reading of the sensor, and the numbers [N] of readings between two states
        and of changes in each window.
        """
        of_step = np.full(x.shape, BETWEEN, dtype=np.int8)
        for number, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            of_step[(x >= low) & (x <= high)] = number
        of_step[~np.isfinite(x)] = MISSING
        n_between = (of_step == BETWEEN).sum(1)
        return of_step, n_between, _n_changes(of_step)

    # ------------------------------------------------------------------ the card

    def to_json(self) -> dict[str, Any]:
        """Return the card's entry. The texts in `says` are for people, and ready to print."""
        return {
            "sensor": self.sensor,
            "found_by": "settings" if self.from_settings else "data",
            "states": [
                {"name": name, "from": _or_none(low), "to": _or_none(high)}
                for name, low, high in zip(self.names, self.low, self.high, strict=True)
            ],
            "max_between": self.max_between,
            "max_changes": self.max_changes,
            "transitions": "left_out" if self.left_out else "own",
            "factors": dict(zip(self.classes, self.factors, strict=True)) if self.factors else None,
            "shares": dict(zip(self.classes, self.shares, strict=True)) if self.shares else None,
            "says": self.says(),
        }

    @classmethod
    def from_json(cls, sensors: Sequence[str], entry: dict[str, Any]) -> States:
        """Read the card's entry. Raises KeyError, TypeError, ValueError or AttributeError for a malformed one."""
        names = tuple(str(each["name"]) for each in entry["states"])
        low = tuple(-math.inf if each["from"] is None else float(each["from"]) for each in entry["states"])
        high = tuple(math.inf if each["to"] is None else float(each["to"]) for each in entry["states"])
        classes = (*names, TRANSITION, UNKNOWN)
        factors, shares = (
            () if entry[key] is None else tuple(float(entry[key][name]) for name in classes)
            for key in ("factors", "shares")
        )
        edges = [edge for pair in zip(low, high, strict=True) for edge in pair]
        if not 1 <= len(names) <= MAX_STATES or len(set(classes)) < len(classes) or edges != sorted(edges):
            raise ValueError(f"states: {entry['states']}")
        if not all(0 < factor < math.inf for factor in factors) or any(map(math.isnan, edges)):
            raise ValueError(f"states: factors {entry['factors']}")
        return cls(
            sensor=entry["sensor"], column=list(sensors).index(entry["sensor"]), names=names, low=low, high=high,
            max_between=int(entry["max_between"]), max_changes=int(entry["max_changes"]),
            left_out=entry["transitions"] == "left_out", factors=factors, shares=shares,
            from_settings=entry["found_by"] == "settings",
        )  # fmt: skip

    def says(self) -> list[str]:
        """Describe the states in sentences."""
        levels = ", ".join(
            f"{name} {_range(low, high)}" for name, low, high in zip(self.names, self.low, self.high, strict=True)
        )
        origin = "as configured" if self.from_settings else "found in the data"
        out = [f"Operating states by {self.sensor}, {origin}: {levels}."]
        if self.shares:
            parts = ", ".join(f"{name} {share:.0%}" for name, share in zip(self.classes, self.shares, strict=True))
            out.append(f"Share of the windows: {parts}.")
        if self.left_out:
            out.append("Windows of transitions are not scored.")
        if self.factors:
            own = ", ".join(
                f"{name} × {factor:.2f}"
                for name, factor in zip(self.classes, self.factors, strict=True)
                if not (self.left_out and name == TRANSITION)
            )
            out.append(f"Thresholds against the fleet's: {own}.")
        return out


def _n_changes(of_step: Int8) -> Any:
    """Return the number of changes [N] from one known state to another in states [N, T] of readings."""
    at = np.where(of_step >= 0, np.arange(of_step.shape[1]), -1)
    last = np.maximum.accumulate(at, axis=1)                              # the newest known reading up to each
    filled = np.take_along_axis(of_step, np.maximum(last, 0), axis=1)
    return ((filled[:, 1:] != filled[:, :-1]) & (last[:, :-1] >= 0)).sum(1)


def _or_none(edge: float) -> float | None:
    return edge if math.isfinite(edge) else None


def _range(low: float, high: float) -> str:
    if math.isinf(low):
        return "at any level" if math.isinf(high) else f"up to {high:.4g}"
    return f"from {low:.4g}" if math.isinf(high) else f"{low:.4g} to {high:.4g}"
