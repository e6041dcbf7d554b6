"""An operator promotes and rolls back: the checkpoint is verified, and a running daemon follows."""

from __future__ import annotations

import json
import platform
import shutil
from typing import TYPE_CHECKING

import pytest

from monitor import control
from monitor.config import parse
from monitor.errors import Conflict, NotFound
from monitor.store import registry, versions
from monitor.store.acts import Actor
from tests.fakes import FakeClock
from tests.unit.lifecycle.checkpoints import CONFIG, FLEET, KAFKA, activate, checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from monitor.config import Config
    from monitor.store.engine import AsyncStore
    from monitor.store.versions import Activation
    from tests.unit.lifecycle.checkpoints import DaemonParts

EVA = Actor("eva", "cli")


async def two_versions(store: AsyncStore, tmp_path: Path) -> tuple[Path, Path]:
    """Return the folders of the champion, and of a retired version that was the champion before."""
    old, champion = checkpoint(tmp_path), checkpoint(tmp_path, seed=1)
    await activate(store, old)
    await activate(store, champion)
    return champion, old


async def promote(store: AsyncStore, version: str, config: Config = CONFIG) -> Activation:
    return await control.promote_version(store, FakeClock(), config, version, actor=EVA, note="it was quieter")


async def champion_of(store: AsyncStore) -> str:
    found = await store.read(versions.champion, "pumps")
    assert found is not None
    return found.version


async def test_a_daemon_follows_a_promotion_and_a_roll_back(
    store: AsyncStore, daemon: Callable[..., DaemonParts], tmp_path: Path
) -> None:
    champion, old = await two_versions(store, tmp_path)
    this = daemon()
    await this.champions.load()
    assert await this.version_that_scores() == champion.name
    await promote(store, old.name)
    await this.champions.refresh()
    assert await this.version_that_scores() == old.name
    await control.roll_back(store, FakeClock(), CONFIG, "pumps", actor=EVA, note="no, it was not")
    await this.champions.refresh()
    assert await this.version_that_scores() == champion.name
    [last, first, *_] = await store.read(registry.events, "pumps")
    assert (last.event, last.version, last.note) == ("rolled_back", old.name, "no, it was not")
    assert (first.event, first.version, first.note) == ("promoted", old.name, "it was quieter")


async def test_a_folder_of_another_machine_changes_nothing(store: AsyncStore, tmp_path: Path) -> None:
    champion, old = await two_versions(store, tmp_path)
    shutil.move(old, tmp_path / "elsewhere")
    refusal = rf"cannot be read on this machine \({platform.node()}\): .*{old.name}.* The champion stays; use a"
    with pytest.raises(Conflict, match=refusal):
        await promote(store, old.name)
    with pytest.raises(Conflict, match=f"has the folder {tmp_path}, like the daemon's"):
        await control.roll_back(store, FakeClock(), CONFIG, "pumps", actor=EVA)
    assert await champion_of(store) == champion.name


async def test_a_damaged_checkpoint_changes_nothing(store: AsyncStore, tmp_path: Path) -> None:
    champion, old = await two_versions(store, tmp_path)
    with (old / "weights.safetensors").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(Conflict, match=f"the checkpoint of {old.name} is damaged, and the champion stays: .* Restore"):
        await promote(store, old.name)
    assert await champion_of(store) == champion.name


async def test_a_checkpoint_of_a_newer_format_is_refused(store: AsyncStore, tmp_path: Path) -> None:
    _, old = await two_versions(store, tmp_path)
    card = json.loads((old / "card.json").read_text())
    (old / "card.json").write_text(json.dumps(card | {"format": 99}))
    with pytest.raises(Conflict, match=r"card\.json is not a card of a format from 2 to 5"):
        await promote(store, old.name)


async def test_a_path_to_another_version_is_refused(store: AsyncStore, tmp_path: Path) -> None:
    champion, old = await two_versions(store, tmp_path)
    await store.run(lambda c: c.exec_driver_sql(f"UPDATE model_version SET path = '{champion}'"))
    with pytest.raises(Conflict, match=f"holds {champion.name} of fleet pumps, not {old.name} of pumps"):
        await promote(store, old.name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"window": 8}, "was trained on windows of .* cells; the configuration now has 8; the champion stays"),
        ({"sensors": ["a", "b", "c"]}, "knows 0 of the sensors a, b, c, and needs half"),
        ({"name": "fans"}, "belongs to fleet pumps, and .* has only fans"),
    ],
)
async def test_a_version_for_another_configuration_is_refused(
    store: AsyncStore, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    champion, old = await two_versions(store, tmp_path)
    other = parse({"kafka": KAFKA, "fleet": [FLEET | change]})
    with pytest.raises(Conflict, match=reason):
        await promote(store, old.name, other)
    assert await champion_of(store) == champion.name


async def test_an_automatic_window_takes_any_length(store: AsyncStore, tmp_path: Path) -> None:
    _, old = await two_versions(store, tmp_path)
    await promote(store, old.name, parse({"kafka": KAFKA, "fleet": [FLEET | {"window": "auto"}]}))
    assert await champion_of(store) == old.name


async def test_a_roll_back_of_an_unknown_fleet_names_the_known(store: AsyncStore, tmp_path: Path) -> None:
    await two_versions(store, tmp_path)
    with pytest.raises(NotFound, match="fleet fans; the database knows pumps"):
        await control.roll_back(store, FakeClock(), CONFIG, "fans", actor=EVA)


async def test_a_candidate_is_rejected_by_hand(store: AsyncStore) -> None:
    facts = {"version": "pca-0", "fleet": "pumps", "path": "p", "trained_us": 1, "card": {}, "metrics": {}}
    await store.run(lambda c: versions.publish(c, **facts))
    await control.reject_version(store, FakeClock(), "pca-0", actor=EVA, note="too few windows")
    assert (await store.read(versions.find, "pca-0")).state == "rejected"
