"""`labels:`: which purposes may read the traits that carry a label, and every use beyond them.

An offer is made for its purpose. What decides about it, or stands in its message, is used for that
purpose: its rule's conditions, the audiences and models behind them, its value, its texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from engine.domain.offers.expressions import Expression
from engine.domain.offers.patterns import changed_audience
from engine.domain.offers.propensity import ModelCard
from engine.domain.offers.rules import (
    Audience,
    Computed,
    ComputedKind,
    Offer,
    Purpose,
    Rule,
    TraitDeclaration,
    TriggerKind,
    Workspace,
)
from engine.formats.located_scalar import place_in
from engine.formats.located_yaml import AnyNode, Entry, ListNode, MapNode, Scalar
from engine.formats.messages import names_read
from engine.formats.problems import Problem, did_you_mean
from engine.formats.workspace_values import Problems, fields, names, unresolved

Labels = Mapping[str, frozenset[str]]
_AUDIENCES = "profile.audiences."
_PROPENSITY = "propensity."


def labels(node: AnyNode, problems: Problems, purposes: Mapping[str, Purpose]) -> Labels:
    """The purposes that may read, by label."""
    if not isinstance(node, MapNode):
        fields(node, problems, (), expected="labels such as {personal: [marketing]}")
        return {}
    found: dict[str, frozenset[str]] = {}
    for word, entry in node.entries.items():
        allowed = names(entry.node, problems, "purposes")
        found[word] = frozenset(allowed)
        for item in entry.node.items if isinstance(entry.node, ListNode) else ():
            if isinstance(item, Scalar) and item.text in allowed and item.text not in purposes:
                problems.append(unresolved(item, "purpose", item.text, purposes))
    return found


def check_declared(
    section: Entry | None, traits: Mapping[str, TraitDeclaration], known: Labels, problems: Problems
) -> None:
    """A trait's label is one of those that purposes are named for, where any are."""
    if not known or section is None or not isinstance(section.node, MapNode):
        return
    for word, trait in traits.items():
        node = section.node.entries[word].node
        if trait.label is not None and trait.label not in known and isinstance(node, MapNode):
            problems.append(unresolved(node.entries["label"].node, "label", trait.label, known))


def labelled(workspace: Workspace) -> Mapping[str, frozenset[str]]:
    """The labels of each restricted trait by name, of computed ones those of all that they read."""
    found = {
        trait.name: frozenset((trait.label,))
        for trait in workspace.traits.values()
        if trait.label is not None and trait.label in workspace.labels
    }
    stated = {f"event.traits.{name}": own for name, own in found.items()}
    everything = frozenset(label for own in found.values() for label in own)
    for trait in sorted(
        workspace.computed, key=lambda t: (t.kind is ComputedKind.STEPS, t.kind is ComputedKind.RATIO)
    ):
        condition = trait.pattern.condition if trait.pattern is not None else None
        own = found.get(trait.of, frozenset()) | found.get(trait.over, frozenset())
        for expression in (trait.value, condition):
            for path in expression.reads if expression is not None else ():
                own |= everything if path in ("event", "event.traits") else stated.get(path, frozenset())
        if own:
            found[trait.name] = own
    return found


def readers(workspace: Workspace) -> Mapping[str, tuple[Purpose, ...]]:
    """For each restricted trait the purposes that all of its labels let read it."""
    everyone = frozenset(workspace.purposes)
    return {
        name: tuple(
            workspace.purposes[purpose]
            for purpose in sorted(everyone.intersection(*(workspace.labels[label] for label in own)))
        )
        for name, own in labelled(workspace).items()
    }


class Uses(msgspec.Struct, frozen=True, kw_only=True):
    """The restricted traits by dotted path with their labels, and what leads to them."""

    known: Labels
    traits: Mapping[str, frozenset[str]]
    audiences: Mapping[str, Audience]
    models: Mapping[str, ModelCard]


def uses(workspace: Workspace, audiences: tuple[Audience, ...], models: Mapping[str, ModelCard]) -> Uses:
    own = labelled(workspace)
    paths = {f"profile.{name}": labels for name, labels in own.items()}
    paths |= {f"event.traits.{name}": own[name] for name in workspace.traits if name in own}
    return Uses(
        known=workspace.labels,
        traits=paths,
        audiences={audience.name: audience for audience in audiences},
        models=models,
    )


def check_rollups(entry: Entry | None, rollups: Iterable[Computed], of: Uses, problems: Problems) -> None:
    """What accounts keep is nobody's, and read for no purpose: no labelled trait may go into it."""
    section = entry.node.entries.get("computed") if entry and isinstance(entry.node, MapNode) else None
    if section is None or not isinstance(section.node, MapNode):
        return
    for trait in rollups:
        conditions = trait.pattern.condition if trait.pattern is not None else None
        read = {path for one in (trait.value, conditions) if one is not None for path in one.reads}
        for path in sorted(read):
            for label_of, _ in _leads_to(path, of):
                label = ", ".join(sorted(of.traits[label_of]))
                message = f'"{label_of}" is labelled "{label}": what accounts keep is for no purpose'
                problems.append(section.node.entries[trait.name].node.problem(message))


def check_offer(entry: Entry, offer: Offer, of: Uses, problems: Problems) -> None:
    """What an offer's value, models and texts read, and what an action tells a webhook."""
    found = entry.node.entries if isinstance(entry.node, MapNode) else {}
    if offer.value is not None:
        _check(offer.value, found["value"].node, offer.purpose, of, problems)
    for word, model in (("propensity", offer.model), ("baseline", offer.baseline)):
        for trait, way in _of_model(model, of) if model is not None else ():
            _refuse(found[word].node, trait, way, offer.purpose, of, problems)
    _check_texts(entry.node, offer.purpose, of, problems)


def check_rule(entry: Entry, rule: Rule, offers: Mapping[str, Offer], of: Uses, problems: Problems) -> None:
    """What a rule's conditions read, for the purpose of each offer that it puts forward."""
    found = entry.node.entries if isinstance(entry.node, MapNode) else {}
    when = found["when"].node
    inner = when.entries.get("if") if isinstance(when, MapNode) else None
    put_forward = (*rule.offers, rule.action or "")
    purposes = {offers[word].purpose for word in put_forward if word in offers}
    for variant in rule.variants:
        purposes.add(variant.offer.purpose)
        _check_texts(_variant(found, variant.name), variant.offer.purpose, of, problems)
    for purpose in sorted(purposes):
        if rule.condition is not None:
            _check(rule.condition, found["if"].node, purpose, of, problems)
        if rule.when.condition is not None and inner is not None:
            _check(rule.when.condition, inner.node, purpose, of, problems)
        for word, steps in (("after", rule.after), ("unless", rule.unless)):
            for step in steps:
                if step.pattern.condition is not None:
                    _check(step.pattern.condition, found[word].node, purpose, of, problems)
        for path in _asked_of(found, when):
            for trait, way in _of_audience(path, of):
                _refuse(when, trait, way, purpose, of, problems)


def _asked_of(found: Mapping[str, Entry], when: AnyNode) -> Iterator[str]:
    """The audiences that a rule names outside its conditions."""
    named = (
        [when.entries["audience"].node] if isinstance(when, MapNode) and "audience" in when.entries else []
    )
    named += [found["audience"].node] if "audience" in found else []
    for node in named:
        items = node.items if isinstance(node, ListNode) else (node,)
        yield from (item.text.removeprefix("!") for item in items if isinstance(item, Scalar))


def _check(expression: Expression, node: AnyNode, purpose: str, of: Uses, problems: Problems) -> None:
    for path in sorted(expression.reads):
        for trait, way in _leads_to(path, of):
            at: Problem | AnyNode = node
            if isinstance(node, Scalar):
                word = path.rpartition(".")[2]
                found = re.search(rf"\b{re.escape(word)}\b", node.text)
                line, column = place_in(node, found.start() if found else 0)
                at = Problem(node.source.file, line, column, "")
            _refuse(at, trait, way, purpose, of, problems)


def _leads_to(path: str, of: Uses) -> Iterator[tuple[str, str]]:
    """The restricted traits that are behind a path, each with the way that leads there."""
    if path in of.traits:
        yield path, ""
    elif path in ("profile", "event", "event.traits"):
        yield from (
            (trait, " (any trait may be read here)") for trait in of.traits if trait.startswith(f"{path}.")
        )
    elif path.startswith(_AUDIENCES):
        yield from _of_audience(path.removeprefix(_AUDIENCES), of)
    elif path.startswith(_PROPENSITY):
        yield from _of_model(path.removeprefix(_PROPENSITY), of)


def _of_audience(name: str, of: Uses) -> Iterator[tuple[str, str]]:
    audience = of.audiences.get(name)
    for path in sorted(audience.condition.reads) if audience is not None else ():
        for trait, way in _leads_to(path, of):
            yield trait, f" through the audience {name}{way}"


def behind(path: str, of: Uses) -> frozenset[str]:
    """The paths of the restricted traits that a path leads to, through audiences and models as well."""
    return frozenset(trait for trait, _ in _leads_to(path, of))


def behind_rule(rule: Rule, offers: Mapping[str, Offer], of: Uses) -> frozenset[str]:
    """Those that decide what becomes of a rule."""
    patterns = [rule.when, *(step.pattern for step in (*rule.after, *rule.unless))]
    made = [offers[word] for word in (*rule.offers, rule.action or "") if word in offers]
    made += [variant.offer for variant in rule.variants]
    conditions = [rule.condition, *(p.condition for p in patterns), *(offer.value for offer in made)]
    paths = {path for one in conditions if one is not None for path in one.reads}
    paths |= {f"{_AUDIENCES}{name}" for name, _ in rule.audience}
    paths |= {f"{_PROPENSITY}{model}" for o in made for model in (o.model, o.baseline) if model is not None}
    if rule.when.kind is TriggerKind.AUDIENCE:
        paths.add(_AUDIENCES + changed_audience(rule.when.name)[0])
    if rule.when.schedule is not None:
        paths.add(_AUDIENCES + rule.when.name)
    return frozenset(trait for path in paths for trait in behind(path, of))


def _of_model(name: str, of: Uses) -> Iterator[tuple[str, str]]:
    card = of.models.get(name)
    for column in card.inputs if card is not None else ():
        for path in sorted(column.expression.reads):
            for trait, way in _leads_to(path, of):
                yield trait, f" through the model {name}{way}"


def _refuse(at: Problem | AnyNode, trait: str, way: str, purpose: str, of: Uses, problems: Problems) -> None:
    for label in sorted(of.traits[trait]):
        allowed = of.known[label]
        if purpose in allowed:
            continue
        may = f"only {' and '.join(sorted(allowed))} may read" if allowed else "nothing may read"
        message = f'"{trait}" is read{way} for "{purpose}": it is labelled "{label}", which {may}'
        hint = did_you_mean(purpose, allowed)
        if isinstance(at, Problem):
            problems.append(msgspec.structs.replace(at, message=message, suggestion=hint))
        else:
            problems.append(at.problem(message, hint))


def _variant(found: Mapping[str, Entry], name: str) -> AnyNode:
    variants = found["variants"].node
    assert isinstance(variants, MapNode)
    return variants.entries[name].node


def _check_texts(node: AnyNode, purpose: str, of: Uses, problems: Problems) -> None:
    """The texts of an offer's, or a variant's, own message, and of an action's body."""
    own = node.entries if isinstance(node, MapNode) else {}
    for text in (each for word in ("message", "body") if word in own for each in _texts(own[word].node)):
        for path, offset in names_read(text.text):
            for trait, way in _leads_to(path, of):
                line, column = place_in(text, offset)
                _refuse(Problem(text.source.file, line, column, ""), trait, way, purpose, of, problems)


def _texts(node: AnyNode) -> Iterator[Scalar]:
    """Every text below a message."""
    if isinstance(node, Scalar):
        yield node
    elif isinstance(node, MapNode):
        for entry in node.entries.values():
            yield from _texts(entry.node)
