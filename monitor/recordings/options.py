"""Options for reading a file: what a file cannot say of itself.

Input: the command line. Output: `FileOptions`. Invariant: None or "auto" = recognised, and told in the recording's
notes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileOptions:
    """How to read a file. The names are those of columns."""

    asset: str | None = None
    timestamp: str | None = None
    """One column, or two as "DATE+TIME"."""
    label: str = "label"
    sensor: str | None = None
    """Long format: the column that names the sensor of each row."""
    value: str | None = None
    """Long format: the column of its value."""
    time_format: str = "auto"
    timezone: str = "UTC"
    """Zone of times without one."""
    interval_s: float | None = None
    """Step of the grid. It is the clock of a file without times."""
    hold_s: float | None = None
    """A value counts until the next one comes, for this long: data that is sent on change."""
    missing: tuple[float | str, ...] = ()
    """Values that mean "no reading", beside the recognised ones."""
    finds_missing: bool = True
    """Recognise values far outside that recur (-9999) as missing."""
    columns: tuple[str, ...] | None = None
    """Names of the columns, in order, of a file without a header."""
    decimal: str = "auto"
    """comma, point or auto."""
