"""The profile of an account: fed by what its members do, in audiences of its own, told to its members.

An account is a document like a person's, in the same tables, and nothing that is decided about people
looks at it: rules are set off for its members, to whom a change of its audiences is told one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

import msgspec

from engine.domain.observation import Observation
from engine.domain.offers.rules import RuleSet, TraitDeclaration, TriggerKind, audience_change
from engine.domain.people import accounts, audiences, computed
from engine.domain.people.account_feeds import FED, unpacked
from engine.domain.people.audiences import Followed
from engine.domain.people.counting import digests, is_whole
from engine.domain.people.events import Event
from engine.domain.people.fold import MAX_TRAITS
from engine.domain.people.profiles import Contact, Profile
from engine.domain.people.timers import PREFIX, Alarms, Timer, is_internal, timer

TELL: Final = f"{PREFIX}tell-members"
"""The name of the event by which the members of an account are told that it entered or left an audience."""
TOLD: Final = f"{PREFIX}account-audience"
"""The name of the event by which one member is."""

_WAITING: Final = "$waiting"
"""Beside what is counted: what waits for its definition."""
_MOST_WAITING: Final = 1_000

WELL_KNOWN: Final[Mapping[str, TraitDeclaration]] = {
    declared.name: declared
    for declared in (
        TraitDeclaration(name="name", type="string"),
        TraitDeclaration(name="industry", type="string"),
        TraitDeclaration(name="plan", type="string"),
        TraitDeclaration(name="website", type="string"),
        TraitDeclaration(name="description", type="string"),
        TraitDeclaration(name="employees", type="number"),
        TraitDeclaration(name="createdAt", type="timestamp"),
    )
}
"""What Segment's specification knows of a group, by the type that it has in expressions."""


def observed(rules: RuleSet, profile: Profile, event: Event, now: datetime) -> Observation:
    """The account's profile after an event of its own."""
    before, inner = profile, rules.of_accounts
    if is_internal(event) and event.name == FED:
        profile = _fed(inner, profile, event, now)
    elif is_internal(event) and event.properties.get("whole") and inner is not None:
        profile = _whole(inner, profile)
    after = msgspec.structs.replace(profile, seq=profile.seq + 1)
    seen = Observation(profile=after, event=event, triggers=())
    if inner is None or not (inner.audiences or before.audiences.stamp):
        return seen
    changed = after.computed is not before.computed or after.traits is not before.traits
    if not changed and not audiences.is_stale(inner, before, now):
        return seen
    followed = audiences.follow(inner, before, after, now)
    after = msgspec.structs.replace(after, audiences=followed.membership)
    after, alarms = audiences.armed(after, now)
    told = Alarms(() if event.history else tuple(_tell(rules, after.account, followed, event)))
    return msgspec.structs.replace(seen, profile=after, alarms=alarms + told if told else alarms)


def _fed(inner: RuleSet | None, profile: Profile, event: Event, now: datetime) -> Profile:
    told = event.properties
    traits, contacts = profile.traits, profile.contacts
    if said := told.get("traits"):
        traits = accounts.newest(traits, said, datetime.fromisoformat(told["at"]), MAX_TRAITS)
    if offers := told.get("offers"):
        contacts = tuple(_marked(c, offers) for c in contacts if offers.get(c.decision, ()) is not None)
    if inner is not None:
        profile = _current(inner, profile)
        if text := told.get("cells"):
            profile = _counting(inner, profile, unpacked(text), now)
        if text := told.get("less"):
            less = computed.taken_off(profile.computed, unpacked(text), inner.workspace.computed)
            profile = msgspec.structs.replace(profile, computed=less)
    last_seen = max(profile.last_seen, event.timestamp)
    return msgspec.structs.replace(profile, traits=traits, contacts=contacts, last_seen=last_seen)


def _marked(contact: Contact, offers: Mapping[str, Any]) -> Contact:
    marks = offers.get(contact.decision)
    if marks is None:
        return contact
    return msgspec.structs.replace(contact, delivered=marks[0], shown=marks[1])


def _current(inner: RuleSet, profile: Profile) -> Profile:
    """The profile as it may be counted on: what was counted by another definition begins anew."""
    stamp, computed_now = inner.workspace.counted_stamp, profile.computed
    counted = stamp if is_whole(profile, inner.workspace) else profile.counted
    if profile.handed_on == stamp:
        if profile.counted == counted:
            return profile
        return msgspec.structs.replace(profile, counted=counted)
    known = digests(profile.handed_on)
    kept = {trait.name for trait in inner.workspace.computed if trait.digest in known} | {_WAITING}
    computed_now = {name: state for name, state in computed_now.items() if name in kept}
    return msgspec.structs.replace(profile, computed=computed_now, handed_on=stamp, counted=counted)


def _counting(inner: RuleSet, profile: Profile, cells: Mapping[str, Any], now: datetime) -> Profile:
    """The profile with what a member did. What is counted by definitions that are not known here, because
    another engine has newer ones, waits for them."""
    declared = {trait.digest.hex() for trait in inner.workspace.computed if trait.digest}
    waiting = [*profile.computed.get(_WAITING, ()), cells]
    counts = {name: state for name, state in profile.computed.items() if name != _WAITING}
    later = []
    for each in waiting:
        counts = computed.taken_in(counts, each, inner.workspace.computed, now)
        if unknown := {digest: cell for digest, cell in each.items() if digest not in declared}:
            later.append(unknown)
    if later:
        counts[_WAITING] = later[-_MOST_WAITING:]
    return msgspec.structs.replace(profile, computed=counts)


def _whole(inner: RuleSet, profile: Profile) -> Profile:
    """The profile when everything that members had done was handed on."""
    profile = _current(inner, profile)
    names = {trait.name for trait in inner.workspace.computed}
    return msgspec.structs.replace(
        profile,
        computed={name: state for name, state in profile.computed.items() if name in names},
        counted=inner.workspace.counted_stamp,
    )


def _tell(rules: RuleSet, account: str, followed: Followed, event: Event) -> list[Timer]:
    """The fan-out of what changed, where a rule wants to know it."""
    found: list[Timer] = []
    for change in followed.changes:
        name = audience_change(change.name, change.entered)
        if rules.by_trigger.get((TriggerKind.AUDIENCE, name)):
            cause = blake2b(event.message_id.encode(), digest_size=8).hexdigest()
            identifier = f"{TELL}:{name}:{cause}"
            one = timer(identifier, change.at, TELL, {"change": name}, paced=True)
            event = msgspec.structs.replace(one.event, group_id=account)
            found.append(msgspec.structs.replace(one, event=event))
    return found


def is_telling(event: Event) -> bool:
    """Whether it is due to tell the members of an account."""
    return event.name == TELL and is_internal(event) and event.group_id is not None


def telling(profile_id: str, told: Event) -> Timer:
    """What each member of an account, which has that profile, is told when `told` is due; the same one
    each time it is tried."""
    cause = told.message_id.removeprefix(f"{TELL}:")
    one = timer(f"{TOLD}:{profile_id}:{cause}", told.timestamp, TOLD, told.properties, paced=True)
    event = msgspec.structs.replace(one.event, group_id=told.group_id)
    return msgspec.structs.replace(one, event=event)
