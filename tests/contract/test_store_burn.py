"""Burn of a budget on both databases: time watched from the scores, alarms from the alerts."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import text

from monitor.budget import FALSE_VERDICT_DAYS, Status, UnreadableThreshold, too_many, weeks_missing
from monitor.store import burn, versions
from monitor.store.engine import AsyncStore
from monitor.store.reader import open_reader
from monitor.types import AlertState
from tests.contract.steps import FLEET, INTERVAL_US, LENGTH, NAN, THRESHOLD, VERSION, change, own

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from monitor.budget import BudgetReport

WEEK = 1008
FIRST = 8
"""Cell of the first window's start."""


def report(url: str, version: str = VERSION) -> BudgetReport | None:
    with open_reader(url) as reader:
        return burn.budget_report(reader.fetch, FLEET, version, THRESHOLD)


async def fill(url: str, n: int, *then: Callable[[Connection], object], every: int = 1) -> None:
    """Insert n windows of each of three assets: always scored, scored half of the time, never scored."""
    async with AsyncStore(url, owner=True) as store:
        owner = await own(store)
        await store.run(versions.activate, FLEET, VERSION, -(2**62))
        for cell in range(FIRST, FIRST + n * every, every):
            half = 0.5 if cell < FIRST + n * every // 2 else NAN
            await owner.save(owner.step(await owner.rows({"whole": 0.5, "half": half, "none": NAN}, cell)))
        first = [change(12, 12, AlertState.FIRING, asset=0), change(12, 13, AlertState.CLOSED, asset=0)]
        alerts = [*first, change(14, 14, AlertState.FIRING, asset=0)]
        await owner.save(owner.step(await owner.rows({"whole": 0.5}, FIRST + n * every, alerts=alerts)))
        for step in then:
            await store.run(step)


def test_there_is_no_report_before_the_first_score(url: str) -> None:
    async def empty() -> None:
        async with AsyncStore(url, owner=True) as store:
            await own(store)
            await store.run(versions.activate, FLEET, VERSION, -(2**62))

    asyncio.run(empty())
    assert report(url) is None
    assert report(url, "another") is None


def test_only_scored_windows_count_as_time_watched(url: str) -> None:
    asyncio.run(fill(url, 40))
    found = report(url)
    assert found is not None
    assert found.own.weeks == pytest.approx((41 + 20) / WEEK)
    assert found.from_us == (FIRST + LENGTH - 1) * INTERVAL_US
    assert found.to_us == (FIRST + LENGTH + 40) * INTERVAL_US
    assert (found.own.n_alarms, found.recent.n_alarms) == (2, 2)
    assert [(name, used.n_alarms) for name, used in found.worst] == [("whole", 2)]
    assert found.worst[0][1].weeks == pytest.approx(41 / WEEK)
    assert found.own.status is Status.PROVISIONAL


def test_sampled_moments_estimate_the_time_watched(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(fill(url, 60))
    monkeypatch.setattr(burn, "N_STRIPES", 10)
    monkeypatch.setattr(burn, "LEAST_STRIPES", 10)
    found = report(url)
    assert found is not None
    assert found.own.weeks == pytest.approx(91 / WEEK, rel=0.1)


def test_an_alert_labelled_as_a_fault_is_no_false_alarm(url: str) -> None:
    def label(connection: Connection) -> None:
        connection.execute(text("UPDATE alert SET label = 'fault' WHERE state = 'closed'"))
        connection.execute(text("UPDATE alert SET label = 'normal' WHERE state <> 'closed'"))

    asyncio.run(fill(url, 20, label))
    found = report(url)
    assert found is not None
    assert found.own.n_alarms == 1


LABELLED = """
    INSERT INTO interval_label (asset_id, from_us, to_us, label, note, actor, made_us)
    SELECT id, 7199999999, 7800000000, '{}', '', 'ann', 0 FROM asset
"""
"""Cells 12 and 13: the first alert, and two windows of each asset."""
IN_MAINTENANCE = """
    INSERT INTO maintenance (fleet, asset, from_us, to_us, reason, actor, made_us)
    VALUES ('turbines', '{}', 7200000000, 7800000001, 'oil', 'ann', 0)
"""
EACH_NIGHT = """
    INSERT INTO maintenance (fleet, asset, from_us, cron, duration_us, reason, actor, made_us)
    VALUES ('turbines', '*', 0, '0 2 * * *', 600000001, 'oil', 'ann', 0)
"""


@pytest.mark.parametrize(
    ("answer", "n_alarms", "n_windows"),
    [
        ("SELECT 1", 2, 31),
        ("UPDATE alert SET label = 'ignore'", 0, 31),
        ("UPDATE alert SET suppressed_by = 'maintenance' WHERE state = 'closed'", 1, 31),
        ("UPDATE alert SET suppressed_by = 'shelf'", 2, 31),
        (LABELLED.format("fault"), 1, 27),
        (LABELLED.format("normal"), 2, 31),
        (IN_MAINTENANCE.format("wh*"), 1, 29),
        (IN_MAINTENANCE.format("other"), 2, 31),
        (EACH_NIGHT, 1, 27),
    ],
)
def test_judged_times_neither_count_nor_are_watched(
    url: str, answer: str, n_alarms: int, n_windows: int
) -> None:
    def judge(connection: Connection) -> None:
        connection.execute(text(answer))

    asyncio.run(fill(url, 20, judge))
    found = report(url)
    assert found is not None
    assert (found.own.n_alarms, found.recent.n_alarms) == (n_alarms, n_alarms)
    assert found.own.weeks == pytest.approx(n_windows / WEEK)


def test_an_alert_closed_by_hand_counts_until_then(url: str) -> None:
    day = 144

    def leave_open(connection: Connection) -> None:
        connection.execute(text("DELETE FROM alert_transition"))
        connection.execute(text("DELETE FROM alert WHERE state = 'closed'"))

    def close(connection: Connection) -> None:
        leave_open(connection)
        connection.execute(text("UPDATE alert SET closed_by_hand_us = opened_us + 1"))

    asyncio.run(fill(url, 3 * day, leave_open))
    found = report(url)
    assert found is not None
    assert found.own.n_alarms > 1  # it counts again for each day

    async def by_hand() -> None:
        async with AsyncStore(url) as store:
            await store.run(close)

    asyncio.run(by_hand())
    found = report(url)
    assert found is not None
    assert found.own.n_alarms == 1


def test_a_version_reports_its_windows_and_the_fleet_all(url: str) -> None:
    boundary = (FIRST + LENGTH + 10) * INTERVAL_US

    def replace(connection: Connection) -> None:
        same = {"fleet": FLEET, "path": "/checkpoints/v2", "trained_us": 1, "metrics": {}}
        versions.publish(connection, version="v2", card={"threshold": THRESHOLD}, **same)
        versions.activate(connection, FLEET, "v2", boundary)
        # `activate` puts the boundary after all decided windows. Move it back between them.
        connection.execute(
            text("UPDATE model_activation SET from_window_end_us = :us WHERE from_window_end_us > :us"),
            {"us": boundary},
        )

    asyncio.run(fill(url, 30, replace))
    old, new = report(url), report(url, "v2")
    assert old is not None
    assert new is not None
    assert (old.to_us, new.from_us) == (boundary, boundary)
    assert old.own.n_alarms == 2
    assert (new.own.n_alarms, new.own.weeks) == (0, 0.0)   # the old version scored all windows here
    assert new.recent.n_alarms == 2

    async def read_report() -> BudgetReport | UnreadableThreshold | None:
        async with AsyncStore(url) as store:
            return await store.read(burn.champion_budget_report, FLEET)

    assert asyncio.run(read_report()) == new


@pytest.mark.parametrize(
    "card",
    [
        "{}", "[]", "3", '"no"', "null", '{"threshold": null}', '{"threshold": []}', '{"threshold": {"step_s": 600.0}}',
        json.dumps({"threshold": THRESHOLD | {"step_s": "600"}}), json.dumps({"threshold": THRESHOLD | {"step_s": 0}}),
        json.dumps({"threshold": THRESHOLD | {"weeks": float("nan")}}),
        json.dumps({"threshold": THRESHOLD | {"alarms_per_week": -1}}),
    ],
)
def test_an_unreadable_threshold_is_reported_as_such(url: str, card: str) -> None:
    def store_card(connection: Connection) -> None:
        connection.execute(text("UPDATE model_version SET card = :card"), {"card": card})

    asyncio.run(fill(url, 5, store_card))

    async def read_report() -> BudgetReport | UnreadableThreshold | None:
        async with AsyncStore(url) as store:
            return await store.read(burn.champion_budget_report, FLEET)

    assert asyncio.run(read_report()) == UnreadableThreshold(FLEET, VERSION)


def test_held_out_time_that_overlaps_training_never_certifies(url: str) -> None:
    asyncio.run(fill(url, 5))
    with open_reader(url) as reader:
        known, tainted = (
            burn.budget_report(reader.fetch, FLEET, VERSION, THRESHOLD | {"weeks": 1000.0} | more)
            for more in ({}, {"n_overlapping": 3})
        )
    assert known is not None
    assert tainted is not None
    assert (known.status, tainted.status) == (Status.CERTIFIED, Status.PROVISIONAL)


def test_three_families_of_tests_share_one_error_rate() -> None:
    """Version, fleet and assets are tested, and one violation is enough for the verdict."""
    draw = np.random.default_rng(0)
    n_days, wrong = 365, 0
    for _ in range(60):
        days = draw.poisson(1 / 7, (10, n_days))
        families = [(days.sum(0), 10 / 7, 1), (days.sum(0), 10 / 7, 1), *((one, 1 / 7, 10) for one in days)]
        wrong += any(
            too_many(((int(n), allowed) for n in alarms[:today]), burn.FAMILIES * one_of)
            for alarms, allowed, one_of in families
            for today in range(30, n_days + 1, 67)
        )
    assert wrong / 60 <= n_days / FALSE_VERDICT_DAYS
    # An alert that stays open: nine days suffice for a single test, but not for three.
    endless = [(1, 1 / 7)] * 9
    assert too_many(endless)
    assert not too_many(endless, burn.FAMILIES)


@pytest.mark.parametrize("answer", ["SELECT 1", IN_MAINTENANCE.format("other")])
def test_time_without_scores_is_evidence(url: str, answer: str) -> None:
    """Retention deletes scores after 90 days, and hourly roll-ups after two years."""
    def prune(connection: Connection) -> None:
        connection.execute(text(answer))
        connection.execute(text("DELETE FROM score WHERE start_us < :us"), {"us": (FIRST + 130) * INTERVAL_US})

    asyncio.run(fill(url, 200))
    before = report(url)
    asyncio.run(_run(url, prune))
    after = report(url)
    assert before is not None
    assert after is not None
    assert after.from_us > before.from_us
    assert after.own.weeks < before.own.weeks / 2
    assert after.own.weeks_missing == pytest.approx(before.own.weeks_missing, abs=0.02)


async def _run(url: str, step: Callable[[Connection], object]) -> None:
    async with AsyncStore(url) as store:
        await store.run(step)


TERMS = THRESHOLD | {"confirm": 3, "among": 5, "recover": 6}


@pytest.mark.parametrize(
    ("former", "n_alarms", "weeks"),
    [
        ({"threshold": TERMS | {"n_episodes": 1}}, 3, 1 + 61 / WEEK),
        ({"threshold": TERMS, "labels": {"factor": 0.9}}, 2, 1 + 61 / WEEK),
        ({"threshold": TERMS, "labels": {"factor": 1.1}}, None, 0.0),
        ({"threshold": TERMS | {"alarms_per_week": 2.0}}, None, 0.0),
        ({"threshold": THRESHOLD}, None, 0.0),
    ],
)
def test_former_versions_with_the_same_terms_are_evidence(
    url: str, former: dict[str, object], n_alarms: int | None, weeks: float
) -> None:
    """A retraining every day must not end each wait."""
    boundary = (FIRST + LENGTH + 40) // 6 * 6 * INTERVAL_US  # a full hour

    def replace(connection: Connection) -> None:
        same = {"fleet": FLEET, "path": "/checkpoints/v2", "trained_us": 1, "metrics": {}}
        connection.execute(text("UPDATE model_version SET card = :card"), {"card": json.dumps(former)})
        versions.publish(connection, version="v2", card={"threshold": TERMS}, **same)
        versions.activate(connection, FLEET, "v2", boundary)
        connection.execute(text("UPDATE model_activation SET from_window_end_us = :us WHERE from_window_end_us > :us"),
                           {"us": boundary})  # fmt: skip

    asyncio.run(fill(url, 40, replace))
    found = report(url, "v2")
    assert found is not None
    assert found.own.former_weeks == pytest.approx(weeks, abs=0.02)
    evidence = (0, 1.0) if n_alarms is None else (n_alarms, weeks)
    assert found.own.weeks_missing == pytest.approx(weeks_missing(*evidence, 1.0), abs=0.1)
