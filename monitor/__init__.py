"""monitor: a streaming sensor anomaly monitor. It reads Kafka, scores windows with autoencoders and other models, and
raises alerts.

As a library, `from monitor import Detector` trains on frames and scores them (`api.py`). The rest is the daemon.

The stages of the pipeline, with one committed transaction per batch. Read `stream/pipeline.py` first.

    source     a partition's records from a given offset (`kafka/`)
    decode     bytes → readings. An unreadable record goes to quarantine with a reason (`decode/`)
    window     readings → windows of event time, in any order of arrival (`stream/window.py`)
    score      windows → anomaly scores, 1.0 = the threshold, with each sensor's contribution (`stream/score.py`);
               a sensor that fails a test of its own is left out (`stream/sensor_health.py`)
    decide     scores → alerts: pending, firing, recovering, closed (`stream/alerting.py`)
    commit     scores, alerts, notifications, quarantine and the next offset, in one transaction (`store/`)
    notify     the outbox → webhooks, at least once (`notify/`)

The packages and modules, which import only from the lines below their own:

    cli          the commands: parse, call one function, print
    demo         the demonstration on a public recording
    benchmark    speed, against a baseline script
    service      the daemon: construction, health pages, watchdog, maintenance, preflight check
    replay       the pipeline over old records: offsets, versions side by side, differences
    lifecycle    the model version that scores: champions, retrainings, the training process
    api          the library: a detector for frames in memory
    evaluation   labelled recordings: methods, metrics, comparison, reports
    training     dataset, split, loop, calibration and receipt of a new version; no I/O but the checkpoint
    notify       delivery of notifications and its channels
    stream       the pipeline: partitions, shards, windows, scores, alerts, recovery
    control      the operations that an operator may perform
    store        the only package with SQL: schema, migrations, a file per noun; SQLite and PostgreSQL
    kafka        client, consumer group, log reader, authentication, embedded broker
    models       one architecture per file, ensemble, scaling, calibration, checkpoints; without Kafka and SQL
    recordings   CSV and Parquet files as readings
    decode       wire formats, mapping to sensors, timestamps, admission of assets
    budget       arithmetic of the false-alarm budget: bounds, and its status
    alert_health arithmetic of alarm health: rates, floods, chattering, precision
    config       monitor.toml as one typed tree; all problems are reported at once
    retry        repeats a call during an outage
    links        signed links in notifications
    metrics      the declarations of all Prometheus metrics
    logs         structured logging
    clock        processing time as an argument
    signals      recognition of missing-value codes, counters and angles in a column
    timing       all waiting, grace and stop times of the daemon
    types        the data types that packages exchange
    errors       the error tree, grouped by the reaction

import-linter checks the layers (pyproject.toml), and that each library stays in its package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monitor.api import DetectedAlert, Detector, Explanation

__all__ = ["DetectedAlert", "Detector", "Explanation", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the library at its first use: the command line needs neither NumPy nor torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from monitor import api

    return getattr(api, name)
