"""Any record → its asset, its times and its values. This module defines the wire formats.

`readings.py` and `blocks.py` give the same result faster for common records, and leave all others to this module. There
are four layouts, the same in JSON and MessagePack:

    wide reading      {"ts": T, "asset": "R80711", "sensors": {"power": 1.0, "pitch": null}, …}   other fields: ignored
    flat reading      {"ts": T, "asset": "R80711", "power": 1.0, "pitch": null, …}     texts, objects, lists: ignored
    block of columns  {"ts": [T, …], "asset": …, "sensors": {"power": [1.0, …], …}}
    raw block         {"start": T, "interval": 600, "asset": …, "sensors": ["power", …], "values": float32 bytes [N, C]}

The asset may also be the field "asset_id", or Kafka's key. The time "ts" may also be called "timestamp" or "time". Both
blocks accept either "ts" as a list, or "start" and "interval" in seconds. See timestamps.py for T. Raw bytes are
little-endian, reading by reading, and exist in MessagePack only. A missing value is null, and NaN in raw bytes.

Input: the value of one record. Output: token, times [N] and values [N, C], or a DecodeError. Invariant: a record is
used whole or not at all. Of a key that stands twice in one object the last value counts.
"""

from __future__ import annotations

import enum
import itertools
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from monitor.decode.formatting import describe_value, quote, short_list
from monitor.decode.payload import FLOAT32_LIMIT
from monitor.decode.timestamps import MAX_US, MIN_US, parse_column_us, parse_us
from monitor.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitor.decode.schema import FleetSchema, Token
    from monitor.types import Float32, Int64

ASSET_FIELDS: Final = ("asset", "asset_id")
TIME_FIELDS: Final = ("ts", "timestamp", "time")
RESERVED: Final = frozenset((*ASSET_FIELDS, *TIME_FIELDS, "sensors"))
"""Fields that are never a sensor in a flat reading."""
_NUMBERS = {int, float}
_CELLS = {int, float, type(None)}


class Layout(enum.Enum):
    """The layout of a record's fields."""

    WIDE = "wide reading"
    FLAT = "flat reading"
    COLUMNS = "block of columns"
    RAW = "raw block"


class Document:
    """The fields of one record. Each method interprets one part of them, and raises DecodeError with the reason."""

    __slots__ = ("fields", "layout", "sensors")

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self.sensors = self.fields.get("sensors")
        self.layout = self._find_layout()

    def _find_layout(self) -> Layout:
        if self.sensors is None:
            return Layout.FLAT
        if isinstance(self.sensors, dict):
            return Layout.COLUMNS if list in map(type, self.sensors.values()) else Layout.WIDE
        if isinstance(self.sensors, list):
            return Layout.RAW
        raise DecodeError(f'wrong_type: "sensors" is {describe_value(self.sensors)}; send an object of name: number')

    def asset_token(self, key: bytes | None) -> Token | None:
        """Return the asset as the record spells it, or Kafka's key where no field names one. None = neither does."""
        for name in ASSET_FIELDS:
            token = self.fields.get(name)
            if token is not None:
                if type(token) is str or type(token) is int:
                    return token
                raise DecodeError(f'bad_asset: "{name}" is {describe_value(token)}; send the asset\'s name as a text')
        return key

    # ------------------------------------------------------------ times

    def times(self) -> Int64:
        """Return the event times [N] in microseconds, N = 1 for a reading. Reasons: missing_ts, bad_ts, block_shape."""
        given = ((name, value) for name in TIME_FIELDS if (value := self.fields.get(name)) is not None)
        name, written = next(given, (TIME_FIELDS[0], None))
        if self.layout in (Layout.WIDE, Layout.FLAT):
            return self._time_of_reading(name, written)
        if isinstance(written, list):
            return _times_of_list(name, written)
        if written is not None:
            raise DecodeError(
                f'block_shape: "{name}" is {describe_value(written)}, but a block needs a list of times, '
                'or "start" and "interval" instead'
            )
        return self._times_from_start()

    def _time_of_reading(self, name: str, written: object) -> Int64:
        if written is None:
            raise DecodeError(
                'missing_ts: there is no "ts"; send the event time in seconds since 1970 or as ISO 8601 text'
            )
        if isinstance(written, list):
            raise DecodeError(
                f'block_shape: "{name}" is a list of {len(written)} times, but the sensors hold single values; '
                "send a list per sensor, or one time"
            )
        return np.array([_time(name, written)], np.int64)

    def _times_from_start(self) -> Int64:
        start: Any = self.fields.get("start")
        interval: Any = self.fields.get("interval")
        if start is None:
            raise DecodeError('missing_ts: a block needs "ts", a list of times, or "start" and "interval" in seconds')
        start_us = _time("start", start)
        is_number = isinstance(interval, (int, float)) and not isinstance(interval, bool)
        # A huge integer cannot be multiplied by a float, so the first comparison stands before the second.
        if not is_number or not 0 < interval < 1e13 or not interval * 1e6 < 1e18:
            raise DecodeError(
                f'bad_ts: "interval" is {describe_value(interval)}; send the seconds between two readings, more than 0'
            )
        n, step_us = self._n_readings(), interval * 1e6
        if start_us + round(max(n - 1, 0) * step_us) > MAX_US:
            raise DecodeError(f'bad_ts: {n} readings every {interval} s from "start" on end after the year 9999')
        times: Int64 = start_us + np.rint(np.arange(n) * step_us).astype(np.int64)
        return times

    def _n_readings(self) -> int:
        """Return the number of readings of a block, by its values."""
        if self.layout is Layout.RAW:
            return len(self._raw_values()) // (4 * len(self._raw_names()))
        assert isinstance(self.sensors, dict)  # noqa: S101  # by Layout.COLUMNS
        return max(len(column) for column in self.sensors.values() if isinstance(column, list))

    # ------------------------------------------------------------ values

    def sensor_names(self) -> list[str]:
        """Return the names of the record's sensors, in its order."""
        if self.layout is Layout.FLAT:
            return [n for n, v in self.fields.items() if n not in RESERVED and (v is None or type(v) in _NUMBERS)]
        return self._raw_names() if self.layout is Layout.RAW else list(self._named_sensors())

    def values(self, fleet: FleetSchema, n: int) -> Float32:
        """Return the values [N, C] in the order of the fleet's sensors.

        Reasons: wrong_type, unknown_sensor, not_finite, block_shape.
        """
        sensors = fleet.sensors or ()
        values = np.full((n, len(sensors)), np.nan, np.float32)
        column_of = {name: c for c, name in enumerate(sensors)}
        if self.layout is Layout.RAW:
            columns = _columns_of(self._raw_names(), column_of, fleet)
            values[:, columns] = self._raw_matrix(n)
        elif self.layout is Layout.COLUMNS:
            cells = self._named_sensors()
            columns = _columns_of(cells, column_of, fleet)
            values[:, columns] = _matrix_of_columns(cells, n).T
        else:
            given = self._named_sensors() if self.layout is Layout.WIDE else self._flat_sensors(column_of)
            for name, value in given.items():
                if name in column_of:
                    values[0, column_of[name]] = _number(name, value)
                elif value is not None or self.layout is Layout.WIDE:
                    _number(name, value)
                    raise DecodeError(_unknown_sensor(name, fleet))
        return values

    def extra_fields(self, sensors: tuple[str, ...]) -> dict[str, Any]:
        """Return the fields of a reading that are ignored. A fast parser must expect them by name."""
        if self.layout is Layout.WIDE:
            return {name: value for name, value in self.fields.items() if name not in RESERVED}
        return {n: v for n, v in self.fields.items() if n not in RESERVED and n not in sensors}

    def _named_sensors(self) -> dict[str, Any]:
        assert isinstance(self.sensors, dict)  # noqa: S101  # by Layout.WIDE and Layout.COLUMNS
        for name in self.sensors:
            if not isinstance(name, str):
                raise DecodeError(f"wrong_type: the sensor name {describe_value(name)} is not a text")
        return self.sensors

    def _flat_sensors(self, sensors: dict[str, int]) -> dict[str, Any]:
        """Return the fields of a flat reading that are, or should be, values of sensors."""
        return {
            name: value
            for name, value in self.fields.items()
            if name not in RESERVED and (name in sensors or not isinstance(value, (str, bytes, dict, list)))
        }

    def _raw_names(self) -> list[str]:
        names: list[Any] = self.sensors if isinstance(self.sensors, list) else []
        if not names or not all(type(name) is str for name in names) or len(set(names)) != len(names):
            raise DecodeError('block_shape: "sensors" must list the names of the sensors, each once')
        return names

    def _raw_values(self) -> bytes:
        raw = self.fields.get("values")
        if not isinstance(raw, bytes):
            raise DecodeError(
                f'block_shape: "sensors" is a list, so "values" must be raw float32 bytes of MessagePack, '
                f"but it is {describe_value(raw)}; in JSON send sensors as an object of name: list"
            )
        return raw

    def _raw_matrix(self, n: int) -> Float32:
        raw, n_sensors = self._raw_values(), len(self._raw_names())
        if len(raw) != 4 * n * n_sensors:
            raise DecodeError(
                f'block_shape: "values" has {len(raw)} bytes; {n} times of {n_sensors} sensors '
                f"as float32 are {4 * n * n_sensors}"
            )
        matrix = np.frombuffer(raw, "<f4").reshape(n, n_sensors)
        if np.isinf(matrix).any():
            row, column = np.argwhere(np.isinf(matrix))[0]
            raise DecodeError(
                f"not_finite: sensor {quote(self._raw_names()[column])} is {matrix[row, column]} in row {row}; "
                "send NaN where it is missing"
            )
        return matrix.astype(np.float32, copy=False)


# ---------------------------------------------------------------- fields → numbers


def _time(name: str, written: object) -> int:
    try:
        return parse_us(written)
    except ValueError as problem:
        raise DecodeError(f'bad_ts: "{name}" is {describe_value(written)}, which {problem}') from None


def _times_of_list(name: str, written: list[object]) -> Int64:
    if not written:
        return np.empty(0, np.int64)
    us, is_valid = parse_column_us(written)
    if not is_valid.all():
        row = int(np.argmin(is_valid))
        _time(f"{name}[{row}]", written[row])
    assert (us >= MIN_US).all()  # noqa: S101  # parse_column_us and parse_us agree on every time
    return us


def _number(name: str, value: object) -> float:
    if value is None:
        return np.nan
    if type(value) is not int and type(value) is not float:
        raise DecodeError(
            f"wrong_type: sensor {quote(name)} is {describe_value(value)}; send a number, or null where it is missing"
        )
    if not -FLOAT32_LIMIT < value < FLOAT32_LIMIT:
        raise DecodeError(
            f"not_finite: sensor {quote(name)} is {describe_value(value)}, which is no finite 32-bit number; "
            "send null where it is missing"
        )
    return value


def _columns_of(names: Iterable[str], column_of: dict[str, int], fleet: FleetSchema) -> list[int]:
    """Return the fleet's column of each sensor. Reason: unknown_sensor."""
    columns = []
    for name in names:
        if name not in column_of:
            raise DecodeError(_unknown_sensor(name, fleet))
        columns.append(column_of[name])
    return columns


def _matrix_of_columns(columns: dict[str, Any], n: int) -> Float32:
    """Return the cells of all sensors [C, N]: at once where they are valid, else one by one to find the reason."""
    matrix = _matrix_at_once(list(columns.values()), n)
    if matrix is not None:
        return matrix
    return np.array([_column(name, cells, n) for name, cells in columns.items()], np.float32)


def _matrix_at_once(columns: list[Any], n: int) -> Float32 | None:
    if not all(type(column) is list and len(column) == n for column in columns):
        return None
    cells = list(itertools.chain.from_iterable(columns))
    if not _CELLS.issuperset(map(type, cells)):
        return None
    try:
        matrix = np.fromiter(cells, np.float32, len(cells))
    except OverflowError:  # an integer of more than 300 digits
        return None
    if not np.isfinite(matrix).all() and np.count_nonzero(~np.isfinite(matrix)) != cells.count(None):
        return None
    return matrix.reshape(len(columns), n)


def _column(name: str, cells: object, n: int) -> list[float]:
    if not isinstance(cells, list):
        raise DecodeError(
            f"block_shape: sensor {quote(name)} is {describe_value(cells)}; a block needs a list of {n} values"
        )
    if len(cells) != n:
        raise DecodeError(f"block_shape: sensor {quote(name)} has {len(cells)} values for {n} times")
    return [_number(name, cell) for cell in cells]


def _unknown_sensor(name: str, fleet: FleetSchema) -> str:
    known = short_list(fleet.sensors or ())
    return (
        f"unknown_sensor: {quote(name)} is not a sensor of fleet {quote(fleet.name)} ({known}); "
        "list it under sensors or correct the producer"
    )
