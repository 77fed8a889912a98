"""What follows a merge: the rows of the profile that ended are brought over to the one that stays.

Long histories go in pieces. Until all is through, the survivor's document names the other profile, so
that its rows are looked up under both ids.
"""

from __future__ import annotations

from importlib import resources

import asyncpg
import msgspec

from engine.adapters.postgres.store import named_queries
from engine.domain.people.profiles import Profile, decode_profile, encode_profile

ROWS_AT_ONCE = 5000
MERGES_AT_ONCE = 100

SQL = named_queries(resources.files(__package__).joinpath("merges.sql").read_text("utf-8"))


async def bring_over(pool: asyncpg.Pool) -> list[str]:
    """Brings over what waits, some merges at a time. Answers the profiles that stayed, whose
    documents were written; empty once nothing waits. Safe to run on every engine at once."""
    survivors: list[str] = []
    async with pool.acquire() as connection:
        for row in await connection.fetch(SQL["waiting"], MERGES_AT_ONCE):
            survivors.append(await _bring_over(connection, str(row[0]), str(row[1])))
    return survivors


async def family(connection: asyncpg.Connection | asyncpg.Pool, profile_id: str) -> list[asyncpg.Record]:
    """Every profile that became one with this one: profile_id, survivor_id, merged_at, moved_at."""
    return list(await connection.fetch(SQL["family"], profile_id))


async def _bring_over(connection: asyncpg.Connection, ended: str, survivor: str) -> str:
    found = await connection.fetchrow(SQL["document"], ended)
    tombstone = decode_profile(found[1]) if found is not None else None
    if tombstone is not None and tombstone.ended is not None:
        offset = tombstone.ended.offset
        async with connection.transaction():
            if await connection.fetchval(SQL["still"], ended) is None:
                return survivor  # erased
            await connection.execute(SQL["copy_seen"], ended, survivor, offset)
            await connection.execute(SQL["drop_copies"], ended, survivor, offset)
            await connection.execute(SQL["move_outbox"], ended, survivor)
            await connection.execute(SQL["move_timers"], ended, survivor)
        for table in ("move_events", "move_decisions"):
            while await _piece(connection, table, ended, survivor, offset):
                pass
    async with connection.transaction():
        if await connection.fetchval(SQL["still"], ended) is None:
            return survivor
        profile = await _standing(connection, survivor)
        left = tuple(absorbed for absorbed in profile.absorbed if absorbed.id != ended)
        document = encode_profile(msgspec.structs.replace(profile, absorbed=left))
        await connection.execute(SQL["write"], profile.id, document)
        await connection.execute(SQL["moved"], ended)
    return profile.id


async def _piece(connection: asyncpg.Connection, table: str, ended: str, survivor: str, offset: int) -> int:
    """Moves some rows; answers how many."""
    async with connection.transaction():
        if await connection.fetchval(SQL["still"], ended) is None:
            return 0
        return len(await connection.fetch(SQL[table], ended, survivor, offset, ROWS_AT_ONCE))


async def _standing(connection: asyncpg.Connection, profile_id: str) -> Profile:
    """The profile that stands for another one by now, locked."""
    while True:
        version, document = await connection.fetchrow(SQL["document"], profile_id)
        profile = msgspec.structs.replace(decode_profile(document), version=version)
        if profile.ended is None:
            return profile
        profile_id = profile.ended.into
