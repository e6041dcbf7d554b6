"""Finished scores in a folder, so that a second run does only what is missing.

In: what was scored and by what. Out: the same scores, or nothing. The law: a score is found again only by its data,
its method, its settings and the program that made it; labels and alert policies are no part of it, so they may change.
A pair of files each: `….npz` with the scores, and `….json` with the rest, written last: without it nothing is there.
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
from monitor.evaluation.methods import STACKED, Scored, budget_of

if TYPE_CHECKING:
    from monitor.evaluation.methods import Method, Settings
    from monitor.evaluation.series import Series

CODE = ("models", "training", "evaluation/methods.py", "evaluation/metrics.py", "budget.py")
"""What of this program a score depends on."""


class Kept:
    """A folder of finished scores."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, series: Series, method: Method, settings: Settings) -> Scored | None:
        """Return the scores if they are there and whole."""
        path = self._path(series, method, settings)
        try:
            said = json.loads(path.read_bytes())
            with path.with_suffix(".npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
                score = stored["score"]
            whole = len(score) == len(series.data.values) - series.data.train_rows
            return Scored(score, said["fit_s"], said["score_s"], said["model"]) if whole else None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None  # it is scored again, and written over

    def keep(self, series: Series, method: Method, settings: Settings, scored: Scored) -> None:
        """Write the scores. A kill at any point leaves the pair whole or absent."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(series, method, settings)
        with (mine := path.with_suffix(f".{os.getpid()}.tmp")).open("wb") as file:
            np.savez_compressed(file, score=scored.score)
        mine.replace(path.with_suffix(".npz"))
        facts = {
            "set": series.set,
            "name": series.name,
            "method": method.name,
            "program": monitor.__version__,
            "digest": series.data.digest,
            "train_rows": series.data.train_rows,
            "settings": _settings(settings, series),
            "spec": None if method.spec is None else asdict(method.spec),
            "fit_s": scored.fit_s,
            "score_s": scored.score_s,
            "model": scored.model,
        }
        mine.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        mine.replace(path)

    def _path(self, series: Series, method: Method, settings: Settings) -> Path:
        spec = None if method.spec is None else asdict(method.spec)
        facts = (series.data.digest, _name(method), spec, _settings(settings, series), monitor.__version__, _code())
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        words = re.sub(r"[^A-Za-z0-9._+-]+", "_", f"{series.set}-{series.name}-{_name(method)}")[-150:]
        return self._folder / f"{words}-{key}.json"


def _name(method: Method) -> str:
    """Name what is learnt, whatever it is called: `default` is another word for one of the others."""
    if (spec := method.spec) is None:
        return method.name
    return "+".join((spec.architecture, spec.objective, *((STACKED,) if spec.stacked else ())))


def _settings(settings: Settings, series: Series) -> dict[str, object]:
    """Return what was set, and what thresholds are calibrated to: alert defaults change from release to release."""
    budget = asdict(budget_of(settings, series.data.interval_s))
    return {**asdict(settings), "budget": str(settings.budget), "calibrated_to": budget}


@cache
def _code() -> str:
    """Name this program's way to score: a version under development changes without its number."""
    sha = hashlib.sha256()
    home = Path(monitor.__file__).parent
    for place in CODE:
        files = [home / place] if place.endswith(".py") else sorted((home / place).rglob("*.py"))
        for file in files:
            sha.update(file.read_bytes())
    return sha.hexdigest()
