"""Hooks in a forked daemon, applied by name before it starts: observers, faults on a signal, and mutations.

Observers and faults leave the pipeline unchanged. Mutations (mutant.py) break it on purpose. Invariant: hooks touch
only interfaces that have other users (`KafkaSource.seek` and `poll`, aiokafka's client), or a mutation names the rule
of the protocol that it removes.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SESSION_S = 6
"""Session timeout of the group: the shortest that a broker allows by default."""


def apply(name: str) -> None:
    """Apply a hook, `NAME` or `NAME:ARGUMENT,…`."""
    from tests.chaos.mutant import MUTATIONS

    name, _, argument = name.partition(":")
    (HOOKS | MUTATIONS)[name](*argument.split(",") if argument else ())


def report(event: str, **facts: Any) -> None:
    """Write an event into the daemon's log."""
    print(json.dumps({"event": event, "at": time.time()} | facts), file=sys.stderr, flush=True)


def short_session() -> None:
    """Set a session timeout of six seconds, for a tree without the setting."""
    from monitor.kafka import consumer_group

    real = consumer_group.BoundedConsumer

    def consumer(*topics: str, **settings: Any) -> Any:
        if "group_id" in settings:
            settings |= {"session_timeout_ms": SESSION_S * 1000, "heartbeat_interval_ms": 1_000}
        return real(*topics, **settings)

    consumer_group.BoundedConsumer = consumer


def short_lease() -> None:
    """Let other daemons send the notifications of a dead one after four seconds: a run is too short for fifteen."""
    from functools import partial

    from monitor.service import daemon
    from monitor.timing import Timing

    daemon.run = partial(daemon.run, timing=Timing(lease_ttl_s=4.0, lease_renew_every_s=1.0))


def first_offsets() -> None:
    """Report the first offset after each `seek`. It must be the requested one."""
    from monitor.kafka.consumer_group import KafkaSource
    from monitor.types import RecordBatch

    seek, poll = KafkaSource.seek, KafkaSource.poll
    wanted: dict[Any, int] = {}

    def seek_and_remember(self: KafkaSource, partition: Any, offset: int) -> None:
        seek(self, partition, offset)
        wanted[partition] = offset

    async def poll_and_report(self: KafkaSource) -> Any:
        events = await poll(self)
        for event in events:
            if isinstance(event, RecordBatch) and event.partition in wanted:
                offset = int(event.offsets[0])
                report("first_offset", partition=str(event.partition), want=wanted.pop(event.partition), got=offset)
        return events

    KafkaSource.seek = seek_and_remember  # type: ignore[method-assign]
    KafkaSource.poll = poll_and_report  # type: ignore[method-assign]


def heartbeat_errors() -> None:
    """On SIGUSR1, replace the answer to the next heartbeat with an error that aiokafka does not expect."""
    from aiokafka.consumer.group_coordinator import GroupCoordinator

    due: list[int] = []
    send = GroupCoordinator._send_req
    codes = itertools.cycle((-1, 30, 14))

    async def send_and_corrupt(self: Any, request: Any) -> Any:
        answer = await send(self, request)
        if due and "Heartbeat" in type(request).__name__:
            answer.error_code = due.pop()
            report("heartbeat_corrupted", code=answer.error_code)
        return answer

    GroupCoordinator._send_req = send_and_corrupt
    signal.signal(signal.SIGUSR1, lambda *_: due.append(next(codes)))


def block_loop(seconds: str) -> None:
    """On SIGUSR2, block the event loop for so long."""

    def block(*_: Any) -> None:
        report("loop_blocked_by_test", seconds=float(seconds))
        time.sleep(float(seconds))

    signal.signal(signal.SIGUSR2, block)


def clock_jumps() -> None:
    """Let the daemon's clock jump by up to a day, forward and back, about once a second."""
    from monitor.clock import SystemClock
    from tests.chaos.wrong_clock import JUMPS_S

    now_us, rng = SystemClock.now_us, random.Random(0)
    jump = [0.0, 0.0]

    def jumping_now_us(self: SystemClock) -> int:
        if time.monotonic() > jump[0]:
            jump[:] = time.monotonic() + rng.uniform(0.2, 2), rng.choice(JUMPS_S)
        return now_us(self) + int(jump[1] * 1e6)

    SystemClock.now_us = jumping_now_us  # type: ignore[method-assign]


def suspend_at_commit() -> None:
    """On SIGUSR1, suspend the process right before its next commit, if it comes within three seconds: a zombie."""
    from monitor.store.engine import AsyncStore

    save, until = AsyncStore.save, [0.0]

    async def suspend_and_save(self: AsyncStore, commit: Any) -> Any:
        if time.monotonic() < until[0]:
            until[0] = 0.0
            report("suspended_at_commit", partition=str(commit.partition), next_offset=commit.new_next)
            os.kill(os.getpid(), signal.SIGSTOP)
        return await save(self, commit)

    AsyncStore.save = suspend_and_save  # type: ignore[method-assign]
    signal.signal(signal.SIGUSR1, lambda *_: until.__setitem__(0, time.monotonic() + 3.0))


HOOKS: dict[str, Callable[..., None]] = {
    "short_session": short_session,
    "short_lease": short_lease,
    "first_offsets": first_offsets,
    "heartbeat_errors": heartbeat_errors,
    "block_loop": block_loop,
    "suspend_at_commit": suspend_at_commit,
    "clock_jumps": clock_jumps,
}
