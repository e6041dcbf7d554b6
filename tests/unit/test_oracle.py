"""The oracle on cases small enough to check by eye: every rule.

Grid: interval 10 s, so that cell 5 is second 50. One sensor `a`, unless stated otherwise.
"""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.streams import KINDS, make, permuted, regular
from tests.oracle.alerts import expected_alerts
from tests.oracle.log import FleetRule, Reading, Rules, cell_of
from tests.oracle.windows import ExpectedShard, expect, expected_quarantine, expected_windows

if TYPE_CHECKING:
    from tests.acceptance.records import Sample
    from tests.oracle.log import RawRecord

S = 1_000_000
RULE = FleetRule("f", ("a",), interval_us=10 * S, length=3, lateness_cells=1)
TWO = replace(RULE, sensors=("a", "b"))


def log_of(*readings: tuple[str, int, float] | tuple[str, int, dict[str, float]]) -> list[RawRecord]:
    """Return one record per (asset, cell, value or values), with offsets 0, 1, 2, …"""
    log: list[RawRecord] = []
    for offset, (asset, cell, value) in enumerate(readings):
        sensors = value if isinstance(value, dict) else {"a": value}
        log.append((offset, cell * 10 * S, asset.encode(), json.dumps({"ts": cell * 10, "sensors": sensors}).encode()))
    return log


def starts(log: list[RawRecord], rule: FleetRule = RULE, asset: str = "x") -> dict[int, tuple[int, int, int]]:
    """Return the windows of an asset by first cell."""
    windows = expected_windows(log, Rules((rule,)))
    return {start_us // (10 * S): facts for (name, start_us), facts in windows.items() if name == asset}


def run_of(asset: str, *cells: int) -> list[tuple[str, int, float]]:
    return [(asset, cell, 1.0) for cell in cells]


# ---------------------------------------------------------------- the grid


@pytest.mark.parametrize(
    ("ts_us", "cell"),
    [(0, 0), (4_999_999, 0), (5_000_000, 1), (14_999_999, 1), (-5_000_000, 0), (-5_000_001, -1), (15 * S, 2)],
)
def test_a_reading_belongs_to_the_nearest_cell_half_up(ts_us: int, cell: int) -> None:
    assert cell_of(ts_us, 10 * S) == cell


def test_a_complete_window_is_emitted_after_closed_ones() -> None:
    # First cell 5, so the candidates are 3, 4, 5. Cell 7 completes 5, but 4 = [4, 7) closes only at max_cell 8.
    assert starts(log_of(*run_of("x", 5, 6, 7))) == {}
    assert starts(log_of(*run_of("x", 5, 6, 7, 8))) == {5: (3, 0, 2), 6: (3, 1, 3)}
    assert starts(log_of(*run_of("x", 5, 6, 7, 8, 9))) == {5: (3, 0, 2), 6: (3, 1, 3), 7: (3, 2, 4)}


def test_the_first_complete_window_does_not_wait() -> None:
    rule = replace(RULE, stride=3)
    assert starts(log_of(*run_of("x", 6, 7, 8)), rule) == {6: (3, 0, 2)}


@pytest.mark.parametrize(("stride", "first"), [(1, 3), (2, 4), (3, 3)])
def test_the_first_window_holds_the_first_cell(stride: int, first: int) -> None:
    # First cell 5, length 3: k + 3 > 5. A gap of 2 is allowed, so every closed window with a value is there.
    rule = replace(RULE, stride=stride, max_gap_cells=2)
    log = log_of(*run_of("x", 5, 6, 7, 8, 9, 10, 11, 12))
    assert min(starts(log, rule)) == first


def test_an_earlier_reading_adds_its_windows() -> None:
    # Lateness 5: at cell 10 nothing after 5 has closed, so cells 5..9 may still come, and their windows leave in order.
    rule = replace(RULE, length=2, lateness_cells=5)
    assert starts(log_of(*run_of("x", 10, 5, 6, 7, 8, 9)), rule) == {}  # [4, 6) is open
    assert starts(log_of(*run_of("x", 10, 5, 6, 7, 8, 9, 11)), rule) == {
        5: (2, 1, 2), 6: (2, 2, 3), 7: (2, 3, 4), 8: (2, 4, 5), 9: (2, 0, 5), 10: (2, 0, 6),
    }  # fmt: skip


def test_a_complete_window_waits_for_empty_ones() -> None:
    rule = replace(RULE, stride=3, lateness_cells=4)
    assert starts(log_of(*run_of("x", 6, 7, 8, 9)), rule) == {}  # [3, 6) is open until cell 10
    assert starts(log_of(*run_of("x", 6, 7, 8, 9, 10)), rule) == {6: (3, 0, 2)}


def test_cells_before_1970_are_valid() -> None:
    assert starts(log_of(*run_of("x", -4, -3, -2, -1))) == {-4: (3, 0, 2), -3: (3, 1, 3)}


# ---------------------------------------------------------------- closing, gaps, lateness


def test_an_incomplete_window_closes_at_the_watermark() -> None:
    rule = replace(RULE, stride=3, max_gap_cells=1)
    # [3, 6) lacks cell 4; it closes when max_cell - 1 >= 6, that is at cell 7.
    assert starts(log_of(*run_of("x", 3, 5, 6)), rule) == {}
    assert starts(log_of(*run_of("x", 3, 5, 7)), rule) == {3: (2, 0, 1)}


@pytest.mark.parametrize(
    ("cells", "is_there"),
    [
        ((0, 3), True),  # hole of 2 inside
        ((2, 3), True),  # leading run of 2
        ((0, 1), True),  # trailing run of 2
        ((3,), False),  # leading run of 3
        ((0,), False),  # trailing run of 3
        ((1,), True),  # 1 before, 2 after: no run exceeds 2
    ],
)
def test_max_gap_limits_runs_of_missing_cells(cells: tuple[int, ...], is_there: bool) -> None:
    rule = replace(RULE, length=4, stride=4, max_gap_cells=2)
    assert (0 in starts(log_of(*run_of("x", *cells), ("x", 20, 1.0)), rule)) is is_there


def test_an_empty_window_is_never_emitted() -> None:
    rule = replace(RULE, stride=3, max_gap_cells=3)
    assert sorted(starts(log_of(*run_of("x", 0, 1, 2, 9, 10, 11)), rule)) == [0, 9]


def test_a_partial_cell_does_not_complete_a_window() -> None:
    rule = replace(TWO, stride=3)
    both = {"a": 1.0, "b": 2.0}
    log = log_of(("x", 0, both), ("x", 1, {"a": 1.0}), ("x", 2, both))
    assert starts(log, rule) == {}
    assert starts(log_of(("x", 0, both), ("x", 1, {"a": 1.0}), ("x", 2, both), ("x", 4, both)), rule) == {0: (3, 0, 2)}


def test_a_cell_on_the_watermark_is_not_late() -> None:
    rule = replace(RULE, lateness_cells=2)
    log = log_of(*run_of("x", 10, 8, 7))
    expected = expect(log, Rules((rule,)))
    assert expected.quarantine == {2: "late"}
    assert (expected.counts["accepted"], expected.counts["late"], expected.counts["quarantined"]) == (2, 1, 0)


def test_a_late_reading_does_not_fill_an_open_window() -> None:
    # Lateness 1: at cell 4 the watermark is 3; cell 2 is late though [2, 5) is open.
    rule = replace(RULE, max_gap_cells=1)
    assert starts(log_of(*run_of("x", 0, 1, 3, 4, 2, 5, 6)), rule)[2] == (2, 2, 3)


def test_each_asset_has_its_own_watermark() -> None:
    rule = replace(RULE, stride=3, max_gap_cells=1)
    log = log_of(("x", 0, 1.0), ("x", 1, 1.0), ("y", 400, 1.0), ("x", 2, 1.0), ("x", 0, 1.0), ("y", 1, 1.0))
    assert starts(log, rule) == {0: (3, 0, 3)}
    assert expected_quarantine(log, Rules((rule,))) == {4: "late", 5: "late"}
    assert starts(log_of(("x", 0, 1.0), ("x", 1, 1.0), ("y", 400, 1.0)), rule) == {}


def test_windows_after_a_leap_of_years_are_found_at_once() -> None:
    rule = replace(RULE, lateness_cells=0)
    log = log_of(*run_of("x", 0, 1, 2, 10**9, 10**9 + 1, 10**9 + 2, 10**9 + 3))
    assert sorted(starts(log, rule)) == [0, 10**9, 10**9 + 1]


def test_fleets_have_their_own_watermarks() -> None:
    rules = Rules((replace(RULE, stride=3, max_gap_cells=1, assets=("x*",)), replace(RULE, name="g", assets=("y*",))))
    log = log_of(("x", 0, 1.0), ("x", 1, 1.0), ("y", 400, 1.0), ("x", 2, 1.0))
    assert expected_windows(log, rules) == {("x", 0): (3, 0, 3)}
    assert expected_quarantine(log, rules) == {}


def test_windows_after_a_gap_stay_on_the_grid() -> None:
    rule = replace(RULE, stride=2)
    assert sorted(starts(log_of(*run_of("x", *range(4, 9), *range(21, 27))), rule)) == [4, 6, 22, 24]


# ---------------------------------------------------------------- values and offsets


def shard_of(rule: FleetRule, *readings: tuple[int, list[float | None]]) -> tuple[ExpectedShard, list[str]]:
    shard = ExpectedShard(rule)
    return shard, [shard.add(Reading(offset, "f", "x", *one)) for offset, one in enumerate(readings)]


def test_the_first_finite_value_of_a_sensor_wins() -> None:
    rule = replace(TWO, stride=3)
    shard, fates = shard_of(
        rule, (0, [1.0, None]), (0, [5.0, 2.0]), (0, [6.0, 6.0]), (1, [3.0, 3.0]), (1, [None, 9.0]), (2, [4.0, 4.0])
    )
    assert fates == ["accepted", "accepted", "duplicate", "accepted", "duplicate", "accepted"]
    (window,) = shard.windows()
    assert shard.values(window) == [[1.0, 2.0], [3.0, 3.0], [4.0, 4.0]]
    assert (window.n_present, window.first_offset, window.last_offset) == (3, 0, 5)


def test_offsets_are_those_of_used_records() -> None:
    rule = replace(RULE, stride=3, lateness_cells=5)
    # Offset 0 belongs to the window before; 3 is a duplicate; the window [3, 6) was fed by 1, 2 and 4.
    assert starts(log_of(*run_of("x", 2, 5, 3, 3, 4, 9)), rule)[3] == (3, 1, 4)


def test_a_duplicate_of_an_emitted_window_is_a_duplicate() -> None:
    rule = replace(RULE, stride=3, lateness_cells=9)
    assert expect(log_of(*run_of("x", 3, 4, 5, 4, 3)), Rules((rule,))).counts["duplicate"] == 2


# ---------------------------------------------------------------- whole streams


@pytest.mark.parametrize("kind", KINDS)
def test_emitted_windows_never_change(kind: str) -> None:
    stream = make(kind, 3)
    whole = expected_windows(stream.log, stream.rules, stream.topic)
    for n_records in range(0, len(stream.log), max(1, len(stream.log) // 5)):
        part = expected_windows(stream.log[:n_records], stream.rules, stream.topic)
        assert part.items() <= whole.items()


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_log_of_its_kind(kind: str) -> None:
    assert make(kind, 1) == make(kind, 1)
    counts: dict[str, int] = {}
    for seed in range(10):
        stream = make(kind, seed)
        expected = expect(stream.log, stream.rules, stream.topic)
        for name, number in (expected.counts | {"windows": len(expected.windows)}).items():
            counts[name] = counts.get(name, 0) + number
    assert counts["windows"] > 100
    named_after: dict[str, str] = {"delayed": "late", "repeated": "duplicate", "ahead": "late", "bad": "quarantined"}
    assert counts[named_after.get(kind, "accepted")] > 0
    assert kind != "permuted" or counts["late"] == 0


@pytest.mark.parametrize("seed", range(20))
def test_order_within_the_lateness_does_not_matter(seed: int) -> None:
    rng = Random(seed)
    rule = replace(TWO, length=4, lateness_cells=5, max_gap_cells=1, assets=("R*",))
    samples = regular(rng, rule, ["R1", "R2"], 40)
    rng.shuffle(gone := list(range(len(samples))))
    kept = [one for number, one in enumerate(samples) if number not in gone[:8]]

    def n_present(order: list[Sample]) -> dict[tuple[str, int], int]:
        shard = ExpectedShard(rule)
        for offset, one in enumerate(order):
            cell = cell_of(one.ts_us, rule.interval_us)
            assert shard.add(Reading(offset, "f", one.asset, cell, list(one.values.values()))) != "late"
        for asset in ("R1", "R2"):
            shard.add(Reading(999, "f", asset, cell + 100, [1.0, 1.0]))  # closes everything
        return {(window.asset, window.start): window.n_present for window in shard.windows()}

    straight = n_present(kept)
    assert len(straight) > 60
    assert n_present(permuted(rng, kept, rule)) == straight


# ---------------------------------------------------------------- alerts


def alerts(text: str, confirm: tuple[int, int] = (2, 3), recover: int = 2) -> list[tuple[Any, ...]]:
    """Return the alerts of windows that end at 0, 1, 2, …: `A` anomalous, `.` normal, `?` unscored, digit = score."""
    score = {"A": 1.0, ".": 0.99, "?": None}
    windows = [(end, score[sign] if sign in score else float(sign)) for end, sign in enumerate(text)]
    return [
        (
            alert.opened_us,
            alert.closed_us,
            " ".join(f"{state[0]}{at}" for state, at in alert.transitions),
            alert.n_anomalous,
        )
        for alert in expected_alerts("x", windows, confirm, recover)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A..A..A", []),  # never 2 of 3
        ("AA", [(0, None, "f1", 2)]),  # fewer than n verdicts so far suffice
        ("A.A", [(0, None, "f2", 2)]),
        ("A?.?A", [(0, None, "f4", 2)]),  # unscored windows do not count as verdicts
        ("AA..", [(0, 3, "f1 r2 c3", 2)]),
        ("AA.?.", [(0, 4, "f1 r2 c4", 2)]),
        ("AA.A..", [(0, 5, "f1 r2 f3 r4 c5", 3)]),  # back to firing: the count of normal windows starts again
        ("AA.A.A", [(0, None, "f1 r2 f3 r4 f5", 4)]),
        ("AAA", [(0, None, "f1", 3)]),  # firing is not repeated
        ("AA...A.A", [(0, 3, "f1 r2 c3", 2), (5, None, "f7", 2)]),
    ],
)
def test_alerts_follow_their_rules(text: str, expected: list[tuple[Any, ...]]) -> None:
    assert alerts(text) == expected


def test_verdicts_before_a_close_confirm_the_next_alert() -> None:
    # 3 of 5, closed after 1 normal window: at 4 the last five are A A A . A, four of them anomalous.
    assert alerts("AAA.A", (3, 5), 1) == [(0, 3, "f2 c3", 3), (4, None, "f4", 1)]


def test_the_peak_is_the_highest_score_since_the_alert_opened() -> None:
    (alert,) = expected_alerts("x", [(0, 9.0), (1, 0.5), (2, 0.5), (3, 2.0), (4, 5.0), (5, 3.0)], (2, 2), 6)
    assert (alert.opened_us, alert.peak_score) == (3, 5.0)


def test_a_long_alert_is_critical_in_the_oracle() -> None:
    hour = 3_600_000_000
    (alert,) = expected_alerts("x", [(k * hour, 2.0) for k in range(25)] + [(25 * hour, 0.5)], (2, 2), 1)
    assert (alert.critical_us, alert.severity, alert.severities) == (24 * hour, "critical", ["warning", "critical"])
    (short,) = expected_alerts("x", [(k * hour, 2.0) for k in range(24)], (2, 2), 1)
    assert (short.critical_us, short.severities) == (None, ["warning"])
    (large,) = expected_alerts("x", [(0, 2.0), (1, 2.0), (2, 3.0)], (2, 2), 1)
    assert (large.critical_us, large.severity, large.severities) == (2, "critical", ["warning"])
