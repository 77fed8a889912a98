"""Who is in which audience: kept in the profile, exact with every event and as time passes.

A person is in an audience while its condition is true of them: false and unknown are both outside.
What changes is told as triggers. Time is followed step by step, so that somebody whom no event
reached for a month has entered and left at the very moments at which the conditions turned. People
of whom a condition is true already when its audience is declared are members, but did not enter.

Conditions that read a propensity are looked at with every event that changes something of the
person, where the score can still change the answer, and once a day without an event: scores move with
time, too.

Accounts are in audiences of accounts in the same way: their conditions read `account`, which is bound to
the same profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from engine.domain.offers.cel_moments import turning_point
from engine.domain.offers.rules import Audience, RuleSet
from engine.domain.offers.scope import UNKNOWN, Scope
from engine.domain.people import computed
from engine.domain.people.profiles import Membership, Profile
from engine.domain.people.timers import NO_ALARMS, PREFIX, Alarms, timer

TIMER = f"{PREFIX}audiences"
DIGEST_BYTES = 4
SCORED_AGAIN_AFTER = timedelta(days=1)
MOST_STEPS = 200
"""Turns of time that are followed one by one; of somebody who was away for longer, the rest at once."""


class Change(msgspec.Struct, frozen=True):
    """Somebody entered an audience, or left it."""

    name: str
    entered: bool
    at: datetime


class Followed(msgspec.Struct, frozen=True):
    """What came of it: the membership, what changed, and the models whose scores are still to be asked
    for. `silent` are audiences that the person did not enter or leave but is or is not in."""

    membership: Membership
    changes: tuple[Change, ...] = ()
    needed: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()


def is_stale(rules: RuleSet, before: Profile, now: datetime) -> bool:
    """Whether the membership must be looked at although no trait changed: definitions are new, time may
    have changed it, the timer fired and is to be set again, or it hangs on what any event changes."""
    kept = before.audiences
    return (
        rules.audiences_read_all
        or kept.stamp != rules.audience_stamp
        or (kept.due is not None and kept.due <= now)
        or (kept.armed is not None and kept.armed <= now)
    )


def follow(rules: RuleSet, before: Profile, after: Profile, now: datetime) -> Followed:
    """The membership after what `before` became `after`, time that passed until `now` included."""
    kept = before.audiences
    changes: list[Change] = []
    silent: frozenset[str] = frozenset()
    if kept.stamp != rules.audience_stamp:
        kept, silent = _declared(rules, before, now)
    for _ in range(MOST_STEPS):
        if kept.due is None or kept.due >= now:
            break
        turned = _checked(rules, before, kept, kept.due, None)
        kept = turned.membership
        changes += turned.changes
    found = _checked(rules, after, kept, now, None, silent)
    return msgspec.structs.replace(found, changes=(*changes, *found.changes), silent=silent)


def scored(
    rules: RuleSet, followed: Followed, after: Profile, now: datetime, scores: Mapping[str, float | None]
) -> Followed:
    """The membership once the models that `follow` asked for have answered."""
    found = _checked(rules, after, followed.membership, now, scores, followed.silent)
    kept = found.membership
    if followed.needed:
        again = now + SCORED_AGAIN_AFTER
        kept = msgspec.structs.replace(kept, due=again if kept.due is None else min(kept.due, again))
    return msgspec.structs.replace(found, membership=kept, changes=followed.changes + found.changes)


def armed(profile: Profile, now: datetime) -> tuple[Profile, Alarms]:
    """The profile, with a timer for when time changes its audiences next. One that is set for earlier
    is left: it finds nothing to do and is set again, which is cheaper than to move it with each event."""
    kept = profile.audiences
    if kept.armed is not None and now < kept.armed and (kept.due is None or kept.armed <= kept.due):
        return profile, NO_ALARMS
    if kept.due is None and kept.armed is None:
        return profile, NO_ALARMS
    profile = msgspec.structs.replace(profile, audiences=msgspec.structs.replace(kept, armed=kept.due))
    if kept.due is None:
        return profile, NO_ALARMS
    return profile, Alarms((timer(TIMER, kept.due, TIMER, {}, paced=True),))


def _declared(rules: RuleSet, before: Profile, now: datetime) -> tuple[Membership, frozenset[str]]:
    """The membership under definitions that are new to the profile, and whose changes are not to be
    told: nobody enters an audience by its being declared."""
    stamp = before.audiences.stamp
    known = {stamp[at : at + DIGEST_BYTES] for at in range(0, len(stamp), DIGEST_BYTES)}
    names = {audience.name for audience in rules.audiences if audience.digest in known}
    since = {name: at for name, at in before.audiences.since.items() if name in names}
    kept = msgspec.structs.replace(before.audiences, since=since, stamp=rules.audience_stamp)
    if not before.seq:
        return kept, frozenset()
    new = [audience for audience in rules.audiences if audience.name not in names]
    kept = _checked(rules, before, kept, now, None, only=new).membership
    return kept, frozenset(audience.name for audience in new if audience.models)


def _checked(
    rules: RuleSet,
    profile: Profile,
    kept: Membership,
    now: datetime,
    scores: Mapping[str, float | None] | None,
    silent: frozenset[str] = frozenset(),
    only: Iterable[Audience] | None = None,
) -> Followed:
    """Every condition at one moment. One that hangs on a score leaves things as they are until the
    score is there, and where the model failed."""
    since = dict(kept.since)
    view = computed.profile_view(profile, rules.workspace, now)
    view["audiences"] = list(since)
    scope = Scope(profile=view, account=view, propensity=scores or {}, now=now)
    changes: list[Change] = []
    needed: set[str] = set()
    for audience in rules.audiences if only is None else only:
        answer = audience.condition.evaluate(scope)
        if answer is UNKNOWN and audience.models:
            if scores is None:
                needed |= audience.models
                continue
            if any(scores.get(model) is None for model in audience.models):
                continue
        if (answer is True) is (audience.name in since):
            continue
        if answer is True:
            since[audience.name] = now
        else:
            del since[audience.name]
        view["audiences"] = list(since)
        if audience.name not in silent:
            changes.append(Change(audience.name, answer is True, now))
    due = next_turn(rules.audiences, profile, view, now)
    if since == kept.since:
        since = kept.since
    kept = msgspec.structs.replace(kept, since=since, due=due)
    return Followed(kept, tuple(changes), frozenset(needed))


def next_turn(
    audiences: Iterable[Audience], profile: Profile, view: Mapping[str, Any], now: datetime
) -> datetime | None:
    """When time alone can change one of the answers next."""
    due: datetime | None = None
    for audience in audiences:
        for found in _turns(audience, profile, view, now):
            if due is None or found < due:
                due = found
    return due


def _turns(
    audience: Audience, profile: Profile, view: Mapping[str, Any], now: datetime
) -> Iterator[datetime]:
    def scope_at(at: datetime) -> Scope:
        grown = computed.read(profile.computed, audience.ticking, at)
        then = {**view, **{name: grown[name] for name in grown if name in view}}
        return Scope(profile=then, account=then, now=at)

    for moment in audience.moments:
        if (turn := turning_point(moment, scope_at, now)) is not None:
            yield turn
    for trait in audience.shifting:
        if trait.name in view and (change := computed.next_change(trait, profile.computed, now)) is not None:
            yield change
