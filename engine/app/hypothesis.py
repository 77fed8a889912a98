"""What a rule would decide on somebody if its trigger came now. Nothing is changed or sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple

import msgspec

from engine.app.ruling import Ruling
from engine.app.scoring import scores_of
from engine.domain import account_views, decide
from engine.domain.candidates import Slots, put_forward, reachable, scope_of
from engine.domain.observation import Observation, Trigger
from engine.domain.offers import caps
from engine.domain.offers.decisions import Decision
from engine.domain.offers.eligibility import Candidate
from engine.domain.offers.patterns import TriggerKey, TriggerKind
from engine.domain.offers.rules import Rule
from engine.domain.people.events import Event, Kind
from engine.domain.people.profiles import Profile

_MOST_TRIGGERS = 1_000
_KINDS = {TriggerKind.PAGE: Kind.PAGE, TriggerKind.SCREEN: Kind.SCREEN}


class Acting(NamedTuple):
    """For which account somebody acts, None for themselves, with its document as far as there is one."""

    account: str | None = None
    document: Profile | None = None


NOT_ACTING = Acting()


class Hypothesis:
    """One rule, with its trigger; of several places or events the first one by name."""

    def __init__(self, ruling: Ruling, rule_id: str) -> None:
        rules = ruling.rules
        self.rule = rules.rules[rule_id]
        self.triggers = _triggers(self.rule)
        self.kind, self.name = self.triggers[0] if self.triggers else (TriggerKind.EVENT, "")
        alone = {(self.kind, self.name): (self.rule,)}
        self._ruling = Ruling(msgspec.structs.replace(rules, by_trigger=alone), ruling.models)
        offers = [rules.offers[offer] for offer in self.rule.offers if offer in rules.offers]
        placements = [
            self.rule.placement or offer.in_app.placement
            for offer in offers
            if offer.in_app is not None and offer.push is None
        ]
        self._slots = Slots(tuple(dict.fromkeys(placements)), max(1, len(placements)))

    def accounts_of(self, profile: Profile, event: Event | None = None) -> list[str | None]:
        """For whom the person may act, where that makes a difference: None for themselves. An event says
        for whom it was."""
        if not self._ruling.rules.uses_accounts:
            return [None]
        return [None, *profile.accounts] if event is None else [event.group_id]

    def ask(
        self,
        profiles: Sequence[Profile],
        now: datetime,
        event: Event | None = None,
        acting: Sequence[Acting] = (),
    ) -> list[tuple[Decision, ...]]:
        """What would be decided on each of them, with one run per model. `event` is the one that set it
        off; without one nothing is known of it. `acting` says for whom each acts, nobody but themselves
        unless it is given."""
        rules = self._ruling.rules
        whom = acting or [NOT_ACTING] * len(profiles)
        seen = [self._seen(p, now, event, for_whom) for p, for_whom in zip(profiles, whom, strict=True)]
        verdicts = [decide.judge(rules, one, now, None, None, self._slots) for one in seen]
        scored = scores_of(self._ruling, verdicts)
        return [
            (
                decide.judge(rules, one, now, None, scored.get(number, {}), self._slots)
                if verdict.needed
                else verdict
            ).decisions
            for number, (one, verdict) in enumerate(zip(seen, verdicts, strict=True))
        ]

    def candidates(
        self,
        profile: Profile,
        now: datetime,
        event: Event | None = None,
        acting: Acting | None = None,
    ) -> list[Candidate]:
        """What the rule would put forward for somebody, before any gate."""
        rules = self._ruling.rules
        seen = self._seen(profile, now, event, acting or NOT_ACTING)
        local = now.astimezone(caps.zone(profile.zone, rules.workspace.timezone))
        scope = scope_of(rules, seen, now, local, reachable(profile)[1], {})
        matched = [(seen.triggers[0], self.rule)]
        return list(put_forward(rules, matched, scope, profile, self._slots.placements))

    def _seen(self, profile: Profile, now: datetime, event: Event | None, acting: Acting) -> Observation:
        rules = self._ruling.rules
        if event is None:
            event = Event(
                kind=_KINDS.get(self.kind, Kind.TRACK),
                name=self.name,
                message_id="hypothesis",
                received_at=now,
                timestamp=now,
            )
        trigger = Trigger(self.kind, self.name, now, rules.fences.get(self.name))
        seen = Observation(profile=profile, event=event, triggers=(trigger,), past=profile.past)
        if acting.account is None:
            return seen
        view = account_views.view_of(rules, acting.document, now)
        company = account_views.company(profile, acting.account, acting.document, view)
        event = msgspec.structs.replace(event, group_id=acting.account)
        return msgspec.structs.replace(seen, event=event, company=company)


def _triggers(rule: Rule) -> list[TriggerKey]:
    """What sets the rule off, by name; of very many places the first ones."""
    if rule.when.wait is not None:
        return [(TriggerKind.WAIT, rule.id)]
    if rule.when.schedule is not None:
        return [(TriggerKind.SCHEDULE, rule.id)]
    return list(islice(rule.when.triggers, _MOST_TRIGGERS))
