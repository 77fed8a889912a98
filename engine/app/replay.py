"""The past once more: recorded events through the same units and rounds, under the same or other rules.

Each event row holds what its decision depended on (`Facts`): the time, the revision, what the weather
was and what the models said. With those an event that is told again does exactly what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from engine.app import sweeps
from engine.app.backfill import EVENT as BACKFILL
from engine.app.rehearsal import Rehearsal, Told
from engine.app.ruling import Predictor, Ruling
from engine.domain.candidates import NO_SLOTS, Slots
from engine.domain.offers.pauses import NOTHING_PAUSED, Pause, paused
from engine.domain.people import identity
from engine.domain.people.account_feeds import lacking_for_accounts
from engine.domain.people.counting import Recount, lacking, rollups_of
from engine.domain.people.events import Event, Kind, Location, Sender
from engine.domain.people.fold import RESTRICTED
from engine.domain.people.profiles import Profile, new_profile
from engine.domain.people.timers import timer
from engine.domain.places.presence import SILENCE
from engine.domain.recount import Logged, Recounting

SAME_SCORE = 1e-5
"""A model that scores one row alone may differ in the last digits from the run in which it was one of
many. What it said then counts."""
LAG = timedelta(seconds=2)
"""How long after it is due a timer may fire, and still be called off by what comes in between."""
MOST_GENERATIONS = 8
"""How often a person may have been erased and have come back."""
_OWN_LIGHT = frozenset(("sunrise", "sunset", "is_day"))
"""Of the recorded weather: follows from place and time, and is worked out again."""


class Place(msgspec.Struct, frozen=True):
    latitude: float
    longitude: float

    def __repr__(self) -> str:
        return "Place(…)"


class Facts(msgspec.Struct, frozen=True):
    """What a decision depended on beside the event and what came before it. `place` is the event's turn
    in its tick; `forgotten`: where it happened is kept no more; `silence`: how many seconds after a fix
    presence was known."""

    now: datetime
    revision: str
    propensity: Mapping[str, float | None] = {}
    weather: Mapping[str, Any] = {}
    newest: Place | None = None
    paused: tuple[Pause, ...] = ()
    slots: Slots = NO_SLOTS
    place: int = 0
    silence: float = SILENCE.total_seconds()
    forgotten: bool = False
    account: Mapping[str, Any] | msgspec.UnsetType | None = msgspec.UNSET

    def __repr__(self) -> str:
        return f"Facts(now={self.now}, revision={self.revision!r})"


class _Seen(msgspec.Struct, frozen=True):
    """What was seen of places then, as counting anew takes it."""

    zone: str | None = None
    places: tuple[tuple[str, str, str, datetime], ...] = ()


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """One row of the event log: under which profile, and the how-manieth of it."""

    profile_id: str
    number: int
    event: Event
    facts: Facts
    raw_facts: str = ""

    def __repr__(self) -> str:
        return f"Recorded({self.event!r})"


_read_event = msgspec.json.Decoder(Event).decode
_read_facts = msgspec.json.Decoder(Facts).decode
_read_seen = msgspec.json.Decoder(_Seen).decode


def recorded(profile_id: str, number: int, event: str, facts: str) -> Recorded:
    """The row as it stands in the database."""
    return Recorded(profile_id, number, _read_event(event), _read_facts(facts), facts)


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
    """A group of people, as they were, on the way through their log.

    `follow` takes events as they were decided, whatever revision did it. `take` plays them under one
    ruling: what people did is the same, what the engine did follows from the ruling.
    """

    def __init__(self, ruling: Ruling, secret: bytes, rehearsal: Rehearsal | None = None) -> None:
        self._sky = _Sky()
        self._said: Mapping[str, float | None] = {}
        self._plain = ruling
        self._sweep = sweeps.name_of(ruling.rules)
        self._prepared: dict[tuple[int, float, tuple[str, ...]], Ruling] = {}
        self._secret = secret
        self.rehearsal = rehearsal or Rehearsal(ruling, secret=secret)
        self._ids: dict[str, str] = {}
        """Of decisions made here, by the id of the one that was made in its place then."""
        self._log: Sequence[Recorded] = ()
        self._paused: tuple[Pause, ...] = ()
        """What was stopped when something happened last."""
        self._silence = SILENCE.total_seconds()

    def begin(self, log: Sequence[Recorded] = (), rehearsal: Rehearsal | None = None) -> None:
        """Goes on with other people: with nothing known of them yet, or as they are in a rehearsal."""
        self.rehearsal = rehearsal or Rehearsal(self._plain, secret=self._secret)
        self._log = log
        self._paused = ()
        self._ids = {}

    def follow(self, row: Recorded, ruling: Ruling) -> Told:
        """What the event did, under the ruling that decided it."""
        event = row.event
        if row.number == 1 and event.sender is not Sender.ENGINE:
            self._after_erasure(row, ruling)
        return self._tell(row, event, ruling, self._recount(row, ruling) if event.name == BACKFILL else None)

    def take(self, row: Recorded, will_come: Callable[[str, str], bool]) -> list[Told]:
        """What the event does under this replay's ruling, after the timers that are due by then.

        `will_come` says of a profile and message of the engine's whether it is in the log: such a timer
        fires when its turn comes, as it did. What the engine told of something that did not happen here
        is left out.
        """
        told = self.pass_time(row.facts.now - LAG, will_come)
        event: Event | None = row.event
        if row.event.sender is Sender.ENGINE and not self.rehearsal.awaits(row.profile_id, row.event):
            event = self._told_by_engine(row.event)
        if event is not None:
            told.append(self._tell(row, event, self._plain))
        return told

    def pass_time(self, to: datetime, will_come: Callable[[str, str], bool]) -> list[Told]:
        """Lets the timers fire that are due by then and not in the log."""
        if not self.rehearsal.is_due(to):
            return []
        self._said, self._sky.reading = {}, {}
        self.rehearsal.ruling = self._ready(self._plain)
        return self.rehearsal.advance(to, will_come, self._sky)

    def sweep(self, at: datetime) -> None:
        """Has everybody looked at, as engines do when they go by new audiences or schedules."""
        if self._sweep is not None:
            one = timer(f"{sweeps.SWEEP}:{self._sweep}", at, sweeps.SWEEP, {})
            for profile in self.rehearsal.profiles.values():
                if profile.ended is None and profile.identities:
                    self.rehearsal.set(profile.id, one)

    def stands_for(self, then: str, here: str) -> None:
        """Says that the decision `here` was made in place of `then`: what became of that push became of
        this one."""
        if then != here:
            self._ids[then] = here

    def _told_by_engine(self, event: Event) -> Event | None:
        """What the engine told then, as far as it holds here: what became of a push that was made here
        too, what an operator did, and that a person is looked at for these very audiences."""
        if event.name.startswith(sweeps.SWEEP):
            return event if event.message_id.startswith(f"{sweeps.SWEEP}:{self._sweep}@") else None
        if event.name == RESTRICTED or event.kind is not Kind.TRACK:
            return event
        decision = event.properties.get("decision")
        here = self._ids.get(str(decision), str(decision))
        if not self.rehearsal.has_made(here):
            return None
        if here == decision:
            return event
        return msgspec.structs.replace(event, properties={**event.properties, "decision": here})

    def _tell(self, row: Recorded, event: Event, ruling: Ruling, recount: Recount | None = None) -> Told:
        facts = row.facts
        self._said = facts.propensity
        self._sky.reading = (
            {name: v for name, v in facts.weather.items() if name not in _OWN_LIGHT} if facts.weather else {}
        )
        self._paused, self._silence = facts.paused, facts.silence
        self.rehearsal.ruling = self._ready(ruling)
        newest = facts.newest
        fix = Location(latitude=newest.latitude, longitude=newest.longitude) if newest is not None else None
        return self.rehearsal.retell(
            row.profile_id, event, facts.now, fix, self._sky, facts.slots, recount, facts.account
        )

    def _after_erasure(self, row: Recorded, ruling: Ruling) -> None:
        """Somebody whose identity was an erased person's has another id than the first that it gives:
        what stands in the erased one's place is put in."""
        for key in identity.keys_of(row.event, ruling.rules.workspace.namespaces)[:1]:
            before: list[Profile] = []
            for generation in range(MOST_GENERATIONS):
                fresh = new_profile(key, self._secret, row.facts.now, generation)
                if fresh.id == row.profile_id:
                    for one in before:
                        if one.id not in self.rehearsal.profiles:
                            self.rehearsal.enrol(msgspec.structs.replace(one, erased=True))
                    return
                before.append(fresh)

    def _recount(self, row: Recorded, ruling: Ruling) -> Recount | None:
        """What the log of somebody came to when a trait was declared that they lacked."""
        profile, rules = self.rehearsal.profiles.get(row.profile_id), ruling.rules
        if profile is None or profile.account:
            return None
        missing, rollups = lacking(profile, rules.workspace), lacking_for_accounts(profile, rules)
        if not (missing or rollups or (profile.accounts and profile.handed_on != rollups_of(rules))):
            return None
        counting = Recounting(rules, missing, rollups)
        for one in self._log:
            if one is row:
                break
            if self.rehearsal.heir(one.profile_id) == profile.id:
                seen = _read_seen(one.raw_facts)
                counting.take(Logged(event=one.event, now=one.facts.now, zone=seen.zone, places=seen.places))
        return Recount(int(row.event.message_id.rpartition(":")[2]), counting.states, counting.of_accounts)

    def _ready(self, ruling: Ruling) -> Ruling:
        """The ruling with what engines added to it then."""
        pauses = self._paused
        key = (id(ruling), self._silence, tuple([pause.id for pause in pauses]) if pauses else ())
        known = self._prepared.get(key)
        if known is None:
            models = {name: _Recalling(name, m, lambda: self._said) for name, m in ruling.models.items()}
            stopped = paused(pauses) if pauses else NOTHING_PAUSED
            silence = timedelta(seconds=self._silence)
            rules = msgspec.structs.replace(ruling.rules, paused=stopped, silence=silence)
            known = Ruling(rules, models)
            self._prepared[key] = known
        return known
