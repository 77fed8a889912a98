"""The database of a command that wants one. Apart from the rest, because loading its client takes a tenth
of what `check` takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import asyncpg

from engine.adapters.postgres.embedded import EmbeddedPostgresError, start
from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.migrations import MigrationError, migrate
from engine.adapters.postgres.store import Store, connect
from engine.app.cli.environment import fail, read_settings
from engine.app.settings import Settings

T = TypeVar("T")

DATABASE_FAULTS = (MigrationError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""What a database does to a command that wants to use it."""


def with_store(work: Callable[[Store], Awaitable[T]]) -> T:
    """What comes of `work` on the database, its schema up to date. Ends with exit code 1 where the
    database is away."""

    async def run(dsn: str) -> T:
        await migrate(dsn)
        store = await connect(dsn, size=4)
        try:
            return await work(store)
        finally:
            await store.close()

    with database(read_settings()) as dsn:
        try:
            return asyncio.run(run(dsn))
        except (*DATABASE_FAULTS, StoreError) as fault:
            fail(f"the database: {fault}", 1)
            raise


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The DSN of the database: the given one, or the embedded server's, which runs meanwhile."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    try:
        server = start(Path(settings.data))
    except EmbeddedPostgresError as fault:
        fail(str(fault), 1)
        raise
    try:
        yield server.dsn
    finally:
        server.stop()
