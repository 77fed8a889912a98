"""A rule set from its parts: everything filed under what sets it off, so that nothing is searched for
when a decision is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from engine.domain.offers.caps import longest_window
from engine.domain.offers.propensity import ModelCard
from engine.domain.offers.rules import (
    PLACED,
    Audience,
    Computed,
    Offer,
    Pattern,
    Rule,
    RuleSet,
    TriggerKind,
    TripPlan,
    Workspace,
)
from engine.domain.people.outcomes import EXPIRED, OUTCOMES
from engine.domain.places.fence_index import Fence, FenceIndex, build
from engine.domain.places.interest import Interest, interest
from engine.domain.places.trips import PACE_SECONDS
from engine.formats.workspace_audiences import read_all
from engine.formats.workspace_computed import reads_clock
from engine.formats.workspace_sequences import watched
from engine.formats.workspace_trips import with_spans

T = TypeVar("T", Rule, Computed, Offer, TripPlan)
Filed = Mapping[tuple[TriggerKind, str], tuple[T, ...]]


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
) -> RuleSet:
    """The rule set of sound parts."""
    by_name = [rules[word] for word in sorted(rules)]
    remembered = watched(by_name)
    scheduled = tuple(rule for rule in by_name if rule.when.schedule is not None)
    by_trigger = {
        **_by_trigger(by_name, lambda rule: rule.when if _is_set_off_at_once(rule.when) else None),
        **{(TriggerKind.WAIT, rule.id): (rule,) for rule in by_name if rule.when.wait is not None},
        **{(TriggerKind.DEFERRED, rule.id): (rule,) for rule in by_name},
        **{(TriggerKind.SCHEDULE, rule.id): (rule,) for rule in scheduled},
    }
    waits_by_trigger = _by_trigger(by_name, lambda rule: rule.when if rule.when.wait is not None else None)
    computed_by_trigger = _by_trigger(workspace.computed, lambda trait: trait.pattern)
    converting = [offer for offer in offers.values() if offer.converts is not None]
    converts_by_trigger = _by_trigger(converting, lambda offer: offer.converts.pattern)
    index = build(fences.values())
    patterns = [
        *(rule.when for rule in by_name),
        *(one.pattern for several in remembered.values() for one in several),
        *(trait.pattern for trait in workspace.computed if trait.pattern is not None),
        *(offer.converts.pattern for offer in converting if offer.converts is not None),
    ]
    named = (by_trigger, waits_by_trigger, remembered, computed_by_trigger)
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
        watched_by_trigger=remembered,
        watched=frozenset(one.key for several in remembered.values() for one in several),
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
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        if rule.when.kind in PLACED:
            for fence_id in rule.when.fences:
                found.setdefault(fence_id, []).append(rule)
    return {fence_id: tuple(several) for fence_id, several in found.items()}


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
    found: dict[tuple[TriggerKind, str], dict[str, TripPlan]] = {}
    for plan in plans:
        for pattern in (plan.starts, *plan.ends):
            for trigger in pattern.triggers:
                found.setdefault(trigger, {})[plan.name] = plan
    return {trigger: tuple(several.values()) for trigger, several in found.items()}


def _stores(fences: Iterable[Fence]) -> Mapping[str, str]:
    """Geofences by their property `store_id`; of two the first by id."""
    ordered = sorted(fences, key=lambda fence: fence.id, reverse=True)
    return {
        str(fence.properties["store_id"]): fence.id for fence in ordered if "store_id" in fence.properties
    }


def _interest(index: FenceIndex, patterns: Sequence[Pattern], memory: float) -> Interest:
    """What the patterns ask of presence beyond enter and exit."""
    spans: dict[TriggerKind, list[tuple[str, timedelta]]] = {}
    for found in patterns:
        if found.span is not None:
            spans.setdefault(found.kind, []).extend((fence, found.span) for fence in found.fences)
    return interest(index, spans.get(TriggerKind.DWELL, ()), spans.get(TriggerKind.APPROACH, ()), memory)


def _by_trigger(items: Iterable[T], pattern_of: Callable[[Any], Pattern | None]) -> Filed[T]:
    found: dict[tuple[TriggerKind, str], list[T]] = {}
    for item in items:
        pattern = pattern_of(item)
        for trigger in pattern.triggers if pattern is not None else ():
            found.setdefault(trigger, []).append(item)
    return {trigger: tuple(several) for trigger, several in found.items()}
