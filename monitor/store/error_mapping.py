"""Driver errors → errors of monitor's tree. No other file interprets the messages of a database."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from monitor.errors import ConfigError, InvariantBroken, MonitorError, SchemaMismatch, StoreUnavailable

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
    if state.startswith(_SCHEMA) or "no such table" in message or "no such column" in message:
        return SchemaMismatch(message)
    if state.startswith(_CONFIGURATION):
        return ConfigError(f"store.url: {message}")
    if state.startswith(_TRANSIENT) or (is_lost and not state):
        return StoreUnavailable(message)
    return InvariantBroken(message)
