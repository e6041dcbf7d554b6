from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.config import parse
from monitor.config.values import Confirm
from monitor.decode import AssetIndex
from monitor.evaluation.assess import bare_scores
from monitor.evaluation.policy import PolicyChange
from monitor.replay.diff import Side, SideAlert, SideResults, compare_alerts, difference
from monitor.replay.side_by_side import SideBySide
from monitor.stream.alerting import AlertPolicy, Decider
from monitor.types import Scores, Severity, Windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.replay.diff import EpisodeDiff
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
) -> SideAlert:
    severity = Severity.CRITICAL if critical else Severity.WARNING
    fired = opened if fired is None else fired
    return SideAlert(asset, opened * S, fired * S, closed and closed * S, severity, 1.5, 3, (), "v")


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
def test_a_side_is_a_version_or_parameters(text: str, side: Side, shown: str) -> None:
    assert Side.parse(text) == side
    assert str(side) == shown
    assert Side.parse(shown) == side


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no side"),
        ("turbines-1a2b, turbines-3c4d", "is no side"),
        ("confirm=5 of 8,", "is no side"),
        ("confirm 5 of 8", 'confirm "confirm 5 of 8" is not "m of n"'),
        ("turbines-1a2b, budget=2/week", '"budget" is no alert parameter'),
    ],
)
def test_a_wrong_side_is_rejected(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Side.parse(text)


# ---------------------------------------------------------------- episodes


def _kinds(before: Sequence[SideAlert], after: Sequence[SideAlert], from_us: int = -1) -> list[str]:
    return [episode.what for episode in compare_alerts("f", before, after, from_us)]


def test_an_alert_alone_is_gained_or_lost() -> None:
    assert _kinds([_alert(10, 20)], [_alert(21, 30)]) == ["lost", "gained"]
    assert _kinds([_alert(10, 20)], [_alert(10, 20, asset="b")]) == ["lost", "gained"]


def test_times_and_severity_move_an_alert() -> None:
    before = _alert(10, 20, fired=12)
    louder = SideAlert("a", 10 * S, 12 * S, 20 * S, Severity.WARNING, 2.9, 7, (), "w")
    assert _kinds([before], [louder]) == ["same"]
    for after in (
        _alert(11, 20, fired=12),
        _alert(10, 20, fired=13),
        _alert(10, 21, fired=12),
        _alert(10, None, fired=12),
        _alert(10, 20, fired=12, critical=True),
    ):
        assert _kinds([before], [after]) == ["moved"]


def test_delays_are_those_of_the_second_side() -> None:
    [moved] = compare_alerts("f", [_alert(10, 20, fired=12)], [_alert(8, 26, fired=9)])
    assert (moved.opened_by_s, moved.fired_by_s, moved.closed_by_s) == (-2, -3, 6)
    [still] = compare_alerts("f", [_alert(10, None)], [_alert(10, 15)])
    assert still.closed_by_s is None
    [lost] = compare_alerts("f", [_alert(10, 15)], [])
    assert (lost.opened_by_s, lost.fired_by_s, lost.closed_by_s) == (None, None, None)


def test_a_split_alert_is_one_moved_episode() -> None:
    one, parts = _alert(10, 40), [_alert(10, 15), _alert(20, 40)]
    [split] = compare_alerts("f", [one], parts)
    assert (split.what, split.before, split.after) == ("moved", (one,), tuple(parts))
    assert (split.opened_by_s, split.fired_by_s, split.closed_by_s) == (0, 0, 0)


def test_an_episode_needs_one_alert_in_range() -> None:
    assert _kinds([_alert(10, 20)], [_alert(10, 20)], 10 * S) == []
    assert _kinds([_alert(10, 20)], [_alert(11, 20)], 10 * S) == ["moved"]
    assert _kinds([_alert(10, 20)], [], 10 * S) == []


@st.composite
def _alerts(draw: st.DrawFn) -> list[SideAlert]:
    """Possible alerts of one decider: one after the other on each asset, of which the last may be open."""
    alerts = []
    for asset in "ab":
        at = 0
        for gap, fires, length in draw(st.lists(st.tuples(*[st.integers(1, 6)] * 3), max_size=5)):
            opened = at + gap
            at = opened + length
            alerts.append(
                _alert(opened, at, fired=opened + min(fires, length), asset=asset, critical=draw(st.booleans()))
            )
        if draw(st.booleans()):
            alerts.append(_alert(at + draw(st.integers(1, 6)), None, asset=asset))
    return alerts


def _overlap(one: SideAlert, other: SideAlert) -> bool:
    end, other_end = (each.closed_us if each.closed_us is not None else 1 << 62 for each in (one, other))
    return one.asset == other.asset and one.opened_us <= other_end and other.opened_us <= end


_MIRROR = {"same": "same", "moved": "moved", "gained": "lost", "lost": "gained"}


@given(_alerts(), _alerts())
def test_each_alert_is_in_one_episode(before: list[SideAlert], after: list[SideAlert]) -> None:
    found = compare_alerts("f", before, after)
    for ours, others, side, alone in ((before, after, "before", "lost"), (after, before, "after", "gained")):
        grouped = [alert for episode in found for alert in getattr(episode, side)]
        assert sorted(grouped, key=_key) == sorted(ours, key=_key)
        only = [alert for episode in found if episode.what == alone for alert in getattr(episode, side)]
        assert sorted(only, key=_key) == sorted(
            (alert for alert in ours if not any(_overlap(alert, other) for other in others)), key=_key
        )
    for episode in found:
        assert (episode.what == "same") == (
            [_times(alert) for alert in episode.before] == [_times(alert) for alert in episode.after]
        )


@given(_alerts(), _alerts(), st.integers(-1, 20))
def test_the_difference_of_b_a_mirrors_a_b(before: list[SideAlert], after: list[SideAlert], from_s: int) -> None:
    def minus(seconds: float | None) -> float | None:
        return None if seconds is None else -seconds

    def mirrored(one: EpisodeDiff) -> tuple[object, ...]:
        shifts = (minus(one.opened_by_s), minus(one.fired_by_s), minus(one.closed_by_s))
        return _MIRROR[one.what], one.asset, one.after, one.before, *shifts

    forth, back = compare_alerts("f", before, after, from_s * S), compare_alerts("f", after, before, from_s * S)
    plain = [(o.what, o.asset, o.before, o.after, o.opened_by_s, o.fired_by_s, o.closed_by_s) for o in back]
    assert [mirrored(episode) for episode in forth] == plain


@given(_alerts())
def test_equal_sides_have_no_difference(one: list[SideAlert]) -> None:
    assert set(_kinds(one, one)) <= {"same"}


def _key(alert: SideAlert) -> tuple[str, int]:
    return alert.asset, alert.opened_us


def _times(alert: SideAlert) -> tuple[object, ...]:
    return alert.opened_us, alert.fired_us, alert.closed_us, alert.severity


# ---------------------------------------------------------------- sums


@given(_alerts(), _alerts(), st.integers(-1, 20))
def test_episodes_sum_up_to_the_alerts_of_a_side(before: list[SideAlert], after: list[SideAlert], from_s: int) -> None:
    results = (_results(before, from_s), _results(after, from_s))
    [fleet] = difference((Side(), Side("v")), results, [FLEET]).fleets
    assert fleet.before.alerts == fleet.same + fleet.moved_before + fleet.lost
    assert fleet.after.alerts == fleet.same + fleet.moved_after + fleet.gained
    assert fleet.before.per_asset_week == pytest.approx(fleet.before.alerts / (10_080 / (7 * 24 * 60)))


def _results(alerts: list[SideAlert], from_s: int) -> SideResults:
    results = SideResults(from_s * S)
    results.alerts["f"] = {_key(alert): alert for alert in alerts}
    results.assets["f"] = {"a", "b"}
    results.scored["f"] = 10_080  # at a window a minute: an asset-week
    return results


def test_a_fleet_without_windows_is_left_out() -> None:
    nothing = (SideResults(), SideResults())
    assert difference((Side(), Side("v")), nothing, [FLEET]).fleets == ()
    nothing[0].assets["f"].add("a")
    [fleet] = difference((Side(), Side("v")), nothing, [FLEET]).fleets
    assert fleet.before.per_asset_week is None


# ---------------------------------------------------------------- side by side


class _ByVersion:
    """Scores that depend on window end, asset and a shift: two shifts never give equal scores."""

    def __init__(self, name: str, shift: float) -> None:
        self.name = name
        self.shift = shift
        self.n_calls = 0

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        self.n_calls += 1
        score = (np.abs(np.sin(end_us / 60e6 + windows.asset + self.shift)) * 1.3).astype(np.float32)
        return Scores(windows, score, [self.name] * len(windows), {}, activation_seq=7)


def _windows(n: int, n_assets: int) -> tuple[Windows, Int64]:
    ends = np.repeat(np.arange(1, n + 1), n_assets).astype(np.int64) * 60 * S
    bare = bare_scores(np.zeros(len(ends), np.float32), np.tile(np.arange(n_assets, dtype=np.int32), n)).windows
    fields = ("asset", "start", "values", "n_present", "first_offset", "last_offset")
    return Windows("f", *(getattr(bare, name) for name in fields)), ends


def _alone(score: Float32, windows: Windows, ends: Int64, side: Side) -> SideResults:
    results, decider = SideResults(), Decider("f", side.change.apply_to(AlertPolicy.of(FLEET.alerts)))
    scores = Scores(windows, score, ["v"] * len(windows), {})
    results.add(("a", "b", "c"), scores, ends, decider.decide(scores, ends))
    return results


@pytest.mark.parametrize("n_at_once", [1, 7, 1000])
@pytest.mark.parametrize("has_versions", [False, True])
async def test_both_sides_decide_as_each_alone(n_at_once: int, has_versions: bool) -> None:
    before, after = Side.parse("1 of 2, recover=2"), Side.parse("new, 3 of 4" if has_versions else "3 of 4")
    side_by_side = SideBySide(before, after)
    own, other = _ByVersion("old", 0.0), _ByVersion("new", 0.7)
    if has_versions:
        side_by_side.score_second_with(other, frozenset({"f"}))
    scorer = side_by_side.paired_scorer(own, side_by_side.second_scorer)
    decider = side_by_side.make_decider(FLEET, AssetIndex(("a", "b", "c")))
    windows, ends = _windows(400, 3)
    changes = []
    for begin in range(0, len(windows), n_at_once):
        rows = slice(begin, begin + n_at_once)
        part = Windows("f", *(getattr(windows, name)[rows] for name in Windows.__slots__ if name != "fleet"))
        scores = await scorer.score(part, ends[rows], ("power",))
        assert (scores.version[0], scores.activation_seq) == ("old", 7)
        changes += decider.decide(scores, ends[rows])
    assert changes
    by_version = [(await each.score(windows, ends, ("power",))).score for each in (own, other)]
    alone = [
        _alone(by_version[0], windows, ends, before),
        _alone(by_version[1 if has_versions else 0], windows, ends, after),
    ]
    for ours, expected in zip(side_by_side.results, alone, strict=True):
        assert ours.scored == expected.scored
        assert ours.assets == expected.assets
        assert {key: _times(alert) for key, alert in ours.alerts["f"].items()} == {
            key: _times(alert) for key, alert in expected.alerts["f"].items()
        }
    assert other.n_calls == (1 + -(-len(windows) // n_at_once) if has_versions else 1)
    found = side_by_side.difference()
    assert {episode.what for episode in found.episodes} >= {"lost", "moved"}


async def test_one_version_on_both_sides_scores_once() -> None:
    side_by_side, other = SideBySide(Side(), Side("new")), _ByVersion("new", 0.7)
    side_by_side.score_second_with(other, frozenset({"another fleet"}))
    windows, ends = _windows(10, 1)
    scorer = side_by_side.paired_scorer(_ByVersion("old", 0.0), side_by_side.second_scorer)
    scores = await scorer.score(windows, ends, ("power",))
    assert len(scores.score) == 10
    assert other.n_calls == 0


def test_run_up_windows_are_not_counted() -> None:
    results, windows_ends = SideResults(from_us=5 * 60 * S), _windows(10, 1)
    score = np.full(10, 2.0, np.float32)
    scores = Scores(windows_ends[0], score, ["v"] * 10, {}, "half of it")
    decider = Decider("f", AlertPolicy.of(FLEET.alerts))
    results.add(("a",), scores, windows_ends[1], decider.decide(scores, windows_ends[1]))
    assert results.scored["f"] == 5
    assert results.why_unscored == {"f": "half of it"}
    [alert] = results.alerts["f"].values()
    assert (alert.opened_us, alert.fired_us, alert.closed_us) == (60 * S, 2 * 60 * S, None)
    assert _kinds([alert], [], results.from_us) == []
