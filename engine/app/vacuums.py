"""The task that asks PostgreSQL to let go of erased people's dead rows: one at a time, because each holds
a connection for as long as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from engine.adapters.postgres.rights import vacuum
from engine.adapters.postgres.store import Store

log = structlog.get_logger()


class Vacuums:
    """`ask` it after an erasure. What is asked for meanwhile is done together."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tables: set[str] = set()
        self._asked = asyncio.Event()

    def ask(self, tables: Iterable[str]) -> None:
        self._tables |= set(tables)
        self._asked.set()

    async def run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            tables, self._tables = self._tables, set()
            try:
                await vacuum(self._store.pool, sorted(tables))
            except Exception as fault:
                # Whatever it is, PostgreSQL does it by itself in time.
                log.warning("vacuum_failed", fault=type(fault).__name__)
