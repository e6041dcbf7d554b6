from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import monitor
from monitor.budget import Budget
from monitor.evaluation import result_cache
from monitor.evaluation.methods import Scored, Settings, parse_method
from monitor.evaluation.result_cache import Kept
from tests.unit.evaluation import made

SETTINGS = Settings()
PCA = parse_method("pca", SETTINGS)
SCORED = Scored(np.linspace(0, 2, made.N - made.TRAIN, dtype=np.float32), 1.5, 0.2, {"version": "pca-1"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Kept(tmp_path / "kept").keep(made.series(), PCA, SETTINGS, SCORED)
    return tmp_path / "kept"


def test_what_was_kept_is_found_again_whatever_the_labels(folder: Path) -> None:
    for one in (made.series(), made.series(labelled=False)):
        found = Kept(folder).find(one, PCA, SETTINGS)
        assert found is not None
        assert (found.score == SCORED.score).all()
        assert (found.fit_s, found.score_s, found.model) == (1.5, 0.2, {"version": "pca-1"})
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".npz"]


def test_other_data_methods_settings_and_programs_find_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, one = Kept(folder), made.series()
    assert here.find(made.series(seed=1), PCA, SETTINGS) is None
    assert here.find(one, parse_method("dense", SETTINGS), SETTINGS) is None
    assert here.find(one, PCA, replace(SETTINGS, window=32)) is None
    assert here.find(replace(one, data=replace(one.data, train_rows=650)), PCA, SETTINGS) is None
    with monkeypatch.context() as patch:
        patch.setattr(result_cache, "budget_of", lambda *_: Budget(1.0, 4, 5, 6, 60.0))
        assert here.find(one, PCA, SETTINGS) is None, "alerts are confirmed otherwise by default"
    monkeypatch.setattr(result_cache, "_code", lambda: "another")
    assert here.find(one, PCA, SETTINGS) is None


def test_a_damaged_or_half_written_score_is_not_there(folder: Path) -> None:
    [scores], [facts] = folder.glob("*.npz"), folder.glob("*.json")
    whole = scores.read_bytes()
    for damage in (b"", whole[:100], b"PK\x03\x04rubbish"):
        scores.write_bytes(damage)
        assert Kept(folder).find(made.series(), PCA, SETTINGS) is None
    scores.write_bytes(whole)
    assert Kept(folder).find(made.series(), PCA, SETTINGS) is not None
    facts.write_text("{")
    assert Kept(folder).find(made.series(), PCA, SETTINGS) is None
    facts.unlink()
    assert Kept(folder).find(made.series(), PCA, SETTINGS) is None


def test_all_code_that_a_score_depends_on_is_named() -> None:
    home = Path(monitor.__file__).parent
    assert "evaluation/metrics.py" in result_cache.CODE
    assert all((home / place).exists() for place in result_cache.CODE)


def test_two_words_for_one_method_find_each_others_scores(folder: Path) -> None:
    assert Kept(folder).find(made.series(), replace(PCA, name="another word"), SETTINGS) is not None
