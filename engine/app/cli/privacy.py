"""`viewfinder privacy`: the records of processing, and the audit log."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from engine.adapters.postgres import audit, receivers
from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.migrations import migrate
from engine.adapters.postgres.store import Store, connect
from engine.app.cli.check import check_folders, print_problems
from engine.app.cli.database import DATABASE_FAULTS, database, with_store
from engine.app.cli.environment import errors, fail, read_settings
from engine.app.processing_report import markdown, processing
from engine.app.settings import Settings
from engine.domain.sharing.receivers import Receiver

_json = msgspec.json.Encoder().encode


def privacy(
    action: Literal["report", "audit", "verify"] = "report",
    /,
    *,
    json: Annotated[bool, Parameter(help="Print JSON.")] = False,
) -> int:
    """The records of processing, or who looked at whom and changed what.

    Parameters
    ----------
    action
        report: what is known of people, for which purposes, who gets it and for how long, from the
        workspace. audit: the log, a line each. verify: whether the log is as it was written, and its head,
        which stands for all of it: written down elsewhere, it proves a log that was made anew wrong.
    """
    settings = read_settings()
    if action == "report":
        checked = check_folders(Path(settings.rules), Path(settings.models))
        if checked.ruling is None:
            print_problems(checked, errors)
            return 1
        found = processing(checked.ruling.rules, _receivers(settings))
        sys.stdout.write(_json(found).decode() + "\n" if json else markdown(found))
        return 0
    with database(settings) as dsn:
        try:
            return asyncio.run(_audit(dsn, action, json))
        except BrokenPipeError:  # of standard output
            raise
        except (*DATABASE_FAULTS, StoreError) as fault:
            fail(f"the database: {fault}", 1)
            raise


def _receivers(settings: Settings) -> list[Receiver]:
    """Who is told of people; nobody where there is no database yet."""
    if settings.database_url is None and not (Path(settings.data) / "postgres").exists():
        return []

    async def read(store: Store) -> list[Receiver]:
        return await receivers.all_of(store.pool)

    return with_store(read)


async def _audit(dsn: str, action: str, json: bool) -> int:
    await migrate(dsn)
    store = await connect(dsn)
    try:
        if action == "verify":
            broken = await audit.broken_at(store.pool)
            end = await audit.head(store.pool)
            if json:
                told = {"brokenAt": broken, "entries": end.entries, "head": end.hash.hex()}
                sys.stdout.write(_json(told).decode() + "\n")
            elif broken is None:
                sys.stdout.write(f"every entry is as it was written: {end.entries}, head {end.hash.hex()}\n")
            else:
                sys.stdout.write(f"entry {broken} is not what it was, or is missing\n")
            return 0 if broken is None else 1
        async for entry in audit.entries(store.pool):
            person = entry.person.hex() if entry.person else ""
            if json:
                line = {"seq": entry.seq, "at": entry.at, "actor": entry.actor, "action": entry.action}
                sys.stdout.write(_json({**line, "person": person or None}).decode() + "\n")
            else:
                said = f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.actor:<16} {entry.action}  {person}"
                sys.stdout.write(said.rstrip() + "\n")
    finally:
        await store.close()
    return 0
