"""Readings of a shard from the hard streams, as the engine and as the oracle take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from monitor.stream.window import Windower
from monitor.types import Readings
from tests.acceptance.streams import make
from tests.oracle.log import read_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from monitor.types import Windows
    from tests.oracle.log import FleetRule, Reading

Facts = dict[tuple[str, int], tuple[int, int, int, bytes]]
"""(asset, first cell) → n_present, first_offset, last_offset, values as float32 bytes."""


def shards_of(kind: str, seed: int) -> Iterator[tuple[FleetRule, list[Reading]]]:
    """Yield the readings of each fleet of the stream, in the order of the log."""
    stream = make(kind, seed)
    by_fleet: dict[str, list[Reading]] = {}
    for _, found in read_log(stream.log, stream.rules, stream.topic):
        for reading in found if isinstance(found, list) else ():
            by_fleet.setdefault(reading.fleet, []).append(reading)
    for fleet, readings in by_fleet.items():
        yield stream.rules.fleet(fleet), readings


def windower(rule: FleetRule) -> Windower:
    """Make the engine's windower for a rule of the oracle."""
    return Windower(
        length=rule.length,
        stride=rule.stride,
        lateness_cells=rule.lateness_cells,
        max_gap_cells=rule.max_gap_cells,
        n_sensors=len(rule.sensors),
    )


def columns(readings: list[Reading], names: list[str]) -> Readings:
    """Return readings of the oracle as columns. `names`: by asset index."""
    return Readings(
        fleet=readings[0].fleet,
        asset=np.array([names.index(one.asset) for one in readings], np.int32),
        cell=np.array([one.cell for one in readings], np.int64),
        offset=np.array([one.offset for one in readings], np.int64),
        values=np.array([[np.nan if v is None else v for v in one.values] for one in readings], np.float32),
    )


def facts_of(windows: Windows, names: list[str]) -> Facts:
    """Return windows in comparable form."""
    rows = zip(
        windows.asset, windows.start, windows.n_present, windows.first_offset, windows.last_offset, windows.values,
        strict=True,
    )  # fmt: skip
    found: Facts = {}
    for asset, start, n_present, first, last, values in rows:
        key = (names[int(asset)], int(start))
        assert key not in found, f"doubled within one push: {key}"
        found[key] = (int(n_present), int(first), int(last), np.asarray(values, np.float32).tobytes())
    return found


def batches(rng: Random, readings: list[Reading], most: int) -> Iterator[list[Reading]]:
    """Cut readings into batches of random sizes."""
    place = 0
    while place < len(readings):
        size = rng.randint(1, most)
        yield readings[place : place + size]
        place += size
