"""Arrow IPC: streams and files, compressed or not, and the kinds of columns."""

from __future__ import annotations

import io
import sys
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from monitor.decode.formats import FormatOptions, RawRecord, make_parser
from monitor.errors import ConfigError, DecodeError
from tests.format_writers import arrow_stream

AT = datetime(2026, 11, 29, 6, 0, 0, 250_000, tzinfo=UTC)
TABLE = pa.table({
    "asset": pa.array(["R1", "R2"]).dictionary_encode(),
    "ts": pa.array([AT, None], pa.timestamp("ns", tz="Europe/Berlin")),
    "local": pa.array([AT.replace(tzinfo=None), None], pa.timestamp("ms")),
    "power": [1.5, None],
    "on": [True, None],
    "n": pa.array([1, 2], pa.uint8()),
    "day": [date(2026, 11, 29), None],
    "cost": pa.array([Decimal("1.25"), None], pa.decimal128(6, 2)),
    "inner": [{"x": 1}, None],
    "nothing": pa.nulls(2),
    "list": [[1], [2]],
    "raw": [b"a", b"b"],
})
ROWS = [
    {"asset": "R1", "ts": AT, "local": AT.replace(tzinfo=None), "power": 1.5, "on": True, "n": 1, "day": "2026-11-29",
     "cost": 1.25, "inner": {"x": 1}, "nothing": None},
    {"asset": "R2", "ts": None, "local": None, "power": None, "on": None, "n": 2, "day": None, "cost": None,
     "inner": None, "nothing": None},
]  # fmt: skip


def parse(value: bytes) -> list[dict]:
    return make_parser("arrow", FormatOptions()).parse(RawRecord(value))


def reason_of(value: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        parse(value)
    return caught.value.detail


def test_a_row_is_a_document():
    assert parse(arrow_stream(TABLE)) == ROWS


def test_a_file_and_several_batches_are_read():
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=1)
    assert parse(sink.getvalue()) == ROWS


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_batches_are_read_up_to_a_limit(codec):
    assert parse(arrow_stream(TABLE, compression=codec)) == ROWS
    bomb = arrow_stream(pa.table({"v": pa.array([0.0] * 5_000_000)}), compression=codec)
    assert len(bomb) < 262_144
    assert reason_of(bomb).startswith("too_large: the compressed batches have more than 4 MiB")


@pytest.mark.parametrize(
    ("table", "word"),
    [
        (pa.table({"a": pa.nulls(1 << 24)}), "too_many_readings"),
        (pa.table({f"a{i}": [1] for i in range(2001)}), "too_many_fields"),
        (pa.table([[1], [2]], names=["a", "a"]), "not_arrow"),
    ],
)
def test_the_size_of_a_record_is_bounded(table, word):
    assert reason_of(arrow_stream(table)).startswith(f"{word}: ")


@pytest.mark.parametrize("kind", ["dictionary", "string_view"])
def test_a_long_text_that_rows_share_does_not_fill_the_memory(kind):
    if kind == "dictionary":
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int8()), pa.array(["x" * 100_000]))
        found = parse(arrow_stream(pa.table({"a": column})))
        assert len({id(row["a"]) for row in found}) == 1
        return
    text = b"x" * 100_000
    view = len(text).to_bytes(4, "little") + text[:4] + bytes(8)
    buffers = [None, pa.py_buffer(view * 15_000), pa.py_buffer(text)]
    column = pa.Array.from_buffers(pa.string_view(), 15_000, buffers)
    value = arrow_stream(pa.table({"a": column}))
    assert len(value) < 400_000
    few = pa.Array.from_buffers(pa.string_view(), 30, buffers)
    assert len(parse(arrow_stream(pa.table({"a": few})))) == 30
    assert reason_of(arrow_stream(pa.table({"a": few, "b": few}))).startswith("too_large: the texts of the record")
    assert reason_of(value).startswith("too_large: the texts of the record")


def test_other_bytes_are_refused():
    assert reason_of(b"{}").startswith("not_arrow: the record begins with")
    assert reason_of(arrow_stream(TABLE)[:200]).startswith("not_arrow: ")


def test_without_pyarrow_the_error_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "monitor.decode.formats.arrow", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'sensor-anomaly-monitor\[files\]'"):
        make_parser("arrow", FormatOptions())
    monkeypatch.delitem(sys.modules, "monitor.decode.formats.arrow", raising=False)
