"""Any record → its asset, its times and its values; or a DecodeError that says what is wrong and what to do.

This is the definition of the wire formats. `readings.py` and `blocks.py` are faster ways to the same answer for the
usual shapes, and hand over to this page whatever they do not know at once. Four forms, in JSON or MessagePack alike:

    reading, wide     {"ts": T, "asset": "R80711", "sensors": {"power": 1.0, "pitch": null}, …}   other fields: ignored
    reading, flat     {"ts": T, "asset": "R80711", "power": 1.0, "pitch": null, …}     texts, objects, lists: ignored
    block, columns    {"ts": [T, …], "asset": …, "sensors": {"power": [1.0, …], …}}
    block, raw        {"start": T, "interval": 600, "asset": …, "sensors": ["power", …], "values": float32 bytes [N, C]}

`asset` may be spelled asset_id or be Kafka's key; `ts` may be spelled timestamp or time; both blocks take either
"ts" as a list or "start" and "interval" in seconds. T: see times.py. Raw bytes are little-endian, row by row, and
exist in MessagePack only. null, and NaN in raw bytes, is missing.

The law: a record is used whole or not at all. Of a key that stands twice in one object the last value counts.
"""

from __future__ import annotations

import enum
import itertools
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from monitor.decode.formatting import describe, quote, some_of
from monitor.decode.payload import FLOAT32_LIMIT, open_json, open_msgpack
from monitor.decode.timestamps import MAX_US, MIN_US, column_us, parse_us
from monitor.errors import DecodeError

if TYPE_CHECKING:
    from monitor.decode.schema import FleetSchema, Token
    from monitor.types import Float32, Int64

ASSET_FIELDS: Final = ("asset", "asset_id")
TIME_FIELDS: Final = ("ts", "timestamp", "time")
RESERVED: Final = frozenset((*ASSET_FIELDS, *TIME_FIELDS, "sensors"))
"""Fields that are never a sensor in the flat form."""
_NUMBERS = {int, float}
_CELLS = {int, float, type(None)}


class Form(enum.Enum):
    """How a record is laid out."""

    WIDE = "wide reading"
    FLAT = "flat reading"
    COLUMNS = "block of columns"
    RAW = "raw block"


class Document:
    """One record's content, understood step by step: each method says what it refuses."""

    __slots__ = ("fields", "form", "sensors")

    def __init__(self, value: bytes, *, is_msgpack: bool) -> None:
        self.fields: dict[str, Any] = open_msgpack(value) if is_msgpack else open_json(value)
        self.sensors = self.fields.get("sensors")
        self.form = self._form()

    def _form(self) -> Form:
        if self.sensors is None:
            return Form.FLAT
        if isinstance(self.sensors, dict):
            return Form.COLUMNS if list in map(type, self.sensors.values()) else Form.WIDE
        if isinstance(self.sensors, list):
            return Form.RAW
        msg = f'wrong_type: "sensors" is {describe(self.sensors)}; send an object of name: number'
        raise DecodeError(msg)

    def token(self, key: bytes | None) -> Token | None:
        """How the record spells its asset; the payload goes before the key. None = nowhere."""
        for name in ASSET_FIELDS:
            token = self.fields.get(name)
            if token is not None:
                if type(token) is str or type(token) is int:
                    return token
                msg = f'bad_asset: "{name}" is {describe(token)}; send the asset\'s name as a text'
                raise DecodeError(msg)
        return key

    # ------------------------------------------------------------ times

    def times(self) -> Int64:
        """Event times [N] in microseconds; a reading has one. Reasons: missing_ts, bad_ts, block_shape."""
        name, written = next(
            ((n, t) for n in TIME_FIELDS if (t := self.fields.get(n)) is not None), (TIME_FIELDS[0], None)
        )
        if self.form in (Form.WIDE, Form.FLAT):
            if written is None:
                msg = 'missing_ts: there is no "ts"; send the event time in seconds since 1970 or as ISO 8601 text'
                raise DecodeError(msg)
            if isinstance(written, list):
                msg = (
                    f'block_shape: "{name}" is a list of {len(written)} times, but the sensors hold single values; '
                    "send a list per sensor, or one time"
                )
                raise DecodeError(msg)
            return np.array([_time(name, written)], np.int64)
        if isinstance(written, list):
            return _times_of_list(name, written)
        if written is not None:
            msg = (
                f'block_shape: "{name}" is {describe(written)}, but a block needs a list of times, '
                'or "start" and "interval" instead'
            )
            raise DecodeError(msg)
        return self._times_from_start()

    def _times_from_start(self) -> Int64:
        start: Any = self.fields.get("start")
        interval: Any = self.fields.get("interval")
        if start is None:
            msg = 'missing_ts: a block needs "ts", a list of times, or "start" and "interval" in seconds'
            raise DecodeError(msg)
        start_us = _time("start", start)
        is_number = isinstance(interval, (int, float)) and not isinstance(interval, bool)
        if not is_number or not 0 < interval < 1e13 or not interval * 1e6 < 1e18:  # first what can be multiplied
            msg = f'bad_ts: "interval" is {describe(interval)}; send the seconds between two readings, more than 0'
            raise DecodeError(msg)
        n, step_us = self._n_rows(), interval * 1e6
        if start_us + round(max(n - 1, 0) * step_us) > MAX_US:
            msg = f'bad_ts: {n} readings every {interval} s from "start" on end after the year 9999'
            raise DecodeError(msg)
        times: Int64 = start_us + np.rint(np.arange(n) * step_us).astype(np.int64)
        return times

    def _n_rows(self) -> int:
        if self.form is Form.RAW:
            return len(self._raw_values()) // (4 * len(self._raw_names()))
        assert isinstance(self.sensors, dict)  # noqa: S101  # what Form.COLUMNS means
        return max(len(column) for column in self.sensors.values() if isinstance(column, list))

    # ------------------------------------------------------------ values

    def names(self) -> list[str]:
        """The sensors the record speaks of, in its order."""
        if self.form is Form.FLAT:
            return [n for n, v in self.fields.items() if n not in RESERVED and (v is None or type(v) in _NUMBERS)]
        return self._raw_names() if self.form is Form.RAW else list(self._named())

    def values(self, fleet: FleetSchema, n: int) -> Float32:
        """Values [N, C] in the order of the fleet's sensors.

        Reasons: wrong_type, unknown_sensor, not_finite, block_shape.
        """
        sensors = fleet.sensors or ()
        values = np.full((n, len(sensors)), np.nan, np.float32)
        column_of = {name: c for c, name in enumerate(sensors)}
        if self.form is Form.RAW:
            names = self._raw_names()
            for name in names:
                if name not in column_of:
                    raise DecodeError(_unknown(name, fleet))
            values[:, [column_of[name] for name in names]] = self._raw_matrix(n)
        elif self.form is Form.COLUMNS:
            columns = self._named()
            for name in columns:
                if name not in column_of:
                    raise DecodeError(_unknown(name, fleet))
            matrix = _matrix(list(columns.values()), n)
            if matrix is None:
                matrix = np.array([_column(name, cells, n) for name, cells in columns.items()], np.float32)
            values[:, [column_of[name] for name in columns]] = matrix.T
        else:
            given = self._named() if self.form is Form.WIDE else self._flat(column_of)
            for name, value in given.items():
                if name in column_of:
                    values[0, column_of[name]] = _number(name, value)
                elif value is not None or self.form is Form.WIDE:
                    _number(name, value)
                    raise DecodeError(_unknown(name, fleet))
        return values

    def ignored(self, sensors: tuple[str, ...]) -> dict[str, Any]:
        """Fields of a reading that say nothing to us: what a faster path may expect and skip."""
        if self.form is Form.WIDE:
            return {name: value for name, value in self.fields.items() if name not in RESERVED}
        return {n: v for n, v in self.fields.items() if n not in RESERVED and n not in sensors}

    def _named(self) -> dict[str, Any]:
        assert isinstance(self.sensors, dict)  # noqa: S101  # what the form means
        for name in self.sensors:
            if not isinstance(name, str):
                msg = f"wrong_type: the sensor name {describe(name)} is not a text"
                raise DecodeError(msg)
        return self.sensors

    def _flat(self, sensors: dict[str, int]) -> dict[str, Any]:
        """The fields of the flat form that are, or ought to be, values of sensors."""
        return {
            name: value
            for name, value in self.fields.items()
            if name not in RESERVED and (name in sensors or not isinstance(value, (str, bytes, dict, list)))
        }

    def _raw_names(self) -> list[str]:
        names: list[Any] = self.sensors if isinstance(self.sensors, list) else []
        if not names or not all(type(name) is str for name in names) or len(set(names)) != len(names):
            msg = 'block_shape: "sensors" must list the names of the sensors, each once'
            raise DecodeError(msg)
        return names

    def _raw_values(self) -> bytes:
        raw = self.fields.get("values")
        if not isinstance(raw, bytes):
            msg = (
                f'block_shape: "sensors" is a list, so "values" must be raw float32 bytes of MessagePack, '
                f"but it is {describe(raw)}; in JSON send sensors as an object of name: list"
            )
            raise DecodeError(msg)
        return raw

    def _raw_matrix(self, n: int) -> Float32:
        raw, n_sensors = self._raw_values(), len(self._raw_names())
        if len(raw) != 4 * n * n_sensors:
            msg = (
                f'block_shape: "values" has {len(raw)} bytes; {n} times of {n_sensors} sensors '
                f"as float32 are {4 * n * n_sensors}"
            )
            raise DecodeError(msg)
        matrix = np.frombuffer(raw, "<f4").reshape(n, n_sensors)
        if np.isinf(matrix).any():
            row, column = np.argwhere(np.isinf(matrix))[0]
            msg = (
                f"not_finite: sensor {quote(self._raw_names()[column])} is {matrix[row, column]} in row {row}; "
                "send NaN where it is missing"
            )
            raise DecodeError(msg)
        return matrix.astype(np.float32, copy=False)


# ---------------------------------------------------------------- fields → numbers


def _time(name: str, written: object) -> int:
    try:
        return parse_us(written)
    except ValueError as problem:
        msg = f'bad_ts: "{name}" is {describe(written)}, which {problem}'
        raise DecodeError(msg) from None


def _times_of_list(name: str, written: list[object]) -> Int64:
    if not written:
        return np.empty(0, np.int64)
    us, ok = column_us(written)
    if not ok.all():
        row = int(np.argmin(ok))
        _time(f"{name}[{row}]", written[row])
    assert (us >= MIN_US).all()  # noqa: S101  # column_us and parse_us agree, or a bad time slipped through
    return us


def _number(name: str, value: object) -> float:
    if value is None:
        return np.nan
    if type(value) is not int and type(value) is not float:
        raise DecodeError(_not_a_number(name, value))
    if not -FLOAT32_LIMIT < value < FLOAT32_LIMIT:
        msg = (
            f"not_finite: sensor {quote(name)} is {describe(value)}, which is no finite 32-bit number; "
            "send null where it is missing"
        )
        raise DecodeError(msg)
    return value


def _matrix(columns: list[Any], n: int) -> Float32 | None:
    """All columns [C, N] at once where nothing is wrong with them; None = look at them one by one."""
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
        msg = f"block_shape: sensor {quote(name)} is {describe(cells)}; a block needs a list of {n} values"
        raise DecodeError(msg)
    if len(cells) != n:
        msg = f"block_shape: sensor {quote(name)} has {len(cells)} values for {n} times"
        raise DecodeError(msg)
    return [_number(name, cell) for cell in cells]


def _not_a_number(name: str, value: object) -> str:
    return f"wrong_type: sensor {quote(name)} is {describe(value)}; send a number, or null where it is missing"


def _unknown(name: str, fleet: FleetSchema) -> str:
    return (
        f"unknown_sensor: {quote(name)} is not a sensor of fleet {quote(fleet.name)} ({some_of(fleet.sensors or ())}); "
        "list it under sensors or correct the producer"
    )
