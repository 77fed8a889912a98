"""Who is in which audience, read from the index beside the profiles; SQL stands in audiences.sql."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from importlib import resources
from typing import Any

import asyncpg
import msgspec

from engine.adapters.postgres.store import Session, named_queries
from engine.domain.people.profiles import Identity, bucket_of

READ_AT_ONCE = 1000

_QUERIES = named_queries(resources.files(__package__).joinpath("audiences.sql").read_text("utf-8"))


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody in an audience, since when, and by what names they are known."""

    profile_id: str
    since: datetime
    identities: tuple[Identity, ...] = ()

    def __repr__(self) -> str:
        return f"Member({self.profile_id})"


class Size(msgspec.Struct, frozen=True):
    """How many members an audience had at an hour."""

    at: datetime
    size: int


async def known(pool: asyncpg.Pool) -> list[str]:
    """Every audience that has members, or had."""
    return [row[0] for row in await pool.fetch(_QUERIES["known"])]


async def sizes(pool: asyncpg.Pool, names: Sequence[str]) -> dict[str, int]:
    """How many members each has now."""
    return {row[0]: row[1] for row in await pool.fetch(_QUERIES["sizes"], list(names))}


async def sizes_over_time(pool: asyncpg.Pool, name: str, since: datetime) -> list[Size]:
    """How many members an audience had, by the hour."""
    return [Size(row[0], row[1]) for row in await pool.fetch(_QUERIES["sizes_over_time"], name, since)]


async def keep_sizes(pool: asyncpg.Pool, names: Sequence[str], now: datetime, since: datetime) -> None:
    """Notes the sizes of this hour, unless another engine did, and lets those before `since` go."""
    await pool.execute(_QUERIES["keep_sizes"], list(names), now)
    await pool.execute(_QUERIES["expired_sizes"], since)


async def members(
    pool: asyncpg.Pool, name: str, after: str | None = None, limit: int = READ_AT_ONCE
) -> list[Member]:
    """The members of an audience in the order of their ids, from behind `after` on."""
    start = 0 if after is None else bucket_of(after)
    rows: list[Any] = await pool.fetch(_QUERIES["members"], name, after, start, limit)
    async with pool.acquire() as connection:
        found = await Session(connection).profiles([str(row[0]) for row in rows])
    identities = {profile.id: profile.identities for profile, _ in found}
    return [
        Member(profile_id=str(row[0]), since=row[1], identities=identities.get(str(row[0]), ()))
        for row in rows
    ]


async def pages(pool: asyncpg.Pool, name: str) -> AsyncIterator[list[Member]]:
    """Every member of an audience, a thousand at a time. Whoever enters or leaves meanwhile may be
    among them or not."""
    after: str | None = None
    while page := await members(pool, name, after):
        yield page
        after = page[-1].profile_id
