"""Windows in, anomaly scores out. One thread owns the device; torch never runs on the event loop.

Which version scores a window is a function of the window alone: the newest one activated at or before its end. So a
replay, or a partition that lags behind, picks the same version as the live run did. No version: the score is NaN,
with the reason, and never 0. A checkpoint that cannot be read *now* gives no score at all: whoever holds the partition
waits for it, for another holder would have had it.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

from monitor import logs, metrics
from monitor.errors import CheckpointDamaged, CheckpointUnavailable, NoChampion
from monitor.models.checkpoint import CARD
from monitor.models.detector import Detector
from monitor.types import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from monitor.types import Bool, Contribution, Float32, Int64, Windows

log = logs.get("score")


class Scorer(Protocol):
    """What the pipeline needs of a scorer."""

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        """Score windows; NaN where no version can. `end_us`: [N], event time of the windows' ends.

        Raises CheckpointUnavailable: ask again.
        """


class Activation(NamedTuple):
    """From this event time on, a version decides: windows that end *after* it are its own."""

    from_window_end_us: int
    version: str
    path: Path


def waiting_for(version: str, fleet: str, *, at_start: bool = False) -> str:
    """Say what is waited for, and how to go on without it: a tired operator reads this."""
    way_out = f"`monitor retrain {fleet}` trains another" if at_start else "restart this daemon"
    return f"Waiting for {version} of {fleet}: mount or restore the checkpoints folder; if it is lost, {way_out}"


READ_AGAIN_S = 5.0
"""How often a checkpoint that cannot be read is tried again, while windows need it."""


class _Champions(NamedTuple):
    """Who decides a fleet, and under which state of the database's activations; replaced whole."""

    seq: int | None
    activations: Sequence[Activation]
    """Earliest boundary first."""


_NONE = _Champions(None, ())


class DetectorScorer:
    """The champions of all fleets, past ones too, loaded when first needed."""

    def __init__(self, device: str = "auto") -> None:
        self._device = device
        self._champions: dict[str, _Champions] = {}
        self._detectors: dict[str, Detector | CheckpointDamaged] = {}
        self._tried_at_s: dict[str, float] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score", initializer=_one_torch_thread)

    async def load(self, path: Path) -> Detector:
        """Read a checkpoint and try it on noise. Raises CheckpointDamaged, CheckpointUnavailable: keep what is."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._load, path)

    def activate(self, fleet: str, activation: Activation, detector: Detector | None = None) -> None:
        """Let a version decide the fleet's windows from an event time on, instead of one that began there too."""
        known = self._champions.get(fleet, _NONE).activations
        others = [each for each in known if each.from_window_end_us != activation.from_window_end_us]
        self._champions[fleet] = _Champions(None, sorted([*others, activation]))
        if detector is not None:
            self._detectors[activation.version] = detector

    def follow(self, fleet: str, seq: int, activations: Sequence[Activation]) -> None:
        """Let the fleet be decided as the database says, under this `activation_seq`: for daemons, which save only
        what the seq of that moment decided.
        """
        self._champions[fleet] = _Champions(seq, sorted(activations))

    def keep(self, detector: Detector) -> None:
        """Hold a version that was loaded already."""
        self._detectors[detector.version] = detector

    def holds(self, version: str) -> bool:
        """Whether a version is loaded and can score."""
        return isinstance(self._detectors.get(version), Detector)

    async def forgo(self, activations: Sequence[Activation]) -> list[str]:
        """Do without those whose files are not there: their windows stay unscored until they are. Return which."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._forgo, activations)

    def seq_of(self, fleet: str) -> int | None:
        """Return the seq that is followed; None = none."""
        return self._champions.get(fleet, _NONE).seq

    def has_champion(self, fleet: str) -> bool:
        """Whether any version was ever activated."""
        return bool(self._champions.get(fleet, _NONE).activations)

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        """Score windows on the scoring thread; see `Scorer`."""
        if not len(windows):
            return Scores(windows, np.empty(0, np.float32), (), {}, activation_seq=self.seq_of(windows.fleet))
        with metrics.score_seconds.time():
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._score, windows, end_us, sensors)

    def close(self) -> None:
        """Let the device go."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    # ------------------------------------------------------------------ on the scoring thread

    def _score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        n = len(windows)
        score = np.full(n, np.nan, dtype=np.float32)
        version: list[str | None] = [None] * n
        contributions: dict[int, tuple[Contribution, ...]] = {}
        reason = None
        seq, activations = self._champions.get(windows.fleet, _NONE)
        decides_from = np.array([activation.from_window_end_us for activation in activations], dtype=np.int64)
        decider = np.searchsorted(decides_from, end_us, side="left") - 1
        for number in np.unique(decider).tolist():
            rows = np.flatnonzero(decider == number)
            try:
                detector = self._usable(activations[number] if number >= 0 else None, windows, sensors)
            except (NoChampion, CheckpointDamaged) as error:
                reason = str(error)
                continue
            whole = len(rows) == n
            score[rows], found = _score_rows(detector, windows.values if whole else windows.values[rows])
            contributions |= {int(rows[row]): of_row for row, of_row in found.items()}
            for row in rows.tolist():
                version[row] = detector.version
        return Scores(windows, score, version, contributions, reason, seq)

    def _forgo(self, activations: Sequence[Activation]) -> list[str]:
        missing = []
        for each in activations:
            try:
                if each.version not in self._detectors:
                    (each.path / CARD).stat()
            except OSError as error:
                self._detectors[each.version] = CheckpointDamaged(f"{each.path}: {error.strerror}")
                missing.append(each.version)
        return missing

    def _usable(self, activation: Activation | None, windows: Windows, sensors: Sequence[str]) -> Detector:
        if activation is None:
            raise NoChampion(windows.fleet)
        detector = self._detectors.get(activation.version)
        if detector is None or (isinstance(detector, CheckpointDamaged) and self._may_try(activation.version)):
            try:
                detector = self._load(activation.path)
            except CheckpointDamaged as error:
                log.exception("checkpoint_damaged", version=activation.version)
                detector = error
            except CheckpointUnavailable as error:
                if detector is None:  # nobody decided yet to do without it
                    raise CheckpointUnavailable(error.detail, waiting_for(activation.version, windows.fleet)) from error
            self._detectors[activation.version] = detector
        if isinstance(detector, CheckpointDamaged):
            raise detector
        card = detector.card
        if tuple(card.sensors) != tuple(sensors) or card.length != windows.values.shape[1]:
            raise NoChampion(
                f"{activation.version} of {windows.fleet} was trained on {card.length} cells of "
                f"{', '.join(card.sensors)}; the configuration now has {windows.values.shape[1]} cells of "
                f"{', '.join(sensors)}: retrain"
            )
        return detector

    def _may_try(self, version: str) -> bool:
        """Now and then, what could not be read: the files may have come, or come back."""
        now_s = time.monotonic()
        if now_s - self._tried_at_s.get(version, -READ_AGAIN_S) < READ_AGAIN_S:
            return False
        self._tried_at_s[version] = now_s
        return True

    def _load(self, path: Path) -> Detector:
        detector = Detector.load(path, self._device)
        noise = np.random.default_rng(0).normal(size=(2, detector.card.length, len(detector.card.sensors)))
        if not np.isfinite(detector.score(noise.astype(np.float32)).score).all():
            raise CheckpointDamaged(f"{path}: it scores noise as {detector.score(noise.astype(np.float32)).score}")
        return detector


def _score_rows(detector: Detector, values: Float32) -> tuple[Float32, dict[int, tuple[Contribution, ...]]]:
    scored = detector.score(values)
    anomalous: Bool = scored.score >= 1.0  # False for NaN
    rows = np.flatnonzero(anomalous)
    if not len(rows):
        return scored.score, {}
    return scored.score, dict(zip(rows.tolist(), detector.explain(values[rows], scored.share[rows]), strict=True))


def _one_torch_thread() -> None:
    # More threads make small convolutions slower, and fight with the event loop for the cores.
    torch.set_num_threads(1)
