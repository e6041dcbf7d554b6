"""Anomaly scores of windows, by the model versions that are active.

Input: windows. Output: scores, with contributions per sensor for anomalous ones, and findings about the sensors
themselves: one that fails a test is missing for the model (`sensor_health.py`). Invariant: one thread owns the device,
and torch never runs on the event loop. The version of a window is a function of the window alone: the newest one
activated before its end. A replay, or a partition with a lag, uses the same version as the live run.

A window without a version has the score NaN and a reason, never 0. A checkpoint that cannot be read *at the moment*
raises CheckpointUnavailable instead: the caller waits, because another daemon may be able to read the same checkpoint,
and results must not depend on the daemon.
"""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

from monitor import logs, metrics
from monitor.errors import CheckpointDamaged, CheckpointUnavailable, NoChampion
from monitor.models import misfit as misfits
from monitor.models.checkpoint_files import CARD
from monitor.models.detector import TrainedModel
from monitor.stream.sensor_health import NOT_TESTED, SensorTests
from monitor.timing import DEFAULT_TIMING
from monitor.types import Reconstruction, Scores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from monitor.config import FleetConfig
    from monitor.timing import Timing
    from monitor.types import Bool, Contribution, Float32, Int64, Windows

log = logs.get("score")


class Scorer(Protocol):
    """The interface of a scorer for the pipeline."""

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        """Score windows: NaN where no version can. `end_us`: [N], event time of the windows' ends.

        Raises CheckpointUnavailable: call again later.
        """


class BatchGate:
    """A lock between the handling of events and the activation of model versions, which so change between two batches.

    The pipeline holds the gate while it handles an event. `lifecycle` holds it while it activates a version.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self.is_running = False
        """Whether the pipeline has started: from then on windows are scored."""
        self.may_have_new_sensors = False
        """Whether a version was activated that may have been trained on further sensors: the pipeline reads the fleets'
        lists again before the next event."""

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Run the body while no other holder does: no event is handled and no version is activated meanwhile."""
        async with self._lock:
            yield


class ActiveVersion(NamedTuple):
    """A version and the event time from which it scores: windows that end *after* it."""

    from_window_end_us: int
    version: str
    path: Path


def waiting_for(version: str, fleet: str, *, at_start: bool = False) -> str:
    """Name the checkpoint that is waited for and the way to continue without it, for `/ready` and the log."""
    way_out = f"`monitor retrain {fleet}` trains another" if at_start else "restart this daemon"
    return f"Waiting for {version} of {fleet}: mount or restore the checkpoints folder; if it is lost, {way_out}"


class FleetVersions(NamedTuple):
    """The active versions of a fleet, as one value that is replaced as a whole."""

    seq: int | None
    """`activation_seq` of the database at which they were read. None = not from the database."""
    activations: Sequence[ActiveVersion]
    """Earliest boundary first."""


_NONE = FleetVersions(None, ())


class DetectorScorer:
    """Scorer with the champions of all fleets, former ones too. Checkpoints are loaded when first needed."""

    def __init__(
        self, device: str = "auto", *, fleets: Sequence[FleetConfig] = (), timing: Timing = DEFAULT_TIMING
    ) -> None:
        """`fleets`: their settings of single sensors. A fleet that is missing here has none."""
        self._device = device
        self._fleets = {fleet.name: fleet for fleet in fleets}
        self._tests: dict[tuple[str, str | None], tuple[Sequence[str], SensorTests]] = {}
        """By fleet and version: names of the sensors, and the tests of their windows."""
        self._timing = timing
        self._active: dict[str, FleetVersions] = {}
        self._detectors: dict[str, TrainedModel | CheckpointDamaged] = {}
        self._tried_at_s: dict[str, float] = {}
        self._told: dict[str, tuple[str, ...]] = {}
        """By fleet, the version and the sensors of the last line about them. By version, itself: few sensors."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score", initializer=_one_torch_thread)

    async def load(self, path: Path, version: str) -> TrainedModel:
        """Read the checkpoint of a version and try it on noise. Raises CheckpointDamaged, CheckpointUnavailable."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._load, path, version)

    def activate(self, fleet: str, activation: ActiveVersion, detector: TrainedModel | None = None) -> None:
        """Activate a version of the fleet from an event time on. It replaces one with the same event time."""
        known = self._active.get(fleet, _NONE).activations
        others = [each for each in known if each.from_window_end_us != activation.from_window_end_us]
        self._active[fleet] = FleetVersions(None, sorted([*others, activation]))
        if detector is not None:
            self._detectors[activation.version] = detector

    def follow(self, fleet: str, seq: int, activations: Sequence[ActiveVersion]) -> None:
        """Use the fleet's activations in the database as of this `activation_seq`.

        For daemons: a commit with scores of another seq is refused.
        """
        self._active[fleet] = FleetVersions(seq, sorted(activations))

    def keep(self, detector: TrainedModel) -> None:
        """Keep a version that is loaded already."""
        self._detectors[detector.version] = detector

    def leave_out(self, version: str, error: CheckpointDamaged) -> None:
        """Leave the windows of a version unscored, and read its checkpoint no more."""
        self._detectors[version] = error
        self._tried_at_s[version] = math.inf

    def holds(self, version: str) -> bool:
        """Return whether a version is loaded and can score."""
        return isinstance(self._detectors.get(version), TrainedModel)

    def detector(self, version: str) -> TrainedModel | None:
        """Return a version if it is loaded and can score."""
        found = self._detectors.get(version)
        return found if isinstance(found, TrainedModel) else None

    async def skip_missing(self, activations: Sequence[ActiveVersion]) -> list[str]:
        """Return the versions without files. Their windows stay unscored until the files appear."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._skip_missing, activations)

    def seq_of(self, fleet: str) -> int | None:
        """Return the `activation_seq` in use. None = none."""
        return self._active.get(fleet, _NONE).seq

    def champion(self, fleet: str) -> TrainedModel | None:
        """Return the latest activated version, None if there is none or it is not loaded."""
        activations = self._active.get(fleet, _NONE).activations
        found = self._detectors.get(activations[-1].version) if activations else None
        return found if isinstance(found, TrainedModel) else None

    def has_champion(self, fleet: str) -> bool:
        """Return whether any version was ever activated."""
        return bool(self._active.get(fleet, _NONE).activations)

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        """Score windows on the scoring thread. See `Scorer`."""
        if not len(windows):
            return Scores(windows, np.empty(0, np.float32), (), {}, activation_seq=self.seq_of(windows.fleet))
        with metrics.score_seconds.time():
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._score, windows, end_us, sensors)

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    # ------------------------------------------------------------------ on the scoring thread

    def _score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        n = len(windows)
        score = np.full(n, np.nan, dtype=np.float32)
        version: list[str | None] = [None] * n
        contributions: dict[int, tuple[Contribution, ...]] = {}
        findings = np.full((n, windows.values.shape[2]), NOT_TESTED, dtype=np.uint8)
        reason = None
        seq, activations = self._active.get(windows.fleet, _NONE)
        active_from = np.array([activation.from_window_end_us for activation in activations], dtype=np.int64)
        active = np.searchsorted(active_from, end_us, side="left") - 1  # -1 = no version yet
        for number in np.unique(active).tolist():
            rows = np.flatnonzero(active == number)
            detector = None
            try:
                detector = self._usable(activations[number] if number >= 0 else None, windows, sensors)
            except (NoChampion, CheckpointDamaged) as error:
                reason = str(error)
            tests = self._tests_of(windows.fleet, sensors, detector)
            tested, findings[rows] = tests.inspect(windows.values if len(rows) == n else windows.values[rows])
            if detector is None:
                continue
            values = detector.inputs.select(tested, sensors)
            score[rows], found = _score_rows(detector, values, _assets_of(detector, windows, rows), end_us[rows])
            if np.isnan(score[rows]).any():
                self._report_missing(detector, values[np.isnan(score[rows])])
            contributions |= {int(rows[row]): per_sensor for row, per_sensor in found.items()}
            for row in rows.tolist():
                version[row] = detector.version
        return Scores(windows, score, version, contributions, reason, seq, self._reconstruct, findings)

    async def _reconstruct(
        self, scores: Scores, rows: Int64, fired: Int64, sensors: Sequence[str]
    ) -> Reconstruction:
        """Reconstruct rows of scores, on the scoring thread. See `types.Reconstruct`."""
        with metrics.score_seconds.time():
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._reconstruct_rows, scores, rows, fired, sensors)

    def _reconstruct_rows(
        self, scores: Scores, rows: Int64, fired: Int64, sensors: Sequence[str]
    ) -> Reconstruction:
        expected = np.full((len(rows), *scores.windows.values.shape[1:]), np.nan, dtype=np.float32)
        clearing: dict[int, tuple[str, ...]] = {}
        for version in {scores.version[row] for row in rows.tolist()}:
            detector = self._detectors.get(version) if version is not None else None
            if not isinstance(detector, TrainedModel):
                continue
            places = np.flatnonzero([scores.version[row] == version for row in rows.tolist()])
            tests = self._tests_of(scores.windows.fleet, sensors, detector)
            values = detector.inputs.select(tests.inspect(scores.windows.values[rows[places]]).values, sensors)
            known = [(own, sensors.index(name)) for own, name in enumerate(detector.sensors) if name in sensors]
            own, column = (list(each) for each in zip(*known, strict=True))
            assets = _assets_of(detector, scores.windows, rows[places])
            rebuilt = detector.reconstruct(values, assets)[..., own]
            expected[np.ix_(places, np.arange(expected.shape[1]), column)] = rebuilt
            first = np.flatnonzero(np.isin(rows[places], fired))
            if len(first):
                named = None if assets is None else [assets[at] for at in first.tolist()]
                ends_us = ends_of(detector, scores.windows.start[rows[places][first]])
                share = detector.score(values[first], named, end_us=ends_us).share
                found = detector.clearing(values[first], share, named, ends_us)
                clearing |= dict(zip(rows[places][first].tolist(), found, strict=True))
        return Reconstruction(expected, clearing)

    def _tests_of(self, fleet: str, sensors: Sequence[str], detector: TrainedModel | None) -> SensorTests:
        """Return the tests of a fleet's sensors by a version. None = by the settings alone."""
        key = (fleet, detector.version if detector is not None else None)
        known = self._tests.get(key)
        if known is None or known[0] != sensors:
            self._tests[key] = known = (sensors, SensorTests(sensors, self._fleets.get(fleet), detector))
        return known[1]

    def _skip_missing(self, activations: Sequence[ActiveVersion]) -> list[str]:
        missing = []
        for each in activations:
            try:
                if each.version not in self._detectors:
                    (each.path / CARD).stat()
            except OSError as error:
                self._detectors[each.version] = CheckpointDamaged(f"{each.path}: {error.strerror}")
                missing.append(each.version)
        return missing

    def _usable(self, activation: ActiveVersion | None, windows: Windows, sensors: Sequence[str]) -> TrainedModel:
        if activation is None:
            raise NoChampion(windows.fleet)
        detector = self._detectors.get(activation.version)
        if detector is None or (isinstance(detector, CheckpointDamaged) and self._may_retry(activation.version)):
            try:
                detector = self._load(activation.path, activation.version)
            except CheckpointDamaged as error:
                log.exception("checkpoint_damaged", version=activation.version)
                detector = error
            except CheckpointUnavailable as error:
                if detector is None:  # `skip_missing` was not told to continue without it
                    raise CheckpointUnavailable(error.detail, waiting_for(activation.version, windows.fleet)) from error
            self._detectors[activation.version] = detector
        if isinstance(detector, CheckpointDamaged):
            raise detector
        if reason := misfit(detector, windows.values.shape[1], sensors):
            raise NoChampion(f"{activation.version} of {windows.fleet} {reason}: retrain")
        if detector.sensors != tuple(sensors):
            self._report_sensors(windows.fleet, detector, sensors)
        return detector

    def _report_sensors(self, fleet: str, detector: TrainedModel, sensors: Sequence[str]) -> None:
        """Log once per list of sensors that a version scores with those that it knows."""
        if self._told.get(fleet) != (detector.version, *sensors):
            self._told[fleet] = (detector.version, *sensors)
            log.info(
                "sensors_differ",
                fleet=fleet,
                version=detector.version,
                missing=[name for name in detector.sensors if name not in sensors],
                ignored=[name for name in sensors if name not in detector.sensors],
                doing="missing sensors are masked, and ignored ones wait for the next training",
            )

    def _report_missing(self, detector: TrainedModel, values: Float32) -> None:
        """Log once per version that windows have too few sensors for a score. Empty windows are no news."""
        if detector.states is not None and detector.states.left_out:
            is_transition = detector.states.classify(values) == detector.states.transition
            values = values[~is_transition]
            if is_transition.any() and self._told.get(f"{detector.version} transitions") is None:
                self._told[f"{detector.version} transitions"] = (detector.version,)
                log.info(
                    "transitions_left_out",
                    version=detector.version,
                    windows=int(is_transition.sum()),
                    sensor=detector.states.sensor,
                    doing="windows between two operating states stay unscored ([fleet.states] transitions); said once",
                )
        few = np.isfinite(values).any(axis=(1, 2))
        if few.any() and self._told.get(detector.version) is None:
            self._told[detector.version] = (detector.version,)
            log.warning(
                "too_few_sensors",
                version=detector.version,
                windows=int(few.sum()),
                needs=f"values of {detector.card.min_channels} of {len(detector.inputs.channels)} channels in a window",
                doing="such windows stay unscored; said once",
            )

    def _may_retry(self, version: str) -> bool:
        """Return whether it is time to read a damaged or missing checkpoint again: its files may have come back."""
        now_s = time.monotonic()
        if now_s - self._tried_at_s.get(version, -self._timing.checkpoint_retry_s) < self._timing.checkpoint_retry_s:
            return False
        self._tried_at_s[version] = now_s
        return True

    def _load(self, path: Path, version: str) -> TrainedModel:
        detector = TrainedModel.load(path, self._device)
        if detector.version != version:
            raise CheckpointDamaged(f"{path} holds {detector.version}, not {version}")
        detector.self_test()
        return detector


def misfit(detector: TrainedModel, length: int, sensors: Sequence[str]) -> str | None:
    """Return the reason why a version cannot score windows of this length and these sensors. None = it can."""
    return misfits.reason(detector.card.length, detector.inputs.taken, length, sensors)


def _assets_of(detector: TrainedModel, windows: Windows, rows: Int64) -> list[str] | None:
    """Return the name of the asset of each of these rows. None = not known, or the version treats all assets alike.

    A name per window costs more than the comparison with its threshold.
    """
    if not detector.needs_assets or not windows.names:
        return None
    return [windows.names[number] for number in windows.asset[rows].tolist()]


def ends_of(detector: TrainedModel, start: Int64) -> Int64:
    """Return the event times of the ends of windows that start at these cells."""
    return (start + detector.card.length) * round(detector.card.interval_s * 1e6)


def _score_rows(
    detector: TrainedModel, values: Float32, assets: Sequence[str] | None, end_us: Int64
) -> tuple[Float32, dict[int, tuple[Contribution, ...]]]:
    scored = detector.score(values, assets, end_us=end_us, share_normal=False)
    anomalous: Bool = scored.score >= 1.0  # False for NaN
    rows = np.flatnonzero(anomalous)
    if not len(rows):
        return scored.score, {}
    named = None if assets is None else [assets[row] for row in rows.tolist()]
    explained = detector.explain(values[rows], scored.share[rows], named)
    return scored.score, dict(zip(rows.tolist(), explained, strict=True))


def _one_torch_thread() -> None:
    # More threads make small convolutions slower, and compete with the event loop for the cores.
    torch.set_num_threads(1)
