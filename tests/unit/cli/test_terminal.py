from __future__ import annotations

import pytest

from monitor.cli import terminal
from monitor.cli.terminal import Styled, Table, echo

ROWS = [("7", "short", "a"), ("1024", Styled("a rather long reason that must be broken", "yellow"), "日本語")]


def lines(width: int, *headings: str) -> list[str]:
    table = Table(*headings)
    for row in ROWS:
        table.add(*row)
    return [line for row in table.lines_by_row(width) for line in row]


def plain(line: str) -> str:
    return line.replace("\x1b[33m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")


def test_columns_are_aligned() -> None:
    shown = [plain(line) for line in lines(100, "id:right", "reason", "name")]
    assert shown == [
        "  id  reason                                    name",
        "   7  short                                     a",
        "1024  a rather long reason that must be broken  日本語",
    ]


@pytest.mark.parametrize("width", [30, 34, 40])
def test_a_flexible_column_is_wrapped_to_fit(width: int) -> None:
    shown = [plain(line) for line in lines(width, "id:right", "reason:rest", "name")]
    assert len(shown) > 3
    assert all(len(line) + line.count("日本語") * 3 <= width for line in shown)
    assert " ".join(" ".join(shown[2:]).split()).startswith("1024 a rather")


def test_a_large_table_is_laid_out_quickly() -> None:
    import time

    table = Table("id:right", "sensors:rest")
    for n in range(10_000):
        table.add(str(n), Styled("power 61 %, pitch 22 %", "red"))
    before = time.perf_counter()
    assert len(list(table.lines_by_row(80))) == 10_001
    assert time.perf_counter() - before < 5  # 0.1 s on an idle machine


def test_no_color_removes_the_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    echo(Styled("x", "bold red"), "y")
    assert capsys.readouterr().out == "xy\n"


def test_a_wrapped_row_stays_in_its_group(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(terminal, "columns", lambda: 20)
    table = Table("id", "reason:rest")
    for row in (("1", "short"), ("2", "a rather long reason"), ("3", "short")):
        table.add(*row)
    table.print([("one",), ("two",), ("two",)])
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "id  reason", "one", "1   short", "two", "2   a rather long", "reason", "3   short"
    ]  # fmt: skip
