"""Admission of new assets to a shard: `max_assets` of them.

Input: readings whose assets the shard may not know yet. Output: the readings of admitted assets, and a reason for each
rejected record. Invariant: a pure function of the partition's log, in its order. Another batching, a replay or a
restart admits the same names.

A rejected asset is reported and then forgotten, so a producer that invents names fills no memory. It can be admitted
later, from that record on, once the limit was raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from monitor.decode.formatting import quote
from monitor.types import Readings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from monitor.decode.schema import AssetIndex, FleetSchema
    from monitor.types import Int32, Int64

MAX_ELSEWHERE: Final = 10_000
"""Names remembered as another partition's, so that the database is not asked at each of their records."""


def first_of_record(readings: Readings, rows: Int64) -> Iterator[tuple[int, int]]:
    """Yield (offset, asset) of each record that has one of these rows: the asset of the first. `rows`: rising."""
    offsets, first = np.unique(readings.offset[rows], return_index=True)
    yield from zip(offsets.tolist(), readings.asset[rows[first]].tolist(), strict=True)


class Admission:
    """The admitted assets of one shard.

    Invariant: the first `n_registered` names of the index are admitted. Those behind them come from the latest batch,
    and are forgotten with the next one unless `admit` registers them.
    """

    def __init__(
        self,
        index: AssetIndex,
        fleet: FleetSchema,
        *,
        waiting: Iterable[int] = (),
        expected: Collection[str] = (),
    ) -> None:
        """`waiting`: indexes of assets that were admitted by a batch whose transaction never came.

        `expected`: names that are admitted already, although the index has not met them yet.
        """
        self._index = index
        self._fleet = fleet
        self.waiting = set(waiting)
        """Indexes of registered assets that are not admitted yet."""
        self._expected = frozenset(expected)
        self._elsewhere: set[str] = set()
        self.n_assets = len(index) - len(self.waiting) + len(self._expected)
        """Number of admitted assets."""
        index.defer_registration()

    @property
    def is_pending(self) -> bool:
        """Whether the latest batch may have assets that are not admitted."""
        return bool(self.waiting) or len(self._index) > self._index.n_registered

    def unknown_names(self) -> list[str]:
        """Return the names of the latest batch whose partition is not known."""
        return [name for name in self._index.names[self._index.n_registered :] if name not in self._elsewhere]

    def exclude(self, names: Collection[str]) -> Int32:
        """Remember names as other partitions' assets. Return the indexes of all such assets of the latest batch."""
        first = self._index.n_registered
        self._elsewhere.update(names)
        found = {n: name for n, name in enumerate(self._index.names[first:], first) if name in self._elsewhere}
        if len(self._elsewhere) > MAX_ELSEWHERE:
            self._elsewhere = set(found.values())
        return np.array(list(found), np.int32)

    def admit(self, readings: Readings) -> tuple[Readings, dict[str, int], dict[int, str]]:
        """Admit or reject every asset that is not admitted, in the order of the log.

        A record may have readings of several assets: only those of rejected ones are left out.

        Returns (readings of admitted assets, under their final indexes) · (name → offset of its first record, for
        assets admitted just now) · (offset → reason, for records with a reading of a rejected asset).
        """
        is_outside = readings.asset >= self._index.n_registered
        if self.waiting:
            is_outside |= np.isin(readings.asset, list(self.waiting))
        rows = np.flatnonzero(is_outside)
        first = np.sort(np.unique(readings.asset[rows], return_index=True)[1])
        admitted: dict[int, int] = {}
        rejected: dict[int, str] = {}
        """By asset, the reason."""
        for row in rows[first].tolist():
            number = int(readings.asset[row])
            reason = self._reject_reason(self._index.names[number])
            if reason is None:
                admitted[number] = int(readings.offset[row])
                self.waiting.discard(number)
            else:
                rejected[number] = reason
        since = {self._index.names[number]: offset for number, offset in admitted.items()}
        final = self._index.commit([number for number in admitted if number >= self._index.n_registered])
        is_rejected = np.isin(readings.asset, list(rejected))
        reasons = {
            offset: rejected[number] for offset, number in first_of_record(readings, np.flatnonzero(is_rejected))
        }
        keep = ~is_rejected
        return (
            Readings(
                readings.fleet,
                final[readings.asset[keep]],
                readings.cell[keep],
                readings.offset[keep],
                readings.values[keep],
            ),
            since,
            reasons,
        )

    def _reject_reason(self, name: str) -> str | None:
        """Return the reason to reject this asset now. None = it is admitted, and counts from here on."""
        if name in self._expected:
            return None
        fleet = self._fleet
        if fleet.max_assets is not None and self.n_assets >= fleet.max_assets:
            return (
                f"too_many_assets: fleet {fleet.name} has its {fleet.max_assets} assets in this partition, and "
                f"{quote(name)} is another one; if it is real, raise the fleet's max_assets"
            )
        self.n_assets += 1
        return None
