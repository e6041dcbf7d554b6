"""The outcome of an attempt that failed."""

from __future__ import annotations

from typing import NamedTuple


class Failure(NamedTuple):
    """The reason why a notification did not arrive."""

    reason: str
    is_refusal: bool = False
    """The same request will fail again until an operator changes the receiver or the configuration."""
    retry_after_s: float | None = None
    """Pause that the receiver asked for."""
