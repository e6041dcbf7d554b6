"""Gauges that are read from the database and the disks, for dashboards.

Input: the database, every half minute, if pages are served at all. Output: metrics. Invariant: a label takes its values
from the configuration or from fixed words. Several daemons of one database export the same figures.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from monitor import logs, metrics
from monitor.errors import MonitorError
from monitor.store import gauges
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from pathlib import Path

    from monitor.clock import Clock
    from monitor.config import Config
    from monitor.store.engine import AsyncStore
    from monitor.store.gauges import Figures
    from monitor.timing import Timing

log = logs.get("gauges")


class Gauges:
    """Sets the gauges of alerts, acts, champions, scores and disks."""

    def __init__(self, config: Config, store: AsyncStore, clock: Clock, timing: Timing = DEFAULT_TIMING) -> None:
        self._fleets = [fleet.name for fleet in config.fleets]
        self._places: dict[str, Path] = {"checkpoints": config.store.checkpoints}
        if store.address.path is not None:
            self._places["database"] = store.address.path.parent
        self._store = store
        self._clock = clock
        self._timing = timing

    async def loop(self) -> None:
        """Set them every half minute, until cancelled. In an outage they keep their last values."""
        while True:
            try:
                self.set(await self._store.read(gauges.fetch))
            except MonitorError as error:
                log.debug("gauges_failed", error=str(error))
            await self._clock.sleep(self._timing.gauges_every_s)

    def set(self, figures: Figures) -> None:
        """Set the gauges."""
        for alert_class in metrics.CLASSES:
            for severity in metrics.SEVERITIES:
                for answer in metrics.ANSWERS:
                    n = figures.open_alerts.get((alert_class, severity, answer), 0)
                    metrics.alerts_open.labels(alert_class, severity, answer).set(n)
        for act in metrics.ACTS:
            metrics.acts.labels(act).set(figures.acts.get(act, 0))
        for fleet in self._fleets:
            metrics.champion_present.labels(fleet).set(fleet in figures.champions)
            if (newest_us := figures.newest_window_us.get(fleet)) is not None:
                metrics.window_timestamp_seconds.labels(fleet).set(newest_us / 1e6)
        for place, folder in self._places.items():
            with suppress(OSError):  # the folder of the checkpoints is made by the first training
                disk = shutil.disk_usage(folder)
                metrics.disk_free_bytes.labels(place).set(disk.free)
                metrics.disk_size_bytes.labels(place).set(disk.total)
