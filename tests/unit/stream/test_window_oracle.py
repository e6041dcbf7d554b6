"""The engine's windows against the oracle's: the same readings, in random batches, must give the same windows.

The engine is used through its door only: `Windower(...)` and `push`.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.stream.window import Windower
from monitor.types import Readings
from tests.acceptance.streams import KINDS, make
from tests.oracle.log import read_log
from tests.oracle.windows import Lane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monitor.types import Windows
    from tests.oracle.log import FleetRule, Reading

Facts = dict[tuple[str, int], tuple[int, int, int, bytes]]
"""(asset, first cell) → n_present, first_offset, last_offset, values as float32 bytes."""
SEEDS = range(6)


def lanes_of(kind: str, seed: int) -> Iterator[tuple[FleetRule, list[Reading]]]:
    """The readings of each fleet of the stream, in the order of the log."""
    stream = make(kind, seed)
    lanes: dict[str, list[Reading]] = {}
    for _, found in read_log(stream.log, stream.rules, stream.topic):
        if isinstance(found, list):
            lanes.setdefault(found[0].fleet, []).extend(found)
    for fleet, readings in lanes.items():
        yield stream.rules.fleet(fleet), readings


def columns(readings: list[Reading], names: list[str]) -> Readings:
    return Readings(
        fleet=readings[0].fleet,
        asset=np.array([names.index(one.asset) for one in readings], np.int32),
        cell=np.array([one.cell for one in readings], np.int64),
        offset=np.array([one.offset for one in readings], np.int64),
        values=np.array([[np.nan if v is None else v for v in one.values] for one in readings], np.float32),
    )


def facts_of(windows: Windows, names: list[str]) -> Facts:
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


def facts_by_oracle(lane: Lane) -> Facts:
    return {
        (window.asset, window.start): (
            window.n_present,
            window.first_offset,
            window.last_offset,
            np.array([[np.nan if v is None else v for v in row] for row in lane.values(window)], np.float32).tobytes(),
        )
        for window in lane.windows()
    }


def windower(rule: FleetRule) -> Windower:
    return Windower(
        length=rule.length,
        stride=rule.stride,
        lateness_cells=rule.lateness_cells,
        max_gap_cells=rule.max_gap_cells,
        n_sensors=len(rule.sensors),
    )


def batches(rng: Random, readings: list[Reading], most: int) -> Iterator[list[Reading]]:
    place = 0
    while place < len(readings):
        size = rng.randint(1, most)
        yield readings[place : place + size]
        place += size


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_after_every_batch_the_windows_are_the_oracle_s(kind: str, seed: int) -> None:
    rng = Random(seed)
    n_windows = 0
    for rule, readings in lanes_of(kind, seed):
        names = list(dict.fromkeys(one.asset for one in readings))
        engine = windower(rule)
        oracle = Lane(rule)
        so_far: Facts = {}
        last_start: dict[str, int] = {}
        pieces = list(batches(rng, readings, rng.choice([1, 7, 60, 10_000])))
        compared_at = {*rng.sample(range(len(pieces)), min(20, len(pieces))), len(pieces) - 1}
        for number, batch in enumerate(pieces):
            fates = [oracle.take(one) for one in batch]
            pushed = engine.push(columns(batch, names))
            assert sorted(pushed.late.tolist()) == [row for row, fate in enumerate(fates) if fate == "late"]
            assert sorted(pushed.duplicate.tolist()) == [row for row, fate in enumerate(fates) if fate == "duplicate"]
            found = facts_of(pushed.windows, names)
            assert not found.keys() & so_far.keys(), "doubled"
            for asset, start in found:  # order: by asset, then by start; and never back
                assert start > last_start.get(asset, -(2**62)), "out of order"
                last_start[asset] = start
            so_far |= found
            if number in compared_at:  # the oracle walks all its windows each time
                assert so_far == facts_by_oracle(oracle)
        n_windows += len(so_far)
    if kind == "regular":
        assert n_windows > 0  # the other kinds may lose everything to their troubles, under one seed
