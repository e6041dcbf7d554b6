"""The watch over whole streams: it writes alerts of class `data` about streams that the pipeline cannot see.

Input: the ends of the logs from the broker, the progress from the database. Output: the alerts `stream_silent`,
`lag_high` and `quarantine_share`, by the rules of `stream_health.py`. Invariant: of several daemons, the one that holds
the lease writes. A replay has no such alerts. An outage of broker or database changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor import logs, metrics
from monitor.errors import Fenced, MonitorError
from monitor.kafka.log_reader import log_ends
from monitor.service.stream_health import KINDS, Condition, Progress, StreamHealth
from monitor.store import stream_alerts
from monitor.stream.data_alerts import log_changes
from monitor.timing import DEFAULT_TIMING
from monitor.types import AlertState, DataAlertChange, Severity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from monitor.clock import Clock
    from monitor.config import Config, KafkaConfig
    from monitor.store.engine import AsyncStore
    from monitor.store.lease_renewal import Lease
    from monitor.store.outbox import Channel
    from monitor.timing import Timing
    from monitor.types import Partition

log = logs.get("source")

LEASE = "stream_watch"


class StreamWatch:
    """Looks at the streams every half minute."""

    def __init__(
        self,
        config: Config,
        store: AsyncStore,
        clock: Clock,
        lease: Lease | None,
        *,
        channels: Sequence[Channel] = (),
        timing: Timing = DEFAULT_TIMING,
        health: StreamHealth | None = None,
        list_ends: Callable[
            [KafkaConfig, Sequence[str], Mapping[Partition, int]], Awaitable[Mapping[Partition, int]]
        ] = log_ends,
    ) -> None:
        """`lease`: None = there is no other daemon. Its own loop renews it."""
        self._config = config
        self._store = store
        self._clock = clock
        self._lease = lease
        self._channels = channels
        self._timing = timing
        self._health = health or StreamHealth()
        self._list_ends = list_ends
        self._ends: Mapping[Partition, int] = {}

    async def loop(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.run_once()
            except MonitorError as error:  # the pipeline reports outages
                log.debug("stream_watch_failed", error=str(error))
            await self._clock.sleep(self._timing.stream_watch_every_s)

    async def run_once(self) -> None:
        """Look once, if this daemon holds the lease. Raises SourceUnavailable, StoreUnavailable."""
        if self._lease is not None and self._lease.epoch is None:
            self._ends = {}
            return
        state = await self._store.read(stream_alerts.read, self._config.kafka.group, KINDS)
        near = {partition: each[0] for partition, each in state.progress.items() if each[0] is not None}
        self._ends = await self._list_ends(self._config.kafka, self._config.topics, near | dict(self._ends))
        now_us = self._clock.now_us()
        progress = {partition: Progress(*each) for partition, each in state.progress.items()}
        open_kinds = {(each.kind, each.partition.topic) for each in state.open}
        found = self._health.update(now_us, self._ends, progress, open_kinds)
        if not found and not state.open:
            return
        wanted = [_opened(each, now_us) for each in found]
        token = None if self._lease is None else self._lease.fencing_token
        try:
            changes = await self._store.run(stream_alerts.write, token, self._channels, KINDS, wanted, now_us)
        except Fenced:
            if self._lease is not None and token is not None:
                self._lease.mark_lost(token[1])
            return
        metrics.count_alerts(changes)
        log_changes(changes)


def _opened(condition: Condition, now_us: int) -> DataAlertChange:
    return DataAlertChange(
        kind=condition.kind,
        partition=condition.partition,
        fleet=None,
        from_offset=condition.from_offset,
        opened_us=now_us,
        at_us=now_us,
        state=AlertState.FIRING,
        severity=Severity.WARNING,
        n_records=condition.n_records,
        message=condition.message,
        is_transition=True,
    )
