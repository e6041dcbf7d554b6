from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.config import parse
from monitor.config.values import Confirm
from monitor.decode import AssetIndex, FleetSchema
from monitor.evaluation.assess import bare_scores
from monitor.evaluation.policy import PolicyChange
from monitor.replay.diff import Alert, Ledger, Side, difference, outcomes
from monitor.replay.side_by_side import Twin
from monitor.stream.alerting import Decider
from monitor.stream.shard import Lane, alert_policy
from monitor.types import Scores, Severity, Windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.replay.diff import Outcome
    from monitor.types import Float32, Int64

S = 1_000_000
CONFIG = parse(
    {
        "kafka": {"bootstrap": "b:9092", "topics": ["plant"]},
        "fleet": [{"name": "f", "interval": "1m", "window": 8, "sensors": ["power"], "alerts": {"confirm": "2 of 3"}}],
    }
)
FLEET = CONFIG.fleets[0]


def _alert(
    opened: int, closed: int | None, *, fired: int | None = None, asset: str = "a", critical: bool = False
) -> Alert:
    severity = Severity.CRITICAL if critical else Severity.WARNING
    fired = opened if fired is None else fired
    return Alert(asset, opened * S, fired * S, closed and closed * S, severity, 1.5, 3, (), "v")


# ---------------------------------------------------------------- sides


@pytest.mark.parametrize(
    ("text", "side", "shown"),
    [
        ("turbines-1a2b", Side("turbines-1a2b"), "turbines-1a2b"),
        ("champion", Side("champion"), "champion"),
        ("live", Side(), "live"),
        ("live, 5 of 8", Side(None, PolicyChange(Confirm(5, 8))), "confirm=5 of 8"),
        ("confirm=5 of 8, recover=12", Side(None, PolicyChange(Confirm(5, 8), 12)), "confirm=5 of 8, recover=12"),
        ("recover=3, turbines-1a2b", Side("turbines-1a2b", PolicyChange(None, 3)), "turbines-1a2b, recover=3"),
        ("2/4", Side(None, PolicyChange(Confirm(2, 4))), "confirm=2 of 4"),
    ],
)
def test_a_side_is_a_version_alert_parameters_or_both(text: str, side: Side, shown: str) -> None:
    assert Side.parse(text) == side
    assert str(side) == shown
    assert Side.parse(shown) == side


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no side"),
        ("turbines-1a2b, turbines-3c4d", "is no side"),
        ("confirm=5 of 8,", "is no side"),
        ("confirm 5 of 8", 'confirm "confirm 5 of 8" is not "m of n"'),
        ("turbines-1a2b, budget=2/week", '"budget" is no alert parameter'),
    ],
)
def test_what_is_no_side_is_told_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Side.parse(text)


# ---------------------------------------------------------------- matching


def _what(before: Sequence[Alert], after: Sequence[Alert], from_us: int = -1) -> list[str]:
    return [outcome.what for outcome in outcomes("f", before, after, from_us)]


def test_an_alert_during_which_the_other_side_said_nothing_is_gained_or_lost() -> None:
    assert _what([_alert(10, 20)], [_alert(21, 30)]) == ["lost", "gained"]
    assert _what([_alert(10, 20)], [_alert(10, 20, asset="b")]) == ["lost", "gained"]


def test_what_an_operator_notices_moves_an_alert_and_its_peak_alone_does_not() -> None:
    before = _alert(10, 20, fired=12)
    louder = Alert("a", 10 * S, 12 * S, 20 * S, Severity.WARNING, 2.9, 7, (), "w")
    assert _what([before], [louder]) == ["same"]
    for after in (
        _alert(11, 20, fired=12),
        _alert(10, 20, fired=13),
        _alert(10, 21, fired=12),
        _alert(10, None, fired=12),
        _alert(10, 20, fired=12, critical=True),
    ):
        assert _what([before], [after]) == ["moved"]


def test_by_how_much_an_alert_moved() -> None:
    [moved] = outcomes("f", [_alert(10, 20, fired=12)], [_alert(8, 26, fired=9)])
    assert (moved.opened_by_s, moved.fired_by_s, moved.closed_by_s) == (-2, -3, 6)
    [still] = outcomes("f", [_alert(10, None)], [_alert(10, 15)])
    assert still.closed_by_s is None
    [lost] = outcomes("f", [_alert(10, 15)], [])
    assert (lost.opened_by_s, lost.fired_by_s, lost.closed_by_s) == (None, None, None)


def test_an_alert_that_splits_is_one_episode_that_moved() -> None:
    one, parts = _alert(10, 40), [_alert(10, 15), _alert(20, 40)]
    [split] = outcomes("f", [one], parts)
    assert (split.what, split.before, split.after) == ("moved", (one,), tuple(parts))
    assert (split.opened_by_s, split.fired_by_s, split.closed_by_s) == (0, 0, 0)


def test_an_episode_counts_when_any_alert_of_it_opened_in_the_stretch() -> None:
    assert _what([_alert(10, 20)], [_alert(10, 20)], 10 * S) == []
    assert _what([_alert(10, 20)], [_alert(11, 20)], 10 * S) == ["moved"]
    assert _what([_alert(10, 20)], [], 10 * S) == []


@st.composite
def _lives(draw: st.DrawFn) -> list[Alert]:
    """What one decider may say: on an asset, one alert after the other; the last may be open."""
    said = []
    for asset in "ab":
        at = 0
        for gap, fires, length in draw(st.lists(st.tuples(*[st.integers(1, 6)] * 3), max_size=5)):
            opened = at + gap
            at = opened + length
            said.append(
                _alert(opened, at, fired=opened + min(fires, length), asset=asset, critical=draw(st.booleans()))
            )
        if draw(st.booleans()):
            said.append(_alert(at + draw(st.integers(1, 6)), None, asset=asset))
    return said


def _meet(one: Alert, other: Alert) -> bool:
    end, beyond = (each.closed_us if each.closed_us is not None else 1 << 62 for each in (one, other))
    return one.asset == other.asset and one.opened_us <= beyond and other.opened_us <= end


_MIRROR = {"same": "same", "moved": "moved", "gained": "lost", "lost": "gained"}


@given(_lives(), _lives())
def test_each_alert_has_one_outcome_and_gained_and_lost_met_nothing(before: list[Alert], after: list[Alert]) -> None:
    found = outcomes("f", before, after)
    for mine, others, side, alone in ((before, after, "before", "lost"), (after, before, "after", "gained")):
        held = [alert for outcome in found for alert in getattr(outcome, side)]
        assert sorted(held, key=_place) == sorted(mine, key=_place)
        only = [alert for outcome in found if outcome.what == alone for alert in getattr(outcome, side)]
        assert sorted(only, key=_place) == sorted(
            (alert for alert in mine if not any(_meet(alert, other) for other in others)), key=_place
        )
    for outcome in found:
        assert (outcome.what == "same") == (
            [_told(alert) for alert in outcome.before] == [_told(alert) for alert in outcome.after]
        )


@given(_lives(), _lives(), st.integers(-1, 20))
def test_the_difference_of_b_and_a_mirrors_that_of_a_and_b(
    before: list[Alert], after: list[Alert], from_s: int
) -> None:
    def minus(seconds: float | None) -> float | None:
        return None if seconds is None else -seconds

    def mirrored(one: Outcome) -> tuple[object, ...]:
        shifts = (minus(one.opened_by_s), minus(one.fired_by_s), minus(one.closed_by_s))
        return _MIRROR[one.what], one.asset, one.after, one.before, *shifts

    forth, back = outcomes("f", before, after, from_s * S), outcomes("f", after, before, from_s * S)
    plain = [(o.what, o.asset, o.before, o.after, o.opened_by_s, o.fired_by_s, o.closed_by_s) for o in back]
    assert [mirrored(outcome) for outcome in forth] == plain


@given(_lives())
def test_a_decider_against_itself_differs_in_nothing(one: list[Alert]) -> None:
    assert set(_what(one, one)) <= {"same"}


def _place(alert: Alert) -> tuple[str, int]:
    return alert.asset, alert.opened_us


def _told(alert: Alert) -> tuple[object, ...]:
    return alert.opened_us, alert.fired_us, alert.closed_us, alert.severity


# ---------------------------------------------------------------- sums


@given(_lives(), _lives(), st.integers(-1, 20))
def test_what_a_side_said_is_the_sum_of_its_outcomes(before: list[Alert], after: list[Alert], from_s: int) -> None:
    ledgers = (_ledger(before, from_s), _ledger(after, from_s))
    [fleet] = difference((Side(), Side("v")), ledgers, [FLEET]).fleets
    assert fleet.before.alerts == fleet.same + fleet.moved_before + fleet.lost
    assert fleet.after.alerts == fleet.same + fleet.moved_after + fleet.gained
    assert fleet.before.per_asset_week == pytest.approx(fleet.before.alerts / (10_080 / (7 * 24 * 60)))


def _ledger(said: list[Alert], from_s: int) -> Ledger:
    ledger = Ledger(from_s * S)
    ledger.alerts["f"] = {_place(alert): alert for alert in said}
    ledger.assets["f"] = {"a", "b"}
    ledger.scored["f"] = 10_080  # at a window a minute: an asset-week
    return ledger


def test_a_fleet_without_windows_is_left_out_and_one_without_scores_has_no_rate() -> None:
    nothing = (Ledger(), Ledger())
    assert difference((Side(), Side("v")), nothing, [FLEET]).fleets == ()
    nothing[0].assets["f"].add("a")
    [fleet] = difference((Side(), Side("v")), nothing, [FLEET]).fleets
    assert fleet.before.per_asset_week is None


# ---------------------------------------------------------------- decided twice


class _ByVersion:
    """Scores by the parity of what the windows hold: two of these never agree."""

    def __init__(self, name: str, shift: float) -> None:
        self.name = name
        self.shift = shift
        self.n_calls = 0

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        self.n_calls += 1
        score = (np.abs(np.sin(end_us / 60e6 + windows.asset + self.shift)) * 1.3).astype(np.float32)
        return Scores(windows, score, [self.name] * len(windows), {}, activation_seq=7)


def _lane(assets: Sequence[str]) -> Lane:
    schema = FleetSchema("f", FLEET.interval_us, ("plant",), ("*",), ("power",))
    return Lane(FLEET, schema, AssetIndex(assets), CONFIG.kafka)


def _windows(n: int, n_assets: int) -> tuple[Windows, Int64]:
    ends = np.repeat(np.arange(1, n + 1), n_assets).astype(np.int64) * 60 * S
    bare = bare_scores(np.zeros(len(ends), np.float32), np.tile(np.arange(n_assets, dtype=np.int32), n)).windows
    fields = ("asset", "start", "values", "n_present", "first_offset", "last_offset")
    return Windows("f", *(getattr(bare, name) for name in fields)), ends


def _alone(score: Float32, windows: Windows, ends: Int64, side: Side) -> Ledger:
    ledger, decider = Ledger(), Decider("f", side.change.on(alert_policy(FLEET.alerts)))
    scores = Scores(windows, score, ["v"] * len(windows), {})
    ledger.take(("a", "b", "c"), scores, ends, decider.decide(scores, ends))
    return ledger


@pytest.mark.parametrize("n_at_once", [1, 7, 1000])
@pytest.mark.parametrize("has_versions", [False, True])
async def test_both_sides_decide_as_each_would_alone(n_at_once: int, has_versions: bool) -> None:
    before, after = Side.parse("1 of 2, recover=2"), Side.parse("new, 3 of 4" if has_versions else "3 of 4")
    twin, lane = Twin(before, after), _lane(("a", "b", "c"))
    own, other = _ByVersion("old", 0.0), _ByVersion("new", 0.7)
    if has_versions:
        twin.lend(other, frozenset({"f"}))
    scorer = twin.scorer(own, twin.other)
    twin.watch(lane)
    windows, ends = _windows(400, 3)
    said = []
    for begin in range(0, len(windows), n_at_once):
        rows = slice(begin, begin + n_at_once)
        part = Windows("f", *(getattr(windows, name)[rows] for name in Windows.__slots__ if name != "fleet"))
        scores = await scorer.score(part, ends[rows], ("power",))
        assert (scores.version[0], scores.activation_seq) == ("old", 7)
        said += lane.decider.decide(scores, ends[rows])
    assert said
    by_version = [(await each.score(windows, ends, ("power",))).score for each in (own, other)]
    alone = [
        _alone(by_version[0], windows, ends, before),
        _alone(by_version[1 if has_versions else 0], windows, ends, after),
    ]
    for mine, its in zip(twin.ledgers, alone, strict=True):
        assert mine.scored == its.scored
        assert mine.assets == its.assets
        assert {key: _told(alert) for key, alert in mine.alerts["f"].items()} == {
            key: _told(alert) for key, alert in its.alerts["f"].items()
        }
    assert other.n_calls == (1 + -(-len(windows) // n_at_once) if has_versions else 1)
    found = twin.difference()
    assert {outcome.what for outcome in found.outcomes} >= {"lost", "moved"}


async def test_a_window_is_scored_once_where_one_version_decides_on_both_sides() -> None:
    twin, other = Twin(Side(), Side("new")), _ByVersion("new", 0.7)
    twin.lend(other, frozenset({"another fleet"}))
    windows, ends = _windows(10, 1)
    scores = await twin.scorer(_ByVersion("old", 0.0), twin.other).score(windows, ends, ("power",))
    assert len(scores.score) == 10
    assert other.n_calls == 0


def test_the_run_up_counts_nowhere_but_its_alerts_are_remembered() -> None:
    ledger, windows_ends = Ledger(from_us=5 * 60 * S), _windows(10, 1)
    score = np.full(10, 2.0, np.float32)
    scores = Scores(windows_ends[0], score, ["v"] * 10, {}, "half of it")
    decider = Decider("f", alert_policy(FLEET.alerts))
    ledger.take(("a",), scores, windows_ends[1], decider.decide(scores, windows_ends[1]))
    assert ledger.scored["f"] == 5
    assert ledger.why_unscored == {"f": "half of it"}
    [alert] = ledger.alerts["f"].values()
    assert (alert.opened_us, alert.fired_us, alert.closed_us) == (60 * S, 2 * 60 * S, None)
    assert _what([alert], [], ledger.from_us) == []
