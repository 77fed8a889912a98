"""Two profiles that turned out to be one person become one document; the other one says where to.

The result does not depend on the order in which profiles are merged: each field is united by a rule
that is symmetric, but for `seq` and the id, which are the survivor's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.domain.decide import TRIGGERS
from engine.domain.offers.rules import Computed, RuleSet, Workspace
from engine.domain.offers.scope import Scope
from engine.domain.people import computed
from engine.domain.people.accounts import united_accounts, united_clients
from engine.domain.people.consent import united_history
from engine.domain.people.counting import digests, is_whole, lacking, stamp_of
from engine.domain.people.events import Event
from engine.domain.people.fold import MAX_DEVICES
from engine.domain.people.memory import united_past, united_waiting
from engine.domain.people.profiles import (
    Absorbed,
    Address,
    Consent,
    Contact,
    Ended,
    Identity,
    Membership,
    Profile,
    Trait,
    encode_profile,
)
from engine.domain.people.sources import rank
from engine.domain.places.presence import MOST_DEVICES, Presence
from engine.domain.views import event_view

MOST_CONTACTS = 2000
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_encode = msgspec.msgpack.Encoder().encode


def merged(survivor: Profile, ended: Profile, workspace: Workspace, at: datetime) -> Profile:
    """The survivor's document with everything of the other's; which audiences they are in is looked at
    again from `at` on. Messages that both have are counted twice here: see `uncounted`."""
    changes = {name: unite(survivor, ended, workspace) for name, unite in UNITED.items()}
    audiences = _audiences(survivor, ended, workspace).unchecked(at)
    return msgspec.structs.replace(survivor, **{**changes, "audiences": audiences})


def tombstone(ended: Profile, survivor: Profile, event: Event) -> Profile:
    """What stands in the place of `ended` from now on. Both are given as they were before."""
    return Profile(
        id=ended.id,
        version=ended.version,
        created_at=ended.created_at,
        last_seen=ended.last_seen,
        ended=Ended(
            survivor.id,
            event.received_at,
            event.message_id,
            survivor.seq,
            _before(ended),
            _before(survivor),
        ),
    )


def _before(profile: Profile) -> bytes:
    """A document for when the merge is taken back: without where the person was, which may not be kept
    for so long, nor where consent ends meanwhile."""
    return encode_profile(msgspec.structs.replace(profile, presence=Presence(), trips={}))


def _identities(one: Profile, other: Profile, workspace: Workspace) -> tuple[Identity, ...]:
    """All of both; of a kind that is replaced, only the newest."""
    together = {i.key: i for i in (*other.identities, *one.identities)}
    replaced = {n.name for n in workspace.namespaces if n.one and n.on_change == "replace"}
    newest: dict[str, Identity] = {}
    for identity in together.values():
        if identity.namespace in replaced:
            known = newest.setdefault(identity.namespace, identity)
            newest[identity.namespace] = max(known, identity, key=lambda i: (i.newest, i.value))
    kept = [i for i in together.values() if newest.get(i.namespace, i) is i]
    return tuple(sorted(kept, key=lambda i: (i.linked_at, i.namespace, i.value)))


def _traits(one: Profile, other: Profile, workspace: Workspace) -> dict[str, Trait]:
    return _newest(one.traits, other.traits, _standing)


def _standing(trait: Trait) -> tuple[int, datetime, bytes, int]:
    return rank(trait.source), trait.at, _encode(trait.value), trait.source


def _consent(one: Profile, other: Profile, workspace: Workspace) -> dict[str, Consent]:
    """The newest explicit statement of each purpose; of two at once the one that denies."""
    return _newest(one.consent, other.consent, lambda said: (said.at, not said.granted, said.source))


def _sharing(one: Profile, other: Profile, workspace: Workspace) -> Consent | None:
    said = [known for known in (one.sharing, other.sharing) if known is not None]
    return max(said, key=lambda known: (known.at, not known.granted, known.source), default=None)


def _newest(one: Mapping[str, Any], other: Mapping[str, Any], key: Callable[[Any], Any]) -> dict[str, Any]:
    together = dict(other)
    for name, value in one.items():
        known = together.get(name)
        together[name] = value if known is None else max(value, known, key=key)
    return together


def _devices(one: Profile, other: Profile, workspace: Workspace) -> dict[str, Address]:
    together = _newest(one.devices, other.devices, lambda address: address.seen_at)
    kept = sorted(together, key=lambda d: (together[d].seen_at, d))[-MAX_DEVICES:]
    return {device: together[device] for device in kept}


def _presence(one: Profile, other: Profile, workspace: Workspace) -> Presence:
    """Where the device is that was heard last: a person is in one place. The trails of the other's
    devices stay, so that each goes on from its own last fix."""
    newer, older = sorted(
        (one.presence, other.presence),
        key=lambda p: (p.seen_at is not None, p.seen_at or _EARLIEST, p.carried),
        reverse=True,
    )
    if not older.devices:
        return newer
    trails = _newest(newer.devices, older.devices, lambda trail: trail.when)
    kept = sorted(trails, key=lambda d: (d == newer.carried, trails[d].when, d))[-MOST_DEVICES:]
    return msgspec.structs.replace(newer, devices={device: trails[device] for device in kept})


def _contacts(one: Profile, other: Profile, workspace: Workspace) -> tuple[Contact, ...]:
    together = {c.decision: c for c in (*other.contacts, *one.contacts)}
    return tuple(sorted(together.values(), key=lambda c: (c.at, c.decision))[-MOST_CONTACTS:])


def _audiences(one: Profile, other: Profile, workspace: Workspace) -> Membership:
    """Those of both: whoever was in one does not enter it again."""
    since = dict(other.audiences.since)
    for name, at in one.audiences.since.items():
        since[name] = min(at, since.get(name, at))
    return msgspec.structs.replace(one.audiences, since=since)


def united_cohort(one: Profile, other: Profile) -> str:
    """By what holdouts and experiments know a person whose profiles became one, the first of which
    stays: as the older one, so that most keep what they had, in whatever order they come together."""
    older = min(one, other, key=lambda profile: (profile.created_at, profile.cohort_key))
    return "" if older.cohort_key == one.id else older.cohort_key


def _absorbed(one: Profile, other: Profile, workspace: Workspace) -> tuple[Absorbed, ...]:
    brought = (Absorbed(a.id, a.offset + one.seq) for a in other.absorbed)
    return (*one.absorbed, Absorbed(other.id, one.seq), *brought)


def _of_last_seen(name: str) -> Callable[[Profile, Profile, Workspace], Any]:
    def unite(one: Profile, other: Profile, workspace: Workspace) -> Any:
        first, second = sorted((one, other), key=lambda p: (p.last_seen, p.id), reverse=True)
        return getattr(first, name) or getattr(second, name)

    return unite


def _handed_on(one: Profile, other: Profile, workspace: Workspace) -> bytes:
    """What of either was handed on to accounts is never handed on again."""
    if not (one.accounts and other.accounts):
        return one.handed_on or other.handed_on
    return b"".join(sorted(digests(one.handed_on) | digests(other.handed_on)))


def _counted_by_both(one: Profile, other: Profile, workspace: Workspace) -> tuple[Computed, ...]:
    """What is counted whole of both; the rest is counted from their log."""
    lacked = {trait.name for person in (one, other) for trait in lacking(person, workspace)}
    return tuple(trait for trait in workspace.computed if trait.name not in lacked)


UNITED: Mapping[str, Callable[[Profile, Profile, Workspace], Any]] = {
    "seq": lambda one, other, _: one.seq + other.seq,
    "created_at": lambda one, other, _: min(one.created_at, other.created_at),
    "last_seen": lambda one, other, _: max(one.last_seen, other.last_seen),
    "identities": _identities,
    "traits": _traits,
    "computed": lambda one, other, workspace: computed.merged(
        one.computed, other.computed, _counted_by_both(one, other, workspace)
    ),
    "counted": lambda one, other, workspace: stamp_of(_counted_by_both(one, other, workspace)),
    "consent": _consent,
    "consent_history": lambda one, other, _: united_history(one.consent_history, other.consent_history),
    "sharing": _sharing,
    "devices": _devices,
    "presence": _presence,
    "trips": lambda one, other, _: _newest(one.trips, other.trips, lambda trip: trip.started_at),
    "contacts": _contacts,
    "converted": lambda one, other, _: _newest(one.converted, other.converted, lambda at: at),
    "audiences": _audiences,
    "past": lambda one, other, _: united_past(one.past, other.past),
    "waiting": lambda one, other, _: united_waiting(one.waiting, other.waiting),
    "timezone": _of_last_seen("timezone"),
    "locale": _of_last_seen("locale"),
    "accounts": lambda one, other, _: united_accounts(one.accounts, other.accounts),
    "clients": lambda one, other, _: united_clients(one.clients, other.clients),
    "handed_on": _handed_on,
    "cohort": lambda one, other, _: united_cohort(one, other),
    "absorbed": _absorbed,
    "apart": lambda one, other, _: tuple(dict.fromkeys((*one.apart, *other.apart))),
    "restricted": lambda one, other, _: one.restricted or other.restricted,
}
"""How each field of the document is united; id, format and version are the survivor's."""


def uncounted(rules: RuleSet, profile: Profile, event: Event, now: datetime) -> Profile:
    """The document without one of two copies of an event that both profiles had. What it counted of
    places stays counted: which fences it crossed hangs on what came before."""
    kind = TRIGGERS.get(event.kind)
    counted = rules.computed_by_trigger.get((kind, event.name)) if kind is not None else None
    if counted and not is_whole(profile, rules.workspace):
        known = digests(profile.counted)
        counted = tuple(trait for trait in counted if trait.digest in known)
    if not counted:
        return profile
    scope = Scope(event=event_view(event), geofence={}, now=now)
    counts = computed.count_out(profile.computed, counted, scope, event.timestamp, rules.workspace)
    return msgspec.structs.replace(profile, computed=counts)
