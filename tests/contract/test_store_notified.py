"""Incidents, shelves and acts of operators decide which notifications are written, and under which keys."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, text

from monitor.store import leases, life, outbox
from monitor.store.outbox import Channel, digest
from monitor.types import AlertState, Severity
from tests.contract.steps import FLEET, INTERVAL_US, Owner, change, own, rows_of

if TYPE_CHECKING:
    from monitor.store.alerts import Written
    from monitor.store.engine import AsyncStore
    from monitor.types import AlertChange

NOW_US = 1_700_000_000_000_000
PEOPLE = Channel("people", by_incident=True)
PAGER = Channel("pager", Severity.CRITICAL, by_incident=True)
MACHINE = Channel("machine")
FIRING, RECOVERING, CLOSED = AlertState.FIRING, AlertState.RECOVERING, AlertState.CLOSED
GRAVE = {"severity": Severity.CRITICAL, "peak": 4.0}


class Life:
    """Puts every alert into one incident, and suppresses what a test says."""

    def __init__(self) -> None:
        self.suppressed: dict[int, str] = {}
        """Alert's id → cause."""
        self.steps: dict[int, tuple[str, ...]] = defaultdict(tuple)

    def apply(
        self,
        connection: Connection,
        written: Written,
        _change: Any,
        _at_us: int,
        _worse: float = 2.0,
        in_force: life.InForce | None = None,
    ) -> life.Effect:
        assert in_force is not None
        alert_id = written.id
        incident = "INSERT INTO incident (id, fleet, opened_us, severity, n_alerts) VALUES (1, 'x', 0, 'warning', 1)"
        connection.execute(text(f"{incident} ON CONFLICT DO NOTHING"))
        cause = self.suppressed.get(alert_id)
        values = {"id": alert_id, "cause": cause}
        connection.execute(text("UPDATE alert SET incident_id = 1, suppressed_by = :cause WHERE id = :id"), values)
        return life.Effect(cause, 1, self.steps[alert_id])


@pytest.fixture
def lived(monkeypatch: pytest.MonkeyPatch) -> Life:
    made = Life()
    monkeypatch.setattr(life, "apply", made.apply)
    return made


async def commit(
    owner: Owner, asset: str, *changes: AlertChange, to: tuple[Channel, ...] = (PEOPLE, PAGER, MACHINE)
) -> None:
    for each in changes:
        rows = await owner.rows({asset: 2.0}, each.at_us // INTERVAL_US, alerts=[each])
        await owner.save(owner.step(rows, channels=to, at_us=NOW_US))


async def keys(store: AsyncStore, channel: str) -> list[str]:
    """Return the keys of a channel without its name and the fleet, the time in cells."""
    rows = sorted(await store.read(rows_of, "outbox"), key=lambda row: row["id"])
    found = [row["dedup_key"].removeprefix(f"{channel}:{FLEET}/") for row in rows if row["channel"] == channel]
    parts = [key.split(":") for key in found]
    return [f"{asset}{int(opened) // INTERVAL_US} {step}" for asset, opened, step in parts]


async def act(store: AsyncStore, alert_id: int, step: str, at_us: int = NOW_US) -> None:
    await store.run(outbox.write_step, (PEOPLE, PAGER, MACHINE), alert_id, step, at_us)


async def test_people_get_one_message_per_incident(store: AsyncStore, lived: Life) -> None:
    owner = await own(store)
    await commit(owner, "a", change(12, 12, FIRING))
    await commit(owner, "b", change(13, 13, FIRING))
    await commit(owner, "a", change(12, 14, CLOSED))
    await commit(owner, "c", change(15, 15, FIRING))
    await commit(owner, "b", change(13, 16, CLOSED))
    await commit(owner, "c", change(15, 17, CLOSED))
    assert await keys(store, "people") == ["a12 firing", "a12 closed"]
    assert await keys(store, "pager") == []
    assert len(await keys(store, "machine")) == 6
    assert await store.read(rows_of, "notified") == []


async def test_an_incident_turns_critical_once(store: AsyncStore, lived: Life) -> None:
    owner = await own(store)
    await commit(owner, "a", change(12, 12, FIRING))
    await commit(owner, "b", change(13, 13, FIRING, **GRAVE))
    await commit(owner, "a", change(12, 14, FIRING, is_transition=False, **GRAVE))
    await commit(owner, "c", change(15, 15, FIRING, **GRAVE))
    await commit(owner, "a", change(12, 16, CLOSED, **GRAVE))
    await commit(owner, "b", change(13, 17, CLOSED, **GRAVE))
    await commit(owner, "c", change(15, 18, CLOSED, **GRAVE))
    assert await keys(store, "people") == ["a12 firing", "a12 critical", "a12 closed"]
    assert await keys(store, "pager") == ["b13 firing", "b13 closed"]
    rows = {row["dedup_key"]: row for row in await store.read(rows_of, "outbox")}
    critical = rows[f"people:{FLEET}/a:{12 * INTERVAL_US}:critical"]
    assert json.loads(critical["body"])["asset"] == "b"
    assert critical["severity"] == "critical"


async def test_a_shelved_alert_is_not_notified(store: AsyncStore, lived: Life) -> None:
    owner = await own(store)
    lived.suppressed[1] = "shelf"
    await commit(owner, "a", change(12, 12, FIRING), change(12, 13, FIRING, **GRAVE), change(12, 14, CLOSED, **GRAVE))
    assert await store.read(rows_of, "outbox") == []


async def test_machines_get_the_end_of_an_alert_that_was_shelved(store: AsyncStore, lived: Life) -> None:
    owner = await own(store)
    await commit(owner, "a", change(12, 12, FIRING))
    lived.suppressed[1] = "shelf"
    await commit(owner, "a", change(12, 13, CLOSED))
    assert await keys(store, "machine") == ["a12 firing", "a12 closed"]
    assert await keys(store, "people") == ["a12 firing"]
    assert await store.read(rows_of, "notified") == []


async def test_one_beside_a_shelved_alert_is_news(store: AsyncStore, lived: Life) -> None:
    owner = await own(store)
    await commit(owner, "a", change(12, 12, FIRING))
    lived.suppressed[1] = "shelf"
    await commit(owner, "a", change(12, 13, FIRING, is_transition=False))
    await commit(owner, "b", change(14, 14, FIRING), change(14, 15, CLOSED))
    assert await keys(store, "people") == ["a12 firing", "b14 firing", "b14 closed"]


async def test_an_alert_that_is_still_firing_is_notified_again(store: AsyncStore, lived: Life) -> None:
    owner = await own(store)
    lived.suppressed[1] = "shelf"
    await commit(owner, "a", change(12, 12, FIRING))
    lived.suppressed.clear()
    await act(store, 1, "again")
    await commit(owner, "a", change(12, 14, CLOSED))
    expected = [f"a12 again.{NOW_US}", f"a12 closed.{NOW_US}"]
    assert await keys(store, "people") == await keys(store, "machine") == expected
    bodies = [json.loads(row["body"]) for row in await store.read(rows_of, "outbox")]
    assert [body["step"] for body in bodies if body["key"].startswith("people")] == ["again", "closed"]


async def test_machines_that_know_an_alert_need_no_reminder(store: AsyncStore, lived: Life) -> None:
    await commit(await own(store), "a", change(12, 12, FIRING))
    await act(store, 1, "again")
    assert await keys(store, "machine") == ["a12 firing"]
    assert await keys(store, "people") == ["a12 firing", f"a12 again.{NOW_US}"]


async def test_an_alert_closed_by_hand_ends_and_begins_anew(store: AsyncStore, lived: Life) -> None:
    owner = await own(store)
    await commit(owner, "a", change(12, 12, FIRING))
    await act(store, 1, "closed")
    lived.steps[1] = ("reopened",)
    await commit(owner, "a", change(12, 13, FIRING))
    lived.steps.clear()
    await commit(owner, "a", change(12, 14, FIRING, **GRAVE), change(12, 15, CLOSED, **GRAVE))
    again = 13 * INTERVAL_US
    expected = ["firing", "closed", f"reopened.{again}", f"critical.{again}", f"closed.{again}"]
    assert await keys(store, "machine") == [f"a12 {step}" for step in expected]
    assert await keys(store, "people") == await keys(store, "machine")


async def test_an_end_is_not_notified_without_a_beginning(store: AsyncStore, lived: Life) -> None:
    owner = await own(store)
    lived.suppressed[1] = "maintenance"
    await commit(owner, "a", change(12, 12, FIRING))
    await act(store, 1, "closed")
    lived.suppressed.clear()
    await commit(owner, "a", change(12, 13, CLOSED))
    assert await store.read(rows_of, "outbox") == []


async def test_flapping_is_told_to_people_and_counted_by_machines(store: AsyncStore, lived: Life) -> None:
    owner = await own(store)
    lived.suppressed[1] = "flapping"
    lived.steps[1] = ("flapping",)
    await commit(owner, "a", change(12, 12, FIRING))
    lived.steps.clear()
    await commit(owner, "a", change(12, 13, CLOSED))
    assert await keys(store, "people") == [f"a12 flapping.{12 * INTERVAL_US}"]
    assert await keys(store, "machine") == ["a12 firing", "a12 closed"]
    assert await store.read(rows_of, "notified") == []


@pytest.mark.parametrize(
    ("step", "expected"), [("worse", "is much"), ("again", "after it was shelved"), ("reopened", "closed by hand")]
)
async def test_each_step_says_what_happened(store: AsyncStore, lived: Life, step: str, expected: str) -> None:
    await commit(await own(store), "a", change(12, 12, FIRING))
    await act(store, 1, step)
    texts = [json.loads(row["body"])["text"] for row in await store.read(rows_of, "outbox")]
    assert any(expected.replace("is much", "much worse") in each for each in texts), texts


async def test_a_digest_takes_all_that_waits(store: AsyncStore, lived: Life) -> None:
    owner = await own(store)
    for n, asset in enumerate("abc"):
        await commit(owner, asset, change(12 + n, 12 + n, FIRING, peak=2.0 + n), to=(MACHINE,))
    await commit(owner, "a", change(12, 20, CLOSED), to=(MACHINE,))
    epoch = await store.run(leases.acquire, outbox.LEASE, "me", 600.0)
    assert epoch is not None
    digest = (outbox.digest_waiting, epoch, "machine", "waited")
    assert await store.run(*digest, 5, NOW_US, NOW_US) == 0
    assert await store.run(*digest, 4, NOW_US - 1, NOW_US) == 0
    assert await store.run(*digest, 4, NOW_US, NOW_US) == 4
    assert await store.run(*digest, 1, NOW_US, NOW_US) == 0
    waiting = await store.read(outbox.next_due, "machine", NOW_US)
    assert waiting is not None
    assert await store.read(outbox.count_waiting, "machine") == 1
    body = json.loads(await store.run(outbox.start_attempt, epoch, waiting.key) or "")
    assert body["text"] == "4 notifications waited: 2 alerts still open, 1 closed"
    assert [alert["about"] for alert in body["alerts"]] == ["c", "b", "a"]
    assert body["steps"] == {"firing": 3, "closed": 1}
    await store.run(outbox.mark_delivered, waiting.key, NOW_US)
    assert {row["delivered_us"] for row in await store.read(rows_of, "outbox")} == {NOW_US}


async def test_a_digest_that_is_given_up_gives_all_of_it_up(store: AsyncStore, lived: Life) -> None:
    await commit(await own(store), "a", change(12, 12, FIRING), change(12, 13, CLOSED), to=(MACHINE,))
    epoch = await store.run(leases.acquire, outbox.LEASE, "me", 600.0)
    assert epoch is not None
    await store.run(outbox.digest_waiting, epoch, "machine", "waited", 2, NOW_US, NOW_US)
    waiting = await store.read(outbox.next_due, "machine", NOW_US)
    assert waiting is not None
    await store.run(outbox.mark_failed, epoch, waiting.key, "gone", outbox.ABANDONED_US)
    rows = await store.read(rows_of, "outbox")
    assert {(row["next_try_us"], row["error"]) for row in rows} == {(outbox.ABANDONED_US, "gone")}


async def test_only_critical_ones_are_due_while_warnings_are_held(store: AsyncStore, lived: Life) -> None:
    owner = await own(store)
    await commit(owner, "a", change(12, 12, FIRING), to=(MACHINE,))
    await commit(owner, "b", change(13, 13, FIRING, **GRAVE), to=(MACHINE,))
    held = await store.read(outbox.next_due, "machine", NOW_US, True)
    assert held is not None
    assert "/b:" in held.key
    first = await store.read(outbox.next_due, "machine", NOW_US, False)
    assert first is not None
    assert "/a:" in first.key


async def test_a_critical_one_replaces_the_held_warning(store: AsyncStore, lived: Life) -> None:
    owner = await own(store)
    await commit(owner, "a", change(12, 12, FIRING), to=(MACHINE,))
    await commit(owner, "b", change(12, 12, FIRING), to=(MACHINE,))
    await commit(owner, "a", change(12, 14, FIRING, **GRAVE), to=(MACHINE,))
    epoch = await store.run(leases.acquire, outbox.LEASE, "me", 600.0)
    assert epoch is not None
    urgent = await store.read(outbox.next_due, "machine", NOW_US, True)
    assert urgent is not None
    assert urgent.key.endswith(":critical")
    await store.run(outbox.take_earlier, epoch, "machine", urgent)
    await store.run(outbox.mark_delivered, urgent.key, NOW_US)
    left = [row["dedup_key"] for row in await store.read(rows_of, "outbox") if row["delivered_us"] is None]
    assert len(left) == 1
    assert "/b:" in left[0]


async def test_a_digest_takes_only_what_it_counts(
    store: AsyncStore, lived: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notifications that another daemon commits meanwhile, or that are too many, wait for the next one."""
    owner = await own(store)
    for n, asset in enumerate("abc"):
        await commit(owner, asset, change(12 + n, 12 + n, FIRING), to=(MACHINE,))
    epoch = await store.run(leases.acquire, outbox.LEASE, "me", 600.0)
    assert epoch is not None
    monkeypatch.setattr(digest, "MAX_TAKEN", 2)
    assert await store.run(outbox.digest_waiting, epoch, "machine", "waited", 2, NOW_US, NOW_US) == 2
    assert await store.read(outbox.count_waiting, "machine") == 2, "the digest and the third"
