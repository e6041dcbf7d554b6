"""The waiting, grace and stop times of the daemon, in seconds.

Input: nothing. They are engineering constants. Settings, which depend on the plant, are in monitor.toml. Output: one
frozen object that every package takes as a constructor argument, with `DEFAULT_TIMING` as the default. A test passes
`replace(DEFAULT_TIMING, …)`. Invariant: `stop_limit_s` is below the 10 s that container runtimes allow between SIGTERM
and SIGKILL.
"""

from __future__ import annotations

from dataclasses import dataclass

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Durations. `_every_s` is a period, `_limit_s` and `_grace_s` end a wait, `_after_s` starts an action."""

    # ---------------------------------------------------------------- start and stop

    start_retry_s: float = 2.0
    """Between two attempts to reach the database, the broker or a checkpoint before the first record."""
    drain_limit_s: float = 3.0
    """For the batch in hand after the signal to stop. Later it is abandoned, and read again at the next start."""
    deregister_limit_s: float = 0.5
    """For the last transaction of a stop. A row that stays counts as dead once its heartbeat is old."""
    stop_limit_s: float = 9.0
    """From the signal to a forced exit, should anything hang. The next start reads the committed state."""

    # ---------------------------------------------------------------- heartbeat, health and maintenance

    heartbeat_every_s: float = 2.0
    """Between two updates of the daemon's row; also the check that the database answers."""
    progress_every_s: float = 30.0
    """Between two `progress` lines in the log."""
    loop_turn_every_s: float = 0.5
    """Between two timestamps of the event loop, and between two checks of the watchdog thread."""
    loop_blocked_after_s: float = 5.0
    """Silence of the event loop that is logged with its stack."""
    process_stalled_after_s: float = 3.0
    """Delay of the watchdog thread itself that shows a process without CPU. Nothing blocks the loop then."""
    loop_lag_window_s: float = 60.0
    """Over which the worst lag of the event loop is reported."""
    loop_dead_after_s: float = 30.0
    """Silence of the event loop after which /live fails. Kafka has given the partitions to other daemons by then."""
    database_silent_after_s: float = 10.0
    """Silence of the database after which /ready fails: five missed heartbeats."""
    batch_stuck_after_s: float = 60.0
    """Age of the batch in hand after which /ready fails. A batch takes this long only when something is stuck."""
    http_request_limit_s: float = 5.0
    """For a whole HTTP request, also one that arrives byte by byte."""
    gauges_every_s: float = 30.0
    """Between two readings of the database for gauges."""
    maintenance_every_s: float = 600.0
    """Between two rounds of pruning and budget reports."""
    budget_reminder_every_s: float = DAY_S
    """Between two warnings about the same violated budget."""
    sweep_every_s: float = DAY_S
    """Between two scans of the scores of the fleet that is furthest behind: they may be many, kept for years."""
    daemon_forgotten_after_s: float = DAY_S
    """Silence of a daemon after which its row is deleted. It counts as dead long before."""

    # ---------------------------------------------------------------- pipeline

    batch_retry_s: float = 0.5
    """Between two attempts with the batch in hand. The consumer is polled at this pace and so stays in its group."""
    fenced_wait_s: float = 6.0
    """Two heartbeats to Kafka: time for the group to say which daemon has the partition."""
    lag_commit_every_s: float = 1.0
    """Between two commits of offsets to Kafka, which are only markers of the lag."""
    sensors_read_every_s: float = 30.0
    """Between two looks into the database for sensors that a training has added."""
    rewind_look_every_s: float = 2.0
    """Between two searches for the rewind offset. Each goes through all unfinished windows."""
    checkpoint_retry_s: float = 5.0
    """Between two attempts to read a damaged checkpoint while windows need it."""

    # ---------------------------------------------------------------- model versions and training

    activations_every_s: float = 2.0
    """Between two queries for versions that other daemons activated. A commit in between is refused and repeated."""
    activation_retry_s: float = 0.5
    """Between two attempts to store an activation, or the end of a job."""
    champion_reload_every_s: float = 30.0
    """Between two attempts to read the checkpoint of a champion that could not be read."""
    jobs_every_s: float = 0.5
    """Between two queries for requested retrainings."""
    due_every_s: float = 5.0
    """Between two looks at schedules, drift and challengers."""
    jobs_error_wait_s: float = 5.0
    """After an error of the training loop itself."""
    training_retry_first_s: float = 60.0
    """After the first failed training of a fleet; doubled after each further one."""
    training_retry_longest_s: float = HOUR_S
    """At most, between two trainings of a fleet that fail."""
    first_training_grace_s: float = 3.0
    """At the start, for another daemon to announce that it trains the first model."""
    job_end_limit_s: float = 0.5
    """For the transaction that fails the job of a training that a stop interrupts. Else the next start fails it."""

    # ---------------------------------------------------------------- notifications

    releases_every_s: float = 0.5
    """Between two looks for shelves and maintenance windows that are over. An operator's act counts at once."""
    outbox_every_s: float = 1.0
    """Between two queries of the outbox, and between two attempts to store an outcome."""
    notification_retry_first_s: float = 1.0
    """After the first failed attempt of a notification; doubled after each further one, less a random part."""
    channel_retry_longest_s: float = 10.0
    """At most, between two attempts of a channel that fails, however many notifications wait."""
    notification_failed_after_s: float = 3 * DAY_S
    """Age at which a notification that fails is given up."""
    notification_refused_after_s: float = DAY_S
    """The same where it is refused twice in a row (4xx, a redirect, a forbidden address): time to correct a token."""
    notification_tried_for_s: float = HOUR_S
    """Of failing attempts in one process before a notification of that age is given up: a clock may have jumped."""
    outbox_prune_every_s: float = HOUR_S
    """Between two deletions of old notifications."""
    outbox_keep_s: float = 7 * DAY_S
    """For which notifications are kept once they are delivered or given up."""
    outbox_count_every_s: float = 15.0
    """Between two counts of waiting notifications, for the metrics."""
    digest_after_s: float = 600.0
    """Age of a waiting notification that shows an outage of its channel. People then get one digest of all."""
    alerts_repeat_s: float = 60.0
    """Between two posts of the firing alerts to Alertmanager, which takes an alert for resolved after five minutes."""
    kafka_notification_limit_s: float = 10.0
    """For one notification to a topic, including the connection."""
    apprise_limit_s: float = 20.0
    """For one message through Apprise: a mail server may be slow."""
    webhook_limit_s: float = 5.0
    """For everything in one attempt: name, connection, TLS, request and answer."""
    notification_grace_s: float = 1.0
    """During a stop, for the attempt in hand, so that its outcome is stored."""

    # ---------------------------------------------------------------- database

    cancel_grace_s: float = 5.0
    """For a transaction after its caller was cancelled, or while the store closes."""
    stopping_grace_s: float = 0.5
    """The same during a stop: a hanging database must not delay it. The next compare-and-set finds the outcome."""
    hanging_grace_s: float = 0.05
    """The same after one transaction has hung: the others of the stop would hang as well."""
    idle_thread_grace_s: float = 0.2
    """For an idle SQLite thread to end after its pool was closed."""
    lease_ttl_s: float = 15.0
    """After the death of its holder, until another daemon takes the lease."""
    lease_renew_every_s: float = 5.0
    """Between two renewals: two may fail before the lease runs out."""
    lease_release_limit_s: float = 0.5
    """For giving a lease back during a stop. Else it runs out by itself."""

    # ---------------------------------------------------------------- Kafka

    poll_limit_s: float = 0.2
    """For one poll without records: how fast a stop is noticed."""
    ping_after_s: float = 5.0
    """Silence after which the broker is pinged."""
    refused_after_s: float = 120.0
    """Within which three refusals count as final."""
    damaged_batch_wait_s: float = 10.0
    """Before a batch with a wrong checksum is fetched again. The records behind it wait as long."""
    consumer_stalled_after_s: float = 30.0
    """Without records although some are waiting: the consumer is replaced."""
    source_watch_every_s: float = 10.0
    """Between two looks at missing topics and foreign members; also the age of the metadata that finds a new topic."""
    stream_watch_every_s: float = 30.0
    """Between two looks at the ends of all logs, for alerts about silent and slow streams."""
    consumer_stop_limit_s: float = 3.0
    """For `AIOKafkaConsumer.stop`, which can hang. Then the object is dropped."""


DEFAULT_TIMING = Timing()
