"""The daemon says when a fleet's budget is broken: once, then daily, and when that is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from monitor.budget import DAY_US, Alarm, burn
from monitor.config import parse
from monitor.service import maintenance
from monitor.service.maintenance import REMIND_EVERY_S, Promises
from monitor.store.burn import NoPromise, Standing
from tests.fakes import FakeClock
from tests.unit.recorded_log import Log

if TYPE_CHECKING:
    from monitor.store.engine import AsyncStore

CONFIG = parse({"kafka": {"bootstrap": "b:9092", "topics": ["t"]}, "fleet": [{"name": "turbines", "interval": "10m"}]})
WEEK_US = 7 * DAY_US


def standing(n_alarms: int, weeks: float) -> Standing:
    alarms = [Alarm(k * DAY_US // 2 + 1, k * DAY_US // 2 + 2) for k in range(n_alarms)]
    used = burn(alarms, 0, 4 * WEEK_US, weeks, 1.0)
    return Standing("turbines", "conv-1", 0, 4 * WEEK_US, used, used, (("R1", used),) if n_alarms else ())


class Store:
    """Answers with what it was told."""

    def __init__(self) -> None:
        self.standing: Standing | NoPromise | None = None

    async def read(self, _fn: object, fleet: str) -> Standing | NoPromise | None:
        assert fleet == "turbines"
        return self.standing


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(maintenance, "log", log)
    return log


async def test_a_broken_budget_is_told_once_and_then_daily(log: Log) -> None:
    store, clock = Store(), FakeClock()
    promises = Promises(CONFIG, cast("AsyncStore", store), clock)
    await promises.look()
    assert log.lines == []
    store.standing = standing(40, 4.0)
    for _ in range(3):
        await promises.look()
        await clock.sleep(600)
    [(level, event, facts)] = log.lines
    assert (level, event) == ("warning", "budget_violated")
    assert (facts["fleet"], facts["version"], facts["alarms"], facts["allowed"]) == ("turbines", "conv-1", 40, 4.0)
    assert facts["worst"] == ["R1: 40 of 4.0 allowed"]
    assert "monitor models show conv-1" in facts["do"]
    await clock.sleep(REMIND_EVERY_S)
    await promises.look()
    assert [event for _, event, _ in log.lines] == ["budget_violated"] * 2


async def test_a_threshold_that_cannot_be_read_is_told_once_and_ends_nothing(log: Log) -> None:
    store, clock = Store(), FakeClock()
    store.standing = NoPromise("turbines", "conv-1")
    promises = Promises(CONFIG, cast("AsyncStore", store), clock)
    for _ in range(3):
        await promises.look()
    [(level, event, facts)] = log.lines
    assert (level, event, facts["version"]) == ("warning", "budget_unknown", "conv-1")


async def test_what_is_certified_or_missing_is_told_once(log: Log) -> None:
    store, clock = Store(), FakeClock()
    promises = Promises(CONFIG, cast("AsyncStore", store), clock)
    for found in (standing(0, 1.0), standing(0, 20.0), standing(40, 4.0), standing(0, 20.0)):
        store.standing = found
        for _ in range(3):
            await promises.look()
            await clock.sleep(REMIND_EVERY_S / 4)
    assert [event for _, event, _ in log.lines] == [
        "budget_provisional", "budget_certified", "budget_violated", "budget_certified",
    ]  # fmt: skip
    assert log.lines[0][2]["asset_weeks_missing"] == pytest.approx(2.0, abs=0.01)
