"""`offers:`: what can be offered, what it is worth, and what the push says."""

from __future__ import annotations

from datetime import tzinfo
from typing import Final

import msgspec

from engine.domain.offers.expressions import Type
from engine.domain.offers.rules import Offer
from engine.formats.located_yaml import AnyNode, Entry, MapNode, Scalar
from engine.formats.messages import Members
from engine.formats.workspace_dates import Dates, dates
from engine.formats.workspace_limits import limits
from engine.formats.workspace_messages import Messages, messages
from engine.formats.workspace_names import Declared, expression, rule_names
from engine.formats.workspace_values import (
    Problems,
    fields,
    name,
    names,
    number,
    unresolved,
)

_FIELDS: Final = (
    "purpose",
    "value",
    "cost",
    "send_cost",
    "propensity",
    "baseline",
    "tags",
    "starts",
    "ends",
    "converts",
    "again_after",
    "budget",
    "hold",
    "code",
    "message",
)
_MOST_MONEY: Final = 1e9


class _Propensity(msgspec.Struct, frozen=True):
    """A model with its threshold, or a plain prior."""

    model: str | None = None
    prior: float | None = None
    at_least: float = 0.0


def offer(
    entry: Entry, problems: Problems, declared: Declared, members: Members, zone: tzinfo
) -> Offer | None:
    """One entry of `offers:`. `members` is what its message may show."""
    node = entry.node
    before = len(problems)
    name(entry.key, problems, "the name of an offer")
    found = fields(node, problems, _FIELDS, expected="fields such as {purpose: marketing}")
    if found is None or not isinstance(node, MapNode):
        return None
    if "purpose" not in found:
        hint = f"one of {', '.join(sorted(declared.purposes))}"
        problems.append(entry.key.problem('an offer needs a "purpose"', hint))
    purpose = purpose_of(found["purpose"], problems, declared) if "purpose" in found else None
    stated = _Propensity()
    if "propensity" in found:
        stated = _propensity(found["propensity"], problems, declared)
    value = None
    if "value" in found:
        value = expression(found["value"], problems, rule_names(declared, None), Type.NUMBER)
        if "propensity" not in found:
            hint = "add propensity: {model: NAME}, or a plain share such as propensity: 0.04"
            problems.append(node.entries["value"].key.problem('"value" needs a "propensity"', hint))
    baseline = _baseline(found["baseline"], problems, declared) if "baseline" in found else None
    if "baseline" in found and "value" not in found:
        problems.append(node.entries["baseline"].key.problem('"baseline" needs a "value"'))
    if "message" not in found:
        hint = "add message: {push: {title: …, body: …}}"
        problems.append(entry.key.problem('an offer needs a "message"', hint))
    said = messages(found["message"], problems, members) if "message" in found else Messages()
    limited = limits(node, found, problems, declared)
    cost = _money(found["cost"], problems, "cost") if "cost" in found else 0.0
    send_cost = _money(found["send_cost"], problems, "send_cost") if "send_cost" in found else 0.0
    span = dates(found, problems, zone) if "starts" in found or "ends" in found else Dates()
    tags = frozenset(names(found["tags"], problems, "tags")) if "tags" in found else frozenset[str]()
    if any(p.severity == "error" for p in problems[before:]) or purpose is None:
        return None
    return Offer(
        id=entry.key.text,
        purpose=purpose,
        value=value,
        cost=cost or 0.0,
        send_cost=send_cost or 0.0,
        model=stated.model,
        prior=stated.prior,
        at_least=stated.at_least,
        baseline=baseline,
        tags=tags,
        starts=span.starts,
        ends=span.ends,
        converts=limited.converts,
        again_after=limited.again_after,
        budget=limited.budget,
        hold=limited.hold,
        pool=limited.pool,
        push=said.push,
        in_app=said.in_app,
        file=node.source.file,
    )


def purpose_of(node: AnyNode, problems: Problems, declared: Declared) -> str | None:
    """The name of a consent purpose."""
    word = name(node, problems, "a purpose")
    if word is not None and word not in declared.purposes:
        if declared.complete:
            problems.append(unresolved(node, "purpose", word, declared.purposes))
        return None
    return word


def _model(node: AnyNode, problems: Problems, declared: Declared) -> str | None:
    word = name(node, problems, "the name of a model")
    if word is not None and word not in declared.models:
        if declared.complete:
            problems.append(unresolved(node, "model", word, declared.models))
        return None
    return word


def _propensity(node: AnyNode, problems: Problems, declared: Declared) -> _Propensity:
    if isinstance(node, Scalar):
        if node.text in declared.models:
            hint = f"did you mean {{model: {node.text}}}?"
            problems.append(node.problem("a propensity is {model: NAME} or a number", hint))
            return _Propensity()
        return _Propensity(prior=number(node, problems, "a propensity", low=0, high=1))
    found = fields(node, problems, ("model", "at_least"), expected="{model: NAME} or a number") or {}
    if found and "model" not in found:
        problems.append(node.problem('"model" is missing'))
    at_least = None
    if "at_least" in found:
        at_least = number(found["at_least"], problems, "at_least", low=0, high=1)
    model = _model(found["model"], problems, declared) if "model" in found else None
    return _Propensity(model=model, at_least=at_least or 0.0)


def _baseline(node: AnyNode, problems: Problems, declared: Declared) -> str | None:
    found = fields(node, problems, ("model",), expected="{model: NAME}")
    if found is None:
        return None
    if "model" not in found:
        problems.append(node.problem('"model" is missing'))
        return None
    return _model(found["model"], problems, declared)


def _money(node: AnyNode, problems: Problems, what: str) -> float | None:
    return number(node, problems, what, low=0, high=_MOST_MONEY)
