"""A drill in the training process: it loads the version, makes windows of the history, and drills.

Input: an order of kind drill, and the fleet's readings from Kafka, or from recordings that the order names
(`detail.files`). Output: the document of the drill, and the test for drift of the same readings.
Invariant: nothing is written. Windows that a training would leave out are not drilled on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.clock import SystemClock
from monitor.errors import NotEnoughData
from monitor.lifecycle.drills import drill
from monitor.lifecycle.input_drift import input_drift
from monitor.models.detector import TrainedModel
from monitor.recordings import FileOptions, as_records, read_files
from monitor.training.dataset import History
from monitor.types import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from monitor.config import Config, FleetConfig
    from monitor.lifecycle.input_drift import InputDrift
    from monitor.lifecycle.training_process import TrainingOrder
    from monitor.types import RecordBatch

READING_SHARE = 0.2
"""Share of the progress bar for reading the history."""
DAY_US = 24 * 3_600_000_000


def history_of_files(config: Config, fleet: FleetConfig, order: TrainingOrder) -> History:
    """Read recordings as if their records had come from the fleet's first topic. Raises BadRecording, NotFound."""
    history = History(config, fleet, order.sensors, order.known)
    paths = [Path(each) for each in order.detail["files"]]
    for batch in _batches(config.topics_of(fleet)[0], paths):
        history.add(batch)
    return history


def _batches(topic: str, paths: list[Path]) -> Iterator[RecordBatch]:
    numbers: dict[str, int] = {}
    for _, recording in read_files(paths, FileOptions()):
        for one in recording.per_asset():
            if len(one):
                partition = Partition(topic, numbers.setdefault(one.assets[0], len(numbers)))
                yield from as_records(one, partition=partition)


def run_drill(
    config: Config,
    fleet: FleetConfig,
    history: History,
    order: TrainingOrder,
    on_progress: Callable[[float, str], None],
) -> tuple[dict[str, Any], InputDrift | None]:
    """Drill the order's champion, and test its readings for drift. None = there are too few days, or no test.

    Raises NotEnoughData, CheckpointDamaged, CheckpointUnavailable.
    """
    if order.champion is None:
        raise NotEnoughData(f"{fleet.name} has no model yet that could be drilled")
    model = TrainedModel.load(Path(order.champion), config.device)
    history.fleet = fleet.with_length(model.card.length)
    windows = history.windows(order.judged, order.faulty_sensors)
    on_progress(READING_SHARE, f"{history.n_readings:,} readings, {len(windows):,} windows")
    rate = fleet.retrain.drift
    drift = None if rate is None else input_drift(model, windows, history.sensors, rate)
    document = drill(
        model,
        windows,
        history.fleet,
        history.sensors,
        seed=int(order.detail.get("seed", SystemClock().now_us() // DAY_US)),
        only=order.detail.get("sensors"),
        on_progress=lambda share, text: on_progress(READING_SHARE + (1 - READING_SHARE) * share, text),
    )
    return document, drift
