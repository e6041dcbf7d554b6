"""Training windows from records: alerts, labels and the admission of assets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from monitor.config import parse
from monitor.config.sensors import SensorConfig
from monitor.training.dataset import History
from monitor.types import JudgedTime, Partition
from tests.fakes import batch_of, records_of

LENGTH, N = 4, 60
MINUTE_US = 60_000_000
CONFIG = parse(
    {
        "kafka": {"bootstrap": "b:9092", "topics": ["t"]},
        "fleet": [{"name": "pumps", "interval": "1m", "window": LENGTH, "sensors": ["speed"]}],
    }
)


def reading(asset: bytes, minute: int) -> tuple[bytes, bytes]:
    return asset, json.dumps({"ts": f"2026-01-01T00:{minute:02}:00Z", "speed": 1.0 + minute}).encode()


def history(*, reverse: bool = False) -> History:
    found = History(CONFIG, CONFIG.fleets[0], ("speed",))
    partitions = list(enumerate((b"R2", b"R1")))
    for number, asset in reversed(partitions) if reverse else partitions:
        found.add(batch_of(Partition("t", number), records_of(*(reading(asset, at) for at in range(N)))))
    return found


def test_labels_decide_on_windows_of_alerts() -> None:
    plain = history().windows()
    assert plain.assets == ("R2", "R1")
    assert plain.alerted is not None
    assert not plain.alerted.any()
    first_us = int(plain.end_us.min())

    def at(cell: int) -> int:
        return first_us + cell * MINUTE_US

    judged = {
        "R1": [JudgedTime(at(10) - 1, at(12), "unlabelled"), JudgedTime(at(30) - 1, at(30), "normal")],
        "R2": [JudgedTime(at(20) - 1, at(20), "fault"), JudgedTime(at(40) - 1, at(40), "ignore")],
    }
    train = history().windows(judged)
    assert train.alerted is not None
    marked = {(train.asset_name(int(asset)), int(end)) for asset, end in zip(
        train.asset[train.alerted], train.end_us[train.alerted], strict=True
    )}
    assert marked == {("R1", at(cell)) for cell in range(10, 12 + LENGTH)}
    gone = [cell for cell in range(N - LENGTH + 1) if at(cell) not in set(train.end_us[train.asset == 0].tolist())]
    assert gone == [cell for alert in (20, 40) for cell in range(alert, alert + LENGTH)]
    assert train.n_labelled == len(gone) == len(plain) - len(train)
    assert train.stride_factor == 1
    assert np.count_nonzero(train.asset == 1) == np.count_nonzero(plain.asset == 1)


def test_a_sensor_is_missing_while_it_had_an_alert_of_its_own() -> None:
    plain = history().windows()
    opened_us = int(plain.end_us.min()) + 20 * MINUTE_US
    train = history().windows({}, {"R1": [(opened_us - 1, opened_us + 5 * MINUTE_US, "speed"), (0, 9, "gone")]})
    gone = plain.values[np.isnan(train.values)]
    assert set((gone - 1).astype(int).tolist()) == set(range(20, 30))  # from a window before it opened
    assert not np.isnan(train.values[train.asset == 0]).any()
    assert len(train) == len(plain)


def test_readings_outside_of_the_range_are_not_learnt() -> None:
    config = CONFIG.model_copy(
        update={"fleet": (CONFIG.fleets[0].model_copy(update={"sensor": {"speed": SensorConfig(range=(5, 50))}}),)}
    )
    found = History(config, config.fleets[0], ("speed",))
    found.add(batch_of(Partition("t", 0), records_of(*(reading(b"R1", at) for at in range(N)))))
    values = found.windows().values
    assert (np.nanmin(values), np.nanmax(values)) == (5, 50)


@pytest.mark.parametrize(
    ("steps_s", "expected"),
    [
        ([60], "about 3 minutes of readings from 1 asset"),
        ([300], ("readings are 5m apart and the interval is 1m, so hardly a window is full; set the fleet's "
         'interval = "5m"')),
        ([60, 180, 240, 600, 840], ("readings are 1m to 14m apart and the interval is 1m, so hardly a window is full; "
         'set the fleet\'s interval = "15m"')),
    ],
)  # fmt: skip
def test_sparse_readings_are_not_waited_for(steps_s: list[int], expected: str) -> None:
    found = History(CONFIG, CONFIG.fleets[0], ("speed",))
    at_s, values = 1_790_000_000, []
    for n in range(60):
        at_s += steps_s[n % len(steps_s)]
        values.append((b"R1", json.dumps({"ts": at_s, "speed": n}).encode()))
    found.add(batch_of(Partition("t", 0), records_of(*values)))
    found.windows()
    assert found.time_until(3) == expected


def test_the_broker_that_answers_first_does_not_decide_the_model() -> None:
    one, other = history().windows(), history(reverse=True).windows()
    assert one.assets == other.assets
    assert (one.asset == other.asset).all()
    assert (one.end_us == other.end_us).all()
    assert (one.values == other.values).all()


def test_a_history_admits_like_the_pipeline() -> None:
    config = parse(
        {
            "kafka": {"bootstrap": "b:9092", "topics": ["t"]},
            "fleet": [
                {"name": "pumps", "interval": "1m", "window": LENGTH, "sensors": ["speed"], "max_assets": 3,
                 "assets": "R*"},
                {"name": "others", "interval": "1m", "window": LENGTH, "sensors": ["speed"]},
            ],
        }
    )  # fmt: skip
    found = History(config, config.fleets[0], ("speed",), {"t/0": ["R8", "R9"], "t/1": ["R7"]})
    log = [reading(name, at) for at in range(N) for name in (b"R1", b"R2_%d" % at, b"X%d" % at, b"R9", b"R3")]
    for first in range(0, len(log), 7):
        found.add(batch_of(Partition("t", 0), records_of(*log[first : first + 7])))
    [part] = found._partitions.values()
    assert [len(index) <= 3 + 7 for index in part.decoder.assets] == [True, True]
    assert found.n_assets == 2
    assert found.windows().assets == ("R1", "R9")


def test_a_history_learns_sensors_that_appear_later() -> None:
    config = parse({"kafka": {"bootstrap": "b:9092", "topics": ["t"]},
                    "fleet": [{"name": "pumps", "interval": "1m", "window": LENGTH}]})  # fmt: skip
    found = History(config, config.fleets[0], ("heat", "speed"))
    for number, fields in enumerate(({"speed": 1.0}, {"speed": 2.0, "humidity": 40.0}, {"heat": 7.0})):
        values = [(b"R%d" % number, json.dumps({"ts": f"2026-01-01T00:{at:02}:00Z", **fields}).encode())
                  for at in range(N)]  # fmt: skip
        found.add(batch_of(Partition("t", number), records_of(*values)))
    assert found.sensors == ("heat", "speed", "humidity")
    train = found.windows()
    rows = zip(train.asset.tolist(), train.values[:, -1].tolist(), strict=True)
    latest = {train.asset_name(asset): row for asset, row in rows}
    assert str(latest) == str({"R0": [np.nan, 1.0, np.nan], "R1": [np.nan, 2.0, 40.0], "R2": [7.0, np.nan, np.nan]})


# ---------------------------------------------------------------- window = "auto"


def cyclic_history(n: int, window: object = "auto", cycle: int = 90) -> History:
    """Return readings of two assets, one a minute, that repeat after `cycle` minutes. Every ninth one is missing."""
    config = parse(
        {
            "kafka": {"bootstrap": "b:9092", "topics": ["t"]},
            "fleet": [{"name": "pumps", "interval": "1m", "window": window, "sensors": ["speed"]}],
        }
    )
    found = History(config, config.fleets[0], ("speed",))
    for number, asset in enumerate((b"R1", b"R2")):
        readings = [(1_790_000_000 + 60 * at, np.sin(2 * np.pi * at / cycle)) for at in range(n) if at % 9]
        rows = ((asset, json.dumps({"ts": at_s, "speed": speed}).encode()) for at_s, speed in readings)
        found.add(batch_of(Partition("t", number), records_of(*rows)))
    return found


def test_a_training_chooses_auto_windows() -> None:
    found = cyclic_history(2000)
    chosen = found.choose_length(None)
    assert chosen is not None
    assert (chosen.cells, chosen.reason) == (90, "one cycle of the sensors (90 cells, 1h30m)")
    assert found.windows().values.shape[1] == 90
    assert found.fleet.max_gap_cells == 11


def test_a_configured_window_is_not_chosen() -> None:
    found = cyclic_history(2000, window=32)
    assert found.choose_length(None) is None
    assert found.windows().values.shape[1] == 32


def test_few_readings_keep_the_usual_window() -> None:
    found = cyclic_history(1200, cycle=180)
    chosen = found.choose_length(None)
    assert chosen is not None
    assert chosen.cells == 180
    fleet = found.fleet.model_copy(update={"retrain": found.fleet.retrain.model_copy(update={"min_windows": 2000})})
    short = cyclic_history(1200, cycle=180)
    short.fleet = fleet.with_length(64)
    chosen = short.choose_length(None)
    assert chosen is not None
    assert (chosen.cells, short.fleet.length) == (64, 64)
    assert chosen.reason.startswith("2,132 readings are too few for windows of one cycle of the sensors (180 cells")


def test_no_readings_keep_the_usual_window() -> None:
    found = cyclic_history(0)
    chosen = found.choose_length(None)
    assert chosen is not None
    assert chosen.cells == 64
