"""The pipeline: source → decode → window → score → decide → commit.

    pipeline     events of the source, one transaction per batch: read this first
    partition    a claimed partition: decoder, shards, recovery point
    shard        one fleet in one partition: window → score → decide
    window       readings → windows, kept in the rings of `rings`
    score        windows → anomaly scores
    alerting     scores → alert transitions
    data_alerts  alerts about records: lost, rejected, late, missing
    asset_health what the alerts about single assets go by
    log_clock    the time of these alerts
    outcome      the outcome of a batch → a commit
    readability  topics of which no record can be read
    recovery     where a restart reads again, the rebuild, the check of its result
    registrar    sensors and assets in the database
    reader       events of the source, and the wait for a dependency
    hooks        extension points for replay and benchmark

Input: records of Kafka. Output: rows of the database. Invariant: no record is lost and none has its effect twice.
"""
