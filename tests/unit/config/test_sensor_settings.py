"""`[fleet.sensor.NAME]`: notations, names, and settings without a meaning."""

from __future__ import annotations

from typing import Any

import pytest

from monitor.config import parse
from monitor.config.values import Deviation
from monitor.errors import ConfigError
from monitor.models.terms import SensorKnob, knobs_of


def fleet(sensor: dict[str, Any], **other: Any) -> Any:
    table = {"name": "turbines", "interval": "10m", "sensor": sensor, **other}
    return parse({"kafka": {"bootstrap": "b:9092", "topics": ["t"]}, "fleet": [table]}).fleets[0]


@pytest.mark.parametrize(
    ("text", "deviation"),
    [("5%", Deviation(relative=0.05)), ("2.5", Deviation(2.5)), (2.5, Deviation(2.5)), (3, Deviation(3.0)),
     ("1e-3", Deviation(1e-3)), ("", Deviation()), (" 10 % ", Deviation(relative=0.1))],
)  # fmt: skip
def test_a_deviation_is_absolute_or_relative(text: object, deviation: Deviation) -> None:
    assert fleet({"power": {"min_deviation": text}}).sensor["power"].min_deviation == deviation


@pytest.mark.parametrize("text", ["5 kW", "-3", "five", True, -1, "%", "nan"])
def test_a_malformed_deviation_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ConfigError, match=r'is no deviation; write "5%" of the expected value'):
        fleet({"power": {"min_deviation": text}})


def test_a_sensor_that_is_not_listed_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'fleet\[0\].sensor.powr: is no sensor of the fleet; did you mean "power"'):
        fleet({"powr": {"weight": 2}}, sensors=["power", "pitch"])
    assert fleet({"powr": {"weight": 2}}).sensor["powr"].weight == 2


@pytest.mark.parametrize("setting", [{"direction": "up"}, {"min_deviation": "5%"}])
def test_a_setting_without_a_meaning_for_an_angle_is_refused(setting: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="an angle"):
        fleet({"wind_dir": setting}, fields={"circular": ["*_dir"]})
    assert fleet({"wind_dir": {"min_deviation": "10"}}, fields={"circular": ["*_dir"]}).sensor


def test_only_settings_that_change_something_are_knobs() -> None:
    found = knobs_of(fleet({"a": {"range": [0, 5], "unit": "kW"}, "b": {"direction": "up", "min_deviation": "2"}}))
    assert found == {"b": SensorKnob("up", least=2.0)}
