"""The daemon: builds everything, starts the background tasks, runs the pipeline, drains and closes.

    pipeline     records → rows (`stream/pipeline.py`). The daemon ends when it ends
    champions    loads the model versions that the database names, whichever daemon activated them (`lifecycle/`)
    scheduler    runs the retrainings that are requested or due (`lifecycle/scheduler.py`)
    health       /live, /ready and /metrics (`health.py`, `pages.py`, `watchdog.py`)
    heartbeat    reports progress to the database and the log (`heartbeat.py`)
    delivery     sends notifications out of the outbox (`notify/deliver.py`)
    releases     ends shelves and maintenance windows, and notifies alerts that still fire (`releases.py`)
    streams      alerts about silent, slow and refused streams (`stream_watch.py`)
    gauges       metrics that are read from the database and the disks (`gauges.py`)
    maintenance  prunes old rows and reports violated false-alarm budgets (`maintenance.py`)

Input: a configuration. Output: the error that ended the daemon, with its exit code, or none after a signal. Invariant:
a stop loses nothing and takes less than 10 s. SIGTERM or Ctrl-C lets the batch in hand finish and its transaction
commit, ends a training, and leaves the consumer group. A second signal does not wait.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from contextlib import AsyncExitStack, suppress
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Self, TypeVar

from monitor import logs
from monitor.clock import SystemClock
from monitor.errors import TRANSIENT_ERRORS, MonitorError, dependency_of
from monitor.kafka.consumer_group import KafkaSource
from monitor.kafka.membership import static_member_id
from monitor.kafka.record_format import registry_of
from monitor.lifecycle.champions import Champions, WindowChanged
from monitor.lifecycle.scheduler import LEASE as TRAINING_LEASE
from monitor.lifecycle.scheduler import RetrainScheduler
from monitor.notify.channels import channel_of, options_of, sender_of
from monitor.notify.deliver import Delivery
from monitor.notify.enrich import Enricher
from monitor.retry import OutageObserver, retry_transient
from monitor.service.gauges import Gauges
from monitor.service.health import Health, snapshot_of
from monitor.service.heartbeat import Heartbeat
from monitor.service.maintenance import Maintenance
from monitor.service.pages import pages
from monitor.service.releases import Releases
from monitor.service.shutdown import StopRequested, force_exit, stop_on_signals, unless_stopped
from monitor.service.source_watch import SourceWatch
from monitor.service.stream_watch import LEASE as STREAMS_LEASE
from monitor.service.stream_watch import StreamWatch
from monitor.store import identity, outbox, sqlite, versions
from monitor.store.engine import AsyncStore
from monitor.store.lease_renewal import Lease
from monitor.stream.pipeline import Pipeline
from monitor.stream.score import BatchGate, DetectorScorer
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.service.health import StatusSnapshot
    from monitor.timing import Timing

log = logs.get("daemon")
T = TypeVar("T")


async def run(config: Config, clock: Clock | None = None, timing: Timing = DEFAULT_TIMING) -> None:
    """Run until a signal. Raises the error that ended the daemon, with its exit code."""
    stopping = stop_on_signals(timing)
    while changed := await _run_until_window_changes(config, clock or SystemClock(), timing, stopping):
        config = config.with_lengths(changed)
        gc.unfreeze()  # the former pipeline was frozen, and would never be freed
        gc.collect()
    if stopping.is_set() and sqlite.has_hanging_threads(timing.idle_thread_grace_s):
        force_exit()


async def _run_until_window_changes(
    config: Config, clock: Clock, timing: Timing, stopping: asyncio.Event
) -> dict[str, int]:
    """Run until a signal, or until a training has chosen another length of windows. Return it by fleet."""
    try:
        with suppress(StopRequested):
            await _run(config, clock, timing, stopping)
    except WindowChanged as change:
        # As after a restart: nothing of the batch in hand is saved, and it is read again.
        doing = "starting the pipeline anew with them; the first windows have to fill"
        log.info("window_changed", fleet=change.fleet, version=change.version, cells=change.length, doing=doing)
        return {change.fleet: change.length}
    return {}


async def _run(config: Config, clock: Clock, timing: Timing, stopping: asyncio.Event) -> None:
    owner = f"{socket.gethostname()}:{os.getpid()}:{token_hex(2)}"  # containers may share the first two
    async with AsyncExitStack() as stack:
        health = Health(session_s=config.kafka.session_timeout.total_seconds(), timing=timing)
        await stack.enter_async_context(health.watch)
        stack.enter_context(pages(config.http, health, timing))

        async def started(work: Callable[[], Awaitable[T]]) -> T:
            """Repeat one step of the start until it succeeds. Raises StopRequested at the signal."""
            pause = partial(clock.sleep, timing.start_retry_s)
            repeated = retry_transient(work, pause=pause, observer=_StartOutage(health))
            return await unless_stopped(repeated, stopping, timing.drain_limit_s)

        database = AsyncStore(config.store.url, owner=True, timing=timing)
        stack.callback(asyncio.ensure_future(_shorten_grace(database, stopping)).cancel)
        store = await started(lambda: stack.enter_async_context(database))
        is_alone = database.address.is_sqlite  # SQLite allows one daemon; only several need leases
        training_lease = None if is_alone else Lease(store, TRAINING_LEASE, owner, clock, timing)
        maintenance_lease = None if is_alone else Lease(store, "upkeep", owner, clock, timing)

        own = await started(partial(store.run, identity.start, clock.now_us()))
        config = config.with_default_group(own.default_group)
        config = config.with_lengths(await started(partial(store.read, versions.window_lengths)))
        scorer = DetectorScorer(config.device, fleets=config.fleets, timing=timing)
        stack.callback(scorer.close)
        gate = BatchGate()
        champions = Champions(config, store, scorer, clock, gate=gate, timing=timing)
        channels = [channel_of(each, own.first_started_us or 0) for each in config.notify]
        scheduler = RetrainScheduler(
            config, store, champions, clock, owner, training_lease, timing=timing, channels=channels
        )
        maintenance = Maintenance(config, store, clock, maintenance_lease, timing)
        member_id = stack.enter_context(static_member_id(config.store.checkpoints, config.kafka.group))
        leaves = not is_alone  # with SQLite no other daemon could take the partitions
        source = KafkaSource(
            config.kafka,
            config.topics,
            client_id=own.client_id,
            static_member_id=member_id,
            leave_on_close=leaves,
            timing=timing,
        )
        watch = SourceWatch(
            config.kafka,
            config.topics,
            own.client_id,
            member_id,
            clock,
            health,
            timing=timing,
            topics_found=source.topics_found,
        )
        stack.push_async_callback(source.close)
        registry = registry_of(config.kafka)
        if registry is not None:
            stack.push_async_callback(registry.close)
        senders = [sender_of(each, config, timing) for each in config.notify]
        for sender in senders:
            stack.push_async_callback(sender.close)
        streams_lease = None if is_alone else Lease(store, STREAMS_LEASE, owner, clock, timing)
        streams = StreamWatch(config, store, clock, streams_lease, channels=channels, timing=timing)
        pipeline = Pipeline(
            config,
            source,
            store,
            scorer,
            owner=owner,
            clock=clock,
            channels=channels,
            reload_models=champions.refresh,
            schemas=registry,
            gate=gate,
            timing=timing,
        )
        outbox_lease = Lease(store, outbox.LEASE, owner, clock, timing)
        delivery = Delivery(
            store,
            outbox_lease,
            senders,
            clock,
            timing=timing,
            options={each.name: options_of(each) for each in config.notify},
            enricher=Enricher(config.console.public_url, config.fleets),
        )
        releases = Releases(store, channels, clock, outbox_lease if senders else None, timing)
        heartbeat = Heartbeat(pipeline, store, owner, clock, health, timing)
        stack.push_async_exit(heartbeat.deregister)

        notifying = [delivery.loop()] if senders else []
        exporting = [Gauges(config, store, clock, timing).loop()] if config.http.listen else []
        always = (heartbeat.loop(), maintenance.loop(), releases.loop(), *exporting)
        async with _BackgroundTasks(*always, *notifying) as background:
            health.starting("reading the models")
            await started(partial(champions.load, scheduler.is_retraining_requested))
            background.start(*(lease.loop() for lease in (training_lease, streams_lease) if lease is not None))
            await started(scheduler.take_up_stale_jobs)
            await started(scheduler.derive_thresholds)
            await started(partial(_before_the_first_record, source, watch, scheduler, health))
            gc.freeze()  # the objects built so far stay: later collections skip them
            log.info(
                "watching",
                topics=list(config.topics),
                group=config.kafka.group,
                fleets=[fleet.name for fleet in config.fleets],
            )
            async with _BackgroundTasks(champions.loop(), scheduler.loop(), watch.loop(), streams.loop()):
                snapshot = partial(snapshot_of, pipeline, source, scheduler.missing)
                await _run_pipeline(pipeline, snapshot, stopping, health, timing)
        log.info("drained", **heartbeat.progress())


async def _before_the_first_record(
    source: KafkaSource, watch: SourceWatch, scheduler: RetrainScheduler, health: Health
) -> None:
    health.starting("asking the broker for the members of the consumer group")
    await watch.refuse_foreign_members()
    health.starting("asking the broker what its topics hold")
    await watch.look_for_topics()
    await source.record_end_offsets()
    health.starting("training a first model where a fleet has none")
    await scheduler.train_first_models()


async def _run_pipeline(
    pipeline: Pipeline,
    snapshot: Callable[[], StatusSnapshot],
    stopping: asyncio.Event,
    health: Health,
    timing: Timing,
) -> None:
    """Run the pipeline until the signal, then drain it. Raises the error that ended it."""
    running = asyncio.create_task(pipeline.run())
    health.running(running, snapshot)
    stopper = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({running, stopper}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            log.info("draining", doing="finishing the batch in hand; a second signal does not wait")
            health.draining()
            pipeline.stop()
            await asyncio.wait({running}, timeout=timing.drain_limit_s)
        if not running.done():
            meaning = "the batch in hand was not saved; it is read again"
            log.warning("drain_cut_short", after_s=timing.drain_limit_s, meaning=meaning)
            return
        try:
            running.result()
        except TRANSIENT_ERRORS as error:
            if not stopping.is_set():
                raise
            log.warning("stopped_in_an_outage", error=str(error), meaning="the batch in hand is read again")
    finally:
        for task in (running, stopper):
            task.cancel()
        await asyncio.gather(running, stopper, return_exceptions=True)


async def _shorten_grace(store: AsyncStore, stopping: asyncio.Event) -> None:
    await stopping.wait()
    store.shorten_grace()


class _StartOutage(OutageObserver):
    """Shows an outage during the start on /ready, and logs each dependency and each checkpoint once."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._logged: set[tuple[str, str]] = set()

    def failed(self, error: MonitorError, n_failures: int) -> None:  # noqa: ARG002  (the base class's signature)
        """Show the error; log it if its cause is new."""
        self._health.waiting_for(error)
        dependency = dependency_of(error)
        cause = (dependency, getattr(error, "waiting_for", ""))
        if cause not in self._logged:
            self._logged.add(cause)
            log.warning(f"{dependency}_away", error=error.detail, doing="waiting for it")

    def ended(self) -> None:
        """Show that the outage is over."""
        self._health.waiting_for(None)


class _BackgroundTasks:
    """Runs coroutines beside the body and cancels them when it ends. The error of one ends the body, and is raised."""

    def __init__(self, *loops: Coroutine[object, object, None]) -> None:
        self._loops = loops
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *loops: Coroutine[object, object, None]) -> None:
        """Run further coroutines."""
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
            raise _single_error(group) from None


def _single_error(error: BaseException) -> BaseException:
    """Unwrap nested groups of one error: the exit code is read from the error itself.

    Several tasks may find changed windows at once. One of them suffices: the next start reads all lengths.
    """
    while isinstance(error, BaseExceptionGroup) and (
        len(error.exceptions) == 1 or error.split(WindowChanged)[1] is None
    ):
        error = error.exceptions[0]
    return error
