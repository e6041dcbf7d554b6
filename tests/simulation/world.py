"""One run: a plant, a weather, replicas and what befalls them; afterwards calm, until everything is read, or never.

`run(seed)` is the door. What a run depends on is its seed and the mutation it is given, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from monitor.errors import SourceUnavailable, StoreUnavailable
from monitor.store import scores, versions
from monitor.store.outbox import Channel
from monitor.stream import lane, rebuild, rewind, save
from monitor.stream import pipeline as river
from monitor.stream.pipeline import Pipeline
from monitor.types import Blame, Scores, Severity
from tests.simulation import plant, weather
from tests.simulation.broker import Broker, MemberSource
from tests.simulation.clockwork import Process, SimulatedClock, SimulatedLoop, Stuck
from tests.simulation.database import Database, SimulatedStore
from tests.simulation.judge import judge, score_of
from tests.simulation.plant import GROUP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from monitor.types import Int64, Partition, Windows
    from tests.simulation.mutations import Mutation

SESSION_S = 6.0
"""A member that is not heard for so long is put out of the group."""
CALM_S = 400.0
"""Longest time from the last fault to the last record."""
FOREVER_AGO_US = -(1 << 62)


@dataclass
class Outcome:
    """What came of a seed."""

    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


def run(seed: int, mutation: Mutation | None = None) -> Outcome:
    """Live through a seed, and judge it."""
    world = World(seed, mutation)
    world.live()
    return world.outcome


class _Tally:
    """Stands in for a logger: counts what is said, keeps what must never be said."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _say(self, event: str, **facts: Any) -> None:
        self._world.counts[event] += 1
        if self._world.database.tell is not None:
            self._world.database.tell(f"log: {event} {facts}")
        if event == "rebuild_differs":
            self._world.suspicions.append((str(facts["partition"]), f"digest: {facts}"))

    debug = info = warning = error = exception = _say


class SimulatedScorer:
    """Scores by what is in a window and which version decides; knows the activations it was told. A `Scorer`."""

    def __init__(self, process: Process, rng: Random) -> None:
        self._process = process
        self._rng = rng
        self.seqs: dict[str, int] = {}
        self.activations: dict[str, list[versions.Activation]] = {}

    async def load(self, store: SimulatedStore, fleets: Sequence[str]) -> None:
        """Ask the database who decides. The number first: an activation in between only makes us ask again."""
        seqs = await store.read(versions.seqs)
        for fleet in fleets:
            self.activations[fleet] = await store.read(versions.activations, fleet)
        self.seqs = {fleet: seqs.get(fleet, 0) for fleet in fleets}

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        fleet = windows.fleet
        seq, activations = self.seqs[fleet], self.activations[fleet]
        if not len(windows):
            return Scores(windows, np.empty(0, np.float32), (), {}, activation_seq=seq)
        await self._process.pause(self._rng.random() * 0.02)
        score = np.full(len(windows), np.nan, np.float32)
        version: list[str | None] = [None] * len(windows)
        for row, end in enumerate(end_us.tolist()):
            place = bisect_left(activations, (end, ""))
            if place:
                version[row] = name = activations[place - 1].version
                total = float(np.nansum(windows.values[row].astype(np.float64)))
                score[row] = score_of(total, int(windows.start[row]), name)
        blame: dict[int, tuple[Blame, ...]] = {
            int(row): (Blame(sensors[0], 1.0, 0.0, None),) for row in np.flatnonzero(score >= 1)
        }
        return Scores(windows, score, version, blame, None if all(version) else "no version", activation_seq=seq)


class Replica:
    """A daemon that is started again whenever it ends."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.life = 0
        self.process: Process
        self.source: MemberSource
        self.pipeline: Pipeline
        self.scorer: SimulatedScorer
        self.store: SimulatedStore
        self.is_up = False

    async def live(self) -> None:
        world = self.world
        while not world.is_over:
            task = self._start()
            death = asyncio.ensure_future(self.process.died.wait())
            await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
            self.is_up = False
            if self.process.is_dead:
                world.counts["deaths"] += 1
                if world.tell is not None:
                    world.tell(f"{self.process.name}: killed")
                # Sooner or later the group hears of it: a static member comes back under its own name at once.
                asyncio.get_running_loop().call_later(world.rng.random() * SESSION_S, world.broker.leave, self.source)
            else:
                death.cancel()
                self._ended(task)
                world.broker.leave(self.source)
            await asyncio.sleep(0.05 + world.rng.random() * 3)
            self.life += 1

    def _start(self) -> asyncio.Task[None]:
        world = self.world
        process = self.process = Process(f"replica-{self.number}.{self.life}")
        self.source = world.make_source(process)
        self.store = world.make_store(world.database, process, world.rng, world.weather, world.freeze)
        self.scorer = SimulatedScorer(process, world.rng)
        clock = SimulatedClock(process, world.rng, world.weather.jumps)
        config = world.plant.config
        store: Any = self.store
        self.pipeline = Pipeline(config, self.source, store, self.scorer, owner=process.name, clock=clock)
        self.pipeline.reload_models = self._load
        self.pipeline.channels = world.channels
        self.is_up = True
        return asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        await self._load()
        self.world.broker.join(self.source)
        await self.pipeline.run()

    async def _load(self) -> None:
        fleets = [fleet.name for fleet in self.world.plant.config.fleets]
        await self.world.insistently(self.process, lambda: self.scorer.load(self.store, fleets))

    def _ended(self, task: asyncio.Task[None]) -> None:
        world = self.world
        error = task.exception()
        if error is None:
            world.counts["stops"] += 1
        elif isinstance(error, StoreUnavailable | SourceUnavailable):
            world.counts["ended in an outage"] += 1
        else:
            where = ", ".join(map(str, self.pipeline.partitions)) or "no partition"
            world.suspicions.append((where, f"{type(error).__name__}: {error}"))
            if world.counts["crashed"] >= 3:
                world.give_up.set()
            world.counts["crashed"] += 1


class World:
    """Everything that a seed decides."""

    def __init__(self, seed: int, mutation: Mutation | None = None) -> None:
        self.rng = Random(f"simulation/{seed}")
        self.mutation = mutation
        self.outcome = Outcome(seed)
        self.counts = self.outcome.counts
        self.suspicions: list[tuple[str, str]] = []
        """(partitions, what is wrong): forgiven where records were lost below what had been read."""
        self.plant = plant.draw(self.rng)
        self.weather = weather.draw(self.rng)
        self.database = Database()
        self.broker: Broker
        self.replicas: list[Replica] = []
        self.is_over = False
        self.weak: set[Partition] = set()
        """Partitions whose rebuild missed records: what the windows there hold is nobody's promise."""
        self.give_up: asyncio.Event
        self.tell: Callable[[str], None] | None = None
        self.make_store: type[SimulatedStore] = SimulatedStore
        self.channels = self.rng.choice([[], [Channel("all")], [Channel("all"), Channel("boss", Severity.CRITICAL)]])
        self.thinning = self.rng.choice([None, None, (1, 2)])
        """(rows kept, one in so many after them) of each partition and word; None = as many as there are."""
        self._n_versions = 0
        if mutation is not None:
            mutation.change(self)

    # ------------------------------------------------------------------ the story

    def live(self, tell: Callable[[str], None] | None = None) -> None:
        """Run, and judge. `tell` hears all that happens."""
        with self._small():
            loop = SimulatedLoop()
            if tell is not None:
                self.database.tell = self.tell = lambda text: tell(f"{loop.time():9.3f} {text}")
            try:
                loop.run(self._live())
            except Stuck as error:
                self.outcome.violations.append(f"stuck: {error}")
        self.counts += self.database.counts + self.broker.counts
        self.outcome.counts = self.counts
        self.outcome.violations += judge(self)

    async def _live(self) -> None:
        rng = self.rng
        self.give_up = asyncio.Event()
        self.broker = Broker(self.plant.logs, rng, self.weather)
        self.broker.tell = self.tell
        if rng.random() < 0.85:
            for fleet in self.plant.config.fleets:
                self._activate_at_once(fleet.name, FOREVER_AGO_US)
        self.replicas = [Replica(self, number) for number in range(rng.choice([1, 2, 2, 3]))]
        lives = [asyncio.ensure_future(replica.live()) for replica in self.replicas]
        until_s = rng.uniform(8, 35)
        troubles = [asyncio.ensure_future(trouble) for trouble in self._troubles(until_s)]
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(until_s))])
        for trouble in troubles:
            trouble.cancel()
        self.weather.clear_up()
        await self._calm()
        self.is_over = True
        for replica in self.replicas:
            if replica.is_up:
                replica.pipeline.stop()
        _, late = await asyncio.wait(lives, timeout=60)
        if late and not self.give_up.is_set():
            self.outcome.violations.append(f"stuck: {len(late)} replicas did not stop")

    async def _calm(self) -> None:
        """Wait until all is read."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for partition, log in self.broker.logs.items():
            self.broker.write(partition, len(log.records))
        is_settled = False
        while not self._is_all_read() and not self.give_up.is_set():
            await asyncio.sleep(1.0)
            if not is_settled and loop.time() - began_s > 30:
                is_settled = True  # whoever was frozen or dead is back
                self.broker.rebalance()
            if loop.time() - began_s > CALM_S:
                stands = {str(p): self.database.partition.get((GROUP, p)) for p in self.broker.logs}
                self.outcome.violations.append(f"stuck: not all is read: {stands}")
                return
        self.counts["calm after s"] += round(loop.time() - began_s)

    def _is_all_read(self) -> bool:
        for partition, log in self.broker.logs.items():
            row = self.database.partition.get((GROUP, partition))
            if row is None or row.next_offset != log.end:
                return False
        return True

    # ------------------------------------------------------------------ troubles

    def _troubles(self, until_s: float) -> Iterator[Any]:
        w = self.weather
        for partition, log in self.broker.logs.items():
            yield self._writes(partition, len(log.records), until_s * self.rng.uniform(0.1, 0.9))
        yield self._every(w.rebalance_s, self._storm)
        yield self._every(w.death_s, self._kill)
        yield self._every(w.freeze_s, self._freeze_one)
        yield self._every(w.stop_s, self._stop_one)
        yield self._every(w.outage_s, self._outage)
        yield self._every(w.retention_s, self._retention)
        yield self._every(w.activation_s, self._activation)

    async def _every(self, mean_s: float, trouble: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0, 2 * mean_s))
            await trouble()

    async def _writes(self, partition: Partition, n_records: int, during_s: float) -> None:
        """The producers: a part is there at the start, the rest comes by and by."""
        self.broker.write(partition, self.rng.randint(0, n_records))
        n_left = n_records - self.broker.logs[partition].n_written
        n_steps = self.rng.randint(1, 6)
        for _ in range(n_steps):
            await asyncio.sleep(during_s / n_steps)
            self.broker.write(partition, -(-n_left // n_steps))

    async def _storm(self) -> None:
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
        """Make a zombie: frozen for longer than a session, it is put out of the group, and wakes up not knowing it."""
        seconds = self.rng.choice([0.5, 3.0, 20.0]) * (0.5 + self.rng.random())
        process.freeze(seconds)
        self.counts["freezes"] += 1
        if self.tell is not None:
            self.tell(f"{process.name}: frozen for {seconds:.1f} s")
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
        self.weather.database_is_away = True
        await asyncio.sleep(self.rng.random() * 8)
        self.weather.database_is_away = False

    async def _retention(self) -> None:
        """Remove what nobody needs any more; or, now and then, what is needed."""
        partition = self.rng.choice(list(self.broker.logs))
        log = self.broker.logs[partition]
        row = self.database.partition.get((GROUP, partition))
        if self.rng.random() < self.weather.overtakes:
            self.broker.remove_before(partition, self.rng.randint(log.first_kept, log.end))
            self.counts["overtaken"] += 1
        elif row is not None and row.rewind_offset is not None:
            self.broker.remove_before(partition, row.rewind_offset)

    async def _activation(self) -> None:
        """A new champion: a replica that trained one activates it between two batches, as the daemon does."""
        fleet = self.rng.choice(self.plant.config.fleets).name
        replica = self.rng.choice(self.replicas)
        if not replica.is_up:
            return
        self.counts["activations"] += 1
        process, store, scorer = replica.process, replica.store, replica.scorer
        version = self._publish(fleet)

        async def activate() -> None:
            async with replica.pipeline.between_batches():
                decided_us = await self.insistently(process, lambda: store.read(scores.newest_end_us, fleet))
                boundary_us = FOREVER_AGO_US if decided_us is None else decided_us
                await self.insistently(process, lambda: store.run(versions.activate, fleet, version, boundary_us))
                await self.insistently(
                    process, lambda: scorer.load(store, [each.name for each in self.plant.config.fleets])
                )

        task = asyncio.ensure_future(activate())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _publish(self, fleet: str) -> str:
        self._n_versions += 1
        version = f"{fleet}-{self._n_versions}"
        facts: dict[str, Any] = {"path": version, "trained_us": self._n_versions, "card": {}, "metrics": {}}
        self.database.apply(versions.publish, version=version, fleet=fleet, **facts)
        return version

    def _activate_at_once(self, fleet: str, from_us: int) -> None:
        self.database.apply(versions.activate, fleet, self._publish(fleet), from_us)

    # ------------------------------------------------------------------ parts

    def make_source(self, process: Process) -> MemberSource:
        return MemberSource(self.broker, process)

    async def insistently(self, process: Process, work: Callable[[], Awaitable[Any]]) -> Any:
        """As the daemon does it at its start: again and again until the database answers."""
        while True:
            try:
                return await work()
            except StoreUnavailable:
                await process.pause(1.0)

    @contextlib.contextmanager
    def _small(self) -> Iterator[None]:
        """Make the engine's limits so small that a run of some hundred records meets them all."""
        rng, tally = self.rng, _Tally(self)
        random.seed(rng.random())  # should the engine toss a coin, it is our coin
        limits = {
            (river, "log"): tally,
            (rebuild, "log"): tally,
            (lane, "SLICE"): rng.choice([7, 8192, 8192]),
            (rewind, "LOOK_EVERY_S"): rng.choice([0.0, 0.5, 2.0]),
            (rewind, "MAX_MARKS"): rng.choice([2, 5, 1024]),
            (rewind, "SILENT_AFTER"): rng.choice([5, 30, 50_000]),
            (save, "ROWS_KEPT"): self.thinning[0] if self.thinning else save.ROWS_KEPT,
            (save, "ROWS_SAMPLED"): self.thinning[1] if self.thinning else save.ROWS_SAMPLED,
        }
        with contextlib.ExitStack() as stack:
            for (module, name), value in limits.items():
                stack.enter_context(mock.patch.object(module, name, value))
            if self.mutation is not None:
                stack.enter_context(self.mutation.patched())
            yield
