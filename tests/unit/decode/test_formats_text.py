"""CSV lines, line protocol, and the recognition of formats by their first bytes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from monitor.decode.formats import FormatOptions, RawRecord, make_parser, recognise
from monitor.errors import DecodeError

NAMES = ("time", "asset", "power")


def csv(value: bytes, columns: tuple[str, ...] | None = None) -> list[dict]:
    return make_parser("csv", FormatOptions(columns=columns)).parse(RawRecord(value))


def influx(value: bytes, stamp_us: int = -1) -> list[dict]:
    return make_parser("influx", FormatOptions()).parse(RawRecord(value, stamp_us=stamp_us))


def reason_of(call, *args) -> str:
    with pytest.raises(DecodeError) as caught:
        call(*args)
    return caught.value.detail


@pytest.mark.parametrize(
    ("value", "columns"),
    [
        (b"2026-11-29T06:00:00Z,R1,101.5", NAMES),
        (b"time,asset,power\n2026-11-29T06:00:00Z,R1,101.5\n", None),
        (b"\xef\xbb\xbfTime;Asset;Power\r\n2026-11-29T06:00:00Z;R1;101,5\r\n", NAMES),
        (b"2026-11-29T06:00:00Z\tR1\t1.015e2", NAMES),
        (b'"2026-11-29T06:00:00Z","R1",101.5', NAMES),
    ],
)
def test_a_line_of_csv_is_a_document(value, columns):
    documents = [{name.lower(): cell for name, cell in each.items()} for each in csv(value, columns)]
    assert documents == [{"time": "2026-11-29T06:00:00Z", "asset": "R1", "power": 101.5}]


def test_a_record_of_csv_holds_several_lines():
    value = b"1764399600,R1,1\n\n1764399660,R2,\n1764399720,R1,off\n"
    assert csv(value, NAMES) == [
        {"time": 1764399600, "asset": "R1", "power": 1},
        {"time": 1764399660, "asset": "R2", "power": None},
        {"time": 1764399720, "asset": "R1", "power": "off"},
    ]


@pytest.mark.parametrize(
    ("value", "columns", "wanted"),
    [
        (b"1764399600,R1,1.5", None, 'columns = ["time", "…"]'),
        (b"1764399600,R1,1.5", ("time", "power"), "3 cells for the 2 columns (time, power)"),
        (b"time,asset", NAMES[:2], "empty: the record holds only a header"),
        (b"time,asset", None, 'columns = ["time", "…"]'),
        (b"a,b,a\n1,2,3", None, 'names "a" twice'),
        (b'1,"2', ("a", "b"), "check the quotes"),
        (b"\xff\xfe1", NAMES, "not UTF-8"),
        (b"1,\0", NAMES, "NUL"),
        (b" \n", NAMES, "empty"),
        (b"1\n" * 20_001, ("a",), "too_many_readings"),
    ],
)
def test_bad_csv_names_the_fix(value, columns, wanted):
    assert wanted in reason_of(csv, value, columns)


def test_a_line_of_influx_has_the_form_of_telegraf():
    value = b'cpu,host=pump\\ 7,site=n flow=3.5,heat=71i,on=t,state="run" 1764399600000000000\n#\n\ncpu flow=1 5\r\n'
    assert influx(value) == [
        {
            "name": "cpu",
            "tags": {"host": "pump 7", "site": "n"},
            "fields": {"flow": 3.5, "heat": 71, "on": True, "state": "run"},
            "timestamp": 1764399600000000000,
        },
        {"name": "cpu", "tags": {}, "fields": {"flow": 1.0}, "timestamp": 5},
    ]


def test_a_line_without_a_time_has_kafkas():
    document = influx(b"cpu flow=1", 1_764_399_600_000_001)[0]
    assert document["timestamp"] == datetime(2025, 11, 29, 7, 0, 0, 1, tzinfo=UTC)
    assert reason_of(influx, b"cpu flow=1").startswith("missing_ts")


@pytest.mark.parametrize(
    "value",
    [b"cpu", b"cpu f=", b"cpu f=1\nhello", b'cpu a="x\ncpu b=5', b"\xff", b"#only", b"cpu,a f=1", b"\0 a=1"],
)
def test_one_bad_line_refuses_the_record(value):
    assert reason_of(influx, value, 0).startswith("not_influx: ")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b'{"a": 1}', "json"),
        (b" {}", "json"),
        (b"null", "json"),
        (b"true", "json"),
        (b"nonsense", "json"),
        (b"a = b", "json"),
        (b"\x81\xa1a\x01", "msgpack"),
        (b"\xde\x00", "msgpack"),
        (b"cpu,host=a v=1 5", "influx"),
        (b"cpu v=1", "influx"),
        (b"\0\0\0\0\x07abc", "framed"),
        (b"\0\0", "json"),
        (b"Obj\x01\x04", "avro"),
        (b"\xff\xff\xff\xff\x10\0\0\0", "arrow"),
    ],
)
def test_auto_recognises_only_what_is_unambiguous(value, wanted):
    assert recognise(value) == wanted
