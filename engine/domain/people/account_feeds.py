"""What members do reaches the profile of their account: as events of the account's own.

The commit of a member's event leaves a row for the account, due at once, with what the event comes to
in the account's roll-ups and nothing else of it, so that the account's document and its log hold no
more of a person than the roll-ups themselves say. The row becomes an event of the account that is
folded in once, like any other.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from engine.domain.offers import caps
from engine.domain.offers.patterns import TriggerKind
from engine.domain.offers.rules import Computed, RuleSet
from engine.domain.offers.scope import Scope
from engine.domain.people import accounts, computed
from engine.domain.people.counting import Recount, digests, rollups_of
from engine.domain.people.events import Event, Kind, Sender
from engine.domain.people.memory import WAITED
from engine.domain.people.profiles import ACCOUNT_NAMESPACE, PROFILE_NAMESPACE, IdentityKey, Profile
from engine.domain.people.timers import PREFIX, Alarms, Timer, timer
from engine.domain.views import event_view, fence_view

TRIGGERS = {Kind.TRACK: TriggerKind.EVENT, Kind.PAGE: TriggerKind.PAGE, Kind.SCREEN: TriggerKind.SCREEN}
FED = f"{PREFIX}fed"
"""The name of the event by which something reaches an account."""

Happened = Iterable[Any]
"""Triggers: what happened, each with its kind, name, time and fence."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Feed(msgspec.Struct, frozen=True):
    """What an event leaves for an account."""

    account: str
    timer: Timer

    def __repr__(self) -> str:
        return f"Feed({self.timer!r})"


def keys_of_timer(profile_id: str, event: Event) -> tuple[IdentityKey, ...]:
    """Whom a timer's event is about: its profile, or an account, which may not be there yet."""
    if event.name == FED and event.group_id is not None:
        return ((ACCOUNT_NAMESPACE, event.group_id),)
    return ((PROFILE_NAMESPACE, profile_id),)


def feed(
    identifier: str, account: str, now: datetime, told: Mapping[str, Any], *, paced: bool = False
) -> Feed:
    """What an account is told; `identifier` tells this from all else that it ever is."""
    row = timer(f"{FED}:{identifier}", now, FED, told, paced=paced)
    event = msgspec.structs.replace(row.event, group_id=account)
    return Feed(account, msgspec.structs.replace(row, event=event))


def handed_on(
    rules: RuleSet, profile: Profile, event: Event, happened: Happened, zone: str | None, now: datetime
) -> tuple[Feed, ...]:
    """What the event of a member leaves for its account: what it counts there, and what a group call
    says of it. `profile` is as it was before."""
    assert event.group_id is not None
    told: dict[str, Any] = {}
    if event.kind is Kind.GROUP and event.sender is not Sender.ENGINE:
        told = {"at": event.known_at.isoformat(), "traits": accounts.group_traits(event)}
    if (inner := rules.of_accounts) is not None and inner.computed_by_trigger:
        cells = _cells(inner, profile, event, happened, zone, now)
        if cells:
            told["cells"] = packed(cells)
    if not told:
        return ()
    left = feed(f"{profile.id}:{profile.seq + 1}", event.group_id, now, told, paced=event.history)
    return (_of_history(left),) if event.history else (left,)


def _of_history(left: Feed) -> Feed:
    """What is told of long ago is counted, and wakes nobody up."""
    event = msgspec.structs.replace(left.timer.event, history=True)
    return Feed(left.account, msgspec.structs.replace(left.timer, event=event))


def of_account(alarms: Alarms, account: str) -> Alarms:
    """Timers of rules that wait, as those of what happened for an account."""
    if not alarms.set:
        return alarms
    return msgspec.structs.replace(
        alarms,
        set=tuple(
            msgspec.structs.replace(t, event=msgspec.structs.replace(t.event, group_id=account))
            if t.event.name == WAITED
            else t
            for t in alarms.set
        ),
    )


def _cells(
    inner: RuleSet, profile: Profile, event: Event, happened: Happened, zone: str | None, now: datetime
) -> dict[str, Any]:
    """What the event comes to in each roll-up, by its digest."""
    state: dict[str, Any] = {}
    for trigger in happened:
        counted = inner.computed_by_trigger.get((trigger.kind, trigger.name))
        if not counted:
            continue
        if profile.accounts and profile.handed_on != inner.workspace.counted_stamp:
            known = digests(profile.handed_on)
            counted = tuple(trait for trait in counted if trait.digest in known)
        scope = Scope(event=event_view(event), geofence=fence_view(trigger.fence, trigger.at), now=now)
        if inner.counts_by_clock:
            local = trigger.at.astimezone(caps.zone(zone, inner.workspace.timezone))
            scope.local = caps.local_view(local)
        state, _ = computed.count_in(state, counted, scope, trigger.at, inner.workspace)
    return by_digest(state, inner.workspace.computed)


def by_digest(state: Mapping[str, Any], traits: Iterable[Computed]) -> dict[str, Any]:
    """States by what tells their definition, which outlasts a change of the rules on the way."""
    return {trait.digest.hex(): state[trait.name] for trait in traits if trait.name in state}


def packed(cells: Mapping[str, Any]) -> str:
    """States as text: JSON knows no keys but texts."""
    return b64encode(_encode(cells)).decode()


def unpacked(text: str) -> dict[str, Any]:
    cells: dict[str, Any] = _decode(b64decode(text))
    return cells


def lacking_for_accounts(profile: Profile, rules: RuleSet) -> tuple[Computed, ...]:
    """The roll-ups that the person's past was not handed on for."""
    stamp = rollups_of(rules)
    if not profile.accounts or profile.handed_on == stamp or rules.of_accounts is None:
        return ()
    known = digests(profile.handed_on)
    return tuple(t for t in rules.of_accounts.workspace.computed if t.digest and t.digest not in known)


def handed_on_late(profile: Profile, recount: Recount, now: datetime) -> tuple[Feed, ...]:
    """What a person had done for accounts before a roll-up was declared."""
    identifier = f"{profile.id}:{profile.seq + 1}:late"
    return tuple(
        _of_history(feed(identifier, account, now, {"cells": packed(cells)}, paced=True))
        for account, cells in recount.of_accounts.items()
    )


def uncounted(rules: RuleSet, profile: Profile, copy: Event, other: Event, now: datetime) -> tuple[Feed, ...]:
    """What takes the second of two copies of an event from an account that both were counted for, of a
    person of whom there were two."""
    inner = rules.of_accounts
    if copy.group_id is None or copy.group_id != other.group_id or inner is None:
        return ()
    kind = TRIGGERS.get(copy.kind)
    counted = inner.computed_by_trigger.get((kind, copy.name)) if kind is not None else None
    if not counted:
        return ()
    scope = Scope(event=event_view(copy), geofence={}, now=now)
    local = copy.timestamp.astimezone(caps.zone(profile.zone, inner.workspace.timezone))
    scope.local = caps.local_view(local)
    state, _ = computed.count_in({}, counted, scope, copy.timestamp, inner.workspace)
    told = {"less": packed(by_digest(state, counted))}
    return (feed(f"{profile.id}:{copy.sender}:{copy.message_id}:less", copy.group_id, now, told),)


def came_to(before: Profile, after: Profile, now: datetime) -> tuple[Feed, ...]:
    """What became of offers that caps count over all members of an account."""
    known = {c.decision: c for c in after.contacts}
    found: dict[str, dict[str, Any]] = {}
    for contact in before.contacts:
        account = contact.by.get(caps.ACCOUNT)
        now_is = known.get(contact.decision)
        if not account or now_is is contact:
            continue
        told = found.setdefault(account, {"offers": {}})
        marks = [now_is.delivered, now_is.shown] if now_is is not None else None
        if now_is is None or marks != [contact.delivered, contact.shown]:
            told["offers"][contact.decision] = marks
    identifier = f"{after.id}:{before.seq + 1}:offers"
    return tuple(feed(identifier, account, now, told) for account, told in found.items() if told["offers"])


def stamped(rules: RuleSet, before: Profile, after: Profile) -> bytes:
    """The roll-ups that all was handed on for, from now on: of a new member all there are; definitions
    that are gone are let go."""
    stamp = rollups_of(rules)
    if not after.accounts or before.handed_on == stamp:
        return before.handed_on
    if not before.accounts:
        return stamp
    return b"".join(sorted(digests(before.handed_on) & digests(stamp)))
