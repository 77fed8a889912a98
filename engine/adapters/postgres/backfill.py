"""How far profiles have been brought to what is declared now, and their logs; SQL in backfill.sql."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib import resources
from typing import Any

import asyncpg
import msgspec

from engine.adapters.postgres.store import named_queries
from engine.domain.people.profiles import Profile, bucket_of, decode_profile

LOG_AT_ONCE = 500
_FIRST = "00000000-0000-0000-0000-000000000000"
_QUERIES = named_queries(resources.files(__package__).joinpath("backfill.sql").read_text("utf-8"))


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """`after` is the last profile that was visited in this `round`; `renewed` of the `visited` lacked
    something. `rests`: the second round is not to begin yet."""

    after: str | None
    visited: int
    renewed: int
    round: int = 1
    rests: bool = False
    finished: bool = False


async def claim(pool: asyncpg.Pool, key: str, lease: str) -> Progress | None:
    """Where to go on; None where another engine is at it."""
    row = await pool.fetchrow(_QUERIES["claim"], key, lease)
    if row is None:
        return None
    after = str(row["after"]) if row["after"] is not None else None
    return Progress(
        after=after,
        visited=row["visited"],
        renewed=row["renewed"],
        round=row["round"],
        rests=row["rests"],
        finished=row["finished"],
    )


async def advance(pool: asyncpg.Pool, key: str, lease: str, progress: Progress) -> bool:
    """Keeps how far it is. False where it is another engine's by now, or another key's."""
    row = await pool.fetchrow(
        _QUERIES["advance"],
        key,
        lease,
        progress.after,
        progress.visited,
        progress.renewed,
        progress.round,
        progress.rests,
        progress.finished,
    )
    return row is not None


async def profiles_after(pool: asyncpg.Pool, after: str | None, limit: int) -> list[Profile]:
    """The next profiles in the order of their ids."""
    bucket = -1 if after is None else bucket_of(after)
    rows = await pool.fetch(_QUERIES["profiles_after"], bucket, after or _FIRST, limit)
    return [msgspec.structs.replace(decode_profile(row[1]), version=row[0]) for row in rows]


async def log(pool: asyncpg.Pool, profile: Profile) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """Bodies and facts (JSON) of the events that are in a profile's document, page by page."""
    seq = 0
    while True:
        rows: list[Any] = await pool.fetch(
            _QUERIES["log"], bucket_of(profile.id), profile.id, seq, profile.seq, LOG_AT_ONCE
        )
        if rows:
            yield [(row[1].encode(), row[2].encode()) for row in rows]
            seq = rows[-1][0]
        if len(rows) < LOG_AT_ONCE:
            return
