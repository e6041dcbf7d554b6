"""`[kafka.fields]` and `[fleet.fields]`: the places of asset, time and values in a record.

Input: the table. Output: `FieldsConfig`. Invariant: an empty table means that each record is recognised by its own
structure. A key of `[fleet.fields]` replaces the same key of `[kafka.fields]`.
"""

from __future__ import annotations

from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

from monitor.config.base import ConfigTable, Name, Names


def known_zone(value: str) -> str:
    """Check the name of a time zone."""
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError('is not a time zone; write a name like "Europe/Berlin" or "UTC"') from None
    return value


class FieldsConfig(ConfigTable):
    """`[kafka.fields]`, `[fleet.fields]`.

    A place is a name, a dotted path ("tags.host"), "key" or "key.PATH" (Kafka's key), "header:NAME" (a header),
    "topic", or, for `time` only, "kafka" (Kafka's timestamp). Names are compared without regard to the case of letters
    where no field has the exact name. Of a list of places the first that a record has counts.
    """

    asset: Names | None = None
    """Places of the asset. Default: `asset`, `asset_id`, the key, then the usual names."""
    time: Names | None = None
    """Places of the event time. Default: the usual names."""
    values: Names | None = None
    """Paths or globs of the fields that are sensors. Default: recognised."""
    ignore: Names | None = None
    """Paths or globs of fields that are no sensors."""
    sensor: Names | None = None
    """Long format: places of the sensor's name."""
    value: Names | None = None
    """Long format: places of its value."""
    items: Name | None = None
    """Path of an array of readings, sensors or assets in one record. Default: recognised."""
    columns: Names | None = None
    """Names of the columns of CSV lines, in order. Default: the records' own header."""
    timezone: Annotated[str, AfterValidator(known_zone)] = "UTC"
    """Zone of times without one."""
    time_format: Name = "auto"
    """auto, iso, s, ms, us, ns, day-first, month-first, excel, compact, or a pattern of strptime."""
    enum: dict[str, float] | None = None
    """Texts that mean numbers, beside on/off and true/false."""
    missing: tuple[float | str, ...] | None = None
    """Values that mean "no reading", beside null and NaN."""
    circular: Names | None = None
    """Sensors that are angles in degrees: 359° is near 1°."""

    def over(self, base: FieldsConfig) -> FieldsConfig:
        """Return these settings on top of others: the keys that were set here win."""
        return base.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})
