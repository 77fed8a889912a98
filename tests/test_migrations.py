"""The schema's history on a real PostgreSQL, and the partitions that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from engine.adapters.postgres.migrations import (
    Migration,
    MigrationError,
    migrate,
    read_migration,
    shipped,
)
from engine.adapters.postgres.partitions import drop_old_partitions, make_partitions, month_after
from tests.conftest import drop, execute, named
from tests.lanes import fetch

NAME = "test_empty"
INSERT = """INSERT INTO events
            VALUES (0, gen_random_uuid(), 1, $1, $1, 'client', 'm', 'track', 'x', '{}', '{}')"""


@pytest.fixture
async def empty_dsn(postgres: str) -> AsyncIterator[str]:
    await execute(postgres, f"CREATE DATABASE {NAME}")
    yield named(postgres, NAME)
    await drop(postgres, NAME)


async def test_an_empty_database_gets_everything_once(empty_dsn: str) -> None:
    versions = [migration.version for migration in shipped()]
    assert versions == sorted(set(versions))
    assert versions
    assert await migrate(empty_dsn) == versions
    assert await migrate(empty_dsn) == []
    assert await fetch(empty_dsn, "SELECT FROM profiles") == []


async def test_engines_that_start_together_migrate_once(empty_dsn: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_dsn) for _ in range(5)))
    assert sorted(map(len, applied)) == [0, 0, 0, 0, len(shipped())]


async def test_a_failed_migration_leaves_nothing_behind(empty_dsn: str) -> None:
    bad = Migration("20990101000000", "CREATE TABLE half (n int); SELECT 1 / 0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_dsn, [*shipped(), bad])
    assert (await fetch(empty_dsn, "SELECT to_regclass('half') IS NULL AS gone"))[0]["gone"]
    assert [r["version"] for r in await fetch(empty_dsn, "SELECT version FROM schema_migrations")] == [
        migration.version for migration in shipped()
    ]


async def test_an_index_may_be_built_concurrently_while_another_engine_waits(empty_dsn: str) -> None:
    """In a transaction PostgreSQL refuses it; behind a blocking advisory lock it would deadlock."""
    index = read_migration(
        "20990101000000",
        "-- migrate:up transaction:false\n"
        "CREATE INDEX CONCURRENTLY by_name ON events_default (name);\n"
        "CREATE INDEX CONCURRENTLY by_kind ON events_default (kind);\n"
        "-- migrate:down\nDROP INDEX by_name;\n",
    )
    assert not index.whole
    history = [*shipped(), index]
    both = await asyncio.wait_for(
        asyncio.gather(migrate(empty_dsn, history), migrate(empty_dsn, history)), 30
    )
    assert sorted(map(len, both)) == [0, len(history)]


async def test_a_schema_of_a_newer_viewfinder_is_refused(empty_dsn: str) -> None:
    await migrate(empty_dsn)
    await fetch(empty_dsn, "INSERT INTO schema_migrations VALUES ('29990101000000')")
    with pytest.raises(MigrationError, match="newer Viewfinder"):
        await migrate(empty_dsn)


def test_a_file_without_a_way_forward_is_refused() -> None:
    with pytest.raises(MigrationError, match="migrate:up"):
        read_migration("20990101000000", "CREATE TABLE t (n int);")


@pytest.mark.parametrize(
    ("month", "following"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)),
        (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
        (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_months_follow_each_other(month: datetime, following: datetime) -> None:
    assert month_after(month) == following


async def test_partitions_are_made_ahead_and_dropped_when_their_time_is_over(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        then = datetime(2031, 11, 15, tzinfo=UTC)
        await make_partitions(connection, then)
        await make_partitions(connection, then)  # also by another engine
        names = {row[0] for row in await connection.fetch("SELECT relname FROM pg_class WHERE relkind = 'r'")}
        assert {"events_2031_11", "events_2031_12", "events_2032_01", "decisions_2032_01"} <= names
        for day in (datetime(2031, 11, 30, tzinfo=UTC), datetime(2032, 1, 2, tzinfo=UTC)):
            await connection.execute(
                INSERT,
                day,
            )
        early = datetime(2031, 11, 30, tzinfo=UTC) + timedelta(hours=12)
        assert "events_2031_11" not in await drop_old_partitions(connection, "events", early)
        dropped = await drop_old_partitions(connection, "events", datetime(2031, 12, 1, tzinfo=UTC))
        assert "events_2031_11" in dropped
        left = await connection.fetch("SELECT received_at FROM events")
        assert [row[0] for row in left] == [datetime(2032, 1, 2, tzinfo=UTC)]
    finally:
        await connection.close()


async def test_rows_before_their_partition_stand_in_the_default_one_and_leave_it_in_time(
    postgres_dsn: str,
) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        day = datetime(2019, 2, 18, tzinfo=UTC)
        await connection.execute(
            INSERT,
            day,
        )
        await make_partitions(connection, day)  # cannot have that month any more, and says nothing
        assert await connection.fetchval("SELECT count(*) FROM events_default") == 1
        await drop_old_partitions(connection, "events", day + timedelta(seconds=1))
        assert await connection.fetchval("SELECT count(*) FROM events") == 0
    finally:
        await connection.close()
