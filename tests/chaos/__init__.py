"""The nemesis: real daemons, real Kafka, real databases, and faults at random from a printed seed; the oracle judges.

    scenarios/   the ways of breaking things, by who suffers; each a function of the servers that returns Figures
    stage.py     the servers a scenario runs on, the site, its daemons; and the end of each run: wait, stop, judge
    strangers.py plain clients that join the group and leave it
    traffic.py   what is sent while things break
    nursery.py   a process that has imported everything and forks daemons: a start costs a blink, not four seconds
    receiver.py  a webhook's other end, which is not always well
    letters.py   what people had to be told, against what arrived there
    inside.py    what a forked daemon is told to observe of itself, to suffer on a signal, or to do wrong (mutations)
    wrong_clock.py   the machine's clock, jumping (libfaketime)
    proxy.py     between daemon and PostgreSQL: loses the answer to a COMMIT
    journal.py   triggers in the database that write down every move of an offset: who, when, in which transaction
    judge.py     a run's database, logs and journal against the invariants → Figures
    figures.py   what a run showed, and the table of all runs

The one law: a run counts only if what it set out to break was really broken (`Figures.vacuous`).
"""
