"""`monitor models`: model versions, their cards, differences and budgets."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

import click

from monitor import wording
from monitor.cli import card, output, promotion, version_diff, version_list
from monitor.cli.network_uses import encode_windows, reconstruct_files, sample_windows
from monitor.cli.params import config_option, json_option, local_option, open_store
from monitor.cli.terminal import Styled, Table, echo_prose
from monitor.store.burn import budget_report
from monitor.store.queries import iso
from monitor.types import Alias
from monitor.version_differences import difference_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.budget import BudgetReport, Burn
    from monitor.store.reader import Reader


@click.group()
@config_option
def models() -> None:
    """List and show model versions."""


@models.command("list")
@config_option
@click.option("--fleet", help="Only versions of this fleet.")
@local_option
@json_option
def list_models(fleet: str | None, local: bool, as_json: bool) -> None:
    """List model versions of each fleet, the newest first, with the reason of their state."""
    with open_store() as store:
        found = [row | {"budget": _budget_status(store, row)} for row in store.models(fleet=fleet)]
        if as_json:
            output.print_json_list(found)
            return
        if not found:
            echo_prose(output.nothing_found("models", store, fleet=fleet))
            return
    version_list.print_versions(found, local=local)


@models.command("show")
@config_option
@click.argument("version", required=False)
@click.option("--fleet", help="Fleet of the alias, where several have it.")
@click.option("--intervals", is_flag=True, help="List every time that the training used or left out.")
@local_option
@json_option
def show_model(version: str | None, fleet: str | None, intervals: bool, local: bool, as_json: bool) -> None:
    """Show VERSION, an alias, or the champion: verdict, receipt, training, budget, history.

    Aliases are champion, challenger and previous.
    """
    with open_store() as store:
        row = store.model(version, fleet=fleet)
        row["card"] = store.whole_card(row)
        report = _budget_report(store, row)
    if as_json:
        output.print_json(row | {"budget": _budget_json(report)})
    else:
        card.print_card(row, report, local=local, all_intervals=intervals)


@models.command("diff")
@config_option
@click.argument("before", required=False, metavar="[A]")
@click.argument("after", required=False, metavar="[B]")
@click.option("--fleet", help="Fleet of an alias, where several have it.")
@local_option
@json_option
def diff_models(before: str | None, after: str | None, fleet: str | None, local: bool, as_json: bool) -> None:
    """Compare versions or aliases A and B by their cards [default: champion and challenger].

    With one version, compare the champion with it. The cards tell how the models differ. `monitor replay --diff`
    tells which alerts would change.
    """
    if after is None:
        before, after = Alias.CHAMPION, before or Alias.CHALLENGER
    with open_store() as store:
        first, second = _pair(store, before or Alias.CHAMPION, after, fleet)
    if first["version"] == second["version"]:
        raise click.UsageError(f"{before} and {after} are the same version, {first['version']}; name two.")
    if first["fleet"] != second["fleet"]:
        raise click.UsageError(
            f"{first['version']} is of fleet {first['fleet']} and {second['version']} of {second['fleet']}; "
            "compare versions of one fleet."
        )
    if as_json:
        output.print_json(difference_document(first, second))
    else:
        version_diff.print_difference(first, second, local=local)


@models.command("preview")
@config_option
@click.argument("fleet")
@click.option("--budget", "budgets", metavar="1/week,2/week", help="Budgets, separated by commas.")
@click.option("--confirm", "confirms", metavar="3 of 5,5 of 8", help="Confirmations, separated by commas.")
@click.option("--recover", type=click.IntRange(1, 1000), help="Normal windows that close an alert "
              "[default: the champion's].")  # fmt: skip
@click.option("--days", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True,
              help="Days of event time, up to the newest window.")  # fmt: skip
@json_option
def preview_models(
    fleet: str, budgets: str | None, confirms: str | None, recover: int | None, days: float, as_json: bool
) -> None:
    """Show the alerts that FLEET would have had under other budgets and confirmations.

    They are counted from stored scores. Nothing is trained or changed. Set the wanted [fleet.alerts] in monitor.toml
    and restart the daemon: it derives the threshold without a training.
    """
    from monitor.store.queries.preview import DEFAULT_BUDGETS, DEFAULT_CONFIRMS

    rates = budgets.split(",") if budgets else DEFAULT_BUDGETS
    policies = confirms.split(",") if confirms else DEFAULT_CONFIRMS
    with open_store() as store:
        try:
            rows = store.budget_preview(fleet, rates, policies, recover, days)
        except ValueError as problem:
            raise click.UsageError(f"--budget, --confirm: {problem}") from problem
    if as_json:
        output.print_json_list(rows)
        return
    if reason := rows[0]["reason"]:
        echo_prose(reason, "yellow")
        return
    table = Table("", "budget", "confirm", "threshold:right", "alerts:right", "per asset and week:right")
    for row in rows:
        sign = Styled("★" if row["is_present"] else "", "bold")
        threshold = f"{'≈ ' if row['is_estimate'] else ''}{wording.number(row['threshold'])}"
        rate = wording.number(row["alerts_per_asset_week"], 2) if row["weeks"] else "–"
        table.add(sign, row["budget"], row["confirm"], threshold, f"{row['alerts']:,}", rate)
    table.print()
    weeks = wording.number(rows[0]["weeks"], 2)
    echo_prose(f"Of {weeks} scored asset-weeks. Thresholds are multiples of the present one (★).", "dim")


for _command in promotion.COMMANDS:
    models.add_command(_command)
models.add_command(encode_windows)
models.add_command(reconstruct_files)
models.add_command(sample_windows)


def _pair(store: Reader, before: str, after: str, fleet: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two versions with their cards. The alias beside a version is of that version's fleet."""
    rows: dict[str, dict[str, Any]] = {}
    for name in sorted((before, after), key=lambda name: name in list(Alias)):  # versions first
        row = store.model(name, fleet=fleet if name in list(Alias) else None)
        rows[name] = row | {"card": store.whole_card(row)}
        fleet = fleet or str(row["fleet"])
    return rows[before], rows[after]


def _budget_status(store: Reader, row: Mapping[str, Any]) -> str | None:
    """Return the status of a champion's budget. Other versions decide nothing now."""
    if row["state"] != "champion":
        return None
    report = _budget_report(store, {**row, "card": store.whole_card(row)})
    return None if report is None else str(report.status)


def _budget_report(store: Reader, row: Mapping[str, Any]) -> BudgetReport | None:
    return budget_report(store.fetch, row["fleet"], row["version"], row["card"].get("threshold"))


def _budget_json(report: BudgetReport | None) -> dict[str, Any] | None:
    if report is None:
        return None
    return {
        "status": report.status,
        "basis": report.own.basis,
        "from": iso(report.from_us),
        "to": iso(report.to_us),
        "version": _burn_json(report.own),
        "fleet": _burn_json(report.recent),
        "worst": [{"asset": name} | _burn_json(burn) for name, burn in report.worst],
    }


def _burn_json(burn: Burn) -> dict[str, Any]:
    """Return a burn for JSON, which has no infinity."""
    found = asdict(burn) | {"ratio": burn.ratio}
    return {name: value if isinstance(value, str) or isfinite(value) else None for name, value in found.items()}
