"""The ways of breaking things. Each is a function of servers, a seed and a size; it returns Figures."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tests.nemesis import journal
from tests.nemesis.figures import Figures
from tests.nemesis.inside import SESSION_S
from tests.nemesis.proxy import Proxy
from tests.nemesis.stage import Servers, Stage, tree_commit
from tests.nemesis.strangers import Strangers, leaders_of
from tests.nemesis.wrong_clock import WrongClock, find_library

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.nemesis.stage import Daemon


class Later:
    """What is to be done at a time of its own: faults heal while others begin."""

    def __init__(self) -> None:
        self._due: list[tuple[float, Callable[[], None]]] = []

    def at(self, in_s: float, do: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + in_s, do))

    def tick(self) -> None:
        now = time.monotonic()
        due = [each for each in self._due if each[0] <= now]
        self._due = [each for each in self._due if each[0] > now]
        for _, do in due:
            do()

    def all(self) -> None:
        """Heal everything now."""
        due, self._due = self._due, []
        for _, do in due:
            do()


def vacuity(figures: Figures, *, of: Sequence[str] = ("rebuilt", "late", "quarantined", "duplicate", "alerts")) -> None:
    """What should have happened, and did not."""
    figures.vacuous += [f"no {name}" for name in of if not getattr(figures, name)]


# ---------------------------------------------------------------- a: replicas

REPLICA_FAULTS = ("kill", "kill", "zombie", "ambush", "ambush", "pause", "terminate")


def replicas(
    servers: Servers, seed: int, *, n_records: int = 100_000, n_faults: int = 14, n_replicas: int = 3,
    inside: Sequence[str] = (), pause_s: tuple[float, float] = (2.0, 6.0), kinds: Sequence[str] = REPLICA_FAULTS,
) -> Figures:  # fmt: skip
    """Several daemons on one PostgreSQL: kill -9, and SIGSTOP for longer than the session, at random moments."""
    rng = random.Random(f"replicas/{seed}")
    figures = Figures("replicas", seed, commit=tree_commit())
    with Stage.set_up(servers, figures, n_partitions=6, inside=("ambushed", *inside)) as stage:
        daemons = [stage.daemon(f"daemon-{number}") for number in range(n_replicas)]
        for daemon in daemons:
            daemon.start()
        stage.wait_for("a first claim", lambda: any(d.events("partition_claimed") for d in daemons), 60)
        stage.begin_pour(n_records, seconds=n_faults * sum(pause_s) * 0.75)
        later = Later()
        deadline = time.monotonic() + 3 * n_faults * pause_s[1]
        while len(stage.faults) < n_faults and time.monotonic() < deadline:
            _wait(stage, later, rng.uniform(*pause_s))
            _hit(stage, rng, later, daemons, kinds)
        _wait(stage, later, 2.0)
        while any(not daemon.is_up for daemon in daemons):
            _wait(stage, later, 0.2)
        stage.finish()
        vacuity(figures, of=("rebuilt", "fenced", "late", "quarantined", "duplicate", "alerts"))
    return figures


def _wait(stage: Stage, later: Later, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        later.tick()
        stage.look()
        time.sleep(0.05)


def _hit(
    stage: Stage, rng: random.Random, later: Later, daemons: Sequence[Daemon], kinds: Sequence[str]
) -> None:  # fmt: skip
    """Something happens to one of those that have work, and usually only while the others are well."""
    n_down = sum(not daemon.is_up for daemon in daemons)
    up = stage.holders()
    if not up or (n_down and rng.random() < 0.6):
        return
    victim = rng.choice(up)
    # First what surely makes a zombie with a batch in its hands: a short run must see one fenced, too.
    kind = rng.choice(kinds) if stage.faults else "ambush"
    if kind == "ambush" and not victim.ambush(signal.SIGUSR1):
        return
    stage.note(kind, victim)
    if kind == "kill":
        victim.kill()
        later.at(rng.uniform(0, 3), victim.start)
    elif kind == "ambush":
        later.at(SESSION_S + rng.uniform(2, 6), victim.go_on)
    elif kind == "zombie":  # longer than the session: somebody else has its partitions when it wakes
        victim.stop()
        later.at(SESSION_S + rng.uniform(2, 6), victim.go_on)
    elif kind == "pause":  # shorter
        victim.stop()
        later.at(rng.uniform(0.2, SESSION_S * 0.6), victim.go_on)
    else:
        victim.terminate()
        later.at(rng.uniform(0, 2), victim.start)


def _is_over(stage: Stage) -> bool:
    """Whether all is sent and read."""
    return stage.pour is not None and stage.pour.is_done and stage.records() >= stage.pour.n_acknowledged


# ---------------------------------------------------------------- b: sqlite


def sqlite(
    servers: Servers, seed: int, *, n_records: int = 60_000, n_kills: int = 20, inside: Sequence[str] = ()
) -> Figures:
    """One daemon on SQLite, killed again and again: on the way up, claiming, rebuilding, inside transactions."""
    rng = random.Random(f"sqlite/{seed}")
    figures = Figures("sqlite", seed, commit=tree_commit())
    with Stage.set_up(servers, figures, n_partitions=4, database="sqlite", inside=inside) as stage:
        daemon = stage.daemon("daemon")
        stage.begin_pour(n_records, seconds=n_kills * 3)
        n_in_vain = 0
        for _ in range(n_kills):
            if len(figures.problems) > 3:
                break  # it is broken already
            before = stage.records()
            if daemon.pid is None:
                daemon.start()
            if rng.random() < 0.25:
                time.sleep(rng.uniform(0.2, 2.5))  # at whatever it is doing then
            else:
                stage.wait_for("a record", lambda at=before: stage.records() > at or _is_over(stage), 60, 0.05)
                time.sleep(rng.expovariate(2.0))
            stage.look()
            stage.note("kill", daemon)
            daemon.kill()
            n_in_vain += stage.records() == before
            with closing(sqlite3.connect(stage.site.database)) as connection:
                said = connection.execute("PRAGMA integrity_check").fetchall()
            if said != [("ok",)]:
                figures.problems.append(f"integrity_check: {said}")
        figures.measured["kills_without_progress"] = n_in_vain
        if n_in_vain > 0.7 * n_kills:
            figures.vacuous.append(f"{n_in_vain} of {n_kills} kills came before anything was done")
        if daemon.pid is None:
            daemon.start()
        stage.finish()
        vacuity(figures)
    return figures


# ---------------------------------------------------------------- c: the database


def database(
    servers: Servers, seed: int, *, n_records: int = 60_000, n_faults: int = 12, inside: Sequence[str] = ()
) -> Figures:
    """PostgreSQL restarted, its backends ended inside transactions, answers to COMMITs lost, long silences."""
    rng = random.Random(f"database/{seed}")
    figures = Figures("database", seed, commit=tree_commit())
    postgres = servers.postgres()
    with (
        Proxy(postgres.port) as proxy,
        Stage.set_up(
            servers, figures, n_partitions=4, inside=inside,
            url=lambda direct: direct.replace(f":{postgres.port}/", f":{proxy.port}/"),
        ) as stage,
    ):  # fmt: skip
        database_name = stage.site.config.store.url.rpartition("/")[2]
        daemons = [stage.daemon("daemon-0"), stage.daemon("daemon-1")]
        for daemon in daemons:
            daemon.start()
        stage.wait_for("a first claim", lambda: any(d.events("partition_claimed") for d in daemons), 60)
        stage.begin_pour(n_records, seconds=n_faults * 5)
        # The outcome of these must be known in the end: each kind comes, in an order of the seed's.
        kinds = ["lost_answer", "lost_answer", "lost_commit", "terminate", "restart_fast", "restart_immediate"]
        kinds += rng.choices(("lost_answer", "lost_commit", "terminate", "terminate_all", "stall"), k=n_faults)
        kinds = kinds[: max(n_faults, 4)]
        rng.shuffle(kinds)
        for kind in kinds:
            _wait(stage, Later(), rng.uniform(0.3, 3.0))
            if _hurt_database(servers, proxy, rng, kind, database_name):
                stage.note(kind)
        _wait(stage, Later(), 2.0)
        stage.finish()
        figures.unknown_commits = proxy.n_cut_after
        vacuity(figures, of=("unknown_commits", "late", "quarantined", "duplicate", "alerts"))
        if figures.resolved < figures.unknown_commits:
            # What a restart or another owner finds done needs no resolving: only those are missing here.
            figures.measured["unknown_not_resolved"] = figures.unknown_commits - figures.resolved
    return figures


def _hurt_database(servers: Servers, proxy: Proxy, rng: random.Random, kind: str, name: str) -> bool:
    """Return whether it came to pass."""
    postgres = servers.postgres()
    if kind in ("lost_answer", "lost_commit"):
        proxy.cut_next = "after" if kind == "lost_answer" else "before"
        deadline = time.monotonic() + 10
        while proxy.cut_next and time.monotonic() < deadline:
            time.sleep(0.02)
        happened, proxy.cut_next = not proxy.cut_next, ""
        return happened
    if kind == "stall":
        proxy.stall(rng.uniform(1, 8))
    elif kind == "terminate":  # one that is in a transaction, if there is one within two seconds
        postgres.execute(_END_ONE.replace("NAME", name))
    elif kind == "terminate_all":
        postgres.execute(_END_ALL.replace("NAME", name))
    else:
        postgres.stop(kind.removeprefix("restart_"))
        time.sleep(rng.uniform(0, 4))
        postgres.start()
    return True


_END_ALL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'NAME' AND application_name = 'monitor'
"""
_END_ONE = """
DO $$ DECLARE victim INT; BEGIN
    FOR turn IN 1..200 LOOP
        PERFORM pg_stat_clear_snapshot();
        SELECT pid INTO victim FROM pg_stat_activity WHERE datname = 'NAME' AND application_name = 'monitor'
            AND (turn = 200 OR xact_start IS NOT NULL AND query NOT LIKE '%SELECT%') LIMIT 1;
        IF victim IS NOT NULL THEN PERFORM pg_terminate_backend(victim); RETURN; END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$
"""


# ---------------------------------------------------------------- d: a rebalance storm


def storm(
    servers: Servers, seed: int, *, n_records: int = 80_000, n_assignments: int = 110, inside: Sequence[str] = ()
) -> Figures:
    """Strangers join and leave the group without a pause: every claim must begin to read where it said it would."""
    rng = random.Random(f"storm/{seed}")
    figures = Figures("storm", seed, commit=tree_commit())
    with Stage.set_up(servers, figures, n_partitions=6, inside=("first_offsets", *inside)) as stage:
        daemons = [stage.daemon("daemon-0"), stage.daemon("daemon-1")]
        for daemon in daemons:
            daemon.start()

        def n_claims() -> int:
            return sum(len(daemon.events("partition_claimed")) for daemon in daemons)

        stage.wait_for("a first claim", n_claims, 60)
        stage.begin_pour(n_records, seconds=n_assignments * 0.7)
        with Strangers(stage.bootstrap, stage.topic) as strangers:
            deadline = time.monotonic() + 2 * n_assignments
            while n_claims() < n_assignments and time.monotonic() < deadline:
                joins = not strangers.n_members or (strangers.n_members < 3 and rng.random() < 0.5)
                (strangers.join if joins else strangers.leave)()
                stage.note("join" if joins else "leave")
                _wait(stage, Later(), rng.uniform(0.3, 2.5))
        stage.finish()
        n_looked_at = _judge_first_offsets(figures, daemons)
        figures.measured |= {
            "first_offsets": n_looked_at,
            "dropped_stale": sum(len(daemon.events("unexpected_offset")) for daemon in daemons),
        }
        vacuity(figures, of=("rebuilt", "late", "quarantined", "duplicate", "alerts"))
        if figures.claims < n_assignments or n_looked_at < n_assignments // 4:
            figures.vacuous.append(f"{figures.claims} assignments, {n_looked_at} first offsets")
    return figures


def _judge_first_offsets(figures: Figures, daemons: Sequence[Daemon]) -> int:
    """Compare each first offset with the claim before it; return how many there were. A claim may be lost unread."""
    n = 0
    for daemon in daemons:
        claimed: dict[str, int] = {}
        for event in daemon.events():
            where = event.get("partition")
            if event["event"] == "partition_claimed":
                claimed[where] = event["rebuild_from"]
            elif event["event"] == "first_offset" and where in claimed:
                n += 1
                right = claimed.pop(where)
                if not event["want"] == event["got"] == right:
                    figures.problems.append(f"{where}: first offset {event['got']}, claimed from {right}")
    return n


# ---------------------------------------------------------------- e: brokers


def brokers(
    servers: Servers, seed: int, *, n_records: int = 60_000, n_faults: int = 8, inside: Sequence[str] = ()
) -> Figures:
    """Three brokers, one after the other killed or restarted: leaders and the group's coordinator move."""
    rng = random.Random(f"brokers/{seed}")
    figures = Figures("brokers", seed, commit=tree_commit())
    kafka = servers.kafka(3)
    with Stage.set_up(servers, figures, n_partitions=4, nodes=3, inside=inside) as stage:
        daemons = [stage.daemon("daemon-0"), stage.daemon("daemon-1")]
        for daemon in daemons:
            daemon.start()
        stage.wait_for("a first claim", lambda: any(d.events("partition_claimed") for d in daemons), 60)
        pour = stage.begin_pour(n_records, seconds=n_faults * 26)
        leaders, n_moved = leaders_of(stage.bootstrap, stage.topic), 0
        for _ in range(n_faults):
            _wait(stage, Later(), rng.uniform(0.5, 4))
            node, kind = rng.randint(1, 3), rng.choice(("kill", "kill", "stop"))
            stage.note(f"broker_{kind}")
            (kafka.kill if kind == "kill" else kafka.stop)(node=node)
            _wait(stage, Later(), rng.uniform(0.5, 6))
            now = leaders_of(stage.bootstrap, stage.topic)
            n_moved += sum(leaders.get(number) != leader for number, leader in now.items())
            leaders = now
            kafka.start()
        figures.measured["leader_moves"] = n_moved
        is_left = not pour.is_done
        stage.finish()
        figures.measured["unacknowledged"] = pour.n_unknown
        if not is_left or figures.silence_s is None:
            figures.vacuous.append("nothing was left to read after the last fault")
        elif figures.silence_s > 15:
            figures.problems.append(f"{figures.silence_s:.1f} s of silence after the last fault; 15 are allowed")
        if not n_moved:
            figures.vacuous.append("no leader moved")
        vacuity(figures, of=("late", "quarantined", "duplicate", "alerts"))
    return figures


# ---------------------------------------------------------------- f: a bricked consumer


def bricked(
    servers: Servers, seed: int, *, n_records: int = 30_000, n_faults: int = 3, look_s: float = 45.0,
    inside: Sequence[str] = (),
) -> Figures:  # fmt: skip
    """Heartbeats are answered with errors that aiokafka does not expect: the daemon heals by itself within 30 s."""
    rng = random.Random(f"bricked/{seed}")
    figures = Figures("bricked", seed, commit=tree_commit())
    with Stage.set_up(servers, figures, n_partitions=4, database="sqlite", inside=("bricked", *inside)) as stage:
        daemon = stage.daemon("daemon")
        daemon.start()
        stage.wait_for("a first claim", lambda: daemon.events("partition_claimed"), 60)
        stage.begin_pour(n_records, seconds=n_faults * (look_s + 8))
        spoilt_at = []
        for number in range(n_faults):
            _wait(stage, Later(), rng.uniform(2, 4))
            daemon.suffer(signal.SIGUSR1)
            stage.note("heartbeat_error")
            stage.wait_for("a spoilt heartbeat", lambda n=number: len(daemon.events("heartbeat_spoilt")) > n, 30)
            spoilt_at.append(time.time())
            _wait(stage, Later(), look_s)
        stage.finish()
        saves = [move.at for move in journal.moves(stage.site.fetch) if move.is_save]
        silences = [_longest_silence(saves, at, at + look_s) for at in spoilt_at]
        figures.measured |= {
            "longest_silence_s": round(max(silences), 1),
            "consumers_replaced": len(daemon.events("consumer_replaced")),
        }
        if max(silences) > 30:
            figures.problems.append(f"{max(silences):.1f} s of silence after a heartbeat error; 30 are allowed")
        vacuity(figures, of=("late", "quarantined", "duplicate", "alerts"))
    return figures


def _longest_silence(saves: Sequence[float], begin: float, end: float) -> float:
    marks = [begin, *(at for at in saves if begin < at < end), end]
    return max(after - before for before, after in pairwise(marks))


# ---------------------------------------------------------------- g: how long until all is well


def recovery(servers: Servers, seed: int, *, n_faults: int = 5, inside: Sequence[str] = ()) -> Figures:
    """kill -9 and a start by hand: the first new score within 10 s. No imports are spared here."""
    rng = random.Random(f"recovery/{seed}")
    figures = Figures("recovery", seed, commit=tree_commit())
    with Stage.set_up(servers, figures, n_partitions=4, database="sqlite", inside=inside) as stage:
        daemon = stage.daemon("daemon")
        daemon.start(as_operator=True)
        stage.begin_pour(20_000 + 4_000 * n_faults, seconds=20 + 20 * n_faults)
        stage.wait_for("a first record", stage.records, 60)
        for _ in range(n_faults):
            _wait(stage, Later(), rng.uniform(2, 5))
            stage.note("kill", daemon)
            daemon.kill()
            before = stage.records()
            daemon.start(as_operator=True)
            stage.wait_for("a new record", lambda at=before: stage.records() > at, 60, 0.1)
        stage.finish()
        moves = journal.moves(stage.site.fetch)
        waits = [_first_score(moves, began) for _, began in daemon.lives[1:]]
        figures.worst_recovery_s = max(waits)
        figures.measured |= {"restarts": len(waits), "worst_first_score_s": round(max(waits), 2)}
        figures.measured["mean_first_score_s"] = round(sum(waits) / len(waits), 2)
        if max(waits) > 10:
            figures.problems.append(f"{max(waits):.1f} s from a start to the first new score; 10 are allowed")
        vacuity(figures)
    return figures


def _first_score(moves: Sequence[journal.Move], since: float) -> float:
    """Seconds until the first save that stored a window."""
    n_windows: dict[tuple[str, int], int] = {}
    for move in moves:
        if move.at > since and move.is_save and move.n_windows > n_windows.get(move.partition, 0):
            return move.at - since
        n_windows[move.partition] = move.n_windows
    return float("inf")


def takeover(servers: Servers, seed: int, *, n_faults: int = 4, inside: Sequence[str] = ()) -> Figures:
    """One of two replicas dies and stays dead: the other has its partitions within the session timeout + 10 s."""
    rng = random.Random(f"takeover/{seed}")
    figures = Figures("takeover", seed, commit=tree_commit())
    limit_s = SESSION_S + 10
    with Stage.set_up(servers, figures, n_partitions=6, inside=inside) as stage:
        daemons = [stage.daemon("daemon-0"), stage.daemon("daemon-1")]
        for daemon in daemons:
            daemon.start()
        stage.begin_pour(n_faults * 9_000, seconds=n_faults * 40)
        for _ in range(n_faults):
            stage.wait_for("both to have partitions", lambda: len(stage.holders()) == 2, 60)
            _wait(stage, Later(), rng.uniform(2, 4))
            victim = rng.choice(daemons)
            stage.note("kill", victim)
            victim.kill()
            stage.wait_for("the other to have all", lambda: _n_owners(stage) == 1, 60)
            _wait(stage, Later(), 2.0)
            victim.start()
        stage.finish()
        if figures.worst_recovery_s is None:
            figures.vacuous.append("nothing was taken over")
        elif figures.worst_recovery_s > limit_s:
            figures.problems.append(f"{figures.worst_recovery_s:.1f} s until a takeover; {limit_s} are allowed")
        vacuity(figures)
    return figures


def _n_owners(stage: Stage) -> int:
    return len(stage.site.fetch("SELECT DISTINCT owner FROM source_partition"))


# ---------------------------------------------------------------- models, clocks


def models(
    servers: Servers, seed: int, *, n_records: int = 80_000, n_retrainings: int = 4, inside: Sequence[str] = ()
) -> Figures:
    """Models are trained and change hands while replicas die, the one that trains among them."""
    rng = random.Random(f"models/{seed}")
    figures = Figures("models", seed, commit=tree_commit())
    with Stage.set_up(servers, figures, n_partitions=6, inside=("ambushed", *inside)) as stage:
        daemons = [stage.daemon(f"daemon-{number}") for number in range(3)]
        for daemon in daemons:
            daemon.start()
        stage.wait_for("a first claim", lambda: any(d.events("partition_claimed") for d in daemons), 60)
        stage.begin_pour(n_records, seconds=n_retrainings * 25)
        stage.wait_for("something to learn from", lambda: stage.records() > n_records // 10, 60)
        later, n_refused = Later(), 0
        for _ in range(n_retrainings):
            n_refused += stage.site.command("retrain").returncode != 0  # one is under way: that is said, and right
            for _ in range(2):
                _wait(stage, later, rng.uniform(1, 7))
                _hit(stage, rng, later, daemons, REPLICA_FAULTS)
            _wait(stage, later, rng.uniform(4, 10))
        while any(not daemon.is_up for daemon in daemons):
            _wait(stage, later, 0.2)
        stage.finish()
        [(n_versions,)] = stage.site.fetch("SELECT COUNT(DISTINCT version_id) FROM score")
        figures.measured |= {
            "versions": n_versions,
            "refused": n_refused,
            "scored_again": sum(len(daemon.events("scoring_again")) for daemon in daemons),
        }
        vacuity(figures)
        if n_versions < 2:
            figures.vacuous.append("no model changed hands")
    return figures


def clocks(
    servers: Servers, seed: int, *, n_records: int = 60_000, n_faults: int = 8, inside: Sequence[str] = ()
) -> Figures:
    """As `replicas`, while the machine's clock jumps by up to a day under every daemon.

    With libfaketime it is the C library's clock, for Python and all others in the process alike; else SystemClock's.
    """
    size: dict[str, Any] = {"n_records": n_records, "n_faults": n_faults}
    library = find_library()
    if library is None:
        figures = replicas(servers, seed, inside=("clock_jumps", *inside), **size)
    else:
        with WrongClock(library, servers.new_folder("clock"), seed) as clock, servers.other_nursery(clock.environment):
            figures = replicas(servers, seed, inside=inside, **size)
        figures.measured["jumps"] = clock.n_jumps
    figures.scenario = "clocks"
    if "clocks_apart_s" not in figures.measured:
        figures.vacuous.append("no daemon saw another time")
    return figures


# ---------------------------------------------------------------- h: blocked loop, full disk


def blocked(
    servers: Servers, seed: int, *, n_records: int = 40_000, seconds: float = 60.0, inside: Sequence[str] = ()
) -> Figures:
    """The event loop of one of two replicas stands still, with its threads and sockets alive."""
    figures = Figures("blocked", seed, commit=tree_commit())
    with Stage.set_up(servers, figures, n_partitions=6, inside=(f"blocked:{seconds}", *inside)) as stage:
        daemons = [stage.daemon("daemon-0"), stage.daemon("daemon-1")]
        for daemon in daemons:
            daemon.start()
        stage.wait_for("both to have partitions", lambda: len(stage.holders()) == 2, 60)
        stage.begin_pour(n_records, seconds=2 * seconds + 20)
        for daemon in daemons:
            _wait(stage, Later(), 3.0)
            daemon.suffer(signal.SIGUSR2)
            stage.note("loop_blocked", daemon)
            _wait(stage, Later(), seconds + 4)
        stage.finish()
        vacuity(figures)
    return figures


def disk_full(servers: Servers, seed: int, *, n_records: int = 60_000, inside: Sequence[str] = ()) -> Figures:
    """SQLite on a file system of a few MB that fills up, and grows when somebody has cleared away."""
    figures = Figures("disk_full", seed, commit=tree_commit())
    folder = servers.new_folder("disk_full")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=False).returncode:
        figures.skipped = "no tmpfs can be mounted here"
        return figures
    try:
        with Stage.set_up(
            servers, figures, n_partitions=4, database="sqlite", inside=inside, folder=folder
        ) as stage:  # fmt: skip
            daemon = stage.daemon("daemon")
            daemon.log = folder.with_suffix(".log")
            daemon.start()
            stage.begin_pour(n_records, seconds=10)
            stage.wait_for("a full disk", lambda: daemon.events("database_away"), 120)
            stage.note("disk_full", daemon)
            _wait(stage, Later(), 5.0)
            subprocess.run(["mount", "-o", "remount,size=500m", str(folder)], check=True)
            stage.finish()
            with closing(sqlite3.connect(stage.site.database)) as connection:
                said = connection.execute("PRAGMA integrity_check").fetchall()
            if said != [("ok",)]:
                figures.problems.append(f"integrity_check: {said}")
            vacuity(figures, of=("late", "quarantined", "duplicate", "alerts"))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
    return figures


SCENARIOS: dict[str, Callable[..., Figures]] = {
    function.__name__: function
    for function in (
        replicas, sqlite, database, storm, brokers, models, bricked, recovery, takeover, blocked, clocks, disk_full,
    )
}  # fmt: skip
SHORT: dict[str, dict[str, Any]] = {
    "replicas": {"n_records": 10_000, "n_faults": 3, "pause_s": (1.0, 2.0)},
    "sqlite": {"n_records": 8_000, "n_kills": 4},
    "database": {"n_records": 8_000, "n_faults": 4},
    "storm": {"n_records": 8_000, "n_assignments": 16},
    "brokers": {"n_records": 15_000, "n_faults": 2},
    "bricked": {"n_records": 8_000, "n_faults": 1, "look_s": 30.0},
    "recovery": {"n_faults": 2},
    "takeover": {"n_faults": 1},
    "blocked": {"n_records": 12_000, "seconds": 10.0},
    "models": {"n_records": 30_000, "n_retrainings": 2},
    "clocks": {"n_records": 15_000, "n_faults": 3},
    "disk_full": {},
}
"""For CI, and for a first look."""
