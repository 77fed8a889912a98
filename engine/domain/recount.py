"""A profile's log counted once more, for traits that are newer than what happened.

Exact where the log is whole: every event is counted at the moment at which it was folded in, with
the visits to places that were seen then. Events past their retention, and visits past that of
positions, are not there to be counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from engine.domain.decide import TRIGGERS
from engine.domain.offers import caps
from engine.domain.offers.rules import Computed, RuleSet, TriggerKind
from engine.domain.offers.scope import Scope
from engine.domain.people import computed
from engine.domain.people.account_feeds import by_digest
from engine.domain.people.events import Event
from engine.domain.people.timers import is_internal
from engine.domain.views import event_view, fence_view


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the log: when it was folded in, the zone that the person was in where that is not what
    the event itself says, and the visits (kind, name, geofence, at) that it showed then."""

    event: Event
    now: datetime
    zone: str | None = None
    places: tuple[tuple[str, str, str, datetime], ...] = ()

    def __repr__(self) -> str:
        return f"Logged({self.event!r})"


class Recounting:
    """The states of some traits over a profile's events, which are given in their order."""

    def __init__(
        self,
        rules: RuleSet,
        traits: Iterable[Computed],
        rollups: Iterable[Computed] = (),
    ) -> None:
        self._rollups = {trait.name for trait in rollups}
        self._of_accounts: dict[str, dict[str, Any]] = {}
        self._rules = rules
        self._wanted = {trait.name for trait in traits}
        self._told: set[tuple[str, str]] = set()
        self._states: dict[str, Any] = {}

    @property
    def states(self) -> Mapping[str, Any]:
        """By trait, None where nothing of it happened."""
        return {name: self._states.get(name) for name in self._wanted}

    @property
    def of_accounts(self) -> Mapping[str, Mapping[str, Any]]:
        """By account what the roll-ups come to, by digest."""
        inner = self._rules.of_accounts
        if inner is None:
            return {}
        found = {a: by_digest(state, inner.workspace.computed) for a, state in self._of_accounts.items()}
        return {account: cells for account, cells in found.items() if cells}

    def take(self, logged: Logged) -> None:
        event, rules = logged.event, self._rules
        message = (event.sender.value, event.message_id)
        if message in self._told:  # two people had it who are one now
            return
        self._told.add(message)
        stated = event.context.get("timezone") if logged.zone is None else logged.zone
        zone = caps.zone(stated, rules.workspace.timezone)
        for kind, name, fence, at in _triggers(logged):
            counted = rules.computed_by_trigger.get((kind, name), ())
            if missing := [trait for trait in counted if trait.name in self._wanted]:
                scope = Scope(
                    event=event_view(event),
                    geofence=fence_view(rules.fences.get(fence), at),
                    local=caps.local_view(at.astimezone(zone)),
                    now=logged.now,
                )
                self._states, _ = computed.count_in(self._states, missing, scope, at, rules.workspace)
        if self._rollups and event.group_id is not None and rules.of_accounts is not None:
            self._take_for_account(event.group_id, logged, rules.of_accounts, zone)

    def _take_for_account(self, account: str, logged: Logged, inner: RuleSet, zone: ZoneInfo) -> None:
        state = self._of_accounts.get(account, {})
        for kind, name, fence, at in _triggers(logged):
            counted = inner.computed_by_trigger.get((kind, name), ())
            if missing := [trait for trait in counted if trait.name in self._rollups]:
                scope = Scope(
                    event=event_view(logged.event),
                    geofence=fence_view(self._rules.fences.get(fence), at),
                    local=caps.local_view(at.astimezone(zone)),
                    now=logged.now,
                )
                state, _ = computed.count_in(state, missing, scope, at, inner.workspace)
        self._of_accounts[account] = state


def _triggers(logged: Logged) -> Iterable[tuple[TriggerKind, str, str, datetime]]:
    event = logged.event
    if (kind := TRIGGERS.get(event.kind)) is not None and not is_internal(event):
        yield kind, event.name, "", event.timestamp
    for place, name, fence, at in logged.places:
        yield TriggerKind(place), name, fence, at
