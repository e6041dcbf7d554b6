"""The database: every table, and the only code that contains SQL.

    url.py              `[store].url` → a SQLite file or a PostgreSQL database
    tables.py           the tables, with times in integer µs
    schema.py           upgrade, downgrade and check of the schema revision (migrations/)
    engine.py           `AsyncStore`: one call, one transaction, over sqlite.py or postgresql.py
    error_mapping.py    a driver's error → one of monitor's errors
    partitions.py       claim and commit: exactly-once processing of a partition. Read this first
    commit.py           the data of one commit
    scores.py alerts.py assets.py quarantine.py jobs.py versions.py daemons.py leases.py    one noun each
    registry.py         publish, promote and roll back versions, with aliases and a history
    pruning.py          which checkpoints are kept
    outbox/             notifications: written in a commit, sent under a lease
    links.py            the key of the links in notifications, and the used ones
    tokens.py           tokens of the console
    lease_renewal.py    a lease that is acquired and renewed in a loop
    bulk.py             inserts of many rows
    burn.py             the burn of a fleet's false-alarm budget
    results.py offsets.py    results and offsets of a run, for comparing runs
    reader.py           the operators' read-only connection, open within milliseconds
    queries/            the operators' questions, as SQL that both databases understand

Invariant: a function that takes a `Connection` never begins or ends a transaction. Its caller does, once.
"""
