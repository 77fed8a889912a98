"""An engine without server and database: the lane's own units and rounds over what stands in memory.

Scenario tests and backtests drive it. Nothing here decides: `decide_units` does, as it does between a
tick's load and commit. What the database does for an engine is done here by dictionaries: documents
by id, the index of identities, the messages that were seen, the timers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from heapq import heappop, heappush
from typing import Any, cast

import msgspec

from engine.adapters.postgres.rows import Shared
from engine.app import account_context
from engine.app.components import Asked, components
from engine.app.replies import Pending, Reply
from engine.app.rounds import decide_units
from engine.app.ruling import Ruling
from engine.app.turn import Turn
from engine.app.unit import Unit
from engine.app.weather import Readings
from engine.domain.candidates import Slots
from engine.domain.companies import is_telling, telling
from engine.domain.decide import Observation, Verdict
from engine.domain.offers.decisions import Decision
from engine.domain.offers.delivery import outcome_event, outcome_id
from engine.domain.people import identity
from engine.domain.people.account_feeds import FED, keys_of_timer
from engine.domain.people.counting import Recount
from engine.domain.people.events import Event, Location, Sender
from engine.domain.people.memory import WAITED
from engine.domain.people.profiles import (
    DEVICE_NAMESPACE,
    PROFILE_NAMESPACE,
    IdentityKey,
    Profile,
    bucket_of,
)
from engine.domain.people.timers import Timer

SECRET = bytes(32)
"""What ids of new profiles derive from, where no engine's own secret is given."""
_NOBODY = cast(Reply, None)
"""Nobody waits for an answer."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one event. `seen` and `verdict` are None for one that was known already, or
    whose profile is gone; its decisions are then those of the first time."""

    event: Event
    now: datetime
    seen: Observation | None
    verdict: Verdict | None
    decisions: tuple[Decision, ...]

    def __repr__(self) -> str:
        return f"Told({self.event!r}, {len(self.decisions)} decisions)"


class Rehearsal:
    """Everybody, in memory. `ruling` may be exchanged between two events, as a reload does it."""

    def __init__(self, ruling: Ruling, profiles: Iterable[Profile] = (), secret: bytes = SECRET) -> None:
        self.ruling = ruling
        self.profiles: dict[str, Profile] = {}
        self._owners: dict[IdentityKey, str] = {}
        self._seen: dict[tuple[str, str, str], tuple[tuple[Decision, ...], Event]] = {}
        self._timers: dict[tuple[str, str], Timer] = {}
        self._due: list[tuple[datetime, bool, str, str]] = []
        """A heap of when, paced, profile and timer; one that was moved or called off stays in it."""
        self._made: set[str] = set()
        """The ids of all that was offered or done."""
        self._members: dict[str, set[str]] = {}
        """By account everybody who is, or was, a member."""
        self.delivers = False
        """Whether every push is delivered at once; otherwise its outcome is told by whoever knows it."""
        self._secret = secret
        for profile in profiles:
            self.enrol(profile)

    def enrol(self, profile: Profile) -> None:
        """Puts a document in as a database would hold it."""
        self.profiles[profile.id] = profile
        self._owners[(PROFILE_NAMESPACE, profile.id)] = profile.id
        for key in profile.keys:
            self._owners[key] = profile.id
        for account in profile.accounts:
            self._members.setdefault(account, set()).add(profile.id)

    def owner(self, key: IdentityKey) -> Profile | None:
        """The profile that an identity belongs to."""
        profile = self.profiles.get(self._owners.get(key, ""))
        return profile if profile is not None and profile.lists(key) else None

    def tell(
        self,
        events: Sequence[Event],
        now: datetime,
        newest: Mapping[int, Location] | None = None,
    ) -> list[Told]:
        """One tick over `events`, in their order. `newest` is, by an event's position, the newest fix
        of its request where that is not its own."""
        namespaces = self.ruling.rules.workspace.namespaces
        pending = [
            Pending(
                event=event,
                reply=_NOBODY,
                keys=identity.keys_of(event, namespaces),
                position=position,
                newest=newest.get(position) if newest else None,
            )
            for position, event in enumerate(events)
        ]
        return self._tick(pending, now)

    def set(self, profile_id: str, timer: Timer) -> None:
        """A timer as the database would hold it, or the same one moved."""
        self._timers[profile_id, timer.id] = timer
        heappush(self._due, (timer.due_at, timer.paced, profile_id, timer.id))

    def is_due(self, to: datetime) -> bool:
        """Whether some timer may fire by then."""
        return bool(self._due) and self._due[0][0] <= to

    def fork(self) -> Rehearsal:
        """The same moment once more, to go on from in another way."""
        other = Rehearsal(self.ruling, secret=self._secret)
        other.profiles, other._owners = self.profiles.copy(), self._owners.copy()
        other._seen, other._timers, other._due = self._seen.copy(), self._timers.copy(), self._due.copy()
        other._made = self._made.copy()
        other._members = {account: members.copy() for account, members in self._members.items()}
        return other

    def awaits(self, profile_id: str, event: Event) -> bool:
        """Whether it is the event of a timer that is set."""
        timer = self._timers.get((profile_id, event.message_id.rpartition("@")[0]))
        return timer is not None and timer.event.message_id == event.message_id

    def heir(self, profile_id: str) -> str:
        """The profile that stands for another one now."""
        followed = {profile_id}
        while (ended := self.profiles.get(profile_id)) is not None and ended.succeeded_by:
            profile_id = ended.succeeded_by
            if profile_id in followed:
                break
            followed.add(profile_id)
        return profile_id

    def has_made(self, decision: str) -> bool:
        """Whether something was offered or done by that id."""
        return decision in self._made

    def retell(
        self,
        profile_id: str,
        event: Event,
        now: datetime,
        newest: Location | None,
        weather: Readings,
        slots: Slots,
        recount: Recount | None = None,
        account: Mapping[str, Any] | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> Told:
        """One event of a log, in a tick of its own. What the engine itself told goes to the profile that
        it went to. `account` is what was known of its account then."""
        timer = None
        if event.sender is not Sender.ENGINE:
            keys = identity.keys_of(event, self.ruling.rules.workspace.namespaces)
            if not keys:
                keys = ((PROFILE_NAMESPACE, profile_id),)
        else:
            keys = keys_of_timer(profile_id, event)
            identifier = event.message_id.rpartition("@")[0]
            if (profile_id, identifier) in self._timers and self.awaits(profile_id, event):
                timer = (bucket_of(profile_id), profile_id, identifier, event.timestamp)
                if event.name == FED:  # what it comes to hangs on the rules that are played here
                    told = self._timers[profile_id, identifier].event.properties
                    event = msgspec.structs.replace(event, properties=told)
            if is_telling(event):
                self._tell_members(profile_id, event)
        pending = Pending(
            event=event,
            reply=_NOBODY,
            keys=keys,
            newest=newest,
            timer=timer,
            slots=slots,
            recount=recount,
            account=account,
        )
        return self._tick([pending], now, weather)[0]

    def advance(
        self,
        to: datetime,
        spared: Callable[[str, str], bool] = lambda profile_id, message_id: False,
        weather: Readings | None = None,
    ) -> list[Told]:
        """Lets time pass up to `to`, inclusive: each timer fires at its own time, but those whose profile
        and message are `spared`."""
        told: list[Told] = []
        while self._due and self._due[0][0] <= to:
            moment, paced = self._due[0][:2]
            batch: list[Pending] = []
            while self._due and self._due[0][:2] == (moment, paced):
                _, _, profile_id, identifier = heappop(self._due)
                timer = self._timers.get((profile_id, identifier))
                if (
                    timer is not None
                    and timer.due_at == moment
                    and not spared(profile_id, timer.event.message_id)
                ):
                    batch.append(self._fired(profile_id, timer, len(batch)))
            told += self._tick(batch, moment, weather)
        return told

    def _fired(self, profile_id: str, timer: Timer, position: int) -> Pending:
        """The timer's event, for whoever stands for its profile now."""
        event = msgspec.structs.replace(timer.event, timestamp=timer.due_at, received_at=timer.due_at)
        if is_telling(event):
            self._tell_members(profile_id, event)
        return Pending(
            event=event,
            reply=_NOBODY,
            keys=keys_of_timer(self.heir(profile_id), event),
            position=position,
            timer=(bucket_of(profile_id), profile_id, timer.id, timer.due_at),
        )

    def _tell_members(self, profile_id: str, told: Event) -> None:
        assert told.group_id is not None
        for member in sorted(self._members.get(told.group_id, ())):
            if told.group_id in self.profiles[member].accounts:
                self.set(member, telling(profile_id, told))

    def _together(self, asked: list[Asked]) -> list[Asked]:
        named = account_context.accounts_of(asked, self._owners, self.profiles)
        return account_context.together(asked, named, self._owners, self._secret)

    def _tick(self, batch: list[Pending], now: datetime, weather: Readings | None = None) -> list[Told]:
        """Ticks until nothing is left: what changes identities commits alone, as in a lane."""
        told: dict[int, Told] = {}
        events = len(batch)

        def watch(pending: Pending, seen: Observation, verdict: Verdict) -> None:
            told[pending.position] = Told(
                event=pending.event, now=now, seen=seen, verdict=verdict, decisions=tuple(pending.decisions)
            )

        turn = Turn(
            rules=self.ruling.rules,
            now=now,
            lease="",
            providers=frozenset(),
            is_kept=_never,
            weather=weather,
            is_rehearsed=True,
        )
        while batch:
            asked = [Asked(one, one.lookups) for one in batch]
            shared = self._shared(asked)
            if turn.rules.caps_accounts and len(asked) > 1:
                asked = self._together(asked)
            grouped = [asked] if len(asked) == 1 else components(asked, self._owners)
            units = [Unit(those, self.profiles, self._owners, self._secret, shared) for those in grouped]
            decide_units(units, self.ruling, turn, watcher=watch)
            batch = [one for unit in units for one in self._commit(unit, told, now)]
        return [told[position] for position in range(events)]

    def _shared(self, asked: Sequence[Asked]) -> Sequence[Shared]:
        """The messages that two profiles have which an event may show to be one person."""
        found: list[Shared] = []
        for one in asked:
            if len(one.lookups) == 1:
                continue
            owners = {self._owners[k] for k in one.lookups if k[0] != DEVICE_NAMESPACE and k in self._owners}
            if len(owners) < 2:  # nearly always
                continue
            copies: dict[tuple[str, str], list[tuple[str, Event]]] = {}
            whose = {owner: self.profiles[owner] for owner in owners if owner in self.profiles}
            ids = {i for owner, p in whose.items() for i in (owner, *(a.id for a in p.absorbed))}
            for (profile_id, sender, message_id), (_, event) in self._seen.items():
                if profile_id in ids and sender != Sender.GENERATED.value:
                    copies.setdefault((sender, message_id), []).append((profile_id, event))
            found += [
                Shared(mine, other, *message, event, copy)
                for message, those in copies.items()
                for position, (mine, event) in enumerate(those)
                for other, copy in those[position + 1 :]
            ]
        return found

    def _commit(self, unit: Unit, told: dict[int, Told], now: datetime) -> list[Pending]:
        """Takes over what the unit wrote; answers the events to decide again or still to decide."""
        seen = self._seen
        asked = unit.asked
        hits = [message for message in asked if message in seen]
        if hits:
            for message in hits:
                for pending in asked[message]:
                    pending.stored_seq = (message[0], 0)
                    pending.decisions = seen[message][0]
            for pending in unit.done:
                pending.repeat_of = None
            return [*unit.done, *unit.left]
        ended: list[Profile] = []
        for profile in unit.written.values():
            if profile.ended is not None and self.profiles[profile.id].ended is None:
                ended.append(profile)
            if profile.id not in self.profiles:
                self._owners[(PROFILE_NAMESPACE, profile.id)] = profile.id
            self.profiles[profile.id] = msgspec.structs.replace(profile, version=profile.version + 1)
            for account in profile.accounts:
                self._members.setdefault(account, set()).add(profile.id)
        for key, (profile_id, _) in unit.links.items():
            self._owners[key] = profile_id
        if unit.sends:
            self._made.update([send.id for send in unit.sends])
        for send in unit.sends if self.delivers else ():
            outcome = outcome_event(send, None, now, delivered=True)
            self.set(send.profile_id, Timer(id=outcome_id(send), due_at=now, event=outcome))
        for _, profile_id, identifier, due_at in unit.rung:
            timer = self._timers.get((profile_id, identifier))
            if timer is not None and timer.due_at == due_at:
                del self._timers[profile_id, identifier]
        for (profile_id, identifier), wound in unit.alarms.items():
            if wound is None:
                self._timers.pop((profile_id, identifier), None)
            else:
                self.set(profile_id, wound)
        for profile in ended:
            self._bring_over(profile)
        for pending in unit.done:
            one = told.get(pending.position)
            if pending.stored_seq is None and pending.repeat_of is None and one is not None:
                assert one.seen is not None
                message = (one.seen.profile.id, pending.event.sender.value, pending.event.message_id)
                seen[message] = (tuple(pending.decisions), pending.event)
            else:
                first = pending.repeat_of or pending
                told[pending.position] = Told(
                    event=pending.event, now=now, seen=None, verdict=None, decisions=tuple(first.decisions)
                )
        return unit.left

    def _bring_over(self, ended: Profile) -> None:
        """The timers of a profile that became one with another, as `move_timers` does it: where both have
        one, a wait goes on from the newer of their events, and of others the survivor's stands."""
        heir = self.heir(ended.id)
        for profile_id, identifier in [key for key in self._timers if key[0] == ended.id]:
            timer, stands = self._timers.pop((profile_id, identifier)), self._timers.get((heir, identifier))
            goes_on = identifier.startswith((f"{WAITED}:", "dwell "))
            if stands is None or (goes_on and timer.due_at > stands.due_at):
                self.set(heir, timer)


def _never(_: Decision) -> bool:
    return False
