"""Accounts: the businesses that people act for. A person may be a member of several, and is a private
person as well; which of it an event is, its context says.

An event that carries `context.groupId` is of that account, where the person is a member. One without is
of the account of the last `group` call of the same client (an app or site by its anonymous id, a device,
or the business's own servers), until another group call or `Logged Out` there. A client that has ever
named accounts with its events says so itself: what it sends without is private. `Event.group_id` of an
observed event is the account that it turned out to be of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from engine.domain.people.events import Event, Kind, Sender
from engine.domain.people.profiles import DEVICE_NAMESPACE, Client, IdentityKey, Profile, Seat, Trait

MOST_ACCOUNTS = 100
"""Of one person."""
MOST_CLIENTS = 20
MOST_SEAT_TRAITS = 50
MOST_VALUE_BYTES = 1024
LONGEST_ID = 512
STATED = "groupId"
"""Where in its context an event names its account."""
_encode = msgspec.msgpack.Encoder().encode
_GROUP = Kind.GROUP


def concerned(profile: Profile, event: Event) -> bool:
    """Whether `placed` has anything to look at."""
    if profile.clients or event.group_id is not None:
        return True
    return STATED in event.context or event.kind is _GROUP


def placed(profile: Profile, event: Event) -> tuple[Profile, Event, tuple[str, ...]]:
    """The person as a member of what the event says, the event with the account that it is of, and notes
    on what was left out."""
    if event.sender is Sender.ENGINE:  # names its account itself, where it has one
        if event.kind is Kind.GROUP and event.group_id in profile.accounts:
            profile = _corrected(profile, event.group_id, event)
        return profile, _of(event, event.group_id if event.group_id in profile.accounts else None), ()
    client, at = client_of(event), event.known_at
    known = profile.clients.get(client)
    if event.kind is Kind.GROUP:
        if event.group_id is None:
            return profile, event, ()
        if event.group_id not in profile.accounts and len(profile.accounts) >= MOST_ACCOUNTS:
            return profile, _of(event, None), ("too many accounts: not joined",)
        profile = msgspec.structs.replace(
            profile,
            accounts={
                **profile.accounts,
                event.group_id: _joined(profile.accounts.get(event.group_id), event),
            },
        )
        if event.sender is Sender.IMPORT:  # a file is no client: each of its rows says so itself
            return profile, event, ()
        if known is None or at >= known.at:
            names = known.names if known is not None else False
            profile = _with_client(profile, client, Client(event.group_id, at, names))
        return profile, event, ()
    stated = account_in(event.context)
    if event.sender is Sender.IMPORT:
        return profile, _of(event, stated if stated in profile.accounts else None), ()
    if stated is not None:
        if known is None or not known.names:
            acts_for = known.account if known is not None else None
            profile = _with_client(profile, client, Client(acts_for, known.at if known else at, True))
        return profile, _of(event, stated if stated in profile.accounts else None), ()
    if known is None:
        return profile, _of(event, None), ()
    if event.name == "Logged Out" and at >= known.at:
        return _with_client(profile, client, Client(None, at, known.names)), _of(event, None), ()
    account = None if known.names or known.account not in profile.accounts else known.account
    return profile, _of(event, account), ()


def _corrected(profile: Profile, account: str, event: Event) -> Profile:
    """The person as an operator says that they are in an account: `left`, or with other traits as a
    member."""
    at, seats = event.known_at, dict(profile.accounts)
    if not event.properties.get("left"):
        seat = seats[account]
        said = _small(event.properties.get("member", {}))
        seats[account] = msgspec.structs.replace(seat, traits=newest(seat.traits, said, at, MOST_SEAT_TRAITS))
        return msgspec.structs.replace(profile, accounts=seats)
    del seats[account]
    clients = {
        name: Client(None, at, client.names) if client.account == account else client
        for name, client in profile.clients.items()
    }
    return msgspec.structs.replace(profile, accounts=seats, clients=clients)


def _of(event: Event, account: str | None) -> Event:
    return event if event.group_id == account else msgspec.structs.replace(event, group_id=account)


def client_of(event: Event) -> str:
    """What sent an event: an app or site by its anonymous id, else a device, else a server."""
    if event.anonymous_id is not None:
        return f"a:{event.anonymous_id}"
    return f"d:{event.device.id}" if event.device is not None else ""


def account_in(context: Mapping[str, Any]) -> str | None:
    """The account that an event's context names; null, "" and what is no id name none."""
    value = context.get(STATED)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return value if isinstance(value, str) and 0 < len(value) <= LONGEST_ID else None


def may_concern(profile: Profile | None, event: Event) -> set[str]:
    """Every account that the event can turn out to be of."""
    found = {client.account for client in profile.clients.values()} if profile is not None else set()
    found |= {event.group_id, account_in(event.context)}
    return {account for account in found if account is not None}


def _joined(seat: Seat | None, event: Event) -> Seat:
    """The membership after a group call: `traits.role` and what stands in `traits.member`."""
    own = event.properties.get("member")
    said = dict(own) if isinstance(own, Mapping) else {}
    if "role" in event.properties:
        said["role"] = event.properties["role"]
    at = event.known_at
    if seat is None:
        seat = Seat(at, event.message_id)
    elif (at, event.message_id) < (seat.since, seat.message_id):
        seat = msgspec.structs.replace(seat, since=at, message_id=event.message_id)
    if not said:
        return seat
    return msgspec.structs.replace(seat, traits=newest(seat.traits, _small(said), at, MOST_SEAT_TRAITS))


def group_traits(event: Event) -> dict[str, Any]:
    """Of a group call's traits the account's own."""
    return {name: value for name, value in event.properties.items() if name not in ("role", "member")}


def _small(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if len(_encode(value)) <= MOST_VALUE_BYTES}


def newest(known: Mapping[str, Trait], said: Mapping[str, Any], at: datetime, most: int) -> dict[str, Trait]:
    """The traits with what was said at a time: the newest word on each stands, whatever came first."""
    changed = dict(known)
    for name, value in said.items():
        trait, before = Trait(value, at), changed.get(name)
        if before is None and len(changed) >= most:
            continue
        changed[name] = trait if before is None else _newer(before, trait)
    return changed


def _newer(one: Trait, other: Trait) -> Trait:
    return max(one, other, key=lambda trait: (trait.at, _encode(trait.value)))


def _with_client(profile: Profile, name: str, client: Client) -> Profile:
    clients = {**profile.clients, name: client}
    while len(clients) > MOST_CLIENTS:
        del clients[min(clients, key=lambda known: (clients[known].at, known))]
    return msgspec.structs.replace(profile, clients=clients)


def without_clients(profile: Profile, keys: Iterable[IdentityKey]) -> Profile:
    """The person without the clients that are somebody else's now."""
    gone = {f"{'d' if namespace == DEVICE_NAMESPACE else 'a'}:{value}" for namespace, value in keys}
    kept = {name: client for name, client in profile.clients.items() if name not in gone}
    return profile if len(kept) == len(profile.clients) else msgspec.structs.replace(profile, clients=kept)


def united_accounts(one: Mapping[str, Seat], other: Mapping[str, Seat]) -> dict[str, Seat]:
    """The memberships of two profiles that turned out to be one person."""
    together = dict(other)
    for account, seat in one.items():
        known = together.get(account)
        if known is None:
            together[account] = seat
            continue
        since, message_id = min((seat.since, seat.message_id), (known.since, known.message_id))
        traits = dict(known.traits)
        for name, trait in seat.traits.items():
            traits[name] = _newer(traits[name], trait) if name in traits else trait
        together[account] = Seat(since, message_id, traits)
    return together


def united_clients(one: Mapping[str, Client], other: Mapping[str, Client]) -> dict[str, Client]:
    """The newest word of each client stands; that it names accounts is never forgotten."""
    together = dict(other)
    for name, client in one.items():
        known = together.get(name, client)
        newer = max(client, known, key=lambda c: (c.at, c.account or ""))
        together[name] = msgspec.structs.replace(newer, names=client.names or known.names)
    kept = sorted(together, key=lambda name: (together[name].at, name))[-MOST_CLIENTS:]
    return {name: together[name] for name in kept}


def member_view(seat: Seat | None) -> dict[str, Any]:
    """`member.*` of expressions and messages."""
    if seat is None:
        return {}
    return {"since": seat.since, **{name: trait.value for name, trait in seat.traits.items()}}
