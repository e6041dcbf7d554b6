"""Driver errors become monitor errors, which show if waiting helps."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy import exc

from monitor.errors import (
    ConfigError,
    Fenced,
    InvariantBroken,
    MonitorError,
    SchemaMismatch,
    StoreDamaged,
    StoreRefused,
    StoreUnavailable,
)
from monitor.store.error_mapping import map_errors
from monitor.store.url import parse

FILE = parse("sqlite:///monitor.db")
SERVER = parse("postgresql://monitor:s3cret@db/monitor")


class Complaint(Exception):
    """A stand-in for the errors of asyncpg, with the attributes that the mapping reads."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"complaint {sqlstate}\nsecond line")
        self.sqlstate = sqlstate


def translation(error: BaseException) -> MonitorError:
    with pytest.raises(MonitorError) as caught, map_errors(SERVER, (Complaint,)):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("08006", StoreUnavailable),  # connection failure
        ("25P03", StoreUnavailable),  # idle in transaction
        ("40001", StoreUnavailable),  # serialisation failure
        ("40P01", StoreUnavailable),  # deadlock
        ("53300", StoreUnavailable),  # too many connections
        ("55P03", StoreUnavailable),  # lock not available
        ("57014", StoreUnavailable),  # statement timeout
        ("57P01", StoreUnavailable),  # administrator's shutdown
        ("58030", StoreUnavailable),  # input or output error
        ("25006", StoreUnavailable),  # a standby
        ("28P01", ConfigError),  # password
        ("3D000", ConfigError),  # no such database
        ("42501", ConfigError),  # privilege
        ("42P01", SchemaMismatch),  # no such table
        ("42703", SchemaMismatch),  # no such column
        ("23505", InvariantBroken),  # duplicate key
        ("22021", InvariantBroken),  # NUL in text
        ("42601", InvariantBroken),  # wrong SQL
        ("XX001", StoreDamaged),  # a page of a table
        ("XX002", StoreDamaged),  # an index
        ("XX000", StoreRefused),  # the server's own defect
        ("P0001", StoreRefused),  # a trigger that somebody added
        ("54000", StoreRefused),  # a limit of the server
        ("26000", ConfigError),  # a pooler per transaction
        ("42P05", ConfigError),  # the same
    ],
)
def test_sqlstates_of_postgresql_are_mapped(sqlstate: str, expected: type[MonitorError]) -> None:
    raw = translation(Complaint(sqlstate))
    wrapped = translation(exc.DBAPIError("SELECT 1", {}, Complaint(sqlstate)))
    assert type(raw) is type(wrapped) is expected
    assert "s3cret" not in str(raw)
    assert "second line" not in str(raw)


@pytest.mark.parametrize(
    "error",
    [exc.TimeoutError("pool"), TimeoutError(), ConnectionRefusedError(111, "refused"), OSError("unreachable")],
    ids=lambda error: type(error).__name__,
)
def test_a_missing_answer_is_an_outage(error: Exception) -> None:
    assert isinstance(translation(error), StoreUnavailable)


def sqlite_translation(error: sqlite3.Error) -> MonitorError:
    kind = exc.OperationalError if isinstance(error, sqlite3.OperationalError) else exc.DatabaseError
    with pytest.raises(MonitorError) as caught, map_errors(FILE, ()):
        raise kind("SELECT 1", {}, error)
    return caught.value


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (sqlite3.OperationalError("database is locked"), StoreUnavailable),
        (sqlite3.OperationalError("database or disk is full"), StoreUnavailable),
        (sqlite3.OperationalError("no such table: score"), SchemaMismatch),
        (sqlite3.OperationalError("no such column: score.label"), SchemaMismatch),
        (sqlite3.DatabaseError("database disk image is malformed"), StoreDamaged),
        (sqlite3.DatabaseError("file is not a database"), StoreDamaged),
        (sqlite3.IntegrityError("UNIQUE constraint failed"), InvariantBroken),
    ],
    ids=str,
)
def test_messages_of_sqlite_are_mapped(error: sqlite3.Error, expected: type[MonitorError]) -> None:
    assert type(sqlite_translation(error)) is expected


def test_monitor_errors_pass_unchanged() -> None:
    with pytest.raises(Fenced, match="taken"), map_errors(FILE, ()):
        raise Fenced("taken")


def test_errors_of_the_caller_pass_unchanged() -> None:
    with pytest.raises(KeyError), map_errors(FILE, ()):
        raise KeyError("x")
