from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from monitor import wording
from monitor.cli import output


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (26400, "7 h 20 min"),
        (86400, "1 d"),
        (183600, "2 d 3 h"),
    ],
)
def test_durations_have_two_units(seconds: int, expected: str) -> None:
    assert wording.duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "–"), (1873.2, "1,873"), (0.00123, "0.00123"), (-3.14159, "-3.14"), (0.0, "0"), (18.42, "18.4")],
)
def test_numbers_have_three_digits(value: float | None, expected: str) -> None:
    assert wording.number(value) == expected


def test_the_largest_contributions_are_named() -> None:
    sensors = [{"name": "power", "share": 0.61}, {"name": "pitch", "share": 0.22}, {"name": "vane", "share": 0.04}]
    assert output.contributions(sensors).replace("\xa0", " ") == "power 61 %, pitch 22 %"
    assert output.contributions(sensors, limit=1).replace("\xa0", " ") == "power 61 %"
    assert output.contributions([]) == "–"


def test_times_are_shown_in_utc() -> None:
    assert output.timestamp("2015-07-27T10:00:00+02:00") == "2015-07-27 08:00"
    assert output.timestamp(datetime(2015, 7, 27, 8, 0, 5, tzinfo=UTC)) == "2015-07-27 08:00:05"
    assert output.timestamp(None) == "–"


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_streamed_list_is_one_json_document(n: int, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"at": datetime(2015, 7, 27, tzinfo=UTC), "asset": "Ü[1]", "i": i} for i in range(n)]
    output.print_json_list(iter(rows))
    printed = json.loads(capsys.readouterr().out)
    assert [row["i"] for row in printed] == list(range(n))
    assert all(row["at"] == "2015-07-27T00:00:00Z" and row["asset"] == "Ü[1]" for row in printed)


def test_nan_is_no_json() -> None:
    with pytest.raises(ValueError):
        output.print_json({"score": float("nan")})


def test_a_padded_state_keeps_its_sign() -> None:
    assert output.state("firing", width=11).text == "● firing     "
