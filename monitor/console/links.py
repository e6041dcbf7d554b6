"""Links in notifications: an answer to one alert without a login.

Input: a signed token in the address. Output: GET asks, POST acts once. Invariant: opening a link changes nothing, as
mail servers and chats open links by themselves. The signature is the permission: it stands for one act on one alert,
expires, and serves once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from monitor import control
from monitor.console.forms import Form
from monitor.console.rendering import render
from monitor.control import Actor
from monitor.links import verify
from monitor.store import links

if TYPE_CHECKING:
    from monitor.clock import Clock
    from monitor.console.state import Console
    from monitor.links import Link
    from monitor.store.engine import AsyncStore

router = APIRouter(include_in_schema=False)

_ASKED = {
    "acknowledge": ("Acknowledge", "acknowledge alert {id}: say that you take care of it", "is acknowledged"),
    "label-fault": ("Was real", "label alert {id}: it was a real fault", "is labelled as a real fault"),
    "label-normal": ("Was nothing", "label alert {id}: it was nothing", "is labelled as nothing"),
}
"""Act → text of the button, of the question, and of the outcome."""


@router.get("/links/{token}")
async def ask(request: Request, token: str) -> Response:
    """Show the act of the link, with a button."""
    console: Console = request.app.state.console
    link = await console.act(_verified, token)
    alert = await console.read(lambda reader: reader.alert(link.alert_id))
    button, question, _ = _ASKED[link.act]
    values = {
        "title": button,
        "text": f"{_subject(alert)}. The button will {question.format(id=link.alert_id)}.",
        "action": f"/links/{token}",
        "button": button,
    }
    return render(request, "confirm.html", values)


@router.post("/links/{token}")
async def act(request: Request, token: str) -> Response:
    """Do it, once."""
    console: Console = request.app.state.console
    link = await console.act(_verified, token)
    form = Form(request.state.form)
    sender = request.state.who
    name = form.text("name", 64) if sender is None else sender.name
    actor = Actor(name or "link in a notification", "link")
    await console.act(control.use_link, link, actor=actor, note=form.note())
    button, _, outcome = _ASKED[link.act]
    if sender is not None:
        return RedirectResponse(f"/alerts/{link.alert_id}", 303)
    values = {"title": button, "text": f"Alert {link.alert_id} {outcome}. Thank you.", "action": "", "button": ""}
    return render(request, "confirm.html", values)


def _subject(alert: dict[str, object]) -> str:
    return f"Alert {alert['id']}, {alert['severity']}, {alert['asset'] or alert['kind']}"


async def _verified(store: AsyncStore, clock: Clock, token: str) -> Link:
    return verify(await store.run(links.key), token, clock.now_us())
