from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from monitor.cli.plot import plot

START = datetime(2015, 7, 20, tzinfo=UTC)


def draw(scores: list[float | None], *, width: int = 80, rows: int = 10) -> list[str]:
    times = [START + timedelta(minutes=10 * i) for i in range(len(scores))]
    return ["".join(part.text for part in line) for line in plot(times, scores, width=width, rows=rows)]


def dotted_columns(lines: list[str]) -> set[int]:
    """Return the columns with at least one dot."""
    return {x for line in lines for x, sign in enumerate(line) if "\u2801" <= sign <= "\u28ff"}


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_the_plot_fits_the_width(width: int) -> None:
    lines = draw([0.4, 0.5, 3.0] * 100, width=width)
    assert max(map(len, lines)) <= width
    assert len(lines) == 12


def test_the_threshold_is_always_drawn() -> None:
    [line] = [line for line in draw([0.1] * 50) if "1.0" in line]
    assert line.count("╌") > 60


def test_no_peak_is_lost() -> None:
    scores: list[float | None] = [0.4] * 10_000
    scores[7_777] = 30.0
    top = draw(scores, width=60)[0]
    assert dotted_columns([top]) == {8 + int(51 * 0.7777)}


def test_only_scores_above_the_threshold_are_red() -> None:
    times = [START + timedelta(hours=i) for i in range(4)]

    def reds(*scores: float) -> int:
        return sum(part.style == "red" for line in plot(times, scores) for part in line)

    assert reds(0.9, 0.99, 0.5, 0.4) == 0
    assert reds(0.9, 1.01, 0.5, 0.4) > 0


def test_unscored_windows_leave_a_gap() -> None:
    with_gap = dotted_columns(draw([0.5] * 40 + [None] * 20 + [0.5] * 40))
    full = dotted_columns(draw([0.5] * 100))
    assert 10 <= len(full - with_gap) <= 18


def test_a_single_score_is_drawn() -> None:
    assert len(dotted_columns(draw([0.7]))) == 1
