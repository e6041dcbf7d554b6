"""Alembic's migration scripts, part of the wheel. `schema.py` runs them.

For a new revision: change `tables.py`, add `versions/NNNN_<subject>.py` (revision "NNNN", the next number), raise HEAD.
A test compares the tables that the scripts create with `tables.py`, on both databases.
"""

from __future__ import annotations

HEAD = "0006"
"""The revision that this program needs. Revisions are numbers, so that an older one sorts before a newer one."""


def is_own(revision: str | None) -> bool:
    """Return True if the scripts can start from this revision."""
    return revision is None or (revision.isdecimal() and revision <= HEAD)


def mismatch(revision: str | None) -> str | None:
    """Return the reason why this program cannot use a database at `revision`. None = it can."""
    if revision is None:
        return f"it has no tables yet; this program needs revision {HEAD}"
    if not revision.isdecimal():
        return f'it has revision "{revision}" of another program; correct store.url'
    if revision < HEAD:
        return f"it has revision {revision}; this program needs {HEAD}"
    if revision > HEAD:
        return f"it has revision {revision} of a newer monitor; this program knows {HEAD}: upgrade the program instead"
    return None
