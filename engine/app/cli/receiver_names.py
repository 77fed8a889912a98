"""Which receivers exist, for commands that look at rules: nothing is started, and hardly waited for."""

from __future__ import annotations

import asyncio

import asyncpg

from engine.adapters.postgres import receivers as stored

ASK_SECONDS = 2.0
_FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError)


def names(dsn: str) -> frozenset[str] | None:
    """Those of all receivers; None where the database cannot be asked at once."""

    async def ask() -> frozenset[str]:
        async with asyncio.timeout(ASK_SECONDS):
            connection = await asyncpg.connect(dsn, timeout=ASK_SECONDS)
            try:
                return frozenset(one.name for one in await stored.all_of(connection))
            finally:
                connection.terminate()

    try:
        return asyncio.run(ask())
    except _FAULTS:
        return None
