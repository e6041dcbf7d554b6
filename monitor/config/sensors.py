"""`[fleet.sensor.NAME]`: what an operator knows about a sensor.

Input: plain values. Output: frozen objects.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from monitor.config.base import ConfigTable, one_of, raise_problems
from monitor.config.values import Deviation

DIRECTIONS = ("both", "up", "down")
SENSOR_TESTS = ("dead", "out_of_range", "stuck", "noisy")
"""Tests of a sensor itself."""
SensorTest = Annotated[str, one_of(SENSOR_TESTS)]


class SensorConfig(ConfigTable):
    """`[fleet.sensor.NAME]`."""

    range: tuple[float | None, float | None] | None = None
    """Smallest and greatest possible value. A reading outside is the sensor's fault. None = without a limit."""
    tests: tuple[SensorTest, ...] | None = None
    """Tests of this sensor. Default: `[fleet.alerts] sensor_tests`."""
    direction: Annotated[str, one_of(DIRECTIONS)] = "both"
    """Deviations that count: above the expected value, below it, or both."""
    min_deviation: Annotated[Deviation, BeforeValidator(Deviation.parse)] = Deviation()
    """Deviations below it do not count: a number in the sensor's unit, or "5%" of the expected value. Of a counter: of
    its change in a window. Of an angle: in degrees."""
    weight: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Factor of its errors in the score. 0 = the sensor raises no alert."""
    unit: str = ""
    """Shown beside its values."""
    description: str = ""
    """Shown beside its name."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.range is not None and None not in self.range and not self.range[0] < self.range[1]:  # type: ignore[operator]
            low, high = self.range
            raise_problems({"range": f"[{low:g}, {high:g}] holds no value; write the smaller one first"})
        return self
