"""A PostgreSQL database: its connections and their time limits, with SQLAlchemy's asynchronous engine over asyncpg."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from monitor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10.0


def new_engine(url: str, timeout_s: float) -> AsyncEngine:
    """Return an engine. `timeout_s` limits one statement, in the client and in the server. Raises ConfigError."""
    limit_ms = str(int(timeout_s * 1000))
    try:
        return create_async_engine(
            url,
            hide_parameters=True,
            pool_size=4,
            max_overflow=4,
            pool_timeout=CONNECT_TIMEOUT_S,
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": timeout_s,  # the client's limit, should the server vanish without an answer
                "server_settings": {
                    "application_name": "monitor",
                    "statement_timeout": limit_ms,
                    "lock_timeout": limit_ms,
                    # A daemon suspended inside a transaction must not hold its partition's row for ever.
                    "idle_in_transaction_session_timeout": limit_ms,
                },
            },
        )
    except (ArgumentError, ValueError) as error:
        raise ConfigError(f"store.url: {error}") from error


class PostgresqlPool:
    """Transactions on one database, up to eight at a time."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.engine = new_engine(url, timeout_s)
        self._timeout_s = timeout_s

    async def transact(self, body: Callable[[Connection], T], *, reads: bool) -> T:
        """Run `body` in one transaction."""
        # The limits above apply to one statement, this one to a server that vanished between two.
        async with asyncio.timeout(2 * self._timeout_s), self.engine.connect() as connection:
            await connection.execution_options(postgresql_readonly=reads)
            async with connection.begin():
                return await connection.run_sync(body)

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()
