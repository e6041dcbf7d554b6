"""How a bad value is shown in a reason: in the words of the wire, short, one line, whatever a producer sent."""

from __future__ import annotations

from typing import Final

MAX_REASON: Final = 400
"""Characters."""
_MAX_SHOWN = 48


def quote(text: str) -> str:
    """The text in quotes, without control characters, cut when long."""
    shown = text[:_MAX_SHOWN].encode("unicode_escape", "replace").decode("ascii") if not text.isprintable() else text
    return f'"{shown[:_MAX_SHOWN]}{"…" if len(text) > _MAX_SHOWN else ""}"'


def describe(value: object) -> str:  # one line per kind of value
    """A value as a noun: what it is, and the value itself where it is short."""
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


def some_of(names: tuple[str, ...], limit: int = 8) -> str:
    """The first names, for a hint."""
    return ", ".join(name[:_MAX_SHOWN] for name in names[:limit]) + (", …" if len(names) > limit else "")


def bounded(reason: str) -> str:
    """A reason cut to what a row of the quarantine holds; a name may bring what no database takes, like a NUL."""
    if not reason.isprintable():
        reason = reason[:MAX_REASON].encode("unicode_escape").decode("ascii")
    return reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 1] + "…"


def duration(us: int) -> str:
    """A time span, roughly, in the largest unit that fits."""
    for unit, size in (("years", 31_557_600_000_000), ("days", 86_400_000_000), ("hours", 3_600_000_000)):
        if us >= 2 * size:
            return f"{us / size:.0f} {unit}"
    return f"{us / 1e6:.0f} s"
