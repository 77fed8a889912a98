"""Stories without a database: a rule set from YAML, events on a timeline, and what is decided.

Between two events every profile is stored and read again, as it would be in PostgreSQL.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec

from engine.app.components import Asked
from engine.app.replies import Pending, Reply
from engine.app.turn import Turn
from engine.app.unit import Unit
from engine.domain import decide
from engine.domain.decide import Observation, Sending, Verdict
from engine.domain.offers.decisions import Decision, Judged
from engine.domain.offers.rules import RuleSet
from engine.domain.people import identity
from engine.domain.people.events import Device, Event, Kind, Location
from engine.domain.people.profiles import (
    Address,
    Consent,
    Identity,
    IdentityKey,
    Profile,
    decode_profile,
    encode_profile,
)
from engine.domain.people.timers import Timer
from engine.formats.workspace import load

NOON = datetime(2026, 1, 12, 12, 0, tzinfo=UTC)
"""A Monday in winter: Dublin's clock shows UTC."""
BEFORE = NOON - timedelta(days=300)
CAFE = Location(latitude=52.66, longitude=-8.62, accuracy=10.0)
FAR = Location(latitude=52.70, longitude=-8.62, accuracy=10.0)
SECRET = b"a secret of thirty-two characters"

GIFT = """
offers:
  gift: {purpose: marketing, message: {push: {title: A gift, body: For you}}}
rules:
  wish: {when: Wish, offer: gift}
"""
"""What a person gets who wishes for it."""

_numbers = itertools.count(1)


def rule_set(rules: str = GIFT, workspace: str = "", models: Iterable[str] = ()) -> RuleSet:
    """The rule set of two files, with a card for each named model: the scores come from the test."""
    files = {"workspace.yaml": f"timezone: Europe/Dublin\n{workspace}".encode(), "rules.yaml": rules.encode()}
    cards = {}
    for model in models:
        cards[f"{model}.onnx"] = b""
        cards[f"{model}.yaml"] = (
            f"name: {model}\nversion: '1'\nmodel: {model}.onnx\ninputs: [{{name: hour, from: local.hour}}]"
        ).encode()
    loaded = load(files, cards)
    assert loaded.rule_set is not None, loaded.problems
    return loaded.rule_set


def someone(**fields: Any) -> Profile:
    """A person whom one may push marketing to."""
    known: dict[str, Any] = {
        "id": "2a000000-0000-8000-8000-000000000000",
        "created_at": BEFORE,
        "last_seen": BEFORE,
        "identities": (Identity("user_id", "ada", BEFORE, "m0"),),
        "consent": {"marketing": Consent(True, BEFORE, "marketing")},
        "devices": {"phone": Address(type="android", token="token", seen_at=BEFORE)},
    }
    return Profile(**{**known, **fields})


def event(name: str = "Wish", at: datetime = NOON, **fields: Any) -> Event:
    """A track call that came when it happened, unless the fields say otherwise."""
    known: dict[str, Any] = {"kind": Kind.TRACK, "received_at": at, "message_id": f"m{next(_numbers)}"}
    return Event(name=name, timestamp=at, **{**known, **fields})


def fix(location: Location = CAFE, at: datetime = NOON, **fields: Any) -> Event:
    return event("Location Updated", at, location=location, **fields)


def local(zone: str, text: str, fold: int = 0) -> datetime:
    """The moment at which a clock in `zone` shows "2026-03-29 00:30:00"; the second one with fold=1."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)


def stored(profile: Profile) -> Profile:
    return decode_profile(encode_profile(profile))


def judge(
    rules: RuleSet,
    seen: Observation,
    now: datetime,
    scores: Mapping[str, float | None] | None = None,
    newest: Location | None = None,
) -> Verdict:
    """As a tick does it: the models are asked only if the first look needs them."""
    verdict = decide.judge(rules, seen, now, newest)
    if verdict.needed:
        told = {name: (scores or {}).get(name) for name in verdict.needed}
        verdict = decide.judge(rules, seen, now, newest, told)
    return verdict


class Story:
    """One person, what happens to them, and all that was decided."""

    def __init__(
        self, rules: RuleSet, profile: Profile | None = None, scores: Mapping[str, float | None] | None = None
    ) -> None:
        self.rules = rules
        self.profile = profile if profile is not None else someone()
        self.scores = scores
        self.decisions: list[Decision] = []
        self.sends: list[Sending] = []
        self.timers: dict[str, Timer] = {}
        self.seen: Observation | None = None
        self.verdict: Verdict | None = None

    def tell(
        self, told: Event, now: datetime | None = None, newest: Location | None = None
    ) -> tuple[Decision, ...]:
        """What is decided on an event at `now`, which is when it came unless given."""
        moment = now if now is not None else told.received_at
        self.seen = decide.observe(self.rules, self.profile, told, moment)
        if self.seen.needed:
            scores = {name: (self.scores or {}).get(name) for name in self.seen.needed}
            self.seen = decide.settle(self.rules, self.seen, moment, scores)
        self.verdict = judge(self.rules, self.seen, moment, self.scores, newest)
        self.profile = stored(self.verdict.profile)
        self.decisions += self.verdict.decisions
        self.sends += self.verdict.sends
        alarms = self.seen.alarms + self.verdict.alarms
        for identifier in alarms.cancelled:
            self.timers.pop(identifier, None)
        self.timers |= {timer.id: timer for timer in alarms.set}
        return self.verdict.decisions

    def wait(self, until: datetime) -> list[Decision]:
        """Lets time pass until then: what was decided as timers fired, each at its own time."""
        decided: list[Decision] = []
        while due := [t for t in self.timers.values() if t.due_at <= until]:
            timer = self.timers.pop(min(due, key=lambda t: (t.due_at, t.id)).id)
            kept = msgspec.json.decode(msgspec.json.encode(timer.event), type=Event)  # as its row holds it
            decided += self.tell(msgspec.structs.replace(kept, received_at=timer.due_at))
        return decided

    def ask(self, told: Event, now: datetime | None = None, newest: Location | None = None) -> Decision:
        """The one decision on an event."""
        (decision,) = self.tell(told, now, newest)
        return decision

    def wish(self, *moments: datetime) -> list[str]:
        """What becomes of the same wish at several moments, one after the other."""
        return [said(self.ask(event(at=moment))) for moment in moments]


def said(decision: Decision) -> str:
    """ "offered", or why not."""
    return decision.reason.value if decision.reason is not None else decision.outcome.value


def candidates(decision: Decision) -> dict[str, Judged]:
    """The candidates by rule and offer."""
    return {f"{c.rule}/{c.offer}": c for c in decision.candidates}


class People:
    """Everybody, by whom they are: a tick's unit over dictionaries instead of a database."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self.profiles: dict[str, Profile] = {}
        self.notes: tuple[str, ...] = ()
        self.decisions: tuple[Decision, ...] = ()

    def tell(self, *events: Event) -> str:
        """Takes the events in, each as a tick of its own. Answers whose the last one was."""
        owner = ""
        for told in events:
            owner = self._tell(told)
        return owner

    def whose(self, namespace: str, value: str) -> Profile | None:
        found = [p for p in self.profiles.values() if p.lists((namespace, value))]
        assert len(found) <= 1, "two people with one identity"
        return found[0] if found else None

    def of(self, user: str) -> Profile:
        found = self.whose("user_id", user)
        assert found is not None
        return found

    def ids(self, user: str) -> set[IdentityKey]:
        return set(self.of(user).keys)

    def _tell(self, told: Event) -> str:
        keys = identity.keys_of(told, self.rules.workspace.namespaces)
        asked = Asked(Pending(event=told, reply=cast(Reply, None), keys=keys), identity.lookups(told, keys))
        index = {key: person.id for person in self.profiles.values() for key in person.keys}
        now = told.received_at
        turn = Turn(rules=self.rules, now=now, lease="", providers=frozenset(), is_kept=lambda d: False)
        unit = Unit([asked], self.profiles, index, SECRET)
        seen = unit.begin(asked, turn)
        assert seen is not None
        verdict = judge(self.rules, seen, now)
        unit.finish(asked.pending, seen, verdict, {}, turn)
        for profile in unit.written.values():
            version = profile.version + 1
            self.profiles[profile.id] = msgspec.structs.replace(stored(profile), version=version)
        self.notes = seen.notes
        self.decisions = verdict.decisions
        return seen.profile.id


def phone(device: str = "phone", token: str | None = "token", **fields: Any) -> Device:
    return Device(id=device, type="android", token=token, **fields)
