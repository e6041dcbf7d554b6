"""Log lines: an event and its facts, on stderr, alike whoever wrote them.

Enters: structlog calls of ours and stdlib records of aiokafka, SQLAlchemy and Alembic. Leaves: coloured lines on a
terminal, one JSON object a line elsewhere. Law: never a line per reading (13 µs each).

    log = logs.get("daemon")
    log.info("partition_claimed", partition="plant.readings/3", next_offset=4711)

Import it inside the commands that log: structlog costs 0.25 s.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger
    from structlog.typing import EventDict, Processor, WrappedLogger

CHATTY = ("aiokafka", "alembic", "asyncio", "sqlalchemy")
"""Libraries heard from `warning` on, unless the level is debug."""

SAME_AGAIN_S = 30.0
"""How long a library that said something keeps quiet about it."""

# Tracebacks without local variables: among them are passwords, and a batch of readings fills a screen.
_PLAIN = structlog.dev.plain_traceback
_FIRST = ("timestamp", "level", "logger", "event")


def configure(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:  # noqa: A002 (the setting's name)
    """Set up logging for this process; calling it again replaces what was there."""
    stream = stream or sys.stderr
    is_console = format == "console" or (format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if is_console else "iso", utc=not is_console),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=28, exception_formatter=_PLAIN)]
        if is_console
        else [structlog.processors.format_exc_info, _ordered, structlog.processors.JSONRenderer(default=str)]
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(_Patience())
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
        cache_logger_on_first_use=False,  # a test, or a child process, configures again
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


class _Patience(logging.Filter):
    """Lets a library say the same thing once in a while.

    While a broker is away aiokafka writes 200 lines a second, and ours, which says so once, would drown in them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep our own lines, and the first of its kind of anybody else's."""
        if not record.name.startswith(CHATTY):
            return True
        now, key = time.monotonic(), (record.name, str(record.msg))
        if now - self._said.get(key, -SAME_AGAIN_S) < SAME_AGAIN_S:
            return False
        self._said[key] = now
        return True


def get(name: str) -> BoundLogger:
    """Get the logger of one part of monitor: "daemon", "source", "retrain"."""
    logger: BoundLogger = structlog.stdlib.get_logger(f"monitor.{name}")
    return logger


def _ordered(_logger: WrappedLogger, _method: str, event: EventDict) -> dict[str, Any]:
    """Put time, level, who and what first: people read JSON lines too."""
    return {key: event[key] for key in _FIRST if key in event} | dict(event)
