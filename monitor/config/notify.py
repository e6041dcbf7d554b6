"""`[[notify]]`: the channels of notifications.

Input: plain values. Output: frozen objects. Invariant: a secret is neither printed nor logged. A URL may hold one.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import timedelta
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from monitor.config.base import ConfigTable, Names, duration_or, one_of, raise_problems
from monitor.config.fields import known_zone
from monitor.config.hours import Hours
from monitor.config.template import compiled
from monitor.config.values import check_web_address, is_loopback, parse_names
from monitor.types import AlertClass

SEVERITIES = ("warning", "critical")
CLASSES = tuple(map(str, AlertClass))
KINDS = ("webhook", "slack", "teams", "alertmanager", "kafka", "apprise")
GROUPS = ("auto", "alert", "incident")
FOR_PEOPLE = frozenset(("slack", "teams", "apprise"))
"""Kinds that people read. They get one notification per incident unless `group` says otherwise."""
HTTP_KINDS = frozenset(("webhook", "slack", "teams", "alertmanager"))
SECRET_PREFIX = "whsec_"  # noqa: S105 (the form of Standard Webhooks)
_KINDS_WITH = {
    "token": frozenset(("webhook", "alertmanager")),
    "secret": frozenset(("webhook",)),
    "topic": frozenset(("kafka",)),
    "allow_http": HTTP_KINDS,
    "quiet_hours": frozenset(KINDS) - {"alertmanager"},
}
"""Setting → the kinds that have it. A setting that is not here goes with all."""
_SHORTEST_SECRET = 16
_Class = Annotated[str, one_of(CLASSES)]


class NotifyConfig(ConfigTable):
    """`[[notify]]`: a channel for alerts."""

    kind: Annotated[str, one_of(KINDS)] = "webhook"
    """webhook: a POST of JSON. slack, teams: webhooks of these chats. alertmanager: its API v2. kafka: a topic of
    [kafka]'s broker. apprise: mail, pagers and others, by an address of the library Apprise (extra `notify`)."""
    url: Annotated[str, Field(repr=False)]
    """https, or http to this machine or with `allow_http`. Hidden, because many services put a secret into it."""
    name: Annotated[
        str,
        Field(default_factory=lambda data: _default_name(data), pattern=r"^[a-z0-9._-]{1,64}$"),
    ]
    """Name in logs and in the key of each notification. Default: the URL's host; of apprise its service."""
    min_severity: Annotated[str, one_of(SEVERITIES)] = "warning"
    """critical: an alert is sent once its peak is critical."""
    classes: Annotated[tuple[_Class, ...], BeforeValidator(parse_names)] = CLASSES
    """Of process (machines), sensor, data (records)."""
    fleets: Names = ("*",)
    """Names or globs."""
    group: Annotated[str, one_of(GROUPS)] = "auto"
    """alert: each alert by itself. incident: one notification per incident. auto: incident where people read it."""
    schedule: Names | None = None
    """Times of a week: only alerts that open or change in them. "Mon-Fri 06:00-18:00". Default: always."""
    quiet_hours: Names | None = None
    """Times of a week in which warnings wait. At their end one digest tells them. "22:00-06:00". Default: none."""
    quiet_holds: Annotated[str, one_of(("warning", "all"))] = "warning"
    """Notifications that wait in quiet hours. all: critical ones too."""
    timezone: Annotated[str, AfterValidator(known_zone)] = "UTC"
    """Zone of `schedule` and `quiet_hours`, and of times in messages for people."""
    template: str | None = None
    """Jinja2. The text of the message; of webhook and kafka the whole body. Default: monitor's own."""
    max_age: Annotated[timedelta | None, duration_or("forever")] = timedelta(days=7)
    """Age up to which an alert event is sent. A topic that is read from its beginning gives older ones."""
    token: SecretStr | None = None
    """Sent as `Authorization: Bearer …`. Preferably in MONITOR_NOTIFY__0__TOKEN_FILE."""
    secret: SecretStr | None = None
    """Signs each request of a webhook with HMAC-SHA256. Preferably in MONITOR_NOTIFY__0__SECRET_FILE."""
    topic: Annotated[str | None, AfterValidator(lambda value: _check_topic(value))] = None
    """Topic of kind kafka."""
    allow_http: bool = False
    """Send notifications and the token unencrypted over a network."""

    @model_validator(mode="before")
    @classmethod
    def _without_url(cls, value: Any) -> Any:
        is_kafka = isinstance(value, dict) and value.get("kind") == "kafka"
        return {"url": ""} | value if is_kafka else value

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str, info: ValidationInfo) -> str:
        kind = info.data.get("kind", "webhook")
        if kind == "kafka":
            if value:
                raise ValueError("is not used: the broker is [kafka] bootstrap; name the topic")
            return value
        return _check_apprise_address(value) if kind == "apprise" else check_web_address(value)

    @field_validator("token")
    @classmethod
    def _one_line(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("must be one word of printable ASCII: it is sent in a header")
        return value

    @field_validator("secret")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(_secret_bytes(value.get_secret_value())) < _SHORTEST_SECRET:
            raise ValueError(f"is too short to sign with; use {_SHORTEST_SECRET} bytes or more")
        return value

    @field_validator("template")
    @classmethod
    def _check_template(cls, value: str | None) -> str | None:
        if value is not None:
            compiled(value)
        return value

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        problems = {}
        for key, kinds in _KINDS_WITH.items():
            if self.kind not in kinds and getattr(self, key) not in (None, False):
                problems[key] = f"does not go with {self.kind}; {key} is for {', '.join(sorted(kinds))}"
        if self.kind == "kafka" and self.topic is None:
            problems["topic"] = 'missing; name the topic: topic = "plant.alerts"'
        if self.kind == "alertmanager" and self.group == "incident":
            problems["group"] = '"incident" does not go with alertmanager, which groups by itself; leave it out'
        parts = urlsplit(self.url)
        is_plain = self.kind in HTTP_KINDS and parts.scheme == "http" and not is_loopback(parts.hostname or "")
        if is_plain and not self.allow_http:
            problems["url"] = "is http, which is not encrypted; use https, or set allow_http = true"
        for key in ("schedule", "quiet_hours"):
            try:
                self._hours(getattr(self, key))
            except ValueError as error:
                problems[key] = str(error)
        raise_problems(problems)
        return self

    @property
    def by_incident(self) -> bool:
        """Whether an incident has one notification."""
        return self.group == "incident" or (self.group == "auto" and self.kind in FOR_PEOPLE)

    @property
    def schedule_hours(self) -> Hours | None:
        """Times in which an alert must open or change."""
        return self._hours(self.schedule)

    @property
    def quiet(self) -> Hours | None:
        """Times in which notifications wait."""
        return self._hours(self.quiet_hours)

    def _hours(self, texts: tuple[str, ...] | None) -> Hours | None:
        return None if texts is None else Hours.parse(texts, self.timezone)

    @property
    def secret_bytes(self) -> bytes | None:
        """The key that signs, or None."""
        return None if self.secret is None else _secret_bytes(self.secret.get_secret_value())

    @property
    def shown_url(self) -> str:
        """The destination without its secrets, for terminals and logs: scheme, host and port of a web address."""
        if self.kind == "kafka":
            return f"topic {self.topic}"
        parts = urlsplit(self.url)
        if self.kind == "apprise":  # even the host may be a secret
            return f"{self.url.partition('://')[0]}://…"
        return f"{parts.scheme}://{parts.netloc}"


def _default_name(data: dict[str, Any]) -> str | None:
    kind = data.get("kind")
    if kind == "kafka":
        return "kafka"
    return str(data["url"]).partition("://")[0].lower() if kind == "apprise" else urlsplit(data["url"]).hostname


def _check_topic(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", value):
        raise ValueError("is not a topic's name; use 1 to 249 of a–z, A–Z, 0–9, ., _ and -")
    return value


def _check_apprise_address(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{1,30}://[\x21-\x7e]+", value):
        raise ValueError('is not an address of Apprise; write "mailto://user:password@host", percent-encoded')
    return value


def _secret_bytes(text: str) -> bytes:
    """Return the key: base64 after `whsec_`, as in Standard Webhooks, or the text itself."""
    if not text.startswith(SECRET_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"has no base64 after {SECRET_PREFIX}") from None
