"""Defects of the commit protocol: each takes one rule out of `monitor.store`. Checkers must notice every one.

`tests.simulation` enters them as context managers, `tests.chaos` starts them for the life of a daemon.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from monitor.store import partitions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from monitor.store.commit import Commit, Saved
    from monitor.store.partitions import Claim

Patch = Any
"""The result of `mock.patch.object`: a context manager that also has `start`."""


def no_compare_and_set() -> Patch:
    """Move the offset without a check of the owner and of the present offset."""
    statement = str(partitions._MOVE)
    condition = statement[statement.index("AND epoch = :epoch") :]
    assert "next_offset = :old_next" in condition
    return mock.patch.object(partitions, "_MOVE", partitions.text(statement.replace(condition, "")))


def claims_with(change: Callable[[Claim], Claim]) -> Patch:
    """Let the pipeline see another claim than the one that the database returns."""
    real = partitions.claim

    def claim(*arguments: Any) -> Claim:
        return change(real(*arguments))

    return mock.patch.object(partitions, "claim", claim)


def no_rewind() -> Patch:
    """Start a claimed partition at its next offset: unfinished windows are forgotten."""
    return claims_with(lambda claim: replace(claim, rewind_offset=claim.next_offset))


def without_statement(connection: Any, omitted: Any, rows_seen: list[Any] | None = None) -> Any:
    """Return the connection, on which one statement reports success without being executed."""

    def execute(statement: Any, *values: Any) -> Any:
        if statement is not omitted:
            return connection.execute(statement, *values)
        if rows_seen is not None:
            rows_seen.extend(values[0])
        return SimpleNamespace(rowcount=1)

    return _Forwarding(connection, execute)


class _Forwarding:
    def __init__(self, connection: Any, execute: Callable[..., Any]) -> None:
        self._connection = connection
        self.execute = execute

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def save_in_two_transactions(
    run: Callable[..., Awaitable[Saved]], commit: Commit, between: Callable[[], Awaitable[None]] | None = None
) -> Saved:
    """Commit the offset first and the rows that belong to it second, as with automatic commits."""
    position = replace(commit, fleets=(), quarantined=(), gaps=(), data_alerts=(), snapshots=())
    moved = await run(partitions.commit, position)
    if moved.was_done:
        return moved
    if between is not None:
        await between()

    def insert_rows(connection: Any, commit: Commit) -> Saved:
        return partitions.commit(without_statement(connection, partitions._MOVE), commit)

    return await run(insert_rows, commit)
