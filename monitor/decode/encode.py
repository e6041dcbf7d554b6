"""Readings → records in the wire formats that the decoder reads: for published recordings, the demo and tests.

Input: the readings of one asset. Output: bytes of a Kafka record. Invariant: decoding gives back the same asset,
microseconds and float32 values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from monitor.decode.timestamps import iso_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.types import Float32, Int64

_SECONDS_BELOW = 10**11
"""The decoder reads a larger number as milliseconds."""
_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()


def reading_json(asset: str, ts_us: int, values: Sequence[float] | Float32, sensors: Sequence[str]) -> bytes:
    """Encode one reading as wide JSON.

    `values`: [C], rounded to float32 and written with as few digits as it needs. NaN becomes null.
    """
    cells = [None if np.isnan(v) else float(str(v)) for v in np.asarray(values, np.float32)]
    fields = {"ts": _written_time(int(ts_us)), "asset": asset, "sensors": dict(zip(sensors, cells, strict=True))}
    return _json.encode(fields)


def block_msgpack(asset: str, ts_us: Int64, values: Float32, sensors: Sequence[str]) -> bytes:
    """Encode the readings [N] of one asset as one raw block.

    `values`: [N, C], NaN = missing. Raises ValueError where the shapes do not fit.
    """
    raw = np.ascontiguousarray(values, "<f4")
    if raw.shape != (len(ts_us), len(sensors)):
        raise ValueError(
            f"values have the shape {raw.shape}; {len(ts_us)} times of {len(sensors)} sensors need another"
        )
    times = _written_times(np.asarray(ts_us, np.int64))
    return _msgpack.encode({"asset": asset, **times, "sensors": list(sensors), "values": raw.tobytes()})


def _written_times(ts_us: Int64) -> dict[str, object]:
    """Return "start" and "interval" for evenly spaced times, else "ts" with every time."""
    if len(ts_us) > 1:
        step = int(ts_us[1] - ts_us[0])
        interval = step / 1e6
        even = ts_us[0] + np.rint(np.arange(len(ts_us)) * (interval * 1e6)).astype(np.int64)
        if step > 0 and np.array_equal(even, ts_us):
            return {"start": _written_time(int(ts_us[0])), "interval": interval}
    return {"ts": [_written_time(us) for us in ts_us.tolist()]}


def _written_time(us: int) -> int | float | str:
    """Return the time in seconds where that is exact, else as ISO 8601."""
    if abs(us) < _SECONDS_BELOW * 1_000_000:
        if us % 1_000_000 == 0:
            return us // 1_000_000
        if round(us / 1e6 * 1e6) == us:
            return us / 1e6
    return iso_text(us)
