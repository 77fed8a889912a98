"""`viewfinder tokens`: who may use /admin, by name and role."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from engine.adapters.postgres import audit
from engine.adapters.postgres import tokens as stored
from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.migrations import migrate
from engine.adapters.postgres.store import connect
from engine.app.cli.database import DATABASE_FAULTS, database
from engine.app.cli.environment import fail, read_settings

_json = msgspec.json.Encoder().encode
_COMMAND = "command"
LONGEST_DAYS = 3_650


def tokens(
    action: Literal["list", "make", "rotate", "revoke"] = "list",
    name: str | None = None,
    /,
    *,
    role: Annotated[
        Literal["viewer", "marketer", "operator", "privacy"] | None, Parameter(help="With make.")
    ] = None,
    days: Annotated[int | None, Parameter(help="With make: good for so many days.")] = None,
    json: Annotated[bool, Parameter(help="Print JSON.")] = False,
) -> int:
    """Who may use /admin beside the first token. A token is shown once, when it is made.

    Parameters
    ----------
    action
        list, make NAME --role ROLE, rotate NAME (the old one goes on for a day), revoke NAME.
    name
        Whose token it is.
    """
    if action != "list" and not name:
        fail(f"{action} needs a name", 2)
    if action == "make" and role is None:
        fail("make needs --role viewer, marketer, operator or privacy", 2)
    if days is not None and not 1 <= days <= LONGEST_DAYS:
        fail(f"--days must be from 1 to {LONGEST_DAYS:,}", 2)
    with database(read_settings()) as dsn:
        try:
            return asyncio.run(_run(dsn, action, name or "", role or "", days, json))
        except (*DATABASE_FAULTS, StoreError) as fault:
            fail(f"the database: {fault}", 1)
            raise


async def _run(dsn: str, action: str, name: str, role: str, days: int | None, json: bool) -> int:
    await migrate(dsn)
    store = await connect(dsn)
    pool, now = store.pool, datetime.now(UTC)
    try:
        if action == "list":
            _list(await stored.all_of(pool, now), json)
            return 0
        await audit.append(pool, _COMMAND, f"tokens {action} {name} {role}".strip(), now)
        if action == "revoke":
            ended = await stored.revoke(pool, name)
            if not ended:
                fail(f'there is no token "{name}"', 1)
            sys.stdout.write(
                _json({"name": name, "ended": ended}).decode() + "\n" if json else f"{ended} ended\n"
            )
            return 0
        if action == "make":
            until = now + timedelta(days=days) if days is not None else None
            made: str | None = await stored.make(pool, name, role, until)
        else:
            made = await stored.rotate(pool, name, now)
        if made is None:
            fail(f'there is no token "{name}"', 1)
        sys.stdout.write(_json({"name": name, "token": made}).decode() + "\n" if json else f"{made}\n")
        return 0
    finally:
        await store.close()


def _list(found: list[stored.Token], json: bool) -> None:
    if json:
        sys.stdout.write(_json(found).decode() + "\n")
        return
    table = Table("name", "role", "made", "until")
    for token in found:
        until = f"{token.expires_at:%Y-%m-%d %H:%M}" if token.expires_at else "revoked"
        table.add_row(
            token.name, token.role, f"{token.made_at:%Y-%m-%d %H:%M}", until if token.expires_at else ""
        )
    Console().print(table)
