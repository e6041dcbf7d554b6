"""The places of asset and time are described, and suggested where the decoder does not find them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from monitor.config import parse
from monitor.service.places import places_of, suggest_fields, with_fields
from monitor.service.starter import _starter
from monitor.service.survey import survey
from monitor.types import Partition, RecordBatch
from tests.fakes import batch_of

START_S = 1_790_000_000
CONFIG = parse({"kafka": {"bootstrap": "b:1", "topics": ["plant"]}, "fleet": [{"name": "line", "interval": "1s"}]})
FLEET = CONFIG.fleets[0]


def sample(make: Any, n: int = 40, key: bytes | None = b"A1") -> list[RecordBatch]:
    """Make records of the documents `make(i)`, one a second by Kafka's clock."""
    records = [
        (i, (START_S + i) * 1_000_000, key, json.dumps(make(i)).encode()) for i in range(n)
    ]
    return [batch_of(Partition("plant", 0), records)]


def mqtt(i: int) -> dict[str, Any]:
    return {"device_id": f"pump-{i % 2}", "TimeStamp": f"2026-09-21T13:46:{i % 60:02}Z", "temp": 20.5 + i % 7}


def test_the_places_of_recognised_records_are_named() -> None:
    places = places_of(CONFIG, sample(mqtt, key=None), FLEET)
    assert (places.asset, places.time, places.unit) == (('"device_id"',), ('"TimeStamp"',), ("iso",))
    keyed = places_of(CONFIG, sample(lambda i: {"ts": START_S + i, "temp": i / 2}), FLEET)
    assert (keyed.asset, keyed.time, keyed.unit) == (("Kafka's key",), ('"ts"',), ("s",))
    stamped = with_fields(CONFIG, {"time": ("kafka",)})
    by_kafka = places_of(stamped, sample(lambda i: {"temp": i / 2}), stamped.fleets[0])
    assert (by_kafka.time, by_kafka.unit) == (("Kafka's timestamp",), ())


def test_recognised_records_need_no_suggestion() -> None:
    assert suggest_fields(CONFIG, sample(mqtt), "line") == {}
    assert suggest_fields(CONFIG, [], "line") == {}


@pytest.mark.parametrize(
    ("make", "key", "expected"),
    [
        (lambda i: {"x": {"when": START_S + i}, "temp": i / 2}, b"A1", {"time": ("x.when",)}),
        (lambda i: {"wann": f"21.09.2026 13:46:{i:02}", "temp": i / 2}, b"A1",
         {"time": ("wann",), "time_format": "day-first"}),
        (lambda i: {"temp": i / 2}, b"A1", {"time": ("kafka",)}),
        (lambda i: {"ts": START_S + i, "temp": i / 2, "anlage": f"P{i % 3}"}, None, {"asset": ("anlage",)}),
        (lambda i: {"ts": START_S + i, "temp": i / 2}, None, {"asset": ("topic",)}),
        (lambda i: {"x": {"when": START_S + i, "wo": "P1"}, "temp": i / 2}, None,
         {"time": ("x.when",), "asset": ("x.wo",)}),
    ],
    ids=["nested time", "day first", "no time", "odd asset", "no asset", "both"],
)  # fmt: skip
def test_a_suggestion_reads_the_records(make: Any, key: bytes | None, expected: dict[str, Any]) -> None:
    stretches = sample(make, key=key)
    before = survey(CONFIG, stretches)["line"]
    assert before.n_used == 0
    fields = suggest_fields(CONFIG, stretches, "line")
    assert fields == expected
    assert survey(with_fields(CONFIG, fields), stretches)["line"].n_used == before.n_records


def test_records_of_which_nothing_can_be_made_get_no_suggestion() -> None:
    records = [(i, START_S * 1_000_000, b"A1", b"oops") for i in range(9)]
    assert suggest_fields(CONFIG, [batch_of(Partition("plant", 0), records)], "line") == {}
    assert suggest_fields(CONFIG, sample(lambda _: {"text": "hello"}), "line") == {}


def test_a_first_configuration_has_the_suggestion() -> None:
    stretches = sample(lambda i: {"x": {"when": START_S + i, "wo": "P1"}, "temp": i / 2}, key=None)
    made = _starter({"bootstrap": "b:1", "topics": ["plant"]}, "plant", stretches, lambda _: None, "plant")
    assert '[kafka.fields]              # without it the records cannot be read\ntime = "x.when"' in made.text
    assert made.config.kafka.fields.asset == ("x.wo",)
    assert (made.found.n_used, made.found.assets) == (40, ["P1"])


def test_a_first_configuration_names_what_was_recognised() -> None:
    made = _starter({"bootstrap": "b:1", "topics": ["plant"]}, "plant", sample(mqtt, key=None), lambda _: None, "plant")
    assert '# Found without [kafka.fields]: the asset in "device_id", the time in "TimeStamp" (iso).' in made.text
    assert made.config.kafka.fields.model_fields_set == set()
