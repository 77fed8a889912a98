"""`viewfinder export`: everything about one person."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from engine.adapters.postgres import audit
from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.migrations import migrate
from engine.adapters.postgres.rights import hash_of
from engine.adapters.postgres.store import connect
from engine.app import rights
from engine.app.cli.database import DATABASE_FAULTS, database
from engine.app.cli.environment import fail, read_settings, write_file
from engine.app.cli.people import namespaces
from engine.app.export_page import page
from engine.domain.offers.rules import Namespace
from engine.domain.people.identity import normal
from engine.domain.people.profiles import IdentityKey


def export(
    namespace: str,
    value: str,
    /,
    *,
    format: Annotated[Literal["json", "html"], Parameter(help="JSON, or a page to read.")] = "json",
    output: Annotated[Path | None, Parameter(help="A file instead of standard output.")] = None,
) -> int:
    """Everything about one person: the profile, every event, decision and message.

    Parameters
    ----------
    namespace
        Which kind of identity, such as user_id or email.
    value
        The identity.
    """
    settings = read_settings()
    with database(settings) as dsn:
        try:
            found = asyncio.run(_export(dsn, (namespace, value), namespaces(settings, dsn)))
        except (*DATABASE_FAULTS, StoreError) as fault:
            fail(f"the database: {fault}", 1)
            raise
    if found is None:
        fail("nobody by that identity", 1)
        raise AssertionError
    text = page(found).encode() if format == "html" else msgspec.json.format(msgspec.json.encode(found))
    if output is not None:
        write_file(output, text)
    else:
        sys.stdout.buffer.write(text + b"\n")
    return 0


async def _export(dsn: str, asked: IdentityKey, kinds: Sequence[Namespace]) -> rights.Exported | None:
    key = normal(asked, kinds)
    await migrate(dsn)
    store = await connect(dsn)
    try:
        secret = await store.secret(secrets.token_bytes(32))
        now = datetime.now(UTC)
        await audit.append(store.pool, "command", "export", now, hash_of(secret, key))
        return await rights.export(store.pool, key, now, kinds)
    finally:
        await store.close()
