"""Monthly partitions of events and decisions: made ahead, dropped whole when their time is over."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime

import asyncpg

PARTITIONED = {"events": "received_at", "decisions": "decided_at"}
MONTHS_AHEAD = 2

_NAME = re.compile(r"_(\d{4})_(\d{2})$")


def month_after(month: datetime) -> datetime:
    """The first moment of the next month."""
    return datetime(month.year + month.month // 12, month.month % 12 + 1, 1, tzinfo=UTC)


async def _briefly(connection: asyncpg.Connection, statement: str) -> None:
    """Runs what locks a whole table. Commits queue up behind it while it waits, so it does not wait
    long."""
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '300ms'")
        await connection.execute(statement)


async def make_partitions(connection: asyncpg.Connection, now: datetime) -> None:
    """Makes this month's partition and those of the coming months, where they are missing.

    Rows that came before their partition stand in the default one, which then keeps that month.
    """
    for table in PARTITIONED:
        month = datetime(now.year, now.month, 1, tzinfo=UTC)
        for _ in range(MONTHS_AHEAD + 1):
            following = month_after(month)
            with suppress(
                asyncpg.CheckViolationError,  # the default partition has rows of that month
                asyncpg.DuplicateTableError,  # another engine was faster
                asyncpg.UniqueViolationError,
                asyncpg.InvalidObjectDefinitionError,
                asyncpg.LockNotAvailableError,  # somebody reads for long: later
            ):
                await _briefly(
                    connection,
                    f"CREATE TABLE IF NOT EXISTS {table}_{month:%Y_%m} PARTITION OF {table} "
                    f"FOR VALUES FROM ('{month:%Y-%m-%d}Z') TO ('{following:%Y-%m-%d}Z')",
                )
            month = following


async def drop_old_partitions(connection: asyncpg.Connection, table: str, before: datetime) -> list[str]:
    """Drops the partitions whose rows are all older than `before`, and such rows of the default
    one. Answers the names of the dropped."""
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = $1::text::regclass",
        table,
    )
    dropped: list[str] = []
    for row in rows:
        match = _NAME.search(row["name"])
        if match is None:
            continue
        month = datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC)
        if month_after(month) <= before:
            with suppress(asyncpg.LockNotAvailableError):
                await _briefly(connection, f"DROP TABLE IF EXISTS {row['name']}")
                dropped.append(row["name"])
    column = PARTITIONED[table]
    await connection.execute(f"DELETE FROM {table}_default WHERE {column} < $1", before)
    return dropped
