"""`monitor models`: which versions there are, which one decides, and how far each can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from monitor.cli import output, terminal
from monitor.cli.params import config_option, json_option, local_option, open_store
from monitor.cli.terminal import Styled, Table, echo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.budget import BudgetReport
    from monitor.store.reader import Reader


@click.group()
@config_option
def models() -> None:
    """Look at model versions."""


@models.command("list")
@config_option
@click.option("--fleet", help="Only of this fleet.")
@local_option
@json_option
def list_models(fleet: str | None, local: bool, as_json: bool) -> None:
    """List model versions, the newest first; the champion decides."""
    with open_store() as store:
        found = [row | {"budget": _budget(store, row)} for row in store.models(fleet=fleet)]
        if as_json:
            output.emit_list(found)
            return
        if not found:
            click.echo(output.nothing("models", store, fleet=fleet))
            return
    from monitor.cli import card

    table = Table("state", "fleet", "version", "trained", "budget", "metrics:rest")
    for row in found:
        sign, look = output.MODEL_STATES.get(row["state"], ("·", ""))
        trained = output.moment(row["trained_at"], local=local)
        budget = card.status(row["budget"]) if row["budget"] else "–"
        state = Styled(f"{sign} {row['state']}", look)
        table.add(state, row["fleet"], row["version"], trained, budget, Styled(_few(row["metrics"]), "dim"))
    terminal.show(table)
    echo(Styled(f"\n{output.zone(local=local)} More: monitor models show VERSION", "dim"))


@models.command("show")
@config_option
@click.argument("version", required=False)
@click.option("--fleet", help="Without VERSION: this fleet's champion.")
@local_option
@json_option
def show_model(version: str | None, fleet: str | None, local: bool, as_json: bool) -> None:
    """Show a version: what it learnt, what it can rebuild, what it promised and what of the budget is used.

    Without VERSION the champion is shown.
    """
    from monitor.cli import card

    with open_store() as store:
        row = store.model(version, fleet=fleet)
        row["card"] = _card(row)
        standing = _standing(store, row)
    if as_json:
        output.emit(row | {"budget": _facts(standing)})
        return
    card.show(row, row["card"], standing, local=local)


def _few(metrics: Mapping[str, float]) -> str:
    """Say what versions are compared by first; the rest is in `show`."""
    own, pca = metrics.get("explained_variance"), metrics.get("pca_explained_variance")
    if own is None or pca is None:
        return ", ".join(f"{name}\xa0{output.number(value)}" for name, value in metrics.items())
    return f"rebuilds {output.percent(own)}, PCA {output.percent(pca)}"


def _card(row: Mapping[str, Any]) -> dict[str, Any]:
    """Read the card beside the weights; where the folder is elsewhere, what the database was told of it."""
    import json
    from pathlib import Path

    try:
        card: Any = json.loads((Path(row["path"]) / "card.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        card = row["card"]
    return card if isinstance(card, dict) else {}


def _budget(store: Reader, row: Mapping[str, Any]) -> str | None:
    """Return how the promise of a champion stands; the others decide nothing now."""
    if row["state"] != "champion":
        return None
    known = store.model(row["version"])
    standing = _standing(store, known | {"card": _card(known)})
    return None if standing is None else str(standing.status)


def _standing(store: Reader, row: Mapping[str, Any]) -> BudgetReport | None:
    from monitor.store.burn import budget_report

    return budget_report(store.fetch, row["fleet"], row["version"], row["card"].get("threshold"))


def _facts(standing: BudgetReport | None) -> dict[str, Any] | None:
    """Turn a standing into JSON."""
    from dataclasses import asdict
    from math import isfinite

    from monitor.store.queries import iso

    def plain(burn: Any) -> dict[str, Any]:
        facts = asdict(burn) | {"ratio": burn.ratio}
        return {name: value if isinstance(value, str) or isfinite(value) else None for name, value in facts.items()}

    if standing is None:
        return None
    return {
        "status": standing.status,
        "from": iso(standing.from_us),
        "to": iso(standing.to_us),
        "version": plain(standing.own),
        "fleet": plain(standing.recent),
        "worst": [{"asset": name} | plain(burn) for name, burn in standing.worst],
    }
