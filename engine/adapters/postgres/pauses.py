"""The stop button in PostgreSQL: what is paused now, for all engines on the database.

SQL stands in pauses.sql, by name.
"""

from __future__ import annotations

from importlib import resources
from uuid import UUID, uuid4

import asyncpg

from engine.adapters.postgres.faults import faults
from engine.adapters.postgres.store import named_queries
from engine.domain.offers.pauses import Pause, What

_QUERIES = named_queries(resources.files(__package__).joinpath("pauses.sql").read_text("utf-8"))


class Pauses:
    """Every method raises `StoreError` where the database is away."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def begin(self, what: What, name: str, reason: str) -> Pause:
        """Stops a rule, an offer, a channel, or "all" with an empty name, and tells all engines."""
        (row,) = await self._fetch("pause", uuid4(), what, name, reason)
        return _pause(row)

    async def end(self, pause_id: UUID) -> bool:
        """Takes a stop back, and tells all engines. False where there is none by that id."""
        return bool(await self._fetch("resume", pause_id))

    async def active(self) -> list[Pause]:
        """The oldest first."""
        return [_pause(row) for row in await self._fetch("active")]

    async def _fetch(self, name: str, *arguments: object) -> list[asyncpg.Record]:
        with faults():
            return await self._pool.fetch(_QUERIES[name], *arguments)  # type: ignore[no-any-return]


def _pause(row: asyncpg.Record) -> Pause:
    return Pause(
        id=str(row["id"]), what=row["what"], name=row["name"], reason=row["reason"], since=row["since"]
    )
