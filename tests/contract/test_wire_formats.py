"""One suite over every wire format: the same readings decode to the same columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from monitor.decode import Decoder, FleetSchema, block_msgpack, reading_json
from monitor.decode.timestamps import iso_text
from monitor.types import Partition, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Callable

SENSORS = ("power", "wind_speed", "pitch")
INTERVAL_US = 600_000_000
START_US = 1_437_955_200_000_000  # 2015-07-27T00:00:00Z
N = 12

TIMES_US = START_US + np.arange(N) * INTERVAL_US
_rng = np.random.default_rng(7)
VALUES = np.round(_rng.normal(50, 20, (N, 3)), 3).astype(np.float32)
VALUES[3, 1] = VALUES[4, 0] = VALUES[4, 1] = np.nan


def _cells(row: int) -> dict[str, float | None]:
    return {name: None if np.isnan(v) else float(v) for name, v in zip(SENSORS, VALUES[row], strict=True)}


def _columns() -> dict[str, list[float | None]]:
    return {name: [_cells(row)[name] for row in range(N)] for name in SENSORS}


def _named(asset: str | None, payload: dict[str, Any]) -> dict[str, Any]:
    return payload if asset is None else {"asset": asset, **payload}


def _wide(asset: str | None) -> list[dict[str, Any]]:
    return [_named(asset, {"ts": int(TIMES_US[i]) // 10**6, "sensors": _cells(i), "site": "north"}) for i in range(N)]


def _flat(asset: str | None) -> list[dict[str, Any]]:
    return [_named(asset, {"timestamp": iso_text(int(TIMES_US[i])), **_cells(i), "tags": ["a"]}) for i in range(N)]


def _block_of_times(asset: str | None) -> list[dict[str, Any]]:
    return [_named(asset, {"time": [int(t) // 1000 for t in TIMES_US], "sensors": _columns()})]


def _block_from_start(asset: str | None) -> list[dict[str, Any]]:
    return [_named(asset, {"start": iso_text(START_US), "interval": 600, "sensors": _columns()})]


def _raw(asset: str | None, **times: Any) -> list[dict[str, Any]]:
    shuffled = ["pitch", "power", "wind_speed"]
    matrix = VALUES[:, [SENSORS.index(name) for name in shuffled]]
    return [_named(asset, {**times, "sensors": shuffled, "values": matrix.astype("<f4").tobytes()})]


def _as_json(payloads: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(payload).encode() for payload in payloads]


def _as_msgpack(payloads: list[dict[str, Any]]) -> list[bytes]:
    return [msgspec.msgpack.encode(payload) for payload in payloads]


FORMATS: dict[str, tuple[str, Callable[[str | None], list[bytes]]]] = {
    "json wide": ("json", lambda a: _as_json(_wide(a))),
    "json wide, indented": ("json", lambda a: [json.dumps(p, indent=2).encode() for p in _wide(a)]),
    "json flat": ("json", lambda a: _as_json(_flat(a))),
    "json block, times": ("json", lambda a: _as_json(_block_of_times(a))),
    "json block, start": ("json", lambda a: _as_json(_block_from_start(a))),
    "msgpack wide": ("msgpack", lambda a: _as_msgpack(_wide(a))),
    "msgpack flat": ("msgpack", lambda a: _as_msgpack(_flat(a))),
    "msgpack block, times": ("msgpack", lambda a: _as_msgpack(_block_of_times(a))),
    "msgpack block, start": ("msgpack", lambda a: _as_msgpack(_block_from_start(a))),
    "raw block, start": ("msgpack", lambda a: _as_msgpack(_raw(a, start=START_US / 1e6, interval=600.0))),
    "raw block, times": ("msgpack", lambda a: _as_msgpack(_raw(a, ts=TIMES_US.tolist()))),
}
formats = pytest.mark.parametrize("name", FORMATS)


def batch_of(values: list[bytes], key: bytes | None = None) -> RecordBatch:
    n = len(values)
    stamps = np.full(n, int(TIMES_US[-1]), np.int64)
    return RecordBatch(Partition("plant", 3), np.arange(100, 100 + n, dtype=np.int64), stamps, [key] * n, values)


def turbines() -> FleetSchema:
    return FleetSchema("turbines", INTERVAL_US, sensors=SENSORS)


@formats
@pytest.mark.parametrize("is_auto", [True, False], ids=["auto", "declared"])
def test_all_formats_give_the_same_readings(name, is_auto):
    declared, write = FORMATS[name]
    decoder = Decoder([turbines()], format="auto" if is_auto else declared)
    decoded = decoder.decode(batch_of(write("R80711")))
    assert decoded.quarantined == []
    readings = decoded.readings[0]
    assert readings.cell.tolist() == [START_US // INTERVAL_US + i for i in range(N)]
    np.testing.assert_array_equal(readings.values, VALUES)
    assert (readings.values.dtype, readings.cell.dtype, readings.asset.dtype) == (np.float32, np.int64, np.int32)
    assert readings.asset.tolist() == [0] * N
    assert decoder.assets[0].names == ["R80711"]


@formats
def test_the_key_is_the_asset_if_no_field_is(name):
    decoder = Decoder([turbines()])
    decoder.decode(batch_of(FORMATS[name][1](None), b"R80736"))
    assert decoder.assets[0].names == ["R80736"]
    anonymous = Decoder([turbines()]).decode(batch_of(FORMATS[name][1](None)))
    assert {q.reason.split(":")[0] for q in anonymous.quarantined} == {"missing_asset"}
    assert anonymous.n_accepted == 0


@formats
def test_sensors_can_be_learnt_from_every_format(name):
    decoder = Decoder([FleetSchema("turbines", INTERVAL_US)])
    readings = decoder.decode(batch_of(FORMATS[name][1]("R1"))).readings[0]
    sensors = decoder.fleets[0].sensors
    assert sensors is not None
    assert sorted(sensors) == sorted(SENSORS)
    np.testing.assert_array_equal(readings.values[:, [sensors.index(s) for s in SENSORS]], VALUES)


@formats
def test_the_limits_hold_in_every_format(name):
    values = FORMATS[name][1]("R1")
    future = Decoder([turbines()], max_skew_us=-1).decode(batch_of(values))
    assert "future" in {q.reason.split(":")[0] for q in future.quarantined}
    too_large = Decoder([turbines()], max_record_bytes=min(map(len, values)) - 1).decode(batch_of(values))
    assert {q.reason.split(":")[0] for q in too_large.quarantined} == {"too_large"}
    half = Decoder([turbines()]).decode(batch_of([value[: len(value) // 2] for value in values]))
    assert half.n_accepted == 0
    assert len(half.quarantined) == len(values)


def test_mixed_formats_keep_offset_order():
    values, expected = [], []
    writers = [write(asset) for asset, (_, write) in zip("ABCDEFGHIJK", FORMATS.values(), strict=True)]
    for turn in range(N):
        for written in writers:
            if turn < len(written):
                expected += [100 + len(values)] * (N if len(written) == 1 else 1)
                values.append(written[turn])
        values.append(b"nonsense")
    decoded = Decoder([turbines()]).decode(batch_of(values))
    assert decoded.readings[0].offset.tolist() == expected
    assert len(decoded.quarantined) == N
    assert len(decoded.readings[0]) == N * len(FORMATS)


def test_our_encoders_write_these_formats():
    assert (
        reading_json("R1", START_US, VALUES[0], SENSORS)
        == json.dumps(
            {
                "ts": START_US // 10**6,
                "asset": "R1",
                "sensors": {s: float(str(v)) for s, v in zip(SENSORS, VALUES[0], strict=True)},
            },
            separators=(",", ":"),
        ).encode()
    )
    fields = msgspec.msgpack.decode(block_msgpack("R1", TIMES_US, VALUES, SENSORS))
    assert fields == {
        "asset": "R1",
        "start": START_US // 10**6,
        "interval": 600.0,
        "sensors": list(SENSORS),
        "values": VALUES.tobytes(),
    }
