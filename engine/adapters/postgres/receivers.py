"""Receivers in PostgreSQL: who is told what, with the secrets that sign it.

SQL stands in receivers.sql, by name.
"""

from __future__ import annotations

import base64
import secrets
from datetime import datetime, timedelta
from importlib import resources
from typing import Protocol

import asyncpg
import msgspec

from engine.adapters.postgres.store import named_queries
from engine.domain.sharing.receivers import Receiver

GRACE = timedelta(hours=24)
"""How long the old secret signs as well after a rotation."""
NOTICE = "receivers"
"""What engines are told when one of them changes."""
_QUERIES = named_queries(resources.files(__package__).joinpath("receivers.sql").read_text("utf-8"))
_SECRET_BYTES = 32


class Pool(Protocol):
    async def fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]: ...


def new_secret() -> str:
    """A signing secret as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


async def all_of(pool: Pool) -> list[Receiver]:
    """All of them, by name."""
    return [_receiver(row) for row in await pool.fetch(_QUERIES["all"])]


async def find(pool: Pool, name: str) -> Receiver | None:
    rows = await pool.fetch(_QUERIES["find"], name)
    return _receiver(rows[0]) if rows else None


async def add(pool: Pool, receiver: Receiver) -> bool:
    """False where there is one by that name."""
    return bool(
        await pool.fetch(
            _QUERIES["add"],
            receiver.name,
            receiver.url,
            list(receiver.topics),
            receiver.purpose,
            list(receiver.without),
            receiver.secret,
            receiver.made_at,
        )
    )


async def rotate(pool: Pool, name: str, now: datetime) -> str | None:
    """A new secret; the one before signs as well for a day. None where there is no such receiver."""
    secret = new_secret()
    return secret if await pool.fetch(_QUERIES["rotate"], name, secret, now + GRACE) else None


async def disable(pool: Pool, name: str, because: str, now: datetime) -> bool:
    """Tells it nothing more. False where there is none, or none that is told."""
    return bool(await pool.fetch(_QUERIES["disable"], name, because, now))


async def enable(pool: Pool, name: str) -> bool:
    """Goes on with one that was disabled. False where there is none such."""
    return bool(await pool.fetch(_QUERIES["enable"], name))


async def remove(pool: Pool, name: str) -> bool:
    """Forgets it. False where there is none."""
    return bool(await pool.fetch(_QUERIES["remove"], name))


def _receiver(row: asyncpg.Record) -> Receiver:
    return msgspec.convert(dict(row), Receiver)
