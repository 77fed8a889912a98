"""Event kinds: what sets a rule off, or is counted by a computed trait."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from engine.domain.offers.expressions import Names, Type
from engine.domain.offers.rules import Pattern, TriggerKind
from engine.formats.located_yaml import AnyNode, MapNode, Scalar
from engine.formats.workspace_names import Declared, expression, fence_names
from engine.formats.workspace_values import Problems, fields, name, not_yet, shown, unresolved

_NAMED: Final = {"event": TriggerKind.EVENT, "page": TriggerKind.PAGE, "screen": TriggerKind.SCREEN}
_PLACED: Final = {"enter": TriggerKind.ENTER, "exit": TriggerKind.EXIT}
_LATER_KINDS: Final = ("dwell", "approach", "audience", "schedule", "arriving", "arrived")
_LATER_FIELDS: Final = ("for", "by", "within", "change", "over")
_LATER_EVENTS: Final = frozenset(
    ("Offer Delivered", "Offer Shown", "Offer Tapped", "Offer Converted", "Offer Expired")
)
"""The engine's own outcomes: they set nothing off yet."""

NamesFor = Callable[[Names | None], Names]
"""The names of an expression, given those below `geofence` (None where there is no fence)."""


def pattern(node: AnyNode, problems: Problems, declared: Declared, names_for: NamesFor) -> Pattern | None:
    """A bare event name, or `{KIND: …, if: …}`."""
    if isinstance(node, Scalar):
        return _of_name(TriggerKind.EVENT, node, problems)
    found = fields(
        node,
        problems,
        (*_NAMED, *_PLACED, "if"),
        (*_LATER_KINDS, *_LATER_FIELDS),
        expected="the name of an event, or fields such as {enter: {fence: ID}}",
    )
    if found is None or not isinstance(node, MapNode):
        return None
    kinds = [kind for kind in (*_NAMED, *_PLACED) if kind in found]
    if len(kinds) != 1:
        if kinds:
            both = " and ".join(f'"{kind}"' for kind in kinds)
            problems.append(node.entries[kinds[1]].key.problem(f"{both} exclude each other"))
        elif not any(kind in node.entries for kind in _LATER_KINDS):
            wanted = ", ".join((*_NAMED, *_PLACED))
            problems.append(node.problem(f"no event kind here: expected one of {wanted}"))
        return None
    kind = kinds[0]
    if kind in _NAMED:
        found_pattern = _of_name(_NAMED[kind], found[kind], problems)
    else:
        found_pattern = _of_place(_PLACED[kind], found[kind], problems, declared)
    below = geofence_names(found_pattern, declared) if kind in _PLACED else None
    if "if" not in found:
        return found_pattern
    condition = expression(found["if"], problems, names_for(below), Type.BOOL)
    if found_pattern is None or condition is None:
        return None
    return Pattern(
        kind=found_pattern.kind, name=found_pattern.name, fences=found_pattern.fences, condition=condition
    )


def geofence_names(found: Pattern | None, declared: Declared) -> Names | None:
    """The names below `geofence` for a pattern; for one that is faulty those of every fence."""
    if found is not None and found.kind not in _PLACED.values():
        return None
    ids: Iterable[str] = declared.fences
    if found is not None and found.fences:
        if found.fences in declared.below:
            return declared.below[found.fences]
        ids = found.fences
    return fence_names(declared.fences[fence] for fence in ids if fence in declared.fences)


def triggers(found: Pattern) -> Iterable[tuple[TriggerKind, str]]:
    """The keys under which a rule set files what this pattern sets off."""
    if found.kind in _PLACED.values():
        return ((found.kind, fence) for fence in sorted(found.fences))
    return ((found.kind, found.name),)


def _of_name(kind: TriggerKind, node: AnyNode, problems: Problems) -> Pattern | None:
    what = f"the name of {'an event' if kind is TriggerKind.EVENT else f'a {kind.value}'}"
    found = name(node, problems, what)
    if found is None:
        return None
    if kind is TriggerKind.EVENT and found in _LATER_EVENTS:
        problems.append(not_yet(node))
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
