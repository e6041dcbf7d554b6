from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from monitor.evaluation.differences import bootstrap_interval, differences, interval_text, signed, verdict


def rows(**figures: dict[str, list[float | None]]) -> list[dict[str, Any]]:
    """Return rows by method and set."""
    return [
        {"method": method.replace("_", "-"), "set": folder, "path": f"{folder}/{n}", "name": str(n), "vus_pr": value}
        for method, by_set in figures.items()
        for folder, values in by_set.items()
        for n, value in enumerate(values)
    ]


def test_a_difference_is_the_mean_of_set_means() -> None:
    found = rows(pca={"a": [0.5, 0.7, 0.2, 0.4], "b": [0.9]}, default={"a": [0.6, 0.8, 0.3, 0.3], "b": [0.5]})
    [one] = differences(found)
    assert (one.method, one.base) == ("pca", "default")
    assert one.difference == pytest.approx((0.05 - 0.4) / 2)
    assert (one.better, one.worse, one.n_series) == (3, 2, 5)
    assert (one.per_set["a"].better, one.per_set["a"].worse, one.per_set["b"].worse) == (3, 1, 1)
    assert one.low is not None
    assert one.high is not None
    # Set b has one series: only set a varies, from -0.1 to 0.1 a series.
    assert -0.25 <= one.low < one.difference < one.high <= -0.15
    assert not one.is_beaten


def test_only_common_series_are_compared() -> None:
    found = rows(default={"a": [0.6, None, 0.9]}, pca={"a": [0.5, 0.9, None]}, conv={"b": [0.1]})
    [one] = differences(found)
    assert (one.method, one.n_series) == ("pca", 1)
    assert one.difference == pytest.approx(0.1)
    assert differences(rows(default={"a": [0.6]})) == []
    assert differences([]) == []


def test_equal_print_is_a_draw() -> None:
    [one] = differences(rows(default={"a": [0.5001, 0.5]}, pca={"a": [0.5, 0.502]}))
    assert (one.better, one.worse, one.n_series) == (0, 1, 2)


def test_the_first_method_replaces_a_default() -> None:
    found = differences(rows(conv={"a": [0.6]}, pca={"a": [0.5]}, lstm={"a": [0.7]}))
    assert [(one.base, one.method, one.is_beaten) for one in found] == [("conv", "pca", True), ("conv", "lstm", False)]
    assert [one.low for one in found] == [None, None]
    assert verdict(found) == "conv does not beat lstm (−0.100)."


def test_the_interval_covers_the_mean() -> None:
    draw = np.random.default_rng(1)
    n_covered = 0
    for _ in range(60):
        low, high = bootstrap_interval([draw.normal(0.1, 0.2, 25), draw.normal(-0.1, 0.3, 30)])
        assert low is not None
        assert high is not None
        n_covered += low <= 0 <= high
    assert 0.85 <= n_covered / 60 <= 1.0


def test_the_interval_repeats() -> None:
    each = [np.array([0.1, -0.2, 0.3]), np.array([0.0])]
    assert bootstrap_interval(each) == bootstrap_interval(each)
    assert bootstrap_interval([np.array([0.1]), np.array([0.3])]) == (None, None)


def test_beaten_is_an_interval_above_zero() -> None:
    clear = {"a": [0.8, 0.9, 0.7, 0.8]}
    found = differences(rows(default=clear, pca={"a": [0.5, 0.6, 0.5, 0.4]}, dense_window={"a": [0.9, 0.6, 0.7, 0.8]}))
    pca, dense = found
    assert pca.is_beaten
    assert not dense.is_beaten
    assert verdict(found) == f"default does not beat dense-window ({interval_text(dense)})."
    assert verdict([pca]) == "default beats every other row."
    assert verdict([]) is None


def test_signed_figures() -> None:
    assert [signed(value) for value in (0.0312, -0.0041, 0.0004, -0.0004)] == ["+0.031", "−0.004", "0.000", "0.000"]
