"""Log time of a partition: the time that passes while its records come, which no single clock can drag.

Input: Kafka's timestamps, in the order of the log. A record without one counts with its newest event time. Output: for
each record, log time in µs since the partition's start, and a time for people. Invariant: both are functions of the
log, however it is cut into batches. Log time never falls.

- The time for people follows the newest timestamp. One more than an hour away from it, before or after, counts only
  once the next record agrees: so it follows neither a lone record of the year 2099 nor one of 1970.
- Log time adds up its advances within an hour, each by at most five minutes. Where the time leaps, log time stands
  still: a broker that was away for a weekend makes no asset silent. Neither does a gateway with a wrong clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from monitor.decode.timestamps import MAX_US

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.stream.shard import ShardResult
    from monitor.types import Int64, RecordBatch

LEAP_US = 3_600_000_000
"""A timestamp so far from the time so far needs a second record that agrees."""
MAX_STEP_US = 300_000_000
"""Advance of log time with one record at most: five minutes, far less than any alert waits."""


class RecordTimes(NamedTuple):
    """The times of the N records of a batch."""

    log_us: Int64
    """[N], log time, which never falls."""
    time_us: Int64
    """[N], the time for people. 0 = none yet."""


class LogClock(msgspec.Struct):
    """Log time of one partition, as it is stored in `rewind_state`."""

    log_us: int = 0
    time_us: int = -1
    """Time for people at the last record. -1 = none yet."""
    leapt_us: int = -1
    """Timestamp of the last record, where it is a leap that no other one confirmed. -1 = it is none."""

    @classmethod
    def restored(cls, state: Any) -> LogClock:
        """Return the clock from its stored state. None = a new one."""
        return cls() if state is None else msgspec.convert(state, cls)

    def advance(self, batch: RecordBatch, results: Sequence[ShardResult]) -> RecordTimes:
        """Advance by the records of a batch."""
        stamps = _stamps(batch, results)
        newest = np.maximum.accumulate(np.concatenate(([self.time_us], stamps)))
        steps = np.diff(newest)
        # Usually no record is far from the time so far, and all are handled at once.
        if self.time_us >= 0 and (np.abs(stamps - newest[:-1]) <= LEAP_US).all():
            log_us, time_us = self.log_us + np.cumsum(np.minimum(steps, MAX_STEP_US)), newest[1:]
            self.leapt_us = -1
        else:
            each = np.array([self._advance_by_one(stamp) for stamp in stamps.tolist()], dtype=np.int64)
            log_us, time_us = each[:, 0], each[:, 1]
        self.log_us, self.time_us = int(log_us[-1]), int(time_us[-1])
        return RecordTimes(log_us, np.maximum(time_us, 0))

    def _advance_by_one(self, stamp_us: int) -> tuple[int, int]:
        if stamp_us < 0:
            pass
        elif abs(stamp_us - self.time_us) <= LEAP_US:
            self.log_us += min(max(0, stamp_us - self.time_us), MAX_STEP_US)
            self.time_us, self.leapt_us = max(self.time_us, stamp_us), -1
        elif self.time_us < 0 or (self.leapt_us >= 0 and abs(stamp_us - self.leapt_us) <= LEAP_US):
            self.time_us, self.leapt_us = stamp_us, -1
        else:
            self.leapt_us = stamp_us
        return self.log_us, self.time_us


def _stamps(batch: RecordBatch, results: Sequence[ShardResult]) -> Int64:
    """Return Kafka's timestamps [N]. Without a valid one: the newest event time of the record, -1 = none."""
    stamps = batch.timestamps_us
    is_valid = (stamps >= 0) & (stamps <= MAX_US)
    if is_valid.all():
        return stamps
    stamps = np.where(is_valid, stamps, -1)
    for result in results:
        readings = result.readings
        row = np.searchsorted(batch.offsets, readings.offset)
        of_none = np.flatnonzero(~is_valid[row])
        np.maximum.at(stamps, row[of_none], readings.cell[of_none] * result.interval_us)
    return stamps
