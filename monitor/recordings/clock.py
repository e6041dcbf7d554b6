"""The format of a file's times, decided by the whole column.

Input: the texts of a column of times. Output: a `TimeParser`, and what to tell. Invariant: a column that can be read in
two ways is refused with the options that decide.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from monitor.decode.formatting import quote
from monitor.decode.time_texts import CLEAR, COMPACT, DAY_FIRST, MONTH_FIRST, read_text
from monitor.decode.timestamps import TimeParser, format_of
from monitor.errors import BadRecording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from monitor.recordings.options import FileOptions

_COMPACT_DIGITS: Final = (8, 10, 12, 14)
_EXCEL_FROM, _EXCEL_TO = 36_526, 62_091
"""2000 to 2069."""
_HAS_ZONE: Final = re.compile(r"(Z|UTC|GMT|[+-]\d\d(:?\d\d)?)$", re.IGNORECASE)
_NAMES_A_DAY: Final = re.compile(r"dat|day|tag|jour|fecha", re.IGNORECASE)
LOCAL_TIMES: Final = "its times are local times of"
_EXAMPLE: Final = "write 2015-07-27T10:30:00Z or seconds, or name its format: --time-format"


def choose_parser(texts: Sequence[str], column: str, options: FileOptions) -> tuple[TimeParser, list[str]]:
    """Return the parser of a column of times. `texts`: its first cells. Raises BadRecording."""
    filled = [text for text in texts if text]
    form, notes = (options.time_format, []) if options.time_format != "auto" else _format(filled, column)
    parser = _parser(form, options.timezone)
    if filled and _is_local(filled[0], form):
        notes.append(_zone_note(options))
    return parser, notes


def parser_of_local_times(options: FileOptions) -> tuple[TimeParser, list[str]]:
    """Return the parser of a column that is declared to hold times without a zone. Raises BadRecording."""
    return _parser("auto", options.timezone), [_zone_note(options)]


def _zone_note(options: FileOptions) -> str:
    if options.timezone == "UTC":
        return "its times name no zone and are read as UTC (--timezone Europe/Berlin reads local times)"
    return f"{LOCAL_TIMES} {options.timezone}"


def _parser(time_format: str, timezone: str) -> TimeParser:
    try:
        return TimeParser(time_format, timezone)
    except ValueError as problem:
        raise BadRecording(str(problem)) from None


def _is_local(text: str, form: str) -> bool:
    if form in ("s", "ms", "us", "ns"):
        return False
    return form in ("excel", "compact") or not (_is_number(text) or _HAS_ZONE.search(text[8:]))


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _format(texts: Sequence[str], column: str) -> tuple[str, list[str]]:
    numeric = [text for text in texts if _is_number(text)]
    if texts and len(numeric) * 2 >= len(texts):
        return _format_of_numbers(numeric, column)
    ordered = [match for text in texts if (match := re.match(r"(\d{1,2})([-/. ])(\d{1,2})\2(\d{4}|\d\d)\b", text))]
    if len(ordered) * 2 < len(texts) or not ordered:
        return "auto", []
    if any(len(match[4]) == 2 and read_text(texts[0], CLEAR) for match in ordered[:1]):
        return "auto", []
    _check_short_years(ordered, texts[0], column)
    firsts, seconds = {int(match[1]) for match in ordered}, {int(match[3]) for match in ordered}
    if max(firsts) > 12 and max(seconds) <= 12:
        return "day-first", [f"its dates have the day first ({texts[0]})"]
    if max(seconds) > 12 and max(firsts) <= 12:
        return "month-first", [f"its dates have the month first ({texts[0]})"]
    if max(firsts) <= 12 and max(seconds) <= 12 and (form := _order_by_steps(texts)):
        return form, [f"its dates are read with the {form.removesuffix('-first')} first: the other way they run back"]
    if ordered[0][2] == "." and max(seconds) <= 12:
        return "day-first", [f"its dates have the day first ({texts[0]}), as dates with points have"]
    raise BadRecording(
        f"column {quote(column)}: {quote(texts[0])} can have the day or the month first; say which with "
        "--time-format day-first or --time-format month-first"
    )


def _check_short_years(dates: Sequence[re.Match[str]], text: str, column: str) -> None:
    """Raise BadRecording for dates of three pairs of digits that can begin with the year: 25/03/01."""
    firsts, seconds, lasts = ({int(match[group]) for match in dates} for group in (1, 3, 4))
    if any(len(match[1]) != 2 or len(match[4]) != 2 for match in dates):
        return
    if max(seconds) > 12 or max(lasts) > 31 or not 15 <= min(firsts) <= max(firsts) <= 40:
        return
    is_one_day = len(firsts) == len(lasts) == 1
    if len(lasts) < len(firsts) or (is_one_day and (dates[0][2] == "." or min(lasts) < 15)):
        return  # the days change, the years do not
    sign = dates[0][2]
    clock = re.search(r"\d{1,2}:\d\d(:\d\d)?(\.\d+)?( ?[ap]m)?$", text, re.IGNORECASE)
    form = f"%y{sign}%m{sign}%d"
    if clock is not None:
        form += f" %{'I' if clock[3] else 'H'}:%M" + (":%S" if clock[1] else "") + (".%f" if clock[2] else "")
        form += "" if not clock[3] else " %p" if clock[3][0] == " " else "%p"
    raise BadRecording(
        f"column {quote(column)}: {quote(text)} can begin with the year or with the day; say which with "
        f"--time-format '{form}' or --time-format day-first"
    )


def _order_by_steps(texts: Sequence[str]) -> str | None:
    """Return the only order of day and month in which time goes on evenly. None = both are possible, or none is."""
    worst = {}
    for form, layouts in (("day-first", DAY_FIRST), ("month-first", MONTH_FIRST)):
        us = np.array([found.us for text in texts if (found := read_text(text, layouts))], np.int64)
        steps = np.diff(us)
        worst[form] = (int((steps < 0).sum()), int(steps.max(initial=0)))
    (back_d, long_d), (back_m, long_m) = worst["day-first"], worst["month-first"]
    if (back_d == 0) != (back_m == 0):
        return "day-first" if back_d == 0 else "month-first"
    if back_d == back_m == 0 and long_d != long_m:  # a jump of a month at midnight against a step of a day
        ratio = max(long_d, long_m) / max(1, min(long_d, long_m))
        return None if ratio < 20 else "day-first" if long_d < long_m else "month-first"
    return None


def _format_of_numbers(texts: Sequence[str], column: str) -> tuple[str, list[str]]:
    whole = [text.removesuffix(".0") for text in texts]
    digits = {len(text) for text in whole}
    if len(digits) == 1 and digits <= set(_COMPACT_DIGITS):
        sample = whole[:: max(1, len(whole) // 1000)]
        n_dates = sum(read_text(text, COMPACT) is not None and 1970 <= int(text[:4]) <= 2100 for text in sample)
        if n_dates * 10 >= len(sample) * 9:
            shape = "YYYYMMDDHHMMSS"[: digits.pop()]
            return "compact", [f"its times are dates written as {shape} ({texts[0]})"]
    numbers = np.array([float(text.replace(",", ".")) for text in texts])
    if numbers.min() >= _EXCEL_FROM and numbers.max() <= _EXCEL_TO:
        return _excel_or_seconds(numbers, texts, column)
    units = [format_of(number) for number in (float(numbers.min()), float(numbers.max()))]
    units = ["s" if unit == "compact" else unit for unit in units]
    if units[0] != units[1]:
        at = next(i for i, number in enumerate(numbers.tolist()) if format_of(number) != format_of(float(numbers[0])))
        raise BadRecording(
            f"column {quote(column)}: the unit of its times changes from {texts[0]} to {texts[at]} (row {at + 2}); "
            "say it with --time-format s, ms, us or ns, or correct the file"
        )
    return units[0], [] if units[0] == "s" else [f"its times are {units[0]} since 1970"]


def _excel_or_seconds(numbers: NDArray[np.float64], texts: Sequence[str], column: str) -> tuple[str, list[str]]:
    told = [f"its times are days since 1900, as spreadsheets count ({texts[0]})"]
    steps = np.abs(np.diff(numbers))
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    seconds = step * 86_400
    if step and step < 1 and abs(seconds - round(seconds)) < 0.02 * max(1.0, seconds / 60) and step * 1000 % 1 > 1e-6:
        return "excel", told
    if _NAMES_A_DAY.search(column):
        return "excel", told
    raise BadRecording(
        f"column {quote(column)}: {texts[0]} can be days since 1900 or seconds; say which with --time-format excel or "
        "--time-format s"
    )


def bad_time(text: str, parser: TimeParser, options: FileOptions) -> str:
    """Return the end of a sentence about a cell that is no time."""
    try:
        parser.parse_us(text)
    except ValueError as problem:
        reason = str(problem)
        if "skipped" in reason:
            return f"{reason.partition(';')[0]}; name the zone of the clock that wrote it: --timezone +01:00, or UTC"
        if "set time_format" in reason or options.time_format != "auto":
            reason = reason.replace("set time_format = ", "use --time-format ")
            return reason.replace("time_format = ", "--time-format ").replace("(time_format)", "(--time-format)")
    return f"is no time; {_EXAMPLE}"
