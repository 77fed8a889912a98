"""What an event was seen to do to its person, before anything is decided on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from engine.domain.account_views import Company
from engine.domain.offers.rules import RuleSet, TriggerKind
from engine.domain.offers.scope import Scope
from engine.domain.people.account_feeds import Feed
from engine.domain.people.audiences import Followed
from engine.domain.people.events import Event
from engine.domain.people.memory import Occurrence
from engine.domain.people.profiles import Past, Profile
from engine.domain.people.timers import NO_ALARMS, Alarms
from engine.domain.places.fence_index import Fence
from engine.domain.views import earlier_view, fence_view


class Trigger(msgspec.Struct, frozen=True, gc=False):
    """Something that can set rules off: the event itself, or a transition that its fix showed, each
    at its own time. `event` is what expressions see as the event where that is an earlier one;
    `deferred_at` is when the rule was set off and then put off."""

    kind: TriggerKind
    name: str
    at: datetime
    fence: Fence | None = None
    event: Mapping[str, Any] | None = None
    deferred_at: datetime | None = None
    trip: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Trigger({self.kind.value!r}, {self.name!r})"


class Observation(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The profile after the event, the event as it may be kept, what it set off, and the timers that
    it sets and calls off. `past` is what was remembered before the event. Where it hangs on scores
    who is in which audience, `needed` names their models and `scope` what they read; then `settle`
    comes before `judge`. `sky` is the weather and the sun where the person is, as far as known;
    `feeds` what it leaves for accounts, and `company` the account that it is of."""

    profile: Profile
    event: Event
    triggers: tuple[Trigger, ...]
    notes: tuple[str, ...] = ()
    alarms: Alarms = NO_ALARMS
    needed: frozenset[str] = frozenset()
    scope: Scope | None = None
    followed: Followed | None = None
    past: Past = {}
    sky: Mapping[str, Any] = {}
    feeds: tuple[Feed, ...] = ()
    company: Company | None = None

    def __repr__(self) -> str:
        return f"Observation({self.event!r}, {len(self.triggers)} triggers)"


def occurrences(triggers: Iterable[Trigger], view: Mapping[str, Any], now: datetime) -> Iterable[Occurrence]:
    """What happened, as the memory takes it. `view` is the event as it may be read."""
    for trigger in triggers:
        if trigger.kind not in (TriggerKind.WAIT, TriggerKind.DEFERRED):
            scope = Scope(event=view, geofence=fence_view(trigger.fence, trigger.at), now=now)
            fence = trigger.fence.id if trigger.fence is not None else None
            yield Occurrence((trigger.kind, trigger.name), trigger.at, scope, fence)


def waited(rules: RuleSet, event: Event) -> Trigger:
    """What a rule that has waited is set off by: the last event of those that it waited after."""
    told = event.properties
    fence = rules.fences.get(told.get("geofence", ""))
    return Trigger(TriggerKind.WAIT, told["rule"], event.timestamp, fence, earlier_view(told["event"]))


def resumed(rules: RuleSet, event: Event) -> Trigger:
    """What a rule that was put off is set off by: what set it off then."""
    told = event.properties
    return Trigger(
        TriggerKind.DEFERRED,
        told["rule"],
        datetime.fromisoformat(told["at"]),
        rules.fences.get(told.get("geofence", "")),
        earlier_view(told["event"]),
        datetime.fromisoformat(told["decided"]),
        earlier_view(told["trip"]) if "trip" in told else None,
    )
