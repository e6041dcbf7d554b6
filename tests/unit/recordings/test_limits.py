"""Hostile files: their cost is bounded, and they are errors of their own only."""

from __future__ import annotations

import gzip
import time
from typing import TYPE_CHECKING

import pytest

from monitor.errors import BadRecording
from monitor.recordings import read_meta, read_recording
from monitor.recordings.layout import MAX_COLUMNS
from monitor.recordings.lines import MAX_LINE, encoding_of, lines_of

if TYPE_CHECKING:
    from pathlib import Path


def test_a_line_without_an_end_is_refused_early(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.csv.gz"
    with gzip.open(bomb, "wb") as file:
        for _ in range(64):
            file.write(b"1" * 1024 * 1024)
    before = time.process_time()
    with pytest.raises(BadRecording, match=rf"a line is longer than {MAX_LINE:,} characters"):
        read_recording(bomb)
    assert time.process_time() - before < 5


def test_a_line_of_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a" * (MAX_LINE - 1) + "\nb\n")
    assert [len(line) for line in lines_of(path, encoding_of(path)[0])] == [MAX_LINE, 2]


def test_a_wide_header_is_refused_early(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"s{n}" for n in range(100_000)) + "\n" + ",".join("1" * 100_000) + "\n")
    before = time.process_time()
    with pytest.raises(BadRecording, match=rf"it has 100,000 columns; at most {MAX_COLUMNS:,} can be read"):
        read_recording(path)
    assert time.process_time() - before < 5


def test_a_wide_file_within_the_limit_is_read_in_time(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    names = ["ts", *("s" for _ in range(3000))]  # names that repeat were searched for each column
    path.write_text(",".join(names) + "\n" + ("1437993000," + ",".join("1" * 3000) + "\n") * 2)
    before = time.process_time()
    assert len(read_recording(path).sensors) == 3000
    assert time.process_time() - before < 10


@pytest.mark.parametrize("text", ["[" * 100_000, '{"series": ' * 100_000])
def test_a_deep_meta_json_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(BadRecording, match=r"meta\.json: it is nested too deep"):
        read_meta(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("ts,a\n1,1\n2,2\n")
    with pytest.raises(BadRecording, match=r"meta\.json: it is nested too deep"):
        read_recording(tmp_path / "a.csv")


def test_a_field_that_never_ends_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('ts,a\n1,"' + "x\n" * 200_000)
    with pytest.raises(BadRecording, match="the file is damaged: field larger than field limit"):
        read_recording(path)


@pytest.mark.parametrize("data", [b"\0" * 1000, b"\xff\xfe", b"\n\n\n", b"\xef\xbb\xbf", b"\x1f\x8b\x08", b'"', b"a"])
def test_garbage_is_refused_with_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(BadRecording, match=r"a\.csv: "):
        read_recording(path)
