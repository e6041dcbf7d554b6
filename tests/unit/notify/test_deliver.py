"""The delivery loop against receivers that hang, refuse and fail, and with a daemon that dies at each step.

Time advances only when a test says so. The lease uses the clock of the database.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from monitor import metrics
from monitor.errors import StoreUnavailable
from monitor.notify.deliver import Delivery
from monitor.notify.failure import Failure
from monitor.store import leases, outbox
from monitor.store.engine import AsyncStore
from monitor.store.lease_renewal import Lease
from monitor.timing import DEFAULT_TIMING
from tests.unit.notify.loops import ManualClock, running, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Events = list[MutableMapping[str, Any]]
    Step = tuple[str, Callable[..., Any]]

DOWN = Failure("HTTP 503")
REFUSED = Failure("HTTP 401", is_refusal=True)
HOUR_S = 3600.0
FAILED_AFTER_S = DEFAULT_TIMING.notification_failed_after_s
REFUSED_AFTER_S = DEFAULT_TIMING.notification_refused_after_s


class FakeReceiver:
    """A channel's receiver. It gives `answers` in order. Afterwards every notification arrives."""

    def __init__(self, name: str = "duty", *answers: Failure | None) -> None:
        self.name = name
        self.answers = list(answers)
        self.requested: list[str] = []
        self.received: list[str] = []
        self.responds = asyncio.Event()
        self.responds.set()

    async def send(self, key: str, body: bytes) -> Failure | None:
        self.requested.append(key)
        assert body == f"about {key}".encode()
        answer = self.answers.pop(0) if self.answers else None
        await self.responds.wait()
        if answer is None:
            self.received.append(key)
        return answer


class SimulatedKill(BaseException):
    """The end of a process by kill -9."""


class FaultyStore:
    """A store that kills its process before or after a call, or is unavailable for some calls."""

    def __init__(self, store: AsyncStore) -> None:
        self.store = store
        self.killed_at: Step | None = None
        self.unavailable_for: set[Callable[..., Any]] = set()

    async def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        if fn in self.unavailable_for:
            raise StoreUnavailable("unavailable")
        if self.killed_at == ("before", fn):
            raise SimulatedKill
        result = await self.store.run(fn, *args)
        if self.killed_at == ("after", fn):
            raise SimulatedKill
        return result

    async def read(self, fn: Callable[..., Any], *args: Any) -> Any:
        return await self.store.read(fn, *args)


class Harness:
    """A database with notifications, and daemons that deliver them."""

    def __init__(self, store: AsyncStore) -> None:
        self.store = store
        self.clock = ManualClock()

    async def enqueue(self, *keys: str, channel: str = "duty") -> None:
        """Store notifications. A key is `alert:step`."""

        def insert(connection: Connection) -> None:
            for key in keys:
                full = f"{channel}:{key}"
                row = {"key": full, "channel": channel, "body": f"about {full}", "now_us": self.clock.now_us()}
                sql = "INSERT INTO outbox (dedup_key, channel, body, created_us, next_try_us)"
                connection.execute(text(f"{sql} VALUES (:key, :channel, :body, :now_us, 0)"), row)

        await self.store.run(insert)

    def daemon(self, store: Any, receivers: Sequence[FakeReceiver], owner: str = "me") -> Delivery:
        return Delivery(store, Lease(store, outbox.LEASE, owner, self.clock), receivers, self.clock)

    def delivering(
        self, *receivers: FakeReceiver, store: Any = None, owner: str = "me"
    ) -> AbstractAsyncContextManager[None]:
        """Run a daemon's delivery loop beside the body."""
        return running(self.daemon(store or self.store, receivers, owner))

    async def rows(self) -> dict[str, Any]:
        def read(connection: Connection) -> dict[str, Any]:
            return {row.dedup_key: row for row in connection.execute(text("SELECT * FROM outbox ORDER BY id"))}

        return await self.store.read(read)

    async def rows_with_outcomes(self) -> dict[str, Any]:
        """Return the rows once no attempt is under way, and the daemon has seen its outcome stored."""
        async with asyncio.timeout(20):
            rows = await self.rows()
            while any(row.error == outbox.OUTCOME_UNKNOWN for row in rows.values()):
                rows = await self.rows()
        await self.let_run(2)
        return rows

    async def let_run(self, n_renewals: int = 12) -> None:
        """Let the daemon run for some renewals of the lease. One takes the database as long as an attempt's step."""
        seen = self.clock.n_renewals
        await wait_until(lambda: self.clock.n_renewals >= seen + n_renewals)

    async def expire_lease(self) -> None:
        await self.store.run(lambda connection: connection.execute(text("UPDATE lease SET until_us = 0")))


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as store:
        yield Harness(store)
        assert store.n_checked_out == 0


@pytest.fixture
def logged() -> Iterator[Events]:
    with capture_logs() as events:
        yield events


def named(logged: Events, name: str) -> Events:
    return [event for event in logged if event["event"] == name]


def counted() -> dict[str, float]:
    name = "monitor_notifications_total"
    outcomes = ("delivered", "failed", "given_up")
    return {each: metrics.registry.get_sample_value(name, {"outcome": each}) or 0.0 for each in outcomes}


# ---------------------------------------------------------------- without failures


async def test_each_notification_arrives_once_oldest_first(harness: Harness, logged: Events) -> None:
    await harness.enqueue("a:firing", "b:firing", "a:closed")
    receiver = FakeReceiver()
    async with harness.delivering(receiver):
        await wait_until(lambda: len(named(logged, "notified")) == 3)
        await harness.let_run()
    assert receiver.received == receiver.requested == ["duty:a:firing", "duty:b:firing", "duty:a:closed"]
    assert {(row.attempts, row.delivered_us, row.error) for row in (await harness.rows()).values()} == {
        (1, harness.clock.now_us(), None)
    }
    assert {event["attempts"] for event in named(logged, "notified")} == {1}


async def test_a_notification_stored_later_arrives_too(harness: Harness) -> None:
    receiver = FakeReceiver()
    async with harness.delivering(receiver):
        await harness.let_run()
        await harness.enqueue("a:firing")
        await wait_until(lambda: receiver.received == ["duty:a:firing"])


async def test_each_channel_gets_its_own_notifications(harness: Harness) -> None:
    duty, pager = FakeReceiver(), FakeReceiver("pager")
    await harness.enqueue("a:firing")
    await harness.enqueue("b:firing", channel="pager")
    async with harness.delivering(duty, pager):
        await wait_until(lambda: bool(duty.received) and bool(pager.received))
        await harness.let_run()
    assert (duty.received, pager.received) == (["duty:a:firing"], ["pager:b:firing"])


# ---------------------------------------------------------------- channels that fail


async def test_a_hanging_channel_holds_up_no_other(harness: Harness) -> None:
    slow, quick = FakeReceiver("slow"), FakeReceiver("quick")
    slow.responds.clear()
    await harness.enqueue("a:firing", "b:firing", channel="slow")
    await harness.enqueue("a:firing", "b:firing", channel="quick")
    async with harness.delivering(slow, quick):
        await wait_until(lambda: len(quick.received) == 2)
        assert slow.requested == ["slow:a:firing"]
        slow.responds.set()
        await wait_until(lambda: len(slow.received) == 2)


async def test_a_failed_notification_waits_longer_each_time(harness: Harness) -> None:
    receiver = FakeReceiver("duty", *[DOWN] * 16)
    await harness.enqueue("a:firing")
    waits_s = []
    async with harness.delivering(receiver):
        for n in range(1, 17):
            await wait_until(lambda n=n: len(receiver.requested) == n)  # type: ignore[misc]
            row = (await harness.rows_with_outcomes())["duty:a:firing"]
            waits_s.append((row.next_try_us - harness.clock.now_us()) / 1e6)
            await harness.let_run()
            assert len(receiver.requested) == n, "not before its time"
            harness.clock.advance(max(waits_s[-1], 10.0))
        await wait_until(lambda: receiver.received == ["duty:a:firing"])
    assert set(receiver.requested) == {"duty:a:firing"}
    for n, wait_s in enumerate(waits_s):
        assert min(2.0**n / 2, HOUR_S / 2) <= wait_s <= min(2.0**n, HOUR_S)
    assert len({wait_s / min(2.0**n, HOUR_S) for n, wait_s in enumerate(waits_s[:12])}) > 6, "the waits are random"


async def test_a_failure_delays_its_own_alert_but_no_other(harness: Harness) -> None:
    receiver = FakeReceiver("duty", DOWN)
    await harness.enqueue("a:firing", "a:closed", "b:firing")
    async with harness.delivering(receiver):
        await wait_until(lambda: len(receiver.requested) == 1)
        await harness.rows_with_outcomes()
        await harness.let_run()
        assert len(receiver.requested) == 1, "a channel that failed pauses"
        harness.clock.advance(1.0)
        await wait_until(lambda: len(receiver.received) == 3)
    assert receiver.received.index("duty:a:firing") < receiver.received.index("duty:a:closed")


async def test_a_notification_that_always_fails_holds_up_no_other(harness: Harness) -> None:
    """The long wait of the failing notification is no pause of the channel."""

    class Selective(FakeReceiver):
        async def send(self, key: str, body: bytes) -> Failure | None:
            self.answers = [DOWN] if "bad" in key else []
            return await super().send(key, body)

    receiver = Selective()
    await harness.enqueue("bad:firing")
    async with harness.delivering(receiver):
        for n in range(1, 12):
            await wait_until(lambda n=n: len(receiver.requested) == n)  # type: ignore[misc]
            await harness.rows_with_outcomes()
            harness.clock.advance(HOUR_S)
        await wait_until(lambda: len(receiver.requested) == 12)
        await harness.rows_with_outcomes()
        harness.clock.advance(10.0)
        await harness.enqueue("good:firing")
        await wait_until(lambda: receiver.received == ["duty:good:firing"])


@pytest.mark.parametrize("requested_s", [120.0, 7 * HOUR_S])
async def test_retry_after_holds_for_up_to_an_hour(harness: Harness, requested_s: float) -> None:
    receiver = FakeReceiver("duty", Failure("HTTP 429", retry_after_s=requested_s))
    await harness.enqueue("a:firing", "b:firing")
    async with harness.delivering(receiver):
        await wait_until(lambda: len(receiver.requested) == 1)
        await harness.rows_with_outcomes()
        harness.clock.advance(min(requested_s, HOUR_S) - 1)
        await harness.let_run()
        assert len(receiver.requested) == 1
        harness.clock.advance(1.0)
        await wait_until(lambda: len(receiver.received) == 2)


async def test_outage_and_recovery_are_logged_once(harness: Harness, logged: Events) -> None:
    receiver = FakeReceiver("duty", *[DOWN] * 5)
    await harness.enqueue("a:firing")
    async with harness.delivering(receiver):
        for n in range(1, 6):
            await wait_until(lambda n=n: len(receiver.requested) == n)  # type: ignore[misc]
            await harness.rows_with_outcomes()
            harness.clock.advance(60.0)
        await wait_until(lambda: bool(named(logged, "notify_back")))
    [failed], [back] = named(logged, "notify_failed"), named(logged, "notify_back")
    assert (failed["channel"], failed["error"]) == ("duty", "HTTP 503")
    assert back["after_s"] == 300.0
    assert named(logged, "notified")[0]["attempts"] == 6


@pytest.mark.parametrize("n_failed", [1, 2])
async def test_after_an_outage_all_notifications_are_due(harness: Harness, n_failed: int) -> None:
    """One failure may be due to its notification, which keeps its wait. Two in a row were an outage of the channel."""
    receiver = FakeReceiver("duty", *[DOWN] * n_failed)
    await harness.enqueue("a:firing")
    async with harness.delivering(receiver):
        for n in range(1, n_failed + 1):
            await wait_until(lambda n=n: len(receiver.requested) == n)  # type: ignore[misc]
            await harness.rows_with_outcomes()
            next_try_us = harness.clock.now_us() + (10 if n < n_failed else 1800) * 10**6
            later = f"UPDATE outbox SET next_try_us = {next_try_us}"
            await harness.store.run(lambda connection, sql=later: connection.execute(text(sql)))  # type: ignore[misc]
            harness.clock.advance(10.0)
        await harness.enqueue("b:firing")
        await wait_until(lambda: len(receiver.received) == n_failed)
        await harness.let_run()
        assert receiver.received == ["duty:b:firing", "duty:a:firing"][:n_failed]


async def test_after_a_restart_all_notifications_are_due(harness: Harness) -> None:
    """After a corrected token the next attempt is immediate, so an operator sees the result at once."""
    receiver = FakeReceiver("duty", *[REFUSED] * 10)
    await harness.enqueue("a:firing")
    async with harness.delivering(receiver):
        for n in range(1, 11):
            await wait_until(lambda n=n: len(receiver.requested) == n)  # type: ignore[misc]
            await harness.rows_with_outcomes()
            harness.clock.advance(600.0 if n < 10 else 1.0)
    async with harness.delivering(receiver):
        await wait_until(lambda: receiver.received == ["duty:a:firing"])


# ---------------------------------------------------------------- giving up


async def is_given_up(harness: Harness, logged: Events, receiver: FakeReceiver, age_s: float, n_attempts: int) -> bool:
    """Make failed attempts until a notification has this age; return whether it is given up then."""
    await harness.enqueue("a:firing", "a:closed")
    async with harness.delivering(receiver):
        await wait_until(lambda: len(receiver.requested) == 1)
        for n in range(2, n_attempts + 1):
            await harness.rows_with_outcomes()
            harness.clock.advance(age_s / (n_attempts - 1))
            await wait_until(lambda n=n: len(receiver.requested) == n)  # type: ignore[misc]
        await harness.rows_with_outcomes()
    is_so = (await harness.rows())["duty:a:firing"].next_try_us == outbox.ABANDONED_US
    assert is_so == bool(named(logged, "notify_given_up"))
    return is_so


@pytest.mark.parametrize(("short_by_s", "expected"), [(0.0, True), (60.0, False)])
async def test_a_failed_notification_is_given_up_after_three_days(
    harness: Harness, logged: Events, short_by_s: float, expected: bool
) -> None:
    receiver = FakeReceiver("duty", *[DOWN] * 4)
    assert FAILED_AFTER_S == 72 * HOUR_S
    assert await is_given_up(harness, logged, receiver, FAILED_AFTER_S - short_by_s, 4) is expected


@pytest.mark.parametrize(("short_by_s", "expected"), [(0.0, True), (60.0, False)])
async def test_a_refused_notification_is_given_up_after_a_day(
    harness: Harness, logged: Events, short_by_s: float, expected: bool
) -> None:
    receiver = FakeReceiver("duty", *[REFUSED] * 4)
    assert REFUSED_AFTER_S == 24 * HOUR_S
    assert await is_given_up(harness, logged, receiver, REFUSED_AFTER_S - short_by_s, 4) is expected


async def test_one_refusal_after_an_outage_is_not_final(harness: Harness, logged: Events) -> None:
    """A gateway answers 404 while the service behind it starts."""
    receiver = FakeReceiver("duty", DOWN, DOWN, REFUSED)
    assert not await is_given_up(harness, logged, receiver, REFUSED_AFTER_S * 1.5, 3)


async def test_notifications_after_an_abandoned_one_are_sent(harness: Harness, logged: Events) -> None:
    receiver, before = FakeReceiver("duty", DOWN, DOWN), counted()
    assert await is_given_up(harness, logged, receiver, FAILED_AFTER_S, 2)
    [event] = named(logged, "notify_given_up")
    assert (event["key"], event["attempts"], event["error"]) == ("duty:a:firing", 2, "HTTP 503")
    async with harness.delivering(receiver):
        await wait_until(lambda: receiver.received == ["duty:a:closed"])
    added = {outcome: n - before[outcome] for outcome, n in counted().items()}
    assert added == {"delivered": 1.0, "failed": 1.0, "given_up": 1.0}


@pytest.mark.parametrize("jumped_s", [400 * 24 * HOUR_S, -400 * 24 * HOUR_S])
@pytest.mark.parametrize("has_restart", [False, True])
async def test_a_jump_of_the_clock_gives_nothing_up(
    harness: Harness, logged: Events, jumped_s: float, has_restart: bool
) -> None:
    receiver = FakeReceiver("duty", *[DOWN] * 20)
    await harness.enqueue("a:firing")
    async with harness.delivering(receiver):
        await wait_until(lambda: len(receiver.requested) == 1)
        await harness.rows_with_outcomes()
        harness.clock.jumped_s = jumped_s
        if not has_restart:
            await fail_again(harness, receiver, until=10)
            await harness.enqueue("b:firing")
    if has_restart:
        async with harness.delivering(receiver):
            await fail_again(harness, receiver, until=10)
    assert not named(logged, "notify_given_up")
    receiver.answers.clear()
    async with harness.delivering(receiver):
        await wait_until(lambda: "duty:a:firing" in receiver.received)


async def fail_again(harness: Harness, receiver: FakeReceiver, *, until: int) -> None:
    for n in range(len(receiver.requested) + 1, until + 1):
        harness.clock.advance(300.0)
        await wait_until(lambda n=n: len(receiver.requested) == n)  # type: ignore[misc]
        await harness.rows_with_outcomes()


async def test_an_old_notification_is_attempted_at_least_once(harness: Harness) -> None:
    receiver = FakeReceiver()
    await harness.enqueue("a:firing")
    harness.clock.advance(2 * FAILED_AFTER_S)
    async with harness.delivering(receiver):
        await wait_until(lambda: receiver.received == ["duty:a:firing"])


async def test_old_rows_are_deleted_and_unknown_channels_given_up(harness: Harness, logged: Events) -> None:
    receiver = FakeReceiver()
    await harness.enqueue("a:firing")
    await harness.enqueue("a:firing", channel="gone")
    async with harness.delivering(receiver):
        await wait_until(lambda: bool(receiver.received))
    harness.clock.advance(DEFAULT_TIMING.outbox_keep_s + 1)
    await harness.enqueue("b:firing", channel="gone")
    async with harness.delivering(receiver):
        await wait_until(lambda: bool(named(logged, "notify_given_up")))
    assert [event["key"] for event in named(logged, "notify_given_up")] == ["gone:a:firing"]
    assert (await harness.rows()).keys() == {"gone:a:firing", "gone:b:firing"}


# ---------------------------------------------------------------- several daemons


async def test_one_daemon_sends_and_the_next_takes_over_at_once(harness: Harness) -> None:
    first, second = FakeReceiver(), FakeReceiver()
    async with harness.delivering(second, owner="you"):
        await harness.let_run()
        async with harness.delivering(first, owner="me"):
            await harness.enqueue("a:firing")
            await wait_until(lambda: len(first.received + second.received) == 1)
            await harness.let_run()
        assert first.requested == []
    async with harness.delivering(first, owner="me"):
        await harness.enqueue("b:firing")
        await wait_until(lambda: first.received == ["duty:b:firing"])
    assert second.received == ["duty:a:firing"]


async def test_two_daemons_of_one_name_do_not_share_the_lease(harness: Harness) -> None:
    """Containers may have the same host name, and process id 1."""
    first, second = FakeReceiver(), FakeReceiver()
    await harness.enqueue(*(f"{n}:firing" for n in range(20)))
    async with harness.delivering(first, owner="monitor:1"):
        await wait_until(lambda: bool(first.received))
        async with harness.delivering(second, owner="monitor:1"):
            await wait_until(lambda: len(first.received) == 20)
            await harness.let_run()
    assert second.requested == []


async def test_a_daemon_that_lost_the_lease_unnoticed_sends_nothing(harness: Harness) -> None:
    """As after a suspension: no renewal tells the daemon that another one has the lease."""
    receiver = FakeReceiver()
    store = FaultyStore(harness.store)
    async with harness.delivering(receiver, store=store):
        await harness.let_run()
        store.unavailable_for = {leases.acquire}
        await harness.expire_lease()
        epoch = await harness.store.run(leases.acquire, outbox.LEASE, "another", 60.0)
        await harness.enqueue("a:firing")
        await harness.let_run()
        assert receiver.requested == []
        assert epoch is not None
        await harness.store.run(leases.release, outbox.LEASE, "another", epoch)
        await harness.let_run()
        assert receiver.requested == []
        store.unavailable_for = set()
        await wait_until(lambda: receiver.received == ["duty:a:firing"])
    assert receiver.requested == ["duty:a:firing"]


async def test_an_outcome_is_stored_after_any_database_outage(harness: Harness) -> None:
    receiver = FakeReceiver()
    store = FaultyStore(harness.store)
    store.unavailable_for = {outbox.mark_delivered}
    await harness.enqueue("a:firing")
    async with harness.delivering(receiver, store=store):
        await wait_until(lambda: bool(receiver.received))
        await harness.let_run()
        await harness.expire_lease()
        await harness.let_run()
        store.unavailable_for = set()
        await harness.rows_with_outcomes()
        await harness.let_run()
    assert receiver.requested == ["duty:a:firing"]
    assert (await harness.rows())["duty:a:firing"].delivered_us is not None


# ---------------------------------------------------------------- stopping


async def test_a_stop_lets_the_attempt_in_hand_end(harness: Harness, logged: Events) -> None:
    receiver = FakeReceiver()
    receiver.responds.clear()
    await harness.enqueue("a:firing", "b:firing")
    async with harness.delivering(receiver):
        await wait_until(lambda: bool(receiver.requested))
        asyncio.get_running_loop().call_later(0.05, receiver.responds.set)
    assert receiver.received == receiver.requested == ["duty:a:firing"]
    assert (await harness.rows())["duty:a:firing"].delivered_us is not None
    assert (await harness.rows())["duty:b:firing"].attempts == 0


async def test_a_stop_does_not_wait_for_a_hanging_receiver(harness: Harness, logged: Events) -> None:
    receiver = FakeReceiver()
    receiver.responds.clear()
    await harness.enqueue("a:firing")
    began_s = asyncio.get_running_loop().time()
    async with harness.delivering(receiver):
        await wait_until(lambda: bool(receiver.requested))
    assert asyncio.get_running_loop().time() - began_s < 2.0
    receiver.responds.set()
    async with harness.delivering(receiver):
        await wait_until(lambda: receiver.received == ["duty:a:firing"])
    [again] = named(logged, "notify_again")
    assert (again["key"], again["attempts"]) == ("duty:a:firing", 1)


FUNCTIONS = (leases.acquire, outbox.start_attempt, outbox.mark_delivered, outbox.mark_failed)
STEPS = [(when, function) for function in FUNCTIONS for when in ("before", "after")]


@pytest.mark.parametrize("step", STEPS, ids=[f"{when} {function.__name__}" for when, function in STEPS])
async def test_a_daemon_killed_at_any_step_loses_no_notification(harness: Harness, logged: Events, step: Step) -> None:
    """Three notifications, the first of which fails once. Only one without a stored outcome may come twice."""
    keys = {"duty:a:firing", "duty:b:firing", "duty:a:closed"}
    harness.clock.advances_in_sleep = True
    await harness.enqueue("a:firing", "b:firing", "a:closed")
    receiver = FakeReceiver("duty", DOWN)
    store = FaultyStore(harness.store)
    store.killed_at = step
    with pytest.raises(BaseExceptionGroup) as caught:
        await harness.daemon(store, [receiver]).loop()
    assert caught.group_contains(SimulatedKill)
    await harness.expire_lease()
    n_without_outcome = sum(row.error == outbox.OUTCOME_UNKNOWN for row in (await harness.rows()).values())
    async with harness.delivering(receiver):
        await wait_until(lambda: set(receiver.received) == keys)
        await harness.rows_with_outcomes()
    received, rows = Counter(receiver.received), await harness.rows()
    assert received.keys() == keys
    n_twice = sum(n - 1 for n in received.values())
    assert n_twice == (step == ("before", outbox.mark_delivered))
    assert n_twice <= n_without_outcome == len(named(logged, "notify_again"))
    for key, row in rows.items():
        assert row.delivered_us is not None
        assert receiver.requested.count(key) <= row.attempts
