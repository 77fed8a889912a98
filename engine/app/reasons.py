"""A candidate's fate in words: which gate stopped it, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from engine.domain.offers.cel_nodes import Logic, Node
from engine.domain.offers.cel_syntax import parse
from engine.domain.offers.decisions import Judged, Reason
from engine.domain.offers.expressions import (
    Expression,
    ExpressionError,
    Names,
    Type,
    compile_expression,
)
from engine.domain.offers.rules import RuleSet
from engine.domain.offers.scope import Scope

_LONGEST_VALUE = 60


def sentence(judged: Judged) -> str:
    """Why a candidate went no further, with its numbers, as one would say it. The winner "won"."""
    if judged.reason is None:
        return "won" + _worth(judged)
    numbers = judged.numbers
    match judged.reason:
        case Reason.CAPPED:
            of = "the workspace" if numbers["of"] == "workspace" else numbers["of"]
            return f"{numbers['count']} of {numbers['times']} per {numbers['per']} used, a cap of {of}"
        case Reason.NO_CONSENT:
            return f"consent for {numbers['purpose']} is {numbers['state']}"
        case Reason.CONDITION_FALSE:
            return f"not true: {numbers.get('condition', 'its condition')}"
        case Reason.CONDITION_UNKNOWN:
            return f"something in it is not known: {numbers.get('condition') or numbers.get('value')}"
        case Reason.LOW_PROPENSITY:
            return f"propensity {numbers['propensity']:.2f} is below {numbers['atLeast']:g}"
        case Reason.NOT_WORTH_IT:
            return (
                f"expected value {numbers['expectedValue']:+.2f}: "
                f"propensity {numbers['propensity']:.2f} × ({numbers['value']:g} - cost {numbers['cost']:g})"
            )
        case Reason.OUTRANKED:
            return f"{numbers['by']} ranks higher" + _worth(judged)
        case Reason.QUIET_HOURS if "from" in numbers:
            return f"{numbers['local']} is within quiet hours, {numbers['from']} to {numbers['to']}"
        case _:
            return ", ".join(_told(word, value) for word, value in numbers.items())


def _worth(judged: Judged) -> str:
    parts = []
    if judged.propensity is not None:
        parts.append(f"propensity {judged.propensity:.2f}")
    if judged.expected_value is not None:
        parts.append(f"expected value {judged.expected_value:+.2f}")
    return f" ({', '.join(parts)})" if parts else ""


def _told(word: str, value: Any) -> str:
    """`ageSeconds` as "age 20m34s"."""
    if word.endswith("Seconds") and isinstance(value, int | float):
        return f"{_spaced(word.removesuffix('Seconds'))} {shown(timedelta(seconds=round(value)))}"
    return f"{_spaced(word)} {shown(value)}"


def _spaced(word: str) -> str:
    """`atLeast` as "at least"."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in word)


def shown(value: Any) -> str:
    """A value in a sentence, as short as it can be."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, timedelta):
        minutes, seconds = divmod(value.seconds, 60)
        parts = ((value.days, "d"), (minutes // 60, "h"), (minutes % 60, "m"))
        last = seconds + value.microseconds / 1e6
        return "".join(f"{n}{unit}" for n, unit in parts if n) + (f"{last:g}s" if last or not value else "")
    if isinstance(value, list):
        return f"[{', '.join(shown(one) for one in value)}]"
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if value is None else str(value)
    if isinstance(value, bool):
        text = text.lower()
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def stopped_at(judged: Judged, rules: RuleSet) -> Expression | None:
    """The expression that a candidate fell at, where it was one."""
    rule, offer = rules.rules.get(judged.rule), rules.offers.get(judged.offer)
    texts = (judged.numbers.get("condition"), judged.numbers.get("value"))
    expressions = (
        rule.when.condition if rule else None,
        rule.condition if rule else None,
        offer.value if offer else None,
    )
    return next((one for one in expressions if one is not None and one.text in texts), None)


class Looked(msgspec.Struct, frozen=True):
    """What a candidate's conditions could look at, and which traits of the person nobody may read, by
    their label and what the person allowed."""

    scope: Scope
    kept_back: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return "Looked(…)"


def values_read(expression: Expression, looked: Looked) -> list[tuple[str, str]]:
    """What the expression looked at, by dotted path, and what was found there. What must not be read is
    not shown, but said to be so."""
    found = []
    for path in sorted(expression.reads):
        root, *steps = path.split(".")
        value: Any = getattr(looked.scope, root, None)
        for step in steps:
            value = value.get(step) if isinstance(value, Mapping) else None
        is_trait = steps and (root == "profile" or (root == "event" and steps[0] == "traits"))
        if is_trait and steps[-1] in looked.kept_back:
            found.append((path, "kept back by its label"))
        elif not isinstance(value, Mapping):
            found.append((path, "unknown" if value is None else shown(value)))
    return found


def unmet(expression: Expression, scope: Scope) -> list[Expression]:
    """Of the parts that must all hold those that did not: false ones, or else those that were unknown."""
    parts = _parts(expression)
    answers = [part.evaluate(scope) for part in parts]
    false = [part for part, answer in zip(parts, answers, strict=True) if answer is False]
    return false or [part for part, answer in zip(parts, answers, strict=True) if answer is not True]


_ANYTHING: Names = {
    **dict.fromkeys(Scope.__struct_fields__, Type.MAP),
    "now": Type.TIMESTAMP,
}


@lru_cache(maxsize=256)
def _compiled(text: str) -> Expression | None:
    try:
        return compile_expression(text, _ANYTHING, expect=Type.BOOL)
    except ExpressionError:
        return None


def _parts(expression: Expression) -> list[Expression]:
    """What stands between the outermost `&&`."""
    texts: list[str] = []
    waiting: list[Node] = [parse(expression.text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Logic) and node.operator == "&&":
            waiting += reversed(node.terms)
        else:
            texts.append(expression.text[node.start : node.end])
    parts = [_compiled(text) for text in texts]
    if len(parts) == 1 or any(part is None for part in parts):
        return [expression]
    return [part for part in parts if part is not None]
