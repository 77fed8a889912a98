"""What is allowed and hardly meant: rules that never fire or never win, caps that cap nothing, people
whom nobody addresses. Warnings, for a workspace without errors; none of them stops an engine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta

import msgspec

from engine.domain.offers.arbitration import expected_value, rank
from engine.domain.offers.patterns import Pattern, TriggerKey, timed
from engine.domain.offers.rules import Cap, Offer, Rule, RuleSet, TriggerKind, Window
from engine.domain.offers.scope import Scope, is_number
from engine.domain.places.packed_fences import Tagged
from engine.formats.advice_conditions import condition_advice
from engine.formats.advice_messages import message_advice
from engine.formats.advice_phones import phone_advice
from engine.formats.located_yaml import AnyNode, Entry, ListNode, MapNode
from engine.formats.problems import Problem, did_you_mean
from engine.formats.workspace_sections import Sections

_PLACED = (TriggerKind.ENTER, TriggerKind.EXIT, TriggerKind.DWELL, TriggerKind.APPROACH)
_LONGEST_UNIT = {"day": timedelta(hours=25), "week": timedelta(days=7, hours=1), "month": timedelta(days=32)}
_OPEN_RULE = frozenset(("id", "when", "offers", "priority", "lever", "tags", "file", "fresh"))
_OPEN_OFFER = frozenset(
    ("id", "purpose", "value", "cost", "send_cost", "prior", "at_least", "tags", "push", "file")
)
"""Fields that leave a rule, or an offer, open to everybody at any time."""
_NARROWER_RULE = _OPEN_RULE | {
    "condition",
    "after",
    "unless",
    "audience",
    "during",
    "caps",
    "rollout",
    "starts",
    "ends",
}
_NARROWER_OFFER = _OPEN_OFFER | {"starts", "ends"}
"""Fields that take away people or times, and nothing else."""


def advice(
    said: Sections, rules: RuleSet, now: datetime, receivers: frozenset[str] | None = None
) -> tuple[Problem, ...]:
    """Every warning, in no order. `now` is for what is over by then; `receivers` are those that exist,
    where that is known."""
    found: list[Problem] = []
    for word, entry in said.offers.items():
        offer = rules.offers[word]
        found += _offer(entry, offer, rules, now)
    found += message_advice(said.offers)
    if receivers is not None:
        found += _unknown_receivers(said, rules, receivers)
    ruled = [(said.rules[word], rule) for word, rule in rules.rules.items()]
    for entry, rule in ruled:
        found += _dates(entry, rule, rules, now)
        found += _places(entry, rule)
        found += _caps(entry, rule, rules)
        found += condition_advice(entry, rule, rules)
        found += phone_advice(entry, rule)
    found += _outranked(ruled, rules)
    found += _unused_audiences(said, rules)
    return tuple(msgspec.structs.replace(problem, severity="warning") for problem in found)


def _field(entry: Entry, word: str) -> Entry:
    assert isinstance(entry.node, MapNode)
    return entry.node.entries[word]


def _put_forward(rule: Rule, rules: RuleSet) -> list[Offer]:
    return [rules.offers[word] for word in rule.offers] or [variant.offer for variant in rule.variants]


def _offer(entry: Entry, offer: Offer, rules: RuleSet, now: datetime) -> Iterator[Problem]:
    if offer.ends is not None and offer.ends <= now:
        yield _field(entry, "ends").node.problem("the offer has ended: nobody gets it any more")
    if offer.value is not None and rules.workspace.purposes[offer.purpose].basis == "contract":
        message = f'"{offer.purpose}" needs no consent and no value: "value" changes nothing here'
        hint = "give the offer a purpose that people can refuse"
        yield _field(entry, "value").key.problem(message, hint)


# Rules that never fire


def _dates(entry: Entry, rule: Rule, rules: RuleSet, now: datetime) -> Iterator[Problem]:
    if rule.ends is not None and rule.ends <= now:
        yield _field(entry, "ends").node.problem("the rule has ended: it never fires any more")
        return
    offers = _put_forward(rule, rules)
    for offer in offers:
        starts = max((at for at in (rule.starts, offer.starts) if at is not None), default=None)
        ends = min((at for at in (rule.ends, offer.ends) if at is not None), default=None)
        if starts is None or ends is None or starts < ends:
            return
    if offers:
        names = " nor ".join(f'"{offer.id}"' for offer in offers)
        yield entry.key.problem(f"the rule never fires: its dates and those of {names} never meet")


def _places(entry: Entry, rule: Rule) -> Iterator[Problem]:
    if rule.when.kind in _PLACED and not rule.when.fences:
        yield _field(entry, "when").node.problem("the rule never fires: no geofence has this tag")


# Caps that cap nothing


def _caps(entry: Entry, rule: Rule, rules: RuleSet) -> Iterator[Problem]:
    if not rule.caps:
        return
    node = _field(entry, "cap").node
    items: tuple[AnyNode, ...] = node.items if isinstance(node, ListNode) else (node,)
    purposes = {offer.purpose for offer in _put_forward(rule, rules)}
    for cap, item in zip(rule.caps, items, strict=True):
        for whole in rules.workspace.caps:
            applies = whole.purpose is None or purposes == {whole.purpose}
            if applies and _never_reached(cap, whole):
                of = f' of "{whole.purpose}"' if whole.purpose else ""
                stands = f"{whole.times} per {whole.per.text}{of}"
                message = f"this cap never stops anything: the workspace's {stands} is reached before"
                yield item.problem(message)
                break


def _never_reached(cap: Cap, whole: Cap) -> bool:
    """Whether the workspace's cap has always stopped what the rule's would stop. A cap that counts
    apart, or something else, is left alone."""
    apart = [
        word
        for word in Cap.__struct_fields__
        if word not in ("times", "per", "channel", "purpose") and getattr(cap, word) != getattr(whole, word)
    ]
    return not apart and cap.times >= whole.times and _within(cap.per, whole.per)


def _within(shorter: Window, longer: Window) -> bool:
    if shorter.calendar is not None and shorter.calendar == longer.calendar:
        return True
    if longer.rolling is None:
        return False
    span = shorter.rolling if shorter.rolling is not None else _LONGEST_UNIT[shorter.calendar or "month"]
    return span <= longer.rolling


# Rules that never win


def _outranked(ruled: Iterable[tuple[Entry, Rule]], rules: RuleSet) -> Iterator[Problem]:
    """Rules beside which another one always stands that ranks higher and stops for nobody."""
    ruled = list(ruled)
    opened: dict[tuple[TriggerKind, str], list[tuple[Rule, Offer, tuple[object, ...]]]] = {}
    for _, rule in ruled:
        if not _is_open(rule, _OPEN_RULE) or rule.when.condition is not None or rule.when.wait is not None:
            continue
        for offer in _put_forward(rule, rules):
            worth = _constant_worth(offer, rule)
            if worth is not None and _is_open(offer, _OPEN_OFFER) and (offer.prior or 1.0) >= offer.at_least:
                ranked = rank(rule, worth[0], "", offer.id)
                for trigger in _keys(rule.when):
                    opened.setdefault(trigger, []).append((rule, offer, ranked))
    for entry, rule in ruled:
        if rule.when.wait is not None or not (keys := _keys(rule.when)):
            continue
        first, *others = (opened.get(trigger, ()) for trigger in keys)
        for better, offer, ranked in first:
            everywhere = all(any(better is one for one, _, _ in several) for several in others)
            if better is not rule and everywhere and _always_below(rule, better, offer, ranked, rules):
                message = f'the rule never wins: "{better.id}" is set off whenever it is, and ranks higher'
                yield entry.key.problem(message, "give it a higher priority, or the other one a condition")
                break


def _keys(pattern: Pattern) -> Collection[TriggerKey]:
    """The pattern's triggers; of imported places with a tag, which may be very many, one for all."""
    if isinstance(pattern.fences, Tagged):
        return ((pattern.kind, timed(f"\n{pattern.fences.tag}", pattern.span)),)
    return pattern.triggers


def _is_open(part: Rule | Offer, fields: frozenset[str]) -> bool:
    """Whether all else of a rule or offer is as if nothing had been said."""
    defaults = dict(zip(reversed(part.__struct_fields__), reversed(part.__struct_defaults__), strict=False))
    return all(
        getattr(part, word) == defaults.get(word) for word in part.__struct_fields__ if word not in fields
    )


def _constant_worth(offer: Offer, rule: Rule) -> tuple[float | None] | None:
    """The expected value of an offer in a tuple, where it is the same for everybody and above 0."""
    if offer.value is None:
        return (None,)
    value = offer.value.evaluate(Scope()) if not offer.value.reads else None
    if not is_number(value) or offer.prior is None or offer.baseline is not None:
        return None
    worth = expected_value(float(value), offer, offer.prior, 0.0, rule.lever)
    return (worth,) if worth > 0 else None


def _always_below(rule: Rule, better: Rule, offer: Offer, ranked: tuple[object, ...], rules: RuleSet) -> bool:
    if better.fresh is not None and (rule.fresh is None or rule.fresh > better.fresh):
        return False
    if not _is_open(rule, _NARROWER_RULE):
        return False
    for own in _put_forward(rule, rules):
        contract = rules.workspace.purposes[own.purpose].basis == "contract"
        worth = _constant_worth(own, rule)
        if contract or own.purpose != offer.purpose or worth is None or not _is_open(own, _NARROWER_OFFER):
            return False
        if not ranked < rank(rule, worth[0], "", own.id):
            return False
    return bool(_put_forward(rule, rules))


# Audiences that nobody asks for


def _unused_audiences(said: Sections, rules: RuleSet) -> Iterator[Problem]:
    named = {name for rule in rules.rules.values() for name, _ in rule.audience}
    written = [_written(entry) for several in (said.rules, said.offers) for entry in several.values()]
    written += [column.expression.text for card in rules.models.values() for column in card.inputs]
    used = "\n".join(written)
    conditions: Mapping[str, str] = {a.name: a.condition.text for a in rules.audiences}
    for word, entry in said.audiences.items():
        if word in named or word in used or any(word in t for n, t in conditions.items() if n != word):
            continue
        yield entry.key.problem(f'no rule, offer or model asks for the audience "{word}"')


def _unknown_receivers(said: Sections, rules: RuleSet, receivers: frozenset[str]) -> Iterator[Problem]:
    for word, entry in said.actions.items():
        webhook = rules.actions[word].webhook
        if webhook is not None and webhook.name not in receivers:
            node = _field(entry, "webhook").node
            hint = did_you_mean(webhook.name, receivers)
            hint = hint or f"take it in with: viewfinder receivers add {webhook.name} URL"
            yield node.problem(
                f'there is no receiver "{webhook.name}": its calls wait until they expire', hint
            )


def _written(entry: Entry) -> str:
    return entry.node.source.text[entry.node.start : entry.node.end]
