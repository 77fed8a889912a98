"""What is to be had at a place for one person: which rules could still be set off there, and what the
best of their offers would be worth.

Only what holds whenever the person comes stops a rule here: dates, consent, audiences, caps, and
conditions on the person and the place. The hour, the weather and the event are not known yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

import msgspec

from engine.domain.candidates import offers_of, reachable
from engine.domain.offers import caps, eligibility
from engine.domain.offers.eligibility import Candidate, Circumstances, Gate, Stop
from engine.domain.offers.rules import ON_A_TRIP, Rule, RuleSet, TriggerKind
from engine.domain.offers.scope import Scope
from engine.domain.people import computed
from engine.domain.people.events import Event, Kind
from engine.domain.people.profiles import Profile
from engine.domain.places.fence_index import Fence
from engine.domain.places.trips import Trip, view
from engine.domain.places.watching import Stake
from engine.domain.travel import goes_on
from engine.domain.views import fence_view

_LASTING: Final[tuple[Gate, ...]] = (
    eligibility.dates,
    eligibility.quarantine,
    eligibility.consent,
    eligibility.audience,
    eligibility.conversion,
    eligibility.permission,
    eligibility.frequency,
    eligibility.budget,
)
_OF_PERSON_AND_PLACE: Final = ("profile.", "geofence.")
_OF_THE_MOMENT: Final = "geofence.open"


class Stakes:
    """The stakes of one person at one moment. `scores` are what the models say of them, by name."""

    __slots__ = ("_circumstances", "_known", "_rules", "_scope", "_trips")

    def __init__(
        self, rules: RuleSet, profile: Profile, now: datetime, scores: Mapping[str, float | None]
    ) -> None:
        local = now.astimezone(caps.zone(profile.timezone, rules.workspace.timezone))
        self._rules = rules
        self._scope = Scope(
            profile=computed.profile_view(profile, rules.workspace, now),
            propensity=scores,
            local=caps.local_view(local),
            now=now,
        )
        self._circumstances = Circumstances(
            workspace=rules.workspace,
            profile=profile,
            event=Event(kind=Kind.TRACK, message_id="", received_at=now, timestamp=now),
            now=now,
            local=local,
            fences_at_newest=None,
            address=reachable(profile)[1],
            scores=scores,
        )
        self._known: dict[str, Stake | None] = {}
        self._trips: dict[str, list[Trip]] = {}
        for trip in profile.trips.values():
            if not trip.arrived and goes_on(rules, trip, now):
                self._trips.setdefault(trip.fence, []).append(trip)

    @property
    def awaited(self) -> list[str]:
        """The places to which the person is on a trip that some live rule waits for the end of."""
        return [fence for fence in self._trips if (stake := self.at(fence)) is not None and stake.is_awaited]

    def at(self, fence_id: str) -> Stake | None:
        """What is to be had at a place; None for nothing."""
        if fence_id not in self._known:
            self._known[fence_id] = self._found(self._rules.fences[fence_id])
        return self._known[fence_id]

    def _found(self, fence: Fence) -> Stake | None:
        around = msgspec.structs.replace(self._scope, geofence=fence_view(fence, self._scope.now))
        kinds: set[TriggerKind] = set()
        values: list[float] = []
        lead = 0.0
        for rule, trip in self._rules_at(fence):
            scope = around if trip is None else msgspec.structs.replace(around, trip=view(trip))
            live = False
            for candidate in self._candidates(rule, fence, scope):
                worth = eligibility.worth(candidate, self._circumstances)
                if isinstance(worth, Stop):
                    # A value that hangs on the moment may turn out well.
                    live = live or worth.reason.value in ("condition_unknown", "model_failed")
                    continue
                live = True
                if worth.value is not None:
                    values.append(worth.value)
            if live:
                kinds.add(rule.when.kind)
                lead = max(lead, _lead_seconds(rule))
        if not kinds:
            return None
        return Stake(
            on_enter=not kinds.isdisjoint((TriggerKind.ENTER, TriggerKind.APPROACH, *ON_A_TRIP)),
            on_exit=TriggerKind.EXIT in kinds,
            on_dwell=TriggerKind.DWELL in kinds,
            value=max(values, default=None),
            lead_seconds=lead,
            is_awaited=not kinds.isdisjoint(ON_A_TRIP),
        )

    def _rules_at(self, fence: Fence) -> Iterator[tuple[Rule, Trip | None]]:
        """The rules that can be set off at a place: for everybody, and for who is on a trip to it."""
        for rule in self._rules.placed.get(fence.id, ()):
            yield rule, None
        for trip in self._trips.get(fence.id, ()):
            for rule in self._rules.rules.values():
                if rule.when.kind in ON_A_TRIP and rule.when.name == trip.name:
                    yield rule, trip

    def _candidates(self, rule: Rule, fence: Fence, scope: Scope) -> Iterable[Candidate]:
        for offer, arm in offers_of(self._rules, rule, self._circumstances.profile.cohort_key):
            candidate = Candidate(
                rule=rule,
                offer=offer,
                purpose=self._rules.workspace.purposes[offer.purpose],
                trigger=rule.when.kind,
                at=scope.now,
                fence=fence,
                scope=scope,
                variant=arm,
            )
            if self._may(candidate):
                yield candidate

    def _may(self, candidate: Candidate) -> bool:
        if any(gate(candidate, self._circumstances) is not None for gate in _LASTING):
            return False
        for expression in (candidate.rule.when.condition, candidate.rule.condition):
            lasting = expression is not None and all(
                path.startswith(_OF_PERSON_AND_PLACE) and path != _OF_THE_MOMENT for path in expression.reads
            )
            if lasting and expression is not None and expression.evaluate(candidate.scope) is False:
                return False
        return True


def _lead_seconds(rule: Rule) -> float:
    is_ahead = rule.when.kind in (TriggerKind.APPROACH, TriggerKind.ARRIVING)
    span = rule.when.span if is_ahead else None
    return span.total_seconds() if span is not None else 0.0
