"""Event times in every form, alone and in columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.decode.timestamps import MAX_US, MIN_US, iso_text, parse_column_us, parse_us

EXACT = 1_437_993_000_000_000  # 2015-07-27T10:30:00Z


@pytest.mark.parametrize(
    "written",
    [
        1_437_993_000,
        1_437_993_000.0,
        1_437_993_000_000,
        1_437_993_000_000.0,
        1_437_993_000_000_000,
        1_437_993_000_000_000_000,
        "2015-07-27T10:30:00Z",
        "2015-07-27T10:30:00",
        "2015-07-27 10:30:00.000000",
        "2015-07-27T12:30:00+02:00",
        "2015-07-27T03:00:00.0-07:30",
        "20150727T1030",
        datetime(2015, 7, 27, 12, 30, tzinfo=timezone(timedelta(hours=2))),
        datetime(2015, 7, 27, 10, 30),  # noqa: DTZ001  # a naive time is the case under test
    ],
)
def test_an_instant_has_many_notations(written):
    assert parse_us(written) == EXACT
    assert parse_column_us([written]) == ([EXACT], [True])
    assert parse_column_us([written, 0])[0].tolist() == [EXACT, 0]


@pytest.mark.parametrize(
    ("written", "us"),
    [
        (0, 0),
        (-1, -1_000_000),
        (0.25, 250_000),
        (99_999_999_999, 99_999_999_999_000_000),  # the largest whole number of seconds
        (100_000_000_000, 100_000_000_000_000),  # the smallest number of milliseconds: 1973
        (100_000_000_000_000, 100_000_000_000_000),  # the smallest number of microseconds
        (100_000_000_000_000_499, 100_000_000_000_000),  # nanoseconds round to the nearest
        (100_000_000_000_000_500, 100_000_000_000_001),
        ("0001-01-01T00:00:00Z", MIN_US),
        ("9999-12-31T23:59:59.999999Z", MAX_US),
        (-1e18, -(10**15)),
        (1e20, 10**17),
        (-(2**63), -9_223_372_036_854_776),
        ("2000-02-29T00:00:00Z", 951_782_400_000_000),
    ],
)
def test_the_size_of_a_number_tells_its_unit(written, us):
    assert parse_us(written) == us
    assert parse_column_us([written, written])[0].tolist() == [us, us]


@pytest.mark.parametrize(
    "written",
    [
        True, None, [], b"2015", "yesterday", "", "2015-02-29T00:00:00Z", "2015-07-27T24:00:00Z",
        "2015-13-01T00:00:00Z",
        "2015-07-27T10:30:00+25:00", "0000-01-01T00:00:00Z", "२०१५-07-27T10:30:00", "9999-12-31T23:59:59-10:00",
        float("nan"), float("inf"), 1e300, -9.9e16, 10**30, -(2**70), 9e30,
    ],
)  # fmt: skip
def test_invalid_times_are_refused(written):
    with pytest.raises(ValueError):
        parse_us(written)
    assert parse_column_us([written])[1].tolist() == [False]
    assert parse_column_us([written, written])[1].tolist() == [False, False]
    assert parse_column_us([5, written])[1].tolist() == [True, False]


times = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-(10**11), 10**11),
    st.floats(),
    st.floats(-1e11, 1e11),
    st.datetimes().map(lambda d: d.isoformat()),
    st.datetimes().map(lambda d: d.isoformat(timespec="milliseconds") + "Z"),
    st.datetimes().map(lambda d: d.isoformat(" ", timespec="seconds") + "+05:30"),
    st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?(Z|[+-]\d\d:\d\d)?", fullmatch=True),
)


@given(st.lists(times, min_size=1, max_size=6), st.booleans())
def test_a_column_is_parsed_like_its_single_times(column, alike):
    if alike:
        column = [value for value in column if type(value) is type(column[0])]
    us, ok = parse_column_us(column)
    for value, value_us, value_ok in zip(column, us.tolist(), ok.tolist(), strict=True):
        try:
            assert (parse_us(value), True) == (value_us, value_ok)
        except ValueError:
            assert not value_ok


@given(st.integers(MIN_US, MAX_US))
def test_iso_text_is_read_back(us):
    assert parse_us(iso_text(us)) == us


def test_iso_text_has_no_needless_decimals():
    assert iso_text(0) == "1970-01-01T00:00:00Z"
    assert iso_text(1_250_000) == "1970-01-01T00:00:01.25Z"
    assert datetime.fromisoformat(iso_text(10)) == datetime(1970, 1, 1, microsecond=10, tzinfo=UTC)
