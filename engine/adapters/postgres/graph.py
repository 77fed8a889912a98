"""Who is who, and why: the identities of a person with the events that linked them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib import resources

import asyncpg
import msgspec

from engine.adapters.postgres import rights
from engine.adapters.postgres.store import named_queries
from engine.domain.people.person import Person
from engine.domain.people.profiles import IdentityKey, decode_profile, encode_profile

SQL = named_queries(resources.files(__package__).joinpath("graph.sql").read_text("utf-8"))


class Why(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The event that linked an identity, or made two profiles one. `source` is where it came from."""

    message_id: str
    type: str
    name: str
    timestamp: datetime
    received_at: datetime
    source: str


class Link(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One identity. `profile` is the one that it came with. `why` is None where the log has it no more."""

    namespace: str
    value: str
    profile: str
    linked_at: datetime
    used_at: datetime
    why: Why | None

    def __repr__(self) -> str:
        return f"Link({self.namespace!r}, …)"


class Merged(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A profile that became one with another. `reversible`: for as long as what was before is kept."""

    profile: str
    into: str
    at: datetime
    why: Why | None
    reversible: bool


class Addressed(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A device: an address, which joins nobody."""

    id: str
    type: str | None
    seen_at: datetime


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """One person's identity graph."""

    profile: str
    identities: list[Link]
    merges: list[Merged]
    devices: list[Addressed]


async def graph(pool: asyncpg.Pool, key: IdentityKey) -> Graph | None:
    """The graph of the person behind an identity; None where there is nobody."""
    async with pool.acquire() as connection, connection.transaction():
        person = await rights.person_of(connection, key)
        if person is None:
            return None
        return await _graph(connection, person)


async def forget_snapshots(pool: asyncpg.Pool, before: datetime) -> int:
    """Lets go of what was before merges that cannot be taken back any more. Answers how many."""
    forgotten = 0
    while True:
        async with pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(SQL["forget_snapshots"], before)
            for profile_id in sorted(str(row[0]) for row in rows):
                row = await connection.fetchrow(rights.SQL["lock"], profile_id)
                profile = decode_profile(row[2]) if row is not None else None
                if profile is not None and profile.ended is not None:
                    ended = msgspec.structs.replace(profile.ended, itself=b"", survivor=b"")
                    shorter = encode_profile(msgspec.structs.replace(profile, ended=ended))
                    await connection.execute(SQL["shorten"], profile_id, shorter)
        if not rows:
            return forgotten
        forgotten += len(rows)


async def _graph(connection: asyncpg.Connection, person: Person) -> Graph:
    standing, *others = person.profiles
    came_with: dict[IdentityKey, str] = {}
    for other in others:
        if other.ended is not None and other.ended.itself:
            for key in decode_profile(other.ended.itself).keys:
                came_with.setdefault(key, other.id)
    messages = [i.message_id for i in standing.identities]
    messages += [other.ended.message_id for other in others if other.ended is not None]
    whys = await _whys(connection, person.ids, messages)
    return Graph(
        profile=standing.id,
        identities=[
            Link(
                namespace=i.namespace,
                value=i.value,
                profile=came_with.get(i.key, standing.id),
                linked_at=i.linked_at,
                used_at=i.newest,
                why=whys.get(i.message_id),
            )
            for i in standing.identities
        ],
        merges=[
            Merged(
                profile=other.id,
                into=other.ended.into,
                at=other.ended.at,
                why=whys.get(other.ended.message_id),
                reversible=bool(other.ended.itself),
            )
            for other in sorted(others, key=lambda o: (o.ended.at if o.ended else o.created_at, o.id))
            if other.ended is not None
        ],
        devices=[
            Addressed(id=name, type=address.type, seen_at=address.seen_at)
            for name, address in standing.devices.items()
        ],
    )


async def _whys(
    connection: asyncpg.Connection, ids: Sequence[str], messages: Sequence[str]
) -> dict[str, Why]:
    rows = await connection.fetch(SQL["whys"], list(ids), sorted(set(messages)))
    return {
        row["message_id"]: Why(
            message_id=row["message_id"],
            type=row["kind"],
            name=row["name"],
            timestamp=row["occurred_at"],
            received_at=row["received_at"],
            source=_source(row),
        )
        for row in rows
    }


def _source(row: asyncpg.Record) -> str:
    """An import, the engine, or a key's kind and the library that sent it."""
    if row["sender"] in ("import", "engine"):
        return str(row["sender"])
    key = "server" if row["trusted"] else "app"
    return f"{key}, {row['library']}" if row["library"] else key
