"""Sparkplug B: births and aliases, integers by their datatype, nulls, deaths, and the state of a partition."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from monitor.decode.formats import FormatOptions, RawRecord, make_parser
from monitor.errors import DecodeError
from tests.format_writers import metric, sparkplug

MS = 1_764_399_600_000
AT = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=MS)


class Edge:
    """A parser, and the records of one partition."""

    def __init__(self) -> None:
        self.parser = make_parser("sparkplug", FormatOptions())
        self.log: list[RawRecord] = []

    def send(self, kind: str, *metrics: bytes, node: str = "edge", device: str = "d1", ts_ms: int = MS) -> list[dict]:
        topic = "/".join(("spBv1.0", "plant", kind, node, *([device] if kind.startswith("D") else [])))
        record = RawRecord(sparkplug(ts_ms, *metrics), topic.encode(), offset=len(self.log) * 10)
        self.log.append(record)
        return self.parser.parse(record)


def reason_of(call, *args, **options) -> str:
    with pytest.raises(DecodeError) as caught:
        call(*args, **options)
    return caught.value.detail


def test_data_by_alias_has_the_names_of_the_birth():
    edge = Edge()
    flow = metric(name="Pump/flow", alias=7, datatype=10, double=1.5)
    birth = edge.send("DBIRTH", flow, metric(name="n", alias=8, datatype=3, int=5))
    assert birth == [{"asset": "plant/edge/d1", "ts": AT, "sensors": {"Pump/flow": 1.5, "n": 5}}]
    data = edge.send("DDATA", metric(alias=8, int=2**32 - 3), metric(alias=7, double=2.5))
    assert data == [{"asset": "plant/edge/d1", "ts": AT, "sensors": {"n": -3, "Pump/flow": 2.5}}]


def test_data_before_a_birth_is_refused_with_the_fix():
    edge = Edge()
    assert "request a rebirth (Node Control/Rebirth)" in reason_of(edge.send, "DDATA", metric(alias=7, int=1))
    edge.send("DBIRTH", metric(name="a", alias=7, datatype=3, int=1), device="other")
    assert reason_of(edge.send, "DDATA", metric(alias=7, int=1)).startswith("unknown_alias: alias 7 of ")


@pytest.mark.parametrize(
    ("datatype", "field", "written", "value"),
    [
        (1, "int", 0xFF, -1),
        (1, "int", 0xFFFFFFFE, -2),
        (2, "int", 0x8000, -32768),
        (3, "int", 0xFFFFFFFF, -1),
        (4, "long", 2**64 - 9, -9),
        (5, "int", 255, 255),
        (6, "int", 65535, 65535),
        (7, "int", 2**32 - 1, 2**32 - 1),
        (8, "long", 2**64 - 1, 2**64 - 1),
        (10, "double", -2.5, -2.5),
        (11, "boolean", 1, True),
        (12, "string", "on", "on"),
    ],
)
def test_a_value_has_the_sign_of_its_datatype(datatype, field, written, value):
    found = Edge().send("NDATA", metric(name="a", datatype=datatype, **{field: written}))
    assert found[0]["sensors"] == {"a": value}
    assert found[0]["asset"] == "plant/edge"


def test_a_null_is_missing_and_controls_are_no_readings():
    found = Edge().send(
        "NBIRTH",
        metric(name="bdSeq", datatype=8, long=3),
        metric(name="Node Control/Rebirth", datatype=11, boolean=0),
        metric(name="a", datatype=10, is_null=1),
        metric(name="when", datatype=13, long=MS),
    )
    assert found == [{"asset": "plant/edge", "ts": AT, "sensors": {"a": None}}]


def test_historical_metrics_have_their_own_times():
    found = Edge().send(
        "DDATA",
        metric(name="a", timestamp=MS - 2000, datatype=10, is_historical=1, double=1.0),
        metric(name="a", timestamp=MS - 1000, datatype=10, is_historical=1, double=2.0),
        metric(name="b", datatype=10, double=3.0),
    )
    assert [(each["ts"], each["sensors"]) for each in found] == [
        (AT - timedelta(seconds=2), {"a": 1.0}),
        (AT - timedelta(seconds=1), {"a": 2.0}),
        (AT, {"b": 3.0}),
    ]


@pytest.mark.parametrize("kind", ["DDEATH", "NDEATH", "NBIRTH"])
def test_a_death_or_rebirth_is_a_gap_and_ends_the_aliases(kind):
    edge = Edge()
    edge.send("DBIRTH", metric(name="a", alias=7, datatype=3, int=1))
    edge.send("DBIRTH", metric(name="b", alias=7, datatype=3, int=1), node="edge2")
    assert edge.send(kind, metric(name="bdSeq", datatype=8, long=3)) == []
    assert reason_of(edge.send, "DDATA", metric(alias=7, int=1)).startswith("unknown_alias")
    assert edge.send("DDATA", metric(alias=7, int=2), node="edge2")[0]["sensors"] == {"b": 2}


@pytest.mark.parametrize("topic", ["spBv1.0/plant/DCMD/edge/d1", "spBv1.0/STATE/host", "spBv1.0/plant/NCMD/edge"])
def test_commands_and_states_of_hosts_are_no_readings(topic):
    assert make_parser("sparkplug", FormatOptions()).parse(RawRecord(b"{}", topic.encode())) == []


def test_the_topic_may_be_a_header_or_the_key_the_asset():
    value = sparkplug(MS, metric(name="a", datatype=10, double=1.0))
    parser = make_parser("sparkplug", FormatOptions())
    headers = (("x", b"\xff"), ("mqtt.topic", b"spBv1.0/g/DDATA/n/d"))
    assert parser.parse(RawRecord(value, b"key", headers))[0]["asset"] == "g/n/d"
    assert parser.parse(RawRecord(value, b"pump 7"))[0]["asset"] == "pump 7"
    assert reason_of(parser.parse, RawRecord(value)).startswith("missing_asset")
    assert reason_of(parser.parse, RawRecord(value, b"spBv1.0/g/WHAT/n")).startswith("not_sparkplug: the topic")


def test_reading_again_from_any_offset_gives_the_same_documents():
    edge = Edge()
    found = []
    for turn in range(6):
        found.append(edge.send("NBIRTH", metric(name="bdSeq", datatype=8, long=turn)))
        found.append(edge.send("DBIRTH", metric(name=f"s{turn}", alias=1, datatype=3, int=0)))
        found.append(edge.send("DDATA", metric(alias=1, int=turn)))
    assert found[5] == [{"asset": "plant/edge/d1", "ts": AT, "sensors": {"s1": 1}}]
    for first in range(len(edge.log)):
        whole = make_parser("sparkplug", FormatOptions())
        for record in edge.log:
            whole.parse(record)
        state = json.loads(json.dumps(whole.state(edge.log[first].offset)))
        again = make_parser("sparkplug", FormatOptions())
        again.restore(state)
        for _ in range(2):  # the second time with all births of the first
            assert [again.parse(record) for record in edge.log[first:]] == found[first:]


def test_the_state_is_bounded():
    edge = Edge()
    for turn in range(100):
        edge.send("DBIRTH", metric(name=f"s{turn}", alias=1, datatype=3, int=0))
    assert len(edge.parser.state(edge.log[50].offset)["plant/edge/d1"]) == 50
    assert len(edge.parser.state(10**9)["plant/edge/d1"]) == 1
    for turn in range(1999):
        edge.send("DBIRTH", metric(name="a", alias=1, datatype=3, int=0), device=f"x{turn}")
    one_more = metric(name="a", alias=1, datatype=3, int=0)
    assert reason_of(edge.send, "DBIRTH", one_more, device="x").startswith("too_many_fields")
    assert len(edge.parser.state(10**9)) == 2000
