"""The rules of evidence. Input: the windows of an asset, their scores, its cells by the log. Output: what is kept.

The window that fired gives all its cells, each later window up to the closing one the cells behind the window before.
As soon as there are as many cells as in four windows, every other one of the older half is dropped. Scores begin one
window earlier, at most 256 of them, and of two that become one the higher is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from monitor.store.evidence_chunks import decode
from tests.oracle.windows import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.oracle.windows import ExpectedShard

MAX_EARLIER = 256
Scored = tuple[int, int, float | None]
"""(start, end, score) of a stored window."""


@dataclass
class ExpectedEvidence:
    cells: list[tuple[int, list[float | None]]] = field(default_factory=list)
    """(event time, values) that are kept."""
    scores: list[tuple[int, float]] = field(default_factory=list)
    """(end, score) that are kept."""
    n_cells: int = 0
    """Before thinning."""


def expected_evidence(
    shard: ExpectedShard, asset: str, windows: Sequence[Scored], fired_us: int, closed_us: int | None
) -> ExpectedEvidence:
    """Return the evidence of an alert. `windows`: the asset's, in order. `fired_us`: end of the one that fired."""
    rule, found = shard.rule, ExpectedEvidence()
    limit, length_us = 4 * rule.length, rule.length * rule.interval_us
    covered_us = None
    for start_us, end_us, score in windows:
        is_earlier = fired_us - min(length_us, MAX_EARLIER * rule.stride * rule.interval_us) <= end_us < fired_us
        in_alert = end_us >= fired_us and (closed_us is None or end_us <= closed_us)
        if (is_earlier or in_alert) and score is not None and not math.isnan(score):
            found.scores = _thinned_scores([*found.scores, (end_us, score)], limit)
        if not in_alert:
            continue
        values = shard.values(Window(asset, start_us // rule.interval_us, 0, 0, 0))
        for place, row in enumerate(values):
            at_us = start_us + place * rule.interval_us
            if covered_us is None or at_us >= covered_us:
                found.n_cells += 1
                found.cells.append((at_us, row))
                if len(found.cells) == limit:
                    found.cells = [*found.cells[: limit // 2 : 2], *found.cells[limit // 2 :]]
        covered_us = end_us
    return found


def _thinned_scores(scores: list[tuple[int, float]], limit: int) -> list[tuple[int, float]]:
    if len(scores) < limit:
        return scores
    older = zip(scores[: limit // 2 : 2], scores[1 : limit // 2 : 2], strict=True)
    return [*(max(pair, key=lambda each: each[1]) for pair in older), *scores[limit // 2 :]]


@dataclass
class StoredEvidence:
    """The chunks of an alert, one after the other, thinned as their joined form is."""

    cells: list[tuple[int, list[float | None]]]
    scores: list[tuple[int, float]]
    expected: list[list[float | None]]
    sensors: list[str]


def read(bodies: Iterable[bytes]) -> StoredEvidence:
    """Read the chunks of one alert in order."""
    chunks = [decode(bytes(body)) for body in bodies]
    sensors = list(dict.fromkeys(name for chunk in chunks for name in chunk.evidence.sensors))
    limit = chunks[0].limit
    kept: list[tuple[int, list[float | None], list[float | None]]] = []
    scores: list[tuple[int, float]] = []
    for part, _ in chunks:
        for at_us, *rows in zip(part.cell_us.tolist(), part.values.tolist(), part.expected.tolist(), strict=True):
            values, expected = (_by_sensor(row, part.sensors, sensors) for row in rows)
            kept.append((at_us, values, expected))
            if len(kept) == limit:
                kept = [*kept[: limit // 2 : 2], *kept[limit // 2 :]]
        for each in zip(part.end_us.tolist(), part.score.tolist(), strict=True):
            scores = _thinned_scores([*scores, each], limit)
    return StoredEvidence([each[:2] for each in kept], scores, [each[2] for each in kept], sensors)


def _by_sensor(row: Sequence[float], own: Sequence[str], sensors: Sequence[str]) -> list[float | None]:
    known = {name: value for name, value in zip(own, row, strict=True) if not math.isnan(value)}
    return [known.get(name) for name in sensors]
