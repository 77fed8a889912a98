"""Senders for tests: against a real PostgreSQL and a server that speaks FCM v1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from prometheus_client import REGISTRY

from engine.adapters.fcm import Fcm, read_credentials
from engine.adapters.postgres.outbox import Outbox
from engine.app.demo.fcm_stand_in import StandIn, stand_in
from engine.app.sender import Pace, Sender
from engine.domain.offers.delivery import Delivered, Send, Verdict
from engine.domain.offers.pauses import NOTHING_PAUSED, Paused
from tests.sends import NOW

QUICK = Pace(
    claim_every_seconds=0.02,
    open_seconds=0.1,
    faults_to_open=3,
    database_pause_seconds=0.05,
)
IMPATIENT = msgspec.structs.replace(QUICK, deadline_seconds=0.3)
"""Where a provider hangs on purpose. Anywhere else a busy machine could look like one."""

Refusals = Mapping[str, str | None]


async def all_permitted(sends: Sequence[Send]) -> Refusals:
    return {send.id: None for send in sends}


class Other:
    """A second push service, which takes everything."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def deliver(self, send: Send, ttl: timedelta, jitter: float) -> Verdict:
        self.taken.append(send.id)
        return Delivered()

    async def aclose(self) -> None:
        self.taken.append("closed")


class House:
    """Starts senders against one database and one FCM; `woken` counts the calls of `on_settled`."""

    def __init__(self, pool: asyncpg.Pool, fcm: StandIn, folder: Path) -> None:
        self.pool = pool
        self.fcm = fcm
        self.credentials = fcm.credentials(folder / "account.json")
        self.woken = 0

    def _wake(self) -> None:
        self.woken += 1

    @asynccontextmanager
    async def sender(
        self,
        *,
        permits: Callable[[Sequence[Send]], Awaitable[Refusals]] = all_permitted,
        paused: Callable[[], Paused] = lambda: NOTHING_PAUSED,
        pace: Pace = QUICK,
        jitter: float = 0.0,
        fcm: bool = True,
        **others: Any,
    ) -> AsyncIterator[Sender]:
        providers = dict(others)
        if fcm:
            adapter = Fcm(read_credentials(self.credentials), url=self.fcm.url, timeout_seconds=9.0)
            providers["fcm"] = adapter
        sender = Sender(
            outbox=Outbox(self.pool),
            providers=providers,
            permits=permits,
            now=lambda: NOW,
            on_settled=self._wake,
            paused=paused,
            pace=pace,
            jitter=lambda: jitter,
        )
        await sender.start()
        try:
            yield sender
        finally:
            await sender.stop(2.0)

    async def states(self) -> dict[str, str]:
        return {str(r["id"]): r["state"] for r in await self.pool.fetch("SELECT id, state FROM outbox")}

    async def row(self, send: Send) -> Any:
        return await self.pool.fetchrow("SELECT * FROM outbox WHERE id = $1", send.id)

    async def until(self, sql: str, *arguments: Any) -> None:
        """Waits until `sql` says true."""
        async with asyncio.timeout(30.0):
            while not await self.pool.fetchval(sql, *arguments):
                await asyncio.sleep(0.01)

    async def until_settled(self) -> None:
        await self.until("SELECT NOT EXISTS (SELECT FROM outbox WHERE state = 'pending')")

    async def due_now(self) -> None:
        await self.pool.execute("UPDATE outbox SET due_at = now() WHERE state = 'pending'")

    async def lapse(self) -> None:
        await self.pool.execute(
            "UPDATE outbox SET leased_until = now() - interval '1s' WHERE lease IS NOT NULL"
        )


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def a_house(dsn: str, folder: Path) -> AsyncIterator[House]:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=4) as pool, stand_in() as fcm:
        yield House(pool, fcm, folder)
