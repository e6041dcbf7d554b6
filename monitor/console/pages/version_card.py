"""The card of one version in words: facts, verdict, receipt, certificate, burn and reconstruction.

Input: the database, and the card beside the weights where this machine has them. Output: a part of a fleet's page.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from monitor import drawing, version_words
from monitor.budget import BASIS_WORDS, BudgetReport, Status
from monitor.console.pages.versions import DECIDED_BEFORE, fleet_of
from monitor.console.pages.view import Ask, duration, number, svg
from monitor.errors import NotFound
from monitor.store.burn import budget_report
from monitor.training.words import LEFT_OUT, NOT_RECONSTRUCTED, USES, why_in_total
from monitor.wording import count, percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.store.reader import Reader

    Card = dict[str, Any]

MAX_ASSETS, MAX_SENSORS, MAX_NOTES = 6, 24, 6


def card(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the card of the chosen version, or of the champion, in words."""
    name = fleet_of(reader, ask)
    chosen = ask.query.get("version")
    rows = reader.models(fleet=name)
    wanted = ("version", chosen) if chosen else ("state", "champion")
    row = next((each for each in rows if each[wanted[0]] == wanted[1]), None)
    if row is None:
        if chosen:
            raise NotFound(f"version {chosen} of fleet {name}")
        return {"fleet": name, "row": None}
    found = reader.whole_card(row)
    report = ask.once(("burn", row["version"]), 60, partial(report_of, reader, row | {"card": found}))
    threshold = found.get("threshold") if isinstance(found.get("threshold"), dict) else None
    return {
        "fleet": name,
        "row": row,
        "may_promote": row["state"] in DECIDED_BEFORE and row["pruned_at"] is None,
        "facts": _facts(found),
        "states": version_words.state_sentences(found),
        "checks": version_words.checks(row["gate_verdict"]),
        "lost": version_words.lost_faults(row["gate_verdict"]),
        "projected": version_words.projected_alerts(row["gate_verdict"]),
        "receipt": _receipt(found.get("training") or {}),
        "used": _used((found.get("training") or {}).get("receipt")),
        "notes": [str(note) for note in (found.get("training") or {}).get("inputs", [])][:MAX_NOTES],
        "troubles": [str(note) for note in (found.get("training") or {}).get("troubles", [])][:MAX_NOTES],
        "sensors": _reconstruction(found),
        "threshold": threshold,
        "rule": _rule(threshold),
        "report": report,
        "explained": _explain(report, threshold),
        "worst": [] if report is None else [_burn_row(asset, burn) for asset, burn in report.worst[:MAX_ASSETS]],
    }


def report_of(reader: Reader, row: Mapping[str, Any]) -> BudgetReport | None:
    """Return the budget of a version with its card."""
    return budget_report(reader.fetch, row["fleet"], row["version"], row["card"].get("threshold"))


def _facts(found: Card) -> list[tuple[str, str]]:
    facts = []
    if "architecture" in found:
        members = [member["name"] for member in found.get("members") or []]
        names = f" ({' + '.join(members)})" if len(members) > 1 else ""
        objective = (found.get("choice") or found).get("objective", "plain")
        span = duration(found.get("length", 0) * found.get("interval_s", 0))
        facts.append(("model", f"{found['architecture']}{names}, objective {objective}"))
        facts.append(("windows", f"{found.get('length', '–')} cells, {span}"))
        facts.append(("sensors", ", ".join(found.get("sensors", [])[:12])))
    if derived := found.get("derived"):
        facts.append(("derived", f"from {derived['from']}, without a training: {derived['why']}"))
    if labels := found.get("labels"):
        facts.append(("labels", f"they moved the threshold to {labels['factor']:.3g} of the calibrated one"))
    training = found.get("training") or {}
    if training.get("took_s"):
        took = f"{duration(training['took_s'])}, seed {found.get('seed', '–')}; {training.get('stopped', '')}"
        facts.append(("trained in", took))
    if choice := found.get("choice"):
        best = max((each["found"] for each in choice.get("rows", [])), default=None)
        n_faults = choice.get("n_faults", 0)
        facts.append(("detects", f"{percent(best)} of {n_faults:,} faults injected into held-out windows"))
    return facts


def _receipt(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the training data in words."""
    if "n_train" not in training:
        return []
    left_out = [
        f"{n:,} {LEFT_OUT.get(name, name.replace('_', ' '))}" for name, n in training.get("left_out", {}).items() if n
    ]
    facts = [
        ("used", f"{training['n_train']:,} windows for training, {training.get('n_held_out', 0):,} held out"),
        ("assets", f"{training.get('n_assets', 0):,}"),
        *([] if "receipt" in training else [("left out", "; ".join(left_out) or "none")]),
    ]
    return facts + [
        ("suspected fault", f"asset {spell['asset']}, {count(spell['n_windows'], 'window')}")
        for spell in training.get("suspected_faults", [])[:3]
    ]


def _used(receipt: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the receipt of each time used or left out. None = an older card has none."""
    if receipt is None:
        return None
    return {
        "digests": f"seed {receipt['seed']}, data {receipt['data_digest'][:12]}…, configuration "
        f"{receipt['config_digest'][:12]}…",
        "totals": [row | {"why": why_in_total(row["reason"]), "word": USES[row["use"]]} for row in receipt["totals"]],
        "intervals": [
            {"sensor": None, "source": None, "id": None, "n_joined": None, **row, "word": USES[row["use"]]}
            for row in receipt["intervals"]
        ],
        "warnings": receipt["warnings"],
    }


def _reconstruction(found: Card) -> list[dict[str, Any]]:
    """Return how much of each sensor's variance the model reconstructs, the least first."""
    explained = (found.get("training") or {}).get("explained_variance") or {}
    names = sorted((name for name in explained if name != "all"), key=lambda name: explained[name] or 0.0)
    return [
        {
            "name": name,
            "share": explained[name],
            "is_blind": explained[name] is not None and explained[name] < NOT_RECONSTRUCTED,
            "bar": svg(_bar(name, explained[name])),
        }
        for name in names[:MAX_SENSORS]
    ]


def _bar(name: str, share: float | None) -> str:
    kind = "" if share is not None and share < NOT_RECONSTRUCTED else "calm"
    return drawing.contributions(share or 0.0, title=f"{name}: {percent(share)}", kind=kind)


def _rule(threshold: Mapping[str, Any] | None) -> str:
    if threshold is None or "confirm" not in threshold:
        return ""
    return (
        f"Allowed: {number(threshold['alarms_per_week'], 2)} per asset and week; an alert needs "
        f"{threshold['confirm']} of {threshold['among']} windows, and {threshold['recover']} normal ones to close"
    )


def _explain(report: BudgetReport | None, threshold: Mapping[str, Any] | None) -> str:
    """Return the state of the budget in sentences, with advice."""
    if report is None or threshold is None:
        return "This version has decided nothing yet." if threshold else ""
    budget = f"the budget of {number(threshold['alarms_per_week'], 2)}"
    if report.status is Status.VIOLATED:
        return (
            f"Alarms come faster than {budget} allows, and not by chance. If they were faults, label them. If the "
            "machines have changed for good, retrain. An asset unlike the others belongs in a fleet of its own."
        )
    weeks = f"{number(report.own.weeks, 2)} watched asset-weeks and the held-out ones"
    if report.own.former_weeks:
        weeks = f"{number(report.own.weeks + report.own.former_weeks, 2)} asset-weeks, with those of former versions,"
    if report.status is Status.CERTIFIED:
        return f"{weeks} show that {budget} is met (95 %). {BASIS_WORDS[report.own.basis]}"
    missing = number(report.own.weeks_missing, 2)
    return f"{weeks} do not show yet that {budget} is met: {missing} more without an alarm would."


def _burn_row(asset: str, burn: Any) -> dict[str, Any]:
    return {
        "asset": asset,
        "n": burn.n_alarms,
        "allowed": burn.allowed,
        "ratio": burn.ratio,
        "status": str(burn.status),
    }
