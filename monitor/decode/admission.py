"""Which new assets a lane lets in: `max_assets` of them, and `max_new_assets_per_min` within one minute of the log
once the fleet has started there: a plant that is connected sends from all of its assets at once.

Enters: readings whose assets the lane may not know yet. Leaves: those of assets that are in, and a reason for each
record that is kept out. The law: a pure function of the partition's log, in its order. The minutes are those of the
records' Kafka timestamps, never ours (records without one are only counted), so another batching, a replay or a
restart lets in the same names. Whoever is kept out is forgotten: a producer that invents names fills no memory. It may
be let in later, from that record on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from monitor.decode.formatting import quote
from monitor.types import Readings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from monitor.decode.schema import AssetIndex, FleetSchema
    from monitor.types import Int32, RecordBatch

MINUTE_US: Final = 60_000_000
DISORDER_MIN: Final = 5
"""Minutes that a timestamp may lie behind the newest and still count with it: producers disagree a little. One that
lies further behind begins a count of its own, so that no record from the year 9999 stops the count for good."""
START_MIN: Final = 60
"""Minutes of the log that a fleet's start takes, from its first asset in the partition on. Two of its intervals where
that is longer: by then each asset has sent."""
MAX_ELSEWHERE: Final = 10_000
"""Names remembered as another partition's, so that the database is not asked at each of their records."""


class Admission:
    """The door of one lane.

    Invariant: the first `n_settled` names of the index are the lane's; those behind it are strangers that the
    latest batch brought, and are gone with the next one.
    """

    def __init__(
        self,
        index: AssetIndex,
        fleet: FleetSchema,
        *,
        waiting: Iterable[int] = (),
        state: Sequence[int] = (),
        expected: Collection[str] = (),
    ) -> None:
        """`state`: as saved. `waiting`: numbers of names that a batch had let in which was never saved.

        `expected`: names that have their place, though the index has yet to hear of them.
        """
        self._index = index
        self._fleet = fleet
        self._waiting = set(waiting)
        self._expected = frozenset(expected)
        self._elsewhere: set[str] = set()
        self._minute, self._n_new, self._begun = (*state, *(-1, 0, -1)[len(state) :])
        self.n_assets = len(index) - len(self._waiting) + len(self._expected)
        """Which are in, or have their place."""
        index.expect_strangers()

    @property
    def state(self) -> list[int]:
        """What a restart must know: the minute, how many were let in within it, and in which the first was; -1 = none
        yet. Plain JSON.
        """
        return [self._minute, self._n_new, self._begun]

    @property
    def is_asked(self) -> bool:
        """Whether the latest batch may have brought assets that are not in."""
        return bool(self._waiting) or len(self._index) > self._index.n_settled

    # ------------------------------------------------------------------ assets of other partitions

    def strangers(self) -> list[str]:
        """Names whose home is not known."""
        return [name for name in self._index.names[self._index.n_settled :] if name not in self._elsewhere]

    def live_elsewhere(self, names: Collection[str]) -> Int32:
        """Remember that these live in other partitions; return the numbers of all such assets of the latest batch."""
        first = self._index.n_settled
        self._elsewhere.update(names)
        found = {n: name for n, name in enumerate(self._index.names[first:], first) if name in self._elsewhere}
        if len(self._elsewhere) > MAX_ELSEWHERE:
            self._elsewhere = set(found.values())
        return np.array(list(found), np.int32)

    # ------------------------------------------------------------------ ours

    def let_in(self, readings: Readings, batch: RecordBatch) -> tuple[Readings, dict[str, int], dict[int, str]]:
        """Judge every record of an asset that is not in, in the order of the log.

        Returns the readings of assets that are in, under their final numbers; name → offset of its first record, for
        those let in just now; offset → reason, for those kept out.
        """
        outside = readings.asset >= self._index.n_settled
        if self._waiting:
            outside |= np.isin(readings.asset, list(self._waiting))
        rows = np.flatnonzero(outside)
        offsets, first = np.unique(readings.offset[rows], return_index=True)
        stamps = batch.timestamps_us[np.searchsorted(batch.offsets, offsets)]
        let_in: dict[int, int] = {}
        kept_out: dict[int, str] = {}
        for offset, number, stamp in zip(
            offsets.tolist(), readings.asset[rows[first]].tolist(), stamps.tolist(), strict=True
        ):
            if number in let_in:
                continue
            reason = self._why_not(number, stamp)
            if reason is None:
                let_in[number] = offset
                self._waiting.discard(number)
            else:
                kept_out[offset] = reason
        new = [number for number in let_in if number >= self._index.n_settled]
        since = {self._index.names[number]: offset for number, offset in let_in.items()}
        final = self._index.settle(new)
        keep = ~np.isin(readings.offset, list(kept_out)) if kept_out else np.ones(len(readings), np.bool_)
        return (
            Readings(
                readings.fleet,
                final[readings.asset[keep]],
                readings.cell[keep],
                readings.offset[keep],
                readings.values[keep],
            ),
            since,
            kept_out,
        )

    def _why_not(self, number: int, stamp_us: int) -> str | None:
        """Say why this asset is kept out at this record; None = it is in from here on."""
        if self._index.names[number] in self._expected:
            return None
        fleet, name = self._fleet, quote(self._index.names[number])
        if fleet.max_assets is not None and self.n_assets >= fleet.max_assets:
            return (
                f"too_many_assets: fleet {fleet.name} has its {fleet.max_assets} assets in this partition, and {name} "
                "is another one; if it is real, raise the fleet's max_assets"
            )
        if stamp_us >= 0 and fleet.max_new_assets_per_min is not None:
            minute = stamp_us // MINUTE_US
            if not self._minute - DISORDER_MIN <= minute <= self._minute:
                self._minute, self._n_new = minute, 0
            if self._begun < 0:
                self._begun = minute
            if self._n_new >= fleet.max_new_assets_per_min and not self._is_starting(minute):
                return (
                    f"too_many_new_assets: {name} is one new asset too many: fleet {fleet.name} takes "
                    f"{fleet.max_new_assets_per_min} a minute; it is taken when it sends again later. If so many are "
                    "usual, raise the fleet's max_new_assets_per_min"
                )
            self._n_new += 1
        self.n_assets += 1
        return None

    def _is_starting(self, minute: int) -> bool:
        takes = max(START_MIN, -(-2 * self._fleet.interval_us // MINUTE_US))
        return self._begun - DISORDER_MIN <= minute < self._begun + takes
