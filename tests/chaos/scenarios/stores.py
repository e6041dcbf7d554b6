"""The database suffers: its only user is killed, it restarts, loses answers, says nothing, has no room."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING

from tests.chaos.figures import Figures
from tests.chaos.proxy import Proxy
from tests.chaos.scenarios.common import Later, vacuity, wait
from tests.chaos.stage import Servers, Stage, tree_commit

if TYPE_CHECKING:
    from collections.abc import Sequence


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


def _is_over(stage: Stage) -> bool:
    """Whether all is sent and read."""
    return stage.pour is not None and stage.pour.is_done and stage.records() >= stage.pour.n_acknowledged


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
            wait(stage, Later(), rng.uniform(0.3, 3.0))
            if _hurt_database(servers, proxy, rng, kind, database_name):
                stage.note(kind)
        wait(stage, Later(), 2.0)
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
            wait(stage, Later(), 5.0)
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
