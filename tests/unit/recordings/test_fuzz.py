"""Any text is a recording or a BadRecording, and a recording never mixes rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.decode.timestamps import MAX_US, MIN_US
from monitor.errors import BadRecording
from monitor.recordings import FileOptions, account, read_recording

if TYPE_CHECKING:
    import pytest

cell = st.one_of(
    st.sampled_from(
        ["", "1", "2.5", "1,5", "1.234,5", "-999", "on", "off", "unavailable", "NaN", "ok", "1e400", "#", "°C", '"']
    ),
    st.sampled_from(["2025-03-01T00:00:00Z", "2025-10-26 02:30", "01.03.2025", "03/04/25", "20250301", "45000.5"]),
    st.sampled_from(["12:30", "9" * 20, "1437993000", "-62135596800", "0001-01-01", "9999-12-31T23:59:59.999999Z"]),
    st.text(max_size=4),
    st.floats().map(str),
)
header = st.sampled_from(
    ["timestamp", "time", "value", "entity_id", "state", "asset", "label", "a", "b", "", "Date", "#x"]
)
options = st.builds(
    FileOptions,
    timezone=st.sampled_from(["UTC", "Europe/Berlin"]),
    interval_s=st.sampled_from([None, 10.0]),
    decimal=st.sampled_from(["auto", "comma", "point"]),
    time_format=st.sampled_from(["auto", "auto", "excel", "day-first"]),
)


@st.composite
def tables(draw: st.DrawFn) -> str:
    """Return lines of about one width, with a header or without one."""
    delimiter, width = draw(st.sampled_from(",;\t| ")), draw(st.integers(1, 5))
    rows = [draw(st.lists(header, min_size=width, max_size=width))] if draw(st.booleans()) else []
    column = [draw(st.one_of(cell, st.none())) for _ in range(width)]  # columns of one text, and of any
    for _ in range(draw(st.integers(0, 12))):
        rows.append([draw(cell) if each is None else each for each in column])
    return draw(st.sampled_from(["", "sep=;\n", "# made by\n", "\n"])) + "\n".join(delimiter.join(row) for row in rows)


@settings(max_examples=400, deadline=None)
@given(tables(), options)
def test_any_table_is_a_recording_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, options: FileOptions
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        recording = read_recording(path, options)
    except BadRecording as problem:
        assert str(problem.detail).startswith(str(path))  # noqa: PT017  # both outcomes are right
        return
    n = len(recording)
    assert n > 0
    assert recording.values.shape == (n, len(recording.sensors))
    assert len(set(recording.sensors)) == len(recording.sensors)
    assert recording.asset.shape == (n,)
    assert recording.asset.max() < len(recording.assets)
    assert not np.isinf(recording.values).any()
    assert (recording.ts_us >= MIN_US).all()
    assert (recording.ts_us <= MAX_US).all()
    account.without_codes(recording, account.find_missing_codes(recording))
    account.sensor_notes(recording)
    account.grid_notes(recording, max(1, recording.interval_us), "the median step")
