"""Speed measurements: the pipeline against a baseline script, in the same run.

    bench         all cases in turns, each in its own process
    child         one case, in a process of its own
    workload      the readings of every case
    baseline      the baseline script, as most people write it first

Invariant: every case runs alone, and ratios compare cases of one run only.
"""
