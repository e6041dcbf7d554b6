"""The fewest sensors without which a window is not anomalous."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.models.clearing import MAX_CANDIDATES, MAX_SENSORS, clearing_sets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monitor.types import Float32, Int64


def total(errors: Sequence[float]) -> Callable[[Float32, Int64], Float32]:
    """Return a score: the sum of the errors of the present sensors. NaN if none is present."""

    def score(values: Float32, _of: Int64) -> Float32:
        present = np.isfinite(values).all(axis=1)
        found = (present * np.array(errors, np.float32)).sum(axis=1)
        return np.where(present.any(axis=1), found, np.nan).astype(np.float32)

    return score


def cleared(errors: Sequence[float], share: Sequence[float] | None = None) -> tuple[int, ...]:
    values = np.zeros((1, 3, len(errors)), np.float32)
    shares = np.array([errors if share is None else share], np.float32)
    return clearing_sets(total(errors), values, shares)[0]


def test_one_sensor_clears_where_one_is_enough() -> None:
    assert cleared([0.2, 2.0, 0.3, 0.1]) == (1,)
    assert cleared([0.2, 2.0, 0.3, 0.1], share=[4, 1, 3, 2]) == (1,)  # whatever the order of the shares


def test_two_are_found_and_the_greatest_comes_first() -> None:
    assert cleared([0.2, 2.0, 0.3, 3.0, 0.1]) == (3, 1)


def test_a_pair_replaces_a_longer_greedy_set() -> None:
    def score(values: Float32, _of: Int64) -> Float32:
        """Only the pair (1, 2) clears, or 0 with both. 0 alone looks best."""
        gone = ~np.isfinite(values).all(axis=1)
        left = 3.0 - 0.5 * gone[:, 0] - 0.1 * gone[:, 1] - 0.1 * gone[:, 2] - 2.5 * (gone[:, 1] & gone[:, 2])
        return left.astype(np.float32)

    values = np.zeros((1, 3, 4), np.float32)
    assert clearing_sets(score, values, np.array([[4, 3, 2, 1]], np.float32)) == [(1, 2)]


def test_too_many_faulty_sensors_give_no_set() -> None:
    assert cleared([2.0] * (MAX_SENSORS + 1)) == ()
    assert cleared([2.0]) == ()  # without its only sensor the window has no score
    assert cleared([2.0] * MAX_SENSORS + [0.5]) == tuple(range(MAX_SENSORS))


def test_the_work_for_a_window_has_a_bound() -> None:
    scored = []

    def score(values: Float32, _of: Int64) -> Float32:
        scored.append(len(values))
        return np.full(len(values), 5.0, np.float32)

    values = np.zeros((3, 2, 200), np.float32)
    assert clearing_sets(score, values, np.full((3, 200), 0.005, np.float32)) == [(), (), ()]
    assert sum(scored) == 3 * sum(MAX_CANDIDATES - k for k in range(MAX_SENSORS))


@pytest.mark.parametrize("n", [0, 1, 300])
def test_windows_are_searched_together_and_apart_alike(n: int) -> None:
    rng = np.random.default_rng(n)
    errors = [0.1, 0.9, 0.4, 0.6]
    share = rng.random((n, 4)).astype(np.float32)
    values = rng.normal(size=(n, 5, 4)).astype(np.float32)
    before = values.copy()
    together = clearing_sets(total(errors), values, share)
    assert together == [clearing_sets(total(errors), values[k : k + 1], share[k : k + 1])[0] for k in range(n)]
    assert (values == before).all()
