"""What has to be done now and then: partitions made ahead, and what is past its time let go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

import asyncpg
import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from engine.adapters.postgres import audiences
from engine.adapters.postgres.changes import Changes
from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.graph import forget_snapshots
from engine.adapters.postgres.partitions import drop_old_partitions, make_partitions
from engine.adapters.postgres.store import Store

SEEN_KEPT = timedelta(days=40)
"""Longer than the 30 days for which a repeated message must be recognised."""
REJECTED_KEPT = timedelta(days=14)
POSITIONS_AT_ONCE = 5000
SETTLED_KEPT = timedelta(days=7)
CHANGES_KEPT = timedelta(days=14)
"""Messages that a receiver did not take, or that wait for one that is disabled."""
SIZES_KEPT = timedelta(days=400)
"""Of audiences, by the hour."""

REVERSIBLE = timedelta(days=30)
"""How long a merge can be taken back."""

log = structlog.get_logger()


async def keep_house(store: Store, retention: Mapping[str, timedelta]) -> None:
    """Makes the coming months' partitions and drops what is older than the workspace keeps. Safe
    to run on every engine at once."""
    now = datetime.now(UTC)
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "partitions": lambda: _partitions(store, retention, now),
        "suppressed": lambda: store.fetch("expired_suppressed", now - retention["suppressed"]),
        "positions": lambda: _positions(store, now - retention["positions"]),
        "seen": lambda: store.fetch("expired_seen", now - SEEN_KEPT),
        "rejected": lambda: store.fetch("expired_rejected", now - REJECTED_KEPT),
        "rejected_counts": lambda: store.fetch("expired_rejected_counts", (now - REJECTED_KEPT).date()),
        "outbox": lambda: store.fetch("expired_outbox", now - SETTLED_KEPT),
        "changes": lambda: Changes(store.pool).expire(now - CHANGES_KEPT),
        "merges": lambda: forget_snapshots(store.pool, now - REVERSIBLE),
        "audiences": lambda: _audience_sizes(store, now),
    }
    for name, step in steps.items():
        try:
            await step()
        except (StoreError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as fault:
            log.warning("housekeeping_failed", step=name, fault=type(fault).__name__)


async def _partitions(store: Store, retention: Mapping[str, timedelta], now: datetime) -> None:
    async with store.pool.acquire() as connection:
        await make_partitions(connection, now)
        await drop_old_partitions(connection, "events", now - retention["events"])
        await drop_old_partitions(connection, "decisions", now - retention["offered"])


async def _positions(store: Store, before: datetime) -> None:
    while await store.fetch("forget_positions", before, POSITIONS_AT_ONCE):
        pass


async def _audience_sizes(store: Store, now: datetime) -> None:
    names = await audiences.known(store.pool)
    await audiences.keep_sizes(store.pool, names, now, now - SIZES_KEPT)


def schedule(store: Store, retention: Callable[[], Mapping[str, timedelta]]) -> AsyncIOScheduler:
    """Starts the schedule; the caller shuts it down. `retention` is asked each time: rules change."""

    async def keep() -> None:
        await keep_house(store, retention())

    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.add_job(
        keep,
        "interval",
        hours=1,
        jitter=600,
        coalesce=True,
        max_instances=1,
        misfire_grace_time=None,  # late is better than in an hour
        next_run_time=datetime.now(UTC),
    )
    scheduler.start()
    return scheduler
