"""Rows. The only place that speaks SQL; everything above it speaks of partitions, assets, alerts and jobs.

    url.py            what `[store].url` names: a SQLite file or a PostgreSQL database
    tables.py         every table, once; times are integer µs
    engine.py         the daemon's door: one function, one transaction; over sqlite.py or postgresql.py
    failures.py       what a driver complains about → which of our errors
    schema.py         migrations/: upgrade, current revision, check
    partitions.py     claim and save: the protocol that loses nothing and doubles nothing. Read this first
    scores.py alerts.py assets.py quarantine.py jobs.py versions.py daemons.py leases.py outbox.py   one noun each
    bulk.py           many rows at once
    reader.py         the operator's door: read-only, open within milliseconds
    queries/          what operators ask, as textual SQL that both databases understand

Law: a function that takes a `Connection` never begins or ends a transaction; its caller does, once.
"""
