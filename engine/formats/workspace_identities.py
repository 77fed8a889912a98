"""`identities:` and `traits:` of workspace.yaml: who a person is, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, cast

from engine.domain.offers.rules import Namespace, TraitDeclaration, TraitType
from engine.domain.people.sources import PARTIES
from engine.formats.identity_values import normal_form
from engine.formats.located_yaml import AnyNode, ListNode, MapNode, Scalar
from engine.formats.workspace_names import BUILT_IN
from engine.formats.workspace_values import Problems, choice, fields, flag, identifier, name, shown

OWN: Final = ("user_id", "anonymous_id")
"""The namespaces that stand in an event's own fields."""

DEFAULT_NAMESPACES: Final = (Namespace(name="user_id", one=True), Namespace(name="anonymous_id"))
_ROOTS: Final = ("traits", "context", "properties")
_TYPES: Final = ("string", "number", "boolean", "timestamp", "list")


def identities(node: AnyNode, problems: Problems, zone: str = "UTC") -> tuple[Namespace, ...]:
    """The namespaces, strongest first. Phone numbers without a country are of the time zone's."""
    if not isinstance(node, ListNode):
        problems.append(node.problem(f"expected a list of identities, found {shown(node)}"))
        return DEFAULT_NAMESPACES
    before = len(problems)
    found: dict[str, Namespace] = {}
    for item in node.items:
        namespace = _namespace(item, problems, zone)
        if namespace is None:
            continue
        if namespace.name in found:
            problems.append(item.problem(f'the identity "{namespace.name}" stands twice'))
        found[namespace.name] = namespace
    missing = [own for own in OWN if own not in found]
    if missing and len(problems) == before:
        hint = f"add - {{namespace: {missing[0]}}}"
        problems.append(node.problem(f'the identity "{missing[0]}" is missing: every SDK sends it', hint))
    return tuple(found.values())


def _namespace(node: AnyNode, problems: Problems, zone: str) -> Namespace | None:
    found = fields(node, problems, ("namespace", "one", "on_change", "from"))
    if found is None:
        return None
    if "namespace" not in found:
        problems.append(node.problem('"namespace" is missing'))
        return None
    word = name(found["namespace"], problems, "a namespace")
    if word is None:
        return None
    one = flag(found["one"], problems) if "one" in found else False
    on_change = choice(found["on_change"], problems, ("move", "replace")) if "on_change" in found else None
    if on_change == "replace" and not one:
        hint = "add one: true"
        problems.append(
            found["on_change"].problem("only an identity of which there is one is replaced", hint)
        )
    sources: tuple[tuple[str, ...], ...] = ()
    if "from" in found:
        sources = _sources(found["from"], problems)
    elif word not in OWN:
        hint = f"add from: [traits.{word}]"
        problems.append(node.problem(f'"from" is missing: where events hold the {word}', hint))
    return Namespace(
        name=word,
        one=bool(one),
        on_change=cast(Literal["move", "replace"], on_change or "move"),
        sources=sources,
        normal=normal_form(word, zone),
    )


def _sources(node: AnyNode, problems: Problems) -> tuple[tuple[str, ...], ...]:
    if not isinstance(node, ListNode):
        hint = f"write [{node.text}]" if isinstance(node, Scalar) and node.text else None
        problems.append(node.problem(f"expected a list of paths, found {shown(node)}", hint))
        return ()
    sources = []
    for item in node.items:
        path = name(item, problems, "a path such as traits.email")
        if path is None:
            continue
        parts = tuple(path.removeprefix("event.").split("."))
        if parts[0] not in _ROOTS or len(parts) < 2 or not all(parts):
            hint = f"did you mean traits.{parts[-1]}?" if parts[-1] else None
            message = f"a path begins with traits., context. or properties., found {shown(item)}"
            problems.append(item.problem(message, hint))
        elif parts[:2] == ("context", "device"):
            problems.append(item.problem("a device never says who a person is: it is lent, sold and shared"))
        else:
            sources.append(parts)
    return tuple(sources)


def traits(node: AnyNode, problems: Problems) -> Mapping[str, TraitDeclaration]:
    """The declared traits by name."""
    if not isinstance(node, MapNode):
        fields(node, problems, ())
        return {}
    declared = {}
    for word, entry in node.entries.items():
        trait = _trait(entry.key, entry.node, problems)
        if trait is not None:
            declared[word] = trait
    return declared


def is_free(key: Scalar, problems: Problems) -> bool:
    """Whether a trait may be called so: `profile` has some names of its own."""
    if key.text in BUILT_IN:
        problems.append(key.problem(f'"profile.{key.text}" is built in: call the trait something else'))
        return False
    return True


def _trait(key: Scalar, node: AnyNode, problems: Problems) -> TraitDeclaration | None:
    word = identifier(key, problems, "a trait")
    free = is_free(key, problems)
    found = fields(node, problems, ("type", "source", "label"), expected="fields such as {type: string}")
    if found is None:
        return None
    if "type" not in found:
        problems.append(node.problem('"type" is missing', f"one of {', '.join(_TYPES)}"))
        return None
    kind = choice(found["type"], problems, _TYPES)
    source = choice(found["source"], problems, PARTIES[::-1]) if "source" in found else None
    label = name(found["label"], problems, "a label") if "label" in found else None
    if word is None or kind is None or not free:
        return None
    return TraitDeclaration(
        name=word, type=cast(TraitType, kind), source=source or "first_party", label=label
    )
