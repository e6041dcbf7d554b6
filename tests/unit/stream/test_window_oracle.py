"""Windows of the engine against those of the oracle: the same readings, in random batches, give the same windows.

The engine is used through its interface only: `Windower(...)` and `push`.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.acceptance.streams import KINDS
from tests.oracle.windows import ExpectedShard
from tests.unit.stream.shard_cases import batches, columns, facts_of, shards_of, windower

if TYPE_CHECKING:
    from tests.unit.stream.shard_cases import Facts

SEEDS = range(6)


def facts_by_oracle(shard: ExpectedShard) -> Facts:
    return {
        (window.asset, window.start): (
            window.n_present,
            window.first_offset,
            window.last_offset,
            np.array([[np.nan if v is None else v for v in row] for row in shard.values(window)], np.float32).tobytes(),
        )
        for window in shard.windows()
    }


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_windows_equal_the_oracles_after_every_batch(kind: str, seed: int) -> None:
    rng = Random(seed)
    n_windows = 0
    for rule, readings in shards_of(kind, seed):
        names = list(dict.fromkeys(one.asset for one in readings))
        engine = windower(rule)
        oracle = ExpectedShard(rule)
        so_far: Facts = {}
        last_start: dict[str, int] = {}
        pieces = list(batches(rng, readings, rng.choice([1, 7, 60, 10_000])))
        compared_at = {*rng.sample(range(len(pieces)), min(20, len(pieces))), len(pieces) - 1}
        for number, batch in enumerate(pieces):
            fates = [oracle.add(one) for one in batch]
            output = engine.push(columns(batch, names))
            assert output.late.tolist() == [row for row, fate in enumerate(fates) if fate == "late"]
            assert sorted(output.duplicate.tolist()) == [row for row, fate in enumerate(fates) if fate == "duplicate"]
            found = facts_of(output.windows, names)
            assert not found.keys() & so_far.keys(), "doubled"
            for asset, start in found:  # order: by asset, then by start, and never backwards
                assert start > last_start.get(asset, -(2**62)), "out of order"
                last_start[asset] = start
            so_far |= found
            if number in compared_at:  # the oracle lists all its windows each time
                assert so_far == facts_by_oracle(oracle)
        n_windows += len(so_far)
    if kind == "regular":
        assert n_windows > 0  # other kinds may lose all windows under one seed
