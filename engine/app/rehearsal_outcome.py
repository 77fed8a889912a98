"""What a scenario expected beside what was decided, and why: the first differences explained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from heapq import nsmallest

import msgspec

from engine.app.reasons import Looked, sentence, shown, stopped_at, values_read
from engine.app.rehearsal import Told
from engine.app.rehearsal_story import Played
from engine.domain.offers.decisions import ORDER, Decision, Judged, Outcome, Reason, is_worth_telling
from engine.domain.offers.patterns import TriggerKind, split_timed
from engine.domain.offers.rules import Pattern, Rule, RuleSet
from engine.domain.views import fence_view
from engine.formats.scenario import Expected, Scenario

_MOST_FENCES = 4


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One decision that is missing (`expected`) or too much (`decided`, by what it was at which time
    after the start), and what explains it, line by line. `line` is the expectation's."""

    expected: str | None = None
    decided: str | None = None
    because: tuple[str, ...] = ()
    line: int = 0


class Outcomes(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a scenario: no differences, and it passed. `reached` are the rules, and the
    offers, whose conditions held at least once."""

    differences: tuple[Difference, ...]
    decisions: tuple[Decision, ...]
    rules_reached: frozenset[str]
    offers_reached: frozenset[str]


class _Made(msgspec.Struct, frozen=True):
    told: Told
    decision: Decision


def compare(scenario: Scenario, played: Played, rules: RuleSet) -> Outcomes:
    """The scenario's expectations beside its decisions, each in order."""
    made = [_Made(told, decision) for told in played.told for decision in told.decisions]
    missing, surplus = _apart(scenario, [one.decision for one in made])
    differences = [_missing(scenario.expect[i], made, played, rules) for i in missing]
    differences += [_surplus(made[i], played, rules) for i in surplus]
    reached = [
        judged
        for one in made
        for judged in one.decision.candidates
        if judged.reason not in (Reason.CONDITION_FALSE, Reason.CONDITION_UNKNOWN)
    ]
    return Outcomes(
        differences=tuple(differences),
        decisions=tuple(one.decision for one in made if is_worth_telling(one.decision)),
        rules_reached=frozenset(judged.rule for judged in reached),
        offers_reached=frozenset(judged.offer for judged in reached),
    )


def _apart(scenario: Scenario, decisions: Sequence[Decision]) -> tuple[list[int], list[int]]:
    """Which expectations have no decision and which decisions no expectation, where the two lists lie
    beside each other with as few of both as can be. A suppressed decision may stand alone unless the
    scenario is strict; one whose conditions were all false always may."""
    expect = scenario.expect
    forms = [msgspec.to_builtins(decision, builtin_types=(datetime,)) for decision in decisions]
    alone = [
        int(d.outcome is not Outcome.SUPPRESSED or (scenario.strict and is_worth_telling(d)))
        for d in decisions
    ]
    fits = [[one.agrees(form) for form in forms] for one in expect]
    least = [[0] * (len(forms) + 1) for _ in range(len(expect) + 1)]
    for i in range(len(expect), -1, -1):
        for j in range(len(forms), -1, -1):
            ways = []
            if i < len(expect):
                ways.append(1 + least[i + 1][j])
            if j < len(forms):
                ways.append(alone[j] + least[i][j + 1])
            if i < len(expect) and j < len(forms) and fits[i][j]:
                ways.append(least[i + 1][j + 1])
            least[i][j] = min(ways, default=0)
    missing: list[int] = []
    surplus: list[int] = []
    i = j = 0
    while i < len(expect) or j < len(forms):
        both = i < len(expect) and j < len(forms)
        if both and fits[i][j] and least[i][j] == least[i + 1][j + 1]:
            i, j = i + 1, j + 1
        elif j < len(forms) and least[i][j] == alone[j] + least[i][j + 1]:
            if alone[j]:
                surplus.append(j)
            j += 1
        else:
            missing.append(i)
            i += 1
    return missing, surplus


def _surplus(made: _Made, played: Played, rules: RuleSet) -> Difference:
    return Difference(
        decided=f"{_moment(made.told, played)} {_said(made.decision)}",
        because=_candidates(made, rules) if len(made.decision.candidates) > 1 else (),
    )


def _missing(expected: Expected, made: Sequence[_Made], played: Played, rules: RuleSet) -> Difference:
    """The decision that came nearest to the expected one, or why there was none."""
    near: list[tuple[tuple[int, int, int], _Made, Judged]] = []
    for one in made:
        for judged in one.decision.candidates:
            if expected.rule not in (None, judged.rule) or expected.offer not in (None, judged.offer):
                continue
            there = expected.geofence in (None, judged.geofence)
            far = len(ORDER) if judged.reason is None else ORDER[judged.reason]
            named = (one.decision.rule, one.decision.offer) == (judged.rule, judged.offer)
            near.append(((there, named, far), one, judged))
    if not near:
        because = tuple(_never(expected, played, rules))
    else:
        _, one, _ = max(near, key=lambda found: found[0])
        because = (f"{_moment(one.told, played)} {_said(one.decision)}", *_candidates(one, rules))
        because += _otherwise(expected, one.decision)
    return Difference(expected=_wanted(expected), because=because, line=expected.line)


def _otherwise(expected: Expected, decision: Decision) -> tuple[str, ...]:
    """Where the texts are not those that were expected."""
    if not expected.message or decision.message is None:
        return ()
    return tuple(
        f'its {word} is "{shown}"'
        for word, said in expected.message.items()
        if (shown := getattr(decision.message, word)) != said
    )


def _never(expected: Expected, played: Played, rules: RuleSet) -> list[str]:
    """Nothing put the expected offer forward."""
    lines: list[str] = []
    names = [expected.rule] if expected.rule else []
    if not names and expected.offer:
        names = [rule.id for rule in rules.rules.values() if expected.offer in offers_of(rule)]
        if not names:
            lines.append(f"no rule puts {expected.offer} forward")
    for name in names:
        rule = rules.rules[name]
        if expected.offer and expected.offer not in offers_of(rule):
            lines.append(f"{name} does not put {expected.offer} forward, but {', '.join(offers_of(rule))}")
        else:
            lines.append(f"nothing set off {name}, which waits for {waits_for(rule.when)}")
    happened: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    for told in played.told:
        if told.seen is None:
            happened["a repeated message"] += 1
            continue
        for trigger in told.seen.triggers:
            happened[_came(trigger.kind, trigger.name)] += 1
        ignored.update(told.seen.notes)
    shown = [f"{what} × {times}" if times > 1 else what for what, times in happened.items()]
    lines.append(f"what happened: {', '.join(shown) or 'nothing'}")
    if ignored:
        lines.append(f"noted: {', '.join(f'{what} × {times}' for what, times in ignored.items())}")
    return lines


def offers_of(rule: Rule) -> tuple[str, ...]:
    """The offers that a rule can put forward, one for each variant where it has some, or its action."""
    if rule.action is not None:
        return (rule.action,)
    return rule.offers or tuple(variant.offer.id for variant in rule.variants)


def waits_for(pattern: Pattern) -> str:
    """What sets a rule off, in words: `enter cafe-t5`."""
    fences = nsmallest(_MOST_FENCES, pattern.fences)
    others = len(pattern.fences) - len(fences)
    more = f" and {others:,} more" if others else ""
    last = f", {shown(pattern.wait)} after the last one" if pattern.wait is not None else ""
    span = _spanning(pattern.kind, pattern.span)
    return f"{pattern.kind.value} {pattern.name or ' or '.join(fences)}{more}{span}{last}"


def _came(kind: TriggerKind, name: str) -> str:
    """What set something off: `approach cafe-t5, 90s ahead`."""
    what, span = split_timed(name)
    return f"{kind.value} {what}{_spanning(kind, timedelta(seconds=float(span)) if span else None)}"


def _spanning(kind: TriggerKind, span: timedelta | None) -> str:
    if span is None:
        return ""
    return f" for {shown(span)}" if kind is TriggerKind.DWELL else f", {shown(span)} ahead"


def _candidates(made: _Made, rules: RuleSet) -> tuple[str, ...]:
    """Each candidate of a decision, with what stopped it and the values that it hung on."""
    lines: list[str] = []
    for judged in made.decision.candidates:
        at = f" at {judged.geofence}" if judged.geofence else ""
        reason = f"{judged.reason.value}: " if judged.reason is not None else ""
        line = f"{judged.rule} → {judged.offer}{at}: {reason}{sentence(judged)}"
        lines.append(line.removesuffix(": "))
        expression = stopped_at(judged, rules)
        scope = made.told.verdict.scope if made.told.verdict is not None else None
        if expression is not None and scope is not None:
            if judged.geofence is not None:
                fence = rules.fences.get(judged.geofence)
                scope = msgspec.structs.replace(scope, geofence=fence_view(fence, scope.now))
            lines += [f"  {path} is {value}" for path, value in values_read(expression, Looked(scope))]
    return tuple(lines)


def _said(decision: Decision) -> str:
    parts = [decision.outcome.value, decision.rule, decision.offer]
    parts += [f"at {decision.geofence}"] if decision.geofence else []
    parts += [decision.reason.value] if decision.reason else []
    return " ".join(part for part in parts if part)


def _wanted(expected: Expected) -> str:
    parts = [expected.outcome, expected.rule, expected.offer]
    parts += [f"at {expected.geofence}"] if expected.geofence else []
    parts += [expected.reason, expected.trigger, expected.channel, expected.placement]
    parts += [f'{word} "{said}"' for word, said in expected.message.items()]
    return " ".join(part for part in parts if part)


def _moment(told: Told, played: Played) -> str:
    """The clock, and how long after the start: `09:01:30 (+1m30s)`."""
    seconds = int((told.now - played.began_at).total_seconds())
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m")]
    text = "".join(f"{amount}{unit}" for amount, unit in parts if amount)
    return f"{told.now:%H:%M:%S} (+{text}{seconds % 60}s)"
