"""The training process, started by `training_process.py`.

Input: an order, as one JSON line on standard input.
Output: messages, as JSON lines on standard output: progress, then a result or an error.
Invariant: the process exits as soon as its standard input ends, so it never outlives the daemon.

A training goes through five steps, a function each: read the history, choose windows, fit, judge, save.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from monitor.config import Config, FleetConfig, load
from monitor.errors import CheckpointDamaged, CheckpointUnavailable, MonitorError, NotEnoughData
from monitor.lifecycle.child_history import read_history, rows_of
from monitor.lifecycle.child_limits import lower_priority, memory_limit, resident_bytes, watch_memory
from monitor.lifecycle.drill_process import history_of_files, run_drill
from monitor.lifecycle.gate import Limits, judge
from monitor.lifecycle.training_process import TrainingMessage, TrainingOrder
from monitor.models.card import learnt_until_us
from monitor.models.detector import TrainedModel
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.training.fleet_fit import Workers, fit_fleet
from monitor.training.judge import without_continued

if TYPE_CHECKING:
    from monitor.training.dataset import History

READING_SHARE = 0.2
"""Share of the progress bar for reading the history. Its duration is not known in advance."""
JUDGING_SHARE = 0.3
"""Share of the progress bar for the gate, at its end. With little history it takes longer than the training."""


def main() -> None:
    """Read the order, carry it out, and report the outcome."""
    lower_priority()
    torch.set_num_threads(1)
    raw = sys.stdin.buffer.readline()
    if not raw:  # the daemon ended before it sent the order
        return
    order = msgspec.json.decode(raw, type=TrainingOrder)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        outcome = _carry_out(order)
    except MonitorError as error:
        outcome = TrainingMessage(error=type(error).__name__, message=error.detail or str(error))
    except MemoryError:
        outcome = TrainingMessage(error="MonitorError", message=f"no memory left at {resident_bytes() / 1e9:.2f} GB")
    _report(outcome)


def _carry_out(order: TrainingOrder) -> TrainingMessage:
    config = load(order.config)
    fleet = next(fleet for fleet in config.fleets if fleet.name == order.fleet)
    watch_memory(memory_limit(fleet.retrain.memory_limit), _give_up)
    if order.kind == "drill" and order.detail.get("files"):
        history = history_of_files(config, fleet, order)
    else:
        history = asyncio.run(read_history(config, fleet, order, _report_readings))
    if order.kind == "drill":
        document, drift = run_drill(config, fleet, history, order, _report_step)
        return TrainingMessage(
            progress=1.0, result=document, input_drift=None if drift is None else drift.to_json()
        )
    if order.kind == "retrain":
        return _train(config, fleet, history, order)
    if order.kind == "judge":
        return _compare(config, history, order)
    raise MonitorError(f"a training process of this release knows no job of kind {order.kind}")


def _train(config: Config, fleet: FleetConfig, history: History, order: TrainingOrder) -> TrainingMessage:
    chosen = history.choose_length(order.length)
    reason = None if chosen is None else chosen.reason
    windows = history.windows(order.judged, order.faulty_sensors)
    _report(
        TrainingMessage(progress=READING_SHARE, message=f"{history.n_readings:,} readings, {len(windows):,} windows")
    )
    challenger = _fit(config, fleet, history, windows, reason)
    _report(TrainingMessage(progress=1.0 - JUDGING_SHARE, message="judging the new version"))
    verdict = _judge(config, history, windows, challenger, order)
    version = challenger.save(Path(config.store.checkpoints))
    return TrainingMessage(
        progress=1.0,
        message="trained",
        version=version,
        path=str(Path(config.store.checkpoints) / version),
        sensors=history.sensors,
        card=challenger.registry_card(),
        verdict=verdict,
    )


def _fit(
    config: Config, fleet: FleetConfig, history: History, windows: TrainingSet, window_reason: str | None
) -> TrainedModel:
    def on_progress(share: float, text: str) -> None:
        span = 1.0 - READING_SHARE - JUDGING_SHARE
        _report(TrainingMessage(progress=READING_SHARE + span * share, message=text))

    spec = ModelSpec.of(fleet)
    try:
        of_fleet = FleetSpec.of(fleet, history.sensors, config.fields_of(fleet))
        if window_reason is not None:
            of_fleet = replace(of_fleet, window_reason=window_reason)
        return fit_fleet(
            windows, spec, of_fleet, scope=fleet.model.scope, device=config.device, on_progress=on_progress,
            workers=Workers(fleet.retrain.executor, fleet.retrain.n_workers),
        )  # fmt: skip
    except NotEnoughData as error:
        more = max(1, spec.min_windows - len(windows))
        raise NotEnoughData(f"{error.detail}; {history.time_until(more)}") from error


def _judge(
    config: Config, history: History, windows: TrainingSet, challenger: TrainedModel, order: TrainingOrder
) -> dict[str, Any]:
    """Return the gate's verdict (`gate.py`)."""
    limits = Limits.of(history.fleet, history.sensors)
    return judge(challenger, _champion(config, order), windows, order.faults, limits).to_json()


def _compare(config: Config, history: History, order: TrainingOrder) -> TrainingMessage:
    """Judge the challenger in shadow on the windows since its training, which neither version has seen.

    The champion's newest window is no later than the challenger's. Replay equals live, so this is what the challenger
    would have decided.
    """
    if order.challenger is None:
        raise MonitorError("the order names no challenger")
    challenger = TrainedModel.load(Path(order.challenger), config.device)
    since_us = learnt_until_us(challenger.card)
    if since_us is None:
        raise MonitorError(f"the card of {challenger.version} does not say until when it has learnt")
    judged = without_continued(order.judged, history.fleet.length * history.fleet.interval_us)
    windows = history.windows(judged, order.faulty_sensors)
    recent = rows_of(windows, windows.end_us > since_us)
    _report(TrainingMessage(progress=READING_SHARE, message=f"judging on {len(recent):,} windows since its training"))
    if not len(recent):
        why = "since its training no window has come that overlaps no open alert"
        return TrainingMessage(result={"passed": False, "why": why, "n_windows": 0, "checks": []})
    limits = Limits.of(history.fleet, history.sensors)
    verdict = judge(challenger, _champion(config, order), recent, order.faults, limits)
    return TrainingMessage(result=verdict.to_json() | {"n_windows": len(recent)})


def _champion(config: Config, order: TrainingOrder) -> TrainedModel | None:
    """Return the present champion. None: there is none, or its checkpoint cannot be read, so it decides nothing."""
    if order.champion is None:
        return None
    try:
        return TrainedModel.load(Path(order.champion), config.device)
    except (CheckpointDamaged, CheckpointUnavailable) as error:
        _report(TrainingMessage(progress=1.0 - JUDGING_SHARE, message=f"without the champion: {error.detail}"))
        return None


def _report_readings(n_readings: int) -> None:
    _report(TrainingMessage(progress=READING_SHARE / 2, message=f"reading history: {n_readings:,} readings"))


def _report_step(share: float, text: str) -> None:
    _report(TrainingMessage(progress=share, message=text))


def _report(message: TrainingMessage) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def _give_up(why: str) -> None:
    """Report that the memory is not enough, and exit. Called by the thread that watches it."""
    _report(TrainingMessage(error="MonitorError", message=why))
    os._exit(1)


def _exit_with_parent() -> None:
    """Exit when standard input ends: the daemon keeps its other end open while it lives and needs the training."""
    while os.read(0, 1024):  # not through sys.stdin, whose lock would be held when the interpreter shuts down
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
