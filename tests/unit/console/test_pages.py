from __future__ import annotations

from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from monitor.clock import to_us
from monitor.console.pages import alert, version_card, view
from monitor.console.pages.view import Ask, address, as_us, duration, number
from monitor.wording import contributions

NOW = 1_764_410_400_000_000  # 2025-11-29T10:00Z


def ask(kept: dict[Any, Any] | None = None, *, now_us: int = NOW, zone=UTC, **query: str) -> Ask:
    return Ask(None, now_us, zone, str(zone), query, {} if kept is None else kept)  # type: ignore[arg-type]


def test_results_serve_other_viewers_until_they_are_old() -> None:
    kept: dict[Any, Any] = {}
    made: list[int] = []

    def compute() -> int:
        made.append(1)
        return len(made)

    assert ask(kept).once("a", 10, compute) == 1
    assert ask(kept, now_us=NOW + 9_000_000).once("a", 10, compute) == 1
    assert ask(kept, now_us=NOW + 11_000_000).once("a", 10, compute) == 2


def test_old_results_are_not_kept() -> None:
    kept: dict[Any, Any] = {}
    for k in range(1000):
        ask(kept, now_us=NOW + k * 1_000_000).once(("lanes", k), 10, lambda: [0] * 100)
    assert len(kept) <= 11
    for k in range(1000):
        ask(kept).once(("other", k), 10, lambda: 0)
    assert len(kept) <= view.MAX_KEPT


def test_times_of_an_address_are_in_the_readers_zone() -> None:
    tokyo = ask(zone=ZoneInfo("Asia/Tokyo"), at="2025-11-29T19:00", exact="2025-11-29T10:00:00Z", bad="yesterday")
    assert tokyo.time("at") == tokyo.time("exact") == NOW
    assert tokyo.time("bad") is None
    assert tokyo.time("missing") is None


def test_times_at_the_ends_of_the_calendar_are_left_out() -> None:
    for text in ("0001-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "9" * 5000):
        assert ask(zone=ZoneInfo("Asia/Tokyo"), at=text).time("at") is None


@pytest.mark.parametrize(("text", "found"), [("3", 3), ("0", 1), ("-4", 1), ("x", 1), ("9" * 30, 1), ("٣", 1)])
def test_a_page_number_is_never_nonsense(text: str, found: int) -> None:
    assert ask(page=text).number("page") == found
    assert ask(page=text).number("page", least=0) == (0 if text == "0" else found)


def test_an_unknown_zone_is_utc() -> None:
    assert [view._zone(name)[1] for name in ("Europe/Berlin", "../etc/passwd", "Nowhere", "", "x" * 999)] == [
        "Europe/Berlin", "UTC", "UTC", "UTC", "UTC"
    ]  # fmt: skip


def test_addresses_quote_every_part() -> None:
    assert address("assets", "f", "a/b c?") == "/assets/f/a%2Fb%20c%3F"
    assert address(q="a&b", page=None, fleet="") == "/?q=a%26b"
    assert address() == "/"


def test_values_are_short_words() -> None:
    assert [duration(s) for s in (5, 90, 3700, 90_000, 1e7)] == ["5 s", "1 min", "1 h 1 min", "1 d 1 h", "115 d"]
    assert [number(v) for v in (None, -3.14159, 0.725, 12345.0)] == ["–", "−3.14", "0.725", "12,345"]
    assert contributions([{"name": "power", "share": 0.61}, {"name": "x", "share": 0.01}]) == "power\xa061\xa0%"
    assert as_us("2025-11-29T10:00:00Z") == as_us(NOW) == NOW == to_us(view.from_us(NOW))


def test_an_alert_about_a_sensor_keeps_the_case_of_its_name() -> None:
    row = {"class": "sensor", "sensor": "vane", "message": "vane stays at 3", "kind": "stuck"}
    assert alert._sentence(ask(), row, None) == "vane stays at 3."
    assert alert._sentence(ask(), row | {"sensor": None, "message": "up to 5 records are lost"}, None).startswith("Up")


def test_a_model_page_names_labels_that_moved_the_threshold() -> None:
    derived = {"from": "pca-1", "why": "labels: threshold × 1 → × 0.97"}
    facts = dict(version_card._facts({"labels": {"factor": 0.97, "calibrated": {}}, "derived": derived}))
    assert facts["labels"] == "they moved the threshold to 0.97 of the calibrated one"
    assert facts["derived"] == "from pca-1, without a training: labels: threshold × 1 → × 0.97"
    assert version_card._facts({"labels": None, "derived": None}) == []
