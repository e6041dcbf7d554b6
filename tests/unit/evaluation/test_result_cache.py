from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import monitor
from monitor.budget import Budget
from monitor.evaluation import result_cache
from monitor.evaluation.explained import ExplainedFaults
from monitor.evaluation.methods import MethodScores, ScoreSettings, parse_method
from monitor.evaluation.result_cache import ResultCache
from tests import labelled_recording as sample

SETTINGS = ScoreSettings()
PCA = parse_method("pca", SETTINGS)
SCORE = np.linspace(0, 2, sample.N_ROWS - sample.N_TRAIN, dtype=np.float32)
SCORES = MethodScores(SCORE, 1.5, 0.2, {"version": "pca-1"}, ExplainedFaults(5, 4, 6, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ResultCache(tmp_path / "cache").put(sample.series(), PCA, SETTINGS, SCORES)
    return tmp_path / "cache"


def test_labels_are_no_part_of_the_key(folder: Path) -> None:
    for one in (sample.series(), sample.series(labelled=False)):
        found = ResultCache(folder).get(one, PCA, SETTINGS)
        assert found is not None
        assert (found.score == SCORE).all()
        assert (found.fit_s, found.score_s, found.model) == (1.5, 0.2, {"version": "pca-1"})
        assert found.explained == ExplainedFaults(5, 4, 6, 3)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".npz"]


def test_the_key_covers_inputs_and_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, one = ResultCache(folder), sample.series()
    assert cache.get(sample.series(seed=1), PCA, SETTINGS) is None
    assert cache.get(one, parse_method("dense", SETTINGS), SETTINGS) is None
    assert cache.get(one, PCA, replace(SETTINGS, window=32)) is None
    assert cache.get(replace(one, data=replace(one.data, train_rows=650)), PCA, SETTINGS) is None
    with monkeypatch.context() as patch:
        patch.setattr(result_cache, "budget_of", lambda *_: Budget(1.0, 4, 5, 6, 60.0))
        assert cache.get(one, PCA, SETTINGS) is None, "other default alert parameters"
    monkeypatch.setattr(result_cache, "_code_hash", lambda: "another")
    assert cache.get(one, PCA, SETTINGS) is None


def test_a_damaged_entry_is_not_found(folder: Path) -> None:
    [scores], [facts] = folder.glob("*.npz"), folder.glob("*.json")
    whole = scores.read_bytes()
    for damage in (b"", whole[:100], b"PK\x03\x04rubbish"):
        scores.write_bytes(damage)
        assert ResultCache(folder).get(sample.series(), PCA, SETTINGS) is None
    scores.write_bytes(whole)
    assert ResultCache(folder).get(sample.series(), PCA, SETTINGS) is not None
    facts.write_text("{")
    assert ResultCache(folder).get(sample.series(), PCA, SETTINGS) is None
    facts.unlink()
    assert ResultCache(folder).get(sample.series(), PCA, SETTINGS) is None


def test_the_paths_of_the_code_hash_exist() -> None:
    home = Path(monitor.__file__).parent
    assert "evaluation/metrics.py" in result_cache.CODE
    assert all((home / name).exists() for name in result_cache.CODE)


def test_two_names_of_a_method_share_scores(folder: Path) -> None:
    assert ResultCache(folder).get(sample.series(), replace(PCA, name="another name"), SETTINGS) is not None
