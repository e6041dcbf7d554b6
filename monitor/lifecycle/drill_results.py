"""The daemon's side of drills: the time of the next one, and the end of one that the training process made.

Input: `[fleet.drill]`, and the document of a drill. Output: a stored measurement, the alert `drill_failed` of class
`data` that a bad one opens and a good one closes, metrics, a line in the log.
Invariant: one transaction under the lease of the training stores a drill and changes the alert, so the alert is there
in the cycle that found the problem.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from monitor import drill_report, logs, metrics
from monitor.clock import from_us, to_us
from monitor.lifecycle.champions import until_answered
from monitor.store import drills
from monitor.stream.data_alerts import log_changes
from monitor.timing import DEFAULT_TIMING
from monitor.types import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from monitor.clock import Clock
    from monitor.config import Config, FleetConfig
    from monitor.config.drill import DrillConfig
    from monitor.drill_report import Problem
    from monitor.store.engine import AsyncStore
    from monitor.store.outbox import Channel
    from monitor.timing import Timing
    from monitor.types import JobView

log = logs.get("drill")

REMEDY = (
    "See `monitor drill {fleet} --stored`. `monitor models rollback {fleet}` brings the version before back, and "
    "`monitor retrain {fleet}` trains a new one. The next good drill closes this: `monitor drill {fleet} --daemon`"
)


def next_drill(settings: DrillConfig, last: JobView | None, started_at: datetime) -> datetime | None:
    """Return the time of the next drill of a fleet with a champion. None = never.

    The first time of the schedule after the last drill that ended, however it ended. A time that passed while no daemon
    ran is made up for. `started_at`: of this daemon, from which on a fleet without a drill has its first.
    """
    if (recurrence := settings.recurrence) is None:
        return None
    after = last.finished_at if last is not None and last.finished_at is not None else started_at
    following = recurrence.next(to_us(after))
    return None if following is None else from_us(following[0])


async def keep_drill(
    config: Config,
    store: AsyncStore,
    clock: Clock,
    fleet: FleetConfig,
    document: Mapping[str, Any],
    *,
    requested_by: str,
    lease: tuple[str, int] | None,
    channels: Sequence[Channel] = (),
    timing: Timing = DEFAULT_TIMING,
) -> str:
    """Judge and store a drill, and return its outcome in one sentence. Raises Fenced, NotFound."""
    now_us, version = clock.now_us(), str(document["version"])
    before = await until_answered(partial(store.read, drills.baseline, fleet.name, version, now_us), clock, timing)
    problem = drill_report.judge(document, None if before is None else before.result)
    record = partial(
        store.run,
        drills.record,
        document,
        problem=None if problem is None else problem.text,
        severity=Severity.WARNING if problem is None or problem.kind == "worse" else Severity.CRITICAL,
        message="" if problem is None else _message(fleet.name, problem),
        topic=config.topics_of(fleet)[0],
        pipeline=config.kafka.group,
        at_us=now_us,
        requested_by=requested_by,
        lease=lease,
        channels=channels,
    )
    changes = await until_answered(record, clock, timing)
    metrics.count_alerts(changes)
    log_changes(changes)
    show_drill(document, now_us / 1e6, is_failed=problem is not None)
    (log.info if problem is None else log.warning)(
        "drilled",
        fleet=fleet.name,
        version=version,
        sizes={kind: each["size"] for kind, each in document["kinds"].items() if each.get("unit") == "spreads"},
        problem=None if problem is None else problem.text,
        took_s=document["took_s"],
    )
    return "no problem" if problem is None else problem.text


def show_drill(document: Mapping[str, Any], at_s: float, *, is_failed: bool) -> None:
    """Set the metrics of a fleet's last drill. A size that is not found is infinite."""
    fleet = str(document["fleet"])
    metrics.drill_timestamp_seconds.labels(fleet).set(at_s)
    metrics.drill_failed.labels(fleet).set(is_failed)
    for kind, each in document["kinds"].items():
        if not each.get("sensors"):
            continue
        metrics.drill_recall_ratio.labels(fleet, kind).set(each["recall"])
        if each["unit"] is not None:
            size = float("inf") if each["size"] is None else each["size"]
            metrics.drill_minimum_detectable_size.labels(fleet, kind).set(size)
        if each["delay_s"] is not None:
            metrics.drill_delay_seconds.labels(fleet, kind).set(each["delay_s"])


def _message(fleet: str, problem: Problem) -> str:
    return f"The drill of {fleet} failed: {problem.text}. {REMEDY.format(fleet=fleet)}"
