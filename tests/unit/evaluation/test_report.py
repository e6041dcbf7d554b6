from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.evaluation import yardsticks
from monitor.evaluation.evaluate import evaluate
from monitor.evaluation.methods import ALWAYS, ScoreSettings
from monitor.evaluation.plan import make_plan
from monitor.evaluation.plots import COLUMNS, THRESHOLD_Y, TOP, plot_series, score_y
from monitor.evaluation.policy import PolicyChange
from monitor.evaluation.report.page import _cell, page
from monitor.evaluation.report.section import duration_text
from monitor.evaluation.results import means
from monitor.evaluation.series import Series, UnlabelledSeries
from tests import labelled_recording as sample

if TYPE_CHECKING:
    from pathlib import Path

NUMBERS = re.compile(r"[ML](\d+) ([\d.]+)(?:V([\d.]+))?")


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def classed(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.found if attributes.get("class") == name]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sets")
    pump = sample.write_csv(folder / "a <b> & c" / "pump.csv")
    quiet = sample.write_csv(folder / "quiet" / "fan.csv", labelled=False)
    broken = sample.write_csv(folder / "quiet" / "broken.csv", labelled=False, train_rows=50)
    policies = (PolicyChange.parse("confirm=9 of 9"),)
    plan = make_plan([pump, quiet, broken], ["random"], ScoreSettings(window=16), with_plots=True, policies=policies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yardsticks, "STEPS", 5)
        results = evaluate(plan, processes=1, on_progress=lambda _share, _text: None)
    return page(plan, results, means([one.row() for one in results]), datetime(2026, 1, 2, tzinfo=UTC))


def test_the_page_needs_no_other_file(text: str) -> None:
    elements = Elements(text)
    assert elements.open == []
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in elements.found}
    assert not re.search(r"https?:|url\((?!#)|@import", text)
    assert "prefers-color-scheme: dark" in text
    assert "<b> & c" not in text
    assert "a &lt;b&gt; &amp; c" in text


def test_the_page_names_rows_not_beaten(text: str) -> None:
    assert "<h2>random against the others</h2>" in text
    assert re.search(r"random does not beat pca \(−0\.\d{3}\), ", text)
    bars = Elements(text).classed("bar")
    assert len(bars) == len(ALWAYS)
    assert all(re.fullmatch(r"[+−]?0\.\d{3} \([+−]?0\.\d{3}\)", str(bar["title"])) for bar in bars)


def test_every_link_has_a_target(text: str) -> None:
    elements = Elements(text)
    anchors = {attributes["id"] for _, attributes in elements.found if "id" in attributes}
    links = {attributes["href"] for tag, attributes in elements.found if tag == "a"}
    assert links
    assert {str(link).removeprefix("#") for link in links} <= anchors


def test_events_and_alerts_have_tooltips(text: str) -> None:
    elements = Elements(text)
    events = [one for one in elements.classed("event") if "title" in one]
    assert len(events) == len(sample.EVENTS)
    assert "found by pca" in str(events[0]["title"])
    assert str(events[0]["style"]).startswith(f"left:{100 * sample.EVENTS[0][0] / sample.N_ROWS:.4g}%")
    assert any("Alert that met an event at" in str(one.get("title")) for one in elements.classed("found"))
    assert any("Missed event at" in str(one.get("title")) for one in elements.classed("missed"))


def test_each_policy_has_its_own_table(text: str) -> None:
    assert text.count("confirm=9 of 9") == 1


def test_failures_and_missing_labels_are_shown(text: str) -> None:
    assert "There is not enough healthy data" in text
    assert "without labels" in text


def test_a_mean_over_fewer_series_is_never_best(text: str) -> None:
    pca = re.search(r"<tr><th>pca(.*?)</tr>", text)
    assert pca is not None
    assert "2 of 3 series" in pca[1]
    assert 'class="best"' not in pca[1]
    assert "Median delay" in text
    assert re.search(r"\d % of normal time alarmed", text)


@pytest.mark.parametrize(
    ("rate", "text"), [(0.0123, "0.012"), (1.26, "1.3"), (123.4, "120"), (4321.0, "4,300"), (0.0, "0")]
)
def test_false_alarms_are_shown_in_two_digits(rate: float, text: str) -> None:
    assert _cell("false_alarms_per_week", rate) == text


def test_equal_names_have_two_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardsticks, "STEPS", 5)
    paths = [sample.write_csv(tmp_path / part / "same" / "a.csv", seed=n) for n, part in enumerate("xy")]
    bad = tmp_path / "x" / "same" / "bad.csv"
    bad.write_text("timestamp,flow\n0,1\n1,many\n")
    plan = make_plan([*paths, bad], ["random"], ScoreSettings(window=16), with_plots=True)
    results = evaluate(plan, processes=1, on_progress=lambda _share, _text: None)
    text = page(plan, results, means([one.row() for one in results]), datetime(2026, 1, 2, tzinfo=UTC))
    assert "<small>same</small> x/same/a.csv</h2>" in text
    assert "<small>same</small> y/same/a.csv</h2>" in text
    assert text.count('<div class="row score">') == 2 * (1 + len(ALWAYS))
    assert "3 recordings of 1 set; 1 of them could not be evaluated" in text


def test_no_peak_of_a_long_recording_is_lost() -> None:
    n = 120_000
    values = np.zeros((n, 1), np.float32)
    values[77_777] = 1.0
    score = np.full(n - 1000, 0.2, np.float32)
    score[50_000] = 40.0
    drawn = plot_series(Series("s", "n", UnlabelledSeries(("a",), values, 1000, 1.0), None), score)
    column = 51_000 * COLUMNS // n
    heights = {int(x): (float(a), float(b or a)) for x, a, b in NUMBERS.findall(drawn.score)}
    assert min(heights[column]) == pytest.approx(float(score_y(np.array([40.0]))[0]), abs=0.1)
    assert min(heights[column]) < THRESHOLD_Y < min(heights[column - 1])
    assert min(heights) == 5  # the training rows have no score
    assert len(drawn.score) < 20_000


def test_the_score_axis_ends_logarithmic() -> None:
    low, one, ten, endless = score_y(np.array([0.5, 1.0, 10.0, np.inf]))
    assert one == THRESHOLD_Y
    assert low > one > ten > endless == TOP


def test_missing_values_interrupt_the_line() -> None:
    values = np.ones((600, 1), np.float32)
    values[200:300] = np.nan
    drawn = plot_series(Series("s", "n", UnlabelledSeries(("a",), values, 100, 1.0), None), np.ones(500, np.float32))
    assert drawn.sensors[0].path.count("M") == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250 ms"), (1, "1 s"), (61, "1 min 1 s"), (3600, "1 h"), (90_000, "1 d 1 h"), (86_460, "1 d"), (0, "0 ms")],
)
def test_durations_are_shown_in_two_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
