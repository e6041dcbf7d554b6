"""Inputs of a model: the sensors of a window as the channels of a network, and results of channels as those of sensors.

Input: windows [N, T, C] in the sensors' own units, NaN = missing. Output: channels [N, T, K], NaN = missing.
Invariant: a window's channels depend on the window alone. A model whose card says nothing of inputs takes each sensor
as it is.

    plain        one channel, the sensor itself
    angle        two channels, sine and cosine of an angle in degrees: 359° is near 1°
    change       one channel, the change since the first value in the window, of a counter that only counts one way
    left_out     no channel: its values carry no information
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.signals import RESET_SHARE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.types import Float32, Int64

KINDS = ("plain", "angle", "change", "left_out")
MARGIN = 0.1
"""Expected values are shown at most this share of a sensor's range outside of all values that it had in training. A
network extrapolates freely, and a pressure below zero helps nobody who has to find a fault."""


@dataclass(frozen=True, slots=True)
class SensorInput:
    """The way in which a model takes one sensor."""

    kind: str = "plain"
    missing: tuple[float, ...] = ()
    """Exact values (float32) that mean "missing"."""
    direction: int = 1
    """Of a change: 1 = the sensor counts up, -1 = down. A reset, a step the other way to or from near 0, is no change.
    """
    low: float | None = None
    high: float | None = None
    """Least and largest value in training, or change in a window. None = not known, or an angle."""
    note: str = ""
    """The reason, for operators. Empty = an ordinary sensor."""


class ModelInputs:
    """The sensors that a model takes, in the order of its columns. Immutable."""

    def __init__(self, sensors: Sequence[str], inputs: Sequence[SensorInput] | None = None) -> None:
        """`inputs`: of each sensor. None = all plain."""
        self.sensors = tuple(sensors)
        self.inputs = tuple(SensorInput() for _ in sensors) if inputs is None else tuple(inputs)
        owner: list[int] = []
        names: list[str] = []
        for number, (name, each) in enumerate(zip(self.sensors, self.inputs, strict=True)):
            channels = {"angle": (f"{name} (sine)", f"{name} (cosine)"), "change": (f"{name} (change)",)}
            own = () if each.kind == "left_out" else channels.get(each.kind, (name,))
            names += own
            owner += [number] * len(own)
        self.channels = tuple(names)
        """Names of the channels."""
        self.owner: Int64 = np.array(owner, dtype=np.int64)
        """[K], the sensor of each channel, by number."""

    @cached_property
    def taken(self) -> tuple[str, ...]:
        """The sensors with a channel."""
        return tuple(name for name, each in zip(self.sensors, self.inputs, strict=True) if each.kind != "left_out")

    @cached_property
    def is_plain(self) -> bool:
        """Whether each sensor is a channel as it is."""
        return all(each.kind == "plain" and not each.missing for each in self.inputs)

    @property
    def notes(self) -> list[str]:
        """A sentence for each sensor that is not taken as it is."""
        return [f"{name}: {each.note}" for name, each in zip(self.sensors, self.inputs, strict=True) if each.note]

    # ------------------------------------------------------------------ windows → channels

    def select(self, values: Float32, names: Sequence[str]) -> Float32:
        """Return the columns of windows [N, T, *] with these names, in the order of the model.

        A sensor that the windows lack is missing (NaN). Columns that the model does not know are ignored.
        """
        if tuple(names) == self.sensors:
            return values
        at = {name: column for column, name in enumerate(names)}
        out = np.full((*values.shape[:2], len(self.sensors)), np.nan, dtype=np.float32)
        for column, name in enumerate(self.sensors):
            if name in at:
                out[..., column] = values[..., at[name]]
        return out

    def to_channels(self, values: Float32) -> Float32:
        """Turn windows [N, T, C] into channels [N, T, K]."""
        if self.is_plain:
            return values
        out = np.empty((*values.shape[:2], len(self.channels)), dtype=np.float32)
        at = 0
        for number, each in enumerate(self.inputs):
            if each.kind == "left_out":
                continue
            column = values[..., number]
            for code in each.missing:
                column = np.where(column == np.float32(code), np.float32(np.nan), column)
            if each.kind == "angle":
                angle = np.deg2rad(column)
                out[..., at], out[..., at + 1] = np.sin(angle), np.cos(angle)
                at += 2
                continue
            out[..., at] = _change(column, each.direction) if each.kind == "change" else column
            at += 1
        return out

    # ------------------------------------------------------------------ results of channels → of sensors

    def fold_shares(self, share: Float32) -> Float32:
        """Add up the shares [N, K] of each sensor's channels: [N, C]. A sensor without a channel has 0."""
        if len(self.channels) == len(self.sensors) == len(self.taken):
            return share
        out = np.zeros((len(share), len(self.sensors)), dtype=share.dtype)
        for channel, number in enumerate(self.owner):
            out[:, number] += share[:, channel]
        return out

    def fold_values(self, channels: Float32) -> Float32:
        """Turn values [N, K] of channels into values [N, C] of sensors: an angle in degrees, a counter's change."""
        out = np.full((len(channels), len(self.sensors)), np.nan, dtype=np.float32)
        at = 0
        for number, each in enumerate(self.inputs):
            if each.kind == "angle":
                out[:, number] = _degrees(channels[:, at], channels[:, at + 1])
                at += 2
            elif each.kind != "left_out":
                out[:, number] = channels[:, at]
                at += 1
        return out

    def to_sensors(self, channels: Float32) -> Float32:
        """Turn windows of channels [N, T, K] back into windows of sensors [N, T, C]. A counter begins at 0."""
        if self.is_plain:
            return channels
        n, length, _ = channels.shape
        return self.fold_values(channels.reshape(n * length, -1)).reshape(n, length, -1)

    def to_levels(self, values: Float32, expected: Float32) -> Float32:
        """Turn reconstructed channels [N, T, K] of windows [N, T, C] into values [N, T, C] beside the measured ones.

        A counter's reconstructed change begins at its level before. An angle is the one nearest to the measured one.
        """
        shape = values.shape
        folded = self.bound(self.fold_values(expected.reshape(-1, expected.shape[2]))).reshape(shape)
        if self.is_plain:
            return folded
        changes = self.fold_values(self.to_channels(values).reshape(-1, expected.shape[2])).reshape(shape)
        for number, each in enumerate(self.inputs):
            if each.kind == "change":
                folded[..., number] += _filled(values[..., number] - changes[..., number])
            elif each.kind == "angle":
                turns = np.round((values[..., number] - folded[..., number]) / 360)
                folded[..., number] += 360 * np.nan_to_num(turns)
        return folded

    def bound(self, expected: Float32) -> Float32:
        """Limit expected values [N, C] to what the sensors ever were in training, and a margin."""
        known = [(-np.inf, np.inf) if each.low is None or each.high is None else (each.low, each.high)
                 for each in self.inputs]  # fmt: skip
        low, high = np.array(known, dtype=np.float64).reshape(-1, 2).T
        margin = MARGIN * np.where(np.isfinite(low), high - low, 0.0)
        bounded: Float32 = np.clip(expected, low - margin, high + margin).astype(np.float32)
        return bounded

    # ------------------------------------------------------------------ the card

    def to_json(self) -> dict[str, Any]:
        """Return the card's entry, by sensor."""
        return {
            name: asdict(each) | {"missing": list(each.missing)}
            for name, each in zip(self.sensors, self.inputs, strict=True)
        }

    @classmethod
    def from_json(cls, sensors: Sequence[str], entry: dict[str, Any] | None) -> ModelInputs:
        """Read the card's entry. None = a card from before there was one. Raises KeyError, TypeError, ValueError."""
        if entry is None:
            return cls(sensors)
        inputs = [
            SensorInput(**{**entry[name], "missing": tuple(float(code) for code in entry[name]["missing"])})
            for name in sensors
        ]
        for each in inputs:
            if each.kind not in KINDS or each.direction not in (1, -1):
                raise ValueError(f"inputs: {each.kind}, {each.direction}")
        return cls(sensors, inputs)


def _change(column: Float32, direction: int) -> Float32:
    """Return the change [N, T] since the first value in the window. A reset, or a missing cell, changes nothing.

    Steps from cell to cell would hide a slow counter in its own rounding, and one that stops in its idle times. The sum
    of the steps shows both, and a fault stays visible for as long as it is in the window.
    """
    present = np.isfinite(column)
    latest = np.maximum.accumulate(np.where(present, np.arange(column.shape[1]), -1), axis=1)
    latest = np.concatenate([np.full((len(column), 1), -1), latest[:, :-1]], axis=1)   # before each cell, -1 = none
    before = np.take_along_axis(column, np.maximum(latest, 0), axis=1).astype(np.float64)
    is_step = present & (latest >= 0)
    step = np.subtract(column, before, where=is_step, out=np.zeros(column.shape))
    sizes = np.abs(before), np.abs(column)
    step[(step * direction < 0) & (np.minimum(*sizes) <= RESET_SHARE * np.maximum(*sizes))] = 0.0
    return np.where(present, np.cumsum(step, axis=1), np.nan).astype(np.float32)


def _filled(column: Float32) -> Float32:
    """Return [N, T] with the last known value in each gap, the first one before it. NaN = none is known."""
    present = np.isfinite(column)
    latest = np.maximum.accumulate(np.where(present, np.arange(column.shape[1]), -1), axis=1)
    latest = np.where(latest < 0, present.argmax(axis=1)[:, None], latest)
    filled: Float32 = np.take_along_axis(column, latest, axis=1)
    return filled


def _degrees(sine: Float32, cosine: Float32) -> Float32:
    angle: Float32 = np.rad2deg(np.arctan2(sine, cosine)) % 360
    return np.where(angle >= 360, np.float32(0), angle).astype(np.float32)
