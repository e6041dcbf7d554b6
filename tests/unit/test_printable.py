from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.decode.formatting import quote, truncate_reason
from monitor.decode.schema import AssetIndex, asset_name
from monitor.errors import DecodeError
from monitor.printable import escape_json, escape_unprintable, is_sensor_name, name_problem, normal_name

HOSTILE = [
    "\x1b]0;pwned\x07", "\x9b31m", "\u202eabc", "a\u2066b", "a\0b", "\u200bx", "\ufeffx", "a\u2028b",
    "\ud800", "a\rb", "\x7f",
]  # fmt: skip
NAMES = ["Pumpe 3", "温度計", "Ä/ö:1.2-x", "a" * 128, "насос", "-1", "R2 (süd) #4", "🌡", "...", "नल"]
NO_NAMES = [
    "", " ", "   ", "A00 ", " A00", ".", "..", "\xa0", "A\xa0B", "\u3164", "\u2800 \u2800", "a" * 129, "A\tB",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_characters_are_escaped_everywhere(text: str) -> None:
    for shown in (escape_unprintable(text), quote(text), truncate_reason(text)):
        assert shown.isprintable()
    assert name_problem(text) is not None
    assert not is_sensor_name(text)
    with pytest.raises(DecodeError, match="bad_asset"):
        asset_name(text)


@given(st.text(st.characters(), max_size=40))
def test_escaped_json_means_the_same_and_is_safe(text: str) -> None:
    document = json.dumps({text: [text]}, ensure_ascii=False, indent=1)
    escaped = escape_json(document)
    assert json.loads(escaped) == json.loads(document)
    assert not any(unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp") for sign in escaped if sign != "\n")


@given(st.text(max_size=60))
def test_escaping_is_the_identity_for_printable_text(text: str) -> None:
    assert (escape_unprintable(text) == text) or not text.isprintable()
    assert escape_unprintable("61\xa0%") == "61\xa0%"


@pytest.mark.parametrize("name", NAMES)
def test_any_printable_text_names_an_asset(name: str) -> None:
    assert asset_name(name) == asset_name(name.encode()) == name


@pytest.mark.parametrize("name", NO_NAMES)
def test_blank_and_misleading_names_are_refused(name: str) -> None:
    with pytest.raises(DecodeError, match=r"bad_asset: .* is not an asset's name, as it"):
        asset_name(name)


def test_two_encodings_of_one_name_are_one_asset() -> None:
    composed, decomposed = "Kühler", unicodedata.normalize("NFD", "Kühler")
    assert composed != decomposed
    index = AssetIndex()
    assert index.add(composed) == index.add(decomposed) == index.add(decomposed.encode()) == 0
    assert index.names == [composed]
    assert normal_name(decomposed) == composed
