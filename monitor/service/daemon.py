"""The daemon: the only place that builds things. Opens what it needs, starts the loops, drains, closes.

    river      records → rows (`stream/pipeline.py`); it decides when all is over
    champions  the scorer decides as the database says, whichever daemon activated a version (`lifecycle/champions.py`)
    trainer    takes up retrainings that somebody asked for or that are due (`lifecycle/scheduler.py`)
    health     says whether all of this is well: /live, /ready, /metrics (`health.py`)
    pulse      says in the log and in the database how far the river is
    delivery   tells people of alerts, out of the outbox (`notify/deliver.py`)
    upkeep     prunes what is old, and says when a fleet's false-alarm budget is broken (`upkeep.py`)

Stopping: SIGTERM or Ctrl-C lets the batch in hand finish and its transaction commit, ends a training, leaves the
consumer group, and is done within 10 s. A second signal does not wait.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
from contextlib import AsyncExitStack, suppress
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Self, TypeVar

from monitor import logs
from monitor.clock import SystemClock
from monitor.errors import TRANSIENT_ERRORS, MonitorError, StoreUnavailable, dependency_of
from monitor.kafka.consumer_group import KafkaSource
from monitor.kafka.membership import static_member_id
from monitor.lifecycle import scheduler as training
from monitor.lifecycle.champions import Champions
from monitor.lifecycle.scheduler import Trainer
from monitor.notify.deliver import Delivery
from monitor.notify.webhook import Webhook
from monitor.retry import OutageObserver, retry_transient
from monitor.service.health import watched
from monitor.service.maintenance import Upkeep
from monitor.store import daemons, outbox, sqlite
from monitor.store.engine import AsyncStore
from monitor.store.lease import Lease
from monitor.stream.pipeline import Pipeline
from monitor.stream.score import DetectorScorer
from monitor.timing import DEFAULT_TIMING
from monitor.types import Counters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.service.health import Health
    from monitor.timing import Timing

log = logs.get("daemon")
T = TypeVar("T")

PULSE_EVERY_S = 2.0
SAY_EVERY_S = 30.0
DRAIN_LIMIT_S = 3.0
"""Then the batch in hand is given up; it is read again at the next start."""
GOODBYE_LIMIT_S = 0.5
STOP_LIMIT_S = 9.0
"""Then we go as if killed, whatever hangs: what was committed, the next start finds out."""


class _Stopped(BaseException):
    """The signal came before there was anything to drain."""


async def run(config: Config, clock: Clock | None = None, timing: Timing = DEFAULT_TIMING) -> None:
    """Run until a signal. Raises the error that ended it: its exit code says who must act."""
    stopping = _stopping_on_signals()
    with suppress(_Stopped):
        await _run(config, clock or SystemClock(), timing, stopping)
    if stopping.is_set() and sqlite.hangs():
        _go()


async def _run(config: Config, clock: Clock, timing: Timing, stopping: asyncio.Event) -> None:
    owner = f"{socket.gethostname()}:{os.getpid()}:{token_hex(2)}"  # containers may share the first two
    async with AsyncExitStack() as stack:
        health = await stack.enter_async_context(watched(config))

        async def started(work: Callable[[], Awaitable[T]]) -> T:
            """Retry one step of the start until it succeeds, or the signal to stop comes."""
            pause = partial(clock.sleep, timing.start_retry_s)
            return await _unless_stopped(retry_transient(work, pause=pause, observer=_StartOutage(health)), stopping)

        database = AsyncStore(config.store.url, owner=True)
        stack.callback(asyncio.ensure_future(_hurry(database, stopping)).cancel)
        store = await started(lambda: stack.enter_async_context(database))
        scorer = DetectorScorer(config.device)
        stack.callback(scorer.close)
        champions = Champions(config, store, scorer, clock)
        is_alone = database.address.is_sqlite
        seat = None if is_alone else Lease(store, training.LEASE, owner, clock)
        trainer = Trainer(config, store, champions, clock, owner, seat)
        upkeep = Upkeep(config, store, clock, None if is_alone else Lease(store, "upkeep", owner, clock))
        topics = {topic for fleet in config.fleets for topic in config.topics_of(fleet)}
        name = stack.enter_context(static_member_id(config.store.checkpoints, config.kafka.group))
        source = KafkaSource(config.kafka, topics, static_member_id=name, leave_on_close=not is_alone)
        stack.push_async_callback(source.close)
        pipeline = Pipeline(config, source, store, scorer, owner=owner, clock=clock)
        pipeline.reload_models = champions.refresh
        webhooks = [Webhook(each) for each in config.notify]
        pipeline.channels = [webhook.channel for webhook in webhooks]
        delivery = Delivery(store, Lease(store, outbox.LEASE, owner, clock), webhooks, clock)
        pulse = Pulse(config, pipeline, store, owner, clock, health)
        stack.push_async_exit(pulse.leave)

        letters = [delivery.loop()] if webhooks else []
        async with _loops(pulse.loop(), upkeep.loop(), *letters) as beside:
            health.doing = "reading the models"
            await started(partial(champions.load, trainer.is_asked))
            if seat is not None:
                beside.start(seat.loop())
            await started(trainer.begin)
            await started(partial(_before_the_first_record, source, trainer, health))
            champions.river = pipeline
            gc.freeze()  # what was built until here stays: the collector need not look at it again
            log.info("watching", topics=sorted(topics), fleets=[fleet.name for fleet in config.fleets])
            async with _loops(champions.loop(), trainer.loop()):
                await _flow(pipeline, source, stopping, health)
        log.info("drained", **pulse.facts())


async def _hurry(store: AsyncStore, stopping: asyncio.Event) -> None:
    await stopping.wait()
    store.hurry()


async def _flow(pipeline: Pipeline, source: KafkaSource, stopping: asyncio.Event, health: Health) -> None:
    """Let the river run until the signal, then drain it."""
    river = asyncio.create_task(pipeline.run())
    health.flows(pipeline, source, river)
    stopper = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({river, stopper}, return_when=asyncio.FIRST_COMPLETED)
        if not river.done():
            log.info("draining", doing="finishing the batch in hand; a second signal does not wait")
            health.drains()
            pipeline.stop()
            await asyncio.wait({river}, timeout=DRAIN_LIMIT_S)
        if not river.done():
            log.warning(
                "drain_cut_short", after_s=DRAIN_LIMIT_S, meaning="the batch in hand was not saved; it is read again"
            )
            return
        try:
            river.result()
        except TRANSIENT_ERRORS as error:
            if not stopping.is_set():
                raise
            log.warning("stopped_in_an_outage", error=str(error), meaning="the batch in hand is read again")
    finally:
        for task in (river, stopper):
            task.cancel()
        await asyncio.gather(river, stopper, return_exceptions=True)


class Pulse:
    """Says how far the river is: a row every two seconds, a line every thirty."""

    def __init__(
        self, config: Config, pipeline: Pipeline, store: AsyncStore, owner: str, clock: Clock, health: Health
    ) -> None:
        self._config = config
        self._health = health
        self._pipeline = pipeline
        self._store = store
        self._owner = owner
        self._clock = clock
        self._started_us = clock.now_us()

    async def loop(self) -> None:
        """Beat until cancelled."""
        said_at, said = self._clock.monotonic_s(), 0
        while True:
            facts = self.facts()
            try:
                await self.beat(", ".join(f"{name} {value}" for name, value in facts.items()) or "starting")
            except StoreUnavailable as error:
                log.debug("pulse_missed", error=error.detail)
            if self._clock.monotonic_s() - said_at >= SAY_EVERY_S and facts.get("records", 0) != said:
                said_at, said = self._clock.monotonic_s(), facts.get("records", 0)
                log.info("progress", **facts)
            await self._clock.sleep(PULSE_EVERY_S)

    async def beat(self, status: str) -> None:
        """Write the row that tells operators that a daemon is alive."""
        await self._store.run(
            daemons.beat,
            owner=self._owner,
            pipeline=self._config.kafka.group,
            started_us=self._started_us,
            now_us=self._clock.now_us(),
            status=status,
        )
        self._health.database_answered()

    async def leave(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Say goodbye, if anybody listens: who asks for a retraining now should know that nobody is there."""
        is_meant = error is None or isinstance(error, MonitorError | _Stopped | asyncio.CancelledError)
        with suppress(MonitorError, TimeoutError):
            async with asyncio.timeout(GOODBYE_LIMIT_S):
                await self._store.run(daemons.leave, self._owner, is_meant)

    def facts(self) -> dict[str, int]:
        """Count what was done since the partitions' start, and what still waits."""
        states = self._pipeline.partitions.values()
        if not states:
            return {}
        total = Counters()
        lag = 0
        for state in states:
            total.add(state.counters)
            end = self._pipeline.source.end_offset(state.partition)
            lag += max(0, (end or 0) - state.next_offset)
        facts = {"partitions": len(states), "lag": lag}
        names = ("records", "readings", "windows", "scored", "quarantined", "late", "duplicate")
        return facts | {name: getattr(total, name) for name in names}


# ---------------------------------------------------------------- parts of `run`


class _StartOutage(OutageObserver):
    """Shows on /ready what the start waits for, and logs each dependency, and each checkpoint, once."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._logged: set[tuple[str, str]] = set()

    def failed(self, error: MonitorError, n_failures: int) -> None:  # noqa: ARG002  (the base class's signature)
        """Show the error; log it if its cause is new."""
        self._health.waits_for = error
        dependency = dependency_of(error)
        cause = (dependency, getattr(error, "waiting_for", ""))
        if cause not in self._logged:
            self._logged.add(cause)
            log.warning(f"{dependency}_away", error=error.detail, doing="waiting for it")

    def ended(self) -> None:
        """Show that nothing is waited for."""
        self._health.waits_for = None


async def _unless_stopped(work: Coroutine[object, object, T], stopping: asyncio.Event) -> T:
    """Await `work`, or cancel it at the signal. Raises _Stopped."""
    if stopping.is_set():
        work.close()
        raise _Stopped
    task, stopper = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, stopper}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task}, timeout=DRAIN_LIMIT_S)
        raise _Stopped
    finally:  # also when a loop beside it has failed
        stopper.cancel()
        task.cancel()


async def _before_the_first_record(source: KafkaSource, trainer: Trainer, health: Health) -> None:
    health.doing = "asking the broker what its topics hold"
    await source.record_end_offsets()
    health.doing = "training a first model where a fleet has none"
    await trainer.train_first()


def _stopping_on_signals() -> asyncio.Event:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()
        # A thread: what hangs may be the event loop itself, or a thread that Python's own exit waits for.
        last = threading.Timer(STOP_LIMIT_S, _go)
        last.daemon = True
        last.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return stopping


def _go() -> None:
    log.warning("stop_cut_short", meaning="something hangs; nothing that was saved is lost")
    os._exit(0)


class _loops:  # noqa: N801  (used like a function)
    """Run loops beside the body; cancel them when it ends. A loop that fails ends the body with its error."""

    def __init__(self, *loops: Coroutine[object, object, None]) -> None:
        self._loops = loops
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *loops: Coroutine[object, object, None]) -> None:
        """Run these, too."""
        self._tasks += [self._group.create_task(loop) for loop in loops]

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self.start(*self._loops)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            await self._group.__aexit__(*exc)  # type: ignore[arg-type]  # the three of the protocol
        except BaseExceptionGroup as group:
            raise _only(group) from None


def _only(error: BaseException) -> BaseException:
    """Unwrap a group of one, however deep: an exit code is read from the error itself."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
