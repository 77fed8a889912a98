"""What a purpose may be told of people by a workspace's labels, for receivers outside."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from engine.domain.offers.rules import ON_A_TRIP, PLACED, Computed, RuleSet
from engine.domain.sharing.readers import LOCATION, PERSONAL, Readable
from engine.formats.workspace_labels import behind, behind_rule, labelled, uses


def readable(rules: RuleSet, purpose: str, without: Iterable[str]) -> Readable:
    """Declared and computed traits, audiences, rules and kinds of identities that may be told for `purpose`:
    none that carries a label which the purpose may not read, or one of `without`, or that rests on such."""
    workspace = rules.workspace
    hidden = {*without, *(label for label, may in workspace.labels.items() if purpose not in may)}
    everything = {t.label: frozenset[str]() for t in workspace.traits.values() if t.label is not None}
    labelling = msgspec.structs.replace(workspace, labels={**workspace.labels, **everything})
    own = labelled(labelling)
    restricted = {name for name, labels in own.items() if not hidden.isdisjoint(labels)}
    if LOCATION in hidden:
        restricted |= {trait.name for trait in workspace.computed if _is_placed(trait)}
    known = uses(labelling, rules.audiences, rules.models)
    offers = {**rules.offers, **rules.actions}

    def is_open(paths: frozenset[str]) -> bool:
        return restricted.isdisjoint(path.rpartition(".")[2] for path in paths)

    def is_personal(name: str, sources: Iterable[tuple[str, ...]]) -> bool:
        stated = {source[-1] for source in sources if source[0] == "traits"}
        known = {"email", "phone"} & {name, *stated}
        return (bool(known) and PERSONAL in hidden) or not restricted.isdisjoint(stated)

    return Readable(
        traits=frozenset(workspace.traits) - restricted,
        computed=frozenset(trait.name for trait in workspace.computed) - restricted,
        audiences=frozenset(
            a.name for a in rules.audiences if is_open(behind(f"profile.audiences.{a.name}", known))
        ),
        rules=frozenset(
            name for name, rule in rules.rules.items() if is_open(behind_rule(rule, offers, known))
        ),
        namespaces=frozenset(n.name for n in workspace.namespaces if not is_personal(n.name, n.sources)),
        location=LOCATION not in hidden,
    )


def _is_placed(trait: Computed) -> bool:
    return trait.pattern is not None and trait.pattern.kind in (*PLACED, *ON_A_TRIP)
