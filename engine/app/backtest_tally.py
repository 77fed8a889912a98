"""What each side of a backtest comes to, and how far the record was made again.

Workers count apart; what they counted is added up. People are counted group by group, each of which is
one worker's, so that nobody is counted twice and no worker has to remember them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import msgspec

from engine.app.sampling import SAMPLED_SHARE, is_kept
from engine.domain.offers.decisions import Decision, Outcome, Reason, is_worth_telling
from engine.domain.offers.rules import RuleSet

MOST_CHANGES = 10
MOST_OVERLAPS = 10
MOST_EXAMPLES = 10
Made = tuple[str, str]
"""A rule and an offer."""
_json = msgspec.json.Encoder().encode


class Tally(msgspec.Struct):
    """What one side decided. Money is by rule and offer, people and pairs of rules are how many."""

    decisions: int = 0
    conditions_false: float = 0.0
    estimated: bool = False
    """`conditions_false` was counted up from the sample that is on record."""
    suppressed: Counter[str] = msgspec.field(default_factory=Counter)
    by_day: Counter[str] = msgspec.field(default_factory=Counter)
    offered: Counter[Made] = msgspec.field(default_factory=Counter)
    value: dict[Made, float] = msgspec.field(default_factory=dict)
    cost: dict[Made, float] = msgspec.field(default_factory=dict)
    people: Counter[Made] = msgspec.field(default_factory=Counter)
    reached: int = 0
    overlaps: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)

    def count(self, decisions: Iterable[Decision], rules: RuleSet, *, recorded: bool) -> dict[Made, set[str]]:
        """Takes in what was decided on one group of people; answers who was offered what. Of those whose
        conditions were all false only a sample is on record: it is counted up."""
        people: dict[Made, set[str]] = {}
        for decision in decisions:
            if not is_worth_telling(decision):
                self.conditions_false += 1 / SAMPLED_SHARE if recorded else 1
                self.estimated = self.estimated or recorded
                continue
            self.decisions += 1
            if decision.outcome is not Outcome.OFFERED:
                self.suppressed[decision.reason.value if decision.reason else "none"] += 1
                continue
            assert decision.rule is not None
            assert decision.offer is not None
            made = (decision.rule, decision.offer)
            people.setdefault(made, set()).add(decision.profile_id)
            self.offered[made] += 1
            self.by_day[decision.decided_at.date().isoformat()] += 1
            self.value[made] = self.value.get(made, 0.0) + (decision.expected_value or 0.0)
            offer = rules.offers.get(decision.offer) or rules.actions.get(decision.offer)
            if offer is not None:
                cost = (decision.propensity or 0.0) * offer.cost + offer.send_cost
                self.cost[made] = self.cost.get(made, 0.0) + cost
        by_rule: dict[str, set[str]] = {}
        for made, who in people.items():
            self.people[made] += len(who)
            by_rule.setdefault(made[0], set()).update(who)
        self.reached += len(set().union(*by_rule.values()))
        for a, b in combinations(sorted(by_rule), 2):
            if both := len(by_rule[a] & by_rule[b]):
                self.overlaps[a, b] += both
        return people

    def add(self, other: Tally) -> None:
        """What another worker counted."""
        self.decisions += other.decisions
        self.conditions_false += other.conditions_false
        self.estimated = self.estimated or other.estimated
        self.reached += other.reached
        for mine, theirs in (
            (self.suppressed, other.suppressed),
            (self.by_day, other.by_day),
            (self.offered, other.offered),
            (self.people, other.people),
            (self.overlaps, other.overlaps),
        ):
            mine.update(theirs)  # type: ignore[arg-type]  # each with its like
        for money, more in ((self.value, other.value), (self.cost, other.cost)):
            for made, amount in more.items():
                money[made] = money.get(made, 0.0) + amount

    def report(self, name: str, revision: str) -> dict[str, Any]:
        suppressed = dict(self.suppressed.most_common())
        if self.conditions_false:
            suppressed[Reason.CONDITION_FALSE.value] = round(self.conditions_false) + suppressed.get(
                Reason.CONDITION_FALSE.value, 0
            )
        return {
            "name": name,
            "revision": revision,
            "decisions": self.decisions,
            "offered": self.offered.total(),
            "people": self.reached,
            "expectedValue": round(sum(self.value.values()), 2),
            "expectedCost": round(sum(self.cost.values()), 2),
            "suppressed": suppressed,
            "estimated": [Reason.CONDITION_FALSE.value] if self.estimated else [],
            "byDay": dict(sorted(self.by_day.items())),
            "rules": [
                {
                    "rule": made[0],
                    "offer": made[1],
                    "offered": offered,
                    "people": self.people[made],
                    "expectedValue": round(self.value.get(made, 0.0), 2),
                    "expectedCost": round(self.cost.get(made, 0.0), 2),
                }
                for made, offered in sorted(self.offered.items())
            ],
            "overlaps": [
                {"rules": list(pair), "people": both}
                for pair, both in sorted(self.overlaps.items(), key=lambda one: (-one[1], one[0]))
            ][:MOST_OVERLAPS],
        }


class Agreement(msgspec.Struct):
    """How far the record was made again: each decision, to the byte. `differing` were decided otherwise,
    `missing` not at all, `unknown` are not on record."""

    people: int = 0
    recorded: int = 0
    reproduced: int = 0
    differing: int = 0
    missing: int = 0
    unknown: int = 0
    examples: list[str] = msgspec.field(default_factory=list)

    def compare(self, decisions: Iterable[Decision], documents: Mapping[str, str]) -> None:
        """What was decided again on a group of people beside what is on record of it, by id."""
        left = dict(documents)
        self.recorded += len(left)
        for decision in decisions:
            document = left.pop(decision.id, None)
            if document is None:
                if is_kept(decision):
                    self.unknown += 1
                    self._show(decision.id)
            elif document == _json(decision).decode():
                self.reproduced += 1
            else:
                self.differing += 1
                self._show(decision.id)
        self.missing += len(left)
        for one in left:
            self._show(one)

    def _show(self, decision: str) -> None:
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(decision)

    def add(self, other: Agreement) -> None:
        for name in ("people", "recorded", "reproduced", "differing", "missing", "unknown"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.examples = (self.examples + other.examples)[:MOST_EXAMPLES]

    def report(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__struct_fields__}


class Count(msgspec.Struct):
    """Everything that a worker counted. `left_out` are people by why nobody can say what was known of
    them; `positionless` are people of whom some position is kept no more."""

    active: Tally = msgspec.field(default_factory=Tally)
    tried: Tally = msgspec.field(default_factory=Tally)
    agreement: Agreement = msgspec.field(default_factory=Agreement)
    events: int = 0
    before: int = 0
    """Events before the period that had to be told for what is known when it begins."""
    until: Any = None
    people: int = 0
    gained: Counter[Made] = msgspec.field(default_factory=Counter)
    lost: Counter[Made] = msgspec.field(default_factory=Counter)
    left_out: Counter[str] = msgspec.field(default_factory=Counter)
    positionless: int = 0
    excused: int = 0
    """Decisions that are on record only as far as they were offers: the others' time is over."""

    def compare(self, active: Mapping[Made, set[str]], tried: Mapping[Made, set[str]]) -> None:
        """Who of a group gains an offer, and who loses one."""
        nobody: set[str] = set()
        for made in {*active, *tried}:
            before, after = active.get(made, nobody), tried.get(made, nobody)
            if more := len(after - before):
                self.gained[made] += more
            if less := len(before - after):
                self.lost[made] += less

    def add(self, other: Count) -> None:
        """What another worker counted."""
        self.active.add(other.active)
        self.tried.add(other.tried)
        self.agreement.add(other.agreement)
        self.events += other.events
        self.before += other.before
        self.people += other.people
        self.positionless += other.positionless
        self.excused += other.excused
        self.until = max((at for at in (self.until, other.until) if at is not None), default=None)
        for mine, theirs in ((self.gained, other.gained), (self.lost, other.lost)):
            mine.update(theirs)
        self.left_out.update(other.left_out)

    def changes(self) -> list[dict[str, Any]]:
        """Where the sides differ most: offers made by a rule, before and after."""
        before, after = self.active, self.tried
        found: list[dict[str, Any]] = []
        for made in {*before.offered, *after.offered}:
            one = {
                "rule": made[0],
                "offer": made[1],
                "before": before.offered[made],
                "after": after.offered[made],
                "expectedValue": round(after.value.get(made, 0.0) - before.value.get(made, 0.0), 2),
                "gained": self.gained[made],
                "lost": self.lost[made],
            }
            if one["before"] != one["after"] or one["gained"] or one["lost"]:
                found.append(one)
        found.sort(key=lambda one: (-abs(one["after"] - one["before"]), one["rule"], one["offer"]))
        return found[:MOST_CHANGES]


def total(counts: Sequence[Count]) -> Count:
    """What all workers counted."""
    whole = Count()
    for count in counts:
        whole.add(count)
    return whole
