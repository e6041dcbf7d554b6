"""`[fleet.drill]`: when a fleet is drilled.

Input: plain values. Output: a frozen object. Invariant: a schedule that never comes is refused here.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from monitor.config.base import ConfigTable, raise_problems
from monitor.config.fields import known_zone
from monitor.schedules import MINUTE_US, Recurrence

NEVER = "never"


class DrillConfig(ConfigTable):
    """`[fleet.drill]`."""

    cron: str = "0 2 * * *"
    """Five fields. "never": only `monitor drill`."""
    timezone: Annotated[str, AfterValidator(known_zone)] = "UTC"
    """Zone of `cron`."""

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        problems = {}
        if self.cron != NEVER and (problem := Recurrence(self.cron, MINUTE_US, self.timezone).problem()):
            problems["cron"] = f'{problem}, or "never"'
        raise_problems(problems)
        return self

    @property
    def recurrence(self) -> Recurrence | None:
        """The schedule. None = never."""
        return None if self.cron == NEVER else Recurrence(self.cron, MINUTE_US, self.timezone)
