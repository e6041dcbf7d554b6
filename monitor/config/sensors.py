"""`[fleet.sensor.NAME]`: what an operator knows about a sensor.

Input: plain values. Output: frozen objects.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from monitor.config.base import ConfigTable, one_of

DIRECTIONS = ("both", "up", "down")


class SensorConfig(ConfigTable):
    """`[fleet.sensor.NAME]`."""

    range: tuple[float | None, float | None] | None = None
    """Smallest and greatest possible value. A reading outside is the sensor's fault. None = without a limit."""
    direction: Annotated[str, one_of(DIRECTIONS)] = "both"
    """Deviations that count: above the expected value, below it, or both."""
    min_deviation: str = ""
    """Deviations below it do not count: a number in the sensor's unit, or "5%" of the expected value."""
    weight: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Factor of its errors in the score. 0 = the sensor raises no alert."""
    unit: str = ""
    """Shown beside its values."""
    description: str = ""
    """Shown beside its name."""
