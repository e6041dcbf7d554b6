"""Fetch the public files of the labelled recordings and convert them into the layout that the tests read.

    python -m tests.quality.get_recordings FOLDER                   the sets of `tests/run quality`: skab, nab, tep
    python -m tests.quality.get_recordings FOLDER smd asd ucr       other sets
    python -m tests.quality.get_recordings FOLDER nab --files NAB   one set from a clone or an unpacked archive

Then run the tests with MONITOR_DATA=FOLDER. The layout is `SET/SERIES.csv.gz` (timestamp, one column per sensor, label)
and `SET/meta.json` (source, licence, sampling interval, and for each series its healthy leading rows `train_rows`).
Each set has its own licence: read it before you use the recordings, and commit none of them.
"""

from __future__ import annotations

import argparse
import codecs
import csv
import gzip
import io
import json
import pickle
import sys
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True)
class ConvertedSeries:
    """One recording."""

    name: str
    timestamps: Sequence[str]
    """ISO 8601, or seconds from the first row."""
    sensors: Sequence[str]
    values: Sequence[Sequence[str]]
    """[rows][sensors], as written in the source; "" = missing."""
    label: Sequence[int]
    """[rows], 1 = anomalous."""
    train_rows: int


@dataclass(frozen=True)
class PublicSource:
    """The public origin of one set."""

    url: str
    """Archive (zip) of the files."""
    origin: str
    licence: str
    interval_s: float | None
    convert: Callable[[Path], Iterator[ConvertedSeries]]
    """Yield the series of a folder with the unpacked files."""


# ---------------------------------------------------------------- conversion


def skab(folder: Path) -> Iterator[ConvertedSeries]:
    """Yield a water circulation. Healthy are the first 400 rows, or half of the series without a fault."""
    for path in sorted(folder.glob("data/*/*.csv")):
        head, *rows = csv.reader(path.read_text().splitlines(), delimiter=";")
        sensors = [name for name in head[1:] if name not in ("anomaly", "changepoint")]
        is_healthy = path.parent.name == "anomaly-free"
        yield ConvertedSeries(
            "anomaly_free" if is_healthy else f"{path.parent.name}_{path.stem}",
            [row[0].replace(" ", "T") for row in rows],
            [name.replace(" ", "_") for name in sensors],
            [row[1 : 1 + len(sensors)] for row in rows],
            [0 if is_healthy else int(float(row[head.index("anomaly")])) for row in rows],
            len(rows) // 2 if is_healthy else 400,
        )


def nab(folder: Path) -> Iterator[ConvertedSeries]:
    """Yield single sensors of the groups realKnownCause, realAWSCloudwatch and realTraffic. Label: NAB's windows.

    Healthy are a quarter of the rows, at most up to 100 rows before the first event, at least NAB's probation.
    """
    windows = json.loads((folder / "labels" / "combined_windows.json").read_text())
    for group in ("realKnownCause", "realAWSCloudwatch", "realTraffic"):
        for path in sorted((folder / "data" / group).glob("*.csv")):
            _, *rows = csv.reader(path.read_text().splitlines())
            at = [datetime.fromisoformat(row[0]) for row in rows]
            spans = [[datetime.fromisoformat(end) for end in span] for span in windows[f"{group}/{path.name}"]]
            label = [int(any(first <= when <= last for first, last in spans)) for when in at]
            probation = min(int(0.15 * len(rows)), 750)
            quarter = len(rows) // 4
            train_rows = max(min(quarter, label.index(1) - 100 if 1 in label else quarter), probation)
            times = [when.isoformat() for when in at]
            yield ConvertedSeries(path.stem, times, ["value"], [[row[1]] for row in rows], label, train_rows)


def tep(folder: Path) -> Iterator[ConvertedSeries]:
    """Yield the simulated Tennessee Eastman plant: 500 healthy rows, then a run with a fault from its row 160 on."""
    sensors = [f"XMEAS_{number:02}" for number in range(1, 42)] + [f"XMV_{number:02}" for number in range(1, 12)]
    healthy = np.loadtxt(folder / "d00.dat").T  # this file alone has its rows as columns
    for path in sorted(folder.glob("d[0-9][0-9]_te.dat")):
        number, run = path.name[1:3], np.loadtxt(path)
        label = np.zeros(len(healthy) + len(run), int)
        label[len(healthy) + 160 :] = number != "00"
        yield _from_array(f"fault{number}", np.vstack((healthy, run)), label, len(healthy), 180, sensors)


def interfusion(prefix: str, interval_s: int) -> Callable[[Path], Iterator[ConvertedSeries]]:
    """Return the conversion of one of InterFusion's sets: pickled arrays for training, test and label."""

    def convert(folder: Path) -> Iterator[ConvertedSeries]:
        for path in sorted(folder.glob(f"data/processed/{prefix}*_train.pkl")):
            name = path.name.removesuffix("_train.pkl")
            train, test, label = (
                _unpickle(path.with_name(f"{name}_{part}.pkl")) for part in ("train", "test", "test_label")
            )
            values = np.vstack((train, test))
            label = np.concatenate((np.zeros(len(train), int), np.ravel(label).astype(int)))
            sensors = [f"m{number:02}" for number in range(values.shape[1])]
            yield _from_array(name, values, label, len(train), interval_s, sensors)

    return convert


def ucr(folder: Path) -> Iterator[ConvertedSeries]:
    """Yield periodic signals with one anomaly. Their file names hold the end of training and the anomaly's rows."""
    for path in sorted(folder.rglob("*_UCR_Anomaly_*.txt")):
        number, _, _, *words, end, first, last = path.stem.split("_")
        if any(word.startswith(("DISTORTED", "NOISE")) for word in words):
            continue
        values = np.array(path.read_text().split(), float)[:, None]
        label = np.zeros(len(values), int)
        label[int(first) - 1 : int(last)] = 1
        yield _from_array(f"{number}_{''.join(words)}", values, label, int(end), 1, ["value"])


def _from_array(
    name: str, values: Any, label: Any, train_rows: int, interval_s: int, sensors: Sequence[str]
) -> ConvertedSeries:
    cells = [["" if np.isnan(value) else f"{value:.7g}" for value in row] for row in values.tolist()]
    times = [str(row * interval_s) for row in range(len(cells))]
    return ConvertedSeries(name, times, sensors, cells, label.tolist(), train_rows)


class _ArraysOnly(pickle.Unpickler):
    """Unpickle NumPy arrays and nothing else: a pickle from the network may contain any call."""

    ALLOWED: ClassVar = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): codecs.encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"not an array: {module}.{name}")
        return self.ALLOWED[module, name]


def _unpickle(path: Path) -> Any:
    return _ArraysOnly(io.BytesIO(path.read_bytes())).load()


def _github(repository: str, commit: str, licence: str, interval_s: float, convert: Any) -> PublicSource:
    url = f"https://codeload.github.com/{repository}/zip/{commit}"
    return PublicSource(url, f"github.com/{repository}", licence, interval_s, convert)


_INTERFUSION = ("zhhlee/InterFusion", "8c85d511c1f070669ba8c5cf097b8fa4a202d15b", "MIT")
SOURCES = {
    "skab": _github("waico/SKAB", "b2c0d46c2971dcbfe71e26087b6d231998bb91c2", "GPL-3.0", 1, skab),
    "nab": _github("numenta/NAB", "ea702d75cc2258d9d7dd35ca8e5e2539d71f3140", "MIT", 300, nab),
    "tep": _github(
        "camaramm/tennessee-eastman-profBraatz", "0643318858ce7c87292bd59820b459e12a13d009", "NCSA", 180, tep
    ),
    "smd": _github(*_INTERFUSION, 60, interfusion("machine-", 60)),
    "asd": _github(*_INTERFUSION, 300, interfusion("omi-", 300)),
    "ucr": PublicSource(
        "https://www.cs.ucr.edu/~eamonn/time_series_data_2018/UCR_TimeSeriesAnomalyDatasets2021.zip",
        "www.cs.ucr.edu/~eamonn/time_series_data_2018",
        "free for research with citation",
        None,
        ucr,
    ),
}
BY_HAND = {
    "gecco": ("zenodo.org/records/3884398", "CC BY 4.0"),
    "oil3w": ("github.com/petrobras/3W", "CC BY 4.0"),
}
"""Sets of the long run only, without a conversion here."""
NEEDED = ("skab", "nab", "tep")


def how_to_get(*sets: str) -> str:
    """Return the reason of a skip: the origin and licence of the missing sets, and the command that converts them."""
    origins = BY_HAND | {name: (source.origin, source.licence) for name, source in SOURCES.items()}
    named = ", ".join(f"{name} ({', '.join(origins[name])})" for name in sets)
    converted = [name for name in sets if name in SOURCES]
    command = f"`python -m tests.quality.get_recordings FOLDER {' '.join(converted)}`"
    return f"needs recordings: {named}. Run {command if converted else 'a conversion'}, then set MONITOR_DATA=FOLDER"


# ---------------------------------------------------------------- files


def write(folder: Path, name: str, source: PublicSource, found: Iterator[ConvertedSeries]) -> list[str]:
    """Write the series of a set and its meta.json. Return their names."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    entries: dict[str, Any] = {}
    for one in found:
        with gzip.open(folder / name / f"{one.name}.csv.gz", "wt", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["timestamp", *one.sensors, "label"])
            rows.writerows(
                [at, *values, label] for at, values, label in zip(one.timestamps, one.values, one.label, strict=True)
            )
        entries[one.name] = {
            "rows": len(one.label),
            "sensors": len(one.sensors),
            "train_rows": one.train_rows,
            "anomaly_range_list": ranges(one.label),
            "contamination": round(sum(one.label[one.train_rows :]) / max(len(one.label) - one.train_rows, 1), 5),
            "missing_values": sum(cell == "" for row in one.values for cell in row),
        }
    facts = {"set": name, "source": source.url, "licence": source.licence, "sampling_interval_s": source.interval_s}
    (folder / name / "meta.json").write_text(json.dumps(facts | {"series": entries}, indent=1) + "\n")
    return list(entries)


def ranges(label: Sequence[int]) -> list[list[int]]:
    """Return [first, last] row of each run of anomalous rows."""
    edges = np.flatnonzero(np.diff([0, *label, 0]))
    return [[int(first), int(last) - 1] for first, last in zip(edges[::2], edges[1::2], strict=True)]


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack a zip file. Return its folder, without the one that GitHub puts around the files."""
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch and convert; 1 if a set has no series."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.get_recordings", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("folder", type=Path, help="destination, for MONITOR_DATA")
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(SOURCES)} [default: {' '.join(NEEDED)}]")
    parser.add_argument("--files", type=Path, help="folder with the unpacked files of one set, instead of a download")
    asked = parser.parse_args(arguments)
    sets = asked.sets or list(NEEDED)
    for name in sets:
        if name in BY_HAND:
            parser.error(f"{name} is converted by hand: {' '.join(BY_HAND[name])}")
        if name not in SOURCES:
            parser.error(f"no such set: {name}")
    if asked.files is not None and len(sets) != 1:
        parser.error("--files is for one set")
    for name in sets:
        source = SOURCES[name]
        with tempfile.TemporaryDirectory() as scratch:
            files = asked.files
            if files is None:
                print(f"{name}: fetching {source.url} ({source.licence})", flush=True)
                archive, _ = urllib.request.urlretrieve(source.url, Path(scratch) / "archive.zip")
                files = unpacked(Path(archive), Path(scratch) / "files")
            written = write(asked.folder, name, source, source.convert(files))
        print(f"{name}: {len(written)} series in {asked.folder / name}")
        if not written:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
