"""Links of notifications: signed, for one act on one alert, until they expire."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor import links
from monitor.errors import Conflict, NotFound
from monitor.links import Link, sign, verify

KEY = b"k" * links.KEY_BYTES
NOW_US = 1_700_000_000_000_000
EXPIRES_US = NOW_US + links.VALID_FOR_US


@pytest.mark.parametrize("act", links.ACTS)
def test_a_link_names_its_alert_and_its_act(act: str) -> None:
    token = sign(KEY, 17, act, EXPIRES_US, "n" * 16)
    assert verify(KEY, token, NOW_US) == Link(17, act, "n" * 16)
    assert quote(token, safe="") == token
    assert len(token) < 160


def test_each_link_has_a_nonce_of_its_own() -> None:
    tokens = {sign(KEY, 17, "acknowledge", EXPIRES_US) for _ in range(50)}
    assert len({verify(KEY, token, NOW_US).nonce for token in tokens}) == 50


def test_a_link_ends_when_it_expires() -> None:
    token = sign(KEY, 17, "acknowledge", EXPIRES_US)
    assert verify(KEY, token, EXPIRES_US - 1).alert_id == 17
    with pytest.raises(Conflict, match="the link expired at 2023-11-21 22:13 UTC"):
        verify(KEY, token, EXPIRES_US)


def test_an_unknown_act_is_not_signed() -> None:
    with pytest.raises(ValueError, match="is no act"):
        sign(KEY, 17, "delete", EXPIRES_US)


@given(st.integers(0, 120), st.characters(codec="utf-8"))
def test_a_changed_letter_breaks_a_link(place: int, letter: str) -> None:
    token = sign(KEY, 17, "acknowledge", EXPIRES_US, "n" * 16)
    place %= len(token)
    changed = token[:place] + letter + token[place + 1 :]
    if changed != token:
        with pytest.raises(NotFound):
            verify(KEY, changed, NOW_US)


@pytest.mark.parametrize("token", ["", ".", "v1", "v1.17.acknowledge.1.nonce.", "x" * 100_000, "ü.ü", "\ud800.x"])
def test_any_other_text_is_no_link(token: str) -> None:
    with pytest.raises(NotFound, match="copy all of it"):
        verify(KEY, token, NOW_US)


def test_another_database_signs_other_links() -> None:
    with pytest.raises(NotFound):
        verify(b"o" * links.KEY_BYTES, sign(KEY, 17, "acknowledge", EXPIRES_US), NOW_US)
