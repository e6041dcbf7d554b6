"""Models: the fleets with their champions, the page of a fleet, and the slider of the budget.

Input: the database, and the card beside the weights where this machine has them. Output: pages. Invariant: the slider
replays stored scores. Nothing is trained, and nothing changes until its lines are in monitor.toml.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from monitor import drawing
from monitor.console.pages import version_card, versions
from monitor.console.pages.now import fleet_config
from monitor.console.pages.versions import fleet_of
from monitor.console.pages.view import Ask, Part, show, svg
from monitor.errors import NotFound
from monitor.types import Alias

if TYPE_CHECKING:
    from monitor.store.reader import Reader

router = APIRouter(include_in_schema=False)

BUDGETS = ("1/90d", "1/month", "2/month", "1/week", "2/week", "1/day", "3/day")
"""Budgets of the slider, from the fewest alerts to the most."""
CONFIRMS = ("1 of 1", "2 of 3", "3 of 5", "5 of 8")
DAYS = 30


@router.get("/models")
async def model_list(request: Request, fragment: str | None = None) -> Response:
    """Answer with the fleets and their champions."""
    return await show(request, "models", "/models", {"fleets": Part(fleets, "models")}, fragment=fragment)


@router.get("/models/{fleet}/diff")
async def diff_page(request: Request, fleet: str, fragment: str | None = None) -> Response:
    """Answer with the differences of two versions of a fleet. Raises NotFound."""
    parts = {"difference": Part(versions.difference, "models")}
    return await show(request, "diff", "/models", parts, fragment=fragment, fleet=fleet)


@router.get("/models/{fleet}")
async def fleet_page(request: Request, fleet: str, fragment: str | None = None) -> Response:
    """Answer with the models of one fleet. Raises NotFound."""
    return await show(request, "fleet", "/models", PARTS, fragment=fragment, fleet=fleet)


def fleets(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return each fleet with its champion, the budget and the training that runs."""
    models = reader.models()
    champions = {row["fleet"]: row for row in models if row["state"] == "champion"}
    waiting = {row["fleet"]: row for row in models if Alias.CHALLENGER in row["aliases"]}
    jobs = reader.jobs(limit=200)
    windows = reader.window_counts()
    rows = []
    assets = {row["fleet"]: row for row in reader.fleets()}
    for name in [*assets, *(each.name for each in ask.config.fleets if each.name not in assets)]:
        champion = champions.get(name)
        report = None
        if champion is not None:
            whole = champion | {"card": reader.whole_card(champion)}
            report = ask.once(("burn", champion["version"]), 60, partial(version_card.report_of, reader, whole))
        config = fleet_config(ask, name)
        rows.append(
            {
                "fleet": name,
                "n_assets": assets[name]["assets"] if name in assets else 0,
                "sensors": assets[name]["sensors"] if name in assets else None,
                "champion": champion,
                "waiting": waiting.get(name),
                "n_versions": sum(row["fleet"] == name for row in models),
                "report": report,
                "job": next((job for job in jobs if job["fleet"] == name), None),
                "n_windows": windows[name]["n"] if name in windows else 0,
                "needed": None if config is None else config.retrain.min_windows,
            }
        )
    return {"rows": rows}


def slider(reader: Reader, ask: Ask) -> dict[str, Any]:
    """Return the alerts of the last 30 days for each budget and confirmation, from stored scores."""
    name = fleet_of(reader, ask)
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


PARTS = {
    "proposal": Part(versions.proposal, "models"),
    "versions": Part(versions.versions, "models"),
    "trainings": Part(versions.trainings, "models"),
    "history": Part(versions.history, "models"),
    "card": Part(version_card.card, "models"),
    "drill": Part(versions.drill, "models"),
    "slider": Part(slider, "database"),
}
