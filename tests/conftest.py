"""One real PostgreSQL for all tests, and a fresh database of the current schema for each."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from engine.adapters.postgres import embedded
from engine.adapters.postgres.migrations import migrate

TEMPLATE = "viewfinder_template"
_numbers = itertools.count(1)


def named(dsn: str, database: str) -> str:
    """The DSN of another database of the same server."""
    head, _, query = dsn.partition("?")
    return f"{head.rpartition('/')[0]}/{database}?{query}"


async def execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def drop(dsn: str, name: str) -> None:
    """Drops a database, whoever is in it. Autovacuum may be, and takes orders from nobody."""
    async with asyncio.timeout(60):
        while True:
            try:
                await execute(dsn, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            except asyncpg.InsufficientPrivilegeError:
                await asyncio.sleep(0.1)
            else:
                return


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of the server's own database."""
    with open_folder() as folder:
        server = embedded.start(folder, durable=False)
        try:
            asyncio.run(execute(server.dsn, f"CREATE DATABASE {TEMPLATE}"))
            asyncio.run(migrate(named(server.dsn, TEMPLATE)))
            yield server.dsn
        finally:
            server.stop()


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other accounts may pass through, unlike pytest's: as root, PostgreSQL runs as
    another one."""
    with tempfile.TemporaryDirectory(prefix="viewfinder-test-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture
async def postgres_dsn(postgres: str) -> AsyncIterator[str]:
    """The DSN of a database of the test's own."""
    name = f"test_{next(_numbers)}"
    await execute(postgres, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
    yield named(postgres, name)
    await drop(postgres, name)
