"""Every figure that monitor shows of itself, declared once: name, kind, meaning, and the values a label may have.

Enters: what a batch led to, what a loop noticed. Leaves: `/metrics` (`health.py`), in Prometheus' text format; the same
table stands in deploy/README.md, and a test compares the two. The law: **no label has more values than the
configuration or this file gives it** (topics, fleets, words of ours), never an asset's or a producer's; and nothing is
counted per reading: a call costs 0.3 to 1 µs, so once a batch.

Counters begin at 0 with the process. What must survive it is counted a second time where it is exact: in the database,
`source_partition.counters`, in the transaction of the results themselves.

Importing this costs 30 ms in a daemon (70 alone): an operator's command does without.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

import monitor
from monitor.types import DataAlertChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from monitor.types import AlertChange, Counters

FREE: tuple[str, ...] = ()
"""Of a label: its values come from the configuration."""
MAX_WORDS = 40
"""Reasons of quarantine that are told apart. They are words of ours, about twenty, whatever a producer sends; should
one ever come from outside, it ends in "other" instead of filling somebody's memory."""
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric as the documentation has it."""

    name: str
    """As `/metrics` spells it; a histogram's without _bucket, _sum, _count."""
    kind: str
    """counter, gauge, histogram"""
    meaning: str
    """Begins with what is counted or measured; a unit stands at the name's end."""
    labels: tuple[str, ...]


registry = CollectorRegistry()
"""Ours alone: what else is loaded into this process adds nothing to it."""
declared: list[Declared] = []


def _counter(name: str, meaning: str, **labels: Sequence[str]) -> Counter:
    declared.append(Declared(f"monitor_{name}_total", "counter", meaning, tuple(labels)))
    made = Counter(f"monitor_{name}", meaning, tuple(labels), registry=registry)
    for values in itertools.product(*labels.values()) if labels else ():
        made.labels(*values)  # 0 is said from the beginning: a first step from nothing is no rate
    return made


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    declared.append(Declared(f"monitor_{name}", "gauge", meaning, labels))
    return Gauge(f"monitor_{name}", meaning, labels, registry=registry)


def _histogram(name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
    declared.append(Declared(f"monitor_{name}", "histogram", meaning, ()))
    return Histogram(f"monitor_{name}", meaning, buckets=buckets, registry=registry)


# ---------------------------------------------------------------- the river

records = _counter(
    "records",
    "Records saved, by what became of them; the sum over `fate` is all of them",
    fate=("accepted", "quarantined", "late", "duplicate", "tombstone"),
)
quarantined = _counter(
    "quarantined", "Entries into quarantine, by the first word of their reason; late records too", reason=FREE
)
readings = _counter("readings", "Readings taken out of records")
windows = _counter("windows", "Windows saved; unscored: without a model to judge them", state=("scored", "unscored"))
alerts = _counter(
    "alerts",
    "Steps of alerts, by the state they lead to; class `data`: of those about records instead of assets",
    **{"class": ("process", "data"), "state": ("firing", "recovering", "closed")},
)
latency_seconds = _histogram(
    "latency_seconds",
    "Seconds from Kafka's timestamp of a batch's oldest record to its results being saved",
    (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400),
)
score_seconds = _histogram(
    "score_seconds",
    "Seconds that scoring a slice of a batch took, the wait for its thread included",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
save_seconds = _histogram(
    "save_seconds",
    "Seconds that saving a batch took, waiting for a database that is away included",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
batch_in_hand_seconds = _gauge("batch_in_hand_seconds", "Seconds since the batch in hand was taken; 0 = none is")
lag_records = _gauge("lag_records", "Records between what is saved and the log's end", "topic", "partition")
watermark_timestamp_seconds = _gauge(
    "watermark_timestamp_seconds",
    "Event time that the fleet has reached, of its partition that is furthest; its age is `time() -` this",
    "fleet",
)
assets = _gauge("assets", "Assets known in the partitions that are ours", "fleet")

# ---------------------------------------------------------------- nothing lost, nothing doubled

partitions = _gauge("partitions", "Partitions that are ours")
partitions_rebuilding = _gauge("partitions_rebuilding", "Partitions of ours that still read again what was saved")
claims = _counter("claims", "Partitions claimed, each under a new epoch")
fenced = _counter("fenced", "Times that a partition turned out to be another daemon's")
rebuilt_records = _counter("rebuilt_records", "Records read again to fill unfinished windows")
digest_mismatches = _counter("digest_mismatches", "Rebuilt partitions that differ from what was saved; a defect")
gaps = _counter("gaps", "Gaps stepped over: records that Kafka had deleted before they were read")
gap_records = _counter("gap_records", "Offsets in these gaps; lost")
commits_found_done = _counter(
    "commits_found_done", "Transactions whose answer was lost and that turned out to be committed"
)
consumers_replaced = _counter("consumers_replaced", "Kafka consumers given up and built anew")

# ---------------------------------------------------------------- models and people

champion_trained_timestamp_seconds = _gauge(
    "champion_trained_timestamp_seconds",
    "When the version that decides was trained; its age is `time() -` this",
    "fleet",
)
rescored_batches = _counter("rescored_batches", "Batches scored again: another daemon activated a version meanwhile")
trainings_running = _gauge("trainings_running", "Trainings under way")
trainings = _counter("trainings", "Trainings ended, by how", outcome=("done", "failed"))
notifications = _counter(
    "notifications",
    "Attempts to tell somebody; failed: will be tried again, given_up: will not",
    outcome=("delivered", "failed", "given_up"),
)

# ---------------------------------------------------------------- the process

live = _gauge("live", "1 = /live answers 200")
ready = _gauge("ready", "1 = /ready answers 200")
loop_lag_seconds = _gauge("loop_lag_seconds", "Seconds that the event loop came late, at worst within the last minute")
loop_blocked = _counter("loop_blocked", "Times that the event loop stood still for more than five seconds")
build_info = _gauge("build_info", "1; `version` is this program's", "version")
build_info.labels(monitor.__version__).set(1)
ProcessCollector(registry=registry)
# What the library declares of every Linux process; its words, in ours.
declared += [
    Declared("process_resident_memory_bytes", "gauge", "Memory in use, bytes", ()),
    Declared("process_virtual_memory_bytes", "gauge", "Memory mapped, bytes; large with PyTorch, and harmless", ()),
    Declared("process_cpu_seconds_total", "counter", "Seconds of CPU used, trainings not included", ()),
    Declared("process_start_time_seconds", "gauge", "When the process started", ()),
    Declared("process_open_fds", "gauge", "File descriptors open", ()),
    Declared("process_max_fds", "gauge", "File descriptors allowed", ()),
]

# ---------------------------------------------------------------- a batch at once

_words: set[str] = {OTHER}


def count_saved(
    counters: Counters,
    changes: Iterable[AlertChange | DataAlertChange] = (),
    *,
    took_s: float = 0.0,
    latency_s: float | None = None,
) -> None:
    """Count what one committed batch led to: the same figures as its transaction added to the database's."""
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
    """Count steps of alerts that are committed."""
    for change in changes:
        if change.is_transition:
            alerts.labels("data" if isinstance(change, DataAlertChange) else "process", change.state.value).inc()


def _bounded(word: str) -> str:
    if word not in _words:
        if len(_words) >= MAX_WORDS or not re.fullmatch("[a-z][a-z0-9_]{0,31}", word):
            return OTHER
        _words.add(word)
    return word
