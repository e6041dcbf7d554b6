"""Incidents, the history, shelves, maintenance windows and labels of times."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from monitor import control
from monitor.clock import to_us
from monitor.console.api.documents import Act, Created, Incident, IntervalLabel, Maintenance, Page, Shelf
from monitor.console.api.inputs import (
    DEFAULT_LIMIT,
    From,
    Id,
    IntervalLabelBody,
    Limit,
    MaintenanceBody,
    NoteBody,
    Offset,
    ShelfBody,
    To,
    Word,
    console_of,
    page,
)
from monitor.console.security import actor, scope
from monitor.control import ShelfTarget
from monitor.types import Label

router = APIRouter(tags=["answers"])

Active = Annotated[bool | None, Query(description="In force, ended, or both.")]


@router.get("/incidents", response_model=Page[Incident])
async def list_incidents(
    request: Request,
    fleet: Word | None = None,
    state: Literal["open", "closed"] | None = None,
    since: From = None,
    until: To = None,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> Any:
    """List incidents opened in [from, to), the newest first."""
    return await page(
        request,
        lambda reader, n: reader.incidents(fleet=fleet, state=state, since=since, until=until, limit=n),
        limit,
        offset,
    )


@router.get("/incidents/{incident_id}", response_model=Incident)
async def show_incident(request: Request, incident_id: Id) -> Any:
    """Return an incident."""
    return await console_of(request).read(lambda reader: reader.incident(incident_id))


@router.get("/history", response_model=Page[Act])
async def history(
    request: Request,
    fleet: Word | None = None,
    asset: Annotated[Word | None, Query(description="Name or pattern.")] = None,
    by: Word | None = None,
    act: Word | None = None,
    since: From = None,
    until: To = None,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> Any:
    """List the acts in [from, to) of processing time, the newest first."""
    return await page(
        request,
        lambda reader, n: reader.history(
            fleet=fleet, asset=asset, by=by, act=act, since=since, until=until, limit=n
        ),
        limit,
        offset,
    )


@router.get("/shelves", response_model=Page[Shelf])
async def list_shelves(
    request: Request, active: Active = True, limit: Limit = DEFAULT_LIMIT, offset: Offset = 0
) -> Any:
    """List shelves, the newest first."""
    return await page(request, lambda reader, n: reader.shelves(is_active=active, limit=n), limit, offset)


@router.post("/shelves", response_model=Created, status_code=201, dependencies=[scope("act")])
async def shelve(request: Request, body: ShelfBody) -> Any:
    """Shelve the alerts of a fleet, an asset or a sensor: send no notifications until the end that is given."""
    target, who = ShelfTarget(None, body.fleet, body.asset, body.sensor), actor(request, "api")
    act = console_of(request).act
    return {"id": await act(control.shelve, target, until=body.until, reason=body.reason, actor=who)}


@router.post("/shelves/{shelf_id}/end", status_code=204, dependencies=[scope("act")])
async def unshelve(request: Request, shelf_id: Id, body: NoteBody) -> Response:
    """End a shelf."""
    await console_of(request).act(control.unshelve, shelf_id, actor=actor(request, "api"), note=body.note)
    return Response(status_code=204)


@router.get("/maintenance", response_model=Page[Maintenance])
async def list_maintenance(
    request: Request, active: Active = True, limit: Limit = DEFAULT_LIMIT, offset: Offset = 0
) -> Any:
    """List maintenance windows by their beginning."""
    return await page(request, lambda reader, _n: reader.maintenance(is_active=active), limit, offset)


@router.post("/maintenance", response_model=Created, status_code=201, dependencies=[scope("act")])
async def plan_maintenance(request: Request, body: MaintenanceBody) -> Any:
    """Plan a maintenance window."""
    plan = control.Maintenance(
        body.fleet,
        body.asset,
        to_us(body.from_),
        None if body.to is None else to_us(body.to),
        body.reason,
        body.cron,
        None if body.duration_s is None else round(body.duration_s * 1e6),
        body.timezone,
    )
    act = console_of(request).act
    return {"id": await act(control.plan_maintenance, plan, actor=actor(request, "api"))}


@router.post("/maintenance/{maintenance_id}/end", status_code=204, dependencies=[scope("act")])
async def end_maintenance(request: Request, maintenance_id: Id) -> Response:
    """Cancel a maintenance window, or end it now."""
    await console_of(request).act(control.end_maintenance, maintenance_id, actor=actor(request, "api"))
    return Response(status_code=204)


@router.get("/labels", response_model=Page[IntervalLabel])
async def list_labels(
    request: Request,
    fleet: Word | None = None,
    asset: Annotated[Word | None, Query(description="Name or pattern.")] = None,
    since: From = None,
    until: To = None,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> Any:
    """List the labels in force on times of assets."""
    return await page(
        request,
        lambda reader, _n: reader.interval_labels(fleet=fleet, asset=asset, since=since, until=until),
        limit,
        offset,
    )


@router.post("/labels", response_model=Created, status_code=201, dependencies=[scope("act")])
async def label_interval(request: Request, body: IntervalLabelBody) -> Any:
    """Label a time of an asset."""
    made = await console_of(request).act(
        control.label_interval,
        body.fleet,
        body.asset,
        to_us(body.from_),
        to_us(body.to),
        Label(body.label),
        actor=actor(request, "api"),
        note=body.note,
    )
    return {"id": made}


@router.delete("/labels/{label_id}", status_code=204, dependencies=[scope("act")])
async def remove_label(request: Request, label_id: Id) -> Response:
    """Take the label of a time back."""
    await console_of(request).act(control.remove_interval_label, label_id, actor=actor(request, "api"))
    return Response(status_code=204)
