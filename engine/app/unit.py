"""One connected component of a tick: the people whom its events can touch, and the rows that it
will write, all or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import msgspec

from engine.adapters.postgres.outbox import Send
from engine.adapters.postgres.rows import (
    Commit,
    DecisionRow,
    EventRow,
    Shared,
)
from engine.app.components import Asked, copies
from engine.app.rendering import render_body, render_in_app, render_push
from engine.app.replies import Pending
from engine.app.turn import Turn
from engine.app.unit_rows import (
    NOWHERE,
    Links,
    Wound,
    call_of,
    decision_row,
    event_row,
    link_rows,
    member_rows,
    outbox_row,
    probe_rows,
    rung_rows,
    seat_rows,
    send_of,
    timer_rows,
)
from engine.app.weather import sky
from engine.domain import account_views, decide
from engine.domain.decide import Observation, Verdict
from engine.domain.offers import caps
from engine.domain.offers.decisions import Message
from engine.domain.people import account_feeds, fold, identity, merging
from engine.domain.people.counting import recounted
from engine.domain.people.events import Event, Sender
from engine.domain.people.profiles import (
    ACCOUNT_NAMESPACE,
    DEVICE_NAMESPACE,
    PROFILE_NAMESPACE,
    Address,
    Identity,
    IdentityKey,
    Profile,
    bucket_of,
    encode_profile,
    new_profile,
    profile_id_of,
)
from engine.domain.people.timers import NO_ALARMS, Alarms

NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


class Unit(msgspec.Struct, eq=False):
    """Overlay of documents over what was loaded: the only place where a tick's state changes.

    One is made for nearly every event: what few events need is no container, but a value that is replaced.
    """

    events: Sequence[Asked]
    _base: Mapping[str, Profile]
    _hints: Mapping[IdentityKey, str]
    _secret: bytes
    _shared: Sequence[Shared] = ()
    number: int = 0
    """Its place in the tick."""
    done: tuple[Pending, ...] = ()
    sends: tuple[Send, ...] = ()
    written: dict[str, Profile] = {}
    committed: tuple[tuple[Profile, bytes], ...] = ()
    """What its rows write, with the documents, under versions one higher."""
    stopped: bool = False
    feeds: bool = False
    """Whether something is left for accounts."""
    links: Links = NOTHING
    rung: tuple[tuple[int, str, str, datetime], ...] = ()
    alarms: Wound = NOTHING
    event_rows: tuple[EventRow, ...] = ()
    _seen: dict[tuple[str, str, str], Pending] = {}
    _asked: tuple[tuple[tuple[str, str, str], Pending], ...] = ()
    _told: int = 0
    _decision_rows: tuple[DecisionRow, ...] = ()
    _probes: tuple[tuple[str, Sender, str], ...] = ()

    @property
    def left(self) -> list[Pending]:
        """Events for which this tick had no room."""
        return [asked.pending for asked in self.events[len(self.done) :]]

    @property
    def next(self) -> Asked | None:
        if self.stopped or len(self.done) == len(self.events):
            return None
        return self.events[len(self.done)]

    @property
    def asked(self) -> dict[tuple[str, str, str], list[Pending]]:
        """The events by profile, sender and message under which they may be stored already."""
        found: dict[tuple[str, str, str], list[Pending]] = {}
        for message, pending in self._asked:
            found.setdefault(message, []).append(pending)
        return found

    def profile(self, profile_id: str) -> Profile | None:
        return self.written.get(profile_id) or self._base.get(profile_id)

    def before(self, profile_id: str) -> Profile | None:
        """The profile as it was loaded."""
        return self._base.get(profile_id)

    def _hint(self, key: IdentityKey) -> str | None:
        """The profile that `key` points to by now."""
        if self.links and (link := self.links.get(key)) is not None:
            return link[0]
        return self._hints.get(key)

    def _point(self, key: IdentityKey, to: str, instead_of: str | None) -> None:
        self.links = {**self.links, key: (to, instead_of)}

    def owner_of(self, key: IdentityKey) -> Profile | None:
        """The profile whose document lists `key`: the index only hints."""
        profile_id = self._hint(key)
        profile = self.profile(profile_id) if profile_id is not None else None
        return profile if profile is not None and profile.lists(key) else None

    def begin(self, asked: Asked, turn: Turn) -> Observation | None:
        """Finds whom the event belongs to and folds it in. None where it adds nothing, because it
        is stored already, or where it must wait for a tick of its own."""
        pending = asked.pending
        if pending.stored_seq is not None:
            self.done += (pending,)
            return None
        event = pending.event
        gone = pending.keys[0][0] == PROFILE_NAMESPACE and self.owner_of(pending.keys[0]) is None
        if gone or pending.dropped:
            pending.repeat_of = pending  # its profile is gone: nothing is left to tell
            self.done += (pending,)
            return None
        namespaces = turn.rules.workspace.namespaces
        plan = identity.plan(event, pending.keys, namespaces, self.owner_of)
        if self._told and plan.touches_others:
            self.stopped = True
            return None
        profile = (self.profile(plan.owner) if plan.owner else None) or self._fresh(plan.keys[0], turn.now)
        message = (profile.id, event.sender, event.message_id)
        if len(self.events) > 1:
            if (first := self._seen.get(message)) is not None:
                pending.repeat_of = first
                self.done += (pending,)
                return None
            self._seen[message] = pending
        if plan.foreign_device:
            event = msgspec.structs.replace(event, device=None)
        self._asked += ((message, pending),)
        if others := self._may_know(plan, profile):
            elsewhere = [(owner, event.sender, event.message_id) for owner in others]
            self._asked += tuple([(place, pending) for place in elsewhere])
            self._probes += tuple(elsewhere)
        if plan.is_known:
            profile = identity.gains(profile, plan, event, {}, {})
        else:
            profile = self._apply(plan, profile, event, turn)
        if pending.recount is not None:
            renewed = recounted(profile, pending.recount, turn.rules)
            pending.recounted = renewed is not None
            if renewed is not None:
                self._feed(account_feeds.handed_on_late(profile, pending.recount, turn.now))
            profile = renewed or profile
        observation = decide.observe(turn.rules, profile, event, turn.now)
        if observation.event.location is not event.location:
            pending.newest = None  # as coarse as this one may be kept, it says nothing
        if plan.notes:
            observation = msgspec.structs.replace(observation, notes=observation.notes + plan.notes)
        if observation.event.group_id is not None and turn.rules.uses_accounts:
            observation = self._with_company(observation, pending, turn)
        if above := sky(turn.rules, observation, turn.now, turn.weather):
            observation = msgspec.structs.replace(observation, sky=above)
        return observation

    def _with_company(self, seen: Observation, pending: Pending, turn: Turn) -> Observation:
        """The observation with what is known of the event's account, now or when it was decided before."""
        account = seen.event.group_id
        assert account is not None
        document = self.profile(profile_id_of((ACCOUNT_NAMESPACE, account), self._secret))
        if pending.account is msgspec.UNSET:
            view = account_views.view_of(turn.rules, document, turn.now)
        else:
            known = pending.account
            view = account_views.recalled(turn.rules, known) if known is not None else None
        company = account_views.company(seen.profile, account, document, view)
        return msgspec.structs.replace(seen, company=company)

    def _may_know(self, plan: identity.Plan, but: Profile) -> Sequence[str]:
        """The profiles other than `but` that one of the event's keys belongs or belonged to, and those
        that became one with it a moment ago: each may have stored the message when it did."""
        if plan.is_known and not but.absorbed:
            for known in but.identities:
                if known.earlier:
                    break
            else:
                # It was found by the first key; where the others point there, too, nobody else knows.
                if len(plan.keys) == 1 or {self._hint(key) for key in plan.keys[1:]} <= {None, but.id}:
                    return ()
        found = dict.fromkeys([absorbed.id for absorbed in but.absorbed])
        for profile_id in plan.merges:
            ended = self.profile(profile_id)
            assert ended is not None
            found.update(dict.fromkeys([ended.id, *(absorbed.id for absorbed in ended.absorbed)]))
        for key in plan.keys:
            hint = self._hint(key)
            if hint is None:
                continue
            found[hint] = None
            owner = self.profile(hint)
            if owner is not None and [i for i in owner.identities if i.earlier]:
                found.update(dict.fromkeys(owner.earlier_owners(key)))
        found.pop(but.id, None)
        return list(found)

    def _fresh(self, key: IdentityKey, now: datetime) -> Profile:
        """A profile that does not exist yet, under an id that none of the loaded ones has."""
        generation = 0
        while True:
            profile = new_profile(key, self._secret, now, generation)
            if self.profile(profile.id) is None:
                return profile
            generation += 1

    def _apply(self, plan: identity.Plan, profile: Profile, event: Event, turn: Turn) -> Profile:
        for profile_id in plan.merges:
            profile = self._merge(profile, profile_id, event, turn)
        addresses: dict[str, Address] = {}
        earlier: dict[IdentityKey, tuple[str, ...]] = {}
        by_loser: dict[str, list[IdentityKey]] = {}
        for key, loser_id in plan.moves:
            by_loser.setdefault(loser_id, []).append(key)
        for loser_id, keys in by_loser.items():
            loser = self.profile(loser_id)
            assert loser is not None
            for namespace, value in keys:
                if namespace == DEVICE_NAMESPACE:
                    addresses[value] = loser.devices[value]
            earlier.update(identity.earlier_owners(loser, keys))
            self._write(identity.loses(loser, keys))
            self.stopped = True  # what writes two documents commits alone
        gained = (*plan.links, *(key for key, _ in plan.moves))
        for key in gained:
            hint = self._hint(key)
            if hint is not None and hint != profile.id:
                earlier.setdefault(key, (hint,))
            if hint is not None and hint != profile.id and (stale := self.profile(hint)) is not None:
                self._write(stale)  # guards the take-over of a stale row by that profile's version
            self._point(key, profile.id, self._hints.get(key))
        return identity.gains(profile, plan, event, addresses, earlier)

    def _merge(self, profile: Profile, other_id: str, event: Event, turn: Turn) -> Profile:
        """`profile` with the other one in it, whose row says so from now on."""
        ended = self.profile(other_id)
        assert ended is not None
        self._write(merging.tombstone(ended, profile, event))
        self.stopped = True  # what writes two documents commits alone
        together = merging.merged(profile, ended, turn.rules.workspace, event.received_at)
        for copy, other in copies(self._shared, ended, profile):
            together = merging.uncounted(turn.rules, together, copy, turn.now)
            if other is not None:
                self._feed(account_feeds.uncounted(turn.rules, profile, copy, other, turn.now))
        for key in ended.keys:
            if together.lists(key):
                self._point(key, profile.id, ended.id)
        return together

    def _write(self, profile: Profile) -> None:
        self.written[profile.id] = profile

    def finish(
        self,
        pending: Pending,
        seen: Observation,
        verdict: Verdict,
        scores: Mapping[str, float | None],
        turn: Turn,
    ) -> None:
        """Takes the verdict into the unit: the document, and the rows of event and decisions."""
        base = self._base.get(seen.profile.id)
        profile = self.written[verdict.profile.id] = verdict.profile
        bucket = bucket_of(profile.id)
        if not turn.is_rehearsed:
            place = self._told if len(self.written) > 1 else 0  # whose turn it was matters between people
            row = event_row(self.number, bucket, base, scores, seen, pending, turn, place)
            self.event_rows += (row,)
        self._told += 1
        pending.decisions = verdict.decisions
        if verdict.sends:
            messages: dict[str, Message] = {}
            for sending in verdict.sends:
                if sending.candidate.is_action:
                    body = render_body(sending.candidate)
                    self.sends += (call_of(sending, body, profile, turn.lease, turn.providers),)
                    continue
                if sending.candidate.channel == "in_app":
                    messages[sending.decision.id] = render_in_app(sending.candidate, profile.locale)
                    continue
                message = messages[sending.decision.id] = render_push(sending.candidate, profile.locale)
                self.sends += (send_of(sending, message, profile, turn.lease, turn.providers),)
            pending.decisions = tuple(
                msgspec.structs.replace(d, message=messages[d.id]) if d.id in messages else d
                for d in verdict.decisions
            )
        for d in pending.decisions:
            if turn.is_kept(d):
                self._decision_rows += (decision_row(self.number, bucket, profile, d),)
        if pending.timer is not None:
            self.rung += (pending.timer,)
        if turn.rules.caps_accounts and seen.event.group_id is not None and verdict.sends:
            self._count_for_account(seen.event.group_id, verdict, seen.event, turn)
        if seen.feeds:
            self._feed(seen.feeds)
        if seen.alarms is not NO_ALARMS:
            self._wind(profile.id, seen.alarms)
        if verdict.alarms is not NO_ALARMS:
            self._wind(profile.id, verdict.alarms)
        self.done += (pending,)

    def _feed(self, feeds: Iterable[account_feeds.Feed]) -> None:
        """Leaves rows for accounts, whose profiles may not be there yet."""
        for feed in feeds:
            of_account = profile_id_of((ACCOUNT_NAMESPACE, feed.account), self._secret)
            self.alarms = {**self.alarms, (of_account, feed.timer.id): feed.timer}
            self.feeds = True

    def _count_for_account(self, account: str, verdict: Verdict, event: Event, turn: Turn) -> None:
        """Offers made that a cap counts over all members stand in the account's own document, which is
        written in the same commit: so the cap is exact, whichever members are served elsewhere."""
        made = {sending.decision.id for sending in verdict.sends}
        counted = [c for c in verdict.profile.contacts if c.decision in made and caps.ACCOUNT in c.by]
        if not counted:
            return
        key = (ACCOUNT_NAMESPACE, account)
        document = self.profile(profile_id_of(key, self._secret))
        if document is None:
            document = new_profile(key, self._secret, turn.now)
            named = Identity(*key, event.known_at, event.message_id)
            document = msgspec.structs.replace(document, identities=(named,))
            self._point(key, document.id, self._hints.get(key))
        for contact in counted:
            document = fold.with_contact(document, contact, turn.now - turn.rules.contact_horizon)
        self._write(document)

    def _wind(self, profile_id: str, alarms: Alarms) -> None:
        self.alarms = {
            **self.alarms,
            **{(profile_id, identifier): None for identifier in alarms.cancelled},
            **{(profile_id, timer.id): timer for timer in alarms.set},
        }

    def rows(self, commit: Commit) -> None:
        """Adds the unit's rows to the tick's, under its number."""
        number = self.number
        for profile in self.written.values():
            document = encode_profile(profile)
            self.committed += ((profile, document),)
            heir = profile.ended.into if profile.ended is not None else None
            commit.profiles.append(
                (number, bucket_of(profile.id), profile.id, profile.version, document, heir)
            )
            before = base.audiences if (base := self._base.get(profile.id)) is not None else NOWHERE
            if profile.audiences is not before:
                commit.members.extend(member_rows(number, before, profile))
            seats = base.accounts if base is not None else {}
            if profile.accounts is not seats and (profile.accounts or seats):
                commit.members.extend(seat_rows(number, seats, profile))
        if self.links:
            commit.links += link_rows(number, self.links)
        commit.events += self.event_rows
        commit.decisions += self._decision_rows
        if self.sends:
            commit.sends += [outbox_row(number, send) for send in self.sends]
        if self._probes:
            commit.probes += probe_rows(number, self._probes)
        if self.rung or self.alarms:
            commit.timers_done += rung_rows(number, self.rung, self.alarms)
            commit.timers_set += timer_rows(number, self.alarms)
