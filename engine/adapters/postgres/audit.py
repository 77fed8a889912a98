"""The audit log: who looked at whom and who changed what, each entry chained to the one before it.

An entry's hash is over the hash before it and everything that it says, so that nothing can be changed
or taken out without breaking all that follows. The last one's number and hash stand in a row of their
own, so that nothing can be cut off at the end. Whoever could write that row, too, is found out by a head
that was written down elsewhere: `viewfinder privacy verify` prints it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg
import msgspec

_HEAD = "SELECT seq, hash FROM audit_head"
_LAST = f"{_HEAD} FOR UPDATE"
_SET_HEAD = "UPDATE audit_head SET seq = $1, hash = $2"
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


class Head(msgspec.Struct, frozen=True):
    """How many entries the log has, and the hash of the last one, which stands for all of them."""

    entries: int
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
        last = await connection.fetchrow(_LAST)
        seq, before = last[0] + 1, bytes(last[1])
        digest = chained(before, seq, at, actor, action, person)
        await connection.execute(_APPEND, seq, at, actor, action, person, digest)
        await connection.execute(_SET_HEAD, seq, digest)


async def entries(pool: asyncpg.Pool, after: int = 0) -> AsyncIterator[Entry]:
    """All entries, oldest first."""
    while rows := await pool.fetch(_PAGE, after):
        for row in rows:
            yield Entry(*row)
        after = rows[-1][0]


async def head(pool: asyncpg.Pool) -> Head:
    """Where the log ends."""
    row = await pool.fetchrow(_HEAD)
    return Head(row[0], bytes(row[1]))


async def broken_at(pool: asyncpg.Pool) -> int | None:
    """The number of the first entry that is not what it was, or that is missing; None where all stand."""
    end = await head(pool)
    before, expected = b"", 1
    async for entry in entries(pool):
        digest = chained(before, entry.seq, entry.at, entry.actor, entry.action, entry.person)
        if entry.seq != expected or digest != entry.hash:
            return expected
        if entry.seq == end.entries and digest != end.hash:
            return expected
        before, expected = entry.hash, expected + 1
    if expected <= end.entries:
        return expected
    end = await head(pool)  # what was written while this was reading
    return end.entries + 1 if end.entries < expected - 1 else None
