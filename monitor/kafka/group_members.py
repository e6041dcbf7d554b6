"""Members of the consumer group, of any program.

Input: `[kafka]`, with its group. Output: the members as the group's coordinator reports them. Invariant: the look-up
joins nothing and commits nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient

from monitor.kafka.client import client_settings
from monitor.kafka.error_mapping import map_kafka_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.config import KafkaConfig


class GroupMember(NamedTuple):
    """One member, as the coordinator reports it."""

    id: str
    """Made by the broker: the static member id or the client id, and a random part."""
    client_id: str
    """Empty on the embedded broker."""
    host: str
    """Address of the client, with a slash before it. Empty on the embedded broker."""

    @property
    def program(self) -> str:
        """The client id, or the beginning of the member's id."""
        return self.client_id or self.id[:-37]

    def is_of(self, client_id: str, static_member_id: str | None) -> bool:
        """Return True if the member is a daemon with this client id, or the former process of our static id."""
        names = (client_id, static_member_id) if static_member_id else (client_id,)
        return self.client_id == client_id or self.id.startswith(tuple(f"{name}-" for name in names))

    def __str__(self) -> str:
        host = self.host.lstrip("/")
        return f'"{self.program}"' + (f" on {host}" if host else "")


async def members_of(config: KafkaConfig) -> list[GroupMember]:
    """Return the members of the configured group, dead ones within their session included. Empty without the right.

    Raises SourceUnavailable or SourceRefused.
    """
    admin = AIOKafkaAdminClient(**client_settings(config))
    with map_kafka_errors(config.bootstrap):
        try:
            await admin.start()
            replies = await admin.describe_consumer_groups([config.group])
        except (kafka.GroupCoordinatorNotAvailableError, kafka.GroupLoadInProgressError):
            return []  # the first group of a new cluster: the topic of the groups is being made
        finally:
            await admin.close()
    # A row is (error, group, state, protocol type, protocol, members, …). The embedded broker shifts the columns of a
    # group that it does not know.
    rows = [group for reply in replies for group in reply.groups if group[:2] == (0, config.group)]
    return [GroupMember(*member[:3]) for row in rows for member in row[5]]


def foreign_members(
    members: Sequence[GroupMember], client_id: str, static_member_id: str | None = None
) -> list[GroupMember]:
    """Return the members that are no daemons of our database. `client_id`: that of our daemons."""
    return [member for member in members if not member.is_of(client_id, static_member_id)]
