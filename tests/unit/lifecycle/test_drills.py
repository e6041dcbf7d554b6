"""Drills: seeded, bounded in cost, and blind models are told from models that see."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from monitor.budget import Budget
from monitor.drill_report import judge
from monitor.errors import NotEnoughData
from monitor.lifecycle.drills import MIN_SENSORS, SIZES, drill
from monitor.lifecycle.injection import KINDS, UNSIZED
from monitor.models.detector import TrainedModel
from monitor.models.spec import FleetSpec, ModelSpec
from monitor.training.fit import fit
from tests.drilled import FLEET, LENGTH, NAMES, STRIDE, N, model, readings, windows
from tests.weights import zeroed


def drilled(version: TrainedModel, seed: int = 0, **options: Any) -> dict[str, Any]:
    document = drill(version, windows(readings()), FLEET, NAMES, seed=seed, **options)
    return {name: value for name, value in document.items() if name != "took_s"}


@cache
def usual() -> dict[str, Any]:
    return drilled(model())


def cells(document: dict[str, Any], sensor: str) -> dict[str, Any]:
    return next(each["kinds"] for each in document["sensors"] if each["name"] == sensor)


def test_the_same_seed_gives_the_same_document() -> None:
    assert drilled(model()) == usual()
    assert drilled(model(), seed=1) != usual()


def test_a_model_that_works_has_a_size_for_each_level_fault() -> None:
    for name in NAMES[:3]:
        of = cells(usual(), name)
        for kind in ("bias", "ramp", "noise"):
            assert of[kind]["size"] in SIZES
            assert of[kind]["size"] < SIZES[-1]
            assert of[kind]["found"] >= 0.9 * of[kind]["n"]
            assert of[kind]["recall_low"] <= of[kind]["recall"] <= of[kind]["recall_high"]
            assert (of[kind]["size_low"] or 0) <= of[kind]["size"]
            assert of[kind]["delay_s"] > 0
    assert judge(usual(), usual()) is None


def test_smaller_faults_than_the_minimum_are_missed() -> None:
    cell = cells(usual(), "load")["bias"]
    assert cell["size_low"] <= cell["size"] <= (cell["size_high"] or SIZES[-1])
    assert cell["value"] == pytest.approx(cell["size"] * usual()["sensors"][0]["spread"], rel=1e-5)


def test_kinds_without_meaning_name_the_reason() -> None:
    switch = cells(usual(), "switch")
    assert all("8 values" in switch[kind]["skipped"] for kind in ("bias", "ramp", "spike", "noise"))
    assert "skipped" not in switch["dropout"]


def test_sensors_that_fail_a_test_count_as_detected() -> None:
    of = cells(usual(), "heat")
    assert of["dropout"]["by"]["sensor"] + of["dropout"]["by"]["process"] == of["dropout"]["found"]
    assert of["dropout"]["by"]["sensor"] > 0
    assert all(of[kind]["size"] is None for kind in UNSIZED)


def test_zeroed_weights_are_a_problem_at_the_first_drill() -> None:
    problem = judge(drilled(zeroed(model())), None)
    assert problem is not None
    assert problem.kind in ("alarms", "blind")


def test_a_model_that_never_alarms_is_blind() -> None:
    deaf = TrainedModel(
        replace(model().card, threshold=replace(model().card.threshold, raw=1e9)),
        model().members, model().scaler, torch.device("cpu"),
    )  # fmt: skip
    problem = judge(drilled(deaf), None)
    assert problem is not None
    assert problem.kind == "blind"


def test_a_model_that_always_alarms_detects_nothing() -> None:
    loud = TrainedModel(
        replace(model().card, threshold=replace(model().card.threshold, raw=1e-9)),
        model().members, model().scaler, torch.device("cpu"),
    )  # fmt: skip
    document = drilled(loud)
    assert all(each.get("detected", 0) == 0 for each in document["kinds"].values())
    problem = judge(document, None)
    assert problem is not None
    assert problem.kind == "alarms"


def test_the_cost_is_bounded_by_fewer_copies_and_sensors() -> None:
    document = drilled(model(), max_values=2_000_000)
    assert document["windows"] * LENGTH * len(NAMES) <= 1.3 * 2_000_000
    assert document["copies"] < usual()["copies"]
    wide = np.tile(readings()[:, :3], 4)
    names = tuple(f"s{number}" for number in range(12))
    spec = FleetSpec("pumps", names, 60.0, Budget(7.0, 3, 5, 6, STRIDE * 60.0))
    document = drill(fit(windows(wide[:N]), ModelSpec("pca"), spec), windows(wide), FLEET, names, max_values=1)
    assert (document["n_sensors"], document["n_drilled"]) == (12, MIN_SENSORS)
    assert sum(each["kinds"] is not None for each in document["sensors"]) == MIN_SENSORS


def test_one_sensor_can_be_drilled_alone() -> None:
    document = drilled(model(), only=["flow"])
    assert [each["name"] for each in document["sensors"]] == ["flow"]
    assert document["kinds"]["bias"]["sensors"] == 1


def test_too_little_history_is_said() -> None:
    with pytest.raises(NotEnoughData, match="healthy readings, and 5 are needed"):
        drill(model(), windows(readings(120)), FLEET, NAMES)
    with pytest.raises(NotEnoughData, match="knows 0 of the sensors"):
        drill(model(), windows(readings(600)), FLEET, ("a", "b", "c", "d"))


def test_every_kind_has_a_summary() -> None:
    assert tuple(usual()["kinds"]) == KINDS
    assert usual()["kinds"]["bias"]["sensors"] == 3
    assert usual()["kinds"]["lag"]["sensors"] in (3, 4)
