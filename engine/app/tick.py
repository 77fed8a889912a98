"""The tick: load → decide → commit → answer.

It takes the connected components of all identities in a batch (`Unit`), decides their events in
rounds with one model run per model and round, and commits them with one statement. What was not
written, because another engine was faster or the message is stored already, is given back to be
decided again; only what is durable is answered.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from uuid import uuid4

import msgspec
import structlog

from engine.adapters.postgres.faults import Conflict, StoreError, Unavailable
from engine.adapters.postgres.outbox import Send
from engine.adapters.postgres.rows import Commit
from engine.adapters.postgres.store import Kept, Session, Store
from engine.app import account_context, metrics
from engine.app.cache import ProfileCache
from engine.app.clock import Clock
from engine.app.components import Asked, components, meetings
from engine.app.replies import Interrupted, Pending
from engine.app.rounds import decide_units
from engine.app.ruling import Ruling
from engine.app.sampling import is_kept
from engine.app.succession import drop_erased, succeeded
from engine.app.turn import Turn
from engine.app.unit import Unit
from engine.app.unit_changes import change_rows
from engine.app.weather import Weather
from engine.domain.offers.decisions import Decision
from engine.domain.offers.rules import Namespace, RuleSet
from engine.domain.people.profiles import (
    ACCOUNT_NAMESPACE,
    PROFILE_NAMESPACE,
    IdentityKey,
    Profile,
    new_profile,
    profile_id_of,
)
from engine.domain.sharing.readers import Told

DECIDE_BUDGET_SECONDS = 0.025
STARVED_AFTER = 2
"""Commits lost before a profile is loaded FOR UPDATE and decided inside that transaction."""
CONTENDED_SECONDS = 2.0
"""How long such a profile is taken for one that two engines serve, and locked at once. Without the
memory each of its events would be lost twice first."""

log = structlog.get_logger()

_decision_decoder = msgspec.json.Decoder(Decision)


class Pipeline:
    """What a tick does to a batch of events, with what the database may do to it."""

    def __init__(
        self,
        *,
        store: Store,
        cache: ProfileCache,
        ruling: Callable[[], Ruling],
        clock: Clock,
        secret: bytes,
        providers: frozenset[str],
        take_sends: Callable[[Sequence[Send], float], None],
        weather: Weather | None = None,
        merged: Callable[[], None] = lambda: None,
        fed: Callable[[], None] = lambda: None,
        budget_seconds: float = DECIDE_BUDGET_SECONDS,
        sharing: Callable[[], Told | None] = lambda: None,
        shared: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        self.store = store
        self._cache = cache
        self.owner = cache.owner
        self._ruling = ruling
        self._clock = clock
        self._secret = secret
        self.providers = providers
        self._take_sends = take_sends
        self._weather = weather
        self._merged = merged
        self._fed = fed
        self._budget_seconds = budget_seconds
        self._sharing = sharing
        self._shared = shared
        self._contended: dict[str, float] = {}

    @property
    def namespaces(self) -> Sequence[Namespace]:
        """The kinds of identity that events are named by now."""
        return self._ruling().rules.workspace.namespaces

    async def turn(self, batch: list[Pending], kept: Kept, concerns: set[object]) -> list[Pending]:
        """One tick. Gives back what must be decided again. `concerns` learns whom the batch turns out
        to concern."""
        starved, others = self._starved(batch)
        if starved and others:
            left = await self.turn(starved, kept, concerns)
            return [*left, *await self.turn(others, kept, concerns)]
        connection: AbstractAsyncContextManager[Session] = kept
        if starved:
            metrics.STARVED.inc()
            connection = self.store.exclusive()
            for pending in starved:
                self._forget(pending)
        try:
            return await self._tick(batch, connection, concerns)
        except Conflict:
            # Two engines met; whoever tries again a little later finds the way free.
            metrics.CONFLICTS.inc()
            for pending in batch:
                self._forget(pending)
                pending.losses += 1
            await asyncio.sleep(random.uniform(0.0, 0.01))
            return batch
        except Unavailable as fault:
            return self._interrupted(batch, fault)
        except Exception as fault:
            for pending in batch:
                self._forget(pending)
            if len(batch) > 1:
                # Whichever event it is, the others must not go down with it.
                half = len(batch) // 2
                left = await self.turn(batch[:half], kept, concerns)
                return [*left, *batch[half:]] if left else await self.turn(batch[half:], kept, concerns)
            log.exception("event_failed")
            batch[0].reply.fail(fault)
            return []

    def _starved(self, batch: list[Pending]) -> tuple[list[Pending], list[Pending]]:
        """The events that must be decided under locks, with all that may concern the same people,
        and the others."""
        now = time.monotonic()
        self._contended = {owner: until for owner, until in self._contended.items() if until > now}
        if not self._contended and not [p for p in batch if p.losses >= STARVED_AFTER]:
            return [], batch
        asked = [Asked(pending, pending.lookups) for pending in batch]
        hints = {key: owner for one in asked for key in one.lookups if (owner := self.owner(key)) is not None}
        starved: list[Pending] = []
        others: list[Pending] = []
        for component in components(asked, hints):
            owners = {hints[key] for one in component for key in one.lookups if key in hints}
            if lost := any(one.pending.losses >= STARVED_AFTER for one in component):
                self._contended |= dict.fromkeys(owners, now + CONTENDED_SECONDS)
            alone = lost or not owners.isdisjoint(self._contended)
            (starved if alone else others).extend(one.pending for one in component)
        return starved, others

    def _interrupted(self, batch: list[Pending], fault: Unavailable) -> list[Pending]:
        """The connection went, perhaps after the commit took: once more, and what is stored then
        was our own. A database that is still away is the caller's to wait for."""
        log.warning("database_unavailable", fault=str(fault), events=len(batch))
        again: list[Pending] = []
        for pending in batch:
            self._forget(pending)
            if pending.unsure:
                pending.reply.fail(Interrupted())
            else:
                pending.unsure = True
                again.append(pending)
        return again

    def _forget(self, pending: Pending) -> None:
        for key in pending.lookups:
            if (owner := self.owner(key)) is not None:
                self._cache.evict(owner)

    async def _tick(
        self, batch: list[Pending], connection: AbstractAsyncContextManager[Session], concerns: set[object]
    ) -> list[Pending]:
        ruling, now = self._ruling(), self._clock()
        started = time.perf_counter()
        async with connection as session:
            units = await self._load(batch, session, now, concerns)
            loaded = time.perf_counter()
            turn = Turn(
                rules=ruling.rules,
                now=now,
                lease=str(uuid4()),
                providers=self.providers,
                is_kept=is_kept,
                weather=self._weather,
            )
            decide_units(units, ruling, turn, time.perf_counter() + self._budget_seconds)
            decided = time.perf_counter()
            leased_at = time.monotonic()
            lost = await self._commit(units, session, now)
            committed = time.perf_counter()
        carried = await self._answer(units, lost, leased_at)
        metrics.TICK_EVENTS.observe(len(batch))
        metrics.LOAD_SECONDS.observe(loaded - started)
        metrics.DECIDE_SECONDS.observe(decided - loaded)
        metrics.COMMIT_SECONDS.observe(committed - decided)
        return carried

    # load

    async def _load(
        self, batch: list[Pending], session: Session, now: datetime, concerns: set[object]
    ) -> list[Unit]:
        """Documents of everyone whom the batch can touch, by connected components."""
        asked = [Asked(pending, pending.lookups) for pending in batch]
        hints: dict[IdentityKey, str] = {}
        unknown: dict[IdentityKey, None] = {}
        owner_of = self.owner
        for one in asked:
            for key in one.lookups:
                if (owner := owner_of(key)) is not None:
                    hints[key] = owner
                else:
                    unknown[key] = None
        if unknown:
            hints.update(await session.owners(list(unknown)))
            concerns.update(hints.values())
            if self._ruling().rules.workspace.drops_erased:
                nobodys = [key for key in unknown if key not in hints]
                await drop_erased(batch, nobodys, session, self._secret, self.namespaces)
        # An event that lost may have met a profile under the id that it would create.
        taken = [
            new_profile(p.keys[0], self._secret, now, generation).id
            for p in batch
            if p.losses
            for generation in range(p.losses)
        ]
        profiles = await self._profiles(hints, unknown, taken, session)
        if [one for one in asked if one.lookups[0][0] == PROFILE_NAMESPACE]:
            asked = await succeeded(
                asked, hints, profiles, lambda hint: self._profiles(hint, {}, (), session)
            )
        pairs = meetings(asked, hints, profiles)
        shared = await session.shared(pairs) if pairs else ()
        if (rules := self._ruling().rules).reads_accounts:
            asked = await self._companies(asked, hints, profiles, rules, session, concerns)
        return [
            Unit(events, profiles, hints, self._secret, shared, number)
            for number, events in enumerate(components(asked, hints))
        ]

    async def _companies(
        self,
        asked: list[Asked],
        hints: dict[IdentityKey, str],
        profiles: dict[str, Profile],
        rules: RuleSet,
        session: Session,
        concerns: set[object],
    ) -> list[Asked]:
        """Loads the accounts that the events may be of; from the database, because an account that is only
        read is not found to be stale by its commit."""
        named = account_context.accounts_of(asked, hints, profiles)
        wanted = {account for several in named for account in several}
        if not wanted:
            return asked
        ids = [profile_id_of((ACCOUNT_NAMESPACE, account), self._secret) for account in wanted]
        for profile, document in await session.profiles(ids):
            profiles[profile.id] = profile
            self._cache.put(profile, document)
        if not rules.caps_accounts:
            return asked
        concerns.update(ids)
        return account_context.together(asked, named, hints, self._secret)

    async def _profiles(
        self,
        hints: Mapping[IdentityKey, str],
        asked_index: Mapping[IdentityKey, None],
        taken: Sequence[str],
        session: Session,
    ) -> dict[str, Profile]:
        """The documents behind the hints. One whose cached copy does not list what the index says
        is read anew: another engine may have linked it since."""
        profiles: dict[str, Profile] = {}
        missing = set(taken)
        for profile_id in set(hints.values()):
            cached = self._cache.get(profile_id)
            if cached is None:
                missing.add(profile_id)
            else:
                profiles[profile_id] = cached
        for key in asked_index:
            owner = profiles.get(hints.get(key, ""))
            if owner is not None and not owner.lists(key):
                missing.add(owner.id)
                del profiles[owner.id]
        if missing:
            for profile, document in await session.profiles(list(missing)):
                profiles[profile.id] = profile
                self._cache.put(profile, document)
        return profiles

    # commit

    async def _commit(
        self, units: list[Unit], session: Session, now: datetime
    ) -> dict[int, list[tuple[str, str, str, int]]]:
        """Writes all units. Answers the numbers of those that were not written, each with the
        messages that were stored before."""
        commit = Commit()
        for unit in units:
            unit.rows(commit)
        if not commit.profiles:
            return {}
        if (sharing := self._sharing()) is not None:
            for unit in units:
                commit.changes += change_rows(unit, sharing, now)
        lost = await session.commit(commit)
        if commit.changes:
            self._shared({change.receiver for change in commit.changes})
        refused: dict[int, list[tuple[str, str, str, int]]] = {number: [] for number in lost.units}
        for hit in lost.hits:
            refused[hit.unit].append((hit.profile_id, hit.sender, hit.message_id, hit.seq))
        return refused

    # answer

    async def _answer(
        self,
        units: list[Unit],
        refused: Mapping[int, list[tuple[str, str, str, int]]],
        leased_at: float,
    ) -> list[Pending]:
        carried: list[Pending] = []
        repeats: list[Pending] = []
        sends: list[Send] = []
        accepted = duplicates = 0
        for unit in units:
            hits = refused.get(unit.number)
            if hits is not None:
                carried += self._again(unit, hits)
                continue
            for profile, document in unit.committed:
                self._cache.put(msgspec.structs.replace(profile, version=profile.version + 1), document)
                if profile.ended is not None:
                    self._merged()
            if unit.feeds:
                self._fed()
            if unit.sends:
                sends += [send for send in unit.sends if send.lease]
            for pending in unit.done:
                if pending.stored_seq is not None:
                    repeats.append(pending)
                elif pending.repeat_of is not None:
                    duplicates += 1
                    pending.reply.settle(pending.position, pending.repeat_of.decisions, duplicate=True)
                else:
                    accepted += pending.timer is None
                    if pending.decisions:
                        metrics.count(pending.decisions)
                    pending.reply.settle(pending.position, pending.decisions, duplicate=False)
            if len(unit.done) < len(unit.events):
                carried += unit.left
        metrics.ACCEPTED.inc(accepted)
        metrics.DUPLICATES.inc(duplicates + len(repeats))
        if sends:
            self._take_sends(sends, leased_at)
        if repeats:
            await self._answer_repeats(repeats)
        return carried

    def _again(self, unit: Unit, hits: Sequence[tuple[str, str, str, int]]) -> list[Pending]:
        """What a unit that was not written leaves: all its events, those stored before marked."""
        # A message that is known under two ids was brought over: the one that stays has its decisions.
        asked = unit.asked if hits else {}
        for profile, sender, message, seq in sorted(hits, key=lambda hit: hit[0] in unit.written):
            for pending in asked.get((profile, sender, message), ()):
                pending.stored_seq = (profile, seq)
        for profile_id in unit.written:
            self._cache.evict(profile_id)
        for pending in unit.done:
            pending.repeat_of = None
            pending.decisions = ()
            if not hits:
                pending.losses += 1
                metrics.LOST.inc()
        return [*unit.done, *unit.left]

    async def _answer_repeats(self, repeats: Sequence[Pending]) -> None:
        """A message that is stored already is answered with what was decided on it then."""
        wanted = [p.stored_seq or ("", 0) for p in repeats]
        try:
            async with self.store.session() as session:
                stored = await session.decisions_of_events(list(dict.fromkeys(wanted)))
        except StoreError:
            for pending in repeats:
                pending.reply.fail(Interrupted())
            return
        for pending, event in zip(repeats, wanted, strict=True):
            decisions = [_decision_decoder.decode(d) for d in stored.get(event, ())]
            pending.reply.settle(pending.position, decisions, duplicate=not pending.unsure)
