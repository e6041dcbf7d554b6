"""The metrics: each declared once, with bounded labels, and counted per committed batch."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monitor import metrics
from monitor.types import Counters
from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

LABELS = {
    "act", "answer", "channel", "class", "fate", "fleet", "kind", "outcome", "partition", "place", "reason",
    "severity", "state", "topic", "version",
}  # fmt: skip
"""Each has few values: fixed words, or names from the configuration."""


def page() -> str:
    return generate_latest(metrics.registry).decode()


def value(name: str, labels: Mapping[str, str] | None = None) -> float:
    return metrics.registry.get_sample_value(name, dict(labels or {})) or 0.0


def test_the_page_has_exactly_the_declared_metrics() -> None:
    on_page = set(re.findall(r"^# TYPE (\S+) \S+$", page(), flags=re.MULTILINE))
    on_page = {name for name in on_page if not name.endswith("_created")}
    assert {each.name for each in metrics.declared} == on_page


def test_the_page_has_the_declared_kinds_and_meanings() -> None:
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page(), flags=re.MULTILINE))
    meanings = dict(re.findall(r"^# HELP (\S+) (.+)$", page(), flags=re.MULTILINE))
    for each in metrics.declared:
        assert kinds[each.name] == each.kind, each
        if each.name.startswith("monitor_"):
            assert meanings[each.name] == each.meaning


def test_each_metric_is_declared_once_with_a_meaning() -> None:
    assert [name for name, n in Counter(each.name for each in metrics.declared).items() if n > 1] == []
    assert all(len(each.meaning) > 20 or each.name.startswith(("process_", "monitor_")) for each in metrics.declared)
    assert all(each.meaning for each in metrics.declared)


@pytest.mark.parametrize("each", metrics.declared, ids=lambda each: each.name)
def test_labels_are_known_and_never_an_assets_name(each: metrics.Declared) -> None:
    assert set(each.labels) <= LABELS


def test_counters_with_known_labels_start_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    # A second copy of the module, in which nothing was counted yet.
    spec = importlib.util.spec_from_file_location("metrics_unused", metrics.__file__)
    assert spec is not None
    assert spec.loader is not None
    unused = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, unused)
    spec.loader.exec_module(unused)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(generate_latest(unused.registry).decode())
        for sample in family.samples
    }
    for fate in ("accepted", "quarantined", "late", "duplicate", "tombstone"):
        assert samples["monitor_records_total", fate] == 0
    for outcome in ("delivered", "failed", "given_up"):
        assert samples["monitor_notifications_total", outcome] == 0
    assert samples["monitor_fenced_total",] == 0


def test_every_metric_is_set_somewhere() -> None:
    # Operators alert on metrics: one that never changes is worse than none.
    source = "\n".join(path.read_text() for path in (ROOT / "monitor").rglob("*.py"))
    names = [name for name, made in vars(metrics).items() if type(made).__module__ == "prometheus_client.metrics"]
    assert len(names) > 25
    own = (ROOT / "monitor" / "metrics.py").read_text()
    idle = [
        name
        for name in names
        if f"metrics.{name}." not in source and not re.search(rf"^ +{name}\.|^{name}\.labels", own, re.MULTILINE)
    ]
    assert not idle


def test_all_results_of_a_saved_batch_are_counted() -> None:
    before = {fate: value("monitor_records_total", {"fate": fate}) for fate in ("accepted", "late", "quarantined")}
    words = {word: value("monitor_quarantined_total", {"reason": word}) for word in ("late", "not_json")}
    unscored = value("monitor_windows_total", {"state": "unscored"})
    counters = Counters(records=10, accepted=6, quarantined=3, late=1, readings=60, windows=8, scored=5)
    counters.reasons = {"not_json": 3, "late": 1}
    metrics.count_saved(counters)
    for fate, n in (("accepted", 6), ("late", 1), ("quarantined", 3)):
        assert value("monitor_records_total", {"fate": fate}) == before[fate] + n
    for word, n in counters.reasons.items():
        assert value("monitor_quarantined_total", {"reason": word}) == words[word] + n
    assert value("monitor_windows_total", {"state": "unscored"}) == unscored + 3


def test_unknown_quarantine_reasons_count_as_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_words", {metrics.OTHER})

    def reasons() -> set[str]:
        return set(re.findall(r'^monitor_quarantined_total\{reason="(.*)"\}', page(), flags=re.MULTILINE))

    before, others = reasons(), value("monitor_quarantined_total", {"reason": "other"})
    rng = np.random.default_rng(1)
    for i in range(1_000):
        word = "".join(chr(c) for c in rng.integers(32, 0x2FF, 8)) if i % 2 else f"word_{i}"
        metrics.count_saved(Counters(reasons={word: 1}))
    new = reasons() - before
    assert 0 < len(new) <= metrics.MAX_WORDS
    assert all(re.fullmatch(r"[a-z_0-9]+", word) for word in new)
    assert value("monitor_quarantined_total", {"reason": "other"}) >= others + 1_000 - metrics.MAX_WORDS
