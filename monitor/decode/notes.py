"""Findings about the accepted records of one batch, collected until they are `Notice`s.

Input: one finding after the other. Output: one notice per kind, fleet and subject. Invariant: bounded, whatever names a
producer invents.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from monitor.decode.schema import Token, asset_name
from monitor.printable import MAX_NAME, escape_unprintable
from monitor.types import Notice

if TYPE_CHECKING:
    from monitor.types import RecordBatch

_MAX_SUBJECTS: Final = 64
_MAX_ASSETS: Final = 1_000


@dataclass(slots=True)
class _Note:
    detail: str
    position: int
    n_records: int = 0
    last: int = -1
    assets: set[str] = field(default_factory=set)


class Notes:
    """The findings of one batch."""

    def __init__(self, batch: RecordBatch) -> None:
        self._batch = batch
        self._notes: dict[tuple[str, str, str], _Note] = {}

    def add(self, kind: str, fleet: str, subject: str, detail: str, position: int, token: Token) -> None:
        """Add a finding in the record at a position."""
        note = self._notes.get((kind, fleet, subject))
        if note is None:
            if len(self._notes) >= _MAX_SUBJECTS:
                return
            note = self._notes[kind, fleet, subject] = _Note(detail, position)
        if position < note.position:
            note.position, note.detail = position, detail
        if position != note.last:
            note.n_records, note.last = note.n_records + 1, position
        if len(note.assets) < _MAX_ASSETS:
            note.assets.add(asset_name(token))

    def notices(self) -> tuple[Notice, ...]:
        """Return the notices in the order of their first records. A subject is text that a database can store."""
        return tuple(
            Notice(
                kind,
                fleet,
                escape_unprintable(subject[:MAX_NAME]),
                note.detail,
                int(self._batch.offsets[note.position]),
                note.n_records,
                frozenset(note.assets),
            )
            for (kind, fleet, subject), note in sorted(
                self._notes.items(), key=lambda each: (each[1].position, each[0])
            )
        )
