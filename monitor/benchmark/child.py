"""One case of the bench, in a process of its own, so that its memory and its CPU time are its own.

Orders enter on standard input, a JSON line each; figures leave on standard output, a JSON line for each order.
Law: the clock starts and stops while records flow, never around a start-up; between two orders the process sleeps.
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
from monitor.models.detector import Detector
from monitor.store import versions
from monitor.store.engine import AsyncStore
from monitor.store.versions import FOREVER_AGO_US
from monitor.stream.pipeline import Pipeline
from monitor.stream.score import Activation, DetectorScorer
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from monitor.config import Config
    from monitor.stream.outcome import Step
    from monitor.stream.shard import PartitionState
    from monitor.types import Int64

SETTLED_S = 0.5
"""Of a latency measurement: what the first half second says is not used."""


class Order(msgspec.Struct, frozen=True):
    """What to measure."""

    is_usual: bool
    """The usual script instead of the river."""
    stride: int
    architecture: str
    """conv or lstm; empty = no model."""
    device: str
    checkpoint: str
    """Folder of the trained detector; empty = no model."""
    bootstrap: str
    """Empty = the records are made in memory."""
    topic: str
    n_records: int
    """In the topic when it is complete."""
    seconds: float
    """How long to measure, unless the records end before."""
    live_from: int = -1
    """Records from this offset on are sent while we watch: measure their delay. -1 = measure throughput."""


class Figures(msgspec.Struct, frozen=True):
    """What was measured, of one order."""

    readings: int = 0
    windows: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    rss_mb: float = 0.0
    """The most this process ever held."""
    delays_ms: list[float] = []
    """From the producer's `send` to our commit, of each record sent live."""


class _Mark(NamedTuple):
    at_s: float
    cpu_s: float
    readings: int
    windows: int


class Meter:
    """Reads the clocks as records are committed: from the end of the warm-up until the time is up."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._first: _Mark | None = None
        self._last: _Mark | None = None
        self._delays: list[Int64] = []

    def committed(self, readings: int, windows: int, next_offset: int, sent_us: Int64) -> bool:
        """Note that so much is done since the start; True = enough. `sent_us`: [N], of the records just committed."""
        order = self._order
        if order.live_from >= 0:
            is_live = np.arange(next_offset - len(sent_us), next_offset) >= order.live_from
            self._delays.append(time.time_ns() // 1000 - sent_us[is_live])
        elif self._first is None:
            if readings >= workload.WARM_UP:
                self._first = self._mark(readings, windows)
        else:
            self._last = self._mark(readings, windows)
            if self._last.at_s - self._first.at_s >= order.seconds:
                return True
        return next_offset >= order.n_records

    def _mark(self, readings: int, windows: int) -> _Mark:
        return _Mark(time.perf_counter(), cpu_s(), readings, windows)

    def figures(self) -> Figures:
        """What came of it."""
        delays = np.concatenate(self._delays) if self._delays else np.empty(0)
        if self._first is None or self._last is None:
            return Figures(rss_mb=rss_mb(), delays_ms=np.round(delays / 1000, 2).tolist())
        first, last = self._first, self._last
        return Figures(
            readings=last.readings - first.readings,
            windows=last.windows - first.windows,
            wall_s=last.at_s - first.at_s,
            cpu_s=last.cpu_s - first.cpu_s,
            rss_mb=rss_mb(),
        )


# ---------------------------------------------------------------- the river


class _MeteredPipeline(Pipeline):
    meter: Meter

    async def _save(self, state: PartitionState, step: Step) -> None:
        await super()._save(state, step)
        done = state.counters
        if self.meter.committed(done.readings, done.windows, state.next_offset, step.batch.timestamps_us):
            self.stop()


class _LoneConsumer(KafkaSource):
    """The daemon's source without the group: joining one takes seconds, and costs nothing once it is done."""

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
        """Without a group there is nobody to tell."""


async def river(order: Order, folder: Path) -> Figures:
    """Run the product's own pipeline, into a new database."""
    partition = Partition(order.topic, 0)
    architecture = order.architecture or "conv"
    config = workload.configuration(
        order.bootstrap, order.topic, folder, stride=order.stride, architecture=architecture
    )
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(AsyncStore(config.store.url, owner=True))
        scorer = DetectorScorer(order.device)
        stack.callback(scorer.close)
        if order.checkpoint:
            await _activate(store, scorer, Path(order.checkpoint))
        source: Source
        if order.bootstrap:
            source = _LoneConsumer(config, partition)
        else:
            source = MemorySource(list(workload.batches(partition, order.n_records)), [partition])
        stack.push_async_callback(source.close)
        pipeline = _MeteredPipeline(config, source, store, scorer, owner="bench", clock=SystemClock())
        pipeline.meter = Meter(order)
        gc.collect()
        gc.freeze()  # as the daemon does
        await pipeline.run()
        return pipeline.meter.figures()


async def _activate(store: AsyncStore, scorer: DetectorScorer, path: Path) -> None:
    detector = await scorer.load(path)
    await store.run(
        versions.publish,
        version=detector.version,
        fleet=detector.card.fleet,
        path=str(path),
        trained_us=0,
        card={},
        metrics={},
    )
    scorer.activate(detector.card.fleet, Activation(FOREVER_AGO_US, detector.version, path), detector)


# ---------------------------------------------------------------- the usual script


async def usual_script(order: Order, folder: Path) -> Figures:
    """Run the usual script with the river's weights."""
    detector = Detector.load(Path(order.checkpoint))
    model, scales = detector.network, detector.scaler.sensors
    meter = Meter(order)
    readings = windows = 0

    def on_reading(message: baseline.Message, has_scored: bool) -> bool:
        nonlocal readings, windows
        readings += 1
        windows += has_scored
        # Asking the clocks after each reading would be a cost of ours.
        if order.live_from < 0 and readings % 256 and readings < order.n_records:
            return False
        return meter.committed(readings, windows, readings, np.array([message.timestamp * 1000]))

    messages: AsyncIterator[baseline.Message]
    consumer = None
    if order.bootstrap:
        consumer = AIOKafkaConsumer(order.topic, bootstrap_servers=order.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        messages = consumer
    else:
        messages = _in_memory(order)
    try:
        await baseline.watch(
            messages,
            model.eval(),
            mean=np.array([sensor.centre for sensor in scales], np.float32),
            std=np.array([sensor.scale for sensor in scales], np.float32),
            database=folder / "usual.db",
            window=workload.WINDOW,
            stride=order.stride,
            on_reading=on_reading,
        )
    finally:
        if consumer is not None:
            await stop(consumer)
    return meter.figures()


class _Message(NamedTuple):
    value: bytes
    timestamp: int = 0


async def _in_memory(order: Order) -> AsyncIterator[_Message]:
    for batch in workload.batches(Partition(order.topic, 0), order.n_records):
        for value in batch.values:
            yield _Message(value or b"")


# ---------------------------------------------------------------- the process


def cpu_s() -> float:
    """CPU time of all threads of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_mb() -> float:
    """The most memory this process ever held. (Its `ru_maxrss` would begin with its parent's.)"""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main() -> None:
    """Say that we are ready, then follow orders until there are no more."""
    torch.set_num_threads(1)
    logs.configure("error")
    print('{"ready": true}', flush=True)  # noqa: T201  (the answer to our parent)
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        with tempfile.TemporaryDirectory(prefix="monitor-bench-") as folder:
            work = usual_script if order.is_usual else river
            figures = asyncio.run(work(order, Path(folder)))
        sys.stdout.buffer.write(msgspec.json.encode(figures) + b"\n")
        sys.stdout.buffer.flush()
    os._exit(0)  # threads of torch and of the store have nothing left to say


if __name__ == "__main__":
    main()
