"""Faults of the database: it restarts, loses answers, hangs or runs out of space, or its only client is killed."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING

from tests.chaos.environment import Environment, Servers, tree_commit
from tests.chaos.figures import Figures
from tests.chaos.proxy import Proxy
from tests.chaos.scenarios.common import Later, require, wait

if TYPE_CHECKING:
    from collections.abc import Sequence


def sqlite(
    servers: Servers, seed: int, *, n_records: int = 60_000, n_kills: int = 20, hooks: Sequence[str] = ()
) -> Figures:
    """One daemon on SQLite is killed again and again: at the start, in claims, rebuilds and transactions."""
    rng = random.Random(f"sqlite/{seed}")
    figures = Figures("sqlite", seed, commit=tree_commit())
    with Environment.set_up(servers, figures, n_partitions=4, database="sqlite", hooks=hooks) as env:
        daemon = env.daemon("daemon")
        daemon.start()
        # On a slow machine all records would be sent before the daemon is there, and a kill would find no open window.
        env.wait_for("a first claim", lambda: daemon.events("partition_claimed"), 60)
        env.start_traffic(n_records, seconds=n_kills * 3)
        n_without_progress = 0
        for _ in range(n_kills):
            if len(figures.problems) > 3:
                break  # it has failed already
            before = env.records()
            if daemon.pid is None:
                daemon.start()
            if rng.random() < 0.25:
                time.sleep(rng.uniform(0.2, 2.5))  # at any moment of its start
            else:
                env.wait_for("a record", lambda at=before: env.records() > at or _is_over(env), 60, 0.05)
                time.sleep(rng.expovariate(2.0))
            env.restart_ended()
            env.record_fault("kill", daemon)
            daemon.kill()
            n_without_progress += env.records() == before
            with closing(sqlite3.connect(env.deployment.database)) as connection:
                found = connection.execute("PRAGMA integrity_check").fetchall()
            if found != [("ok",)]:
                figures.problems.append(f"integrity_check: {found}")
        figures.measured["kills_without_progress"] = n_without_progress
        if n_without_progress > 0.7 * n_kills:
            figures.vacuous.append(f"{n_without_progress} of {n_kills} kills came before any progress")
        if daemon.pid is None:
            daemon.start()
        env.finish()
        require(figures)
    return figures


def _is_over(env: Environment) -> bool:
    """Return True if all records are sent and processed."""
    return env.sender is not None and env.sender.is_done and env.records() >= env.sender.n_acknowledged


def database(
    servers: Servers, seed: int, *, n_records: int = 60_000, n_faults: int = 12, hooks: Sequence[str] = ()
) -> Figures:
    """PostgreSQL restarts, its backends end inside transactions, answers to COMMITs are lost, connections stall."""
    rng = random.Random(f"database/{seed}")
    figures = Figures("database", seed, commit=tree_commit())
    postgres = servers.postgres()
    with (
        Proxy(postgres.port) as proxy,
        Environment.set_up(
            servers, figures, n_partitions=4, hooks=hooks,
            url=lambda direct: direct.replace(f":{postgres.port}/", f":{proxy.port}/"),
        ) as env,
    ):  # fmt: skip
        database_name = env.deployment.config.store.url.rpartition("/")[2]
        daemons = [env.daemon("daemon-0"), env.daemon("daemon-1")]
        for daemon in daemons:
            daemon.start()
        env.wait_for("a first claim", lambda: any(d.events("partition_claimed") for d in daemons), 60)
        env.start_traffic(n_records, seconds=n_faults * 5)
        # Each of these kinds comes, in an order that the seed decides.
        kinds = ["lost_answer", "lost_answer", "lost_commit", "terminate", "restart_fast", "restart_immediate"]
        kinds += rng.choices(("lost_answer", "lost_commit", "terminate", "terminate_all", "stall"), k=n_faults)
        kinds = kinds[: max(n_faults, 4)]
        rng.shuffle(kinds)
        for kind in kinds:
            wait(env, Later(), rng.uniform(0.3, 3.0))
            if _inject_fault(servers, proxy, rng, kind, database_name):
                env.record_fault(kind)
        wait(env, Later(), 2.0)
        env.finish()
        figures.unknown_commits = proxy.n_cut_after
        require(figures, of=("unknown_commits", "late", "quarantined", "duplicate", "alerts"))
        if figures.resolved < figures.unknown_commits:
            # After a restart or a change of owner, no daemon asks for the outcome: those are missing here.
            figures.measured["unknown_not_resolved"] = figures.unknown_commits - figures.resolved
    return figures


def _inject_fault(servers: Servers, proxy: Proxy, rng: random.Random, kind: str, name: str) -> bool:
    """Return True if the fault occurred."""
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


def disk_full(servers: Servers, seed: int, *, n_records: int = 60_000, hooks: Sequence[str] = ()) -> Figures:
    """SQLite on a file system of a few MB that fills up and is enlarged later."""
    figures = Figures("disk_full", seed, commit=tree_commit())
    folder = servers.new_folder("disk_full")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=False).returncode:
        figures.skipped = "no tmpfs can be mounted here"
        return figures
    try:
        with Environment.set_up(
            servers, figures, n_partitions=4, database="sqlite", hooks=hooks, folder=folder
        ) as env:  # fmt: skip
            daemon = env.daemon("daemon")
            daemon.log = folder.with_suffix(".log")
            daemon.start()
            env.start_traffic(n_records, seconds=10)
            env.wait_for("a full disk", lambda: daemon.events("database_away"), 120)
            env.record_fault("disk_full", daemon)
            wait(env, Later(), 5.0)
            subprocess.run(["mount", "-o", "remount,size=500m", str(folder)], check=True)
            env.finish()
            with closing(sqlite3.connect(env.deployment.database)) as connection:
                found = connection.execute("PRAGMA integrity_check").fetchall()
            if found != [("ok",)]:
                figures.problems.append(f"integrity_check: {found}")
            require(figures, of=("late", "quarantined", "duplicate", "alerts"))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
    return figures
