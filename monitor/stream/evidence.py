"""Evidence of alerts: the readings, expected values and scores of the windows from the one that fired until it closes.

Input: windows with their scores and the alert changes decided by them. Output: `EvidencePart`s for the transaction of
those changes. Invariant: joined, the parts of an alert are a function of its windows alone, however the log was cut
into batches. The window that fired gives all its cells, each later window those that end after the window before it.

The only state is the end of each open alert's last window. It is the end of the asset's last stored window, so a
restart reads it from the database.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monitor.types import AlertState, EvidencePart

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from monitor.types import AlertChange, Float32, Int32, Int64, Windows

KEPT_WINDOWS = 4
"""Windows of cells that are kept at full resolution."""
MAX_EARLIER = 256
"""Scores before the window that fired: of one window, and no more than these."""


class AlertRow(NamedTuple):
    """A window that belongs to an alert."""

    row: int
    opened_us: int
    """Of the alert."""
    from_us: int
    """Event time from which its cells are new."""
    is_first: bool
    """Whether the window fired the alert."""


@dataclass(slots=True)
class _Alert:
    opened_us: int
    covered_us: int
    """End of the last window in the evidence."""


@dataclass(slots=True)
class _Pieces:
    """The additions of one batch to the evidence of one alert."""

    earlier_start_us: tuple[int, ...] = ()
    cell_us: list[Int64] = field(default_factory=list)
    values: list[Float32] = field(default_factory=list)
    expected: list[Float32] = field(default_factory=list)
    end_us: list[int] = field(default_factory=list)
    score: list[float] = field(default_factory=list)


class EvidenceRecorder:
    """The open alerts of one shard, and how far their evidence reaches."""

    def __init__(self, *, length: int, stride: int, interval_us: int) -> None:
        """`length`, `stride`: of the windows, in cells."""
        self._length = length
        self._stride = stride
        self._interval_us = interval_us
        self._open: dict[int, _Alert] = {}

    def restore(self, asset: int, opened_us: int, covered_us: int) -> None:
        """Continue the evidence of an alert that is open. `covered_us`: end of the asset's last window."""
        self._open[asset] = _Alert(opened_us, covered_us)

    def select(self, asset: Int32, end_us: Int64, changes: Iterable[AlertChange]) -> list[AlertRow]:
        """Return the windows that belong to alerts, in order. `asset`, `end_us`: [N], of all windows."""
        steps: dict[int, list[AlertChange]] = defaultdict(list)
        for change in changes:
            if change.is_transition:
                steps[change.asset].append(change)
        followed = np.fromiter(self._open.keys() | steps.keys(), dtype=np.int64)
        if not len(followed):
            return []
        found = []
        for row in np.flatnonzero(np.isin(asset, followed)).tolist():
            number, end = int(asset[row]), int(end_us[row])
            alert, is_first = self._open.get(number), False
            step = next((each for each in steps[number] if each.at_us == end), None)
            if alert is None:
                if step is None or step.state is not AlertState.FIRING:
                    continue
                is_first = True
                alert = self._open[number] = _Alert(step.opened_us, end - self._length * self._interval_us)
            found.append(AlertRow(row, alert.opened_us, alert.covered_us, is_first))
            alert.covered_us = max(alert.covered_us, end)
            if step is not None and step.state is AlertState.CLOSED:
                del self._open[number]
        return found

    def parts(
        self, sensors: Sequence[str], slices: Iterable[tuple[Sequence[AlertRow], Windows, Float32, Float32]]
    ) -> list[EvidencePart]:
        """Return the additions to the evidence of each alert. `slices`: alert rows, windows, scores [N], expected [n].

        `expected`: [n, T, C], of the alert rows.
        """
        pieces: dict[tuple[int, int], _Pieces] = {}
        for rows, windows, score, expected in slices:
            for number, (row, opened_us, from_us, is_first) in enumerate(rows):
                start_us = int(windows.start[row]) * self._interval_us
                begin = min(max(-((start_us - from_us) // self._interval_us), 0), self._length)
                piece = pieces.setdefault((int(windows.asset[row]), opened_us), _Pieces())
                if is_first:
                    piece.earlier_start_us = self._earlier(start_us)
                piece.cell_us.append(start_us + np.arange(begin, self._length, dtype=np.int64) * self._interval_us)
                piece.values.append(windows.values[row, begin:])
                piece.expected.append(expected[number, begin:])
                if not np.isnan(score[row]):
                    piece.end_us.append(start_us + self._length * self._interval_us)
                    piece.score.append(float(score[row]))
        return [
            EvidencePart(
                asset=asset,
                opened_us=opened_us,
                sensors=tuple(sensors),
                cell_us=np.concatenate(piece.cell_us),
                values=np.concatenate(piece.values),
                expected=np.concatenate(piece.expected),
                end_us=np.array(piece.end_us, dtype=np.int64),
                score=np.array(piece.score, dtype=np.float32),
                limit=KEPT_WINDOWS * self._length,
                earlier_start_us=piece.earlier_start_us,
            )
            for (asset, opened_us), piece in pieces.items()
        ]

    def _earlier(self, start_us: int) -> tuple[int, ...]:
        """Return the starts of the windows that may have ended up to one window before this one, oldest first."""
        n = min(self._length // self._stride, MAX_EARLIER)
        return tuple(start_us - k * self._stride * self._interval_us for k in range(n, 0, -1))
