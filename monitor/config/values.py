"""Notations of a setting's value.

Input: a value from the file or the environment. Output: a typed value, or ValueError with a sentence that names a valid
notation. Invariant: a duration has a unit.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

_UNIT = {
    "us": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)\s*")
_DURATION_HELP = 'write a number and a unit: "500ms", "10s", "10m", "1h30m", "1d", "2w"'

_PERIOD = {"minute": "1m", "hour": "1h", "day": "1d", "week": "1w", "month": "30d", "year": "365d"}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/|per)\s*(\S.*)")
_DEVIATION = re.compile(r"\s*(?:(\d+(?:\.\d+)?(?:e[+-]?\d{1,2})?)\s*(%)?\s*)?")
_CONFIRM = re.compile(r"(\d+)\s*(?:of|/)\s*(\d+)")


def parse_duration(value: object) -> timedelta:
    """Parse a duration such as "500ms", "10m", "1h30m" or "90d"."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f'has no unit; did you mean "{value}s"?')  # noqa: TRY004 (pydantic collects ValueError)
    text = value.strip() if isinstance(value, str) else ""
    total, at = timedelta(), 0
    while part := _DURATION.match(text, at):
        try:
            total += float(part[1]) * _UNIT[part[2]]
        except OverflowError:
            raise ValueError("is longer than any history") from None
        at = part.end()
    if not text or at != len(text):
        raise ValueError(f"is not a duration; {_DURATION_HELP}")
    return total


def format_duration(value: timedelta) -> str:
    """Format a duration for `parse_duration`: "1d12h", "10m", "250ms"."""
    left, parts = value // timedelta(microseconds=1), []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        n, left = divmod(left, _UNIT[unit] // timedelta(microseconds=1))
        if n:
            parts.append(f"{n}{unit}")
    return "".join(parts) or "0s"


_RELATIVE = re.compile(r"(?:now)?\s*(?:([+-])\s*(.+))?")


def parse_time(text: str, now: datetime) -> datetime:
    """Read "2015-07-27", "2015-07-27T10:00+02:00", "now", "now-30d" or "-2h" as an aware UTC time."""
    if text and (match := _RELATIVE.fullmatch(text)):
        try:
            distance = parse_duration(match[2]) if match[2] else timedelta()
        except ValueError as error:
            raise ValueError(f'"{text}": {match[2]} {error}') from None
        try:
            return now - distance if match[1] == "-" else now + distance
        except OverflowError:
            raise ValueError(f'"{text}" is outside the calendar') from None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a time; write 2015-07-27, 2015-07-27T10:00Z, now-30d or -2h') from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


_SIZE_UNIT = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_size(value: object) -> int:
    """Parse a number of bytes such as "2GB" or "512MiB"."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?b)\s*", value.lower()) if isinstance(value, str) else None
    if found is None or not float(found[1]):
        raise ValueError('is no size; write a number and a unit, "2GB" or "512MiB"')
    return round(float(found[1]) * _SIZE_UNIT[found[2]])


@dataclass(frozen=True, slots=True)
class Promotion:
    """The way in which a challenger becomes the champion."""

    mode: str
    """auto, manual, suggest, shadow."""
    shadow: timedelta | None = None
    """Of mode shadow: live data on which challenger and champion are compared."""

    @classmethod
    def parse(cls, value: object) -> Promotion:
        """Read "auto", "manual", "suggest" or "shadow:24h"."""
        if isinstance(value, cls):
            return value
        mode, _, text = value.partition(":") if isinstance(value, str) else ("", "", "")
        if mode in ("auto", "manual", "suggest") and not text:
            return cls(mode)
        if mode != "shadow":
            raise ValueError('is not offered; write "auto", "manual", "suggest" or "shadow:24h"')
        try:
            duration = parse_duration(text)
        except ValueError as error:
            raise ValueError(f'{error}; after "shadow:", as in "shadow:24h"') from None
        if not duration:
            raise ValueError('must be above zero; write "shadow:24h"')
        return cls(mode, duration)

    def __str__(self) -> str:
        return self.mode if self.shadow is None else f"{self.mode}:{format_duration(self.shadow)}"


@dataclass(frozen=True, slots=True)
class Multiple:
    """A factor above one: "2x"."""

    factor: float

    @classmethod
    def parse(cls, value: object) -> Multiple:
        """Read "2x", "1.5x"."""
        if isinstance(value, Multiple):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*[x×]\s*", value) if isinstance(value, str) else None
        if found is None or float(found[1]) <= 1:
            raise ValueError('is no multiple above one; write "2x"')
        return cls(float(found[1]))

    def __str__(self) -> str:
        return f"{self.factor:g}x"


@dataclass(frozen=True, slots=True)
class Deviation:
    """A least difference of a reading from the expected value: absolute, or relative to the expected value."""

    absolute: float = 0.0
    """In the sensor's unit."""
    relative: float = 0.0
    """Share of the expected value."""

    @classmethod
    def parse(cls, value: object) -> Deviation:
        """Read "5%", "2.5" or 2.5."""
        if isinstance(value, Deviation):
            return value
        text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        found = _DEVIATION.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ValueError('is no deviation; write "5%" of the expected value, or a number in the sensor\'s unit')
        size = float(found[1] or 0)
        return cls(relative=size / 100) if found[2] else cls(absolute=size)

    def __str__(self) -> str:
        return f"{self.relative * 100:g}%" if self.relative else f"{self.absolute:g}" if self.absolute else ""


@dataclass(frozen=True, slots=True)
class Rate:
    """A number of events per duration: "1/week"."""

    count: float
    per: timedelta

    @classmethod
    def parse(cls, value: object) -> Rate:
        """Parse a rate such as "1/week", "2/day" or "1/90d"."""
        if isinstance(value, cls):
            return value
        match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError('is not a rate; write "1/week", "2/day" or "1/90d"')
        try:
            per = parse_duration(_PERIOD.get(match[2], match[2]))
        except ValueError:
            names = ", ".join(_PERIOD)
            raise ValueError(f'is not a rate; write {names} or a duration after the slash ("1/90d")') from None
        rate = cls(float(match[1]), per)
        if rate.count <= 0 or not rate.per:
            raise ValueError("must be above zero")
        return rate

    def within(self, duration: timedelta) -> float:
        """Return the number allowed within `duration`."""
        return self.count * (duration / self.per)

    def __str__(self) -> str:
        name = next((n for n, d in _PERIOD.items() if parse_duration(d) == self.per), format_duration(self.per))
        return f"{self.count:g}/{name}"


@dataclass(frozen=True, slots=True)
class Confirm:
    """`m` anomalous windows among the last `n`: "3 of 5"."""

    m: int
    n: int

    @classmethod
    def parse(cls, value: object) -> Confirm:
        """Parse "3 of 5"."""
        if isinstance(value, cls):
            return value
        match = _CONFIRM.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError('is not "m of n"; write "3 of 5": three anomalous windows among the last five')
        m, n = int(match[1]), int(match[2])
        if not 1 <= m <= n <= 1000:
            raise ValueError(f'can never be met; write "{max(1, min(m, n))} of {max(m, n, 1)}" (1 ≤ m ≤ n ≤ 1000)')
        return cls(m, n)

    def __str__(self) -> str:
        return f"{self.m} of {self.n}"


def parse_names(value: object) -> object:
    """Parse one name, names separated by commas (in a variable), or a list. Other values pass unchanged."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("is empty; name at least one, or leave the key out")
        if twice := sorted({str(name) for name in value if value.count(name) > 1}):
            raise ValueError(f"names {', '.join(twice)} twice")
    return value


def parse_command(value: object) -> object:
    """Parse a program and its arguments: a list, or one line in a shell's notation. No shell runs it."""
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError as error:
            raise ValueError(f"is not a command ({error}); write a list of words") from None
    if isinstance(value, (list, tuple)) and not value:
        raise ValueError("is empty; name a program")
    return value


def check_web_address(url: str, login_key: str = "token") -> str:
    """Check a URL: http or https, a host, and no part that would not be sent as it is written.

    `login_key`: the setting that a password belongs in.
    """
    try:
        parts = urlsplit(url)
        is_complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_complete = False
    if not is_complete:
        raise ValueError('is not a web address; write "https://host/path"')
    if not re.fullmatch(r"[\x21-\x7e]+", url):
        raise ValueError("has a space or a letter beyond ASCII; write it percent-encoded, the host in punycode")
    if parts.username is not None or parts.fragment:
        raise ValueError(f"has a password or a fragment, which are not sent; use {login_key}")
    return url


def is_loopback(host: str) -> bool:
    """Return True if the host is a loopback name or address. No name is looked up."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def listen_address(text: str) -> tuple[str, int] | None:
    """Return host and port of "127.0.0.1:8420" or "[::1]:8420". None = it is no such address."""
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host
    if not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    try:
        if host.startswith("[") and host.endswith("]"):
            return str(IPv6Address(host[1:-1])), int(port)
        return str(IPv4Address(host)), int(port)
    except ValueError:
        return None
