"""The library: `from monitor import Detector`, for frames in memory, without Kafka and SQL.

Input: a NumPy array or a frame of pandas, polars or Arrow. Output: a score per row, alerts, explanations.
Invariant: a frame is decoded, cut into windows, learnt from, scored and decided on by the code of the daemon, so the
same readings give the same scores and alerts as `monitor run` and `monitor replay`.
"""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from monitor.clock import from_us
from monitor.config import parse
from monitor.decode.columns import cells_of
from monitor.decode.formatting import quote, short_list
from monitor.errors import BadArgument, ConfigError, NotEnoughData, NotFound
from monitor.models.spec import MIN_WINDOWS, FleetSpec, ModelSpec
from monitor.recordings import as_records
from monitor.recordings.account import count_cells, span_text
from monitor.recordings.frames import NAME, FrameColumns, read_frame
from monitor.stream.alerting import AlertPolicy, Decider
from monitor.stream.partition import make_decoder, schemas_of
from monitor.stream.window import Windower, in_slices
from monitor.types import AlertState, Contribution, Partition, Scores, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from monitor.config import Config, FleetConfig
    from monitor.models.card import Card
    from monitor.models.detector import TrainedModel, WindowScores
    from monitor.recordings import Recording
    from monitor.types import AlertChange, Float32, Int8, Int64, Readings, Windows

ALL_TIME = timedelta(days=36_500)
"""Training reads the whole frame."""
_SETTING = re.compile(r"^  (?:kafka\.|fleet\[0\]\.)(?:alerts\.|model\.|retrain\.|fields\.)?", re.MULTILINE)
"""Path of a setting in the message of a ConfigError. What is left is the name of the argument."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The sensors behind one row's score."""

    row: int
    """Row of the frame, from 0."""
    asset: str
    at: datetime
    """Time of the row, UTC. An array without times begins in 1970."""
    score: float
    """1.0 = the threshold."""
    sensors: tuple[Contribution, ...]
    """All sensors, the largest share first, with the expected and the actual value in their own units."""


@dataclass(frozen=True, slots=True)
class DetectedAlert:
    """An alert, with the times that `monitor alerts list` would show."""

    asset: str
    start: datetime
    """End of the first anomalous window, UTC."""
    end: datetime | None
    """End of the window that closed it, UTC. None = still open at the end of the frame."""
    peak: float
    """Highest score. 1.0 = the threshold."""
    peak_at: datetime
    severity: Severity
    """warning, or critical from three times the threshold on."""
    sensors: tuple[Contribution, ...]
    """Contributions to the highest score, the largest first."""
    first_row: int
    """Last row of the first anomalous window."""
    last_row: int
    """Last row of the window that closed the alert, or of its newest one."""


class _ScoredWindows(NamedTuple):
    """Windows of one asset in order of event time, with their scores. N windows, R rows of the asset."""

    asset: int
    rows: Int64
    """[R], rows of the frame in order of event time."""
    cells: Int64
    """[R], their cells."""
    windows: Windows
    scores: WindowScores

    @property
    def last_cell(self) -> Int64:
        """[N], the newest cell of each window."""
        newest: Int64 = self.windows.start + (self.windows.values.shape[1] - 1)
        return newest

    def rows_at(self, cells: Int64) -> Int64:
        """Return the newest row at or before each cell."""
        return self.rows[np.maximum(np.searchsorted(self.cells, cells, side="right") - 1, 0)]


@dataclass(eq=False)
class Detector:
    """Anomaly detector for the sensors of one machine, or of several alike.

    It learns normal behaviour from healthy readings, without labels, and scores the newest window that ends at each
    row. A score of 1.0 is the threshold, which is calibrated to the allowed false alarms. Higher is more anomalous.

        detector = Detector(window=36, budget="1/week").fit(healthy)
        scores = detector.score(frame)      # NumPy float32 [rows], NaN while the first window fills
        detector.alerts(frame)              # start, end, peak and sensors of each alert

    A frame is a NumPy array [rows, sensors], a pandas or polars frame, an Arrow table, or a dict of columns. Its rows
    may be in any order. `fit`, `decision_function`, `predict`, `fit_predict`, `decision_scores_`, `labels_` and
    `threshold_` follow PyOD: 1 is anomalous, 0 is normal. (scikit-learn's outlier detectors say -1 and 1 instead, and
    a lower decision function is more anomalous there.) Wrong arguments raise BadArgument, which is a ValueError.
    """

    window: int = 64
    """Length of a window in intervals."""
    budget: str = "1/week"
    """False alarms allowed per asset: "1/week", "2/day", "1/90d"."""
    _: KW_ONLY
    interval: str | timedelta | None = None
    """Sampling interval: "10m", "1s". None = the median step of the frame's times. Needed for an array."""
    time: str | None = None
    """Column of times. None = a pandas index of times, the only column of times, or one of the usual names. Datetimes
    without a zone are UTC, numbers are seconds (or ms, µs, ns, by magnitude) since 1970."""
    asset: str | None = None
    """Column of the machine's name. None = one of the usual names (asset, machine, turbine, device, …), or a single
    machine."""
    sensors: Sequence[str] | None = None
    """Columns to use, or names for those of an array. None = all others."""
    stride: int = 1
    """Intervals between two windows. The rows between them have the score of the window before."""
    max_gap: str | timedelta | None = None
    """A window with a longer hole is not scored. None = an eighth of the window."""
    confirm: str = "3 of 5"
    """An alert fires once m of the last n windows are anomalous."""
    recover: int = 6
    """Normal windows in a row that close an alert."""
    architecture: str = "auto"
    """auto, conv, dense, forecast, lstm, pca."""
    objective: str = "plain"
    """plain, sparse, denoising, variational, adversarial."""
    circular: Sequence[str] = ()
    """Sensors that are angles in degrees: 359° is near 1°."""
    missing: Sequence[float] = ()
    """Values that mean "no reading", beside NaN and null: -999."""
    min_windows: int = MIN_WINDOWS
    """Healthy windows needed for a training."""
    max_trim: float = 0.1
    """Largest share of the windows left out of the training as suspected faults."""
    max_train: str | timedelta = "10m"
    """Time limit of the training."""
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda, cuda:0, mps."""

    def __post_init__(self) -> None:
        self._model: TrainedModel | None = None
        self._config: Config | None = None
        self._fitted: Recording | None = None
        self._fitted_scores: Float32 | None = None
        self._notes: tuple[str, ...] = ()
        self._check_lists()
        if self.interval is not None or self.max_gap is None:
            self._configured(self.interval or "1ms", self.sensors or ("any",))

    # ------------------------------------------------------------------ fit

    def fit(self, frame: object, y: object = None) -> Self:  # noqa: ARG002  # the signature of scikit-learn
        """Learn from healthy readings. A few faults among them do no harm. `y` is ignored.

        Raises BadArgument, NotEnoughData or TrainingDiverged.
        """
        from monitor.training.dataset import History
        from monitor.training.fit import fit

        self._check_lists()
        interval_us = self._configured(self.interval, ("any",)).fleets[0].interval_us if self.interval else None
        wanted = tuple(self.sensors) if self.sensors else None
        recording = read_frame(frame, FrameColumns(self.time, self.asset, wanted), interval_us)
        if not np.isfinite(recording.values).any():
            raise BadArgument(f"the frame has no reading: all of {short_list(recording.sensors, 20)} is missing")
        if unknown := [name for name in self.circular if name not in recording.sensors]:
            raise BadArgument(
                f"circular: {quote(unknown[0])} is no sensor; there are {short_list(recording.sensors, 20)}"
            )
        interval = self.interval or timedelta(microseconds=recording.interval_us)
        if not interval:
            raise BadArgument('time: no two rows of an asset have different times; give interval="10m"')
        config = self._configured(interval, recording.sensors)
        history = History(config, config.fleets[0], recording.sensors)
        for number, one in enumerate(recording.per_asset()):
            for batch in as_records(one, partition=Partition(NAME, number)):
                history.add(batch)
        fleet = config.fleets[0]
        spec, target = ModelSpec.of(fleet), FleetSpec.of(fleet, recording.sensors, config.fields_of(fleet))
        with _one_torch_thread():
            try:
                self._model = fit(history.windows(), spec, target, device=config.device)
            except NotEnoughData as problem:
                if "usable windows" not in str(problem.detail):
                    raise
                raise NotEnoughData(
                    f"{problem.detail}; give more rows, a shorter window (it is {self.window}) or fewer min_windows"
                ) from problem
        of_frame = _frame_notes(recording, fleet)
        _warn(of_frame)
        self._notes = tuple(dict.fromkeys((*of_frame, *map(str, self._model.card.training["inputs"]))))
        self._config, self._fitted, self._fitted_scores = config, recording, None
        return self

    def fit_predict(self, frame: object, y: object = None) -> Int8:  # noqa: ARG002  # the signature of PyOD
        """Learn from a frame, and return `predict` of the same frame."""
        return self.fit(frame).labels_

    # ------------------------------------------------------------------ results

    def score(self, frame: object) -> Float32:
        """Return the anomaly score [rows] of each row: 1.0 = the threshold, higher = more anomalous.

        NaN = not scored: the window that ends at the row is not full yet, or its hole is longer than `max_gap`.
        """
        return self._score_rows(self._read(frame))

    def decision_function(self, frame: object) -> Float32:
        """Return `score`, by its name in PyOD."""
        return self.score(frame)

    def predict(self, frame: object) -> Int8:
        """Return 1 for each anomalous row and 0 for the others [rows], those without a score included."""
        return _labels(self.score(frame))

    def explain(self, frame: object, rows: Sequence[int] | None = None) -> list[Explanation]:
        """Return the sensors behind the scores of some rows. `rows`: None = all anomalous ones, in order."""
        recording = self._read(frame)
        wanted = None if rows is None else _row_numbers(rows, len(recording))
        found: list[Explanation] = []
        for part in self._scored(recording):
            row_of, score = part.rows_at(part.last_cell), part.scores.score
            chosen = score >= 1.0 if wanted is None else np.isin(row_of, wanted) & ~np.isnan(score)
            at = np.flatnonzero(chosen)
            explained = self._contributions(recording.assets[part.asset], part, at)
            for n, sensors in zip(at.tolist(), explained, strict=True):
                row = int(row_of[n])
                when = from_us(int(recording.ts_us[row]))
                found.append(Explanation(row, recording.assets[part.asset], when, float(score[n]), sensors))
        if unscored := sorted(set(wanted or ()) - {each.row for each in found}):
            _warn([f"rows: {unscored[0]} has no score of its own, so there is nothing to explain"])
        return sorted(found, key=lambda each: each.row)

    def alerts(self, frame: object) -> list[DetectedAlert]:
        """Return the alerts that the daemon would raise, in order of their start."""
        recording = self._read(frame)
        model, fleet = self._trained()
        deciders: dict[int, Decider] = {}
        found: dict[tuple[int, int], DetectedAlert] = {}
        for part in self._scored(recording):
            decider = deciders.setdefault(part.asset, Decider(fleet.name, AlertPolicy.of(fleet.alerts)))
            anomalous = np.flatnonzero(part.scores.score >= 1.0)
            explained = self._contributions(recording.assets[part.asset], part, anomalous)
            contributions = dict(zip(anomalous.tolist(), explained, strict=True))
            versions = [model.version] * len(part.windows)
            scores = Scores(part.windows, part.scores.score, versions, contributions)
            for change in decider.decide(scores, (part.last_cell + 1) * fleet.interval_us):
                found[part.asset, change.opened_us] = _alert(recording.assets[part.asset], part, change, fleet)
        return sorted(found.values(), key=lambda alert: (alert.start, alert.asset))

    @property
    def decision_scores_(self) -> Float32:
        """Scores [rows] of the frame that was learnt from."""
        if self._fitted is None:
            raise NotFound("the frame that was learnt from: call fit first; a loaded detector has none")
        if self._fitted_scores is None:
            self._fitted_scores = self._score_rows(self._fitted)
        return self._fitted_scores

    @property
    def labels_(self) -> Int8:
        """1 for each anomalous row of the frame that was learnt from, and 0 for the others [rows]."""
        return _labels(self.decision_scores_)

    @property
    def threshold_(self) -> float:
        """The score from which a row is anomalous. Always 1.0."""
        return 1.0

    @property
    def notes_(self) -> tuple[str, ...]:
        """What was noticed while learning: columns without readings, counters, constants, rows that share a cell."""
        return self._notes

    @property
    def card_(self) -> Card:
        """Everything known about the trained model: receipt, threshold with its evidence, troubles, metrics."""
        return self._trained()[0].card

    # ------------------------------------------------------------------ keep

    def save(self, folder: str | Path) -> Path:
        """Write the model into a folder of its own inside `folder`, and return that folder.

        It holds the files of a daemon's checkpoint: `card.json` and `weights.safetensors`.
        """
        return Path(folder) / self._trained()[0].save(Path(folder))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        time: str | None = None,
        asset: str | None = None,
        max_gap: str | timedelta | None = None,
        device: str = "auto",
    ) -> Self:
        """Read a checkpoint's folder: one that `save` returned, or one of a daemon.

        The other arguments are those of `Detector`. Raises CheckpointDamaged or CheckpointUnavailable.
        """
        from monitor.models.detector import TrainedModel

        model = TrainedModel.load(Path(path), device)
        card, limit = model.card, model.card.threshold
        interval = timedelta(seconds=card.interval_s)
        detector = cls(
            card.length,
            f"{limit.alarms_per_week:.9g}/week",
            interval=interval,
            time=time,
            asset=asset,
            sensors=card.sensors,
            stride=max(1, round(limit.step_s / card.interval_s)),
            max_gap=max_gap,
            confirm=f"{limit.confirm} of {limit.among}",
            recover=limit.recover,
            architecture=card.architecture,
            objective=card.objective,
            seed=card.seed,
            device=device,
        )
        detector._model, detector._config = model, detector._configured(interval, card.sensors)
        return detector

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002  # the signature of scikit-learn
        """Return the arguments by name, so that `sklearn.base.clone` works."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def set_params(self, **arguments: Any) -> Self:
        """Change arguments. They count from the next `fit` on."""
        names = list(self.get_params())
        for name, value in arguments.items():
            if name not in names:
                raise BadArgument(f"{name}: there is no such argument; there are {', '.join(names)}")
            setattr(self, name, value)
        return self

    # ------------------------------------------------------------------ frame → windows → scores

    def _configured(self, interval: str | timedelta, sensors: Sequence[str]) -> Config:
        """Return the configuration of a daemon with these arguments. Raises BadArgument."""
        fleet = {
            "name": NAME,
            "interval": interval,
            "sensors": sensors,
            "window": self.window,
            "stride": self.stride,
            "lateness": timedelta(),  # a frame has no late rows
            "fields": {name: list(getattr(self, name)) for name in _FIELDS if len(getattr(self, name))},
            "model": {name: getattr(self, name) for name in _MODEL},
            "alerts": {name: getattr(self, name) for name in _ALERTS},
            "retrain": {"every": "never", "history": ALL_TIME, "min_windows": self.min_windows},
        }
        if self.max_gap is not None:
            fleet["max_gap"] = self.max_gap
        # The keys of [kafka] are required, but no broker is contacted: the records come from memory.
        kafka = {"bootstrap": "localhost:9092", "topics": [NAME], "group": "library"}
        try:
            return parse({"kafka": kafka, "device": self.device, "fleet": [fleet]})
        except ConfigError as problem:
            lines = _SETTING.sub("", problem.detail.partition("\n")[2])
            raise BadArgument("; ".join(lines.splitlines())) from problem

    def _check_lists(self) -> None:
        """Raise BadArgument for an argument that is no list, or holds something else than it should."""
        for name in ("sensors", "circular", "missing"):
            value, example = getattr(self, name), "[-999]" if name == "missing" else '["flow"]'
            if value is None and name == "sensors":
                continue
            if isinstance(value, str | bytes) or not hasattr(value, "__len__") or not hasattr(value, "__iter__"):
                raise BadArgument(f"{name}: {value!r} is no list; write {name}={example}")
            kind: type | tuple[type, ...] = (int, float, np.number) if name == "missing" else str
            if odd := next((each for each in value if not isinstance(each, kind)), None):
                raise BadArgument(f"{name}: {odd!r} is no {'number' if name == 'missing' else 'name'}; write {example}")

    def _trained(self) -> tuple[TrainedModel, FleetConfig]:
        if self._model is None or self._config is None:
            raise NotFound("a trained model: call fit first, or Detector.load")
        return self._model, self._config.fleets[0]

    def _read(self, frame: object) -> Recording:
        """Return a frame's readings of the sensors that the model knows."""
        fleet = self._trained()[1]
        recording = read_frame(frame, FrameColumns(self.time, self.asset, fleet.sensors), fleet.interval_us)
        _warn(_frame_notes(recording, fleet))
        return recording

    def _scored(self, recording: Recording) -> Iterator[_ScoredWindows]:
        """Yield the windows of one asset after the other, by the decoder and the windower of the pipeline."""
        model, fleet = self._trained()
        for number, name in enumerate(recording.assets):
            rows = np.flatnonzero(recording.asset == number)
            rows = rows[np.argsort(recording.ts_us[rows], kind="stable")]
            cells = cells_of(recording.ts_us[rows], fleet.interval_us)
            windower = Windower(
                length=fleet.length,
                stride=fleet.stride,
                lateness_cells=fleet.lateness_cells,
                max_gap_cells=fleet.max_gap_cells,
                n_sensors=len(recording.sensors),
            )
            for readings in self._decoded(recording.rows(rows, (name,))):
                windows = windower.push(readings).windows
                if len(windows):
                    with _one_torch_thread():
                        ends_us = (windows.start + fleet.length) * fleet.interval_us
                        scores = model.score(windows.values, [name] * len(windows), end_us=ends_us)
                    yield _ScoredWindows(number, rows, cells, windows, scores)

    def _decoded(self, recording: Recording) -> Iterator[Readings]:
        """Yield the readings of one asset as the daemon would decode them. Raises BadArgument."""
        if self._config is None:
            return
        decoder = make_decoder(self._config, schemas_of(self._config))
        for batch in as_records(recording, partition=Partition(NAME, 0)):
            decoded = decoder.decode(batch)
            if decoded.quarantined:
                raise BadArgument(f"asset {recording.assets[0]}: {decoded.quarantined[0].reason}")
            for readings in decoded.readings:
                yield from in_slices(readings)

    def _score_rows(self, recording: Recording) -> Float32:
        """Return the score [rows] of the newest window that ends at each row, or less than a stride before it."""
        score = np.full(len(recording), np.nan, np.float32)
        stride = self._trained()[1].stride
        for part in self._scored(recording):
            newest = np.searchsorted(part.last_cell, part.cells, side="right") - 1
            ends_here = (newest >= 0) & (part.cells - part.last_cell[newest] < stride)
            score[part.rows[ends_here]] = part.scores.score[newest[ends_here]]
        return score

    def _contributions(self, name: str, part: _ScoredWindows, at: Int64) -> list[tuple[Contribution, ...]]:
        """Return the contributions to the scores of these windows. `name`: of their asset."""
        if not len(at):
            return []
        with _one_torch_thread():
            return self._trained()[0].explain(part.windows.values[at], part.scores.share[at], [name] * len(at))


_MODEL = ("architecture", "objective", "seed", "max_train", "max_trim")
_ALERTS = ("budget", "confirm", "recover")
_FIELDS = ("circular", "missing")
"""Arguments of `Detector` that are settings of [fleet.model], [fleet.alerts] and [fleet.fields]."""


def _alert(asset: str, part: _ScoredWindows, change: AlertChange, fleet: FleetConfig) -> DetectedAlert:
    last_cells = np.array([change.opened_us, change.at_us]) // fleet.interval_us - 1
    first_row, last_row = part.rows_at(last_cells).tolist()
    return DetectedAlert(
        asset=asset,
        start=from_us(change.opened_us),
        end=from_us(change.at_us) if change.state is AlertState.CLOSED else None,
        peak=change.peak_score,
        peak_at=from_us(change.peak_us),
        severity=change.severity,
        sensors=change.contributions,
        first_row=first_row,
        last_row=last_row,
    )


def _frame_notes(recording: Recording, fleet: FleetConfig) -> list[str]:
    """Return what to tell of a frame: values that are missing, and times of another step than the model's."""
    notes, step_us = list(recording.notes), recording.interval_us
    n_shared = len(recording) - count_cells(recording, fleet.interval_us)
    interval = span_text(fleet.interval_us)
    if n_shared > len(recording) // 10:
        notes.append(f"{n_shared:,} of {len(recording):,} rows share an interval of {interval} with an earlier row")
    if step_us >= 2 * fleet.interval_us:
        notes.append(f"rows are {span_text(step_us)} apart, and the interval is {interval}: windows have holes")
    return notes


def _warn(notes: Iterable[str]) -> None:
    """Warn the caller of a method of Detector."""
    for note in notes:
        warnings.warn(note, stacklevel=3)


def _row_numbers(rows: object, n: int) -> list[int]:
    """Return numbers of rows from 0. Negative ones count from the end. Raises BadArgument."""
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or (len(numbers) and numbers.dtype.kind not in "iu"):
        raise BadArgument(f"rows: {rows!r} is no list of row numbers; write rows=[5]")
    for row in numbers.tolist():
        if not -n <= row < n:
            raise BadArgument(f"rows: {row} is no row of the frame; it has {n:,} rows, 0 to {n - 1}")
    return [int(row) % n for row in numbers.tolist()]


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Compute with one thread, as the daemon does: small networks are slower with more, and results would differ."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _labels(score: Float32) -> Int8:
    return (score >= 1.0).astype(np.int8)  # False for NaN
