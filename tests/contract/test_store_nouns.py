"""Alerts, assets, scores, quarantine and versions: their rows, and the changes that are refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from monitor.errors import InvariantBroken
from monitor.store import alerts, assets, quarantine, registry, scores, versions
from monitor.store.acts import MONITOR
from monitor.types import AlertState, Partition, Quarantined, Severity
from tests.contract.steps import FLEET, HOME, INTERVAL_US, change, count, own, rows_of

if TYPE_CHECKING:
    from monitor.store.engine import AsyncStore
    from tests.contract.steps import Owner

NEIGHBOUR = Partition("plant.readings", 1)


# ---------------------------------------------------------------- alerts


async def with_asset(store: AsyncStore) -> Owner:
    owner = await own(store)
    await owner.score(8, a=2.0)
    return owner


async def test_an_alert_follows_its_changes_and_keeps_transitions(store: AsyncStore) -> None:
    owner = await with_asset(store)
    life = [
        change(12, 12, AlertState.FIRING, n_anomalous=3),
        change(12, 13, AlertState.FIRING, n_anomalous=4, peak=9.0, severity=Severity.CRITICAL, is_transition=False),
        change(12, 14, AlertState.RECOVERING, n_anomalous=4, peak=9.0, severity=Severity.CRITICAL),
        change(12, 15, AlertState.CLOSED, n_anomalous=4, peak=9.0, severity=Severity.CRITICAL),
    ]
    ids = [(await store.run(alerts.write_change, owner.ids["a"], step)).id for step in life]
    assert len(set(ids)) == 1
    [row] = await store.read(rows_of, "alert")
    assert (row["state"], row["severity"], row["n_anomalous"], row["peak_score"]) == ("closed", "critical", 4, 9.0)
    assert (row["opened_us"], row["closed_us"]) == (12 * INTERVAL_US, 15 * INTERVAL_US)
    steps = await store.read(rows_of, "alert_transition", "seq, state, at_us / 600000000 AS cell")
    assert [tuple(step.values()) for step in steps] == [(1, "firing", 12), (2, "recovering", 14), (3, "closed", 15)]


async def test_a_closed_alert_never_changes_again(store: AsyncStore) -> None:
    owner = await with_asset(store)
    for state, at in ((AlertState.FIRING, 12), (AlertState.CLOSED, 13)):
        await store.run(alerts.write_change, owner.ids["a"], change(12, at, state))
    with pytest.raises(InvariantBroken):
        await store.run(alerts.write_change, owner.ids["a"], change(12, 14, AlertState.RECOVERING))
    with pytest.raises(InvariantBroken):  # the same alert cannot open again either
        await store.run(alerts.write_change, owner.ids["a"], change(12, 14, AlertState.FIRING))


async def test_an_alert_begins_with_firing(store: AsyncStore) -> None:
    owner = await with_asset(store)
    with pytest.raises(InvariantBroken, match="not open"):
        await store.run(alerts.write_change, owner.ids["a"], change(12, 12, AlertState.CLOSED))


async def test_an_asset_has_one_open_alert(store: AsyncStore) -> None:
    owner = await with_asset(store)
    await store.run(alerts.write_change, owner.ids["a"], change(12, 12, AlertState.FIRING))
    with pytest.raises(InvariantBroken):
        await store.run(alerts.write_change, owner.ids["a"], change(13, 13, AlertState.FIRING))


# ---------------------------------------------------------------- assets and fleets


async def test_an_asset_keeps_its_first_partition(store: AsyncStore) -> None:
    first = await store.run(assets.register, FLEET, ["a", "b", "a"], HOME)
    again = await store.run(assets.register, FLEET, ["b", "c"], NEIGHBOUR)
    assert {name: home.partition for name, home in first.items()} == {"a": HOME, "b": HOME}
    assert {name: home.partition for name, home in again.items()} == {"b": HOME, "c": NEIGHBOUR}
    assert again["b"].id == first["b"].id


async def test_fleets_may_share_asset_names(store: AsyncStore) -> None:
    one = await store.run(assets.register, FLEET, ["a"], HOME)
    other = await store.run(assets.register, "pumps", ["a"], NEIGHBOUR)
    assert one["a"].id != other["a"].id


async def test_concurrent_registrations_of_names_agree(store: AsyncStore, other_store: AsyncStore) -> None:
    names = [f"a{number}" for number in range(200)]
    one, other = await asyncio.gather(
        store.run(assets.register, FLEET, names, HOME), other_store.run(assets.register, FLEET, names[::-1], NEIGHBOUR)
    )
    assert one == other
    assert len(await store.read(rows_of, "asset")) == 200


async def test_more_names_than_one_statement_binds_are_registered(store: AsyncStore) -> None:
    names = [f"a{number}" for number in range(12_000)]
    homes = await store.run(assets.register, FLEET, names, HOME)
    assert len({home.id for home in homes.values()}) == len(names)


async def test_names_of_a_fleet_are_listed_by_partition(store: AsyncStore) -> None:
    await store.run(assets.register, FLEET, ["b", "a"], HOME)
    await store.run(assets.register, FLEET, ["a", "c"], NEIGHBOUR)
    await store.run(assets.register, "pumps", ["d"], HOME)
    assert await store.read(assets.names_by_partition, FLEET) == {str(HOME): ["a", "b"], str(NEIGHBOUR): ["c"]}
    assert await store.read(assets.names_by_partition, "unknown") == {}


async def test_the_first_sensor_registration_wins(store: AsyncStore, other_store: AsyncStore) -> None:
    await store.run(assets.ensure_fleet, FLEET)
    assert await store.read(assets.fleets) == {FLEET: None}
    learnt = await asyncio.gather(
        store.run(assets.register_sensors, FLEET, ["power", "pitch"]),
        other_store.run(assets.register_sensors, FLEET, ["pitch"]),
    )
    assert learnt[0] == learnt[1]
    assert await store.read(assets.fleets) == {FLEET: learnt[0]}


# ---------------------------------------------------------------- scores and quarantine


async def test_old_scores_are_pruned_in_steps(store: AsyncStore) -> None:
    owner = await own(store)
    for cell in range(10):
        await owner.score(cell, a=0.5, b=0.5)
    before_us = 7 * INTERVAL_US
    assert await store.run(scores.prune, [FLEET], 0, before_us, 4) == ({FLEET: 4}, INTERVAL_US + 1)
    assert await store.run(scores.prune, [FLEET], 0, before_us) == ({FLEET: 10}, 6 * INTERVAL_US + 1)
    left = await store.read(rows_of, "score", "start_us")
    assert {row["start_us"] for row in left} == {cell * INTERVAL_US for cell in (7, 8, 9)}
    assert await store.run(scores.prune, [FLEET], 0, before_us) == ({}, before_us), "done"


async def test_the_newest_window_end_is_per_fleet(store: AsyncStore) -> None:
    assert await store.read(scores.newest_us) == {}
    owner = await own(store)
    await owner.score(3, a=0.5, b=0.5)
    await owner.score(9, b=0.5)
    await owner.save(owner.step(await owner.rows({"p": 0.5}, 5, fleet="pumps")))
    assert await store.read(scores.newest_us) == {FLEET: 13 * INTERVAL_US, "pumps": 9 * INTERVAL_US}


async def test_any_bytes_of_a_producer_can_be_quarantined(store: AsyncStore) -> None:
    """JSON and Python accept NUL and lone surrogates as text, and databases refuse them."""
    nasty = Quarantined(HOME, 7, "unknown_sensor: \0 \ud800 " + "x" * 9_000, bytes(range(256)) * 9, 0)
    await store.run(quarantine.insert, [nasty], 55)
    [row] = await store.read(rows_of, "quarantine")
    assert row["reason"].startswith("unknown_sensor: ")
    assert len(row["reason"]) == quarantine.REASON_LENGTH
    assert bytes(row["sample"]) == nasty.sample[: quarantine.SAMPLE_BYTES]


async def test_old_quarantine_is_pruned(store: AsyncStore) -> None:
    def late(*offsets: int) -> list[Quarantined]:
        return [Quarantined(HOME, offset, "late: x", b"", 0) for offset in offsets]

    for saved_us in (10, 20, 30):
        await store.run(quarantine.insert, late(saved_us, saved_us + 1), saved_us)
    assert await store.run(quarantine.prune, 25, 3) == 3
    assert await store.run(quarantine.prune, 25) == 1
    assert await store.read(count, ["quarantine"]) == {"quarantine": 2}


# ---------------------------------------------------------------- versions


async def test_lengths_are_read_from_cards(store: AsyncStore) -> None:
    facts: dict[str, Any] = {"trained_us": 1, "metrics": {}, "path": "p"}
    acted: dict[str, Any] = {"actor": MONITOR, "at_us": 1}
    for fleet, card in (("pumps", {"length": 144}), ("fans", {}), ("belts", {"length": None})):
        await store.run(
            registry.publish_and_promote, version=f"v-{fleet}", fleet=fleet, card=card, **acted, **facts
        )
    await store.run(versions.publish, version="next", fleet="pumps", card={"length": 96}, **facts)
    assert await store.read(versions.window_lengths) == {"pumps": 144}
    assert await store.read(versions.window_lengths, "next") == {"pumps": 96}
    assert await store.read(versions.window_lengths, "v-fans") == {"pumps": 144}
