"""How far each imported file has come."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

_BEGIN = """
INSERT INTO imports (id, kind, name) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET name = excluded.name
RETURNING rows, accepted, duplicates, rejected, finished_at
"""
_ADVANCE = """
UPDATE imports SET rows = $2, accepted = $3, duplicates = $4, rejected = $5,
    finished_at = CASE WHEN $6 THEN now() END
WHERE id = $1
"""


class Progress(msgspec.Struct):
    """Rows that are durable, and the verdicts on them."""

    rows: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    finished_at: datetime | None = None


async def begin(pool: asyncpg.Pool, identifier: str, kind: str, name: str) -> Progress:
    """Where the import of a file stands; new ones begin at 0."""
    return Progress(*await pool.fetchrow(_BEGIN, identifier, kind, name))


async def advance(pool: asyncpg.Pool, identifier: str, at: Progress, *, finished: bool = False) -> None:
    await pool.execute(_ADVANCE, identifier, at.rows, at.accepted, at.duplicates, at.rejected, finished)
