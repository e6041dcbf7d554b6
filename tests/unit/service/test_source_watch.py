"""The watch reports missing topics and foreign members once, and refuses a start beside a living foreign member."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from monitor import metrics
from monitor.config import KafkaConfig
from monitor.errors import SourceRefused, SourceUnavailable
from monitor.kafka.group_members import GroupMember
from monitor.service.health import Health
from monitor.service.source_watch import SourceWatch
from monitor.types import Partition
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Sequence

UUID = "-ee0f7cf5-1b1b-466d-bcb4-659a280d2f8e"
OURS = GroupMember(f"monitor-1a2b3c4d{UUID}", "monitor-1a2b3c4d", "/10.0.0.1")
OUR_FORMER_SELF = GroupMember(f"monitor-host-8f3a-0{UUID}", "aiokafka-0.14.0", "/10.0.0.1")
ON_EMBEDDED = GroupMember(f"monitor-1a2b3c4d{UUID}", "", "")
TRIAL = GroupMember(f"monitor-99999999{UUID}", "monitor-99999999", "/10.0.0.9")
STRANGER = GroupMember(f"rdkafka{UUID}", "", "")


class Broker:
    """A broker whose topics and members a test sets."""

    def __init__(self) -> None:
        self.topics: list[str] = ["plant"]
        self.members: list[GroupMember] = []
        self.is_away = False
        self.leaves_at_s: float | None = None
        self.clock = FakeClock()
        self.health = Health()
        kafka = KafkaConfig(bootstrap="nowhere:1", topics=("plant", "line"), group="g")
        self.watch = SourceWatch(
            kafka,
            ["line", "plant"],
            "monitor-1a2b3c4d",
            "monitor-host-8f3a-0",
            self.clock,
            self.health,
            list_members=self._members,
            list_partitions=self._partitions,
        )

    async def _members(self, config: KafkaConfig) -> list[GroupMember]:
        assert config.group == "g"
        self._answer()
        is_over = self.leaves_at_s is not None and self.clock.monotonic_s() >= self.leaves_at_s
        return [] if is_over else self.members

    async def _partitions(self, _config: KafkaConfig, topics: Sequence[str]) -> list[Partition]:
        self._answer()
        return [Partition(topic, 0) for topic in topics if topic in self.topics]

    def _answer(self) -> None:
        if self.is_away:
            raise SourceUnavailable("away")

    def conditions(self) -> dict[str, str]:
        found = {each["what"]: each["why"] for each in self.health.missing()}
        return {what: why for what, why in found.items() if what not in ("start", "database")}

    async def look(self, seconds: float) -> list[Any]:
        """Run the loop for so long, and return what it logs."""
        until_s = self.clock.monotonic_s() + seconds
        with capture_logs() as logged:
            looping = asyncio.create_task(self.watch.loop())
            while self.clock.monotonic_s() < until_s:
                await self.clock.sleep(1)
            looping.cancel()
            with suppress(asyncio.CancelledError):
                await looping
        return [(each["event"], each.get("topic") or each.get("members")) for each in logged]


@pytest.fixture
async def broker() -> Broker:
    return Broker()


async def test_a_missing_topic_is_reported_once_and_its_coming_too(broker: Broker) -> None:
    assert await broker.look(40) == [("topic_missing", "line")]
    assert broker.conditions() == {
        "topic_missing": "not there yet: line; create it, or correct [kafka] topics"
    }
    assert metrics.registry.get_sample_value("monitor_topics_missing") == 1
    broker.topics.append("line")
    assert await broker.look(40) == [("topic_found", "line")]
    assert broker.conditions() == {}
    assert metrics.registry.get_sample_value("monitor_topics_missing") == 0


async def test_our_own_members_are_not_foreign(broker: Broker) -> None:
    broker.topics.append("line")
    broker.members = [OURS, ON_EMBEDDED, OUR_FORMER_SELF]
    await broker.watch.refuse_foreign_members()
    assert await broker.look(40) == []


@pytest.mark.parametrize(("member", "name"), [(TRIAL, '"monitor-99999999" on 10.0.0.9'), (STRANGER, '"rdkafka"')])
async def test_a_foreign_member_is_refused_at_the_start(broker: Broker, member: GroupMember, name: str) -> None:
    broker.members = [member]
    began_s = broker.clock.monotonic_s()
    with capture_logs() as logged, pytest.raises(SourceRefused, match="leave \\[kafka\\] group out") as refused:
        await broker.watch.refuse_foreign_members()
    assert name in refused.value.detail
    assert [each["event"] for each in logged] == ["foreign_member"]
    assert 30 <= broker.clock.monotonic_s() - began_s < 45, "a dead member's session has ended by then"


async def test_a_dead_member_is_waited_for(broker: Broker) -> None:
    broker.members = [TRIAL]
    broker.leaves_at_s = broker.clock.monotonic_s() + 20
    with capture_logs() as logged:
        await broker.watch.refuse_foreign_members()
    assert [each["event"] for each in logged] == ["foreign_member", "foreign_member_left"]


async def test_a_foreign_member_of_a_running_daemon_is_an_alarm(broker: Broker) -> None:
    broker.topics.append("line")
    broker.members = [OURS, TRIAL]
    assert await broker.look(40) == [("foreign_member", ['"monitor-99999999" on 10.0.0.9'])]
    why = broker.conditions()["foreign_member"]
    assert why.startswith('in group g: "monitor-99999999" takes partitions away')
    assert "10.0.0.9" not in why, "the pages show no addresses"
    assert metrics.registry.get_sample_value("monitor_foreign_members") == 1
    broker.members = [OURS]
    assert [event for event, _ in await broker.look(40)] == ["foreign_member_left"]
    assert broker.conditions() == {}


async def test_an_outage_of_the_broker_changes_nothing(broker: Broker) -> None:
    await broker.look(20)
    broker.is_away = True
    assert await broker.look(40) == []
    assert "topic_missing" in broker.conditions()
