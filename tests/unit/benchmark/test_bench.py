from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import torch

from monitor.benchmark import baseline, bench, workload
from monitor.benchmark.child import CaseRequest, Meter
from monitor.decode import Decoder, FleetSchema
from monitor.errors import MonitorError
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PARTITION = Partition("bench", 0)
NO_TIMES = np.zeros(0, np.int64)


def _request(n_records: int = 10**9, seconds: float = 10.0, live_from: int = -1) -> CaseRequest:
    return CaseRequest(False, 1, "conv", "cpu", "", "", "bench", n_records, seconds, live_from)


def test_the_workload_is_reproducible() -> None:
    whole = list(workload.records(0, 300))
    assert list(workload.records(0, 300)) == whole
    assert {len(value) for _, value in whole} <= set(range(190, 216))
    keys = [key for key, _ in whole]
    assert keys[:100] == keys[100:200]
    assert len(set(keys)) == workload.N_ASSETS


def test_the_decoder_accepts_the_workload() -> None:
    decoder = Decoder([FleetSchema("bench", 1_000_000, sensors=workload.SENSORS)])
    (batch,) = workload.batches(PARTITION, 1000)
    decoded = decoder.decode(batch)
    assert decoded.n_accepted == 1000
    assert (np.diff(decoded.readings[0].cell) >= 0).all()
    np.testing.assert_array_equal(decoded.readings[0].values, workload.values(0, 1000))


def test_the_meter_starts_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"wall": 0.0, "cpu": 100.0}
    monkeypatch.setattr("monitor.benchmark.child.time.perf_counter", lambda: now["wall"])
    monkeypatch.setattr("monitor.benchmark.child.cpu_s", lambda: now["cpu"])
    meter, warm = Meter(_request()), workload.WARM_UP
    assert not meter.committed(warm - 1, 0, warm - 1, NO_TIMES)
    now.update(wall=50.0, cpu=200.0)  # the cost of the warm-up is not measured
    assert not meter.committed(warm, 100, warm, NO_TIMES)
    now.update(wall=59.0, cpu=203.0)
    assert not meter.committed(warm + 500, 600, warm + 500, NO_TIMES)
    now.update(wall=60.0, cpu=204.0)
    assert meter.committed(warm + 1000, 1100, warm + 1000, NO_TIMES)
    found = meter.measurement()
    assert (found.readings, found.windows, found.wall_s, found.cpu_s) == (1000, 1000, 10.0, 4.0)


def test_delays_are_of_live_records_only() -> None:
    meter = Meter(_request(n_records=6, live_from=3))
    long_ago = np.zeros(4, np.int64)
    assert not meter.committed(4, 0, 4, long_ago)  # offsets 0..3
    assert meter.committed(6, 0, 6, long_ago[:2])  # 4 and 5: the end
    assert len(meter.measurement().delays_ms) == 3


def _summary(name: str, cpu: float) -> bench.CaseSummary:
    return bench.CaseSummary(name, "cpu", 1, 1, cpu, 1, None, None, None)


def test_ratios_are_against_the_baseline() -> None:
    compared = bench._with_ratios([_summary(bench.BASELINE_CASE, 400.0), _summary("conv-stride1", 20.0)])
    assert [case.cpu_ratio for case in compared] == [1.0, 20.0]
    assert bench._with_ratios([_summary("conv-stride1", 20.0)])[0].cpu_ratio is None


def test_a_plan_rejects_unknown_cases() -> None:
    names = {case.name for case in bench.make_plan().cases}
    assert names >= {"usual-script", "no-model-stride1", "no-model-stride8", "conv-stride1", "conv-stride8"}
    assert [case.name for case in bench.make_plan(["conv-stride8"]).cases] == ["conv-stride8"]
    with pytest.raises(MonitorError, match="conv-stride1"):
        bench.make_plan(["fast"])


class _TextMessage(NamedTuple):
    value: bytes
    timestamp: int = 0


async def test_the_script_scores_the_right_windows(tmp_path: Path) -> None:
    n_rounds = 6
    n = n_rounds * workload.N_ASSETS

    async def messages() -> AsyncIterator[_TextMessage]:
        for _, value in workload.records(0, n):
            yield _TextMessage(value)

    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 2

    seen = 0

    def on_reading(_message: baseline.Message, _has_scored: bool) -> bool:
        nonlocal seen
        seen += 1
        return seen == n

    eight = np.ones(8, np.float32)
    model = baseline.ScriptModel(Halves(), 0 * eight, 2 * eight, window=4, stride=2)
    await baseline.score_stream(messages(), model, tmp_path / "u.db", on_reading)
    with sqlite3.connect(tmp_path / "u.db") as db:
        rows = db.execute("SELECT asset, ts, score FROM scores ORDER BY ts, asset").fetchall()
    db.close()
    assert len(rows) == 2 * workload.N_ASSETS  # windows that end with rounds 4 and 6
    first = json.loads(next(iter(workload.records(0, 1)))[1])["asset_id"]
    window = workload.values(0, n)[:: workload.N_ASSETS][0:4]
    score = next(score for asset, _, score in rows if asset == first)
    assert score == pytest.approx(float(((window / 2 / 2) ** 2).mean()), rel=1e-4)
