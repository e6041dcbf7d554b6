from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor.evaluation.series import ReadOptions, RejectedSeries, Series, read_series
from tests import labelled_recording as sample

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, **options: Any) -> list[Series]:
    found = read_series(path, ReadOptions(**options))
    assert all(isinstance(one, Series) for one in found)
    return [one for one in found if isinstance(one, Series)]


def rejection(path: Path, **options: Any) -> str:
    [one] = read_series(path, ReadOptions(**options))
    assert isinstance(one, RejectedSeries)
    return str(one.error)


def test_folder_and_meta_give_set_and_rows(tmp_path: Path) -> None:
    [one] = read(sample.write_csv(tmp_path / "plant" / "pump.csv"))
    assert (one.set, one.name, one.data.sensors) == ("plant", "pump", ("flow", "pressure"))
    assert (one.data.train_rows, one.data.interval_s) == (sample.N_TRAIN, 60.0)
    assert one.label is not None
    assert one.test_labels is not None
    assert one.label.sum() == one.test_labels.sum() == 110
    assert len(one.test_labels) == sample.N_ROWS - sample.N_TRAIN


def test_the_option_overrides_meta_json(tmp_path: Path) -> None:
    [one] = read(sample.write_csv(tmp_path / "plant" / "pump.csv"), train_rows=300)
    assert one.data.train_rows == 300


def test_missing_train_rows_are_rejected(tmp_path: Path) -> None:
    path = sample.write_csv(tmp_path / "pump.csv", train_rows=None)
    assert re.search(r"pump\.csv: nothing says .* --train-rows N, or write .* meta\.json", rejection(path))


@pytest.mark.parametrize("rows", [sample.N_ROWS, sample.N_ROWS + 5])
def test_at_least_one_row_is_left_to_score(tmp_path: Path, rows: int) -> None:
    path = sample.write_csv(tmp_path / "pump.csv")
    message = rejection(path, train_rows=rows)
    assert re.search(rf"train_rows is {rows:,} \(--train-rows\).* 1,200 rows; use 1 to 1,199", message)


def test_each_asset_of_a_file_is_a_series(tmp_path: Path) -> None:
    path = tmp_path / "plant.csv"
    rows = [f"{n},{name},{n % 7},{int(n > 8)}" for n in range(10) for name in ("P1", "P2")]
    path.write_text("\n".join(["timestamp,asset,flow,label", *rows]))
    found = read(path, train_rows=6)
    assert [one.name for one in found] == ["plant/P1", "plant/P2"]
    assert all(len(one.data.values) == 10 for one in found)


def test_the_row_number_is_the_time(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("\n".join(["timestamp,flow", *(f"{n % 50},{n}" for n in range(100))]))  # two joined clocks
    [one] = read(path, train_rows=50)
    assert one.data.values[:, 0].tolist() == list(range(100))
    assert one.label is None
    assert one.test_labels is None


def test_labels_are_no_part_of_the_digest() -> None:
    one, again, other = sample.series(), sample.series(labelled=False), sample.series(seed=1)
    assert one.data.digest == again.data.digest != other.data.digest
    changed = one.data.values.copy()
    changed[5, 0] = np.nan
    assert type(one.data)(one.data.sensors, changed, sample.N_TRAIN, 60.0).digest != one.data.digest


# ---------------------------------------------------------------- rejections and warnings


def test_a_rejected_asset_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "plant.csv"
    rows = [f"{n},{name},{n % 7},0" for n in range(10) for name in ("P1", "P2") if name == "P1" or n < 4]
    path.write_text("\n".join(["timestamp,asset,flow,label", *rows]))
    good, bad = read_series(path, ReadOptions(train_rows=6))
    assert isinstance(good, Series)
    assert isinstance(bad, RejectedSeries)
    assert (good.name, bad.name) == ("plant/P1", "plant/P2")
    assert "plant/P2 has 4 rows; use 1 to 3" in str(bad.error)


def test_a_link_belongs_to_its_own_folder(tmp_path: Path) -> None:
    stored = sample.write_csv(tmp_path / "store" / "pump.csv")
    (tmp_path / "plant").mkdir()
    link = tmp_path / "plant" / "pump.csv"
    link.symlink_to(stored)
    [one] = read(link, train_rows=100)
    assert one.set == "plant"


def test_a_file_of_one_row_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("timestamp,flow\n0,1")
    assert "has one row; it takes one to learn from and one to score" in rejection(path, train_rows=1)


@pytest.mark.parametrize("step", [1e13, 1e-9])
def test_an_interval_beyond_64_bits_is_rejected(tmp_path: Path, step: float) -> None:
    path = sample.write_csv(tmp_path / "pump.csv")
    path.with_name("meta.json").write_text(json.dumps({"sampling_interval_s": step}))
    assert "correct sampling_interval_s" in rejection(path, train_rows=100)


def _warnings(path: Path, header: str, row: str, **options: Any) -> str:
    path.write_text("\n".join([header, *(row.format(n) for n in range(20))]))
    [one] = read(path, train_rows=10, **options)
    return "\n".join(one.warnings)


def test_a_missing_label_column_is_warned_of(tmp_path: Path) -> None:
    text = _warnings(tmp_path / "a.csv", "timestamp,flow,anomaly,note", "{0},1,0,text")
    assert 'a.csv has no column "label"; its columns are flow, anomaly, note; use --label-column' in text
    assert 'the column "anomaly" is called like a label and is learnt from' in text
    assert "a.csv: left out, since they hold no numbers: note" in text


def test_the_label_column_is_never_a_sensor(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert _warnings(path, "timestamp,flow,label,fault", "{0},1,1,0", label="fault") == ""
    [one] = read(path, train_rows=10, label="fault")
    assert one.data.sensors == ("flow",)
    assert one.label is not None
    assert not one.label.any()


def test_labelled_training_rows_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["timestamp,flow,label", *(f"{n % 15},{n},{int(n < 3)}" for n in range(20))]))
    [one] = read(path, train_rows=10)
    assert [warning.removeprefix(f"{path}: ") for warning in one.warnings] == [
        "3 of the 10 training rows are labelled faults",
        "time runs backwards once; rows are taken in the file's order",
    ]


def test_files_that_continue_each_other_are_one_series(tmp_path: Path) -> None:
    whole = sample.write_csv(tmp_path / "plant" / "pump.csv")
    header, *rows = whole.read_text().splitlines()
    first, second = tmp_path / "plant" / "a.csv", tmp_path / "plant" / "b.csv"
    first.write_text("\n".join([header, *rows[:700]]))
    second.write_text("\n".join([header, *rows[700:]]))
    [one] = read(second, train_rows=sample.N_TRAIN, continued_in=(first,))
    assert one.name == "a"
    assert (one.data.values == read(whole)[0].data.values).all()
    assert "a.csv and b.csv follow each other" in " ".join(one.notes)
