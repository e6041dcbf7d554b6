"""The card of a model version in words: training data, reconstruction, members, threshold and budget.

Input: a row of `Reader.models` with the card as in `card.json`, and the `BudgetReport`. Output: lines.
Invariants: a part that the card lacks is left out, since older cards have fewer parts. No training code is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor import wording
from monitor.budget import BASIS_WORDS, Status
from monitor.cli import output, verdict
from monitor.cli.receipt import print_receipt
from monitor.cli.terminal import Styled, Table, echo, echo_facts, echo_prose
from monitor.training.words import LEFT_OUT, NOT_RECONSTRUCTED
from monitor.version_words import judgement, state_sentences

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.budget import BudgetReport, Burn

    Card = dict[str, Any]

MAX_NAMED = 4
"""Members of an ensemble whose names stand in its row."""
THRESHOLD = {"raw", "confirm", "among", "recover", "alarms_per_week", "weeks", "method", "state", "reason"}
"""Keys of a threshold that was calibrated to a budget."""
MAX_SENSORS, MAX_SPELLS, MAX_ASSETS = 20, 5, 5


def print_card(
    row: Mapping[str, Any], report: BudgetReport | None, *, local: bool, all_intervals: bool = False
) -> None:
    """Print everything known about a version. `all_intervals`: also each interval of the receipt."""
    card = row["card"]
    echo(Styled(row["version"], "bold"), Styled(f" of {row['fleet']}  ", "dim"), output.state(row["state"]))
    if not card.get("training"):
        echo_prose(f"There is no card.json in {row['path']}: only the database's facts are known.", "yellow", "  ")
    _version(row, local=local)
    if found := state_sentences(card):
        _title("Operating states")
        for sentence in found:
            echo_prose(sentence, indent="  ")
    if row["gate_verdict"]:
        verdict.print_verdict(row["gate_verdict"], local=local)
    if receipt := card.get("training"):
        _training_data(receipt, local=local)
        if used := receipt.get("receipt"):
            print_receipt(used, local=local, all_intervals=all_intervals)
        _reconstruction(card)
        _training(receipt)
    if choice := card.get("choice"):
        _choice(choice, card.get("members") or [])
    threshold = card.get("threshold")
    if isinstance(threshold, dict) and threshold.keys() >= THRESHOLD:
        _threshold(threshold)
        _budget(row, report, local=local)
    verdict.print_history(row["events"], local=local)
    echo(Styled(f"\n{output.time_zone(local=local)}", "dim"))


def _title(name: str, remark: str = "") -> None:
    echo(Styled(f"\n{name}", "bold"), Styled(f"  {remark}", "dim") if remark else "")


# ---------------------------------------------------------------- the model and its training


def _version(row: Mapping[str, Any], *, local: bool) -> None:
    card = row["card"]
    took_s = card.get("training", {}).get("took_s", 0.0)
    took = f", in {wording.duration(took_s)}, seed {card['seed']}" if took_s >= 1 else ""
    decides = "all windows" if row["state"] in ("champion", "retired", "rolled_back") else None
    if row["decides_after"] is not None:
        decides = f"windows that end after {output.timestamp(row['decides_after'], local=local)}"
    others = [alias for alias in row["aliases"] if alias != row["state"]]
    rolled_back = output.timestamp(row["rolled_back_at"], local=local) if row["rolled_back_at"] else None
    pruned = output.timestamp(row["pruned_at"], local=local) if row["pruned_at"] else None
    echo_facts(
        {
            "aliases": ", ".join(others) or None,
            "why": row["why"] if row["why"] != judgement(row["gate_verdict"]) else None,
            "rolled back": f"{rolled_back}. Its alerts are marked" if rolled_back else None,
            "pruned": f"{pruned}: its checkpoint is removed, its scores are kept" if pruned else None,
            "model": _architecture(card) if "architecture" in card else None,
            "window": card.get("window_reason"),
            "detects": _detection_delay(card) if "half_life" in (card.get("members") or [{}])[-1] else None,
            "trained": output.timestamp(row["trained_at"], local=local) + took,
            "decides": decides,
            "derived": _derivation(card.get("derived")),
            "labels": label_words(card.get("labels")),
            "asset models": _bundle(card.get("bundle")),
            "asset scales": _asset_scales(card),
            "sensors set": "; ".join(_knob_words(card.get("knobs") or {})) or None,
        }
    )


def _derivation(derived: Card | None) -> str | None:
    """Describe the origin of a version with another one's weights."""
    return f"from {derived['from']}, without a training: {derived['why']}" if derived else None


def label_words(labels: Card | None) -> str | None:
    """Describe the threshold that operators' labels have moved."""
    if not labels:
        return None
    calibrated = wording.number(labels["calibrated"]["raw"])
    return f"they moved the threshold to {labels['factor']:.3g} of the calibrated one ({calibrated})"


def _knob_words(knobs: Mapping[str, Any]) -> list[str]:
    from monitor.models.terms import knobs_from_json, words

    return [f"{name} {words(knob)}" for name, knob in knobs_from_json(knobs).items()]


def _bundle(bundle: Card | None) -> str | None:
    """Describe the assets with a model of their own."""
    if bundle is None:
        return None
    found = [f"{wording.count(len(bundle['own']), 'asset')} with a model of their own"]
    for why, each in bundle["fleet"].items():
        names = ", ".join(each["assets"]) + (", …" if each["n"] > len(each["assets"]) else "")
        found.append(f"{each['n']} with the fleet's ({names}): {why}")
    return "; ".join(found)


def _asset_scales(card: Card) -> str | None:
    """Describe the assets with scales of their own."""
    found = (card.get("training") or {}).get("asset_scales")
    if not found:
        return None
    if not (own := card.get("asset_scales")):
        return f"the fleet's for all: {found['why']}"
    factor = own["new_asset_factor"]
    new = "; a new asset has the fleet's" + (f" and {factor:.3g} times the threshold" if factor > 1 else "")
    return f"of {wording.count(len(own['assets']), 'asset')}: {found['why']}{new}"


def _architecture(card: Card) -> str:
    members = card.get("members") or [{"name": card["architecture"], "hyper": card.get("hyper", {})}]
    names = f" ({' + '.join(member['name'] for member in members)})" if len(members) > 1 else ""
    if len(members) > MAX_NAMED:
        names = f" ({len(members)} members)"
    hyper = "".join(f", {name} {value}" for name, value in members[-1]["hyper"].items())
    return (
        f"{card['architecture']}{names}, objective {(card.get('choice') or card)['objective']}{hyper}; windows of "
        f"{card['length']} cells ({wording.duration(card['length'] * card['interval_s'])}), "
        f"{wording.count(len(card['sensors']), 'sensor')}"
    )


def _detection_delay(card: Card) -> str:
    """Describe the delay: a spike is seen at once, a drift when it has filled about one half-life."""
    half_life_s = card["members"][-1]["half_life"] * card["length"] * card["interval_s"]
    return f"a spike at its first reading, a drift after about {wording.duration(half_life_s)}"


def _training_data(receipt: Card, *, local: bool) -> None:
    _title("Training data", f"{wording.count(receipt['n_assets'], 'asset')}, {output.period(receipt, local=local)}")
    n_overlapping = receipt.get("n_overlapping", 0)
    left_out = {LEFT_OUT.get(name, name.replace("_", " ")): n for name, n in receipt["left_out"].items() if n}
    words = "; ".join(f"{n:,} {reason}" for reason, n in left_out.items())
    echo_facts(
        {
            "used": f"{receipt['n_train']:,} windows for training, {receipt['n_held_out']:,} held out",
            "left out": None if "receipt" in receipt else words or "none",
            "overlapping": f"{n_overlapping:,} training windows reach into held-out time" if n_overlapping else None,
        }
    )
    if notes := receipt.get("inputs"):
        echo_facts({"sensors": "not all are taken as they are"})
        for note in notes:
            echo_prose(f"– {note}", "yellow", indent="    ")
    spells = receipt["suspected_faults"]
    for spell in spells[:MAX_SPELLS]:
        times, windows = output.period(spell, local=local), wording.count(spell["n_windows"], "window")
        echo_facts({"suspected": f"a fault of asset {spell['asset']}, {times}, {windows}"})
    if len(spells) > MAX_SPELLS:
        echo_facts({"": f"… and {len(spells) - MAX_SPELLS} more: --json"})


def _reconstruction(card: Card) -> None:
    own, baseline = card["training"], card.get("baseline", {})
    explained, pca = own["explained_variance"], baseline.get("explained_variance", {})
    network = (card.get("members") or [{"name": card["architecture"]}])[-1]["name"]
    is_pca = network == "pca"
    remark = ", beside a PCA" if not is_pca else ", by the PCA" if card["architecture"] != "pca" else ""
    _title("Reconstruction", f"of each sensor's variance in held-out windows{remark}")
    names = sorted((name for name in explained if name != "all"), key=lambda name: _or(explained[name], -1.0))
    table = Table("  sensor", f"{network}:right", *([] if is_pca else ["pca:right"]), "", ":rest")
    for name in ["all", *names[:MAX_SENSORS]]:
        value = explained[name]
        shares = [wording.percent(value), *([] if is_pca else [wording.percent(pca.get(name))])]
        style = "green" if _or(value, 0.0) >= NOT_RECONSTRUCTED else "red"
        bar = Styled("█" * round(20 * max(0.0, value or 0.0)), style)
        table.add(f"  {name}", *shares, bar, Styled("") if name == "all" else _remark(value))
    table.print()
    if len(names) > MAX_SENSORS:
        echo(Styled(f"  … and {len(names) - MAX_SENSORS} sensors that it reconstructs better: --json", "dim"))
    error = f"{wording.number(own['held_out_error']['mean'])} on held-out windows"
    if not is_pca and "held_out_error" in baseline:
        error += f", {wording.number(baseline['held_out_error']['mean'])} by the PCA (mean square, in scaled units)"
    echo_facts({"error": error})


def _remark(explained: float | None) -> Styled:
    if explained is None:
        return Styled("constant", "dim")
    if explained < NOT_RECONSTRUCTED:
        return Styled("not reconstructed: only gross faults are detected", "red")
    return Styled("")


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _training(receipt: Card) -> None:
    _title("Training")
    steps = f", after {receipt['n_steps']:,} steps (best {receipt['best_step']:,})" if "n_steps" in receipt else ""
    curve = [point[2] for point in receipt.get("diagnosis", {}).get("curve", [])]
    errors = f"{_sparkline(curve)}  {wording.number(curve[0])} → {wording.number(min(curve))}" if curve else None
    echo_facts(
        {
            "stopped": f"{receipt['stopped']}{steps}",
            "held out": errors,
            "restarts": "; ".join(receipt.get("restarts", [])) or None,
        }
    )
    if "troubles" in receipt:
        echo_facts({"troubles": "" if receipt["troubles"] else "none found"})
        for trouble in receipt["troubles"]:
            echo_prose(f"– {trouble}", "yellow", indent="    ")


def _sparkline(values: list[float]) -> str:
    low, high = min(values), max(values)
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (value - low) / (high - low))] if high > low else "▁" for value in values)


def _choice(choice: Card, members: Sequence[Card]) -> None:
    _title("Members of the ensemble", "without labels")
    false_share = wording.percent(choice["false_share"])
    echo_prose(
        f"Share of {choice['n_faults']} faults, injected into held-out windows, that each detects with {false_share} "
        "false alarms, alone and together:",
        "dim",
        indent="  ",
    )
    weights = {member["name"]: member.get("weight", 1.0) for member in members}
    table = Table("  member", "detected:right", "worst kind:rest")
    for row in choice["rows"]:
        kind, share = min(row["by_kind"].items(), key=lambda pair: pair[1])
        is_chosen = len(row["members"]) > 1 and row["members"][-1] == choice["chosen"]
        name = " + ".join(row["members"]) if len(row["members"]) <= MAX_NAMED else f"all {len(row['members'])} together"
        if len(row["members"]) == 1 and (weight := weights.get(name, 1.0)) != 1.0:
            name += f" (weight {wording.number(weight, 2)})"
        worst = f"{kind} {wording.percent(share)}"
        table.add(
            Styled(f"{'★' if is_chosen else ' '} {name}", "bold" if is_chosen else ""),
            wording.percent(row["found"]),
            worst,
        )
    table.print()
    if any(weight != 1.0 for weight in weights.values()):
        echo_prose(
            "A member with less weight drifted in healthy time, or knows no past windows of a repeating signal.",
            "dim", "  ",
        )  # fmt: skip
    echo_prose(f"After that, {choice['renewed']} was fitted again with the held-out windows included.", "dim", "  ")
    for name, reason in choice["failed"].items():
        echo_prose(f"– {name} could not be trained: {reason}", "yellow", indent="    ")


# ---------------------------------------------------------------- threshold and budget


def _threshold(threshold: Card) -> None:
    _title("Threshold")
    rule = f"{threshold['confirm']} of {threshold['among']} windows, {threshold['recover']} to recover"
    echo_facts(
        {
            "raw score": f"{wording.number(threshold['raw'])}, shown as 1.0",
            "budget": f"{_rate(threshold['alarms_per_week'])} per asset and week; an alarm: {rule}",
            "method": threshold["method"],
        }
    )
    _status("when trained", threshold["state"], threshold["reason"])
    if threshold.get("worst_asset") is not None:
        echo_facts({"worst": f"asset {threshold['worst_asset']}, {_rate(threshold['worst_per_week'])} a week"})


def _budget(row: Mapping[str, Any], report: BudgetReport | None, *, local: bool) -> None:
    if report is None:
        _title("Budget", "this version has decided nothing yet")
        return
    _title("Budget", output.period({"from": report.from_us, "to": report.to_us}, local=local))
    own = report.own
    bounds = f"{_rate(own.at_least_per_week)} to {_rate(own.at_most_per_week)} at 95 % each"
    echo_facts(
        {
            "watched": f"{_rate(own.weeks)} asset-weeks",
            "used": f"{_used(own)}; {_rate(own.per_week)} per asset and week ({bounds})",
            "fleet": f"all versions, last four weeks at most: {_used(report.recent)}",
        }
    )
    _status("now", report.status, _explain(report, row["card"]["threshold"]))
    if report.status is Status.VIOLATED:
        echo_prose(f"monitor alerts list --fleet {row['fleet']}, monitor retrain {row['fleet']}", "dim", indent="    ")
    if report.worst:
        table = Table("  asset", "alarms:right", "allowed:right", "burn:right", "status:rest")
        for name, burn in report.worst[:MAX_ASSETS]:
            ratio = f"{burn.ratio:.1f} ×" if burn.allowed else "–"
            table.add(f"  {name}", str(burn.n_alarms), _rate(burn.allowed), ratio, output.state(burn.status))
        echo()
        table.print()


def _status(label: str, status: str, explanation: str) -> None:
    echo(Styled(f"  {label:<13}", "dim"), output.state(status))
    echo_prose(explanation, indent="    ")


def _explain(report: BudgetReport, threshold: Mapping[str, Any]) -> str:
    """Explain the status of the budget and the action to take."""
    budget = f"the budget of {_rate(threshold['alarms_per_week'])}"
    if report.status is Status.VIOLATED:
        assets = f" on {', '.join(report.violating_assets[:MAX_ASSETS])}" if report.violating_assets else ""
        return (
            f"Alarms{assets} come faster than {budget} allows, and not by chance. If they were faults, label them. If "
            "the machines have changed for good, retrain. An asset unlike the others belongs in a fleet of its own."
        )
    held_out = 0.0 if threshold.get("n_overlapping") else threshold["weeks"]
    weeks = f"{_rate(held_out)} held-out and {_rate(report.own.weeks)} watched asset-weeks"
    if report.own.former_weeks:
        weeks = f"{_rate(report.own.weeks + report.own.former_weeks)} asset-weeks, with those of former versions,"
    if report.status is Status.CERTIFIED:
        return f"{weeks} show that {budget} is met (95 %). {BASIS_WORDS[report.own.basis]}"
    missing = _rate(report.own.weeks_missing)
    return f"{weeks} do not show yet that {budget} is met: {missing} more without an alarm would."


def _used(burn: Burn) -> str:
    ratio = f" ({wording.percent(burn.ratio)})" if burn.allowed else ""
    return f"{wording.count(burn.n_alarms, 'alarm')} of {_rate(burn.allowed)} allowed{ratio}"


def _rate(value: float) -> str:
    return wording.number(value, 2)
