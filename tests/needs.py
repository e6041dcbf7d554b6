"""What a test needs of the machine. `tests/run` skips what is not there and says why; `.ci/run` allows no skip."""

from __future__ import annotations

import os

import pytest


def need(condition: object, reason: str) -> None:
    """Skip the test unless `condition` holds; fail it where everything is required (MONITOR_REQUIRE_ALL=1)."""
    if condition:
        return
    if os.environ.get("MONITOR_REQUIRE_ALL") == "1":
        pytest.fail(f"required here, and missing: {reason}", pytrace=False)
    pytest.skip(reason)
