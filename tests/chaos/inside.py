"""What a daemon of ours is made to observe of itself, to suffer, or to do wrong. By name, before it starts.

Observers and sufferings leave the engine as it is; mutations (see mutant.py) break it on purpose. The law: only seams
that others use too are touched (`KafkaSource.seek` and `poll`, aiokafka's client), or a mutation says which line of
the protocol it takes out.
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
"""The shortest that a broker allows by default."""


def apply(name: str) -> None:
    """Apply one by its name; what follows a colon is its argument."""
    from tests.chaos.mutant import MUTATIONS

    name, _, argument = name.partition(":")
    (INSIDE | MUTATIONS)[name](*argument.split(",") if argument else ())


def say(event: str, **facts: Any) -> None:
    """Write an event beside the daemon's own."""
    print(json.dumps({"event": event, "at": time.time()} | facts), file=sys.stderr, flush=True)


def short_session() -> None:
    """Let the group notice a death after six seconds. For a tree whose configuration cannot say so."""
    from monitor.kafka import consumer_group

    real = consumer_group.BoundedConsumer

    def consumer(*topics: str, **settings: Any) -> Any:
        if "group_id" in settings:
            settings |= {"session_timeout_ms": SESSION_S * 1000, "heartbeat_interval_ms": 1_000}
        return real(*topics, **settings)

    consumer_group.BoundedConsumer = consumer


def short_lease() -> None:
    """Let others send a dead daemon's letters after four seconds: a run is too short for the usual fifteen."""
    from functools import partial

    from monitor.service import daemon
    from monitor.timing import Timing

    daemon.run = partial(daemon.run, timing=Timing(lease_ttl_s=4.0, lease_renew_every_s=1.0))


def first_offsets() -> None:
    """Say which offset was handed out first after each `seek`: it must be the one that was asked for."""
    from monitor.kafka.consumer_group import KafkaSource
    from monitor.types import RecordBatch

    seek, poll = KafkaSource.seek, KafkaSource.poll
    wanted: dict[Any, int] = {}

    def seek_and_note(self: KafkaSource, partition: Any, offset: int) -> None:
        seek(self, partition, offset)
        wanted[partition] = offset

    async def poll_and_look(self: KafkaSource) -> Any:
        events = await poll(self)
        for event in events:
            if isinstance(event, RecordBatch) and event.partition in wanted:
                offset = int(event.offsets[0])
                say("first_offset", partition=str(event.partition), want=wanted.pop(event.partition), got=offset)
        return events

    KafkaSource.seek = seek_and_note  # type: ignore[method-assign]
    KafkaSource.poll = poll_and_look  # type: ignore[method-assign]


def bricked() -> None:
    """On SIGUSR1, let the broker's answer to the next heartbeat be an error that aiokafka does not expect."""
    from aiokafka.consumer.group_coordinator import GroupCoordinator

    due: list[int] = []
    send = GroupCoordinator._send_req
    codes = itertools.cycle((-1, 30, 14))

    async def send_and_spoil(self: Any, request: Any) -> Any:
        answer = await send(self, request)
        if due and "Heartbeat" in type(request).__name__:
            answer.error_code = due.pop()
            say("heartbeat_spoilt", code=answer.error_code)
        return answer

    GroupCoordinator._send_req = send_and_spoil
    signal.signal(signal.SIGUSR1, lambda *_: due.append(next(codes)))


def blocked(seconds: str) -> None:
    """On SIGUSR2, let the event loop stand still for so long."""

    def block(*_: Any) -> None:
        say("made_to_stand_still", seconds=float(seconds))
        time.sleep(float(seconds))

    signal.signal(signal.SIGUSR2, block)


def clock_jumps() -> None:
    """Let our clock jump by up to a day, forwards and back, about once a second."""
    from monitor.clock import SystemClock
    from tests.chaos.wrong_clock import JUMPS_S

    now_us, rng = SystemClock.now_us, random.Random(0)
    jump = [0.0, 0.0]

    def jumping_now_us(self: SystemClock) -> int:
        if time.monotonic() > jump[0]:
            jump[:] = time.monotonic() + rng.uniform(0.2, 2), rng.choice(JUMPS_S)
        return now_us(self) + int(jump[1] * 1e6)

    SystemClock.now_us = jumping_now_us  # type: ignore[method-assign]


def ambushed() -> None:
    """On SIGUSR1, stand still right before the next save: a zombie with a batch in its hands. Within three seconds."""
    from monitor.store.engine import AsyncStore

    save, until = AsyncStore.save, [0.0]

    async def save_after_standing_still(self: AsyncStore, commit: Any) -> Any:
        if time.monotonic() < until[0]:
            until[0] = 0.0
            say("ambushed", partition=str(commit.partition), next_offset=commit.new_next)
            os.kill(os.getpid(), signal.SIGSTOP)
        return await save(self, commit)

    AsyncStore.save = save_after_standing_still  # type: ignore[method-assign]
    signal.signal(signal.SIGUSR1, lambda *_: until.__setitem__(0, time.monotonic() + 3.0))


INSIDE: dict[str, Callable[..., None]] = {
    "short_session": short_session,
    "short_lease": short_lease,
    "first_offsets": first_offsets,
    "bricked": bricked,
    "blocked": blocked,
    "ambushed": ambushed,
    "clock_jumps": clock_jumps,
}
