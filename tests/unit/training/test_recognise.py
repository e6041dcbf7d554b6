"""Sensors that are no measurements are recognised in training, told, and taken in their own way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.config import parse
from monitor.errors import NotEnoughData
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training.fit import fit
from monitor.training.recognise import N_ASSETS, recognise
from tests.unit.training.sine_windows import BUDGET, windows

if TYPE_CHECKING:
    from monitor.models.detector import TrainedModel
    from monitor.types import Float32

N, N_LATER = 1500, 600
DRAW = np.random.default_rng(7)
STEPS = np.arange(N + N_LATER)
TEMP = 50 + 3 * np.sin(STEPS / 15) + DRAW.normal(0, 0.2, N + N_LATER)
HUM = 40 + 5 * np.sin(STEPS / 47) + DRAW.normal(0, 0.4, N + N_LATER)
KW = np.maximum(0, 2 + np.sin(STEPS / 40) + DRAW.normal(0, 0.1, N + N_LATER))
WIND = (350 + 25 * np.sin(STEPS / 20) + DRAW.normal(0, 3, N + N_LATER)) % 360
GONE = (DRAW.random(N + N_LATER) < 0.02)[:, None].repeat(2, 1) | (DRAW.random((N + N_LATER, 2)) < 0.03)


def trained(columns: dict[str, Float32], **fleet: object) -> tuple[TrainedModel, TrainingSet]:
    """Train on the first N readings, and return the model with the windows after them."""
    values = np.stack(list(columns.values()), axis=1).astype(np.float32)
    spec = replace(FleetSpec("line", tuple(columns), 60.0, BUDGET), **fleet)
    return fit(windows(values[:N]), ModelSpec("pca"), spec), windows(values[N - 11 :])


def test_row_number_and_uptime_are_left_out() -> None:
    plain, later = trained({"temp": TEMP, "hum": HUM})
    model, counted = trained({"f_cnt": 4000.0 + STEPS, "temp": TEMP, "uptime": 86_400.0 + 60 * STEPS, "hum": HUM})
    assert model.inputs.taken == ("temp", "hum")
    np.testing.assert_array_equal(model.score(counted.values).score, plain.score(later.values).score)
    notes = model.card.training["inputs"]
    assert [note.partition(":")[0] for note in notes] == ["f_cnt", "uptime"]
    assert all("left out" in note for note in notes)
    explained = model.explain(counted.values[:1], model.score(counted.values[:1]).share)[0]
    assert {each.name for each in explained} == {"temp", "hum"}


def test_a_meter_is_learnt_by_its_change() -> None:
    meter = 81_234 + np.cumsum(KW) / 60
    meter[N + 400 :] = meter[N + 400]  # it stops counting, while the load goes on
    model, later = trained({"kwh_total": meter, "kw": KW})
    scored = model.score(later.values)
    assert np.mean(scored.score[:380] >= 1) < 0.1
    assert scored.score[420:].max() > 2
    explained = model.explain(later.values[450:451], scored.share[450:451])[0]
    meter_of = {each.name: each for each in explained}["kwh_total"]
    assert (meter_of.quantity, meter_of.actual) == ("change", 0.0)
    assert meter_of.share > 0.3


def test_a_fault_is_found_as_well_with_codes_as_with_blanks() -> None:
    values = np.stack([TEMP, HUM], axis=1)
    values[N + 300 : N + 348, 0] += 12
    coded, blank = np.where(GONE, -200.0, values), np.where(GONE, np.nan, values)
    peaks = {}
    for name, each in (("coded", coded), ("blank", blank)):
        model, later = trained({"temp": each[:, 0], "hum": each[:, 1]})
        peaks[name] = np.nanmax(model.score(later.values).score[290:350])
        assert np.nanmax(model.score(later.values).score[:280]) < peaks[name] / 3
        assert ("-200 taken as missing" in str(model.card.training["inputs"])) is (name == "coded")
    assert peaks["coded"] > 5
    assert peaks["coded"] == pytest.approx(peaks["blank"], rel=0.1)


def test_a_code_of_one_sensor_is_missing_in_the_others() -> None:
    values = np.where(GONE, -200.0, np.stack([TEMP, HUM], axis=1))
    found = recognise(windows(np.column_stack([values, KW]).astype(np.float32)), np.arange(N), fleet("t", "h", "kw"))
    assert [each.missing for each in found.inputs] == [(-200.0,)] * 3
    assert "kw" not in str(found.notes)


def test_a_configured_code_is_missing() -> None:
    values = TEMP.copy()
    values[[300, 301]] = 85.0
    found = recognise(windows(values[:, None].astype(np.float32)), np.arange(N), fleet("t", missing=(85.0,)))
    assert found.inputs[0].missing == (85.0,)


def test_a_configured_angle_crosses_north_in_peace() -> None:
    named, later = trained({"wind": WIND, "temp": TEMP}, circular=("wi*",))
    assert named.inputs.inputs[0].kind == "angle"
    faulty = later.values.copy()
    faulty[..., 0] = DRAW.uniform(60, 280, faulty.shape[:2])
    scored = named.score(faulty)
    assert np.mean(named.score(later.values).score >= 1) < 0.05
    assert np.mean(scored.score >= 1) > 0.9
    explained = named.explain(faulty[:1], scored.share[:1])[0]
    assert explained[0].name == "wind"
    assert explained[0].share > 0.8
    assert 60 <= explained[0].actual <= 280


def test_an_angle_is_suggested_and_not_assumed() -> None:
    model, _ = trained({"wind": WIND, "temp": TEMP}, circular=("w1nd",))
    assert model.inputs.is_plain
    suggested, unknown = model.card.training["inputs"]
    assert 'fields.circular = ["wind"]' in suggested
    assert 'fields.circular = ["w1nd"] names no sensor of line' in unknown


def test_a_moved_set_point_is_blamed_and_nothing_else() -> None:
    setpoint = np.where(N + 300 > STEPS, 21.0, 21.5)
    temp = 21 + 0.5 * np.sin(STEPS / 30) + DRAW.normal(0, 0.1, N + N_LATER)
    model, later = trained({"temp": temp, "setpoint": setpoint})
    scored = model.score(later.values)
    assert np.mean(scored.score[:280] >= 1) < 0.1
    assert (scored.score[315:] >= 1).all()
    for row in (302, 320, 500):
        worst = model.explain(later.values[row : row + 1], scored.share[row : row + 1])[0][0]
        assert worst.name == "setpoint"
        assert worst.share > 0.8
        assert worst.expected == pytest.approx(21.0)


def test_windows_full_of_codes_are_unusable() -> None:
    values = np.stack([TEMP, HUM], axis=1)
    for row in range(0, N, 100):
        values[row : row + 40] = -999.0
    model, _ = trained({"temp": values[:, 0], "hum": values[:, 1]})
    assert model.card.training["left_out"]["too_many_gaps"] > 300
    empty = np.full((1, 12, 2), -999.0, np.float32)
    assert np.isnan(model.score(empty).score).all()


def test_only_counters_leave_nothing_to_learn() -> None:
    with pytest.raises(NotEnoughData, match="no sensor is left to learn from: row: counts up by 1"):
        trained({"row": STEPS.astype(float)})


def test_expected_values_stay_near_what_was_seen() -> None:
    model, later = trained({"temp": TEMP, "hum": HUM})
    card = model.card.inputs
    assert card is not None
    assert card["temp"]["low"] == pytest.approx(TEMP[:N].min(), rel=1e-6)
    assert card["hum"]["high"] == pytest.approx(HUM[:N].max(), rel=1e-6)
    values = later.values[:50] * np.float32([1, -30])
    for each in model.explain(values, model.score(values).share):
        for sensor in each:
            span = card[sensor.name]["high"] - card[sensor.name]["low"]
            assert card[sensor.name]["low"] - 0.11 * span <= sensor.expected <= card[sensor.name]["high"] + 0.11 * span


def test_many_assets_are_sampled() -> None:
    train = windows(*[np.stack([TEMP, STEPS + 7.0], axis=1)[:60].astype(np.float32)] * (N_ASSETS + 50))
    found = recognise(train, np.arange(len(train)), fleet("temp", "row"))
    assert [each.kind for each in found.inputs] == ["plain", "left_out"]


def test_the_configuration_reaches_the_training() -> None:
    fields = {"circular": ["wd"], "missing": [-999, "n/a"]}
    config = parse({"kafka": {"bootstrap": "b:9092", "topics": ["t"]},
                    "fleet": [{"name": "f", "interval": "1s", "sensors": ["wd"], "fields": fields}]})  # fmt: skip
    spec = FleetSpec.of(config.fleets[0], ("wd",), config.fields_of(config.fleets[0]))
    assert (spec.circular, spec.missing) == (("wd",), (-999.0,))


def fleet(*sensors: str, missing: tuple[float, ...] = ()) -> FleetSpec:
    return FleetSpec("line", sensors, 60.0, BUDGET, missing=missing)
