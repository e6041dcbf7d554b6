"""What operators ask, as textual SQL that both databases understand. Plain dictionaries leave, ready for `--json`.

    door.py    how a question is put, and how times and numbers leave
    alerts.py  alerts
    scores.py  windows and their scores
    others.py  quarantine, models, jobs; fleets, assets, partitions, daemons

Times leave as ISO 8601 text in UTC. The contracts of the command line (names and meaning of the keys) live here; keys
may be added, never renamed. Imports nothing heavy: this is on the way of every read command.
"""

from __future__ import annotations

from monitor.store.queries.alerts import Alerts
from monitor.store.queries.backend import iso, number
from monitor.store.queries.others import Others
from monitor.store.queries.scores import Scores

__all__ = ["Reader", "iso", "number"]


class Reader(Alerts, Scores, Others):
    """A database, open for reading: every question that there is."""
