"""Evidence of alerts: chunks, written in the transaction of the windows that they are from.

Invariant: an alert's chunks, in order, are its evidence (`evidence_chunks.py`). Many small ones become one, and those
of a closed alert always. The evidence is deleted with its alert.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text

from monitor.errors import InvariantBroken
from monitor.store.evidence_chunks import chunk_of, concatenated, decode, encode, join
from monitor.types import AlertState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection

    from monitor.store.commit import FleetRows
    from monitor.store.evidence_chunks import Chunk
    from monitor.types import EvidencePart

Key = tuple[int, int]
"""Asset id and opening time."""

MAX_CHUNKS = 16
"""Chunks of an alert before they are joined, or up to as many more: alerts that fired together are not all joined in
one transaction."""
_AT_ONCE = 1_000
"""Bound values in a statement."""

_ALERTS = text("SELECT id, asset_id, opened_us FROM alert WHERE (asset_id, opened_us) IN :keys").bindparams(
    bindparam("keys", expanding=True)
)
_COUNTS = text(
    "SELECT alert_id, COUNT(*), MAX(seq) FROM evidence WHERE alert_id IN :ids GROUP BY alert_id"
).bindparams(bindparam("ids", expanding=True))
_BODIES = text("SELECT alert_id, body FROM evidence WHERE alert_id IN :ids ORDER BY alert_id, seq").bindparams(
    bindparam("ids", expanding=True)
)
_DELETE = text("DELETE FROM evidence WHERE alert_id IN :ids").bindparams(bindparam("ids", expanding=True))
_PUT = text("INSERT INTO evidence (alert_id, seq, n_cells, body) VALUES (:alert_id, :seq, :n_cells, :body)")
_EARLIER = text("""
    SELECT asset_id, end_us, score FROM score
    WHERE start_us IN :starts AND asset_id IN :asset_ids AND score IS NOT NULL
    ORDER BY start_us
""").bindparams(bindparam("starts", expanding=True), bindparam("asset_ids", expanding=True))


def write(connection: Connection, rows: FleetRows) -> None:
    """Add the evidence of one shard. Its scores and alerts are written already, in the same transaction."""
    keys = [_key(rows, part) for part in rows.evidence]
    alert_ids = _alert_ids(connection, keys)
    closed = {
        (int(rows.asset_ids[change.asset]), change.opened_us)
        for change in rows.alerts
        if change.state is AlertState.CLOSED
    }
    earlier = _earlier(connection, zip(keys, rows.evidence, strict=True))
    new: dict[int, list[Chunk]] = defaultdict(list)
    for key, part in zip(keys, rows.evidence, strict=True):
        if key not in alert_ids:
            raise InvariantBroken(f"evidence of an alert that does not exist: asset {key[0]}, {key[1]}")
        new[alert_ids[key]].append(chunk_of(part, earlier.get((key[0], part.earlier_start_us), ())))
    is_closed = {alert_ids[key] for key in closed & alert_ids.keys()}
    ids = list(new)
    counts = {alert_id: (n, seq) for alert_id, n, seq in _selected(connection, _COUNTS, ids)}
    to_join = [
        number for number, (n, _) in counts.items()
        if number in is_closed or n >= _limit(number) or _is_long(new[number])
    ]  # fmt: skip
    stored: dict[int, list[Chunk]] = defaultdict(list)
    for alert_id, body in _selected(connection, _BODIES, to_join):
        stored[alert_id].append(decode(bytes(body)))
    for some in _in_parts(to_join):
        connection.execute(_DELETE, {"ids": some})
    puts: list[dict[str, Any]] = []
    for alert_id, chunks in new.items():
        if alert_id in stored or alert_id not in counts:
            seq, chunk = 1, join([*stored[alert_id], *chunks])
        else:  # thinned out once it is joined with what is before it
            seq, chunk = counts[alert_id][1] + 1, concatenated(chunks)
        puts.append(
            {"alert_id": alert_id, "seq": seq, "n_cells": len(chunk.evidence.cell_us), "body": encode(chunk)}
        )
    connection.execute(_PUT, puts)


def _is_long(chunks: Sequence[Chunk]) -> bool:
    """Return True for as many cells as are kept of an alert: the daemon catches up."""
    return sum(len(chunk.evidence.cell_us) for chunk in chunks) >= chunks[0].limit


def _limit(alert_id: int) -> int:
    return MAX_CHUNKS + alert_id % MAX_CHUNKS


def _key(rows: FleetRows, part: EvidencePart) -> Key:
    return int(rows.asset_ids[part.asset]), part.opened_us


def _alert_ids(connection: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    return {
        (asset_id, opened_us): alert_id
        for some in _in_parts(keys)
        for alert_id, asset_id, opened_us in connection.execute(_ALERTS, {"keys": some})
    }


def _earlier(
    connection: Connection, parts: Iterable[tuple[Key, EvidencePart]]
) -> dict[tuple[int, tuple[int, ...]], list[tuple[int, float]]]:
    """Return (end, score) of the windows before those that fired, oldest first, by asset id and starts.

    Windows that are not stored, or have no score, are missing. Alerts that fire together have the same starts: one
    statement reads the scores of all of them.
    """
    assets: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for (asset_id, _), part in parts:
        if part.earlier_start_us:
            assets[part.earlier_start_us].add(asset_id)
    found: dict[tuple[int, tuple[int, ...]], list[tuple[int, float]]] = defaultdict(list)
    for starts, asset_ids in assets.items():
        for some in _in_parts(sorted(asset_ids)):
            for asset_id, end_us, score in connection.execute(_EARLIER, {"starts": list(starts), "asset_ids": some}):
                found[asset_id, starts].append((end_us, score))
    return found


def _selected(connection: Connection, statement: Any, ids: Sequence[int]) -> Iterator[Any]:
    for some in _in_parts(ids):
        yield from connection.execute(statement, {"ids": some})


def _in_parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    values = list(values)
    for first in range(0, len(values), _AT_ONCE):
        yield values[first : first + _AT_ONCE]
