"""Event times in every form, alone and in columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.decode.timestamps import (
    FORMATS,
    MAX_US,
    MIN_US,
    TimeParser,
    format_of,
    iso_text,
    parse_column_us,
    parse_us,
)
from monitor.decode.zones import zone_of

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
        "2015-07-27 12:30:00 +0200",
        "2015-07-27T10:30:00.000000000Z",
        "2015-07-27 10:30",
        " 2015/07/27 10:30:00 ",
        "2015.7.27 10:30",
        "27-Jul-2015 10:30:00",
        "27-Jul-15 10:30",
        "Jul 27, 2015 10:30 AM",
        "Mon, 27 Jul 2015 10:30:00 GMT",
        "1437993000",
        "1437993000,0",
        "1437993000000",
        20150727103000,
        20150727103000.0,
        201507271030,
        "20150727103000",
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
        "07/08/2015", "27.07.2015 10:30", "2015", "12345678", "-1", 20150727, 20150727.0, 2015072710, "2015072710",
        "20150727103060" + "0" * 30, "9" * 400, "2015-07-27T25:00", "31-Feb-2015", "Jul 27, 2015 13:30 PM",
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
    st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([.,]\d{1,10})?(Z|[+-]\d\d:?\d\d|[+-]\d\d)?", fullmatch=True),
    st.from_regex(r"[12][09]\d\d([-/.])[01]\d\1[0-3]\d( [0-2]\d:\d\d(:\d\d)?( ?[AP]M)?)?", fullmatch=True),
    st.from_regex(r"[0-3]\d[-. ](Jan|feb|MAY|Mai|Dez)[-. ](20)?\d\d", fullmatch=True),
    st.from_regex(r"[12][09]\d\d[01]\d[0-3]\d([0-2]\d([0-5]\d){0,2})?", fullmatch=True),
    st.from_regex(r"[12][09]\d\d[01]\d[0-3]\d([0-2]\d([0-5]\d){0,2})?", fullmatch=True).map(int),
    st.from_regex(r"[12][09]\d\d[01]\d[0-3]\d([0-2]\d([0-5]\d){0,2})?", fullmatch=True).map(float),
    st.from_regex(r"[0-3]\d\.[01]\d\.20\d\d [0-2]\d:\d\d", fullmatch=True),
)


formats = st.sampled_from((*FORMATS, "%d.%m.%Y %H:%M"))
parsers = st.builds(TimeParser, formats, st.sampled_from(("UTC", "Europe/Berlin")))


@given(st.lists(times, min_size=1, max_size=6), st.booleans(), parsers)
def test_a_column_is_parsed_like_its_single_times(column, alike, parser):
    if alike:
        column = [value for value in column if type(value) is type(column[0])]
    us, ok = parser.parse_column_us(column)
    for value, value_us, value_ok in zip(column, us.tolist(), ok.tolist(), strict=True):
        try:
            assert (parser.parse_us(value), True) == (value_us, value_ok)
        except ValueError:
            assert not value_ok


def test_the_default_parser_is_the_functions():
    column = ["2015-07-27T10:30:00Z", 1_437_993_000, None]
    assert [x.tolist() for x in TimeParser().parse_column_us(column)] == [x.tolist() for x in parse_column_us(column)]


@pytest.mark.parametrize(
    ("time_format", "written"),
    [
        ("s", 1_437_993_000), ("s", "1437993000.0"), ("ms", 1_437_993_000_000.0), ("us", "1437993000000000"),
        ("ns", 1_437_993_000_000_000_400), ("iso", "2015-07-27T10:30Z"), ("day-first", "27.07.2015 10:30"),
        ("day-first", "27/7/15 10:30:00"), ("day-first", "2015-07-27 10:30"), ("month-first", "07/27/2015 10:30 AM"),
        ("excel", 42_212.4375), ("excel", "42212,4375"), ("compact", 20150727103000), ("compact", "201507271030"),
        ("%d.%m.%Y %H:%M", "27.07.2015 10:30"), ("%Y-%m-%dT%H:%M%z", "2015-07-27T12:30+0200"),
    ],
)  # fmt: skip
def test_a_named_format_reads_its_times(time_format, written):
    parser = TimeParser(time_format)
    assert parser.parse_us(written) == EXACT
    assert parser.parse_column_us([written, written])[0].tolist() == [EXACT, EXACT]


def test_dates_as_numbers_need_a_format_where_they_could_be_seconds():
    for written in (20230101, 2023010100, "2023010100"):
        with pytest.raises(ValueError, match='set time_format = "compact"'):
            parse_us(written)
    assert TimeParser("compact").parse_us(20230101) == parse_us("2023-01-01")
    assert TimeParser("compact").parse_us("2023010105") == parse_us("2023-01-01T05:00Z")
    assert TimeParser("s").parse_us(20230101) == 20230101 * 1_000_000
    assert parse_us("20230101") == parse_us("2023-01-01")  # ISO 8601
    assert parse_us(20230141) == 20230141 * 1_000_000  # a clock that began in 1970: no date


@pytest.mark.parametrize(
    ("time_format", "written", "says"),
    [
        ("auto", "03/04/2025", 'set time_format = "day-first"'),
        ("auto", "5", 'too short for a time; set time_format = "s"'),
        ("s", "2015-07-27", "is not a number of s since 1970"),
        ("iso", "1437993000", "reads texts like"),
        ("iso", 1_437_993_000, "is no text"),
        ("day-first", "13:30", r"is not a time like 27\.07\.2015"),
        ("month-first", "27/07/2015", "is not a time like 07/27/2015"),
        ("excel", "today", "is not a number of days since 1900"),
        ("compact", "2015", "is not a date like 20150727"),
        ("%d.%m.%Y", "2015-07-27", r"is not a time like 27\.07\.2015"),
    ],
)
def test_a_refused_time_names_the_format(time_format, written, says):
    with pytest.raises(ValueError, match=says):
        TimeParser(time_format).parse_us(written)


@pytest.mark.parametrize("time_format", ["days", "", "%", "%Q", "YYYY"])
def test_an_unknown_format_lists_the_known(time_format):
    with pytest.raises(ValueError, match="is no format of times; write auto, iso, s"):
        TimeParser(time_format)


def test_the_format_that_was_found_has_a_name():
    written = [1_437_993_000, 1_437_993_000_000, 10**15, 10**18, "2015-07-27", 20150727103000, "1437993000000"]
    assert [format_of(value) for value in written] == ["s", "ms", "us", "ns", "iso", "compact", "ms"]


class TestZones:
    BERLIN = TimeParser("auto", "Europe/Berlin")

    def test_a_local_time_follows_the_clock_changes(self):
        winter, summer = "2025-01-15T12:00:00", "2025-07-15T12:00:00"
        assert self.BERLIN.parse_us(winter) == parse_us("2025-01-15T11:00:00Z")
        assert self.BERLIN.parse_us(summer) == parse_us("2025-07-15T10:00:00Z")
        assert self.BERLIN.parse_us("2025-07-15T12:00:00Z") == parse_us("2025-07-15T12:00:00Z")
        assert self.BERLIN.parse_us(1_437_993_000) == EXACT
        assert TimeParser("excel", "Europe/Berlin").parse_us(42_212.4375) == EXACT - 2 * 3600 * 10**6

    @given(st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)))  # noqa: DTZ001  # local times are under test
    def test_it_agrees_with_the_time_zone_database(self, local):
        aware = local.replace(tzinfo=ZoneInfo("America/New_York"))
        exists = aware.astimezone(UTC).astimezone(aware.tzinfo).replace(tzinfo=None) == local
        written = local.isoformat(timespec="microseconds")
        us, is_valid = TimeParser("auto", "America/New_York").parse_column_us([written])
        assert is_valid.tolist() == [exists]
        if exists:
            assert us.tolist() == [(aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)]

    def test_a_skipped_time_is_refused(self):
        with pytest.raises(ValueError, match="is skipped by a clock change of Europe/Berlin; send UTC"):
            self.BERLIN.parse_us("2025-03-30T02:30:00")

    def test_a_repeated_time_is_the_first_alone_and_by_order_in_a_file(self):
        local = ["01:30", "02:00", "02:30", "02:00", "02:30", "03:00"]
        us, _ = self.BERLIN.parse_column_us([f"2025-10-26T{clock}:00" for clock in local])
        assert us[1] == us[3] == parse_us("2025-10-26T00:00:00Z")
        zone = zone_of("Europe/Berlin")
        one_asset = np.zeros(6, np.int32)
        expected = [parse_us(f"2025-10-25T23:{m}:00Z") if h is None else parse_us(f"2025-10-26T0{h}:{m}:00Z")
                    for h, m in ((None, 30), (0, "00"), (0, 30), (1, "00"), (1, 30), (2, "00"))]  # fmt: skip
        assert zone.repeated_in_order(us, one_asset)[0].tolist() == expected
        assert zone.repeated_in_order(us, one_asset)[1] == 2
        backwards, n = zone.repeated_in_order(us[::-1], one_asset)
        assert (backwards.tolist(), n) == (expected[::-1], 2)
        both = np.repeat(us, 2)  # two assets whose rows alternate
        assert zone.repeated_in_order(both, np.tile(np.array([0, 1], np.int32), 6))[0].tolist() == np.repeat(
            expected, 2
        ).tolist()

    def test_hourly_rows_repeat_their_hour(self):
        us, _ = self.BERLIN.parse_column_us([f"2025-10-26T0{hour}:00:00" for hour in (1, 2, 2, 3)])
        ordered, n = zone_of("Europe/Berlin").repeated_in_order(us, np.zeros(4, np.int32))
        assert (np.diff(ordered).tolist(), n) == ([3600 * 10**6] * 3, 1)

    def test_a_fixed_offset_is_a_zone(self):
        assert TimeParser("auto", "+02:00").parse_us("2015-07-27 12:30") == EXACT
        assert zone_of("UTC") is None
        with pytest.raises(ValueError, match="is not a time zone; write a name like Europe/Berlin"):
            zone_of("Berlin")


@given(st.integers(MIN_US, MAX_US))
def test_iso_text_is_read_back(us):
    assert parse_us(iso_text(us)) == us


def test_iso_text_has_no_needless_decimals():
    assert iso_text(0) == "1970-01-01T00:00:00Z"
    assert iso_text(1_250_000) == "1970-01-01T00:00:01.25Z"
    assert datetime.fromisoformat(iso_text(10)) == datetime(1970, 1, 1, microsecond=10, tzinfo=UTC)
