"""What a configuration, a model or this program is worth: the river over old records, and how fast it flows.

    replay.py       the river over what lies in Kafka, into a scratch database
    replay_files.py  the same over recordings, which may bring their own healthy head to learn from
    flow.py         the river over a log that is there already
    versions.py     which version decides there
    reach.py        how much of Kafka is read: all, or what a live run has consumed, and whether it led to the same
    twin.py         two sides in that river: read once, decided twice
    diff.py         what the second side would have done otherwise
    recordings.py   files → the part to learn from, the part to replay, and the labels that nobody learns from
    compare.py      alerts against labelled events
    digest.py       stored results → one word that is equal for equal results
    publish.py      recordings → the configured topic, as a plant would send them

    evaluate.py     labelled recordings × methods, over several processes, and their means
    series.py       a file → rows on a grid: the healthy head, the rest, the labels apart
    methods.py      a method's name → a score for every row behind the head
    judge.py        scores and labels → figures; by the river's own `decide`, alerts against events
    metrics.py      VUS-PR and the other figures
    policy.py       other alert parameters over scores that are already there
    kept.py         finished scores in a folder
    report/         all of it as one page

    bench.py        speed only: the river against the usual script, each case in its own process
    bench_child.py  one case, in a process of its own
    bench_input.py  the readings that it is given
    usual.py        the usual script: what most people write first

Law: nothing here changes a live table, and no label is seen by anything that learns or scores.
"""
