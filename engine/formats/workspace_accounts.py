"""What a rule set says of accounts: their roll-ups and audiences, and who looks at them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from engine.domain.companies import WELL_KNOWN
from engine.domain.offers.expressions import Expression, Type
from engine.domain.offers.filing import filed_by_trigger
from engine.domain.offers.patterns import changed_audience
from engine.domain.offers.rules import Audience, Rule, RuleSet, TriggerKind
from engine.domain.people.counting import stamp_of
from engine.formats.workspace_computed import reads_clock

_NAMED: Final = re.compile(rb"\baccount\s*(?:\.\s*|\[\s*[\"'])(\w+)")
"""A member of `account`, in conditions and messages alike; one too many costs nothing but its reading."""
_USED: Final = re.compile(rb"\b(?:account|member)\b")


def with_accounts(
    rules: RuleSet, audiences: tuple[Audience, ...], names: Mapping[str, Any], texts: Iterable[bytes]
) -> RuleSet:
    """The rule set with what goes for accounts. `names` are those below `account`, `texts` all files."""
    workspace = rules.workspace
    computed = workspace.account_computed
    inner = RuleSet(
        revision=rules.revision,
        workspace=replace(
            workspace,
            traits=WELL_KNOWN,
            computed=computed,
            counted_stamp=stamp_of(computed),
            readers={},
        ),
        fences=rules.fences,
        index=rules.index,
        offers={},
        rules={},
        models={},
        by_trigger={},
        computed_by_trigger=filed_by_trigger((t.pattern, t) for t in computed if t.pattern is not None),
        counts_by_clock=any(map(reads_clock, computed)),
        audiences=audiences,
        audience_stamp=b"".join(sorted(audience.digest for audience in audiences)),
        timestamps=frozenset(name for name, kind in names.items() if kind is Type.TIMESTAMP),
    )
    known = frozenset(audience.name for audience in audiences)
    asked = frozenset(name for rule in rules.rules.values() for name in _audiences_of(rule))
    whole = any("account" in expression.reads for expression in _expressions(rules))
    read = {name.decode() for text in texts for name in _NAMED.findall(text)} & names.keys() - {"id"}
    if whole:
        read = set(names) - {"id"}
    if asked & known:
        read.add("audiences")
    return replace(
        rules,
        of_accounts=inner,
        account_reads=frozenset(read),
        account_audiences=known,
        caps_accounts=any(cap.of_account for rule in rules.rules.values() for cap in rule.caps),
        uses_accounts=any(_USED.search(text) for text in texts),
    )


def _audiences_of(rule: Rule) -> Iterable[str]:
    yield from (name for name, _ in rule.audience)
    if rule.when.kind is TriggerKind.AUDIENCE:
        yield changed_audience(rule.when.name)[0]


def _expressions(rules: RuleSet) -> Iterable[Expression]:
    for rule in rules.rules.values():
        yield from filter(None, (rule.when.condition, rule.condition))
    yield from filter(None, (offer.value for offer in rules.offers.values()))
    yield from (column.expression for card in rules.models.values() for column in card.inputs)
