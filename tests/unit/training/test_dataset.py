"""From records to windows to learn from: what alerts and their labels take out, and what they do not."""

from __future__ import annotations

import json

import numpy as np

from monitor.config import parse
from monitor.testing import batch_of, records_of
from monitor.training.dataset import History
from monitor.types import Partition

LENGTH, N = 4, 60
MINUTE_US = 60_000_000
CONFIG = parse(
    {
        "kafka": {"bootstrap": "b:9092", "topics": ["t"]},
        "fleet": [{"name": "pumps", "interval": "1m", "window": LENGTH, "sensors": ["speed"]}],
    }
)


def history() -> History:
    found = History(CONFIG, CONFIG.fleets[0], ("speed",))
    for number, asset in enumerate((b"R2", b"R1")):
        records = [
            (asset, json.dumps({"ts": f"2026-01-01T00:{at:02}:00Z", "speed": 1.0 + at}).encode()) for at in range(N)
        ]
        found.add(batch_of(Partition("t", number), records_of(*records)))
    return found


def test_windows_of_an_alert_are_there_and_marked_faults_are_not_and_normal_ones_are_like_all() -> None:
    plain = history().windows()
    assert plain.assets == ("R2", "R1")
    assert plain.alerted is not None
    assert not plain.alerted.any()
    first_us = int(plain.end_us.min())

    def at(cell: int) -> int:
        return first_us + cell * MINUTE_US

    alerts = {
        "R1": [(at(10) - 1, at(12), None), (at(30) - 1, at(30), "normal")],
        "R2": [(at(20) - 1, at(20), "fault"), (at(40) - 1, at(40), "ignore")],
    }
    train = history().windows(alerts)
    assert train.alerted is not None
    marked = {(train.name_of(int(asset)), int(end)) for asset, end in zip(
        train.asset[train.alerted], train.end_us[train.alerted], strict=True
    )}
    assert marked == {("R1", at(cell)) for cell in range(10, 12 + LENGTH)}
    gone = [cell for cell in range(N - LENGTH + 1) if at(cell) not in set(train.end_us[train.asset == 0].tolist())]
    assert gone == [cell for alert in (20, 40) for cell in range(alert, alert + LENGTH)]
    assert train.n_labelled == len(gone) == len(plain) - len(train)
    assert train.every == 1
    assert np.count_nonzero(train.asset == 1) == np.count_nonzero(plain.asset == 1)
