"""The pipeline over old records, into a scratch database.

    topic         the records that Kafka holds
    files         recordings, which may bring their own healthy head to learn from
    flow          the pipeline over a finite log
    versions      the model versions that decide in a replay
    offsets       the range to read: all, or what a live run has consumed, and whether it led to the same results
    side_by_side  two decisions over records that are read once
    diff          differences between the alerts of the two
    digest        stored results → one hash that is equal for equal results
    publish       recordings → the configured topic, as a plant would send them

Invariant: no live table changes.
"""
