"""Terms of a version: the settings that its threshold and its scores depend on, and that change without a training.

Input: a fleet's configuration, or a card. Output: the terms of each, and their differences in words. No torch, so that
any command may import it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from monitor.budget import weekly

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.config import FleetConfig

DIRECTIONS = ("both", "up", "down")


@dataclass(frozen=True, slots=True)
class SensorKnob:
    """Deviations of one sensor that count, and their weight."""

    direction: str = "both"
    """up: above the expected value. down: below it."""
    least: float = 0.0
    """Least deviation in the sensor's unit. Of an angle: in degrees. Of a counter: of its change in the window."""
    least_share: float = 0.0
    """Least deviation as a share of the expected value."""
    weight: float = 1.0
    """Factor of the sensor's error."""

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> SensorKnob:
        """Read a card's entry. Raises TypeError or ValueError for a malformed one."""
        knob = cls(**entry)
        sizes = (knob.least, knob.least_share, knob.weight)
        if knob.direction not in DIRECTIONS or not all(0 <= size < math.inf for size in sizes):
            raise ValueError(f"knobs: {entry}")
        return knob


@dataclass(frozen=True, slots=True)
class Terms:
    """Budget, alert policy and knobs, and the factor of operators' labels."""

    alarms_per_week: float
    """Per asset."""
    confirm: int
    among: int
    recover: int
    knobs: Mapping[str, SensorKnob]
    """By sensor. Only those that change something."""
    label_factor: float = 1.0
    """Factor of the calibrated threshold (`label_factor.learnt_factor`)."""

    @classmethod
    def of(cls, fleet: FleetConfig) -> Terms:
        """Read a fleet's configuration."""
        alerts = fleet.alerts
        rate = weekly(alerts.budget.count, alerts.budget.per)
        return cls(rate, alerts.confirm.m, alerts.confirm.n, alerts.recover, knobs_of(fleet))

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Terms | None:
        """Read a card, or the part of it in the database. None = it has no readable terms."""
        try:
            own = {name: card["threshold"][name] for name in ("alarms_per_week", "confirm", "among", "recover")}
            return cls(**own, knobs=knobs_from_json(card.get("knobs")), label_factor=factor_of(card.get("labels")))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def of_sensors(self, sensors: tuple[str, ...]) -> Terms:
        """Return the same terms with the knobs of these sensors alone."""
        kept = {name: knob for name, knob in self.knobs.items() if name in sensors}
        return replace(self, knobs=kept)

    @property
    def heavier(self) -> dict[str, float]:
        """The weights above 1. All other knobs lower scores, so that a threshold keeps its promise under them."""
        return {name: knob.weight for name, knob in self.knobs.items() if knob.weight > 1}

    def needs_threshold(self, other: Terms) -> bool:
        """Return whether the threshold for the other terms may differ from that for these."""
        same_budget = math.isclose(self.alarms_per_week, other.alarms_per_week, rel_tol=1e-5)
        policy, others = (self.confirm, self.among, self.recover), (other.confirm, other.among, other.recover)
        return not same_budget or policy != others or self.heavier != other.heavier

    def differences(self, other: Terms) -> list[str]:
        """Return the changes by the other terms, in words. Empty = nothing."""
        found = []
        if not math.isclose(self.alarms_per_week, other.alarms_per_week, rel_tol=1e-5):
            found.append(f"budget {self.alarms_per_week:.3g} → {other.alarms_per_week:.3g} per asset and week")
        if (self.confirm, self.among) != (other.confirm, other.among):
            found.append(f"confirm {self.confirm} of {self.among} → {other.confirm} of {other.among}")
        if self.recover != other.recover:
            found.append(f"recover {self.recover} → {other.recover}")
        if self.label_factor != other.label_factor:
            found.append(f"labels: threshold × {self.label_factor:.3g} → × {other.label_factor:.3g}")
        names = sorted(self.knobs.keys() | other.knobs.keys())
        changed = [name for name in names if self.knobs.get(name) != other.knobs.get(name)]
        return found + [f"sensor {name}: {words(other.knobs.get(name, SensorKnob()))}" for name in changed]


def factor_of(labels: Mapping[str, Any] | None) -> float:
    """Read the factor from a card's entry `labels`. Raises KeyError, TypeError or ValueError for a malformed one."""
    factor = 1.0 if labels is None else float(labels["factor"])
    if not 0 < factor < math.inf:
        raise ValueError(f"labels: factor {factor}")
    return factor


def knobs_of(fleet: FleetConfig) -> dict[str, SensorKnob]:
    """Return the knobs of a fleet's sensors that change something, by name."""
    found = {
        name: SensorKnob(each.direction, each.min_deviation.absolute, each.min_deviation.relative, each.weight)
        for name, each in fleet.sensor.items()
    }
    return {name: knob for name, knob in sorted(found.items()) if knob != SensorKnob()}


def knobs_to_json(knobs: Mapping[str, SensorKnob]) -> dict[str, Any] | None:
    """Return the card's entry. None = no knob."""
    return {name: asdict(knob) for name, knob in sorted(knobs.items())} or None


def knobs_from_json(entry: Mapping[str, Any] | None) -> dict[str, SensorKnob]:
    """Read the card's entry. Raises TypeError, ValueError or AttributeError for a malformed one."""
    return {name: SensorKnob.from_json(knob) for name, knob in (entry or {}).items()}


def words(knob: SensorKnob) -> str:
    """Describe a knob."""
    parts = [f"only {knob.direction}"] if knob.direction != "both" else []
    parts += [f"from {knob.least:g} on"] if knob.least else []
    parts += [f"from {knob.least_share:.3g} of the expected value on"] if knob.least_share else []
    parts += [f"weight {knob.weight:g}"] if knob.weight != 1 else []
    return ", ".join(parts) or "every deviation counts"
