"""The plan of an evaluation: files, methods and settings, checked before any work begins.

Input: paths, names of methods, settings. Output: an `EvaluationPlan`.
Invariant: a plan holds each file once and each method once, all of them valid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from monitor.evaluation.methods import Method, ScoreSettings, parse_methods
from monitor.evaluation.series import ReadOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from monitor.evaluation.policy import PolicyChange


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """Files, methods, and how to evaluate them."""

    paths: tuple[Path, ...]
    methods: tuple[Method, ...]
    settings: ScoreSettings = field(default_factory=ScoreSettings)
    reading: ReadOptions = field(default_factory=ReadOptions)
    policies: tuple[PolicyChange, ...] = ()
    """Alert parameters to evaluate beside the default."""
    into: Path | None = None
    """Folder of finished scores. None = scores are not kept."""
    with_plots: bool = False


def make_plan(
    paths: Sequence[Path], methods: Sequence[str], settings: ScoreSettings, **options: Any
) -> EvaluationPlan:
    """Check the methods and make a plan. A file that is named twice is evaluated once. Raises ConfigError.

    `options`: other fields of `EvaluationPlan`.
    """
    unique: dict[Path, Path] = {}
    for path in paths:
        unique.setdefault(path.parent.resolve() / path.name, path)
    return EvaluationPlan(tuple(unique.values()), tuple(parse_methods(methods, settings)), settings, **options)
