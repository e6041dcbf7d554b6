"""Alerts of class `data` of one partition: records that were lost, and records that were refused.

Input: gaps in the log, rejected records, and the records between them. Output: changes of alerts. They go into the same
transaction as the records they are about, so they survive the same restarts. Invariant: a shard (or partition) has at
most one open alert of a kind. It counts repetitions, and closes by itself after a quiet time. A producer that
invents a million names is one alert, and so is a retention that removes unread records every minute. Kinds:

- `asset_limit`: a shard rejected a new asset (`max_assets`). Its clock is the shard's event time, the newest that
  admitted assets have sent, so rejected assets cannot move it. It closes after an hour without another rejection.
  Invariant: a function of the partition's log and the settings, however the log is cut into batches.
- `records_lost`: retention removed records before they were read. Lost records stay lost, so no later record could end
  this alert. Closed at once it would be in no list of open alerts for the next shift. Open for ever it would fill that
  list after a year. So it stays open for a day. It opens by processing time, at the discovery: a gap has no event time,
  and that of its neighbours may be so old that no channel would send a notification. It closes with the first record
  that Kafka stamped a day later.

A dead sensor, a dead asset and a dead stream would be further kinds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from monitor import logs
from monitor.decode.timestamps import MAX_US
from monitor.stream.window import NEVER
from monitor.types import AlertState, DataAlertChange, Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from monitor.stream.shard import ShardResult
    from monitor.types import Partition, RecordBatch

log = logs.get("pipeline")

ASSET_LIMIT, RECORDS_LOST = "asset_limit", "records_lost"
HOUR_US = 3_600_000_000
QUIET_US = {ASSET_LIMIT: HOUR_US, RECORDS_LOST: 24 * HOUR_US}
"""Time without a repetition until an alert closes. An hour: a producer that invents names does so all the time, and the
start of a plant is over by then. A day: the next shift should still find it among the open alerts."""
SEVERITY = {ASSET_LIMIT: Severity.WARNING, RECORDS_LOST: Severity.CRITICAL}
"""Rejected records are in quarantine, and the limit can be raised. Lost records are gone, and more may be lost now."""


class OpenAlert(msgspec.Struct):
    """An open alert, as it is stored in the partition's `rewind_state`."""

    kind: str
    fleet: str | None
    from_offset: int
    opened_us: int
    last_us: int
    """Time of the latest repetition."""
    n_records: int
    detail: str
    """Reason of the first rejected record."""

    @property
    def closes_us(self) -> int:
        """Time at which it closes without a repetition."""
        return self.last_us + QUIET_US[self.kind]


class DataAlerts:
    """The open data alerts of one partition."""

    def __init__(self, partition: Partition, state: list[Any], fleets: Collection[str]) -> None:
        """`state`: as in `rewind_state`. `fleets`: all in the configuration."""
        self._partition = partition
        self._fleets = fleets
        self.open = {(each.kind, each.fleet): each for each in msgspec.convert(state, list[OpenAlert])}
        """By kind and fleet. A restart needs them."""

    def record_loss(self, from_offset: int, to_offset: int, at_us: int) -> DataAlertChange:
        """Report that retention removed the records in [from_offset, to_offset). `at_us`: processing time."""
        alert = self.open.get((RECORDS_LOST, None))
        if alert is not None:
            alert.n_records += to_offset - from_offset
            alert.last_us = max(alert.last_us, at_us)
            return self._change(alert, is_transition=False)
        return self._open_alert(RECORDS_LOST, None, from_offset, at_us, to_offset - from_offset)

    def update(self, results: Iterable[ShardResult], batch: RecordBatch) -> list[DataAlertChange]:
        """Open, count and close alerts by the records of a batch, after all of its shards."""
        rejections = [each for each in results if each.over_limit or (ASSET_LIMIT, each.rows.fleet) in self.open]
        changes = [change for result in rejections for change in self._update_limit(result, batch)]
        return changes + list(self._close_ended(batch)) if self.open else changes

    def _close_ended(self, batch: RecordBatch) -> Iterator[DataAlertChange]:
        """Close the alert of a loss at a record of a day later, and the alerts of fleets that were deleted."""
        orphans = [each for each in self.open.values() if each.fleet not in (None, *self._fleets)]
        for orphan in orphans:
            yield self._close_alert(orphan, orphan.last_us)
        alert = self.open.get((RECORDS_LOST, None))
        if alert is not None:
            stamps = batch.timestamps_us
            late_enough = np.flatnonzero((stamps >= alert.closes_us) & (stamps <= MAX_US))  # beyond: no real clock
            if len(late_enough):
                yield self._close_alert(alert, int(batch.timestamps_us[late_enough[0]]))

    def _update_limit(self, result: ShardResult, batch: RecordBatch) -> Iterator[DataAlertChange]:
        """Update the `asset_limit` alert of one shard."""
        interval_us = result.interval_us
        fleet, over_limit, readings = result.rows.fleet, result.over_limit, result.readings
        alert = self.open.get((ASSET_LIMIT, fleet))
        clock = np.maximum.accumulate(np.concatenate(([result.max_cell_before], readings.cell)))
        n_counted = 0
        rejected = sorted(over_limit)
        for offset, place in zip(rejected, np.searchsorted(readings.offset, rejected).tolist(), strict=True):
            now = int(clock[place])  # before this record, after those that came before it
            if now != NEVER:
                now_us = now * interval_us
            else:  # no admitted asset has sent since the settings changed, so the shard has no event time yet
                now_us = min(max(0, int(batch.timestamps_us[np.searchsorted(batch.offsets, offset)])), MAX_US)
            if alert is not None and now_us >= alert.closes_us:
                if n_counted:
                    yield self._change(alert, is_transition=False)
                # Without an event time of the shard it closes at this record.
                yield self._close_alert(
                    alert, now_us if now == NEVER else _first_at(clock, interval_us, alert.closes_us)
                )
                alert, n_counted = None, 0
            if alert is None:
                yield self._open_alert(ASSET_LIMIT, fleet, offset, now_us, 1, over_limit[offset])
                alert = self.open[ASSET_LIMIT, fleet]
            else:
                alert.n_records += 1
                alert.last_us = max(alert.last_us, now_us)
                n_counted += 1
        if alert is not None and n_counted:
            yield self._change(alert, is_transition=False)
        if alert is not None and int(clock[-1]) * interval_us >= alert.closes_us:
            yield self._close_alert(alert, _first_at(clock, interval_us, alert.closes_us))

    def _open_alert(
        self, kind: str, fleet: str | None, from_offset: int, at_us: int, n_records: int, detail: str = ""
    ) -> DataAlertChange:
        alert = self.open[kind, fleet] = OpenAlert(kind, fleet, from_offset, at_us, at_us, n_records, detail)
        return self._change(alert, is_transition=True)

    def _close_alert(self, alert: OpenAlert, at_us: int) -> DataAlertChange:
        del self.open[alert.kind, alert.fleet]
        return self._change(alert, is_transition=True, closed_us=at_us)

    def _change(self, alert: OpenAlert, *, is_transition: bool, closed_us: int | None = None) -> DataAlertChange:
        return DataAlertChange(
            kind=alert.kind,
            partition=self._partition,
            fleet=alert.fleet,
            from_offset=alert.from_offset,
            opened_us=alert.opened_us,
            at_us=alert.last_us if closed_us is None else closed_us,
            state=AlertState.FIRING if closed_us is None else AlertState.CLOSED,
            severity=SEVERITY[alert.kind],
            n_records=alert.n_records,
            message=self._message(alert),
            is_transition=is_transition,
        )

    def _message(self, alert: OpenAlert) -> str:
        n = f"{alert.n_records:,} record{'s' if alert.n_records > 1 else ''}"
        if alert.kind == ASSET_LIMIT:
            return (
                f"{n} of assets that {alert.fleet} does not take went to quarantine, the first at offset "
                f"{alert.from_offset}: {alert.detail}"
            )
        return (
            f"Kafka's retention removed up to {n} before they were read, the first at offset {alert.from_offset}; "
            "windows there have holes. Nothing brings them back: give the topic a longer retention.ms, or see why the "
            "daemon was so far behind"
        )


def log_changes(changes: Iterable[DataAlertChange]) -> None:
    """Log the transitions of committed data alerts."""
    for change in changes:
        facts = {"partition": str(change.partition), "records": change.n_records}
        if change.is_transition and change.state is AlertState.CLOSED:
            log.info(f"{change.kind}_over", fleet=change.fleet, **facts)
        elif change.is_transition:
            log.warning(change.kind, fleet=change.fleet, **facts, meaning=change.message)


def _first_at(clock: np.ndarray[Any, np.dtype[np.int64]], interval_us: int, at_us: int) -> int:
    """Return the first time on a clock, in cells, that is not before `at_us`."""
    return int(clock[np.searchsorted(clock, -(-at_us // interval_us))]) * interval_us
