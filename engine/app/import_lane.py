"""A lane of a command's own: the same way for events without a server around it."""

from __future__ import annotations

import asyncio
import gc
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import msgspec

from engine.adapters.postgres.store import Store, connect
from engine.app.cache import ProfileCache
from engine.app.clock import system_clock
from engine.app.lane import Lane
from engine.app.merges import Merges
from engine.app.ruling import Ruling
from engine.app.tick import Pipeline

CACHE_BYTES = 256 * 1024 * 1024


class OwnLane(msgspec.Struct, frozen=True):
    store: Store
    lane: Lane


@asynccontextmanager
async def own_lane(dsn: str, ruling: Ruling) -> AsyncIterator[OwnLane]:
    """A lane on a database, which ends with what it has been given. Pushes that it decides are left
    to whichever engine serves."""
    store = await connect(dsn)
    cache = ProfileCache(CACHE_BYTES)
    merges = Merges(store, cache.evict)
    pipeline = Pipeline(
        store=store,
        cache=cache,
        ruling=lambda: ruling,
        clock=system_clock,
        secret=await store.secret(secrets.token_bytes(32)),
        providers=frozenset(),
        take_sends=lambda sends, leased_at: None,
        budget_seconds=inf,  # nobody waits for an answer, and what is left over is loaded again
    )
    lane = Lane(pipeline)
    turning = asyncio.create_task(lane.run())
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield OwnLane(store, lane)
        await merges.bring_over()
    finally:
        lane.close()
        await asyncio.gather(turning, return_exceptions=True)
        await store.close()
