"""The broker and its group suffer: members come and go, brokers die, heartbeats are answered with nonsense."""

from __future__ import annotations

import random
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.chaos import journal
from tests.chaos.figures import Figures
from tests.chaos.scenarios.common import Later, vacuity, wait
from tests.chaos.stage import Servers, Stage, tree_commit
from tests.chaos.strangers import Strangers, leaders_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.stage import Daemon


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
                wait(stage, Later(), rng.uniform(0.3, 2.5))
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
            wait(stage, Later(), rng.uniform(0.5, 4))
            node, kind = rng.randint(1, 3), rng.choice(("kill", "kill", "stop"))
            stage.note(f"broker_{kind}")
            (kafka.kill if kind == "kill" else kafka.stop)(node=node)
            wait(stage, Later(), rng.uniform(0.5, 6))
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
            wait(stage, Later(), rng.uniform(2, 4))
            daemon.suffer(signal.SIGUSR1)
            stage.note("heartbeat_error")
            stage.wait_for("a spoilt heartbeat", lambda n=number: len(daemon.events("heartbeat_spoilt")) > n, 30)
            spoilt_at.append(time.time())
            wait(stage, Later(), look_s)
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
