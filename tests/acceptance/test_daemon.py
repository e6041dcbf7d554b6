"""The pipeline against the oracle: hard streams, random batches, crashes at random moments. The database is real."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from monitor.types import Partition
from tests.acceptance.crashes import CASES, config_of, live
from tests.acceptance.streams import make
from tests.oracle.check import check_database

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("kind", "seed"), CASES)
async def test_crashes_at_any_moment_change_no_result(kind: str, seed: int, tmp_path: Path) -> None:
    stream = make(kind, seed)
    config = config_of(stream.rules, tmp_path)
    partition = Partition(stream.topic, 0)

    crashes = await live(config, {partition: stream.log}, Random(f"{kind}{seed}"))

    report = check_database(tmp_path / "monitor.db", {tuple(partition): stream.log}, stream.rules)
    assert not report.problems, dict(report.problems)
    assert crashes > 0
