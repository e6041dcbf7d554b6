"""Recordings in files → readings, and readings → records, so that a file takes the same way as Kafka.

    recording.py   what a file holds, what `meta.json` says of it, and `as_records`: as Kafka would give it
    reading.py     which column is what, and chunks of columns → a recording
    formats.py     CSV, CSV.gz, Parquet → chunks of columns

Enters the path of a file: a column of times, one column per sensor, perhaps one that names the asset and one with
labels (0 normal, 1 fault). Leaves a `Recording`, or batches of records. The law: nothing is guessed in silence.
"""

from monitor.recordings.reading import read_recording
from monitor.recordings.recording import Meta, Recording, as_records, read_meta

__all__ = ["Meta", "Recording", "as_records", "read_meta", "read_recording"]
