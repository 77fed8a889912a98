"""New rules over what people did: two rulings from the same moment on, side by side.

Everybody's log is followed from its beginning up to `since` as it was decided; from there each side
goes on under its own rules, with the caps that it used up itself.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime
from itertools import combinations
from typing import Any

import msgspec

from engine.app.rehearsal import Told
from engine.app.replay import Recorded, Replay, recorded
from engine.app.ruling import Ruling
from engine.domain.offers.decisions import Decision, Outcome

MOST_CHANGES = 10
MOST_OVERLAPS = 10
_json = msgspec.json.Encoder().encode


class Made(msgspec.Struct):
    """What one rule made of one offer."""

    offered: int = 0
    expected_value: float = 0.0
    expected_cost: float = 0.0
    people: set[str] = msgspec.field(default_factory=set)


class Tally:
    """What one side decided."""

    def __init__(self, ruling: Ruling) -> None:
        self.revision = ruling.rules.revision
        self.decisions = 0
        self.suppressed: Counter[str] = Counter()
        self.by_day: Counter[str] = Counter()
        self.made: dict[tuple[str, str], Made] = {}
        self._offers = {**ruling.rules.offers, **ruling.rules.actions}

    def count(self, decision: Decision) -> None:
        self.decisions += 1
        if decision.outcome is not Outcome.OFFERED:
            self.suppressed[decision.reason.value if decision.reason else "none"] += 1
            return
        assert decision.rule is not None
        assert decision.offer is not None
        made = self.made.setdefault((decision.rule, decision.offer), Made())
        made.offered += 1
        made.people.add(decision.profile_id)
        made.expected_value += decision.expected_value or 0.0
        offer = self._offers.get(decision.offer)
        if offer is not None:
            made.expected_cost += (decision.propensity or 0.0) * offer.cost + offer.send_cost
        self.by_day[decision.decided_at.date().isoformat()] += 1

    def report(self, name: str) -> dict[str, Any]:
        people: set[str] = set().union(*(made.people for made in self.made.values()))
        reached: dict[str, set[str]] = {}
        for (rule, _), made in self.made.items():
            reached.setdefault(rule, set()).update(made.people)
        shared: list[dict[str, Any]] = [
            {"rules": [a, b], "people": both}
            for a, b in combinations(sorted(reached), 2)
            if (both := len(reached[a] & reached[b]))
        ]
        return {
            "name": name,
            "revision": self.revision,
            "decisions": self.decisions,
            "offered": sum(made.offered for made in self.made.values()),
            "people": len(people),
            "expectedValue": round(sum(made.expected_value for made in self.made.values()), 2),
            "expectedCost": round(sum(made.expected_cost for made in self.made.values()), 2),
            "suppressed": dict(self.suppressed.most_common()),
            "byDay": dict(sorted(self.by_day.items())),
            "rules": [
                {
                    "rule": rule,
                    "offer": offer,
                    "offered": made.offered,
                    "people": len(made.people),
                    "expectedValue": round(made.expected_value, 2),
                    "expectedCost": round(made.expected_cost, 2),
                }
                for (rule, offer), made in sorted(self.made.items())
            ],
            "overlaps": sorted(shared, key=lambda one: -one["people"])[:MOST_OVERLAPS],
        }


class Agreement:
    """How far the side with the active rules did what is on record: each decision, to the byte."""

    def __init__(self, documents: Mapping[str, str], is_kept: Callable[[Decision], bool]) -> None:
        self._left = dict(documents)
        self._is_kept = is_kept
        self.recorded = len(documents)
        self.reproduced = 0
        self.differing: list[str] = []
        self.unknown: list[str] = []

    def compare(self, decision: Decision) -> None:
        document = self._left.pop(decision.id, None)
        if document is None:
            if self._is_kept(decision):
                self.unknown.append(decision.id)
        elif document == _json(decision).decode():
            self.reproduced += 1
        else:
            self.differing.append(decision.id)

    def report(self) -> dict[str, Any]:
        """`differing` were decided otherwise, `missing` not at all, `unknown` are not on record (or past
        their retention)."""
        return {
            "recorded": self.recorded,
            "reproduced": self.reproduced,
            "differing": len(self.differing),
            "missing": len(self._left),
            "unknown": len(self.unknown),
            "examples": [*self.differing, *self._left, *self.unknown][:MOST_CHANGES],
        }


class Backtest:
    """Feed it the log with `tell`, in order; then ask for the `report`.

    `ruling_of` gives the ruling of a recorded revision. `told` are the engine's own messages in the
    period, by profile and message id.
    """

    def __init__(
        self,
        *,
        active: Ruling,
        tried: Ruling,
        ruling_of: Callable[[str], Ruling],
        since: datetime,
        told: Collection[tuple[str, str]],
        agreement: Agreement,
        secret: bytes,
    ) -> None:
        self._past = Replay(active, secret)
        self._active, self._tried = active, tried
        self._ruling_of = ruling_of
        self._since = since
        self._told = told
        self._agreement = agreement
        self._sides: tuple[Replay, Replay] | None = None
        self._until = since
        self._last = active.rules.revision
        self.events = 0
        self.tallies = (Tally(active), Tally(tried))

    def tell(self, row: Recorded) -> None:
        """The next event of the log."""
        now = row.facts.now
        if now < self._since:
            self._past.follow(row, self._ruling_of(row.facts.revision))
            return
        active, tried = self._fork()
        self._until, self._last = max(self._until, now), row.facts.revision
        self.events += 1
        before = self._counted(0, active.take(row, self._will_come))
        after = self._counted(1, tried.take(row, self._will_come))
        if before and after:
            here = {(d.message_id, d.rule, d.offer): d.id for d in after}
            for decision in before:
                found = here.get((decision.message_id, decision.rule, decision.offer))
                if found is not None:
                    tried.stands_for(decision.id, found)

    def finish(self) -> None:
        """Lets the timers fire that the other rules set and that are due by the last event."""
        for side, replay in enumerate(self._fork()):
            if self.tallies[side].revision != self._last:
                self._counted(side, replay.pass_time(self._until, self._will_come))

    def report(self, names: tuple[str, str]) -> dict[str, Any]:
        active, tried = (tally.report(name) for tally, name in zip(self.tallies, names, strict=True))
        return {
            "since": self._since,
            "until": self._until,
            "events": self.events,
            "active": active,
            "tried": tried,
            "changes": _changes(*self.tallies),
            "history": self._agreement.report(),
        }

    def _fork(self) -> tuple[Replay, Replay]:
        if self._sides is None:
            self._sides = self._past.fork(self._active), self._past.fork(self._tried)
        return self._sides

    def _will_come(self, profile_id: str, message_id: str) -> bool:
        return (profile_id, message_id) in self._told

    def _counted(self, side: int, told: Sequence[Told]) -> list[Decision]:
        decisions = [d for one in told if one.seen is not None for d in one.decisions]
        for decision in decisions:
            self.tallies[side].count(decision)
            if side == 0:
                self._agreement.compare(decision)
        return decisions


def _changes(active: Tally, tried: Tally) -> list[dict[str, Any]]:
    """Where the sides differ most: offers made by a rule, before and after."""
    nothing = Made()
    found: list[dict[str, Any]] = []
    for key in {*active.made, *tried.made}:
        before, after = active.made.get(key, nothing), tried.made.get(key, nothing)
        found.append(
            {
                "rule": key[0],
                "offer": key[1],
                "before": before.offered,
                "after": after.offered,
                "expectedValue": round(after.expected_value - before.expected_value, 2),
                "gained": len(after.people - before.people),
                "lost": len(before.people - after.people),
            }
        )
    found = [one for one in found if one["before"] != one["after"] or one["gained"] or one["lost"]]
    found.sort(key=lambda one: (-abs(one["after"] - one["before"]), one["rule"], one["offer"]))
    return found[:MOST_CHANGES]


async def play(
    backtest: Backtest,
    log: AsyncIterator[Sequence[tuple[str, int, str, str]]],
    progress: Callable[[int], None],
) -> None:
    """The whole log through a backtest; `progress` hears how many events are done."""
    # Everybody stays in memory, and goes by itself: looking through it all again and again would take
    # most of the time.
    usual = gc.get_threshold()
    gc.set_threshold(100_000, 50, 1_000)
    try:
        async for rows in log:
            for profile_id, _, event, facts in rows:
                backtest.tell(recorded(profile_id, event, facts))
            progress(len(rows))
        backtest.finish()
    finally:
        gc.set_threshold(*usual)
