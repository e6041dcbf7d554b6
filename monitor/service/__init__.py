"""The daemon: its construction, and the parts that run beside the pipeline.

    daemon        builds and connects everything, runs the pipeline, drains
    shutdown      signals to stop, and the limits of a stop
    heartbeat     the daemon's row in the database, its progress in the log
    health        liveness, readiness and gauges
    gauges        metrics that are read from the database and the disks
    pages         /live, /ready and /metrics over HTTP
    watchdog      the lag of the event loop; systemd
    source_watch  missing topics, foreign members of the consumer group
    stream_health  the rules by which a whole stream is silent, read too slowly, or refused
    stream_watch  alerts about such streams
    releases      ends shelves and maintenance windows, notifies alerts that still fire
    maintenance   retention, and reports on the false-alarm budgets
    checkpoint_pruning  removes the checkpoints that the rule of `store/pruning.py` does not keep
    preflight     the checks of `monitor check`
    terms         its findings on a changed budget or sensor setting
    survey        sampled records: how they are read, their times and values
    places        places of asset and time in sampled records, suggestions for them
    advice        settings that fit a survey
    starter       the first configuration, for `monitor init`

Input: a configuration. Output: a process that runs until a signal. Invariant: no other module builds the running
objects.
"""
