"""monitor: a streaming sensor anomaly monitor. Kafka in, autoencoder scores and calibrated alerts out, exactly once.

The river, in the order a record takes (`monitor.stream`; read `pipeline.py` first):

    source     a partition's records, from any offset
    decode     bytes → columns of readings; what cannot be read goes to quarantine with a reason
    window     readings → windows of event time, whatever the order they came in
    score      windows → anomaly scores, 1.0 = the threshold, and each sensor's share
    decide     scores → alerts: pending, firing, recovering, closed
    save       all of it and the offset, in one transaction

Who serves it:

    models     the networks, their scaling and calibration, checkpoints; knows nothing of Kafka or SQL
    training   windows from history, the recipe, a process of its own; who decides now and who comes next
    store      rows: the only place with SQL; SQLite or PostgreSQL
    registry   which model version decides from when on
    notify     who is told of alerts, at least once: the outbox's letters to webhooks
    lease      what only one of several daemons does at a time
    budget     the false alarms that were promised, as arithmetic: bounds, and whether the promise is kept
    control    what an operator may do
    evaluation replay, labelled recordings, benchmark
    broker     the embedded Kafka-compatible broker of the demo
    config     monitor.toml, typed; every problem reported at once
    upkeep     what must be done now and then: old rows go, promises are looked at
    metrics    every figure that monitor shows of itself, declared once
    health     /live, /ready and /metrics; the watchdog of the event loop beside it
    daemon     the only place that builds things; demo and preflight beside it
    cli        parse, call one function, print

Imports point down: cli › demo › daemon › health › evaluation › control, training › stream, notify › registry ›
store, models › budget › config, metrics › types › errors. CI checks this map.
"""

__version__ = "0.1.0"
