"""Tells receivers what happens to people: at least once, and of each person in order.

Everybody has a line of their own: its breaker, what is on its way, and a loop that claims what is due. A
claim leases whole queues, one for each profile of whom there is something to tell; the messages of one go
out one after the other, those of several at once. One that is not taken holds back only what comes after
it in its own queue.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

import msgspec
import structlog

from engine.adapters.postgres.changes import Changes, Queue, Settled, Waiting
from engine.adapters.postgres.faults import StoreError
from engine.app import sharing_metrics as metrics
from engine.app.breaker import Breaker, Pass
from engine.domain.offers.delivery import Delivered, Failed, Retry, Stop, Verdict, backoff, unreachable
from engine.domain.sharing.changes import PROFILE_CHANGED
from engine.domain.sharing.receivers import Letter

log = structlog.get_logger()


class Recipient(Protocol):
    """A receiver's adapter."""

    async def tell(self, letter: Letter, jitter: float) -> Verdict:
        """Sends one message; `jitter` is in [0, 1)."""

    async def aclose(self) -> None:
        """Ends its connections."""


Refusals = Callable[[str, Sequence[str]], Awaitable[Mapping[str, str | None]]]
"""Why a receiver, by name, must not be told of each of some profiles; None where it may. One that is
missing from the answer is not told."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How much at once, and how long. A message that is not taken for `give_up` is dead."""

    in_flight: int = 50
    messages: int = 20
    claim_every_seconds: float = 1.0
    count_every_seconds: float = 15.0
    lease_seconds: float = 30.0
    lease_margin_seconds: float = 12.0
    permitted_seconds: float = 1.0
    deadline_seconds: float = 9.0
    faults_to_open: int = 10
    open_seconds: float = 10.0
    database_pause_seconds: float = 0.5
    give_up: timedelta = timedelta(days=1)


class _Line:
    """One receiver, and what is on its way to it."""

    def __init__(self, name: str, recipient: Recipient, pace: Pace) -> None:
        self.name = name
        self.recipient = recipient
        self.breaker = Breaker(pace.faults_to_open, pace.open_seconds)
        self.tasks: set[asyncio.Task[None]] = set()
        self.settled: deque[Settled] = deque()
        self.wake = asyncio.Event()
        self.to_settle = asyncio.Event()
        self.loops: list[asyncio.Task[None]] = []
        self.closing = False


class Sharing:
    """Opens a line for each receiver that is told of people. `wake` it after a commit that left something
    for one; `stop` it."""

    def __init__(
        self,
        changes: Changes,
        refusals: Refusals,
        *,
        pace: Pace | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._changes = changes
        self._refusals = refusals
        self._pace = pace or Pace()
        self._jitter = jitter
        self._lines: dict[str, _Line] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._counted_at = 0.0

    async def count(self) -> None:
        """Shows now and then how much waits."""
        now = time.monotonic()
        if not self._lines or now - self._counted_at < self._pace.count_every_seconds:
            return
        self._counted_at = now
        counts = await self._changes.counts()
        for name in self._lines:
            metrics.WAITING.labels(name).set(counts.get((name, "waiting"), 0))
            metrics.DEAD.labels(name).set(counts.get((name, "dead"), 0))

    def open(self, name: str, recipient: Recipient) -> None:
        """Tells one more receiver from now on."""
        line = self._lines[name] = _Line(name, recipient, self._pace)
        line.loops = [
            asyncio.create_task(self._claim_loop(line)),
            asyncio.create_task(self._settle_loop(line)),
        ]

    def close(self, name: str) -> None:
        """Tells a receiver nothing more. What is on its way comes to its end."""
        task = asyncio.create_task(self._end(self._lines.pop(name), self._pace.deadline_seconds))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def wake(self, names: Iterable[str]) -> None:
        """There is something for these receivers."""
        for name in names:
            if (line := self._lines.get(name)) is not None:
                line.wake.set()

    async def stop(self, seconds: float = 10.0) -> None:
        """Starts nothing more, and waits for what is on its way. What is not over by then is left to its
        lease."""
        lines, self._lines = list(self._lines.values()), {}
        await asyncio.gather(*(self._end(line, seconds) for line in lines), *self._ending)

    async def _end(self, line: _Line, seconds: float) -> None:
        line.closing = True
        claims, settles = line.loops
        claims.cancel()
        await asyncio.gather(claims, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*line.tasks, return_exceptions=True)
                while line.settled:
                    await asyncio.sleep(0.01)
        for task in (settles, *line.tasks):
            task.cancel()
        await asyncio.gather(settles, *line.tasks, return_exceptions=True)
        await line.recipient.aclose()
        metrics.IN_FLIGHT.labels(line.name).set(0)

    # in

    async def _claim_loop(self, line: _Line) -> None:
        while True:
            line.wake.clear()
            claimed = asked = 0
            try:
                asked = self._room(line)
                claimed = await self._claim(line, asked) if asked else 0
            except Exception as fault:
                # Whatever it is, the next look may find it gone; the text may quote a row.
                log.warning("changes_unavailable", receiver=line.name, fault=type(fault).__name__)
            if asked and claimed == asked:
                continue  # there may be more
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.claim_every_seconds):
                    await line.wake.wait()

    def _room(self, line: _Line) -> int:
        """How many queues may be claimed now; one that is to find out whether a receiver is well again
        goes alone."""
        if line.breaker.wait_seconds(time.monotonic()) > 0 or len(line.settled) > self._pace.in_flight:
            return 0
        room = self._pace.in_flight - len(line.tasks)
        return min(room, 1) if line.breaker.is_open else room

    async def _claim(self, line: _Line, room: int) -> int:
        pace, began = self._pace, time.monotonic()
        queues = await self._changes.claim(
            line.name, room, pace.messages, timedelta(seconds=pace.lease_seconds)
        )
        if not queues:
            return 0
        try:
            refusals = await self._refusals(line.name, [queue.profile_id for queue in queues])
        except Exception:
            pause = timedelta(seconds=pace.database_pause_seconds)
            line.settled += [Settled(queue=q, told=(), delay=pause, attempts=q.attempts) for q in queues]
            line.to_settle.set()
            raise
        until = began + pace.lease_seconds - pace.lease_margin_seconds
        for queue in queues:
            reason = refusals.get(queue.profile_id, "no_consent")
            line.tasks.add(asyncio.create_task(self._tell_of(line, queue, reason, began, until)))
        metrics.IN_FLIGHT.labels(line.name).set(len(line.tasks))
        return len(queues)

    # out: one person's messages, one after the other

    async def _tell_of(
        self, line: _Line, queue: Queue, reason: str | None, asked_at: float, until: float
    ) -> None:
        try:
            settled = await self._told(line, queue, reason, asked_at, until)
        except Exception as fault:
            log.error("sharing_failed", receiver=line.name, fault=type(fault).__name__)
            delay = backoff(queue.attempts, self._jitter())
            settled = Settled(queue=queue, told=(), delay=delay, attempts=queue.attempts + 1, code="failed")
        finally:
            if (task := asyncio.current_task()) is not None:
                line.tasks.discard(task)
        line.settled.append(settled)
        line.to_settle.set()
        metrics.IN_FLIGHT.labels(line.name).set(len(line.tasks))

    async def _told(
        self, line: _Line, queue: Queue, reason: str | None, asked_at: float, until: float
    ) -> Settled:
        told: list[int] = []
        for number, message in enumerate(queue.messages):
            now = time.monotonic()
            attempts = 0 if told else queue.attempts
            if now > until or line.closing:
                return Settled(queue=queue, told=tuple(told), attempts=attempts)
            if now - asked_at > self._pace.permitted_seconds:
                found = await self._refusals(line.name, [queue.profile_id])
                reason, asked_at = found.get(queue.profile_id, "no_consent"), now
            if reason is not None:
                metrics.TOLD.labels(line.name, message.topic, reason).inc()
                told.append(message.position)
                continue
            if _is_superseded(message, queue.messages[number + 1 : number + 2]):
                metrics.TOLD.labels(line.name, message.topic, "superseded").inc()
                told.append(message.position)
                continue
            by = line.breaker.admit(now)
            if by is None:
                delay = timedelta(seconds=line.breaker.wait_seconds(now))
                return Settled(queue=queue, told=tuple(told), delay=delay, attempts=attempts)
            verdict = await self._tell(line, queue, message, attempts, by)
            if isinstance(verdict, Delivered):
                told.append(message.position)
                continue
            return self._refused(queue, message, verdict, tuple(told), attempts)
        return Settled(queue=queue, told=tuple(told))

    async def _tell(self, line: _Line, queue: Queue, message: Waiting, attempts: int, by: Pass) -> Verdict:
        started, jitter = time.monotonic(), self._jitter()
        letter = Letter(
            id=message.id,
            topic=message.topic,
            key=f"{queue.bucket:03}",
            body=message.body,
            attempts=attempts,
        )
        verdict: Verdict
        try:
            async with asyncio.timeout(self._pace.deadline_seconds):
                verdict = await line.recipient.tell(letter, jitter)
        except TimeoutError:
            verdict = unreachable("timeout", attempts, jitter, ambiguous=True)
        except BaseException:
            line.breaker.failed(by, time.monotonic())
            raise
        metrics.SECONDS.labels(line.name).observe(time.monotonic() - started)
        code = "" if isinstance(verdict, Delivered) else verdict.code
        metrics.TOLD.labels(line.name, message.topic, code or "told").inc()
        self._learn(line, verdict, by)
        return verdict

    def _learn(self, line: _Line, verdict: Verdict, by: Pass) -> None:
        """What the verdict says of the receiver as a whole."""
        now = time.monotonic()
        match verdict:
            case Stop(code=code, pause=pause):
                if line.breaker.stop(by, now, pause.total_seconds()):
                    log.error("receiver_stopped", receiver=line.name, code=code)
            case Retry(unwell=True, code=code):
                if line.breaker.failed(by, now):
                    log.warning("receiver_unwell", receiver=line.name, code=code)
            case _:
                line.breaker.answered(by)
        metrics.STOPPED.labels(line.name).set(line.breaker.is_open)

    def _refused(
        self,
        queue: Queue,
        message: Waiting,
        verdict: Retry | Stop | Failed,
        told: tuple[int, ...],
        attempts: int,
    ) -> Settled:
        """Later again, or never more where it has been tried for long."""
        code = verdict.code
        if message.age_seconds >= self._pace.give_up.total_seconds():
            return Settled(queue=queue, told=told, died=(message.position, code), code=code)
        match verdict:
            case Retry(after=after):
                delay = after
            case Stop(pause=pause):
                delay = pause
            case _:
                delay = backoff(attempts, self._jitter())
        return Settled(queue=queue, told=told, delay=delay, attempts=attempts + 1, code=code)

    # settle

    async def _settle_loop(self, line: _Line) -> None:
        while True:
            if not line.settled:
                line.to_settle.clear()
                await line.to_settle.wait()
                continue
            batch = list(line.settled)
            try:
                await self._changes.settle(line.name, batch)
            except StoreError as fault:
                log.warning("changes_unsettled", receiver=line.name, fault=type(fault).__name__)
                await asyncio.sleep(self._pace.database_pause_seconds)
                continue
            except Exception as fault:
                # Their leases run out, and they are told again.
                log.error("changes_lost_count", receiver=line.name, fault=type(fault).__name__)
            for one in batch:
                line.settled.popleft()
                if one.died is not None:
                    metrics.DIED.labels(line.name).inc()
                    log.error("change_dead", receiver=line.name, code=one.died[1])
            line.wake.set()


def _is_superseded(message: Waiting, following: Sequence[Waiting]) -> bool:
    """Whether the next message says all that this one does: of a person's states only the last of several
    in a row is told."""
    return message.topic == "profiles" and any(
        later.topic == "profiles" and _says_state(message) and _says_state(later) for later in following
    )


class _Type(msgspec.Struct):
    type: str


_type = msgspec.json.Decoder(_Type).decode


def _says_state(message: Waiting) -> bool:
    return _type(message.body).type == PROFILE_CHANGED
