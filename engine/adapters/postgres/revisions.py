"""Revisions in PostgreSQL: the files of each, and which one was made active when.

SQL stands in revisions.sql, by name. Contents are stored once, under their SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from importlib import resources
from typing import Literal

import asyncpg
import msgspec

from engine.adapters.postgres.faults import faults
from engine.adapters.postgres.store import Pool, named_queries

How = Literal["serve", "publish", "rollback"]
Folders = Mapping[Literal["rules", "models"], Mapping[str, bytes]]
"""The files of a revision: contents by POSIX path in its folder."""

_QUERIES = named_queries(resources.files(__package__).joinpath("revisions.sql").read_text("utf-8"))


class Publication(msgspec.Struct, frozen=True, rename="camel"):
    """A revision, made active at a time."""

    id: int
    revision: str
    published_at: datetime
    how: How


class Revisions:
    """Keeps, publishes and finds revisions, on a pool or a connection.

    Every method raises `StoreError` where the database is away.
    """

    def __init__(self, database: asyncpg.Pool | Pool | asyncpg.Connection) -> None:
        self._database = database

    async def keep(self, revision: str, folders: Folders) -> None:
        """Stores the files of a revision; those that are stored already are not sent again."""
        contents = {sha256(data).digest(): data for files in folders.values() for data in files.values()}
        for row in await self._fetch("missing", list(contents)):
            await self._fetch("keep_content", row["d"], contents[row["d"]])
        listed = {
            folder: {path: sha256(data).hexdigest() for path, data in files.items()}
            for folder, files in folders.items()
        }
        await self._fetch("keep", revision, msgspec.json.encode(listed).decode())

    async def publish(self, revision: str, how: How) -> bool:
        """Makes a kept revision the active one and tells all engines. False where it is already."""
        with faults():
            if isinstance(self._database, asyncpg.Pool | Pool):
                async with self._database.acquire() as connection:
                    return await self._publish(connection, revision, how)
            return await self._publish(self._database, revision, how)

    async def _publish(self, connection: asyncpg.Connection, revision: str, how: How) -> bool:
        async with connection.transaction():
            await connection.fetch(_QUERIES["lock"])
            active = await connection.fetchrow(_QUERIES["active"])
            if active is not None and active["revision"] == revision:
                return False
            await connection.fetch(_QUERIES["publish"], revision, how)
            await connection.fetch(_QUERIES["tell"], "published")
            return True

    async def tell(self, notice: str) -> None:
        """Tells all engines to look at something."""
        await self._fetch("tell", notice)

    async def active(self) -> Publication | None:
        """What was made active last."""
        rows = await self._fetch("active")
        return Publication(*rows[0]) if rows else None

    async def history(self, limit: int) -> list[Publication]:
        """The newest first."""
        return [Publication(*row) for row in await self._fetch("history", limit)]

    async def used(self) -> list[str]:
        """The revisions that anything in the event log was decided by."""
        return [row["id"] for row in await self._fetch("used")]

    async def named(self, beginning: str) -> list[str]:
        """The kept revisions whose id begins so; two at most."""
        return [row["id"] for row in await self._fetch("named", beginning)]

    async def folders(self, revision: str) -> Folders | None:
        """The files of a revision; None where it, or one of them, is not kept."""
        rows = await self._fetch("files", revision)
        if not rows:
            return None
        listed = msgspec.json.decode(rows[0]["files"], type=dict[Literal["rules", "models"], dict[str, str]])
        digests = {bytes.fromhex(digest) for files in listed.values() for digest in files.values()}
        contents = {row["digest"]: row["content"] for row in await self._fetch("contents", list(digests))}
        if len(contents) < len(digests):
            return None
        return {
            folder: {path: contents[digest] for path, digest in files.items()}
            for folder, files in listed.items()
        }

    async def _fetch(self, name: str, *arguments: object) -> list[asyncpg.Record]:
        with faults():
            return await self._database.fetch(_QUERIES[name], *arguments)
