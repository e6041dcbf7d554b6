"""The database's identity: a random name, from which the default consumer group is derived.

Daemons that share a database have one identity, so they join one group. A trial with a database of its own joins
another group and takes no partition away from them. The name also stands in the Kafka client id of each member, which
tells foreign members of a group apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Identity(NamedTuple):
    """The one row of the table."""

    name: str
    default_group: str
    """Consumer group of the daemons that have no `[kafka] group`."""
    first_started_us: int | None
    """Processing time of the first start of a daemon. None = no daemon has started."""

    @property
    def client_id(self) -> str:
        """Kafka client id of this database's daemons."""
        return f"monitor-{self.name}"


_READ = text("SELECT name, consumer_group, first_started_us FROM identity")
_START = text("""
    UPDATE identity SET first_started_us = COALESCE(first_started_us, :now_us)
    RETURNING name, consumer_group, first_started_us
""")


def read(connection: Connection) -> Identity:
    """Return the identity."""
    return Identity(*connection.execute(_READ).one())


def start(connection: Connection, now_us: int) -> Identity:
    """Return the identity, and store the time of the first start."""
    return Identity(*connection.execute(_START, {"now_us": now_us}).one())
