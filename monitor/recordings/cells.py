"""Texts of a column → numbers: decimal commas, groups of thousands, units behind the number, states, missing words.

Input: the cells of a column and the file's way to write numbers. Output: `Parsed`. Invariant: a number that can be read
in two ways is not read.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from monitor.errors import BadRecording

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

BLANK: Final = frozenset(("", "nan", "na", "n/a", "null", "none", "-"))
MISSING_WORDS: Final = BLANK | {
    *("unavailable", "unknown", "no data", "nodata", "no value", "missing", "invalid", "error", "undef", "undefined"),
    *("bad", "bad input", "bad data", "bad quality", "i/o timeout", "pt created", "shutdown", "not connect"),
    *("comm fail", "out of serv", "scan off", "configure", "intf shut"),
    *("#n/a", "#na", "#nv", "#value!", "#wert!", "#div/0!", "#ref!", "#bezug!", "#num!", "#zahl!", "n.a.", "k.a."),
    *("--", "---", "----", "-----", "?", "??", "*", "**", "***", "ol", "-ol", "ovl", "ovld", "-nan", "+nan", "nil"),
    *("1.#qnan", "-1.#ind", "1.#inf", "-1.#inf", "1.#ind", "1.#nan"),
}
"""Texts of cells, in lower case, that mean "no reading"."""
STATES: Final = {
    **dict.fromkeys(("on", "true", "yes", "open", "opened", "active", "running", "ein", "ja", "wahr", "auf"), 1.0),
    **dict.fromkeys(("off", "false", "no", "closed", "inactive", "stopped", "aus", "nein", "falsch", "zu"), 0.0),
}
"""Texts of cells, in lower case, that are states of two."""
LOOSE_NUMBER: Final = re.compile(r"[-+]?[0-9.,][0-9.,'’ \u00a0\u202f]*(e[-+]?[0-9]+)?", re.IGNORECASE)
_WITH_UNIT: Final = re.compile(r"([-+]?[0-9][0-9.,'’ \u00a0\u202f]*?)\s*((?:[A-Za-zµ°²³/·]|%)[^\d\s]{0,9})")
_COMMA_GROUPS: Final = re.compile(r"[-+]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")
_DOT_GROUPS: Final = re.compile(r"[-+]?[1-9][0-9]{0,2}(\.[0-9]{3})+(,[0-9]+)?")
_OTHER_GROUPS: Final = re.compile(r"[-+]?[0-9]{1,3}([ '’\u00a0\u202f][0-9]{3})+([.,][0-9]+)?")

NUMBER, STATE, MISSING, BAD = 1, 2, 0, 3


class NumberStyle(NamedTuple):
    """A file's way to write numbers."""

    decimal_comma: bool = False
    has_groups: bool = False
    """Thousands are separated by the other sign."""


@dataclass(slots=True)
class Parsed:
    """Numbers of a column's cells. NaN = missing or bad."""

    values: Float64
    kinds: NDArray[np.int8] | None
    """NUMBER, STATE, MISSING or BAD of each cell. None = every finite value is a number, every other one missing."""
    words: Counter[str] = field(default_factory=Counter)
    """Words that mean "missing", and units behind numbers."""
    units: set[str] = field(default_factory=set)
    points: dict[str, str] = field(default_factory=dict)
    """Where the comma is the decimal sign: an example of a point that separates a "group", or "decimals"."""


def style_of(columns: Iterable[Sequence[str]], decimal: str, *, is_comma_free: bool) -> NumberStyle:
    """Return the way in which the cells of some columns write numbers.

    `is_comma_free`: the comma does not separate the columns. Raises BadRecording if they can be read in two ways.
    """
    with_comma, with_point, is_everywhere = [], [], True
    for cells in columns:
        numbers = [text for text in cells if LOOSE_NUMBER.fullmatch(text) and text.strip(".,")]
        mine = [text for text in numbers if "," in text]
        # Groups of thousands are missing in small numbers. A fixed number of decimals is not.
        is_everywhere &= not mine or len(mine) == len(numbers)
        with_comma += mine
        with_point.append([text for text in numbers if text not in mine])
    groups = any(_DOT_GROUPS.fullmatch(text) and "." in text for text in with_comma)
    if decimal != "auto":
        return NumberStyle(decimal == "comma", groups or decimal == "point")
    if any(text.count(",") > 1 or _is_point_after_groups(text) for text in with_comma):
        return NumberStyle(decimal_comma=False, has_groups=True)
    if not with_comma:
        _check_points(with_point)
        return NumberStyle()
    has_other_commas = any(not _COMMA_GROUPS.fullmatch(text) or text.lstrip("+-")[0] == "0" for text in with_comma)
    if (is_comma_free and is_everywhere) or groups or has_other_commas:
        return NumberStyle(decimal_comma=True, has_groups=groups)
    raise BadRecording(
        f'"{with_comma[0]}" can be {with_comma[0].replace(",", ".")} or {with_comma[0].replace(",", "")}; say which '
        "with --decimal comma or --decimal point"
    )


def _check_points(columns: Iterable[Sequence[str]]) -> None:
    """Raise BadRecording for numbers whose points can separate thousands: 998, 999, 1.000."""
    for cells in columns:
        points = [text for text in cells if "." in text]
        others = {text for text in cells if "." not in text and text[0] != "-" and text.strip("+0")}
        is_grouped = bool(points) and all(_DOT_GROUPS.fullmatch(text) for text in points)
        is_small = len(others) > 1 and all(len(text) == 3 for text in others)
        is_long = {text.count(".") for text in points} & {2}
        if is_grouped and (is_small or is_long):
            text = next(text for text in points if not is_long or text.count(".") == 2)
            beside = "" if is_long else f", beside {min(others)}"
            raise BadRecording(
                f'"{text}"{beside} can have points between thousands; say it with --decimal comma '
                f"({text.replace('.', '')}) or --decimal point"
            )


def _is_point_after_groups(text: str) -> bool:
    return "." in text and _COMMA_GROUPS.fullmatch(text) is not None


def parse_cells(cells: Sequence[str | None], style: NumberStyle, missing: frozenset[str]) -> Parsed:
    """Parse the cells of a column. `missing`: further words that mean "missing"."""
    try:
        if style.decimal_comma:
            texts = [cell.replace(",", ".") for cell in cells]  # type: ignore[union-attr]  # None: see below
            if not style.has_groups and not any("." in cell for cell in cells if cell):
                return Parsed(np.array([float(text) if text else np.nan for text in texts], np.float64), None)
        else:
            return Parsed(np.fromiter(map(float, cells), np.float64, len(cells)), None)  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError):
        pass
    try:
        if not style.decimal_comma:
            return Parsed(np.array([float(cell) if cell else np.nan for cell in cells], np.float64), None)
    except ValueError:
        pass
    return _one_by_one(cells, style, missing)


def _one_by_one(cells: Sequence[str | None], style: NumberStyle, missing: frozenset[str]) -> Parsed:
    parsed = Parsed(np.full(len(cells), np.nan), np.zeros(len(cells), np.int8))
    assert parsed.kinds is not None  # noqa: S101  # set by the line above
    known: dict[str | None, tuple[int, float]] = {}
    for row, cell in enumerate(cells):
        found = known.get(cell)
        if found is None:
            found = known[cell] = _parse(cell, style, missing, parsed)
        parsed.kinds[row], parsed.values[row] = found
        if found[0] == MISSING and cell:
            parsed.words[cell.strip()] += 1
    for word in [word for word in parsed.words if word.casefold() in BLANK]:
        del parsed.words[word]
    return parsed


def _parse(cell: str | None, style: NumberStyle, missing: frozenset[str], parsed: Parsed) -> tuple[int, float]:
    text = "" if cell is None else cell.strip()
    plain, match = text.casefold(), None
    if plain in MISSING_WORDS or plain in missing:
        return MISSING, np.nan
    number = number_of(text, style)
    if number is None and (match := _WITH_UNIT.fullmatch(text)):
        number = number_of(match[1], style)
        if number is not None:
            parsed.units.add(match[2])
    if number is not None and style.decimal_comma and "." in text and "," not in text:
        parsed.points.setdefault("group" if _DOT_GROUPS.fullmatch(match[1] if match else text) else "decimals", text)
    if number is not None:
        return (NUMBER, number) if np.isfinite(number) else (BAD, np.nan)
    return (STATE, STATES[plain]) if plain in STATES else (BAD, np.nan)


def number_of(text: str, style: NumberStyle) -> float | None:
    """Return the number of a text. None = it is none, or can be read in two ways."""
    if _OTHER_GROUPS.fullmatch(text):
        text = re.sub(r"[ '’\u00a0\u202f]", "", text)
    groups = _DOT_GROUPS if style.decimal_comma else _COMMA_GROUPS
    # A number has one decimal sign: where that is the comma, a point before three digits separates thousands.
    if (style.has_groups or style.decimal_comma or (("," in text) and ("." in text))) and groups.fullmatch(text):
        text = text.replace("." if style.decimal_comma else ",", "")
    if style.decimal_comma:
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return None
