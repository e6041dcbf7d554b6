"""Inserts of many rows, in columns for as long as the driver allows, and deletions of many rows in steps.

PostgreSQL receives them through COPY in its binary format, which NumPy builds without a Python object per value. SQLite
receives statements of many rows: with about ten or more, a row costs half as much as in its own statement (measured).
"""

from __future__ import annotations

import io
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import bindparam, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from monitor.types import Bool

    Array = NDArray[Any]

ROWS_PER_STATEMENT = 25

# PostgreSQL's manual, COPY, "Binary Format": a header, tuples of (field count, then length and bytes of each field,
# big-endian, length -1 = NULL), a trailer.
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"


def insert(connection: Connection, table: str, columns: Mapping[str, Sequence[Any]], on_conflict: str = "") -> None:
    """Insert rows into SQLite, given as columns of Python values.

    `table`, the names of `columns` and `on_conflict` become SQL text: constants only, never input.
    """
    names, row = ", ".join(columns), f"({', '.join('?' * len(columns))})"
    rows = list(zip(*columns.values(), strict=True))
    n_grouped = len(rows) - len(rows) % ROWS_PER_STATEMENT
    for group, part in ((ROWS_PER_STATEMENT, rows[:n_grouped]), (1, rows[n_grouped:])):
        if part:
            values = list(itertools.chain.from_iterable(part))
            width = group * len(columns)
            groups = [tuple(values[first : first + width]) for first in range(0, len(values), width)]
            statement = f"INSERT INTO {table} ({names}) VALUES {', '.join([row] * group)} {on_conflict}"  # noqa: S608 - see above
            connection.exec_driver_sql(statement, groups)


def copy(
    connection: Connection,
    table: str,
    columns: Mapping[str, Array],
    types: Mapping[str, str],
    nulls: Mapping[str, Bool],
) -> None:
    """Insert rows into PostgreSQL, given as arrays.

    `types`: big-endian dtype by column. `nulls`: [N] bool by column, True = NULL. Other columns have no NULL.
    """
    source = io.BytesIO(_binary(columns, types, nulls))
    driver: Any = connection.connection.dbapi_connection  # SQLAlchemy's adapter; run_async passes asyncpg's connection
    driver.run_async(lambda raw: raw.copy_to_table(table, source=source, columns=list(columns), format="binary"))


def _binary(columns: Mapping[str, Array], types: Mapping[str, str], nulls: Mapping[str, Bool]) -> bytes:
    parts = [_HEADER]
    for combination in itertools.product((False, True), repeat=len(nulls)):
        # All rows with the same NULL columns have the same layout.
        pattern = dict(zip(nulls, combination, strict=True))
        chosen = np.logical_and.reduce([nulls[name] == is_null for name, is_null in pattern.items()])
        if chosen.any():
            parts.append(_tuples(columns, types, chosen, {name for name, is_null in pattern.items() if is_null}))
    parts.append(_TRAILER)
    return b"".join(parts)


def _tuples(columns: Mapping[str, Array], types: Mapping[str, str], chosen: Bool, nulls: set[str]) -> bytes:
    layout: list[tuple[str, str]] = [("n_fields", ">i2")]
    for name in columns:
        layout.append((f"{name}_length", ">i4"))
        if name not in nulls:
            layout.append((name, types[name]))
    tuples = np.empty(int(chosen.sum()), np.dtype(layout))
    tuples["n_fields"] = len(columns)
    for name, column in columns.items():
        tuples[f"{name}_length"] = -1 if name in nulls else np.dtype(types[name]).itemsize
        if name not in nulls:
            tuples[name] = column[chosen]
    return tuples.tobytes()


# ---------------------------------------------------------------- deletions

_THROUGH = """
    SELECT MAX({time}) FROM (
        SELECT {time} FROM {table} WHERE {time} >= :from_us AND {time} < :before_us ORDER BY {time} LIMIT :limit
    ) AS next
"""
_DELETE = """
    DELETE FROM {table} WHERE {time} >= :from_us AND {time} <= :through_us
        AND asset_id IN (SELECT id FROM asset WHERE fleet IN :fleets)
    RETURNING (SELECT fleet FROM asset WHERE id = asset_id)
"""


def delete_step(
    connection: Connection, table: str, time: str, fleets: Sequence[str], from_us: int, before_us: int, limit: int
) -> tuple[Counter[str], int]:
    """Delete the fleets' rows with a `time` in [from_us, before_us), in the range of the next `limit` rows.

    Returns the number of deleted rows by fleet, and the start of the next step; `before_us` = done. Each step is a
    transaction of its own, so that the pipeline never waits long for the lock. `table`, which has an `asset_id`, and
    its column `time` become SQL text: constants only, never input.
    """
    step = {"from_us": from_us, "before_us": before_us, "limit": limit}
    through_us: int | None = connection.execute(text(_THROUGH.format(table=table, time=time)), step).scalar_one()
    if through_us is None:
        return Counter(), before_us
    delete = text(_DELETE.format(table=table, time=time)).bindparams(bindparam("fleets", expanding=True))
    values = {"fleets": list(fleets), "from_us": from_us, "through_us": through_us}
    return Counter(connection.execute(delete, values).scalars()), through_us + 1
