"""Per-sensor knobs on the errors of a network: deviations that do not count, and weights.

Input: windows in the sensors' own units (B, K, T), and a network's expected values, standardised. Output: the factor of
each squared error. Invariant: a factor is at most the square of the sensor's weight, so weights up to 1 only lower
scores. A sensor without a knob has the factor 1 exactly.

The deviation is that of the value as measured, not of the standardised one, which is limited to ten spreads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from monitor.models.terms import SensorKnob

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.models.inputs import ModelInputs
    from monitor.models.scaler import Scaler

SIGN = {"both": 0.0, "up": 1.0, "down": -1.0}
ALMOST = 1e-6
"""Share by which rounding may bring a deviation below the least one."""


class Knobs:
    """Knobs of all channels, on one device. Immutable."""

    def __init__(self, inputs: ModelInputs, scaler: Scaler, by_sensor: Mapping[str, SensorKnob]) -> None:
        """`scaler`: that of the channels. Knobs of sensors that the model does not take have no effect."""
        device = scaler.centre.device
        own = [by_sensor.get(inputs.sensors[number], SensorKnob()) for number in inputs.owner.tolist()]
        is_angle = [inputs.inputs[number].kind == "angle" for number in inputs.owner.tolist()]

        def column(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)[:, None]                    # (K, 1)

        self._weight = column([knob.weight**2 for knob in own])
        plain = [SensorKnob() if circular else knob for knob, circular in zip(own, is_angle, strict=True)]
        self._least = column([knob.least * (1 - ALMOST) for knob in plain])
        self._share = column([knob.least_share * (1 - ALMOST) for knob in plain])
        self._sign = column([SIGN[knob.direction] for knob in plain])
        # Sine and cosine of an angle follow one another.
        first = [at for at in range(len(own)) if is_angle[at] and inputs.channels[at].endswith(" (sine)")]
        self._angles = [(at, own[at].least) for at in first if own[at].least]
        self.needs_expected = bool(self._angles) or any(
            knob.least or knob.least_share or knob.direction != "both" for knob in plain
        )
        """Whether a factor depends on the expected value. Otherwise it is a weight alone."""
        weights = [max(1.0, knob.weight) for knob in own]
        self.heavier = weights if max(weights, default=1.0) > 1 else None
        """[K], factor of each channel's error by the weights above 1, which a threshold must be derived for. None = no
        weight is."""

    def bind(self, values: torch.Tensor, scaler: Scaler) -> BoundKnobs:
        """Return the knobs with the windows (B, T, K) of channels that they are applied to, and their scaler."""
        return BoundKnobs(self, values.transpose(1, 2), scaler)

    def factor(self, actual: torch.Tensor, expected: torch.Tensor | None) -> torch.Tensor:
        """Return the factor of squared errors, (B, K, T) or (K, 1). `expected`: in the sensors' own units."""
        if expected is None:
            return self._weight
        deviation = actual - expected
        counts = (deviation.abs() >= self._least) & (deviation.abs() >= self._share * expected.abs())
        counts &= deviation * self._sign >= 0
        for at, least in self._angles:
            turn = _degrees(actual, at) - _degrees(expected, at)          # (B, T)
            apart = ((turn + 180) % 360 - 180).abs()
            counts[:, at : at + 2] &= (apart >= least)[:, None]
        return counts * self._weight


class BoundKnobs(NamedTuple):
    """Knobs, and the windows that they are applied to."""

    knobs: Knobs
    actual: torch.Tensor
    """(B, K, T), in the sensors' own units, NaN = missing."""
    scaler: Scaler
    """That of these windows."""
    replaces: bool = False
    """Whether values that do not count are replaced by expected ones. Else they distort the expected values of other
    sensors, which then deviate in their place."""

    @property
    def needs_expected(self) -> bool:
        """See `Knobs.needs_expected`."""
        return self.knobs.needs_expected

    def factor(self, expected_x: torch.Tensor | None) -> torch.Tensor:
        """Return the factor of squared errors. `expected_x`: (B, K, T), standardised. None = not needed."""
        expected = None if expected_x is None else self.scaler.restore(expected_x)
        return self.knobs.factor(self.actual, expected)

    def replacing(self, rows: torch.Tensor) -> BoundKnobs:
        """Return the same for some of the windows, with `replaces`."""
        return BoundKnobs(self.knobs, self.actual[rows], self.scaler.rows(rows), replaces=True)


def _degrees(channels: torch.Tensor, at: int) -> torch.Tensor:
    return torch.rad2deg(torch.atan2(channels[:, at], channels[:, at + 1]))
