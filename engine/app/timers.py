"""Due timers become events: claimed with SKIP LOCKED, handed to the lane, deleted by its commit.

A timer whose event could not be committed is claimed again when its lease has run out, by any
engine; its message id is the same each time, so it takes effect once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec
import structlog

from engine.adapters.postgres.accounts import tell_members
from engine.adapters.postgres.store import DueTimer, Store
from engine.app.clock import Clock
from engine.app.lane import Lane
from engine.app.replies import Overloaded, Pending, Reply
from engine.domain.companies import TELL, is_telling
from engine.domain.offers.pauses import NOTHING_HELD, Held
from engine.domain.people.account_feeds import keys_of_timer
from engine.domain.people.events import Event
from engine.domain.whereabouts import WITHDRAWN

POLL_SECONDS = 0.5
"""Half of what a timer may be late."""
CLAIMED_AT_ONCE = 256
LEASE = timedelta(seconds=30)

log = structlog.get_logger()

_decode = msgspec.json.Decoder(Event).decode


class Timers:
    """The task that feeds due timers to a lane."""

    def __init__(
        self, store: Store, lane: Lane, clock: Clock, held: Callable[[], Held] = lambda: NOTHING_HELD
    ) -> None:
        self._store = store
        self._lane = lane
        self._clock = clock
        self._held = held
        self._woken = asyncio.Event()
        self._turn = asyncio.Lock()

    def wake(self) -> None:
        """Looks for due timers now rather than at the next poll."""
        self._woken.set()

    async def run(self) -> None:
        """Two loops, so that what concerns many at once never holds up the others."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run(paced=False))
            group.create_task(self._run(paced=True))

    async def _run(self, *, paced: bool) -> None:
        while True:
            if paced:
                await asyncio.sleep(POLL_SECONDS)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._woken.wait()
                self._woken.clear()
            try:
                await self._fire_due(paced=paced)
            except Exception as fault:
                # Whatever it is, the next look may find it gone.
                log.warning("timers_wait", fault=type(fault).__name__)
                await asyncio.sleep(POLL_SECONDS)

    async def fire_due(self) -> int:
        """Fires all that is due now and waits until it is committed. Answers how many."""
        return await self._fire_due(paced=False) + await self._fire_due(paced=True)

    async def run_replay(self) -> None:
        """What is due at a standing clock, while nothing moves it on."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            async with self._turn:
                try:
                    await self.fire_due()
                except Exception as fault:
                    log.warning("timers_wait", fault=type(fault).__name__)

    async def follow(
        self, to: datetime, advance: Callable[[datetime], bool], settled: Callable[[], Awaitable[object]]
    ) -> None:
        """Moves a replay's clock on. What is due on the way fires at its own time, each once `settled` says
        that everything before it is over: in a replay hours pass in no time, and a push would expire on
        its way."""
        async with self._turn:
            while True:
                await settled()
                if (due := (await self._store.fetch("next_timer", to))[0][0]) is None:
                    break
                advance(due)
                if not await self.fire_due():
                    break  # another engine has them
            advance(to)
            await self.fire_due()

    async def _fire_due(self, *, paced: bool) -> int:
        fired = 0
        while due := await self._store.claim_timers(
            self._clock(), CLAIMED_AT_ONCE, LEASE, paced=paced, held=self._held()
        ):
            await self._fire(due, paced=paced)
            fired += len(due)
            if len(due) < CLAIMED_AT_ONCE and not any(timer.id.startswith(TELL) for timer in due):
                break  # members who are told something are told at once
        return fired

    async def _fire(self, due: Sequence[DueTimer], *, paced: bool) -> None:
        replies: list[tuple[DueTimer, Reply]] = []
        for timer in due:
            try:
                event = _decode(timer.event)
            except msgspec.DecodeError:
                # Of a newer engine, perhaps: one that understands it will claim it.
                log.error("timer_unreadable", timer=timer.id)
                continue
            event = msgspec.structs.replace(event, timestamp=timer.due_at, received_at=self._clock())
            if event.name == WITHDRAWN:
                if await self._store.fetch("merging", timer.profile_id):
                    continue  # some of the rows stand under another id: claimed again, when they are here
                # Before the timer goes with its event: what fails here is done again.
                await self._store.fetch(
                    "withdraw_positions", timer.bucket, timer.profile_id, event.properties["devices"]
                )
            reply = Reply(1)
            if is_telling(event):
                await tell_members(self._store, timer.profile_id, event)
            keys = keys_of_timer(timer.profile_id, event)
            place = (timer.bucket, timer.profile_id, timer.id, timer.due_at)
            try:
                self._lane.submit([Pending(event=event, reply=reply, keys=keys, timer=place)], paced=paced)
            except Overloaded:
                break  # claimed again once the lease has run out
            replies.append((timer, reply))
        for timer, reply in replies:
            try:
                await reply.done
            except Exception as fault:
                log.warning("timer_not_fired", timer=timer.id, fault=type(fault).__name__)
                continue
            if reply.duplicates:
                await self._store.fetch(
                    "delete_timer", timer.bucket, timer.profile_id, timer.id, timer.due_at
                )
