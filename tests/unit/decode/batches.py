"""Batches for the tests of decoding, and a random mix of good, odd and bad records.

The mix comes from a seed and not from hypothesis strategies. A batch of 24 records is some hundred draws, which take
hypothesis a second and a seeded generator a millisecond. Hypothesis chooses (and prints) the seed.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from monitor.decode import Decoded, Decoder, FleetSchema
from monitor.types import Partition, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

SENSORS = ("power", "wind_speed", "pitch")
SECOND = 1_000_000


def turbines(**changes: Any) -> FleetSchema:
    return FleetSchema(**{"name": "turbines", "interval_us": SECOND, "sensors": SENSORS, **changes})


class SlowDecoder(Decoder):
    """Decodes every record by itself, as `document.py` defines, without the fast parsers."""

    def _decode_group(self, work: Any, group: Any) -> Any:
        return group.positions


def outcome(decoder: Decoder, *decoded: Decoded) -> dict[str, Any]:
    """Return the readings, reasons and counts of decoded batches, comparable with `==`."""
    result: dict[str, Any] = {
        "quarantined": [(q.offset, q.reason, q.sample, q.at_us) for d in decoded for q in d.quarantined],
        "accepted": sum(d.n_accepted for d in decoded),
        "tombstones": sum(d.n_tombstones for d in decoded),
    }
    for number, fleet in enumerate(decoder.fleets):
        parts = [d.readings[number] for d in decoded]
        values = [p.values for p in parts if len(p)]
        result[fleet.name] = {
            "sensors": fleet.sensors,
            "names": decoder.assets[number].names,
            "asset": np.concatenate([p.asset for p in parts]).tolist(),
            "cell": np.concatenate([p.cell for p in parts]).tolist(),
            "offset": np.concatenate([p.offset for p in parts]).tolist(),
            "values": np.concatenate(values).tobytes() if values else b"",
        }
    return result


def batch_of(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None = None,
    *,
    stamps: Sequence[int] | None = None,
    first_offset: int = 0,
    topic: str = "plant",
) -> RecordBatch:
    n = len(values)
    return RecordBatch(
        Partition(topic, 0),
        np.arange(first_offset, first_offset + n, dtype=np.int64),
        np.array([-1] * n if stamps is None else stamps, np.int64),
        [b"R1"] * n if keys is None else keys,
        values,
    )


# ---------------------------------------------------------------- random records

_NAN = float("nan")
_KEYS = [None, *[b"R1", b"R2", b"S1"] * 8, b"\xff", b"", b"no/such asset!"]
_STAMPS = [-1, -1, -1, -1, 0, 1_437_993_000 * SECOND, 10**18]
_GOOD_TIMES = [0, 1, 77, 1.5, 1_700_000_000_123, 1_700_000_000_123_456, "2015-07-27T10:30:00Z", "2015-07-27T10:30:07Z"]
_TIMES = [
    *_GOOD_TIMES, -(10**6), 1.7e12, 1_700_000_000_123_456_789, 10**30, -(2**63), -1e18, 1e300, _NAN, None, True, [1, 2],
    {}, "2015-07-27T10:30:00", "2015-07-27 10:30:00.25+02:00", "2015-07-27T25:30:00Z", "2015-02-29T10:30:00Z",
    "2015-07-27", "9999-12-31T23:59:59Z", "yesterday", "",
]  # fmt: skip
_GOOD_VALUES = [0, 1, -7, 0.5, 3.25, -1e-3, 12345.678, 0.1, 2**53 + 1, 1e-320, 3.4028234e38, None]
_VALUES = [
    *_GOOD_VALUES, 1e300, 3.4028236e38, -3.5e38, 10**400, 2**63, _NAN, float("inf"), True, "12.5", [], [1.0],
    {}, {"v": 1},
]  # fmt: skip
_ASSETS = ["R1", "R:1", "R1:2", "R2", "S1", "S 2", 17, -5, 10**101, True, None, "", "é", 1.5, "x" * 129, "R1\n", ["R1"]]
_NAMES = [*SENSORS, *SENSORS, "pwr", "wind speed", "ts", "", "asset"]
_EXTRA_FIELDS = {
    "site": ["north", "", 1, None, True, "a:b", ':":"x": {'],
    "a:b": ["x", 1, "::", None],
    "q": [0, 0, 0, 1.5, None, False],
    "tags": [["a", 1], ["a:b"], [], [[1]], {"a": None}, {"a": {"b": 1}}, [None] * 2001],
    'a"b': ["x", 1],
    "été": ["x", None],
    "meta": [
        {str(i): i for i in range(2000)},
        {"deep": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]},
        {"shallow": [1]},
        {"a": 1},
        {"a": 1},
        {"a:b": "c:d", "sensors": 2},
    ],
}


def _payload(rng: random.Random) -> dict[str, Any]:
    is_good = rng.random() < 0.75
    times, cells = (_GOOD_TIMES, _GOOD_VALUES) if is_good else (_TIMES, _VALUES)
    names = rng.sample(SENSORS, rng.randint(0, 3)) if is_good else [rng.choice(_NAMES) for _ in range(3)]
    payload: dict[str, Any] = {}
    if rng.random() < 0.3:
        for name in rng.sample(sorted(_EXTRA_FIELDS), rng.randint(1, 2)):
            payload[name] = rng.choice(_EXTRA_FIELDS[name])
    if rng.random() < 0.6:
        payload[rng.choice(["asset", "asset_id"])] = rng.choice(["R1", "S1"] if is_good else _ASSETS)
    if rng.random() < 0.1:
        payload[rng.choice(["asset", "asset_id"])] = rng.choice(["R2", None])
    form = rng.choice(["wide", "wide", "wide", "flat", "flat", "columns", "start"])
    n = rng.randint(0, 4)
    if form in ("columns", "start"):
        sensors: dict[str, Any] = {name: [rng.choice(cells) for _ in range(n)] for name in names}
        if not is_good and sensors:
            sensors[rng.choice(sorted(sensors))] = rng.choice(_VALUES)
    else:
        sensors = {name: rng.choice(cells) for name in names}
    if form == "columns":
        payload["ts"] = [rng.choice(times) for _ in range(n)]
    elif form == "start":
        payload["start"] = rng.choice(times)
        payload["interval"] = rng.choice([1, 0.5, 600] if is_good else [0, -1, None, True, 1e300, _NAN, 1e14, "1"])
    else:
        payload[rng.choice(["ts", "ts", "ts", "timestamp", "time", "when"] if not is_good else ["ts"])] = rng.choice(
            times
        )
        if rng.random() < 0.1:
            payload["time"] = rng.choice(times)
    items = list((payload | sensors if form == "flat" else payload | {"sensors": sensors}).items())
    if rng.random() < 0.3:
        rng.shuffle(items)
    return dict(items)


def _raw_block(rng: random.Random) -> bytes:
    names = rng.choice([SENSORS, SENSORS, SENSORS, SENSORS[::-1], ("power",), ("power", "power"), ("pwr",), ()])
    n = rng.randint(0, 4)
    choices = [0.5, -3.0, 7.25, _NAN, *([float("inf")] if rng.random() < 0.2 else [])]
    raw = np.array([rng.choice(choices) for _ in range(n * len(names))], "<f4").tobytes()
    payload: dict[str, Any] = {"sensors": list(names), "values": raw + (b"\0" if rng.random() < 0.1 else b"")}
    if rng.random() < 0.6:
        payload["asset"] = rng.choice(["R1", "R1", "S1", "S1", *_ASSETS])
    if rng.random() < 0.7:
        steps = [1, 1.0, 1, 0.5, 600, 1 / 3, 1e-9, 0, -1.0, 1e14, 1e20, _NAN]
        payload |= {"start": rng.choice(_GOOD_TIMES if rng.random() < 0.8 else _TIMES), "interval": rng.choice(steps)}
    else:
        payload["ts"] = [rng.choice(_GOOD_TIMES) for _ in range(n)]
    if rng.random() < 0.1:
        payload["site"] = "north"
    return _msgpack(payload)


def _msgpack(payload: dict[str, Any]) -> bytes:
    try:
        return msgspec.msgpack.encode(payload)
    except OverflowError:  # an integer that MessagePack cannot hold
        return b"\x80"


def _with_a_key_twice(rng: random.Random, value: bytes) -> bytes:
    """Add an entry to one of the record's objects, in front or at the end. Most results are well-formed."""
    key, again = rng.choice(["ts", "asset", "power", "pitch", "site", "meta"]), rng.choice([1, None, "x:y", "R1"])
    if value[0] < 0x80:
        entry = f'"{key}": {json.dumps(again)}'.encode()
        if rng.random() < 0.3:  # written with an escape
            entry = entry.replace(b"p", b"\\u0070", 1)
        if rng.random() < 0.5 and b"}" in value:
            at = rng.choice([at for at, byte in enumerate(value) if byte == ord("}")])
            return value[:at] + b"," + entry + value[at:]
        at = rng.choice([at + 1 for at, byte in enumerate(value) if byte == ord("{")] or [0])
        return value[:at] + entry + b"," + value[at:]
    entry = rng.choice([bytes([0xA0 + len(key)]), bytes([0xD9, len(key)])]) + key.encode() + _msgpack_value(again)
    if rng.random() < 0.5 and 0x80 <= value[0] < 0x8F:
        return bytes([value[0] + 1]) + value[1:] + entry
    heads = [1, *[at + 9 for at in [value.find(b"\xa7sensors")] if at > 0]]
    heads = [at for at in heads if at <= len(value) and 0x80 <= value[at - 1] < 0x8F]
    if not heads:
        return entry + value
    at = rng.choice(heads)
    return value[: at - 1] + bytes([value[at - 1] + 1]) + entry + value[at:]


def _msgpack_value(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def record(rng: random.Random) -> bytes | None:
    """Return a record: usually good, often odd, sometimes broken."""
    kind = rng.random()
    if kind < 0.03:
        return rng.choice([None, b"", b"[]", b"{}", b" ", b"\x90", b'{"ts":1e999}', rng.randbytes(12)])
    if kind < 0.3:
        value = _raw_block(rng)
    elif kind < 0.5:
        value = _msgpack(_payload(rng))
    else:
        indent, ascii_only = rng.choice([(None, True), (1, False)])
        value = json.dumps(_payload(rng), indent=indent, ensure_ascii=ascii_only).encode()
    if rng.random() < 0.08:
        value = _with_a_key_twice(rng, value)
    if rng.random() < 0.08:
        changed = bytearray(value)
        for _ in range(rng.randint(1, 3)):
            at = rng.randint(0, len(changed))
            piece = rng.choice([b"", b"{", b"}", b"\n", b'"', b"\xff", b"9", b"]", b"\0"])
            changed[at : at + rng.randint(0, 2)] = piece
        value = bytes(changed)
    return value


def mixed_batch(seed: int, max_records: int = 32) -> RecordBatch:
    """Return a batch of random records, the same for the same seed."""
    rng = random.Random(seed)
    values = [record(rng) for _ in range(rng.randint(1, max_records))]
    if rng.random() < 0.2:  # many alike, so that one fast parser suits most of them
        values += [record(random.Random(rng.randint(0, 20))) for _ in range(max_records)]
    return batch_of(values, [rng.choice(_KEYS) for _ in values], stamps=[rng.choice(_STAMPS) for _ in values])
