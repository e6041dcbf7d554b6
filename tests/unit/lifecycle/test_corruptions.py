"""500 corrupted checkpoints, of which none is activated: neither by the daemon nor by an operator.

Each corruption changes bytes that count. The control runs show that the same checkpoint without it is accepted.
"""

from __future__ import annotations

import json
import shutil
from random import Random
from typing import TYPE_CHECKING

import pytest

from monitor import control
from monitor.errors import CheckpointDamaged, CheckpointUnavailable, WrongState
from monitor.models import checkpoint_files
from monitor.models.checkpoint_files import CARD, WEIGHTS
from monitor.store import versions
from monitor.store.acts import Actor
from tests.fakes import FakeClock
from tests.unit.lifecycle.checkpoints import CONFIG, PUMPS, activate, checkpoint, trained

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from monitor.store.engine import AsyncStore
    from tests.unit.lifecycle.checkpoints import DaemonParts

    Corruption = Callable[[Path, Path, Random], None]

N = 500
SEED = 13
EVA = Actor("eva", "cli")


def any_file(folder: Path, rng: Random) -> Path:
    return folder / rng.choice([WEIGHTS, CARD])


def flip_a_bit(folder: Path, _other: Path, rng: Random) -> None:
    file = any_file(folder, rng)
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def overwrite_a_stretch(folder: Path, _other: Path, rng: Random) -> None:
    file = any_file(folder, rng)
    content = bytearray(file.read_bytes())
    first = rng.randrange(len(content) - 16)
    old = content[first : first + 16]
    while content[first : first + 16] == old:
        content[first : first + 16] = rng.randbytes(16)
    file.write_bytes(content)


def truncate(folder: Path, _other: Path, rng: Random) -> None:
    file = any_file(folder, rng)
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(len(content))])


def append(folder: Path, _other: Path, rng: Random) -> None:
    file = any_file(folder, rng)
    file.write_bytes(file.read_bytes() + rng.randbytes(rng.randint(1, 64)))


def write_half(folder: Path, _other: Path, rng: Random) -> None:
    """Leave what a file system may show after a power cut: the right length, zeros from some place on."""
    file = any_file(folder, rng)
    content = file.read_bytes()
    first = rng.randrange(len(content.rstrip(b"\0")))
    file.write_bytes(content[:first] + bytes(len(content) - first))


def swap_a_file(folder: Path, other: Path, rng: Random) -> None:
    name = rng.choice([WEIGHTS, CARD])
    shutil.copy(other / name, folder / name)


def swap_the_folder(folder: Path, other: Path, rng: Random) -> None:
    shutil.rmtree(folder)
    if rng.random() < 0.5:
        shutil.copytree(other, folder)
    else:
        folder.symlink_to(other)


def remove_a_file(folder: Path, _other: Path, rng: Random) -> None:
    any_file(folder, rng).unlink()


def file_becomes_a_folder(folder: Path, _other: Path, rng: Random) -> None:
    file = any_file(folder, rng)
    file.unlink()
    file.mkdir()


def edit_the_card(folder: Path, _other: Path, rng: Random) -> None:
    """Change a fact and keep the digest."""
    card = json.loads((folder / CARD).read_text())
    change(card, rng)
    (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def forge_the_card(folder: Path, _other: Path, rng: Random) -> None:
    """Change a fact and write the right digest, as somebody who may write there can: the name no longer fits."""
    card = json.loads((folder / CARD).read_text())
    del card["digest"]
    change(card, rng)
    (folder / CARD).write_text(checkpoint_files.render(card, (folder / WEIGHTS).read_bytes()))


def claim_another_version(folder: Path, _other: Path, rng: Random) -> None:
    card = json.loads((folder / CARD).read_text())
    del card["digest"]
    card["version"] = f"pca-{rng.randrange(16**8):08x}"
    (folder / CARD).write_text(checkpoint_files.render(card, (folder / WEIGHTS).read_bytes()))


def change(card: dict[str, object], rng: Random) -> None:
    facts = {
        "length": 10**rng.randint(2, 6),
        "sensors": rng.sample(["a", "b", "c"], 2),
        "format": rng.randint(6, 99),
        "threshold": {"raw": rng.random()},
        "interval_s": rng.random(),
        "scaler": [],
        "members": [],
    }
    name = rng.choice(sorted(facts))
    assert card[name] != facts[name]
    card[name] = facts[name]


KINDS: tuple[Corruption, ...] = (
    flip_a_bit, overwrite_a_stretch, truncate, append, write_half, swap_a_file, swap_the_folder, remove_a_file,
    file_becomes_a_folder, edit_the_card, forge_the_card, claim_another_version,
)  # fmt: skip


def content_of(folder: Path) -> dict[str, object]:
    """Return all that counts: the real folder, and the bytes of its files."""
    files = {name: folder / name for name in (WEIGHTS, CARD)}
    return {"folder": folder.resolve().name} | {
        name: file.read_bytes() if file.is_file() else None for name, file in files.items()
    }


async def test_none_of_500_corrupted_checkpoints_is_activated(
    store: AsyncStore, daemon: Callable[..., DaemonParts], tmp_path: Path
) -> None:
    champion, other, victim = (checkpoint(tmp_path, seed) for seed in range(3))
    await activate(store, victim)
    await activate(store, champion)
    this = daemon()
    await this.champions.load()
    pristine = tmp_path / "pristine" / victim.name
    shutil.copytree(victim, pristine)
    before = await store.read(versions.activation_history, "pumps")
    used = dict.fromkeys(KINDS, 0)
    for number in range(N):
        rng = Random(SEED * N + number)
        corrupt = KINDS[number % len(KINDS)]
        _restore(pristine, victim)
        right = content_of(victim)
        corrupt(victim, other, rng)
        assert content_of(victim) != right, f"{number}: {corrupt.__name__} changed nothing"
        with pytest.raises((CheckpointDamaged, CheckpointUnavailable)):
            await this.champions.activate(PUMPS, trained(victim), None)
        with pytest.raises(WrongState, match="champion stays"):
            await control.promote_version(store, FakeClock(), CONFIG, victim.name, actor=EVA)
        used[corrupt] += 1
    assert min(used.values()) >= N // len(KINDS)
    assert await store.read(versions.activation_history, "pumps") == before
    assert await this.version_that_scores() == champion.name
    _restore(pristine, victim)
    await control.promote_version(store, FakeClock(), CONFIG, victim.name, actor=EVA)
    found = await store.read(versions.champion, "pumps")
    assert found is not None
    assert found.version == victim.name, "without a corruption an operator may promote it"
    await this.champions.refresh()
    assert await this.version_that_scores() == victim.name
    await activate(store, champion)
    await this.champions.refresh()
    this.clock.advance(60)
    await this.champions.activate(PUMPS, trained(victim), None)
    assert await this.version_that_scores() == victim.name, "without a corruption the daemon activates it"


def _restore(pristine: Path, folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(pristine, folder)
