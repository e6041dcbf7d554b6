"""Model versions, their history and measurements, decisions on them, and trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request

from monitor import control
from monitor.clock import to_us
from monitor.console.api.documents import (
    Job,
    Model,
    ModelCheck,
    ModelDetail,
    ModelDiff,
    ModelEvent,
    Moved,
    Page,
)
from monitor.console.api.inputs import (
    DEFAULT_LIMIT,
    Id,
    JobBody,
    Limit,
    NoteBody,
    Offset,
    PromoteBody,
    Word,
    console_of,
    page,
)
from monitor.console.model_forms import history_us
from monitor.console.security import actor, scope, who
from monitor.errors import ConfigError, NotFound
from monitor.store.queries import iso
from monitor.types import Alias
from monitor.version_differences import difference_document

if TYPE_CHECKING:
    from monitor.console.state import Console
    from monitor.store.reader import Reader
    from monitor.store.versions import Activation

router = APIRouter(tags=["models"])

Row = dict[str, Any]
Version = Annotated[Word, Path(description="A version, or an alias: champion, challenger, previous.")]
AliasFleet = Annotated[Word | None, Query(description="Fleet of an alias, where several have it.")]


@router.get("/models", response_model=Page[Model])
async def list_models(
    request: Request, fleet: Word | None = None, limit: Limit = DEFAULT_LIMIT, offset: Offset = 0
) -> Any:
    """List model versions, the newest first."""
    return await page(request, lambda reader, _n: reader.models(fleet=fleet), limit, offset)


@router.get("/models/{version}", response_model=ModelDetail)
async def show_model(request: Request, version: Version, fleet: AliasFleet = None) -> Any:
    """Return a model version with its card, its verdict and its events."""
    return await console_of(request).read(lambda reader: reader.model(version, fleet=fleet))


@router.get("/models/{version}/diff", response_model=ModelDiff)
async def diff_models(
    request: Request,
    version: Version,
    before: Annotated[Word, Query(description="The version to compare with, or an alias.")] = Alias.CHAMPION,
    fleet: AliasFleet = None,
) -> Any:
    """Return the differences of two versions of a fleet by their cards."""

    def read(reader: Reader) -> Row:
        after = reader.model(version, fleet=fleet)
        rows = [reader.model(before, fleet=after["fleet"]), after]
        return difference_document(*(row | {"card": reader.whole_card(row)} for row in rows))

    return await console_of(request).read(read)


@router.get("/fleets/{fleet}/history", response_model=Page[ModelEvent])
async def model_history(
    request: Request, fleet: Annotated[Word, Path()], limit: Limit = DEFAULT_LIMIT, offset: Offset = 0
) -> Any:
    """List the events in the lives of the versions of a fleet, the newest first."""
    return await page(request, lambda reader, n: reader.model_events(fleet=fleet, limit=n), limit, offset)


@router.get("/fleets/{fleet}/checks", response_model=Page[ModelCheck])
async def model_checks(
    request: Request,
    fleet: Annotated[Word, Path()],
    kind: Literal["drill", "drift", "input_drift", "shadow"] | None = None,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> Any:
    """List drills, tests for drift and comparisons in shadow of a fleet, the newest first."""
    return await page(request, lambda reader, n: reader.model_checks(kind=kind, fleet=fleet, limit=n), limit, offset)


@router.post("/models/{version}/promote", response_model=Moved, dependencies=[scope("admin")])
async def promote(request: Request, version: Version, body: PromoteBody, fleet: AliasFleet = None) -> Any:
    """Make a version the champion, for windows that end after the newest decided one."""
    console = console_of(request)
    row, former = await console.read(lambda reader: _with_champion(reader, version, fleet))
    if body.force and not body.note.strip():
        raise ConfigError("force needs a note: those who come later must learn why the gate was overruled")
    active = await console.act(
        control.promote_version,
        console.config,
        row["version"],
        actor=actor(request, "api"),
        note=body.note,
        overrule=body.force,
    )
    return await _moved(console, row["fleet"], former, active)


@router.post("/models/{version}/reject", response_model=ModelDetail, dependencies=[scope("admin")])
async def reject(request: Request, version: Version, body: NoteBody, fleet: AliasFleet = None) -> Any:
    """Reject a version that waits for a decision. The champion stays."""
    console = console_of(request)
    row = await console.read(lambda reader: reader.model(version, fleet=fleet))
    await console.act(control.reject_version, row["version"], actor=actor(request, "api"), note=body.note)
    return await show_model(request, row["version"])


@router.post("/fleets/{fleet}/rollback", response_model=Moved, dependencies=[scope("admin")])
async def roll_back(request: Request, fleet: Annotated[Word, Path()], body: NoteBody) -> Any:
    """Return to the version before the champion. A second roll-back undoes the first."""
    console = console_of(request)
    _, former = await console.read(lambda reader: _with_champion(reader, None, fleet))
    active = await console.act(
        control.roll_back, console.config, fleet, actor=actor(request, "api"), note=body.note
    )
    return await _moved(console, fleet, former, active)


def _with_champion(reader: Reader, version: str | None, fleet: str | None) -> tuple[Row, str | None]:
    """Return a version, and the name of its fleet's champion. None = it has none."""
    row = reader.model(version, fleet=fleet)
    rows = reader.models(fleet=row["fleet"])
    return row, next((each["version"] for each in rows if each["state"] == "champion"), None)


async def _moved(console: Console, fleet: str, former: str | None, active: Activation) -> Row:
    return {
        "fleet": fleet,
        "version": active.version,
        "former": former,
        "decides_after": iso(active.from_window_end_us),
        "daemons": await console.act(control.count_daemons),
    }


@router.get("/jobs", response_model=Page[Job])
async def list_jobs(
    request: Request, fleet: Word | None = None, limit: Limit = DEFAULT_LIMIT, offset: Offset = 0
) -> Any:
    """List trainings, drills and comparisons in shadow, the newest first."""
    return await page(request, lambda reader, n: reader.jobs(fleet=fleet, limit=n), limit, offset)


@router.get("/jobs/{job_id}", response_model=Job)
async def show_job(request: Request, job_id: Id) -> Any:
    """Return a job."""
    return await console_of(request).read(lambda reader: _job(reader, job_id))


@router.post("/jobs", response_model=Job, status_code=201, dependencies=[scope("admin")])
async def request_job(request: Request, body: JobBody) -> Any:
    """Ask for a training or a drill. A running daemon begins it at once. `accept_normal`: learn this time as normal."""
    console, accepted = console_of(request), body.accept_normal
    if body.kind == "drill" and accepted is not None:
        raise ConfigError("a drill learns nothing: leave accept_normal out, or ask for kind retrain")
    if accepted is None:
        act = control.request_drill if body.kind == "drill" else control.request_retraining
        requested = await console.act(act, body.fleet, by=who(request).name, note=body.note)
    else:
        _, requested = await console.act(
            control.accept_normal,
            body.fleet,
            accepted.asset,
            to_us(accepted.from_),
            to_us(accepted.to),
            actor=actor(request, "api"),
            note=body.note,
            history_us=history_us(console.config, body.fleet),
        )
    return await console.read(lambda reader: _job(reader, requested.job.id))


def _job(reader: Reader, job_id: int) -> Row:
    for row in reader.jobs():
        if row["id"] == job_id:
            return row
    raise NotFound(f"job {job_id}")
