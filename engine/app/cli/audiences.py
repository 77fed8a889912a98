"""`viewfinder audiences`: how many people are in which audience, how many they were, and who."""

from __future__ import annotations

import asyncio
import csv
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import asyncpg
import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from engine.adapters.postgres import audiences as stored
from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.migrations import migrate
from engine.adapters.postgres.store import connect
from engine.app.cli.database import DATABASE_FAULTS, database
from engine.app.cli.environment import fail, read_settings

LONGEST_DAYS = 3_650
_json = msgspec.json.Encoder().encode


def audiences(
    name: str | None = None,
    /,
    *,
    members: Annotated[bool, Parameter(help="Write every member: CSV, or with --json a line each.")] = False,
    days: Annotated[int, Parameter(help="How many days of sizes to show.")] = 7,
    json: Annotated[bool, Parameter(help="Print JSON.")] = False,
) -> int:
    """How many people are in which audience, how many they were, and who they are.

    Parameters
    ----------
    name
        One audience: its sizes by the hour, or with --members everybody in it.
    """
    if members and name is None:
        fail("--members needs the name of an audience", 2)
    if not 1 <= days <= LONGEST_DAYS:
        fail(f"--days must be from 1 to {LONGEST_DAYS:,}", 2)
    with database(read_settings()) as dsn:
        try:
            return asyncio.run(_report(dsn, name, members, days, json))
        except BrokenPipeError:  # of standard output
            raise
        except (*DATABASE_FAULTS, StoreError) as fault:
            fail(f"the database: {fault}", 1)
            raise


async def _report(dsn: str, name: str | None, members: bool, days: int, json: bool) -> int:
    await migrate(dsn)
    async with _pool(dsn) as pool:
        names = await stored.known(pool)
        if name is not None and name not in names:
            fail(f'nobody is or was in an audience "{name}"', 1)
        if name is None:
            return _print_sizes(await stored.sizes(pool, names), json)
        if members:
            return await _write_members(pool, name, json)
        since = datetime.now(UTC) - timedelta(days=days)
        size = (await stored.sizes(pool, [name]))[name]
        return _print_history(name, size, await stored.sizes_over_time(pool, name, since), json)


@asynccontextmanager
async def _pool(dsn: str) -> AsyncIterator[asyncpg.Pool]:
    store = await connect(dsn, size=2)
    try:
        yield store.pool
    finally:
        await store.close()


def _print_sizes(sizes: dict[str, int], json: bool) -> int:
    if json:
        _write({"audiences": [{"name": name, "size": size} for name, size in sizes.items()]})
        return 0
    table = Table("audience", "people")
    table.columns[1].justify = "right"
    for name, size in sizes.items():
        table.add_row(name, f"{size:,}")
    Console().print(table)
    return 0


def _print_history(name: str, size: int, history: list[stored.Size], json: bool) -> int:
    if json:
        _write({"name": name, "size": size, "sizes": history})
        return 0
    table = Table("hour (UTC)", name)
    table.columns[1].justify = "right"
    for hour in history:
        table.add_row(f"{hour.at:%Y-%m-%d %H:00}", f"{hour.size:,}")
    table.add_row("now", f"{size:,}")
    Console().print(table)
    return 0


async def _write_members(pool: asyncpg.Pool, name: str, json: bool) -> int:
    """One line a member. CSV has a column for each namespace of the first thousand members' identities;
    of several values in one namespace the one linked first."""
    columns: list[str] | None = None
    rows = csv.writer(sys.stdout, lineterminator="\n")
    async for page in stored.pages(pool, name):
        if json:
            for member in page:
                named = [{"namespace": i.namespace, "value": i.value} for i in member.identities]
                _write({"profileId": member.profile_id, "since": member.since, "identities": named})
            continue
        if columns is None:
            columns = sorted({i.namespace for member in page for i in member.identities})
            rows.writerow(["profile_id", "since", *columns])
        for member in page:
            values = {i.namespace: i.value for i in reversed(member.identities)}
            rows.writerow(
                [member.profile_id, member.since.isoformat(), *(values.get(c, "") for c in columns)]
            )
    return 0


def _write(value: Any) -> None:
    sys.stdout.write(_json(value).decode() + "\n")
