"""The pages of models: a proposal, decisions, receipt, drills, history, and the difference of two versions."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from fastapi import FastAPI

    Client = Callable[..., httpx.AsyncClient]

PAGES = [
    ("/models/turbines", (
        "turbines-5 waits for your decision", "The gate lets it pass", "0.43 a week", "gained +2",
        "gearbox_temperature 57.4 ± 4.1 63.5 ± 4.3 moved 1.5 spreads", "monitor replay --from now-7d --diff",
        "Promote", "Reject", "Undo the roll-back to turbines-3", "rolled back by maria: alarmed at every start",
        "turbines-5 trained and proposed", "What would be detected",
        "a label accepts it as normal", "alert 1 of T0001 has had no label for 21 days", "about 1 min left",
        "off (power below 20) in 12 % of the windows",
    )),
    ("/models/turbines?version=turbines-4", (
        "2 of 5 confirmed faults would score below the threshold", "not passed", "alert 3 of T0018", "3 of 5 found",
        "Promote it against the gate", "The reason, for those who come later",
    )),
    ("/models/turbines?version=turbines-3", ("Rolled back by maria", "Promote it again")),
    ("/models/pumps", (
        "pumps-3 is compared on live records until", "nothing speaks against it so far", "checkpoint removed",
        "Accept a time as the new normal",
    )),
    ("/models/turbines/diff", ("turbines-2 → turbines-5", "oil_pressure", "alerted 36 21", "Gate on turbines-5")),
    ("/models/turbines/diff?before=turbines-1&after=turbines-2", ("Their cards do not differ",)),
    ("/models", ("turbines-5 candidate", "pumps-3 shadow", "nothing waits")),
    ("/", ("turbines-5, a new model of turbines, waits for your decision: 12 alerts like the champion's",)),
    ("/alerts/3", ("turbines-3 rolled back",)),
]  # fmt: skip


def words(page: str) -> str:
    """The text of a page, with single blanks."""
    text = html.unescape(re.sub(r"<[^>]+>", " ", page.replace("\xa0", " ")))
    return re.sub(r" ([,.:;])", r"\1", " ".join(text.split()))


@pytest.mark.parametrize(("path", "expected"), PAGES)
async def test_a_page_says_what_an_operator_must_know(
    registry_app: FastAPI, client: Client, path: str, expected: tuple[str, ...]
) -> None:
    async with client(registry_app) as browser:
        answer = await browser.get(path, headers={"accept": "text/html"})
    assert answer.status_code == 200
    shown = words(answer.text)
    assert [each for each in expected if each not in shown] == []


@pytest.mark.parametrize("part", ["proposal", "versions", "trainings", "history", "card", "drill"])
async def test_a_part_comes_alone(registry_app: FastAPI, client: Client, part: str) -> None:
    async with client(registry_app) as browser:
        whole = await browser.get("/models/turbines", headers={"accept": "text/html"})
        alone = await browser.get(f"/models/turbines?fragment={part}", headers={"accept": "text/html"})
    assert alone.status_code == 200
    assert len(words(alone.text)) > 40
    assert words(alone.text) in words(whole.text)


async def test_a_decision_needs_the_token_of_its_page(registry_app: FastAPI, client: Client) -> None:
    async with client(registry_app) as browser:
        csrf = (await browser.get("/api/v1/me")).json()["csrf"]
        shown = (await browser.get("/models/pumps", headers={"accept": "text/html"})).text
        nothing = await browser.post("/models/turbines/promote", data={"version": "turbines-5"})
        unknown = await browser.post("/models/turbines/promote", data={"version": "turbines-9", "csrf": csrf})
    assert 'name="csrf"' in shown
    assert nothing.status_code == 403
    assert unknown.status_code == 404
