"""May this offer be made to this person now? The gates, in the order in which they are checked.

A gate is a function from a candidate and its circumstances to None (go on) or a `Stop`: the reason
and its numbers. Nothing is raised and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, Literal

import msgspec

from engine.domain.account_views import Company
from engine.domain.offers import caps, pauses
from engine.domain.offers.arbitration import expected_value
from engine.domain.offers.assignment import is_rolled_out, place
from engine.domain.offers.decisions import Reason
from engine.domain.offers.expressions import Expression
from engine.domain.offers.patterns import changed_audience, meet
from engine.domain.offers.pauses import NOTHING_PAUSED, Paused
from engine.domain.offers.rules import Offer, Purpose, Rule, TriggerKind, Workspace
from engine.domain.offers.scope import UNKNOWN, Scope, is_number
from engine.domain.people.consent import permits, state_of
from engine.domain.people.events import Event
from engine.domain.people.identity import QUARANTINE
from engine.domain.people.memory import happened, value_of
from engine.domain.people.profiles import Address, Past, Profile
from engine.domain.places.fence_index import Fence


class Stop(msgspec.Struct, frozen=True, gc=False):
    """Why a candidate goes no further, and by how much."""

    reason: Reason
    numbers: Mapping[str, Any] = {}


class Candidate(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An offer that a rule put forward now, with what it may look at. `at` is the trigger's time."""

    rule: Rule
    offer: Offer
    purpose: Purpose
    trigger: TriggerKind
    at: datetime
    fence: Fence | None
    scope: Scope
    channel: Literal["push", "in_app", "webhook"] = "push"
    placement: str | None = None
    variant: str | None = None
    deferred_at: datetime | None = None

    @property
    def is_contract(self) -> bool:
        return self.purpose.basis == "contract"

    @property
    def stands_alone(self) -> bool:
        """Whether it competes with nothing, and no cap, holdout or quiet hour is asked."""
        return self.offer.webhook is not None or self.purpose.basis == "contract"

    @property
    def is_action(self) -> bool:
        return self.offer.webhook is not None

    def value_of(self, by: Expression | None) -> str:
        """What a cap counts this candidate under; all that have no value count together."""
        found = by.evaluate(self.scope) if by is not None else None
        return "" if found is None or found is UNKNOWN else value_of(found)

    def __repr__(self) -> str:
        return f"Candidate({self.rule.id!r}, {self.offer.id!r})"


class Circumstances(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What all candidates of one event share. `fences_at_newest` are the fences around the newest
    fix of the same request, None where that is the event's own; `past` is what was remembered before
    the event; `company` is the account that it is of, where anything looks at that; `scores` holds what
    the models said so far, None for a model that failed."""

    workspace: Workspace
    profile: Profile
    event: Event
    now: datetime
    local: datetime
    fences_at_newest: frozenset[str] | None
    address: Address | None
    scores: Mapping[str, float | None]
    past: Past = {}
    paused: Paused = NOTHING_PAUSED
    company: Company | None = None
    account_audiences: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return "Circumstances(…)"


class Worth(msgspec.Struct, frozen=True, gc=False):
    """A candidate's score. `value` is None for an offer that states none."""

    propensity: float | None = None
    value: float | None = None


DEFERRED_KEPT = timedelta(days=1)
"""How long after its trigger an offer that was put off may be made, where no `send` says so."""

_BEING_THERE = (TriggerKind.ENTER, TriggerKind.DWELL, TriggerKind.ARRIVED)
"""What must find the person inside still; an exit and an approach must not."""

Gate = Callable[[Candidate, Circumstances], "Stop | None"]


def pause(c: Candidate, now: Circumstances) -> Stop | None:
    stop = now.paused.stop(c.rule.id, c.offer.id, c.channel) if now.paused else None
    return Stop(Reason.PAUSED, pauses.numbers(stop)) if stop is not None else None


def dates(c: Candidate, now: Circumstances) -> Stop | None:
    for part in (c.rule, c.offer):
        if part.starts is not None and now.now < part.starts:
            return Stop(Reason.OUTSIDE_DATES, {"starts": part.starts})
        if part.ends is not None and now.now >= part.ends:
            return Stop(Reason.OUTSIDE_DATES, {"ends": part.ends})
    return None


def restriction(c: Candidate, now: Circumstances) -> Stop | None:
    return Stop(Reason.RESTRICTED, {}) if now.profile.restricted else None


def quarantine(c: Candidate, now: Circumstances) -> Stop | None:
    identities = len(now.profile.identities)
    return Stop(Reason.QUARANTINED, {"identities": identities}) if identities > QUARANTINE else None


def consent(c: Candidate, now: Circumstances) -> Stop | None:
    if permits(now.profile.consent, c.purpose):
        return None
    state = state_of(now.profile.consent, c.purpose.name)
    return Stop(Reason.NO_CONSENT, {"purpose": c.purpose.name, "state": state})


def freshness(c: Candidate, now: Circumstances) -> Stop | None:
    age = ((c.deferred_at or now.now) - c.at).total_seconds()
    if c.rule.fresh is not None and age > c.rule.fresh.total_seconds():
        return Stop(Reason.STALE_EVENT, {"ageSeconds": age, "freshSeconds": c.rule.fresh.total_seconds()})
    if c.deferred_at is not None:
        expires = c.at + (c.rule.send.expires if c.rule.send is not None else DEFERRED_KEPT)
        return Stop(Reason.STALE_EVENT, {"expired": expires}) if now.now > expires else None
    if c.fence is None or c.trigger is TriggerKind.ARRIVING:
        return None  # what waits for them is to be ready, also if they are there by now
    if now.fences_at_newest is not None:
        inside = c.fence.id in now.fences_at_newest
        if inside is not (c.trigger in _BEING_THERE):
            return Stop(Reason.STALE_EVENT, {"insideAtNewestFix": inside})
    elif c.trigger is TriggerKind.DWELL and c.fence.id not in now.profile.presence.inside:
        return Stop(Reason.STALE_EVENT, {"insideAtNewestFix": False})  # the fix that ended it tells it
    return None


def condition(c: Candidate, now: Circumstances) -> Stop | None:
    unknown: Stop | None = None
    for expression in (c.rule.when.condition, c.rule.condition):
        if expression is None:
            continue
        answer = expression.evaluate(c.scope)
        if answer is UNKNOWN:  # what is false anyway needs no knowing
            unknown = unknown or Stop(Reason.CONDITION_UNKNOWN, {"condition": expression.text})
        elif answer is not True:
            return Stop(Reason.CONDITION_FALSE, {"condition": expression.text})
    return unknown


def sequence(c: Candidate, now: Circumstances) -> Stop | None:
    """What must have happened before the trigger, and what must not have by now. The trigger itself
    is neither."""
    if not (c.rule.after or c.rule.unless):
        return None
    unknown: Stop | None = None
    own = c.rule.when if c.rule.when.wait is None else None
    for name, steps, wanted in (("after", c.rule.after, True), ("unless", c.rule.unless, False)):
        for step in steps:
            is_own = own is not None and meet(own, step.pattern)
            past = now.past if is_own else now.profile.past
            since = c.at - step.within if step.within is not None else None
            but = c.at if c.deferred_at is not None and is_own else None
            found = happened(past, step, c.scope, since, c.at if wanted else None, but)
            if found is UNKNOWN:
                unknown = unknown or Stop(Reason.CONDITION_UNKNOWN, {name: step.text})
            elif found is not wanted:
                return Stop(Reason.CONDITION_FALSE, {name: step.text})
    return unknown


def audience(c: Candidate, now: Circumstances) -> Stop | None:
    """Who left again while an offer was put off is offered it no more than who never was in it."""
    wanted_of = c.rule.audience
    if c.trigger is TriggerKind.AUDIENCE:
        wanted_of = (changed_audience(c.rule.when.name), *wanted_of)
    elif c.trigger is TriggerKind.SCHEDULE:
        wanted_of = ((c.rule.when.name, True), *wanted_of)
    for name, wanted in wanted_of:
        if name in now.account_audiences:
            if (stop := _account_audience(name, wanted, now)) is not None:
                return stop
        elif (name in now.profile.audiences.since) is not wanted:
            return Stop(Reason.NOT_IN_AUDIENCE, {"audience": name if wanted else f"!{name}"})
    if not is_rolled_out(c.rule, now.profile.cohort_key):
        return Stop(Reason.NOT_IN_AUDIENCE, {"rollout": c.rule.rollout})
    return None


def _account_audience(name: str, wanted: bool, now: Circumstances) -> Stop | None:
    """Of accounts it is asked whether the event's one is in it, which needs one that is known."""
    known = now.company.audiences if now.company is not None else None
    if known is None:
        return Stop(Reason.CONDITION_UNKNOWN, {"audience": name, "of": "account"})
    if (name in known) is not wanted:
        return Stop(Reason.NOT_IN_AUDIENCE, {"audience": name if wanted else f"!{name}", "of": "account"})
    return None


def hours(c: Candidate, now: Circumstances) -> Stop | None:
    if c.rule.during is None or caps.is_during(c.rule.during, now.local):
        return None
    return Stop(Reason.OUTSIDE_HOURS, {"local": now.local.strftime("%a %H:%M")})


def conversion(c: Candidate, now: Circumstances) -> Stop | None:
    at = now.profile.converted.get(c.offer.id)
    if at is None or c.stands_alone:
        return None
    again = c.offer.again_after
    if again is not None and now.now - at >= again:
        return None
    seconds = again.total_seconds() if again is not None else None
    return Stop(Reason.ALREADY_CONVERTED, {"converted": at, "againAfterSeconds": seconds})


def device(c: Candidate, now: Circumstances) -> Stop | None:
    return Stop(Reason.NO_DEVICE) if c.channel == "push" and now.address is None else None


def permission(c: Candidate, now: Circumstances) -> Stop | None:
    denied = c.channel == "push" and now.address is not None and now.address.denies_push
    return Stop(Reason.NO_PERMISSION, {"push": "denied"}) if denied else None


def frequency(c: Candidate, now: Circumstances) -> Stop | None:
    if c.stands_alone:
        return None
    for cap in now.workspace.caps:
        if cap.channel not in (None, c.channel) or cap.purpose not in (None, c.purpose.name):
            continue
        count = caps.counted(now.profile.contacts, cap, now.local, None)
        if count >= cap.times:
            return _capped(cap.times, cap.per.text, count, "workspace")
    for cap in c.rule.caps:
        contacts, value = now.profile.contacts, c.value_of(cap.by)
        if cap.of_account:
            value = now.event.group_id or ""
            contacts = now.company.contacts if now.company is not None else contacts
        count = caps.counted(contacts, cap, now.local, c.rule.id, value)
        if count >= cap.times:
            return _capped(cap.times, cap.per.text, count, c.rule.id)
    return None


def _capped(times: int, per: str, count: int, of: str) -> Stop:
    return Stop(Reason.CAPPED, {"times": times, "per": per, "count": count, "of": of})


def budget(c: Candidate, now: Circumstances) -> Stop | None:
    """What cannot be counted exactly over all people is not given away: `check` says so."""
    if c.offer.budget is not None:
        return Stop(Reason.BUDGET_EXHAUSTED, {"times": c.offer.budget.times, "counted": False})
    if c.offer.pool is not None:
        return Stop(Reason.NO_CODE, {"pool": c.offer.pool, "counted": False})
    return None


BEFORE_SCORING: tuple[Gate, ...] = (
    pause,
    dates,
    restriction,
    quarantine,
    consent,
    freshness,
    condition,
    sequence,
    audience,
    hours,
    conversion,
    device,
    permission,
    frequency,
    budget,
)


def models_read(c: Candidate, known: Iterable[str]) -> frozenset[str]:
    """The models that the candidate's conditions or worth depend on, of those `known`."""
    needed = {model for model in (c.offer.model, c.offer.baseline) if model is not None}
    for expression in (c.rule.when.condition, c.rule.condition, c.offer.value):
        for path in expression.reads if expression is not None else ():
            if path == "propensity":  # any of them: the name is an expression itself
                needed.update(known)
            elif path.startswith("propensity."):
                needed.add(path.removeprefix("propensity."))
    return frozenset(needed)


def worth(c: Candidate, now: Circumstances) -> Worth | Stop:
    """The candidate's propensity and expected value, or why it is not worth making."""
    offer = c.offer
    propensity = offer.prior if offer.model is None else _probability(now.scores.get(offer.model))
    if c.stands_alone:
        return Worth(propensity)
    if offer.model is not None and propensity is None:
        return Stop(Reason.MODEL_FAILED, {"model": offer.model})
    if propensity is not None and propensity < offer.at_least:
        return Stop(Reason.LOW_PROPENSITY, {"propensity": propensity, "atLeast": offer.at_least})
    if offer.value is None:
        return Worth(propensity)
    baseline: float | None = 0.0
    if offer.baseline is not None:
        baseline = _probability(now.scores.get(offer.baseline))
        if baseline is None:
            return Stop(Reason.MODEL_FAILED, {"model": offer.baseline})
    value = offer.value.evaluate(c.scope)
    if not is_number(value):
        return Stop(Reason.CONDITION_UNKNOWN, {"value": offer.value.text})
    expected = expected_value(float(value), offer, propensity or 0.0, baseline or 0.0, c.rule.lever)
    if not isfinite(expected):
        return Stop(Reason.CONDITION_UNKNOWN, {"value": offer.value.text})
    if expected <= 0.0:
        return Stop(
            Reason.NOT_WORTH_IT,
            {"expectedValue": expected, "propensity": propensity, "value": value, "cost": offer.cost},
        )
    return Worth(propensity, expected)


def _probability(score: float | None) -> float | None:
    return score if score is not None and 0.0 <= score <= 1.0 else None


def control(c: Candidate, now: Circumstances) -> Stop | None:
    """Checked for the winner only, so that what the person would have been offered is on record and
    those who get nothing are like those who do."""
    if c.stands_alone:
        return None
    key, everywhere = now.profile.cohort_key, now.workspace.holdout
    if everywhere and place(key, "holdout") < everywhere:
        return Stop(Reason.HOLDOUT, {"share": everywhere, "of": "workspace"})
    rule = c.rule
    if rule.holdout and place(key, f"holdout:{rule.experiment or rule.id}") < rule.holdout:
        reason = Reason.HOLDOUT if rule.experiment is None else Reason.EXPERIMENT_CONTROL
        return Stop(reason, {"share": rule.holdout, "of": rule.experiment or rule.id})
    if rule.variants and c.variant is None:
        left = 1.0 - sum(arm.share for arm in rule.variants)
        return Stop(Reason.EXPERIMENT_CONTROL, {"share": left, "of": rule.experiment or rule.id})
    return None
