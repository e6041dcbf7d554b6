"""Blocks: documents that hold many readings of one asset as columns.

    block of columns  {"ts": [T, …], "asset": …, "sensors": {"power": [1.0, …], …}}
    raw block         {"start": T, "interval": 600, "asset": …, "sensors": ["power", …], "values": float32 bytes [N, C]}

Both accept either "ts" as a list, or "start" and "interval" in seconds. Raw bytes are little-endian, reading by
reading, and exist in MessagePack only. A missing value is null, and NaN in raw bytes. The columns may also lie in an
object of another usual name ("values", "data", …), or beside the list of times.

Input: a document. Output: times [N] and values [N, C], or a DecodeError. Invariant: `blocks.py` gives the same result
faster for the common form of raw blocks. An unreadable cell is missing, and an unknown sensor is ignored.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from monitor.decode.formatting import describe_value, quote
from monitor.decode.names import CONTAINER_NAMES, RESERVED, TIME_NAMES, plain
from monitor.decode.timestamps import MAX_US, MIN_US, TimeParser
from monitor.errors import DecodeError

if TYPE_CHECKING:
    from monitor.decode.cells import CellReader
    from monitor.types import Float32, Int64

_CELLS = {int, float, type(None)}


class BlockValues(NamedTuple):
    """The values of a block in the order of a fleet's sensors."""

    values: Float32
    """[N, C]"""
    unreadable: dict[str, object]
    """Sensor → its first cell that is neither a number nor missing."""
    unknown: list[str]
    """Names that are no sensors of the fleet."""


def block_of(fields: dict[str, Any]) -> Document | None:
    """Return the block that a document is. None = it is no block."""
    sensors = fields.get("sensors")
    if isinstance(sensors, list):
        is_array = any(isinstance(each, dict) for each in sensors)
        return None if is_array else Document(fields, sensors)
    if isinstance(sensors, dict):
        return Document(fields, sensors) if list in map(type, sensors.values()) else None
    if sensors is not None:
        raise DecodeError(f'wrong_type: "sensors" is {describe_value(sensors)}; send an object of name: number')
    times = next((n for n, v in fields.items() if type(v) is list and plain(n) in TIME_NAMES and _is_scalar(v)), None)
    if times is None and not ("start" in fields and "interval" in fields):
        return None
    for name, inner in fields.items():
        if isinstance(inner, dict) and plain(name) in CONTAINER_NAMES and list in map(type, inner.values()):
            return Document(fields, inner)
    columns = {
        n: v for n, v in fields.items() if type(v) is list and n != times and n not in RESERVED and _is_scalar(v)
    }
    return Document(fields, columns) if columns else None


def _is_scalar(values: list[Any]) -> bool:
    return {dict, list}.isdisjoint(map(type, values))


class Document:
    """A block. Each method interprets one part of it, and raises DecodeError with the reason."""

    __slots__ = ("fields", "sensors")

    def __init__(self, fields: dict[str, Any], sensors: dict[str, Any] | list[Any]) -> None:
        self.fields = fields
        self.sensors = sensors

    # ------------------------------------------------------------ times

    def times(self, given: tuple[Any, tuple[str, ...] | None], parser: TimeParser) -> Int64:
        """Return the event times [N] in microseconds. `given`: the field of the times and its path.

        Reasons: missing_ts, bad_ts, block_shape.
        """
        written, path = given
        name = path[-1] if path else next((n for n, v in self.fields.items() if v is written), "ts")
        if isinstance(written, list):
            return _times_of_list(name, written, parser)
        if written is not None:
            raise DecodeError(
                f'block_shape: "{name}" is {describe_value(written)}, but a block needs a list of times, '
                'or "start" and "interval" instead'
            )
        return self._times_from_start(parser)

    def _times_from_start(self, parser: TimeParser) -> Int64:
        start: Any = self.fields.get("start")
        interval: Any = self.fields.get("interval")
        if start is None:
            raise DecodeError('missing_ts: a block needs "ts", a list of times, or "start" and "interval" in seconds')
        start_us = _time("start", start, parser)
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
        """Return the number of readings, by the values."""
        if isinstance(self.sensors, list):
            return len(self._raw_values()) // (4 * len(self._raw_names()))
        return max(len(column) for column in self.sensors.values() if isinstance(column, list))

    # ------------------------------------------------------------ values

    def sensor_names(self) -> list[str]:
        """Return the names of the block's sensors, in its order."""
        if isinstance(self.sensors, list):
            return self._raw_names()
        for name in self.sensors:
            if not isinstance(name, str):
                raise DecodeError(f"wrong_type: the sensor name {describe_value(name)} is not a text")
        return list(self.sensors)

    def values(self, sensors: dict[str, int], n: int, reader: CellReader) -> BlockValues:
        """Return the values [N, C] of the fleet's sensors (name → column). Reason: block_shape."""
        names = self.sensor_names()
        values = np.full((n, len(sensors)), np.nan, np.float32)
        unreadable: dict[str, object] = {}
        known = [name for name in names if name in sensors]
        columns = [sensors[name] for name in known]
        if isinstance(self.sensors, list):
            matrix = self._raw_matrix(n)
            if np.isinf(matrix).any():
                for at in np.flatnonzero(np.isinf(matrix).any(axis=0)).tolist():
                    unreadable[names[at]] = float("inf")
                matrix = np.where(np.isinf(matrix), np.float32(np.nan), matrix)
            for code in reader.missing:
                matrix = np.where(matrix == np.float32(code), np.float32(np.nan), matrix)
            values[:, columns] = matrix[:, [names.index(name) for name in known]]
        else:
            for name in names:
                _check_column(name, self.sensors[name], n)
            values[:, columns] = _matrix({name: self.sensors[name] for name in known}, n, reader, unreadable).T
        return BlockValues(values, unreadable, [name for name in names if name not in sensors])

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
        return np.frombuffer(raw, "<f4").reshape(n, n_sensors).astype(np.float32, copy=False)


# ---------------------------------------------------------------- fields → numbers


def _time(name: str, written: object, parser: TimeParser) -> int:
    try:
        return parser.parse_us(written)
    except ValueError as problem:
        raise DecodeError(bad_time(name, written, problem)) from None


def bad_time(name: str, written: object, problem: ValueError) -> str:
    """Return the reason of a time that cannot be read."""
    why = str(problem).replace("set time_format", "set [kafka.fields] time_format")
    return f"bad_ts: {quote(name)} is {describe_value(written)}, which {why}"


def _times_of_list(name: str, written: list[object], parser: TimeParser) -> Int64:
    if not written:
        return np.empty(0, np.int64)
    us, is_valid = parser.parse_column_us(written)
    if not is_valid.all():
        row = int(np.argmin(is_valid))
        _time(f"{name}[{row}]", written[row], parser)
    assert (us >= MIN_US).all()  # noqa: S101  # parse_column_us and parse_us agree on every time
    return us


def _check_column(name: str, cells: object, n: int) -> None:
    if not isinstance(cells, list):
        raise DecodeError(
            f"block_shape: sensor {quote(name)} is {describe_value(cells)}; a block needs a list of {n} values"
        )
    if len(cells) != n:
        raise DecodeError(f"block_shape: sensor {quote(name)} has {len(cells)} values for {n} times")


def _matrix(columns: dict[str, list[Any]], n: int, reader: CellReader, unreadable: dict[str, object]) -> Float32:
    """Return the cells of all sensors [C, N]: at once where they are numbers, else one by one."""
    matrix = None if reader.missing else _matrix_at_once(list(columns.values()), n)
    if matrix is not None:
        return matrix
    rows = [_column(name, cells, reader, unreadable) for name, cells in columns.items()]
    return np.array(rows, np.float32).reshape(len(columns), n)


def _matrix_at_once(columns: list[list[Any]], n: int) -> Float32 | None:
    cells = list(itertools.chain.from_iterable(columns))
    if not _CELLS.issuperset(map(type, cells)):
        return None
    try:
        matrix = np.fromiter(cells, np.float32, len(cells))
    except OverflowError:  # an integer of more than 300 digits
        return None
    return None if np.isinf(matrix).any() else matrix.reshape(len(columns), n)


def _column(name: str, cells: list[Any], reader: CellReader, unreadable: dict[str, object]) -> list[float]:
    column = []
    for cell in cells:
        number = reader.read(cell)
        if number is None:
            unreadable.setdefault(name, cell)
        column.append(np.nan if number is None else number)
    return column
