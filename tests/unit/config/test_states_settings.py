from __future__ import annotations

import pytest
from pydantic import ValidationError

from monitor.config.states import StatesConfig


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"off_below": 5.0}, 'name it: sensor = "rpm"'),
        ({"sensor": "rpm", "off_below": 5.0, "running_above": 5.0}, "5 must be above off_below, 5"),
        ({"sensor": "rpm", "detect": "never"}, '"never" leaves the sensor unused'),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        StatesConfig.model_validate(settings)
    assert expected in " ".join(caught.value.errors()[0]["ctx"]["problems"].values())


def test_levels_of_a_named_sensor_are_accepted() -> None:
    settings = StatesConfig.model_validate({"sensor": "rpm", "off_below": 50, "running_above": 900})
    assert (settings.off_below, settings.running_above, settings.transitions) == (50, 900, "own")
