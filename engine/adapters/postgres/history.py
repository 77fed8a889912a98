"""The event log, read from its beginning in the order in which it was decided."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from importlib import resources

import asyncpg

from engine.adapters.postgres.store import named_queries

AT_ONCE = 2_000

_QUERIES = named_queries(resources.files(__package__).joinpath("history.sql").read_text("utf-8"))

LogRow = tuple[str, int, str, str]
"""Profile, number in its log, event and facts (JSON)."""


class History:
    """What is kept of `people` (None: of all), without those of whom the beginning is gone.

    Its queries read much and take their time: on a connection of its own, without a time-out.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._people: list[str] | None = None
        self._left_out: list[str] = []

    async def choose(self, most: int | None) -> int:
        """Limits it to a fair sample of people; ids are random. Answers how many had to be left out."""
        if most is not None:
            rows = await self._connection.fetch(_QUERIES["people"], most)
            self._people = [str(row["id"]) for row in rows]
        rows = await self._connection.fetch(_QUERIES["begun"])
        chosen = set(self._people) if self._people is not None else None
        gone = [str(row["profile_id"]) for row in rows]
        self._left_out = [one for one in gone if chosen is None or one in chosen]
        return len(self._left_out)

    async def count(self, since: datetime) -> tuple[int, int]:
        """How many events there are, and how many since."""
        row = await self._connection.fetchrow(_QUERIES["count"], since, self._people, self._left_out)
        return row["count"], row["since"]

    async def told(self, since: datetime) -> set[tuple[str, str]]:
        """Profile and message of everything that the engine itself said since."""
        rows = await self._connection.fetch(_QUERIES["told"], since)
        return {(str(row["profile_id"]), row["message_id"]) for row in rows}

    async def log(self) -> AsyncIterator[Sequence[LogRow]]:
        """Everything, a few thousand events at a time."""
        async with self._connection.transaction():
            cursor = await self._connection.cursor(_QUERIES["log"], self._people, self._left_out)
            while rows := await cursor.fetch(AT_ONCE):
                yield [(str(row[0]), row[1], row[2], row[3]) for row in rows]

    async def decided(self, since: datetime, revision: str) -> dict[str, str]:
        """The decisions (JSON) that a revision made since, by id."""
        rows = await self._connection.fetch(
            _QUERIES["decided"], since, revision, self._people, self._left_out
        )
        return {str(row["id"]): row["document"] for row in rows}
