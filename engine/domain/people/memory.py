"""What a profile remembers of past events, for the rules that look back at them (`after`, `unless`)
and for those that wait (`for`). Everything goes by event time, so that late events find their place.

Bounds, for each person: 64 values of `by` for a pattern, 8 times for each, 32 values for each rule
that waits. Beyond them the value that happened longest ago is forgotten, as if it never had; of the
times the first one and the newest seven stay, so that "ever" is never forgotten. A time that no
rule looks back to is kept a day longer, for events that come late.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import msgspec

from engine.domain.offers.rules import Rule, RuleSet, Step, TriggerKind, Watched
from engine.domain.offers.scope import UNKNOWN, Scope, Unknown
from engine.domain.people.profiles import Past, Profile, Waiting
from engine.domain.people.timers import PREFIX, Alarms, Timer, timer

MOST_VALUES = 64
MOST_TIMES = 8
MOST_WAITING = 32
LONGEST_VALUE = 64
LATE = timedelta(days=1)
WAITED = f"{PREFIX}waited"
"""The name of the event of a rule that has waited."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_json = msgspec.json.Encoder(order="deterministic").encode


class Occurrence(msgspec.Struct, frozen=True):
    """Something that happened: a trigger's kind and name, its time, and what it may look at."""

    key: tuple[TriggerKind, str]
    at: datetime
    scope: Scope
    fence: str | None = None


class Remembered(msgspec.Struct, frozen=True):
    """The memory after an event, the timers of rules that wait, and notes on what was left out."""

    past: Past
    waiting: Waiting
    alarms: Alarms = Alarms()
    notes: tuple[str, ...] = ()


def microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def moment(at: int) -> datetime:
    return _EPOCH + at * _MICROSECOND


def value_of(by: Any) -> str:
    """A value of `by` as the memory keeps it: short texts as they are, all else as a digest."""
    if isinstance(by, str) and len(by) <= LONGEST_VALUE:
        return by
    if isinstance(by, float) and by.is_integer():
        by = int(by)  # JavaScript has one kind of number
    if isinstance(by, int):
        return str(by).lower() if isinstance(by, bool) else str(by)[:LONGEST_VALUE]
    return "#" + blake2b(_json(by), digest_size=8).hexdigest()


def _value(pattern_by: Any, scope: Scope) -> str | Unknown:
    if pattern_by is None:
        return ""
    found = pattern_by.evaluate(scope)
    return UNKNOWN if found is UNKNOWN or found is None else value_of(found)


def happened(
    past: Past,
    step: Step,
    scope: Scope,
    since: datetime | None,
    until: datetime | None,
    but: datetime | None = None,
) -> bool | Unknown:
    """Whether the step's event happened from `since` to `until`, both included and both None for
    without an end; other than at `but`."""
    values = past.get(step.key)
    if not values:
        return False
    value = _value(step.pattern.by, scope)
    if isinstance(value, Unknown):
        return UNKNOWN
    first = microseconds(since) if since is not None else None
    last = microseconds(until) if until is not None else None
    left_out = microseconds(but) if but is not None else None
    return any(
        (first is None or at >= first) and (last is None or at <= last) and at != left_out
        for at in values.get(value, ())
    )


def remember(rules: RuleSet, profile: Profile, occurrences: Iterable[Occurrence]) -> Remembered | None:
    """The memory after some occurrences; None where no rule looks at any of them."""
    found = Remembered(profile.past, profile.waiting)
    for occurrence in occurrences:
        for watched in rules.watched_by_trigger.get(occurrence.key, ()):
            found = _noted(rules, found, watched, occurrence)
        for rule in rules.waits_by_trigger.get(occurrence.key, ()):
            found = _waiting(found, rule, occurrence)
    if found.past is profile.past and found.waiting is profile.waiting and not found.notes:
        return None
    if found.past.keys() <= rules.watched and found.waiting.keys() <= rules.rules.keys():
        return found
    return msgspec.structs.replace(
        found,  # what no rule names any more is not kept
        past={key: values for key, values in found.past.items() if key in rules.watched},
        waiting={rule: values for rule, values in found.waiting.items() if rule in rules.rules},
    )


def _noted(rules: RuleSet, known: Remembered, watched: Watched, occurrence: Occurrence) -> Remembered:
    pattern, scope = watched.pattern, occurrence.scope
    if pattern.condition is not None and pattern.condition.evaluate(scope) is not True:
        return known
    value = _value(pattern.by, scope)
    if isinstance(value, Unknown):
        return msgspec.structs.replace(known, notes=(*known.notes, "no value to remember it by"))
    at = microseconds(occurrence.at)
    values = dict(known.past.get(watched.key, {}))
    times = values.get(value, ())
    if at not in times:
        values[value] = _bounded(tuple(sorted((*times, at))))
    past = {**known.past, watched.key: _kept(values, watched.horizon)}
    known = msgspec.structs.replace(known, past=past)
    for rule_id, within in watched.stops:
        known = _stopped(known, rules.rules[rule_id], None if pattern.by is None else value, at, within)
    return known


def _bounded(times: tuple[int, ...]) -> tuple[int, ...]:
    return times if len(times) <= MOST_TIMES else (times[0], *times[1 - MOST_TIMES :])


def _kept(values: dict[str, tuple[int, ...]], horizon: timedelta | None) -> dict[str, tuple[int, ...]]:
    if horizon is not None:
        newest = max(times[-1] for times in values.values())
        oldest = newest - (horizon + LATE) // _MICROSECOND
        values = {
            value: left
            for value, times in values.items()
            if (left := tuple(at for at in times if at >= oldest))
        }
    while len(values) > MOST_VALUES:
        del values[min(values, key=lambda value: (values[value][-1], value))]
    return values


def _waiting(known: Remembered, rule: Rule, occurrence: Occurrence) -> Remembered:
    """The waiting begins anew with each event: what counts is the last one."""
    pattern, scope = rule.when, occurrence.scope
    if pattern.condition is not None and pattern.condition.evaluate(scope) is not True:
        return known
    value = _value(pattern.by, scope)
    if isinstance(value, Unknown):
        return msgspec.structs.replace(known, notes=(*known.notes, f"{rule.id}: no value to wait by"))
    at = microseconds(occurrence.at)
    values = dict(known.waiting.get(rule.id, {}))
    if value in values and values[value][0] >= at:
        return known
    values[value] = (at, True)
    gone: tuple[str, ...] = ()
    if len(values) > MOST_WAITING:
        longest_ago = min(values, key=lambda v: (values[v][1], values[v][0], v))
        del values[longest_ago]
        gone = (_timer_id(rule.id, longest_ago),)
    alarms = Alarms((), gone)
    if value in values:
        alarms += Alarms((_alarm(rule, value, at, occurrence),))
    return msgspec.structs.replace(
        known, waiting={**known.waiting, rule.id: values}, alarms=known.alarms + alarms
    )


def _stopped(
    known: Remembered, rule: Rule, value: str | None, at: int, within: timedelta | None
) -> Remembered:
    """Ends the waiting of a rule, for one value or for all: what must not have happened has."""
    assert rule.when.wait is not None
    values = known.waiting.get(rule.id, {})
    ended = [
        v
        for v, (since, goes_on) in values.items()
        if goes_on
        and (value is None or v == value)
        and (within is None or moment(at) >= moment(since) + rule.when.wait - within)
    ]
    if not ended:
        return known
    changed = {**values, **{v: (values[v][0], False) for v in ended}}
    return msgspec.structs.replace(
        known,
        waiting={**known.waiting, rule.id: changed},
        alarms=known.alarms + Alarms((), tuple(_timer_id(rule.id, v) for v in ended)),
    )


def _timer_id(rule: str, value: str) -> str:
    return f"{WAITED}:{rule}:{value}"


def _alarm(rule: Rule, value: str, at: int, occurrence: Occurrence) -> Timer:
    assert rule.when.wait is not None
    told = {"rule": rule.id, "value": value, "since": at, "event": dict(occurrence.scope.event)}
    if occurrence.fence is not None:
        told["geofence"] = occurrence.fence
    return timer(_timer_id(rule.id, value), moment(at) + rule.when.wait, WAITED, told)


def waited(profile: Profile, properties: Any) -> Waiting | None:
    """The waiting after a timer of it fired; None where something newer or the end of the waiting
    has made it void."""
    rule, value, since = properties.get("rule"), properties.get("value"), properties.get("since")
    values = profile.waiting.get(rule, {})
    if values.get(value) != (since, True):
        return None
    return {**profile.waiting, rule: {**values, value: (since, False)}}


def united_past(one: Past, other: Past) -> Past:
    """What two profiles remember together that turned out to be one person."""
    together = {key: dict(values) for key, values in one.items()}
    for key, values in other.items():
        known = together.setdefault(key, {})
        for value, times in values.items():
            known[value] = _bounded(tuple(sorted({*known.get(value, ()), *times})))
        together[key] = _kept(known, None)
    return together


def united_waiting(one: Waiting, other: Waiting) -> Waiting:
    """The newest event of each value counts; a waiting that has ended on either side has ended."""
    together = {rule: dict(values) for rule, values in one.items()}
    for rule, values in other.items():
        known = together.setdefault(rule, {})
        for value, (since, goes_on) in values.items():
            held = known.get(value, (since, goes_on))
            ended = not (held[1] and goes_on) if held[0] == since else not max(held, (since, goes_on))[1]
            known[value] = (max(held[0], since), not ended)
        while len(known) > MOST_WAITING:
            del known[min(known, key=lambda v: (known[v][1], known[v][0], v))]
    return together
