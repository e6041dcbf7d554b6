"""A world in which everything goes wrong, from one seed: the real engine over a fake broker and a fake database.

    clockwork.py   an event loop whose time is a number, and processes that freeze and die
    broker.py      partition logs, a consumer group that reassigns at any moment, a client with stale batches in hand
    database.py    the store's functions in plain Python: atomic, linearizable, and failing before or after the fact
    world.py       a seed → a plant, a weather, replicas and their fates; runs until all is quiet
    judge.py       what is in the tables against the oracle, and what must never have happened on the way
    mutations.py   the protocol with one rule taken out: each must be caught

    python -m tests.simulation --seeds 10000 --start 0 --jobs 2

The one law: same seed, same run, to the last call. No thread, no socket, no file, no wall clock. What is real is
`monitor.stream` (pipeline, lane, decode, window, decide, save); what is not real here (SQL, Kafka, torch) is tested
against the real thing elsewhere, and that the fake database answers like SQLite is a test of its own.
"""
