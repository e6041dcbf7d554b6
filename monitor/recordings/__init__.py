"""Recordings: files of readings, and the same readings as Kafka records for the decoder.

    recording.py    `Recording`, `meta.json` beside a file, and `as_records`
    options.py      `FileOptions`: what a file cannot say of itself
    reading.py      chunks of columns → a recording. Read this first
    roles.py        the role of each column, by the usual names in names.py and by its cells
    clock.py        the format of a column of times
    cells.py        texts → numbers: decimal commas, thousands, units, states, words for "missing"
    long_format.py  rows of one sensor each → rows of all sensors
    formats.py      text files (.gz) and Parquet → chunks of columns; layout.py finds the header, lines.py the encoding
    frames.py       arrays and frames in memory → a recording
    joining.py      files that follow each other → one recording
    tables.py       rows of a query → a CSV or Parquet file
    account.py      what to tell of a recording before it is replayed: missing-value codes, counters, the grid

Input: the path of a file with a column of times, one column per sensor, perhaps one with assets and one with labels
(0 normal, 1 fault); or in long format. Output: a `Recording`, or batches of records. Invariant: a guess is never
silent: it is a note of the recording, or the file is refused with the option that reads it.
"""

from monitor.recordings.joining import read_files
from monitor.recordings.options import FileOptions
from monitor.recordings.reading import check_header, read_recording
from monitor.recordings.recording import Meta, Recording, as_records, read_meta

__all__ = [
    "FileOptions",
    "Meta",
    "Recording",
    "as_records",
    "check_header",
    "read_files",
    "read_meta",
    "read_recording",
]
