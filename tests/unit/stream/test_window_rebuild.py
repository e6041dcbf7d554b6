"""Rebuilt windows equal the former ones, from any rewind offset or snapshot: the digest and the windows agree."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.stream.window import NEVER, Windower
from monitor.types import Readings
from tests.acceptance.streams import KINDS
from tests.oracle.windows import ExpectedShard
from tests.unit.stream.shard_cases import batches, columns, facts_of, shards_of, windower

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.oracle.log import Reading

SEEDS = range(4)


def ids_of(names: list[str]) -> np.ndarray:
    return np.arange(len(names), dtype=np.int32) + 70


def next_starts(found: dict[tuple[str, int], object], names: list[str], stride: int) -> dict[int, int]:
    last: dict[int, int] = {}
    for name, start in found:
        last[names.index(name)] = max(start + stride, last.get(names.index(name), NEVER))
    return last


def whole_records(pieces: Iterable[list[Reading]]) -> list[list[Reading]]:
    """Return batches as transactions have them: none ends inside a record."""
    out: list[list[Reading]] = []
    for piece in pieces:
        while out and piece and piece[0].offset == out[-1][-1].offset:
            out[-1].append(piece[0])
            piece = piece[1:]
        if piece:
            out.append(list(piece))
    return out


def rewind_of(engine: Windower, next_offset: int) -> int:
    """Return the oldest record that any asset needs."""
    return min([next_offset, *engine.needed_offsets().tolist()])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_rebuild_restores_the_digest_and_the_windows(kind: str, seed: int) -> None:
    """Rebuild from a rewind point of some time ago, then go on with the rebuilt one."""
    rng = Random(seed)
    for rule, readings in shards_of(kind, seed):
        names = list(dict.fromkeys(one.asset for one in readings))
        living = windower(rule)
        so_far: dict[tuple[str, int], object] = {}
        pieces = whole_records(batches(rng, readings, rng.choice([3, 20, 60])))
        rewind, digest = 0, (-1, 0)
        for number, batch in enumerate(pieces):
            found = facts_of(living.push(columns(batch, names)).windows, names)
            assert not found.keys() & so_far.keys()
            so_far |= found
            saved = batch[-1].offset
            if digest[0] < 0 or rng.random() < 0.5:
                oldest = rewind_of(living, saved + 1)
                assert oldest >= rewind, "the rewind offset never falls"
                rewind = oldest
                digest = (saved, living.cells_digest(ids_of(names)))
            if rng.random() < 0.5:
                continue
            again = windower(rule)
            again.resume(next_starts(so_far, names, rule.stride))
            # The partition may begin earlier than this shard needs: another fleet pins it.
            begin = rewind - rng.choice([0, 0, 1, 7, 100])
            for piece in pieces[: number + 1]:
                if piece[-1].offset < begin:
                    continue
                again.push(columns([one for one in piece if one.offset >= begin], names))
                if piece[-1].offset == digest[0]:
                    assert again.cells_digest(ids_of(names)) == digest[1]
            assert rewind_of(again, saved + 1) == rewind_of(living, saved + 1)
            if rng.random() < 0.3:
                living = again  # from here on the rebuilt one is used
        oracle = ExpectedShard(rule)
        for one in readings:
            oracle.add(one)
        assert so_far.keys() == {(window.asset, window.start) for window in oracle.windows()}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_snapshot_goes_on_with_the_same_windows(kind: str, seed: int) -> None:
    rng = Random(seed)
    for rule, readings in shards_of(kind, seed):
        names = list(dict.fromkeys(one.asset for one in readings))
        living, restored = windower(rule), windower(rule)
        so_far: dict[tuple[str, int], object] = {}
        for batch in batches(rng, readings, rng.choice([3, 20, 60])):
            found = facts_of(living.push(columns(batch, names)).windows, names)
            assert found == facts_of(restored.push(columns(batch, names)).windows, names)
            so_far |= found
            if rng.random() < 0.3:
                state = restored.snapshot(np.arange(len(restored.newest)))
                restored = windower(rule)
                restored.resume(next_starts(so_far, names, rule.stride))
                restored.restore(state)
                assert rewind_of(restored, 1 << 60) == rewind_of(living, 1 << 60)
                assert restored.cells_digest(ids_of(names)) == living.cells_digest(ids_of(names))


def filled(values: list[list[float]], *, offset: int = 0) -> Windower:
    engine = Windower(length=4, stride=1, lateness_cells=1, max_gap_cells=1, n_sensors=2)
    n = len(values)
    engine.push(
        Readings(
            "f",
            np.zeros(n, np.int32),
            np.arange(n, dtype=np.int64),
            np.arange(offset, offset + n, dtype=np.int64),
            np.array(values, np.float32),
        )
    )
    return engine


@pytest.mark.parametrize(
    "other",
    [
        filled([[1, 2], [3, 4.5]]),
        filled([[1, 2], [4, 3]]),
        filled([[1, 2], [3, np.nan]]),
        filled([[1, 2]]),
        filled([[1, 2], [3, 4]], offset=1),
    ],
)
def test_the_digest_tells_values_offsets_and_holes_apart(other: Windower) -> None:
    same = filled([[1, 2], [3, 4]])
    ids = np.array([7], np.int32)
    assert same.cells_digest(ids) == filled([[1, 2], [3, 4]]).cells_digest(ids)
    assert same.cells_digest(ids) != other.cells_digest(ids)
    assert same.cells_digest(ids) != same.cells_digest(np.array([8], np.int32))
