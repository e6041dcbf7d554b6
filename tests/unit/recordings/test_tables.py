"""CSV and Parquet files of rows: exact, complete or not there, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from monitor.errors import MonitorError
from monitor.recordings import tables
from monitor.recordings.tables import write_csv, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from monitor.recordings.tables import Kind

COLUMNS: dict[str, Kind] = {
    "name": "text",
    "at": "time",
    "score": "number",
    "n": "integer",
    "is_on": "flag",
    "sensors": "json",
}
ROW = {
    "name": 'pump, "big" – ü',
    "at": "2015-07-27T10:00:00.5Z",
    "score": -0.25,
    "n": 3,
    "is_on": True,
    "sensors": [{"name": "p"}],
    "more": 1,
}
NOTHING: dict[str, Any] = dict.fromkeys(COLUMNS)


def written(*rows: dict[str, Any]) -> list[dict[str, str]]:
    stream = io.StringIO()
    assert write_csv(rows, COLUMNS, stream) == len(rows)
    return list(csv.DictReader(io.StringIO(stream.getvalue())))


def test_csv_has_every_value() -> None:
    [full, nothing] = written(ROW, NOTHING)
    assert full == {
        "name": 'pump, "big" – ü',
        "at": "2015-07-27T10:00:00.5Z",
        "score": "-0.25",
        "n": "3",
        "is_on": "true",
        "sensors": '[{"name": "p"}]',
    }
    assert set(nothing.values()) == {""}


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_of_a_csv_file_is_a_formula(sign: str) -> None:
    [row] = written(ROW | {"name": f'{sign}HYPERLINK("http://x")'})
    assert row["name"].startswith(f"'{sign}")
    assert row["score"] == "-0.25", "a number stays a number"


def test_parquet_has_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 2)
    path = tmp_path / "t.parquet"
    assert write_table([ROW, NOTHING, ROW | {"name": "=1"}], COLUMNS, path) == 3
    file = parquet.ParquetFile(path)
    assert file.num_row_groups == 2
    types = {field.name: str(field.type) for field in file.schema_arrow}
    assert types == {
        "name": "string",
        "at": "timestamp[us, tz=UTC]",
        "score": "double",
        "n": "int64",
        "is_on": "bool",
        "sensors": "string",
    }
    full, nothing, formula = file.read().to_pylist()
    assert full["at"].isoformat() == "2015-07-27T10:00:00.500000+00:00"
    assert json.loads(full["sensors"]) == ROW["sensors"]
    assert set(nothing.values()) == {None}
    assert formula["name"] == "=1", "only spreadsheets read formulas"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_is_complete_or_not_there(tmp_path: Path, suffix: str) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield ROW
        raise MonitorError("the database is gone")

    path = tmp_path / f"t{suffix}"
    path.write_text("before")
    with pytest.raises(MonitorError, match="is gone"):
        write_table(rows(), COLUMNS, path)
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_name_without_a_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MonitorError, match=r"t\.xlsx names no format; call it \.csv or \.parquet"):
        write_table([], COLUMNS, tmp_path / "t.xlsx")
    assert not list(tmp_path.iterdir())
