"""Lanes of a command's own: the same way for events without a server around it."""

from __future__ import annotations

import asyncio
import gc
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from engine.adapters.postgres.store import Store, connect
from engine.app.cache import ProfileCache
from engine.app.clock import system_clock
from engine.app.merges import Merges
from engine.app.ruling import Ruling
from engine.app.tick import Lane

LANES = 2
"""While one commits, the other decides."""
CACHE_BYTES = 256 * 1024 * 1024


class Lanes(msgspec.Struct, frozen=True):
    store: Store
    lanes: tuple[Lane, ...]


@asynccontextmanager
async def own_lanes(dsn: str, ruling: Ruling) -> AsyncIterator[Lanes]:
    """Lanes on a database, which end with what they have been given. Pushes that they decide are left
    to whichever engine serves."""
    store = await connect(dsn)
    secret = await store.secret(secrets.token_bytes(32))
    caches = [ProfileCache(CACHE_BYTES // LANES) for _ in range(LANES)]

    def forget(profile_id: str) -> None:
        for cache in caches:
            cache.evict(profile_id)

    merges = Merges(store, forget)
    lanes = tuple(
        Lane(
            store=store,
            cache=cache,
            ruling=lambda: ruling,
            clock=system_clock,
            secret=secret,
            providers=frozenset(),
            take_sends=lambda sends, leased_at: None,
        )
        for cache in caches
    )
    tasks = [asyncio.create_task(lane.run()) for lane in lanes]
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield Lanes(store, lanes)
        await merges.bring_over()
    finally:
        for lane in lanes:
            lane.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()
