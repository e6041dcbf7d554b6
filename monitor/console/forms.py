"""Forms of the pages: operators' acts, each a POST that leads back to its page with a message.

Input: the fields of a form. Output: a redirect (303), with the outcome as a flash message. Invariant: an act is one
call of `control`. The gate has checked scope and CSRF token before.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import RedirectResponse, Response

from monitor import control
from monitor.clock import from_us, to_us
from monitor.config.values import parse_duration, parse_time
from monitor.console.login import is_encrypted, local_path
from monitor.console.security import FLASH_COOKIE, actor, scope
from monitor.control import Maintenance, ShelfTarget
from monitor.errors import ConfigError, Conflict
from monitor.printable import escape_unprintable
from monitor.types import Label

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from monitor.console.state import Console

router = APIRouter(include_in_schema=False)

MAX_TEXT = 1000
"""Characters of a note or reason."""
MAX_WORD = 300
"""Characters of a name, a time, a schedule."""
FLASH_S = 60

Id = Annotated[int, Path(ge=1, lt=2**31)]


class Form:
    """The fields of a form, cleaned: no characters that are invisible or command a terminal."""

    def __init__(self, fields: dict[str, str]) -> None:
        self._fields = fields

    def text(self, name: str, limit: int = MAX_WORD) -> str:
        """Return a field without blanks around it; "" without the field. Raises ConfigError for a long one."""
        value = escape_unprintable(self._fields.get(name, "").replace("\r\n", "\n").strip(), keep="\n")
        if len(value) > limit:
            raise ConfigError(f"{name} has {len(value)} characters; use at most {limit}")
        return value

    def note(self, name: str = "note") -> str:
        """Return a longer text."""
        return self.text(name, MAX_TEXT)

    def label(self) -> Label | None:
        """Return the field `label`; None = remove the label. Raises ConfigError."""
        word = self.text("label")
        if word in ("", "none"):
            return None
        if word not in list(Label):
            raise ConfigError(f'"{word}" is no label; choose fault, normal or ignore')
        return Label(word)

    def moment(self, name: str, now_us: int, zone: str = "UTC") -> int | None:
        """Return a time in µs, None = empty. A time without an offset is in `zone`. Raises ConfigError."""
        value = self.text(name)
        if not value:
            return None
        try:
            local = datetime.fromisoformat(value)
        except ValueError:
            local = None
        try:
            if local is not None and local.tzinfo is None:
                return to_us(local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC))
            return to_us(parse_time(value, from_us(now_us)))
        except (ValueError, OverflowError) as problem:
            raise ConfigError(f"{name}: {problem}") from None
        except ZoneInfoNotFoundError:
            raise ConfigError(f"{zone!r} is no time zone; write one like Europe/Berlin") from None

    def duration_us(self, name: str) -> int | None:
        """Return a duration such as "2h" in µs, None = empty. Raises ConfigError."""
        value = self.text(name)
        if not value:
            return None
        try:
            return parse_duration(value) // timedelta(microseconds=1)
        except ValueError as problem:
            raise ConfigError(f'{name}: "{value}" {problem}') from None


def _form(request: Request) -> Form:
    return Form(request.state.form)


FormData = Annotated[Form, Depends(_form)]


async def answered(request: Request, work: Awaitable[Any], said: str, back: str) -> Response:
    """Do the work, and lead back with a message: the result, or the reason of a failure.

    `back`: page without a field `next`.
    """
    try:
        await work
    except (Conflict, ConfigError) as error:
        return redirect(request, back, str(error.detail or error), "error")
    return redirect(request, back, said)


def redirect(request: Request, back: str, text: str, kind: str = "done") -> Response:
    """Lead to the page that the form names, or to `back`, which shows the message once."""
    wanted = local_path(request.state.form.get("next", "") or back)
    answer = RedirectResponse(wanted, 303)
    sealed = request.app.state.console.signer.seal("flash", {"kind": kind, "text": text[:500]})
    answer.set_cookie(
        FLASH_COOKIE, sealed, FLASH_S, secure=is_encrypted(request), httponly=True, samesite="strict"
    )
    return answer


def console_of(request: Request) -> Console:
    """Return the console of a request."""
    console: Console = request.app.state.console
    return console


# ---------------------------------------------------------------- alerts


@router.post("/alerts/{alert_id}/acknowledge", dependencies=[scope("act")])
async def acknowledge(request: Request, alert_id: Id, form: FormData) -> Response:
    """Acknowledge an alert."""
    work = console_of(request).act(
        control.acknowledge, alert_id, actor=actor(request, "console"), note=form.note()
    )
    return await answered(request, work, f"Alert {alert_id} is acknowledged.", f"/alerts/{alert_id}")


@router.post("/alerts/{alert_id}/unacknowledge", dependencies=[scope("act")])
async def unacknowledge(request: Request, alert_id: Id, form: FormData) -> Response:
    """Take an acknowledgement back."""
    work = console_of(request).act(
        control.unacknowledge, alert_id, actor=actor(request, "console"), note=form.note()
    )
    return await answered(request, work, f"Alert {alert_id} is not acknowledged any more.", f"/alerts/{alert_id}")


@router.post("/alerts/{alert_id}/shelve", dependencies=[scope("act")])
async def shelve_alert(request: Request, alert_id: Id, form: FormData) -> Response:
    """Shelve an alert."""
    until = form.text("until")
    work = console_of(request).act(
        control.shelve,
        ShelfTarget(alert_id=alert_id),
        until=until,
        reason=form.note("reason"),
        actor=actor(request, "console"),
    )
    return await answered(request, work, f"Alert {alert_id} is shelved until {until}.", f"/alerts/{alert_id}")


@router.post("/alerts/{alert_id}/label", dependencies=[scope("act")])
async def label_alert(request: Request, alert_id: Id, form: FormData) -> Response:
    """Label an alert, or remove its label."""

    async def work() -> None:
        await console_of(request).act(
            control.label_alert, alert_id, form.label(), actor=actor(request, "console"), note=form.note()
        )

    word = form.text("label")
    said = f"Alert {alert_id} is labelled {word}." if word else f"The label of alert {alert_id} is removed."
    return await answered(request, work(), said, f"/alerts/{alert_id}")


@router.post("/alerts/{alert_id}/close", dependencies=[scope("act")])
async def close_alert(request: Request, alert_id: Id, form: FormData) -> Response:
    """Close an alert by hand."""
    work = console_of(request).act(
        control.close_alert, alert_id, reason=form.note("reason"), actor=actor(request, "console")
    )
    return await answered(request, work, f"Alert {alert_id} is closed.", f"/alerts/{alert_id}")


# ---------------------------------------------------------------- shelves, maintenance, labels of times


@router.post("/shelves", dependencies=[scope("act")])
async def shelve(request: Request, form: FormData) -> Response:
    """Shelve all alerts of a fleet, an asset or a sensor."""
    until = form.text("until")
    target = ShelfTarget(None, *(form.text(name) or None for name in ("fleet", "asset", "sensor")))
    work = console_of(request).act(
        control.shelve, target, until=until, reason=form.note("reason"), actor=actor(request, "console")
    )
    return await answered(request, work, f"Shelved until {until}.", "/shelves")


@router.post("/shelves/{shelf_id}/end", dependencies=[scope("act")])
async def unshelve(request: Request, shelf_id: Id, form: FormData) -> Response:
    """End a shelf."""
    work = console_of(request).act(control.unshelve, shelf_id, actor=actor(request, "console"), note=form.note())
    return await answered(request, work, f"Shelf {shelf_id} has ended.", "/shelves")


@router.post("/maintenance", dependencies=[scope("act")])
async def plan_maintenance(request: Request, form: FormData) -> Response:
    """Plan a maintenance window. Times without an offset are in the field `timezone`."""
    console = console_of(request)

    async def work() -> None:
        zone, now_us = form.text("timezone") or "UTC", console.clock.now_us()
        from_us_ = form.moment("from", now_us, zone)
        plan = Maintenance(
            form.text("fleet") or "*",
            form.text("asset") or "*",
            now_us if from_us_ is None else from_us_,
            form.moment("to", now_us, zone),
            form.note("reason"),
            form.text("cron") or None,
            form.duration_us("duration"),
            zone,
        )
        await console.act(control.plan_maintenance, plan, actor=actor(request, "console"))

    return await answered(request, work(), "The maintenance window is planned.", "/shelves")


@router.post("/maintenance/{maintenance_id}/end", dependencies=[scope("act")])
async def end_maintenance(request: Request, maintenance_id: Id) -> Response:
    """Cancel a maintenance window, or end it now."""
    work = console_of(request).act(control.end_maintenance, maintenance_id, actor=actor(request, "console"))
    return await answered(request, work, "The maintenance window has ended.", "/shelves")


@router.post("/assets/{fleet}/{asset:path}/label", dependencies=[scope("act")])
async def label_interval(request: Request, fleet: str, asset: str, form: FormData) -> Response:
    """Label a time of an asset."""
    console = console_of(request)

    async def work() -> None:
        zone, now_us = form.text("timezone") or "UTC", console.clock.now_us()
        label, begin, end = form.label(), form.moment("from", now_us, zone), form.moment("to", now_us, zone)
        if label is None or begin is None or end is None:
            raise ConfigError("a label needs its word, the beginning and the end of the time")
        who_acts, note = actor(request, "console"), form.note()
        await console.act(control.label_interval, fleet, asset, begin, end, label, actor=who_acts, note=note)

    back = f"/assets/{quote(fleet, safe='')}/{quote(asset, safe='')}"
    return await answered(request, work(), f"The time of {asset} is labelled {form.text('label')}.", back)


@router.post("/labels/{label_id}/remove", dependencies=[scope("act")])
async def remove_interval_label(request: Request, label_id: Id) -> Response:
    """Take the label of a time back."""
    work = console_of(request).act(control.remove_interval_label, label_id, actor=actor(request, "console"))
    return await answered(request, work, "The label is removed.", "/")
