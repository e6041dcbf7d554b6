"""Jobs: what was asked for, who does it, what came of it. Times are processing time.

A fleet has at most one job queued or running; the database itself refuses a second one. Of several daemons the one
that holds a lease does them: who was asleep meanwhile neither takes a job nor buries another's (`store/leases.py`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy import text

from monitor.clock import from_us
from monitor.errors import Conflict, Fenced, NotFound
from monitor.store import assets, leases
from monitor.types import JobView

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

_COLUMNS = """id, fleet, state, progress, message, requested_us, started_us, finished_us, version, requested_by"""

_REQUEST = text(f"""
    INSERT INTO job (kind, fleet, state, progress, message, requested_by, requested_us)
    VALUES (:kind, :fleet, 'queued', 0.0, '', :requested_by, :at_us)
    ON CONFLICT DO NOTHING
    RETURNING {_COLUMNS}
""")  # noqa: S608 - a constant
_ACTIVE = text(f"SELECT {_COLUMNS} FROM job WHERE fleet = :fleet AND state IN ('queued', 'running')")  # noqa: S608 - a constant


def request(connection: Connection, fleet: str, by: str, at_us: int, kind: str = "retrain") -> JobView:
    """Queue a job. Raises Conflict, naming the job that the fleet has already."""
    assets.put_fleet(connection, fleet)
    values = {"kind": kind, "fleet": fleet, "requested_by": by, "at_us": at_us}
    row = connection.execute(_REQUEST, values).one_or_none()
    if row is not None:
        return _view(row)
    job = active(connection, fleet)
    if job is None:  # it ended between the two statements
        raise Conflict(f"{fleet} had a job that ended just now; ask again")
    how_far = f", {job.progress:.0%} done" if job.state == "running" else ""
    raise Conflict(
        f"job {job.id} for {fleet} is {job.state}{how_far}, asked for by {job.requested_by or 'the schedule'}"
    )


def active(connection: Connection, fleet: str) -> JobView | None:
    """Return the fleet's job that is queued or running."""
    row = connection.execute(_ACTIVE, {"fleet": fleet}).one_or_none()
    return None if row is None else _view(row)


_IS_ANY = text("SELECT EXISTS (SELECT 1 FROM job WHERE state IN ('queued', 'running'))")
_NEXT = text("""
    SELECT id FROM job WHERE state = 'queued' AND fleet = COALESCE(:fleet, fleet) ORDER BY id LIMIT 1
""")
_TAKE = text(f"""
    UPDATE job SET state = 'running', owner = :owner, started_us = :at_us WHERE id = :id AND state = 'queued'
    RETURNING {_COLUMNS}
""")  # noqa: S608 - a constant


def take(
    connection: Connection, owner: str, at_us: int, *, lease: tuple[str, int] | None = None
) -> JobView | None:
    """Take the oldest queued job; None = nothing to do. Who asks does none at this moment: what is called running is
    failed first (`fail_stale`).

    `lease`: name and epoch under which jobs are done; None = there is no other daemon. Raises Fenced when it is over.
    """
    if not connection.execute(_IS_ANY).scalar_one():  # twice a second: no lock for that
        return None
    fail_stale(connection, at_us, lease=lease)
    return _take(connection, owner, at_us)


def take_for(
    connection: Connection, fleet: str, by: str, owner: str, at_us: int, *, lease: tuple[str, int] | None = None
) -> JobView | None:
    """Take the fleet's job, asked for by `by` unless somebody did: all at once, so that no request is left behind by a
    daemon that dies. The rest as in `take`.
    """
    fail_stale(connection, at_us, lease=lease)
    with suppress(Conflict):
        request(connection, fleet, by, at_us)
    return _take(connection, owner, at_us, fleet)


def _take(connection: Connection, owner: str, at_us: int, fleet: str | None = None) -> JobView | None:
    job_id = connection.execute(_NEXT, {"fleet": fleet}).scalar_one_or_none()
    if job_id is None:
        return None
    row = connection.execute(_TAKE, {"id": job_id, "owner": owner, "at_us": at_us}).one_or_none()
    return None if row is None else _view(row)


_PROGRESS = text("UPDATE job SET progress = :progress, message = :message WHERE id = :id AND state = 'running'")
_DONE = text("""
    UPDATE job SET state = 'done', progress = 1.0, message = '', version = :version, finished_us = :at_us
    WHERE id = :id AND state = 'running'
""")
_FAILED = text("""
    UPDATE job SET state = 'failed', message = :message, finished_us = :at_us WHERE id = :id AND state = 'running'
""")


def progress(connection: Connection, job_id: int, progress: float, message: str) -> None:
    """Say how far a running job is, 0..1. Raises Fenced when it is not running any more."""
    values = {"id": job_id, "progress": progress, "message": message}
    _expect_one(connection.execute(_PROGRESS, values).rowcount, job_id)


def finish(connection: Connection, job_id: int, version: str, at_us: int) -> None:
    """End a running job well; `version` is what came of it. Raises Fenced when it is not running any more."""
    _expect_one(connection.execute(_DONE, {"id": job_id, "version": version, "at_us": at_us}).rowcount, job_id)


def fail(connection: Connection, job_id: int, message: str, at_us: int) -> None:
    """End a running job badly; the message tells the operator why. Raises Fenced when it is not running any more."""
    _expect_one(connection.execute(_FAILED, {"id": job_id, "message": message, "at_us": at_us}).rowcount, job_id)


def _expect_one(n_rows: int, job_id: int) -> None:
    if n_rows != 1:
        raise Fenced(f"job {job_id} is not running: it was given up for dead")


_FAIL_STALE = text("""
    UPDATE job SET state = 'failed', finished_us = :at_us, message = 'its daemon died; ask again'
    WHERE state = 'running'
""")


def fail_stale(connection: Connection, at_us: int, *, lease: tuple[str, int] | None = None) -> int:
    """Fail the jobs that are called running although the only one who may do them does none; return how many.

    `lease`: as in `take`. Whoever did one of them is dead, or will be fenced, or never heard that it took it.
    """
    if lease is not None:
        leases.check(connection, *lease)
    return connection.execute(_FAIL_STALE, {"at_us": at_us}).rowcount


_GET = text(f"SELECT {_COLUMNS} FROM job WHERE id = :id")  # noqa: S608 - a constant


def get(connection: Connection, job_id: int) -> JobView:
    """Return a job. Raises NotFound."""
    row = connection.execute(_GET, {"id": job_id}).one_or_none()
    if row is None:
        raise NotFound(f"job {job_id}")
    return _view(row)


def _view(row: Row[tuple[object, ...]]) -> JobView:
    return JobView(
        id=row.id,
        fleet=row.fleet,
        state=row.state,
        progress=row.progress,
        message=row.message,
        requested_at=from_us(row.requested_us),
        started_at=None if row.started_us is None else from_us(row.started_us),
        finished_at=None if row.finished_us is None else from_us(row.finished_us),
        version=row.version,
        requested_by=row.requested_by,
    )
