"""`[fleet.retrain]`: when a fleet retrains, on which data, and when the new version decides.

Input: plain values. Output: a frozen object. Invariant: a schedule that never comes is refused here, not found out
later.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from monitor.config.base import (
    ConfigTable,
    PositiveDuration,
    auto_or_value,
    duration_or,
    one_of,
    raise_problems,
)
from monitor.config.fields import known_zone
from monitor.config.values import Promotion, Rate, parse_size
from monitor.schedules import MINUTE_US, Recurrence


def _rate_or_never(value: object) -> Rate | None:
    return None if value in ("never", None) else Rate.parse(value)


def _size_or_auto(value: object) -> int | None:
    return None if value in ("auto", None) else parse_size(value)


class RetrainConfig(ConfigTable):
    """`[fleet.retrain]`."""

    every: Annotated[timedelta | None, duration_or("never")] = timedelta(days=1)
    """After the end of the last training. "never": no schedule. Not used with `cron`."""
    cron: str = ""
    """Five fields, such as "0 3 * * sun". Instead of `every`. Default: none."""
    timezone: Annotated[str, AfterValidator(known_zone)] = "UTC"
    """Zone of `cron`."""
    history: PositiveDuration = timedelta(days=30)
    """Time range that training reads, in event time."""
    min_windows: Annotated[int, Field(ge=16)] = 200
    """Healthy windows needed for a training."""
    new_normal: Annotated[timedelta | None, duration_or("never")] = timedelta(days=14)
    """Age at which an unlabelled alert that never ended is taken for the new normal. A `fault` label always wins."""
    drift: Annotated[Rate | None, BeforeValidator(_rate_or_never)] = Rate(1, timedelta(days=90))
    """False triggers allowed of each drift test (of scores, of readings), which retrains early. "never": it is off."""
    promote: Annotated[Promotion, BeforeValidator(Promotion.parse)] = Promotion("auto")
    """auto: what passes the gate decides at once. suggest, manual: an operator promotes. "shadow:24h": after a
    comparison with the champion on so much live data."""
    recall_margin: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of injected faults that a challenger may miss more than the champion."""
    remember_faults: Annotated[int, Field(ge=0, le=1000)] = 20
    """Last confirmed faults, by label, that a challenger must still find. 0: none."""
    keep_versions: Annotated[int, Field(ge=1, le=1000)] = 10
    """Versions whose checkpoints are kept, besides the champion, the previous one and the challenger."""
    executor: Annotated[str, one_of(("pool", "serial", "ray"))] = "pool"
    """Training of the models of single assets (`model.scope = "asset"`): in worker processes, in the training process
    itself, or as tasks of a Ray cluster. The results are equal."""
    workers: Annotated[int | None, Field(ge=1, le=1024), auto_or_value] = None
    """Models trained at a time, each with one thread. "auto": None, half of the cores."""
    memory_limit: Annotated[int | None, BeforeValidator(_size_or_auto)] = None
    """Resident memory of the training process, in bytes. Beyond it the training ends with an error. "auto": None,
    half of the machine's or the container's."""

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        problems = {}
        if self.cron and (problem := self.recurrence.problem()):
            problems["cron"] = problem
        elif self.cron and "every" in self.model_fields_set:
            problems["every"] = f'does not go with cron = "{self.cron}"; delete one of them'
        if self.timezone != "UTC" and not self.cron:
            problems["timezone"] = f'"{self.timezone}" is used by cron only; set cron, or delete the line'
        raise_problems(problems)
        return self

    @property
    def n_workers(self) -> int:
        """Models trained at a time."""
        return self.workers or max(1, (os.cpu_count() or 1) // 2)

    @property
    def recurrence(self) -> Recurrence:
        """The schedule of `cron`."""
        return Recurrence(self.cron, MINUTE_US, self.timezone)

    @property
    def schedule(self) -> str:
        """The schedule in words."""
        from monitor.config.values import format_duration

        if self.cron:
            return f'by cron "{self.cron}" ({self.timezone})'
        return f"every {format_duration(self.every)}" if self.every else "only when asked"
