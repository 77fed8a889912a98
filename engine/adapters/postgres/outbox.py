"""The outbox in PostgreSQL: sends under way, each leased to one engine at a time.

SQL stands in outbox.sql, by name. What a settlement says is decided in
`engine.domain.offers.delivery`; here it is columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from importlib import resources
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec

from engine.adapters.postgres.faults import Conflict, Unavailable
from engine.adapters.postgres.store import Pool, named_queries
from engine.domain.offers.decisions import bucket_of_decision
from engine.domain.offers.delivery import STATES, Call, Outcome, Push, Send, Settlement, outcome_id
from engine.domain.offers.pauses import CHANNELS, NOTHING_PAUSED, Paused
from engine.domain.sharing.receivers import PREFIX

__all__ = ["Call", "DeadLetter", "Outbox", "Push", "Send"]

LEASE = timedelta(seconds=30)

_QUERIES = named_queries(resources.files(__package__).joinpath("outbox.sql").read_text("utf-8"))
_read_push: Callable[[str], Push | Call] = msgspec.json.Decoder(Push).decode
_read_call: Callable[[str], Push | Call] = msgspec.json.Decoder(Call).decode
_json = msgspec.json.Encoder().encode

_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A send that waits for an operator; `code` is why it failed last."""

    bucket: int
    id: str
    profile_id: str
    provider: str
    purpose: str
    attempts: int
    code: str | None
    settled_at: datetime


class Outbox:
    """Claims, settles and revives rows of the table `outbox`.

    Every method raises `Unavailable` where the database is away (what was written is not known)
    and `Conflict` where it asks to try again.
    """

    def __init__(self, pool: asyncpg.Pool | Pool, *, lease: timedelta = LEASE) -> None:
        self._pool = pool
        self._lease = lease

    async def claim(
        self,
        limit: int,
        providers: Collection[str] | None = None,
        now: datetime | None = None,
        paused: Paused = NOTHING_PAUSED,
    ) -> list[Send]:
        """Up to `limit` sends that are due and that nobody holds, now leased to the caller: those of
        `providers` (None: of all) that are not `paused`, and those that have expired at `now`, the
        pipeline's clock. A row that cannot be read is dead from then on."""
        lease = str(uuid4())
        wanted = list(providers) if providers is not None else None
        channels = [name for name in CHANNELS if paused.stop(None, None, name) is not None]
        held = (channels, paused.names("rule"), paused.names("offer"))
        rows = await self._fetch("claim", limit, wanted, lease, self._lease, now, *held)
        sends: list[Send] = []
        for row in rows:
            try:
                read = _read_call if row["provider"].startswith(PREFIX) else _read_push
                payload = read(row["payload"])
            except msgspec.DecodeError:
                await self._fetch("bury", row["bucket"], row["id"], lease)
                continue
            sends.append(
                Send(
                    bucket=row["bucket"],
                    id=str(row["id"]),
                    profile_id=str(row["profile_id"]),
                    provider=row["provider"],
                    purpose=row["purpose"],
                    payload=payload,
                    expires_at=row["expires_at"],
                    attempts=row["attempts"],
                    lease=lease,
                    requeues=row["requeues"],
                    possible_duplicate=row["possible_duplicate"],
                )
            )
        return sends

    async def settle(self, settlements: Sequence[Settlement], now: datetime) -> list[Settlement]:
        """Writes what became of sends, in one statement; final outcomes become events of their
        profiles that are due at `now`, the pipeline's clock.

        Returns those that were refused: their lease was no longer the row's, or they were settled
        before.
        """
        ordered = sorted(settlements, key=lambda s: (s.send.bucket, s.send.id))
        rows = await self._fetch(
            "settle",
            [s.send.bucket for s in ordered],
            [s.send.id for s in ordered],
            [s.send.lease for s in ordered],
            [STATES[s.outcome] for s in ordered],
            [s.delay for s in ordered],
            [int(s.outcome not in (Outcome.RELEASED, Outcome.DROPPED)) for s in ordered],
            [_json(s.result).decode() for s in ordered],
            [_json(s.event).decode() if s.event else None for s in ordered],
            now,
            [outcome_id(s.send) for s in ordered],
        )
        refused = {(str(row["id"]), str(row["lease"])) for row in rows}
        return [s for s in ordered if (s.send.id, s.send.lease) in refused]

    async def put(self, send: Send) -> None:
        """A send of nobody's, for whichever engine claims it first."""
        await self._fetch(
            "put",
            send.bucket,
            send.id,
            send.profile_id,
            send.provider,
            send.purpose,
            _json(send.payload).decode(),
            send.expires_at,
        )

    async def state(self, send: Send) -> tuple[str, str | None]:
        """Pending, sent, dropped or dead; and why, where somebody said."""
        (row,) = await self._fetch("state", send.bucket, send.id)
        return row["state"], row["code"]

    async def dead(
        self, limit: int, before: datetime | None = None, provider: str | None = None
    ) -> list[DeadLetter]:
        """Sends that wait for an operator, the newest first; of one provider, or all."""
        rows = await self._fetch("dead", limit, before, provider)
        return [
            DeadLetter(**{**row, "id": str(row["id"]), "profile_id": str(row["profile_id"])}) for row in rows
        ]

    async def dead_ids(self, provider: str) -> list[str]:
        """The sends of one provider that wait for an operator."""
        return [str(row["id"]) for row in await self._fetch("dead_ids", provider)]

    async def requeue(
        self, send_id: str, expires_at: datetime | None = None, provider: str | None = None
    ) -> bool:
        """Revives a dead send, with a new expiry where one is given. False where none is dead
        under that id.

        Raises:
            ValueError: `send_id` is no id.
        """
        bucket = bucket_of_decision(send_id)
        return bool(await self._fetch("requeue", bucket, UUID(send_id), expires_at, provider))

    async def counts(self) -> dict[tuple[str, str], int]:
        """How many rows are pending or dead, by state and provider."""
        rows = await self._fetch("counts")
        return {(row["state"], row["provider"]): row["rows"] for row in rows}

    async def _fetch(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        try:
            return list(await self._pool.fetch(_QUERIES[name], *arguments))
        except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as fault:
            raise Conflict(type(fault).__name__) from fault
        except _AWAY as fault:
            raise Unavailable(type(fault).__name__) from fault
