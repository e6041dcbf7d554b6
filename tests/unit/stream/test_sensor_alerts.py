"""Alerts of class `sensor`: confirmed, one at a time, closed, and the same after a restart at any window."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from monitor.stream import sensor_alerts
from monitor.stream.alerting import AlertPolicy
from monitor.stream.sensor_alerts import SensorAlerts
from monitor.stream.sensor_health import FINDINGS, NOT_TESTED
from monitor.types import AlertClass, AlertState, DataAlertChange, Partition, Scores, Windows

POLICY = AlertPolicy(confirm=3, among=5, recover=4)
ASSETS, SENSORS = ("R1", "R2", "R3"), ("power", "wind")
STUCK, DEAD = FINDINGS.index("stuck") + 1, FINDINGS.index("dead") + 1


def alerts() -> SensorAlerts:
    return SensorAlerts(Partition("plant", 3), "turbines", POLICY)


def decide(of: SensorAlerts, findings: list[int], at: int = 0, asset: int = 0) -> list[DataAlertChange]:
    """Decide on the findings of the sensor "wind" in windows that end at `at`, `at + 1`, …"""
    n = len(findings)
    found = np.zeros((n, 2), np.uint8)
    found[:, 1] = findings
    values = np.ones((n, 4, 2), np.float32)
    starts = np.arange(at, at + n)
    windows = Windows(
        "turbines", np.full(n, asset, np.int32), starts, values, np.full(n, 4, np.int32), starts * 10, starts * 10 + 9
    )
    scores = Scores(windows, np.zeros(n, np.float32), ["v"] * n, {}, findings=found)
    return of.decide(scores, starts, ASSETS, SENSORS)


def transitions(changes: list[DataAlertChange]) -> list[tuple[AlertState, int]]:
    return [(change.state, change.at_us) for change in changes if change.is_transition]


def test_a_finding_in_three_of_five_windows_opens_one_alert() -> None:
    of = alerts()
    [opened] = decide(of, [0, STUCK, 0, STUCK, 0, STUCK])
    assert opened.alert_class is AlertClass.SENSOR
    assert (opened.asset, opened.sensor, opened.kind, opened.subject) == ("R1", "wind", "stuck", "R1/wind")
    assert (opened.opened_us, opened.at_us, opened.from_offset, opened.n_records) == (1, 5, 19, 3)
    assert "wind stays at 1" in opened.message
    assert "[fleet.sensor.wind]" in opened.message


def test_two_of_five_windows_open_nothing_and_are_forgotten() -> None:
    of = alerts()
    assert decide(of, [STUCK, STUCK, 0, 0, 0, 0, 0, STUCK, STUCK]) == []
    assert decide(of, [0] * 5, at=9) == []
    assert of.stored_state == {}


def test_recover_windows_without_the_finding_close_it() -> None:
    of = alerts()
    changes = decide(of, [STUCK] * 6 + [0, 0, 0, STUCK] + [0] * 4)
    assert transitions(changes) == [(AlertState.FIRING, 2), (AlertState.CLOSED, 13)]
    assert changes[-1].n_records == 7
    assert of.stored_state == {}


def test_untested_windows_neither_open_nor_close() -> None:
    of = alerts()
    assert decide(of, [STUCK, NOT_TESTED, NOT_TESTED, STUCK, NOT_TESTED, NOT_TESTED]) == []
    assert len(transitions(decide(of, [STUCK], at=6))) == 1
    assert transitions(decide(of, [NOT_TESTED] * 20, at=7)) == []
    assert transitions(decide(of, [0] * 4, at=30)) == [(AlertState.CLOSED, 33)]


def test_a_sensor_that_fails_in_another_way_has_another_alert() -> None:
    of = alerts()
    changes = decide(of, [STUCK] * 4 + [DEAD] * 8)
    assert [(change.kind, change.state) for change in changes if change.is_transition] == [
        ("stuck", AlertState.FIRING), ("dead", AlertState.FIRING), ("stuck", AlertState.CLOSED)
    ]  # fmt: skip


def test_one_alert_counts_the_sensors_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensor_alerts, "MAX_OPEN", 1)
    of = alerts()
    opened = [change for asset in range(3) for change in decide(of, [DEAD] * 3, asset=asset)]
    assert [(change.asset, change.subject) for change in opened if change.is_transition] == [
        ("R1", "R1/wind"), (None, "")
    ]  # fmt: skip
    assert transitions(decide(of, [0] * 4, at=3, asset=1)) == []
    closed = decide(of, [0] * 4, at=3, asset=2)
    assert [change.subject for change in closed if change.state is AlertState.CLOSED] == [""]
    assert list(of.open) == [("R1", "wind", "dead")]


def test_the_alerts_of_a_deleted_fleet_are_closed() -> None:
    of = alerts()
    decide(of, [STUCK] * 3)
    [change] = of.end()
    assert (change.state, change.subject, change.at_us) == (AlertState.CLOSED, "R1/wind", 2)


@pytest.mark.parametrize("seed", range(20))
def test_a_restart_at_any_window_decides_alike(seed: int) -> None:
    rng = random.Random(seed)
    findings = [rng.choice([0, 0, STUCK, STUCK, STUCK, DEAD, NOT_TESTED]) for _ in range(60)]
    whole = decide(alerts(), findings)
    of, parts = alerts(), []
    for at, finding in enumerate(findings):
        if rng.random() < 0.3:
            state = json.loads(json.dumps(of.stored_state))
            of = alerts()
            of.restore(state)
        parts += decide(of, [finding], at=at)
    assert parts == whole
    assert len(transitions(whole)) > 0
    opened = [change for change in whole if change.is_transition and change.state is AlertState.FIRING]
    assert len({(change.kind, change.subject, change.opened_us) for change in opened}) == len(opened)


def test_a_long_fault_is_rarely_written() -> None:
    changes = decide(alerts(), [STUCK] * 1000)
    assert len(changes) < 12
    assert [replace(change, n_records=0, at_us=0, is_transition=True) for change in changes[1:]] == [
        replace(changes[0], n_records=0, at_us=0)
    ] * (len(changes) - 1)
