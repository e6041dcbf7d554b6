"""Alerts and the answers to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from monitor import control
from monitor.console.api.documents import Alert, AlertDetail, Created, Evidence, Health, Page, SimilarAlert
from monitor.console.api.inputs import (
    DEFAULT_LIMIT,
    CloseBody,
    From,
    Id,
    LabelBody,
    LabelWord,
    Limit,
    NoteBody,
    Offset,
    ShelveBody,
    Sort,
    To,
    Word,
    console_of,
    page,
)
from monitor.console.security import actor, scope
from monitor.control import ShelfTarget
from monitor.errors import NotFound
from monitor.explain import sentence
from monitor.store.queries.evidence import arrays_of
from monitor.types import Label

if TYPE_CHECKING:
    from monitor.store.reader import Reader

router = APIRouter(prefix="/alerts", tags=["alerts"])

Row = dict[str, Any]


@router.get("", response_model=Page[Alert])
async def list_alerts(
    request: Request,
    class_: Annotated[Literal["process", "sensor", "data"] | None, Query(alias="class")] = None,
    fleet: Word | None = None,
    asset: Annotated[Word | None, Query(description="Name or pattern.")] = None,
    state: Annotated[
        Literal["open", "firing", "recovering", "closed"] | None, Query(description="open = not closed.")
    ] = None,
    since: From = None,
    until: To = None,
    label: Annotated[LabelWord | Literal["none"] | None, Query(description="none = not labelled.")] = None,
    acknowledged: bool | None = None,
    incident: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    suppressed: Annotated[bool, Query(description="Also alerts in maintenance.")] = False,
    sort: Sort = "opened",
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> Any:
    """List alerts opened in [from, to), the newest first."""

    def rows(reader: Reader, n: int) -> list[Row]:
        return reader.alerts(
            alert_class=class_,
            fleet=fleet,
            asset=asset,
            state=state,
            since=since,
            until=until,
            label=label,
            acknowledged=acknowledged,
            incident=incident,
            show_suppressed=suppressed,
            sort=sort,
            limit=n,
        )

    return await page(request, rows, limit, offset)


@router.get("/health", response_model=Health)
async def alert_health(request: Request, fleet: Word | None = None, since: From = None, until: To = None) -> Any:
    """Return the figures of alarm health of [from, to). Default: the last four weeks."""
    return await console_of(request).read(lambda reader: reader.alert_health(fleet, since, until))


@router.get("/{alert_id}", response_model=AlertDetail)
async def show_alert(request: Request, alert_id: Id) -> Any:
    """Return an alert with its history and its explanation."""
    console = console_of(request)

    def read(reader: Reader) -> Row:
        alert = reader.alert(alert_id)
        if alert["class"] != "process":
            return alert | {"explanation": None}
        sensors = next((each.sensor for each in console.config.fleets if each.name == alert["fleet"]), {})
        units = {name: each.unit for name, each in sensors.items()}
        descriptions = {name: each.description for name, each in sensors.items()}
        told = sentence(alert, reader.evidence(alert_id), units, descriptions)
        similar = reader.similar(alert_id)
        return alert | {"explanation": {"sentence": told, "clearing": alert["clearing"], "similar": similar}}

    return await console.read(read)


@router.get("/{alert_id}/evidence", response_model=Evidence)
async def show_evidence(request: Request, alert_id: Id) -> Any:
    """Return the readings, expected values and scores around an alert of class process."""

    def read(reader: Reader) -> Row:
        reader.alert(alert_id)
        found = reader.evidence(alert_id)
        if found is None:
            raise NotFound(f"evidence of alert {alert_id}: only alerts of class process have it, since schema 0005")
        return arrays_of(found)

    return await console_of(request).read(read)


@router.get("/{alert_id}/similar", response_model=list[SimilarAlert])
async def similar_alerts(request: Request, alert_id: Id, limit: Annotated[int, Query(ge=1, le=20)] = 5) -> Any:
    """Return past alerts with similar evidence, the most similar first."""

    def read(reader: Reader) -> list[Row]:
        reader.alert(alert_id)
        return reader.similar(alert_id, limit)

    return await console_of(request).read(read)


@router.post("/{alert_id}/acknowledge", response_model=AlertDetail, dependencies=[scope("act")])
async def acknowledge(request: Request, alert_id: Id, body: NoteBody) -> Any:
    """Acknowledge an open alert. It ends with the alert, and when the alert becomes much worse."""
    console = console_of(request)
    await console.act(control.acknowledge, alert_id, actor=actor(request, "api"), note=body.note)
    return await show_alert(request, alert_id)


@router.post("/{alert_id}/unacknowledge", response_model=AlertDetail, dependencies=[scope("act")])
async def unacknowledge(request: Request, alert_id: Id, body: NoteBody) -> Any:
    """Take an acknowledgement back."""
    console = console_of(request)
    await console.act(control.unacknowledge, alert_id, actor=actor(request, "api"), note=body.note)
    return await show_alert(request, alert_id)


@router.post("/{alert_id}/shelve", response_model=Created, status_code=201, dependencies=[scope("act")])
async def shelve(request: Request, alert_id: Id, body: ShelveBody) -> Any:
    """Shelve an alert: send no notifications until the end that is given."""
    target, who = ShelfTarget(alert_id=alert_id), actor(request, "api")
    act = console_of(request).act
    return {"id": await act(control.shelve, target, until=body.until, reason=body.reason, actor=who)}


@router.post("/{alert_id}/label", response_model=AlertDetail, dependencies=[scope("act")])
async def label(request: Request, alert_id: Id, body: LabelBody) -> Any:
    """Label an alert."""
    word = None if body.label is None else Label(body.label)
    console = console_of(request)
    await console.act(control.label_alert, alert_id, word, actor=actor(request, "api"), note=body.note)
    return await show_alert(request, alert_id)


@router.post("/{alert_id}/close", response_model=AlertDetail, dependencies=[scope("act")])
async def close(request: Request, alert_id: Id, body: CloseBody) -> Any:
    """Close an alert by hand. It opens again if it fires again or becomes much worse."""
    console = console_of(request)
    await console.act(control.close_alert, alert_id, reason=body.reason, actor=actor(request, "api"))
    return await show_alert(request, alert_id)
