"""Samples as records: every form of a good record, and every kind of bad one.

Input: samples (readings before they are encoded) in order of arrival. Output: a partition's raw log. Invariant: a bad
record has exactly one defect, so that exactly one reason is right.
"""

from __future__ import annotations

import itertools
import json
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.oracle.log import FleetRule, RawRecord, Rules

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sample:
    """A reading before it is encoded."""

    ts_us: int
    asset: str
    values: dict[str, float | None]


def _time(rng: Random, ts_us: int) -> Any:
    moment = EPOCH + timedelta(microseconds=ts_us)
    return rng.choice(
        [
            moment.isoformat().replace("+00:00", "Z"),
            moment.replace(tzinfo=None).isoformat(sep=rng.choice("T ")),
            (moment + timedelta(hours=2)).isoformat().replace("+00:00", "+02:00"),
            ts_us / 1_000_000,
            ts_us // 1000 if ts_us % 1000 == 0 else ts_us,
            ts_us,
            ts_us * 1000,
        ]
    )


def _loose(rng: Random, values: dict[str, float | None]) -> dict[str, Any]:
    """Write numbers as texts, and break some fields: each costs itself alone."""
    broken = rng.sample(list(values), rng.randrange(len(values)))
    return {
        name: rng.choice(["unavailable", "broken", True, float("nan"), 1e39]) if name in broken
        else str(value) if value is not None and rng.random() < 0.5
        else value
        for name, value in values.items()
    }  # fmt: skip


def _array(run: list[Sample]) -> bytes:
    """Return one record with readings of several assets."""
    return json.dumps([{"ts": one.ts_us, "asset": one.asset, "sensors": one.values} for one in run]).encode()


def _single(rng: Random, one: Sample) -> dict[str, Any]:
    body: dict[str, Any] = {rng.choice(["ts", "timestamp", "time"]): _time(rng, one.ts_us)}
    values = _loose(rng, one.values) if one.values and rng.random() < 0.05 else one.values
    if rng.random() < 0.5:
        return body | {"sensors": values, "site": "north"}
    return body | values | {"unit": "SI", "tags": {"line": 4}}


def _block(rng: Random, run: list[Sample], rule: FleetRule) -> tuple[dict[str, Any], bool]:
    """Return a block and whether only MessagePack can carry it."""
    body: dict[str, Any] = {}
    steps = {later.ts_us - one.ts_us for one, later in itertools.pairwise(run)}
    if len(steps) == 1 and min(steps) > 0 and min(steps) % 1000 == 0 and rng.random() < 0.7:
        body |= {"start": _time(rng, run[0].ts_us), "interval": min(steps) / 1_000_000}
    else:
        body["ts"] = [_time(rng, one.ts_us) for one in run]
    names = [name for name in rule.sensors if any(name in one.values for one in run)]
    rng.shuffle(names)
    if rng.random() < 0.5:
        rows = [one.values.get(name) for one in run for name in names]
        raw = struct.pack(f"<{len(rows)}f", *(float("nan") if value is None else value for value in rows))
        return body | {"sensors": names, "values": raw}, True
    return body | {"sensors": {name: [one.values.get(name) for one in run] for name in names}}, False


def encode(
    rng: Random,
    samples: list[Sample],
    rules: Rules,
    *,
    bad_share: float = 0.0,
    hole_share: float = 0.0,
    stampless_share: float = 0.0,
    array_share: float = 0.0,
    blocks: bool = True,
) -> list[RawRecord]:
    """Encode samples in their order: every form, JSON and MessagePack, asset in payload or key.

    Neighbours of one asset may share a block. `bad_share`: share of bad records and tombstones added.
    `hole_share`: share of holes in the offsets. `stampless_share`: share of records without a timestamp of Kafka.
    `array_share`: share of records that hold readings of several assets.
    """
    log: list[RawRecord] = []
    offset, clock_us, place = rng.randrange(1000), 0, 0
    while place < len(samples):
        if rng.random() < array_share:
            run = samples[place : place + rng.randint(1, 6)]
            moments = [(one.asset, one.ts_us) for one in run]
            if len(set(moments)) < len(run):  # two readings of a moment in one record would be ambiguous
                run = run[:1]
            place += len(run)
            clock_us = max(clock_us, *(one.ts_us // 1000 * 1000 for one in run), 0)
            log.append((offset, clock_us, rng.choice([None, b"a-region"]), _array(run)))
            offset += 1
            continue
        run = [samples[place]]
        rule = rules.fleet_of(run[0].asset, "")
        assert rule is not None
        most = rng.choice([1, 1, 3, 20]) if blocks else 1
        while len(run) < most and place + len(run) < len(samples) and samples[place + len(run)].asset == run[0].asset:
            run.append(samples[place + len(run)])
        place += len(run)
        clock_us = max(clock_us, *(one.ts_us // 1000 * 1000 for one in run), 0)

        is_packed = rng.random() < 0.3
        if len(run) > 1 or (blocks and rng.random() < 0.1):
            body, must_pack = _block(rng, run, rule)
            is_packed |= must_pack
        else:
            body = _single(rng, run[0])
        key: bytes | None = run[0].asset.encode()
        if rng.random() < 0.4:
            body["asset" if rng.random() < 0.7 else "asset_id"] = run[0].asset
            key = rng.choice([key, None, b"a-region"])
        value = msgspec.msgpack.encode(body) if is_packed else json.dumps(body).encode()
        if not is_packed and offset % 7 == 0:  # each key stands twice, first with null: the last value counts
            value = json.dumps(dict.fromkeys(body)).encode()[:-1] + b", " + value[1:]
        log.append((offset, -1 if rng.random() < stampless_share else clock_us, key, value))
        offset += 1
        if rng.random() < bad_share:
            reason = rng.choice([*BAD_RECORDS, "tombstone"])
            log.append((offset, clock_us, *bad_record(rng, reason, rule, run[0].asset, clock_us)))
            offset += 1
        if rng.random() < hole_share:
            offset += rng.randrange(1, 5)
    return log


# ---------------------------------------------------------------- bad records, one defect each


def _good(rule: FleetRule, ts_us: int) -> dict[str, Any]:
    return {"ts": ts_us, "sensors": dict.fromkeys(rule.sensors, 1.0)}


def _not_json(rng: Random, rule: FleetRule, ts_us: int) -> bytes:
    whole = json.dumps(_good(rule, ts_us)).encode()
    return rng.choice([b"hello", whole[:-5], b"{'ts': 1}", whole.replace(b'"ts"', b'"t\xff"'), b"", b"{"])


def _not_msgpack(rng: Random, rule: FleetRule, ts_us: int) -> bytes:
    whole: bytes = msgspec.msgpack.encode(_good(rule, ts_us))
    return rng.choice([whole[:-3], whole + b"\x00", b"\x82\xc1\xc1\xc1\xc1", b"\xdf\xff\xff\xff\xff"])


def _value(rng: Random, rule: FleetRule, ts_us: int, value: str) -> bytes:
    """A good reading with the JSON text of every sensor replaced: one bad value alone would only be missing."""
    body = _good(rule, ts_us) | {"sensors": dict.fromkeys(rule.sensors, "@")}
    return json.dumps(body).replace('"@"', value).encode()


def _wrong_type(rng: Random, rule: FleetRule, ts_us: int) -> bytes:
    return _value(rng, rule, ts_us, rng.choice(['"hot"', '"12 of 20"']))


def _not_finite(rng: Random, rule: FleetRule, ts_us: int) -> bytes:
    raw = {"ts": [ts_us], "sensors": [rule.sensors[0]], "values": struct.pack("<f", float("-inf"))}
    texts = [_value(rng, rule, ts_us, text) for text in ("1e39", "-1e39", "9" * 60)]
    return rng.choice([*texts, msgspec.msgpack.encode(raw)])


def _bad_ts(rng: Random, rule: FleetRule, ts_us: int) -> bytes:
    return json.dumps(_good(rule, ts_us) | {"ts": rng.choice(["yesterday", "2015-13-01"])}).encode()


def _empty(rng: Random, rule: FleetRule, ts_us: int) -> bytes:
    return _value(rng, rule, ts_us, rng.choice(["null", "NaN", "-Infinity", "1e999", '"unavailable"']))


def _no_reading(rng: Random, rule: FleetRule, ts_us: int) -> bytes:
    return json.dumps({"ts": ts_us, **rng.choice([{"sensors": {}}, {"event": "started"}])}).encode()


def _block_shape(rng: Random, rule: FleetRule, ts_us: int) -> bytes:
    ragged = {"ts": [ts_us, ts_us], "sensors": {rule.sensors[0]: [1.0]}}
    torn = {"ts": [ts_us], "sensors": [rule.sensors[0]], "values": b"\x00\x00\x00"}
    return rng.choice([json.dumps(ragged).encode(), msgspec.msgpack.encode(torn)])


def _too_deep(rng: Random, rule: FleetRule, ts_us: int) -> bytes:
    levels = rng.choice([16, 17, 300, 20_000])
    return json.dumps(_good(rule, ts_us)).encode()[:-1] + b', "x": ' + b"[" * levels + b"]" * levels + b"}"


BAD_RECORDS: dict[str, Callable[[Random, FleetRule, int], bytes]] = {
    "not_json": _not_json,
    "not_msgpack": _not_msgpack,
    "wrong_type": _wrong_type,
    "unknown_sensor": lambda rng, rule, ts_us: json.dumps({"ts": ts_us, "sensors": {"nobody": 1.0}}).encode(),
    "missing_asset": lambda rng, rule, ts_us: json.dumps(_good(rule, ts_us)).encode(),
    "bad_asset": lambda rng, rule, ts_us: json.dumps(
        _good(rule, ts_us) | {"asset": rng.choice(["a" * 129, "a\u202e", "a\n", " a"])}
    ).encode(),
    "no_fleet": lambda rng, rule, ts_us: json.dumps(_good(rule, ts_us) | {"asset": "stranger"}).encode(),
    "missing_ts": lambda rng, rule, ts_us: json.dumps({"sensors": _good(rule, ts_us)["sensors"]}).encode(),
    "bad_ts": _bad_ts,
    "not_finite": _not_finite,
    "future": lambda rng, rule, ts_us: json.dumps(
        _good(rule, ts_us + rng.choice([86_400_000_001, 10 * 86_400_000_000]))
    ).encode(),
    "too_large": lambda rng, rule, ts_us: json.dumps(_good(rule, ts_us) | {"note": "x" * 300_000}).encode(),
    "too_deep": _too_deep,
    "too_many_fields": lambda rng, rule, ts_us: json.dumps(
        _good(rule, ts_us) | {"meta": {str(i): i for i in range(2000)}}
    ).encode(),
    "empty": _empty,
    "no_reading": _no_reading,
    "block_shape": _block_shape,
}


def bad_record(
    rng: Random, reason: str, rule: FleetRule, asset: str, clock_us: int
) -> tuple[bytes | None, bytes | None]:
    """Return key and value of a record that must be refused for exactly this reason (`tombstone`: has no value)."""
    if reason == "tombstone":
        return asset.encode(), None
    return (None if reason == "missing_asset" else asset.encode()), BAD_RECORDS[reason](rng, rule, clock_us)
