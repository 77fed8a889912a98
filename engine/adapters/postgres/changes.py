"""What receivers are told of people, in PostgreSQL: queues by receiver and profile, told in order.

SQL stands in changes.sql, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import msgspec

from engine.adapters.postgres.store import CHANGES as SQL
from engine.adapters.postgres.store import Pool


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """One message that waits; `age_seconds` since it was written or revived."""

    position: int
    id: str
    topic: str
    body: bytes
    age_seconds: float

    def __repr__(self) -> str:
        return f"Waiting({self.id})"


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be told of one profile, leased to the caller: the first of it. `attempts` were made to
    tell the first one. `whole`: there was no more when it was looked at."""

    bucket: int
    profile_id: str
    lease: str
    arrivals: int
    attempts: int
    messages: tuple[Waiting, ...]
    whole: bool

    def __repr__(self) -> str:
        return f"Queue({self.profile_id}, {len(self.messages)} messages)"


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a queue: what was told of it, what died, and when the rest is due."""

    queue: Queue
    told: tuple[int, ...]
    died: tuple[int, str] | None = None
    delay: timedelta = timedelta()
    attempts: int = 0
    code: str | None = None

    @property
    def drained(self) -> bool:
        """Whether nothing that was looked at is left."""
        over = len(self.told) + (self.died is not None)
        return self.queue.whole and over == len(self.queue.messages)


class DeadChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message that could not be told in time; `code` is why it failed last."""

    id: str
    profile_id: str
    topic: str
    type: str
    code: str | None
    since: datetime
    settled_at: datetime


class Changes:
    """Every method raises `StoreError` where the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, receiver: str, queues: int, messages: int, lease: timedelta) -> list[Queue]:
        """Up to so many queues that are due, with so many messages of each."""
        key = str(uuid4())
        rows = await self._pool.fetch(SQL["claim"], receiver, queues, key, lease)
        if not rows:
            return []
        buckets, profiles = [row["bucket"] for row in rows], [row["profile_id"] for row in rows]
        found: dict[UUID, list[Waiting]] = {}
        for row in await self._pool.fetch(SQL["waiting"], receiver, buckets, profiles, messages):
            one = Waiting(
                position=row["position"],
                id=str(row["id"]),
                topic=row["topic"],
                body=row["body"].encode(),
                age_seconds=row["age_seconds"],
            )
            found.setdefault(row["profile_id"], []).append(one)
        return [
            Queue(
                bucket=row["bucket"],
                profile_id=str(row["profile_id"]),
                lease=key,
                arrivals=row["arrivals"],
                attempts=row["attempts"],
                messages=tuple(found.get(row["profile_id"], ())),
                whole=len(found.get(row["profile_id"], ())) < messages,
            )
            for row in rows
        ]

    async def settle(self, receiver: str, settled: Sequence[Settled]) -> None:
        """Writes what became of queues, all or nothing."""
        ordered = sorted(settled, key=lambda one: (one.queue.bucket, one.queue.profile_id))
        told = [(s.queue.bucket, s.queue.profile_id, position) for s in ordered for position in s.told]
        died = [(s.queue.bucket, s.queue.profile_id, *s.died) for s in ordered if s.died is not None]
        async with self._pool.acquire() as connection, connection.transaction():
            if told:
                await connection.execute(SQL["told"], receiver, *map(list, zip(*told, strict=True)))
            if died:
                await connection.execute(SQL["died"], receiver, *map(list, zip(*died, strict=True)))
            await connection.execute(
                SQL["settle"],
                receiver,
                [s.queue.bucket for s in ordered],
                [s.queue.profile_id for s in ordered],
                [s.queue.lease for s in ordered],
                [s.queue.arrivals for s in ordered],
                [s.drained for s in ordered],
                [s.delay for s in ordered],
                [s.attempts for s in ordered],
                [s.code for s in ordered],
            )

    async def dead(self, receiver: str, limit: int, before: datetime | None = None) -> list[DeadChange]:
        """Those that could not be told in time, the newest first."""
        rows = await self._pool.fetch(SQL["dead"], receiver, limit, before)
        return [
            DeadChange(**{**row, "id": str(row["id"]), "profile_id": str(row["profile_id"])}) for row in rows
        ]

    async def requeue(self, receiver: str, message: UUID | None = None) -> int:
        """Revives one dead message, or all of a receiver's. Answers how many."""
        rows = await self._pool.fetch(SQL["requeue"], receiver, message)
        return int(rows[0][0])

    async def counts(self) -> dict[tuple[str, str], int]:
        """By receiver: of how many people something is "waiting", and how many messages are "dead"."""
        return {(row[0], row[1]): row[2] for row in await self._pool.fetch(SQL["counts"])}

    async def forget(self, receiver: str) -> None:
        """Lets go of everything that waits for a receiver."""
        await self._pool.execute(SQL["forget"], receiver)

    async def expire(self, before: datetime) -> None:
        """Lets go of what died before, or has waited since for a receiver that is told nothing."""
        await self._pool.execute(SQL["expired"], before)
