"""Model versions in words: the reason of a state, the checks of the gate, the history, and the progress of a training.

Input: rows of `store/queries/models.py`. Output: sentences and plain values, the same for the command line, the console
and its API. Invariant: a part that an older version lacks is left out. No training code is imported.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from monitor import wording
from monitor.types import ETA_FROM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Row = Mapping[str, Any]

CHECKS = {
    "budget": "alarm budget",
    "faults": "injected faults",
    "memory": "fault memory",
    "events": "unlabelled events",
    "history": "history",
    "latency": "latency",
    "schema": "schema",
}
"""Check of the gate → its name in a table."""

EVENTS = {
    "trained": "trained",
    "derived": "derived without a training",
    "proposed": "proposed",
    "shadowed": "put into shadow",
    "rejected": "rejected",
    "promoted": "promoted",
    "rolled_back": "rolled back",
    "pruned": "checkpoint removed",
}
"""Event → its words in a history."""

REASONS = {
    "first": "the fleet has no model yet",
    "schedule": "the schedule",
    "drift": "drift of scores or inputs",
    "regime": "a new regime",
    "sensors": "new sensors",
    "operator": "an operator",
}
"""Reason of a job → its words."""


def why(row: Row, event: Row | None) -> str | None:
    """Return the reason of a version's state in one sentence. None = there is nothing to say. `event`: its newest."""
    verdict = row["gate_verdict"]
    judged = judgement(verdict)
    word = None if event is None else event["event"]
    by_person = event is not None and event["via"] != "daemon"
    if event is not None and by_person and word in ("promoted", "rejected", "rolled_back"):
        return _joined(f"{EVENTS[word]} by {event['actor']}", event["note"])
    if row["state"] == "rolled_back":
        return _joined("rolled back", "" if event is None else event["note"])
    if word == "rejected" and event is not None and event["note"]:
        return str(event["note"])  # for another reason than the gate's: a newer version took its place
    if row["state"] == "candidate":
        return _joined("waits for a decision", judged)
    if row["state"] == "shadow":
        return _joined("scores live records and decides nothing", judged)
    if row["state"] == "retired":
        return None
    return judged or None


def judgement(verdict: Row | None) -> str:
    """Return the sentence of a verdict for a place that says already whether it passed. Empty = there is none."""
    text = str((verdict or {}).get("why") or "")
    return text.removeprefix("passed: ").removeprefix("refused: ")


def _joined(what: str, detail: str) -> str:
    return f"{what}: {detail}" if detail else what


def checks(verdict: Row | None) -> list[dict[str, Any]]:
    """Return the checks of a verdict: `name`, `title`, `passed`, `why`, and the figures of both sides as text.

    The figures are `challenger`, `champion` and `allowed`. Empty = the check has none.
    """
    return [
        {
            "name": check["name"],
            "title": CHECKS.get(check["name"], str(check["name"]).replace("_", " ")),
            "passed": bool(check["passed"]),
            "why": str(check.get("why") or ""),
            **dict(zip(("challenger", "champion", "allowed"), _figures(check), strict=True)),
        }
        for check in (verdict or {}).get("checks", [])
    ]


def _figures(check: Row) -> tuple[str, str, str]:
    """Return the figures of challenger and champion, and the limit. A figure that is not there is empty."""
    name = check["name"]
    if name == "budget" and check.get("weeks"):
        weeks = float(check["weeks"])
        mine, other = (_per_week(check.get(key), weeks) for key in ("n_alerts", "champion_alerts"))
        return mine, other, _figure(check.get("per_week"), " a week")
    if name == "faults" and check.get("recall") is not None:
        margin = check.get("margin")
        allowed = f"−{wording.percent(margin)}" if margin is not None and check.get("compared", True) else ""
        return wording.percent(check["recall"]), _share(check.get("champion_recall")), allowed
    if name == "memory" and check.get("n_judged") is not None:
        n, n_lost = int(check["n_judged"]), int(check.get("n_lost") or 0)
        return (f"{n - n_lost} of {n} found", f"{n} of {n} found", "none lost") if n else ("", "", "")
    if name == "events" and check.get("n_judged"):
        n, n_lost = int(check["n_judged"]), int(check.get("n_lost") or 0)
        return f"{n - n_lost} of {n} found", f"{n} of {n} found", "none lost"
    if name == "history" and check.get("n_windows") is not None:
        there = check.get("n_there")
        return f"{int(check['n_windows']):,} windows", "", f"of {int(there):,}" if there is not None else ""
    if name == "latency" and check.get("us_per_window") is not None:
        mine, other = (_milliseconds(check.get(key)) for key in ("us_per_window", "champion_us_per_window"))
        return mine, other, ""
    return "", "", ""


def _per_week(n: Any, weeks: float) -> str:
    return "" if n is None else f"{wording.number(float(n) / weeks, 2)} a week"


def _figure(value: Any, unit: str) -> str:
    return "" if value is None else f"{wording.number(float(value), 2)}{unit}"


def _share(value: Any) -> str:
    return "" if value is None else wording.percent(float(value))


def _milliseconds(us: Any) -> str:
    return "" if us is None else f"{wording.number(float(us) / 1000, 2)} ms"


def lost_faults(verdict: Row | None) -> list[Row]:
    """Return the confirmed faults that the challenger would not find any more."""
    found = [check for check in (verdict or {}).get("checks", []) if check["name"] == "memory"]
    return [fault for check in found for fault in check.get("faults", []) if fault.get("lost")]


def failed_checks(verdict: Row | None) -> str:
    """Return the reasons of the checks that failed, joined. Empty = none did."""
    return "; ".join(check["why"] or check["title"] for check in checks(verdict) if not check["passed"])


def projected_alerts(verdict: Row | None) -> str | None:
    """Describe the alerts of challenger and champion on the windows that the gate judged."""
    counts = (verdict or {}).get("alerts")
    if not isinstance(counts, dict) or not (verdict or {}).get("champion"):
        return None
    same, gained, lost = (int(counts.get(name) or 0) for name in ("same", "gained", "lost"))
    return f"{wording.count(same, 'alert')} like the champion's, {gained:,} gained, {lost:,} lost"


def state_sentences(card: Row) -> list[str]:
    """Return what a card says of the operating states and the calendar that the training found."""
    entries = [card.get(name) for name in ("states", "calendar")]
    return [str(text) for entry in entries if isinstance(entry, dict) for text in entry.get("says") or []]


def event_words(event: Row) -> str:
    """Describe an event: "promoted by maria"."""
    word = EVENTS.get(event["event"], str(event["event"]).replace("_", " "))
    return word if event["actor"] == "monitor" else f"{word} by {event['actor']}"


def history(events: Sequence[Row]) -> list[dict[str, Any]]:
    """Return events with `words`. What happened to a version at one moment is one line: "trained and proposed".

    `events`: newest first.
    """
    found: list[dict[str, Any]] = []
    for event in events:
        last = found[-1] if found else None
        if last is not None and all(last[name] == event[name] for name in ("at", "version", "actor", "via")):
            last["words"] = f"{EVENTS.get(event['event'], event['event'])} and {last['words']}"
            last["note"] = last["note"] or event["note"]
        else:
            found.append({**event, "words": event_words(event)})
    return found


# ---------------------------------------------------------------- trainings


def reason_words(job: Row) -> str:
    """Describe the reason of a job: "drift of scores or inputs", or the person who asked."""
    if job.get("reason") in (None, "", "operator"):
        return str(job["requested_by"])
    return REASONS.get(job["reason"], str(job["reason"]))


def time_left_s(job: Row, now: datetime) -> float | None:
    """Return the seconds that a running job still needs, if it goes on as it did. None = not known yet."""
    progress = float(job["progress"])
    if job["state"] != "running" or job["started_at"] is None or not ETA_FROM <= progress < 1:
        return None
    elapsed_s = (now - datetime.fromisoformat(job["started_at"])).total_seconds()
    return max(0.0, elapsed_s * (1 - progress) / progress)


class TimeLeft:
    """The remaining time of a job, smoothed: progress comes in steps, and a raw estimate would jump."""

    SMOOTHING = 0.3
    """Weight of the newest estimate."""

    def __init__(self) -> None:
        self._left_s: float | None = None
        self._at_s = 0.0

    def update(self, raw_s: float | None, now_s: float) -> float | None:
        """Return the remaining seconds. `raw_s`: by the progress of now (`JobView.eta`). None = not known yet."""
        if raw_s is None:
            return None
        if self._left_s is None:
            self._left_s = raw_s
        else:
            expected_s = max(0.0, self._left_s - max(0.0, now_s - self._at_s))
            self._left_s = expected_s + self.SMOOTHING * (raw_s - expected_s)
        self._at_s = now_s
        return self._left_s


def outcome(job: Row, row: Row | None) -> str:
    """Describe the end of a training in words. `row`: its version, if it made one."""
    if job["state"] == "failed":
        return f"failed: {job['message']}"
    if row is None:
        return f"done{': ' + str(job['message']) if job['message'] else ''}"
    verdict = row["gate_verdict"]
    judged = f": {judgement(verdict)}" if judgement(verdict) else ""
    if row["state"] == "champion":
        return f"{row['version']} is promoted{judged}"
    if row["state"] == "rejected":
        reasons = failed_checks(verdict)
        return f"{row['version']} is rejected, and the champion stays: {reasons or judgement(verdict) or '–'}"
    if row["state"] == "candidate":
        return f"{row['version']} is proposed{judged}"
    if row["state"] == "shadow":
        return f"{row['version']} is in shadow{judged}"
    return f"{row['version']} is {str(row['state']).replace('_', ' ')}"


def newest_by_version(events: Sequence[Row]) -> dict[str, Row]:
    """Return the newest event of each version. `events`: newest first."""
    found: dict[str, Row] = {}
    for event in events:
        if event["version"] is not None:
            found.setdefault(event["version"], event)
    return found
