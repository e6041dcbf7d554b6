"""The store's functions in plain Python, and a door to them that fails before, after and long after the fact.

`Database` holds the tables as dictionaries; `FUNCTIONS` maps each function of `monitor.store` that the river calls to
its meaning here. One call is one transaction: it happens in one step (so transactions are in one order for all), all
of it or nothing. A function that is not in the table stops the simulation: what is not understood is not simulated.
`SimulatedStore` is one process's `AsyncStore`. `watch` sees each transaction, refused or not; the laws that must hold
at every moment are asserted there, apart from the code that keeps them.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from monitor.clock import from_us as from_us_to_time
from monitor.errors import Fenced, InvariantBroken, ModelsChanged, MonitorError, StoreUnavailable
from monitor.store import assets, partitions, versions
from monitor.store.commit import Commit, Digest, FleetRows, Saved, Snapshot
from monitor.store.partitions import Claim
from monitor.types import AlertChange, AlertState, Counters, DataAlertChange, Partition, Severity, VersionInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from random import Random

    from monitor.store.outbox import Channel
    from tests.simulation.clockwork import Process
    from tests.simulation.weather import Weather

ANOMALOUS, UNSCORED = 1, 2
LARGEST = float(np.finfo(np.float32).max)

UNDERSTOOD = {
    Commit: "pipeline partition epoch old_next new_next rewind_offset rewind_state counters at_us log_end fleets "
    "quarantined gaps data_alerts digest snapshots channels",
    FleetRows: "fleet asset_ids asset start_us end_us score verdict version n_present first_offset last_offset "
    "alerts sensors recent admitted activation_seq",
    Claim: "epoch next_offset rewind_offset rewind_state counters digest snapshots n_claims",
    assets.KnownAsset: "id name last_start_us recent open_alert closed_us since_offset",
}
"""What is saved and restored. A field that is new in the engine must be given a meaning here first."""


@dataclass(frozen=True, slots=True)
class PartitionRow:
    epoch: int
    owner: str
    start_offset: int | None = None
    next_offset: int | None = None
    rewind_offset: int | None = None
    rewind_state: str = "{}"
    counters: str = "{}"
    digest_offset: int | None = None
    state_digest: str | None = None
    n_claims: int = 1


@dataclass(frozen=True, slots=True)
class FleetRow:
    sensors: tuple[str, ...] | None = None
    activation_seq: int = 0


@dataclass(frozen=True, slots=True)
class AssetRow:
    id: int
    partition: Partition
    since_offset: int


@dataclass(frozen=True, slots=True)
class ScoreRow:
    end_us: int
    score: float | None
    verdict: int
    version: str | None
    n_present: int
    first_offset: int
    last_offset: int


@dataclass(frozen=True, slots=True)
class VersionRow:
    fleet: str
    path: str
    trained_us: int
    state: str = "candidate"


@dataclass(frozen=True, slots=True)
class AlertRow:
    id: int
    asset_id: int
    change: AlertChange
    """As applied last; its asset, a lane's index, means nothing here."""
    transitions: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class DataAlertRow:
    change: DataAlertChange
    """As applied last."""
    transitions: tuple[tuple[str, int], ...] = ()


@dataclass
class Database:
    """Tables by primary key. Rows are replaced, never changed, so that a transaction can be taken back."""

    partition: dict[tuple[str, Partition], PartitionRow] = field(default_factory=dict)
    fleet: dict[str, FleetRow] = field(default_factory=dict)
    asset: dict[tuple[str, str], AssetRow] = field(default_factory=dict)
    score: dict[tuple[int, int], ScoreRow] = field(default_factory=dict)
    """By (asset id, start)."""
    last_window: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    alert: dict[tuple[int, int], AlertRow] = field(default_factory=dict)
    """By (asset id, opened)."""
    open_alert: dict[int, int | None] = field(default_factory=dict)
    data_alert: dict[tuple[str, Partition, int], DataAlertRow] = field(default_factory=dict)
    """By (kind, partition, first offset)."""
    quarantine: dict[tuple[Partition, int], str] = field(default_factory=dict)
    gap: dict[tuple[str, Partition, int], int] = field(default_factory=dict)
    snapshot: dict[tuple[str, Partition, str], tuple[int, bytes]] = field(default_factory=dict)
    letter: dict[str, object] = field(default_factory=dict)
    """The outbox: whose alert it tells of, by the letter's key."""
    version: dict[str, VersionRow] = field(default_factory=dict)
    activation: dict[tuple[str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.history: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] | None = None
        """(function, its arguments, what it returned or raised), in order; None = not kept."""
        self.tell: Callable[[str], None] | None = None
        self.functions = dict(FUNCTIONS)
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []

    def put(self, table: dict[Any, Any], key: Any, row: Any) -> None:
        self._undo.append((table, key, table.get(key)))
        table[key] = row

    def apply(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do one transaction: all of it, or nothing and an error."""
        if fn not in self.functions:
            raise LookupError(f"the simulation does not know what {fn.__module__}.{fn.__qualname__} means")
        self._undo.clear()
        before = dict(self.partition)
        try:
            outcome = self.functions[fn](self, *args, **kwargs)
        except Exception as error:
            for table, key, row in reversed(self._undo):
                if row is None:
                    del table[key]
                else:
                    table[key] = row
            if isinstance(error, Fenced | ModelsChanged):
                self.counts[type(error).__name__.lower()] += 1
            self._remember(fn, args, kwargs, error)
            raise
        self._watch(fn, args, before)
        self._remember(fn, args, kwargs, outcome)
        return outcome

    def _remember(self, fn: Callable[..., Any], args: Any, kwargs: Any, outcome: Any) -> None:
        if self.tell is not None:
            self.tell(f"database: {fn.__name__} {told(args)} {kwargs or ''} → {told(outcome)}")
        if self.history is not None:
            self.history.append((fn, args, kwargs, outcome))

    def _watch(self, fn: Callable[..., Any], args: tuple[Any, ...], before: Mapping[Any, PartitionRow]) -> None:
        """Offsets and epochs never fall; only the owner of the present epoch moves an offset, from where it stood."""
        for key, row in self.partition.items():
            old = before.get(key)
            if old is None or old is row:
                continue
            if row.epoch < old.epoch or (row.next_offset or 0) < (old.next_offset or 0):
                self.violations.append(f"fell: {key} from {old} to {row}")
            if row.next_offset != old.next_offset and fn is partitions.commit:
                commit: Commit = args[0]
                if (commit.epoch, commit.old_next) != (old.epoch, old.next_offset):
                    self.violations.append(
                        f"fenced, and saved: {key} stood at {old.epoch, old.next_offset}, saved under "
                        f"{commit.epoch, commit.old_next}"
                    )


def told(what: Any) -> str:
    """Say something in a line: of a commit what matters."""
    if isinstance(what, tuple) and not hasattr(what, "_fields"):
        return ", ".join(map(told, what))
    if not isinstance(what, Commit):
        return str(what)[:300]
    rows = [f"{rows.fleet} {int(rows.asset_ids[asset])}@{start}" for rows in what.fleets
            for asset, start in zip(rows.asset, rows.start_us.tolist(), strict=True)]  # fmt: skip
    return (
        f"{what.partition} epoch {what.epoch}: {what.old_next} to {what.new_next}, rewind {what.rewind_offset} "
        f"{dict(what.rewind_state)}, windows {rows}, quarantined {[each.offset for each in what.quarantined]}, "
        f"gaps {list(what.gaps)}, {what.digest}, snapshots {[each[:2] for each in what.snapshots]}"
    )


# ---------------------------------------------------------------- partitions


def claim(db: Database, pipeline: str, partition: Partition, owner: str) -> Claim:
    key = pipeline, partition
    old = db.partition.get(key)
    if old is None:
        row = PartitionRow(1, owner)
    else:
        row = replace(old, epoch=old.epoch + 1, owner=owner, n_claims=old.n_claims + (old.owner != owner))
    db.put(db.partition, key, row)
    snapshots = [
        Snapshot(fleet, *kept)
        for (line, where, fleet), kept in db.snapshot.items()
        if (line, where) == key and kept[0] >= (row.rewind_offset or 0)
    ]
    return Claim(
        epoch=row.epoch,
        next_offset=row.next_offset,
        rewind_offset=row.rewind_offset,
        rewind_state=json.loads(row.rewind_state),
        counters=Counters(**json.loads(row.counters)),
        digest=None if row.state_digest is None else Digest(row.digest_offset or 0, row.state_digest),
        snapshots=snapshots,
        n_claims=row.n_claims,
    )


def begin(db: Database, pipeline: str, partition: Partition, epoch: int, offset: int) -> None:
    row = db.partition.get((pipeline, partition))
    if row is None or row.epoch != epoch or row.next_offset not in (None, offset):
        raise Fenced(f"{partition}: begin under epoch {epoch}")
    db.put(
        db.partition,
        (pipeline, partition),
        replace(row, start_offset=offset, next_offset=offset, rewind_offset=offset),
    )


def save(db: Database, commit: Commit) -> Saved:
    row = db.partition.get((commit.pipeline, commit.partition))
    if row is None or (row.epoch, row.next_offset) != (commit.epoch, commit.old_next):
        if row is None or (row.epoch, row.next_offset) != (commit.epoch, commit.new_next):
            raise Fenced(f"{commit.partition}: {commit.epoch, commit.old_next}, but it stands at {row}")
        db.counts["resolved"] += 1
        return Saved(was_done=True)
    move(db, commit)
    return insert_rows(db, commit)


def move(db: Database, commit: Commit) -> None:
    """Let the offset follow the records."""
    key = commit.pipeline, commit.partition
    db.put(
        db.partition,
        key,
        replace(
            db.partition[key],
            next_offset=commit.new_next,
            rewind_offset=commit.rewind_offset,
            rewind_state=json.dumps(commit.rewind_state),
            counters=json.dumps(asdict(commit.counters)),
            digest_offset=None if commit.digest is None else commit.digest.offset,
            state_digest=None if commit.digest is None else commit.digest.value,
            n_claims=0,
        ),
    )


def insert_rows(db: Database, commit: Commit) -> Saved:
    """Write what the records led to."""
    for rows in commit.fleets:
        if rows.sensors is not None and learn(db, rows.fleet, rows.sensors) != tuple(rows.sensors):
            raise Fenced(f"{commit.partition}: another partition taught {rows.fleet} other sensors")
        if rows.activation_seq is not None and len(rows.asset):
            expect_seq(db, rows.fleet, rows.activation_seq)
        for index, since in rows.admitted.items():
            [key] = [key for key, asset in db.asset.items() if asset.id == int(rows.asset_ids[index])]
            db.put(db.asset, key, replace(db.asset[key], since_offset=since))
        _insert_scores(db, rows)
        for change in rows.alerts:
            _apply_alert(db, int(rows.asset_ids[change.asset]), change, commit.channels)
    for data_change in commit.data_alerts:
        _apply_data(db, data_change, commit.channels)
    for record in commit.quarantined:
        _insert(db, db.quarantine, (record.partition, record.offset), record.reason)
    for snapshot in commit.snapshots:
        key = commit.pipeline, commit.partition, snapshot.fleet
        state = db.snapshot[key][1] if snapshot.state is None else snapshot.state
        db.counts["snapshots"] += 1
        db.put(db.snapshot, key, (snapshot.at_offset, state))
    for gap in commit.gaps:
        _insert(db, db.gap, (commit.pipeline, commit.partition, gap.from_offset), gap.to_offset)
    return Saved()


def _insert(db: Database, table: dict[Any, Any], key: Any, row: Any) -> None:
    if key in table:
        raise InvariantBroken(f"a row with the key {key} is there already")
    db.put(table, key, row)


def _insert_scores(db: Database, rows: FleetRows) -> None:
    last: dict[int, int] = {}
    for place in sorted(range(len(rows.asset)), key=lambda place: int(rows.start_us[place])):
        asset_id, start_us = int(rows.asset_ids[rows.asset[place]]), int(rows.start_us[place])
        score, version = float(rows.score[place]), rows.version[place]
        if version is not None and version not in db.version:
            raise InvariantBroken(f"scores by {version}, which was never published")
        row = ScoreRow(
            end_us=int(rows.end_us[place]),
            score=None if np.isnan(score) else min(max(score, -LARGEST), LARGEST),
            verdict=int(rows.verdict[place]),
            version=version,
            n_present=int(rows.n_present[place]),
            first_offset=int(rows.first_offset[place]),
            last_offset=int(rows.last_offset[place]),
        )
        _insert(db, db.score, (asset_id, start_us), row)
        last[asset_id] = start_us
    recent = {int(rows.asset_ids[index]): tuple(verdicts) for index, verdicts in rows.recent.items()}
    for asset_id, start_us in last.items():
        db.put(db.last_window, asset_id, (start_us, recent.get(asset_id, ())))


def _apply_alert(db: Database, asset_id: int, change: AlertChange, channels: Sequence[Channel]) -> int:
    key = asset_id, change.opened_us
    row = db.alert.get(key)
    before = None if row is None else row.change.severity
    if row is None or row.change.state is AlertState.CLOSED:
        if change.state is not AlertState.FIRING:
            raise InvariantBroken(f"{change.state} for an alert that is not open: {key}")
        if row is not None or db.open_alert.get(asset_id) is not None:
            raise InvariantBroken(f"a second alert: {key}")
        row = AlertRow(len(db.alert) + len(db.data_alert) + 1, asset_id, change)
    steps = row.transitions
    if change.is_transition:
        steps = (*steps, (str(change.state), change.at_us))
    db.put(db.alert, key, replace(row, change=change, transitions=steps))
    db.put(db.open_alert, asset_id, None if change.state is AlertState.CLOSED else change.opened_us)
    step = "firing" if before is None else "closed" if change.state is AlertState.CLOSED else None
    if step is None and change.severity is Severity.CRITICAL and before is not Severity.CRITICAL:
        step = "critical"
    for channel in channels:
        if step is not None and channel.wants(change):
            name = next(name for (_, name), kept in db.asset.items() if kept.id == asset_id)
            _insert(db, db.letter, f"{channel.name}:{change.fleet}/{name}:{change.opened_us}:{step}", asset_id)
    return row.id


def _apply_data(db: Database, change: DataAlertChange, channels: Sequence[Channel]) -> None:
    key = change.kind, change.partition, change.from_offset
    row = db.data_alert.get(key)
    if (row is None) != (change.is_transition and change.state is AlertState.FIRING):
        raise InvariantBroken(f"{change} after {row}")
    row = row or DataAlertRow(change)
    if row.change.state is AlertState.CLOSED:
        raise InvariantBroken(f"{change} of an alert that is closed")
    steps = row.transitions
    if change.is_transition:
        steps = (*steps, (str(change.state), change.at_us))
    db.put(db.data_alert, key, replace(row, change=change, transitions=steps))
    for channel in channels:
        if change.is_transition and channel.wants(change):
            story = f"data:{change.kind}/{change.partition}:{change.from_offset}:{change.state}"
            _insert(db, db.letter, f"{channel.name}:{story}", key)


# ---------------------------------------------------------------- fleets and assets


def learn(db: Database, fleet: str, sensors: Sequence[str]) -> tuple[str, ...]:
    row = db.fleet.get(fleet, FleetRow())
    if row.sensors is None:
        row = replace(row, sensors=tuple(sensors))
        db.put(db.fleet, fleet, row)
    assert row.sensors is not None
    return row.sensors


def fleets(db: Database) -> dict[str, tuple[str, ...] | None]:
    return {name: db.fleet[name].sensors for name in sorted(db.fleet)}


def resolve(
    db: Database, fleet: str, names: Sequence[str], partition: Partition, waiting: Collection[str] = ()
) -> dict[str, assets.Registration]:
    unique = sorted(set(names))
    if unique and fleet not in db.fleet:
        db.put(db.fleet, fleet, FleetRow())
    for name in unique:
        if (fleet, name) not in db.asset:
            row = AssetRow(len(db.asset) + 1, partition, assets.NOT_ADMITTED if name in waiting else 0)
            db.put(db.asset, (fleet, name), row)
    return {name: assets.Registration(db.asset[fleet, name].id, db.asset[fleet, name].partition) for name in unique}


def homes_of(db: Database, fleet: str, names: Sequence[str]) -> dict[str, assets.Registration]:
    known = {name: db.asset[fleet, name] for name in names if (fleet, name) in db.asset}
    return {name: assets.Registration(row.id, row.partition) for name, row in known.items()}


def restore(db: Database, partition: Partition) -> dict[str, list[assets.KnownAsset]]:
    known: dict[str, list[assets.KnownAsset]] = {}
    ours = sorted((row.id, key) for key, row in db.asset.items() if row.partition == partition)
    for asset_id, (fleet, name) in ours:
        of_fleet = known.setdefault(fleet, [])
        last_start_us, recent = db.last_window.get(asset_id, (None, ()))
        alerts = [row.change for (owner, _), row in db.alert.items() if owner == asset_id]
        closed = [change.at_us for change in alerts if change.state is AlertState.CLOSED]
        opened_us = db.open_alert.get(asset_id)
        of_fleet.append(
            assets.KnownAsset(
                id=asset_id,
                name=name,
                last_start_us=last_start_us,
                recent=tuple((packed // 2, packed % 2 == 1) for packed in recent),
                open_alert=None
                if opened_us is None
                else replace(db.alert[asset_id, opened_us].change, asset=len(of_fleet), is_transition=False),
                closed_us=max(closed, default=None),
                since_offset=db.asset[fleet, name].since_offset,
            )
        )
    return known


# ---------------------------------------------------------------- versions


def succeed(
    db: Database, *, version: str, fleet: str, path: str, trained_us: int, lease: tuple[str, int] | None, **_facts: Any
) -> versions.Activation:
    if lease is not None:
        raise LookupError("the simulation has no leases")
    if version not in db.version:
        db.put(db.version, version, VersionRow(fleet, path, trained_us))
    row = db.fleet.get(fleet, FleetRow())
    db.put(db.fleet, fleet, replace(row, activation_seq=row.activation_seq + 1))
    for name, each in db.version.items():
        if name == version:
            db.put(db.version, name, replace(each, state="champion"))
        elif each.fleet == fleet and each.state == "champion":
            db.put(db.version, name, replace(each, state="retired"))
    last = [from_us for name, from_us in db.activation if name == fleet]
    from_us = max(versions.FOREVER_AGO_US, *last, _newest_end_us(db, fleet))
    db.put(db.activation, (fleet, from_us), version)
    return versions.Activation(from_us, version)


def champion(db: Database, fleet: str) -> VersionInfo | None:
    for version, row in db.version.items():
        if (row.fleet, row.state) == (fleet, "champion"):
            from_us = max(from_us for (_, from_us), held in db.activation.items() if held == version)
            return VersionInfo(version, fleet, row.state, from_us_to_time(row.trained_us), row.path, from_us)
    return None


def champions(db: Database, fleet: str) -> versions.FleetActivations:
    seq = db.fleet[fleet].activation_seq if fleet in db.fleet else 0
    return versions.FleetActivations(seq, [(*each, db.version[each.version].path) for each in activations(db, fleet)])


def activations(db: Database, fleet: str) -> list[versions.Activation]:
    return sorted(
        versions.Activation(from_us, held) for (name, from_us), held in db.activation.items() if name == fleet
    )


def seqs(db: Database) -> dict[str, int]:
    return {name: row.activation_seq for name, row in db.fleet.items()}


def expect_seq(db: Database, fleet: str, seq: int) -> None:
    if db.fleet[fleet].activation_seq != seq:
        raise ModelsChanged(f"{fleet}: {seq}, and {db.fleet[fleet].activation_seq} holds")


def _newest_end_us(db: Database, fleet: str) -> int:
    ids = [row.id for (name, _), row in db.asset.items() if name == fleet]
    lasts = [(asset_id, db.last_window[asset_id][0]) for asset_id in ids if asset_id in db.last_window]
    return max((db.score[key].end_us for key in lasts), default=versions.FOREVER_AGO_US)


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    partitions.claim: claim,
    partitions.set_start: begin,
    partitions.commit: save,
    assets.register_sensors: learn,
    assets.fleets: fleets,
    assets.register: resolve,
    assets.find: homes_of,
    assets.restore: restore,
    versions.publish_and_activate: succeed,
    versions.champion: champion,
    versions.activation_history: champions,
    versions.activation_seqs: seqs,
}


# ---------------------------------------------------------------- the door


class SimulatedStore:
    """An `AsyncStore` of one process: what `run`, `read` and `save` promise, through the worst of connections."""

    def __init__(
        self,
        database: Database,
        process: Process,
        rng: Random,
        weather: Weather,
        freeze: Callable[[Process], None],
    ) -> None:
        self.database = database
        self._process = process
        self._rng = rng
        self._weather = weather
        self._freeze = freeze

    async def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._call(fn, args, kwargs, writes=True)

    async def read(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return await self._call(fn, args, kwargs, writes=False)
        except StoreUnavailable:
            return await self._call(fn, args, kwargs, writes=False)

    async def save(self, commit: Commit) -> Saved:
        saved: Saved
        try:
            saved = await self.run(partitions.commit, commit)
        except StoreUnavailable:
            saved = await self.run(partitions.commit, commit)
        return saved

    async def _call(self, fn: Callable[..., Any], args: Any, kwargs: Any, *, writes: bool) -> Any:
        weather, counts = self._weather, self.database.counts
        await self._process.pause(self._latency_s())
        if self._chance(weather.dies_before):
            await self._dies()
        if self._chance(weather.freezes_before):
            await self._freezes()
        if weather.database_is_away or self._chance(weather.unavailable):
            counts["unavailable"] += 1
            raise StoreUnavailable("simulated: not done")
        if writes and self._chance(weather.overdue):
            counts["overdue"] += 1
            loop = asyncio.get_running_loop()
            loop.call_later(self._rng.random() * 3, self._do_quietly, fn, args, kwargs)
            raise StoreUnavailable("simulated: not done yet")
        error = outcome = None
        try:
            outcome = self.database.apply(fn, *args, **kwargs)
        except MonitorError as refused:
            error = refused
        if self._chance(weather.dies_after):
            await self._dies()
        if self._chance(weather.freezes_after):
            await self._freezes()
        await self._process.pause(self._latency_s())
        if self._chance(weather.unknown):
            counts["unknown"] += writes and error is None
            raise StoreUnavailable("simulated: nobody knows")
        if error is not None:
            raise error
        return outcome

    def _do_quietly(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        with suppress(Fenced, ModelsChanged):
            self.database.apply(fn, *args, **kwargs)

    def _chance(self, share: float) -> bool:
        return share > 0 and self._rng.random() < share

    def _latency_s(self) -> float:
        if self._chance(self._weather.slow):
            self.database.counts["slow"] += 1
            return self._rng.random() * 8
        return self._rng.random() * 0.02

    async def _dies(self) -> None:
        self.database.counts["died at a call"] += 1
        self._process.die()
        await self._process.pause(0)

    async def _freezes(self) -> None:
        self._freeze(self._process)
        await self._process.pause(0)


def check_understood() -> None:
    """Raise LookupError when the engine saves or restores something that has no meaning here."""
    for kind, names in UNDERSTOOD.items():
        there = {fact.name for fact in fields(kind)}
        if there != set(names.split()):
            raise LookupError(f"{kind.__name__} changed: {sorted(there ^ set(names.split()))}")


check_understood()
