"""Recordings: files of readings, and the same readings as Kafka records for the decoder.

    recording.py   `Recording`, `meta.json` beside a file, and `as_records`
    reading.py     the meaning of the columns, and chunks of columns → a recording
    formats.py     CSV, CSV.gz, Parquet → chunks of columns
    frames.py      arrays and frames in memory → a recording

Input: the path of a file with a column of times, one column per sensor, perhaps one with assets and one with labels
(0 normal, 1 fault). Output: a `Recording`, or batches of records. Invariant: a guess is never silent.
"""

from monitor.recordings.reading import read_recording
from monitor.recordings.recording import Meta, Recording, as_records, read_meta

__all__ = ["Meta", "Recording", "as_records", "read_meta", "read_recording"]
