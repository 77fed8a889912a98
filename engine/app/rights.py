"""What a person may ask for: to see everything, to be erased, left alone, or put right."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec

from engine.adapters.postgres import rights as stored
from engine.adapters.postgres.rights import Receipt
from engine.app import import_files
from engine.app.lane import Lane
from engine.app.replies import Pending, Reply
from engine.domain.offers.rules import Namespace
from engine.domain.people.events import Event, Kind, Sender
from engine.domain.people.fold import RESTRICTED
from engine.domain.people.person import Person
from engine.domain.people.profiles import (
    DEVICE_NAMESPACE,
    PROFILE_NAMESPACE,
    IdentityKey,
    Profile,
    decode_profile,
)
from engine.domain.people.sources import Provenance, provenance


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one person: the profile as it stands, those that became one with it as they
    were, and every row of every table."""

    exported_at: datetime = msgspec.field(name="exportedAt")
    profile: Profile
    earlier: Sequence[Profile]
    sources: Mapping[str, Provenance]
    """Who stated each trait."""
    rows: Mapping[str, Sequence[Any]]

    def __repr__(self) -> str:
        return "Exported(…)"


async def export(
    pool: asyncpg.Pool, key: IdentityKey, now: datetime, namespaces: Sequence[Namespace] = ()
) -> Exported | None:
    """Everything about the person behind an identity; None where there is nobody."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
        person = await stored.person_of(connection, key, namespaces)
        if person is None:
            return None
        rows = await stored.rows_of(connection, person)
    standing, *ended = person.profiles
    earlier = [decode_profile(p.ended.itself) for p in ended if p.ended and p.ended.itself]
    sources = {name: provenance(trait.source, trait.at) for name, trait in standing.traits.items()}
    return Exported(exported_at=now, profile=standing, earlier=earlier, sources=sources, rows=rows)


async def erase(
    pool: asyncpg.Pool,
    key: IdentityKey,
    secret: bytes,
    now: datetime,
    namespaces: Sequence[Namespace] = (),
    files: Path | None = None,
) -> tuple[Receipt, Person] | None:
    """Erases the person behind an identity, also in import files that are kept below `files`, and asks
    PostgreSQL to let go of the dead rows."""
    erased = await stored.erase(pool, key, secret, now, namespaces)
    if erased is None:
        return None
    receipt, person = erased
    await stored.vacuum(pool, receipt.deleted)
    return await without_files(pool, receipt, person, secret, files), person


async def without_files(
    pool: asyncpg.Pool, receipt: Receipt, person: Person, secret: bytes, files: Path | None
) -> Receipt:
    """The receipt of an erasure, once the person is gone from kept import files, too."""
    if files is None or not any(import_files.kept(files)):
        return receipt
    now = datetime.now(UTC)
    erased = {stored.hash_of(secret, key): now for key in person.keys if key[0] != DEVICE_NAMESPACE}
    lines = await asyncio.to_thread(import_files.scrub, files, erased, secret, person.namespaces)
    return await stored.note_files(pool, receipt.id, lines) if lines else receipt


async def restrict(lane: Lane, profile: Profile, restricted: bool, now: datetime) -> None:
    """From now on what is known of the person is stored and not used; or is used again."""
    await _tell(lane, profile, _own(RESTRICTED, now, properties={"restricted": restricted}))


async def correct(
    lane: Lane,
    profile: Profile,
    traits: Mapping[str, Any],
    now: datetime,
    accounts: Mapping[str, Mapping[str, Any] | None] | None = None,
) -> None:
    """Sets traits right, whatever was said before; a null takes one away. `accounts` are what the person
    is in each, None for no member of it any more."""
    if traits or not accounts:
        await _tell(lane, profile, _own("", now, kind=Kind.IDENTIFY, traits=traits))
    for account, member in (accounts or {}).items():
        said = {"left": True} if member is None else {"member": member}
        await _tell(lane, profile, _own("", now, kind=Kind.GROUP, group_id=account, properties=said))


def _own(name: str, now: datetime, *, kind: Kind = Kind.TRACK, **fields: Any) -> Event:
    return Event(
        kind=kind,
        name=name,
        message_id=str(uuid4()),
        sender=Sender.ENGINE,
        timestamp=now,
        received_at=now,
        trusted=True,
        **fields,
    )


async def _tell(lane: Lane, profile: Profile, event: Event) -> None:
    reply = Reply(1)
    lane.submit([Pending(event=event, reply=reply, keys=((PROFILE_NAMESPACE, profile.id),))])
    async with asyncio.timeout(30):
        await reply.done
