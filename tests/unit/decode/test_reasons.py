"""The reasons of bad records: a stable word for programs, and a sentence for people."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from monitor.decode import Decoder, block_msgpack
from monitor.errors import ConfigError
from tests.unit.decode.batches import SECOND, SENSORS, batch_of, turbines

DAY = 86_400 * SECOND
GOOD = b'{"ts":1,"sensors":{"power":1.0,"wind_speed":2.0,"pitch":3.0}}'


def packed(**fields):
    return msgspec.msgpack.encode(fields)


def deep(levels):
    return b'{"ts":1,"power":1,"x":' + b"[" * levels + b'"x"' + b"]" * levels + b"}"


BAD = {
    "not JSON": (b"hello", "not_json: JSON is malformed", 'begins with "hello"'),
    "half a record": (GOOD[:-1], "not_json: Input data was truncated", "kafka.format"),
    "nothing": (b"", "not_json: the record is empty", ""),
    "two records": (GOOD + GOOD, "not_json: JSON is malformed: trailing", ""),
    "not UTF-8": (b'{"ts":"\xff"}', "not_json: 'utf-8' codec", ""),
    "not MessagePack": (b"\xc1", "not_msgpack: MessagePack data is malformed", "1 bytes (c1)"),
    "half a MessagePack": (packed(ts=1, power=1.0)[:-1], "not_msgpack: Input data was truncated", ""),
    "a list": (b"[1, 2]", "wrong_type: the record is a list of 2; send one object", ""),
    "a number": (b"17", "wrong_type: the record is 17", ""),
    "a word for a number": (
        b'{"ts":1,"sensors":{"power":"high"}}',
        'wrong_type: sensor "power" is the text "high"; send a number, or null where it is missing',
        'give it a number: [kafka.fields] enum = { "high" = 1 }, or missing = ["high"]',
    ),
    "a word for a number, flat": (b'{"ts":1,"power":"high"}', 'wrong_type: sensor "power" is the text "high"', "enum"),
    "a list for a number": (b'{"ts":1,"power":[1,2]}', 'wrong_type: sensor "power" is a list of 2', ""),
    "sensors are a text": (b'{"ts":1,"sensors":"power"}', 'wrong_type: "sensors" is the text "power"', ""),
    "a number for a name": (packed(ts=1, sensors={1: 2.0}), "unknown_sensor: none of the sensors", "which has 1;"),
    "unknown sensor": (
        b'{"ts":1,"sensors":{"pwr":1}}',
        'unknown_sensor: none of the sensors of fleet "turbines" (power, wind_speed, pitch) is in the record, which',
        '[kafka.fields] values = ["pwr"]',
    ),
    "unknown sensor, flat": (b'{"ts":1,"pwr":2}', "unknown_sensor: none of the sensors", ""),
    "unknown sensor, block": (packed(start=1, interval=1, sensors=["pwr"], values=b"\0" * 4), "unknown_sensor: ", ""),
    "asset is no text": (b'{"ts":1,"asset":1.5,"power":1}', 'bad_asset: "asset" is 1.5', ""),
    "asset is odd": (b'{"ts":1,"asset":"R1\\n","power":1}', 'bad_asset: "R1\\n" is not an asset', "letters, digits"),
    "asset is endless": (json.dumps({"ts": 1, "asset": "R" * 129, "power": 1}).encode(), "bad_asset: ", "128 letters"),
    "asset of nobody": (b'{"ts":1,"asset":"Z9","power":1}', 'no_fleet: asset "Z9" matches', "(turbines); widen a glob"),
    "no time": (b'{"power":1}', 'missing_ts: there is no "ts"', "ISO 8601"),
    "null time": (b'{"ts":null,"power":1}', "missing_ts: ", ""),
    "no time in a block": (packed(sensors=["power"], values=b"\0" * 4), 'missing_ts: a block needs "ts"', ""),
    "no such time": (b'{"ts":"yesterday","power":1}', 'bad_ts: "ts" is the text "yesterday"', "2015-07-27T10:30:00Z"),
    "time is true": (b'{"ts":true,"power":1}', 'bad_ts: "ts" is true', ""),
    "time in year 30 000": (b'{"ts":9e30,"timestamp":1,"power":1}', "bad_ts: ", "years 1 to 9999"),
    "a bad time within a block": (b'{"ts":[1,"x"],"sensors":{"power":[1,2]}}', 'bad_ts: "ts[1]" is the text "x"', ""),
    "no interval": (packed(start=1, sensors=["power"], values=b"\0" * 4), 'bad_ts: "interval" is null', ""),
    "backwards": (packed(start=1, interval=-1, sensors=["power"], values=b"\0" * 4), 'bad_ts: "interval" is -1', ""),
    "a block to the end of days": (
        packed(start=1, interval=1e11, sensors=["power"], values=b"\0" * 40),
        "bad_ts: 10 ",
        "",
    ),
    "NaN": (b'{"ts":1,"sensors":{"power":NaN}}', "empty: no sensor has a value", ""),
    "-Infinity": (b'{"ts":1,"power":-Infinity}', "empty: ", ""),
    "1e999": (b'{"ts":1,"power":1e999}', "empty: ", ""),
    "too large for float32": (b'{"ts":1,"power":1e39}', 'not_finite: sensor "power" is 1e+39', "32-bit"),
    "too large an integer": (
        b'{"ts":1,"power":' + b"9" * 400 + b"}",
        'not_finite: sensor "power" is a number with',
        "",
    ),
    "NaN in MessagePack": (packed(ts=1, power=float("nan")), "empty: no sensor has a value", ""),
    "NaN in a column": (packed(ts=[1], sensors={"power": [float("nan")]}), "empty: ", ""),
    "infinity in raw values": (
        block_msgpack("R1", np.array([0]) * SECOND, np.array([[np.inf]]), ["power"]),
        'not_finite: sensor "power" is inf',
        "send null",
    ),
    "the same sensor twice": (
        b'[{"ts":1,"sensor":"power","value":1},{"ts":1,"sensor":"power","value":2}]',
        'ambiguous: the record gives "power" twice at one time of one asset',
        "give each reading its own time",
    ),
    "a heartbeat": (b'{"ts":1,"type":"heartbeat","state":"alive"}', "no_reading: the record has no number", ""),
    "a deleted row": (b'{"before":{"power":1},"after":null,"op":"d","ts_ms":1}', "no_reading: ", ""),
    "too large": (
        b'{"ts":1,"x":"' + b"x" * 300_000 + b'"}',
        "too_large: the record has 300015 bytes",
        "smaller blocks",
    ),
    "too deep": (deep(20), "too_deep: the record is nested deeper than 16 levels", ""),
    "far too deep": (deep(50_000), "too_deep: the record is nested deeper than 16 levels", ""),
    "too many fields": (
        json.dumps({f"x{i}": i for i in range(2001)}).encode(),
        "too_many_fields: the record has 2001 fields",
        "",
    ),
    "no sensor": (b'{"ts":1,"sensors":{}}', "no_reading: the record has no number", ""),
    "no value": (b'{"ts":1,"power":null}', "empty: no sensor has a value", ""),
    "no row": (packed(ts=[], sensors=["power"], values=b""), "empty: ", ""),
    "only gaps": (block_msgpack("R1", np.array([0]), np.array([[np.nan]]), ["power"]), "empty: ", ""),
    "one time for many values": (b'{"ts":1,"sensors":{"power":[1,2]}}', 'block_shape: "ts" is 1, but a block', ""),
    "many times for one value": (b'{"ts":[1,2],"sensors":{"power":1}}', 'bad_ts: "ts" is a list of 2', ""),
    "uneven columns": (
        b'{"start":1,"interval":1,"sensors":{"power":[1,2,3],"pitch":[1]}}',
        'block_shape: sensor "pitch" has 1 values for 3 times',
        "",
    ),
    "a column that is none": (b'{"ts":[1],"sensors":{"power":[1],"pitch":2}}', 'block_shape: sensor "pitch" is 2', ""),
    "bytes left over": (
        packed(start=1, interval=1, sensors=["power", "pitch"], values=b"\0" * 15),
        'block_shape: "values" has 15 bytes; 1 times of 2 sensors as float32 are 8',
        "",
    ),
    "a sensor twice": (
        packed(start=1, interval=1, sensors=["power"] * 2, values=b"\0" * 8),
        "block_shape: ",
        "each once",
    ),
    "raw values in JSON": (
        b'{"start":1,"interval":1,"sensors":["power"],"values":[1]}',
        "block_shape: ",
        "MessagePack",
    ),
}


@pytest.mark.parametrize(("value", "begins", "contains"), BAD.values(), ids=BAD.keys())
def test_a_bad_record_gets_its_reason(value, begins, contains):
    decoder = Decoder([turbines(assets=("R*",))])
    decoded = decoder.decode(batch_of([GOOD, value, GOOD], first_offset=100, stamps=[-1, 7 * DAY, -1]))
    [bad] = decoded.quarantined
    assert bad.reason.startswith(begins)
    assert contains in bad.reason
    assert len(bad.reason) <= 400
    assert bad.reason.isprintable()
    assert (bad.offset, bad.partition.topic, bad.at_us) == (101, "plant", 7 * DAY)
    assert bad.sample == value[:1024]
    assert decoded.readings[0].offset.tolist() == [100, 102]
    assert decoded.readings[0].values.tolist() == [[1.0, 2.0, 3.0]] * 2
    assert decoded.n_accepted == 2


def test_other_formats_are_quarantined():
    for only, value, word in (("json", packed(ts=1, power=1.0), "not_json"), ("msgpack", GOOD, "not_msgpack")):
        [bad] = Decoder([turbines()], format=only).decode(batch_of([value])).quarantined
        assert bad.reason.split(":")[0] == word
    [empty] = Decoder([turbines()], format="msgpack").decode(batch_of([b""])).quarantined
    assert empty.reason == "not_msgpack: the record is empty"
    with pytest.raises(ConfigError, match=r"kafka\.format is 'yaml'; it can be auto, json, msgpack, csv"):
        Decoder([turbines()], format="yaml")


def test_an_asset_must_be_named_somewhere():
    decoded = Decoder([turbines()]).decode(batch_of([GOOD] * 4, [None, b"\xff\xfe", b"", b"R7"]))
    assert [q.reason.split(":")[0] for q in decoded.quarantined] == ["missing_asset", "bad_asset", "missing_asset"]
    assert "ff fe" in decoded.quarantined[1].reason
    assert decoded.readings[0].offset.tolist() == [3]


def test_future_starts_at_kafkas_timestamp():
    """With a wall clock, live and replay would differ. A record without one is judged by the newest before it."""
    stamp = 1_437_993_000 * SECOND
    values = [b'{"ts":%d,"power":1}' % (1_437_993_000 + ahead) for ahead in (0, 60, 61, 10**6)]
    block = block_msgpack("R1", np.array([0, 61]) * SECOND + stamp, np.ones((2, 3)), SENSORS)
    even = block_msgpack("R1", np.arange(62) * SECOND + stamp, np.ones((62, 3)), SENSORS)
    decoder = Decoder([turbines()], max_skew_us=60 * SECOND)
    decoded = decoder.decode(batch_of([*values, block, even], stamps=[stamp, stamp, stamp, -1, stamp, stamp]))
    assert [q.offset for q in decoded.quarantined] == [2, 3, 4, 5]
    assert "when Kafka got an earlier record (this one has no valid timestamp)" in decoded.quarantined[1].reason
    assert decoded.quarantined[0].reason == (
        "future: the event time 2015-07-27T10:31:01Z is 61 s after 2015-07-27T10:30:00Z, when Kafka got the record; "
        "check the producer's clock, time zone and unit of time, or raise kafka.max_skew (now 60 s)"
    )
    far = decoder.decode(batch_of([b'{"ts":9000000000,"power":1}'], stamps=[stamp]))
    assert "is 240 years after" in far.quarantined[0].reason


def test_stamps_before_the_batch_judge_a_record_without_one():
    """However the log is cut into batches. Before the first stamp there is nothing to judge by."""
    stamp = 1_437_993_000 * SECOND
    values = [b'{"ts":%d,"power":1}' % (1_437_993_000 + ahead) for ahead in (10**6, 0, 60, 61)]
    stamps = [-1, stamp, -1, 1 << 62]
    whole = Decoder([turbines()], max_skew_us=60 * SECOND).decode(batch_of(values, stamps=stamps))
    assert [q.offset for q in whole.quarantined] == [3]
    in_parts = Decoder([turbines()], max_skew_us=60 * SECOND)
    refused = [in_parts.decode(batch_of([v], stamps=[s])).quarantined for v, s in zip(values, stamps, strict=True)]
    assert [len(each) for each in refused] == [0, 0, 0, 1]
    assert in_parts.newest_stamp_us == stamp


def test_a_record_without_a_value_is_a_tombstone():
    decoded = Decoder([turbines()]).decode(batch_of([None, GOOD, None]))
    assert (decoded.n_tombstones, decoded.n_accepted, decoded.quarantined) == (2, 1, [])
    assert decoded.readings[0].offset.tolist() == [1]


def test_the_size_limit_is_configurable():
    decoder = Decoder([turbines()], max_record_bytes=len(GOOD))
    decoded = decoder.decode(batch_of([GOOD, GOOD + b" "]))
    assert [q.reason.split(":")[0] for q in decoded.quarantined] == ["too_large"]
    assert f"at most {len(GOOD)} are read" in decoded.quarantined[0].reason
