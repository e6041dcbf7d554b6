"""A topic of which nothing can be read is reported once. Other topics go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from monitor.config import parse
from monitor.stream.outcome import BatchOutcome
from monitor.stream.readability import MIN_RECORDS, Readability
from monitor.types import Counters, Partition, Quarantined
from tests.fakes import RecordedLog, batch_of

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIG = parse(
    {
        "kafka": {"bootstrap": "b:1", "topics": ["plant", "line"]},
        "fleet": [
            {"name": "pumps", "interval": "1m", "topics": ["plant"]},
            {"name": "belts", "interval": "1m", "topics": ["line"]},
        ],
    }
)


@pytest.fixture
def log_lines(monkeypatch: pytest.MonkeyPatch) -> RecordedLog:
    recorded = RecordedLog()
    monkeypatch.setattr("monitor.stream.readability.log", recorded)
    return recorded


def outcome(reasons: Sequence[str], *, topic: str = "plant", accepted: int = 0) -> BatchOutcome:
    n = len(reasons) + accepted
    batch = batch_of(Partition(topic, 0), [(offset, -1, b"a", b"x") for offset in range(n)])
    bad = [Quarantined(batch.partition, offset, reason, b"x", 0) for offset, reason in enumerate(reasons)]
    counters = Counters(records=n, accepted=accepted, quarantined=len(bad))
    return BatchOutcome(batch, bad, 0, {}, counters=counters)


def test_an_unreadable_topic_is_reported_once(log_lines: RecordedLog) -> None:
    readability = Readability(CONFIG)
    readability.committed(outcome(["not_json: why"] * (MIN_RECORDS - 1)))
    assert readability.unreadable == {}
    for word in ("not_json: why", "missing_ts: none"):
        readability.committed(outcome([word]))
    readability.committed(outcome([], topic="line", accepted=5))
    assert readability.unreadable == {"plant": "missing_ts"}
    [line] = log_lines.of("topic_unreadable")
    assert (line["topic"], line["fleets"], line["records"]) == ("plant", ["pumps"], MIN_RECORDS)
    assert line["reason"] == "not_json: why"
    readability.committed(outcome(["not_json: why"], accepted=1))
    assert readability.unreadable == {}
    assert [each["topic"] for each in log_lines.of("topic_readable")] == ["plant"]


def test_a_readable_record_begins_the_count_again(log_lines: RecordedLog) -> None:
    readability = Readability(CONFIG)
    for _ in range(5):
        readability.committed(outcome(["not_json: why"] * (MIN_RECORDS - 1), accepted=1))
    readability.committed(outcome(["not_json: why"] * (MIN_RECORDS - 1)))
    assert not log_lines.of("topic_unreadable")


def test_records_that_question_no_format_do_not_count(log_lines: RecordedLog) -> None:
    readability = Readability(CONFIG)
    readability.committed(outcome(["no_fleet: x"] * 100))
    assert not log_lines.of("topic_unreadable")
    assert readability.unreadable == {}
