"""Training jobs: request, state, owner and result. Times are processing time.

Invariant: a fleet has at most one job that is queued or running. A unique index refuses a second one. Of several
daemons, the holder of the training lease runs the jobs. A daemon that lost the lease while it was suspended can neither
start a job nor fail another's (`store/leases.py`).
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
    """Queue a job. Raises Conflict, which names the fleet's active job."""
    assets.ensure_fleet(connection, fleet)
    values = {"kind": kind, "fleet": fleet, "requested_by": by, "at_us": at_us}
    row = connection.execute(_REQUEST, values).one_or_none()
    if row is not None:
        return _view(row)
    job = active(connection, fleet)
    if job is None:  # it ended between the two statements
        raise Conflict(f"{fleet} had a job that ended just now; ask again")
    progress = f", {job.progress:.0%} done" if job.state == "running" else ""
    raise Conflict(
        f"job {job.id} for {fleet} is {job.state}{progress}, asked for by {job.requested_by or 'the schedule'}"
    )


def active(connection: Connection, fleet: str) -> JobView | None:
    """Return the fleet's job that is queued or running."""
    row = connection.execute(_ACTIVE, {"fleet": fleet}).one_or_none()
    return None if row is None else _view(row)


_IS_ANY = text("SELECT EXISTS (SELECT 1 FROM job WHERE state IN ('queued', 'running'))")
_NEXT = text("""
    SELECT id FROM job WHERE state = 'queued' AND fleet = COALESCE(:fleet, fleet) ORDER BY id LIMIT 1
""")
_START = text(f"""
    UPDATE job SET state = 'running', owner = :owner, started_us = :at_us WHERE id = :id AND state = 'queued'
    RETURNING {_COLUMNS}
""")  # noqa: S608 - a constant


def start_next(
    connection: Connection, owner: str, at_us: int, *, lease: tuple[str, int] | None = None
) -> JobView | None:
    """Start the oldest queued job. None = there is none.

    Fails stale jobs first: the caller runs none, so any job still marked `running` was orphaned. `lease`: name and
    epoch of the training lease. None = there is no other daemon. Raises Fenced when the lease is lost.
    """
    if not connection.execute(_IS_ANY).scalar_one():  # called twice a second: no lock while there is no job
        return None
    fail_stale(connection, at_us, lease=lease)
    return _start(connection, owner, at_us)


def start_for_fleet(
    connection: Connection, fleet: str, by: str, owner: str, at_us: int, *, lease: tuple[str, int] | None = None
) -> JobView | None:
    """Start the fleet's queued job, or a new one requested by `by`. Otherwise like `start_next`.

    Request and start are one transaction: a daemon that dies leaves no request behind.
    """
    fail_stale(connection, at_us, lease=lease)
    with suppress(Conflict):
        request(connection, fleet, by, at_us)
    return _start(connection, owner, at_us, fleet)


def _start(connection: Connection, owner: str, at_us: int, fleet: str | None = None) -> JobView | None:
    job_id = connection.execute(_NEXT, {"fleet": fleet}).scalar_one_or_none()
    if job_id is None:
        return None
    row = connection.execute(_START, {"id": job_id, "owner": owner, "at_us": at_us}).one_or_none()
    return None if row is None else _view(row)


_PROGRESS = text("UPDATE job SET progress = :progress, message = :message WHERE id = :id AND state = 'running'")
_DONE = text("""
    UPDATE job SET state = 'done', progress = 1.0, message = '', version = :version, finished_us = :at_us
    WHERE id = :id AND state = 'running'
""")
_FAILED = text("""
    UPDATE job SET state = 'failed', message = :message, finished_us = :at_us WHERE id = :id AND state = 'running'
""")


def set_progress(connection: Connection, job_id: int, progress: float, message: str) -> None:
    """Store the progress of a running job, 0..1. Raises Fenced if the job is no longer running."""
    values = {"id": job_id, "progress": progress, "message": message}
    _expect_one(connection.execute(_PROGRESS, values).rowcount, job_id)


def finish(connection: Connection, job_id: int, version: str, at_us: int) -> None:
    """Mark a running job as done, with the version it made. Raises Fenced if the job is no longer running."""
    _expect_one(connection.execute(_DONE, {"id": job_id, "version": version, "at_us": at_us}).rowcount, job_id)


def fail(connection: Connection, job_id: int, message: str, at_us: int) -> None:
    """Mark a running job as failed, with the reason. Raises Fenced if the job is no longer running."""
    _expect_one(connection.execute(_FAILED, {"id": job_id, "message": message, "at_us": at_us}).rowcount, job_id)


def _expect_one(n_rows: int, job_id: int) -> None:
    if n_rows != 1:
        raise Fenced(f"job {job_id} is not running: it was given up for dead")


_FAIL_STALE = text("""
    UPDATE job SET state = 'failed', finished_us = :at_us, message = 'its daemon died; ask again'
    WHERE state = 'running'
""")


def fail_stale(connection: Connection, at_us: int, *, lease: tuple[str, int] | None = None) -> int:
    """Fail all jobs marked `running` and return their number. Call it only while this daemon runs no job.

    `lease`: as in `start_next`. The owner of a stale job is dead, will be fenced, or did not receive the answer to its
    start.
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
