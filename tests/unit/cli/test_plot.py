from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from monitor.cli.plot import plot

START = datetime(2015, 7, 20, tzinfo=UTC)


def draw(scores: list[float | None], *, width: int = 80, rows: int = 10) -> list[str]:
    times = [START + timedelta(minutes=10 * i) for i in range(len(scores))]
    return ["".join(ink.text for ink in line) for line in plot(times, scores, width=width, rows=rows)]


def inked(lines: list[str]) -> set[int]:
    """Columns with at least one dot."""
    return {x for line in lines for x, sign in enumerate(line) if "\u2801" <= sign <= "\u28ff"}


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_it_fits_the_width_it_is_given(width: int) -> None:
    lines = draw([0.4, 0.5, 3.0] * 100, width=width)
    assert max(map(len, lines)) <= width
    assert len(lines) == 12


def test_the_threshold_is_there_even_when_every_score_is_low() -> None:
    [line] = [line for line in draw([0.1] * 50) if "1.0" in line]
    assert line.count("╌") > 60


def test_one_peak_among_ten_thousand_scores_is_seen() -> None:
    scores: list[float | None] = [0.4] * 10_000
    scores[7_777] = 30.0
    top = draw(scores, width=60)[0]
    assert inked([top]) == {8 + int(51 * 0.7777)}


def test_what_is_above_the_threshold_is_red_and_nothing_else() -> None:
    times = [START + timedelta(hours=i) for i in range(4)]

    def reds(*scores: float) -> int:
        return sum(ink.look == "red" for line in plot(times, scores) for ink in line)

    assert reds(0.9, 0.99, 0.5, 0.4) == 0
    assert reds(0.9, 1.01, 0.5, 0.4) > 0


def test_unscored_windows_leave_a_hole() -> None:
    holes = inked(draw([0.5] * 40 + [None] * 20 + [0.5] * 40))
    full = inked(draw([0.5] * 100))
    assert 10 <= len(full - holes) <= 18


def test_a_single_score_is_drawn() -> None:
    assert len(inked(draw([0.7]))) == 1
