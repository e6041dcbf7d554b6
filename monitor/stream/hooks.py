"""Extension points of the pipeline, for runs that are not live: replay and benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.stream.alerting import AlertPolicy, Decider

if TYPE_CHECKING:
    from monitor.config import FleetConfig
    from monitor.decode import AssetIndex
    from monitor.store.commit import Commit
    from monitor.stream.partition import PartitionState
    from monitor.types import Readings, RecordBatch


class PipelineHooks:
    """The extension points, with the behaviour of the live daemon. Override those that a run needs."""

    enforces_limits = True
    """Whether `max_assets` and `max_quarantine_share` count: no, where live has accounted for the same records."""

    def select(self, state: PartitionState, readings: Readings) -> Readings:  # noqa: ARG002
        """Return those of a batch's readings that enter the windows."""
        return readings

    def make_decider(self, fleet: FleetConfig, assets: AssetIndex) -> Decider:  # noqa: ARG002
        """Make the decider of a shard. `assets`: its names, by asset index."""
        return Decider(fleet.name, AlertPolicy.of(fleet.alerts))

    def on_commit(self, state: PartitionState, commit: Commit, batch: RecordBatch) -> bool:  # noqa: ARG002
        """Note a commit. Return whether later records of the partition matter.

        The run ends once no partition has any more records that do.
        """
        return True
