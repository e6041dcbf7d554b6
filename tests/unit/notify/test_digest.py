"""The delivery loop serves people: one digest after an outage, in a flood and after quiet hours; alerts that go on.

Time advances only when a test says so.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from monitor import metrics
from monitor.config.hours import Hours
from monitor.notify.channels import Options
from monitor.notify.deliver import Delivery
from monitor.notify.failure import Failure
from monitor.store import outbox
from monitor.store.engine import AsyncStore
from monitor.store.lease_renewal import Lease
from monitor.timing import DEFAULT_TIMING
from tests.unit.notify.loops import ManualClock, running, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

DOWN = Failure("HTTP 503")
HOUR_S = 3600.0
MINUTE_S = 60.0
PEOPLE = Options(is_for_people=True)
NIGHT = Options(is_for_people=True, quiet=Hours.parse(["22:00-06:00"], "UTC"))
TEN_PM_US = 1_700_085_600_000_000
"""2023-11-15 22:00 UTC."""


class Receiver:
    """A receiver that is down until a test says otherwise, and keeps the requests."""

    def __init__(self, name: str = "people") -> None:
        self.name = name
        self.is_down = False
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.n_attempts = 0
        self.repeated: list[list[dict[str, Any]]] = []

    async def send(self, key: str, body: bytes) -> Failure | None:
        self.n_attempts += 1
        if self.is_down:
            return DOWN
        self.received.append((key, json.loads(body)))
        return None

    def content(self, body: bytes) -> bytes:
        return body

    async def close(self) -> None:
        pass

    @property
    def steps(self) -> list[str]:
        return [body["step"] for _, body in self.received]


class Alertmanager(Receiver):
    """One that forgets an alert unless it is told again."""

    async def repeat(self, bodies: Sequence[bytes]) -> Failure | None:
        self.repeated.append([json.loads(body) for body in bodies])
        return DOWN if self.is_down else None


class Harness:
    """A database with alerts and notifications, and a daemon that delivers them."""

    def __init__(self, store: AsyncStore) -> None:
        self.store = store
        self.clock = ManualClock()
        self.n_alerts = 0

    async def alert(self, severity: str = "warning", channel: str = "people", *, is_open: bool = True) -> str:
        """Store an alert and the notification that it fired. Return the key."""
        self.n_alerts += 1
        n, now_us = self.n_alerts, self.clock.now_us()
        key = f"{channel}:data:late_flood/t/0:{n}:firing"
        body = json.dumps({"key": key, "step": "firing", "id": n, "severity": severity})

        def insert(connection: Connection) -> None:
            connection.execute(
                text("""
                    INSERT INTO alert (id, class, kind, topic, partition, from_offset, opened_us, state, severity,
                        updated_us, closed_us, n_anomalous, sensors, message)
                    VALUES (:n, 'data', 'late_flood', 't', 0, :n, :now, :state, :severity, :now, :closed, 1, '[]', 'm')
                """),
                {
                    "n": n,
                    "now": now_us,
                    "state": "firing" if is_open else "closed",
                    "closed": None if is_open else now_us,
                    "severity": severity,
                },
            )
            connection.execute(
                text("""
                    INSERT INTO outbox (dedup_key, channel, body, severity, created_us, next_try_us)
                    VALUES (:key, :channel, :body, :severity, :now, 0)
                """),
                {"key": key, "channel": channel, "body": body, "severity": severity, "now": now_us},
            )
            connection.execute(
                text("INSERT INTO notified VALUES (:channel, :subject, 'k', '', 'warning', :now)"),
                {"channel": channel, "subject": f"alert {n}", "now": now_us},
            )

        await self.store.run(insert)
        return key

    async def follow(self, step: str) -> None:
        """Store a critical notification of the last alert's next step."""
        key = f"people:data:late_flood/t/0:{self.n_alerts}:{step}"
        body = json.dumps({"key": key, "step": step, "id": self.n_alerts, "severity": "critical"})
        insert = text("""
            INSERT INTO outbox (dedup_key, channel, body, severity, created_us, next_try_us)
            VALUES (:key, 'people', :body, 'critical', :now, 0)
        """)
        values = {"key": key, "body": body, "now": self.clock.now_us()}
        await self.store.run(lambda connection: connection.execute(insert, values))

    def delivering(self, receiver: Receiver, options: Options = PEOPLE) -> AbstractAsyncContextManager[None]:
        lease = Lease(self.store, outbox.LEASE, "me", self.clock)
        return running(Delivery(self.store, lease, [receiver], self.clock, options={receiver.name: options}))

    async def idle(self) -> None:
        """Let the daemon run for some renewals of the lease. One takes the database as long as an attempt's step."""
        seen = self.clock.n_renewals
        await wait_until(lambda: self.clock.n_renewals >= seen + 8)

    async def undelivered(self) -> int:
        count = text("SELECT COUNT(*) FROM outbox WHERE delivered_us IS NULL")
        found: int = await self.store.read(lambda connection: connection.execute(count).scalar_one())
        return found


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with AsyncStore(f"sqlite:///{tmp_path}/monitor.db", owner=True) as store:
        yield Harness(store)


async def outage(harness: Harness, receiver: Receiver, hours: int = 1, per_minute: int = 1) -> None:
    """Let the receiver be down for hours, while alerts arise."""
    receiver.is_down = True
    for _ in range(60 * hours):
        for _ in range(per_minute):
            await harness.alert()
        harness.clock.advance(MINUTE_S)
        await harness.idle()
    receiver.is_down = False


# ---------------------------------------------------------------- outages and floods


@pytest.mark.parametrize("options", [PEOPLE, Options()], ids=["people", "machine"])
async def test_after_an_hour_without_a_sink_all_is_delivered(harness: Harness, options: Options) -> None:
    """Machines get each notification once. People get the first, and one digest of the others."""
    receiver = Receiver()
    async with harness.delivering(receiver, options):
        await harness.alert()
        await wait_until(lambda: len(receiver.received) == 1)
        await outage(harness, receiver)
        assert receiver.n_attempts > 30, "it was tried all the time"
        harness.clock.advance(MINUTE_S)
        async with asyncio.timeout(20):
            while await harness.undelivered():  # noqa: ASYNC110 (the loop under test sets no event)
                await asyncio.sleep(0)
    keys = Counter(key for key, _ in receiver.received)
    assert max(keys.values()) == 1
    if options.is_for_people:
        assert receiver.steps == ["firing", "firing", "digest"]
        _, digest = receiver.received[-1]
        assert (digest["n_notifications"], digest["n_open"]) == (59, 59)
        assert digest["text"].startswith("59 notifications waited while this channel could not be reached")
    else:
        assert receiver.steps == ["firing"] * 61


async def test_a_digest_lists_open_alerts_first_and_is_bounded(harness: Harness) -> None:
    receiver = Receiver()
    receiver.is_down = True
    for n in range(50):
        await harness.alert("critical" if n == 7 else "warning", is_open=n % 5 == 2)
    harness.clock.advance(HOUR_S)
    receiver.is_down = False
    async with harness.delivering(receiver):
        await wait_until(lambda: "digest" in receiver.steps)
    _, digest = receiver.received[-1]
    assert (digest["n_open"], digest["n_closed"], len(digest["alerts"])) == (10, 39, 20)
    assert digest["alerts"][0]["id"] == 8
    assert [alert["state"] for alert in digest["alerts"]] == ["firing"] * 10 + ["closed"] * 10


async def test_a_digest_is_tried_again_under_its_own_key(harness: Harness) -> None:
    receiver = Receiver()
    async with harness.delivering(receiver):
        await outage(harness, receiver)
        harness.clock.advance(MINUTE_S)
        await wait_until(lambda: len(receiver.received) == 1)
        receiver.is_down = True
        await harness.idle()
        await harness.alert()
        receiver.is_down = False
        harness.clock.advance(MINUTE_S)
        await wait_until(lambda: "digest" in receiver.steps and len(receiver.received) == 3)
        await harness.idle()
    assert sorted(receiver.steps) == ["digest", "firing", "firing"]


async def test_a_short_failure_makes_no_digest(harness: Harness) -> None:
    receiver = Receiver()
    receiver.is_down = True
    async with harness.delivering(receiver):
        for _ in range(5):
            await harness.alert()
        await wait_until(lambda: receiver.n_attempts >= 1)
        await harness.idle()
        receiver.is_down = False
        harness.clock.advance(5 * MINUTE_S)
        await wait_until(lambda: len(receiver.received) == 5)
    assert receiver.steps == ["firing"] * 5


async def test_a_flood_becomes_one_digest(harness: Harness) -> None:
    receiver = Receiver()
    for _ in range(40):
        await harness.alert()
    async with harness.delivering(receiver):
        await wait_until(lambda: "digest" in receiver.steps)
        await harness.idle()
    assert receiver.steps == ["firing", "digest"]


async def test_a_digest_is_logged(harness: Harness) -> None:
    receiver = Receiver()
    for _ in range(40):
        await harness.alert()
    with capture_logs() as logged:
        async with harness.delivering(receiver):
            await wait_until(lambda: "digest" in receiver.steps)
    [event] = [event for event in logged if event["event"] == "notify_digest"]
    assert (event["channel"], event["notifications"]) == ("people", 39)


# ---------------------------------------------------------------- quiet hours


async def test_quiet_hours_hold_warnings_until_one_digest(harness: Harness) -> None:
    receiver = Receiver()
    harness.clock.advance(TEN_PM_US / 1e6 - harness.clock.now_us() / 1e6 + 1)
    async with harness.delivering(receiver, NIGHT):
        for severity in ("warning", "critical", "warning"):
            await harness.alert(severity)
        await wait_until(lambda: len(receiver.received) == 1)
        harness.clock.advance(7 * HOUR_S)
        await harness.idle()
        assert [body["severity"] for _, body in receiver.received] == ["critical"]
        harness.clock.advance(HOUR_S)
        await wait_until(lambda: len(receiver.received) == 2)
        await harness.idle()
    assert receiver.steps == ["firing", "digest"]
    assert receiver.received[1][1]["text"].startswith("2 notifications were held back in quiet hours")


async def test_a_single_warning_of_the_night_needs_no_digest(harness: Harness) -> None:
    receiver = Receiver()
    harness.clock.advance(TEN_PM_US / 1e6 - harness.clock.now_us() / 1e6 + 1)
    async with harness.delivering(receiver, NIGHT):
        await harness.alert()
        harness.clock.advance(8 * HOUR_S)
        await wait_until(lambda: len(receiver.received) == 1)
        await harness.idle()
    assert receiver.steps == ["firing"]


async def test_a_warning_that_turned_critical_is_not_told_later(harness: Harness) -> None:
    """It would say in the morning that an alert fires which has closed in the night."""
    receiver = Receiver()
    harness.clock.advance(TEN_PM_US / 1e6 - harness.clock.now_us() / 1e6 + 1)
    async with harness.delivering(receiver, NIGHT):
        await harness.alert()
        await harness.idle()
        await harness.follow("critical")
        await wait_until(lambda: len(receiver.received) == 1)
        await harness.follow("closed")
        await wait_until(lambda: len(receiver.received) == 2)
        harness.clock.advance(8 * HOUR_S)
        await harness.idle()
    assert receiver.steps == ["critical", "closed"]
    assert await harness.undelivered() == 0


async def test_quiet_hours_can_hold_critical_alerts_too(harness: Harness) -> None:
    receiver = Receiver()
    harness.clock.advance(TEN_PM_US / 1e6 - harness.clock.now_us() / 1e6 + 1)
    holds_all = Options(is_for_people=True, quiet=NIGHT.quiet, quiet_holds_all=True)
    async with harness.delivering(receiver, holds_all):
        await harness.alert("critical")
        await harness.idle()
        assert receiver.received == []
        harness.clock.advance(8 * HOUR_S)
        await wait_until(lambda: len(receiver.received) == 1)


# ---------------------------------------------------------------- alerts that go on


async def test_firing_alerts_are_posted_again_until_they_close(harness: Harness) -> None:
    receiver = Alertmanager()
    await harness.alert()
    await harness.alert(is_open=False)
    async with harness.delivering(receiver, Options(has_context=True)):
        await wait_until(lambda: len(receiver.repeated) >= 2)
        assert [body["id"] for body in receiver.repeated[-1]] == [1]
        close = text("UPDATE alert SET state = 'closed', closed_us = 1")
        await harness.store.run(lambda connection: connection.execute(close))
        n = len(receiver.repeated)
        await harness.idle()
        assert len(receiver.repeated) <= n + 1


@pytest.mark.parametrize("change", ["suppressed_by = 'shelf'", "closed_by_hand_us = 1"])
async def test_a_shelved_alert_is_not_posted_again(harness: Harness, change: str) -> None:
    receiver = Alertmanager()
    await harness.alert()
    sql = text(f"UPDATE alert SET {change}")
    await harness.store.run(lambda connection: connection.execute(sql))
    async with harness.delivering(receiver, Options(has_context=True)):
        await wait_until(lambda: len(receiver.received) == 1)
        await harness.idle()
    assert receiver.repeated == []


async def test_failing_posts_are_logged_once_and_so_is_their_end(harness: Harness) -> None:
    receiver = Alertmanager()
    await harness.alert()
    with capture_logs() as logged:
        async with harness.delivering(receiver, Options(has_context=True)):
            await wait_until(lambda: bool(receiver.received))
            receiver.is_down = True
            n = len(receiver.repeated)
            await wait_until(lambda: len(receiver.repeated) >= n + 4)
            receiver.is_down = False
            await wait_until(lambda: len(receiver.repeated) >= n + 8)
    names = [event["event"] for event in logged if event["event"].startswith("alerts_")]
    assert names == ["alerts_not_repeated", "alerts_repeated"]


# ---------------------------------------------------------------- metrics


async def test_each_channel_has_metrics_of_its_own(harness: Harness) -> None:
    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(f"monitor_{name}", {"channel": "measured"} | labels) or 0.0

    receiver = Receiver("measured")
    receiver.is_down = True
    await harness.alert(channel="measured")
    async with harness.delivering(receiver, Options()):
        await wait_until(lambda: receiver.n_attempts == 1)
        await harness.idle()
        harness.clock.advance(DEFAULT_TIMING.outbox_count_every_s)
        receiver.is_down = False
        await wait_until(lambda: bool(receiver.received))
        await wait_until(lambda: value("notification_seconds_count") == 1)
    assert value("channel_notifications_total", outcome="failed") == 1
    assert value("channel_notifications_total", outcome="delivered") == 1
    assert value("notification_seconds_sum") == DEFAULT_TIMING.outbox_count_every_s
    assert value("notifications_waiting") in (0.0, 1.0)
