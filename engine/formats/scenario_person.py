"""Whom a scenario is about: what they stated, what was counted of them, what they allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from engine.domain.offers.rules import Computed, ComputedKind, RuleSet
from engine.domain.offers.scope import UNKNOWN, is_number
from engine.domain.people.traits import typed
from engine.formats.located_yaml import AnyNode, Entry, ListNode, MapNode, Scalar
from engine.formats.problems import did_you_mean
from engine.formats.workspace_places import plain
from engine.formats.workspace_values import Problems, choice, fields, name, number, shown, unresolved

_PERSON = ("user_id", "anonymous_id", "traits", "computed", "consent", "device", "locale", "timezone")
_DEVICE = ("id", "type", "token", "permissions")
_NUMERIC: Final = (
    ComputedKind.COUNT,
    ComputedKind.SUM,
    ComputedKind.AVERAGE,
    ComputedKind.MIN,
    ComputedKind.MAX,
    ComputedKind.DAYS_SINCE,
)
_FOLLOWING: Final = (
    ComputedKind.SUM,
    ComputedKind.AVERAGE,
    ComputedKind.MIN,
    ComputedKind.MAX,
    ComputedKind.FIRST,
    ComputedKind.LAST,
)
_DERIVED: Final = (ComputedKind.STEPS, ComputedKind.RATIO)
DEFAULT_USER: Final = "someone"


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the story is about, as they are when it begins."""

    user_id: str | None = DEFAULT_USER
    anonymous_id: str | None = None
    traits: Mapping[str, Any] = {}
    computed: Mapping[str, Any] = {}
    consent: Mapping[str, str] = {}
    device: Mapping[str, Any] | None = None
    locale: str | None = None
    timezone: str | None = None

    def __repr__(self) -> str:
        return "Person(…)"


def read_person(node: AnyNode, problems: Problems, rules: RuleSet) -> Person:
    found = fields(node, problems, _PERSON, expected="a person such as {user_id: u1, traits: {…}}")
    if found is None:
        return Person()
    user = name(found["user_id"], problems, "a user id") if "user_id" in found else None
    anonymous = name(found["anonymous_id"], problems, "an anonymous id") if "anonymous_id" in found else None
    return Person(
        user_id=user or (None if anonymous else DEFAULT_USER),
        anonymous_id=anonymous,
        traits=_traits(found["traits"], problems, rules) if "traits" in found else {},
        computed=_computed(found["computed"], problems, rules) if "computed" in found else {},
        consent=_consent(found["consent"], problems, rules) if "consent" in found else {},
        device=_device(found["device"], problems) if "device" in found else None,
        locale=name(found["locale"], problems, "a language") if "locale" in found else None,
        timezone=name(found["timezone"], problems, "a time zone") if "timezone" in found else None,
    )


def entries(node: AnyNode, problems: Problems, expected: str) -> Mapping[str, Entry]:
    if isinstance(node, MapNode):
        return node.entries
    problems.append(node.problem(f"expected {expected}, found {shown(node)}"))
    return {}


def _traits(node: AnyNode, problems: Problems, rules: RuleSet) -> dict[str, Any]:
    workspace = rules.workspace
    sources = {path[1] for n in workspace.namespaces for path in n.sources if path[0] == "traits"}
    counted = {trait.name for trait in workspace.computed}
    traits: dict[str, Any] = {}
    for word, entry in entries(node, problems, "traits such as {first_name: Ada}").items():
        value = traits[word] = plain(entry.node)
        declared = workspace.traits.get(word)
        if declared is None and word not in sources:
            hint = did_you_mean(word, frozenset(workspace.traits))
            if word in counted:
                hint = f"it is computed: write it under computed: {{{word}: …}}"
            problems.append(entry.key.problem(f'there is no trait "{word}"', hint))
        elif declared is not None and value is not None and typed(value, declared) is UNKNOWN:
            problems.append(entry.node.problem(f"expected a {declared.type}, found {shown(entry.node)}"))
    return traits


def _computed(node: AnyNode, problems: Problems, rules: RuleSet) -> dict[str, Any]:
    known = {trait.name: trait for trait in rules.workspace.computed}
    values: dict[str, Any] = {}
    for word, entry in entries(node, problems, "computed traits such as {orders: 3}").items():
        trait = known.get(word)
        if trait is None:
            hint = did_you_mean(word, frozenset(known))
            if word in rules.workspace.traits:
                hint = f"it is stated: write it under traits: {{{word}: …}}"
            problems.append(entry.key.problem(f'there is no computed trait "{word}"', hint))
        elif trait.kind in _DERIVED:
            others = " and ".join(other for other in (trait.of, trait.over) if other)
            message = f'"{word}" follows from {others}'
            problems.append(entry.key.problem(message, f"set {others} instead"))
        else:
            values[word] = _counted(trait, entry.node, problems)
    return _completed(values, rules)


def _completed(stated: Mapping[str, Any], rules: RuleSet) -> dict[str, Any]:
    """The values with those that follow from them: whoever spent 620 has bought something, once unless it
    says how often, and their average is what it must be."""
    alike: dict[Any, list[Computed]] = {}
    for trait in rules.workspace.computed:
        pattern = trait.pattern
        if pattern is not None:
            condition = pattern.condition.text if pattern.condition is not None else ""
            same = (pattern.kind, pattern.name, pattern.fences, condition, trait.within)
            alike.setdefault(same, []).append(trait)
    values = dict(stated)
    for traits in alike.values():
        known = [trait for trait in traits if stated.get(trait.name) not in (None, 0, [])]
        if known:
            _complete(values, traits)
    return values


def _complete(values: dict[str, Any], traits: list[Computed]) -> None:
    """Completes the traits of one kind of event, of which something is stated."""
    sums: dict[str, float] = {}
    averages: dict[str, float] = {}
    number = None
    for trait in traits:
        value = values.get(trait.name)
        if not is_number(value):
            continue
        if trait.kind is ComputedKind.COUNT:
            number = value
        elif trait.value is not None and trait.kind is ComputedKind.SUM:
            sums[trait.value.text] = value
        elif trait.value is not None and trait.kind is ComputedKind.AVERAGE:
            averages[trait.value.text] = value
    if number is None:
        both = next((text for text in sums if averages.get(text)), None)
        number = 1 if both is None else round(sums[both] / averages[both])
    for trait in traits:
        text = trait.value.text if trait.value is not None else ""
        total = sums.get(text, averages[text] * number if text in averages else None)
        if trait.kind is ComputedKind.COUNT:
            values.setdefault(trait.name, number)
        elif total is not None and number and trait.kind in _FOLLOWING:
            if trait.kind is ComputedKind.SUM:
                values.setdefault(trait.name, total)
            elif trait.kind is ComputedKind.AVERAGE or number == 1:
                values.setdefault(trait.name, total / number)


def _counted(trait: Computed, node: AnyNode, problems: Problems) -> Any:
    """What a computed trait shows when the story begins."""
    if trait.kind in _NUMERIC:
        value = number(node, problems, trait.name)
        return int(value) if value is not None and trait.kind is ComputedKind.COUNT else value
    several = trait.kind is ComputedKind.DISTINCT or trait.top is not None
    if several and not isinstance(node, ListNode):
        hint = f"write [{node.text}]" if isinstance(node, Scalar) and node.text else None
        problems.append(node.problem(f"expected a list, found {shown(node)}", hint))
    return plain(node)


def _consent(node: AnyNode, problems: Problems, rules: RuleSet) -> dict[str, str]:
    known = frozenset(rules.workspace.purposes)
    names = frozenset(word for purpose in rules.workspace.purposes.values() for word in purpose.names)
    said: dict[str, str] = {}
    for word, entry in entries(node, problems, "consent such as {marketing: granted}").items():
        if word not in known | names:
            problems.append(unresolved(entry.key, "purpose", word, known))
            continue
        state = choice(entry.node, problems, ("granted", "denied", "unknown"))
        if state is not None and state != "unknown":
            said[word] = state
    return said


def _device(node: AnyNode, problems: Problems) -> dict[str, Any] | None:
    if isinstance(node, Scalar) and node.value is None:
        return None
    found = fields(node, problems, _DEVICE, expected="a device such as {type: ios, token: t1}")
    if found is None:
        return None
    device = {word: plain(value) for word, value in found.items()}
    if "type" in found:
        choice(found["type"], problems, ("ios", "android", "web"))
    if "permissions" in found:
        fields(found["permissions"], problems, ("push", "location", "precise"))
    return device
