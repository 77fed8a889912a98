"""`trips:`: who is on the way to where, from which event until which."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import msgspec

from engine.domain.offers.expressions import Names
from engine.domain.offers.rules import Pattern, TripPlan
from engine.formats.located_yaml import AnyNode, Entry, ListNode, MapNode
from engine.formats.workspace_names import Declared, event_names, expression
from engine.formats.workspace_patterns import pattern
from engine.formats.workspace_values import Problems, duration, fields, name, shown

EXPIRES: Final = timedelta(hours=2)
LONGEST_TRIP: Final = timedelta(days=7)
_OF_EVENTS: Final = ("event", "page", "screen")


def trips(said: Mapping[str, Entry], problems: Problems, declared: Declared) -> Mapping[str, TripPlan]:
    """The section's entries by name, without those that are wrong."""
    plans = {}
    for word, entry in said.items():
        plan = _trip(entry, problems, declared)
        if plan is not None:
            plans[word] = plan
    return plans


def _trip(entry: Entry, problems: Problems, declared: Declared) -> TripPlan | None:
    before = len(problems)
    name(entry.key, problems, "the name of a trip")
    known = ("starts", "to", "by", "ends", "expires")
    found = fields(entry.node, problems, known, expected="fields such as {starts: Order Placed, to: …}")
    if found is None:
        return None
    missing = [field for field in ("starts", "to") if field not in found]
    problems.extend(entry.key.problem(f'a trip needs "{field}"') for field in missing)
    starts = _event(found["starts"], problems, declared) if "starts" in found else None
    to = expression(found["to"], problems, event_names(None)) if "to" in found else None
    by = expression(found["by"], problems, event_names(None)) if "by" in found else None
    ends: list[Pattern] = []
    if "ends" in found:
        listed = found["ends"]
        for item in listed.items if isinstance(listed, ListNode) else (listed,):
            ended = _event(item, problems, declared)
            if ended is not None:
                ends.append(ended)
    expires: timedelta | None = EXPIRES
    if "expires" in found:
        expires = duration(found["expires"], problems)
        if expires is not None and expires > LONGEST_TRIP:
            message = f"a trip takes a week at the most, found {shown(found['expires'])}"
            problems.append(found["expires"].problem(message))
    if len(problems) > before or starts is None or to is None or expires is None:
        return None
    return TripPlan(name=entry.key.text, starts=starts, to=to, by=by, ends=tuple(ends), expires=expires)


def _event(node: AnyNode, problems: Problems, declared: Declared) -> Pattern | None:
    """An event of the app or of the business; what happens at places begins no trip."""
    if isinstance(node, MapNode) and not any(kind in node.entries for kind in _OF_EVENTS):
        hint = "such as {event: Order Placed}"
        problems.append(node.problem(f"expected an event, found {shown(node)}", hint))
        return None

    def names(below: Names | None) -> Names:
        return event_names(None)

    return pattern(node, problems, declared, names)


def with_spans(plans: Mapping[str, TripPlan], spans: Mapping[str, frozenset[int]]) -> Mapping[str, TripPlan]:
    """The plans, each with how many seconds ahead some rule wants to be told."""
    return {
        word: msgspec.structs.replace(plan, ahead=tuple(sorted(spans.get(word, ()), reverse=True)))
        for word, plan in plans.items()
    }


def is_trip(node: AnyNode) -> bool:
    """Whether a rule's `when:` is about a trip."""
    return isinstance(node, MapNode) and ("arriving" in node.entries or "arrived" in node.entries)
