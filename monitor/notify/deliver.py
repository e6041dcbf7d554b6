"""The outbox's loop. Enters: letters that wait. Leaves: each with its channel, at least once, under the same key.

One daemon sends, under the lease `outbox`; the others wait for it. A channel has one letter in hand at a time and knows
nothing of the other channels. Its oldest letter goes first; one that failed waits longer each time, and meanwhile the
letters of other alerts go, never a later one of its own.

A letter is sent more than once only if a try had no outcome that was written down: the process was killed, or the
answer got lost. Law: a try is counted, under the lease, before it is made. So `attempts` is never less than what the
other end may have seen, and a daemon that lost the lease in its sleep sends nothing when it wakes.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from monitor import logs, metrics
from monitor.errors import Fenced, StoreUnavailable
from monitor.store import outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monitor.clock import Clock
    from monitor.notify.webhook import Failure
    from monitor.store.engine import AsyncStore
    from monitor.store.lease import Lease
    from monitor.store.outbox import Letter

log = logs.get("notify")

LOOK_EVERY_S = 1.0
FIRST_WAIT_S = 1.0
"""After a failed try; then twice as long each time, less a random part, up to `outbox.LONGEST_WAIT_US`."""
CALM_S = 10.0
"""A channel that fails tries another letter after at most this, however many wait."""
FAILED_FOR_S = 3 * 86_400.0
"""A letter as old as this is given up when it fails."""
REFUSED_FOR_S = 86_400.0
"""The same for one that is refused (4xx, a redirect, a forbidden address) twice in a row: a day to correct a token."""
TIDY_EVERY_S = 3600.0
KEEP_S = 7 * 86_400.0
"""Letters that were delivered, or given up, are kept as long."""
STOP_GRACE_S = 1.0
"""When we stop: for the try in hand, so that its outcome is written down."""


class Sender(Protocol):
    """A channel's other end."""

    name: str

    async def send(self, key: str, body: bytes) -> Failure | None:
        """Send once; None = it arrived. Ends by itself, soon."""
        ...


@dataclass(slots=True)
class _Line:
    """A channel and how it is doing."""

    sender: Sender
    is_new: bool = True
    n_failed: int = 0
    """Tries in a row."""
    failing_since_s: float = 0.0
    rests_until_s: float = 0.0


class Delivery:
    """Sends what waits, for as long as `loop` runs. `lease`: of the name `outbox.LEASE`."""

    def __init__(
        self, store: AsyncStore, lease: Lease, senders: Sequence[Sender], clock: Clock, rng: random.Random | None = None
    ) -> None:
        self._store = store
        self._lease = lease
        self._lines = [_Line(sender) for sender in senders]
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 (jitter)

    async def loop(self) -> None:
        """Send until cancelled; then finish the tries in hand, and only then leave the lease to others."""
        async with asyncio.TaskGroup() as outer:
            holding = outer.create_task(self._lease.loop())
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._tidy())
                    for line in self._lines:
                        group.create_task(self._serve(line))
            finally:
                holding.cancel()

    async def _tidy(self) -> None:
        """Remove what is old, and give up what nobody sends any more."""
        names = [line.sender.name for line in self._lines]
        done_at_s = float("-inf")
        while True:
            if self._lease.epoch is not None and self._clock.monotonic_s() - done_at_s >= TIDY_EVERY_S:
                now_us = self._clock.now_us()
                try:
                    await self._store.run(outbox.prune, now_us - round(KEEP_S * 1e6))
                    forsaken = await self._store.run(outbox.forsake, names, now_us - round(FAILED_FOR_S * 1e6))
                except StoreUnavailable as error:
                    log.debug("outbox_away", error=error.detail)
                else:
                    done_at_s = self._clock.monotonic_s()
                    for key in forsaken:
                        self._gives_up(key, 0, "no [[notify]] has the name of its channel")
            await self._clock.sleep(LOOK_EVERY_S)

    # ------------------------------------------------------------------ one channel

    async def _serve(self, line: _Line) -> None:
        while True:
            epoch, is_busy = self._lease.epoch, False
            try:
                is_busy = epoch is not None and await self._send_next(line, epoch)
            except Fenced as error:
                log.debug("lease_lost", detail=error.detail)
                if epoch is not None:
                    self._lease.lost(epoch)
            except StoreUnavailable as error:
                log.debug("outbox_away", error=error.detail)
            if not is_busy:
                await self._clock.sleep(LOOK_EVERY_S)

    async def _send_next(self, line: _Line, epoch: int) -> bool:
        """Send the letter that is due, if there is one."""
        if line.is_new:  # what waits may wait for a mistake that was corrected before this start
            await self._store.run(outbox.resume, line.sender.name)
            line.is_new = False
        if self._clock.monotonic_s() < line.rests_until_s:
            return False
        letter = await self._store.read(outbox.next_due, line.sender.name, self._clock.now_us())
        if letter is None:
            return False
        attempt = asyncio.create_task(self._try(line, letter, epoch))
        try:
            await asyncio.shield(attempt)
        except asyncio.CancelledError:
            await asyncio.wait({attempt}, timeout=STOP_GRACE_S)
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
            raise
        return True

    async def _try(self, line: _Line, letter: Letter, epoch: int) -> None:
        body = await self._store.run(outbox.begin, epoch, letter.key)
        if body is None:  # a former holder learnt late that it had arrived
            return
        if letter.error == outbox.NO_OUTCOME:
            log.warning("notify_again", key=letter.key, attempts=letter.attempts, meaning=outbox.NO_OUTCOME)
        failure = await line.sender.send(letter.key, body.encode())
        now_us = self._clock.now_us()
        if failure is None:
            await self._write_down(outbox.delivered, letter.key, now_us)
            waited_s = round((now_us - letter.created_us) / 1e6, 1)
            log.info("notified", key=letter.key, attempts=letter.attempts + 1, after_s=waited_s)
            metrics.notifications.labels("delivered").inc()
            await self._answers(line)
            return
        error = f"refused: {failure.reason}" if failure.is_refusal else failure.reason
        is_refused_again = failure.is_refusal and (letter.error or "").startswith("refused: ")
        limit_s = REFUSED_FOR_S if is_refused_again else FAILED_FOR_S
        if now_us - letter.created_us >= limit_s * 1e6:
            await self._write_down(outbox.failed, epoch, letter.key, error, outbox.GIVEN_UP_US)
            self._gives_up(letter.key, letter.attempts + 1, error)
        else:
            wait_us = self._wait_us(letter.attempts + 1, failure.retry_after_s)
            await self._write_down(outbox.failed, epoch, letter.key, error, now_us + wait_us)
            metrics.notifications.labels("failed").inc()
        self._fails(line, error, failure.retry_after_s)

    async def _write_down(self, fn: Callable[..., None], *args: object) -> None:
        """Store what came of a try, however long the database is away: forgotten, it would be sent again."""
        while True:
            try:
                return await self._store.run(fn, *args)
            except StoreUnavailable as error:
                log.debug("outbox_away", error=error.detail)
            await self._clock.sleep(LOOK_EVERY_S)

    # ------------------------------------------------------------------ how a channel is doing

    def _gives_up(self, key: str, attempts: int, error: str) -> None:
        log.error("notify_given_up", key=key, attempts=attempts, error=error)
        metrics.notifications.labels("given_up").inc()

    def _fails(self, line: _Line, error: str, retry_after_s: float | None) -> None:
        now_s = self._clock.monotonic_s()
        line.n_failed += 1
        asked_s = min(retry_after_s or 0.0, outbox.LONGEST_WAIT_US / 1e6)
        line.rests_until_s = now_s + max(min(_doubled_s(line.n_failed), CALM_S), asked_s)
        if line.n_failed == 1:
            line.failing_since_s = now_s
            log.warning("notify_failed", channel=line.sender.name, error=error, doing="trying again, ever less often")

    async def _answers(self, line: _Line) -> None:
        n_failed, line.n_failed = line.n_failed, 0
        if not n_failed:
            return
        log.info(
            "notify_back",
            channel=line.sender.name,
            after_s=round(self._clock.monotonic_s() - line.failing_since_s, 1),
        )
        if n_failed > 1:  # a single one was the letter's own trouble; an outage's letters need not wait for their turn
            await self._store.run(outbox.resume, line.sender.name)

    def _wait_us(self, attempts: int, retry_after_s: float | None) -> int:
        """µs until a letter's next try."""
        # Less up to a half of it: letters that failed together come back one by one.
        wait_s = max(_doubled_s(attempts) * self._rng.uniform(0.5, 1.0), retry_after_s or 0.0)
        return min(round(wait_s * 1e6), outbox.LONGEST_WAIT_US)


def _doubled_s(n: int) -> float:
    return FIRST_WAIT_S * float(2 ** min(n - 1, 20))
