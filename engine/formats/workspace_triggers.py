"""`when:` of a rule, and `audience:`: what sets it off, and for whom."""

from __future__ import annotations

from typing import Final

from engine.domain.offers.rules import Pattern, TriggerKind, audience_change
from engine.formats.located_yaml import AnyNode, ListNode, MapNode, Scalar
from engine.formats.workspace_names import Declared
from engine.formats.workspace_patterns import NamesFor, pattern
from engine.formats.workspace_values import Problems, choice, fields, name, shown, unresolved

_NOT: Final = "!"


def trigger(node: AnyNode, problems: Problems, declared: Declared, names_for: NamesFor) -> Pattern | None:
    """What sets a rule off: an event kind, perhaps some time after the last one, or a change of
    audience."""
    if isinstance(node, MapNode) and "audience" in node.entries and "schedule" not in node.entries:
        return _change(node, problems, declared)
    found = pattern(node, problems, declared, names_for, ("for", "by"))
    if isinstance(node, MapNode) and "by" in node.entries and "for" not in node.entries:
        problems.append(node.entries["by"].key.problem('"by" needs a "for": how long to wait'))
    return found


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
    if word not in declared.audiences:
        if declared.complete:
            problems.append(unresolved(node, "audience", word, declared.audiences))
        return None
    return word
