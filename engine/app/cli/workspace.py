"""The workspace that a command goes by: the settings' folders, or what was published last."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.migrations import migrate
from engine.adapters.postgres.revisions import Revisions
from engine.adapters.postgres.store import connect
from engine.app import rulesets
from engine.app.cli.check import check_folders, print_problems
from engine.app.cli.database import DATABASE_FAULTS
from engine.app.cli.environment import errors, fail
from engine.app.reloading import from_database
from engine.app.rulesets import Checked, Files
from engine.app.ruling import Ruling
from engine.app.settings import PUBLISHED, Settings
from engine.formats.problems import Problem


def workspace(settings: Settings, dsn: str) -> Ruling:
    """What engines with these settings decide by. Ends with its problems where there is none."""
    checked = published(dsn) if settings.rules == PUBLISHED else folders(settings)
    assert checked.ruling is not None
    return checked.ruling


def folders(settings: Settings) -> Checked:
    """The workspace of the folders; ends with its problems where it cannot be served."""
    return _right(check_folders(Path(settings.rules), Path(settings.models)))


def published(dsn: str) -> Checked:
    """The workspace that was made active last; ends where there is none to serve."""

    async def read() -> Files | Problem | str:
        await migrate(dsn)
        store = await connect(dsn)
        try:
            return await from_database(Revisions(store.pool))(())
        finally:
            await store.close()

    try:
        found = asyncio.run(read())
    except (*DATABASE_FAULTS, StoreError) as fault:
        fail(f"the database: {fault}", 1)
        raise
    if not isinstance(found, Files):
        said = f"{found.message}: {found.suggestion}" if isinstance(found, Problem) else found
        fail(said, 1)
        raise AssertionError
    return _right(rulesets.build(found))


def _right(checked: Checked) -> Checked:
    if checked.ruling is None:
        print_problems(checked, errors)
        sys.exit(1)
    return checked
