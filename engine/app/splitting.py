"""Two people who were taken for one become two again: a merge taken back by an operator.

Each goes on from their document as it was before the merge; what was told since is folded in anew, into
the one whose identities it names. They stay apart: an identity that both use moves to who used it last.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from engine.adapters.postgres import rights as stored
from engine.adapters.postgres.graph import SQL
from engine.adapters.postgres.notices import CHANNEL
from engine.app.jobs import REVERSIBLE
from engine.domain import decide
from engine.domain.offers.rules import RuleSet
from engine.domain.people import audiences, identity
from engine.domain.people.events import Event
from engine.domain.people.profiles import (
    DEVICE_NAMESPACE,
    Contact,
    Ended,
    Identity,
    IdentityKey,
    Profile,
    decode_profile,
    encode_profile,
    identity_bucket,
    members_of,
)
from engine.domain.people.timers import timer

_event = msgspec.json.Decoder(Event).decode


class NotSplit(Exception):
    """Why the merge cannot be taken back."""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """The two profiles, and how many of the events since the merge each got."""

    survivor: str
    split: str
    events: int
    given: int


class _Side(msgspec.Struct):
    """One of the two while what was told since is folded in. `numbers` are the events', by their
    number in the common log."""

    profile: Profile
    keys: set[IdentityKey]
    numbers: dict[int, int] = msgspec.field(default_factory=dict)


async def split(pool: asyncpg.Pool, key: IdentityKey, rules: RuleSet, now: datetime) -> Split:
    """Takes back the merge that brought `key` to the person who has it.

    Raises:
        NotSplit: there is no such merge, or it cannot be taken back.
    """
    async with pool.acquire() as connection, connection.transaction():
        person = await stored.person_of(connection, key)
        if person is None:
            raise NotSplit("nobody by that identity")
        survivor, *others = person.profiles
        ended = next((o for o in others if _brought(o, key)), None)
        if ended is None or ended.ended is None:
            raise NotSplit("that identity did not come by a merge that can be taken back")
        record = ended.ended
        _check(record, survivor, others, now)
        return await _split(connection, survivor, ended.id, ended.version, record, rules, now)


def _brought(other: Profile, key: IdentityKey) -> bool:
    return bool(other.ended and other.ended.itself and decode_profile(other.ended.itself).lists(key))


def _check(record: Ended, survivor: Profile, others: list[Profile], now: datetime) -> None:
    if now - record.at > REVERSIBLE:
        raise NotSplit(f"the merge is older than {REVERSIBLE.days} days")
    if record.into != survivor.id:
        raise NotSplit("the profile that it came to has become one with another since: split that first")
    if survivor.absorbed:
        raise NotSplit("its rows are being brought over: try again in a moment")
    if any(o.ended and o.ended.into == survivor.id and o.ended.offset > record.offset for o in others):
        raise NotSplit("another profile has become one with it since: split that first")


async def _split(
    connection: asyncpg.Connection,
    survivor: Profile,
    ended_id: str,
    ended_version: int,
    record: Ended,
    rules: RuleSet,
    now: datetime,
) -> Split:
    was, came = decode_profile(record.survivor), decode_profile(record.itself)
    stays = _Side(was, set(was.keys))
    goes = _Side(came, set(came.keys))
    first, last = record.offset, record.offset + came.seq
    for row in await connection.fetch(SQL["later"], survivor.id, last):
        event = _event(row["body"])
        side = goes if _is_of(event, goes, stays, rules) else stays
        _fold(side, event, row["seq"], _moment(row["facts"], event), rules, goes.keys | stays.keys)
    contacts = await _contacts(connection, survivor, stays, goes, last)
    numbers = {old: new for new, old in enumerate(goes.numbers, came.seq + 1)}

    for name in ("return_outbox", "return_events", "return_decisions"):
        await connection.execute(SQL[name], survivor.id, ended_id, first, last)
    await connection.execute(SQL["forget_seen"], survivor.id, first, last)
    for old, new in numbers.items():
        await connection.execute(SQL["return_outbox"], survivor.id, ended_id, old - 1, old)
        for table in ("events", "decisions"):
            await connection.execute(
                f"UPDATE {table} SET bucket = bucket_of($2), profile_id = $2, seq = $4 "
                "WHERE bucket = bucket_of($1) AND profile_id = $1 AND seq = $3",
                *(survivor.id, ended_id, old, new),
            )
        await connection.execute(SQL["give_seen"], survivor.id, ended_id, old, new)
    for name in ("copy_timers", "return_timers"):
        await connection.execute(SQL[name], survivor.id, ended_id)

    standing = msgspec.structs.replace(
        stays.profile,
        version=survivor.version,
        seq=survivor.seq,
        contacts=contacts[0],
        absorbed=(),  # what was on its way then has come since
        apart=(*survivor.apart, ended_id),
    )
    separate = msgspec.structs.replace(
        goes.profile,
        version=ended_version,
        seq=came.seq + len(numbers),
        contacts=contacts[1],
        absorbed=(),
        apart=(*came.apart, survivor.id),
    )
    for profile in (standing, separate):
        profile = await _among(connection, profile, now)
        await connection.execute(SQL["write"], profile.id, encode_profile(profile))
        for key in profile.keys:
            await connection.execute(SQL["point"], identity_bucket(key), *key, profile.id)
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, stored.FORGET + profile.id)
    await connection.execute(SQL["unmerge"], ended_id)
    return Split(
        survivor=survivor.id, split=ended_id, events=len(stays.numbers) + len(numbers), given=len(numbers)
    )


async def _among(connection: asyncpg.Connection, profile: Profile, now: datetime) -> Profile:
    """The profile, with the index of audiences as its document says, and to be looked at again at once."""
    seats = {members_of(account): seat.since for account, seat in profile.accounts.items()}
    since = {**profile.audiences.since, **seats}
    await connection.execute(SQL["leave_audiences"], profile.id)
    await connection.execute(SQL["enter_audiences"], profile.id, list(since), list(since.values()))
    if not profile.audiences.stamp:
        return profile
    look = timer(audiences.TIMER, now, audiences.TIMER, {}, paced=True)
    event = msgspec.json.encode(look.event).decode()
    await connection.execute(SQL["set_timer"], profile.id, look.id, look.due_at, look.paced, event)
    checked = msgspec.structs.replace(profile.audiences, due=now, armed=now)
    return msgspec.structs.replace(profile, audiences=checked)


def _is_of(event: Event, goes: _Side, stays: _Side, rules: RuleSet) -> bool:
    """Whether an event names the one who goes, and not the one who stays."""
    keys = set(identity.keys_of(event, rules.workspace.namespaces))
    if not keys & (goes.keys | stays.keys) and event.device is not None:
        keys.add((DEVICE_NAMESPACE, event.device.id))
    return bool(keys & goes.keys) and not keys & stays.keys


def _fold(
    side: _Side, event: Event, seq: int, now: datetime, rules: RuleSet, taken: set[IdentityKey]
) -> None:
    """The event into one document, with the identities that it linked first; `taken` are those that
    either has."""
    linked = [k for k in identity.keys_of(event, rules.workspace.namespaces) if k not in taken]
    names = tuple(Identity(k[0], k[1], event.known_at, event.message_id) for k in linked)
    side.keys.update(linked)
    if event.device is not None:
        device = (DEVICE_NAMESPACE, event.device.id)
        if device in taken and device not in side.keys:
            event = msgspec.structs.replace(event, device=None)
        side.keys.add(device)
    profile = msgspec.structs.replace(side.profile, identities=(*side.profile.identities, *names))
    side.profile = decide.observe(rules, profile, event, now).profile
    side.numbers[seq] = seq


def _moment(facts: str, event: Event) -> datetime:
    """When the event was decided."""
    found: Mapping[str, Any] = msgspec.json.decode(facts)
    try:
        return msgspec.convert(found.get("now"), datetime)
    except msgspec.ValidationError:
        return event.received_at


async def _contacts(
    connection: asyncpg.Connection, survivor: Profile, stays: _Side, goes: _Side, last: int
) -> tuple[tuple[Contact, ...], tuple[Contact, ...]]:
    """The offers made to each: those from before, and those since by whose event they followed."""
    rows = await connection.fetch(SQL["decided"], survivor.id, last)
    theirs = {str(row["id"]) for row in rows if row["seq"] in goes.numbers}
    before = {c.decision for c in goes.profile.contacts}
    mine: list[Contact] = []
    given: list[Contact] = []
    for contact in survivor.contacts:
        (given if contact.decision in theirs or contact.decision in before else mine).append(contact)
    return tuple(mine), tuple(given)
