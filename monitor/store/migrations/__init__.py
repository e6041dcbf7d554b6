"""Alembic's scripts, inside the wheel. `schema.py` runs them.

A new revision: change `tables.py`, add `versions/NNNN_what.py` (revision "NNNN", the next number), move HEAD.
A test compares what the scripts build with `tables.py`, on both databases.
"""

HEAD = "0001"
"""The revision this program needs. Revisions are numbers, so that an older one sorts before a newer one."""
