"""Stored results → one word that is equal for equal results, live or replayed, whatever the batches were.

What counts as a result, and why:

- every window: fleet, asset, start, end, how many of its cells are present, verdict, and the version that decided;
- every alert's life: fleet, asset, when it opened, and each transition with its event time, severity and evidence.

What does not, and why:

- raw scores: the last bit of a float moves with the batch a window is scored in. The version stands for the function
  and the window for its input; a verdict would differ only where a score lies within 1e-6 of the threshold.
- Kafka's offsets: they say where a fact was found, not what it is. Without them a file, the same file published to a
  topic, and the live run over that topic agree.
- row ids and processing times: they belong to one database.
- alerts of class `data`: they say how records came to us. A replay meets no gap and asks for no refused asset, so it
  cannot have them.

The law: SHA-256 over the facts in a total order of their own, so that storage order, batches and the interleaving of
partitions cannot show.
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
    from monitor.store.results import LifeFact, WindowFact

_line = msgspec.json.Encoder().encode


def digest_of(reader: Reader, *, from_us: int = FIRST_US, to_us: int = LAST_US, longest_us: int | None = None) -> str:
    """Return the digest of a database's windows that end, and alerts that opened, in (from_us, to_us]."""
    return digest(
        results.windows(reader, from_us, to_us, longest_us=longest_us), results.alert_lives(reader, from_us, to_us)
    )


def digest(windows: Iterable[WindowFact], lives: Iterable[LifeFact]) -> str:
    """Return the digest of facts. `windows`: in order of start; each alert's transitions: in order."""
    sha = hashlib.sha256()
    for _, at_once in itertools.groupby(windows, attrgetter("start_us")):
        for fact in sorted(at_once, key=attrgetter("fleet", "asset")):
            sha.update(_line(fact) + b"\n")
    sha.update(b"alerts\n")
    # Sorting is stable: an alert's own transitions stay in order.
    for life in sorted(lives, key=attrgetter("fleet", "asset", "opened_us")):
        sha.update(_line(life) + b"\n")
    return sha.hexdigest()
