"""Forms of the models' pages: promote, reject, roll back, train, drill.

Input: the fields of a form. Output: a redirect (303), with the outcome as a flash message. Invariant: an act is one
call of `control`, with the scope `admin`. Each can be taken back, so none asks twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from monitor import control
from monitor.console.forms import FormData, answered, console_of
from monitor.console.security import actor, scope, who
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from monitor.config import Config

router = APIRouter(include_in_schema=False)


def _page(fleet: str) -> str:
    return f"/models/{quote(fleet, safe='')}"


@router.post("/models/{fleet}/promote", dependencies=[scope("admin")])
async def promote(request: Request, fleet: str, form: FormData) -> Response:
    """Make a version the champion. One that the gate rejected needs `force` and a note."""
    console, version, note, force = console_of(request), form.text("version"), form.note(), bool(form.text("force"))

    async def work() -> None:
        if force and not note:
            raise ConfigError("a note is needed: those who come later must learn why the gate was overruled")
        sender = actor(request, "console")
        await console.act(
            control.promote_version, console.config, version, actor=sender, note=note, overrule=force
        )

    said = f"{version} is the champion of {fleet} from the next window on."
    return await answered(request, work(), said, _page(fleet))


@router.post("/models/{fleet}/reject", dependencies=[scope("admin")])
async def reject(request: Request, fleet: str, form: FormData) -> Response:
    """Reject the version that waits for a decision."""
    version = form.text("version")
    work = console_of(request).act(
        control.reject_version, version, actor=actor(request, "console"), note=form.note()
    )
    return await answered(request, work, f"{version} is rejected. The champion goes on deciding.", _page(fleet))


@router.post("/models/{fleet}/rollback", dependencies=[scope("admin")])
async def roll_back(request: Request, fleet: str, form: FormData) -> Response:
    """Return to the version before the champion."""
    console = console_of(request)
    work = console.act(
        control.roll_back, console.config, fleet, actor=actor(request, "console"), note=form.note()
    )
    return await answered(request, work, f"{fleet} is rolled back from the next window on.", _page(fleet))


@router.post("/models/{fleet}/retrain", dependencies=[scope("admin")])
async def retrain(request: Request, fleet: str, form: FormData) -> Response:
    """Ask for a training. With `from` and `to`, accept this time as normal first."""
    console, note = console_of(request), form.note()
    is_accepting = bool(form.text("from") or form.text("to"))

    async def work() -> None:
        if not is_accepting:
            await console.act(control.request_retraining, fleet, by=who(request).name, note=note)
            return
        zone, now_us = form.text("timezone") or "UTC", console.clock.now_us()
        begin, end = form.moment("from", now_us, zone), form.moment("to", now_us, zone)
        if begin is None or end is None:
            raise ConfigError("to accept a time as normal, write its beginning and its end")
        sender, history = actor(request, "console"), history_us(console.config, fleet)
        asset = form.text("asset") or None
        await console.act(
            control.accept_normal, fleet, asset, begin, end, actor=sender, note=note, history_us=history
        )

    accepted = " The time is accepted as normal." if is_accepting else ""
    return await answered(request, work(), f"A training of {fleet} is requested.{accepted}", _page(fleet))


@router.post("/models/{fleet}/drill", dependencies=[scope("admin")])
async def drill(request: Request, fleet: str, form: FormData) -> Response:
    """Ask for a drill of the champion."""
    work = console_of(request).act(control.request_drill, fleet, by=who(request).name, note=form.note())
    return await answered(request, work, f"A drill of {fleet} is requested.", _page(fleet))


def history_us(config: Config, fleet: str) -> int | None:
    """Return the time that a training of a fleet reads. None = the configuration has no such fleet."""
    found = next((each for each in config.fleets if each.name == fleet), None)
    return None if found is None else round(found.retrain.history.total_seconds() * 1e6)
