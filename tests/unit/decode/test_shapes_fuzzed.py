"""Mutated documents of every structure: nothing raises, and the fast parsers agree with the definition."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.decode import Decoder, FleetSchema
from monitor.decode.schema import Fields, Growth
from tests.unit.decode.batches import SlowDecoder, batch_of, outcome

T = 1_790_000_000
DOCUMENTS: list[Any] = [
    {"ts": T, "temp": 50.1, "press": 3.0},
    {"ts": T, "asset": "R1", "sensors": {"temp": 50.1, "press": None}},
    {"TimeStamp": T, "device_id": "d1", "temp": 50.1, "mode": "auto", "seq": 4},
    {"ts": T * 1000, "values": {"temp": 50.1, "press": 3.0}, "rssi": -60},
    {"fields": {"temp": 50.1}, "name": "m", "tags": {"host": "e1", "id": "p1"}, "timestamp": T},
    {"schema": {}, "payload": {"ts": T, "temp": 50.1}},
    {"before": None, "after": {"machine": "m7", "ts": T, "temp": 50.1}, "op": "c", "ts_ms": T * 1000},
    {"ts": T, "metric": "temp", "value": 50.1, "unit": "C"},
    {"ts": T, "name": "temp", "value": "50,1"},
    {"vin": "V1", "createdAt": "2026-09-21T14:13:20Z", "data": [{"key": "temp", "value": {"doubleValue": 1.5}}]},
    {"timestamp": T, "values": [{"id": "C.D.temp", "v": 50.1, "q": True, "t": T}]},
    {"entity_id": "temp", "state": "on", "last_changed": "2026-09-21T14:13:20Z"},
    {"ts": T, "pumps": [{"id": "p1", "temp": 1.0}, {"id": "p2", "temp": 2.0}]},
    {"ts": [T, T + 1], "sensors": {"temp": [1.0, None]}},
    {"time": [T, T + 1], "temp": [1.0, 2.0]},
    {"columns": ["time", "temp"], "values": [[T, 1.0], [T + 1, 2.0]]},
    {"Time": "2026-09-21T14:13:20", "AM2301": {"temp": 21.5, "Humidity": 50}},
    {"ts": T, "temp": {"value": 50.1, "unit": "C"}, "meta": {"fw": 2, "tags": ["a"]}},
    {"header": {"timestamp": T, "deviceId": "d1"}, "body": {"temp": 1.0}, "host": "h1"},
    [{"bn": "urn:x:", "bt": T, "n": "temp", "v": 1.0, "u": "C"}, {"n": "press", "v": 2.0, "t": 1}],
    {"NodeId": "ns=2;s=temp", "Value": 1.5, "SourceTimestamp": "2026-09-21T14:13:20Z", "DisplayName": "temp"},
]
ODD: list[Any] = [
    None, True, 0, 1, -7, 2.5, 1e300, T, T * 1000, "", "x", "1.5", "12", "nan", "on", [], [1], [{"temp": 1}], {},
    {"value": 3}, {"temp": 4.0}, "2026-09-21T14:13:20Z", '{"temp": 1.5}', {"id": "d9"},
]  # fmt: skip
NAMES = (
    "ts", "time", "t", "asset", "device", "id", "host", "name", "metric", "value", "values", "data", "sensors", "tags",
    "temp", "press", "Temp", "payload", "after", "op", "schema", "seq", "state", "v", "q", "key", "mode", "columns",
    "start", "interval", "device_id", "meta", "ts_ms",
)  # fmt: skip
KEYS = [None, b"m1", b"m2", b"", b'"m1"', b'{"id":"m1"}', b"0f8fad5b-d9cb-469f-a165-70867728950e", b"\xff"]
FIELDS = [
    Fields(),
    Fields(),
    Fields(asset=("device_id", "key"), time=("ts", "kafka")),
    Fields(values=("*.temp", "temp", "values.*")),
    Fields(missing=(50.1, "x"), enum=(("auto", 3.0),)),
    Fields(ignore=("seq", "*.press"), time_format="s"),
    Fields(items="pumps", asset=("id",)),
    Fields(sensor=("metric", "name"), value=("value", "v")),
]


def containers(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [value] if isinstance(value, (dict, list)) else []
    return found + [each for item in inner for each in containers(item)]


def mutated(rng: random.Random) -> bytes:
    """Return a document with up to three changes of names, values and places."""
    document = copy.deepcopy(rng.choice(DOCUMENTS))
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 3])):
        parts = [each for each in containers(document) if each]
        if not parts:
            break
        part = rng.choice(parts)
        at = rng.choice(list(part) if isinstance(part, dict) else range(len(part)))
        kind = rng.randrange(4)
        if kind == 0:
            part[at] = copy.deepcopy(rng.choice(ODD))
        elif kind == 1:
            del part[at]
        elif isinstance(part, dict):
            value = part.pop(at) if kind == 2 else copy.deepcopy(rng.choice(ODD))
            part[rng.choice(NAMES)] = value
    return json.dumps(document).encode()


def fleets_of(rng: random.Random) -> list[FleetSchema]:
    fields = rng.choice(FIELDS)
    sensors, growth = rng.choice(
        [(("temp", "press"), Growth.LISTED), (None, Growth.LEARNING), (("temp",), Growth.LEARNT)]
    )
    first = FleetSchema("line", 1_000_000, sensors=sensors, growth=growth, fields=fields)
    if rng.random() < 0.7:
        return [first]
    second = FleetSchema("rest", 1_000_000, sensors=("temp",), fields=rng.choice([fields, Fields()]))
    return [FleetSchema(**{**{n: getattr(first, n) for n in first.__slots__}, "assets": ("m*", "d*")}), second]


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_mutated_documents_decode_alike_in_every_parser(seed):
    rng = random.Random(seed)
    fleets = fleets_of(rng)
    base = [mutated(rng) for _ in range(rng.randint(1, 6))]
    values = [rng.choice(base) if rng.random() < 0.7 else mutated(rng) for _ in range(rng.randint(1, 24))]
    batch = batch_of(values, [rng.choice(KEYS[:2] if rng.random() < 0.8 else KEYS) for _ in values])
    fast, slow = Decoder(fleets), SlowDecoder(fleets)
    for _ in range(3):
        expected = slow.decode(batch)
        found = fast.decode(batch)
        assert outcome(fast, found) == outcome(slow, expected)
        for notices in (found.notices, expected.notices):
            assert all(each.detail and each.n_records for each in notices)
        told = [{n for n in each.notices if n.kind == "new_sensor"} for each in (found, expected)]
        assert told[0] == told[1]
