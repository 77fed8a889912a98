"""`when:` of a rule, and `audience:`: what sets it off, and for whom."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from engine.domain.offers.cron import CronError, parse
from engine.domain.offers.deferral import SPREAD
from engine.domain.offers.expressions import Type
from engine.domain.offers.rules import Pattern, Schedule, TriggerKind, audience_change
from engine.formats.located_yaml import AnyNode, ListNode, MapNode, Scalar
from engine.formats.workspace_names import TRIP, Declared, expression
from engine.formats.workspace_patterns import NamesFor, pattern
from engine.formats.workspace_trips import is_trip
from engine.formats.workspace_values import Problems, choice, duration, fields, name, shown, unresolved

_NOT: Final = "!"
_HINT: Final = 'such as "0 10 * * 1": Mondays at 10:00'


def trigger(node: AnyNode, problems: Problems, declared: Declared, names_for: NamesFor) -> Pattern | None:
    """What sets a rule off: an event kind, perhaps some time after the last one, a change of audience,
    or a schedule."""
    if isinstance(node, MapNode) and "schedule" in node.entries:
        return _schedule(node, problems, declared)
    if isinstance(node, MapNode) and "audience" in node.entries:
        return _change(node, problems, declared)
    if isinstance(node, MapNode) and is_trip(node):
        return _travelling(node, problems, declared, names_for)
    found = pattern(node, problems, declared, names_for, ("for", "by"))
    if isinstance(node, MapNode) and "by" in node.entries and "for" not in node.entries:
        problems.append(node.entries["by"].key.problem('"by" needs a "for": how long to wait'))
    return found


def _travelling(node: MapNode, problems: Problems, declared: Declared, names_for: NamesFor) -> Pattern | None:
    """`{arriving: TRIP, within: 3m}` or `{arrived: TRIP}`, each with an `if:`."""
    kind = TriggerKind.ARRIVING if "arriving" in node.entries else TriggerKind.ARRIVED
    spanned = ("within",) if kind is TriggerKind.ARRIVING else ()
    before = len(problems)
    found = fields(node, problems, (kind.value, *spanned, "if")) or {}
    word = name(found[kind.value], problems, "the name of a trip")
    if word is not None and word not in declared.trips and declared.complete:
        problems.append(unresolved(found[kind.value], "trip", word, declared.trips))
    span = None
    if spanned and "within" not in found:
        message = '"within" is missing: how long before they are there'
        problems.append(node.entries[kind.value].key.problem(message, "add within: 3m"))
    elif spanned:
        span = duration(found["within"], problems)
        if span is not None:
            span = timedelta(seconds=max(1, round(span.total_seconds())))
    condition = None
    if "if" in found:
        readable = {**names_for(declared.everywhere), **TRIP}
        condition = expression(found["if"], problems, readable, Type.BOOL)
    if len(problems) > before or word is None:
        return None
    return Pattern(kind=kind, name=word, span=span, condition=condition)


def _schedule(node: MapNode, problems: Problems, declared: Declared) -> Pattern | None:
    found = fields(node, problems, ("schedule", "audience", "over")) or {}
    cron = word = None
    written = found["schedule"]
    text = name(written, problems, 'a schedule such as "0 10 * * 1"')
    if text is not None:
        try:
            cron = parse(text)
        except CronError as fault:
            problems.append(written.problem(str(fault), _HINT))
    if "audience" in found:
        word = _audience(found["audience"], problems, declared)
        if word in declared.account_audiences:
            message = f'"{word}" is of accounts: a schedule is for people'
            problems.append(found["audience"].problem(message))
            return None
    else:
        problems.append(node.problem('"audience" is missing: whom the schedule is for'))
    over = duration(found["over"], problems) if "over" in found else SPREAD
    if cron is None or word is None or over is None:
        return None
    return Pattern(kind=TriggerKind.SCHEDULE, name=word, schedule=Schedule(cron, over))


def _change(node: MapNode, problems: Problems, declared: Declared) -> Pattern | None:
    found = fields(node, problems, ("audience", "change")) or {}
    word = _audience(found["audience"], problems, declared)
    change = None
    if "change" in found:
        change = choice(found["change"], problems, ("entered", "left"))
    else:
        problems.append(node.problem('"change" is missing: entered or left'))
    if word is None or change is None:
        return None
    return Pattern(kind=TriggerKind.AUDIENCE, name=audience_change(word, change == "entered"))


def audience_gate(node: AnyNode, problems: Problems, declared: Declared) -> tuple[tuple[str, bool], ...]:
    """Audiences that a person must be in, or with "!" must not."""
    items = node.items if isinstance(node, ListNode) else (node,)
    if not items:
        problems.append(node.problem(f"expected an audience or a list of them, found {shown(node)}"))
    gate: dict[str, bool] = {}
    for item in items:
        wanted = not (isinstance(item, Scalar) and item.text.startswith(_NOT))
        word = _audience(item, problems, declared)
        if word is None:
            continue
        if gate.get(word, wanted) is not wanted:
            problems.append(item.problem(f'nobody is in "{word}" and not in it'))
        gate[word] = wanted
    return tuple(gate.items())


def _audience(node: AnyNode, problems: Problems, declared: Declared) -> str | None:
    word = name(node, problems, "the name of an audience")
    if word is None or not isinstance(node, Scalar):
        return None
    word = word.removeprefix(_NOT)
    known = declared.audiences | declared.account_audiences
    if word not in known:
        if declared.complete:
            problems.append(unresolved(node, "audience", word, known))
        return None
    return word
