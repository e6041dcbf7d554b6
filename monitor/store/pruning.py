"""Which checkpoints are kept, and the marks of those that are not.

Input: a fleet, and the event time from which its windows are stored or may still be decided. Output: versions marked
with `pruned_us`, whose folders may be removed.
Invariant: a version is marked before its folder is removed, under the lock of activations and with a new
`activation_seq`. So no daemon commits scores by it afterwards, and none waits for its files.

The rule: a version keeps its checkpoint while
- an alias names it, or it is in shadow;
- it is one of the fleet's last `keep_versions` others, in the order of their publication;
- it decides windows that are stored (`store.keep_scores`), or that a partition with a lag may still finish.

Scores stay when their version is pruned, and the event tells how many name it: these cannot be replayed exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from monitor.store import registry, scores, versions
from monitor.store.acts import MONITOR
from monitor.types import ModelEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Row

LAGGING_US = 30 * 86_400_000_000
"""A partition without a commit for so long, in processing time, is not waited for: its topic may be gone."""

_CANDIDATES = text("""
    SELECT id, version, fleet, path FROM model_version
    WHERE fleet = :fleet AND pruned_us IS NULL AND state NOT IN ('champion', 'shadow')
        AND id NOT IN (SELECT version_id FROM model_alias WHERE fleet = :fleet)
    ORDER BY id DESC LIMIT -1 OFFSET :keep
""")
_CANDIDATES_POSTGRESQL = text(str(_CANDIDATES).replace("LIMIT -1", "LIMIT ALL"))
_BOUNDARIES = text("""
    SELECT from_window_end_us, version_id FROM model_activation WHERE fleet = :fleet ORDER BY from_window_end_us
""")
_MARK = text("UPDATE model_version SET pruned_us = :at_us WHERE id = :id")
_MARKED = text("SELECT version, path FROM model_version WHERE pruned_us <= :before_us")
# Of partitions with a lag or with unfinished windows, the end of the newest window of each.
_PROGRESS = text("""
    SELECT MAX(last_window.end_us) AS end_us
    FROM asset JOIN last_window ON last_window.asset_id = asset.id
    JOIN source_partition ON source_partition.topic = asset.topic AND source_partition.partition = asset.partition
    WHERE asset.fleet = :fleet AND saved_us >= :since_us AND last_window.end_us <= :horizon_us
        AND (log_end > next_offset OR rewind_offset < next_offset)
    GROUP BY source_partition.pipeline, asset.topic, asset.partition
    ORDER BY 1 LIMIT 1
""")
_LONGEST = text("""
    SELECT MAX(end_us - start_us) FROM last_window JOIN asset ON asset.id = asset_id WHERE fleet = :fleet
""")
_COUNT = text("""
    SELECT COUNT(*) FROM score WHERE version_id = :id AND start_us >= :from_us AND start_us < :to_us
""")
_END_OF_TIME_US = 1 << 62


class Pruned(NamedTuple):
    """A version without a checkpoint."""

    version: str
    n_scores: int
    """Stored scores that name it."""


def needed_from_us(
    connection: Connection, fleet: str, stored_from_us: int | None, now_us: int, lateness_us: int
) -> int | None:
    """Return the event time from which a fleet's windows are stored, or may still be decided.

    `stored_from_us`: scores before it expire; None = none does. None = all windows are needed.
    """
    newest = scores.newest_windows(connection).get(fleet)
    if stored_from_us is None or newest is None:
        return None
    values = {"fleet": fleet, "since_us": now_us - LAGGING_US, "horizon_us": newest.horizon_us}
    progress_us = connection.execute(_PROGRESS, values).scalar()
    return stored_from_us if progress_us is None else min(stored_from_us, progress_us - lateness_us)


def prunable(
    connection: Connection, fleet: str, keep_versions: int, from_us: int | None
) -> dict[str, list[tuple[int, int]]]:
    """Return the versions whose checkpoint the rule does not keep, with the ranges (after, to] of ends they decided."""
    return {row.version: ranges for row, ranges in _prunable(connection, fleet, keep_versions, from_us)}


def count_scores(connection: Connection, fleet: str, ranges_of: Mapping[str, list[tuple[int, int]]]) -> dict[str, int]:
    """Return the number of stored scores by version. Reads only the times that it decided."""
    longest_us = connection.execute(_LONGEST, {"fleet": fleet}).scalar() or 0
    known = versions.ids(connection, list(ranges_of))
    return {
        version: sum(
            connection.execute(_COUNT, {"id": number, "from_us": from_us - longest_us, "to_us": to_us}).scalar_one()
            for from_us, to_us in ranges
        )
        for number, (version, ranges) in zip(known, ranges_of.items(), strict=True)
    }


def mark(
    connection: Connection, fleet: str, keep_versions: int, from_us: int | None, n_scores: Mapping[str, int], at_us: int
) -> list[Pruned]:
    """Mark those of `n_scores` that may still be pruned, with an event. Aliases may have moved since they were chosen.

    `n_scores`: the stored scores that name each version.
    """
    versions.lock_activations(connection, fleet)
    chosen = [row for row, _ in _prunable(connection, fleet, keep_versions, from_us) if row.version in n_scores]
    for row in chosen:
        connection.execute(_MARK, {"id": row.id, "at_us": at_us})
        detail = {"n_scores": n_scores[row.version]}
        registry.record(connection, ModelEvent.PRUNED, row, MONITOR, at_us, detail=detail)
    if chosen:
        versions.raise_activation_seq(connection, fleet)
    return [Pruned(row.version, n_scores[row.version]) for row in chosen]


def marked(connection: Connection, before_us: int) -> list[tuple[str, str]]:
    """Return the version and folder of those marked before a processing time. Their folders may be removed."""
    return [tuple(row) for row in connection.execute(_MARKED, {"before_us": before_us})]


def _prunable(
    connection: Connection, fleet: str, keep_versions: int, from_us: int | None
) -> list[tuple[Row[tuple[object, ...]], list[tuple[int, int]]]]:
    sql = _CANDIDATES if connection.dialect.name == "sqlite" else _CANDIDATES_POSTGRESQL
    rows = connection.execute(sql, {"fleet": fleet, "keep": keep_versions}).all()
    if not rows:
        return []
    boundaries = connection.execute(_BOUNDARIES, {"fleet": fleet}).all()
    ends = [*(each.from_window_end_us for each in boundaries[1:]), _END_OF_TIME_US]
    ranges: dict[int, list[tuple[int, int]]] = {}
    for each, to_us in zip(boundaries, ends, strict=False):
        ranges.setdefault(each.version_id, []).append((each.from_window_end_us, to_us))
    found = [(row, ranges.get(row.id, [])) for row in rows]
    if from_us is None:
        return [(row, decided) for row, decided in found if not decided]
    return [(row, decided) for row, decided in found if all(to_us <= from_us for _, to_us in decided)]
