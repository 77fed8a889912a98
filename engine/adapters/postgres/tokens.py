"""Named admin tokens: made once, shown once, kept as digests."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

import asyncpg
import msgspec

PREFIX = "vf_"
GRACE = timedelta(hours=24)
"""How long the old one goes on after a rotation."""
_MAKE = "INSERT INTO admin_tokens (digest, name, role, expires_at) VALUES ($1, $2, $3, $4)"
_ALL = """
SELECT name, role, made_at, expires_at FROM admin_tokens
WHERE expires_at IS NULL OR expires_at > $1 ORDER BY name, made_at
"""
_FIND = """
SELECT name, role FROM admin_tokens WHERE digest = $1 AND (expires_at IS NULL OR expires_at > $2)
"""
_REVOKE = "DELETE FROM admin_tokens WHERE name = $1 RETURNING 1"
_AGE = """
UPDATE admin_tokens SET expires_at = least(coalesce(expires_at, $2), $2) WHERE name = $1
    AND (expires_at IS NULL OR expires_at > $3)
RETURNING role
"""


class Token(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    name: str
    role: str
    made_at: datetime
    expires_at: datetime | None


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def make(pool: asyncpg.Pool, name: str, role: str, expires_at: datetime | None) -> str:
    """A new token by that name; its text is known to nobody else."""
    token = PREFIX + secrets.token_urlsafe(32)
    await pool.execute(_MAKE, digest_of(token), name, role, expires_at)
    return token


async def rotate(pool: asyncpg.Pool, name: str, now: datetime) -> str | None:
    """A new token in the place of one, which goes on for a day; None where there is none by that name."""
    rows = await pool.fetch(_AGE, name, now + GRACE, now)
    return await make(pool, name, rows[-1][0], None) if rows else None


async def revoke(pool: asyncpg.Pool, name: str) -> int:
    """Ends all tokens by that name at once. Answers how many."""
    return len(await pool.fetch(_REVOKE, name))


async def all_of(pool: asyncpg.Pool, now: datetime) -> list[Token]:
    """Those that are good now."""
    return [
        Token(name=row[0], role=row[1], made_at=row[2], expires_at=row[3])
        for row in await pool.fetch(_ALL, now)
    ]


async def find(pool: asyncpg.Pool, token: str, now: datetime) -> tuple[str, str] | None:
    """The name and role of a token that is good now."""
    row = await pool.fetchrow(_FIND, digest_of(token), now)
    return (row[0], row[1]) if row is not None else None
