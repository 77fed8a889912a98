"""`rollout:`, `holdout:`, `experiment:` and `variants:` of a rule: which shares of people get what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from engine.domain.offers.rules import Offer, Variant
from engine.formats.located_yaml import AnyNode, Entry, MapNode, Scalar
from engine.formats.workspace_messages import messages
from engine.formats.workspace_names import Declared, message_members
from engine.formats.workspace_values import Problems, fields, name, share, shown, unresolved

_ROUNDING: Final = 1e-9


class Trial(msgspec.Struct, frozen=True):
    rollout: float = 1.0
    experiment: str | None = None
    holdout: float = 0.0
    variants: tuple[Variant, ...] = ()


def tries(entry: Entry) -> bool:
    """Whether a rule has variants, which are read together with the offers that they are of."""
    return isinstance(entry.node, MapNode) and "variants" in entry.node.entries


def trial(
    node: MapNode,
    found: Mapping[str, AnyNode],
    problems: Problems,
    declared: Declared,
    catalogue: Mapping[str, Offer],
) -> Trial:
    """What a rule says of shares of people. A variant that only has a message of its own is of the
    rule's offer."""
    rollout = share(found["rollout"], problems) if "rollout" in found else None
    holdout = share(found["holdout"], problems) if "holdout" in found else None
    experiment = None
    if "experiment" in found:
        experiment = name(found["experiment"], problems, "the name of an experiment")
        if "variants" not in found and "holdout" not in found:
            hint = "add variants:, or a holdout:"
            problems.append(node.entries["experiment"].key.problem("an experiment that tries nothing", hint))
    variants: tuple[Variant, ...] = ()
    if "variants" in found and "offers" in found:
        problems.append(node.entries["variants"].key.problem('"offers" and "variants" exclude each other'))
    elif "variants" in found:
        variants = _variants(found["variants"], found.get("offer"), problems, declared, catalogue)
    return Trial(rollout or 1.0, experiment, holdout or 0.0, variants)


def _variants(
    node: AnyNode,
    base: AnyNode | None,
    problems: Problems,
    declared: Declared,
    catalogue: Mapping[str, Offer],
) -> tuple[Variant, ...]:
    expected = "variants such as {a: {share: 50%, offer: x}, b: {share: 50%, offer: y}}"
    if not isinstance(node, MapNode) or not node.entries:
        problems.append(node.problem(f"expected {expected}, found {shown(node)}"))
        return ()
    variants: list[Variant] = []
    of = base if base is not None else _only_offer(node)
    total = 0.0
    for word, entry in node.entries.items():
        name(entry.key, problems, "the name of a variant")
        said = fields(entry.node, problems, ("share", "offer", "message"), expected="{share: 50%, offer: x}")
        if said is None:
            continue
        part = share(said["share"], problems) if "share" in said else None
        if "share" not in said:
            problems.append(entry.key.problem('"share" is missing'))
        total += part or 0.0
        offer = _offer(entry.key, said, base, of, problems, declared, catalogue)
        if part is not None and offer is not None:
            variants.append(Variant(name=word, share=part, offer=offer))
    if total > 1.0 + _ROUNDING:
        problems.append(node.problem(f"the shares come to {total * 100:g}%: more than all"))
    return tuple(variants)


def _only_offer(node: MapNode) -> AnyNode | None:
    """The offer that the arms name, where all name the same one: other arms may have messages for it."""
    named = [
        entry.node.entries["offer"].node
        for entry in node.entries.values()
        if isinstance(entry.node, MapNode) and "offer" in entry.node.entries
    ]
    texts = {one.text if isinstance(one, Scalar) else "" for one in named}
    return named[0] if len(texts) == 1 else None


def _offer(
    key: Scalar,
    said: Mapping[str, AnyNode],
    base: AnyNode | None,
    of: AnyNode | None,
    problems: Problems,
    declared: Declared,
    catalogue: Mapping[str, Offer],
) -> Offer | None:
    """The arm's offer. `base` is the rule's own, `of` the one that a message is for."""
    if ("offer" in said) == ("message" in said):
        hint = "a variant is another offer, or another message of the rule's own"
        problems.append(key.problem('a variant needs either an "offer" or a "message"', hint))
        return None
    if "offer" in said:
        if base is not None:
            problems.append(said["offer"].problem("the rule has an offer of its own already"))
            return None
        return _catalogued(said["offer"], problems, declared, catalogue)
    if of is None:
        problems.append(said["message"].problem("a message needs an offer: the rule has none"))
        return None
    offer = catalogue.get(of.text) if isinstance(of, Scalar) else None
    before = len(problems)
    own = messages(said["message"], problems, message_members(declared))
    if offer is None or len(problems) > before:
        return None
    return msgspec.structs.replace(offer, push=own.push, in_app=own.in_app)


def _catalogued(
    node: AnyNode, problems: Problems, declared: Declared, catalogue: Mapping[str, Offer]
) -> Offer | None:
    word = name(node, problems, "the name of an offer")
    if word is None or not isinstance(node, Scalar):
        return None
    if word not in declared.offers and declared.complete:
        problems.append(unresolved(node, "offer", word, declared.offers))
    return catalogue.get(word)
