"""Topics of which no record can be read, so that a fleet without readings is not a quiet fleet.

Input: the counted outcome of each committed batch. Output: log events when a topic becomes unreadable, and when one of
its records can be read again. Invariant: nothing is stopped. Other topics go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor import logs
from monitor.stream.outcome import REASONS_NOT_COUNTED

if TYPE_CHECKING:
    from monitor.config import Config
    from monitor.stream.outcome import BatchOutcome

log = logs.get("pipeline")

MIN_RECORDS = 20
"""Unreadable records in a row, without a readable one between them, after which a topic is reported."""


class Readability:
    """The topics of one daemon."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._n_bad: dict[str, int] = {}
        """By topic, unreadable records since the last readable one."""
        self.unreadable: dict[str, str] = {}
        """By topic of which no record can be read, the stable word of the latest reason."""

    def committed(self, outcome: BatchOutcome) -> None:
        """Count a batch that was committed."""
        topic, counters = outcome.batch.partition.topic, outcome.counters
        if counters.accepted or counters.late or counters.duplicate:
            self._n_bad[topic] = 0
            if self.unreadable.pop(topic, None) is not None:
                log.info("topic_readable", topic=topic)
            return
        bad = [each for each in outcome.quarantined if not each.reason.startswith(REASONS_NOT_COUNTED)]
        if not bad:
            return
        n_bad = self._n_bad[topic] = self._n_bad.get(topic, 0) + len({each.offset for each in bad})
        if n_bad >= MIN_RECORDS:
            if topic not in self.unreadable:
                log.error(
                    "topic_unreadable",
                    topic=topic,
                    fleets=[fleet.name for fleet in self._config.fleets if topic in self._config.topics_of(fleet)],
                    records=n_bad,
                    reason=bad[-1].reason,
                    fix="`monitor check` shows how its records are read",
                )
            self.unreadable[topic] = bad[-1].word
