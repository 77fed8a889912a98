"""What commands take from their surroundings: settings, a database, and a way to say what is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from rich.console import Console

from engine.adapters.postgres.embedded import EmbeddedPostgresError, start
from engine.adapters.postgres.migrations import MigrationError
from engine.app.settings import Settings, SettingsError, from_environment

errors = Console(stderr=True)

DATABASE_FAULTS = (MigrationError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""What a database does to a command that wants to use it."""


def fail(message: str, code: int) -> None:
    """Says what is wrong, and ends."""
    errors.out(f"error: {message}", highlight=False)
    sys.exit(code)


def read_settings() -> Settings:
    """The settings, or exit code 2 with everything that is wrong with them."""
    try:
        return from_environment(os.environ)
    except SettingsError as fault:
        fail(str(fault), 2)
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
