"""Conditions that can never be true, told at the very comparison."""

from __future__ import annotations

from collections.abc import Iterator

from engine.domain.offers.caps import WEEKDAYS
from engine.domain.offers.cel_contradictions import (
    Domains,
    Part,
    contradiction,
    impossible_values,
)
from engine.domain.offers.cel_syntax import parse
from engine.domain.offers.rules import ComputedKind, Rule, RuleSet
from engine.formats.located_scalar import place_in
from engine.formats.located_yaml import Entry, MapNode, Scalar
from engine.formats.problems import Problem, did_you_mean

_CLOCK: Domains = {
    "local.hour": (0, 23),
    "local.weekday": frozenset(WEEKDAYS),
    "device.type": frozenset(("ios", "android", "web")),
}


def condition_advice(entry: Entry, rule: Rule, rules: RuleSet) -> Iterator[Problem]:
    """What is wrong with a rule's conditions, each alone and both together."""
    nodes = list(_conditions(entry, rule))
    if not nodes:
        return
    domains = {**_CLOCK, **_steps(rules)}
    parts = [Part(node.text, parse(node.text)) for node in nodes]
    told = False
    for node, part in zip(nodes, parts, strict=True):
        for one in impossible_values(part.tree, domains):
            told = True
            hint = did_you_mean(one.value, one.options) or f"one of {', '.join(sorted(one.options))}"
            yield _at(node, one.start, f'`{one.path}` is never "{one.value}"', hint)
    clash = None if told else contradiction(parts, domains)
    if clash is not None:
        said = f"`{clash.second}` is never true"
        if clash.first is not None:
            said = f"`{clash.first}` and `{clash.second}` are never both true"
        yield _at(nodes[clash.part], clash.start, f"the rule never fires: {said}", None)


def _conditions(entry: Entry, rule: Rule) -> Iterator[Scalar]:
    assert isinstance(entry.node, MapNode)
    when = entry.node.entries["when"].node
    inner = when.entries.get("if") if isinstance(when, MapNode) else None
    for found, condition in ((inner, rule.when.condition), (entry.node.entries.get("if"), rule.condition)):
        if found is not None and condition is not None and isinstance(found.node, Scalar):
            yield found.node


def _steps(rules: RuleSet) -> Domains:
    """The words that computed steps climb through."""
    return {
        f"profile.{trait.name}": frozenset(label for _, label in trait.steps)
        for trait in rules.workspace.computed
        if trait.kind is ComputedKind.STEPS
    }


def _at(node: Scalar, offset: int, message: str, suggestion: str | None) -> Problem:
    line, column = place_in(node, offset)
    return Problem(node.source.file, line, column, message, suggestion)
