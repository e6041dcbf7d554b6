"""Bad values as text, for the reasons of quarantined records.

Input: any value of a record. Output: short printable text on one line.
"""

from __future__ import annotations

from typing import Final

from monitor.printable import escape_unprintable

MAX_REASON: Final = 400
"""Characters."""
_MAX_SHOWN = 48
"""Characters shown of one value."""


def quote(text: str) -> str:
    """Return the text in quotes, with control characters escaped, cut when long."""
    shown = escape_unprintable(text[:_MAX_SHOWN])
    return f'"{shown[:_MAX_SHOWN]}{"…" if len(text) > _MAX_SHOWN else ""}"'


def toml(text: str) -> str:
    """Return the text as TOML writes it, in whole where it is no longer than a name."""
    inner = text[:128].replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escape_unprintable(inner)}"'


def describe_value(value: object) -> str:
    """Return a noun phrase for a value: its type in the words of JSON, and the value itself where it is short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**30 else "a number with more than 30 digits"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return f"the text {quote(value)}"
    if isinstance(value, bytes):
        return f"{len(value)} bytes ({value[:16].hex(' ')}{' …' if len(value) > 16 else ''})"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    return f"a {type(value).__name__}"


def short_list(names: tuple[str, ...], limit: int = 8) -> str:
    """Return the first `limit` names, separated by commas."""
    shown = ", ".join(escape_unprintable(name[:_MAX_SHOWN]) for name in names[:limit])
    return shown + (", …" if len(names) > limit else "")


def truncate_reason(reason: str) -> str:
    """Cut a reason to `MAX_REASON` characters, and escape characters that a database refuses, such as NUL."""
    reason = escape_unprintable(reason[: MAX_REASON + 1])
    return reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 1] + "…"


def duration_text(us: int) -> str:
    """Return a time span, rounded, in the largest unit of which it is at least two."""
    for unit, size in (("years", 31_557_600_000_000), ("days", 86_400_000_000), ("hours", 3_600_000_000)):
        if us >= 2 * size:
            return f"{us / size:.0f} {unit}"
    return f"{us / 1e6:.0f} s"
