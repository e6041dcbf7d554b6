"""Chaos tests: real daemons, Kafka and databases, random faults from a printed seed, results verified by the oracle.

    scenarios/         one function per kind of fault; it takes the servers and returns Figures
    environment.py     the servers of a scenario, its deployment and daemons, and the end of each run
    group_members.py   plain consumers that join the group and leave it
    traffic.py         the records that are sent during the faults
    fork_server.py     a process that has imported all modules and forks daemons, to save four seconds per start
    receiver.py        the server that receives webhooks, and sometimes fails
    notifications.py   the notifications that alerts require, compared with those that arrived
    hooks.py           observers, faults on a signal and defects (mutant.py) inside a forked daemon
    wrong_clock.py     jumps of the machine's clock (libfaketime)
    proxy.py           a relay between daemon and PostgreSQL that loses the answer to a COMMIT
    journal.py         database triggers that record each change of an offset: owner, time, transaction
    verify.py          the invariants, checked on database, logs and journal → Figures
    figures.py         the results of a run, and the table of all runs

Invariant: a run counts only if the faults that it is for occurred (`Figures.vacuous`).
"""
