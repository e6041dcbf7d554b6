"""A model's card for people: what it is, what it learnt from, how far it can be trusted, what it promised and kept.

In: the card as it stands in `card.json`, and the standing of its promise. Out: lines. Law: what a card does not say is
left out, for cards grow; nothing here imports what trained it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from monitor.budget import Status
from monitor.cli import output, terminal
from monitor.cli.terminal import Styled, Table, echo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.budget import BudgetReport, Burn

Card = dict[str, Any]

STATUS = {"certified": ("✓", "bold green"), "provisional": ("◌", "yellow"), "violated": ("✗", "bold red")}
LEFT_OUT = {
    "too_many_gaps": "with too many gaps",
    "labelled": "with an alert labelled fault or ignore",
    "alerted": "with an alert",
    "reaches_into_held_out": "that reach into held-out time",
    "thinned": "thinned out",
    "suspected_fault_train": "suspected of a fault",
    "suspected_fault_held_out": "suspected of a fault in held-out time",
}
THRESHOLD = {"raw", "confirm", "among", "recover", "alarms_per_week", "weeks", "method", "state", "reason"}
"""What a threshold says that is a promise."""
NOT_REBUILT = 0.1
"""Explained variance below which a sensor is called one that the model cannot rebuild: a fault there is hardly seen."""
MOST_SENSORS, MOST_SPELLS, MOST_ASSETS = 20, 5, 5
WIDTH = 100
"""Prose is not read in longer lines."""


def show(row: Mapping[str, Any], card: Card, standing: BudgetReport | None, *, local: bool) -> None:
    """Print all of it."""
    sign, look = output.MODEL_STATES.get(row["state"], ("·", ""))
    echo(Styled(row["version"], "bold"), Styled(f" of {row['fleet']}  ", "dim"), Styled(f"{sign} {row['state']}", look))
    if not card.get("training"):
        _prose(f"There is no card.json in {row['path']}: only its place in the database is known.", "yellow")
    _what(row, card, local=local)
    if receipt := card.get("training"):
        _receipt(receipt, local=local)
        _figures(card)
        _course(receipt)
    if choice := card.get("choice"):
        _choice(choice)
    threshold = card.get("threshold")
    if isinstance(threshold, dict) and threshold.keys() >= THRESHOLD:
        _threshold(threshold)
        _burn(row, threshold, standing, local=local)
    echo(Styled(f"\n{output.zone(local=local)}", "dim"))


def status(name: str) -> Styled:
    """Show how a promise stands, legible without colour too."""
    sign, look = STATUS[name]
    return Styled(f"{sign} {name}", look)


# ---------------------------------------------------------------- what it is, what it learnt from


def _what(row: Mapping[str, Any], card: Card, *, local: bool) -> None:
    took_s = card.get("training", {}).get("took_s", 0.0)
    trained = output.moment(row["trained_at"], local=local)
    if took_s >= 1:
        trained += f", in {output.duration(timedelta(seconds=took_s))}, seed {card['seed']}"
    since = row["decides_after"]
    facts = {
        "what": _kind(card) if "architecture" in card else None,
        "notices": _time_scales(card) if "half_life" in (card.get("members") or [{}])[-1] else None,
        "trained": trained,
        "decides": "all windows" if since is None and row["state"] != "candidate" else None,
    }
    if since is not None:
        facts["decides"] = f"windows that end after {output.moment(since, local=local)}"
    _facts(facts)


def _kind(card: Card) -> str:
    window = timedelta(seconds=card["length"] * card["interval_s"])
    members = card.get("members") or [{"name": card["architecture"], "hyper": card.get("hyper", {})}]
    *beside, own = members
    hyper = ", ".join(f"{name} {value}" for name, value in own["hyper"].items())
    n = len(card["sensors"])
    return (
        f"{card['architecture']}{_members(own, beside)}, objective {(card.get('choice') or card)['objective']};"
        f" {card['length']} cells ({output.duration(window)})"
        f" of {n} sensor{'s' * (n != 1)}{f'; {hyper}' if hyper else ''}"
    )


def _members(own: Card, beside: list[Card]) -> str:
    return f" ({own['name']} beside {', '.join(one['name'] for one in beside)})" if beside else ""


def _time_scales(card: Card) -> str:
    """Say how late: a spike at once, a drift when it has filled about a half-life."""
    half_life = card["members"][-1]["half_life"] * card["length"] * card["interval_s"]
    return f"a spike in the reading that has it, a drift after about {output.duration(timedelta(seconds=half_life))}"


def _receipt(receipt: Card, *, local: bool) -> None:
    n_assets = receipt["n_assets"]
    _title("Learnt from", f"{n_assets} asset{'s' * (n_assets != 1)}, {_between(receipt, local=local)}")
    n_overlapping = receipt.get("n_overlapping", 0)
    left = {LEFT_OUT.get(name, name.replace("_", " ")): n for name, n in receipt["left_out"].items() if n}
    _facts(
        {
            "used": f"{receipt['n_train']:,} windows to learn from, {receipt['n_held_out']:,} held out",
            "left out": "; ".join(f"{n:,} {why}" for why, n in left.items()) or "none",
            "overlapping": f"{n_overlapping:,} windows learnt from reach into held-out time" if n_overlapping else None,
        }
    )
    spells = receipt["suspected_faults"]
    for spell in spells[:MOST_SPELLS]:
        windows = f"{spell['n_windows']:,} window{'s' * (spell['n_windows'] != 1)}"
        _facts({"suspected": f"asset {spell['asset']}, {_between(spell, local=local)}, {windows}"})
    if len(spells) > MOST_SPELLS:
        _facts({"": f"… and {len(spells) - MOST_SPELLS} more: --json"})


def _between(span: Mapping[str, Any], *, local: bool) -> str:
    first, last = output.moment(span["from"], local=local), output.moment(span["to"], local=local)
    return first if first == last else f"{first} – {last}"


# ---------------------------------------------------------------- how well it rebuilds, how it learnt


def _figures(card: Card) -> None:
    own, beside = card["training"], card.get("baseline", {})
    explained, pca = own["explained_variance"], beside.get("explained_variance", {})
    is_pca = card["architecture"] == "pca"
    _title("How much it rebuilds", "of each sensor's variance in held-out windows" + ("" if is_pca else "; PCA beside"))
    names = sorted((name for name in explained if name != "all"), key=lambda name: _known(explained[name], -1.0))
    table = Table("  sensor", card["architecture"] + ":right", *([] if is_pca else ["pca:right"]), "", ":rest")
    for name in ["all", *names[:MOST_SENSORS]]:
        value = explained[name]
        cells = [_share(value), *([] if is_pca else [_share(pca.get(name))])]
        bar = Styled("█" * round(20 * max(0.0, value or 0.0)), "green" if _known(value, 0.0) >= NOT_REBUILT else "red")
        table.add(f"  {name}", *cells, bar, _remark(name, value))
    terminal.show(table)
    if len(names) > MOST_SENSORS:
        echo(Styled(f"  … and {len(names) - MOST_SENSORS} sensors that it rebuilds better: --json", "dim"))
    error = {"error": f"{output.number(own['held_out_error']['mean'])} on held-out windows"}
    if not is_pca and "held_out_error" in beside:
        error["error"] += f", the PCA's {output.number(beside['held_out_error']['mean'])} (mean square, in spreads)"
    _facts(error)


def _remark(name: str, value: float | None) -> Styled:
    if value is None:
        return Styled("stood still", "dim")
    if name != "all" and value < NOT_REBUILT:
        return Styled("cannot rebuild it: only gross faults show", "red")
    return Styled("")


def _known(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _share(value: float | None) -> str:
    return "–" if value is None else output.percent(value)


def _course(receipt: Card) -> None:
    _title("How it learnt", "")
    steps = f", after {receipt['n_steps']:,} steps (best {receipt['best_step']:,})" if "n_steps" in receipt else ""
    curve = [point[2] for point in receipt.get("diagnosis", {}).get("curve", [])]
    restarts = receipt.get("restarts", [])
    _facts(
        {
            "ended": f"{receipt['stopped']}{steps}",
            "held out": f"{_sparks(curve)}  {output.number(curve[0])} → {output.number(min(curve))}" if curve else None,
            "restarts": "; ".join(restarts) or None,
        }
    )
    if "troubles" in receipt:
        troubles = receipt["troubles"]
        echo(Styled("  troubles     ", "dim"), "" if troubles else "none found")
        for trouble in troubles:
            _prose(f"– {trouble}", "yellow", indent="    ")


def _sparks(values: list[float]) -> str:
    low, high = min(values), max(values)
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (value - low) / (high - low))] if high > low else "▁" for value in values)


def _choice(choice: Card) -> None:
    false = output.percent(choice["false_share"])
    what = f"found of {choice['n_faults']} faults put into held-out windows, with {false} false; no labels"
    _title("How it was chosen", what)
    table = Table("  voices", "found:right", "least seen:rest")
    for row in choice["rows"]:
        kind, share = min(row["by_kind"].items(), key=lambda pair: pair[1])
        chosen = len(row["members"]) > 1 and row["members"][-1] == choice["chosen"]
        name = f"{'★' if chosen else ' '} {' + '.join(row['members'])}"
        least = f"{kind} {output.percent(share)}"
        table.add(Styled(name, "bold" if chosen else ""), output.percent(row["found"]), least)
    terminal.show(table)
    again = f"{choice['renewed']} was solved again on the held-out windows too, after all was measured."
    _prose(again, "dim", indent="  ")
    for name, why in choice["failed"].items():
        _prose(f"– {name} could not be trained: {why}", "yellow", indent="    ")


# ---------------------------------------------------------------- what it promised, and what of it was used


def _threshold(threshold: Card) -> None:
    _title("Threshold", "")
    rule = f"{threshold['confirm']} of {threshold['among']} windows, {threshold['recover']} to recover"
    _facts(
        {
            "raw score": f"{output.number(threshold['raw'])}, called 1.0",
            "budget": f"{_rate(threshold['alarms_per_week'])} per asset and week; an alarm: {rule}",
            "method": threshold["method"],
        }
    )
    echo(Styled("  when made    ", "dim"), status(threshold["state"]))
    _prose(threshold["reason"], indent="    ")
    if threshold.get("worst_asset") is not None:
        _facts({"worst": f"asset {threshold['worst_asset']}, {_rate(threshold['worst_per_week'])} a week"})


def _burn(row: Mapping[str, Any], threshold: Card, standing: BudgetReport | None, *, local: bool) -> None:
    if standing is None:
        _title("Budget", "it has decided nothing yet")
        return
    span = {"from": _moment(standing.from_us), "to": _moment(standing.to_us)}
    _title("Budget", _between(span, local=local))
    own = standing.own
    rates = f"{_rate(own.per_week)} per asset and week"
    bounds = f"{_rate(own.at_least_per_week)} to {_rate(own.at_most_per_week)} at 95 % each"
    _facts(
        {
            "watched": f"{_rate(own.weeks)} asset-weeks",
            "used": f"{_used(own)}; {rates} ({bounds})",
            "fleet": f"all versions, last four weeks at most: {_used(standing.recent)}",
        }
    )
    echo(Styled("  now          ", "dim"), status(standing.status))
    _prose(meaning(standing, threshold), indent="    ")
    if standing.status is Status.VIOLATED:
        _prose(f"monitor alerts list --fleet {row['fleet']}, monitor retrain {row['fleet']}", "dim", indent="    ")
    if standing.worst:
        table = Table("  asset", "alarms:right", "allowed:right", "burnt:right", "status:rest")
        for name, burn in standing.worst[:MOST_ASSETS]:
            burnt = f"{burn.ratio:.1f} ×" if burn.allowed else "–"
            table.add(f"  {name}", str(burn.n_alarms), _rate(burn.allowed), burnt, status(burn.status))
        echo()
        terminal.show(table)


def meaning(standing: BudgetReport, threshold: Mapping[str, Any]) -> str:
    """Say in a sentence why the promise stands as it does, and what to do."""
    budget = f"the budget of {_rate(threshold['alarms_per_week'])}"
    if standing.status is Status.VIOLATED:
        who = f" on {', '.join(standing.violating_assets[:MOST_ASSETS])}" if standing.violating_assets else ""
        return (
            f"Alarms{who} come faster than {budget} allows, and not by chance. Where they were faults, label them; "
            "where machines have changed for good, retrain; an asset unlike the others belongs in a fleet of its own."
        )
    held_out = 0.0 if threshold.get("n_overlapping") else threshold["weeks"]
    weeks = f"{_rate(held_out)} held-out and {_rate(standing.own.weeks)} watched asset-weeks"
    if standing.status is Status.CERTIFIED:
        return f"{weeks} show that {budget} is kept (95 %)."
    more = f"{_rate(standing.own.weeks_missing)} more without an alarm would"
    return f"{weeks} do not show yet that {budget} is kept: {more}."


def _used(burn: Burn) -> str:
    ratio = f" ({output.percent(burn.ratio)})" if burn.allowed else ""
    return f"{burn.n_alarms} alarm{'s' * (burn.n_alarms != 1)} of {_rate(burn.allowed)} allowed{ratio}"


def _rate(value: float) -> str:
    return output.number(value, 2)


def _moment(us: int) -> str:
    from monitor.clock import from_us

    return from_us(us).isoformat()


# ---------------------------------------------------------------- lines


def _title(name: str, what: str) -> None:
    echo(Styled(f"\n{name}", "bold"), Styled(f"  {what}", "dim") if what else "")


def _facts(facts: Mapping[str, str | None]) -> None:
    width = min(WIDTH, terminal.columns())
    for name, value in facts.items():
        if value is not None:
            first, *rest = terminal.wrapped(value, width - 15).splitlines() or [""]
            echo(Styled(f"  {name:<13}", "dim"), first)
            for line in rest:
                echo(" " * 15, line)


def _prose(text: str, look: str = "", indent: str = "  ") -> None:
    for line in terminal.wrapped(text, min(WIDTH, terminal.columns()), indent).splitlines():
        echo(Styled(line, look))
