"""Fleets, assets, scores, ingestion and the quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request

from monitor.console.api.documents import (
    Asset,
    Fleet,
    Ingestion,
    Me,
    Page,
    Preview,
    QuarantineCount,
    Quarantined,
    Scores,
)
from monitor.console.api.inputs import (
    DEFAULT_LIMIT,
    From,
    Limit,
    Offset,
    To,
    Word,
    console_of,
    page,
)
from monitor.console.security import csrf_token, who
from monitor.errors import NotFound

if TYPE_CHECKING:
    from monitor.store.reader import Reader

router = APIRouter(tags=["plant"])

Row = dict[str, Any]
MAX_WINDOWS = 10_000
"""Windows or hours in one answer."""
MAX_DAYS = 92


@router.get("/me", response_model=Me)
async def me(request: Request) -> Any:
    """Return the sender of this request, and the CSRF token of a browser's scripts."""
    found = who(request)
    return {"name": found.name, "scope": found.scope, "by": found.by, "csrf": csrf_token(request)}


@router.get("/fleets", response_model=list[Fleet])
async def list_fleets(request: Request) -> Any:
    """List the fleets."""
    return await console_of(request).read(lambda reader: reader.fleets())


@router.get("/fleets/{fleet}/preview", response_model=list[Preview])
async def budget_preview(
    request: Request,
    fleet: Annotated[Word, Path()],
    days: Annotated[float, Query(gt=0, le=MAX_DAYS, description="Days before the newest window.")] = 30,
    recover: Annotated[int | None, Query(ge=1, le=1000, description="Default: the champion's.")] = None,
) -> Any:
    """Return the alerts that other budgets and confirmations would have raised, from the stored scores."""
    return await console_of(request).read(lambda reader: reader.budget_preview(fleet, recover=recover, days=days))


@router.get("/assets", response_model=Page[Asset])
async def list_assets(
    request: Request, fleet: Word | None = None, limit: Limit = DEFAULT_LIMIT, offset: Offset = 0
) -> Any:
    """List the assets by fleet and name."""
    return await page(request, lambda reader, _n: reader.assets(fleet=fleet), limit, offset)


@router.get("/scores", response_model=Scores)
async def scores(
    request: Request,
    asset: Word,
    fleet: Annotated[Word | None, Query(description="Needed if several fleets have an asset of this name.")] = None,
    since: From = None,
    until: To = None,
    verdict: Literal["normal", "anomalous", "unscored"] | None = None,
    by: Annotated[
        Literal["auto", "windows", "hours"],
        Query(description="auto: hours where there are more than `limit` windows."),
    ] = "auto",
    limit: Annotated[int, Query(ge=1, le=MAX_WINDOWS)] = 1000,
) -> Any:
    """Return the newest scores of an asset in [from, to), in order of time."""
    def read(reader: Reader) -> Row:
        if reader.asset_named(asset, fleet) is None:
            raise NotFound(f"asset {asset}")
        if by != "hours":
            found = list(reader.scores(asset, fleet, since=since, until=until, verdict=verdict, limit=limit + 1))
            if by == "windows" or verdict is not None or len(found) <= limit:
                return {"by": "windows", "windows": found[-limit:], "hours": []}
        hours = list(reader.score_hours(asset, fleet, since=since, until=until))
        return {"by": "hours", "windows": [], "hours": hours[-limit:]}

    return await console_of(request).read(read)


@router.get("/ingestion", response_model=Ingestion)
async def ingestion(request: Request) -> Any:
    """Return the partitions with their lag and counters, and the daemons."""
    return await console_of(request).read(
        lambda reader: {"partitions": reader.partitions(), "daemons": reader.daemons()}
    )


@router.get("/quarantine", response_model=Page[Quarantined])
async def list_quarantine(
    request: Request,
    topic: Word | None = None,
    reason: Annotated[Word | None, Query(description="Beginning of the reason.")] = None,
    since: From = None,
    until: To = None,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> Any:
    """List quarantined records, the newest first."""
    return await page(
        request,
        lambda reader, n: reader.quarantine(topic=topic, reason=reason, since=since, until=until, limit=n),
        limit,
        offset,
    )


@router.get("/quarantine/counts", response_model=list[QuarantineCount])
async def quarantine_counts(request: Request, topic: Word | None = None, since: From = None, until: To = None) -> Any:
    """Return the number of quarantined records by the first word of their reason."""
    return await console_of(request).read(
        lambda reader: reader.quarantine_counts(topic=topic, since=since, until=until)
    )
