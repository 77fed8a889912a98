"""Event kinds: what sets a rule off, or is counted by a computed trait."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import msgspec

from engine.domain.offers.expressions import Expression, Names, Type
from engine.domain.offers.rules import PLACED, Pattern, TriggerKind
from engine.domain.places.packed_fences import sort_of
from engine.domain.places.shapes import Beacon
from engine.formats.located_yaml import AnyNode, MapNode, Scalar
from engine.formats.workspace_names import Declared, event_names, expression, fence_names
from engine.formats.workspace_values import Problems, duration, fields, is_misspelt, name, shown, unresolved

_NAMED: Final = {"event": TriggerKind.EVENT, "page": TriggerKind.PAGE, "screen": TriggerKind.SCREEN}
_PLACED: Final = {kind.value: kind for kind in TriggerKind if kind in PLACED}
_SPANS: Final = {TriggerKind.DWELL: "for", TriggerKind.APPROACH: "within"}
"""The field that says how long a stay, or how long before."""
LONGEST_APPROACH: Final = timedelta(hours=1)
"""Where somebody will be later than that, their speed and heading do not tell."""
_ONLY_SET_OFF: Final = ("audience", "schedule", "arriving", "arrived")
"""What sets rules off, and is nothing that happens to be counted or looked back at."""
_PATH: Final = re.compile(r"(event|geofence)(\.[A-Za-z_][A-Za-z0-9_]*)+")
NamesFor = Callable[[Names | None], Names]
"""The names of an expression, given those below `geofence` (None where there is no fence)."""


def pattern(
    node: AnyNode,
    problems: Problems,
    declared: Declared,
    names_for: NamesFor,
    extra: tuple[str, ...] = (),
) -> Pattern | None:
    """A bare event name, or `{KIND: …, if: …}`. `extra` are further fields that may stand here; of
    them `for` and `by` are read."""
    if isinstance(node, Scalar):
        return _of_name(TriggerKind.EVENT, node, problems)
    found = fields(
        node,
        problems,
        (*_NAMED, *_PLACED, "if", *extra, *_span_fields(node), *_ONLY_SET_OFF),
        expected="the name of an event, or fields such as {enter: {fence: ID}}",
    )
    if found is None or not isinstance(node, MapNode):
        return None
    for kind in _ONLY_SET_OFF:
        if kind in found:
            message = f'"{kind}" sets a rule off by itself: it stands alone under when:'
            problems.append(node.entries[kind].key.problem(message))
            return None
    kinds = [kind for kind in (*_NAMED, *_PLACED) if kind in found]
    if len(kinds) != 1:
        if kinds:
            both = " and ".join(f'"{kind}"' for kind in kinds)
            problems.append(node.entries[kinds[1]].key.problem(f"{both} exclude each other"))
        elif not is_misspelt(node, (*_NAMED, *_PLACED)):
            wanted = ", ".join((*_NAMED, *_PLACED))
            problems.append(node.problem(f"no event kind here: expected one of {wanted}"))
        return None
    kind = kinds[0]
    if kind in _NAMED:
        found_pattern = _of_name(_NAMED[kind], found[kind], problems)
    else:
        found_pattern = _of_place(_PLACED[kind], found[kind], problems, declared)
        if _PLACED[kind] is TriggerKind.APPROACH and "within" in extra:
            problems.append(
                node.entries[kind].key.problem("an approach sets rules off, and is not remembered")
            )
            return None
        if _PLACED[kind] is TriggerKind.APPROACH and _lies_nowhere(found[kind], found_pattern, declared):
            problems.append(found[kind].problem("a beacon lies nowhere: nobody can approach it", "say enter"))
            return None
        if _PLACED[kind] in _SPANS:
            found_pattern = _with_span(found_pattern, node, found, kind, problems)
            found.pop("for", None)  # a stay's own: the rule does not wait
    below = geofence_names(found_pattern, declared) if kind in _PLACED else None
    wait = duration(found["for"], problems) if "for" in found else None
    by = by_path(found["by"], problems, below) if "by" in found else None
    condition = None
    if "if" in found:
        # What is counted or waited for must read the same at any time.
        names = event_names(below) if "for" in found else names_for(below)
        condition = expression(found["if"], problems, names, Type.BOOL)
    read = {"for": wait, "by": by, "if": condition}
    if found_pattern is None or any(read[word] is None for word in read if word in found):
        return None
    return msgspec.structs.replace(found_pattern, condition=condition, wait=wait, by=by)


def _lies_nowhere(node: AnyNode, found: Pattern | None, declared: Declared) -> bool:
    """Whether it is a beacon by its id. (One among others of a tag hurts nobody.)"""
    if found is None or not isinstance(node, MapNode) or "fence" not in node.entries:
        return False
    return any(isinstance(declared.fences[f].shape, Beacon) for f in found.fences if f in declared.fences)


def _span_fields(node: AnyNode) -> tuple[str, ...]:
    """The field that the node's kind takes beside it, if any."""
    entries = node.entries if isinstance(node, MapNode) else {}
    return tuple(field for kind, field in _SPANS.items() if kind.value in entries)


def _with_span(
    found: Pattern | None, node: MapNode, said: dict[str, AnyNode], kind: str, problems: Problems
) -> Pattern | None:
    """The pattern with how long a stay, or how long before; None where that is missing or wrong."""
    field = _SPANS[_PLACED[kind]]
    if field not in said:
        what = "how long a stay" if field == "for" else "how long before they are there"
        hint = "add for: 5m" if field == "for" else "add within: 90s"
        problems.append(node.entries[kind].key.problem(f'"{field}" is missing: {what}', hint))
        return None
    span = duration(said[field], problems)
    if span is None:
        return None
    if field == "within" and span > LONGEST_APPROACH:
        message = "an approach is told an hour before at the most"
        problems.append(said[field].problem(f"{message}, found {shown(said[field])}"))
        return None
    if field == "within":
        span = timedelta(seconds=max(1, round(span.total_seconds())))
    return None if found is None else msgspec.structs.replace(found, span=span)


def by_path(node: AnyNode, problems: Problems, below: Names | None) -> Expression | None:
    """A path into the event, such as `event.properties.cart_id`."""
    if not isinstance(node, Scalar) or not _PATH.fullmatch(node.text):
        message = f"expected a path such as event.properties.cart_id, found {shown(node)}"
        hint = None
        if isinstance(node, Scalar) and re.fullmatch(r"[A-Za-z_]\w*", node.text):
            hint = f"did you mean event.properties.{node.text}?"
        problems.append(node.problem(message, hint))
        return None
    return expression(node, problems, event_names(below))


def geofence_names(found: Pattern | None, declared: Declared) -> Names | None:
    """The names below `geofence` for a pattern; for one that is faulty those of every fence."""
    if found is not None and found.kind not in PLACED:
        return None
    if found is None or not found.fences:
        return declared.everywhere
    if found.fences in declared.below:
        return declared.below[found.fences]
    return fence_names(sort_of(declared.fences[fence]) for fence in found.fences if fence in declared.fences)


def _of_name(kind: TriggerKind, node: AnyNode, problems: Problems) -> Pattern | None:
    what = f"the name of {'an event' if kind is TriggerKind.EVENT else f'a {kind.value}'}"
    found = name(node, problems, what)
    if found is None:
        return None
    return Pattern(kind=kind, name=found)


def _of_place(kind: TriggerKind, node: AnyNode, problems: Problems, declared: Declared) -> Pattern | None:
    expected = "{fence: ID} or {tag: TAG}"
    if isinstance(node, Scalar) and node.text:
        guess = "tag" if node.text in declared.tags else "fence"
        hint = f"did you mean {{{guess}: {node.text}}}?"
        problems.append(node.problem(f"expected {expected}, found {shown(node)}", hint))
        return None
    found = fields(node, problems, ("fence", "tag"), expected=expected)
    if found is None:
        return None
    if len(found) != 1:
        problems.append(node.problem(f"expected either {expected}"))
        return None
    [(what, value)] = found.items()
    word = name(value, problems, "a geofence" if what == "fence" else "a tag")
    if word is None or not isinstance(value, Scalar):
        return None
    if what == "fence":
        if word not in declared.fence_names:
            if declared.complete and declared.places_complete:
                problems.append(unresolved(value, "geofence", word, declared.fence_names))
            return None
        return Pattern(kind=kind, fences=frozenset((word,)))
    if word not in declared.tags:
        if declared.complete:
            problems.append(unresolved(value, "geofence with the tag", word, declared.tags))
        return None
    return Pattern(kind=kind, fences=declared.tags[word])
