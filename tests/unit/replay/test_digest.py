"""Equal results give an equal digest in any storage order, and each changed fact gives another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.replay.digest import digest
from monitor.store.results import TransitionRow, WindowRow

if TYPE_CHECKING:
    from random import Random

WINDOWS = [
    WindowRow("turbines", asset, start, start + 40, 4, verdict, "conv-1")
    for start in range(0, 100, 10)
    for asset, verdict in (("R1", 0), ("R2", 1), ("R3", 2))
]
LIVES = [
    TransitionRow("turbines", asset, 40, state, "warning", at, n)
    for asset in ("R1", "R2")
    for state, at, n in (("firing", 60, 3), ("recovering", 70, 3), ("closed", 80, 3))
]
DIGEST = digest(WINDOWS, LIVES)


@given(st.randoms(use_true_random=False))
def test_the_order_within_an_instant_is_free(random: Random) -> None:
    shuffled = WINDOWS.copy()
    random.shuffle(shuffled)
    shuffled.sort(key=lambda fact: fact.start_us)
    alerts = [LIVES[:3], LIVES[3:]]
    random.shuffle(alerts)
    assert digest(shuffled, alerts[0] + alerts[1]) == DIGEST


@pytest.mark.parametrize("field", WindowRow._fields)
@pytest.mark.parametrize("row", [0, 14, 29])
def test_every_fact_of_a_window_counts(field: str, row: int) -> None:
    other = WINDOWS.copy()
    value = getattr(other[row], field)
    other[row] = other[row]._replace(**{field: value + "x" if isinstance(value, str) else value + 1})
    other.sort(key=lambda fact: fact.start_us)
    assert digest(other, LIVES) != DIGEST


@pytest.mark.parametrize("field", TransitionRow._fields)
def test_every_fact_of_an_alert_counts(field: str) -> None:
    other = LIVES.copy()
    value = getattr(other[4], field)
    other[4] = other[4]._replace(**{field: value + "x" if isinstance(value, str) else value + 1})
    assert digest(WINDOWS, other) != DIGEST


def test_a_missing_or_doubled_row_counts() -> None:
    assert digest(WINDOWS[1:], LIVES) != DIGEST
    assert digest([WINDOWS[0], *WINDOWS], LIVES) != DIGEST
    assert digest(WINDOWS, LIVES[:-1]) != DIGEST
    assert digest(WINDOWS, []) != digest(WINDOWS, LIVES[:1])


def test_the_order_of_transitions_counts() -> None:
    swapped = [LIVES[1], LIVES[0], *LIVES[2:]]
    assert digest(WINDOWS, swapped) != DIGEST


def test_the_version_of_an_unscored_window_counts() -> None:
    assert digest([WINDOWS[2]._replace(version=None)], []) != digest([WINDOWS[2]], [])
