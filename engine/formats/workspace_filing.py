"""A rule set from its parts: everything filed under what sets it off, so that nothing is searched for
when a decision is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from engine.domain.offers.caps import longest_window
from engine.domain.offers.filing import Filed, filed_by_trigger
from engine.domain.offers.propensity import ModelCard
from engine.domain.offers.rules import (
    PLACED,
    Audience,
    Offer,
    Pattern,
    Rule,
    RuleSet,
    TriggerKind,
    TripPlan,
    Workspace,
)
from engine.domain.people.outcomes import EXPIRED, OUTCOMES
from engine.domain.places.fence_index import Fence, FenceIndex, index_of
from engine.domain.places.interest import Interest, interest
from engine.domain.places.packed_fences import Tagged
from engine.domain.places.progress import Tell, say_nothing
from engine.domain.places.said_of_places import SaidOfPlaces
from engine.domain.places.trips import PACE_SECONDS
from engine.formats.workspace_audiences import read_all
from engine.formats.workspace_computed import reads_clock
from engine.formats.workspace_sequences import watched
from engine.formats.workspace_trips import with_spans


def filed(
    revision: str,
    workspace: Workspace,
    fences: Mapping[str, Fence],
    offers: Mapping[str, Offer],
    actions: Mapping[str, Offer],
    rules: Mapping[str, Rule],
    models: Mapping[str, ModelCard],
    audiences: tuple[Audience, ...],
    trips: Mapping[str, TripPlan],
    tell: Tell = say_nothing,
) -> RuleSet:
    """The rule set of sound parts."""
    by_name = [rules[word] for word in sorted(rules)]
    remembered = watched(by_name)
    watched_by_trigger = filed_by_trigger((one.pattern, one) for one in remembered)
    scheduled = tuple(rule for rule in by_name if rule.when.schedule is not None)
    by_trigger = filed_by_trigger(
        ((rule.when, rule) for rule in by_name if _is_set_off_at_once(rule.when)),
        {
            **{(TriggerKind.WAIT, rule.id): (rule,) for rule in by_name if rule.when.wait is not None},
            **{(TriggerKind.DEFERRED, rule.id): (rule,) for rule in by_name},
            **{(TriggerKind.SCHEDULE, rule.id): (rule,) for rule in scheduled},
        },
    )
    waits_by_trigger = filed_by_trigger((rule.when, rule) for rule in by_name if rule.when.wait is not None)
    computed_by_trigger = filed_by_trigger(
        (trait.pattern, trait) for trait in workspace.computed if trait.pattern is not None
    )
    rolled_up = filed_by_trigger(
        (trait.pattern, trait) for trait in workspace.account_computed if trait.pattern is not None
    )
    converting = [offer for offer in offers.values() if offer.converts is not None]
    converts_by_trigger = filed_by_trigger(
        (offer.converts.pattern, offer) for offer in converting if offer.converts is not None
    )
    index = index_of(fences, tell=tell)
    patterns = [
        *(rule.when for rule in by_name),
        *(one.pattern for one in remembered),
        *(trait.pattern for trait in workspace.computed if trait.pattern is not None),
        *(trait.pattern for trait in workspace.account_computed if trait.pattern is not None),
        *(offer.converts.pattern for offer in converting if offer.converts is not None),
    ]
    named = (by_trigger, waits_by_trigger, watched_by_trigger, computed_by_trigger, rolled_up)
    told = {name for name in OUTCOMES if any((TriggerKind.EVENT, name) in filed for filed in named)}
    contracts = {purpose.name for purpose in workspace.purposes.values() if purpose.basis == "contract"}
    return RuleSet(
        revision=revision,
        workspace=workspace,
        fences=fences,
        index=index,
        offers=offers,
        actions=actions,
        rules=rules,
        models=models,
        by_trigger=by_trigger,
        waits_by_trigger=waits_by_trigger,
        scheduled=scheduled,
        watched_by_trigger=watched_by_trigger,
        watched=frozenset(one.key for one in remembered),
        computed_by_trigger=computed_by_trigger,
        placed=_placed(by_name),
        counts_by_clock=any(map(reads_clock, workspace.computed)),
        converts_by_trigger=converts_by_trigger,
        follows_outcomes=bool(told) or any(offers[o.id].purpose in contracts for o in converting),
        expires=EXPIRED in told,
        audiences=audiences,
        audience_stamp=b"".join(sorted(audience.digest for audience in audiences)),
        audiences_read_all=read_all(audiences, workspace),
        trips=(plans := with_spans(trips, _ahead(by_name))),
        trips_by_trigger=_of_trips(plans.values()),
        stores=_stores(fences.values()) if plans else {},
        interest=_interest(index, patterns, PACE_SECONDS if plans else 0.0),
        contact_horizon=_horizon(workspace, by_name, converting),
    )


def _placed(rules: Iterable[Rule]) -> Mapping[str, tuple[Rule, ...]]:
    placed = [rule for rule in rules if rule.when.kind in PLACED]
    by_place = SaidOfPlaces(
        (place, rank, rule) for rank, rule in enumerate(placed) for place in _places_of(rule.when)
    )
    is_by_tag = any(isinstance(rule.when.fences, Tagged) for rule in placed)
    return by_place if is_by_tag else dict(by_place.items())


def _places_of(pattern: Pattern) -> Iterable[str | Tagged]:
    return (pattern.fences,) if isinstance(pattern.fences, Tagged) else pattern.fences


def _is_set_off_at_once(pattern: Pattern) -> bool:
    return pattern.wait is None and pattern.schedule is None


def _horizon(workspace: Workspace, rules: Iterable[Rule], converting: Iterable[Offer]) -> timedelta:
    """How far back offers made are looked at: by caps, and by conversions, which may come a day late."""
    windows = longest_window([*workspace.caps, *(cap for rule in rules for cap in rule.caps)])
    spans = [offer.converts.within for offer in converting if offer.converts is not None]
    return max(windows, max(spans, default=timedelta()) + timedelta(days=1))


def _ahead(rules: Iterable[Rule]) -> Mapping[str, frozenset[int]]:
    """How many seconds ahead rules want to be told of each trip."""
    found: dict[str, frozenset[int]] = {}
    for rule in rules:
        if rule.when.kind is TriggerKind.ARRIVING and rule.when.span is not None:
            span = frozenset((round(rule.when.span.total_seconds()),))
            found[rule.when.name] = found.get(rule.when.name, frozenset()) | span
    return found


def _of_trips(plans: Iterable[TripPlan]) -> Filed[TripPlan]:
    """The plans by the events that begin and end their trips."""
    return filed_by_trigger((pattern, plan) for plan in plans for pattern in (plan.starts, *plan.ends))


def _stores(fences: Iterable[Fence]) -> Mapping[str, str]:
    """Geofences by their property `store_id`; of two the first by id."""
    found: dict[str, str] = {}
    for fence in fences:
        if "store_id" in fence.properties:
            store = str(fence.properties["store_id"])
            known = found.get(store)
            found[store] = fence.id if known is None else min(known, fence.id)
    return found


def _interest(index: FenceIndex, patterns: Sequence[Pattern], memory: float) -> Interest:
    """What the patterns ask of presence beyond enter and exit."""
    spans: dict[TriggerKind, list[tuple[str | Tagged, timedelta]]] = {}
    for found in patterns:
        if found.span is not None:
            spans.setdefault(found.kind, []).extend((place, found.span) for place in _places_of(found))
    return interest(index, spans.get(TriggerKind.DWELL, ()), spans.get(TriggerKind.APPROACH, ()), memory)
