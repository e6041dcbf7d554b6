from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from monitor import drawing
from monitor.drawing import svg

HOUR_US = 3_600_000_000
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>"&\u202e'
T = np.arange(240, dtype=np.int64) * 600_000_000
SCORES = np.where((np.arange(240) > 100) & (np.arange(240) < 140), 18.0, 0.4)


def sensor(values=None, **more) -> str:
    y = 560 + 90 * np.sin(np.arange(240) / 9) if values is None else values
    band = 560 + 90 * np.sin(np.arange(240) / 9)
    return drawing.sensor_chart(T, y, expected=band, low=band - 50, high=band + 50, title=HOSTILE, desc="d", **more)


ALL = {
    "sensor": sensor,
    "score": lambda: drawing.score_chart(T, SCORES, title=HOSTILE, desc="d", spans=[(0, HOUR_US, HOSTILE)]),
    "curve": lambda: drawing.curve([(HOSTILE, 2.0), ("1/week", 40.0)], 1, title=HOSTILE, desc="d"),
    "lane": lambda: drawing.lane(
        [0.1, 3.0, None], title=HOSTILE, desc="d", link=lambda a, b: f"/?{a}&{b}", name=lambda _a, _b: HOSTILE
    ),
    "lanes": lambda: drawing.lanes({HOSTILE: [0.1, 7.0]}, 0, HOUR_US, title=HOSTILE, desc="d"),
    "contributions": lambda: drawing.contributions(0.6, 0.2, title=HOSTILE),
    "strip": lambda: drawing.state_strip(
        [("firing", 0, HOUR_US)], 0, HOUR_US, title=HOSTILE, desc="d", marks=[(5, HOSTILE)]
    ),
    "sparkline": lambda: drawing.sparkline([1.0, None, 3.0], title=HOSTILE),
    "axis": lambda: drawing.time_axis(0, HOUR_US, title=HOSTILE),
}


@pytest.mark.parametrize("kind", ALL)
def test_every_drawing_is_named_escaped_and_without_styles(kind: str) -> None:
    text = ALL[kind]()
    root = ElementTree.fromstring(text)
    assert root[0].tag == f"{SVG}title"
    assert root[0].text == '<script>"&\\u202e'
    assert root[1].tag == f"{SVG}desc"
    assert "<script>" not in text
    assert not re.search(r"\s(style|id|on\w+)=", text)


def test_values_outside_the_band_are_thick() -> None:
    y = 560 + 90 * np.sin(np.arange(240) / 9)
    assert "line hot" not in sensor(y)
    y[100:110] = -3
    assert "line hot" in sensor(y)


def test_gaps_and_missing_values_interrupt_a_line() -> None:
    y = np.full(240, 560.0)
    y[50] = np.nan
    line = re.search(r'class="line" d="([^"]*)"', sensor(y))
    assert line is not None
    assert line[1].count("M") == 2


def test_a_sensor_without_any_value_is_still_drawn() -> None:
    nothing = np.full(240, np.nan)
    text = drawing.sensor_chart(T, nothing, expected=nothing, low=nothing, high=nothing, title="t", desc="d")
    assert "nan" not in text
    assert "nan" not in drawing.score_chart([], [], title="t", desc="d")


def test_a_peak_survives_the_thinning_of_a_long_series() -> None:
    scores = np.full(50_000, 0.3)
    scores[31_417] = 50.0
    text = drawing.score_chart(np.arange(50_000) * 1_000_000, scores, title="t", desc="d")
    assert len(text) < 60_000
    assert re.search(r"[ML]\d+\.\d 1[0-9]\.\d", text), "the peak is near the top"


def test_levels_differ_in_height_and_not_only_in_colour() -> None:
    heights = [level.height for level in drawing.LEVELS]
    assert heights == sorted(set(heights))
    assert [drawing.level_of(score) for score in (None, 0.1, 0.7, 1.0, 2.0, 9.0)] == [0, 1, 2, 3, 4, 5]


def test_lanes_link_the_newest_stretches_above_the_threshold() -> None:
    scores = [3.0 if k % 3 == 0 else 0.1 for k in range(60)]
    text = drawing.lane(scores, title="t", desc="d", link=lambda a, b: f"/x?{a}-{b}", name=lambda a, b: f"{a} to {b}")
    assert 'role="group"' in text
    assert re.findall(r'href="/x\?(\d+)-\d+"', text) == [str(k) for k in range(36, 60, 3)]
    assert 'role="img"' in drawing.lane(scores, title="t", desc="d")


def test_equal_columns_of_a_lane_are_one_shape() -> None:
    assert len(drawing.lane([0.1] * 500, title="t", desc="d")) < 500


def test_a_standalone_drawing_has_its_rules_and_one_theme() -> None:
    text = drawing.standalone(sensor(), 640, theme="dark")
    assert ElementTree.fromstring(text).get("width") == "640"
    assert "light-dark" not in text
    assert "#151a21" in text
    assert "light-dark(" in drawing.standalone(sensor(), 640, theme="auto")


def test_every_class_of_a_drawing_has_a_rule() -> None:
    used = {word for make in ALL.values() for words in re.findall(r'class="([^"]*)"', make()) for word in words.split()}
    plain = {"calm", "chart", "tick", "axis", "lane", "lanes", "contribution", "curve", "strip", "sparkline"}
    missing = {word for word in used if f".{word}" not in svg.stylesheet()}
    assert missing - plain - {"sensor-chart", "score-chart", "&lt;script&gt;&quot;&amp;\\u202e"} == set()
