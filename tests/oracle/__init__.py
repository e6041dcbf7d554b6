"""The oracle: an independent computation of the stored rows from the raw log.

    log.py      bytes → readings, or the reason of a rejection
    windows.py  readings → windows, fates of records, counts
    alerts.py   scores of one asset → alerts with their transitions
    evidence.py windows of an alert → its evidence
    sensors.py  findings about a sensor → alerts of class `sensor`
    registry.py events of model versions → their states, aliases and activations
    check.py    a database → a report of all differences

Invariant: nothing here imports `monitor.stream` or `monitor.decode`. The code is plain dictionaries and loops, with one
rule per statement, so that a reader can compare it with the rules by eye.
"""
