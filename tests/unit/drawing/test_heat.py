"""The table of colours: every cell has its text, and the worst level a mark besides its colour."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from monitor.drawing import heat_table, standalone

CELLS = [[("1.4", 1), ("> 16", 6)], [("–", 0), ("5.6", 4)]]
KEY = ("small", "large", "not detected")


def table(rows: list[str]) -> str:
    return heat_table(rows, ("bias", "lag"), CELLS, title="Drill", desc="Sizes", key=KEY)


def test_a_heat_table_holds_each_text_once_as_text() -> None:
    drawing = table(["a", "b"])
    for words in ("1.4", "&gt; 16", "–", "5.6", "bias", "lag", *KEY):
        assert f">{words}</text>" in drawing
    assert drawing.count('class="h-frame"') == 2  # the cell, and the key


def test_a_heat_table_is_well_formed_and_escapes_names() -> None:
    root = ET.fromstring(standalone(table(["<b>&", "x" * 60]), 700))
    texts = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(each.startswith("<b>&") for each in texts)
    assert any("…" in each and "x" * 60 in each for each in texts)
    assert "style=" not in table(["a", "b"])
