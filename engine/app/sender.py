"""Everything behind the commit that sends: the outbox's rows out to their providers.

A tick hands its rows over in memory, already leased; a loop claims what others left behind and
what is due again. Right before a push goes out its expiry, its lease and what the person allows
are looked at once more. Outcomes are settled together: whatever ended while the last settlement
was being written goes with the next.

Each provider has its own line (queue, breaker, pushes in flight), so that one that hangs holds
up nobody else. Leases and pauses go by the machine's monotonic clock, expiry by the pipeline's.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.outbox import Outbox
from engine.app import sender_metrics as metrics
from engine.app.breaker import Pass
from engine.app.sender_line import Held, Line, Pace, Provider
from engine.domain.offers import delivery
from engine.domain.offers.delivery import Outcome, Retry, Send, Settlement, Stop, Verdict
from engine.domain.offers.pauses import NOTHING_PAUSED, Paused

log = structlog.get_logger()


Permits = Callable[[Sequence[Send]], Awaitable[Mapping[str, str | None]]]
"""Why each send (by id) must not go out any more, or None where it may. One that is missing from
the answer does not go out."""


class Sender:
    """Sends what is in the outbox. `start` it, give it what was committed with `take`, `stop` it.

    `on_settled` is called when profiles have an outcome to learn, as due timers. What is `paused` is
    given back untried, and waits in the outbox.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        providers: Mapping[str, Provider],
        permits: Permits,
        now: Callable[[], datetime],
        on_settled: Callable[[], None] = lambda: None,
        paused: Callable[[], Paused] = lambda: NOTHING_PAUSED,
        pace: Pace | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._pace = pace or Pace()
        self._outbox = outbox
        self._permits = permits
        self._now = now
        self._on_settled = on_settled
        self._paused = paused
        self._jitter = jitter
        self._lines = {name: Line(name, adapter, self._pace) for name, adapter in providers.items()}
        self._unsettled: deque[Settlement] = deque()
        self._to_settle = asyncio.Event()
        self._turned = asyncio.Event()
        self._claim_now = asyncio.Event()
        self._database_is_well = True
        self._stopping = False
        self._loops: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._settler: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts to send what is taken, and what is found in the outbox."""
        self._settler = asyncio.create_task(self._settle_loop())
        self._loops = [asyncio.create_task(self._claim_loop())]
        for line in self._lines.values():
            line.loop = asyncio.create_task(self._start_loop(line))

    def open(self, provider: str, adapter: Provider) -> None:
        """Sends to one more provider from now on."""
        line = self._lines[provider] = Line(provider, adapter, self._pace)
        line.loop = asyncio.create_task(self._start_loop(line))
        self.wake()

    def close(self, provider: str) -> None:
        """Sends nothing more to a provider from now on: what waits is given back, what is on its way
        comes to its end, and its adapter is closed."""
        line = self._lines.pop(provider)
        task = asyncio.create_task(self._end(line))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, line: Line) -> None:
        await _cancel([line.loop] if line.loop is not None else [])
        self._settle(*(delivery.released(held.send) for held in line.queue))
        line.queue.clear()
        await asyncio.gather(*line.tasks, return_exceptions=True)
        await line.adapter.aclose()
        if line.provider not in self._lines:
            metrics.forget(line.provider)

    def take(self, sends: Sequence[Send], leased_at: float | None = None) -> None:
        """Takes over sends committed under our lease, which began no earlier than `leased_at`
        (monotonic; now, where not given). Never blocks: what finds no room is left to the end of its
        lease."""
        if self._stopping:
            return
        self._accept(sends, time.monotonic() if leased_at is None else leased_at)

    def wake(self) -> None:
        """Looks at the outbox now instead of within a second."""
        self._claim_now.set()

    @property
    def is_busy(self) -> bool:
        """Whether anything taken is not settled yet."""
        return bool(self._unsettled) or any(line.is_busy for line in self._lines.values())

    async def drain(self, seconds: float) -> bool:
        """Waits until everything taken is settled, also as to be retried later. False where that
        took longer. Goes on taking and claiming."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.is_busy:
                    self._turned.clear()
                    await self._turned.wait()
        return not self.is_busy

    async def stop(self, seconds: float = 10.0) -> None:
        """Starts no more sends, gives the waiting ones back for other engines, waits for those in
        flight and for what is to be settled. What is not over by then is left to its lease. Closes
        the providers."""
        self._stopping = True
        await _cancel([*self._loops, *(line.loop for line in self._lines.values() if line.loop is not None)])
        for line in self._lines.values():
            self._settle(*(delivery.released(held.send) for held in line.queue))
            line.queue.clear()
        await self.drain(seconds)
        await _cancel([*self._ending])
        in_flight = [task for line in self._lines.values() for task in line.tasks]
        await _cancel([*in_flight, *([self._settler] if self._settler else [])])
        for line in self._lines.values():
            await line.adapter.aclose()

    # in: what was committed, what others left behind

    def _accept(self, sends: Sequence[Send], leased_at: float) -> None:
        until = leased_at + self._pace.lease_seconds
        for send in sends:
            line = self._lines.get(send.provider)
            if line is None and send.expires_at > self._now():
                self._settle(delivery.released(send))  # its line was closed a moment ago
            elif line is None:
                self._settle(delivery.dropped(send, "no_provider", self._now()))
            elif len(line.queue) >= self._pace.queued:
                metrics.OVERFLOWED.labels(send.provider).inc()
            else:
                line.queue.append(Held(send, until))
                line.changed.set()
        self._show()

    async def _claim_loop(self) -> None:
        while True:
            asked = 0
            try:
                asked = await self._claim()
            except Exception as fault:
                # Whatever it is, the next look may find it gone; the text may quote a row.
                log.warning("outbox_unavailable", fault=type(fault).__name__)
            if asked == self._pace.claimed:
                continue  # there may be more
            self._claim_now.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.claim_every_seconds):
                    await self._claim_now.wait()

    async def _claim(self) -> int:
        if not self._database_is_well or len(self._unsettled) > 2 * self._pace.settled:
            return 0
        now = time.monotonic()
        open_lines, room = [], self._pace.claimed
        for line in self._lines.values():
            free = self._pace.queued - len(line.queue)
            # Never more than can start well before the lease ends.
            if line.breaker.wait_seconds(now) <= 0 and len(line.queue) < self._pace.claimed and free > 0:
                open_lines.append(line.provider)
                room = min(room, free)
        # Other engines may have the providers that this one lacks.
        sends = await self._outbox.claim(room, open_lines, self._now(), self._paused())
        self._accept(sends, now)
        return len(sends)

    # out: one line's sends, each looked at once more

    async def _start_loop(self, line: Line) -> None:
        while True:
            room = self._pace.in_flight - len(line.tasks)
            if not line.queue or room <= 0 or not self._database_is_well:
                line.changed.clear()
                await line.changed.wait()
                continue
            batch = [line.queue.popleft() for _ in range(min(room, len(line.queue)))]
            line.starting = len(batch)
            try:
                await self._start(line, batch)
            finally:
                line.starting = 0
                self._show()

    async def _start(self, line: Line, batch: Sequence[Held]) -> None:
        """Sends what may still go out. Nothing awaits after the last look at it."""
        waiting = [held for held in batch if self._is_worth_asking(line, held)]
        if not waiting:
            return
        try:
            async with asyncio.timeout(self._pace.permits_seconds):
                refusals = await self._permits([held.send for held in waiting])
        except asyncio.CancelledError:
            self._settle(*(delivery.released(held.send) for held in waiting))
            raise
        except Exception as fault:
            log.warning("permits_unknown", fault=type(fault).__name__, sends=len(waiting))
            pause = timedelta(seconds=self._pace.database_pause_seconds)
            self._settle(*(delivery.released(held.send, pause) for held in waiting))
            return
        for held in waiting:
            reason = refusals.get(held.send.id, "no_consent")
            if reason is not None:
                self._settle(delivery.dropped(held.send, reason, self._now()))
            elif self._is_worth_asking(line, held):
                by = line.breaker.admit(time.monotonic())
                assert by is not None
                task = asyncio.create_task(self._deliver(line, held.send, by))
                line.tasks.add(task)

    def _is_worth_asking(self, line: Line, held: Held) -> bool:
        """Whether the send may start as far as time goes; it is settled otherwise."""
        clock, send = time.monotonic(), held.send
        if send.expires_at <= self._now():
            self._settle(delivery.dropped(send, "expired", self._now()))
        elif held.until - clock < self._pace.lease_margin_seconds or self._is_paused(send):
            self._settle(delivery.released(send))
        elif (wait := line.breaker.wait_seconds(clock)) > 0:
            self._settle(delivery.released(send, timedelta(seconds=wait)))
        else:
            return True
        return False

    def _is_paused(self, send: Send) -> bool:
        paused = self._paused()
        return bool(paused) and paused.stop(*send.made_by) is not None

    async def _deliver(self, line: Line, send: Send, by: Pass) -> None:
        started, jitter = time.monotonic(), self._jitter()
        if send.possible_duplicate:
            metrics.POSSIBLE_DUPLICATES.labels(line.provider).inc()
        try:
            async with asyncio.timeout(self._pace.deadline_seconds):
                verdict = await line.adapter.deliver(send, send.expires_at - self._now(), jitter)
        except TimeoutError:
            verdict = delivery.unreachable("timeout", send.attempts, jitter, ambiguous=True)
        except Exception as fault:
            # One send that an adapter cannot take must not stop the line. The fault's text may
            # quote the message, its type cannot.
            log.error("adapter_failed", provider=line.provider, send=send.id, fault=type(fault).__name__)
            after = delivery.backoff(send.attempts, jitter)
            verdict = Retry(code="adapter_failed", after=after, ambiguous=True)
        finally:
            if (task := asyncio.current_task()) is not None:
                line.tasks.discard(task)
            line.changed.set()
        metrics.SEND_SECONDS.labels(line.provider).observe(time.monotonic() - started)
        self._learn(line, verdict, by)
        self._settle(delivery.settlement(send, verdict, self._now()))

    def _learn(self, line: Line, verdict: Verdict, by: Pass) -> None:
        """What the verdict says of the provider itself."""
        now = time.monotonic()
        match verdict:
            case Stop(code=code, pause=pause):
                metrics.ALARMS.labels(line.provider, code).inc()
                if line.breaker.stop(by, now, pause.total_seconds()):
                    log.error("provider_stopped", provider=line.provider, code=code)
            case Retry(unwell=True, code=code):
                if line.breaker.failed(by, now):
                    log.warning("provider_unwell", provider=line.provider, code=code)
            case _:
                line.breaker.answered(by)
        metrics.STOPPED.labels(line.provider).set(line.breaker.is_open)

    # settle

    def _settle(self, *settlements: Settlement) -> None:
        self._unsettled.extend(settlements)
        if settlements:
            self._to_settle.set()

    async def _settle_loop(self) -> None:
        while True:
            if not self._unsettled:
                self._to_settle.clear()
                await self._to_settle.wait()
                continue
            batch = [self._unsettled[i] for i in range(min(len(self._unsettled), self._pace.settled))]
            try:
                await self._write(batch)
            except StoreError as fault:
                # Nothing new starts meanwhile: its outcome could not be kept.
                self._note_database(is_well=False)
                log.warning("settlement_unavailable", fault=type(fault).__name__, waiting=len(batch))
                await asyncio.sleep(self._pace.database_pause_seconds)
                continue
            except Exception as fault:
                with suppress(StoreError):
                    await self._write_one_by_one(batch, fault)
                    fault = None
                if fault is not None:
                    await asyncio.sleep(self._pace.database_pause_seconds)
                    continue
            self._note_database(is_well=True)
            for _ in batch:
                self._unsettled.popleft()
            self._turned.set()
            self._show()

    async def _write(self, batch: Sequence[Settlement]) -> None:
        refused = await self._outbox.settle(batch, self._now())
        for settlement in batch:
            provider = settlement.send.provider
            if settlement in refused:
                metrics.REFUSED.labels(provider).inc()
                log.warning("settlement_refused", provider=provider, send=settlement.send.id)
                continue
            metrics.TURNS.labels(provider, settlement.outcome.value, settlement.code or "").inc()
            if settlement.outcome is Outcome.DEAD:
                log.error("send_dead", provider=provider, send=settlement.send.id, code=settlement.code)
        if any(s.event is not None and s not in refused for s in batch):
            self._on_settled()

    async def _write_one_by_one(self, batch: Sequence[Settlement], fault: Exception) -> None:
        """One settlement that the database does not take must not hold up the others."""
        if len(batch) == 1:
            log.error("settlement_lost", send=batch[0].send.id, fault=type(fault).__name__)
            return
        for settlement in batch:
            try:
                await self._write([settlement])
            except StoreError:
                raise  # all of them again: what is written already is refused then
            except Exception as single:
                log.error("settlement_lost", send=settlement.send.id, fault=type(single).__name__)

    def _note_database(self, *, is_well: bool) -> None:
        if is_well != self._database_is_well:
            self._database_is_well = is_well
            for line in self._lines.values():
                line.changed.set()

    def _show(self) -> None:
        for line in self._lines.values():
            metrics.QUEUED.labels(line.provider).set(len(line.queue))
            metrics.IN_FLIGHT.labels(line.provider).set(len(line.tasks))


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
