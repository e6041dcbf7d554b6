"""Frames of every kind as recordings: the roles of the columns, missing values, times, and what is refused."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from monitor.errors import BadArgument
from monitor.recordings.frames import FrameColumns, read_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.recordings import Recording

MINUTE_US = 60_000_000
START = dt.datetime(2023, 11, 14, 22, 14, tzinfo=dt.UTC)
START_US = 1_700_000_040_000_000
TIMES = np.array([START_US + n * MINUTE_US for n in range(4)], "datetime64[us]")
FLOW, LEVEL = [1.5, np.nan, 3.0, 4.0], [1, 2, 3, 4]
PLAIN = {"time": TIMES, "flow": np.array(FLOW), "level": np.array(LEVEL)}


class OnlyArrow:
    """A table that speaks Arrow's protocol and nothing else."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


class OnlyInterchange:
    """A table that speaks the dataframe interchange protocol and nothing else."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __dataframe__(self, **options: Any) -> object:
        return self._table.__dataframe__(**options)


def arrow() -> pa.Table:
    return pa.table({"time": TIMES, "flow": pa.array(FLOW, from_pandas=True), "level": LEVEL})


FRAMES: dict[str, Callable[[], object]] = {
    "dict": lambda: PLAIN,
    "pandas": lambda: pd.DataFrame(PLAIN),
    "pandas index": lambda: pd.DataFrame(PLAIN).set_index("time"),
    "pandas index with zone": lambda: pd.DataFrame(PLAIN).set_index("time").tz_localize("UTC").tz_convert("Asia/Tokyo"),
    "pandas column with zone": lambda: pd.DataFrame(PLAIN | {"time": pd.Series(TIMES).dt.tz_localize("UTC")}),
    "pandas nullable": lambda: pd.DataFrame(PLAIN).convert_dtypes(),
    "pandas objects": lambda: pd.DataFrame(PLAIN | {"flow": pd.Series([1.5, None, 3, 4], dtype=object)}),
    "polars": lambda: pl.DataFrame(PLAIN),
    "polars with nulls": lambda: pl.DataFrame(PLAIN | {"flow": [1.5, None, 3.0, 4.0]}),
    "polars with zone": lambda: pl.DataFrame(PLAIN).with_columns(
        pl.col("time").dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Berlin")
    ),
    "arrow": arrow,
    "arrow with zone": lambda: arrow().set_column(0, "time", pa.array(TIMES, pa.timestamp("us", "Europe/Berlin"))),
    "arrow protocol": lambda: OnlyArrow(arrow()),
    "interchange protocol": lambda: OnlyInterchange(arrow()),
    "texts": lambda: PLAIN | {"time": [str(at) + "Z" for at in TIMES]},
    "seconds": lambda: PLAIN | {"time": (TIMES.astype(np.int64) // 1_000_000).tolist()},
    "datetimes": lambda: PLAIN | {"time": [START + n * dt.timedelta(minutes=1) for n in range(4)]},
}  # fmt: skip


@pytest.mark.parametrize("kind", FRAMES)
def test_every_kind_of_frame_gives_the_same_recording(kind: str) -> None:
    found = read_frame(FRAMES[kind](), FrameColumns(), None)
    assert found.sensors == ("flow", "level")
    assert found.ts_us.tolist() == TIMES.astype(np.int64).tolist()
    np.testing.assert_array_equal(found.values, np.array([FLOW, LEVEL], np.float32).T)
    assert found.assets == ("frame",)
    assert found.interval_us == MINUTE_US


@pytest.mark.parametrize(
    "array", [np.array([FLOW, LEVEL]).T, [[1.5, 1], [np.nan, 2], [3, 3], [4, 4]]], ids=["array", "lists"]
)
def test_an_array_is_on_the_grid(array: object) -> None:
    found = read_frame(array, FrameColumns(), MINUTE_US)
    assert found.sensors == ("x0", "x1")
    assert found.ts_us.tolist() == [0, MINUTE_US, 2 * MINUTE_US, 3 * MINUTE_US]
    np.testing.assert_array_equal(found.values, np.array([FLOW, LEVEL], np.float32).T)


@pytest.mark.parametrize("make", [np.array, pd.Series, lambda values: pl.Series("x", values)])
def test_one_sensor_may_have_one_dimension(make: Callable[[list[float]], object]) -> None:
    assert read_frame(make(FLOW), FrameColumns(), MINUTE_US).values.shape == (4, 1)


def several(**more: object) -> Recording:
    frame = pd.DataFrame(PLAIN | {"Machine ID": ["b", "a", "b", "a"]} | more)
    return read_frame(frame, FrameColumns(), None)


def test_assets_are_recognised_by_the_usual_names() -> None:
    found = several()
    assert found.assets == ("a", "b")
    assert found.asset.tolist() == [1, 0, 1, 0]
    assert found.sensors == ("flow", "level")


def test_booleans_are_numbers_and_infinity_is_missing() -> None:
    found = several(on=[True, False, True, True], flow=[np.inf, 1e300, -np.inf, 1])
    assert found.values[:, found.sensors.index("on")].tolist() == [1, 0, 1, 1]
    assert np.isnan(found.values[:3, 0]).all()


REFUSED: dict[str, tuple[object, FrameColumns, str]] = {
    "no times": (np.zeros((3, 2)), FrameColumns(), 'interval="10m"'),
    "no such time": (PLAIN, FrameColumns(time="at"), 'time="at" is no column of the frame; it has time, flow, level'),
    "no such asset": (PLAIN, FrameColumns(asset="unit"), 'asset="unit" is no column'),
    "no such sensor": (PLAIN, FrameColumns(sensors=("flow", "head")), 'sensors="head" is no column'),
    "texts": (PLAIN | {"state": ["on"] * 4}, FrameColumns(), 'column "state" holds no numbers ("on")'),
    "dates as sensor": (PLAIN, FrameColumns(sensors=("time",)), 'column "time" holds no numbers'),
    "bad time": (PLAIN | {"time": ["2026-01-01", "x", "", ""]}, FrameColumns(), 'time="time", row 1: "x" is no time'),
    "missing time": (
        pd.DataFrame(PLAIN | {"time": pd.Series(TIMES).mask([False, True, False, False])}), FrameColumns(), "row 1:"
    ),
    "two columns": (pd.DataFrame([[1, 2]], columns=["a", "a"]), FrameColumns(), 'two columns "a"'),
    "three dimensions": (np.zeros((2, 2, 2)), FrameColumns(), "shape (2, 2, 2)"),
    "names": (np.zeros((2, 2)), FrameColumns(sensors=("a",)), "sensors names 1 columns"),
    "a path": ("pump.csv", FrameColumns(), "type str"),
    "nothing": (pd.DataFrame(), FrameColumns(), "the frame is empty"),
    "no row": (np.zeros((0, 2)), FrameColumns(), "the frame is empty"),
    "times alone": ({"time": TIMES}, FrameColumns(), "no column of numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_the_fix(case: str) -> None:
    frame, columns, words = REFUSED[case]
    with pytest.raises(BadArgument) as refused:
        read_frame(frame, columns, None if case == "no times" else MINUTE_US)
    assert words in str(refused.value)
    assert isinstance(refused.value, ValueError)
