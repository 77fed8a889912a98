"""What rules put forward on an observation, to whom it would go, and what it may look at."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import msgspec

from engine.domain.observation import Observation, Trigger
from engine.domain.offers import assignment, caps, eligibility
from engine.domain.offers.decisions import Reason
from engine.domain.offers.eligibility import Candidate, Circumstances, Stop, Worth
from engine.domain.offers.rules import Offer, Rule, RuleSet
from engine.domain.offers.scope import Scope
from engine.domain.people import computed
from engine.domain.people.labels import readable
from engine.domain.people.profiles import Address, Profile
from engine.domain.views import event_view, fence_view

Pair = tuple[Candidate, Worth | Stop]
"""A candidate, with what it is worth or why it goes no further."""


class Slots(msgspec.Struct, frozen=True):
    """What an app has room for: its placements, in the order in which they are filled, and how many
    offers it wants at the most."""

    placements: tuple[str, ...] = ()
    limit: int = 1


NO_SLOTS = Slots()


def put_forward(
    rules: RuleSet,
    matched: Iterable[tuple[Trigger, Rule]],
    scope: Scope,
    profile: Profile,
    placements: Collection[str],
) -> Iterable[Candidate]:
    """The candidates of the rules that were set off: for each channel that an offer has a message for.
    What waits inside the app is only put forward where the app asks for it."""
    for trigger, rule in matched:
        own = scope
        if trigger.fence is not None:
            own = msgspec.structs.replace(own, geofence=fence_view(trigger.fence, scope.now))
        if trigger.trip is not None:
            own = msgspec.structs.replace(own, trip=trigger.trip)
        if trigger.event is not None:
            own = msgspec.structs.replace(
                own, event=readable(trigger.event, profile.consent, rules.workspace)
            )
        for offer, arm in offers_of(rules, rule, profile.cohort_key):
            candidate = Candidate(
                rule=rule,
                offer=offer,
                purpose=rules.workspace.purposes[offer.purpose],
                trigger=rule.when.kind,
                at=trigger.at,
                fence=trigger.fence,
                scope=own,
                channel="push" if offer.webhook is None else "webhook",
                variant=arm,
                deferred_at=trigger.deferred_at,
            )
            if offer.in_app is None or offer.push is not None:
                yield candidate
            if offer.in_app is None:
                continue
            placement = rule.placement or offer.in_app.placement
            if placement in placements:
                yield msgspec.structs.replace(candidate, channel="in_app", placement=placement)


def contests(judged: Iterable[Pair], slots: Slots) -> Iterable[list[Pair]]:
    """The candidates that compete, by channel and placement; those that stand alone each by itself."""
    together: dict[str | None, list[Pair]] = {None: [], **{placement: [] for placement in slots.placements}}
    alone: list[list[Pair]] = []
    for pair in judged:
        if pair[0].stands_alone:
            alone.append([pair])
        else:
            together[pair[0].placement].append(pair)
    return [group for group in (*together.values(), *alone) if group]


def offers_of(rules: RuleSet, rule: Rule, key: str) -> Iterable[tuple[Offer, str | None]]:
    """What a rule puts forward to a person, with the arm of its experiment. Who is in none of the
    arms is decided on as if in the first, and then gets nothing."""
    if rule.variants:
        arm = assignment.variant(rule, key)
        return [(arm.offer, arm.name) if arm is not None else (rule.variants[0].offer, None)]
    if rule.action is not None:
        return [(rules.actions[rule.action], None)]
    return [(rules.offers[offer], None) for offer in rule.offers]


def before_scoring(candidate: Candidate, circumstances: Circumstances) -> Stop | None:
    """The first gate that stops a candidate before any model is asked."""
    for gate in eligibility.BEFORE_SCORING:
        stop = gate(candidate, circumstances)
        if stop is not None:
            return stop
    return None


def models_needed(rules: RuleSet, candidates: list[Candidate], stops: list[Stop | None]) -> frozenset[str]:
    """The models that could still change something: of candidates that came through, and of those
    whose condition is unknown because it reads a score."""
    needed: set[str] = set()
    for candidate, stop in zip(candidates, stops, strict=True):
        if stop is None or stop.reason is Reason.CONDITION_UNKNOWN:
            needed |= eligibility.models_read(candidate, rules.models)
    return frozenset(needed)


def reachable(profile: Profile) -> tuple[str, Address | None]:
    """The device to push to: of those that can be reached, the one seen last; one that denied
    pushes only where there is no other."""
    found = [(not a.denies_push, a.seen_at, d) for d, a in profile.devices.items() if a.reachable]
    if not found:
        return "", None
    device_id = max(found)[2]
    return device_id, profile.devices[device_id]


def scope_of(
    rules: RuleSet,
    seen: Observation,
    now: datetime,
    local: datetime,
    address: Address | None,
    scores: Mapping[str, float | None],
) -> Scope:
    """What all candidates of an observation may look at."""
    own = seen.event.context.get("weather")  # what the event says itself wins
    return Scope(
        event=readable(event_view(seen.event), seen.profile.consent, rules.workspace),
        profile=computed.profile_view(seen.profile, rules.workspace, now),
        weather={**seen.sky, **own} if type(own) is dict else seen.sky,
        account=seen.company.view if seen.company is not None else {},
        member=seen.company.member if seen.company is not None else {},
        device={"type": address.type} if address is not None else {},
        propensity=scores,
        local=caps.local_view(local),
        now=now,
    )
