"""Hostile producers: millions of mutated records through the whole pipeline.

    python -m tests.hostile --messages 1000000 --seed 7        mutated messages between the records of healthy assets
    python -m tests.hostile --names 1000000 --seed 7           as many invented asset names, and their cost in memory

Verified: no bytes raise an exception. Every record is accepted, quarantined with a known word, late, a duplicate or a
tombstone. The windows of healthy assets are those of a run without hostile records.

The logs are generated record by record from the seed whenever they are read, so that only the pipeline uses memory. The
broker's timestamps are correct (LogAppendTime), and healthy records are complete. Hostile records have the same topic,
partition and fleet, and other assets. If the oracle accepts a mutation as a record of a healthy asset, it is replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import math
import os
import random
import sqlite3
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import msgspec
import numpy as np

from monitor.clock import SystemClock
from monitor.config import Config
from monitor.decode import block_msgpack, reading_json
from monitor.printable import escape_unprintable
from monitor.store.engine import AsyncStore
from monitor.stream.pipeline import Pipeline
from monitor.types import Counters, Partition, Scores
from tests.fakes import LogSource, Record
from tests.oracle.log import Refused, readings_of, rules_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from monitor.types import Int64, Windows
    from tests.oracle.log import Rules

WORDS = frozenset({
    "not_json", "not_msgpack", "wrong_type", "unknown_sensor", "missing_asset", "bad_asset", "no_fleet", "missing_ts",
    "bad_ts", "not_finite", "future", "too_large", "too_deep", "too_many_fields", "too_many_readings",
    "empty", "unknown_shape", "no_reading", "ambiguous", "block_shape", "late", "wrong_partition", "too_many_assets",
})  # fmt: skip
"""The words that a reason may begin with, whatever the format."""
FORMAT_WORDS = frozenset({
    "not_csv", "not_influx", "not_avro", "not_protobuf", "not_arrow", "not_sparkplug", "bad_schema", "unknown_schema",
    "unknown_alias",
})  # fmt: skip
"""The words of formats with a header or a schema."""
PLACE = Partition("plant", 0)
SENSORS = ("flow", "heat", "in:let", "pressure")
HEALTHY = tuple(f"P{i:02d}" for i in range(5))
EVERY = 10
"""One record in so many belongs to a healthy asset."""
S = 1_000_000
BEGIN_S = 1_700_000_000


def config_of(folder: Path, **fleet: Any) -> Config:
    both = {"sensors": list(SENSORS), "interval": "1s", "window": 8, "lateness": "2m", **fleet}
    return Config.model_validate(
        {
            "kafka": {"bootstrap": "nowhere:1", "topics": ["plant"], "max_skew": "1m", "max_quarantine_share": 1.0},
            "store": {"url": f"sqlite:///{folder}/monitor.db"},
            "fleet": [{"name": "pumps", "assets": ["P*", "M*"], **both}, {"name": "strays", "assets": "*", **both}],
        }
    )


class Checksum:
    """A scorer whose scores are checksums of the windows, so that a wrong window has a wrong score."""

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        seen = np.nan_to_num(windows.values.astype(np.float64)).sum(axis=(1, 2)) + windows.start
        return Scores(windows, (np.abs(np.sin(seen)) * 0.9).astype(np.float32), ["v"] * len(windows), {})


# ---------------------------------------------------------------- logs


class GeneratedLog(Sequence[Record]):
    """A log whose records are generated when they are read, each from its offset."""

    def __init__(self, make: Callable[[int], Record], offsets: range) -> None:
        self._make = make
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> list[Record]: ...
    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        if isinstance(at, slice):
            return [self._make(offset) for offset in self._offsets[at]]
        return self._make(self._offsets[at])


def stamp_of(offset: int) -> int:
    """Return Kafka's timestamp. It advances by a second after a record of each healthy asset."""
    return (BEGIN_S + offset // EVERY // len(HEALTHY)) * S


def healthy(offset: int) -> Record:
    """Return a record of a healthy asset, one asset after the other."""
    number, stamp = offset // EVERY, stamp_of(offset)
    asset = HEALTHY[number % len(HEALTHY)]
    values = [math.sin(number + c) * (c + 1) for c in range(len(SENSORS))]
    return offset, stamp, asset.encode(), reading_json(asset, stamp, values, SENSORS)


@dataclass
class Hostile:
    """Generates the record at any offset: a healthy one, or a mutation."""

    seed: int
    rules: Rules
    n_replaced: int = 0
    made: Counter[str] = field(default_factory=Counter)
    """Mutations by kind."""

    def record(self, offset: int) -> Record:
        if offset % EVERY == 0:
            return healthy(offset)
        rng = random.Random(self.seed << 40 | offset)
        stamp = stamp_of(offset)
        while True:
            name = rng.choice(MUTATIONS)
            key, value = name(rng, base(rng, stamp), stamp)
            if not self._is_healthy(key, value, stamp):
                self.made[name.__name__.strip("_")] += 1
                return (offset, stamp, key, value)
            self.n_replaced += 1

    def _is_healthy(self, key: bytes | None, value: bytes | None, stamp: int) -> bool:
        if b"P0" not in (value or b"") and b"P0" not in (key or b""):
            return False
        try:
            found = readings_of((0, stamp, key, value), self.rules, PLACE.topic)
        except (Refused, ArithmeticError, ValueError):
            return False
        return bool(found) and found[0].asset in HEALTHY  # type: ignore[index]  # tombstones were rejected above


# ---------------------------------------------------------------- valid records


def payload(rng: random.Random, stamp: int) -> dict[str, Any]:
    """Return a valid record of another asset, in one of the forms that are objects."""
    second = stamp // S - rng.randint(0, 100)
    asset = rng.choice(["M1", "M2", "M3", "stray", "a:b", f"M{rng.randrange(10**6)}", "é", 17])
    values = {name: round(rng.uniform(-9, 9), 3) for name in rng.sample(SENSORS, rng.randint(1, len(SENSORS)))}
    beside = rng.choice([{}, {}, {"site": "north:west"}, {"meta": {"a": [1, {"b": None}]}}, {"tags": ["x", 1]}])
    form = rng.randrange(4)
    if form == 0:
        return {"ts": second, "asset": asset, "sensors": values, **beside}
    if form == 1:
        return {"ts": second, "asset": asset, **values}
    rows = rng.randint(1, 5)
    columns = {name: [value] * rows for name, value in values.items()}
    if form == 2:
        return {"ts": [second + i for i in range(rows)], "asset": asset, "sensors": columns, **beside}
    return {"start": second, "interval": rng.choice([1, 0.5]), "asset": asset, "sensors": columns}


def base(rng: random.Random, stamp: int) -> bytes:
    kind = rng.random()
    if kind < 0.2:
        times = np.arange(rng.randint(1, 6)) * S + stamp // S * S - 60 * S
        return block_msgpack(rng.choice(["M1", "M9"]), times, np.ones((len(times), len(SENSORS))), SENSORS)
    whole = payload(rng, stamp)
    return msgspec.msgpack.encode(whole) if kind < 0.5 else json.dumps(whole, ensure_ascii=rng.random() < 0.5).encode()


# ---------------------------------------------------------------- mutations: a valid record → key and value

Made = tuple[bytes | None, bytes | None]
TOKENS = [
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\\u003a", b"\\ud800", b"\\u0000", b"null", b"NaN", b"-Infinity",
    b"1e999", b"1e308", b"-0.0", b"9" * 25, b"\0", b"\xff", b"\xef\xbb\xbf", b"\x80", b"\x8f", b"\x90", b"\xc0",
    b"\xc1", b"\xc7\x0c\xff", b"\xd4\x01\x00", b"\xde\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdd\x7f\xff\xff\xff",
    b"\xca\x7f\x80\0\0", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xa7sensors", b'"sensors":', b'"ts":1,', b"\xa2ts\x01",
    b"P01", b"M1",
]  # fmt: skip
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1.5, -0.0, 1e39, -1e308, 2**63 - 1, -(2**63), 2**64 - 1, "", "1", "NaN", "P01", "\0",
    "\u202e", "x" * 5000, [], [[]], {}, {"a": 1}, [None], [1, "1"], {"": {"": {}}}, b"", b"\0\0\x80\x7f",
    "2023-11-14T22:13:20Z",
    "9999-12-31T23:59:59Z", "0001-01-01", float("nan"), float("inf"), msgspec.msgpack.Ext(1, b"x"),
]  # fmt: skip
KEYS = [None, b"", b"M1", b"M2", b"stray", b"P01", b"\xff\xfe", b"\xed\xa0\x80", b"\0", b"M" * 129, b"M1\n", b"a!"]


def _key(rng: random.Random) -> bytes | None:
    return rng.choice(KEYS) if rng.random() < 0.2 else b"M%d" % rng.randrange(50)


def _untouched(rng: random.Random, value: bytes, stamp: int) -> Made:
    return _key(rng), value


def _bit_flips(rng: random.Random, value: bytes, stamp: int) -> Made:
    spoilt = bytearray(value)
    for _ in range(rng.choice([1, 1, 2, 8])):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return _key(rng), bytes(spoilt)


def _truncated(rng: random.Random, value: bytes, stamp: int) -> Made:
    return _key(rng), value[: rng.randrange(len(value))]


def _garbage_behind(rng: random.Random, value: bytes, stamp: int) -> Made:
    return _key(rng), value + rng.choice([b" ", b"\n", value, rng.randbytes(rng.randint(1, 40)), b"\0"])


def _spliced(rng: random.Random, value: bytes, stamp: int) -> Made:
    other = rng.choice([base(rng, stamp), healthy(rng.randrange(200) * EVERY)[3] or b""])
    return _key(rng), value[: rng.randrange(len(value))] + other[rng.randrange(len(other)) :]


def _tokens_put_in(rng: random.Random, value: bytes, stamp: int) -> Made:
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(value))
        value = value[:at] + rng.choice(TOKENS) + value[at + rng.randint(0, 3) :]
    return _key(rng), value


def _written(rng: random.Random, whole: Any) -> bytes:
    try:
        if rng.random() < 0.5:
            return msgspec.msgpack.encode(whole)
        return json.dumps(whole, default=lambda value: value.hex() if isinstance(value, bytes) else None).encode()
    except (OverflowError, TypeError, ValueError):  # an integer too large for MessagePack, or an extension in a key
        return b"\xc1"


def _types_swapped(rng: random.Random, value: bytes, stamp: int) -> Made:
    whole = payload(rng, stamp)
    for _ in range(rng.randint(1, 2)):
        inner = whole["sensors"] if isinstance(whole.get("sensors"), dict) and rng.random() < 0.5 else whole
        if inner:
            inner[rng.choice(list(inner))] = copy.deepcopy(rng.choice(STRANGE))
    return _key(rng), _written(rng, whole)


def _names_swapped(rng: random.Random, value: bytes, stamp: int) -> Made:
    names = ["ts", "time", "timestamp", "asset", "asset_id", "sensors", "start", "interval", "values", "flow", "", "\0"]
    whole = {rng.choice(names) if rng.random() < 0.3 else name: cell for name, cell in payload(rng, stamp).items()}
    return _key(rng), _written(rng, whole)


def _huge_numbers(rng: random.Random, value: bytes, stamp: int) -> Made:
    number = rng.choice([b"1e308", b"-1e308", b"1e999", b"9" * 400, b"9" * 5000, b"3.4028236e38", b"1e-400", b"NaN"])
    name = rng.choice([b'"ts"', b'"flow"', b'"start":1,"sensors":{"flow":[1,2]},"interval"', b'"asset"', b'"beside"'])
    return _key(rng), b'{"ts":%d,"flow":1,' % (stamp // S) + name + b":" + number + b"}"


def _key_twice(rng: random.Random, value: bytes, stamp: int) -> Made:
    again = rng.choice(["ts", "asset", "flow", "sensors", "site"])
    if value[0] < 0x80:
        at = rng.choice([at for at, byte in enumerate(value) if byte == ord("{")]) + 1
        return _key(rng), value[:at] + json.dumps({again: rng.choice(STRANGE[:20])}).encode()[1:-1] + b"," + value[at:]
    head = bytes([min(value[0] + 1, 0x8F)])
    return _key(rng), head + msgspec.msgpack.encode(again) + b"\x01" + value[1:]


def _nested_bomb(rng: random.Random, value: bytes, stamp: int) -> Made:
    levels = rng.choice([15, 16, 17, 100, 900, 1000, 5000])
    open_, close = rng.choice([(b"[", b"]"), (b'{"a":', b"}"), (b"\x91", b""), (b"\x81\xa1a", b"")])
    inside = open_ * levels + rng.choice([b"1", b"", b"\x01"]) + close * levels
    start = b"\x83\xa2ts\x01\xa4flow\x01\xa1x" if open_[0] >= 0x80 else b'{"ts":%d,"flow":1,"x":' % (stamp // S)
    return _key(rng), start + inside + rng.choice([b"}", b""])


def _wide_bomb(rng: random.Random, value: bytes, stamp: int) -> Made:
    n = rng.choice([500, 1990, 2001, 3000])
    beside = dict.fromkeys((f"x{i}" for i in range(n)), rng.choice(["a", {}, []]))
    return _key(rng), _written(rng, payload(rng, stamp) | rng.choice([beside, {"meta": beside}, {"sensors": beside}]))


def _long_bomb(rng: random.Random, value: bytes, stamp: int) -> Made:
    if rng.random() < 0.97:  # seldom: they are long
        return _untouched(rng, value, stamp)
    n = rng.choice([3000, 40_000, 140_000])
    column = rng.choice([b"1", b"null", b"[]", b'""'])
    cells = b",".join([column] * n)
    return _key(rng), b'{"start":%d,"interval":1e-3,"sensors":{"flow":[%s]}}' % (stamp // S - 200, cells)


def _claims(rng: random.Random, value: bytes, stamp: int) -> Made:
    """Return a header of MessagePack with a length that the bytes do not have."""
    claim = rng.choice([0xDB, 0xC6, 0xC9, 0xDD, 0xDF]).to_bytes(1, "big") + struct.pack(">I", rng.randrange(2**32))
    return _key(rng), rng.choice([claim, b"\x81\xa2ts" + claim, b"\x82\xa7sensors" + claim + value, claim + value])


def _extensions(rng: random.Random, value: bytes, stamp: int) -> Made:
    data = rng.randbytes(rng.choice([0, 4, 8, 12]))
    odd = msgspec.msgpack.Ext(rng.choice([-1, 0, 5, 127]), data)
    whole = payload(rng, stamp)
    whole[rng.choice(["ts", "asset", "flow", "beside"])] = odd
    return _key(rng), msgspec.msgpack.encode(whole)


def _random_bytes(rng: random.Random, value: bytes, stamp: int) -> Made:
    first = bytes([rng.randrange(256)]) if rng.random() < 0.5 else rng.choice([b"{", b"\x83", b"\xde"])
    return _key(rng), first + rng.randbytes(rng.choice([0, 3, 30, 300, 3000]))


def _tombstone(rng: random.Random, value: bytes, stamp: int) -> Made:
    return _key(rng), rng.choice([None, b"", b" ", b"{}", b"\x80", b"null", b"[]"])


def _two_readings(rng: random.Random, value: bytes, stamp: int) -> Made:
    """Return two readings in one record, of which only some tell their assets or times apart."""
    first, second = payload(rng, stamp), payload(rng, stamp)
    return _key(rng), _written(rng, [first, rng.choice([second, {**first, "flow": 1.25}])])


def _invented_names(rng: random.Random, value: bytes, stamp: int) -> Made:
    name = f"M{rng.random():.12f}"
    return name.encode(), b'{"ts":%d,"flow":1.5}' % (stamp // S)


MUTATIONS: list[Callable[[random.Random, bytes, int], Made]] = [
    _untouched, _bit_flips, _bit_flips, _truncated, _garbage_behind, _spliced, _spliced, _tokens_put_in, _tokens_put_in,
    _types_swapped, _types_swapped, _names_swapped, _huge_numbers, _key_twice, _nested_bomb, _wide_bomb, _long_bomb,
    _claims, _extensions, _random_bytes, _tombstone, _two_readings, _invented_names,
]  # fmt: skip


# ---------------------------------------------------------------- runs


@dataclass
class Run:
    """Stored results of one run."""

    counters: Counters
    windows: list[tuple[Any, ...]]
    """Stored rows of healthy assets."""
    quarantine: list[tuple[int, str]]
    n_assets: int
    alerts: list[tuple[str, str, int]]
    """(kind, fleet, records) of alerts of class `data`."""
    took_s: float
    rss_mib: float = 0.0
    """Highest resident memory, minus the memory before the first record."""


class WatchedSource(LogSource):
    """A source that samples the resident memory."""

    most = 0
    n_polls = 0

    async def poll(self) -> Any:
        self.n_polls += 1
        if self.n_polls % 20 == 0:
            self.most = max(self.most, resident())
        return await super().poll()


def resident() -> int:
    """Return the resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def run_pipeline(log: Sequence[Record], config: Config, batch: int = 2000) -> Run:
    began_s = time.monotonic()
    async with AsyncStore(config.store.url, owner=True) as store:
        await store.run(_publish)
        before = resident()
        source = WatchedSource({PLACE: log}, batch)
        pipeline = Pipeline(config, source, store, Checksum(), owner="hostile", clock=SystemClock())
        await pipeline.run()
        counters = pipeline.partitions[PLACE].counters
    with closing(sqlite3.connect(config.store.url.removeprefix("sqlite:///"))) as db:
        windows = db.execute(
            "SELECT name, start_us, end_us, n_present, first_offset, last_offset, score, verdict"
            " FROM score JOIN asset ON asset.id = asset_id WHERE name IN (SELECT value FROM json_each(?))"
            " ORDER BY name, start_us",
            [json.dumps(HEALTHY)],
        ).fetchall()
        quarantine = db.execute("SELECT record_offset, reason FROM quarantine ORDER BY record_offset").fetchall()
        n_assets = db.execute("SELECT COUNT(*) FROM asset").fetchone()[0]
        alerts = db.execute("SELECT kind, fleet, n_anomalous FROM alert WHERE class = 'data'").fetchall()
    most = max(source.most, resident()) - before
    return Run(counters, windows, quarantine, n_assets, alerts, time.monotonic() - began_s, most / (1 << 20))


def _publish(connection: Any) -> None:
    from monitor.store import versions

    versions.publish(connection, version="v", fleet="pumps", path="", trained_us=0, card={}, metrics={})


def differences(with_them: Run, without: Run, n_records: int) -> Iterator[str]:
    """Yield a sentence for each violation."""
    count = with_them.counters
    fates = count.accepted + count.quarantined + count.late + count.duplicate + count.tombstones
    if count.records != n_records or fates != n_records:
        yield f"{n_records} records were written, {count.records} counted, {fates} under one fate: {count}"
    if sum(count.reasons.values()) != count.quarantined + count.late:
        yield f"{count.quarantined} quarantined and {count.late} late, reasons: {count.reasons}"
    if unknown := count.reasons.keys() - WORDS - FORMAT_WORDS:
        yield f"unknown words: {unknown}"
    for offset, reason in with_them.quarantine:
        word, _, sentence = reason.partition(": ")
        is_known = word in WORDS | FORMAT_WORDS
        if not is_known or not sentence or escape_unprintable(reason) != reason or len(reason) > 400:
            yield f"offset {offset}: {reason!r}"
        if offset % EVERY == 0:
            yield f"a healthy record is in quarantine, offset {offset}: {reason}"
    if with_them.windows != without.windows:
        changed = set(with_them.windows) ^ set(without.windows)
        yield f"{len(changed)} windows of healthy assets differ, first {min(changed)}"


def attack(n_messages: int, seed: int, folder: Path) -> tuple[Run, Run, Hostile, list[str]]:
    """Run the healthy records among hostile ones, and alone. Return both, and the differences."""
    n_records = n_messages * EVERY // (EVERY - 1) + 1
    (folder / "with").mkdir()
    (folder / "without").mkdir()
    config = config_of(folder / "with")
    hostile = Hostile(seed, rules_from(config))
    with_them = asyncio.run(run_pipeline(GeneratedLog(hostile.record, range(n_records)), config))
    without = asyncio.run(
        run_pipeline(GeneratedLog(healthy, range(0, n_records, EVERY)), config_of(folder / "without"))
    )
    return with_them, without, hostile, list(differences(with_them, without, n_records))


def flood(n_names: int, seed: int, folder: Path, minutes: float, **fleet: Any) -> Run:
    """Run invented names, each once. `minutes`: time from the first to the last, by Kafka's timestamps."""
    config = config_of(folder, **fleet)
    sensors = config.fleets[0].sensors or ()

    def record(offset: int) -> Record:
        rng = random.Random(seed << 40 | offset)
        stamp = BEGIN_S * S + int(offset * minutes * 60 * S / n_names)
        name = f"M{rng.getrandbits(80):020x}"
        return offset, stamp, name.encode(), reading_json(name, stamp, [1.0] * len(sensors), sensors)

    return asyncio.run(run_pipeline(GeneratedLog(record, range(n_names)), config))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=0)
    parser.add_argument("--names", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="from the first name to the last, by Kafka's timestamps"
    )
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        if given.messages:
            run, alone, hostile, wrong = attack(given.messages, given.seed, Path(folder))
            print(f"seed {given.seed}: {sum(hostile.made.values()):,} mutated messages in {run.took_s:.0f} s")
            print("made      ", ", ".join(f"{kind} {n:,}" for kind, n in hostile.made.most_common()))
            print("           right records of healthy assets, replaced:", hostile.n_replaced)
            print("fates     ", run.counters)
            print(f"assets     {run.n_assets:,}, resident + {run.rss_mib:.0f} MiB")
            print(f"healthy    {len(run.windows):,} windows among them, {len(alone.windows):,} alone")
        if given.names:
            (Path(folder) / "names").mkdir()
            usual = {"window": 64, "lateness": "1s", "sensors": [f"sensor_{i}" for i in range(8)]}
            run = flood(given.names, given.seed, Path(folder) / "names", given.minutes, **usual)
            print(f"names      {given.names:,} in {run.took_s:.0f} s, assets let in {run.n_assets:,}")
            print(f"           {run.counters.reasons}, resident + {run.rss_mib:.1f} MiB")
            print(f"alerts     {run.alerts}")
            if len(run.alerts) != 1:
                wrong.append(f"{len(run.alerts)} alerts about one producer")
    for sentence in wrong[:20]:
        print("WRONG     ", sentence)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
