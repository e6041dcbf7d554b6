"""Facts that are told of a recording: missing-value codes, counters, the grid, held values, joined files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from monitor.errors import BadRecording
from monitor.recordings import FileOptions, Recording, account, read_files, read_recording

if TYPE_CHECKING:
    from pathlib import Path

S = 1_000_000


def recording(ts_s: list[int], *columns: list[float], sensors: tuple[str, ...] | None = None) -> Recording:
    n = len(ts_s)
    return Recording(
        "a",
        sensors or tuple("abc"[: len(columns)]),
        np.array(ts_s, np.int64) * S,
        np.array(columns, np.float32).T,
        ("a",),
        np.zeros(n, np.int32),
        None,
    )


class TestMissingCodes:
    def head(self) -> Recording:
        rng = np.random.default_rng(0)
        a, b = rng.normal(20, 3, 400), rng.normal(50, 5, 400)
        a[[10, 50, 51, 90, 200]] = -200
        b[300] = -200  # once, but the other sensor of the device has it as a code
        return recording(list(range(400)), a.tolist(), b.tolist())

    def test_a_code_of_one_sensor_is_one_of_all_that_it_lies_outside_of(self) -> None:
        head = self.head()
        codes = account.find_missing_codes(head)
        assert codes == {"a": (-200.0,), "b": (-200.0,)}
        cleaned = account.without_codes(head, codes)
        assert np.isnan(cleaned.values).sum(axis=0).tolist() == [5, 1]
        assert not np.isnan(head.values).any()
        assert cleaned.notes[0] == '"a": 5 × -200, far outside its range, is taken as missing'
        assert cleaned.notes[1].endswith("(--missing none keeps such values)")

    def test_a_code_behind_the_head_stays_a_reading(self) -> None:
        rng = np.random.default_rng(0)
        values = rng.normal(20, 3, 400)
        values[300:] = -200
        whole = recording(list(range(400)), values.tolist())
        codes = account.find_missing_codes(whole.rows(slice(0, 300)))
        assert codes == {}
        assert account.without_codes(whole, codes).notes == ()


class TestSentences:
    def test_counters_and_constants_are_told(self) -> None:
        rng = np.random.default_rng(0)
        head = recording(
            list(range(200)), list(range(200)), rng.normal(0, 1, 200).tolist(), [5.0] * 200,
            sensors=("row", "temp", "setpoint"),
        )  # fmt: skip
        counter, constant = account.sensor_notes(head)
        assert counter.startswith('"row" counts up by 1 at each reading')
        assert counter.endswith("it is left out of the model")
        assert constant == "constant in the part that is learnt from: setpoint"

    def test_readings_that_share_a_cell_are_counted(self) -> None:
        [grid] = account.grid_notes(recording([0, 10, 20, 22, 30], [1, 2, 3, 4, 5]), 10 * S, "the median step")
        assert grid == (
            "grid: one cell is 10s (the median step); "
            "1 of 5 readings fall into a cell with an earlier one, which counts first"
        )

    def test_uneven_readings_get_an_interval_and_a_hold(self) -> None:
        rng = np.random.default_rng(0)
        ts = np.cumsum(rng.integers(20, 900, 500)).tolist()
        _, uneven = account.grid_notes(recording(ts, ts), 60 * S, "meta.json")
        assert "if they are sent on change, use --interval 10m --hold 30m" in uneven

    def test_time_that_runs_back_is_told(self) -> None:
        notes = account.grid_notes(recording([0, 10, 20, 5, 30], [1, 2, 3, 4, 5]), 10 * S, "meta.json")
        assert notes[-1] == "time runs backwards once, at most by 15 s: rows are taken in order of time"

    @pytest.mark.parametrize(
        ("us", "text"),
        [(S, "1s"), (90 * S, "90s"), (900 * S, "15m"), (3600 * S, "1h"), (86_400 * S, "1d"), (500_000, "500ms")],
    )
    def test_a_span_is_written_as_the_configuration_writes_it(self, us: int, text: str) -> None:
        assert account.span_text(us) == text


class TestHold:
    def test_the_last_value_counts_until_the_hold_ends(self) -> None:
        nan = float("nan")
        found = account.hold_values(recording([0, 25, 27, 90], [1, nan, 2, 3], [7, 8, nan, nan]), 10 * S, 20 * S)
        assert (found.ts_us // S).tolist() == [0, 10, 20, 30, 40, 90]
        expected = [[1, 7], [1, 7], [2, 8], [2, 8], [2, 8], [3, nan]]
        np.testing.assert_array_equal(found.values, np.array(expected, np.float32))
        assert found.notes == ("the last value of a sensor counts for 20s (--hold)",)

    def test_a_grid_that_fills_the_memory_is_refused(self) -> None:
        with pytest.raises(BadRecording, match="are too many to hold values in; use a longer --interval"):
            account.hold_values(recording([0, 10**9], [1, 2]), S, 10 * S)

    def test_each_asset_has_its_own_values_and_labels(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("ts,asset,v,label\n0,A,1,0\n10,B,5,1\n30,A,2,0\n40,B,6,0\n")
        found = account.hold_values(read_recording(path), 10 * S, 10 * S)
        by_asset = [part.values[:, 0].tolist() for part in found.per_asset()]
        assert by_asset == [[1, 1, 2], [5, 5, 6]]
        assert [part.label.tolist() for part in found.per_asset() if part.label is not None] == [[0, 0, 0], [1, 0, 0]]


class TestJoining:
    def write(self, path: Path, first: int, n: int = 10, header: str = "ts,v", step: int = 10) -> Path:
        width = header.count(",")
        path.write_text(header + "\n" + "".join(f"{first + step * i}{f',{i}' * width}\n" for i in range(n)))
        return path

    def read(self, *paths: Path, join: bool | None = None) -> list[tuple[Path, Recording]]:
        return read_files(paths, FileOptions(), join=join)

    def test_files_that_touch_are_one(self, tmp_path: Path) -> None:
        a, b = self.write(tmp_path / "a.csv", 0), self.write(tmp_path / "b.csv", 100)
        [(path, joined)] = self.read(b, a)
        assert (path, joined.name, joined.assets, len(joined)) == (a, "a", ("a",), 20)
        assert np.diff(joined.ts_us).tolist() == [10 * S] * 19
        assert "a.csv and b.csv follow each other and are read as one recording of 20 rows" in joined.notes[-1]
        assert [len(each) for _, each in self.read(a, b, join=False)] == [10, 10]

    @pytest.mark.parametrize(
        ("first", "header", "step"), [(300, "ts,v", 10), (50, "ts,v", 10), (100, "ts,w", 10), (100, "ts,v", 20)]
    )
    def test_other_files_stay_apart(self, tmp_path: Path, first: int, header: str, step: int) -> None:
        a, b = self.write(tmp_path / "a.csv", 0), self.write(tmp_path / "b.csv", first, header=header, step=step)
        assert [path for path, _ in self.read(a, b)] == [a, b]

    def test_a_file_with_its_own_head_stays_apart(self, tmp_path: Path) -> None:
        a, b = self.write(tmp_path / "a.csv", 0), self.write(tmp_path / "b.csv", 100)
        (tmp_path / "meta.json").write_text(json.dumps({"series": {"b": {"train_rows": 5}}}))
        assert [path for path, _ in self.read(a, b)] == [a, b]

    def test_join_asks_for_it_across_a_gap(self, tmp_path: Path) -> None:
        a, b, c = (self.write(tmp_path / f"{n}.csv", 1000 * k) for k, n in enumerate("abc"))
        [(_, joined)] = self.read(a, b, c, join=True)
        assert len(joined) == 30
        overlapping = self.write(tmp_path / "d.csv", 50)
        with pytest.raises(BadRecording, match=r"d\.csv cannot be joined with .*a\.csv \(--join\): it begins 40 s"):
            self.read(a, overlapping, join=True)
        other = self.write(tmp_path / "e.csv", 500, header="ts,v,w")
        with pytest.raises(BadRecording, match="its columns are others"):
            self.read(a, other, join=True)

    def test_assets_of_all_files_are_kept(self, tmp_path: Path) -> None:
        for name, first, assets in (("a", 0, "PQ"), ("b", 30, "QR")):
            rows = "".join(f"{first + 10 * i},{asset},{i}\n" for i in range(3) for asset in assets)
            (tmp_path / f"{name}.csv").write_text("ts,asset,v\n" + rows)
        [(_, joined)] = self.read(tmp_path / "a.csv", tmp_path / "b.csv")
        assert joined.assets == ("P", "Q", "R")
        assert [len(part) for part in joined.per_asset()] == [3, 6, 3]

    def test_one_name_in_two_folders_is_two_machines(self, tmp_path: Path) -> None:
        paths = []
        for folder, first in (("m1", 0), ("m2", 50)):
            (tmp_path / folder).mkdir()
            paths.append(self.write(tmp_path / folder / "data.csv", first))
        (_, one), (_, two) = self.read(*paths)
        assert (one.name, one.assets, two.name, two.assets) == ("data-m1", ("data-m1",), "data-m2", ("data-m2",))
        assert f'{paths[1]} is called "data-m2" here' in two.notes[-1]

    def test_one_name_at_other_times_is_one_machine(self, tmp_path: Path) -> None:
        paths = []
        for folder, first in (("day1", 0), ("day3", 900)):
            (tmp_path / folder).mkdir()
            paths.append(self.write(tmp_path / folder / "data.csv", first))
        assert [each.assets for _, each in self.read(*paths)] == [("data",), ("data",)]

    def test_a_file_that_is_named_twice_is_read_once(self, tmp_path: Path) -> None:
        a = self.write(tmp_path / "a.csv", 0)
        assert [path for path, _ in self.read(a, a)] == [a]


def test_the_span_is_told() -> None:
    assert account.span_note(recording([0, 3600, 60], [1, 2, 3])) == (
        "3 readings from 1970-01-01 00:00 to 1970-01-01 01:00 (UTC)"
    )
