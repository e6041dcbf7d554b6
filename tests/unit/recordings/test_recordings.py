"""CSV and Parquet files as recordings, their metadata, and recordings as records."""

from __future__ import annotations

import gzip
import json
import sys

import numpy as np
import pytest

from monitor.decode import Decoder, FleetSchema
from monitor.errors import BadRecording, NotFound
from monitor.recordings import Meta, as_records, read_meta, read_recording
from monitor.types import Partition

SECOND = 1_000_000
START = 1_437_993_000 * SECOND  # 2015-07-27T10:30:00Z

PLAIN = """timestamp,power,pitch,label
2015-07-27T10:30:00,1.5,0,0
2015-07-27T10:40:00,,2,1
2015-07-27T10:50:00,NaN,3e0,0
"""


@pytest.fixture
def write(tmp_path):
    def writer(text, name="pump-1.csv"):
        path = tmp_path / name
        data = text.encode() if isinstance(text, str) else text
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return writer


class TestCsv:
    @pytest.mark.parametrize("name", ["pump-1.csv", "pump-1.csv.gz", "pump-1.CSV"])
    def test_a_file_has_times_sensors_labels_and_gaps(self, write, name):
        recording = read_recording(write(PLAIN, name))
        assert (recording.name, recording.sensors, recording.assets) == ("pump-1", ("power", "pitch"), ("pump-1",))
        assert recording.ts_us.tolist() == [START, START + 600 * SECOND, START + 1200 * SECOND]
        np.testing.assert_array_equal(recording.values, np.array([[1.5, 0], [np.nan, 2], [np.nan, 3]], np.float32))
        assert recording.label.tolist() == [0, 1, 0]
        assert recording.asset.tolist() == [0, 0, 0]
        assert recording.interval_us == 600 * SECOND
        assert len(recording) == 3

    def test_csv_dialects_are_understood(self, write):
        text = "\ufeff;Date Time; Power ;Turbine Name\n0;2015-07-27 10:30:00Z; 1.5 ;R1\n1;2015-07-27 10:30:01Z;-;R2\n\n"
        recording = read_recording(write(text))
        assert recording.sensors == ("Power",)
        assert recording.assets == ("R1", "R2")
        assert recording.asset.tolist() == [0, 1]
        assert recording.ts_us.tolist() == [START, START + SECOND]
        assert recording.label is None

    @pytest.mark.parametrize(
        ("written", "us"),
        [
            ("0", 0),
            ("1437993000", START),
            ("1437993000.25", START + 250_000),
            ("1437993000000", START),
            ("1.5e0", 1_500_000),
        ],
    )
    def test_times_may_be_numbers(self, write, written, us):
        assert read_recording(write(f"time,a\n{written},1\n")).ts_us.tolist() == [us]

    def test_columns_can_be_named(self, write):
        path = write("when,who,timestamp,bad\n5,P1,9,1\n6,P2,9,0\n")
        recording = read_recording(path, asset="who", timestamp="when", label="bad")
        assert (recording.sensors, recording.assets) == (("timestamp",), ("P1", "P2"))
        assert (recording.ts_us.tolist(), recording.label.tolist()) == ([5 * SECOND, 6 * SECOND], [1, 0])

    def test_text_columns_are_left_out_and_blank_ones_are_sensors(self, write):
        recording = read_recording(write("ts,a,status,silent\n1,1,ok,\n2,2,,\n3,3,bad,\n"))
        assert (recording.sensors, recording.left_out) == (("a", "silent"), ("status",))
        assert np.isnan(recording.values[:, 1]).all()

    def test_numbers_too_large_for_float32_are_missing(self, write):
        recording = read_recording(write("ts,a,gauge\n1,1,-1.18e42\n2,-1e39,-1.18e42\n"))
        np.testing.assert_array_equal(recording.values, np.array([[1, np.nan], [np.nan, np.nan]], np.float32))
        assert (recording.n_too_large, recording.left_out) == (3, ())

    def test_several_chunks_are_one_recording(self, write, monkeypatch):
        monkeypatch.setattr("monitor.recordings.formats._ROWS_PER_CHUNK", 4)
        rows = "".join(f"{i},{i},{'A' if i % 3 else 'B'}\n" for i in range(10))
        recording = read_recording(write("ts,a,asset\n" + rows))
        assert recording.values[:, 0].tolist() == list(range(10))
        assert recording.assets == ("B", "A")
        assert recording.asset.tolist() == [0 if i % 3 == 0 else 1 for i in range(10)]
        with pytest.raises(BadRecording, match='column "a", row 11: "oops" is not a finite number'):
            read_recording(write("ts,a,asset\n" + rows.replace("9,9,", "9,oops,")))


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "the file is empty"),
            ("ts,a\n", "there is a header, but no row"),
            ("x,y\n1,2\n", "no column is called timestamp, ts, time, date or datetime, but x, y; say which one"),
            ("ts,a\n1,2\n3\n", "row 3 has 1 cells; the header has 2"),
            ("ts,a\n1,2\n,3\n", 'column "ts", row 3: "" is no time; write 2015-07-27T10:30:00Z or seconds'),
            ("ts,a\n07/08/2015,2\n", '"07/08/2015" can have the day or the month first; say which with --time-format'),
            ("ts,a\n1,2\n2,high\n", 'column "a", row 3: "high" is not a finite number; leave the cell blank'),
            ("ts,a\n1,2\n2,inf\n", 'column "a", row 3: "inf" is not a finite number'),
            ("ts,a\n5,1\n1.2.3,1\n", 'column "ts", row 3: "1.2.3" is no time'),
            ("ts,a\n1,x\n", 'no column beside "ts" holds numbers'),
            (
                "ts,a,label\n1,2,maybe\n",
                'column "label", row 2: "maybe" is no label; write 1 for a fault, 0 for normal',
            ),
            ("ts,a,asset\n1,2,\n", 'column "asset", row 2: "" names no asset'),
            ("ts,a,asset\n1,2,Pump\u200b1\n", r'column "asset", row 2: "Pump\u200b1" names no asset'),
            (b"ts,a\n1,1\n2,\xff\n", 'column "a", row 3: "ÿ" is not a finite number'),
        ],
    )
    def test_errors_name_file_column_row_and_fix(self, write, text, says):
        path = write(text)
        with pytest.raises(BadRecording) as caught:
            read_recording(path)
        assert caught.value.detail.startswith(f"{path}: ")
        assert says in caught.value.detail

    def test_a_named_column_must_exist(self, write):
        for field, option in (("asset", "--asset-column"), ("timestamp", "--time-column"), ("label", "--label-column")):
            with pytest.raises(BadRecording, match=rf'no column "nope" \({option}\); there are timestamp, power'):
                read_recording(write(PLAIN), **{field: "nope"})

    def test_a_damaged_archive_is_an_error(self, tmp_path):
        for data in (b"no gzip", gzip.compress(PLAIN.encode() * 50)[:-20]):
            path = tmp_path / "a.csv.gz"
            path.write_bytes(data)
            with pytest.raises(BadRecording, match=r"a\.csv\.gz: the file is damaged"):
                read_recording(path)

    def test_missing_and_unknown_files_are_errors(self, tmp_path):
        with pytest.raises(NotFound, match="no such file"):
            read_recording(tmp_path / "a.csv")
        (tmp_path / "a.xlsx").write_bytes(b"PK")
        with pytest.raises(BadRecording, match=r"recordings end in \.csv, .* \.parquet .*; save a spreadsheet as CSV"):
            read_recording(tmp_path / "a.xlsx")


    def test_a_proposed_option_is_quoted_for_the_shell(self, write):
        with pytest.raises(BadRecording, match="--missing 'a \\$b'"):
            read_recording(write("ts,a\n1,2\n2,a $b\n3,4\n"))

    def test_names_of_columns_are_printable(self, write):
        assert read_recording(write("ts,a\x1b[2J,b\n1,2,3\n")).sensors == ("a_[2J", "b")


class TestParquet:
    def test_times_without_a_zone_are_local_times(self, tmp_path):
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        times = np.array([START, START + SECOND]).astype("datetime64[us]")
        path, zoned = tmp_path / "a.parquet", tmp_path / "b.parquet"
        pq.write_table(pa.table({"time": pa.array(times), "v": [1.0, 2.0]}), path)
        pq.write_table(pa.table({"time": pa.array(times, pa.timestamp("us", "UTC")), "v": [1.0, 2.0]}), zoned)
        local = read_recording(path, timezone="Europe/Berlin")
        assert local.ts_us.tolist() == [START - 7200 * SECOND, START - 7199 * SECOND]
        assert local.notes == ("its times are local times of Europe/Berlin",)
        assert read_recording(path).ts_us.tolist() == [START, START + SECOND]
        assert read_recording(path).notes[0].startswith("its times name no zone and are read as UTC")
        assert read_recording(zoned, timezone="Europe/Berlin").ts_us.tolist() == [START, START + SECOND]
        assert read_recording(zoned).notes == ()

    def test_parquet_and_csv_give_the_same(self, tmp_path, write):
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        times = np.array([START, START + 600 * SECOND, START + 1200 * SECOND], "datetime64[us]")
        columns = {
            "power": pa.array([1.5, None, float("nan")]),
            "pitch": pa.array([0, 2, 3], pa.int16()),
            "status": pa.array(["ok", None, "bad"]),
            "turbine": pa.array(["R1", "R1", "R2"]).dictionary_encode(),
            "label": pa.array([0, 1, 0]),
        }
        csv = read_recording(
            write(
                "timestamp,power,pitch,turbine,label\n"
                + "\n".join(
                    f"{t}Z,{p},{q},{r},{s}"
                    for t, p, q, r, s in zip(
                        times, ["1.5", "", ""], [0, 2, 3], ["R1", "R1", "R2"], [0, 1, 0], strict=True
                    )
                )
            )
        )
        for written in (
            pa.array(times),
            pa.array(times.astype("datetime64[ns]"), pa.timestamp("ns", "Europe/Berlin")),
            pa.array(times.astype(np.int64) // SECOND),
            pa.array([f"{t}Z" for t in times]),
        ):
            path = tmp_path / "pump-1.parquet"
            pq.write_table(pa.table({"timestamp": written, **columns}), path)
            recording = read_recording(path)
            assert (recording.sensors, recording.left_out, recording.assets) == (
                ("power", "pitch"),
                ("status",),
                ("R1", "R2"),
            )
            assert recording.ts_us.tolist() == csv.ts_us.tolist()
            np.testing.assert_array_equal(recording.values, csv.values)
            assert recording.label.tolist() == csv.label.tolist()
            assert recording.asset.tolist() == csv.asset.tolist()

    def test_a_sole_column_of_times_is_the_time(self, tmp_path):
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"a": [1.0], "__index_level_0__": np.array([5], "datetime64[s]"), "id": ["x"]}), path)
        assert read_recording(path).ts_us.tolist() == [5 * SECOND]

    def test_bad_cells_are_named(self, tmp_path):
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"ts": np.array([0, "NaT"], "datetime64[us]"), "a": [1.0, 2.0]}), path)
        with pytest.raises(BadRecording, match='column "ts", row 3: "NaT" is no time'):
            read_recording(path)
        pq.write_table(pa.table({"ts": [1, 2], "a": [1.0, float("inf")]}), path)
        with pytest.raises(BadRecording, match='column "a", row 3: "inf" is not a finite number'):
            read_recording(path)
        path.write_bytes(b"PAR1 no")
        with pytest.raises(BadRecording, match="the file is damaged"):
            read_recording(path)

    def test_a_missing_pyarrow_names_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        (tmp_path / "a.parquet").write_bytes(b"PAR1")
        with pytest.raises(BadRecording, match=r"pip install \"sensor-anomaly-monitor\[files\]\""):
            read_recording(tmp_path / "a.parquet")


class TestMeta:
    def test_meta_json_has_train_rows_and_interval(self, tmp_path):
        meta = {
            "sampling_interval_s": 300,
            "series": {"a": {"train_rows": 40}, "b": {"train_rows": 7, "median_step_s": 600.0}},
        }
        (tmp_path / "meta.json").write_text(json.dumps(meta))
        assert read_meta(tmp_path / "a.csv.gz") == Meta(tmp_path.name, 40, 300.0)
        assert read_meta(tmp_path / "b.parquet") == Meta(tmp_path.name, 7, 600.0)
        assert read_meta(tmp_path / "c.csv") == Meta(tmp_path.name, None, 300.0)

    def test_a_file_without_meta_json_has_only_a_set(self, tmp_path):
        assert read_meta(tmp_path / "a.csv") == Meta(tmp_path.name)

    @pytest.mark.parametrize("text", ["{", "[]", '{"series": {"a": {"train_rows": "many"}}}'])
    def test_a_bad_meta_json_is_an_error(self, tmp_path, text):
        (tmp_path / "meta.json").write_text(text)
        with pytest.raises(BadRecording, match=r"meta\.json"):
            read_meta(tmp_path / "a.csv")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"series": {"a": {"train_rows": Infinity}}}', "train_rows is Infinity, not a finite number"),
            ('{"series": {"a": {"train_rows": 1e999}}}', "train_rows is Infinity, not a finite number"),
            ('{"series": {"a": {"train_rows": 40.5}}}', "train_rows is 40.5, not a whole number"),
            ('{"sampling_interval_s": NaN}', "sampling_interval_s is NaN, not a finite number"),
            ('{"sampling_interval_s": true}', "sampling_interval_s is true, not a finite number"),
            ('{"sampling_interval_s": -5}', "the interval is -5; write the seconds from one row to the next, above 0"),
            ("[1]", r"it is \[1\], not an object; it must be an object like"),
            ('{"series": [1]}', r"series is \[1\], not an object"),
        ],
    )
    def test_bad_numbers_in_meta_json_are_named(self, tmp_path, text, message):
        (tmp_path / "meta.json").write_text(text)
        with pytest.raises(BadRecording, match=message):
            read_meta(tmp_path / "a.csv")

    def test_a_link_belongs_to_its_own_folder(self, tmp_path):
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "a.csv").symlink_to(tmp_path / "a.csv")
        assert read_meta(tmp_path / "set" / "a.csv").set == "set"


def through_the_decoder(recording, **options):
    """Return (asset, time, values) of every reading in the order of the log, and the number of records."""
    decoder = Decoder([FleetSchema("all", 1, sensors=recording.sensors)])
    rows, offset = [], 0
    for batch in as_records(recording, **options):
        assert batch.offsets[0] == offset
        offset = batch.next_offset
        decoded = decoder.decode(batch)
        assert decoded.quarantined == []
        readings = decoded.readings[0]
        names = [decoder.assets[0].names[i] for i in readings.asset]
        rows += zip(names, readings.cell.tolist(), map(tuple, readings.values.tolist()), strict=True)
    return rows, offset


class TestAsRecords:
    def test_the_decoder_returns_the_recording(self, write):
        text = "ts,a,b\n" + "".join(f"{i * 7},{i},{-i if i % 5 else ''}\n" for i in range(1000))
        recording = read_recording(write(text, "pump (1).csv"))
        rows, n_records = through_the_decoder(recording, block=64)
        assert n_records == 16
        assert [r[0] for r in rows] == ["pump (1)"] * 1000
        assert [r[1] for r in rows] == recording.ts_us.tolist()
        np.testing.assert_array_equal(np.array([r[2] for r in rows], np.float32), recording.values)

    def test_assets_are_interleaved_by_time(self, write):
        text = (
            "ts,a,asset\n" + "".join(f"{i},{i},A\n" for i in range(300)) + "".join(f"{i},{-i},B\n" for i in range(300))
        )
        recording = read_recording(write(text))
        rows, _ = through_the_decoder(recording)
        assert [r[1] for r in rows] == sorted(r[1] for r in rows)
        assert [r[0] for r in rows] == ["A", "B"] * 300
        assert [r[2][0] for r in rows[::2]] == list(range(300))
        [a, b] = recording.per_asset()
        assert (a.assets, b.assets) == (("A",), ("B",))
        rows_of_b, n_records = through_the_decoder(b)
        assert n_records == 2
        assert [r[:2] for r in rows_of_b] == [r[:2] for r in rows if r[0] == "B"]

    def test_rows_without_a_value_are_gaps(self, write):
        rows, _ = through_the_decoder(read_recording(write("ts,a\n1,1\n2,\n3,\n4,4\n")), block=1)
        assert [r[1] for r in rows] == [1 * SECOND, 4 * SECOND]

    def test_rows_are_sent_in_order_of_time(self, write):
        rows, _ = through_the_decoder(read_recording(write("ts,a\n3,1\n1,2\n3,3\n2,4\n")))
        assert [r[2][0] for r in rows] == [2, 4, 1, 3]

    def test_wide_blocks_stay_below_the_record_limit(self, write):
        names = [f"s{i}" for i in range(400)]
        text = "ts," + ",".join(names) + "\n" + "".join(f"{i}," + ",".join(["1"] * 400) + "\n" for i in range(300))
        recording = read_recording(write(text))
        assert len(through_the_decoder(recording, block=10_000)[0]) == 300

    def test_records_carry_last_time_and_asset_key(self, write):
        [batch] = as_records(read_recording(write(PLAIN)), partition=Partition("plant", 2))
        assert batch.partition == Partition("plant", 2)
        assert batch.timestamps_us.tolist() == [START + 1200 * SECOND]
        assert batch.keys == [b"pump-1"]


def test_a_part_of_a_recording_is_a_recording(write):
    recording = read_recording(write(PLAIN))
    part = recording.rows(slice(1, None))
    assert (len(part), part.label.tolist(), part.sensors) == (2, [1, 0], recording.sensors)
    assert read_recording(write("ts,a\n1,1\n")).interval_us == 0


def test_labelled_recordings_agree_with_their_meta(data_dir):
    paths = sorted(data_dir.glob("*/*.csv.gz"))
    assert paths
    for path in paths[::7]:  # a sample: all of them take a quarter of a minute
        entry = json.loads((path.parent / "meta.json").read_text())["series"][path.name.removesuffix(".csv.gz")]
        recording, meta = read_recording(path), read_meta(path)
        assert recording.values.shape == (entry["rows"], entry["sensors"]), path
        assert int(np.isnan(recording.values).sum()) - recording.n_too_large == entry["missing_values"], path
        assert recording.label is not None
        assert recording.label[entry["train_rows"] :].mean() == pytest.approx(entry["contamination"], abs=1e-4), path
        assert recording.left_out == ()
        assert (meta.set, meta.train_rows) == (path.parent.name, entry["train_rows"])
        assert recording.interval_us == pytest.approx((meta.interval_s or 0) * 1e6), path
