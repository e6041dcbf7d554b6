"""The oracle: what the tables must hold, worked out from the raw log by someone who did not write the engine.

    log.py      bytes → readings or a reason to refuse them       (what a record means)
    windows.py  readings → windows, fates of records, counts       (what the grid means)
    alerts.py   scores of one asset → alerts with their steps      (what the alert machine means)
    check.py    a database against all of it → a report of every difference

The one law: nothing here imports the engine (`monitor.stream`), and nothing is clever. Plain dictionaries and
loops, one rule of the law per statement, so that a reader can check the oracle by eye against the law.
"""
