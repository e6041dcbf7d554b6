"""`monitor alerts health`: how good the alerts are, beside the targets of ISA-18.2 and EEMUA 191."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from monitor import wording
from monitor.cli import output
from monitor.cli.params import TIME, config_option, json_option, local_option, open_store
from monitor.cli.terminal import Styled, Table, echo, echo_facts, echo_prose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TOP_SHOWN = 5
MET = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("–", "dim")}
SHARES = ("flood_share", "top_share", "critical_share")


@click.command("health")
@config_option
@click.option("--fleet", help="Only alerts of this fleet.")
@click.option("--from", "--since", "since", type=TIME, metavar="TIME",
              help="From this time on [default: four weeks before the end].")  # fmt: skip
@click.option("--to", "until", type=TIME, metavar="TIME", help="Before this time [default: the newest window].")
@local_option
@json_option
def health(fleet: str | None, local: bool, as_json: bool, **span: Any) -> None:
    """Judge the alerts by ISA-18.2 and EEMUA 191: rates, floods, chattering, and how many were real."""
    with open_store() as store:
        found = store.alert_health(fleet, **span)
        if as_json:
            output.print_json(found)
            return
        if not found["fleets"]:
            echo_prose(output.nothing_found("fleets", store, fleet=fleet))
            return
    entries = found["fleets"]
    if len(entries) > 1:
        entries = [*entries, found["all"] | {"fleet": "all fleets"}]
    for place, entry in enumerate(entries):
        if place:
            echo()
        _show(entry, local=local)
    echo(Styled(f"\n{output.time_zone(local=local)} Targets are per operator: ISA-18.2-2016, EEMUA 191.", "dim"))


def _show(entry: Mapping[str, Any], *, local: bool) -> None:
    name = entry["fleet"] or "whole partitions"
    size = f"{wording.count(entry['assets'], 'asset')}, " if entry["assets"] else ""
    span = output.period(entry, local=local)
    echo(Styled(name, "bold"), Styled(f"  {size}{span}", "dim"))
    told = [f"{wording.count(entry['alarms'], 'alarm')}"]
    told += [f"{n:,} {kind}" for kind, n in entry["by_class"].items()] if len(entry["by_class"]) > 1 else []
    if entry["suppressed"]:
        told.append(f"{entry['suppressed']:,} suppressed")
    if entry["shelved"]:
        told.append(f"{entry['shelved']:,} shelved")
    facts = {"alarms": ", ".join(told), "per asset": _per_asset(entry), "judged": _precision(entry["precision"])}
    facts["ever judged"] = _precision_at_any_time(entry["precision"]["any_time"])
    echo_facts(facts | {"acknowledged": _acknowledged(entry["acknowledged"])})
    if not entry["alarms"] and not entry["standing"]:
        return
    echo()
    _target_table(entry["targets"]).print()
    if entry["top"]:
        echo()
        _top_table(entry["top"][:TOP_SHOWN]).print()
    if len(entry["weeks"]) > 1:
        echo()
        _week_table(entry["weeks"]).print()
    for label, items in (("chattering", entry["chattering_subjects"]), ("stale", entry["stale_alerts"])):
        if items:
            names = ", ".join(str(item) for item in items[:TOP_SHOWN]) + (", …" if len(items) > TOP_SHOWN else "")
            echo_facts({label: f"alerts {names}" if label == "stale" else names})


def _target_table(targets: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("", "value:right", "target:right", "figure", "from:rest")
    for target in targets:
        sign, style = MET[target["is_met"]]
        figure, value = target["figure"], target["value"]
        shown = _share(value) if figure in SHARES else wording.number(value, 2)
        table.add(Styled(sign, style), shown, target["target"], target["meaning"], Styled(target["source"], "dim"))
    return table


def _top_table(top: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("most frequent:rest", "alarms:right", "share:right", "")
    for each in top:
        bar = Styled("█" * max(1, round(each["share"] * 20)), "yellow")
        table.add(each["subject"], f"{each['alarms']:,}", wording.percent(each["share"]), bar)
    return table


def _week_table(weeks: Sequence[Mapping[str, Any]]) -> Table:
    numbers = [f"{name}:right" for name in ("alarms", "per hour", "peak", "floods", "stale", "standing")]
    table = Table("week", *numbers)
    for week in weeks:
        table.add(
            week["week"],
            f"{week['alarms']:,}",
            wording.number(week["alarms_per_hour"], 2),
            f"{week['peak']:,}",
            _share(week["flood_share"]),
            f"{week['stale']:,}",
            f"{week['standing']:,}",
        )
    return table


def _share(share: float | None) -> str:
    """Format a share with a target in percent: small ones keep a digit."""
    if share is None or share == 0 or share >= 0.1:
        return wording.percent(share)
    return f"{share * 100:.1g}\xa0%"


def _per_asset(entry: Mapping[str, Any]) -> str | None:
    rate = entry["alarms_per_asset_week"]
    return None if rate is None else f"{wording.number(rate)} a week"


def _precision(precision: Mapping[str, Any]) -> str:
    if not precision["judged"]:
        return "none yet; label alerts as fault or normal"
    return (
        f"of the {precision['judged']:,} that were judged, {precision['real']:,} were real: at least "
        f"{wording.percent(precision['at_least'])} (95\xa0%)"
    )


def _precision_at_any_time(precision: Mapping[str, Any]) -> str | None:
    if not precision["judged"]:
        return None
    return (
        f"of {precision['judged']:,}, {precision['real']:,} were real: at least "
        f"{wording.percent(precision['at_least'])} (95\xa0%, at any time); unjudged alerts do not count"
    )


def _acknowledged(answers: Mapping[str, Any]) -> str | None:
    if answers["share"] is None:
        return None
    took = "" if answers["median_s"] is None else f", in {wording.duration(answers['median_s'])} by the median"
    return f"{wording.percent(answers['share'])}{took}"
