"""`computed:` of workspace.yaml: traits that are counted with every event."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from engine.domain.offers.expressions import Type
from engine.domain.offers.rules import Computed, ComputedKind, Pattern
from engine.formats.located_yaml import AnyNode, Entry, MapNode, Scalar
from engine.formats.workspace_identities import is_free
from engine.formats.workspace_names import Declared, event_names, expression
from engine.formats.workspace_patterns import geofence_names, pattern
from engine.formats.workspace_values import (
    Problems,
    fields,
    identifier,
    name,
    number,
    shown,
    unresolved,
)

_KINDS: Final = tuple(kind.value for kind in ComputedKind)
_LATER_KINDS: Final = ("average", "min", "max", "first", "distinct", "most_often", "ratio")
_LATER_FIELDS: Final = ("within", "at_least", "top")
_VALUED: Final = (ComputedKind.SUM, ComputedKind.LAST)


def computed(
    node: AnyNode, problems: Problems, declared: Declared, traits: Collection[str]
) -> tuple[Computed, ...]:
    """The computed traits. `traits` are the names that people's own traits have taken."""
    if not isinstance(node, MapNode):
        fields(node, problems, ())
        return ()
    found: list[Computed] = []
    for entry in node.entries.values():
        word = identifier(entry.key, problems, "a computed trait")
        free = is_free(entry.key, problems)
        if entry.key.text in traits:
            problems.append(entry.key.problem(f'"{entry.key.text}" is declared as a trait above'))
            free = False
        trait = _trait(entry, problems, declared)
        if word is not None and free and trait is not None:
            found.append(trait)
    _check_steps(node, found, traits, problems)
    return tuple(found)


def _trait(entry: Entry, problems: Problems, declared: Declared) -> Computed | None:
    node = entry.node
    known = (*_KINDS, "of", "from")
    later = (*_LATER_KINDS, *_LATER_FIELDS)
    found = fields(node, problems, known, later, expected="fields such as {count: EVENT}")
    if found is None or not isinstance(node, MapNode):
        return None
    kinds = [kind for kind in _KINDS if kind in found]
    if len(kinds) != 1:
        if kinds:
            both = " and ".join(f'"{kind}"' for kind in kinds)
            problems.append(node.entries[kinds[1]].key.problem(f"{both} exclude each other"))
        elif not any(kind in node.entries for kind in _LATER_KINDS):
            problems.append(node.problem(f"no kind here: expected one of {', '.join(_KINDS)}"))
        return None
    kind = ComputedKind(kinds[0])
    belongs = {"of": kind in _VALUED, "from": kind is ComputedKind.STEPS}
    for word, fits in belongs.items():
        if word in found and not fits:
            problems.append(node.entries[word].key.problem(f'"{word}" does not belong to "{kind.value}"'))
        elif fits and word not in found:
            problems.append(node.problem(f'"{word}" is missing'))
    return _of_kind(kind, entry.key.text, found, problems, declared)


def _of_kind(
    kind: ComputedKind, word: str, found: dict[str, AnyNode], problems: Problems, declared: Declared
) -> Computed | None:
    subject = found[kind.value]
    if kind is ComputedKind.STEPS:
        of = name(subject, problems, "the name of a computed trait")
        steps = _steps(found["from"], problems) if "from" in found else ()
        return Computed(name=word, kind=kind, of=of, steps=steps) if of and steps else None
    if kind not in _VALUED:
        counted = pattern(subject, problems, declared, event_names)
        return Computed(name=word, kind=kind, pattern=counted) if counted else None
    of_pattern: Pattern | None = None
    below = None
    if "of" in found:
        of_pattern = pattern(found["of"], problems, declared, event_names)
        below = geofence_names(of_pattern, declared)
    expect = Type.NUMBER if kind is ComputedKind.SUM else None
    value = expression(subject, problems, event_names(below), expect)
    if of_pattern is None or value is None:
        return None
    return Computed(name=word, kind=kind, pattern=of_pattern, value=value)


def _steps(node: AnyNode, problems: Problems) -> tuple[tuple[float, str], ...]:
    if not isinstance(node, MapNode) or not node.entries:
        problems.append(node.problem(f"expected steps such as {{low: 0, high: 100}}, found {shown(node)}"))
        return ()
    steps: dict[float, str] = {}
    for label, entry in node.entries.items():
        threshold = number(entry.node, problems, "a threshold")
        if threshold is None:
            continue
        if threshold in steps:
            problems.append(entry.node.problem(f'"{steps[threshold]}" begins at the same threshold'))
        steps[threshold] = label
    return tuple(sorted(steps.items()))


def _check_steps(node: MapNode, found: list[Computed], traits: Collection[str], problems: Problems) -> None:
    """Steps climb with a number that is computed: not with themselves, nor with other steps."""
    by_name = {trait.name: trait for trait in found}
    for trait in found:
        if trait.kind is not ComputedKind.STEPS:
            continue
        of = node.entries[trait.name].node
        at = of.entries["steps"].node if isinstance(of, MapNode) else of
        below = by_name.get(trait.of)
        if below is None:
            if trait.of in traits:
                problems.append(
                    at.problem(f'"{trait.of}" is a stated trait: steps climb with a computed one')
                )
            elif trait.of not in node.entries and isinstance(at, Scalar):
                problems.append(unresolved(at, "computed trait", trait.of, by_name))
        elif trait.name in _steps_below(trait, by_name):
            problems.append(at.problem(f'"{trait.name}" climbs with itself'))
        elif below.kind is ComputedKind.STEPS or (
            below.value is not None and below.value.type not in (Type.NUMBER, Type.ANY)
        ):
            problems.append(at.problem(f'"{trait.of}" is not a number that steps could climb with'))


def _steps_below(trait: Computed, by_name: dict[str, Computed]) -> list[str]:
    """The names of the steps that a trait leads to, one after the other."""
    seen: list[str] = []
    current: Computed | None = trait
    while current is not None and current.kind is ComputedKind.STEPS and current.of not in seen:
        seen.append(current.of)
        current = by_name.get(current.of)
    return seen
