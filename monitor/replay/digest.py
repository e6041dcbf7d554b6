"""Stored results → one hash that is equal for equal results, live or replayed, with any batch sizes.

Counted as a result:

- each window: fleet, asset, start, end, number of present cells, verdict, and the version that scored it
- each alert: fleet, asset, opening time, and each transition with its event time, severity and evidence

Left out, with the reason:

- Raw scores. The last bit of a float depends on the batch in which a window is scored. The version identifies the
  function and the window its input. A verdict can differ only where a score lies within 1e-6 of the threshold.
- Kafka offsets. They are the position of a record, not its content. Without them a file, the same file published to a
  topic, and the live run over that topic have one digest.
- Row ids and processing times. They belong to one database.
- Alerts of class `data`. They describe how records arrived. A replay meets no gap and creates no refused asset, so it
  cannot produce them.

Invariant: SHA-256 over the results in a total order, so the digest depends neither on storage order nor on batches nor
on the interleaving of partitions.
"""

from __future__ import annotations

import hashlib
import itertools
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from monitor.store import results
from monitor.store.results import FIRST_US, LAST_US

if TYPE_CHECKING:
    from collections.abc import Iterable

    from monitor.store.queries import Reader
    from monitor.store.results import TransitionRow, WindowRow

_line = msgspec.json.Encoder().encode


def digest_of(reader: Reader, *, from_us: int = FIRST_US, to_us: int = LAST_US) -> str:
    """Return the digest of a database: windows that end, and alerts that opened, in (from_us, to_us]."""
    return digest(results.windows(reader, from_us, to_us), results.alert_transitions(reader, from_us, to_us))


def digest(windows: Iterable[WindowRow], transitions: Iterable[TransitionRow]) -> str:
    """Return the digest of results. `windows` are in order of start, the transitions of each alert in order."""
    sha = hashlib.sha256()
    for _, at_once in itertools.groupby(windows, attrgetter("start_us")):
        for window in sorted(at_once, key=attrgetter("fleet", "asset")):
            sha.update(_line(window) + b"\n")
    sha.update(b"alerts\n")
    # The sort is stable, so the transitions of one alert keep their order.
    for transition in sorted(transitions, key=attrgetter("fleet", "asset", "opened_us")):
        sha.update(_line(transition) + b"\n")
    return sha.hexdigest()
