"""Requirements of a test. `tests/run` lists the skipped tests with their reasons. In CI a skip is a failure."""

from __future__ import annotations

import os

import pytest


def need(condition: object, reason: str) -> None:
    """Skip the test unless `condition` is true. With MONITOR_REQUIRE_ALL=1, fail it instead."""
    if condition:
        return
    if os.environ.get("MONITOR_REQUIRE_ALL") == "1":
        pytest.fail(f"required here, and missing: {reason}", pytrace=False)
    pytest.skip(reason)
