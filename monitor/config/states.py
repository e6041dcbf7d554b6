"""The settings of operating states and of the calendar: `[fleet.states]` and `[fleet.calendar]`.

Input: plain values. Output: frozen objects. Invariant: each table checks the combinations of its own settings.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from monitor.config.base import ConfigTable, Name, one_of, raise_problems

DETECT = ("auto", "never")
TRANSITIONS = ("own", "left_out")


class StatesConfig(ConfigTable):
    """`[fleet.states]`: operating states like off, idle and running, each judged on its own terms."""

    detect: Annotated[str, one_of(DETECT)] = "auto"
    """auto: where levels of a sensor are clear. "never": all windows are judged alike."""
    sensor: Name | None = None
    """Sensor whose level is the state. Default: the one whose levels are clearest, if any."""
    off_below: Annotated[float | None, Field(allow_inf_nan=False)] = None
    """Below it the asset is off, in the sensor's unit. Default: found in the data."""
    running_above: Annotated[float | None, Field(allow_inf_nan=False)] = None
    """From here on the asset is running. Between the two it is idle."""
    transitions: Annotated[str, one_of(TRANSITIONS)] = "own"
    """own: windows with a change of state have their own threshold. "left_out": they are not scored."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        problems: dict[str, str] = {}
        levels = {"off_below": self.off_below, "running_above": self.running_above}
        given = {name: level for name, level in levels.items() if level is not None}
        if self.sensor is None:
            problems |= {name: f"{level:g} of no sensor; name it: sensor = \"rpm\"" for name, level in given.items()}
        if self.off_below is not None and self.running_above is not None and self.off_below >= self.running_above:
            problems["running_above"] = f"{self.running_above:g} must be above off_below, {self.off_below:g}"
        if self.detect == "never" and (self.sensor is not None or given):
            problems["detect"] = '"never" leaves the sensor unused; use "auto", or remove the other settings'
        raise_problems(problems)
        return self
