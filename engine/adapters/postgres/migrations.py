"""The schema's history: SQL files in dbmate's format, applied in order, each once.

Engines may start together: one applies, the others wait. They poll for the lock, because waiting
inside PostgreSQL would hold a snapshot that CREATE INDEX CONCURRENTLY waits for in turn.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from importlib import resources

import asyncpg
import msgspec

from engine.adapters.postgres.partitions import make_partitions

SUPPORTED = range(15, 19)
LOCK = 0x76696577  # "view"
WAIT_SECONDS = 600.0

_FILE = re.compile(r"(\d{14})_\w+\.sql")
_UP = re.compile(r"^-- migrate:up(.*)$", re.MULTILINE)
_DOWN = re.compile(r"^-- migrate:down.*$", re.MULTILINE)


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message says what to do."""


class Migration(msgspec.Struct, frozen=True):
    """One file. Where `whole` is false its statements run one by one, outside a transaction."""

    version: str
    up: str
    whole: bool = True


def read_migration(version: str, text: str) -> Migration:
    """The part of a file that goes forward.

    Raises:
        MigrationError: it has no such part.
    """
    start = _UP.search(text)
    if start is None:
        raise MigrationError(f"migration {version} has no line `-- migrate:up`")
    end = _DOWN.search(text, start.end())
    up = text[start.end() : end.start() if end else len(text)].strip()
    return Migration(version, up, "transaction:false" not in start[1])


def shipped() -> list[Migration]:
    """The migrations of this version of Viewfinder, in order."""
    files = (f for f in resources.files(__package__).joinpath("schema").iterdir() if _FILE.fullmatch(f.name))
    ordered = sorted(files, key=lambda file: file.name)
    return [read_migration(file.name[:14], file.read_text("utf-8")) for file in ordered]


async def migrate(dsn: str, migrations: list[Migration] | None = None) -> list[str]:
    """Applies what is missing and makes the coming months' partitions. Answers the versions applied.

    Raises:
        MigrationError: the server is too old, or its schema is of a newer Viewfinder.
        OSError, asyncpg.PostgresError: the database cannot be reached or refuses.
    """
    migrations = shipped() if migrations is None else migrations
    connection = await asyncpg.connect(dsn)
    try:
        major = connection.get_server_version().major
        if major not in SUPPORTED:
            raise MigrationError(
                f"PostgreSQL {SUPPORTED[0]} to {SUPPORTED[-1]} is needed, this one is {major}"
            )
        await _lock(connection)
        applied = await _apply(connection, migrations)
        await make_partitions(connection, datetime.now(UTC))
        return applied
    finally:
        await connection.close()


async def _lock(connection: asyncpg.Connection) -> None:
    async def taken() -> bool:
        return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK))

    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not await taken():
                await asyncio.sleep(0.05)
    except TimeoutError as fault:
        raise MigrationError("another process has been migrating this database for too long") from fault


async def _apply(connection: asyncpg.Connection, migrations: list[Migration]) -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (version varchar(128) PRIMARY KEY)"
    )
    done = {row["version"] for row in await connection.fetch("SELECT version FROM schema_migrations")}
    unknown = sorted(done - {migration.version for migration in migrations})
    if unknown:
        raise MigrationError(
            f"the database's schema is of a newer Viewfinder (migration {unknown[-1]}): upgrade this one"
        )
    missing = [migration for migration in migrations if migration.version not in done]
    for migration in missing:
        record = f"INSERT INTO schema_migrations (version) VALUES ('{migration.version}')"
        if migration.whole:
            async with connection.transaction():
                await connection.execute(migration.up)
                await connection.execute(record)
        else:
            for statement in filter(None, (s.strip() for s in migration.up.split(";\n"))):
                await connection.execute(statement)
            await connection.execute(record)
    return [migration.version for migration in missing]
