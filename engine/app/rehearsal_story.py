"""A scenario, played in a rehearsal: whoever it is about, and what is decided on what happens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from engine.app.profile_reading import propensities
from engine.app.rehearsal import SECRET, Rehearsal, Told
from engine.app.ruling import Predictor, Ruling
from engine.domain.offers.decisions import Decision, Outcome
from engine.domain.offers.rules import RuleSet
from engine.domain.people import identity, tallies
from engine.domain.people.events import Event
from engine.domain.people.outcomes import SHOWN, TAPPED
from engine.domain.people.profiles import Identity, Profile, new_profile
from engine.domain.phones import Ask, asking
from engine.formats.gpx import TrackFix
from engine.formats.problems import Problem
from engine.formats.scenario import Scenario
from engine.formats.scenario_calls import Call, begins_at, calls, introduction
from engine.formats.segment import read

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_RETENTION = timedelta(days=3660)
"""A story may be about any time."""


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """All that became of a scenario's events and of what they set going, in order. `calls` are the
    requests; `problems` are events that no engine would have taken."""

    began_at: datetime
    told: tuple[Told, ...]
    calls: tuple[Call, ...] = ()
    problems: tuple[Problem, ...] = ()


class Score(msgspec.Struct, frozen=True):
    """A model that says the same of everybody; None: it fails."""

    value: float | None

    def predict(self, rows: Sequence[Sequence[float]]) -> list[float | None]:
        return [self.value] * len(rows)


def play(scenario: Scenario, fixes: Sequence[TrackFix], ruling: Ruling) -> Played:
    """Everything from the story's beginning to its end, on its own clock."""
    said: Mapping[str, Predictor] = {model: Score(score) for model, score in scenario.propensity.items()}
    rehearsal = Rehearsal(msgspec.structs.replace(ruling, models={**ruling.models, **said}))
    start = begins_at(scenario, fixes)
    problems: list[Problem] = []
    told: list[Told] = []
    _introduce(rehearsal, _events(introduction(scenario, start), scenario, ruling.rules, problems), scenario)
    rehearsal.delivers = _asks_what_arrived(ruling.rules)
    made: list[Call] = []
    for call in calls(scenario, fixes, _asking(rehearsal, scenario)):
        told += rehearsal.advance(call.sent_at)
        of_what(call.body, (decision for one in reversed(told) for decision in one.decisions))
        told += rehearsal.tell(_events(call, scenario, ruling.rules, problems), call.sent_at)
        made.append(call)
    last = made[-1].sent_at if made else start
    if scenario.until is not None:
        last = start + scenario.until
    told += rehearsal.advance(last)
    return Played(began_at=start, told=tuple(told), calls=tuple(made), problems=tuple(problems))


def _asking(rehearsal: Rehearsal, scenario: Scenario) -> Ask | None:
    """The engine as the scenario's phone asks it which regions to watch, about the person as they are."""
    if scenario.phone is None:
        return None
    person = scenario.profile
    key = ("user_id", person.user_id) if person.user_id is not None else ("anonymous_id", person.anonymous_id)

    def who() -> Profile:
        found = rehearsal.owner((key[0], key[1] or ""))
        return found if found is not None else new_profile((key[0], key[1] or ""), SECRET, _LONG_AGO)

    ruling = rehearsal.ruling
    return asking(ruling.rules, scenario.phone.os, who, lambda one, now: propensities(one, ruling, now))


def of_what(body: dict[str, Any], made: Iterable[Decision]) -> None:
    """Completes what an app tells of an offer that it showed: an app knows the decision's id, a scenario
    names the offer. `made` are the decisions, the newest first."""
    told = body.get("properties")
    if body.get("event") not in (SHOWN, TAPPED) or not isinstance(told, dict) or "decision" in told:
        return
    for decision in made:
        if decision.outcome is Outcome.OFFERED and decision.offer == told.get("offer"):
            body["properties"] = {**told, "decision": decision.id}
            return


def _asks_what_arrived(rules: RuleSet) -> bool:
    limits = [rules.workspace.caps, *(rule.caps for rule in rules.rules.values())]
    return rules.follows_outcomes or any(cap.count == "delivered" for caps in limits for cap in caps)


def _events(call: Call, scenario: Scenario, rules: RuleSet, problems: list[Problem]) -> list[Event]:
    """The call as a server reads it."""
    received = read(
        msgspec.json.encode(call.body),
        call=call.call,
        received_at=call.sent_at,
        trusted=call.from_server,
        server_only=rules.workspace.server_only,
        retention=_RETENTION,
        new_message_id=lambda: "",
    )
    for refused in received.rejected:
        message = f"the engine refuses this event: {refused.code}: {refused.message}"
        hint = "add from: server" if refused.code == "server_only" else None
        problems.append(Problem(scenario.file, call.line or scenario.line, 1, message, hint))
    return [event for _, event in received.events]


def _introduce(rehearsal: Rehearsal, introduced: Sequence[Event], scenario: Scenario) -> None:
    """Puts the person in as they are when the story begins: counted, stated, in their audiences. No
    rule is asked about how that came about."""
    ruling = rehearsal.ruling
    rehearsal.ruling = msgspec.structs.replace(
        ruling, rules=msgspec.structs.replace(ruling.rules, by_trigger={})
    )
    known = {trait.name: trait for trait in ruling.rules.workspace.computed}
    stated = scenario.profile.computed
    for event in introduced:
        start = event.received_at
        keys = identity.keys_of(event, ruling.rules.workspace.namespaces)
        profile = msgspec.structs.replace(
            new_profile(keys[0], SECRET, start),
            identities=tuple(Identity(space, value, start, event.message_id) for space, value in keys),
            computed={word: tallies.stated(known[word], value, start) for word, value in stated.items()},
        )
        rehearsal.enrol(profile)
        rehearsal.tell([event], start)
    rehearsal.ruling = ruling
