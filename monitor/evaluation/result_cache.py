"""Finished scores in a folder, so that a second run computes only the missing ones.

Input: series, method and settings. Output: the scores of an earlier run, or None.
Invariants: the key covers the data, the method, the settings and the code that computed the scores. Labels and alert
policies are no part of it, so they may change. An entry is a pair of files: `….npz` with the scores and `….json` with
the rest. The latter is written last, and without it the entry does not exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import monitor
from monitor.evaluation.explained import ExplainedFaults
from monitor.evaluation.methods import STACKED, MethodScores, budget_of

if TYPE_CHECKING:
    from monitor.evaluation.methods import Method, ScoreSettings
    from monitor.evaluation.series import Series

CODE = ("models", "training", "evaluation/methods.py", "evaluation/metrics.py", "evaluation/yardsticks.py",
        "evaluation/explained.py", "budget.py")  # fmt: skip
"""Modules and folders of this program that a score depends on."""


class ResultCache:
    """A folder of finished scores."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, series: Series, method: Method, settings: ScoreSettings) -> MethodScores | None:
        """Return the scores, or None if they are missing or damaged."""
        path = self._path(series, method, settings)
        try:
            facts = json.loads(path.read_bytes())
            with path.with_suffix(".npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
                score = stored["score"]
            is_complete = len(score) == len(series.data.values) - series.data.train_rows
            explained = facts.get("explained")
            return MethodScores(
                score, facts["fit_s"], facts["score_s"], facts["model"],
                None if explained is None else ExplainedFaults(**explained),
            ) if is_complete else None  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None  # scored again, and overwritten

    def put(self, series: Series, method: Method, settings: ScoreSettings, scores: MethodScores) -> None:
        """Write the scores. A kill at any point leaves a complete entry or none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(series, method, settings)
        with (temporary := path.with_suffix(f".{os.getpid()}.tmp")).open("wb") as file:
            np.savez_compressed(file, score=scores.score)
        temporary.replace(path.with_suffix(".npz"))
        facts = {
            "set": series.set,
            "name": series.name,
            "method": method.name,
            "program": monitor.__version__,
            "digest": series.data.digest,
            "train_rows": series.data.train_rows,
            "settings": _settings_key(settings, series),
            "spec": None if method.spec is None else asdict(method.spec),
            "fit_s": scores.fit_s,
            "score_s": scores.score_s,
            "model": scores.model,
            "explained": None if scores.explained is None else asdict(scores.explained),
        }
        temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        temporary.replace(path)

    def _path(self, series: Series, method: Method, settings: ScoreSettings) -> Path:
        spec = None if method.spec is None else asdict(method.spec)
        settings_key = _settings_key(settings, series)
        facts = (series.data.digest, _model_name(method), spec, settings_key, monitor.__version__, _code_hash())
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        words = re.sub(r"[^A-Za-z0-9._+-]+", "_", f"{series.set}-{series.name}-{_model_name(method)}")[-150:]
        return self._folder / f"{words}-{key}.json"


def _model_name(method: Method) -> str:
    """Return the name of the trained model, which is the same for `default` and the method that it stands for."""
    if (spec := method.spec) is None:
        return method.name
    return "+".join((spec.architecture, spec.objective, *((STACKED,) if spec.stacked else ())))


def _settings_key(settings: ScoreSettings, series: Series) -> dict[str, object]:
    """Return the settings with the alarm budget, which depends on alert defaults that may change between releases."""
    budget = asdict(budget_of(settings, series.data.interval_s))
    return {**asdict(settings), "budget": str(settings.budget), "calibrated_to": budget}


@cache
def _code_hash() -> str:
    """Return a hash of the scoring code: under development it changes without a new version number."""
    sha = hashlib.sha256()
    home = Path(monitor.__file__).parent
    for name in CODE:
        files = [home / name] if name.endswith(".py") else sorted((home / name).rglob("*.py"))
        for file in files:
            sha.update(file.read_bytes())
    return sha.hexdigest()
