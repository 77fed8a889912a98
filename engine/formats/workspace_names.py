"""What expressions and messages of a workspace may read, and their compilation at their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Final

import msgspec

from engine.domain.companies import WELL_KNOWN
from engine.domain.offers.expressions import (
    Expression,
    ExpressionError,
    ExpressionProblem,
    Names,
    Type,
    Words,
    compile_expression,
)
from engine.domain.offers.rules import Computed, ComputedKind, Render, TraitDeclaration
from engine.domain.places.fence_index import Fence
from engine.domain.places.packed_fences import Sort
from engine.formats.located_scalar import place_in
from engine.formats.located_yaml import AnyNode, Scalar
from engine.formats.messages import Members, TemplateError, compile_template
from engine.formats.problems import Problem
from engine.formats.workspace_values import Problems, shown, text

EVENT: Final[Names] = {
    "name": Type.STRING,
    "kind": Type.STRING,
    "properties": Type.MAP,
    "context": Type.MAP,
    "traits": Type.MAP,
    "timestamp": Type.TIMESTAMP,
    "trusted": Type.BOOL,
    "offer": Type.STRING,
    "rule": Type.STRING,
}
"""`offer` and `rule` are of the engine's outcomes only."""
OFFER: Final[Names] = {"id": Type.STRING, "tags": Type.LIST, "code": Type.STRING}
DEVICE: Final[Names] = {"type": Type.STRING}
LOCAL: Final[Names] = {
    "hour": Type.NUMBER,
    "weekday": Type.STRING,
    "date": Type.STRING,
    "time": Type.STRING,
}
TRIP: Final[Names] = {"trip": Type.MAP}
"""Of a rule that a trip sets off; the properties of the event that it began with are open."""
BUILT_IN: Final[Names] = {
    "last_seen": Type.TIMESTAMP,
    "audiences": Type.LIST,
    "sessions": Type.NUMBER,
    "seconds_in_app": Type.NUMBER,
    "installed_at": Type.TIMESTAMP,
    "attribution": {"source": Type.STRING, "medium": Type.STRING, "campaign": Type.STRING},
}
"""Of `profile`, without anyone declaring it."""

_TRAIT_TYPES: Final[Mapping[str, Type]] = {
    "string": Type.STRING,
    "number": Type.NUMBER,
    "boolean": Type.BOOL,
    "timestamp": Type.TIMESTAMP,
    "list": Type.LIST,
}


ACCOUNT: Final[Names] = {
    "id": Type.STRING,
    "audiences": Type.LIST,
    **{trait.name: _TRAIT_TYPES[trait.type] for trait in WELL_KNOWN.values()},
}
"""Of `account`, without anyone declaring it."""


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """The names of a workspace that others may use, by what they stand for.

    `tags` hold the ids of their fences, and `below` the names below `geofence` for each such set,
    which rules share; `everywhere` are those of all fences. A name is here even where its definition
    is faulty, so that one mistake is reported once. `complete` is false where a file could not be
    read, `places_complete` where that was one of geofences: then a name that is not here may well
    stand there.
    """

    profile: Names = msgspec.field(default_factory=lambda: BUILT_IN)
    account: Names = msgspec.field(default_factory=lambda: ACCOUNT)
    models: frozenset[str] = frozenset()
    purposes: frozenset[str] = frozenset()
    offers: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()
    audiences: frozenset[str] = frozenset()
    account_audiences: frozenset[str] = frozenset()
    trips: frozenset[str] = frozenset()
    fences: Mapping[str, Fence] = {}
    fence_names: Set[str] = frozenset()
    tags: Mapping[str, Set[str]] = {}
    below: Mapping[Set[str], Names] = {}
    everywhere: Names = {}
    complete: bool = True
    places_complete: bool = True


def profile_types(
    traits: Iterable[TraitDeclaration], computed: Iterable[Computed], audiences: Iterable[str]
) -> Names:
    """The types of everything below `profile`."""
    types = {**BUILT_IN, "audiences": Words(frozenset(audiences))}
    types.update((trait.name, _TRAIT_TYPES[trait.type]) for trait in traits)
    types.update((trait.name, computed_type(trait)) for trait in computed if "." not in trait.name)
    return types


def account_types(computed: Iterable[Computed], audiences: Iterable[str]) -> Names:
    """The types of everything below `account`."""
    types: dict[str, Type | Words | Names] = {**ACCOUNT, "audiences": Words(frozenset(audiences))}
    types.update((trait.name, computed_type(trait)) for trait in computed)
    return types


def computed_type(trait: Computed) -> Type:
    """What a computed trait reads as."""
    value = trait.value.type if trait.value is not None else Type.ANY
    match trait.kind:
        case ComputedKind.STEPS:
            return Type.STRING
        case ComputedKind.FIRST | ComputedKind.LAST:
            return value
        case ComputedKind.DISTINCT:
            return Type.LIST
        case ComputedKind.MOST_OFTEN:
            return Type.LIST if trait.top is not None else Type.ANY if value is Type.LIST else value
    return Type.NUMBER


def event_names(fences: Names | None) -> Names:
    """What a computed trait may read: the event alone, so that it can be computed again later.

    `fences` are the names below `geofence`, None where the trigger is no geofence's.
    """
    return {"event": EVENT} if fences is None else {"event": EVENT, "geofence": fences}


def counted_names(fences: Names | None) -> Names:
    """What is counted may read the person's clock as well, at the event's time."""
    return {**event_names(fences), "local": LOCAL}


def person_names(declared: Declared) -> Names:
    """What can be asked of a person at any moment; a model's inputs are of these."""
    return {
        "profile": declared.profile,
        "account": declared.account,
        "member": Type.MAP,
        "event": EVENT,
        "weather": Type.MAP,
        "device": DEVICE,
        "local": LOCAL,
        "now": Type.TIMESTAMP,
    }


def rule_names(declared: Declared, fences: Names | None) -> Names:
    """What a rule's conditions and an offer's value may read."""
    names = {**person_names(declared), "propensity": model_names(declared)}
    return names if fences is None else {**names, "geofence": fences}


def model_names(declared: Declared) -> Names:
    """What each model says of a person."""
    return dict.fromkeys(declared.models, Type.NUMBER)


def fence_names(sorts: Iterable[Sort]) -> Names:
    """What some fences have between them below `geofence`."""
    names: dict[str, Type] = {"name": Type.ANY}
    for sort in sorts:
        names.update(dict.fromkeys(sort.words, Type.ANY))
        if sort.has_hours:
            names["open"] = Type.BOOL
    names["id"] = Type.STRING
    return names


def message_members(declared: Declared) -> Members:
    """What a message may show."""
    all_known = declared.complete and declared.places_complete
    return {
        "profile": frozenset(declared.profile),
        "account": frozenset(declared.account),
        "member": None,
        "event": frozenset(EVENT),
        "geofence": frozenset(declared.everywhere) if all_known else None,
        "weather": None,
        "trip": None,
        "device": frozenset(DEVICE),
        "local": frozenset(LOCAL),
        "offer": frozenset(("id", "tags")),
        "now": None,
    }


def expression(
    node: AnyNode, problems: Problems, names: Names, expect: Type | None = None
) -> Expression | None:
    """A compiled expression. Its problems stand at the very characters that are wrong."""
    if not isinstance(node, Scalar):
        hint = "an expression that begins with { or [ or contains a colon needs quotes"
        problems.append(node.problem(f"expected an expression, found {shown(node)}", hint))
        return None
    written = text(node, problems, "an expression")
    if written is None:
        return None
    try:
        return compile_expression(written, names, expect=expect)
    except ExpressionError as error:
        problems.extend(located(node, problem) for problem in error.problems)
    return None


def located(node: Scalar, problem: ExpressionProblem) -> Problem:
    """A problem of an expression at its place in the file."""
    line, column = place_in(node, problem.offset)
    message, suggestion = problem.message, problem.suggestion
    if suggestion is not None:
        suggestion = f"did you mean {suggestion}?" if '"' in suggestion else f'did you mean "{suggestion}"?'
    return Problem(node.source.file, line, column, message, suggestion)


def template(node: AnyNode, problems: Problems, members: Members) -> Render | None:
    """A compiled message text."""
    if not isinstance(node, Scalar):
        problems.append(node.problem(f"expected text, found {shown(node)}", "text with {{ … }} needs quotes"))
        return None
    written = text(node, problems)
    if written is None:
        return None
    try:
        return compile_template(written, members)
    except TemplateError as error:
        for problem in error.problems:
            line, column = place_in(node, problem.offset)
            problems.append(Problem(node.source.file, line, column, problem.message, problem.suggestion))
    return None
