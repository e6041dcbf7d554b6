"""The metrics of monitor, each declared once: name, kind, meaning, and the values of its labels.

Input: results of committed batches, events of the daemon's loops. Output: `/metrics` (`service/health.py`) in
Prometheus' text format. deploy/README.md holds the same table, and a test compares the two. Invariant: **a label takes
its values from the configuration or from this file** (topics, fleets, fixed words), never from an asset or a producer.
Counts are made once per batch, not per reading: a call takes 0.3 to 1 µs.

Counters start at 0 with the process. Counts that must survive it are also kept in the database, exactly:
`source_partition.counters` is part of the transaction of the results.

The import takes 30 ms in a daemon (70 ms alone), which operators' commands save.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

import monitor
from monitor.types import Act, AlertClass, DataAlertChange, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from monitor.types import AlertChange, Counters

FREE: tuple[str, ...] = ()
"""A label with values from the configuration."""
MAX_WORDS = 40
"""Quarantine reasons with a time series of their own. monitor has about twenty fixed words. Should one ever come from a
producer, the limit keeps it from filling the memory: further words count as "other"."""
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric as it is documented."""

    name: str
    """As on `/metrics`; of a histogram without _bucket, _sum and _count."""
    kind: str
    """counter, gauge, histogram"""
    meaning: str
    """A sentence that begins with the thing counted or measured. The unit is at the end of the name."""
    labels: tuple[str, ...]


registry = CollectorRegistry()
"""A registry of monitor's own: libraries in this process add nothing to it."""
declared: list[Declared] = []


def _counter(name: str, meaning: str, **labels: Sequence[str]) -> Counter:
    declared.append(Declared(f"monitor_{name}_total", "counter", meaning, tuple(labels)))
    made = Counter(f"monitor_{name}", meaning, tuple(labels), registry=registry)
    for values in itertools.product(*labels.values()) if labels else ():
        made.labels(*values)  # exported as 0 from the start: the first step of a new series has no rate
    return made


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    declared.append(Declared(f"monitor_{name}", "gauge", meaning, labels))
    return Gauge(f"monitor_{name}", meaning, labels, registry=registry)


def _histogram(name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
    declared.append(Declared(f"monitor_{name}", "histogram", meaning, labels))
    return Histogram(f"monitor_{name}", meaning, labels, buckets=buckets, registry=registry)


# ---------------------------------------------------------------- the pipeline

records = _counter(
    "records",
    "Records saved, by their fate; the sum over `fate` is all of them",
    fate=("accepted", "quarantined", "late", "duplicate", "tombstone"),
)
quarantined = _counter(
    "quarantined", "Entries in quarantine, by the first word of their reason; late records included", reason=FREE
)
readings = _counter("readings", "Readings decoded from records")
windows = _counter("windows", "Windows saved; unscored: without a score", state=("scored", "unscored"))
alerts = _counter(
    "alerts",
    "Steps of alerts, by their new state; class `sensor`: about sensors of assets; class `data`: about records",
    **{"class": ("process", "sensor", "data"), "state": ("firing", "recovering", "closed")},
)
latency_seconds = _histogram(
    "latency_seconds",
    "Seconds from Kafka's timestamp of a batch's oldest record to the commit of its results",
    (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400),
)
score_seconds = _histogram(
    "score_seconds",
    "Seconds to score a slice of a batch, including the wait for the scoring thread",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
save_seconds = _histogram(
    "save_seconds",
    "Seconds to save a batch, including the wait for an unavailable database",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
batch_in_hand_seconds = _gauge("batch_in_hand_seconds", "Seconds since the batch in hand was taken; 0 = there is none")
lag_records = _gauge("lag_records", "Records between the last saved one and the end of the log", "topic", "partition")
watermark_timestamp_seconds = _gauge(
    "watermark_timestamp_seconds",
    "Event time of the fleet's newest reading that is not in the future; its age is `time() -` this",
    "fleet",
)
assets = _gauge("assets", "Assets known in the partitions that this daemon owns", "fleet")

# ---------------------------------------------------------------- exactly once

partitions = _gauge("partitions", "Partitions that this daemon owns")
partitions_rebuilding = _gauge("partitions_rebuilding", "Owned partitions that still read saved records again")
claims = _counter("claims", "Partitions claimed, each under a new epoch")
fenced = _counter("fenced", "Times that another daemon had taken a partition over")
rebuilt_records = _counter("rebuilt_records", "Records read again to fill unfinished windows")
digest_mismatches = _counter("digest_mismatches", "Rebuilt partitions that differ from their saved digest; a defect")
gaps = _counter("gaps", "Gaps skipped: records that Kafka had deleted before they were read")
gap_records = _counter("gap_records", "Offsets in these gaps, lost")
commits_found_done = _counter("commits_found_done", "Transactions found committed after their answer was lost")
topics_missing = _gauge("topics_missing", "Configured topics that the broker does not have")
foreign_members = _gauge("foreign_members", "Members of the consumer group that are no daemons of this database")
consumers_replaced = _counter("consumers_replaced", "Kafka consumers replaced after they had stalled or failed")

# ---------------------------------------------------------------- models and notifications

champion_trained_timestamp_seconds = _gauge(
    "champion_trained_timestamp_seconds",
    "Time at which the champion was trained; its age is `time() -` this",
    "fleet",
)
rescored_batches = _counter("rescored_batches", "Batches scored again: another daemon activated a version meanwhile")
trainings_running = _gauge("trainings_running", "Trainings that run now")
trainings = _counter("trainings", "Trainings ended, by their outcome", outcome=("done", "failed"))
drill_minimum_detectable_size = _gauge(
    "drill_minimum_detectable_size",
    "Smallest injected fault that is detected in 90 % of the copies, of the median sensor: in spreads of the sensor, "
    "a lag in rows; +Inf = not at any size",
    "fleet",
    "kind",
)
drill_recall_ratio = _gauge(
    "drill_recall_ratio", "Share of injected faults that are detected, at 4 spreads or a quarter of a window",
    "fleet",
    "kind",
)  # fmt: skip
drill_delay_seconds = _gauge(
    "drill_delay_seconds", "Median time from an injected fault to its alert, in event time", "fleet", "kind"
)
drill_failed = _gauge("drill_failed", "1 = the last drill of the fleet found a problem", "fleet")
drill_timestamp_seconds = _gauge(
    "drill_timestamp_seconds", "Time of the last drill of the fleet; its age is `time() -` this", "fleet"
)
training_progress_ratio = _gauge(
    "training_progress_ratio", "Progress of the fleet's training, drill or comparison; 0 while none runs", "fleet"
)
training_eta_seconds = _gauge("training_eta_seconds", "Time left of it, estimated; 0 while none runs", "fleet")
gate_verdicts = _counter(
    "gate_verdicts", "Versions judged by the gate, by their outcome", outcome=("passed", "refused")
)
drift_ratio = _gauge("drift_ratio", "Test for drift of the champion's scores; from 1 on the fleet retrains", "fleet")
input_drift_ratio = _gauge(
    "input_drift_ratio", "Test for drift of readings, of the last drill; from 1 on the fleet retrains", "fleet"
)
challenger_present = _gauge("challenger_present", "1 while a version of the fleet waits for a decision", "fleet")
notifications = _counter(
    "notifications",
    "Attempts to deliver a notification; failed: to be repeated, given_up: not to be",
    outcome=("delivered", "failed", "given_up"),
)
channel_notifications = _counter(
    "channel_notifications",
    "The same by channel: attempts to deliver a notification, by their outcome",
    channel=FREE,
    outcome=("delivered", "failed", "given_up"),
)
notifications_waiting = _gauge("notifications_waiting", "Notifications that wait to be sent", "channel")
notification_seconds = _histogram(
    "notification_seconds",
    "Seconds from the commit that wrote a notification to its delivery",
    (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600, 14400, 86400),
    "channel",
)

champion_present = _gauge("champion_present", "1 = the fleet has a champion", "fleet")

# ---------------------------------------------------------------- alerts, budgets and disks, from the database

CLASSES = tuple(AlertClass)
SEVERITIES = tuple(Severity)
ANSWERS = ("unanswered", "acknowledged", "suppressed")
ACTS = tuple(Act)
alerts_open = _gauge(
    "alerts_open",
    "Alerts that are open, by their answer; suppressed: by a shelf or by maintenance",
    "class",
    "severity",
    "answer",
)
acts = _gauge("acts", "Acts in the history of alerts, by kind: acknowledgements, labels, shelves and others", "act")
window_timestamp_seconds = _gauge(
    "window_timestamp_seconds",
    "Event time of the end of the fleet's newest saved window; `monitor_watermark_timestamp_seconds -` this is its lag",
    "fleet",
)
budget_burn_ratio = _gauge(
    "budget_burn_ratio", "False alarms of the last four weeks over those that the budget allows; 1 = all of it", "fleet"
)
budget_violated = _gauge("budget_violated", "1 = alarms came faster than the budget allows, not by chance", "fleet")
real_alerts_ratio_at_least = _gauge(
    "real_alerts_ratio_at_least",
    "Share of real alerts among those that were ever judged, at least (95 %, at any time); 0 = nothing is known",
    "fleet",
)
disk_free_bytes = _gauge("disk_free_bytes", "Free bytes of the disk of the database or the checkpoints", "place")
disk_size_bytes = _gauge("disk_size_bytes", "Size of that disk, bytes", "place")

# ---------------------------------------------------------------- the process

live = _gauge("live", "1 = /live answers 200")
ready = _gauge("ready", "1 = /ready answers 200")
loop_lag_seconds = _gauge("loop_lag_seconds", "Largest delay of the event loop within the last minute, seconds")
loop_blocked = _counter("loop_blocked", "Times that the event loop was blocked for more than five seconds")
build_info = _gauge("build_info", "Always 1; `version` is monitor's", "version")
build_info.labels(monitor.__version__).set(1)
ProcessCollector(registry=registry)
# The library's own metrics of a Linux process, with the meanings that the documentation gives.
declared += [
    Declared("process_resident_memory_bytes", "gauge", "Memory in use, bytes", ()),
    Declared("process_virtual_memory_bytes", "gauge", "Memory mapped, bytes; large with PyTorch, and harmless", ()),
    Declared("process_cpu_seconds_total", "counter", "Seconds of CPU used, trainings not included", ()),
    Declared("process_start_time_seconds", "gauge", "When the process started", ()),
    Declared("process_open_fds", "gauge", "File descriptors open", ()),
    Declared("process_max_fds", "gauge", "File descriptors allowed", ()),
]

# ---------------------------------------------------------------- counting

_words: set[str] = {OTHER}


def count_saved(
    counters: Counters,
    changes: Iterable[AlertChange | DataAlertChange] = (),
    *,
    took_s: float = 0.0,
    latency_s: float | None = None,
) -> None:
    """Count the results of one committed batch: the same figures that its transaction added to the database."""
    save_seconds.observe(took_s)
    if latency_s is not None:
        latency_seconds.observe(latency_s)
    for fate, n in (
        ("accepted", counters.accepted),
        ("quarantined", counters.quarantined),
        ("late", counters.late),
        ("duplicate", counters.duplicate),
        ("tombstone", counters.tombstones),
    ):
        records.labels(fate).inc(n)
    readings.inc(counters.readings)
    windows.labels("scored").inc(counters.scored)
    windows.labels("unscored").inc(counters.windows - counters.scored)
    for word, n in counters.reasons.items():
        quarantined.labels(_bounded(word)).inc(n)
    count_alerts(changes)


def count_alerts(changes: Iterable[AlertChange | DataAlertChange]) -> None:
    """Count committed steps of alerts."""
    for change in changes:
        if change.is_transition:
            of_class = change.alert_class if isinstance(change, DataAlertChange) else AlertClass.PROCESS
            alerts.labels(of_class.value, change.state.value).inc()


def _bounded(word: str) -> str:
    if word not in _words:
        if len(_words) >= MAX_WORDS or not re.fullmatch("[a-z][a-z0-9_]{0,31}", word):
            return OTHER
        _words.add(word)
    return word
