"""A survey of sampled records, the settings that fit them, and the configuration that follows."""

from __future__ import annotations

import json
import math
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from monitor.config import parse
from monitor.config.spacing import Spacing, interval_for, spoken
from monitor.errors import QuarantineLimit
from monitor.service import starter
from monitor.service.advice import Proposal, proposals, window_for
from monitor.service.survey import FleetSurvey, survey
from monitor.types import Partition
from tests.fakes import batch_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from monitor.config import Config

START_S = 1_790_000_000
PLANT = Partition("plant", 0)


def configured(**fleet: Any) -> Config:
    settings = {"name": "line", "interval": "10s"} | fleet
    return parse({"kafka": {"bootstrap": "nowhere:1", "topics": ["plant"]}, "fleet": [settings]})


def look(documents: Iterable[Any], config: Config | None = None, *, delay_s: float = 0, **known: Any) -> FleetSurvey:
    """Survey JSON documents of the asset "a", one stretch. Kafka's time is the event time and a delay."""
    records = []
    for offset, document in enumerate(documents):
        value = document if isinstance(document, bytes) else json.dumps(document).encode()
        at_s = document["ts"] if isinstance(document, dict) and isinstance(document.get("ts"), int) else START_S
        records.append((offset, round((at_s + delay_s) * 1e6), b"a", value))
    return survey(config or configured(), [batch_of(PLANT, records)], known or None)["line"]


def readings(n: int = 60, step: int = 10, **more: Any) -> list[dict[str, Any]]:
    made = random.Random(1)
    return [{"ts": START_S + step * i, "temp": made.gauss(20, 1), "press": made.gauss(3, 0.1)} | more for i in range(n)]


def keys(found: FleetSurvey, config: Config | None = None) -> dict[str, str]:
    return {each.key: each.value for each in proposals(found, (config or configured()).fleets[0])}


def test_plain_readings_fit() -> None:
    found = look(readings())
    assert (found.n_records, found.n_used, found.n_readings, found.refused) == (60, 60, 60, [])
    assert found.assets == ["a"]
    assert {sensor.name: sensor.share for sensor in found.sensors} == {"temp": 1.0, "press": 1.0}
    assert found.spacing == Spacing(10, 10, 10)
    assert (found.late_s, found.ahead) == (0, {})
    assert found.span_us == (START_S * 10**6, (START_S + 590) * 10**6)
    assert proposals(found, configured().fleets[0]) == []


@pytest.mark.parametrize(("step", "expected"), [(60, {"interval": '"1m"'}), (12, {}), (2, {"interval": '"2s"'})])
def test_an_interval_that_fits_is_proposed(step: int, expected: dict[str, str]) -> None:
    assert keys(look(readings(step=step))) == expected


def test_data_on_change_get_an_interval_that_nearly_every_gap_fits_into() -> None:
    made, at_s = random.Random(4), START_S
    documents = []
    for _ in range(200):
        at_s += made.randint(20, 900)
        documents.append({"ts": at_s, "temp": made.gauss(20, 1)})
    found = look(documents)
    assert found.spacing is not None
    assert not found.spacing.is_regular
    (proposal,) = proposals(found, configured().fleets[0])
    assert (proposal.key, proposal.value, proposal.is_needed) == ("interval", '"15m"', True)
    assert "apart" in proposal.reason


def test_disorder_that_lateness_does_not_cover_is_told() -> None:
    documents = readings()
    documents[30], documents[34] = documents[34], documents[30]
    found = look(documents)
    assert found.late_s == 40
    assert keys(found) == {"lateness": '"1m"'}
    assert keys(found, configured(lateness="40s")) == {}


def test_one_assets_disorder_is_not_anothers() -> None:
    records = []
    for i in range(40):
        for name, behind_s in ((b"a", 0), (b"b", 3600)):
            value = json.dumps({"ts": START_S + 10 * i - behind_s, "temp": i}).encode()
            records.append((len(records), -1, name, value))
    found = survey(configured(), [batch_of(PLANT, records)])["line"]
    assert (found.late_s, found.assets, found.spacing) == (0, ["a", "b"], Spacing(10, 10, 10))


def test_a_clock_ahead_of_kafka_is_told() -> None:
    assert look(readings(), delay_s=-300).ahead == {"a": 300}
    assert look(readings(), delay_s=5).ahead == {}


def test_refused_records_are_counted_by_reason() -> None:
    found = look([*readings(), b"oops", b"no", {"temp": 1}])
    assert (found.n_records, found.n_used, found.n_refused) == (63, 60, 3)
    assert [(each.word, each.n, each.position) for each in found.refused] == [
        ("not_json", 2, "plant/0 offset 60"),
        ("missing_ts", 1, "plant/0 offset 62"),
    ]
    assert found.share_refused == pytest.approx(3 / 63)


@pytest.mark.parametrize(
    ("values", "remark"),
    [
        (range(60), "counts up by 1"),
        ([4] * 60, "always 4 in the sample"),
        ([-999 if i % 9 == 3 else 20 + i * 7 % 13 for i in range(60)], "-999 seems to mean missing"),
        ([20 + i * 7 % 13 for i in range(60)], ""),
    ],
    ids=["counter", "constant", "sentinel", "plain"],
)
def test_doubtful_sensors_get_a_remark(values: Iterable[float], remark: str) -> None:
    found = look(each | {"extra": value} for each, value in zip(readings(), values, strict=True))
    assert {sensor.name: sensor.remark for sensor in found.sensors}["extra"].startswith(remark)
    assert bool(found.sensors[-1].remark) is bool(remark)


def test_a_sensor_that_is_missing_sometimes_is_told() -> None:
    documents = [each | {"press": None} if i % 4 else each for i, each in enumerate(readings())]
    found = look(documents)
    assert {sensor.name: sensor.share for sensor in found.sensors} == {"temp": 1.0, "press": 0.25}


def test_the_sensors_of_the_database_are_read() -> None:
    found = look([{"ts": START_S + 10 * i, "temp": i} for i in range(5)], line=("press", "temp"))
    assert [sensor.name for sensor in found.sensors] == ["temp"]


def test_an_empty_sample_says_nothing() -> None:
    found = survey(configured(), [])["line"]
    assert (found.n_records, found.spacing, found.assets) == (0, None, [])
    assert proposals(found, configured().fleets[0]) == []


# ---------------------------------------------------------------- advice


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [((10.2, 9.9, 11), 10), ((7, 7, 7.1), 7), ((0.0101, 0.01, 0.02), 0.01), ((460, 100, 810), 900), ((59, 58, 61), 60)],
)
def test_the_interval_is_round_where_readings_are(spacing: tuple[float, float, float], expected: float) -> None:
    assert interval_for(Spacing(*spacing)) == timedelta(seconds=expected)


@pytest.mark.parametrize(
    ("n", "cells", "reason"),
    [(264, 64, "together"), (263, 48, "have to wait"), (216, 16, "have to wait"), (99, 64, "needs about 2h12m")],
)
def test_a_window_is_shorter_where_the_history_is_short(n: int, cells: int, reason: str) -> None:
    window = window_for(timedelta(seconds=30), n, 200)
    assert window.cells == cells
    assert reason in window.reason


@pytest.mark.parametrize(("seconds", "expected"), [(0.25, "250ms"), (12.4, "12s"), (812, "14m"), (90_000, "1d1h")])
def test_durations_are_spoken_without_small_units(seconds: float, expected: str) -> None:
    assert spoken(seconds) == expected


def test_a_proposal_is_a_line_of_the_file() -> None:
    assert Proposal("fleet", "interval", '"1m"', "why").line == 'interval = "1m"'


# ---------------------------------------------------------------- monitor init


def started(documents: Iterable[Any], topic: str = "Plant.Readings", **kafka: Any) -> starter.Starter:
    records = [(n, -1, b"a", json.dumps(each).encode()) for n, each in enumerate(documents)]
    settings = {"bootstrap": "nowhere:1", "topics": [topic], **kafka}

    def scale(found: FleetSurvey) -> None:
        found.readings_per_asset = 230

    batches = [batch_of(Partition(topic, 0), records)]
    return starter._starter(settings, starter.fleet_name(topic), batches, scale, topic)


def test_the_written_file_is_read_back_as_it_was_meant() -> None:
    documents = readings()
    documents[5], documents[6] = documents[6], documents[5]
    made = started(documents, max_record_bytes=4096)
    fleet = made.config.fleets[0]
    assert (fleet.name, fleet.interval, fleet.window) == ("plant-readings", timedelta(seconds=10), 24)
    assert (fleet.lateness, fleet.sensors) == (timedelta(seconds=10), ("temp", "press"))
    assert made.config.kafka.max_record_bytes == 4096
    assert (made.found.n_used, made.found.refused) == (60, [])
    assert proposals(made.found, fleet) == []


def test_sensors_of_odd_names_are_written_as_toml() -> None:
    odd = 'temp "in" \\ °C'
    assert started(each | {odd: each["temp"]} for each in readings()).config.fleets[0].sensors == ("temp", "press", odd)


def test_a_topic_of_which_nothing_can_be_read_gives_no_file() -> None:
    with pytest.raises(QuarantineLimit, match="none of 3 sampled records of plant\n  3 records: "):
        started([{"text": "hello"}] * 3, "plant")


def test_a_file_gives_the_same_configuration(tmp_path: Path) -> None:
    file = tmp_path / "Pump 7.csv"
    lines = (f"{START_S + 60 * i},{20 + i % 7},{i % 5}" for i in range(400))
    file.write_text("time,temp,press\n" + "\n".join(lines))
    made = starter.starter_for_file(file)
    fleet = made.config.fleets[0]
    assert (fleet.name, fleet.interval, fleet.window) == ("pump-7", timedelta(minutes=1), 64)
    assert fleet.sensors == ("temp", "press")
    assert made.found.n_readings == 400


def test_a_long_cycle_gives_auto_windows(tmp_path: Path) -> None:
    file = tmp_path / "press.csv"
    lines = (f"{START_S + 60 * i},{math.sin(math.tau * i / 90):.4f}" for i in range(900))
    file.write_text("time,force\n" + "\n".join(lines))
    made = starter.starter_for_file(file)
    assert made.config.fleets[0].window is None
    assert "# one cycle of the sensors (90 cells, 1h30m). Each training looks for it" in made.text


@pytest.mark.parametrize(
    ("source", "name"), [("plant.readings", "plant-readings"), ("Ä!", "fleet"), ("A" * 99, "a" * 64)]
)
def test_a_fleet_is_named_after_its_topic(source: str, name: str) -> None:
    assert starter.fleet_name(source) == name
