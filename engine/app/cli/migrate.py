"""`viewfinder migrate`: brings the database's schema up to date."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from engine.adapters.postgres.migrations import migrate as apply
from engine.app.cli.database import DATABASE_FAULTS, database
from engine.app.cli.environment import fail, read_settings


def migrate(*, json: bool = False) -> int:
    """Apply what the database's schema lacks. `serve` does the same when it starts.

    Parameters
    ----------
    json
        Print one JSON object.
    """
    with database(read_settings()) as dsn:
        try:
            applied = asyncio.run(apply(dsn))
        except DATABASE_FAULTS as fault:
            fail(f"the database: {fault}", 1)
    if json:
        sys.stdout.write(msgspec.json.encode({"applied": applied}).decode() + "\n")
    else:
        sys.stdout.write("".join(f"applied {v}\n" for v in applied) or "the schema is up to date\n")
    return 0
