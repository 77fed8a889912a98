"""A scenario, played in a rehearsal: whoever it is about, and what is decided on what happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from engine.app.rehearsal import SECRET, Rehearsal, Told
from engine.app.ruling import Predictor, Ruling
from engine.domain.offers.rules import RuleSet
from engine.domain.people import identity, tallies
from engine.domain.people.events import Event
from engine.domain.people.profiles import Identity, new_profile
from engine.formats.gpx import TrackFix
from engine.formats.problems import Problem
from engine.formats.scenario import Scenario
from engine.formats.scenario_calls import Call, begins_at, calls, introduction
from engine.formats.segment import read

_RETENTION = timedelta(days=3660)
"""A story may be about any time."""


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """All that became of a scenario's events and of what they set going, in order; `problems` are
    events that no engine would have taken."""

    began_at: datetime
    told: tuple[Told, ...]
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
    last = start
    for call in calls(scenario, fixes, ruling.rules):
        told += rehearsal.advance(call.sent_at)
        told += rehearsal.tell(_events(call, scenario, ruling.rules, problems), call.sent_at)
        last = call.sent_at
    if scenario.until is not None:
        last = start + scenario.until
    told += rehearsal.advance(last)
    return Played(began_at=start, told=tuple(told), problems=tuple(problems))


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
