"""Faults of the broker and its group: members join and leave, brokers are killed, heartbeats fail."""

from __future__ import annotations

import random
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.chaos import journal
from tests.chaos.environment import Environment, Servers, tree_commit
from tests.chaos.figures import Figures
from tests.chaos.group_members import GroupMembers, leaders_of
from tests.chaos.scenarios.common import Later, require, wait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.environment import ChaosDaemon


def rebalances(
    servers: Servers, seed: int, *, n_records: int = 80_000, n_assignments: int = 110, hooks: Sequence[str] = ()
) -> Figures:
    """Other members join and leave the group again and again. Each claim must start to read at its rewind offset."""
    rng = random.Random(f"rebalances/{seed}")
    figures = Figures("rebalances", seed, commit=tree_commit())
    with Environment.set_up(servers, figures, n_partitions=6, hooks=("first_offsets", *hooks)) as env:
        daemons = [env.daemon("daemon-0"), env.daemon("daemon-1")]
        for daemon in daemons:
            daemon.start()

        def n_claims() -> int:
            return sum(len(daemon.events("partition_claimed")) for daemon in daemons)

        env.wait_for("a first claim", n_claims, 60)
        env.start_traffic(n_records, seconds=n_assignments * 0.7)
        [(name,)] = env.deployment.fetch("SELECT name FROM identity")
        with GroupMembers(env.bootstrap, env.topic, f"monitor-{name}") as members:
            deadline = time.monotonic() + 2 * n_assignments
            while n_claims() < n_assignments and time.monotonic() < deadline:
                joins = not members.n_members or (members.n_members < 3 and rng.random() < 0.5)
                (members.join if joins else members.leave)()
                env.record_fault("join" if joins else "leave")
                wait(env, Later(), rng.uniform(0.3, 2.5))
        env.finish()
        n_first_offsets = _verify_first_offsets(figures, daemons)
        figures.measured |= {
            "first_offsets": n_first_offsets,
            "dropped_stale": sum(len(daemon.events("unexpected_offset")) for daemon in daemons),
        }
        require(figures, of=("rebuilt", "late", "quarantined", "duplicate", "alerts"))
        if figures.claims < n_assignments or n_first_offsets < n_assignments // 4:
            figures.vacuous.append(f"{figures.claims} assignments, {n_first_offsets} first offsets")
    return figures


def _verify_first_offsets(figures: Figures, daemons: Sequence[ChaosDaemon]) -> int:
    """Compare each first offset with the claim before it. Return their number: a claim may be revoked unread."""
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
    servers: Servers, seed: int, *, n_records: int = 60_000, n_faults: int = 8, hooks: Sequence[str] = ()
) -> Figures:
    """Kill or stop one of three brokers after the other: leaders and the group's coordinator move."""
    rng = random.Random(f"brokers/{seed}")
    figures = Figures("brokers", seed, commit=tree_commit())
    kafka = servers.kafka(3)
    with Environment.set_up(servers, figures, n_partitions=4, nodes=3, hooks=hooks) as env:
        daemons = [env.daemon("daemon-0"), env.daemon("daemon-1")]
        for daemon in daemons:
            daemon.start()
        env.wait_for("a first claim", lambda: any(d.events("partition_claimed") for d in daemons), 60)
        sender = env.start_traffic(n_records, seconds=n_faults * 26)
        leaders, n_moved = leaders_of(env.bootstrap, env.topic), 0
        for _ in range(n_faults):
            wait(env, Later(), rng.uniform(0.5, 4))
            node, kind = rng.randint(1, 3), rng.choice(("kill", "kill", "stop"))
            env.record_fault(f"broker_{kind}")
            (kafka.kill if kind == "kill" else kafka.stop)(node=node)
            wait(env, Later(), rng.uniform(0.5, 6))
            now = leaders_of(env.bootstrap, env.topic)
            n_moved += sum(leaders.get(number) != leader for number, leader in now.items())
            leaders = now
            kafka.start()
        figures.measured["leader_moves"] = n_moved
        is_left = not sender.is_done
        env.finish()
        figures.measured["unacknowledged"] = sender.n_unknown
        if not is_left or figures.silence_s is None:
            figures.vacuous.append("nothing was left to read after the last fault")
        elif figures.silence_s > 15:
            figures.problems.append(f"{figures.silence_s:.1f} s of silence after the last fault; 15 are allowed")
        if not n_moved:
            figures.vacuous.append("no leader moved")
        require(figures, of=("late", "quarantined", "duplicate", "alerts"))
    return figures


def heartbeats(
    servers: Servers, seed: int, *, n_records: int = 30_000, n_faults: int = 3, watch_s: float = 45.0,
    hooks: Sequence[str] = (),
) -> Figures:  # fmt: skip
    """Heartbeats are answered with errors that aiokafka does not expect. The daemon recovers within 30 s."""
    rng = random.Random(f"heartbeats/{seed}")
    figures = Figures("heartbeats", seed, commit=tree_commit())
    with Environment.set_up(
        servers, figures, n_partitions=4, database="sqlite", hooks=("heartbeat_errors", *hooks)
    ) as env:
        daemon = env.daemon("daemon")
        daemon.start()
        env.wait_for("a first claim", lambda: daemon.events("partition_claimed"), 60)
        env.start_traffic(n_records, seconds=n_faults * (watch_s + 8))
        corrupted_at = []
        for number in range(n_faults):
            wait(env, Later(), rng.uniform(2, 4))
            daemon.send_signal(signal.SIGUSR1)
            env.record_fault("heartbeat_error")
            env.wait_for("a corrupted heartbeat", lambda n=number: len(daemon.events("heartbeat_corrupted")) > n, 30)
            corrupted_at.append(time.time())
            wait(env, Later(), watch_s)
        env.finish()
        saves = [move.at for move in journal.moves(env.deployment.fetch) if move.is_save]
        silences = [_longest_silence(saves, at, at + watch_s) for at in corrupted_at]
        figures.measured |= {
            "longest_silence_s": round(max(silences), 1),
            "consumers_replaced": len(daemon.events("consumer_replaced")),
        }
        if max(silences) > 30:
            figures.problems.append(f"{max(silences):.1f} s of silence after a heartbeat error; 30 are allowed")
        require(figures, of=("late", "quarantined", "duplicate", "alerts"))
    return figures


def _longest_silence(saves: Sequence[float], begin: float, end: float) -> float:
    marks = [begin, *(at for at in saves if begin < at < end), end]
    return max(after - before for before, after in pairwise(marks))
