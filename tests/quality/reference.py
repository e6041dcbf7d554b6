"""Figures of reference implementations for `cases.py`, in the form that tests/unit/evaluation keeps.

Run it in an environment of its own, outside the project. TSB-AD pins an old numpy, and works without its dependencies:

    pip install --no-deps TSB-AD==1.5 && pip install numpy scipy pandas scikit-learn statsmodels matplotlib
    PYTHONPATH=. python -m tests.quality.reference
"""

from __future__ import annotations

import numpy as np

from tests.quality.cases import case, wave


def main() -> None:
    """Print a line for each case, then the periods."""
    from sklearn.metrics import average_precision_score, roc_auc_score
    from TSB_AD.evaluation.basic_metrics import basic_metricor, generate_curve
    from TSB_AD.utils.slidingWindows import find_length_rank

    for seed in range(30):
        label, score, buffer = case(seed)
        found = (score >= np.quantile(score, 0.8)).astype(int)
        figures = (
            generate_curve(label, score, buffer, "opt", 250)[7],
            average_precision_score(label, score),
            roc_auc_score(label, score),
            # It fails on a label that is one single range.
            basic_metricor().metric_RF1(label, score, preds=found) if not found.all() else np.nan,
        )
        print(f"    {seed}: ({', '.join(f'{value:.10f}' for value in figures)}),".replace("nan", "None"))
    print([int(find_length_rank(wave(seed).reshape(-1, 1))) for seed in range(30)])


if __name__ == "__main__":
    main()
