"""The alert states, rule by rule. The oracle compares whole histories in tests/acceptance."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.stream.alerting import AlertPolicy, Decider, PastVerdict
from monitor.types import AlertChange, AlertState, Contribution, Scores, Severity, Windows

POLICY = AlertPolicy(confirm=3, among=5, recover=2)
NAN = float("nan")


def scores_of(*values: float, asset: int = 0) -> tuple[Scores, np.ndarray]:
    """Windows of one asset that end at 1, 2, 3, …"""
    n = len(values)
    nothing = np.zeros(n, np.int64)
    windows = Windows("f", np.full(n, asset, np.int32), np.arange(n), np.zeros((n, 1, 1), np.float32),
                      np.ones(n, np.int32), nothing, nothing)  # fmt: skip
    score = np.array(values, np.float32)
    contributions = {row: (Contribution("a", 1.0, 0.0, float(score[row])),) for row in range(n) if score[row] >= 1}
    return Scores(windows, score, ["v"] * n, contributions), np.arange(1, n + 1)


def lives(*values: float, decider: Decider | None = None) -> list[tuple[AlertState, int]]:
    decider = decider or Decider("f", POLICY)
    return [(c.state, c.at_us) for c in decider.decide(*scores_of(*values)) if c.is_transition]


FIRING, RECOVERING, CLOSED = AlertState.FIRING, AlertState.RECOVERING, AlertState.CLOSED


def test_m_of_n_anomalous_windows_fire_dated_back_to_the_first() -> None:
    [change] = Decider("f", POLICY).decide(*scores_of(0, 2, 0, 2, 2))
    assert (change.state, change.opened_us, change.at_us, change.n_anomalous) == (FIRING, 2, 5, 3)


def test_fewer_than_m_never_fire() -> None:
    assert lives(2, 0, 0, 0, 2, 2, 0, 0, 0, 0) == []


def test_a_normal_window_recovers_and_enough_of_them_close() -> None:
    assert lives(2, 2, 2, 0, 0) == [(FIRING, 3), (RECOVERING, 4), (CLOSED, 5)]


def test_an_anomalous_window_while_recovering_fires_again() -> None:
    assert lives(2, 2, 2, 0, 2, 0, 0) == [(FIRING, 3), (RECOVERING, 4), (FIRING, 5), (RECOVERING, 6), (CLOSED, 7)]


def test_unscored_windows_neither_confirm_nor_recover() -> None:
    assert lives(2, NAN, 2, NAN, 2, NAN, 0, NAN, 0) == [(FIRING, 5), (RECOVERING, 7), (CLOSED, 9)]


def test_a_score_of_exactly_one_is_anomalous() -> None:
    assert lives(1, 1, 1) == [(FIRING, 3)]


def test_a_closed_alert_does_not_count_its_evidence_twice() -> None:
    decider = Decider("f", AlertPolicy(confirm=2, among=5, recover=1))
    changes = [c for c in decider.decide(*scores_of(2, 2, 0, 2)) if c.state is FIRING]
    assert [(c.opened_us, c.n_anomalous) for c in changes] == [(1, 2), (4, 1)]


def test_the_peak_carries_its_sensors_and_severity() -> None:
    last = Decider("f", POLICY).decide(*scores_of(1.5, 1.5, 1.5, 4, 2))[-1]
    assert (last.peak_score, last.peak_us, last.severity) == (4, 4, Severity.CRITICAL)
    assert last.contributions[0].actual == 4
    assert last.onset[0].actual == 1.5


def lasting(n: int, every_us: int, peak: float = 2.0) -> list[AlertChange]:
    """Return the changes of n anomalous windows, decided one by one."""
    decider, found = Decider("f", POLICY), []
    for k in range(n):
        scores, _ = scores_of(peak)
        found += decider.decide(scores, np.array([k * every_us]))
    return found


def test_an_alert_becomes_critical_by_its_duration() -> None:
    hour = 3_600_000_000
    severities = {change.at_us // hour: change.severity for change in lasting(30, hour)}
    assert severities[23] is Severity.WARNING
    assert severities[24] is severities[29] is Severity.CRITICAL


def test_a_long_time_needs_enough_windows_to_be_critical() -> None:
    severities = [change.severity for change in lasting(12, 86_400_000_000)]
    assert severities == [Severity.WARNING] * 7 + [Severity.CRITICAL] * 3  # the first two confirm nothing


def test_a_restored_long_alert_continues_its_duration() -> None:
    hour = 3_600_000_000
    last = lasting(20, hour)[-1]
    decider = Decider("f", POLICY)
    decider.restore(0, [PastVerdict(19 * hour, True)], last, None)
    scores, _ = scores_of(2.0)
    [change] = decider.decide(scores, np.array([24 * hour]))
    assert (last.severity, change.severity) == (Severity.WARNING, Severity.CRITICAL)


def test_an_ongoing_alert_is_updated_once_a_batch() -> None:
    changes = Decider("f", POLICY).decide(*scores_of(2, 2, 2, 2, 2, 2))
    assert [(c.is_transition, c.n_anomalous) for c in changes] == [(True, 3), (False, 6)]


def test_healthy_assets_cost_no_memory() -> None:
    decider = Decider("f", POLICY)
    decider.decide(*scores_of(*[0.5] * 50))
    decider.decide(*scores_of(2, 0, 0, 0, 0, 0, asset=1))
    assert decider._episodes == {}


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_restored_decider_goes_on_as_before(cut: int) -> None:
    values = [0, 2, 2, 0, 2, 2, 0, 0, 2, 2, 2, 0, 0]
    whole = Decider("f", POLICY).decide(*scores_of(*values))
    before, after = Decider("f", POLICY), Decider("f", POLICY)
    scores, ends = scores_of(*values)
    first = before.decide(*scores_of(*values[:cut]))
    open_alert = first[-1] if first and first[-1].state is not CLOSED else None
    closed = [c.at_us for c in first if c.state is CLOSED]
    recent = [PastVerdict(int(ends[i]), values[i] >= 1) for i in range(cut)][-POLICY.memory :]
    after.restore(0, recent, open_alert, closed[-1] if closed else None)
    late, late_ends = scores_of(*values[cut:])
    second = after.decide(late, late_ends + cut)

    def told(changes: list[AlertChange]) -> list[tuple[object, ...]]:
        return [(c.state, c.at_us, c.opened_us, c.n_anomalous, c.peak_score) for c in changes if c.is_transition]

    assert told(first) + told(second) == told(whole)
    assert len(scores.windows) == len(values)


@pytest.mark.parametrize("recover", [1, 5])
def test_many_sequences_fire_as_one_by_one(recover: int) -> None:
    draw = np.random.default_rng(5)
    policy = AlertPolicy(confirm=3, among=4, recover=recover)
    scores = np.where(draw.random((400, 12)) < 0.4, 2.0, 0.5).astype(np.float32)
    scores[draw.random(scores.shape) < 0.2] = np.nan
    alone = [bool(Decider("f", policy).decide(*scores_of(*row))) for row in scores.tolist()]
    assert policy.fires(scores).tolist() == alone
    assert 0.2 < np.mean(alone) < 0.8
