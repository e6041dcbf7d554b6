"""Reports on a violated budget: once, then daily, and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from monitor import metrics
from monitor.budget import DAY_US, Alarm, BudgetReport, UnreadableThreshold, burn
from monitor.config import parse
from monitor.service import maintenance
from monitor.service.maintenance import BudgetReports
from monitor.store import judged
from monitor.store.judged import JudgedCount
from monitor.timing import DEFAULT_TIMING
from tests.fakes import FakeClock, RecordedLog

if TYPE_CHECKING:
    from monitor.store.engine import AsyncStore

CONFIG = parse({"kafka": {"bootstrap": "b:9092", "topics": ["t"]}, "fleet": [{"name": "turbines", "interval": "10m"}]})
WEEK_US = 7 * DAY_US
REMIND_EVERY_S = DEFAULT_TIMING.budget_reminder_every_s


def standing(n_alarms: int, weeks: float) -> BudgetReport:
    alarms = [Alarm(k * DAY_US // 2 + 1, k * DAY_US // 2 + 2) for k in range(n_alarms)]
    used = burn(alarms, 0, 4 * WEEK_US, weeks, 1.0)
    return BudgetReport("turbines", "conv-1", 0, 4 * WEEK_US, used, used, (("R1", used),) if n_alarms else ())


class BudgetStore:
    """Answers with the standing that a test sets."""

    def __init__(self) -> None:
        self.standing: BudgetReport | UnreadableThreshold | None = None
        self.judged: dict[str | None, JudgedCount] = {}

    async def read(self, fn: object, *fleet: str) -> object:
        if fn is judged.read_counts:
            return self.judged
        assert fleet == ("turbines",)
        return self.standing


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> RecordedLog:
    log = RecordedLog()
    monkeypatch.setattr(maintenance, "log", log)
    return log


async def test_a_violated_budget_is_reported_once_and_then_daily(log: RecordedLog) -> None:
    store, clock = BudgetStore(), FakeClock()
    budgets = BudgetReports(CONFIG, cast("AsyncStore", store), clock)
    await budgets.report()
    assert log.lines == []
    store.standing = standing(40, 4.0)
    for _ in range(3):
        await budgets.report()
        await clock.sleep(600)
    [(level, event, facts)] = log.lines
    assert (level, event) == ("warning", "budget_violated")
    assert (facts["fleet"], facts["version"], facts["alarms"], facts["allowed"]) == ("turbines", "conv-1", 40, 4.0)
    assert facts["worst"] == ["R1: 40 of 4.0 allowed"]
    assert "monitor models show conv-1" in facts["do"]
    await clock.sleep(REMIND_EVERY_S)
    await budgets.report()
    assert [event for _, event, _ in log.lines] == ["budget_violated"] * 2


async def test_an_unreadable_threshold_is_reported_once(log: RecordedLog) -> None:
    store, clock = BudgetStore(), FakeClock()
    store.standing = UnreadableThreshold("turbines", "conv-1")
    budgets = BudgetReports(CONFIG, cast("AsyncStore", store), clock)
    for _ in range(3):
        await budgets.report()
    [(level, event, facts)] = log.lines
    assert (level, event, facts["version"]) == ("warning", "budget_unknown", "conv-1")


async def test_each_change_of_a_budgets_status_is_reported_once(log: RecordedLog) -> None:
    store, clock = BudgetStore(), FakeClock()
    budgets = BudgetReports(CONFIG, cast("AsyncStore", store), clock)
    for found in (standing(0, 1.0), standing(0, 20.0), standing(40, 4.0), standing(0, 20.0)):
        store.standing = found
        for _ in range(3):
            await budgets.report()
            await clock.sleep(REMIND_EVERY_S / 4)
    assert [event for _, event, _ in log.lines] == [
        "budget_provisional", "budget_certified", "budget_violated", "budget_certified",
    ]  # fmt: skip
    assert log.lines[0][2]["asset_weeks_missing"] == pytest.approx(2.88, abs=0.01)
    assert log.lines[1][2]["basis"] == "watched"


@pytest.mark.parametrize(("known", "ratio"), [({}, 0.0), ({"turbines": JudgedCount(40, 50)}, 0.606)])
async def test_the_share_of_real_alerts_is_a_metric(known: dict[str | None, JudgedCount], ratio: float) -> None:
    store = BudgetStore()
    store.judged = known
    await BudgetReports(CONFIG, cast("AsyncStore", store), FakeClock()).report()
    found = metrics.registry.get_sample_value("monitor_real_alerts_ratio_at_least", {"fleet": "turbines"})
    assert found == pytest.approx(ratio, abs=0.01)
