"""Readings → records, as the decoder understands them: for publishing recordings, for the demo, for tests.

The law: decoding gives back the same asset, microseconds and float32 values, whatever they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from monitor.decode.timestamps import iso

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.types import Float32, Int64

_SECONDS_BELOW = 10**11
"""A larger number would be read as milliseconds."""
_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()


def reading_json(asset: str, ts_us: int, values: Sequence[float] | Float32, sensors: Sequence[str]) -> bytes:
    """One reading as wide JSON; NaN becomes null. Values: [C], rounded to float32, written as short as they can be."""
    cells = [None if np.isnan(v) else float(str(v)) for v in np.asarray(values, np.float32)]
    return _json.encode({"ts": _time(int(ts_us)), "asset": asset, "sensors": dict(zip(sensors, cells, strict=True))})


def block_msgpack(asset: str, ts_us: Int64, values: Float32, sensors: Sequence[str]) -> bytes:
    """Readings [N] of one asset as one raw block; values: [N, C], NaN = missing."""
    raw = np.ascontiguousarray(values, "<f4")
    if raw.shape != (len(ts_us), len(sensors)):
        msg = f"values have the shape {raw.shape}; {len(ts_us)} times of {len(sensors)} sensors need another"
        raise ValueError(msg)
    return _msgpack.encode(
        {"asset": asset, **_times(np.asarray(ts_us, np.int64)), "sensors": list(sensors), "values": raw.tobytes()}
    )


def _times(ts_us: Int64) -> dict[str, object]:
    """Start and interval where the times are even, else every time."""
    if len(ts_us) > 1:
        step = int(ts_us[1] - ts_us[0])
        interval = step / 1e6
        even = ts_us[0] + np.rint(np.arange(len(ts_us)) * (interval * 1e6)).astype(np.int64)
        if step > 0 and np.array_equal(even, ts_us):
            return {"start": _time(int(ts_us[0])), "interval": interval}
    return {"ts": [_time(us) for us in ts_us.tolist()]}


def _time(us: int) -> int | float | str:
    """Seconds where they are exact, else ISO 8601."""
    if abs(us) < _SECONDS_BELOW * 1_000_000:
        if us % 1_000_000 == 0:
            return us // 1_000_000
        if round(us / 1e6 * 1e6) == us:
            return us / 1e6
    return iso(us)
