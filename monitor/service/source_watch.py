"""The watch over the daemon's surroundings at the broker: missing topics, and foreign members of its consumer group.

A foreign member is any that is no daemon of the same database: another program, or a second monitor with the same group
and another database. Kafka divides the partitions among all members, so each would see only a part of the records.

Input: topic lists and group descriptions of the broker. Output: a refusal at the start, log events, conditions of
/ready, two gauges. Invariant: an outage of the broker is reported elsewhere and changes nothing here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from monitor import logs, metrics
from monitor.errors import SourceRefused, SourceUnavailable
from monitor.kafka.group_members import foreign_members, members_of
from monitor.kafka.log_reader import partitions_of
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from monitor.clock import Clock
    from monitor.config import KafkaConfig
    from monitor.kafka.group_members import GroupMember
    from monitor.service.health import Health
    from monitor.timing import Timing
    from monitor.types import Partition

log = logs.get("source")

OWN_GROUP = "leave [kafka] group out, or give each its own"
"""The fix for a group with foreign members."""
WELL_FACTOR = 3
"""While nothing is wrong, a look is so many times rarer."""
MAX_NAMES = 5
"""Members or topics named in one sentence."""


class SourceWatch:
    """Looks at the topics and the group every few seconds."""

    def __init__(
        self,
        config: KafkaConfig,
        topics: Sequence[str],
        client_id: str,
        static_member_id: str | None,
        clock: Clock,
        health: Health,
        *,
        timing: Timing = DEFAULT_TIMING,
        topics_found: Callable[[], None] = lambda: None,
        list_members: Callable[[KafkaConfig], Awaitable[list[GroupMember]]] = members_of,
        list_partitions: Callable[[KafkaConfig, Sequence[str]], Awaitable[list[Partition]]] = partitions_of,
    ) -> None:
        """`client_id`: that of all daemons of this database. `topics_found`: called when a missing topic exists."""
        self._config = config
        self._topics = topics
        self._client_id = client_id
        self._static_member_id = static_member_id
        self._clock = clock
        self._health = health
        self._timing = timing
        self._topics_found = topics_found
        self._list_members = list_members
        self._list_partitions = list_partitions
        self._foreign: set[str] = set()
        """Members that were reported, in words."""
        self._missing: set[str] = set()
        """Topics that were reported as missing."""

    async def refuse_foreign_members(self) -> None:
        """Wait for foreign members that may be dead to leave the group. Raises SourceRefused where one stays.

        A killed member stays until its session ends, and cannot be told from a living one before.
        """
        limit_s = self._config.session_timeout.total_seconds() + self._timing.source_watch_every_s
        deadline_s = self._clock.monotonic_s() + limit_s
        while foreign := await self._look_for_members():
            if self._clock.monotonic_s() >= deadline_s:
                raise SourceRefused(foreign_sentence(self._config.group, foreign))
            await self._clock.sleep(min(2.0, self._timing.source_watch_every_s))

    async def look_for_topics(self) -> None:
        """Report topics that do not exist, and those that exist by now. Raises SourceUnavailable, SourceRefused."""
        found = {partition.topic for partition in await self._list_partitions(self._config, self._topics)}
        missing = {topic for topic in self._topics if topic not in found}
        for topic in sorted(missing - self._missing):
            log.warning(
                "topic_missing",
                topic=topic,
                doing="reading it within half a minute once it is there",
                fix="create it, or correct [kafka] topics",
            )
        for topic in sorted(self._missing - missing):
            log.info("topic_found", topic=topic)
        if self._missing - missing:
            self._topics_found()
        self._missing = missing
        metrics.topics_missing.set(len(missing))
        why = f"not there yet: {_named(sorted(missing))}; create it, or correct [kafka] topics" if missing else None
        self._health.at_broker("topic_missing", why)

    async def loop(self) -> None:
        """Look until cancelled."""
        while True:
            # During an outage, and without the right to look, nothing is known. The pipeline reports outages.
            with suppress(SourceUnavailable, SourceRefused):
                await self.look_for_topics()
            with suppress(SourceUnavailable, SourceRefused):
                await self._look_for_members()
            is_well = not self._missing and not self._foreign
            await self._clock.sleep(self._timing.source_watch_every_s * (WELL_FACTOR if is_well else 1))

    async def _look_for_members(self) -> list[GroupMember]:
        members = await self._list_members(self._config)
        foreign = foreign_members(members, self._client_id, self._static_member_id)
        names = {str(member) for member in foreign}
        if names - self._foreign:
            log.error(
                "foreign_member",
                group=self._config.group,
                members=sorted(names),
                meaning="it takes partitions: their records are not scored here",
                fix=OWN_GROUP,
            )
        elif self._foreign and not names:
            log.info("foreign_member_left", group=self._config.group, members=sorted(self._foreign))
        self._foreign = names
        metrics.foreign_members.set(len(foreign))
        programs = _named(sorted({f'"{member.program}"' for member in foreign}))  # /ready shows no addresses
        why = f"in group {self._config.group}: {programs} takes partitions away; {OWN_GROUP}" if foreign else None
        self._health.at_broker("foreign_member", why)
        return foreign


def foreign_sentence(group: str, foreign: Sequence[GroupMember]) -> str:
    """Describe foreign members of a group, with the fix."""
    names = _named(sorted(map(str, foreign)))
    return f"consumer group {group} has other members: {names}. They would take partitions from each other; {OWN_GROUP}"


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{shown} and {len(names) - MAX_NAMES} more"
