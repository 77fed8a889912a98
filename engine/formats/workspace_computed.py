"""`computed:` of workspace.yaml: traits that are counted with every event."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from hashlib import blake2b
from typing import Final

import msgspec

from engine.domain.offers.expressions import Type
from engine.domain.offers.rules import Computed, ComputedKind, Pattern
from engine.domain.people.counting import DERIVED, DIGEST_BYTES
from engine.domain.people.tallies import LONGEST_WINDOW, SHORTEST_WINDOW
from engine.formats.located_yaml import AnyNode, Entry, MapNode, Scalar
from engine.formats.workspace_identities import is_free
from engine.formats.workspace_names import Declared, computed_type, counted_names, expression
from engine.formats.workspace_patterns import geofence_names, pattern
from engine.formats.workspace_values import (
    Problems,
    duration,
    fields,
    identifier,
    is_misspelt,
    name,
    number,
    shown,
    unresolved,
    whole,
)

_KINDS: Final = tuple(kind.value for kind in ComputedKind)
_VALUED: Final = (
    ComputedKind.SUM,
    ComputedKind.AVERAGE,
    ComputedKind.MIN,
    ComputedKind.MAX,
    ComputedKind.FIRST,
    ComputedKind.LAST,
    ComputedKind.DISTINCT,
    ComputedKind.MOST_OFTEN,
)
_NUMERIC: Final = (ComputedKind.SUM, ComputedKind.AVERAGE, ComputedKind.MIN, ComputedKind.MAX)
_LISTED: Final = (ComputedKind.DISTINCT, ComputedKind.MOST_OFTEN)
_LISTABLE: Final = (Type.ANY, Type.STRING, Type.NUMBER, Type.BOOL, Type.LIST)
_MOST_TOP: Final = 10


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
    _check_derived(node, found, traits, problems)
    return tuple(found)


def reads_clock(trait: Computed) -> bool:
    """Whether the trait hangs on what the person's clock shows."""
    condition = trait.pattern.condition if trait.pattern is not None else None
    reads = (each.reads for each in (trait.value, condition) if each is not None)
    return any(path.split(".")[0] == "local" for paths in reads for path in paths)


def _trait(entry: Entry, problems: Problems, declared: Declared) -> Computed | None:
    node = entry.node
    known = (*_KINDS, "of", "from", "within", "at_least", "top")
    found = fields(node, problems, known, expected="fields such as {count: EVENT}")
    if found is None or not isinstance(node, MapNode):
        return None
    kinds = [kind for kind in _KINDS if kind in found]
    if len(kinds) != 1:
        if kinds:
            both = " and ".join(f'"{kind}"' for kind in kinds)
            problems.append(node.entries[kinds[1]].key.problem(f"{both} exclude each other"))
        elif not is_misspelt(node, _KINDS):
            problems.append(node.problem(f"no kind here: expected one of {', '.join(_KINDS)}"))
        return None
    kind = ComputedKind(kinds[0])
    listed = kind is ComputedKind.MOST_OFTEN
    needed = {"of": kind in _VALUED or kind is ComputedKind.RATIO, "from": kind is ComputedKind.STEPS}
    allowed = {"within": kind in _VALUED or kind is ComputedKind.COUNT, "at_least": listed, "top": listed}
    for word, fits in (needed | allowed).items():
        if word in found and not fits:
            problems.append(node.entries[word].key.problem(f'"{word}" does not belong to "{kind.value}"'))
        elif fits and word in needed and word not in found:
            problems.append(node.problem(f'"{word}" is missing'))
    trait = _of_kind(kind, entry.key.text, found, problems, declared)
    if trait is None:
        return None
    at_least = whole(found["at_least"], problems, "at_least") if listed and "at_least" in found else 1
    top = whole(found["top"], problems, "top") if listed and "top" in found else None
    if top is not None and top > _MOST_TOP:
        problems.append(found["top"].problem(f"top must be at most {_MOST_TOP}, found {top}"))
    within = _within(found["within"], problems) if allowed["within"] and "within" in found else None
    digest = b"" if kind in DERIVED else _digest(entry)
    return msgspec.structs.replace(trait, within=within, at_least=at_least or 1, top=top, digest=digest)


def _digest(entry: Entry) -> bytes:
    written = entry.node.source.text[entry.node.start : entry.node.end]
    return blake2b(f"{entry.key.text}\0{written}".encode(), digest_size=DIGEST_BYTES).digest()


def _within(node: AnyNode, problems: Problems) -> timedelta | None:
    span = duration(node, problems)
    if span is not None and not SHORTEST_WINDOW <= span <= LONGEST_WINDOW:
        message = f"a window is between 1h and {LONGEST_WINDOW.days}d, found {shown(node)}"
        problems.append(node.problem(message, "leave it out to look back for ever"))
        return None
    return span


def _of_kind(
    kind: ComputedKind, word: str, found: dict[str, AnyNode], problems: Problems, declared: Declared
) -> Computed | None:
    subject = found[kind.value]
    if kind is ComputedKind.STEPS:
        of = name(subject, problems, "the name of a computed trait")
        steps = _steps(found["from"], problems) if "from" in found else ()
        return Computed(name=word, kind=kind, of=of, steps=steps) if of and steps else None
    if kind is ComputedKind.RATIO:
        of = name(subject, problems, "the name of a computed trait")
        over = name(found["of"], problems, "the name of a computed trait") if "of" in found else None
        return Computed(name=word, kind=kind, of=of, over=over) if of and over else None
    if kind not in _VALUED:
        counted = pattern(subject, problems, declared, counted_names)
        return Computed(name=word, kind=kind, pattern=counted) if counted else None
    of_pattern: Pattern | None = None
    below = None
    if "of" in found:
        of_pattern = pattern(found["of"], problems, declared, counted_names)
        below = geofence_names(of_pattern, declared)
    expect = Type.NUMBER if kind in _NUMERIC else None
    value = expression(subject, problems, counted_names(below), expect)
    if value is not None and kind in _LISTED and value.type not in _LISTABLE:
        problems.append(subject.problem("only texts, numbers and truth values are told apart here"))
        return None
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


def _check_derived(node: MapNode, found: list[Computed], traits: Collection[str], problems: Problems) -> None:
    """Steps climb with a number that is computed, and ratios are of two: not with themselves, nor with
    steps."""
    by_name = {trait.name: trait for trait in found}
    for trait in found:
        if trait.kind is ComputedKind.STEPS:
            _check_base(node, trait, trait.of, "steps", by_name, traits, problems)
        elif trait.kind is ComputedKind.RATIO:
            _check_base(node, trait, trait.of, "ratio", by_name, traits, problems)
            _check_base(node, trait, trait.over, "of", by_name, traits, problems)


def _check_base(
    node: MapNode,
    trait: Computed,
    base: str,
    field: str,
    by_name: Mapping[str, Computed],
    traits: Collection[str],
    problems: Problems,
) -> None:
    own = node.entries[trait.name].node
    at = own.entries[field].node if isinstance(own, MapNode) else own
    below = by_name.get(base)
    is_ratio = trait.kind is ComputedKind.RATIO
    does = "ratios are of computed ones" if is_ratio else "steps climb with a computed one"
    if below is None:
        if base in traits:
            problems.append(at.problem(f'"{base}" is a stated trait: {does}'))
        elif base not in node.entries and isinstance(at, Scalar):
            problems.append(unresolved(at, "computed trait", base, by_name))
    elif not is_ratio and trait.name in _steps_below(trait, by_name):
        problems.append(at.problem(f'"{trait.name}" climbs with itself'))
    elif is_ratio and below.kind in (ComputedKind.RATIO, ComputedKind.DAYS_SINCE):
        problems.append(at.problem(f'"{base}" is not a number that a ratio could be of'))
    elif not _is_number(below):
        purpose = "a ratio could be of" if is_ratio else "steps could climb with"
        problems.append(at.problem(f'"{base}" is not a number that {purpose}'))


def _is_number(trait: Computed) -> bool:
    return computed_type(trait) in (Type.NUMBER, Type.ANY)


def _steps_below(trait: Computed, by_name: Mapping[str, Computed]) -> list[str]:
    """The names of the steps that a trait leads to, one after the other."""
    seen: list[str] = []
    current: Computed | None = trait
    while current is not None and current.kind is ComputedKind.STEPS and current.of not in seen:
        seen.append(current.of)
        current = by_name.get(current.of)
    return seen
