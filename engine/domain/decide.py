"""The order of everything: what one event does to one profile, and what is decided on it.

`observe` folds the event into the profile; `judge` weighs what rules put forward. Both are pure:
the clock, the rules and what the models say are arguments. `judge` is called again with scores
where the first call asked for them, so that one model run serves every candidate of a round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from engine.domain.offers import assignment, caps, contest, eligibility
from engine.domain.offers.decisions import Decision, Reason
from engine.domain.offers.eligibility import Candidate, Circumstances, Stop
from engine.domain.offers.rules import Offer, Rule, RuleSet, TriggerKind, audience_change
from engine.domain.offers.scope import Scope
from engine.domain.people import audiences, computed, fold, memory
from engine.domain.people.audiences import Followed
from engine.domain.people.consent import location_precision, with_statements
from engine.domain.people.events import Event, Kind, Location, Sender
from engine.domain.people.memory import Occurrence
from engine.domain.people.profiles import Address, Contact, Past, Profile
from engine.domain.people.timers import NO_ALARMS, Alarms, is_internal
from engine.domain.places.fence_index import Fence
from engine.domain.places.presence import fix_of, step
from engine.domain.views import earlier_view, event_view, fence_view

_TRIGGERS = {Kind.TRACK: TriggerKind.EVENT, Kind.PAGE: TriggerKind.PAGE, Kind.SCREEN: TriggerKind.SCREEN}


class Trigger(msgspec.Struct, frozen=True):
    """Something that can set rules off: the event itself, or a transition that its fix showed, each
    at its own time. `event` is what expressions see as the event where that is an earlier one."""

    kind: TriggerKind
    name: str
    at: datetime
    fence: Fence | None = None
    event: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Trigger({self.kind.value!r}, {self.name!r})"


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """The profile after the event, the event as it may be kept, what it set off, and the timers that
    it sets and calls off. `past` is what was remembered before the event. Where it hangs on scores
    who is in which audience, `needed` names their models and `scope` what they read; then `settle`
    comes before `judge`."""

    profile: Profile
    event: Event
    triggers: tuple[Trigger, ...]
    notes: tuple[str, ...] = ()
    alarms: Alarms = NO_ALARMS
    needed: frozenset[str] = frozenset()
    scope: Scope | None = None
    followed: Followed | None = None
    past: Past = {}

    def __repr__(self) -> str:
        return f"Observation({self.event!r}, {len(self.triggers)} triggers)"


class Sending(msgspec.Struct, frozen=True):
    """A winner, and the device to send it to."""

    decision: Decision
    candidate: Candidate
    device_id: str
    address: Address

    def __repr__(self) -> str:
        return f"Sending({self.decision!r})"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions and the profile with them counted; or the models to ask first, with the scope
    that their inputs are read from."""

    profile: Profile
    decisions: tuple[Decision, ...] = ()
    sends: tuple[Sending, ...] = ()
    needed: frozenset[str] = frozenset()
    scope: Scope | None = None
    alarms: Alarms = NO_ALARMS

    def __repr__(self) -> str:
        return f"Verdict({len(self.decisions)} decisions)"


def observe(rules: RuleSet, profile: Profile, event: Event, now: datetime) -> Observation:
    """The profile after `event`. Consent comes first, so that a position is kept only as exactly
    as this very event still allows; presence before counting, because visits are counted too."""
    workspace = rules.workspace
    consent = with_statements(profile.consent, event, workspace)
    devices = fold.with_device(profile.devices, event, workspace)
    device = devices.get(event.device.id) if event.device is not None else None
    event = fold.coarsened(event, location_precision(consent, device, workspace))
    profile = fold.with_outcome(msgspec.structs.replace(profile, devices=devices), event)
    notes: tuple[str, ...] = ()

    triggers: list[Trigger] = []
    if (kind := _TRIGGERS.get(event.kind)) is not None and not is_internal(event):
        triggers.append(Trigger(kind, event.name, event.timestamp))
    presence = profile.presence
    if (fix := fix_of(event)) is not None:
        moved = step(presence, fix, rules.index)
        presence = moved.presence
        if moved.ignored is not None:
            notes = (f"fix: {moved.ignored}",)
        for transition in moved.transitions:
            fence = rules.fences[transition.fence]
            triggers.append(Trigger(TriggerKind(transition.kind), fence.id, transition.at, fence))

    waiting, alarms = profile.waiting, NO_ALARMS
    if is_internal(event) and event.name == memory.WAITED:
        ended = memory.waited(profile, event.properties)
        if ended is not None:
            waiting = ended
            triggers.append(_waited(rules, event))
    past = profile.past
    if triggers and (rules.watched_by_trigger or rules.waits_by_trigger):
        remembered = memory.remember(rules, profile, _occurrences(triggers, event, now))
        if remembered is not None:
            past, waiting = remembered.past, remembered.waiting
            alarms, notes = remembered.alarms, notes + remembered.notes

    counts = profile.computed
    for trigger in triggers:
        counted = rules.computed_by_trigger.get((trigger.kind, trigger.name))
        if counted:
            scope = Scope(event=event_view(event), geofence=fence_view(trigger.fence, trigger.at), now=now)
            counts, left_out = computed.count_in(counts, counted, scope, trigger.at, workspace)
            notes += left_out

    traits, left_out = fold.with_traits(profile.traits, event)
    notes += left_out
    timezone, locale = fold.zone_and_locale(profile, event)
    after = msgspec.structs.replace(
        profile,
        seq=profile.seq + 1,
        last_seen=profile.last_seen
        if event.sender is Sender.ENGINE
        else max(profile.last_seen, event.timestamp),
        consent=consent,
        traits=traits,
        presence=presence,
        past=past,
        waiting=waiting,
        computed=counts,
        timezone=timezone,
        locale=locale,
    )
    seen = Observation(
        profile=after,
        event=event,
        triggers=tuple(triggers),
        notes=notes,
        alarms=alarms,
        past=profile.past,
    )
    if (
        audiences.is_stale(rules, profile, now)
        or counts is not profile.computed
        or traits is not profile.traits
        or consent is not profile.consent
    ) and (rules.audiences or profile.audiences.stamp):
        return _among(seen, audiences.follow(rules, profile, after, now), rules, now)
    return seen


def settle(
    rules: RuleSet, seen: Observation, now: datetime, scores: Mapping[str, float | None]
) -> Observation:
    """The observation once the models that it `needed` have answered, None for one that failed."""
    assert seen.followed is not None
    followed = audiences.scored(rules, seen.followed, seen.profile, now, scores)
    return _among(seen, followed, rules, now)


def _among(seen: Observation, followed: Followed, rules: RuleSet, now: datetime) -> Observation:
    """The observation with its person in the right audiences, and what that sets off."""
    profile = msgspec.structs.replace(seen.profile, audiences=followed.membership)
    if followed.needed:
        waiting = msgspec.structs.replace(seen, profile=profile, needed=followed.needed, followed=followed)
        local = now.astimezone(caps.zone(profile.timezone, rules.workspace.timezone))
        scope = _scope(rules, waiting, now, local, _address(profile)[1], {})
        return msgspec.structs.replace(waiting, scope=scope)
    turned = tuple(
        Trigger(TriggerKind.AUDIENCE, audience_change(change.name, change.entered), change.at)
        for change in followed.changes
    )
    profile, alarms = audiences.armed(profile, now)
    return msgspec.structs.replace(
        seen,
        profile=profile,
        triggers=seen.triggers + turned,
        alarms=seen.alarms + alarms,
        needed=frozenset(),
        scope=None,
        followed=None,
    )


def _occurrences(triggers: Iterable[Trigger], event: Event, now: datetime) -> Iterable[Occurrence]:
    view = event_view(event)
    for trigger in triggers:
        if trigger.kind is not TriggerKind.WAIT:
            scope = Scope(event=view, geofence=fence_view(trigger.fence, trigger.at), now=now)
            fence = trigger.fence.id if trigger.fence is not None else None
            yield Occurrence((trigger.kind, trigger.name), trigger.at, scope, fence)


def _waited(rules: RuleSet, event: Event) -> Trigger:
    """What a rule that has waited is set off by: the last event of those that it waited after."""
    told = event.properties
    fence = rules.fences.get(told.get("geofence", ""))
    return Trigger(TriggerKind.WAIT, told["rule"], event.timestamp, fence, earlier_view(told["event"]))


def judge(
    rules: RuleSet,
    seen: Observation,
    now: datetime,
    newest: Location | None = None,
    scores: Mapping[str, float | None] | None = None,
) -> Verdict:
    """What is decided on an observation.

    `scores` is None on the first call; where a candidate's fate hangs on a model, the verdict then
    only names the models needed. On the second call it holds each of those, None for one that
    failed.
    """
    matched = [
        (trigger, rule)
        for trigger in seen.triggers
        for rule in rules.by_trigger.get((trigger.kind, trigger.name), ())
    ]
    if not matched:
        return Verdict(profile=seen.profile)

    profile, workspace = seen.profile, rules.workspace
    local = now.astimezone(caps.zone(profile.timezone, workspace.timezone))
    device_id, address = _address(profile)
    circumstances = Circumstances(
        workspace=workspace,
        profile=profile,
        event=seen.event,
        now=now,
        local=local,
        fences_at_newest=(
            None if newest is None else frozenset(rules.index.containing(newest.latitude, newest.longitude))
        ),
        address=address,
        scores=scores or {},
        past=seen.past,
    )
    scope = _scope(rules, seen, now, local, address, scores or {})
    candidates = list(_candidates(rules, matched, scope, profile.cohort_key))

    stops = [_before_scoring(c, circumstances) for c in candidates]
    if scores is None and (needed := _models_needed(rules, candidates, stops)):
        return Verdict(profile=profile, needed=needed, scope=scope)

    judged = [
        (c, stop if stop is not None else eligibility.worth(c, circumstances))
        for c, stop in zip(candidates, stops, strict=True)
    ]
    groups = [[pair for pair in judged if not pair[0].stands_alone]]
    groups += [[pair] for pair in judged if pair[0].stands_alone]
    decisions: list[Decision] = []
    sends: list[Sending] = []
    for ordinal, group in enumerate(g for g in groups if g):
        decision, won = contest.decide_group(rules.revision, seen.profile.seq, group, circumstances, ordinal)
        decisions.append(decision)
        if won is not None and address is not None:
            sends.append(Sending(decision, won, device_id, address))
            if not won.is_contract:  # what nobody can opt out of uses up nobody's caps
                contact = Contact(now, won.offer.id, won.rule.id, "push", won.purpose.name, decision.id)
                profile = fold.with_contact(profile, contact, now - rules.contact_horizon)
    return Verdict(profile=profile, decisions=tuple(decisions), sends=tuple(sends), scope=scope)


def _candidates(
    rules: RuleSet, matched: Iterable[tuple[Trigger, Rule]], scope: Scope, key: str
) -> Iterable[Candidate]:
    for trigger, rule in matched:
        own = scope
        if trigger.fence is not None:
            own = msgspec.structs.replace(own, geofence=fence_view(trigger.fence, scope.now))
        if trigger.event is not None:
            own = msgspec.structs.replace(own, event=trigger.event)
        for offer, arm in _offers(rules, rule, key):
            yield Candidate(
                rule=rule,
                offer=offer,
                purpose=rules.workspace.purposes[offer.purpose],
                trigger=rule.when.kind,
                at=trigger.at,
                fence=trigger.fence,
                scope=own,
                variant=arm,
            )


def _offers(rules: RuleSet, rule: Rule, key: str) -> Iterable[tuple[Offer, str | None]]:
    """What a rule puts forward to a person, with the arm of its experiment. Who is in none of the
    arms is decided on as if in the first, and then gets nothing."""
    if rule.variants:
        arm = assignment.variant(rule, key)
        return [(arm.offer, arm.name) if arm is not None else (rule.variants[0].offer, None)]
    return [(rules.offers[offer], None) for offer in rule.offers]


def _before_scoring(candidate: Candidate, circumstances: Circumstances) -> Stop | None:
    for gate in eligibility.BEFORE_SCORING:
        stop = gate(candidate, circumstances)
        if stop is not None:
            return stop
    return None


def _models_needed(rules: RuleSet, candidates: list[Candidate], stops: list[Stop | None]) -> frozenset[str]:
    """The models that could still change something: of candidates that came through, and of those
    whose condition is unknown because it reads a score."""
    needed: set[str] = set()
    for candidate, stop in zip(candidates, stops, strict=True):
        if stop is None or stop.reason is Reason.CONDITION_UNKNOWN:
            needed |= eligibility.models_read(candidate, rules.models)
    return frozenset(needed)


def _address(profile: Profile) -> tuple[str, Address | None]:
    """The device to push to: of those that can be reached, the one seen last; one that denied
    pushes only where there is no other."""
    reachable = [(not a.denies_push, a.seen_at, d) for d, a in profile.devices.items() if a.reachable]
    if not reachable:
        return "", None
    device_id = max(reachable)[2]
    return device_id, profile.devices[device_id]


def _scope(
    rules: RuleSet,
    seen: Observation,
    now: datetime,
    local: datetime,
    address: Address | None,
    scores: Mapping[str, float | None],
) -> Scope:
    weather = seen.event.context.get("weather")
    return Scope(
        event=event_view(seen.event),
        profile=computed.profile_view(seen.profile, rules.workspace, now),
        weather=weather if isinstance(weather, Mapping) else {},
        device={"type": address.type} if address is not None else {},
        propensity=scores,
        local=caps.local_view(local),
        now=now,
    )
