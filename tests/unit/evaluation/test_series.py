from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor.evaluation.series import Reading, Refused, Series, read_series
from tests.unit.evaluation import made

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, **how: Any) -> list[Series]:
    found = read_series(path, Reading(**how))
    assert all(isinstance(one, Series) for one in found)
    return [one for one in found if isinstance(one, Series)]


def refusal(path: Path, **how: Any) -> str:
    [one] = read_series(path, Reading(**how))
    assert isinstance(one, Refused)
    return str(one.error)


def test_set_rows_and_interval_come_from_the_folder_and_its_meta(tmp_path: Path) -> None:
    [one] = read(made.write(tmp_path / "plant" / "pump.csv"))
    assert (one.set, one.name, one.data.sensors) == ("plant", "pump", ("flow", "pressure"))
    assert (one.data.train_rows, one.data.interval_s) == (made.TRAIN, 60.0)
    assert one.label is not None
    assert one.rest is not None
    assert one.label.sum() == one.rest.sum() == 110
    assert len(one.rest) == made.N - made.TRAIN


def test_the_operator_says_it_louder_than_the_file(tmp_path: Path) -> None:
    [one] = read(made.write(tmp_path / "plant" / "pump.csv"), train_rows=300)
    assert one.data.train_rows == 300


def test_who_says_nothing_of_the_healthy_rows_is_told_both_ways(tmp_path: Path) -> None:
    path = made.write(tmp_path / "pump.csv", train_rows=None)
    assert re.search(r"pump\.csv: nobody says .* --train-rows N, or write .* meta\.json", refusal(path))


@pytest.mark.parametrize("rows", [made.N, made.N + 5])
def test_something_must_be_left_to_score(tmp_path: Path, rows: int) -> None:
    path = made.write(tmp_path / "pump.csv")
    said = refusal(path, train_rows=rows)
    assert re.search(rf"train_rows is {rows:,} \(--train-rows\).* 1,200 rows; use 1 to 1,199", said)


def test_each_asset_of_a_file_is_a_series(tmp_path: Path) -> None:
    path = tmp_path / "plant.csv"
    rows = [f"{n},{name},{n % 7},{int(n > 8)}" for n in range(10) for name in ("P1", "P2")]
    path.write_text("\n".join(["timestamp,asset,flow,label", *rows]))
    found = read(path, train_rows=6)
    assert [one.name for one in found] == ["plant/P1", "plant/P2"]
    assert all(len(one.data.values) == 10 for one in found)


def test_rows_keep_the_files_order_and_the_row_number_is_the_time(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("\n".join(["timestamp,flow", *(f"{n % 50},{n}" for n in range(100))]))  # two parts, two clocks
    [one] = read(path, train_rows=50)
    assert one.data.values[:, 0].tolist() == list(range(100))
    assert one.label is None
    assert one.rest is None


def test_the_digest_is_the_contents_and_not_the_labels() -> None:
    one, again, other = made.series(), made.series(labelled=False), made.series(seed=1)
    assert one.data.digest == again.data.digest != other.data.digest
    changed = one.data.values.copy()
    changed[5, 0] = np.nan
    assert type(one.data)(one.data.sensors, changed, made.TRAIN, 60.0).digest != one.data.digest


# ---------------------------------------------------------------- what cannot be evaluated, and what is doubtful


def test_one_bad_asset_does_not_sink_the_others_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "plant.csv"
    rows = [f"{n},{name},{n % 7},0" for n in range(10) for name in ("P1", "P2") if name == "P1" or n < 4]
    path.write_text("\n".join(["timestamp,asset,flow,label", *rows]))
    good, bad = read_series(path, Reading(train_rows=6))
    assert isinstance(good, Series)
    assert isinstance(bad, Refused)
    assert (good.name, bad.name) == ("plant/P1", "plant/P2")
    assert "plant/P2 has 4 rows; use 1 to 3" in str(bad.error)


def test_a_link_belongs_to_the_folder_it_stands_in(tmp_path: Path) -> None:
    stored = made.write(tmp_path / "store" / "pump.csv")
    (tmp_path / "plant").mkdir()
    link = tmp_path / "plant" / "pump.csv"
    link.symlink_to(stored)
    [one] = read(link, train_rows=100)
    assert one.set == "plant"


def test_a_file_of_one_row_is_told_that_it_takes_two(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("timestamp,flow\n0,1")
    assert "has one row; it takes one to learn from and one to score" in refusal(path, train_rows=1)


@pytest.mark.parametrize("step", [1e13, 1e-9])
def test_an_interval_that_no_clock_can_hold_is_refused(tmp_path: Path, step: float) -> None:
    path = made.write(tmp_path / "pump.csv")
    path.with_name("meta.json").write_text(json.dumps({"sampling_interval_s": step}))
    assert "correct sampling_interval_s" in refusal(path, train_rows=100)


def _warnings(path: Path, header: str, row: str, **how: Any) -> str:
    path.write_text("\n".join([header, *(row.format(n) for n in range(20))]))
    [one] = read(path, train_rows=10, **how)
    return "\n".join(one.warnings)


def test_a_missing_label_column_is_told_with_the_columns_there_are(tmp_path: Path) -> None:
    said = _warnings(tmp_path / "a.csv", "timestamp,flow,anomaly,note", "{0},1,0,text")
    assert 'a.csv has no column "label"; its columns are flow, anomaly, note; use --label-column' in said
    assert 'the column "anomaly" is called like a label and is learnt from' in said
    assert "a.csv: left out, since they hold no numbers: note" in said


def test_the_usual_label_is_no_sensor_where_another_column_was_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert _warnings(path, "timestamp,flow,label,fault", "{0},1,1,0", label="fault") == ""
    [one] = read(path, train_rows=10, label="fault")
    assert one.data.sensors == ("flow",)
    assert one.label is not None
    assert not one.label.any()


def test_labelled_faults_among_the_training_rows_and_a_clock_that_runs_back_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["timestamp,flow,label", *(f"{n % 15},{n},{int(n < 3)}" for n in range(20))]))
    [one] = read(path, train_rows=10)
    assert [word.removeprefix(f"{path}: ") for word in one.warnings] == [
        "3 of the 10 training rows are labelled faults",
        "time runs backwards once; rows are taken in the file's order",
    ]
