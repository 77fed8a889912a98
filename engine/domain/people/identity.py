"""Who an event is about: from the ids that it carries to one profile, by deterministic links.

`plan` says what one event does to the identity graph; `apply` does it to the documents. Both are
pure: the index is asked beforehand, and its answers are only hints, because a profile's document
says itself which identities it has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from engine.domain.offers.rules import Namespace
from engine.domain.people.accounts import without_clients
from engine.domain.people.events import Event, Kind
from engine.domain.people.profiles import (
    DEVICE_NAMESPACE,
    Address,
    Identity,
    IdentityKey,
    Profile,
)

QUARANTINE = 1000
"""More identities than one person can have: kept, but linked no further and offered nothing."""
MAX_VALUE_LENGTH = 512
_MAP = "identityMap"
_KEPT_MAP = f"xdm.{_MAP}"
"""Where all the names are kept that came as XDM, to tell them again: in the context, or as traits."""
EARLIER_OWNERS = 8
"""How many of an identity's former profiles are asked whether they know a message already."""


class Plan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What an event does to the graph.

    `owner` is the profile that the event belongs to, None for a new one made by `keys[0]`; `merges` are
    those that become one with it. `used` are known to one of them already; `links` are added; `moves`
    are taken from the profile named beside; `retired` are dropped. `foreign_device`: the event's device
    has been another person's since, so that what it says of the device is not this one's.
    """

    keys: tuple[IdentityKey, ...]
    owner: str | None
    merges: tuple[str, ...] = ()
    used: tuple[IdentityKey, ...] = ()
    links: tuple[IdentityKey, ...] = ()
    moves: tuple[tuple[IdentityKey, str], ...] = ()
    retired: tuple[IdentityKey, ...] = ()
    foreign_device: bool = False
    notes: tuple[str, ...] = ()
    is_known: bool = False
    """The owner has all that the event names, as with nearly every event: the graph stays as it is."""

    @property
    def touches_others(self) -> bool:
        """Whether a second profile's document changes too."""
        return bool(self.moves or self.merges)

    def __repr__(self) -> str:
        return f"Plan(owner={self.owner}, {len(self.links)} links, {len(self.moves)} moves)"


def keys_of(event: Event, namespaces: Sequence[Namespace]) -> tuple[IdentityKey, ...]:
    """The identities that an event carries, strongest first; an alias's previous id is not one."""
    keys: list[IdentityKey] = []
    traits = event.traits
    for namespace in namespaces:
        if namespace.in_traits and not traits:
            continue
        name = namespace.name
        value: Any = None
        if name == "user_id":
            value = event.user_id
        elif name == "anonymous_id":
            value = event.anonymous_id
        for path in namespace.sources:
            if value is None or value == "":
                value = _at(event, path, name)
        if value is None:
            continue
        if type(value) is not str:
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            # JavaScript has one kind of number.
            value = str(int(value) if isinstance(value, float) and value.is_integer() else value)
        if namespace.normal is not None:
            value = namespace.normal(value)
        if value and len(value) <= MAX_VALUE_LENGTH:
            keys.append((name, value))
    return _with_named(keys, event, namespaces) if event.identities else tuple(keys)


def _listed(entries: list[Any], namespace: str) -> Any:
    """The id of a namespace in a list of `{type, id}`, as RudderStack's `context.externalId` is one."""
    for entry in entries:
        if isinstance(entry, Mapping) and entry.get("type") == namespace:
            return entry.get("id")
    return None


def _with_named(
    keys: list[IdentityKey], event: Event, namespaces: Sequence[Namespace]
) -> tuple[IdentityKey, ...]:
    """`keys` with what the event names beside them, each once; of a namespace of which a person has one
    only, the one that is there already."""
    found = dict.fromkeys(keys)
    for namespace in namespaces:
        for name, value in event.identities:
            if name != namespace.name or (namespace.one and any(key[0] == name for key in found)):
                continue
            spelt = namespace.normal(value) if namespace.normal is not None else value
            if spelt and len(spelt) <= MAX_VALUE_LENGTH:
                found[name, spelt] = None
    order = [namespace.name for namespace in namespaces]
    return tuple(sorted(found, key=lambda key: order.index(key[0])))


def normal(key: IdentityKey, namespaces: Sequence[Namespace]) -> IdentityKey:
    """The key in the spelling that profiles have it in."""
    for namespace in namespaces:
        if namespace.name == key[0] and namespace.normal is not None:
            return (key[0], namespace.normal(key[1]) or key[1])
    return key


def without(event: Event, gone: Collection[IdentityKey], namespaces: Sequence[Namespace]) -> Event:
    """The event with some identities taken out of every place that they are read from."""
    changes: dict[str, Any] = {}
    for name, value in (("user_id", event.user_id), ("anonymous_id", event.anonymous_id)):
        if value is not None and normal((name, value), namespaces) in gone:
            changes[name] = None
    previous = event.previous_id
    if previous is not None and not {("user_id", previous), ("anonymous_id", previous)}.isdisjoint(gone):
        changes["previous_id"] = None
    unnamed = msgspec.structs.replace(event, user_id=None, anonymous_id=None, identities=())
    for namespace in namespaces:
        for path in namespace.sources:
            alone = msgspec.structs.replace(namespace, sources=(path,))
            if any(key in gone for key in keys_of(unnamed, (alone,))):
                root = changes.get(path[0], getattr(event, path[0]))
                changes[path[0]] = _taken_out(root, path[1:])
    if event.identities:
        left = [key for key in event.identities if normal(key, namespaces) not in gone]
        changes["identities"] = tuple(left)
    context, traits = changes.get("context", event.context), changes.get("traits", event.traits)
    if isinstance(context.get("xdm"), Mapping):
        changes["context"] = _taken_out(context, ("xdm", _MAP))
    if any(name.startswith(_KEPT_MAP) for name in traits):
        changes["traits"] = {name: traits[name] for name in traits if not name.startswith(_KEPT_MAP)}
    return msgspec.structs.replace(event, **changes)


def _taken_out(node: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """The object without what stands at `path` in it."""
    left = dict(node)
    if len(path) == 1:
        left.pop(path[0], None)
    else:
        left[path[0]] = _taken_out(left[path[0]], path[1:])
    return left


def lookups(event: Event, keys: tuple[IdentityKey, ...]) -> tuple[IdentityKey, ...]:
    """Everything that the index must be asked about before `plan`."""
    asked = keys
    if event.previous_id is not None and event.kind in (Kind.ALIAS, Kind.MERGE):
        asked += (("user_id", event.previous_id), ("anonymous_id", event.previous_id))
    if event.device is not None:
        asked += ((DEVICE_NAMESPACE, event.device.id),)
    return asked


def _at(event: Event, path: tuple[str, ...], namespace: str) -> Any:
    node: Any = event.traits if path[0] == "traits" else getattr(event, path[0], None)
    if not node:
        return None
    for step in path[1:]:
        node = node.get(step) if isinstance(node, Mapping) else None
    return _listed(node, namespace) if type(node) is list else node


def plan(
    event: Event,
    keys: tuple[IdentityKey, ...],
    namespaces: Sequence[Namespace],
    owner_of: Callable[[IdentityKey], Profile | None],
) -> Plan:
    """What `event` does to the graph.

    `owner_of` gives the profile whose document lists a key. The strongest key with an owner decides,
    unless that profile is somebody else: has another value of a namespace of which a person has at most
    one, stronger than the key. The owners of the other keys become one with it, unless one of them is
    somebody else: then the weaker identity moves to this person, if they used it last.
    """
    if event.previous_id is None:
        owner = owner_of(keys[0])
        if owner is not None and _knows(owner, keys[1:], event):
            return Plan(keys=keys, owner=owner.id, used=keys, is_known=True)
    notes: list[str] = []
    previous = _previous_key(event, owner_of, notes)
    if previous is not None and previous not in keys:
        keys = (previous, *keys) if previous[0] == "user_id" else (*keys, previous)
    ones = {n.name: n for n in namespaces if n.one}

    first: Profile | None = None
    for position, key in enumerate(keys):
        candidate = owner_of(key)
        if candidate is not None and not _is_somebody_else(candidate, keys[:position], ones):
            first = candidate
            break
    people = _joined(first, keys, ones, owner_of) if first is not None else []
    full = len(people) == 1 and is_full(people[0])

    used: list[IdentityKey] = []
    links: list[IdentityKey] = []
    moves: list[tuple[IdentityKey, str]] = []
    retired: list[IdentityKey] = []
    for key in keys:
        if any(person.lists(key) for person in people):
            used.append(key)
            continue
        if full:
            notes.append("quarantined: not linked")
            continue
        if people and key[0] in ones:
            held = [i for person in people for i in person.identities if i.namespace == key[0]]
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
            continue
        if event.kind in (Kind.ALIAS, Kind.MERGE):
            notes.append(f"merge_refused: {key[0]}: two people")
        if _newest_use(other, key) > event.known_at:
            notes.append(f"{key[0]}: another profile has used it since, not moved")
        else:
            moves.append((key, other.id))
    foreign_device = False
    device_key = (DEVICE_NAMESPACE, event.device.id) if event.device is not None else None
    if device_key is not None and not any(person.lists(device_key) for person in people):
        other = owner_of(device_key)
        if other is None:
            links.append(device_key)
        elif _newest_use(other, device_key) > event.known_at:
            foreign_device = True
        else:
            moves.append((device_key, other.id))
    return Plan(
        keys=keys,
        owner=people[0].id if people else None,
        merges=tuple([person.id for person in people[1:]]),
        used=tuple(used),
        links=tuple(links),
        moves=tuple(moves),
        retired=tuple(retired),
        foreign_device=foreign_device,
        notes=tuple(notes),
    )


def _knows(profile: Profile, others: tuple[IdentityKey, ...], event: Event) -> bool:
    """Whether the profile has all that the event names beside its strongest key."""
    if event.device is not None and event.device.id not in profile.devices:
        return False
    return not [key for key in others if not profile.lists(key)] if others else True


def is_full(profile: Profile) -> bool:
    """Whether it has more identities than one person can have."""
    return len(profile.identities) > QUARANTINE


def _joined(
    first: Profile,
    keys: Sequence[IdentityKey],
    ones: Mapping[str, Namespace],
    owner_of: Callable[[IdentityKey], Profile | None],
) -> list[Profile]:
    """The profiles that `keys` show to be one person with `first`, the one that stays in front."""
    if is_full(first):
        return [first]
    people = [first]
    held: dict[str, str] = {}
    for namespace, value in (*keys, *(i.key for i in first.identities)):
        if namespace in ones and ones[namespace].on_change == "move":
            held[namespace] = value
    for key in keys:
        other = owner_of(key)
        if other is None or other.id in [person.id for person in people] or is_full(other):
            continue
        if any(other.id in person.apart or person.id in other.apart for person in people):
            continue
        own = {i.namespace: i.value for i in other.identities if i.namespace in ones}
        own = {name: value for name, value in own.items() if ones[name].on_change == "move"}
        if all(held.get(name, value) == value for name, value in own.items()):
            held.update(own)
            people.append(other)
    return sorted(people, key=lambda person: _seniority(person, ones)) if len(people) > 1 else people


def _seniority(profile: Profile, ones: Mapping[str, Namespace]) -> tuple[tuple[bool, ...], datetime, str]:
    """Which of several profiles stays when they become one: the one with the strongest of the
    identities of which there is one, then the oldest. So a known person keeps their profile's id."""
    has = {i.namespace for i in profile.identities}
    return tuple([name not in has for name in ones]), profile.created_at, profile.id


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
    identities = []
    for i in profile.identities:
        if (i.namespace, i.value) in used and at > (i.used_at or i.linked_at):
            i = msgspec.structs.replace(i, used_at=at)
        identities.append(i)
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
    now = (*(absorbed.id for absorbed in loser.absorbed), loser.id)
    return {
        key: (*(owner for owner in before.get(key, ()) if owner not in now), *now)[-EARLIER_OWNERS:]
        for key in keys
    }


def loses(profile: Profile, keys: Sequence[IdentityKey]) -> Profile:
    """The document of a profile from which `keys` moved to another."""
    gone = set(keys)
    identities = tuple(i for i in profile.identities if i.key not in gone)
    devices = {d: a for d, a in profile.devices.items() if (DEVICE_NAMESPACE, d) not in gone}
    left = msgspec.structs.replace(profile, identities=identities, devices=devices)
    return without_clients(left, keys) if profile.clients else left
