"""One run: a scenario, replicas and faults, then no more faults until all records are processed.

Entry: `run(seed)`. Invariant: a run depends only on its seed and its mutation.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from monitor.errors import MonitorError, SourceUnavailable, StoreUnavailable, WrongState
from monitor.lifecycle import champions
from monitor.lifecycle.champions import Champions, until_answered
from monitor.lifecycle.training_process import Trained
from monitor.store import registry
from monitor.store.acts import MONITOR, Actor
from monitor.store.outbox import Channel
from monitor.stream import data_alerts, outcome, pipeline, reader, recovery, window
from monitor.stream import partition as partition_module
from monitor.stream.pipeline import Pipeline
from monitor.stream.score import BatchGate
from monitor.timing import DEFAULT_TIMING
from monitor.types import Contribution, ModelState, Reconstruction, Scores, Severity
from tests.simulation import fault_plan, scenario
from tests.simulation.broker import Broker, MemberSource
from tests.simulation.clockwork import Process, SimulatedClock, SimulatedLoop, Stuck
from tests.simulation.scenario import GROUP
from tests.simulation.store import Database, SimulatedStore
from tests.simulation.verify import expected_of, finding_of, score_of, verify

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from monitor.config import FleetConfig
    from monitor.stream.score import ActiveVersion
    from monitor.types import Int64, Partition, Windows
    from tests.simulation.mutations import Mutation

SESSION_S = 6.0
"""The group removes a member after so long without a heartbeat."""
SHORT_QUIET_US = {data_alerts.ASSET_LIMIT: 120_000_000, data_alerts.RECORDS_LOST: 1_000_000}
"""By kind of data alert, the quiet time of a run."""
RECOVERY_S = 400.0
"""Limit from the last fault to the last record."""


@dataclass
class Outcome:
    """The result of a seed."""

    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


def run(seed: int, mutation: Mutation | None = None) -> Outcome:
    """Run a seed and verify it."""
    simulation = Simulation(seed, mutation)
    simulation.run()
    simulation.database.close()
    return simulation.outcome


class _CountingLogger:
    """Logger that counts events, and notes those that must never occur."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def _count(self, event: str, **facts: Any) -> None:
        self._simulation.counts[event] += 1
        if self._simulation.trace is not None:
            self._simulation.trace(f"log: {event} {facts}")
        if event == "rebuild_differs":
            self._simulation.suspicions.append((str(facts["partition"]), f"digest: {facts}"))

    debug = info = warning = error = exception = _count


class SimulatedScorer:
    """A `Scorer` whose score is a function of the window and of the active version."""

    def __init__(self, simulation: Simulation, process: Process) -> None:
        self._simulation = simulation
        self._process = process
        self._held: set[str] = set()
        self._champions: dict[str, tuple[int, Sequence[ActiveVersion]]] = {}

    async def load(self, path: Path, version: str) -> Any:
        await self._process.pause(self._simulation.rng.random() * 0.05)
        return self._simulation.checkpoints[path.name]

    def keep(self, detector: Any) -> None:
        self._held.add(detector.version)

    def holds(self, version: str) -> bool:
        return version in self._held

    def detector(self, _version: str) -> None:
        """No version says how long its windows are: the configuration does."""

    async def skip_missing(self, activations: Sequence[ActiveVersion]) -> list[str]:
        return []

    def has_champion(self, fleet: str) -> bool:
        return bool(self._champions.get(fleet, (0, ()))[1])

    def seq_of(self, fleet: str) -> int | None:
        return self._champions[fleet][0] if fleet in self._champions else None

    def follow(self, fleet: str, seq: int, activations: Sequence[ActiveVersion]) -> None:
        self._champions[fleet] = seq, activations

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        seq, activations = self._champions[windows.fleet]  # of now: they may change during the pause below
        if not len(windows):
            return Scores(windows, np.empty(0, np.float32), (), {}, activation_seq=seq)
        await self._process.pause(self._simulation.rng.random() * 0.02)
        score = np.full(len(windows), np.nan, np.float32)
        version: list[str | None] = [None] * len(windows)
        for row, end in enumerate(end_us.tolist()):
            place = bisect_left(activations, end, key=lambda activation: activation.from_window_end_us)
            if place:
                version[row] = name = activations[place - 1].version
                total = float(np.nansum(windows.values[row].astype(np.float64)))
                score[row] = score_of(total, int(windows.start[row]), name)
        contributions: dict[int, tuple[Contribution, ...]] = {
            int(row): (Contribution(sensors[0], 1.0, 0.0, None),) for row in np.flatnonzero(score >= 1)
        }
        reason = None if all(version) else "no version"
        found = [[finding_of(start, sensor) for sensor in sensors] for start in windows.start.tolist()]
        findings = np.array(found, dtype=np.uint8)
        return Scores(windows, score, version, contributions, reason, seq, self._reconstruct, findings)

    async def _reconstruct(self, scores: Scores, rows: Int64, fired: Int64, sensors: Sequence[str]) -> Reconstruction:
        await self._process.pause(0.005)
        expected = expected_of(scores.windows.values[rows])
        expected[[scores.version[row] is None for row in rows.tolist()]] = np.nan
        return Reconstruction(expected, dict.fromkeys(fired.tolist(), (sensors[0],)))


class Replica:
    """A daemon that is started again when it ends."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        self.simulation = simulation
        self.number = number
        self.n_starts = 0
        self.process: Process
        self.source: MemberSource
        self.pipeline: Pipeline
        self.champions: Champions
        self.gate: BatchGate
        self.clock: SimulatedClock
        self.store: SimulatedStore
        self.is_up = False

    async def run(self) -> None:
        simulation = self.simulation
        while not simulation.is_over:
            task = self._start()
            death = asyncio.ensure_future(self.process.killed.wait())
            await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
            self.is_up = False
            if self.process.is_dead:
                simulation.counts["deaths"] += 1
                if simulation.trace is not None:
                    simulation.trace(f"{self.process.name}: killed")
                # The group notices it within a session, or at once if a static member comes back under its name.
                asyncio.get_running_loop().call_later(
                    simulation.rng.random() * SESSION_S, simulation.broker.leave, self.source
                )
            else:
                death.cancel()
                self._ended(task)
                simulation.broker.leave(self.source)
            await asyncio.sleep(0.05 + simulation.rng.random() * 3)
            self.n_starts += 1

    def _start(self) -> asyncio.Task[None]:
        simulation = self.simulation
        process = self.process = Process(f"replica-{self.number}.{self.n_starts}")
        self.source = simulation.make_source(process)
        self.store = simulation.make_store(
            simulation.database, process, simulation.rng, simulation.fault_plan, simulation.freeze
        )
        scorer: Any = SimulatedScorer(simulation, process)
        clock = self.clock = SimulatedClock(process, simulation.rng, simulation.fault_plan.jumps)
        config = simulation.scenario.config
        store: Any = self.store
        timing = replace(
            DEFAULT_TIMING,
            activations_every_s=simulation.activations_every_s,
            rewind_look_every_s=simulation.rewind_look_every_s,
        )
        self.gate = BatchGate()
        self.champions = Champions(config, store, scorer, clock, gate=self.gate, timing=timing)
        self.pipeline = Pipeline(
            config,
            self.source,
            store,
            scorer,
            owner=process.name,
            clock=clock,
            channels=simulation.channels,
            reload_models=self.champions.refresh,
            gate=self.gate,
            timing=timing,
        )
        self.is_up = True
        return asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        """Do as the daemon: load the models, join the group, and follow activations beside the pipeline."""
        await until_answered(self.champions.load, self.clock, DEFAULT_TIMING)
        self.simulation.broker.join(self.source)
        follower = asyncio.ensure_future(self.champions.loop())
        try:
            await self.pipeline.run()
        finally:
            follower.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        simulation = self.simulation
        error = task.exception()
        if error is None:
            simulation.counts["stops"] += 1
        elif isinstance(error, StoreUnavailable | SourceUnavailable) and self.pipeline._stopping.is_set():
            simulation.counts["stopped in an outage"] += 1
        else:
            where = ", ".join(map(str, self.pipeline.partitions)) or "no partition"
            simulation.suspicions.append((where, f"{type(error).__name__}: {error}"))
            if simulation.counts["crashed"] >= 3:
                simulation.give_up.set()
            simulation.counts["crashed"] += 1


class Simulation:
    """One run, with all that the seed decides."""

    def __init__(self, seed: int, mutation: Mutation | None = None, *, has_faults: bool = True) -> None:
        self.rng = Random(f"simulation/{seed}")
        self.mutation = mutation
        self.outcome = Outcome(seed)
        self.counts = self.outcome.counts
        self.suspicions: list[tuple[str, str]] = []
        """(partitions, problem). Ignored where retention removed records that a rebuild needed."""
        self.scenario = scenario.draw(self.rng)
        self.fault_plan = fault_plan.draw(self.rng)
        self.has_faults = has_faults
        """False for a run with one replica and no faults."""
        if not has_faults:
            self.fault_plan = fault_plan.FaultPlan(max_records=50)
        self.database = Database()
        self.broker: Broker
        self.replicas: list[Replica] = []
        self.is_over = False
        self.give_up: asyncio.Event
        self.trace: Callable[[str], None] | None = None
        self.make_store: type[SimulatedStore] = SimulatedStore
        self.channels = self.rng.choice([[], [Channel("all")], [Channel("all"), Channel("boss", Severity.CRITICAL)]])
        self.thinning = self.rng.choice([None, None, (1, 2)])
        """Quarantined rows by partition and word: (first rows, then one in so many). None = the real limits."""
        self.activations_every_s = DEFAULT_TIMING.activations_every_s
        self.rewind_look_every_s = DEFAULT_TIMING.rewind_look_every_s
        self.checkpoints: dict[str, Any] = {}
        """By version, the detector that a scorer loads."""
        self._n_versions = 0
        self._n_acts = 0
        self._activations: set[asyncio.Task[None]] = set()
        if mutation is not None:
            mutation.change(self)

    def without_faults(self) -> Simulation:
        """Run the same scenario without faults."""
        simulation = Simulation(self.outcome.seed, has_faults=False)
        simulation.run()
        self.outcome.violations += simulation.outcome.violations
        return simulation

    # ------------------------------------------------------------------ the run

    def run(self, trace: Callable[[str], None] | None = None) -> None:
        """Run and verify. `trace` receives a line for each event."""
        with self._small_limits():
            loop = SimulatedLoop()
            if trace is not None:
                self.database.trace = self.trace = lambda text: trace(f"{loop.time():9.3f} {text}")
            try:
                loop.run(self._main())
            except Stuck as error:
                self.outcome.violations.append(f"stuck: {error}")
        self.counts += self.database.counts + self.broker.counts
        self.outcome.counts = self.counts
        self.outcome.violations += verify(self)

    async def _main(self) -> None:
        rng = self.rng
        self.give_up = asyncio.Event()
        self.broker = Broker(self.scenario.logs, rng, self.fault_plan)
        self.broker.trace = self.trace
        if rng.random() < 0.85:
            for fleet in self.scenario.config.fleets:
                self._activate_at_once(fleet)
        self.replicas = [Replica(self, number) for number in range(rng.choice([1, 2, 2, 3]) if self.has_faults else 1)]
        replicas = [asyncio.ensure_future(replica.run()) for replica in self.replicas]
        until_s = rng.uniform(8, 35) if self.has_faults else 0.1
        faults = [asyncio.ensure_future(fault) for fault in self._faults(until_s)]
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(until_s))])
        for fault in faults:
            fault.cancel()
        self.fault_plan.end_faults()
        await self._recover()
        self.is_over = True
        for replica in self.replicas:
            if replica.is_up:
                replica.pipeline.stop()
        _, late = await asyncio.wait(replicas, timeout=60)
        if late and not self.give_up.is_set():
            self.outcome.violations.append(f"stuck: {len(late)} replicas did not stop")

    async def _recover(self) -> None:
        """Wait until all records are processed."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for partition, log in self.broker.logs.items():
            self.broker.write(partition, len(log.records))
        is_settled = False
        while not self._is_all_processed() and not self.give_up.is_set():
            await asyncio.sleep(1.0)
            if not is_settled and loop.time() - began_s > 30:
                is_settled = True  # all suspended and killed replicas are back
                self.broker.rebalance()
            if loop.time() - began_s > RECOVERY_S:
                positions = {str(p): self.database.position(GROUP, p) for p in self.broker.logs}
                self.outcome.violations.append(f"stuck: unprocessed records: {positions}")
                return
        self.counts["recovered after s"] += round(loop.time() - began_s)

    def _is_all_processed(self) -> bool:
        for partition, log in self.broker.logs.items():
            row = self.database.position(GROUP, partition)
            if row is None or row.next_offset != log.end:
                return False
        return True

    # ------------------------------------------------------------------ faults

    def _faults(self, until_s: float) -> Iterator[Any]:
        plan = self.fault_plan
        for partition, log in self.broker.logs.items():
            yield self._writes(partition, len(log.records), until_s * self.rng.uniform(0.1, 0.9))
        yield self._every(plan.rebalance_s, self._rebalances)
        yield self._every(plan.death_s, self._kill)
        yield self._every(plan.freeze_s, self._freeze_one)
        yield self._every(plan.stop_s, self._stop_one)
        yield self._every(plan.outage_s, self._outage)
        yield self._every(plan.retention_s, self._retention)
        yield self._every(plan.activation_s, self._activation)

    async def _every(self, mean_s: float, fault: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0, 2 * mean_s))
            await fault()

    async def _writes(self, partition: Partition, n_records: int, during_s: float) -> None:
        """Write the log: a part at the start, the rest in steps."""
        self.broker.write(partition, self.rng.randint(0, n_records))
        n_left = n_records - self.broker.logs[partition].n_written
        n_steps = self.rng.randint(1, 6)
        for _ in range(n_steps):
            await asyncio.sleep(during_s / n_steps)
            self.broker.write(partition, -(-n_left // n_steps))

    async def _rebalances(self) -> None:
        for _ in range(self.rng.choice([1, 1, 1, 5])):
            self.broker.rebalance()
            await asyncio.sleep(self.rng.random())

    async def _kill(self) -> None:
        replica = self.rng.choice(self.replicas)
        if replica.is_up:
            replica.process.die()

    async def _freeze_one(self) -> None:
        replica = self.rng.choice(self.replicas)
        if replica.is_up:
            self.freeze(replica.process)

    def freeze(self, process: Process) -> None:
        """Suspend a process. If it takes longer than a session, it resumes as a zombie, outside the group."""
        seconds = self.rng.choice([0.5, 3.0, 20.0]) * (0.5 + self.rng.random())
        process.freeze(seconds)
        self.counts["freezes"] += 1
        if self.trace is not None:
            self.trace(f"{process.name}: suspended for {seconds:.1f} s")
        if seconds > SESSION_S:
            asyncio.get_running_loop().call_later(SESSION_S, self._expire, process)

    def _expire(self, process: Process) -> None:
        replica = next((each for each in self.replicas if each.is_up and each.process is process), None)
        if replica is None or not process.is_frozen or replica.source not in self.broker.members:
            return
        self.counts["zombies"] += 1
        source = replica.source
        self.broker.leave(source)
        loop = asyncio.get_running_loop()

        def rejoin() -> None:
            if replica.is_up and replica.source is source and source not in self.broker.members:
                self.broker.join(source)

        loop.call_at(process.thaws_at + self.rng.random() * 3, rejoin)

    async def _stop_one(self) -> None:
        replica = self.rng.choice(self.replicas)
        if replica.is_up:
            replica.pipeline.stop()

    async def _outage(self) -> None:
        self.counts["outages"] += 1
        self.fault_plan.is_database_down = True
        await asyncio.sleep(self.rng.random() * 8)
        self.fault_plan.is_database_down = False

    async def _retention(self) -> None:
        """Remove records that no rebuild needs, and sometimes others."""
        partition = self.rng.choice(list(self.broker.logs))
        log = self.broker.logs[partition]
        row = self.database.position(GROUP, partition)
        if self.rng.random() < self.fault_plan.overtakes:
            self.broker.remove_before(partition, self.rng.randint(log.first_kept, log.end))
            self.counts["overtaken"] += 1
        elif row is not None and row.rewind_offset is not None:
            self.broker.remove_before(partition, row.rewind_offset)

    async def _activation(self) -> None:
        """Activate a new champion, which some replica trained. Or let an operator decide in another process."""
        fleet = self.rng.choice(self.scenario.config.fleets)
        if self.rng.random() < 0.5:
            for _ in range(self.rng.randint(2, 8)):
                self._operator(fleet.name)
                await asyncio.sleep(self.rng.random() * 0.3)
            return
        replica = self.rng.choice(self.replicas)
        if not replica.is_up or not replica.gate.is_running:
            return
        self.counts["activations"] += 1
        process, trained = replica.process, self._train(fleet)

        async def activate() -> None:
            try:
                await replica.champions.activate(fleet, trained, None)
            except MonitorError as error:
                self.suspicions.append((process.name, f"activation: {error!r}"))

        task = asyncio.ensure_future(activate())
        self._activations.add(task)
        task.add_done_callback(self._activations.discard)

    def _operator(self, fleet: str) -> None:
        """Promote, roll back, or publish what the gate judged. The promotion of a rejected version is refused."""
        known = self.database.rows("SELECT version, state FROM model_version WHERE fleet = ?", fleet)
        if not known:
            return
        self._n_acts += 1
        acted: dict[str, Any] = {"actor": Actor("eva", "cli"), "at_us": self._n_acts}
        choice = self.rng.choice(["promote", "promote", "roll back", "roll back", "publish"])
        if choice == "publish":
            self._publish(fleet, acted)
            return
        version, state = self.rng.choice(known)
        try:
            if choice == "roll back":
                self.database.transact(registry.roll_back, fleet, **acted)
                self.counts["roll-backs"] += 1
            else:
                self.database.transact(registry.promote, fleet, version, **acted)
                self.counts["promotions"] += state != "champion"
        except WrongState:
            self.counts["refused promotions"] += state == "rejected"

    def _publish(self, fleet: str, acted: dict[str, Any]) -> None:
        """Publish a version that the gate judged."""
        trained = self._train(next(each for each in self.scenario.config.fleets if each.name == fleet))
        state = self.rng.choice([ModelState.REJECTED, ModelState.REJECTED, ModelState.CANDIDATE, ModelState.SHADOW])
        verdict = {"passed": state != ModelState.REJECTED, "why": "drawn"}
        facts: dict[str, Any] = {"path": trained.path, "trained_us": 0, "card": {}, "metrics": {}}
        call = {"version": trained.version, "fleet": fleet, "state": state, "verdict": verdict, **facts, **acted}
        self.database.transact(registry.publish, **call)

    def _train(self, fleet: FleetConfig) -> Trained:
        self._n_versions += 1
        version = f"{fleet.name}-{self._n_versions}"
        stored = self.database.rows("SELECT sensors FROM fleet WHERE name = ? AND sensors IS NOT NULL", fleet.name)
        learnt = tuple(json.loads(stored[0].sensors)) if stored else None
        sensors = fleet.sensors or learnt or self.scenario.rules.fleet(fleet.name).sensors
        card = SimpleNamespace(length=fleet.length, sensors=sensors)
        inputs = SimpleNamespace(taken=sensors)
        self.checkpoints[version] = SimpleNamespace(version=version, card=card, inputs=inputs, sensors=sensors)
        return Trained(version, version, sensors, {"metrics": {}})

    def _activate_at_once(self, fleet: FleetConfig) -> None:
        trained = self._train(fleet)
        facts: dict[str, Any] = {"path": trained.path, "trained_us": 0, "card": {}, "metrics": {}}
        acted: dict[str, Any] = {"actor": MONITOR, "at_us": self._n_versions}
        new = {"version": trained.version, "fleet": fleet.name, **facts, **acted}
        self.database.transact(registry.publish_and_promote, **new)

    # ------------------------------------------------------------------ parts

    def make_source(self, process: Process) -> MemberSource:
        return MemberSource(self.broker, process)

    @contextlib.contextmanager
    def _small_limits(self) -> Iterator[None]:
        """Set limits so small that a run of some hundred records reaches all of them."""
        rng, logger = self.rng, _CountingLogger(self)
        random.seed(rng.random())  # code that draws random numbers must depend on the seed
        limits = {
            (pipeline, "log"): logger,
            (partition_module, "log"): logger,
            (recovery, "log"): logger,
            (reader, "log"): logger,
            (data_alerts, "log"): logger,
            (champions, "log"): logger,
            (self, "activations_every_s"): rng.choice([2.0, 40.0]),
            (window, "SLICE"): rng.choice([7, 8192, 8192]),
            (self, "rewind_look_every_s"): rng.choice([0.0, 0.5, 2.0]),
            (recovery, "MAX_MARKS"): rng.choice([2, 5, 1024]),
            (recovery, "SILENT_AFTER"): rng.choice([5, 30, 50_000]),
            (recovery, "ROUNDS"): rng.choice([1, 4]),
            (outcome, "ROWS_KEPT"): self.thinning[0] if self.thinning else outcome.ROWS_KEPT,
            # The same in all runs, so that a run without faults is comparable.
            (data_alerts, "KINDS"): {
                name: kind._replace(quiet_us=SHORT_QUIET_US.get(name, kind.quiet_us))
                for name, kind in data_alerts.KINDS.items()
            },
            (outcome, "ROWS_SAMPLED"): self.thinning[1] if self.thinning else outcome.ROWS_SAMPLED,
        }
        with contextlib.ExitStack() as stack:
            for (module, name), value in limits.items():
                stack.enter_context(mock.patch.object(module, name, value))
            if self.mutation is not None:
                stack.enter_context(self.mutation.patched())
            yield
