"""Sentences, bands and similarities, from evidence with a known fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor.clock import from_us
from monitor.explain import Evidence, bands, blamed_sensors, duration, sentence, shown, similarity

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Values = NDArray[np.float64]

MINUTE_US = 60_000_000
SENSORS = ("power", "pitch", "speed")
LEVELS, SIZES = np.array([560.0, 2.0, 14.0]), np.array([45.0, 0.1, 0.5])


def evidence_of(
    fault: Callable[[Values, int], None] | None = None, *, n: int = 200, seed: int = 0, own_spread: bool = True
) -> Evidence:
    """One reading a minute. `fault(values, begin)` changes them from three tenths of the time on."""
    rng = np.random.default_rng(seed)
    expected = LEVELS + SIZES * 4 * np.sin(np.arange(n) / 15)[:, None]
    values = expected + rng.normal(size=(n, 3)) * SIZES
    if fault is not None:
        fault(values, n * 3 // 10)
    cells = np.arange(n) * MINUTE_US
    return Evidence(
        sensors=SENSORS,
        cell_us=cells,
        values=values.astype(np.float32),
        expected=expected.astype(np.float32),
        end_us=cells + MINUTE_US,
        score=np.full(n, 2.0, np.float32),
        spread=SIZES.astype(np.float32) if own_spread else None,
    )


def alert_of(evidence: Evidence, *blamed: str, **facts: Any) -> dict[str, Any]:
    opened = int(evidence.cell_us[len(evidence.cell_us) * 3 // 10]) + MINUTE_US
    sensors = [{"name": name, "share": 1 / 3, "expected": 5.0, "actual": 3.0, "onset": None} for name in SENSORS]
    return {"opened_at": from_us(opened).isoformat(), "sensors": sensors, "clearing": list(blamed)} | facts


def fell(values: Values, begin: int) -> None:
    values[begin:, 0] = -3.0


def rose(values: Values, begin: int) -> None:
    values[begin:, 1] += 4.0


def fell_and_rose(values: Values, begin: int) -> None:
    fell(values, begin)
    rose(values, begin)


def stuck(values: Values, begin: int) -> None:
    values[begin:, 0] = values[begin, 0]


def noisy(values: Values, begin: int) -> None:
    values[begin:, 0] += np.where(np.arange(len(values) - begin) % 2, 600.0, -600.0)


def missing(values: Values, begin: int) -> None:
    values[begin:, 2] = np.nan


def test_a_fall_is_told_with_band_and_duration() -> None:
    evidence = evidence_of(fell)
    told = sentence(alert_of(evidence, "power"), evidence, {"power": "kW"})
    assert told.startswith("power fell to −3 kW where ")
    assert told.endswith(" ± 90 kW was expected, for 2.3 h")


def test_each_kind_of_fault_has_its_word() -> None:
    cases = (("rose", rose, "pitch"), ("stuck", stuck, "power"), ("noisy", noisy, "power"), ("no", missing, "speed"))
    for word, fault, sensor in cases:
        evidence = evidence_of(fault)
        told = sentence(alert_of(evidence, sensor), evidence)
        assert told.startswith(f"{sensor} "), told
        assert f" {word}" in told.split(" where ")[0], told
        assert told.endswith("for 2.3 h"), told


def test_two_clearing_sensors_are_told_and_no_more() -> None:
    evidence = evidence_of(fell_and_rose)
    told = sentence(alert_of(evidence, "power", "pitch", "speed"), evidence, {}, {"pitch": "angle of the blades"})
    first, second = told.split("; ")
    assert first.startswith("power fell")
    assert second.startswith("angle of the blades rose")


def test_without_evidence_the_onset_is_told() -> None:
    evidence = evidence_of()
    alert = alert_of(evidence)
    alert["sensors"][1]["onset"] = {"share": 0.9, "expected": 2.0, "actual": None}
    assert blamed_sensors(alert) == ["pitch"]
    assert sentence(alert, None) == "pitch had no value where 2 was expected"
    assert sentence(alert_of(evidence, "power"), None, {"power": "kW"}) == "power fell to 3 kW where 5 kW was expected"
    assert sentence({"sensors": [], "opened_at": "2020-01-01T00:00:00Z"}, None) == ""


def test_bands_hold_healthy_values_alone() -> None:
    for own_spread in (True, False):
        evidence = evidence_of(fell, own_spread=own_spread)
        found = bands(evidence)
        inside = (evidence.values >= found.low) & (evidence.values <= found.high)
        assert 0.7 < inside[:60].mean() < 1
        assert inside[60:, 0].mean() < 0.05
        assert found.is_from_model is own_spread


def test_a_sensor_that_the_model_does_not_know_has_no_band() -> None:
    evidence = evidence_of(own_spread=False)
    evidence.expected[:, 1] = np.nan
    found = bands(evidence)
    assert np.isnan(found.spread).tolist() == [False, True, False]
    assert sentence(alert_of(evidence, "pitch"), evidence) == ""


@pytest.mark.parametrize("fault", [fell, rose, stuck, noisy, missing])
def test_an_alert_is_most_like_one_of_its_own_kind(fault: Callable[[Values, int], None]) -> None:
    own = evidence_of(fault)
    others = (fell, rose, noisy, missing)
    alike = {other.__name__: similarity(own, evidence_of(other, n=90, seed=1)) for other in others}
    best = max(alike, key=alike.__getitem__)
    assert fault is stuck or best == fault.__name__, alike
    assert all(0 <= each <= 1 for each in alike.values())
    assert similarity(own, own) == pytest.approx(1.0)


def test_similarity_takes_other_lists_of_sensors() -> None:
    own, other = evidence_of(fell), evidence_of(fell, n=77, seed=3)
    values, expected = other.values[:, [1, 0]], other.expected[:, [1, 0]]
    fewer = Evidence(("pitch", "power"), other.cell_us, values, expected, other.end_us, other.score)
    assert similarity(own, fewer) == pytest.approx(similarity(fewer, own))
    assert similarity(own, fewer) > 0.8
    strange = Evidence(("x",), own.cell_us, own.values[:, :1], own.expected[:, :1], own.end_us, own.score)
    assert similarity(own, strange) == 0


def test_numbers_are_short_and_durations_in_the_largest_unit() -> None:
    assert [shown(x) for x in (-3.14159, 560.4, 0.01234, 12345.6, 0.0, 3e-7, float("nan"))] == [
        "−3.14", "560", "0.0123", "12,300", "0", "3.00e−07", "–",
    ]  # fmt: skip
    hour = 60 * MINUTE_US
    assert [duration(us) for us in (19 * hour, 90 * MINUTE_US, 72 * hour, 3_000_000, 5_000)] == [
        "19 h", "90 min", "3 d", "3 s", "5 ms",
    ]  # fmt: skip
