"""Evaluation on labelled recordings.

    evaluate      labelled recordings × methods, over several processes, and their means
    recordings    files → the part to learn from, the part to replay, and the labels
    series        a file → rows on a grid: the healthy head, the rest, the labels apart
    methods       a method's name → a score for every row behind the head
    assess        scores and labels → ranking and alert metrics
    metrics       VUS-PR and the other ranking metrics
    compare       alerts against labelled events
    policy        other alert parameters over stored scores
    result_cache  finished scores in a folder
    report/       all of it as one page

Invariant: no label is visible to anything that learns or scores.
"""
