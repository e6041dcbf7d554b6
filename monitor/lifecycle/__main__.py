"""The training process (see `retrain.py`): an order on standard input, JSON lines on standard output."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import msgspec
import torch

from monitor.config import Config, FleetConfig, load
from monitor.errors import MonitorError, NotEnoughData
from monitor.kafka.log_reader import KafkaHistory
from monitor.lifecycle.training_process import Line, Order
from monitor.models.spec import FleetSpec, ModelSpec
from monitor.training.dataset import History
from monitor.training.fit import fit

READING_SHARE = 0.2
"""Of the progress bar. How long the reading takes is not known in advance."""
SAY_EVERY = 50_000
"""Readings between two lines of progress."""


def main() -> None:
    """Train what is ordered."""
    os.nice(10)
    torch.set_num_threads(1)
    said = sys.stdin.buffer.readline()
    if not said:  # the daemon went before it could say what to train
        return
    order = msgspec.json.decode(said, type=Order)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        line = _train(order)
    except MonitorError as error:
        line = Line(error=type(error).__name__, message=error.detail or str(error))
    _say(line)


def _train(order: Order) -> Line:
    config = load(order.config)
    fleet = next(fleet for fleet in config.fleets if fleet.name == order.fleet)
    history = asyncio.run(_read(config, fleet, order))
    train = history.windows(order.alerts)
    _say(Line(progress=READING_SHARE, message=f"{history.n_readings:,} readings, {len(train):,} windows"))
    spec = ModelSpec.of(fleet)
    try:
        detector = fit(
            train,
            spec,
            FleetSpec.of(fleet, history.sensors),
            device=config.device,
            on_progress=lambda share, text: _say(
                Line(progress=READING_SHARE + (1 - READING_SHARE) * share, message=text)
            ),
        )
    except NotEnoughData as error:
        more = max(1, spec.min_windows - len(train))
        raise NotEnoughData(f"{error.detail}; {history.time_until(more)}") from error
    version = detector.save(Path(config.store.checkpoints))
    return Line(
        progress=1.0,
        message="trained",
        version=version,
        path=str(Path(config.store.checkpoints) / version),
        sensors=history.sensors,
        card={
            "metrics": detector.card.metrics,
            "trained_at": detector.card.trained_at,
            "threshold": asdict(detector.card.threshold),
        },
    )


async def _read(config: Config, fleet: FleetConfig, order: Order) -> History:
    history = History(config, fleet, order.sensors, order.known)
    said = 0
    async for batch in KafkaHistory(config.kafka, config.topics_of(fleet)):
        history.add(batch)
        if history.n_readings - said >= SAY_EVERY:
            said = history.n_readings
            _say(Line(progress=READING_SHARE / 2, message=f"reading history: {said:,} readings"))
    return history


def _say(line: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def _die_with_parent() -> None:
    """The parent holds the other end of our standard input open for as long as it lives and wants us."""
    while os.read(0, 1024):  # not through sys.stdin: its lock would be held when the interpreter shuts down
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
