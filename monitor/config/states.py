"""The settings of operating states and of the calendar: `[fleet.states]` and `[fleet.calendar]`.

Input: plain values. Output: frozen objects. Invariant: each table checks the combinations of its own settings.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationInfo, field_validator, model_validator

from monitor.config.base import ConfigTable, Name, config_folder, one_of, raise_problems

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


class CalendarConfig(ConfigTable):
    """`[fleet.calendar]`: hours and days at which a fleet's thresholds differ."""

    use: Annotated[str, one_of(DETECT)] = "auto"
    """auto: where hours explain scores of later held-out time. "never": the same threshold at all times."""
    timezone: str = "UTC"
    """Of hours and days, like "Europe/Berlin"."""
    holidays: tuple[str, ...] | str = ()
    """Dates that count as Sundays: ["2026-12-25"], or a file with one date a line, relative to monitor.toml."""

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            raise ValueError(f'"{value}" is not a time zone; write "Europe/Berlin" or "UTC"') from None
        return value

    @field_validator("holidays")
    @classmethod
    def _read_holidays(cls, value: tuple[str, ...] | str, info: ValidationInfo) -> tuple[str, ...]:
        source = ""
        if isinstance(value, str):
            path = config_folder(info) / value
            try:
                lines = path.read_text("utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f'"{value}" cannot be read: {error}; write a file with one date a line') from None
            value, source = tuple(text for line in lines if (text := line.partition("#")[0].strip())), f" in {path}"
        for each in value:
            try:
                date.fromisoformat(each)
            except ValueError:
                raise ValueError(f'"{each}"{source} is not a date; write "2026-12-25"') from None
        return tuple(sorted(set(value)))

    @property
    def dates(self) -> tuple[str, ...]:
        """The holidays, read from their file."""
        return self.holidays if isinstance(self.holidays, tuple) else ()
