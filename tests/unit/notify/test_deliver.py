"""The outbox's loop, with people who hang, refuse and fail, and with a daemon that dies at each step.

Time moves only when a test says so; the lease's is the database's own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from monitor import metrics
from monitor.errors import StoreUnavailable
from monitor.notify.deliver import FAILED_FOR_S, KEEP_S, REFUSED_FOR_S, Delivery
from monitor.notify.webhook import Failure
from monitor.store import leases, outbox
from monitor.store.engine import AsyncStore
from monitor.store.lease import RENEW_EVERY_S, Lease
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
    from pathlib import Path

    Said = list[MutableMapping[str, Any]]

DOWN = Failure("HTTP 503")
REFUSED = Failure("HTTP 401", is_refusal=True)
HOUR_S = 3600.0


class HandClock(FakeClock):
    """Moves when a test says so; who sleeps only lets the others run."""

    moves_by_itself = False
    n_renewals = 0

    async def sleep(self, seconds: float) -> None:
        self.n_renewals += seconds == RENEW_EVERY_S
        if self.moves_by_itself:
            self.advance(seconds)
        await asyncio.sleep(0)


class Phone:
    """Somebody to tell. What is answered next is in `answers`; afterwards everything arrives."""

    def __init__(self, name: str = "duty", *answers: Failure | None) -> None:
        self.name = name
        self.answers = list(answers)
        self.asked: list[str] = []
        self.heard: list[str] = []
        self.hangs = asyncio.Event()
        self.hangs.set()

    async def send(self, key: str, body: bytes) -> Failure | None:
        self.asked.append(key)
        assert body == f"about {key}".encode()
        answer = self.answers.pop(0) if self.answers else None
        await self.hangs.wait()
        if answer is None:
            self.heard.append(key)
        return answer


class Dies(BaseException):
    """kill -9"""


class Mortal:
    """A store whose process dies before or after its n-th call of one function; and one that may be away."""

    def __init__(self, store: AsyncStore) -> None:
        self.store = store
        self.dies: tuple[str, str] | None = None
        self.is_away_for: set[str] = set()

    async def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        if fn.__name__ in self.is_away_for:
            raise StoreUnavailable("away")
        if self.dies == ("before", fn.__name__):
            raise Dies
        result = await self.store.run(fn, *args)
        if self.dies == ("after", fn.__name__):
            raise Dies
        return result

    async def read(self, fn: Callable[..., Any], *args: Any) -> Any:
        return await self.store.read(fn, *args)


class Town:
    """A database with letters, and daemons that deliver them."""

    def __init__(self, store: AsyncStore) -> None:
        self.store = store
        self.clock = HandClock()

    async def post(self, *keys: str, channel: str = "duty") -> None:
        """`key` is alert:step."""

        def put(connection: Connection) -> None:
            for key in keys:
                full = f"{channel}:{key}"
                row = {"key": full, "channel": channel, "body": f"about {full}", "now_us": self.clock.now_us()}
                sql = "INSERT INTO outbox (dedup_key, channel, body, created_us, next_try_us)"
                connection.execute(text(f"{sql} VALUES (:key, :channel, :body, :now_us, 0)"), row)

        await self.store.run(put)

    def daemon(self, store: Any, phones: Sequence[Phone], owner: str = "me") -> Delivery:
        return Delivery(store, Lease(store, outbox.LEASE, owner, self.clock), phones, self.clock)

    @asynccontextmanager
    async def delivering(self, *phones: Phone, store: Any = None, owner: str = "me") -> AsyncIterator[Delivery]:
        delivery = self.daemon(store or self.store, phones, owner)
        loop = asyncio.create_task(delivery.loop())
        try:
            yield delivery
            assert not loop.done()
        finally:
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 (of the loop's own making)
                await asyncio.sleep(0)

    async def rows(self) -> dict[str, Any]:
        def read(connection: Connection) -> dict[str, Any]:
            return {row.dedup_key: row for row in connection.execute(text("SELECT * FROM outbox ORDER BY id"))}

        return await self.store.read(read)

    async def settled(self) -> dict[str, Any]:
        """The rows once no try is under way, and who made it knows."""
        async with asyncio.timeout(20):
            rows = await self.rows()
            while any(row.error == outbox.NO_OUTCOME for row in rows.values()):
                rows = await self.rows()
        await self.rests(2)
        return rows

    async def rests(self, n: int = 12) -> None:
        """Wait while the lease is renewed so many times, which takes the database as long as a letter's steps do."""
        seen = self.clock.n_renewals
        await self.until(lambda: self.clock.n_renewals >= seen + n)

    async def the_lease_runs_out(self) -> None:
        await self.store.run(lambda connection: connection.execute(text("UPDATE lease SET until_us = 0")))


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as store:
        yield Town(store)
        assert store.n_checked_out == 0


@pytest.fixture
def said() -> Iterator[Said]:
    with capture_logs() as events:
        yield events


def events(said: Said, name: str) -> Said:
    return [event for event in said if event["event"] == name]


def counted() -> dict[str, float]:
    name = "monitor_notifications_total"
    outcomes = ("delivered", "failed", "given_up")
    return {each: metrics.registry.get_sample_value(name, {"outcome": each}) or 0.0 for each in outcomes}


# ---------------------------------------------------------------- when all is well


async def test_every_letter_arrives_once_and_the_oldest_first(town: Town, said: Said) -> None:
    await town.post("a:firing", "b:firing", "a:closed")
    phone = Phone()
    async with town.delivering(phone):
        await town.until(lambda: len(events(said, "notified")) == 3)
        await town.rests()
    assert phone.heard == phone.asked == ["duty:a:firing", "duty:b:firing", "duty:a:closed"]
    assert {(row.attempts, row.delivered_us, row.error) for row in (await town.rows()).values()} == {
        (1, town.clock.now_us(), None)
    }
    assert {event["attempts"] for event in events(said, "notified")} == {1}


async def test_letters_that_come_while_it_runs_arrive_too(town: Town) -> None:
    phone = Phone()
    async with town.delivering(phone):
        await town.rests()
        await town.post("a:firing")
        await town.until(lambda: phone.heard == ["duty:a:firing"])


async def test_each_channel_gets_its_own(town: Town) -> None:
    duty, pager = Phone(), Phone("pager")
    await town.post("a:firing")
    await town.post("b:firing", channel="pager")
    async with town.delivering(duty, pager):
        await town.until(lambda: bool(duty.heard) and bool(pager.heard))
        await town.rests()
    assert (duty.heard, pager.heard) == (["duty:a:firing"], ["pager:b:firing"])


# ---------------------------------------------------------------- when a channel fails


async def test_a_channel_that_hangs_holds_up_no_other(town: Town) -> None:
    slow, quick = Phone("slow"), Phone("quick")
    slow.hangs.clear()
    await town.post("a:firing", "b:firing", channel="slow")
    await town.post("a:firing", "b:firing", channel="quick")
    async with town.delivering(slow, quick):
        await town.until(lambda: len(quick.heard) == 2)
        assert slow.asked == ["slow:a:firing"]
        slow.hangs.set()
        await town.until(lambda: len(slow.heard) == 2)


async def test_a_failed_letter_comes_again_with_the_same_key_ever_later(town: Town) -> None:
    phone = Phone("duty", *[DOWN] * 16)
    await town.post("a:firing")
    waits_s = []
    async with town.delivering(phone):
        for n in range(1, 17):
            await town.until(lambda n=n: len(phone.asked) == n)  # type: ignore[misc]
            row = (await town.settled())["duty:a:firing"]
            waits_s.append((row.next_try_us - town.clock.now_us()) / 1e6)
            await town.rests()
            assert len(phone.asked) == n, "not before its time"
            town.clock.advance(max(waits_s[-1], 10.0))
        await town.until(lambda: phone.heard == ["duty:a:firing"])
    assert set(phone.asked) == {"duty:a:firing"}
    for n, wait_s in enumerate(waits_s):
        assert min(2.0**n / 2, HOUR_S / 2) <= wait_s <= min(2.0**n, HOUR_S)
    assert len({wait_s / min(2.0**n, HOUR_S) for n, wait_s in enumerate(waits_s[:12])}) > 6, "no two alike"


async def test_a_letter_that_fails_lets_other_alerts_pass_but_not_its_own(town: Town) -> None:
    phone = Phone("duty", DOWN)
    await town.post("a:firing", "a:closed", "b:firing")
    async with town.delivering(phone):
        await town.until(lambda: len(phone.asked) == 1)
        await town.settled()
        await town.rests()
        assert len(phone.asked) == 1, "a channel that failed rests"
        town.clock.advance(1.0)
        await town.until(lambda: len(phone.heard) == 3)
    assert phone.heard.index("duty:a:firing") < phone.heard.index("duty:a:closed")


async def test_a_letter_that_never_passes_holds_up_nobody_else(town: Town) -> None:
    """Half an hour of pause for the bad one is none for those that come."""

    class Picky(Phone):
        async def send(self, key: str, body: bytes) -> Failure | None:
            self.answers = [DOWN] if "bad" in key else []
            return await super().send(key, body)

    phone = Picky()
    await town.post("bad:firing")
    async with town.delivering(phone):
        for n in range(1, 12):
            await town.until(lambda n=n: len(phone.asked) == n)  # type: ignore[misc]
            await town.settled()
            town.clock.advance(HOUR_S)
        await town.until(lambda: len(phone.asked) == 12)
        await town.settled()
        town.clock.advance(10.0)
        await town.post("good:firing")
        await town.until(lambda: phone.heard == ["duty:good:firing"])


@pytest.mark.parametrize("asked_s", [120.0, 7 * HOUR_S])
async def test_a_channel_that_asks_for_time_gets_it_but_no_more_than_an_hour(town: Town, asked_s: float) -> None:
    phone = Phone("duty", Failure("HTTP 429", retry_after_s=asked_s))
    await town.post("a:firing", "b:firing")
    async with town.delivering(phone):
        await town.until(lambda: len(phone.asked) == 1)
        await town.settled()
        town.clock.advance(min(asked_s, HOUR_S) - 1)
        await town.rests()
        assert len(phone.asked) == 1
        town.clock.advance(1.0)
        await town.until(lambda: len(phone.heard) == 2)


async def test_an_outage_is_said_once_and_so_is_its_end(town: Town, said: Said) -> None:
    phone = Phone("duty", *[DOWN] * 5)
    await town.post("a:firing")
    async with town.delivering(phone):
        for n in range(1, 6):
            await town.until(lambda n=n: len(phone.asked) == n)  # type: ignore[misc]
            await town.settled()
            town.clock.advance(60.0)
        await town.until(lambda: bool(events(said, "notify_back")))
    [failed], [back] = events(said, "notify_failed"), events(said, "notify_back")
    assert (failed["channel"], failed["error"]) == ("duty", "HTTP 503")
    assert back["after_s"] == 300.0
    assert events(said, "notified")[0]["attempts"] == 6


@pytest.mark.parametrize("n_failed", [1, 2])
async def test_after_an_outage_nobody_waits_for_their_turn(town: Town, n_failed: int) -> None:
    """One failure is the letter's own trouble, and it keeps its distance; two in a row were the channel's."""
    phone = Phone("duty", *[DOWN] * n_failed)
    await town.post("a:firing")
    async with town.delivering(phone):
        for n in range(1, n_failed + 1):
            await town.until(lambda n=n: len(phone.asked) == n)  # type: ignore[misc]
            await town.settled()
            later = f"UPDATE outbox SET next_try_us = {town.clock.now_us() + (10 if n < n_failed else 1800) * 10**6}"
            await town.store.run(lambda connection, sql=later: connection.execute(text(sql)))  # type: ignore[misc]
            town.clock.advance(10.0)
        await town.post("b:firing")
        await town.until(lambda: len(phone.heard) == n_failed)
        await town.rests()
        assert phone.heard == ["duty:b:firing", "duty:a:firing"][:n_failed]


async def test_after_a_restart_nobody_waits_either(town: Town) -> None:
    """The token was corrected: the operator need not wait for an hour to see whether it is right now."""
    phone = Phone("duty", *[REFUSED] * 10)
    await town.post("a:firing")
    async with town.delivering(phone):
        for n in range(1, 11):
            await town.until(lambda n=n: len(phone.asked) == n)  # type: ignore[misc]
            await town.settled()
            town.clock.advance(600.0 if n < 10 else 1.0)
    async with town.delivering(phone):
        await town.until(lambda: phone.heard == ["duty:a:firing"])


# ---------------------------------------------------------------- when to give up


async def given_up(town: Town, said: Said, phone: Phone, age_s: float, n_tries: int) -> bool:
    await town.post("a:firing", "a:closed")
    async with town.delivering(phone):
        await town.until(lambda: len(phone.asked) == 1)
        for n in range(2, n_tries + 1):
            await town.settled()
            town.clock.advance(age_s / (n_tries - 1))
            await town.until(lambda n=n: len(phone.asked) == n)  # type: ignore[misc]
        await town.settled()
    is_so = (await town.rows())["duty:a:firing"].next_try_us == outbox.GIVEN_UP_US
    assert is_so == bool(events(said, "notify_given_up"))
    return is_so


@pytest.mark.parametrize(("short_by_s", "expected"), [(0.0, True), (60.0, False)])
async def test_a_letter_is_given_up_after_three_days(town: Town, said: Said, short_by_s: float, expected: bool) -> None:
    phone = Phone("duty", *[DOWN] * 4)
    assert await given_up(town, said, phone, FAILED_FOR_S - short_by_s, 4) is expected


@pytest.mark.parametrize(("short_by_s", "expected"), [(0.0, True), (60.0, False)])
async def test_a_refused_letter_is_given_up_after_a_day(
    town: Town, said: Said, short_by_s: float, expected: bool
) -> None:
    phone = Phone("duty", *[REFUSED] * 4)
    assert await given_up(town, said, phone, REFUSED_FOR_S - short_by_s, 4) is expected


async def test_one_refusal_after_a_long_outage_is_not_the_end(town: Town, said: Said) -> None:
    """A gateway says 404 while what is behind it starts."""
    phone = Phone("duty", DOWN, DOWN, REFUSED)
    assert not await given_up(town, said, phone, REFUSED_FOR_S * 1.5, 3)


async def test_what_comes_after_a_letter_that_was_given_up_goes_on(town: Town, said: Said) -> None:
    phone, before = Phone("duty", DOWN, DOWN), counted()
    assert await given_up(town, said, phone, FAILED_FOR_S, 2)
    [event] = events(said, "notify_given_up")
    assert (event["key"], event["attempts"], event["error"]) == ("duty:a:firing", 2, "HTTP 503")
    async with town.delivering(phone):
        await town.until(lambda: phone.heard == ["duty:a:closed"])
    added = {outcome: n - before[outcome] for outcome, n in counted().items()}
    assert added == {"delivered": 1.0, "failed": 1.0, "given_up": 1.0}


async def test_a_letter_that_waited_for_a_daemon_longer_than_that_is_tried_all_the_same(town: Town) -> None:
    phone = Phone()
    await town.post("a:firing")
    town.clock.advance(2 * FAILED_FOR_S)
    async with town.delivering(phone):
        await town.until(lambda: phone.heard == ["duty:a:firing"])


async def test_old_letters_are_removed_and_those_to_nobody_given_up(town: Town, said: Said) -> None:
    phone = Phone()
    await town.post("a:firing")
    await town.post("a:firing", channel="gone")
    async with town.delivering(phone):
        await town.until(lambda: bool(phone.heard))
    town.clock.advance(KEEP_S + 1)
    await town.post("b:firing", channel="gone")
    async with town.delivering(phone):
        await town.until(lambda: bool(events(said, "notify_given_up")))
    assert [event["key"] for event in events(said, "notify_given_up")] == ["gone:a:firing"]
    assert (await town.rows()).keys() == {"gone:a:firing", "gone:b:firing"}


# ---------------------------------------------------------------- who sends


async def test_one_daemon_sends_and_the_next_takes_over_at_once(town: Town) -> None:
    first, second = Phone(), Phone()
    async with town.delivering(second, owner="you"):
        await town.rests()
        async with town.delivering(first, owner="me"):
            await town.post("a:firing")
            await town.until(lambda: len(first.heard + second.heard) == 1)
            await town.rests()
        assert first.asked == []
    async with town.delivering(first, owner="me"):
        await town.post("b:firing")
        await town.until(lambda: first.heard == ["duty:b:firing"])
    assert second.heard == ["duty:a:firing"]


async def test_two_daemons_of_one_name_do_not_share_the_lease(town: Town) -> None:
    """Containers: the same host name, process number 1."""
    first, second = Phone(), Phone()
    await town.post(*(f"{n}:firing" for n in range(20)))
    async with town.delivering(first, owner="monitor:1"):
        await town.until(lambda: bool(first.heard))
        async with town.delivering(second, owner="monitor:1"):
            await town.until(lambda: len(first.heard) == 20)
            await town.rests()
    assert second.asked == []


async def test_a_daemon_that_lost_the_lease_in_its_sleep_sends_nothing(town: Town) -> None:
    phone = Phone()
    asleep = Mortal(town.store)
    async with town.delivering(phone, store=asleep):
        await town.rests()
        asleep.is_away_for = {"take"}  # it does not learn of it by renewing
        await town.the_lease_runs_out()
        epoch = await town.store.run(leases.take, outbox.LEASE, "another", 60.0)
        await town.post("a:firing")
        await town.rests()
        assert phone.asked == []
        assert epoch is not None
        await town.store.run(leases.release, outbox.LEASE, "another", epoch)
        await town.rests()
        assert phone.asked == []
        asleep.is_away_for = set()
        await town.until(lambda: phone.heard == ["duty:a:firing"])
    assert phone.asked == ["duty:a:firing"]


async def test_an_outcome_is_written_down_however_long_the_database_is_away(town: Town) -> None:
    phone = Phone()
    store = Mortal(town.store)
    store.is_away_for = {"delivered"}
    await town.post("a:firing")
    async with town.delivering(phone, store=store):
        await town.until(lambda: bool(phone.heard))
        await town.rests()
        await town.the_lease_runs_out()
        await town.rests()
        store.is_away_for = set()
        await town.settled()
        await town.rests()
    assert phone.asked == ["duty:a:firing"]
    assert (await town.rows())["duty:a:firing"].delivered_us is not None


# ---------------------------------------------------------------- when we stop


async def test_stopping_lets_the_try_in_hand_end(town: Town, said: Said) -> None:
    phone = Phone()
    phone.hangs.clear()
    await town.post("a:firing", "b:firing")
    async with town.delivering(phone):
        await town.until(lambda: bool(phone.asked))
        asyncio.get_running_loop().call_later(0.05, phone.hangs.set)
    assert phone.heard == phone.asked == ["duty:a:firing"]
    assert (await town.rows())["duty:a:firing"].delivered_us is not None
    assert (await town.rows())["duty:b:firing"].attempts == 0


async def test_stopping_does_not_wait_for_one_that_hangs_and_its_letter_stays(town: Town, said: Said) -> None:
    phone = Phone()
    phone.hangs.clear()
    await town.post("a:firing")
    began_s = asyncio.get_running_loop().time()
    async with town.delivering(phone):
        await town.until(lambda: bool(phone.asked))
    assert asyncio.get_running_loop().time() - began_s < 2.0
    phone.hangs.set()
    async with town.delivering(phone):
        await town.until(lambda: phone.heard == ["duty:a:firing"])
    [again] = events(said, "notify_again")
    assert (again["key"], again["attempts"]) == ("duty:a:firing", 1)


STEPS = [(when, what) for what in ("take", "begin", "delivered", "failed") for when in ("before", "after")]


@pytest.mark.parametrize("step", STEPS, ids=" ".join)
async def test_a_daemon_killed_at_any_step_loses_no_letter(town: Town, said: Said, step: tuple[str, str]) -> None:
    """Three letters, the first of which fails once. What may come twice is what was sent and not written down."""
    keys = {"duty:a:firing", "duty:b:firing", "duty:a:closed"}
    town.clock.moves_by_itself = True
    await town.post("a:firing", "b:firing", "a:closed")
    phone = Phone("duty", DOWN)
    mortal = Mortal(town.store)
    mortal.dies = step
    with pytest.raises(BaseExceptionGroup) as caught:
        await town.daemon(mortal, [phone]).loop()
    assert caught.group_contains(Dies)
    await town.the_lease_runs_out()
    n_unsure = sum(row.error == outbox.NO_OUTCOME for row in (await town.rows()).values())
    async with town.delivering(phone):
        await town.until(lambda: set(phone.heard) == keys)
        await town.settled()
    heard, rows = Counter(phone.heard), await town.rows()
    assert heard.keys() == keys
    n_twice = sum(n - 1 for n in heard.values())
    assert n_twice == (step == ("before", "delivered"))
    assert n_twice <= n_unsure == len(events(said, "notify_again"))
    for key, row in rows.items():
        assert row.delivered_us is not None
        assert phone.asked.count(key) <= row.attempts
