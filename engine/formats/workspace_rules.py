"""`rules:`: when, for whom, and which offers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time, timedelta, tzinfo
from typing import Final, Literal, cast

from engine.domain.offers.caps import WEEKDAYS
from engine.domain.offers.eligibility import DEFERRED_KEPT
from engine.domain.offers.expressions import Type
from engine.domain.offers.rules import ON_A_TRIP, PLACED, Cap, During, Offer, Rule, SendTime, TriggerKind
from engine.formats.located_yaml import AnyNode, Entry, ListNode, MapNode, Scalar
from engine.formats.workspace_caps import caps
from engine.formats.workspace_dates import Dates, dates
from engine.formats.workspace_names import TRIP, Declared, expression, rule_names
from engine.formats.workspace_patterns import geofence_names
from engine.formats.workspace_sequences import steps
from engine.formats.workspace_trials import trial
from engine.formats.workspace_triggers import audience_gate, trigger
from engine.formats.workspace_values import (
    Problems,
    choice,
    duration,
    fields,
    is_misspelt,
    name,
    names,
    number,
    shown,
    time_of_day,
    unresolved,
)

_FIELDS: Final = (
    "when",
    "after",
    "unless",
    "if",
    "during",
    "offer",
    "offers",
    "do",
    "audience",
    "rollout",
    "experiment",
    "holdout",
    "variants",
    "cap",
    "send",
    "quiet",
    "placement",
    "fresh",
    "priority",
    "lever",
    "tags",
    "starts",
    "ends",
)
_PUTS_FORWARD: Final = ("offer", "offers", "do", "variants")
_OF_OFFERS: Final = (
    *("offer", "offers", "variants", "placement"),
    *("cap", "experiment", "holdout", "lever", "quiet", "send"),
)
"""What a rule that does something has no use for: an action competes with nothing and counts as nothing."""
FRESH_AT_PLACES: Final = timedelta(minutes=10)
"""How old the fix of what happens at a place may be, where a rule says nothing; that of an approach
no older than what it looks ahead."""
FRESH_ON_SCHEDULE: Final = timedelta(hours=4)
"""How late a schedule may be carried out, where a rule says nothing: after an outage, say."""

_MOST: Final = 1e6


def rule(
    entry: Entry, problems: Problems, declared: Declared, zone: tzinfo, catalogue: Mapping[str, Offer]
) -> Rule | None:
    """One entry of `rules:`. `catalogue` are the offers that are sound."""
    node = entry.node
    before = len(problems)
    name(entry.key, problems, "the name of a rule")
    found = fields(node, problems, _FIELDS, expected="fields such as {when: …, offer: …}")
    if found is None or not isinstance(node, MapNode):
        return None
    when = None
    if "when" not in found:
        if not is_misspelt(node, ("when",)):
            problems.append(entry.key.problem('a rule needs "when": what sets it off'))
    else:
        when = trigger(found["when"], problems, declared, lambda below: rule_names(declared, below))
    at_place = when is None or when.kind in PLACED
    after = steps(found["after"], problems, declared, "after", at_place) if "after" in found else ()
    unless = steps(found["unless"], problems, declared, "unless", at_place) if "unless" in found else ()
    condition = None
    if "if" in found:
        below = geofence_names(when, declared)
        readable = rule_names(declared, below)
        if when is None or when.kind in ON_A_TRIP:
            readable = {**rule_names(declared, declared.everywhere), **TRIP}
        condition = expression(found["if"], problems, readable, Type.BOOL)
    offers = _offers(entry, node, found, problems, declared)
    asked = audience_gate(found["audience"], problems, declared) if "audience" in found else ()
    tried = trial(node, found, problems, declared, catalogue)
    fresh = None
    if when is not None and when.kind in PLACED:
        ahead = when.span if when.kind is TriggerKind.APPROACH else None
        fresh = min(FRESH_AT_PLACES, ahead or FRESH_AT_PLACES)
    elif when is not None and when.kind in ON_A_TRIP:
        fresh = min(FRESH_AT_PLACES, when.span or FRESH_AT_PLACES)
    elif when is not None and when.schedule is not None:
        fresh = FRESH_ON_SCHEDULE
    if "fresh" in found:
        fresh = duration(found["fresh"], problems)
    quiet = choice(found["quiet"], problems, ("defer", "drop")) if "quiet" in found else None
    send = _send(found["send"], problems) if "send" in found else None
    placement = None
    if "placement" in found:
        placement = name(found["placement"], problems, "the name of a placement")
    priority = lever = None
    if "priority" in found:
        priority = number(found["priority"], problems, "priority", low=-_MOST, high=_MOST)
    if "lever" in found:
        lever = number(found["lever"], problems, "lever", low=-1, high=100)
    during = _during(found["during"], problems) if "during" in found else None
    capped: tuple[Cap, ...] = ()
    if "cap" in found:
        capped = caps(found["cap"], problems, below=geofence_names(when, declared))
    action = _action(node, found, problems, declared) if "do" in found else None
    span = dates(found, problems, zone) if "starts" in found or "ends" in found else Dates()
    tags = frozenset(names(found["tags"], problems, "tags")) if "tags" in found else frozenset[str]()
    if len(problems) > before or when is None:
        return None
    return Rule(
        id=entry.key.text,
        when=when,
        offers=offers,
        action=action,
        after=after,
        unless=unless,
        condition=condition,
        audience=asked,
        rollout=tried.rollout,
        experiment=tried.experiment,
        holdout=tried.holdout,
        variants=tried.variants,
        during=during,
        caps=capped,
        fresh=fresh,
        send=send,
        placement=placement,
        quiet=cast(Literal["defer", "drop"] | None, quiet),
        priority=priority or 0.0,
        lever=lever or 0.0,
        tags=tags,
        starts=span.starts,
        ends=span.ends,
        file=node.source.file,
    )


def _offers(
    entry: Entry, node: MapNode, found: dict[str, AnyNode], problems: Problems, declared: Declared
) -> tuple[str, ...]:
    if "offer" in found and "offers" in found:
        problems.append(node.entries["offers"].key.problem('"offer" and "offers" exclude each other'))
    elif "offers" in found:
        return _several(found["offers"], problems, declared)
    elif "offer" in found:
        value = found["offer"]
        if isinstance(value, ListNode):
            problems.append(value.problem("one offer stands here", "several stand under offers:"))
            return ()
        return _one(value, problems, declared)
    elif node.entries.keys().isdisjoint(_PUTS_FORWARD) and not is_misspelt(node, _PUTS_FORWARD):
        problems.append(entry.key.problem('a rule needs an "offer" or "offers"'))
    return ()


def _action(
    node: MapNode, found: Mapping[str, AnyNode], problems: Problems, declared: Declared
) -> str | None:
    for word in _OF_OFFERS:
        if word in found:
            hint = "an action is done whenever its rule says so"
            problems.append(node.entries[word].key.problem(f'"{word}" belongs to offers, not to "do"', hint))
    do = found["do"]
    wanted = name(do, problems, "the name of an action")
    if wanted is not None and isinstance(do, Scalar) and wanted not in declared.actions:
        if declared.complete:
            problems.append(unresolved(do, "action", wanted, declared.actions))
        return None
    return wanted


def _send(node: AnyNode, problems: Problems) -> SendTime | None:
    found = fields(node, problems, ("at", "expires"), expected='a time such as {at: "10:00", expires: 2d}')
    if found is None:
        return None
    if "at" not in found:
        problems.append(node.problem('"at" is missing'))
        return None
    at = time_of_day(found["at"], problems)
    expires = duration(found["expires"], problems) if "expires" in found else DEFERRED_KEPT
    return None if at is None or expires is None else SendTime(at, expires)


def _several(node: AnyNode, problems: Problems, declared: Declared) -> tuple[str, ...]:
    if not isinstance(node, ListNode) or not node.items:
        hint = f"write [{node.text}]" if isinstance(node, Scalar) and node.text else None
        problems.append(node.problem(f"expected a list of offers, found {shown(node)}", hint))
        return ()
    offers: list[str] = []
    for item in node.items:
        for word in _one(item, problems, declared):
            if word in offers:
                problems.append(item.problem(f'the offer "{word}" stands twice'))
            offers.append(word)
    return tuple(offers)


def _one(node: AnyNode, problems: Problems, declared: Declared) -> tuple[str, ...]:
    word = name(node, problems, "the name of an offer")
    if word is None or not isinstance(node, Scalar):
        return ()
    if word not in declared.offers:
        if declared.complete:
            problems.append(unresolved(node, "offer", word, declared.offers))
        return ()
    return (word,)


def _during(node: AnyNode, problems: Problems) -> During | None:
    expected = 'hours such as {from: "07:00", to: "10:00", days: [mon, tue]}'
    found = fields(node, problems, ("from", "to", "days"), expected=expected)
    if found is None:
        return None
    if not found:
        problems.append(node.problem(f"expected {expected}"))
    start = time_of_day(found["from"], problems) if "from" in found else None
    end = time_of_day(found["to"], problems) if "to" in found else None
    if ("from" in found) != ("to" in found):
        problems.append(node.problem(f'"{"to" if "from" in found else "from"}" is missing'))
    if start is not None and start == end:
        hint = "leave both out for the whole day"
        problems.append(found["to"].problem("hours that end when they begin", hint))
    days: set[str] = set()
    if "days" in found:
        listed = found["days"]
        if not isinstance(listed, ListNode) or not listed.items:
            problems.append(listed.problem(f"expected days such as [mon, tue], found {shown(listed)}"))
        else:
            chosen = (choice(item, problems, WEEKDAYS) for item in listed.items)
            days = {day for day in chosen if day is not None}
    return During(start or time(0), end or time(0), frozenset(days))
