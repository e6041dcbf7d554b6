"""The operators' queries, as SQL that both databases understand. They return plain dictionaries, ready for `--json`.

    backend.py    a SELECT on either database, and the format of times and numbers
    alerts.py     alerts
    answers.py    operators' answers: history, incidents, shelves, maintenance windows, labels of times
    scores.py     windows and their scores
    hours.py      hourly roll-ups of scores
    health.py     figures of alarm health
    evidence.py   the evidence of alerts
    export.py     all rows of a range, for files
    models.py     model versions and training jobs
    notifications.py  the channels of notifications
    preview.py    the alerts that other budgets would have raised
    ingestion.py  fleets, assets, partitions, quarantine and daemons
    console.py    tokens of the console, and changes
    screens.py    counts and glances of the console

Times are returned as ISO 8601 text in UTC. Invariant: the keys are contracts of the command line. They may be added,
never renamed. Nothing slow is imported here, because every read command imports this package.
"""

from __future__ import annotations

from monitor.store.queries.alerts import AlertQueries
from monitor.store.queries.backend import iso, number
from monitor.store.queries.console import ConsoleQueries
from monitor.store.queries.evidence import EvidenceQueries
from monitor.store.queries.export import ExportQueries
from monitor.store.queries.health import HealthQueries
from monitor.store.queries.hours import HourQueries
from monitor.store.queries.ingestion import IngestionQueries
from monitor.store.queries.models import ModelQueries
from monitor.store.queries.notifications import NotificationQueries
from monitor.store.queries.preview import PreviewQueries
from monitor.store.queries.scores import ScoreQueries
from monitor.store.queries.screens import ScreenQueries

__all__ = ["Reader", "iso", "number"]


class Reader(
    ExportQueries,
    AlertQueries,
    EvidenceQueries,
    ScoreQueries,
    HourQueries,
    HealthQueries,
    ModelQueries,
    PreviewQueries,
    IngestionQueries,
    ConsoleQueries,
    ScreenQueries,
    NotificationQueries,
):
    """A database, open for reading, with all queries."""
