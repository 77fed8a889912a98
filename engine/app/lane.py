"""The lane: what waits, and the ticks that turn it.

A tick takes from what arrived while those before it were under way, in order; a single event goes at once.
Two are under way at a time where there is enough for both: while one commits, the next is decided, so that
engine and database do not wait for each other. They never concern the same people: an event of somebody
whom the other one concerns is held until that has ended, and what follows for the same people with it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import ClassVar, Protocol

import msgspec
import structlog

from engine.adapters.postgres.store import Kept
from engine.app.replies import Overloaded, Pending
from engine.app.tick import Pipeline
from engine.domain.people import identity
from engine.domain.people.profiles import PROFILE_NAMESPACE

TICKS_AT_ONCE = 2
TICK_EVENTS = 64
"""New ones of a tick, whatever it carries over from those before. With more, engine and database wait for
each other, and what a tick touches is no longer in the processor's cache when it is written."""
BESIDE_EVENTS = 8
"""What must have come, once a tick is decided, for another to be decided while that one commits. A commit
costs the database as much as ten events: fewer go together with those that come until it has ended. Later it
is too late for less than a whole tick, because the answers would wait until that is decided."""
PATIENCE_SECONDS = 0.01
"""How long they wait for that at the most: a commit that hangs must not hold up others."""
BULK_EVENTS = 512
"""Of a tick that nobody waits for, or that takes a request whole: they share a commit, and a person's
document is written once for all."""
QUEUE_EVENTS = 20_000
PACED_EVENTS = 8
"""Of a tick at the most that nobody waits for, as long as others are there; so that schedules and
sends of the morning never slow down what phones send, and still get on."""
READ_SECONDS = 0.01
"""For how long a tick reads at a stretch."""

log = structlog.get_logger()


class Unread(Protocol):
    """An event that waits as the bytes that it came as."""

    reply: ClassVar[None]

    def read(self) -> Pending | None:
        """The event; None where there is nothing to decide."""


class _Tick(msgspec.Struct, eq=False):
    """A tick under way: its events, everything that these name and whose it is, and the events that
    wait for its end."""

    events: list[Pending] = msgspec.field(default_factory=list)
    concerns: set[object] = msgspec.field(default_factory=set)
    held: list[Pending] = msgspec.field(default_factory=list)
    began: float = msgspec.field(default_factory=time.monotonic)


class Lane:
    """A queue of events and the tasks that turn it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._queue: deque[Pending | Unread] = deque()
        self._paced: deque[Pending | Unread] = deque()
        self._carried: deque[Pending | Unread] = deque()
        self._under_way: list[_Tick] = []
        self._idle: list[asyncio.Future[None]] = []
        self._reminder: asyncio.TimerHandle | None = None
        self._namespaces = pipeline.namespaces
        self._closing = False
        self._waiting = 0  # events, from when they come until they are answered

    def __len__(self) -> int:
        return self._waiting

    def submit(self, events: Sequence[Pending], *, paced: bool = False) -> None:
        """Puts a request's events into the queue; `paced` ones go behind all others.

        Raises:
            Overloaded: there is no room; nothing was taken.
        """
        if self._closing or self._waiting + len(events) > QUEUE_EVENTS:
            raise Overloaded
        self._waiting += len(events)
        (self._paced if paced else self._queue).extend(events)
        self._come()

    def read_later(self, unread: Unread) -> None:
        """Puts an event into the queue that is read when a tick takes it: so that what waits is as small
        as it came, and what is read is decided while the processor's cache has it.

        Raises:
            Overloaded: there is no room; it will not be read.
        """
        if self._closing or self._waiting >= QUEUE_EVENTS:
            raise Overloaded
        self._waiting += 1
        self._queue.append(unread)
        self._come()

    def close(self) -> None:
        """Takes nothing more; `run` returns when the queue is empty."""
        self._closing = True
        self._wake()

    async def run(self) -> None:
        """Turns what is submitted, until the lane is closed and empty."""
        async with asyncio.TaskGroup() as turning:
            for _ in range(TICKS_AT_ONCE):
                turning.create_task(self._turn(self._pipeline.store.kept()))

    async def _turn(self, kept: Kept) -> None:
        while True:
            if self._goes_better_later:
                if self._queue or self._paced:
                    self._remind()
                await self._woken()
                continue
            tick = self._next()
            if tick.events:
                self._under_way.append(tick)
                # What comes while it is decided is read first.
                asyncio.get_running_loop().call_soon(self._look)
                left = await self._pipeline.turn(tick.events, kept, tick.concerns)
                self._under_way.remove(tick)
                self._waiting -= len(tick.events) - len(left)
                self._carried.extend(left)
                self._carried.extend(tick.held)
            elif self._queue:  # to read took so long that others have their turn first
                await asyncio.sleep(0)
            elif self._closing and not self:
                await kept.close()
                self._wake()
                return
            else:
                await self._woken()

    def _come(self) -> None:
        """Something waits: a tick begins now, or soon."""
        if not self._under_way or len(self._queue) >= TICK_EVENTS:
            self._wake()
        else:
            self._remind()

    def _look(self) -> None:
        """A tick has begun, and its commit is on its way: the best time for another one."""
        if self._queue and self._goes_better_later:
            self._remind()
        elif self._queue:
            self._wake()

    @property
    def _goes_better_later(self) -> bool:
        """Whether what waits is so little that it should wait for the tick under way."""
        if not self._under_way or self._carried or len(self._queue) >= BESIDE_EVENTS:
            return False
        return time.monotonic() < self._under_way[0].began + PATIENCE_SECONDS

    def _remind(self) -> None:
        """Looks again in a while."""
        if self._reminder is None:
            loop = asyncio.get_running_loop()
            self._reminder = loop.call_later(PATIENCE_SECONDS, self._reminded)

    def _reminded(self) -> None:
        self._reminder = None
        self._wake()

    def _next(self) -> _Tick:
        """The events that can go now, in order. What is carried over goes first, all of it, because
        newer events may belong to the same people; it never takes the place of everybody else's."""
        if self._pipeline.namespaces is not self._namespaces:
            self._name_again()
        tick = _Tick()
        self._take(tick, self._carried, len(self._carried))
        self._take(tick, self._queue, TICK_EVENTS, BULK_EVENTS)
        if self._paced:
            alone = not (tick.events or self._under_way)
            self._take(tick, self._paced, BULK_EVENTS if alone else PACED_EVENTS)
        return tick

    def _take(self, tick: _Tick, queue: deque[Pending | Unread], most: int, whole: int = 0) -> None:
        """Takes `most` events out of a queue, and up to `whole` to have all of the last one's request."""
        other = self._under_way[0] if self._under_way else None
        reply, taken, until = None, 0, time.monotonic() + READ_SECONDS
        while queue and (taken < most or (taken < whole and queue[0].reply is reply)):
            pending = queue.popleft()
            if not isinstance(pending, Pending):
                read = self._read(pending)
                if time.monotonic() > until:
                    most = whole = 0
                if read is None:
                    continue
                pending = read
            reply = pending.reply
            concerns = self._concerned(pending)
            if other is not None and not other.concerns.isdisjoint(concerns):
                other.concerns.update(concerns)
                other.held.append(pending)
            else:
                tick.concerns.update(concerns)
                tick.events.append(pending)
                taken += 1

    def _read(self, unread: Unread) -> Pending | None:
        pending = None
        try:
            pending = unread.read()
        except Exception:  # what one request does must not end the lane
            log.exception("request_failed")
        if pending is None:
            self._waiting -= 1
        return pending

    def _concerned(self, pending: Pending) -> set[object]:
        """What an event names, the profiles that this belongs to as far as is known, and its request,
        whose events keep their order."""
        keys = pending.lookups
        concerned: set[object] = {*keys, *map(self._pipeline.owner, keys)}
        concerned.discard(None)
        if pending.ordered:
            concerned.add(pending.reply)
        return concerned

    def _name_again(self) -> None:
        """After a reload: what waits was named by identities as they were declared before it."""
        before, self._namespaces = self._namespaces, self._pipeline.namespaces
        if before != self._namespaces:
            held = [pending for tick in self._under_way for pending in tick.held]
            for pending in (*held, *self._carried, *self._queue, *self._paced):
                if isinstance(pending, Pending) and pending.keys[0][0] != PROFILE_NAMESPACE:
                    pending.name(identity.keys_of(pending.event, self._namespaces) or pending.keys)

    def _wake(self) -> None:
        if self._idle:
            self._idle.pop().set_result(None)

    async def _woken(self) -> None:
        woken = asyncio.get_running_loop().create_future()
        self._idle.append(woken)
        try:
            await woken
        finally:
            if woken in self._idle:
                self._idle.remove(woken)
