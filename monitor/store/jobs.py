"""Jobs of the training process: request, state, owner and result. Times are processing time.

Invariant: a fleet has at most one job of a kind that is queued or running. A unique index refuses a second one. Of
several daemons, the holder of the training lease runs the jobs. A daemon that lost the lease while it was suspended can
neither start a job nor take up another's (`store/leases.py`). A job outlives its daemon: it is queued again, and given
up only after `MAX_ATTEMPTS` starts.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from monitor.clock import from_us
from monitor.errors import Conflict, Fenced, NotFound
from monitor.store import assets, leases
from monitor.types import JobView

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Row

MAX_ATTEMPTS = 3
"""Starts of a job whose daemons died. A job that kills its machine, for lack of memory, must not do so for ever."""

RETRAIN, DRILL, JUDGE = "retrain", "drill", "judge"

_COLUMNS = """id, fleet, state, progress, message, requested_us, started_us, finished_us, version, requested_by,
    kind, reason, note, detail, attempts"""

_REQUEST = text(f"""
    INSERT INTO job (kind, fleet, state, progress, message, requested_by, requested_us, reason, note, detail)
    VALUES (:kind, :fleet, 'queued', 0.0, '', :requested_by, :at_us, :reason, :note, :detail)
    ON CONFLICT DO NOTHING
    RETURNING {_COLUMNS}
""")  # noqa: S608 - a constant
_ACTIVE = text(f"""
    SELECT {_COLUMNS} FROM job WHERE fleet = :fleet AND kind = :kind AND state IN ('queued', 'running')
""")  # noqa: S608 - a constant


def request(
    connection: Connection,
    fleet: str,
    by: str,
    at_us: int,
    kind: str = RETRAIN,
    *,
    reason: str = "operator",
    note: str = "",
    detail: Mapping[str, Any] | None = None,
) -> JobView:
    """Queue a job. Raises Conflict, which names the fleet's active job of this kind.

    `reason`: first, schedule, drift, regime, sensors or operator.
    """
    assets.ensure_fleet(connection, fleet)
    values = {"kind": kind, "fleet": fleet, "requested_by": by, "at_us": at_us, "reason": reason, "note": note}
    values["detail"] = None if detail is None else json.dumps(detail, allow_nan=False)
    row = connection.execute(_REQUEST, values).one_or_none()
    if row is not None:
        return _view(row)
    job = active(connection, fleet, kind)
    if job is None:  # it ended between the two statements
        raise Conflict(f"{fleet} had a job that ended just now; ask again")
    progress = f", {job.progress:.0%} done" if job.state == "running" else ""
    raise Conflict(
        f"job {job.id} for {fleet} is {job.state}{progress}, asked for by {job.requested_by or 'the schedule'}"
    )


def active(connection: Connection, fleet: str, kind: str = RETRAIN) -> JobView | None:
    """Return the fleet's job of a kind that is queued or running."""
    row = connection.execute(_ACTIVE, {"fleet": fleet, "kind": kind}).one_or_none()
    return None if row is None else _view(row)


_IS_ANY = text("SELECT EXISTS (SELECT 1 FROM job WHERE state IN ('queued', 'running'))")
# Trainings first: a comparison or a drill can wait, and a person may be waiting for the training.
_NEXT = text("""
    SELECT id FROM job WHERE state = 'queued' AND fleet = COALESCE(:fleet, fleet) AND kind = COALESCE(:kind, kind)
    ORDER BY CASE WHEN kind = 'retrain' THEN 0 ELSE 1 END, id LIMIT 1
""")
_START = text(f"""
    UPDATE job SET state = 'running', owner = :owner, started_us = :at_us, progress = 0.0, message = '',
        attempts = attempts + 1
    WHERE id = :id AND state = 'queued'
    RETURNING {_COLUMNS}
""")  # noqa: S608 - a constant


def start_next(
    connection: Connection, owner: str, at_us: int, *, lease: tuple[str, int] | None = None
) -> JobView | None:
    """Start the oldest queued job, trainings first. None = there is none.

    Queues stale jobs again first: the caller runs none, so any job still marked `running` was orphaned. `lease`: name
    and epoch of the training lease. None = there is no other daemon. Raises Fenced when the lease is lost.
    """
    if not connection.execute(_IS_ANY).scalar_one():  # called twice a second: no lock while there is no job
        return None
    take_up_stale(connection, at_us, lease=lease)
    return _start(connection, owner, at_us)


def start_for_fleet(
    connection: Connection,
    fleet: str,
    by: str,
    owner: str,
    at_us: int,
    *,
    lease: tuple[str, int] | None = None,
    reason: str = "schedule",
    kind: str = RETRAIN,
    detail: Mapping[str, Any] | None = None,
) -> JobView | None:
    """Start the fleet's queued job of a kind, or a new one requested by `by`. Otherwise like `start_next`.

    Request and start are one transaction: a daemon that dies leaves no request behind.
    """
    take_up_stale(connection, at_us, lease=lease)
    with suppress(Conflict):
        request(connection, fleet, by, at_us, kind, reason=reason, detail=detail)
    return _start(connection, owner, at_us, fleet, kind)


def _start(
    connection: Connection, owner: str, at_us: int, fleet: str | None = None, kind: str | None = None
) -> JobView | None:
    job_id = connection.execute(_NEXT, {"fleet": fleet, "kind": kind}).scalar_one_or_none()
    if job_id is None:
        return None
    row = connection.execute(_START, {"id": job_id, "owner": owner, "at_us": at_us}).one_or_none()
    return None if row is None else _view(row)


_ITS_RUN = "WHERE id = :id AND state = 'running' AND owner = COALESCE(:owner, owner)"
_PROGRESS = text(f"UPDATE job SET progress = :progress, message = :message {_ITS_RUN}")  # noqa: S608 - a constant
_DONE = text(f"""
    UPDATE job SET state = 'done', progress = 1.0, message = :message, version = :version, finished_us = :at_us
    {_ITS_RUN}
""")  # noqa: S608 - a constant
_FAILED = text(f"""
    UPDATE job SET state = 'failed', message = :message, finished_us = :at_us {_ITS_RUN}
""")  # noqa: S608 - a constant
_RELEASED = text(f"""
    UPDATE job SET state = 'queued', owner = NULL, started_us = NULL, progress = 0.0, message = :message,
        attempts = attempts - 1
    {_ITS_RUN}
""")  # noqa: S608 - a constant

# `owner` below: the daemon that started the job, None = any. Another daemon may run the job by now: this one was
# suspended and given up for dead.


def set_progress(
    connection: Connection, job_id: int, progress: float, message: str, *, owner: str | None = None
) -> None:
    """Store the progress of a running job, 0..1. Raises Fenced if this daemon's run of it is over."""
    values = {"id": job_id, "progress": progress, "message": message, "owner": owner}
    _expect_one(connection.execute(_PROGRESS, values).rowcount, job_id)


def finish(
    connection: Connection, job_id: int, version: str | None, at_us: int, message: str = "", *, owner: str | None = None
) -> None:
    """Mark a running job as done, with the version it made. Raises Fenced if this daemon's run of it is over.

    `message`: its outcome in one sentence, where there is more to say than the version.
    """
    values = {"id": job_id, "version": version, "at_us": at_us, "message": message, "owner": owner}
    _expect_one(connection.execute(_DONE, values).rowcount, job_id)


def fail(connection: Connection, job_id: int, message: str, at_us: int, *, owner: str | None = None) -> None:
    """Mark a running job as failed, with the reason. Raises Fenced if this daemon's run of it is over."""
    values = {"id": job_id, "message": message, "at_us": at_us, "owner": owner}
    _expect_one(connection.execute(_FAILED, values).rowcount, job_id)


def release(connection: Connection, job_id: int, message: str, *, owner: str | None = None) -> None:
    """Queue a running job again because its daemon stops. Raises Fenced if this daemon's run of it is over."""
    values = {"id": job_id, "message": message, "owner": owner}
    _expect_one(connection.execute(_RELEASED, values).rowcount, job_id)


def _expect_one(n_rows: int, job_id: int) -> None:
    if n_rows != 1:
        raise Fenced(f"job {job_id} is not running here: this daemon was given up for dead")


_GIVE_UP_STALE = text("""
    UPDATE job SET state = 'failed', finished_us = :at_us,
        message = 'given up after ' || attempts || ' attempts: the daemon died during each, the last at: ' || message
    WHERE state = 'running' AND attempts >= :max_attempts
""")
_QUEUE_STALE = text("""
    UPDATE job SET state = 'queued', owner = NULL, started_us = NULL, progress = 0.0,
        message = 'its daemon died, and the next one starts it again'
    WHERE state = 'running'
""")


def take_up_stale(connection: Connection, at_us: int, *, lease: tuple[str, int] | None = None) -> int:
    """Queue all jobs marked `running` again, and return their number. Call it only while this daemon runs no job.

    A job that was started `MAX_ATTEMPTS` times fails instead. `lease`: as in `start_next`. The owner of a stale job is
    dead, will be fenced, or did not receive the answer to its start.
    """
    if lease is not None:
        leases.check(connection, *lease)
    n_failed = connection.execute(_GIVE_UP_STALE, {"at_us": at_us, "max_attempts": MAX_ATTEMPTS}).rowcount
    return n_failed + connection.execute(_QUEUE_STALE).rowcount


_GET = text(f"SELECT {_COLUMNS} FROM job WHERE id = :id")  # noqa: S608 - a constant
_ENDED = text(f"""
    SELECT {_COLUMNS} FROM job WHERE fleet = :fleet AND kind = :kind AND state IN ('done', 'failed')
    ORDER BY id DESC LIMIT :limit
""")  # noqa: S608 - a constant


def get(connection: Connection, job_id: int) -> JobView:
    """Return a job. Raises NotFound."""
    row = connection.execute(_GET, {"id": job_id}).one_or_none()
    if row is None:
        raise NotFound(f"job {job_id}")
    return _view(row)


def ended(connection: Connection, fleet: str, kind: str = RETRAIN, limit: int = 20) -> list[JobView]:
    """Return the fleet's last jobs of a kind that are done or failed, newest first."""
    return [_view(row) for row in connection.execute(_ENDED, {"fleet": fleet, "kind": kind, "limit": limit})]


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
        kind=row.kind,
        reason=row.reason,
        note=row.note,
        detail=None if row.detail is None else json.loads(row.detail),
        attempts=row.attempts,
    )
