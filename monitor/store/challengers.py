"""Challengers: versions that wait for a decision, as candidates or in shadow.

Input: versions of trainings, and decisions of the daemon. Output: changes of the registry. Invariant: of a fleet at
most one version waits. A newer one supersedes it. A decision of the daemon holds only while the version still waits: an
operator who promoted or rejected it meanwhile wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from monitor.store import leases, registry, versions
from monitor.store.acts import MONITOR
from monitor.types import Alias, ModelState

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.store.registry import Verdict
    from monitor.store.versions import NewVersion
    from monitor.types import VersionInfo

WAITING = (ModelState.CANDIDATE, ModelState.SHADOW)


def waiting(connection: Connection, fleet: str) -> VersionInfo | None:
    """Return the fleet's version that waits for a decision. None = there is none."""
    challenger = registry.aliases(connection, fleet).get(Alias.CHALLENGER)
    found = None if challenger is None else versions.find(connection, challenger)
    return found if found is not None and found.state in WAITING else None


def publish(
    connection: Connection,
    *,
    state: ModelState,
    verdict: Verdict | None,
    at_us: int,
    lease: tuple[str, int] | None,
    note: str = "",
    **new: Unpack[NewVersion],
) -> str:
    """Publish a trained version that does not decide yet, and return its state. The one that waited before is rejected.

    The state is another one where the training found the champion again, or a version that was rolled back. Then the
    one that waited still waits. Raises what `registry.publish` raises.
    """
    if lease is not None:
        leases.check(connection, *lease)
    versions.lock_states(connection, new["fleet"])  # an operator may decide on the former one at this moment
    former = waiting(connection, new["fleet"])
    how: dict[str, Any] = {"actor": MONITOR, "at_us": at_us, "note": note, "lease": lease}
    registry.publish(connection, state=state, verdict=verdict, **how, **new)
    found = versions.find(connection, new["version"]).state
    if former is not None and former.version != new["version"] and found in WAITING:
        _supersede(connection, former, by=new["version"], at_us=at_us)
    return found


def supersede(connection: Connection, fleet: str, by: str, at_us: int) -> None:
    """Reject the version that waits because a newer one has become the champion."""
    versions.lock_states(connection, fleet)
    former = waiting(connection, fleet)
    if former is not None and former.version != by:
        _supersede(connection, former, by=by, at_us=at_us)


def settle(
    connection: Connection,
    fleet: str,
    version: str,
    state: ModelState,
    *,
    verdict: Verdict,
    at_us: int,
    lease: tuple[str, int] | None,
    note: str,
) -> bool:
    """Promote or reject a version in shadow. Return False if it is no longer in shadow: somebody else has decided.

    `state`: champion or rejected. Raises Fenced when the lease is lost.
    """
    if lease is not None:
        leases.check(connection, *lease)
    versions.lock_activations(connection, fleet)
    if versions.find(connection, version).state != ModelState.SHADOW:
        return False
    if state == ModelState.CHAMPION:
        registry.promote(connection, fleet, version, actor=MONITOR, at_us=at_us, note=note, verdict=verdict)
    else:
        registry.reject(connection, version, actor=MONITOR, at_us=at_us, note=note, verdict=verdict)
    return True


def _supersede(connection: Connection, former: VersionInfo, *, by: str, at_us: int) -> None:
    registry.reject(connection, former.version, actor=MONITOR, at_us=at_us, note=f"superseded by {by}")
