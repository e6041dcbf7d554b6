"""Speed measurements: the pipeline against a baseline script, in the same run.

    bench         all cases in turn, each in its own process
    child         the process of one case
    workload      the readings of every case
    baseline      the baseline script, as most people write it first

Invariant: each case runs alone, and ratios compare cases of one run only.
"""
