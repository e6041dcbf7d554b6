"""Evaluation on labelled recordings.

    evaluate      every series by every method, over several processes
    plan          the files, methods and settings of an evaluation, checked
    results       results of the evaluation, their means, and the results under other alert parameters
    series        a file → rows on a grid: the healthy head, the rest, and the labels as a separate field
    methods       a method's name → an anomaly score for every row behind the head
    yardsticks    simple detectors to beat, written apart from `models`
    differences   the default against every other method, with paired bootstrap intervals
    assess        scores and labels → ranking and alert metrics
    explained     sensors blamed for faults injected into quiet windows
    metrics       VUS-PR and the other ranking metrics
    compare       alerts against labelled events, and alerts of two deciders against each other
    policy        other alert parameters over stored scores
    result_cache  finished scores in a folder
    closeness     distances of synthetic windows to real ones
    plots         a series and its scores → SVG paths
    report/       all results as one HTML page

Invariant: no label is visible to code that trains or scores.
"""
