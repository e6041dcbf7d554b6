"""Driver errors → errors of monitor's tree. No other file interprets the messages of a database."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from monitor.errors import (
    ConfigError,
    InvariantBroken,
    MonitorError,
    SchemaMismatch,
    StoreDamaged,
    StoreRefused,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monitor.store.url import Address

# PostgreSQL's classes of SQLSTATE (its manual, appendix A): the first two characters, or all five.
_TRANSIENT = (
    "08",  # connection lost
    "25P",  # idle in transaction for too long
    "25006",  # a standby that is read-only until it is promoted
    "40",  # deadlock, serialisation failure
    "53",  # out of disk, memory or connections
    "55P",  # lock not available in time
    "57",  # cancelled, shut down, starting up
    "58",  # input or output error
)
_CONFIGURATION = (
    "28",  # user or password
    "3D",  # no such database
    "3F",  # no such schema
    "42501",  # privilege
)
_SCHEMA = ("42P01", "42703")  # no such table, no such column
_DAMAGE = ("XX001", "XX002", "SQLITE_CORRUPT", "SQLITE_NOTADB")  # data and index corrupted, and the same in SQLite
_POOLER = ("26", "42P05")  # prepared statements of another session: a pooler per transaction is in between
_DEFECT = ("0A", "21", "22", "23", "42", "44", "SQLITE_")  # our statement or our values


def driver_errors(address: Address) -> tuple[type[Exception], ...]:
    """Return the driver's exceptions that SQLAlchemy does not wrap. Raises ConfigError if the driver is missing."""
    if address.is_sqlite:
        return ()
    try:
        import asyncpg
    except ImportError as error:
        raise ConfigError(
            "store.url: PostgreSQL needs the driver asyncpg; install sensor-anomaly-monitor[postgres]"
        ) from error
    return (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@contextmanager
def map_errors(address: Address, raw: tuple[type[Exception], ...]) -> Iterator[None]:
    """Map every error of SQLAlchemy, of the driver (`raw`) and of the network to a MonitorError."""
    # 0.4 s: imported here, because the operators' reader imports this module for `to_monitor_error` alone.
    from sqlalchemy import exc

    try:
        yield
    except MonitorError:
        raise
    except exc.DBAPIError as error:
        cause = error.orig if isinstance(error.orig, Exception) else error
        is_lost = error.connection_invalidated or isinstance(error, exc.OperationalError | exc.InterfaceError)
        raise to_monitor_error(cause, address, is_lost=is_lost) from error
    except raw as error:
        raise to_monitor_error(error, address, is_lost=not hasattr(error, "sqlstate")) from error
    except (exc.TimeoutError, TimeoutError) as error:
        raise StoreUnavailable(f"{address}: no answer in time") from error
    except OSError as error:
        raise StoreUnavailable(f"{address}: {error.strerror or error}") from error


def to_monitor_error(error: Exception, address: Address, *, is_lost: bool) -> MonitorError:
    """Map one driver error. `is_lost`: the connection failed, not the statement."""
    message = f"{address}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    state: str = getattr(error, "sqlstate", None) or ""
    name = state or getattr(error, "sqlite_errorname", "") or _name_by_message(message)
    if state.startswith(_SCHEMA) or "no such table" in message or "no such column" in message:
        return SchemaMismatch(message)
    if state.startswith(_CONFIGURATION):
        return ConfigError(f"store.url: {message}")
    if name.startswith(_DAMAGE):
        return StoreDamaged(message)
    if state.startswith(_POOLER):
        fix = "connect to PostgreSQL itself, or set the pooler to one connection per session"
        return ConfigError(f"store.url: {message}; {fix}")
    if state.startswith(_TRANSIENT) or (is_lost and not state and name != "SQLITE_ERROR"):
        return StoreUnavailable(message)
    return InvariantBroken(message) if name.startswith(_DEFECT) else StoreRefused(message)


def _name_by_message(message: str) -> str:
    """Return SQLite's name of an error that an engine passed on without it."""
    is_damage = "malformed" in message or "not a database" in message
    return "SQLITE_CORRUPT" if is_damage else "SQLITE_CONSTRAINT" if "constraint failed" in message else ""

