"""A message for people is completed from the database when it is sent: sentence, links, alerts of an incident."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import text

from monitor import control, links
from monitor.control import Actor, ShelfTarget
from monitor.notify.enrich import Enricher
from monitor.store import leases, outbox, releases
from monitor.store import links as stored_links
from monitor.store.outbox import Channel
from monitor.types import AlertState, EvidencePart, Severity
from tests.contract.steps import INTERVAL_US, LENGTH, SAVED_US, Owner, change, own
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from monitor.store.engine import AsyncStore
    from monitor.types import AlertChange

OPENED = 20
PEOPLE = Channel("people", by_incident=True)
MACHINE = Channel("machine")
FIRING, CLOSED = AlertState.FIRING, AlertState.CLOSED
PUBLIC_URL = "https://monitor.plant"
ANNA = Actor("anna", "cli")


def evidence() -> EvidencePart:
    """Return the window that fired the alert: power is 0 where 1,800 was expected."""
    cells = np.arange(OPENED - LENGTH, OPENED)
    expected = np.tile(np.array([1800.0, 2.0], np.float32), (LENGTH, 1))
    return EvidencePart(
        asset=0,
        opened_us=OPENED * INTERVAL_US,
        sensors=("power", "pitch"),
        cell_us=cells * INTERVAL_US,
        values=expected * np.array([0.0, 1.0], np.float32),
        expected=expected,
        end_us=np.array([OPENED * INTERVAL_US]),
        score=np.array([2.0], np.float32),
        limit=4 * LENGTH,
    )


async def commit(owner: Owner, asset: str, each: AlertChange, *parts: EvidencePart) -> None:
    rows = await owner.rows({asset: each.peak_score}, each.at_us // INTERVAL_US - LENGTH)
    step = owner.step(replace(rows, alerts=[each], evidence=list(parts)), channels=(PEOPLE, MACHINE))
    await owner.save(step)


async def sent(store: AsyncStore, channel: str = "people", enricher: Enricher | None = None) -> list[dict[str, Any]]:
    """Send everything that waits. Return the bodies."""
    epoch = await store.run(leases.acquire, outbox.LEASE, "me", 600.0)
    assert epoch is not None
    bodies = []
    while waiting := await store.read(outbox.next_due, channel, 0):
        found = await store.run(outbox.start_attempt_in_context, epoch, waiting.key)
        assert found is not None
        bodies.append(json.loads((enricher or Enricher(PUBLIC_URL)).body(*found, 0)))
        await store.run(outbox.mark_delivered, waiting.key, 0)
    return bodies


async def test_a_message_has_the_sentence_of_the_evidence(store: AsyncStore) -> None:
    await commit(await own(store), "R1", change(OPENED, OPENED, FIRING), evidence())
    [body] = await sent(store)
    assert body["sentence"].startswith("power ")
    assert body["sentence"].endswith(".")
    assert "1800" in body["sentence"] or "1,800" in body["sentence"]


async def test_a_message_without_evidence_tells_the_figures(store: AsyncStore) -> None:
    await commit(await own(store), "R1", change(OPENED, OPENED, FIRING))
    [body] = await sent(store)
    assert body["sentence"].startswith("power ")


async def test_damaged_evidence_loses_the_sentence_and_no_message(store: AsyncStore) -> None:
    await commit(await own(store), "R1", change(OPENED, OPENED, FIRING), evidence())
    await store.run(lambda connection: connection.execute(text("UPDATE evidence SET body = :raw"), {"raw": b"\x00x"}))
    [body] = await sent(store)
    assert "sentence" not in body
    assert body["url"] == f"{PUBLIC_URL}/alerts/1"


async def test_a_link_of_a_message_is_valid_in_its_database(store: AsyncStore) -> None:
    await commit(await own(store), "R1", change(OPENED, OPENED, FIRING))
    [body] = await sent(store)
    token = body["links"]["fault"].rpartition("/")[2]
    link = links.verify(await store.run(stored_links.key), token, 1)
    assert (link.alert_id, link.act) == (1, "label-fault")


async def test_the_end_of_an_incident_names_its_alerts(store: AsyncStore) -> None:
    owner = await own(store)
    await commit(owner, "R1", change(OPENED, OPENED, FIRING))
    await commit(owner, "R2", change(OPENED + 1, OPENED + 1, FIRING))
    await commit(owner, "R1", change(OPENED, OPENED + 2, CLOSED))
    await commit(owner, "R2", change(OPENED + 1, OPENED + 3, CLOSED))
    firing, closed = await sent(store)
    assert (firing["step"], closed["step"]) == ("firing", "closed")
    assert [alert["about"] for alert in closed["alerts"]] == ["R1", "R2"]
    assert len(await sent(store, "machine")) == 4


async def test_answers_of_operators_decide_what_is_sent(store: AsyncStore) -> None:
    """Shelved: silence. Its end: again. Acknowledged and twice as bad: worse. Closed by hand: closed, then reopened."""
    owner, clock = await own(store), FakeClock()
    channels = (PEOPLE, MACHINE)
    await commit(owner, "R1", change(OPENED, OPENED, FIRING))
    shelf = await control.shelve(store, clock, ShelfTarget(1), until="7d", reason="known", actor=ANNA)
    worse = {"severity": Severity.CRITICAL, "peak": 4.0}
    await commit(owner, "R1", change(OPENED, OPENED + 1, FIRING, is_transition=False, **worse))
    await control.unshelve(store, clock, shelf, actor=ANNA)
    assert await store.run(releases.release, channels, clock.now_us()) == [1]
    await control.acknowledge(store, clock, 1, actor=ANNA)
    await commit(owner, "R1", change(OPENED, OPENED + 2, FIRING, is_transition=False, **(worse | {"peak": 9.0})))
    await control.close_alert(store, clock, 1, reason="repaired", actor=ANNA)
    assert await store.run(releases.is_due, channels, clock.now_us())
    await store.run(releases.release, channels, clock.now_us())
    assert not await store.run(releases.is_due, channels, clock.now_us())
    await commit(owner, "R1", change(OPENED, OPENED + 3, FIRING, **(worse | {"peak": 9.0})))
    await commit(owner, "R1", change(OPENED, OPENED + 4, CLOSED, **(worse | {"peak": 9.0})))
    steps = [body["step"] for body in await sent(store)]
    assert steps == ["firing", "again", "worse", "closed", "reopened", "closed"]
    machine = [body["step"] for body in await sent(store, "machine")]
    assert machine == ["firing", "worse", "closed", "reopened", "closed"]


@pytest.mark.parametrize("public_url", ["", PUBLIC_URL])
async def test_a_digest_links_to_the_list(store: AsyncStore, public_url: str) -> None:
    owner = await own(store)
    for n in range(3):
        await commit(owner, f"R{n}", change(OPENED + n, OPENED + n, FIRING))
    epoch = await store.run(leases.acquire, outbox.LEASE, "me", 600.0)
    assert epoch is not None
    assert await store.run(outbox.digest_waiting, epoch, "machine", "waited", 2, SAVED_US, SAVED_US) == 3
    [body] = await sent(store, "machine", Enricher(public_url))
    assert body.get("url") == (f"{PUBLIC_URL}/alerts" if public_url else None)
    assert "links" not in body
