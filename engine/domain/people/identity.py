"""Who an event is about: from the ids that it carries to one profile, by deterministic links.

`plan` says what one event does to the identity graph; `apply` does it to the documents. Both are
pure: the index is asked beforehand, and its answers are only hints, because a profile's document
says itself which identities it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from engine.domain.offers.rules import Namespace
from engine.domain.people.events import Event, Kind
from engine.domain.people.memory import united_past, united_waiting
from engine.domain.people.profiles import (
    DEVICE_NAMESPACE,
    Address,
    Identity,
    IdentityKey,
    Membership,
    Profile,
)

QUARANTINE = 1000
"""More identities than one person can have: kept, but linked no further and offered nothing."""
MAX_VALUE_LENGTH = 512
EARLIER_OWNERS = 8
"""How many of an identity's former profiles are asked whether they know a message already."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an event does to the graph.

    `owner` is the profile that the event belongs to, None for a new one made by `keys[0]`. `used` are
    known to it already; `links` are added to it; `moves` are taken from the profile named beside;
    `retired` are dropped. `foreign_device`: the event's device has been another person's since, so
    that what it says of the device is not this one's.
    """

    keys: tuple[IdentityKey, ...]
    owner: str | None
    used: tuple[IdentityKey, ...] = ()
    links: tuple[IdentityKey, ...] = ()
    moves: tuple[tuple[IdentityKey, str], ...] = ()
    retired: tuple[IdentityKey, ...] = ()
    foreign_device: bool = False
    notes: tuple[str, ...] = ()

    @property
    def touches_others(self) -> bool:
        """Whether a second profile's document changes too."""
        return bool(self.moves)

    def __repr__(self) -> str:
        return f"Plan(owner={self.owner}, {len(self.links)} links, {len(self.moves)} moves)"


def keys_of(event: Event, namespaces: Sequence[Namespace]) -> tuple[IdentityKey, ...]:
    """The identities that an event carries, strongest first; an alias's previous id is not one."""
    keys: list[IdentityKey] = []
    for namespace in namespaces:
        name = namespace.name
        value: Any = None
        if name == "user_id":
            value = event.user_id
        elif name == "anonymous_id":
            value = event.anonymous_id
        for path in namespace.sources:
            if value is None or value == "":
                value = _at(event, path)
        if value is None:
            continue
        if not isinstance(value, str):
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            # JavaScript has one kind of number.
            value = str(int(value) if isinstance(value, float) and value.is_integer() else value)
        if value and len(value) <= MAX_VALUE_LENGTH:
            keys.append((name, value))
    return tuple(keys)


def lookups(event: Event, keys: tuple[IdentityKey, ...]) -> tuple[IdentityKey, ...]:
    """Everything that the index must be asked about before `plan`."""
    asked = keys
    if event.previous_id is not None and event.kind in (Kind.ALIAS, Kind.MERGE):
        asked += (("user_id", event.previous_id), ("anonymous_id", event.previous_id))
    if event.device is not None:
        asked += ((DEVICE_NAMESPACE, event.device.id),)
    return asked


def _at(event: Event, path: tuple[str, ...]) -> Any:
    node: Any = event.traits if path[0] == "traits" else getattr(event, path[0], None)
    if not node:
        return None
    for step in path[1:]:
        node = node.get(step) if isinstance(node, Mapping) else None
    return node


def plan(
    event: Event,
    keys: tuple[IdentityKey, ...],
    namespaces: Sequence[Namespace],
    owner_of: Callable[[IdentityKey], Profile | None],
) -> Plan:
    """What `event` does to the graph.

    `owner_of` gives the profile whose document lists a key. The strongest key with an owner
    decides, unless that profile is somebody else: has another value of a namespace of which a
    person has at most one, stronger than the key. Weaker identities that belong to another profile
    move to this one.
    """
    if event.previous_id is None:
        owner = owner_of(keys[0])
        if owner is not None and _knows(owner, keys, event):
            return Plan(keys=keys, owner=owner.id, used=keys)  # nearly every event
    notes: list[str] = []
    previous = _previous_key(event, owner_of, notes)
    if previous is not None and previous not in keys:
        keys = (previous, *keys) if previous[0] == "user_id" else (*keys, previous)
    ones = {n.name: n for n in namespaces if n.one}

    owner = None
    for position, key in enumerate(keys):
        candidate = owner_of(key)
        if candidate is not None and not _is_somebody_else(candidate, keys[:position], ones):
            owner = candidate
            break

    used: list[IdentityKey] = []
    links: list[IdentityKey] = []
    moves: list[tuple[IdentityKey, str]] = []
    retired: list[IdentityKey] = []
    full = owner is not None and len(owner.identities) > QUARANTINE
    for key in keys:
        if owner is not None and owner.lists(key):
            used.append(key)
            continue
        if full:
            notes.append("quarantined: not linked")
            continue
        if owner is not None and key[0] in ones:
            held = [i for i in owner.identities if i.namespace == key[0]]
            if held and ones[key[0]].on_change != "replace":
                notes.append(f"{key[0]}: the profile has another one, not linked")
                continue
            if any(i.newest > event.known_at for i in held):
                notes.append(f"{key[0]}: the profile has a newer one, not linked")
                continue
            retired.extend(i.key for i in held)
        other = owner_of(key)
        if other is None:
            links.append(key)
        elif _newest_use(other, key) > event.known_at:
            notes.append(f"{key[0]}: another profile has used it since, not moved")
        else:
            moves.append((key, other.id))
    device_key = (DEVICE_NAMESPACE, event.device.id) if event.device is not None else None
    foreign_device = False
    if device_key is not None and (owner is None or not owner.lists(device_key)):
        other = owner_of(device_key)
        if other is None:
            links.append(device_key)
        elif _newest_use(other, device_key) > event.known_at:
            foreign_device = True
        else:
            moves.append((device_key, other.id))
    return Plan(
        keys=keys,
        owner=owner.id if owner is not None else None,
        used=tuple(used),
        links=tuple(links),
        moves=tuple(moves),
        retired=tuple(retired),
        foreign_device=foreign_device,
        notes=tuple(notes),
    )


def _knows(profile: Profile, keys: tuple[IdentityKey, ...], event: Event) -> bool:
    """Whether the profile has all that the event names."""
    if event.device is not None and event.device.id not in profile.devices:
        return False
    return all(profile.lists(key) for key in keys)


def _previous_key(
    event: Event, owner_of: Callable[[IdentityKey], Profile | None], notes: list[str]
) -> IdentityKey | None:
    """An alias's previous id: a user_id where one is known by that name, else an anonymous_id."""
    if event.previous_id in (None, event.user_id) or event.kind not in (Kind.ALIAS, Kind.MERGE):
        return None
    as_user = ("user_id", event.previous_id)
    if owner_of(as_user) is None:
        return ("anonymous_id", event.previous_id)
    if event.user_id is None:
        return as_user
    notes.append("merge_refused: two people, each with a user_id")
    return None


def _newest_use(profile: Profile, key: IdentityKey) -> datetime:
    """When the profile last was known by `key`, or its device last seen: a move goes by event time."""
    if key[0] == DEVICE_NAMESPACE:
        return profile.devices[key[1]].seen_at
    return next(i.newest for i in profile.identities if i.key == key)


def _is_somebody_else(
    profile: Profile, stronger: Sequence[IdentityKey], ones: Mapping[str, Namespace]
) -> bool:
    for namespace, value in stronger:
        if namespace in ones and ones[namespace].on_change == "move":
            for identity in profile.identities:
                if identity.namespace == namespace and identity.value != value:
                    return True
    return False


def gains(
    profile: Profile,
    change: Plan,
    event: Event,
    addresses: Mapping[str, Address],
    earlier: Mapping[IdentityKey, tuple[str, ...]],
) -> Profile:
    """The owner's document after the plan. `addresses` are the devices that move along, by id;
    `earlier` the profiles that a moving identity belonged to."""
    if not (change.used or change.links or change.moves or change.retired):
        return profile
    at, used = event.known_at, change.used
    identities = [
        msgspec.structs.replace(i, used_at=at) if (i.namespace, i.value) in used and at > i.newest else i
        for i in profile.identities
    ]
    if not (change.links or change.moves or change.retired):
        return msgspec.structs.replace(profile, identities=tuple(identities))
    if change.retired:
        identities = [i for i in identities if i.key not in change.retired]
    for key in (*change.links, *(key for key, _ in change.moves)):
        if key[0] != DEVICE_NAMESPACE:
            owners = earlier.get(key, ())
            identities.append(Identity(key[0], key[1], at, event.message_id, owners))
    devices = {**profile.devices, **addresses} if addresses else profile.devices
    return msgspec.structs.replace(profile, identities=tuple(identities), devices=devices)


def earlier_owners(loser: Profile, keys: Sequence[IdentityKey]) -> dict[IdentityKey, tuple[str, ...]]:
    """The profiles that each of `keys` belonged to, the one that loses it now as the newest."""
    before = {i.key: i.earlier for i in loser.identities}
    return {
        key: (*(owner for owner in before.get(key, ()) if owner != loser.id), loser.id)[-EARLIER_OWNERS:]
        for key in keys
    }


def inherits(profile: Profile, ended: Profile, at: datetime) -> Profile:
    """The owner's document with what must not be lost with a profile that has no identity left: the
    offers made, which caps count, the newest word on each purpose, and what rules look back at and
    wait for."""
    consent = dict(profile.consent)
    for purpose, statement in ended.consent.items():
        known = consent.get(purpose)
        if known is None or known.at < statement.at:
            consent[purpose] = statement
    contacts = {c.decision: c for c in (*ended.contacts, *profile.contacts)}
    return msgspec.structs.replace(
        profile,
        consent=consent,
        contacts=tuple(sorted(contacts.values(), key=lambda c: (c.at, c.decision))),
        audiences=profile.audiences.unchecked(at),
        created_at=min(profile.created_at, ended.created_at),
        cohort=united_cohort(profile, ended),
        past=united_past(profile.past, ended.past),
        waiting=united_waiting(profile.waiting, ended.waiting),
    )


def united_cohort(profile: Profile, ended: Profile) -> str:
    """By what holdouts and experiments know a person whose profiles became one: as the older one, so
    that most keep what they had, in whatever order several profiles come together."""
    older = min(profile, ended, key=lambda one: (one.created_at, one.cohort_key))
    return "" if older.cohort_key == profile.id else older.cohort_key


def loses(profile: Profile, keys: Sequence[IdentityKey], to: str) -> Profile:
    """The document of a profile from which `keys` moved to the profile `to`."""
    gone = set(keys)
    identities = tuple(i for i in profile.identities if i.key not in gone)
    devices = {d: a for d, a in profile.devices.items() if (DEVICE_NAMESPACE, d) not in gone}
    return msgspec.structs.replace(
        profile,
        identities=identities,
        devices=devices,
        audiences=profile.audiences if identities else Membership(),
        succeeded_by=profile.succeeded_by if identities else to,
    )
