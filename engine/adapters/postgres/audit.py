"""The audit log: who looked at whom and who changed what, each entry chained to the one before it.

An entry's hash is over the hash before it and everything that it says, so that nothing can be changed
or taken out without breaking all that follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg
import msgspec

_LOCK = 0x5646_0A0D
_LAST = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"
_APPEND = "INSERT INTO audit (seq, at, actor, action, person, hash) VALUES ($1, $2, $3, $4, $5, $6)"
_PAGE = "SELECT seq, at, actor, action, person, hash FROM audit WHERE seq > $1 ORDER BY seq LIMIT 1000"


class Entry(msgspec.Struct, frozen=True):
    """`person` is a keyed hash of the identity that was asked for."""

    seq: int
    at: datetime
    actor: str
    action: str
    person: bytes | None
    hash: bytes


def chained(before: bytes, seq: int, at: datetime, actor: str, action: str, person: bytes | None) -> bytes:
    """The hash of an entry."""
    said = msgspec.json.encode([seq, at, actor, action, person.hex() if person else None])
    return hashlib.sha256(before + said).digest()


async def append(
    pool: asyncpg.Pool, actor: str, action: str, at: datetime, person: bytes | None = None
) -> None:
    """Adds an entry. One engine at a time."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        last = await connection.fetchrow(_LAST)
        seq, before = (last[0] + 1, bytes(last[1])) if last is not None else (1, b"")
        digest = chained(before, seq, at, actor, action, person)
        await connection.execute(_APPEND, seq, at, actor, action, person, digest)


async def entries(pool: asyncpg.Pool, after: int = 0) -> AsyncIterator[Entry]:
    """All entries, oldest first."""
    while rows := await pool.fetch(_PAGE, after):
        for row in rows:
            yield Entry(*row)
        after = rows[-1][0]


async def broken_at(pool: asyncpg.Pool) -> int | None:
    """The number of the first entry that is not what it was, or that is missing; None where all stand."""
    before, expected = b"", 1
    async for entry in entries(pool):
        digest = chained(before, entry.seq, entry.at, entry.actor, entry.action, entry.person)
        if entry.seq != expected or digest != entry.hash:
            return expected
        before, expected = entry.hash, expected + 1
    return None
