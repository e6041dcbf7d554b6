from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monitor.decode import Decoder, FleetSchema
from monitor.recordings import Recording
from monitor.replay.recording_feed import RecordingFeed, concatenated, events_of, last_readings, split_recording

S = 1_000_000


def _recording(n: int = 20, assets: tuple[str, ...] = ("R1",), label: list[int] | None = None) -> Recording:
    row = np.arange(n)
    return Recording(
        name="plant",
        sensors=("power",),
        ts_us=row // len(assets) * S,
        values=row[:, None].astype(np.float32),
        assets=assets,
        asset=(row % len(assets)).astype(np.int32),
        label=None if label is None else np.array(label, np.int8),
    )


def test_neither_part_has_labels() -> None:
    parts = split_recording(_recording(label=[0, 1] * 10), rows=5, until_us=None, interval_us=S)
    assert (parts.head.label, parts.rest.label) == (None, None)


def test_rows_are_counted_in_order_of_time() -> None:
    backwards = _recording().rows(np.arange(20)[::-1])
    parts = split_recording(backwards, rows=5, until_us=None, interval_us=S)
    assert parts.head.ts_us.tolist() == [n * S for n in range(5)]
    assert len(parts.rest) == 15


def test_the_rest_begins_at_until() -> None:
    parts = split_recording(_recording(), rows=None, until_us=5 * S, interval_us=S)
    assert (len(parts.head), int(parts.rest.ts_us[0])) == (5, 5 * S)


def test_an_event_includes_its_last_interval() -> None:
    # R1 has rows 0, 2, 4, …, and R2 has rows 1, 3, 5, …
    label = [0] * 20
    label[2] = label[4] = label[19] = 1
    found = list(events_of(_recording(assets=("R1", "R2"), label=label), S))
    assert found == [("R1", 1 * S, 3 * S), ("R2", 9 * S, 10 * S)]


def test_only_events_of_the_rest_count() -> None:
    label = [1, 1, 0, 0, 1] + [0] * 15
    parts = split_recording(_recording(label=label), rows=3, until_us=None, interval_us=S)
    assert parts.events == (("R1", 4 * S, 5 * S),)


def test_no_labels_differs_from_no_events() -> None:
    assert split_recording(_recording(), rows=3, until_us=None, interval_us=S).events is None
    assert split_recording(_recording(label=[0] * 20), rows=3, until_us=None, interval_us=S).events == ()


@pytest.mark.parametrize("length", [2, 4])
def test_the_first_reading_completes_a_window(length: int) -> None:
    parts = split_recording(_recording(assets=("R1", "R2")), rows=12, until_us=None, interval_us=S)
    kept = concatenated(last_readings(parts.head, length), parts.rest)
    for asset in (0, 1):
        times = kept.ts_us[kept.asset == asset]
        assert int((times < parts.rest.ts_us[0]).sum()) == length - 1
        assert (np.diff(times) == S).all()


def _decoded(feed: RecordingFeed, block: int) -> dict[int, list[tuple[int, int]]]:
    """Partition → (offset, power) of its readings."""
    decoders: dict[int, Decoder] = {}
    out: dict[int, list[tuple[int, int]]] = {}
    for batch in feed.batches(block=block):
        schema = FleetSchema("f", S, sensors=("power",))
        decoder = decoders.setdefault(batch.partition.number, Decoder([schema]))
        for readings in decoder.decode(batch).readings:
            rows = zip(readings.offset.tolist(), readings.values[:, 0].astype(int).tolist(), strict=True)
            out.setdefault(batch.partition.number, []).extend(rows)
    return out


@pytest.mark.parametrize("block", [1, 3, 256])
def test_a_feed_has_a_partition_per_asset(block: int) -> None:
    feed = RecordingFeed("plant")
    first = _recording(assets=("R1", "R2"))
    feed.add(first)
    feed.add(replace(first.rows(np.flatnonzero(first.asset == 0), ("R1",)), ts_us=np.arange(20, 30) * S))
    found = _decoded(feed, block)
    assert [value for _, value in found[0]] == [*range(0, 20, 2), *range(0, 20, 2)]
    assert [value for _, value in found[1]] == list(range(1, 20, 2))
    offsets = [offset for offset, _ in found[0]]
    assert offsets == sorted(offsets)
    assert len(set(offsets)) == 2 * -(-10 // block)
    assert feed.n_readings == 30


def test_a_feed_is_in_order_of_time() -> None:
    feed = RecordingFeed("plant")
    feed.add(_recording(2000, assets=("R1", "R2")))
    begins = [int(batch.timestamps_us[0]) for batch in feed.batches(block=1)]
    assert len(begins) > 4
    assert begins == sorted(begins)
