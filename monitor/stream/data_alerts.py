"""Alerts of class `data`: what should have reached us and did not, or more of it than we take. One partition's.

Enter: gaps that were stepped over, records that were refused, and the records between them. Leave: changes of alerts,
which go into the same transaction as what they are about, so that they survive what it survives. A lane (or partition)
has at most one open alert of a kind: what happens again meanwhile is counted by it, and it closes by itself once there
has been quiet. One producer that invents a million names is one alert, and so is retention that overtakes us each
minute. Kinds:

- `asset_limit`: a lane kept out a new asset (`max_assets`, `max_new_assets_per_min`). Its clock is the lane's event
  time, the newest that assets which are in have brought: those who are kept out cannot move it. Open until an hour
  without one more. The law: a function of the partition's log and the settings, however it is cut into batches;
- `records_lost`: retention took records before they were read. What is lost stays lost, so nothing could end this
  alert but somebody who has seen it. Closed at once it would be in no list of what is open, where the next shift
  looks; open for ever it would bury that list after a year. So it stays open for a day. It opens by processing time,
  at our own discovery: a hole has no event time, and that of its neighbours may be so old that nobody would be told.
  It closes with the first record that Kafka stamped a day later.

A dead sensor, a dead asset, a dead stream would be further kinds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from monitor.decode.timestamps import MAX_US
from monitor.stream.window import NEVER
from monitor.types import AlertState, DataAlertChange, Severity

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from monitor.stream.shard import Lane
    from monitor.types import Partition, Readings, RecordBatch

ASSET_LIMIT, RECORDS_LOST = "asset_limit", "records_lost"
HOUR_US = 3_600_000_000
QUIET_US = {ASSET_LIMIT: HOUR_US, RECORDS_LOST: 24 * HOUR_US}
"""Without the same thing again, until it is over. An hour: who invents names does so all the time, and who starts a
plant has done so by then. A day: the next shift, too, should find it among what is open."""
SEVERITY = {ASSET_LIMIT: Severity.WARNING, RECORDS_LOST: Severity.CRITICAL}
"""Who is kept out is in quarantine and can be let in; what is lost is lost, and more may be at this moment."""


class _Open(msgspec.Struct):
    """An alert that is open. As it is, it goes into the partition's `rewind_state`."""

    kind: str
    fleet: str | None
    from_offset: int
    opened_us: int
    last_us: int
    """When it happened last."""
    n_records: int
    detail: str
    """Why the first record was refused."""

    @property
    def over_us(self) -> int:
        return self.last_us + QUIET_US[self.kind]


class DataAlerts:
    """The open data alerts of a partition that is ours."""

    def __init__(self, partition: Partition, state: list[Any]) -> None:
        """`state`: as saved."""
        self._partition = partition
        self._open = {(each.kind, each.fleet): each for each in msgspec.convert(state, list[_Open])}

    @property
    def state(self) -> list[Any]:
        """What a restart must know. Plain JSON."""
        return [msgspec.to_builtins(each) for each in self._open.values()]

    def lost(self, from_offset: int, to_offset: int, at_us: int) -> DataAlertChange:
        """Retention took the records in [from_offset, to_offset). `at_us`: processing time."""
        alert = self._open.get((RECORDS_LOST, None))
        if alert is not None:
            alert.n_records += to_offset - from_offset
            alert.last_us = max(alert.last_us, at_us)
            return self._change(alert, is_transition=False)
        return self._begin(RECORDS_LOST, None, from_offset, at_us, to_offset - from_offset)

    def go_on(self, batch: RecordBatch, fleets: Container[str]) -> Iterator[DataAlertChange]:
        """Look whether these records are late enough for the loss to be over, and whose fleets are no more."""
        for orphan in [each for each in self._open.values() if each.fleet is not None and each.fleet not in fleets]:
            yield self._end(orphan, orphan.last_us)
        alert = self._open.get((RECORDS_LOST, None))
        if alert is not None:
            stamps = batch.timestamps_us
            late_enough = np.flatnonzero((stamps >= alert.over_us) & (stamps <= MAX_US))  # beyond: no clock's
            if len(late_enough):
                yield self._end(alert, int(batch.timestamps_us[late_enough[0]]))

    def limit(
        self, lane: Lane, kept_out: Mapping[int, str], readings: Readings, batch: RecordBatch
    ) -> Iterator[DataAlertChange]:
        """Follow one lane through a batch. `kept_out`: offset → reason; `readings`: those not in the windows yet."""
        fleet, interval_us = lane.config.name, lane.config.interval_us
        alert = self._open.get((ASSET_LIMIT, fleet))
        if alert is None and not kept_out:
            return
        clock = np.maximum.accumulate(np.concatenate(([lane.windower.max_cell], readings.cell)))
        n_counted = 0
        refused = sorted(kept_out)
        for offset, place in zip(refused, np.searchsorted(readings.offset, refused).tolist(), strict=True):
            now = int(clock[place])  # before this record, after those that came before it
            if now != NEVER:
                now_us = now * interval_us
            else:  # known assets that are silent since other settings began: nothing has told the time yet
                now_us = min(max(0, int(batch.timestamps_us[np.searchsorted(batch.offsets, offset)])), MAX_US)
            if alert is not None and now_us >= alert.over_us:
                if n_counted:
                    yield self._change(alert, is_transition=False)
                # Without a time of the lane's own it is over at this record.
                yield self._end(alert, now_us if now == NEVER else _first_at(clock, interval_us, alert.over_us))
                alert, n_counted = None, 0
            if alert is None:
                yield self._begin(ASSET_LIMIT, fleet, offset, now_us, 1, kept_out[offset])
                alert = self._open[ASSET_LIMIT, fleet]
            else:
                alert.n_records += 1
                alert.last_us = max(alert.last_us, now_us)
                n_counted += 1
        if alert is not None and n_counted:
            yield self._change(alert, is_transition=False)
        if alert is not None and int(clock[-1]) * interval_us >= alert.over_us:
            yield self._end(alert, _first_at(clock, interval_us, alert.over_us))

    # ------------------------------------------------------------------ inside

    def _begin(
        self, kind: str, fleet: str | None, from_offset: int, at_us: int, n_records: int, detail: str = ""
    ) -> DataAlertChange:
        alert = self._open[kind, fleet] = _Open(kind, fleet, from_offset, at_us, at_us, n_records, detail)
        return self._change(alert, is_transition=True)

    def _end(self, alert: _Open, at_us: int) -> DataAlertChange:
        del self._open[alert.kind, alert.fleet]
        return self._change(alert, is_transition=True, closed_us=at_us)

    def _change(self, alert: _Open, *, is_transition: bool, closed_us: int | None = None) -> DataAlertChange:
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

    def _message(self, alert: _Open) -> str:
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


def _first_at(clock: np.ndarray[Any, np.dtype[np.int64]], interval_us: int, at_us: int) -> int:
    """Return the first time on a clock, in cells, that is not before `at_us`."""
    return int(clock[np.searchsorted(clock, -(-at_us // interval_us))]) * interval_us
