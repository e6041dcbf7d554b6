"""The difference of two model versions in words: cards, data, verdict, and the command that compares their alerts.

Input: two rows of `Reader.model`, with their cards. Output: lines.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from monitor import version_words
from monitor.cli import output, verdict
from monitor.cli.terminal import Styled, Table, echo, echo_facts, echo_prose
from monitor.version_differences import differences, replay_command

if TYPE_CHECKING:
    from collections.abc import Mapping

TITLES = {"model": "Model", "threshold": "Threshold", "sensors": "Sensors", "data": "Training data"}
REMARKS = {"sensors": "healthy level ± spread; a drift is in spreads of the first version"}


def print_difference(before: Mapping[str, Any], after: Mapping[str, Any], *, local: bool) -> None:
    """Print the difference."""
    for sign, row in (("−", before), ("+", after)):
        trained = output.timestamp(row["trained_at"], local=local)
        echo(f"{sign} ", Styled(row["version"], "bold"), "  ", output.state(row["state"]),
             Styled(f"  trained {trained}", "dim"))  # fmt: skip
    for row in (before, after):
        if not row["card"].get("scaler"):
            text = f"{row['path']} is not on this machine: of {row['version']} only the database's facts are compared."
            echo_prose(text, "yellow")
    changes = differences(before, after)
    if not changes:
        echo_prose("\nTheir cards do not differ.")
    for part, group in groupby(changes, key=lambda change: change.part):
        echo(Styled(f"\n{TITLES[part]}", "bold"), Styled(f"  {REMARKS[part]}" if part in REMARKS else "", "dim"))
        table = Table("  ", "before:rest", "after:rest", ":rest")
        for change in group:
            style = "bold yellow" if change.is_large else ""
            name, note = Styled(f"  {change.name}", style), Styled(change.note, style or "dim")
            table.add(name, change.before, change.after, note)
        table.print()
    if (found := after["gate_verdict"]) is not None:
        verdict.print_verdict(found, local=local)
    elif after["why"]:
        echo_facts({"verdict": after["why"]})
    echo(Styled("\nAlerts", "bold"), Styled("  gained and lost on history, by the pipeline itself", "dim"))
    if (counts := version_words.projected_alerts(found)) is not None:
        echo_facts({"gate": f"{counts}, on the recent windows that it judged"})
    echo_facts({"to compare": replay_command(before["version"], after["version"])})
    if after["state"] in ("candidate", "shadow"):
        echo_facts({"to promote": f"monitor models promote {after['version']}"})
