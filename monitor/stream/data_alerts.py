"""Alerts of class `data` of one partition: records that were lost, refused, late or missing, and notices of decoding.

Input: the results of each batch, and gaps in the log. Output: changes of alerts. They go into the same transaction as
the records they are about, so they survive the same restarts. Invariant: a kind, fleet and *subject* (an asset, sensor
or field) has at most one open alert in a partition. It counts repetitions, and closes after a quiet time. A producer
that invents a million names is one alert. A kind is a line in `KINDS`. Decoding may add kinds of its own (`Notice`).

All waiting goes by *log time* (`LogClock`), which follows Kafka's timestamps, but no wrong one: that would close alerts
or make assets silent. `records_lost` alone goes by processing time, because a gap has
no time: it opens at the discovery, and closes with the first record that Kafka stamped a day later. Closed at once it
would be in no list of open alerts for the next shift. Open for ever it would fill that list after a year.

What an asset's alerts go by (`asset_health.py`) is counted since the start of this process. So after a restart such
an alert may open later than without one. `asset_limit` and `records_lost` are functions of the log and the settings,
however the log is cut into batches.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from monitor import logs
from monitor.decode.timestamps import MAX_US
from monitor.printable import escape_unprintable
from monitor.stream.asset_health import AssetHealth, Finding
from monitor.stream.log_clock import LogClock
from monitor.types import AlertClass, AlertState, DataAlertChange, Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from monitor.stream.shard import Shard, ShardResult
    from monitor.types import Int64, Notice, Partition, Quarantined, RecordBatch

log = logs.get("pipeline")

ASSET_LIMIT, RECORDS_LOST = "asset_limit", "records_lost"
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
MAX_OPEN = 20
"""Open alerts of one kind and fleet that name their subject. One more alert counts all further subjects."""


class Kind(NamedTuple):
    """A kind of alert."""

    severity: Severity
    quiet_us: int
    """Time without a repetition until it closes."""
    text: str
    """The message. Fields: n (as "5 records"), fleet, subject, offset, detail."""


KINDS: dict[str, Kind] = {
    # An hour: a producer that invents names does so all the time, and the start of a plant is over by then.
    ASSET_LIMIT: Kind(
        Severity.WARNING,
        HOUR_US,
        "{n} of assets that {fleet} does not take went to quarantine, the first at offset {offset}: {detail}",
    ),
    # Lost records are gone, and more may be lost now. A day: the next shift should still find it.
    RECORDS_LOST: Kind(
        Severity.CRITICAL,
        DAY_US,
        "Kafka's retention removed up to {n} before they were read, the first at offset {offset}; windows there have "
        "holes. Nothing brings them back: give the topic a longer retention.ms, or see why the daemon was so far "
        "behind",
    ),
    "late_flood": Kind(Severity.WARNING, HOUR_US, "{subject}: {n} came late and were not used. {detail}"),
    "asset_refused": Kind(Severity.WARNING, HOUR_US, "{subject}: {n} went to quarantine. {detail}"),
    "asset_ahead": Kind(Severity.WARNING, HOUR_US, "{subject}: {n} are ahead of Kafka's clock. {detail}"),
    "duplicate_flood": Kind(Severity.WARNING, HOUR_US, "{subject}: {n} brought no new value. {detail}"),
    # After a week an asset counts as taken out of service.
    "asset_silent": Kind(Severity.WARNING, 7 * DAY_US, "{subject} sends nothing any more. {detail}"),
}
NOTICE = Kind(Severity.WARNING, DAY_US, "{detail}")
"""Of the kinds that decoding adds."""


class OpenAlert(msgspec.Struct):
    """An open alert, as it is stored in the partition's `rewind_state`."""

    kind: str
    fleet: str | None
    from_offset: int
    opened_us: int
    last_us: int
    """Time of the latest repetition, for people."""
    n_records: int
    detail: str
    """Reason of the first record."""
    subject: str = ""
    last_log_us: int = 0
    """Log time of the latest repetition."""

    @property
    def closes_us(self) -> int:
        """Log time at which it closes without a repetition."""
        return self.last_log_us + kind_of(self.kind).quiet_us


class Event(NamedTuple):
    """Records that open an alert or repeat it."""

    row: int
    """In the batch: of the first such record."""
    n_records: int
    detail: str


Key = tuple[str, str | None, str]
"""(kind, fleet, subject)."""


def kind_of(name: str) -> Kind:
    """Return the facts of a kind, which decoding may have added."""
    return KINDS.get(name, NOTICE)


class DataAlerts:
    """The open data alerts of one partition."""

    def __init__(self, partition: Partition, state: Mapping[str, Any], fleets: Collection[str]) -> None:
        """`state`: the partition's `rewind_state`. `fleets`: all in the configuration."""
        self._partition = partition
        self._fleets = fleets
        self._clock = LogClock.restored(state.get("log_clock"))
        self._health = AssetHealth()
        alerts = msgspec.convert(state.get("data_alerts", []), list[OpenAlert])
        self.open: dict[Key, OpenAlert] = {(each.kind, each.fleet, each.subject): each for each in alerts}
        """A restart needs them."""

    @property
    def stored_state(self) -> dict[str, Any]:
        """The part of `rewind_state` that a restart needs."""
        return {
            "data_alerts": [msgspec.to_builtins(each) for each in self.open.values()],
            "log_clock": msgspec.to_builtins(self._clock),
        }

    @property
    def subjects(self) -> dict[str, list[str]]:
        """Return, by kind, the subjects of the open alerts. An alert without one counts by its fleet."""
        found: dict[str, list[str]] = {}
        for kind, fleet, subject in sorted(self.open, key=lambda key: (key[0], key[1] or "", key[2])):
            found.setdefault(kind, []).append(subject or fleet or "")
        return found

    def record_loss(self, from_offset: int, to_offset: int, at_us: int) -> DataAlertChange:
        """Report that retention removed the records in [from_offset, to_offset). `at_us`: processing time."""
        alert = self.open.get((RECORDS_LOST, None, ""))
        if alert is not None:
            alert.n_records += to_offset - from_offset
            alert.last_us = max(alert.last_us, at_us)
            return self._change(alert, is_transition=False)
        return self._open_alert((RECORDS_LOST, None, ""), from_offset, at_us, Event(0, to_offset - from_offset, ""))

    def update(
        self,
        results: Sequence[ShardResult],
        batch: RecordBatch,
        shards: Mapping[str, Shard],
        *,
        quarantined: Sequence[Quarantined] = (),
        notices: Sequence[Notice] = (),
    ) -> list[DataAlertChange]:
        """Open, count and close alerts by the records of a batch, after all of its shards."""
        times = self._clock.advance(batch, results)
        events: dict[Key, list[Event]] = {}

        def row_of(offset: int) -> int:
            return min(int(np.searchsorted(batch.offsets, offset)), len(batch) - 1)

        for result in results:
            for offset, reason in sorted(result.over_limit.items()):
                events.setdefault((ASSET_LIMIT, result.rows.fleet, ""), []).append(Event(row_of(offset), 1, reason))
        for notice in notices:
            event = Event(row_of(notice.offset), notice.n_records, notice.detail)
            events.setdefault((notice.kind, notice.fleet, notice.subject), []).append(event)
        changes: list[DataAlertChange] = []
        for finding in self._health.update(results, batch, shards, quarantined, times.log_us, self.open):
            if finding.is_over:
                changes += self._end(finding, times.time_us)
            else:
                key = (finding.kind, finding.fleet, finding.subject)
                events.setdefault(key, []).append(Event(finding.row, finding.n_records, finding.detail))
        if not events and not self.open:
            return changes
        n_open = Counter((kind, fleet) for kind, fleet, subject in self.open if subject)
        for key, found in events.items():
            kind, fleet, subject = key
            if subject and key not in self.open:
                n_open[kind, fleet] += 1
                if n_open[kind, fleet] > MAX_OPEN:  # one alert counts the rest
                    key = (kind, fleet, "")
                    found = [each._replace(detail=f"{MAX_OPEN} others are named. {each.detail}") for each in found]
            changes += self._count(key, sorted(found), batch, times.log_us, times.time_us)
        return changes + list(self._close_ended(batch, times.log_us, times.time_us))

    def _count(
        self, key: Key, events: Sequence[Event], batch: RecordBatch, log_us: Int64, time_us: Int64
    ) -> Iterator[DataAlertChange]:
        """Open an alert or count its repetitions. It closes first where it was quiet for long enough."""
        alert, n_counted = self.open.get(key), 0
        for event in events:
            if alert is not None and log_us[event.row] >= alert.closes_us:
                if n_counted:
                    yield self._change(alert, is_transition=False)
                yield self._close_alert(alert, _first_at(log_us, time_us, alert.closes_us))
                alert, n_counted = None, 0
            if alert is None:
                yield self._open_alert(key, int(batch.offsets[event.row]), int(time_us[event.row]), event)
                alert = self.open[key]
            else:
                alert.n_records += event.n_records
                alert.last_us = max(alert.last_us, int(time_us[event.row]))
                n_counted += 1
            alert.last_log_us = int(log_us[event.row])
        if alert is not None and n_counted:
            yield self._change(alert, is_transition=False)

    def _close_ended(self, batch: RecordBatch, log_us: Int64, time_us: Int64) -> Iterator[DataAlertChange]:
        """Close the alerts that were quiet for long enough, and those of fleets that were deleted."""
        for alert in list(self.open.values()):
            if alert.kind == RECORDS_LOST:
                stamps, closes_us = batch.timestamps_us, alert.last_us + KINDS[RECORDS_LOST].quiet_us
                late_enough = np.flatnonzero((stamps >= closes_us) & (stamps <= MAX_US))  # beyond: no real clock
                if len(late_enough):
                    yield self._close_alert(alert, int(stamps[late_enough[0]]))
            elif alert.fleet not in (None, *self._fleets):
                yield self._close_alert(alert, alert.last_us)
            elif log_us[-1] >= alert.closes_us:
                yield self._close_alert(alert, _first_at(log_us, time_us, alert.closes_us))

    def _end(self, finding: Finding, time_us: Int64) -> Iterator[DataAlertChange]:
        """Close the alert of an asset that is well again."""
        alert = self.open.get((finding.kind, finding.fleet, finding.subject))
        if alert is not None:
            yield self._close_alert(alert, max(alert.opened_us, int(time_us[finding.row])))

    def _open_alert(self, key: Key, from_offset: int, at_us: int, event: Event) -> DataAlertChange:
        kind, fleet, subject = key
        alert = OpenAlert(kind, fleet, from_offset, at_us, at_us, event.n_records, event.detail, subject)
        self.open[key] = alert
        return self._change(alert, is_transition=True)

    def _close_alert(self, alert: OpenAlert, at_us: int) -> DataAlertChange:
        del self.open[alert.kind, alert.fleet, alert.subject]
        return self._change(alert, is_transition=True, closed_us=at_us)

    def _change(self, alert: OpenAlert, *, is_transition: bool, closed_us: int | None = None) -> DataAlertChange:
        kind = kind_of(alert.kind)
        message = kind.text.format(
            n=f"{alert.n_records:,} record{'s' if alert.n_records != 1 else ''}",
            fleet=alert.fleet,
            subject=escape_unprintable(alert.subject) or "further assets",
            offset=alert.from_offset,
            detail=escape_unprintable(alert.detail),
        )
        return DataAlertChange(
            kind=alert.kind,
            partition=self._partition,
            fleet=alert.fleet,
            from_offset=alert.from_offset,
            opened_us=alert.opened_us,
            at_us=alert.last_us if closed_us is None else closed_us,
            state=AlertState.FIRING if closed_us is None else AlertState.CLOSED,
            severity=kind.severity,
            n_records=alert.n_records,
            message=message,
            is_transition=is_transition,
            subject=alert.subject,
        )


def log_changes(changes: Iterable[DataAlertChange]) -> None:
    """Log the transitions of committed alerts of the classes `data` and `sensor`."""
    for change in changes:
        is_sensor = change.alert_class is AlertClass.SENSOR
        name = f"sensor_{change.kind}" if is_sensor else change.kind
        facts = {"partition": str(change.partition), "windows" if is_sensor else "records": change.n_records}
        if change.subject:
            facts["subject"] = escape_unprintable(change.subject)
        if change.is_transition and change.state is AlertState.CLOSED:
            log.info(f"{name}_over", fleet=change.fleet, **facts)
        elif change.is_transition:
            log.warning(name, fleet=change.fleet, **facts, meaning=change.message)


def _first_at(log_us: Int64, time_us: Int64, at_us: int) -> int:
    """Return the time of the first record at which log time is not before `at_us`."""
    return int(time_us[min(int(np.searchsorted(log_us, at_us)), len(time_us) - 1)])
