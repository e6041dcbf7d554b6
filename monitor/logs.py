"""Structured logging on stderr, in one format for monitor and its libraries.

Input: structlog calls of monitor, and stdlib records of aiokafka, SQLAlchemy, Alembic and uvicorn. Output: coloured
lines on a terminal, one JSON object a line elsewhere. Invariant: no line per reading (13 µs each).

    log = logs.get("daemon")
    log.info("partition_claimed", partition="plant.readings/3", next_offset=4711)

Commands that log import this module inside their function: structlog takes 0.25 s.
"""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime
from io import StringIO
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from monitor.printable import escape_unprintable

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger
    from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

CHATTY = ("aiokafka", "alembic", "asyncio", "sqlalchemy", "uvicorn")
"""Libraries of which records below `warning` are dropped, unless the level is debug."""

REPEAT_AFTER_S = 30.0
"""For so long, repetitions of a library's message are dropped."""

_FIRST = ("timestamp", "level", "logger", "event")


def configure(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:  # noqa: A002 (the setting's name)
    """Set up logging for this process. A second call replaces the first."""
    stream = stream or sys.stderr
    is_console = format == "console" or (format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ" if is_console else "iso", utc=True),
        _iso_times,
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[Processor] = (
        [
            _escape_values,
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), pad_event_to=28, exception_formatter=_write_traceback
            ),
        ]
        if is_console
        else [structlog.processors.format_exc_info, _ordered, structlog.processors.JSONRenderer(default=str)]
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(_RepeatFilter())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # a test or a child process configures again
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    for name in CHATTY:
        logging.getLogger(name).setLevel(number if number <= logging.DEBUG else max(number, logging.WARNING))
    logging.captureWarnings(capture=True)


class _RepeatFilter(logging.Filter):
    """Drops repeated messages of a library for 30 s.

    During an outage of the broker aiokafka writes 200 lines a second, and would hide monitor's single line.
    """

    def __init__(self) -> None:
        super().__init__()
        self._logged_at: dict[tuple[str, str], float] = {}
        """By logger and message template, monotonic seconds."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep monitor's records, and the first of each message of a library."""
        if not record.name.startswith(CHATTY):
            return True
        now, key = time.monotonic(), (record.name, str(record.msg))
        if now - self._logged_at.get(key, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return False
        self._logged_at[key] = now
        return True


def _iso_times(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Write every time as the timestamp is written: ISO 8601 in UTC."""
    for key, value in event.items():
        if isinstance(value, datetime):
            event[key] = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return event


def _escape_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what would command the terminal, as a producer's name may. `repr` and JSON escape it anyway."""
    return {k: escape_unprintable(v, keep="\n") if isinstance(v, str) else v for k, v in event.items()}


def _write_traceback(stream: TextIO, error: ExcInfo) -> None:
    """Write a traceback without local variables: among them are passwords, and a batch fills a screen."""
    text = StringIO()
    structlog.dev.plain_traceback(text, error)
    stream.write(escape_unprintable(text.getvalue(), keep="\n"))


def get(name: str) -> BoundLogger:
    """Return the logger of one part of monitor, such as "daemon" or "source"."""
    logger: BoundLogger = structlog.stdlib.get_logger(f"monitor.{name}")
    return logger


def _ordered(_logger: WrappedLogger, _method: str, event: EventDict) -> dict[str, Any]:
    """Put timestamp, level, logger and event first: people also read the JSON lines."""
    return {key: event[key] for key in _FIRST if key in event} | dict(event)
