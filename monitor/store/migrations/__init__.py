"""Alembic's scripts, inside the wheel. `schema.py` runs them.

A new revision: change `tables.py`, add `versions/NNNN_what.py` (revision "NNNN", the next number), move HEAD.
A test compares what the scripts build with `tables.py`, on both databases.
"""

from __future__ import annotations

HEAD = "0002"
"""The revision this program needs. Revisions are numbers, so that an older one sorts before a newer one."""


def mismatch(revision: str | None) -> str | None:
    """Say why a database at `revision` cannot be used by this program; None = it can."""
    if revision is None:
        return f"it has no tables yet; this program needs revision {HEAD}"
    if revision < HEAD:
        return f"it has revision {revision}; this program needs {HEAD}"
    if revision > HEAD:
        return f"it has revision {revision} of a newer monitor; this program knows {HEAD}: upgrade the program instead"
    return None
