"""The process of one benchmark case, so that memory and CPU time are those of the case alone.

Input: `CaseRequest`s on standard input, one JSON line each. Output: a `CaseMeasurement` for each on standard output.
Invariant: the clock starts and stops while records are processed, so start-up is never measured. Between two requests
the process sleeps.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import torch
from aiokafka import AIOKafkaConsumer, TopicPartition

from monitor import logs
from monitor.benchmark import baseline, workload
from monitor.clock import SystemClock
from monitor.kafka import Assigned, Source
from monitor.kafka.bounded_consumer import BoundedConsumer
from monitor.kafka.client import consumer_settings, stop
from monitor.kafka.consumer_group import KafkaSource
from monitor.kafka.memory import MemorySource
from monitor.models.detector import TrainedModel
from monitor.store import versions
from monitor.store.engine import AsyncStore
from monitor.store.versions import FOREVER_AGO_US
from monitor.stream.hooks import PipelineHooks
from monitor.stream.pipeline import Pipeline
from monitor.stream.score import ActiveVersion, DetectorScorer
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from monitor.config import Config
    from monitor.store.commit import Commit
    from monitor.stream.partition import PartitionState
    from monitor.types import Int64, RecordBatch

WARM_UP_S = 0.5
"""Delays of this first time are not used: the pipeline starts up."""


class CaseRequest(msgspec.Struct, frozen=True):
    """One measurement to make."""

    is_baseline: bool
    """Measure the baseline script instead of the pipeline."""
    stride: int
    architecture: str
    """conv or lstm. Empty = no model."""
    device: str
    checkpoint: str
    """Folder of the trained detector. Empty = no model."""
    bootstrap: str
    """Empty = the records come from memory."""
    topic: str
    n_records: int
    """Records in the complete topic."""
    seconds: float
    """Duration of the measurement, unless the records end before."""
    live_from: int = -1
    """Measure the delay of the records from this offset on, which are sent meanwhile. -1 = measure throughput."""


class CaseMeasurement(msgspec.Struct, frozen=True):
    """Figures of one request."""

    readings: int = 0
    windows: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    rss_mb: float = 0.0
    """Peak memory of this process."""
    delays_ms: list[float] = []
    """Time from the producer's `send` to our commit, for each record sent live."""


class _MeterSample(NamedTuple):
    at_s: float
    cpu_s: float
    readings: int
    windows: int


class Meter:
    """Reads the clocks at each commit, from the end of the warm-up until the requested time is over."""

    def __init__(self, request: CaseRequest) -> None:
        self._request = request
        self._first: _MeterSample | None = None
        self._last: _MeterSample | None = None
        self._delays: list[Int64] = []

    def committed(self, readings: int, windows: int, next_offset: int, sent_us: Int64) -> bool:
        """Record a commit and return whether the measurement is complete.

        `readings` and `windows` are totals since the start. `sent_us` is [N], the send times of the records just
        committed.
        """
        request = self._request
        if request.live_from >= 0:
            is_live = np.arange(next_offset - len(sent_us), next_offset) >= request.live_from
            self._delays.append(time.time_ns() // 1000 - sent_us[is_live])
        elif self._first is None:
            if readings >= workload.WARM_UP:
                self._first = self._sample(readings, windows)
        else:
            self._last = self._sample(readings, windows)
            if self._last.at_s - self._first.at_s >= request.seconds:
                return True
        return next_offset >= request.n_records

    def _sample(self, readings: int, windows: int) -> _MeterSample:
        return _MeterSample(time.perf_counter(), cpu_s(), readings, windows)

    def measurement(self) -> CaseMeasurement:
        """Return the figures between the first and the last sample."""
        delays = np.concatenate(self._delays) if self._delays else np.empty(0)
        if self._first is None or self._last is None:
            return CaseMeasurement(rss_mb=rss_mb(), delays_ms=np.round(delays / 1000, 2).tolist())
        first, last = self._first, self._last
        return CaseMeasurement(
            readings=last.readings - first.readings,
            windows=last.windows - first.windows,
            wall_s=last.at_s - first.at_s,
            cpu_s=last.cpu_s - first.cpu_s,
            rss_mb=rss_mb(),
        )


# ---------------------------------------------------------------- the pipeline


class _MeterHooks(PipelineHooks):
    """Reads the meter at each commit."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_commit(self, state: PartitionState, commit: Commit, batch: RecordBatch) -> bool:  # noqa: ARG002
        """Read the meter. Return whether it needs more records."""
        done = commit.counters
        return not self._meter.committed(done.readings, done.windows, commit.new_next, batch.timestamps_us)


class _LoneConsumer(KafkaSource):
    """The daemon's source without a consumer group: to join one takes seconds, and has no cost afterwards."""

    def __init__(self, config: Config, partition: Partition) -> None:
        super().__init__(config.kafka, [partition.topic])
        self._partition = partition

    async def start(self) -> None:
        """Take the partition."""
        consumer = BoundedConsumer(**consumer_settings(self._config))
        await consumer.start()
        key = TopicPartition(*self._partition)
        consumer.assign([key])
        consumer.pause(key)
        self._events.append(Assigned((self._partition,)))
        self._consumer = consumer

    def commit_lag(self, offsets: dict[Partition, int]) -> None:
        """Do nothing: there is no consumer group to commit to."""


async def run_pipeline(request: CaseRequest, folder: Path) -> CaseMeasurement:
    """Measure the product's own pipeline, writing to a new database."""
    partition = Partition(request.topic, 0)
    architecture = request.architecture or "conv"
    config = workload.configuration(
        request.bootstrap, request.topic, folder, stride=request.stride, architecture=architecture
    )
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(AsyncStore(config.store.url, owner=True))
        scorer = DetectorScorer(request.device)
        stack.callback(scorer.close)
        if request.checkpoint:
            await _activate(store, scorer, Path(request.checkpoint))
        source: Source
        if request.bootstrap:
            source = _LoneConsumer(config, partition)
        else:
            source = MemorySource(list(workload.batches(partition, request.n_records)), [partition])
        stack.push_async_callback(source.close)
        meter = Meter(request)
        hooks = _MeterHooks(meter)
        pipeline = Pipeline(config, source, store, scorer, owner="bench", clock=SystemClock(), hooks=hooks)
        gc.collect()
        gc.freeze()  # as the daemon does
        await pipeline.run()
        return meter.measurement()


async def _activate(store: AsyncStore, scorer: DetectorScorer, path: Path) -> None:
    detector = await scorer.load(path, path.name)
    await store.run(
        versions.publish,
        version=detector.version,
        fleet=detector.card.fleet,
        path=str(path),
        trained_us=0,
        card={},
        metrics={},
    )
    scorer.activate(detector.card.fleet, ActiveVersion(FOREVER_AGO_US, detector.version, path), detector)


# ---------------------------------------------------------------- the baseline script


async def run_baseline(request: CaseRequest, folder: Path) -> CaseMeasurement:
    """Measure the baseline script with the weights of the pipeline's model."""
    detector = TrainedModel.load(Path(request.checkpoint))
    scales = detector.scaler.sensors
    model = baseline.ScriptModel(
        detector.network.eval(),
        mean=np.array([sensor.centre for sensor in scales], np.float32),
        std=np.array([sensor.scale for sensor in scales], np.float32),
        window=workload.WINDOW,
        stride=request.stride,
    )
    meter = Meter(request)
    readings = windows = 0

    def on_reading(message: baseline.Message, has_scored: bool) -> bool:
        nonlocal readings, windows
        readings += 1
        windows += has_scored
        # Reading the clocks after each reading would add to the script's cost.
        if request.live_from < 0 and readings % 256 and readings < request.n_records:
            return False
        return meter.committed(readings, windows, readings, np.array([message.timestamp * 1000]))

    messages: AsyncIterator[baseline.Message]
    consumer = None
    if request.bootstrap:
        consumer = AIOKafkaConsumer(request.topic, bootstrap_servers=request.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        messages = consumer
    else:
        messages = _messages_from_memory(request)
    try:
        await baseline.score_stream(messages, model, folder / "baseline.db", on_reading)
    finally:
        if consumer is not None:
            await stop(consumer)
    return meter.measurement()


class _MemoryMessage(NamedTuple):
    value: bytes
    timestamp: int = 0


async def _messages_from_memory(request: CaseRequest) -> AsyncIterator[_MemoryMessage]:
    for batch in workload.batches(Partition(request.topic, 0), request.n_records):
        for value in batch.values:
            yield _MemoryMessage(value or b"")


# ---------------------------------------------------------------- the process


def cpu_s() -> float:
    """Return the CPU time of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_mb() -> float:
    """Return the peak memory of this process. On Linux, `ru_maxrss` would include the parent's peak."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main() -> None:
    """Report readiness, then serve requests until standard input ends."""
    torch.set_num_threads(1)
    logs.configure("error")
    print('{"ready": true}', flush=True)  # noqa: T201 - the protocol with the parent process
    for line in sys.stdin.buffer:
        request = msgspec.json.decode(line, type=CaseRequest)
        with tempfile.TemporaryDirectory(prefix="monitor-bench-") as folder:
            run = run_baseline if request.is_baseline else run_pipeline
            measurement = asyncio.run(run(request, Path(folder)))
        sys.stdout.buffer.write(msgspec.json.encode(measurement) + b"\n")
        sys.stdout.buffer.flush()
    os._exit(0)  # do not wait for the threads of torch and of the store


if __name__ == "__main__":
    main()
