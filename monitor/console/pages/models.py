"""Models: versions, the card and the receipt in words, the certificate, the burn, and the slider of the budget.

Input: the database, and the card beside the weights where this machine has them. Output: pages. Invariant: the slider
replays stored scores. Nothing is trained, and nothing changes until its lines are in monitor.toml.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from monitor import drawing
from monitor.budget import BASIS_WORDS, BudgetReport, Status
from monitor.console.pages.now import fleet_config
from monitor.console.pages.view import Ask, Part, duration, number, show, svg
from monitor.errors import NotFound
from monitor.store.burn import budget_report
from monitor.training.words import LEFT_OUT, NOT_RECONSTRUCTED
from monitor.wording import count, percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.store.reader import Reader

    Card = dict[str, Any]

router = APIRouter(include_in_schema=False)

BUDGETS = ("1/90d", "1/month", "2/month", "1/week", "2/week", "1/day", "3/day")
"""Budgets of the slider, from the fewest alerts to the most."""
CONFIRMS = ("1 of 1", "2 of 3", "3 of 5", "5 of 8")
DAYS = 30
MAX_ASSETS, MAX_SENSORS, MAX_NOTES = 6, 24, 6


@router.get("/models")
async def model_list(request: Request, fragment: str | None = None) -> Response:
    """Answer with the fleets and their champions."""
    return await show(request, "models", "/models", {"fleets": Part(fleets, "models")}, fragment=fragment)


@router.get("/models/{fleet}")
async def fleet_page(request: Request, fleet: str, fragment: str | None = None) -> Response:
    """Answer with the models of one fleet. Raises NotFound."""
    return await show(request, "fleet", "/models", PARTS, fragment=fragment, fleet=fleet)


def fleets(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return each fleet with its champion, the budget and the training that runs."""
    models = reader.models()
    champions = {row["fleet"]: row for row in models if row["state"] == "champion"}
    jobs = reader.jobs(limit=200)
    windows = reader.window_counts()
    rows = []
    assets = {row["fleet"]: row for row in reader.fleets()}
    for name in [*assets, *(each.name for each in ask.config.fleets if each.name not in assets)]:
        champion = champions.get(name)
        report = None
        if champion is not None:
            key = ("burn", champion["version"])
            report = ask.once(key, 60, partial(_report, reader, champion | {"card": reader.whole_card(champion)}))
        config = fleet_config(ask, name)
        rows.append(
            {
                "fleet": name,
                "n_assets": assets[name]["assets"] if name in assets else 0,
                "sensors": assets[name]["sensors"] if name in assets else None,
                "champion": champion,
                "n_versions": sum(row["fleet"] == name for row in models),
                "report": report,
                "job": next((job for job in jobs if job["fleet"] == name), None),
                "n_windows": windows[name]["n"] if name in windows else 0,
                "needed": None if config is None else config.retrain.min_windows,
            }
        )
    return {"rows": rows}


def versions(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the versions and the trainings of a fleet."""
    name = _fleet(reader, ask)
    jobs = reader.jobs(fleet=name, limit=5)
    return {
        "fleet": name,
        "rows": reader.models(fleet=name)[:20],
        "jobs": jobs,
        "is_training": any(job["state"] in ("queued", "running") for job in jobs),
        "is_configured": fleet_config(ask, name) is not None,
    }


def card(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the card of the chosen version, or of the champion, in words."""
    name = _fleet(reader, ask)
    chosen = ask.query.get("version")
    rows = reader.models(fleet=name)
    wanted = ("version", chosen) if chosen else ("state", "champion")
    row = next((each for each in rows if each[wanted[0]] == wanted[1]), None)
    if row is None:
        if chosen:
            raise NotFound(f"version {chosen} of fleet {name}")
        return {"fleet": name, "row": None}
    found = reader.whole_card(row)
    report = ask.once(("burn", row["version"]), 60, partial(_report, reader, row | {"card": found}))
    threshold = found.get("threshold") if isinstance(found.get("threshold"), dict) else None
    return {
        "fleet": name,
        "row": row,
        "facts": _facts(found),
        "receipt": _receipt(found.get("training") or {}),
        "notes": [str(note) for note in (found.get("training") or {}).get("inputs", [])][:MAX_NOTES],
        "troubles": [str(note) for note in (found.get("training") or {}).get("troubles", [])][:MAX_NOTES],
        "sensors": _reconstruction(found),
        "threshold": threshold,
        "rule": _rule(threshold),
        "report": report,
        "explained": _explain(report, threshold),
        "worst": [] if report is None else [_burn_row(asset, burn) for asset, burn in report.worst[:MAX_ASSETS]],
    }


def slider(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the alerts of the last 30 days for each budget and confirmation, from stored scores."""
    name = _fleet(reader, ask)
    config = fleet_config(ask, name)
    if config is None:
        return {"fleet": name, "rows": [], "why": f"monitor.toml has no fleet {name}."}
    now_budget, now_confirm = str(config.alerts.budget), str(config.alerts.confirm)
    budgets = list(BUDGETS) if now_budget in BUDGETS else [now_budget, *BUDGETS]
    confirms = list(CONFIRMS) if now_confirm in CONFIRMS else [now_confirm, *CONFIRMS]
    budgets.sort(key=lambda text: _per_week(text))
    key = ("preview", name, now_budget, now_confirm)
    try:
        found = ask.once(
            key, 60, lambda: reader.budget_preview(name, budgets, confirms, config.alerts.recover, days=DAYS)
        )
    except NotFound:
        return {"fleet": name, "rows": [], "why": "There is no champion yet, so there are no scores to count on."}
    if found[0]["alerts"] is None:
        return {"fleet": name, "rows": [], "why": f"{found[0]['reason']}."}
    step = {text: n for n, text in enumerate(budgets)}
    rows = [row | {"step": step[row["budget"]]} for row in found]
    chosen = ask.query.get("confirm", now_confirm)
    chosen = chosen if chosen in confirms else now_confirm
    at = min(ask.number("budget_step", step[now_budget], least=0), len(budgets) - 1)
    curves = {
        confirm: svg(
            drawing.curve(
                [(row["budget"], row["alerts"]) for row in rows if row["confirm"] == confirm],
                at,
                title=f"Alerts of the last {DAYS} days by budget, confirmed by {confirm} windows",
                desc="; ".join(f"{row['budget']}: {row['alerts']}" for row in rows if row["confirm"] == confirm),
            )
        )
        for confirm in confirms
    }
    current = next(row for row in rows if row["confirm"] == chosen and row["step"] == at)
    today = next(row for row in rows if row["confirm"] == now_confirm and row["step"] == step[now_budget])
    return {
        "fleet": name,
        "rows": rows,
        "budgets": budgets,
        "confirms": confirms,
        "chosen": chosen,
        "at": at,
        "curves": curves,
        "current": current,
        "today": today,
        "days": DAYS,
    }


def _per_week(text: str) -> float:
    from monitor.budget import weekly
    from monitor.config.values import Rate

    rate = Rate.parse(text)
    return weekly(rate.count, rate.per)


def _fleet(reader: Reader, ask: Ask) -> str:
    name = ask.query["fleet"]
    known = {row["fleet"] for row in reader.fleets()} | {each.name for each in ask.config.fleets}
    if name not in known:
        raise NotFound(f"fleet {name}; there are {', '.join(sorted(known))}")
    return name


def _report(reader: Reader, row: Mapping[str, Any]) -> BudgetReport | None:
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
        ("left out", "; ".join(left_out) or "none"),
    ]
    return facts + [
        ("suspected fault", f"asset {spell['asset']}, {count(spell['n_windows'], 'window')}")
        for spell in training.get("suspected_faults", [])[:3]
    ]


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


PARTS = {
    "versions": Part(versions, "models"),
    "card": Part(card, "models"),
    "slider": Part(slider, "database"),
}
