"""Forms of the models' pages: promote, reject, roll back, train.

Input: the fields of a form. Output: a redirect (303), with the outcome as a flash message. Invariant: an act is one
call of `control`, with the scope `admin`. Each can be taken back, so none asks twice.
"""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from monitor import control
from monitor.console.forms import FormData, answered, console_of
from monitor.console.security import actor, scope, who
from monitor.errors import ConfigError

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
async def retrain(request: Request, fleet: str) -> Response:
    """Ask for a training."""
    work = console_of(request).act(control.request_retraining, fleet, by=who(request).name)
    return await answered(request, work, f"A training of {fleet} is requested.", _page(fleet))
