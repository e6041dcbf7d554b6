"""`[[notify]]`: the channels of notifications.

Input: plain values. Output: frozen objects. Invariant: a secret is neither printed nor logged.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from monitor.config.base import ConfigTable, Names, duration_or, one_of, raise_problems
from monitor.config.values import check_web_address, is_loopback

SEVERITIES = ("warning", "critical")


class NotifyConfig(ConfigTable):
    """`[[notify]]`: a channel for alerts, a POST of JSON to one URL."""

    url: Annotated[str, Field(repr=False)]
    """https, or http to this machine or with `allow_http`. Hidden, because many services put a secret into it."""
    name: Annotated[
        str, Field(default_factory=lambda data: urlsplit(data["url"]).hostname, pattern=r"^[a-z0-9._-]{1,64}$")
    ]
    """Name in logs and in the key of each notification. Default: the URL's host."""
    min_severity: Annotated[str, one_of(SEVERITIES)] = "warning"
    """critical: an alert is sent once its peak is critical."""
    fleets: Names = ("*",)
    """Names or globs."""
    max_age: Annotated[timedelta | None, duration_or("forever")] = timedelta(days=7)
    """Age up to which an alert event is sent. A topic that is read from its beginning gives older ones."""
    token: SecretStr | None = None
    """Sent as `Authorization: Bearer …`. Preferably in MONITOR_NOTIFY__0__TOKEN_FILE."""
    allow_http: bool = False
    """Send notifications and the token unencrypted over a network."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        return check_web_address(value)

    @field_validator("token")
    @classmethod
    def _one_line(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("must be one word of printable ASCII: it is sent in a header")
        return value

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not self.allow_http and not is_loopback(parts.hostname or ""):
            raise_problems({"url": "is http, which is not encrypted; use https, or set allow_http = true"})
        return self

    @property
    def shown_url(self) -> str:
        """Scheme, host and port of the URL, for terminals and logs."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"
