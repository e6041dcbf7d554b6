"""The oracle's rules of records: every form, every reason of a rejection, and the fates."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.acceptance.records import BAD_RECORDS, bad_record
from tests.oracle.log import FleetRule, Reading, Refused, Rules, readings_of
from tests.oracle.windows import expect, expected_quarantine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.oracle.log import RawRecord

S = 1_000_000
RULE = FleetRule("f", ("a",), interval_us=10 * S, length=3, lateness_cells=1)
TWO = replace(RULE, sensors=("a", "b"))


def block(cells: Sequence[int], asset: str = "x") -> bytes:
    return json.dumps(
        {"ts": [cell * 10 for cell in cells], "asset": asset, "sensors": {"a": [1.0] * len(cells)}}
    ).encode()


def test_a_record_counts_as_late_accepted_or_duplicate() -> None:
    log: list[RawRecord] = [
        (5, -1, None, block([10, 11])),
        (6, -1, None, block([10, 12])),  # one used: accepted
        (7, -1, None, block([10, 12, 13, 9])),  # 13 used; 10 and 9 behind 12 - 1 and 13 - 1: late
        (8, -1, None, block([12, 13])),  # duplicate
        (9, -1, b"x", None),  # tombstone
        (12, -1, b"x", b"?"),
    ]
    expected = expect(log, Rules((RULE,)))
    assert expected.counts == {
        "records": 6, "accepted": 2, "late": 1, "duplicate": 1, "tombstones": 1, "quarantined": 1, "readings": 4,
    }  # fmt: skip
    assert expected.quarantine == {7: "late", 12: "not_json"}


def test_a_bad_value_of_a_block_is_missing() -> None:
    body = {"ts": [0, 10], "asset": "x", "sensors": {"a": [1.0, "two"], "other": [1, 2]}}
    none = {"ts": [0, 10], "asset": "x", "sensors": {"a": ["one", "two"]}}
    log: list[RawRecord] = [(0, -1, None, json.dumps(body).encode()), (1, -1, None, json.dumps(none).encode())]
    expected = expect(log, Rules((RULE,)))
    assert expected.quarantine == {1: "wrong_type"}
    assert expected.counts["readings"] == 1


RAW = struct.pack("<4f", 1.0, 2.0, 3.0, float("nan"))
SAME: list[dict[str, Any]] = [
    {"ts": [20, 30], "asset": "x", "sensors": {"a": [2.0, None], "b": [1.0, 3.0]}},
    {"start": 20, "interval": 10, "asset_id": "x", "sensors": {"b": [1.0, 3.0], "a": [2.0, None]}},
    {"time": ["1970-01-01T00:00:20Z", "1970-01-01 00:00:30"], "sensors": {"a": [2.0, None], "b": [1.0, 3.0]}},
    {"start": "1970-01-01T01:00:20+01:00", "interval": 10.0, "sensors": ["b", "a"], "values": RAW},
    {"timestamp": [20, 30], "sensors": ["b", "a"], "values": RAW, "asset": "x"},
]


@pytest.mark.parametrize("number", range(len(SAME)))
def test_all_forms_of_a_block_are_equal(number: int) -> None:
    value = msgspec.msgpack.encode(SAME[number])
    expected = [Reading(7, "f", "x", 2, [2.0, 1.0]), Reading(7, "f", "x", 3, [None, 3.0])]
    assert readings_of((7, -1, b"x", value), Rules((TWO,))) == expected
    if "values" not in SAME[number]:
        assert readings_of((7, -1, b"x", json.dumps(SAME[number]).encode()), Rules((TWO,))) == expected


@pytest.mark.parametrize(
    "body",
    [
        {"ts": 20, "sensors": {"a": 1.5, "b": None}, "site": {"deep": True}},
        {"ts": 20.0, "a": 1.5, "unit": "K", "tags": ["t"]},
        {"time": "1970-01-01T00:00:20", "a": 1.5, "b": None},
    ],
)
def test_all_forms_of_a_reading_are_equal(body: dict[str, Any]) -> None:
    for value in (json.dumps(body).encode(), b" " + json.dumps(body).encode(), msgspec.msgpack.encode(body)):
        assert readings_of((0, -1, b"x", value), Rules((TWO,))) == [Reading(0, "f", "x", 2, [1.5, None])]


@pytest.mark.parametrize(
    "value",
    [
        b'{"ts": 9, "a": 7, "asset": "y", "ts": 20, "a": 1.5, "asset": "x"}',
        b'{"ts": 20, "sensors": {"b": 9}, "asset": "x", "sensors": {"a": 2, "a": 1.5}}',
        b"\x85\xa2ts\x09\xa1a\x09\xa5asset\xa1x\xa2ts\x14\xa1a\xcb\x3f\xf8\0\0\0\0\0\0",
        b"\x84\xa2ts\x14\xa7sensors\x81\xa1b\x09\xa5asset\xa1x\xa7sensors\x82\xa1a\x09\xa1a\xcb\x3f\xf8\0\0\0\0\0\0",
    ],
)
def test_the_last_value_of_a_repeated_key_counts(value: bytes) -> None:
    assert readings_of((0, -1, None, value), Rules((TWO,))) == [Reading(0, "f", "x", 2, [1.5, None])]


@pytest.mark.parametrize("replaced", [b"?", b"01", b'"\\ud800"'])
def test_a_replaced_value_must_be_json_too(replaced: bytes) -> None:
    value = b'{"ts": 20, "a": ' + replaced + b', "a": 1.5}'
    assert expected_quarantine([(0, -1, b"x", value)], Rules((RULE,))) == {0: "not_json"}


@pytest.mark.parametrize("ts", [1_437_955_200, 1_437_955_200_000, 1_437_955_200_000_000, 1_437_955_200_000_000_000])
def test_the_unit_of_a_time_follows_from_its_size(ts: int) -> None:
    readings = readings_of((0, -1, b"x", json.dumps({"ts": ts, "a": 1}).encode()), Rules((RULE,)))
    assert readings is not None
    assert readings[0].cell == 143_795_520


def test_the_asset_in_the_payload_overrides_the_key() -> None:
    readings = readings_of((0, -1, b"key", b'{"ts": 0, "asset": "x", "a": 1}'), Rules((RULE,)))
    assert readings is not None
    assert readings[0].asset == "x"


@pytest.mark.parametrize("reason", BAD_RECORDS)
@pytest.mark.parametrize("seed", range(8))
def test_each_bad_record_has_its_own_reason(reason: str, seed: int) -> None:
    rule = replace(TWO, assets=("R*",))
    key, value = bad_record(Random(seed), reason, rule, "R1", 1_437_955_200 * S)
    with pytest.raises(Refused) as refused:
        readings_of((0, 1_437_955_200 * S, key, value), Rules((rule,)))
    assert refused.value.word == reason


def test_a_time_after_the_skew_is_rejected() -> None:
    rules = Rules((RULE,), max_skew_us=60 * S)
    assert expected_quarantine([(0, 0, b"x", b'{"ts": 60.0, "a": 1}')], rules) == {}
    assert expected_quarantine([(0, 0, b"x", b'{"ts": 60.000001, "a": 1}')], rules) == {0: "future"}
    assert expected_quarantine([(0, -1, b"x", b'{"ts": 60.000001, "a": 1}')], rules) == {}  # no stamp, no check
    ahead, at_stamp = (1, -1, b"x", b'{"ts": 60.000001, "a": 1}'), (0, 0, b"x", b'{"ts": 0, "a": 1}')
    assert expected_quarantine([at_stamp, ahead], rules) == {1: "future"}  # by the stamp before it


def test_rows_without_values_are_gaps() -> None:
    def record(*values: float | None) -> list[RawRecord]:
        body = {"start": 0, "interval": 10, "sensors": {"a": values}}
        return [(0, -1, b"x", json.dumps(body).encode())]

    assert expect(record(1.0, None, 1.0), Rules((RULE,))).counts["readings"] == 2
    assert expected_quarantine(record(None, None), Rules((RULE,))) == {0: "empty"}
