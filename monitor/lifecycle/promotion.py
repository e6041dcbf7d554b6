"""The fate of a trained version: by the fleet's mode of promotion and the gate's verdict.

Input: `[fleet.retrain] promote`, the verdict, and whether a champion decides meanwhile. Output: a decision with its
reason. Invariant: pure. A fleet without a champion gets the version in each mode, because its windows are unscored
otherwise. A version that the gate refused is rejected in each mode, and an operator may still promote it.

    auto         it decides at once
    suggest      it waits for an operator, and a log line proposes it
    manual       it waits for an operator
    shadow:24h   it is compared with the champion on the records of the next 24 h, and then decides or is rejected:

- comparisons come `N_COMPARISONS` times in the period, and at its end, which decides
- with fewer windows than `[fleet.retrain] min_windows` at the end it waits, at most `MAX_PERIODS` periods in all
- then the windows that are there decide, from `LEAST_WINDOWS` on; with fewer it is rejected
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from monitor.lifecycle.due import Due
from monitor.types import ModelState
from monitor.version_words import judgement

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from monitor.config.values import Promotion
    from monitor.types import JobView, VersionInfo

N_COMPARISONS = 4
SHORTEST_PAUSE = timedelta(minutes=1)
"""Between two comparisons: each reads the history from Kafka."""
MAX_PERIODS = 3
LEAST_WINDOWS = 20


@dataclass(frozen=True, slots=True)
class Decision:
    """The next state of a version."""

    state: ModelState | None
    """champion, candidate, shadow, rejected. None = no decision yet."""
    why: str
    """One sentence without a full stop."""


def decide(mode: Promotion, verdict: Mapping[str, Any] | None, *, has_champion: bool) -> Decision:
    """Decide on a version right after its training. `verdict`: the gate's, None = it was not judged."""
    why = "it was not judged" if verdict is None else judgement(verdict)
    if not has_champion:
        return Decision(ModelState.CHAMPION, "the fleet had no champion")
    if verdict is not None and not verdict["passed"]:
        return Decision(ModelState.REJECTED, why)
    by_mode = {"auto": ModelState.CHAMPION, "shadow": ModelState.SHADOW}
    return Decision(by_mode.get(mode.mode, ModelState.CANDIDATE), why)


# ---------------------------------------------------------------- in shadow


def shadow_until(mode: Promotion, challenger: VersionInfo) -> datetime:
    """Return the time at which a challenger in shadow is decided on: at once if the mode is another by now."""
    return challenger.trained_at + (mode.shadow or timedelta())


def next_comparison(mode: Promotion, challenger: VersionInfo, last: JobView | None) -> Due:
    """Return the next comparison of a challenger in shadow. `last`: the fleet's last comparison that ended."""
    period = mode.shadow or timedelta()
    pause = max(period / N_COMPARISONS, SHORTEST_PAUSE)
    end = shadow_until(mode, challenger)
    before = challenger.trained_at
    if last is not None and last.finished_at is not None and last.finished_at > before:
        before = last.finished_at
    at = before + pause
    if before < end:
        at = min(at, end)
    return Due(at, "schedule", f"{challenger.version} is compared with the champion until {end:%Y-%m-%d %H:%M} UTC")


def decide_shadow(
    mode: Promotion, challenger: VersionInfo, verdict: Mapping[str, Any], now: datetime, min_windows: int
) -> Decision:
    """Decide on a challenger in shadow by its last comparison."""
    period, n_windows = mode.shadow or timedelta(), int(verdict.get("n_windows", 0))
    end = challenger.trained_at + period
    if now < end:
        return Decision(None, f"the comparison ends at {end:%Y-%m-%d %H:%M} UTC")
    is_last = now >= challenger.trained_at + period * MAX_PERIODS
    if n_windows < min_windows and not is_last:
        return Decision(None, f"{n_windows} windows are too few to decide on, {min_windows} are needed")
    if n_windows < LEAST_WINDOWS:
        return Decision(ModelState.REJECTED, f"only {n_windows} windows that overlap no open alert came in shadow")
    state = ModelState.CHAMPION if verdict["passed"] else ModelState.REJECTED
    return Decision(state, f"in shadow on {n_windows} windows: {judgement(verdict)}")
