"""The event log and the decisions, read person by person in a range of buckets.

These queries read much and take their time: on a connection of its own, without a time-out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from importlib import resources
from typing import Any

import asyncpg

from engine.adapters.postgres.store import named_queries
from engine.domain.people.profiles import BUCKETS, Profile, bucket_of, decode_profile

AT_ONCE = 2_000
Range = tuple[int, int]
"""The first and the last of some buckets."""
EVERYBODY: Range = (0, BUCKETS - 1)

_QUERIES = named_queries(resources.files(__package__).joinpath("history.sql").read_text("utf-8"))

LogRow = tuple[str, int, str, str]
"""Profile, number in its log, event and facts (JSON)."""
DecisionRow = tuple[str, str]
"""Profile and document (JSON)."""


class History:
    """What a database holds of the past. Cursors run in one transaction, so that all of them see the
    same moment."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def count(self) -> int:
        """How many events there are."""
        return int(await self._connection.fetchval(_QUERIES["count"]))

    async def people(self, most: int) -> list[str]:
        """A fair sample of people: ids are random."""
        return [row[0] for row in await self._connection.fetch(_QUERIES["people"], most)]

    async def ended(self, buckets: Range) -> list[Profile]:
        """What stands in the place of profiles that became one with another."""
        rows = await self._connection.fetch(_QUERIES["ended"], *buckets)
        return [decode_profile(row[0]) for row in rows]

    def mentions(self, buckets: Range) -> AsyncIterator[Sequence[tuple[str, str]]]:
        """Profile and event (JSON) of everything, in any order, a few thousand at a time."""
        return self._pages(_QUERIES["mentions"], *buckets)

    async def family(self, profile_id: str) -> tuple[list[str], list[Profile]]:
        """Everybody who became one with somebody, and what stands in the place of those who ended."""
        rows = await self._connection.fetch(_QUERIES["family"], profile_id)
        return [row[0] for row in rows], [decode_profile(row[1]) for row in rows if row[1] is not None]

    def log(self, buckets: Range) -> AsyncIterator[Sequence[LogRow]]:
        """Everything."""
        return self._pages(_QUERIES["log"], *buckets)

    def log_of(self, people: Sequence[str]) -> AsyncIterator[Sequence[LogRow]]:
        """Everything of some people."""
        return self._pages(_QUERIES["log_of"], [bucket_of(one) for one in people], people)

    def decided(self, buckets: Range, since: datetime) -> AsyncIterator[Sequence[DecisionRow]]:
        """The decisions since, in the order of `log`."""
        return self._pages(_QUERIES["decided"], *buckets, since)

    def decided_of(self, people: Sequence[str], since: datetime) -> AsyncIterator[Sequence[DecisionRow]]:
        """Those of some people, in the order of `log_of`."""
        return self._pages(_QUERIES["decided_of"], [bucket_of(one) for one in people], people, since)

    async def _pages(self, query: str, *arguments: Any) -> AsyncIterator[Any]:
        cursor = await self._connection.cursor(query, *arguments)
        while rows := await cursor.fetch(AT_ONCE):
            yield rows
