"""The verdict of the gate, and the history of a version, as tables.

Input: `gate_verdict` and `events` of `Reader.model`. Output: lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor import version_words, wording
from monitor.cli import output
from monitor.cli.terminal import Styled, Table, echo, echo_facts, echo_prose, wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def print_verdict(verdict: Mapping[str, Any], *, local: bool) -> None:
    """Print the verdict: the checks, each with its reason, and what was judged."""
    sign = Styled("✓ passed", "green") if verdict.get("passed") else Styled("✗ not passed", "bold red")
    echo(Styled("\nGate  ", "bold"), sign)
    echo_prose(version_words.judgement(verdict), indent="  ")
    found = version_words.checks(verdict)
    if found:
        table = Table("  check", "", "challenger", "champion", "allowed")
        reasons = []
        for check in found:
            mark = Styled("✓", "green") if check["passed"] else Styled("✗", "bold red")
            figures = [check[name] or "–" for name in ("challenger", "champion", "allowed")]
            table.add(f"  {check['title']}", mark, *figures)
            is_told = not check["passed"] or not check["challenger"]
            reasons.append([Styled(line, "dim") for line in wrapped(check["why"], "    ")] if is_told else [])
        table.print(below=reasons)
    for fault in version_words.lost_faults(verdict):
        echo_facts({"lost": f"alert {fault['alert']} of {fault['asset']}, confirmed by an operator"})
    echo_facts(
        {
            "judged": _judged(verdict, local=local),
            "against": f"the champion {verdict['champion']}" if verdict.get("champion") else None,
            "alerts": version_words.projected_alerts(verdict),
        }
    )


def _judged(verdict: Mapping[str, Any], *, local: bool) -> str | None:
    if not verdict.get("n_windows"):
        return None
    span = f", {output.period(verdict, local=local)}" if verdict.get("from") and verdict.get("to") else ""
    at = f", at {output.timestamp(verdict['at'], local=local)}" if verdict.get("at") else ""
    return f"{wording.count(int(verdict['n_windows']), 'recent window')}{span}{at}"


def print_history(events: Sequence[Mapping[str, Any]], *, local: bool) -> None:
    """Print the events of a version, newest first."""
    if not events:
        return
    echo(Styled("\nHistory", "bold"))
    table = Table("  at", "event", "note:rest")
    for event in version_words.history(events):
        at = output.timestamp(event["at"], local=local)
        table.add(Styled(f"  {at}", "dim"), event["words"], event["note"])
    table.print()
