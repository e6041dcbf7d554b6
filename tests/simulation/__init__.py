"""A simulation in which everything goes wrong, from one seed: the real pipeline and store over a fake broker.

    clockwork.py   an event loop whose time is a number, and processes that freeze and die
    broker.py      partition logs, a consumer group that reassigns at any moment, a client with stale batches in hand
    store.py       the real store functions on SQLite in memory, with calls that fail before or after the fact
    tables.py      the stored rows at the end of a run
    simulation.py       a seed → a plant, a weather, replicas and their fates; runs until all is quiet
    judge.py       what is in the tables against the oracle, and what must never have happened on the way
    mutations.py   the protocol with one rule taken out: each must be caught

    python -m tests.simulation --seeds 10000 --start 0 --jobs 2

The one law: same seed, same run, to the last call. No thread, no socket, no file, no wall clock. What is real is
`monitor.stream`, `monitor.decode`, `monitor.store` and `monitor.lifecycle.champions`. Kafka, PostgreSQL and torch are
not: integration tests cover them.
"""
