"""The key of links, and that each link serves once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from monitor.errors import Conflict
from monitor.links import KEY_BYTES, VALID_FOR_US
from monitor.store import links
from tests.contract.steps import rows_of

if TYPE_CHECKING:
    from monitor.store.engine import AsyncStore

NOW_US = 1_700_000_000_000_000


async def test_the_key_is_made_once(store: AsyncStore, other_store: AsyncStore) -> None:
    keys = set(await asyncio.gather(store.run(links.key), other_store.run(links.key)))
    keys.add(await store.run(links.key))
    [key] = keys
    assert len(key) == KEY_BYTES


async def test_a_link_serves_once(store: AsyncStore, other_store: AsyncStore) -> None:
    both = [each.run(links.use_nonce, "a", NOW_US) for each in (store, other_store)]
    outcomes = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(type(outcome) for outcome in outcomes if outcome is not None) == [Conflict]
    await store.run(links.use_nonce, "b", NOW_US)
    with pytest.raises(Conflict, match="the link was used already"):
        await store.run(links.use_nonce, "b", NOW_US + 1)


async def test_used_links_are_forgotten_after_they_expired(store: AsyncStore) -> None:
    await store.run(links.use_nonce, "old", NOW_US)
    await store.run(links.use_nonce, "new", NOW_US + 3 * VALID_FOR_US)
    assert [row["nonce"] for row in await store.read(rows_of, "used_link")] == ["new"]
