"""The channels of a configuration: each with its receiver, its wishes and the way it is delivered to.

Input: `[[notify]]`. Output: objects for the pipeline (`Channel`) and for the delivery loop (`Sender`, `Options`).
Invariant: this is the only place that knows all kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from monitor.notify.alertmanager import Alertmanager
from monitor.notify.slack import Slack
from monitor.notify.teams import Teams
from monitor.notify.webhook import Webhook
from monitor.store.outbox import Channel
from monitor.timing import DEFAULT_TIMING
from monitor.types import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.config import Config, NotifyConfig
    from monitor.notify.failure import Failure
    from monitor.timing import Timing


class Sender(Protocol):
    """The receiver of a channel."""

    name: str

    async def send(self, key: str, body: bytes) -> Failure | None:
        """Send once, within a bounded time; None = it arrived."""
        ...

    def content(self, body: bytes) -> bytes:
        """Return the body that `send` would send, for tests of a channel."""
        ...

    async def close(self) -> None:
        """Close all connections. Nothing is sent afterwards."""
        ...


@runtime_checkable
class Repeater(Protocol):
    """A receiver that forgets an alert unless it is told again and again."""

    name: str

    async def repeat(self, bodies: Sequence[bytes]) -> Failure | None:
        """Send the alerts that are still firing."""
        ...


class Hours(Protocol):
    """Times of a week."""

    def contains(self, at_us: int) -> bool:
        """Return whether a moment lies in them."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """The way in which the delivery loop serves a channel."""

    is_for_people: bool = False
    """After an outage or in a flood, one digest replaces the waiting notifications."""
    has_context: bool = False
    """The receiver gets the alert's page, links and the sentence, beside the stored payload."""
    quiet: Hours | None = None
    """Times in which warnings wait, until one digest tells them."""
    quiet_holds_all: bool = False


def channel_of(config: NotifyConfig, first_started_us: int = 0) -> Channel:
    """Return the changes that a channel wants."""
    return Channel(
        name=config.name,
        min_severity=Severity(config.min_severity),
        fleets=config.fleets,
        max_age_us=None if config.max_age is None else config.max_age // timedelta(microseconds=1),
        first_started_us=first_started_us,
        classes=config.classes,
        schedule=config.schedule_hours,
        by_incident=config.by_incident,
    )


def options_of(config: NotifyConfig) -> Options:
    """Return the way in which a channel is served."""
    has_payload_only = config.kind in ("webhook", "kafka") and config.template is None
    return Options(
        is_for_people=config.by_incident,
        has_context=not has_payload_only,
        quiet=config.quiet,
        quiet_holds_all=config.quiet_holds == "all",
    )


def sender_of(channel: NotifyConfig, config: Config, timing: Timing = DEFAULT_TIMING) -> Sender:
    """Return the receiver of a channel. Raises ConfigError where a kind needs an extra that is missing."""
    if channel.kind == "slack":
        return Slack(channel, timing)
    if channel.kind == "teams":
        return Teams(channel, timing)
    if channel.kind == "alertmanager":
        return Alertmanager(channel, timing)
    if channel.kind == "kafka":
        from monitor.notify.kafka_topic import KafkaTopic

        return KafkaTopic(channel, config.kafka, timing)
    if channel.kind == "apprise":
        from monitor.notify.apprise_service import AppriseService

        return AppriseService(channel, timing)
    return Webhook(channel, timing)
