"""The task that brings over the rows of profiles that became one with others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from engine.adapters.postgres.merges import bring_over
from engine.adapters.postgres.store import Store

POLL_SECONDS = 30.0
"""For what an engine left that ended between a merge and its rest."""

log = structlog.get_logger()


class Merges:
    """`wake` it after a merge. `forget` is told whose documents were written."""

    def __init__(self, store: Store, forget: Callable[[str], None]) -> None:
        self._store = store
        self._forget = forget
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        while True:
            try:
                await self.bring_over()
            except Exception as fault:
                # Whatever it is, the rows are looked up under both ids until the next try.
                log.warning("merges_wait", fault=type(fault).__name__)
                await asyncio.sleep(1.0)
                continue
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()

    async def bring_over(self) -> None:
        """Brings over all that waits now."""
        while survivors := await bring_over(self._store.pool):
            for profile_id in survivors:
                self._forget(profile_id)
