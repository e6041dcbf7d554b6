"""Drawings as SVG text: the console's pages, the evaluation report and messages use this one renderer.

    scales.py   positions of values and times, and the ticks of their axes
    svg.py      elements, paths of bounded length, the frame with title and description
    charts.py   a sensor with its expected band, scores against the threshold, a curve of choices
    scatter.py  a map of points
    heat.py     a table whose cells are coloured by their level
    marks.py    swim lanes, bars of hours, contributions, states, sparklines
    drawing.css the colours: light and dark, and for colour-blind readers

Input: plain numbers and times in µs since 1970. Output: SVG text. Invariants: each drawing has a title and a
description, and callers put a table of its numbers beside it. Colour is never the only difference between two marks.
Horizontal positions are percentages, so that a drawing fits any width while its text keeps its size.
"""

from __future__ import annotations

from monitor.drawing.charts import curve, score_chart, sensor_chart
from monitor.drawing.heat import heat_table
from monitor.drawing.marks import LEVELS, contributions, lane, lanes, level_of, sparkline, state_strip, time_axis
from monitor.drawing.scales import score_position, time_ticks
from monitor.drawing.svg import envelope, standalone, stylesheet, text

__all__ = [
    "LEVELS",
    "contributions",
    "curve",
    "envelope",
    "heat_table",
    "lane",
    "lanes",
    "level_of",
    "score_chart",
    "score_position",
    "sensor_chart",
    "sparkline",
    "standalone",
    "state_strip",
    "stylesheet",
    "text",
    "time_axis",
    "time_ticks",
]
