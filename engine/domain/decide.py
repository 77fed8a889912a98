"""The order of everything: what one event does to one profile, and what is decided on it.

`observe` folds the event into the profile; `judge` weighs what rules put forward. Both are pure:
the clock, the rules and what the models say are arguments. `judge` is called again with scores
where the first call asked for them, so that one model run serves every candidate of a round.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from engine.domain import companies, schedules
from engine.domain.candidates import (
    NO_SLOTS,
    Slots,
    before_scoring,
    contests,
    models_needed,
    put_forward,
    reachable,
    scope_of,
)
from engine.domain.observation import Observation, Trigger, occurrences, resumed, waited
from engine.domain.offers import caps, contest, deferral, eligibility
from engine.domain.offers.decisions import Decision
from engine.domain.offers.eligibility import Candidate, Circumstances
from engine.domain.offers.rules import RuleSet, TriggerKind, audience_change, timed
from engine.domain.offers.scope import Scope
from engine.domain.people import account_feeds, accounts, audiences, computed, fold, memory, outcomes
from engine.domain.people.account_feeds import Feed
from engine.domain.people.audiences import Followed
from engine.domain.people.consent import history, location_precision, sharing, with_statements
from engine.domain.people.counting import digests, is_whole, stamped
from engine.domain.people.events import ENGINE, Event, Kind, Location
from engine.domain.people.labels import readable
from engine.domain.people.profiles import Address, Profile
from engine.domain.people.timers import NO_ALARMS, Alarms, is_internal
from engine.domain.places.trips import unplaced
from engine.domain.travel import travelled
from engine.domain.views import event_view, fence_view
from engine.domain.whereabouts import sighting, withdrawn

__all__ = ["Observation", "Sending", "Trigger", "Verdict", "judge", "observe", "settle"]

TRIGGERS = {Kind.TRACK: TriggerKind.EVENT, Kind.PAGE: TriggerKind.PAGE, Kind.SCREEN: TriggerKind.SCREEN}


class Sending(msgspec.Struct, frozen=True, gc=False):
    """A winner, and the device to send it to; an action goes to none."""

    decision: Decision
    candidate: Candidate
    device_id: str
    address: Address | None

    def __repr__(self) -> str:
        return f"Sending({self.decision!r})"


class Verdict(msgspec.Struct, frozen=True, gc=False, kw_only=True):
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
    if profile.account:
        return companies.observed(rules, profile, event, now)
    workspace, offered = rules.workspace, profile.contacts
    consent = with_statements(profile.consent, event, workspace) if event.consent else profile.consent
    devices = fold.with_device(profile.devices, event, workspace)
    device = devices.get(event.device.id) if event.device is not None else None
    if event.location is not None:
        event = fold.coarsened(event, location_precision(consent, device, workspace))
    presence, forgotten = profile.presence, NO_ALARMS
    if event.consent:
        presence, forgotten = withdrawn(rules, profile, consent, devices, event)
    internal = False
    if event.sender is ENGINE:
        internal = is_internal(event)
        profile = fold.with_outcome(msgspec.structs.replace(profile, devices=devices), event)
        devices = profile.devices
    sets_off = not internal
    if outcomes.is_outcome(event):
        profile, outcome = outcomes.with_outcome(profile, event)
        event, sets_off = outcome or event, outcome is not None

    before = profile
    unjoined: tuple[str, ...] = ()
    if accounts.concerned(profile, event):
        profile, event, unjoined = accounts.placed(profile, event)
    triggers: list[Trigger] = []
    if (kind := TRIGGERS.get(event.kind)) is not None and sets_off:
        triggers.append(Trigger(kind, event.name, event.timestamp))
    timezone, locale = fold.zone_and_locale(profile, event)
    sighted = sighting(rules, presence, event, device, timezone is None)
    notes = sighted.notes
    for transition in sighted.transitions:
        fence = rules.fences[transition.fence]
        name = timed(fence.id, transition.span)
        triggers.append(Trigger(TriggerKind(transition.kind), name, transition.at, fence))

    trips = unplaced(profile.trips) if forgotten and profile.trips else profile.trips
    if rules.trips and (trips or triggers) and not event.history:
        went = travelled(rules, trips, presence, sighted.presence, event, triggers, now)
        trips, notes = went.trips, notes + went.notes
        triggers += went.triggers

    rung = Alarms((), sighted.alarms.cancelled) if event.history else sighted.alarms
    waiting, alarms = profile.waiting, rung if forgotten is NO_ALARMS else forgotten + rung
    if internal and event.name == memory.WAITED:
        ended = memory.waited(profile, event.properties)
        if ended is not None:
            waiting = ended
            triggers.append(waited(rules, event))
    elif internal and event.name == deferral.DEFERRED:
        triggers.append(resumed(rules, event))
    elif internal and event.name == companies.TOLD and event.group_id is not None:
        triggers.append(Trigger(TriggerKind.AUDIENCE, event.properties["change"], event.timestamp))
    past = profile.past
    if triggers and (rules.watched_by_trigger or rules.waits_by_trigger):
        remembered = memory.remember(
            rules, profile, occurrences(triggers, readable(event_view(event), consent, workspace), now)
        )
        if remembered is not None:
            past, waiting = remembered.past, remembered.waiting
            rung = Alarms((), remembered.alarms.cancelled) if event.history else remembered.alarms
            alarms, notes = alarms + rung, notes + remembered.notes

    counts = profile.computed
    for trigger in triggers:
        if rules.converts_by_trigger and (
            offers := rules.converts_by_trigger.get((trigger.kind, trigger.name))
        ):
            scope = Scope(event=event_view(event), geofence=fence_view(trigger.fence, now), now=now)
            profile, told = outcomes.with_conversions(profile, offers, scope, trigger.at, now)
            alarms += told
        counted = rules.computed_by_trigger.get((trigger.kind, trigger.name))
        if counted and not is_whole(profile, workspace):
            known = digests(profile.counted)
            counted = tuple(trait for trait in counted if trait.digest in known)
        if counted:
            scope = Scope(event=event_view(event), geofence=fence_view(trigger.fence, trigger.at), now=now)
            if rules.counts_by_clock:
                zone = caps.zone(timezone or sighted.presence.zone, workspace.timezone)
                scope.local = caps.local_view(trigger.at.astimezone(zone))
            counts, left_out = computed.count_in(counts, counted, scope, trigger.at, workspace)
            notes += left_out

    feeds: tuple[Feed, ...] = ()
    if event.group_id is not None:
        if not internal:
            clock = timezone or sighted.presence.zone
            feeds = account_feeds.handed_on(rules, before, event, triggers, clock, now)
        alarms = account_feeds.of_account(alarms, event.group_id)
    if rules.caps_accounts and profile.contacts is not offered:
        feeds += account_feeds.came_to(msgspec.structs.replace(before, contacts=offered), profile, now)
    traits = profile.traits
    if event.traits:
        traits, left_out = fold.with_traits(traits, event, workspace)
        notes += left_out
    notes += unjoined
    last_seen = profile.last_seen
    if last_seen < event.timestamp and event.sender is not ENGINE:
        last_seen = event.timestamp
    after = msgspec.structs.replace(
        profile,
        seq=profile.seq + 1,
        last_seen=last_seen,
        devices=devices,
        consent=consent,
        consent_history=profile.consent_history if consent is profile.consent else history(profile, consent),
        sharing=sharing(profile.sharing, event),
        traits=traits,
        presence=sighted.presence,
        trips=trips,
        past=past,
        waiting=waiting,
        computed=counts,
        counted=stamped(profile, workspace),
        handed_on=account_feeds.stamped(rules, before, profile) if profile.accounts else b"",
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
        feeds=feeds,
    )
    if (rules.audiences or profile.audiences.stamp) and (
        audiences.is_stale(rules, profile, now)
        or counts is not profile.computed
        or traits is not profile.traits
        or consent is not profile.consent
    ):
        return _among(seen, audiences.follow(rules, profile, after, now), rules, now)
    return schedules.followed(rules, seen, now) if schedules.concerned(rules, seen) else seen


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
        local = now.astimezone(caps.zone(profile.zone, rules.workspace.timezone))
        scope = scope_of(rules, waiting, now, local, reachable(profile)[1], {})
        return msgspec.structs.replace(waiting, scope=scope)
    turned = tuple(
        Trigger(TriggerKind.AUDIENCE, audience_change(change.name, change.entered), change.at)
        for change in followed.changes
    )
    profile, alarms = audiences.armed(profile, now)
    found = msgspec.structs.replace(
        seen,
        profile=profile,
        triggers=seen.triggers + turned,
        alarms=seen.alarms + alarms,
        needed=frozenset(),
        scope=None,
        followed=None,
    )
    return schedules.followed(rules, found, now) if schedules.concerned(rules, found) else found


def judge(
    rules: RuleSet,
    seen: Observation,
    now: datetime,
    newest: Location | None = None,
    scores: Mapping[str, float | None] | None = None,
    slots: Slots = NO_SLOTS,
) -> Verdict:
    """What is decided on an observation. `slots` is what the app has room for just now.

    `scores` is None on the first call; where a candidate's fate hangs on a model, the verdict then
    only names the models needed. On the second call it holds each of those, None for one that
    failed.
    """
    if seen.event.history or not seen.triggers:
        return Verdict(profile=seen.profile)
    matched = []
    for trigger in seen.triggers:
        for rule in rules.by_trigger.get((trigger.kind, trigger.name), ()):
            matched.append((trigger, rule))
    if not matched:
        return Verdict(profile=seen.profile)

    profile, workspace = seen.profile, rules.workspace
    local = now.astimezone(caps.zone(profile.zone, workspace.timezone))
    device_id, address = reachable(profile)
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
        paused=rules.paused,
        company=seen.company,
        account_audiences=rules.account_audiences,
    )
    scope = scope_of(rules, seen, now, local, address, scores or {})
    candidates = list(put_forward(rules, matched, scope, profile, slots.placements))

    stops = [before_scoring(c, circumstances) for c in candidates]
    if scores is None and (needed := models_needed(rules, candidates, stops)):
        return Verdict(profile=profile, needed=needed, scope=scope)

    judged = [
        (c, stop if stop is not None else eligibility.worth(c, circumstances))
        for c, stop in zip(candidates, stops, strict=True)
    ]
    decisions: list[Decision] = []
    sends: list[Sending] = []
    alarms = NO_ALARMS
    room = slots.limit
    for ordinal, group in enumerate(contests(judged, slots)):
        if group[0][0].channel == "in_app" and not room:
            continue
        ended = contest.decide_group(rules.revision, seen.profile.seq, group, circumstances, ordinal)
        decision, won = ended.decision, ended.won
        decisions.append(decision)
        alarms += ended.alarms
        if won is None:
            continue
        room -= won.channel == "in_app"
        sends.append(Sending(decision, won, device_id, address))
        if not won.stands_alone or (won.is_contract and not won.is_action and rules.follows_outcomes):
            contact = contest.contact_of(decision, won, seen.event.group_id)
            profile = fold.with_contact(profile, contact, now - rules.contact_horizon)
            if rules.expires and decision.expires_at is not None:
                alarms += outcomes.expiring(contact, won.offer, decision.expires_at)
    return Verdict(
        profile=profile, decisions=tuple(decisions), sends=tuple(sends), scope=scope, alarms=alarms
    )
