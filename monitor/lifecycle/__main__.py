"""The training process, started by `training_process.py`.

Input: an order, as one JSON line on standard input.
Output: messages, as JSON lines on standard output: progress, then a version or an error.
Invariant: the process exits as soon as its standard input ends, so it never outlives the daemon.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

from monitor.clock import SystemClock
from monitor.config import Config, FleetConfig, load
from monitor.errors import MonitorError, NotEnoughData
from monitor.kafka.log_reader import KafkaHistory
from monitor.lifecycle.training_process import TrainingMessage, TrainingOrder
from monitor.models.spec import FleetSpec, ModelSpec
from monitor.store.scores import AHEAD_US
from monitor.training.dataset import History
from monitor.training.fit import fit

if TYPE_CHECKING:
    from monitor.models.detector import TrainedModel

READING_SHARE = 0.2
"""Share of the progress bar for reading the history. Its duration is not known in advance."""
REPORT_EVERY_READINGS = 50_000


def main() -> None:
    """Read the order, train, and report the outcome."""
    os.nice(10)
    torch.set_num_threads(1)
    raw = sys.stdin.buffer.readline()
    if not raw:  # the daemon ended before it sent the order
        return
    order = msgspec.json.decode(raw, type=TrainingOrder)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        outcome = _train(order)
    except MonitorError as error:
        outcome = TrainingMessage(error=type(error).__name__, message=error.detail or str(error))
    _report(outcome)


def _train(order: TrainingOrder) -> TrainingMessage:
    config = load(order.config)
    fleet = next(fleet for fleet in config.fleets if fleet.name == order.fleet)
    history = asyncio.run(_read_history(config, fleet, order))
    detector = _fit(config, fleet, history, order)
    version = detector.save(Path(config.store.checkpoints))
    return TrainingMessage(
        progress=1.0,
        message="trained",
        version=version,
        path=str(Path(config.store.checkpoints) / version),
        sensors=history.sensors,
        card=detector.registry_card(),
    )


async def _read_history(config: Config, fleet: FleetConfig, order: TrainingOrder) -> History:
    until_us = SystemClock().now_us() + AHEAD_US
    history = History(config, fleet, order.sensors, order.known, until_us=until_us)
    n_reported = 0
    async for batch in KafkaHistory(config.kafka, config.topics_of(fleet)):
        history.add(batch)
        if history.n_readings - n_reported >= REPORT_EVERY_READINGS:
            n_reported = history.n_readings
            _report(TrainingMessage(progress=READING_SHARE / 2, message=f"reading history: {n_reported:,} readings"))
    return history


def _fit(config: Config, fleet: FleetConfig, history: History, order: TrainingOrder) -> TrainedModel:
    chosen = history.choose_length(order.length)
    train = history.windows(order.judged, order.faulty_sensors)
    _report(TrainingMessage(progress=READING_SHARE, message=f"{history.n_readings:,} readings, {len(train):,} windows"))

    def on_progress(share: float, text: str) -> None:
        _report(TrainingMessage(progress=READING_SHARE + (1 - READING_SHARE) * share, message=text))

    spec = ModelSpec.of(fleet)
    try:
        of_fleet = FleetSpec.of(fleet, history.sensors, config.fields_of(fleet))
        if chosen is not None:
            of_fleet = replace(of_fleet, window_reason=chosen.reason)
        return fit(train, spec, of_fleet, device=config.device, on_progress=on_progress)
    except NotEnoughData as error:
        more = max(1, spec.min_windows - len(train))
        raise NotEnoughData(f"{error.detail}; {history.time_until(more)}") from error


def _report(message: TrainingMessage) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def _exit_with_parent() -> None:
    """Exit when standard input ends: the daemon keeps its other end open while it lives and needs the training."""
    while os.read(0, 1024):  # not through sys.stdin, whose lock would be held when the interpreter shuts down
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
