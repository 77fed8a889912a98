"""`after`, `unless` and `by`: events of the past that a rule looks back at, and what tells them apart."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from hashlib import blake2b
from typing import Final

from engine.domain.offers.rules import Rule, Step, Watched
from engine.formats.located_yaml import AnyNode, ListNode, MapNode, Scalar
from engine.formats.workspace_names import Declared, event_names
from engine.formats.workspace_patterns import pattern
from engine.formats.workspace_values import Problems, duration, shown

MOST_STEPS: Final = 16


def steps(
    node: AnyNode, problems: Problems, declared: Declared, what: str, at_place: bool
) -> tuple[Step, ...]:
    """One event that is looked back at, or a list of them, by a rule that is set off `at_place` or not."""
    items = node.items if isinstance(node, ListNode) else (node,)
    if not items:
        problems.append(node.problem(f"expected an event or a list of them, found {shown(node)}"))
    if len(items) > MOST_STEPS:
        problems.append(node.problem(f"more than {MOST_STEPS} events under {what}:"))
        return ()
    found = (_step(item, problems, declared, at_place) for item in items)
    return tuple(step for step in found if step is not None)


def _step(node: AnyNode, problems: Problems, declared: Declared, at_place: bool) -> Step | None:
    before = len(problems)
    found = pattern(node, problems, declared, event_names, extra=("within", "by"))
    within: timedelta | None = None
    if isinstance(node, MapNode) and "within" in node.entries:
        within = duration(node.entries["within"].node, problems)
    if found is None or len(problems) > before:
        return None
    places = found.by is not None and any(path.startswith("geofence") for path in found.by.reads)
    if places and isinstance(node, MapNode) and not at_place:
        message = "the rule is set off at no geofence that could be the same"
        problems.append(node.entries["by"].node.problem(message))
    # As it is written: a geofence that gets the tag later does not make another pattern of it.
    key = blake2b(_written(node, but="within").encode(), digest_size=6).hexdigest()
    return Step(key=key, pattern=found, within=within, text=_written(node))


def _written(node: AnyNode, but: str = "") -> str:
    """An event kind as a line of text."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, ListNode):
        return ", ".join(_written(item) for item in node.items)
    parts = ((word, entry.node) for word, entry in sorted(node.entries.items()) if word != but)
    return " ".join(f"{word} {_written(value)}" for word, value in parts)


def watched(rules: Iterable[Rule]) -> tuple[Watched, ...]:
    """What profiles must remember for the rules."""
    found: dict[str, Watched] = {}
    for rule in rules:
        for step in (*rule.after, *rule.unless):
            known = found.get(step.key)
            stops = known.stops if known is not None else ()
            if rule.when.wait is not None and step in rule.unless:
                stops = (*stops, (rule.id, step.within))
            horizon = step.within
            if known is not None:
                both = (known.horizon, step.within)
                horizon = None if None in both else max(span for span in both if span is not None)
            found[step.key] = Watched(key=step.key, pattern=step.pattern, horizon=horizon, stops=stops)
    return tuple(found.values())
