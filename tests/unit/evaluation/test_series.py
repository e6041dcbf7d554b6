from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.errors import BadRecording
from monitor.evaluation.series import Reading, read_series
from tests.unit.evaluation import made

if TYPE_CHECKING:
    from pathlib import Path


def test_set_rows_and_interval_come_from_the_folder_and_its_meta(tmp_path: Path) -> None:
    [one] = read_series(made.write(tmp_path / "plant" / "pump.csv"), Reading())
    assert (one.set, one.name, one.data.sensors) == ("plant", "pump", ("flow", "pressure"))
    assert (one.data.train_rows, one.data.interval_s) == (made.TRAIN, 60.0)
    assert one.label is not None
    assert one.rest is not None
    assert one.label.sum() == one.rest.sum() == 110
    assert len(one.rest) == made.N - made.TRAIN


def test_the_operator_says_it_louder_than_the_file(tmp_path: Path) -> None:
    [one] = read_series(made.write(tmp_path / "plant" / "pump.csv"), Reading(train_rows=300))
    assert one.data.train_rows == 300


def test_who_says_nothing_of_the_healthy_rows_is_told_both_ways(tmp_path: Path) -> None:
    path = made.write(tmp_path / "pump.csv", train_rows=None)
    with pytest.raises(BadRecording, match=r"pump\.csv: nobody says .* --train-rows N, or write .* meta\.json"):
        read_series(path, Reading())


@pytest.mark.parametrize("rows", [made.N, made.N + 5])
def test_something_must_be_left_to_score(tmp_path: Path, rows: int) -> None:
    path = made.write(tmp_path / "pump.csv")
    with pytest.raises(BadRecording, match=rf"train_rows is {rows:,} \(--train-rows\).* 1,200 rows; use 1 to 1,199"):
        read_series(path, Reading(train_rows=rows))


def test_each_asset_of_a_file_is_a_series(tmp_path: Path) -> None:
    path = tmp_path / "plant.csv"
    rows = [f"{n},{name},{n % 7},{int(n > 8)}" for n in range(10) for name in ("P1", "P2")]
    path.write_text("\n".join(["timestamp,asset,flow,label", *rows]))
    found = read_series(path, Reading(train_rows=6))
    assert [one.name for one in found] == ["plant/P1", "plant/P2"]
    assert all(len(one.data.values) == 10 for one in found)


def test_rows_keep_the_files_order_and_the_row_number_is_the_time(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("\n".join(["timestamp,flow", *(f"{n % 50},{n}" for n in range(100))]))  # two parts, two clocks
    [one] = read_series(path, Reading(train_rows=50))
    assert one.data.values[:, 0].tolist() == list(range(100))
    assert one.label is None
    assert one.rest is None


def test_the_digest_is_the_contents_and_not_the_labels() -> None:
    one, again, other = made.series(), made.series(labelled=False), made.series(seed=1)
    assert one.data.digest == again.data.digest != other.data.digest
    changed = one.data.values.copy()
    changed[5, 0] = np.nan
    assert type(one.data)(one.data.sensors, changed, made.TRAIN, 60.0).digest != one.data.digest
