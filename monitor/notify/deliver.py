"""The delivery loop of the outbox.

Input: notifications that wait in the outbox. Output: each one sent to its channel, at least once, always under the same
key.
Invariant: an attempt is counted in the database, under the lease, before it is made. So `attempts` is never less than
the number of requests that the receiver may have seen, and a daemon that lost the lease while it was suspended sends
nothing when it resumes.

One daemon sends, under the lease `outbox`. The others wait for the lease. The channels are independent of each other,
and a channel makes one attempt at a time. It sends its oldest notification first. After a failure a notification waits,
longer each time. Meanwhile the channel sends notifications of other alerts, but no later one of the same alert.

A notification is sent twice only if the outcome of an attempt was not stored: the process was killed, or the answer of
the receiver was lost.

A channel for people gets one digest instead of many old notifications: after an outage, in a flood, and at the end of
its quiet hours. After an outage one notification is sent first, and the digest only once that has arrived.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from functools import partial
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING

from monitor import logs, metrics
from monitor.errors import Fenced, StoreUnavailable
from monitor.notify.channels import Options, Repeater
from monitor.notify.enrich import Enricher
from monitor.retry import OutageObserver, backoff_s, retry_transient
from monitor.store import outbox
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from monitor.clock import Clock
    from monitor.errors import MonitorError
    from monitor.notify.channels import Sender
    from monitor.notify.failure import Failure
    from monitor.store.engine import AsyncStore
    from monitor.store.lease_renewal import Lease
    from monitor.store.outbox import Notification
    from monitor.timing import Timing

log = logs.get("notify")

REFUSED = "refused: "
"""Beginning of a stored error after which the same request is not expected to succeed."""
MIN_DIGEST = 2
"""Old notifications that make a digest."""
FLOOD = 10
"""Waiting notifications of any age that make one."""


@dataclass(slots=True)
class _ChannelState:
    """A receiver and its recent failures."""

    sender: Sender
    options: Options
    is_new: bool = True
    """No attempt was made since the start of the daemon."""
    is_proven: bool = False
    """The last attempt arrived."""
    n_failed: int = 0
    """Failed attempts in a row, of any notification."""
    failing_since_s: float = 0.0
    paused_until_s: float = 0.0
    """Monotonic seconds, as `failing_since_s`."""


class Delivery:
    """The notifications of all channels, sent while `loop` runs. `lease`: the one named `outbox.LEASE`.

    `options`: name of a channel → the way in which it is served.
    """

    def __init__(
        self,
        store: AsyncStore,
        lease: Lease,
        senders: Sequence[Sender],
        clock: Clock,
        rng: random.Random | None = None,
        timing: Timing = DEFAULT_TIMING,
        options: Mapping[str, Options] = MappingProxyType({}),
        enricher: Enricher = Enricher(),  # noqa: B008 (frozen)
    ) -> None:
        self._store = store
        self._lease = lease
        self._channels = [_ChannelState(sender, options.get(sender.name, Options())) for sender in senders]
        self._enricher = enricher
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 (jitter)
        self._timing = timing
        self._started = clock.now_us(), clock.monotonic_s()
        self._failing_since_s: dict[str, float] = {}
        """Monotonic seconds of the first failure in this process, by the key of a notification that waits."""

    async def loop(self) -> None:
        """Send until cancelled. Then finish the attempts in hand, and only after them release the lease."""
        async with asyncio.TaskGroup() as outer:
            renewal = outer.create_task(self._lease.loop())
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._clean_up_loop())
                    for channel in self._channels:
                        group.create_task(self._send_loop(channel))
                        if isinstance(channel.sender, Repeater):
                            group.create_task(self._repeat_loop(channel.sender))
            finally:
                renewal.cancel()

    # ------------------------------------------------------------------ one channel

    async def _send_loop(self, channel: _ChannelState) -> None:
        while True:
            epoch, did_send = self._lease.epoch, False
            try:
                did_send = epoch is not None and await self._send_next(channel, epoch)
            except Fenced as error:
                log.debug("lease_lost", detail=error.detail)
                if epoch is not None:
                    self._lease.mark_lost(epoch)
            except StoreUnavailable as error:
                log.debug("outbox_away", error=error.detail)
            if not did_send:
                await self._clock.sleep(self._timing.outbox_every_s)

    async def _send_next(self, channel: _ChannelState, epoch: int) -> bool:
        """Send the channel's notification that is due. Return False if there is none."""
        if channel.is_new:  # the operator may have corrected the configuration before this start
            await self._store.run(outbox.make_due, channel.sender.name)
            channel.is_new = False
        if self._clock.monotonic_s() < channel.paused_until_s:
            return False
        notification = await self._next_due(channel, epoch)
        if notification is None:
            return False
        attempt = asyncio.create_task(self._attempt(channel, notification, epoch))
        try:
            await asyncio.shield(attempt)
        except asyncio.CancelledError:
            # The daemon stops: give the attempt time to end, so that its outcome is stored.
            await asyncio.wait({attempt}, timeout=self._timing.notification_grace_s)
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
            raise
        return True

    async def _next_due(self, channel: _ChannelState, epoch: int) -> Notification | None:
        """Return the notification to send now. In quiet hours warnings wait, and after them one digest is due."""
        name, now_us, quiet = channel.sender.name, self._clock.now_us(), channel.options.quiet
        if quiet is not None and quiet.contains(now_us):
            if channel.options.quiet_holds_all:
                return None
            urgent = await self._store.read(outbox.next_due, name, now_us, True)
            if urgent is not None:
                await self._store.run(outbox.take_earlier, epoch, name, urgent)
            return urgent
        found = await self._store.read(outbox.next_due, name, now_us)
        if found is not None and (reason := self._digest_reason(channel, found, now_us)) is not None:
            why, at_least, until_us = reason
            n = await self._store.run(outbox.digest_waiting, epoch, name, why, at_least, until_us, now_us)
            if n:
                log.info("notify_digest", channel=name, notifications=n, why=why)
                found = await self._store.read(outbox.next_due, name, now_us)
        return found

    def _digest_reason(
        self, channel: _ChannelState, oldest: Notification, now_us: int
    ) -> tuple[str, int, int] | None:
        """Return the reason for a digest, how many notifications it needs, and until when they were written."""
        if channel.options.quiet is not None and channel.options.quiet.contains(oldest.created_us):
            return "were held back in quiet hours", MIN_DIGEST, now_us
        if not (channel.options.is_for_people and channel.is_proven):
            return None
        old_us = now_us - round(self._timing.digest_after_s * 1e6)
        if oldest.created_us <= old_us:
            return "waited while this channel could not be reached", MIN_DIGEST, old_us
        return "came at once", FLOOD, now_us

    async def _attempt(self, channel: _ChannelState, notification: Notification, epoch: int) -> None:
        body = await self._start_attempt(channel, notification, epoch)
        if body is None:  # delivered by a former holder of the lease, which stored that late
            return
        if notification.error == outbox.OUTCOME_UNKNOWN:
            attempts = notification.attempts
            log.warning("notify_again", key=notification.key, attempts=attempts, meaning=outbox.OUTCOME_UNKNOWN)
        failure = await channel.sender.send(notification.key, body)
        if failure is None:
            await self._delivered(channel, notification)
        else:
            await self._failed(channel, notification, failure, epoch)

    async def _start_attempt(
        self, channel: _ChannelState, notification: Notification, epoch: int
    ) -> bytes | None:
        """Count an attempt and return the body to send."""
        if not channel.options.has_context:
            stored = await self._store.run(outbox.start_attempt, epoch, notification.key)
            return None if stored is None else stored.encode()
        found = await self._store.run(outbox.start_attempt_in_context, epoch, notification.key)
        return None if found is None else self._enricher.body(*found, self._clock.now_us())

    async def _delivered(self, channel: _ChannelState, notification: Notification) -> None:
        now_us = self._clock.now_us()
        await self._store_outcome(outbox.mark_delivered, notification.key, now_us)
        after_s = round((now_us - notification.created_us) / 1e6, 1)
        self._failing_since_s.pop(notification.key, None)
        log.info("notified", key=notification.key, attempts=notification.attempts + 1, after_s=after_s)
        metrics.notifications.labels("delivered").inc()
        name = channel.sender.name
        metrics.channel_notifications.labels(name, "delivered").inc()
        metrics.notification_seconds.labels(name).observe(max(0.0, (now_us - notification.created_us) / 1e6))
        channel.is_proven = True
        n_failed, channel.n_failed = channel.n_failed, 0
        if not n_failed:
            return
        after_s = round(self._clock.monotonic_s() - channel.failing_since_s, 1)
        log.info("notify_back", channel=channel.sender.name, after_s=after_s)
        if n_failed > 1:  # an outage of the channel; a single failure may be due to that notification alone
            await self._store.run(outbox.make_due, channel.sender.name)

    async def _failed(self, channel: _ChannelState, notification: Notification, failure: Failure, epoch: int) -> None:
        now_us = self._clock.now_us()
        key, attempts = notification.key, notification.attempts + 1
        error = f"{REFUSED}{failure.reason}" if failure.is_refusal else failure.reason
        # One refusal may be an accident: a gateway answers 404 while the service behind it starts.
        is_refused_again = failure.is_refusal and (notification.error or "").startswith(REFUSED)
        limit_s = (
            self._timing.notification_refused_after_s if is_refused_again else self._timing.notification_failed_after_s
        )
        if self._is_too_old(notification, limit_s):
            del self._failing_since_s[key]
            await self._store_outcome(outbox.mark_failed, epoch, key, error, outbox.ABANDONED_US)
            _report_given_up(channel.sender.name, key, attempts, error)
        else:
            next_try_us = now_us + self._retry_after_us(attempts, failure.retry_after_s)
            await self._store_outcome(outbox.mark_failed, epoch, key, error, next_try_us)
            metrics.notifications.labels("failed").inc()
            metrics.channel_notifications.labels(channel.sender.name, "failed").inc()
        channel.is_proven = False
        self._pause(channel, error, failure.retry_after_s)

    def _is_too_old(self, notification: Notification, limit_s: float) -> bool:
        """Return True if a notification that failed has reached an age, and was tried for long enough.

        The wall clock may jump by days, before the start or since. Then the age by the monotonic clock counts, and
        attempts during an hour show that the receiver is not back at once.
        """
        now_s = self._clock.monotonic_s()
        since_s = self._failing_since_s.setdefault(notification.key, now_s)
        is_tried = now_s - since_s >= min(limit_s, self._timing.notification_tried_for_s)
        ages_us = [now_us - notification.created_us for now_us in (self._clock.now_us(), self._steady_now_us())]
        return is_tried and min((age_us for age_us in ages_us if age_us >= 0), default=0) >= limit_s * 1e6

    def _steady_now_us(self) -> int:
        """Return the time that the wall clock would show if it had not jumped since the start."""
        wall_us, monotonic_s = self._started
        return wall_us + round((self._clock.monotonic_s() - monotonic_s) * 1e6)

    async def _store_outcome(self, fn: Callable[..., None], *args: object) -> None:
        """Store the outcome of an attempt, however long the database is unavailable. Otherwise it is sent again."""
        pause = partial(self._clock.sleep, self._timing.outbox_every_s)
        work = partial(self._store.run, fn, *args)
        await retry_transient(work, pause=pause, errors=(StoreUnavailable,), observer=_OutboxOutage())

    # ------------------------------------------------------------------ pauses

    def _pause(self, channel: _ChannelState, error: str, retry_after_s: float | None) -> None:
        """Pause a channel after a failure, and log the beginning of an outage."""
        now_s = self._clock.monotonic_s()
        channel.n_failed += 1
        first_s, longest_s = self._timing.notification_retry_first_s, self._timing.channel_retry_longest_s
        requested_s = min(retry_after_s or 0.0, outbox.MAX_WAIT_US / 1e6)
        pause_s = max(backoff_s(channel.n_failed, first_s=first_s, longest_s=longest_s), requested_s)
        channel.paused_until_s = now_s + pause_s
        if channel.n_failed == 1:
            channel.failing_since_s = now_s
            log.warning(
                "notify_failed", channel=channel.sender.name, error=error, doing="trying again, ever less often"
            )

    def _retry_after_us(self, attempts: int, retry_after_s: float | None) -> int:
        """Return the µs until the next attempt of a notification."""
        doubled_s = backoff_s(attempts, first_s=self._timing.notification_retry_first_s, longest_s=inf)
        # Less up to a half: notifications that failed together come back one by one.
        wait_s = max(doubled_s * self._rng.uniform(0.5, 1.0), retry_after_s or 0.0)
        return min(round(wait_s * 1e6), outbox.MAX_WAIT_US)

    # ------------------------------------------------------------------ alerts that go on

    async def _repeat_loop(self, sender: Repeater) -> None:
        """Post the firing alerts of an Alertmanager again and again: there an alert ends unless it is repeated."""
        error: str | None = None
        while True:
            await self._clock.sleep(self._timing.alerts_repeat_s)
            if self._lease.epoch is None:
                continue
            try:
                firing = await self._store.run(outbox.still_firing, sender.name)
            except StoreUnavailable as unavailable:
                log.debug("outbox_away", error=unavailable.detail)
                continue
            now_us = self._clock.now_us()
            bodies = [self._enricher.body(*each, now_us) for each in firing]
            failure = await sender.repeat(bodies) if bodies else None
            if failure is not None and error is None:
                meaning = "it takes firing alerts for resolved unless a later post succeeds"
                log.warning("alerts_not_repeated", channel=sender.name, error=failure.reason, meaning=meaning)
            elif failure is None and error is not None:
                log.info("alerts_repeated", channel=sender.name, alerts=len(bodies))
            error = None if failure is None else failure.reason

    # ------------------------------------------------------------------ cleaning up

    async def _clean_up_loop(self) -> None:
        done_at_s = counted_at_s = -inf
        while True:
            now_s = self._clock.monotonic_s()
            is_due = now_s - done_at_s >= self._timing.outbox_prune_every_s
            is_count_due = now_s - counted_at_s >= self._timing.outbox_count_every_s
            if self._lease.epoch is not None and (is_due or is_count_due):
                try:
                    await self._count_waiting()
                    counted_at_s = now_s
                    if is_due:
                        await self._clean_up()
                except StoreUnavailable as error:
                    log.debug("outbox_away", error=error.detail)
                else:
                    done_at_s = self._clock.monotonic_s() if is_due else done_at_s
            await self._clock.sleep(self._timing.outbox_every_s)

    async def _count_waiting(self) -> None:
        for channel in self._channels:
            name = channel.sender.name
            metrics.notifications_waiting.labels(name).set(await self._store.read(outbox.count_waiting, name))

    async def _clean_up(self) -> None:
        """Delete old notifications, and give up those of channels that the configuration no longer names."""
        now_us = min(self._clock.now_us(), self._steady_now_us())
        await self._store.run(outbox.prune, now_us - round(self._timing.outbox_keep_s * 1e6))
        names = [channel.sender.name for channel in self._channels]
        failed_before_us = now_us - round(self._timing.notification_failed_after_s * 1e6)
        for key in await self._store.run(outbox.abandon_unknown, names, failed_before_us):
            _report_given_up("", key, 0, "no [[notify]] has the name of its channel")


class _OutboxOutage(OutageObserver):
    def failed(self, error: MonitorError, n_failures: int) -> None:  # noqa: ARG002  (the base class's signature)
        log.debug("outbox_away", error=error.detail)


def _report_given_up(channel: str, key: str, attempts: int, error: str) -> None:
    log.error("notify_given_up", key=key, attempts=attempts, error=error)
    metrics.notifications.labels("given_up").inc()
    if channel:  # the name of one that is not configured is no label
        metrics.channel_notifications.labels(channel, "given_up").inc()
