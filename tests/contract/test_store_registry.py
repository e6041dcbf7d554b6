"""The registry of model versions: publish, promote, roll back, reject; aliases and history."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from monitor.errors import Conflict, Fenced, NotFound
from monitor.store import leases, registry, versions
from monitor.store.acts import MONITOR, Actor
from monitor.store.versions import FOREVER_AGO_US, Activation
from monitor.types import Alias, ModelCheckKind, ModelEvent, ModelState
from tests.contract.steps import FLEET, own

if TYPE_CHECKING:
    from monitor.store.engine import AsyncStore

EVA = Actor("eva", "cli")
PASSED = {"passed": True, "why": "it keeps the budget", "checks": []}
FAILED = {"passed": False, "why": "it misses 4 of 10 faults", "checks": []}


def facts(version: str, fleet: str = FLEET) -> dict[str, Any]:
    """Return the facts of a trained version."""
    return {"version": version, "fleet": fleet, "path": f"/c/{version}", "trained_us": 1, "card": {}, "metrics": {}}


async def publish(store: AsyncStore, *named: str, state: ModelState = ModelState.CANDIDATE, at_us: int = 1) -> None:
    verdict = FAILED if state == ModelState.REJECTED else PASSED
    for version in named:
        call = {"state": state, "verdict": verdict, "actor": MONITOR, "at_us": at_us}
        await store.run(registry.publish, **call, **facts(version))


async def promote(store: AsyncStore, version: str, at_us: int, actor: Actor = EVA, **more: Any) -> Activation:
    return await store.run(registry.promote, FLEET, version, actor=actor, at_us=at_us, **more)


async def roll_back(store: AsyncStore, at_us: int, note: str = "") -> Activation:
    return await store.run(registry.roll_back, FLEET, actor=EVA, at_us=at_us, note=note)


async def states(store: AsyncStore) -> dict[str, str]:
    return {each.version: each.state for each in await store.read(versions.list_all, FLEET)}


async def aliases(store: AsyncStore) -> dict[str, str]:
    return {str(alias): version for alias, version in (await store.read(registry.aliases, FLEET)).items()}


async def history(store: AsyncStore) -> list[tuple[str, str | None]]:
    """Return (event, version), oldest first."""
    return [(each.event, each.version) for each in reversed(await store.read(registry.events, FLEET))]


async def snapshot(store: AsyncStore) -> tuple[Any, ...]:
    seqs = await store.read(versions.activation_seqs)
    listed = await store.read(versions.list_all)
    return listed, await history(store), await store.read(versions.activations, FLEET), seqs


# ---------------------------------------------------------------- publish


async def test_a_candidate_is_the_challenger(store: AsyncStore) -> None:
    await publish(store, "v1")
    [found] = await store.read(versions.list_all, FLEET)
    assert (found.state, found.aliases, found.verdict) == ("candidate", ("challenger",), PASSED)
    assert await history(store) == [("trained", "v1"), ("proposed", "v1")]
    [proposed, _] = await store.read(registry.events, FLEET)
    assert (proposed.actor, proposed.via, proposed.detail) == ("monitor", "daemon", {"why": PASSED["why"]})


async def test_a_repeated_publication_changes_nothing(store: AsyncStore) -> None:
    await publish(store, "v1")
    before = await snapshot(store)
    await publish(store, "v1")
    assert await snapshot(store) == before


async def test_a_shadow_is_the_challenger(store: AsyncStore) -> None:
    await publish(store, "v1", state=ModelState.SHADOW)
    assert await states(store) == {"v1": "shadow"}
    assert await aliases(store) == {"challenger": "v1"}
    assert await history(store) == [("trained", "v1"), ("shadowed", "v1")]


async def test_a_rejected_version_has_no_alias(store: AsyncStore) -> None:
    await publish(store, "v1")
    await publish(store, "v2", state=ModelState.REJECTED)
    assert await states(store) == {"v1": "candidate", "v2": "rejected"}
    assert await aliases(store) == {"challenger": "v1"}
    found = await store.read(versions.find, "v2")
    assert found.verdict == FAILED


async def test_a_version_judged_again_has_the_new_verdict(store: AsyncStore) -> None:
    await publish(store, "v1", state=ModelState.REJECTED)
    await publish(store, "v1", at_us=2)
    found = await store.read(versions.find, "v1")
    assert (found.state, found.verdict, found.aliases) == ("candidate", PASSED, ("challenger",))
    assert await history(store) == [("trained", "v1"), ("rejected", "v1"), ("proposed", "v1")]


async def test_publishing_the_champion_again_keeps_it(store: AsyncStore) -> None:
    await publish(store, "v1")
    await promote(store, "v1", 5)
    before = await snapshot(store)
    await publish(store, "v1", state=ModelState.REJECTED, at_us=9)
    assert await snapshot(store) == before


async def test_a_lost_lease_publishes_and_promotes_nothing(store: AsyncStore) -> None:
    epoch = await store.run(leases.acquire, "training", "other", 15.0)
    assert epoch is not None
    lost = ("training", epoch + 1)
    call = {"actor": MONITOR, "at_us": 1, "lease": lost}
    calls = [
        store.run(registry.publish, state=ModelState.CANDIDATE, verdict=None, **call, **facts("v1")),
        store.run(registry.publish_and_promote, **call, **facts("v1")),
        store.run(registry.promote, FLEET, "v1", **call),
        store.run(registry.reject, "v1", **call),
    ]
    for each in calls:
        with pytest.raises(Fenced):
            await each
    assert await store.read(versions.list_all) == []


# ---------------------------------------------------------------- promote


async def test_a_promotion_moves_the_aliases(store: AsyncStore) -> None:
    await publish(store, "v1")
    assert await promote(store, "v1", 5) == Activation(FOREVER_AGO_US, "v1")
    assert await aliases(store) == {"champion": "v1"}
    await publish(store, "v2")
    assert await aliases(store) == {"champion": "v1", "challenger": "v2"}
    await promote(store, "v2", 6, note="after the overhaul")
    assert await aliases(store) == {"champion": "v2", "previous": "v1"}
    assert await states(store) == {"v1": "retired", "v2": "champion"}
    [event, *_] = await store.read(registry.events, FLEET)
    assert (event.actor, event.via, event.note) == ("eva", "cli", "after the overhaul")
    assert event.detail == {"from_window_end_us": FOREVER_AGO_US, "former": "v1"}


async def test_promoting_the_champion_changes_nothing(store: AsyncStore) -> None:
    await publish(store, "v1", "v2")
    await promote(store, "v1", 5, after_us=100)
    await promote(store, "v2", 6, after_us=200)
    before = await snapshot(store)
    for at_us in (6, 7):
        assert await promote(store, "v2", at_us, after_us=300) == Activation(200, "v2")
    assert await snapshot(store) == before


async def test_a_late_repetition_leaves_a_later_act_alone(store: AsyncStore) -> None:
    """The daemon's COMMIT was not answered, and an operator acts before it tries again."""
    await publish(store, "v1", "v2")
    await promote(store, "v1", 5, MONITOR)
    await promote(store, "v2", 6, MONITOR)
    await promote(store, "v1", 7)
    before = await snapshot(store)
    assert (await promote(store, "v2", 6, MONITOR)).version == "v1"
    assert await snapshot(store) == before


async def test_published_and_promoted_at_once(store: AsyncStore) -> None:
    call: dict[str, Any] = {"actor": MONITOR, "at_us": 5, "verdict": PASSED}
    for _ in range(2):
        active = await store.run(registry.publish_and_promote, **call, **facts("v1"))
        assert active == Activation(FOREVER_AGO_US, "v1")
    assert await history(store) == [("trained", "v1"), ("promoted", "v1")]
    assert (await store.read(versions.find, "v1")).verdict == PASSED
    call = {"actor": MONITOR, "at_us": 6, "event": ModelEvent.DERIVED}
    await store.run(registry.publish_and_promote, **call, **facts("v2"))
    assert (await history(store))[2:] == [("derived", "v2")]
    assert await aliases(store) == {"champion": "v2", "previous": "v1"}


async def test_a_version_that_must_not_decide_is_refused(store: AsyncStore) -> None:
    await publish(store, "v1", "gone")
    await publish(store, "bad", state=ModelState.REJECTED)
    call = {"state": ModelState.CANDIDATE, "verdict": None, "actor": MONITOR, "at_us": 1}
    await store.run(registry.publish, **call, **facts("p1", "pumps"))
    await promote(store, "v1", 5)
    await store.run(lambda c: c.exec_driver_sql("UPDATE model_version SET pruned_us = 1 WHERE version = 'gone'"))
    before = await snapshot(store)
    refusals = {
        "p1": (Conflict, "version p1 belongs to pumps, not turbines"),
        "gone": (Conflict, "was pruned on 1970-01-01, its checkpoint is gone; monitor retrain turbines trains anew"),
        "v9": (NotFound, "version v9; monitor models list shows the versions"),
        "bad": (Conflict, "version bad was rejected; monitor models show bad says why"),
    }
    for version, (error, message) in refusals.items():
        with pytest.raises(error, match=message):
            await promote(store, version, 6)
    assert await snapshot(store) == before


async def test_a_person_may_overrule_the_gate(store: AsyncStore) -> None:
    await publish(store, "v1")
    await promote(store, "v1", 5)
    await publish(store, "v2", state=ModelState.REJECTED)
    await promote(store, "v2", 6, overrule=True)
    [event, *_] = await store.read(registry.events, FLEET)
    assert event.detail["overruled"] is True
    assert (await store.read(versions.find, "v2")).verdict == FAILED


async def test_concurrent_promotions_leave_one_champion(store: AsyncStore, other_store: AsyncStore) -> None:
    await publish(store, "v1", "v2", "v3")
    await promote(store, "v1", 1)
    await asyncio.gather(promote(store, "v2", 10), promote(other_store, "v3", 11))
    [last, earlier, *_] = [each.version for each in await store.read(registry.events, FLEET)]
    assert await aliases(store) == {"champion": last, "previous": earlier}
    assert list((await states(store)).values()).count("champion") == 1


async def test_a_trained_again_version_is_not_pruned(store: AsyncStore) -> None:
    await publish(store, "v1", "v2")
    await promote(store, "v1", 1)
    await promote(store, "v2", 2)
    await store.run(lambda c: c.exec_driver_sql("UPDATE model_version SET pruned_us = 1 WHERE version = 'v1'"))
    await publish(store, "v1", at_us=3)
    assert (await store.read(versions.find, "v1")).pruned_at is None
    await promote(store, "v1", 4)
    assert await aliases(store) == {"champion": "v1", "previous": "v2"}


# ---------------------------------------------------------------- roll back


async def test_a_roll_back_returns_to_the_previous_version(store: AsyncStore) -> None:
    await publish(store, "v1", "v2")
    await promote(store, "v1", 5, after_us=100)
    await promote(store, "v2", 6, after_us=200)
    assert await roll_back(store, 7, "it sleeps") == Activation(200, "v1")
    assert await states(store) == {"v1": "champion", "v2": "rolled_back"}
    assert await aliases(store) == {"champion": "v1", "previous": "v2"}
    found = await store.read(versions.find, "v2")
    assert found.rolled_back_at is not None
    [event, *_] = await store.read(registry.events, FLEET)
    assert (event.event, event.version, event.note) == ("rolled_back", "v2", "it sleeps")
    assert event.detail == {"from_window_end_us": 200, "to": "v1"}


async def test_a_second_roll_back_undoes_the_first(store: AsyncStore) -> None:
    await publish(store, "v1", "v2")
    await promote(store, "v1", 5)
    await promote(store, "v2", 6)
    before = await states(store), await aliases(store)
    await roll_back(store, 7)
    await roll_back(store, 8)
    assert (await states(store), await aliases(store)) == before
    assert all(each.rolled_back_at is None for each in await store.read(versions.list_all))
    [event, *_] = await store.read(registry.events, FLEET)
    assert event.detail == {"from_window_end_us": FOREVER_AGO_US, "to": "v2", "undone": True}


async def test_a_repeated_roll_back_changes_nothing(store: AsyncStore) -> None:
    await publish(store, "v1", "v2")
    await promote(store, "v1", 5)
    await promote(store, "v2", 6)
    first = await roll_back(store, 7)
    before = await snapshot(store)
    assert await roll_back(store, 7) == first
    assert await snapshot(store) == before


async def test_without_a_previous_version_nothing_rolls_back(store: AsyncStore) -> None:
    await own(store)
    with pytest.raises(Conflict, match="turbines has no champion to roll back"):
        await roll_back(store, 1)
    await publish(store, "v1")
    await promote(store, "v1", 5)
    with pytest.raises(Conflict, match="has no version before v1; monitor models list --fleet turbines shows"):
        await roll_back(store, 6)


async def test_the_daemon_does_not_undo_a_roll_back(store: AsyncStore) -> None:
    """A training on the same data finds the same version again."""
    await publish(store, "v1", "v2")
    await promote(store, "v1", 5)
    await promote(store, "v2", 6)
    await roll_back(store, 7)
    before = await snapshot(store)
    with pytest.raises(Conflict, match="v2 was rolled back by hand"):
        await store.run(registry.publish_and_promote, actor=MONITOR, at_us=8, verdict=PASSED, **facts("v2"))
    assert await snapshot(store) == before
    await promote(store, "v2", 9)
    found = await store.read(versions.find, "v2")
    assert (found.state, found.rolled_back_at) == ("champion", None)


# ---------------------------------------------------------------- reject, history, measurements


async def test_a_shadow_is_rejected(store: AsyncStore) -> None:
    await publish(store, "v1", state=ModelState.SHADOW)
    for at_us in (5, 6):
        await store.run(registry.reject, "v1", actor=EVA, at_us=at_us, verdict=FAILED, note="too loud")
    assert (await states(store), await aliases(store)) == ({"v1": "rejected"}, {})
    assert await history(store) == [("trained", "v1"), ("shadowed", "v1"), ("rejected", "v1")]
    [event, *_] = await store.read(registry.events, version="v1", limit=1)
    assert (event.note, event.detail) == ("too loud", {"why": FAILED["why"]})


async def test_a_champion_is_not_rejected(store: AsyncStore) -> None:
    await publish(store, "v1")
    await promote(store, "v1", 5)
    with pytest.raises(Conflict, match="v1 is champion; only a candidate or a shadow"):
        await store.run(registry.reject, "v1", actor=EVA, at_us=6)


async def test_the_newest_measurements_are_kept(store: AsyncStore) -> None:
    await publish(store, "v1")
    assert await store.read(registry.latest_check, ModelCheckKind.DRILL, FLEET) is None
    asked: dict[str, Any] = {"requested_by": "schedule", "problem": None}
    for number in range(registry.KEPT_CHECKS + 3):
        drill = {"at_us": number, "result": {"number": number}}
        await store.run(registry.record_check, ModelCheckKind.DRILL, "v1", **drill, **asked)
    await store.run(registry.record_check, ModelCheckKind.DRIFT, "v1", at_us=1, result={}, **asked)
    found = await store.read(registry.checks, ModelCheckKind.DRILL, FLEET)
    assert [each.result["number"] for each in found] == list(range(registry.KEPT_CHECKS + 2, 2, -1))
    latest = await store.read(registry.latest_check, ModelCheckKind.DRILL, FLEET)
    assert latest is not None
    assert (latest.version, latest.problem, latest.requested_by) == ("v1", None, "schedule")
    assert len(await store.read(registry.checks, ModelCheckKind.DRIFT, FLEET)) == 1


async def test_aliases_and_states_name_the_same_champion(store: AsyncStore) -> None:
    await publish(store, "v1", "v2", "v3")
    for at_us, version in enumerate(("v1", "v2", "v3", "v1", "v3")):
        await promote(store, version, 10 + at_us)
        if at_us % 2:
            await roll_back(store, 20 + at_us)
        champion = await store.read(versions.champion, FLEET)
        assert champion is not None
        [*_, (_, last, _)] = (await store.read(versions.activation_history, FLEET)).activations
        assert (await aliases(store))[Alias.CHAMPION] == champion.version == last


# ---------------------------------------------------------------- at the same time


async def test_a_promotion_and_a_rejection_at_once_leave_a_champion(store: AsyncStore) -> None:
    await publish(store, "v0")
    await promote(store, "v0", 2)
    for number in range(1, 21):
        version, at_us = f"v{number}", 10 * number
        await publish(store, version, at_us=at_us)
        rejection = store.run(registry.reject, version, actor=EVA, at_us=at_us + 1)
        again = publish(store, version, at_us=at_us + 2)  # the daemon, which trained the same one again
        done = await asyncio.gather(
            promote(store, version, at_us + 3), rejection, again, return_exceptions=True
        )
        assert all(each is None or isinstance(each, Activation | Conflict) for each in done)
        [champion] = [name for name, state in (await states(store)).items() if state == "champion"]
        assert (await aliases(store))["champion"] == champion
