"""The task that brings everybody to the computed traits and audiences that are declared now.

When either changed, it visits every profile in the order of their ids. For one that lacks a trait it
counts the event log, and hands the result to the lane with an event of the engine's own, behind what
phones send; one that was changed meanwhile is counted again. Where it is stands in the database, so
that any engine goes on with it. A minute later it looks at all of them once more, for those whom an
engine touched that still went by the rules before; and again, as long as somebody was always just changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b
from uuid import uuid4

import msgspec
import structlog

from engine.adapters.postgres import backfill as stored
from engine.adapters.postgres.backfill import Progress
from engine.adapters.postgres.store import Store
from engine.app import metrics
from engine.app.clock import Clock
from engine.app.lane import Lane
from engine.app.replies import Overloaded, Pending, Reply
from engine.app.ruling import Ruling
from engine.domain.offers.rules import RuleSet
from engine.domain.people.account_feeds import lacking_for_accounts
from engine.domain.people.counting import Recount, lacking, rollups_of
from engine.domain.people.events import Event, Kind, Sender
from engine.domain.people.profiles import PROFILE_NAMESPACE, Profile
from engine.domain.people.timers import PREFIX
from engine.domain.recount import Logged, Recounting

EVENT = f"{PREFIX}backfill"
POLL_SECONDS = 1.0
VISITED_AT_ONCE = 200
RENEWED_AT_ONCE = 16
TRIES = 20

log = structlog.get_logger()


class _Facts(msgspec.Struct, frozen=True):
    """What is read of an event's facts."""

    now: datetime
    zone: str | None = None
    places: tuple[tuple[str, str, str, datetime], ...] = ()


_event = msgspec.json.Decoder(Event).decode
_facts = msgspec.json.Decoder(_Facts).decode


class Backfill:
    """Visits all profiles whenever what is declared has changed."""

    def __init__(self, store: Store, lane: Lane, ruling: Callable[[], Ruling], clock: Clock) -> None:
        self._store = store
        self._lane = lane
        self._ruling = ruling
        self._clock = clock
        self._lease = str(uuid4())
        self._done = ""
        self._left_out = 0

    async def run(self) -> None:
        while True:
            try:
                await self.catch_up()
            except Exception as fault:
                # Whatever it is, the next try goes on where this one stopped.
                log.warning("backfill_waits", fault=type(fault).__name__)
            await asyncio.sleep(POLL_SECONDS)

    async def catch_up(self) -> None:
        """Brings everybody to what is declared now, unless that is done or another engine does it."""
        rules = self._ruling().rules
        key = _key(rules)
        if key == self._done:
            return
        progress = await stored.claim(self._store.pool, key, self._lease)
        if progress is None:
            return
        while not (progress.finished or progress.rests):
            if _key(self._ruling().rules) != key:
                return
            found = await self._page(rules, progress)
            if not await stored.advance(self._store.pool, key, self._lease, found):
                return
            progress = found
            metrics.BACKFILL_SHARE.set(_share(progress.after))
        metrics.BACKFILL_SHARE.set(1.0)
        if progress.finished:
            self._done = key

    async def _page(self, rules: RuleSet, progress: Progress) -> Progress:
        profiles = await stored.profiles_after(self._store.pool, progress.after, VISITED_AT_ONCE)
        waiting = [profile for profile in profiles if _needs(profile, rules, progress.round)]
        for start in range(0, len(waiting), RENEWED_AT_ONCE):
            group = waiting[start : start + RENEWED_AT_ONCE]
            tried = await asyncio.gather(*(self._renew(profile, rules, progress.round) for profile in group))
            self._left_out += tried.count(False)
        metrics.BACKFILLED.inc(len(waiting))
        last, again = len(profiles) < VISITED_AT_ONCE, progress.round == 1 or self._left_out > 0
        if last:
            self._left_out = 0
        found = Progress(
            after=None if last else profiles[-1].id,
            visited=progress.visited + len(profiles),
            renewed=progress.renewed + len(waiting),
            round=2 if last else progress.round,
            rests=last and again,
            finished=last and not again,
        )
        if waiting or (last and again and found.renewed):
            log.info("backfill", visited=found.visited, renewed=found.renewed, finished=last)
        return found

    async def _renew(self, profile: Profile, rules: RuleSet, round: int) -> bool:
        """Brings one profile up to date; raises what keeps it from being committed. False where it was
        always changed meanwhile."""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(0.05 * attempt)
                async with self._store.session() as session:
                    found = await session.profiles([profile.id])
                profile = found[0][0]
            if not _needs(profile, rules, round):
                return True
            if profile.absorbed:  # rows of another profile are still on their way
                continue
            recount = None
            missing, rollups = lacking(profile, rules.workspace), lacking_for_accounts(profile, rules)
            if profile.account:
                missing = rollups = ()
            if missing or rollups or (profile.accounts and profile.handed_on != rollups_of(rules)):
                counting = Recounting(rules, missing, rollups)
                async for page in stored.log(self._store.pool, profile):
                    for body, facts in page:
                        counting.take(_logged(body, facts))
                recount = Recount(profile.seq, counting.states, counting.of_accounts)
            if await self._submit(profile, recount, rules, round):
                return True
        log.warning("backfill_left_out", tries=TRIES)
        return False

    async def _submit(self, profile: Profile, recount: Recount | None, rules: RuleSet, round: int) -> bool:
        """Whether that was it: False where something had happened to the person meanwhile."""
        now = self._clock()
        event = Event(
            kind=Kind.TRACK,
            message_id=f"{EVENT}:{_key(rules)}:{profile.seq}",
            received_at=now,
            timestamp=now,
            name=EVENT,
            sender=Sender.ENGINE,
            properties={"whole": True} if profile.account and round > 1 else {},
        )
        reply = Reply(1)
        keys = ((PROFILE_NAMESPACE, profile.id),)
        pending = Pending(event=event, reply=reply, keys=keys, recount=recount)
        while True:
            try:
                self._lane.submit([pending], paced=True)
                break
            except Overloaded:
                await asyncio.sleep(POLL_SECONDS)
        await reply.done
        return recount is None or pending.recounted


def _logged(body: bytes, facts: bytes) -> Logged:
    known = _facts(facts)
    return Logged(event=_event(body), now=known.now, zone=known.zone, places=known.places)


def _key(rules: RuleSet) -> str:
    """What tells one set of declarations from another."""
    stamps = rules.workspace.counted_stamp + b"\0" + rules.audience_stamp
    if (inner := rules.of_accounts) is not None:
        stamps += b"\0" + inner.workspace.counted_stamp + b"\0" + inner.audience_stamp
    return blake2b(stamps, digest_size=8).hexdigest()


def _needs(profile: Profile, rules: RuleSet, round: int) -> bool:
    if profile.ended is not None or not profile.keys:  # nobody any more, an erased person for one
        return False
    if profile.account:  # whole when all members have been seen to, which the second round comes after
        inner = rules.of_accounts
        if inner is None:
            return False
        is_behind = profile.counted != inner.workspace.counted_stamp and round > 1
        return is_behind or profile.audiences.stamp != inner.audience_stamp
    if profile.accounts and profile.handed_on != rollups_of(rules):
        return True
    return bool(lacking(profile, rules.workspace)) or profile.audiences.stamp != rules.audience_stamp


def _share(after: str | None) -> float:
    """How much of all ids is behind one: they are spread evenly."""
    return int(after[:6], 16) / 0x1000000 if after is not None else 0.0
