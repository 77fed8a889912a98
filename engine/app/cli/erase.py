"""`viewfinder erase`: one person, everywhere; and the ledger that keeps backups from bringing them back."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from engine.adapters.postgres import audit
from engine.adapters.postgres import rights as stored
from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.migrations import migrate
from engine.adapters.postgres.rights import Receipt
from engine.adapters.postgres.store import Store, connect
from engine.app import rights
from engine.app.cli.database import DATABASE_FAULTS, database
from engine.app.cli.environment import fail, read_settings
from engine.app.cli.people import namespaces
from engine.app.import_files import FOLDER
from engine.domain.offers.rules import Namespace
from engine.domain.people.identity import normal
from engine.domain.people.profiles import IdentityKey


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """A line of the ledger: a keyed hash of an identity, and when it was erased."""

    hash: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})+$")]
    erased_at: datetime


class People(msgspec.Struct, frozen=True):
    """How people are known, and where import files are kept."""

    namespaces: Sequence[Namespace]
    files: Path


_encode = msgspec.json.Encoder().encode
_entry = msgspec.json.Decoder(Entry).decode


def erase(
    namespace: str | None = None,
    value: str | None = None,
    /,
    *,
    scan: Annotated[bool, Parameter(help="Read all tables for the person's identities afterwards.")] = False,
    ledger: Annotated[bool, Parameter(help="Write the ledger: keyed hashes, a JSON line each.")] = False,
    replay: Annotated[Path | None, Parameter(help="Erase whom a restored backup brought back.")] = None,
    json: Annotated[bool, Parameter(help="Print JSON.")] = False,
) -> int:
    """Erase a person: every profile that became one with theirs, every table, every engine's memory.

    Parameters
    ----------
    namespace
        Which kind of identity, such as user_id or email.
    value
        The identity.
    """
    asked = [namespace is not None and value is not None, ledger, replay is not None]
    if sum(asked) != 1:
        fail("name a person by NAMESPACE and VALUE, or give --ledger or --replay", 2)
    settings = read_settings()
    entries = _entries(replay) if replay is not None else []
    with database(settings) as dsn:
        try:
            if ledger:
                return asyncio.run(_ledger(dsn))
            people = People(namespaces(settings, dsn), Path(settings.data) / FOLDER)
            if replay is not None:
                return asyncio.run(_replay(dsn, entries, people, json))
            assert namespace is not None
            assert value is not None
            return asyncio.run(_one(dsn, (namespace, value), people, scan, json))
        except BrokenPipeError:  # of standard output
            raise
        except (*DATABASE_FAULTS, StoreError) as fault:
            fail(f"the database: {fault}", 1)
            raise


def _entries(file: Path) -> list[Entry]:
    try:
        return [_entry(line) for line in file.read_bytes().splitlines() if line.strip()]
    except OSError as fault:
        fail(f"{file}: {fault.strerror}", 2)
        raise
    except (msgspec.DecodeError, ValueError) as fault:
        fail(f"{file}: not a ledger: {fault}", 1)
        raise


async def _opened(dsn: str) -> tuple[Store, bytes]:
    await migrate(dsn)
    store = await connect(dsn)
    return store, await store.secret(secrets.token_bytes(32))


async def _one(dsn: str, asked: IdentityKey, people: People, scan: bool, json: bool) -> int:
    key = normal(asked, people.namespaces)
    store, secret = await _opened(dsn)
    try:
        now = datetime.now(UTC)
        await audit.append(store.pool, "command", "erase", now, stored.hash_of(secret, key))
        erased = await rights.erase(store.pool, key, secret, now, people.namespaces, people.files)
        if erased is None:
            fail("nobody by that identity", 1)
            raise AssertionError
        receipt, person = erased
        found = dict(receipt.left_over or {})
        if scan:
            async with store.pool.acquire() as connection:
                found |= await stored.scan(connection, [value for _, value in person.keys])
    finally:
        await store.close()
    _tell(receipt, found, scan, json)
    return 1 if found else 0


def _tell(receipt: Receipt, found: dict[str, int], scanned: bool, json: bool) -> None:
    if json:
        sys.stdout.write(_encode({"receipt": receipt, "found": found}).decode() + "\n")
        return
    sys.stdout.write(f"erased; receipt {receipt.id}\n")
    rows = {"profiles": receipt.profiles, **receipt.deleted}
    sys.stdout.write("".join(f"  {table}: {count}\n" for table, count in rows.items() if count))
    searched = "all tables were read" if scanned else "their rows were searched for"
    left = ", ".join(f"{table}: {count}" for table, count in found.items())
    sys.stdout.write(f"{searched}: {'still found: ' + left if left else 'nothing is left'}\n")


async def _ledger(dsn: str) -> int:
    store, _ = await _opened(dsn)
    try:
        for digest, erased_at in await stored.ledger(store.pool):
            sys.stdout.write(_encode(Entry(digest.hex(), erased_at)).decode() + "\n")
    finally:
        await store.close()
    return 0


async def _replay(dsn: str, entries: list[Entry], people: People, json: bool) -> int:
    store, secret = await _opened(dsn)
    erased = 0
    try:
        book = {bytes.fromhex(entry.hash): entry.erased_at for entry in entries}
        for key in await stored.come_back(store.pool, secret, book):
            now = datetime.now(UTC)
            found = await rights.erase(store.pool, key, secret, now, people.namespaces, people.files)
            erased += found is not None
        await stored.keep(store.pool, list(book.items()))
    finally:
        await store.close()
    if json:
        sys.stdout.write(_encode({"entries": len(entries), "erased": erased}).decode() + "\n")
    else:
        sys.stdout.write(f"{len(entries)} entries: {erased} people had come back and are erased again\n")
    return 0
