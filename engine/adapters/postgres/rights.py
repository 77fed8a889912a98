"""Everything about one person, and its end: over all tables that hold rows of a profile.

The tables are asked for, not listed here, so that none is forgotten. An erased profile keeps an empty
row with a higher version: an engine that still has the old document in memory cannot write it back.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec

from engine.adapters.postgres.faults import Conflict
from engine.adapters.postgres.notices import CHANNEL
from engine.adapters.postgres.store import named_queries
from engine.domain.offers.rules import Namespace
from engine.domain.people.person import Person
from engine.domain.people.profiles import (
    ACCOUNT_NAMESPACE,
    DEVICE_NAMESPACE,
    IdentityKey,
    Profile,
    bucket_of,
    decode_profile,
    encode_profile,
    identity_bucket,
)

FORGET = "forget:"
"""A notice to all engines: the profile behind it is not to be kept in memory."""
SQL = named_queries(resources.files(__package__).joinpath("rights.sql").read_text("utf-8"))
_SCALES = ("outbox",)
"""Tables whose rows' bucket is not always their profile's."""
_json = msgspec.json.Encoder().encode
_PAGE = 5000
TRIES = 3


class Receipt(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was deleted, by table, and what a search afterwards found; None before that."""

    id: str
    asked_at: datetime
    erased_at: datetime
    profiles: int
    identities: int
    deleted: dict[str, int]
    left_over: dict[str, int] | None


def hash_of(secret: bytes, key: IdentityKey) -> bytes:
    """What stands for an identity that must not be known any more."""
    return hmac.digest(secret, f"erased\0{key[0]}\0{key[1]}".encode(), hashlib.sha256)[:16]


async def person_of(
    connection: asyncpg.Connection, key: IdentityKey, namespaces: Sequence[Namespace] = ()
) -> Person | None:
    """The person behind an identity, their rows locked. Inside a transaction. `namespaces` say how
    identities may be spelt."""
    owner = await connection.fetchval(SQL["owner"], identity_bucket(key), *key)
    if owner is None or key[0] == ACCOUNT_NAMESPACE:
        return None
    # What brings rows over locks merges before profiles: so do we.
    await connection.fetch(SQL["lock_merges"], str(owner))
    profile = await _locked(connection, str(owner))
    if profile is None or not profile.lists(key):
        return None
    family = [str(row[0]) for row in await connection.fetch(SQL["lock_merges"], profile.id)]
    others = [other for i in sorted(family) if (other := await _locked(connection, i)) is not None]
    profiles = (profile, *others)
    rows = await connection.fetch(SQL["indexed"], [p.id for p in profiles])
    return Person(profiles, tuple((row[0], row[1]) for row in rows), namespaces)


async def _locked(connection: asyncpg.Connection, profile_id: str) -> Profile | None:
    row = await connection.fetchrow(SQL["lock"], profile_id)
    return msgspec.structs.replace(decode_profile(row[2]), version=row[1]) if row is not None else None


async def erase(
    pool: asyncpg.Pool,
    key: IdentityKey,
    secret: bytes,
    asked_at: datetime,
    namespaces: Sequence[Namespace] = (),
) -> tuple[Receipt, Person] | None:
    """Deletes everything about the person behind an identity; None where there is nobody. Answers the
    receipt, and who it was, for the caller to forget."""
    for _ in range(TRIES):
        try:
            return await _erase(pool, key, secret, asked_at, namespaces)
        except Conflict:
            continue  # a merge came in between
    return await _erase(pool, key, secret, asked_at, namespaces)


async def _erase(
    pool: asyncpg.Pool,
    key: IdentityKey,
    secret: bytes,
    asked_at: datetime,
    namespaces: Sequence[Namespace],
) -> tuple[Receipt, Person] | None:
    async with pool.acquire() as connection:
        async with connection.transaction():
            person = await person_of(connection, key, namespaces)
            if person is None:
                return None
            deleted = await _delete(connection, person)
            receipt_id = str(uuid4())
            people = [k for k in person.keys if k[0] != DEVICE_NAMESPACE]
            await connection.execute(SQL["note_identities"], [hash_of(secret, k) for k in people], asked_at)
            await connection.execute(
                SQL["note"],
                receipt_id,
                hash_of(secret, ("$profile", person.profiles[0].id)),
                asked_at,
                len(person.profiles),
                len(people),
                _json(deleted).decode(),
            )
            for profile_id in person.ids:
                await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, FORGET + profile_id)
        found = await left_over(connection, person)
        await connection.execute(SQL["verified"], receipt_id, _json(found).decode())
        receipt = await _receipt(connection, receipt_id)
    assert receipt is not None
    return receipt, person


async def _delete(connection: asyncpg.Connection, person: Person) -> dict[str, int]:
    ids, buckets = person.ids, sorted({bucket_of(i) for i in person.ids})
    deleted: dict[str, int] = {}
    for profile in sorted(person.profiles, key=lambda p: p.id):
        empty = Profile(
            id=profile.id, created_at=profile.created_at, last_seen=profile.created_at, erased=True
        )
        await connection.execute(SQL["blank"], profile.id, encode_profile(empty))
    deleted["identities"] = await connection.fetchval(SQL["unlink"], ids)
    numbers = [row["id"] for row in await _rejected(connection, person)]
    deleted["rejected"] = await connection.fetchval(SQL["unreject"], numbers)
    for table, where, arguments in await _where(connection, ids, buckets):
        if table == "identities":
            continue
        status = await connection.execute(f"DELETE FROM {table} WHERE {where}", *arguments)
        deleted[table] = int(status.rpartition(" ")[2])
    await connection.execute("DELETE FROM merges WHERE survivor_id = ANY ($1::uuid[])", ids)
    return deleted


async def _where(
    connection: asyncpg.Connection, ids: Sequence[str], buckets: Sequence[int]
) -> list[tuple[str, str, tuple[Any, ...]]]:
    """For each table with rows of profiles: its name, and the condition for those of some."""
    found: list[tuple[str, str, tuple[Any, ...]]] = []
    for name, bucketed in await connection.fetch(SQL["tables"]):
        where, arguments = "profile_id = ANY ($1::uuid[])", (list(ids),)
        if bucketed and name not in _SCALES and name != "identities":
            found.append((name, f"bucket = ANY ($2::smallint[]) AND {where}", (*arguments, list(buckets))))
        else:
            found.append((name, where, arguments))
    return found


async def left_over(connection: asyncpg.Connection, person: Person) -> dict[str, int]:
    """A search for what should be gone: rows by table that are still there; empty when all is well."""
    ids, buckets = person.ids, sorted({bucket_of(i) for i in person.ids})
    found: dict[str, int] = {}
    for table, where, arguments in await _where(connection, ids, buckets):
        found[table] = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE {where}", *arguments)
    found["rejected"] = len(await _rejected(connection, person))
    documents = [await connection.fetchrow(SQL["lock"], i) for i in ids]
    found["profiles"] = sum(not decode_profile(row[2]).erased for row in documents if row is not None)
    return {table: rows for table, rows in found.items() if rows}


async def scan(connection: asyncpg.Connection, texts: Iterable[str]) -> dict[str, int]:
    """Rows of any table, by table, that hold one of some texts. Reads everything: it takes its time."""
    found: dict[str, int] = {}
    patterns = [f"%{_like(text)}%" for text in texts]
    tables = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
        "AND relnamespace = current_schema()::regnamespace ORDER BY 1"
    )
    await connection.execute("SET enable_seqscan = on")
    for (table,) in tables:
        columns = await connection.fetch(
            "SELECT attname, atttypid = 'bytea'::regtype AS raw FROM pg_attribute "
            "WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped",
            table,
        )
        text = " || ' ' || ".join(
            f"coalesce(encode({name}, 'escape'), '')" if raw else f"coalesce({name}::text, '')"
            for name, raw in columns
        )
        rows = await connection.fetchval(
            f"SELECT count(*) FROM {table} WHERE {text} LIKE ANY ($1::text[])",
            patterns,
            timeout=3600,
        )
        if rows:
            found[table] = rows
    await connection.execute("SET enable_seqscan = off")
    return found


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


async def note_files(pool: asyncpg.Pool, receipt_id: str, lines: int) -> Receipt:
    """Adds to a receipt how many lines of kept import files went."""
    async with pool.acquire() as connection:
        await connection.execute(SQL["note_files"], receipt_id, lines)
        found = await _receipt(connection, receipt_id)
    assert found is not None
    return found


async def vacuum(pool: asyncpg.Pool, tables: Iterable[str]) -> None:
    """Asks PostgreSQL to let go of dead rows."""
    async with pool.acquire() as connection:
        for table in ("profiles", "identities", *tables):
            await connection.execute(f"VACUUM {table}", timeout=3600)


async def receipt(pool: asyncpg.Pool, receipt_id: str) -> Receipt | None:
    async with pool.acquire() as connection:
        return await _receipt(connection, receipt_id)


async def _receipt(connection: asyncpg.Connection, receipt_id: str) -> Receipt | None:
    row = await connection.fetchrow(SQL["receipt"], receipt_id)
    if row is None:
        return None
    return Receipt(
        id=str(row[0]),
        asked_at=row[1],
        erased_at=row[2],
        profiles=row[3],
        identities=row[4],
        deleted=msgspec.json.decode(row[5]),
        left_over=msgspec.json.decode(row[6]) if row[6] is not None else None,
    )


async def rows_of(connection: asyncpg.Connection, person: Person) -> dict[str, list[Any]]:
    """All rows about a person, by table, as JSON."""
    ids, buckets = person.ids, sorted({bucket_of(i) for i in person.ids})
    found: dict[str, list[Any]] = {}
    for table, where, arguments in await _where(connection, ids, buckets):
        rows = await connection.fetch(f"SELECT to_json(t) FROM {table} t WHERE {where}", *arguments)
        if rows:
            found[table] = [msgspec.Raw(row[0].encode()) for row in rows]
    rejected = await _rejected(connection, person)
    if theirs := [row for row in rejected if person.names(bytes(row["item"]))]:
        found["rejected"] = [
            {
                "received_at": row["received_at"],
                "code": row["code"],
                "message": row["message"],
                "item": bytes(row["item"]).decode("utf-8", "replace"),
            }
            for row in theirs
        ]
    return found


async def _rejected(connection: asyncpg.Connection, person: Person) -> list[asyncpg.Record]:
    """Refused events that hold one of the person's texts, or an identity of theirs in another spelling."""
    rows = await connection.fetch(SQL["rejected_of"], person.texts, person.tails)
    return [row for row in rows if row["holds"] or person.is_spelt_in(bytes(row["item"]))]


async def ledger(pool: asyncpg.Pool) -> list[tuple[bytes, datetime]]:
    """The hashes of all erased identities, oldest first."""
    return [(bytes(row[0]), row[1]) for row in await pool.fetch(SQL["ledger"])]


async def keep(pool: asyncpg.Pool, entries: Sequence[tuple[bytes, datetime]]) -> None:
    """Takes a ledger in."""
    for digest, erased_at in entries:
        await pool.execute(SQL["note_identities"], [digest], erased_at)


async def come_back(pool: asyncpg.Pool, secret: bytes, erased: Mapping[bytes, datetime]) -> list[IdentityKey]:
    """Identities in the index that were erased: a restored backup has brought them back. Somebody who
    began anew since is not meant."""
    place: tuple[int, str, str] = (-1, "", "")
    found: list[IdentityKey] = []
    while rows := await pool.fetch(SQL["identities_from"], *place, _PAGE):
        for _, namespace, value, profile_id in rows:
            erased_at = erased.get(hash_of(secret, (namespace, value)))
            if erased_at is not None and not await _began_after(pool, profile_id, erased_at):
                found.append((namespace, value))
        place = (rows[-1][0], rows[-1][1], rows[-1][2])
    return found


async def _began_after(pool: asyncpg.Pool, profile_id: str, moment: datetime) -> bool:
    document = await pool.fetchval(SQL["document"], profile_id)
    return document is not None and decode_profile(document).created_at > moment
