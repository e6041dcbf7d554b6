from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from monitor.cli.params import parse_time

NOW = datetime(2026, 10, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2015-07-27", datetime(2015, 7, 27, tzinfo=UTC)),
        ("2015-07-27T10:00", datetime(2015, 7, 27, 10, tzinfo=UTC)),
        ("2015-07-27 10:00+02:00", datetime(2015, 7, 27, 8, tzinfo=UTC)),
        ("20150727T100000Z", datetime(2015, 7, 27, 10, tzinfo=UTC)),
        ("now", NOW),
        ("now-30d", NOW - timedelta(days=30)),
        ("-2h", NOW - timedelta(hours=2)),
        ("now - 1h30m", NOW - timedelta(minutes=90)),
        ("+1d", NOW + timedelta(days=1)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    at = parse_time(text, NOW)
    assert at == expected
    assert at.utcoffset() == timedelta()


@pytest.mark.parametrize("text", ["", "yesterday", "now-", "now-3", "-2 parsecs", "2015-13-01", "now-999999w"])
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|unit|duration|calendar"):
        parse_time(text, NOW)
