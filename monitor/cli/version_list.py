"""The list of model versions: a row for each, and under it the reason of its state.

Input: rows of `Reader.models`. Output: lines. Invariant: it fits 80 columns, however long a reason is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor import wording
from monitor.cli import output
from monitor.cli.terminal import Styled, Table, echo, echo_prose, is_wide, wrapped
from monitor.types import Alias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INDENT = "  "
"""Before a reason, so that it is read as a part of the row above."""


def print_versions(found: Sequence[Mapping[str, Any]], *, local: bool) -> None:
    """Print the versions by fleet, newest first."""
    rows = sorted(found, key=lambda row: row["fleet"])  # stable: the newest stay first
    n_fleets = len({row["fleet"] for row in rows})
    table = Table("state", "version:rest", "trained", "budget", *["metrics:rest"] * is_wide())
    for row in rows:
        budget = output.state(row["budget"]) if row["budget"] else "–"
        metrics = [Styled(_main_metrics(row["metrics"]), "dim")] * is_wide()
        trained = output.timestamp(row["trained_at"], local=local)
        table.add(output.state(row["state"]), _name(row), trained, budget, *metrics)
    table.print(
        groups=[(Styled(row["fleet"], "bold"),) for row in rows] if n_fleets > 1 else [],
        below=[[Styled(line, "dim") for line in wrapped(_reason(row), INDENT)] for row in rows],
    )
    challenger = next((row["version"] for row in rows if Alias.CHALLENGER in row["aliases"]), None)
    more = f"monitor models diff {challenger} compares it with the champion." if challenger else ""
    echo()
    echo_prose(f"{output.time_zone(local=local)} More: monitor models show VERSION. {more}".rstrip(), "dim")


def _name(row: Mapping[str, Any]) -> str:
    """Return the version, its aliases where the state does not tell them, and its origin."""
    remarks = [alias for alias in row["aliases"] if alias != row["state"]]
    if row["derived_from"]:
        remarks.append(f"from {row['derived_from']}")
    return f"{row['version']} ({', '.join(remarks)})" if remarks else str(row["version"])


def _reason(row: Mapping[str, Any]) -> str:
    pruned = "its checkpoint is removed" if row["pruned_at"] else ""
    return ". ".join(part for part in (row["why"] or "", pruned) if part)


def _main_metrics(metrics: Mapping[str, float]) -> str:
    """Format the metrics by which versions are compared first. `models show` has all."""
    own, pca = metrics.get("explained_variance"), metrics.get("pca_explained_variance")
    if own is None or pca is None:
        return ", ".join(f"{name}\xa0{wording.number(value)}" for name, value in metrics.items())
    return f"reconstructs {wording.percent(own)}, PCA {wording.percent(pca)}"
