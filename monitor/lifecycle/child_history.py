"""History of a fleet's readings, read from Kafka by the training process.

Input: an order and the configuration. Output: the readings of the last `retrain.history`, with the windows that a
training may use. Invariant: nothing is written, and no consumer group is joined.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from monitor.clock import SystemClock
from monitor.kafka.log_reader import KafkaHistory
from monitor.store.scores import AHEAD_US
from monitor.training.dataset import History

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.config import Config, FleetConfig
    from monitor.lifecycle.training_process import TrainingOrder
    from monitor.models.spec import TrainingSet
    from monitor.types import Bool

REPORT_EVERY_READINGS = 50_000


async def read_history(
    config: Config, fleet: FleetConfig, order: TrainingOrder, on_readings: Callable[[int], None]
) -> History:
    """Read the topics of the fleet. `on_readings` is called with the number of readings so far."""
    until_us = SystemClock().now_us() + AHEAD_US
    history = History(config, fleet, order.sensors, order.known, until_us=until_us)
    n_reported = 0
    async for batch in KafkaHistory(config.kafka, config.topics_of(fleet)):
        history.add(batch)
        if history.n_readings - n_reported >= REPORT_EVERY_READINGS:
            n_reported = history.n_readings
            on_readings(n_reported)
    return history


def rows_of(windows: TrainingSet, wanted: Bool) -> TrainingSet:
    """Return the windows of a mask [N]."""
    columns = {
        name: column[wanted]
        for name in ("values", "asset", "end_us", "alerted", "accepted", "cause")
        if (column := getattr(windows, name)) is not None
    }
    return replace(windows, **columns)
