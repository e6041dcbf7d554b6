"""Simulated runs with many faults, from one seed: the real pipeline and store over a simulated broker.

    clockwork.py    an event loop with simulated time, and processes that are suspended and killed
    broker.py       partition logs, a consumer group with frequent rebalances, members that notice them late
    store.py        the real store functions on SQLite in memory, with calls that fail before or after the fact
    tables.py       the stored rows at the end of a run
    scenario.py     fleets and logs of a run
    fault_plan.py   the faults of a run
    simulation.py   a seed → scenario, faults and replicas. It runs until all records are processed
    verify.py       the stored rows compared with the oracle, and the events that must never occur
    mutations.py    the protocol with one rule removed. Each mutation must be noticed

    python -m tests.simulation --seeds 10000 --start 0 --jobs 2

Invariant: same seed, same run, to the last call. No thread, no socket, no file, no wall clock. `monitor.stream`,
`monitor.decode`, `monitor.store` and `monitor.lifecycle.champions` are real. Kafka, PostgreSQL and torch are not:
integration tests cover them.
"""
