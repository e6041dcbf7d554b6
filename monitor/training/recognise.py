"""Recognition of the sensors that are no plain measurements, on the windows to learn from.

Input: training windows of a fleet, and what its configuration says of its fields. Output: the model's inputs.
Invariant: no held-out window and no label decides. Each finding has a note, which reaches the receipt, the log and
`monitor models show`. Angles are only taken where the configuration names them: a suspicion is told.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from monitor.models.inputs import ModelInputs, SensorInput
from monitor.signals import find_counter, find_sentinels, is_far_outside, may_be_angle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.models.spec import FleetSpec, TrainingSet
    from monitor.types import Float32, Int64

N_READINGS = 400_000
"""Readings that the rules see. More would not change a finding."""
N_ASSETS = 256
"""Assets that the rules see, evenly chosen."""


def recognise(windows: TrainingSet, rows: Int64, fleet: FleetSpec) -> ModelInputs:
    """Return the inputs of a model that learns from these rows."""
    stretches = _stretches(windows, rows, fleet.interval_s)
    codes = [_codes(_columns(stretches, number), fleet.missing) for number in range(len(fleet.sensors))]
    ranges = [_range(_columns(stretches, number), own) for number, own in enumerate(codes)]
    found = sorted({code for own in codes for code in own} - set(fleet.missing))
    inputs = []
    for number, name in enumerate(fleet.sensors):
        low, high = ranges[number]
        # Where one sensor of a device writes -200 for "no reading", the others do.
        shared = [code for code in found if low is not None and high is not None and is_far_outside(code, low, high)]
        missing = tuple(sorted({*codes[number], *shared}))
        columns = [_without(column, missing) for column in _columns(stretches, number)]
        inputs.append(_input(columns, missing, name, fleet, _columns(stretches, number)))
    return ModelInputs(fleet.sensors, inputs)


def with_ranges(inputs: ModelInputs, windows: Float32, rows: Int64) -> ModelInputs:
    """Return the inputs with the range that each sensor has in these windows."""
    low = np.full(len(inputs.channels), np.inf, dtype=np.float32)
    high = -low
    for part in np.array_split(rows, max(1, len(rows) // 2048)):
        channels = inputs.to_channels(windows[part]).reshape(-1, len(low))
        channels = np.where(np.isfinite(channels), channels, np.nan)
        low = np.fmin(low, np.fmin.reduce(channels, axis=0, initial=np.inf))
        high = np.fmax(high, np.fmax.reduce(channels, axis=0, initial=-np.inf))
    new = list(inputs.inputs)
    for channel, number in enumerate(inputs.owner):
        if new[number].kind in ("plain", "change") and np.isfinite(low[channel]):
            new[number] = replace(new[number], low=float(low[channel]), high=float(high[channel]))
    return ModelInputs(inputs.sensors, new)


def suggestions(windows: TrainingSet, rows: Int64, fleet: FleetSpec, inputs: ModelInputs) -> list[str]:
    """Return sentences on sensors that may be angles, and on configured ones that there are not."""
    stretches = _stretches(windows, rows, fleet.interval_s)
    named = [
        name
        for number, (name, each) in enumerate(zip(inputs.sensors, inputs.inputs, strict=True))
        if each.kind == "plain" and may_be_angle([_without(c, each.missing) for c in _columns(stretches, number)])
    ]
    unknown = [glob for glob in fleet.circular if not any(fnmatchcase(name, glob) for name in fleet.sensors)]
    return [
        *(f'{name}: looks like an angle in degrees; if it is, set fields.circular = ["{name}"]' for name in named),
        *(f'fields.circular = ["{glob}"] names no sensor of {fleet.name}' for glob in unknown),
    ]


def _input(
    columns: list[Float32], missing: tuple[float, ...], name: str, fleet: FleetSpec, raw: list[Float32]
) -> SensorInput:
    notes = []
    n_seen = sum(int(np.isfinite(column).sum()) for column in raw)
    n_missing = n_seen - sum(int(np.isfinite(column).sum()) for column in columns)
    if missing and n_missing:
        codes = ", ".join(f"{np.float32(code):g}" for code in missing)
        notes.append(f"{codes} taken as missing ({n_missing / n_seen:.1%} of its readings)")
    kind, direction = "plain", 1
    if any(fnmatchcase(name, glob) for glob in fleet.circular):
        kind = "angle"
        notes.append("an angle, learnt as sine and cosine")
    elif (counter := find_counter(columns)) is not None:
        direction = counter.direction
        kind = "left_out" if counter.is_useless else "change"
        notes.append(f"{counter.reason}; {'left out' if counter.is_useless else 'its change is learnt instead'}")
    return SensorInput(kind, missing, direction, note="; ".join(notes))


def _codes(columns: list[Float32], configured: Sequence[float]) -> tuple[float, ...]:
    named = tuple(float(np.float32(code)) for code in configured)
    return tuple(sorted({*named, *find_sentinels([_without(column, named) for column in columns])}))


def _range(columns: list[Float32], missing: tuple[float, ...]) -> tuple[float | None, float | None]:
    values = np.concatenate([_without(column, missing) for column in columns]) if columns else np.empty(0)
    seen = values[np.isfinite(values)]
    return (float(seen.min()), float(seen.max())) if len(seen) else (None, None)


def _without(column: Float32, missing: Sequence[float]) -> Float32:
    return np.where(np.isin(column, np.array(missing, dtype=np.float32)), np.float32(np.nan), column)


def _columns(stretches: list[Float32], number: int) -> list[Float32]:
    return [stretch[:, number] for stretch in stretches]


def _stretches(windows: TrainingSet, rows: Int64, interval_s: float) -> list[Float32]:
    """Return the readings [n, C] of each asset in order of time, from windows that do not overlap."""
    asset = windows.asset[rows]
    assets = np.unique(asset)
    if len(assets) > N_ASSETS:
        assets = assets[np.linspace(0, len(assets) - 1, N_ASSETS).astype(np.int64)]
    length, n_most = windows.values.shape[1], max(1, N_READINGS // (windows.values.shape[1] * len(assets)))
    stretches = []
    for one in assets:
        mine = rows[asset == one]
        mine = mine[np.argsort(windows.end_us[mine], kind="stable")]
        kept = _apart(windows.end_us[mine], int(length * interval_s * 1e6))
        # A stretch without holes: a code that recurs must be seen to recur.
        stretches.append(windows.values[mine[kept][-n_most:]].reshape(-1, windows.values.shape[2]))
    return stretches


def _apart(end_us: Int64, span_us: int) -> list[int]:
    """Return positions of ends that lie at least a window apart."""
    kept, at = [], 0
    while at < len(end_us):
        kept.append(at)
        at = int(np.searchsorted(end_us, end_us[at] + span_us, "left"))
    return kept
