"""Driver errors enter, errors of our tree leave: this is the only place that knows how a database complains."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from monitor.errors import ConfigError, InvariantBroken, MonitorError, SchemaMismatch, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monitor.store.url import Address

# PostgreSQL's classes of SQLSTATE (its manual, appendix A): the first two characters, or all five.
_WAITING_HELPS = (
    "08",  # connection lost
    "25P",  # idle in transaction for too long
    "25006",  # a standby that is read-only until it is promoted
    "40",  # deadlock, serialisation
    "53",  # out of disk, memory, connections
    "55P",  # lock not to be had in time
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
    """Which exceptions of the driver pass SQLAlchemy by. Raises ConfigError when the driver is not installed."""
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
def translated(address: Address, raw: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn every error of SQLAlchemy, of the driver (`raw`) and of the network into one of ours."""
    from sqlalchemy import exc  # 0.4 s; the operators' reader, which comes here for `ours`, goes without

    try:
        yield
    except MonitorError:
        raise
    except exc.DBAPIError as error:
        cause = error.orig if isinstance(error.orig, Exception) else error
        is_lost = error.connection_invalidated or isinstance(error, exc.OperationalError | exc.InterfaceError)
        raise ours(cause, address, is_lost=is_lost) from error
    except raw as error:
        raise ours(error, address, is_lost=not hasattr(error, "sqlstate")) from error
    except (exc.TimeoutError, TimeoutError) as error:
        raise StoreUnavailable(f"{address}: no answer in time") from error
    except OSError as error:
        raise StoreUnavailable(f"{address}: {error.strerror or error}") from error


def ours(error: Exception, address: Address, *, is_lost: bool) -> MonitorError:
    """Name what a driver's error means. `is_lost`: the driver says that the connection, not the statement, failed."""
    said = f"{address}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    state: str = getattr(error, "sqlstate", None) or ""
    if state.startswith(_SCHEMA) or "no such table" in said or "no such column" in said:
        return SchemaMismatch(said)
    if state.startswith(_CONFIGURATION):
        return ConfigError(f"store.url: {said}")
    if state.startswith(_WAITING_HELPS) or (is_lost and not state):
        return StoreUnavailable(said)
    return InvariantBroken(said)
