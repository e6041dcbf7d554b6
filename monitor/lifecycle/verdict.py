"""The gate's verdict on a challenger, and the words that operators read.

Input: the results of checks. Output: a verdict as it is stored (`model_version.gate_verdict`) and shown by the command
line, the API and the console. Invariant: one sentence says why.

`Verdict.to_json()`:

    {"passed": bool, "why": "one sentence", "at": "ISO 8601", "challenger": version, "champion": version | null,
     "from": "ISO 8601", "to": "ISO 8601", "n_windows": n, "n_assets": n, "took_s": s,
     "alerts": {"same": n, "gained": n, "lost": n},
     "checks": [
       {"name": "budget", "passed": bool, "why": "…", "n_alerts": n, "weeks": w, "per_week": budget, "low_per_week": r,
        "high_per_week": r, "anomalous_share": s, "accepted_share": s, "champion_alerts": n | null,
        "champion_share": s | null,
        "threshold_ratio": r | null, "held_out_alerts": n, "held_out_weeks": w},
       {"name": "faults", …, "n": n, "recall": r, "champion_recall": r, "matched_recall": r, "normal_score": s,
        "champion_normal_score": s, "loss": d, "loss_low": d, "loss_high": d, "actual_loss": d, "actual_low": d,
        "margin": m, "compared": bool,
        "by_kind": {kind: {"n": n, "recall": r, "champion_recall": r}}, "by_sensor": {sensor: {…}}},
       {"name": "memory", …, "n": n, "n_judged": n, "n_lost": n, "faults": [{"alert": id, "asset": name, "opened_at": …,
        "sensors": […], "challenger": score | null, "champion": score | null, "lost": bool, "problem": "…"}]},
       {"name": "events", …, "n": n, "n_judged": n, "n_lost": n, "events": [{"alert": id | null, "asset": name,
        "from": …, "to": …, "n_windows": n, "challenger": share of anomalous windows, "champion": share,
        "accepted": bool, "lost": bool}]},
       {"name": "history", …, "n_windows": n, "n_there": n, "weeks": w, "champion_weeks": w | null},
       {"name": "latency", …, "us_per_window": t, "champion_us_per_window": t | null, "load": share of a core},
       {"name": "schema", …}]}

Of too few injected faults there is only `n`, `margin` and `compared`. `normal_score`: the
score that 99.5 % of the recent normal windows stay below. `loss` is the champion's recall at the challenger's headroom
(`matched_recall`) minus the challenger's, `actual_loss` that at its own threshold. Checks that
were not made are missing: without a champion there are budget, history and schema. Then only the schema
decides, and the rest is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from monitor.clock import iso_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

ORDER = ("schema", "memory", "events", "faults", "budget", "history", "latency")
"""Order in which reasons matter to an operator."""


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check."""

    name: str
    passed: bool
    why: str
    """One sentence without a full stop: of a failed check, it completes "refused: "."""
    numbers: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the verdict."""
        return {"name": self.name, "passed": self.passed, "why": self.why, **self.numbers}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision on a challenger."""

    passed: bool
    why: str
    checks: tuple[Check, ...]
    at: datetime
    challenger: str
    champion: str | None
    from_us: int
    """Start of the first recent window."""
    to_us: int
    n_windows: int
    n_assets: int
    """Assets whose windows were scored."""
    alerts: dict[str, int]
    """Alerts on the recent windows that both would raise (`same`), and only one of them (`gained`, `lost`)."""
    took_s: float

    def to_json(self) -> dict[str, Any]:
        """Return the form that is stored and shown."""
        return {
            "passed": self.passed,
            "why": self.why,
            "at": self.at.isoformat(timespec="seconds"),
            "challenger": self.challenger,
            "champion": self.champion,
            "from": iso_seconds(self.from_us),
            "to": iso_seconds(self.to_us),
            "n_windows": self.n_windows,
            "n_assets": self.n_assets,
            "took_s": round(self.took_s, 2),
            "alerts": self.alerts,
            "checks": [check.to_json() for check in self.checks],
        }


def reason(passed: bool, checks: Sequence[Check], *, is_first: bool) -> str:
    """Return the verdict in one sentence."""
    by_name = {check.name: check for check in checks}
    ordered = [by_name[name] for name in ORDER if name in by_name]
    if is_first:
        told = [check.why for check in ordered if not check.passed]
        although = f", and promoted although {' and '.join(told)}" if told else ""
        return f"first version: there was no champion to compare it with{although}"
    if passed:
        parts = [by_name[name].why for name in ("budget", "faults", "memory") if name in by_name]
        return f"passed: {'; '.join(parts)}"
    failed = [check for check in ordered if not check.passed]
    more = f" (and {', '.join(check.name for check in failed[1:])})" if len(failed) > 1 else ""
    return f"refused: {failed[0].why}{more}"


def count(n: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{n or 'no'} {noun}{'s' * (n != 1)}"


def figure(value: float) -> str:
    """Format with two digits."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def rounded(value: float) -> float:
    """Round to four digits, for the stored form."""
    return float(f"{value:.4g}")
