"""Logger for tests that records its lines."""

from __future__ import annotations

from typing import Any


class RecordedLog:
    """Logger that records level, event and fields of each line."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **facts: Any) -> None:
        self.lines.append(("debug", event, facts))

    def info(self, event: str, **facts: Any) -> None:
        self.lines.append(("info", event, facts))

    def warning(self, event: str, **facts: Any) -> None:
        self.lines.append(("warning", event, facts))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [facts for _, name, facts in self.lines if name == event]
