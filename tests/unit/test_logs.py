from __future__ import annotations

import io
import json
import logging
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from monitor import logs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    logging.captureWarnings(capture=False)


def lines(level: str = "info") -> tuple[io.StringIO, Any]:
    stream = io.StringIO()
    logs.configure(level, "json", stream)
    return stream, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_of_libraries_have_our_keys() -> None:
    _, read = lines()
    logs.get("daemon").info("partition_claimed", partition="plant/3")
    logging.getLogger("aiokafka.consumer").warning("Heartbeat failed: %s", "why", extra={"node": 1})
    own, library = read()
    assert own == {
        "timestamp": own["timestamp"], "level": "info", "logger": "monitor.daemon", "event": "partition_claimed",
        "partition": "plant/3",
    }  # fmt: skip
    assert (library["event"], library["level"], library["node"]) == ("Heartbeat failed: why", "warning", 1)
    assert own["timestamp"].endswith("Z")
    assert list(own)[:4] == list(library)[:4] == ["timestamp", "level", "logger", "event"]


def test_libraries_are_logged_from_warning_on() -> None:
    _, read = lines("info")
    logs.get("x").debug("never")
    logging.getLogger("aiokafka").info("never")
    logging.getLogger("sqlalchemy.engine").info("never")
    assert read() == []
    _, read = lines("debug")
    logging.getLogger("aiokafka").info("now")
    assert [line["event"] for line in read()] == ["now"]


def test_a_traceback_shows_no_local_variable() -> None:
    stream, read = lines()
    password = "hunter2"
    try:
        int(password)
    except ValueError:
        logs.get("x").exception("failed")
    [line] = read()
    assert "ValueError" in line["exception"]
    logs.configure("info", "console", stream)
    try:
        int(password)
    except ValueError:
        logs.get("x").exception("failed")
    assert "Traceback" in stream.getvalue()
    assert "password =" not in stream.getvalue(), "a local variable"
    assert "'password'" not in stream.getvalue(), "a local variable"


def test_a_second_configuration_replaces_the_first() -> None:
    first, _ = lines()
    second, read = lines()
    logs.get("x").info("once")
    assert first.getvalue() == ""
    assert len(read()) == 1
    assert second.getvalue().count("\n") == 1


def test_repeated_lines_of_a_library_are_dropped_and_ours_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(format="json")
    for _ in range(3):
        logging.getLogger("aiokafka.consumer.fetcher").error("Failed fetch messages from %s: %s", 1, "closed")
        logs.get("daemon").warning("broker_away")
    lines = capsys.readouterr().err.splitlines()
    assert sum("Failed fetch" in line for line in lines) == 1
    assert sum("broker_away" in line for line in lines) == 3


def test_each_time_has_one_form() -> None:
    _, read = lines()
    moment = datetime(2015, 7, 27, 10, tzinfo=timezone(timedelta(hours=2)))
    logs.get("x").info("champion", trained_at=moment)
    assert read()[0]["trained_at"] == "2015-07-27T08:00:00Z"
    stream = io.StringIO()
    logs.configure("info", "console", stream)
    logs.get("x").info("champion", trained_at=moment)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ .*trained_at=2015-07-27T08:00:00Z\n", stream.getvalue())


def test_a_name_cannot_command_the_terminal() -> None:
    hostile = "\x1b]0;pwned\x07\x9b31m\u202eq"
    stream = io.StringIO()
    logs.configure("info", "console", stream)
    logs.get("x").info(hostile, asset=hostile, sensors=[hostile], found={hostile: 1})
    logging.getLogger("aiokafka").warning("%s", hostile)
    try:
        int(hostile)
    except ValueError:
        logs.get("x").exception("failed")
    assert stream.getvalue().count("pwned") >= 6
    assert stream.getvalue().replace("\n", "").isprintable()
