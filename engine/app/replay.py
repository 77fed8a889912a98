"""The past once more: recorded events through the same units and rounds, under the same or other rules.

Each event row holds what its decision depended on (`Facts`): the time, the revision, what the weather
was and what the models said. With those an event that is told again does exactly what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from engine.app.rehearsal import Rehearsal, Told
from engine.app.ruling import Predictor, Ruling
from engine.domain.candidates import NO_SLOTS, Slots
from engine.domain.offers.pauses import NOTHING_PAUSED, Pause, paused
from engine.domain.people.events import Event, Location, Sender

SAME_SCORE = 1e-5
"""A model that scores one row alone may differ in the last digits from the run in which it was one of
many. What it said then counts."""
LAG = timedelta(seconds=2)
"""How long after it is due a timer may fire, and still be called off by what comes in between."""
_OWN_LIGHT = frozenset(("sunrise", "sunset", "is_day"))
"""Of the recorded weather: follows from place and time, and is worked out again."""


class Place(msgspec.Struct, frozen=True):
    latitude: float
    longitude: float

    def __repr__(self) -> str:
        return "Place(…)"


class Facts(msgspec.Struct, frozen=True):
    """What a decision depended on beside the event and what came before it."""

    now: datetime
    revision: str
    propensity: Mapping[str, float | None] = {}
    weather: Mapping[str, Any] = {}
    newest: Place | None = None
    paused: tuple[Pause, ...] = ()
    slots: Slots = NO_SLOTS

    def __repr__(self) -> str:
        return f"Facts(now={self.now}, revision={self.revision!r})"


class Recorded(msgspec.Struct, frozen=True):
    """One row of the event log."""

    profile_id: str
    event: Event
    facts: Facts

    def __repr__(self) -> str:
        return f"Recorded({self.event!r})"


_read_event = msgspec.json.Decoder(Event).decode
_read_facts = msgspec.json.Decoder(Facts).decode


def recorded(profile_id: str, event: str, facts: str) -> Recorded:
    """The row as it stands in the database."""
    return Recorded(profile_id, _read_event(event), _read_facts(facts))


class _Sky:
    """The weather as it was read then, wherever one asks."""

    def __init__(self) -> None:
        self.reading: Mapping[str, float] = {}

    def at(self, latitude: float, longitude: float) -> Mapping[str, float]:
        return self.reading


class _Recalling:
    """A model that says what it said then, as long as it would say so again."""

    def __init__(self, name: str, model: Predictor, said: Callable[[], Mapping[str, float | None]]) -> None:
        self._name = name
        self._model = model
        self._said = said

    def predict(self, rows: Sequence[Sequence[float]]) -> list[float | None]:
        scores = self._model.predict(rows)
        said = self._said()
        if self._name not in said:
            return scores
        then = said[self._name]
        return [
            then if then is None or (score is not None and abs(score - then) <= SAME_SCORE) else score
            for score in scores
        ]


class Replay:
    """Everybody, as they were, on the way through the log.

    `follow` takes events as they were decided, whatever revision did it. `take` plays them under one
    ruling: what people did is the same, what the engine did follows from the ruling.
    """

    def __init__(self, ruling: Ruling, secret: bytes) -> None:
        self._sky = _Sky()
        self._said: Mapping[str, float | None] = {}
        self._plain = ruling
        self._prepared: dict[tuple[int, tuple[str, ...]], Ruling] = {}
        self.rehearsal = Rehearsal(ruling, secret=secret)
        self._ids: dict[str, str] = {}
        """Of decisions made here, by the id of the one that was made in its place then."""

    def fork(self, ruling: Ruling) -> Replay:
        """The same moment, to go on from under another ruling. This one stays as it is."""
        other = Replay(ruling, b"")
        other.rehearsal = self.rehearsal.fork()
        return other

    def follow(self, row: Recorded, ruling: Ruling) -> list[Told]:
        """What the event did, under the ruling that decided it."""
        return self._tell(row, row.event, ruling)

    def take(self, row: Recorded, will_come: Callable[[str, str], bool]) -> list[Told]:
        """What the event does under this replay's ruling, after the timers that are due by then.

        `will_come` says of a profile and message of the engine's whether it is in the log: such a timer
        fires when its turn comes, as it did. What the engine told of something that did not happen here
        is left out. Where the log was decided by the very same rules, it holds every timer that fired.
        """
        if row.facts.revision == self._plain.rules.revision:
            return self._tell(row, row.event, self._plain)
        told = self.pass_time(row.facts.now - LAG, will_come)
        event: Event | None = row.event
        if row.event.sender is Sender.ENGINE and not self.rehearsal.awaits(row.profile_id, row.event):
            event = self._outcome(row.event)
        if event is not None:
            told += self._tell(row, event, self._plain)
        return told

    def pass_time(self, to: datetime, will_come: Callable[[str, str], bool]) -> list[Told]:
        """Lets the timers fire that are due by then and not in the log."""
        self._said, self._sky.reading = {}, {}
        self.rehearsal.ruling = self._ready(self._plain, ())
        return self.rehearsal.advance(to, will_come, self._sky)

    def stands_for(self, then: str, here: str) -> None:
        """Says that the decision `here` was made in place of `then`: what became of that push became of
        this one."""
        if then != here:
            self._ids[then] = here

    def _outcome(self, event: Event) -> Event | None:
        """What became of a push that was made here too."""
        decision = event.properties.get("decision")
        here = self._ids.get(str(decision), str(decision))
        if not self.rehearsal.has_made(here):
            return None
        if here == decision:
            return event
        return msgspec.structs.replace(event, properties={**event.properties, "decision": here})

    def _tell(self, row: Recorded, event: Event, ruling: Ruling) -> list[Told]:
        facts = row.facts
        self._said = facts.propensity
        self._sky.reading = {name: v for name, v in facts.weather.items() if name not in _OWN_LIGHT}
        self.rehearsal.ruling = self._ready(ruling, facts.paused)
        newest = facts.newest
        fix = Location(latitude=newest.latitude, longitude=newest.longitude) if newest is not None else None
        return self.rehearsal.retell(row.profile_id, event, facts.now, fix, self._sky, facts.slots)

    def _ready(self, ruling: Ruling, pauses: tuple[Pause, ...]) -> Ruling:
        key = (id(ruling), tuple(pause.id for pause in pauses))
        known = self._prepared.get(key)
        if known is None:
            models = {name: _Recalling(name, m, lambda: self._said) for name, m in ruling.models.items()}
            stopped = paused(pauses) if pauses else NOTHING_PAUSED
            known = Ruling(msgspec.structs.replace(ruling.rules, paused=stopped), models)
            self._prepared[key] = known
        return known
