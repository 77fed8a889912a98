"""Files into the lane: rows become events like any other, and what is durable is written down.

Chunks go in while earlier ones commit. A row counts as done when all before it are durable, so that an
import that was killed goes on there; what was durable beyond is recognised by its message id.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import asyncpg
import msgspec

from engine.adapters.postgres import imports
from engine.adapters.postgres.imports import Progress
from engine.app.lane import Lane
from engine.app.rejected_rows import Rejected
from engine.app.replies import Overloaded, Pending, Reply
from engine.domain.offers.rules import Workspace
from engine.domain.people import identity
from engine.domain.people.events import Event
from engine.formats.import_rows import Row
from engine.formats.segment_verdicts import Refusal

CHUNK_ROWS = 512
CHUNKS_UNDER_WAY = 6
SAVED_EVERY_SECONDS = 2.0
FULL_SECONDS = 0.05
_NO_IDENTITY = Refusal("missing_identity", "none of the row's ids is of a namespace of this workspace")


class _Chunk(msgspec.Struct):
    """Rows under way, up to number `last`."""

    last: int
    rejected: int
    reply: Reply | None


class Import:
    """One file on its way. `watch` is told after each chunk, `reject` of each row that is not taken;
    `flush` is called before it is written down how far it has come."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        lane: Lane,
        workspace: Workspace,
        identifier: str,
        *,
        reject: Callable[[Rejected], object],
        flush: Callable[[], object] = lambda: None,
        watch: Callable[[Progress], object] = lambda progress: None,
        paced: bool = False,
    ) -> None:
        self._pool = pool
        self._lane = lane
        self._namespaces = workspace.namespaces
        self._identifier = identifier
        self._reject = reject
        self._flush = flush
        self._watch = watch
        self._paced = paced

    async def run(
        self, rows: Iterable[Row], event_of: Callable[[Row], Event | Refusal], progress: Progress
    ) -> Progress:
        """Brings the rows in, from where `progress` says. What is durable is then in `progress`."""
        left = islice(rows, progress.rows, None)
        under_way: deque[_Chunk] = deque()
        saved = time.monotonic()
        while chunk := list(islice(left, CHUNK_ROWS)):
            under_way.append(await self._submit(chunk, event_of))
            while len(under_way) >= CHUNKS_UNDER_WAY:
                await self._settle(under_way.popleft(), progress)
            if time.monotonic() - saved > SAVED_EVERY_SECONDS:
                self._flush()
                await imports.advance(self._pool, self._identifier, progress)
                saved = time.monotonic()
        while under_way:
            await self._settle(under_way.popleft(), progress)
        self._flush()
        await imports.advance(self._pool, self._identifier, progress, finished=True)
        return progress

    async def _submit(self, chunk: Sequence[Row], event_of: Callable[[Row], Event | Refusal]) -> _Chunk:
        taken: list[tuple[Event, Any]] = []
        rejected = 0
        for row in chunk:
            event = event_of(row)
            if not isinstance(event, Refusal):
                keys = identity.keys_of(event, self._namespaces)
                if keys:
                    taken.append((event, keys))
                    continue
                event = _NO_IDENTITY
            rejected += 1
            self._reject(Rejected(row.number, event.code, event.message, row.raw))
        return _Chunk(chunk[-1].number, rejected, await self._queue(taken) if taken else None)

    async def _queue(self, events: Sequence[tuple[Event, Any]]) -> Reply:
        reply = Reply(len(events))
        pending = [
            Pending(event=event, reply=reply, keys=keys, position=position, ordered=False)
            for position, (event, keys) in enumerate(events)
        ]
        while True:
            try:
                self._lane.submit(pending, paced=self._paced)
            except Overloaded:  # those who wait for an answer go first
                await asyncio.sleep(FULL_SECONDS)
            else:
                return reply

    async def _settle(self, chunk: _Chunk, progress: Progress) -> None:
        if chunk.reply is not None:
            await chunk.reply.done
            progress.accepted += chunk.reply.accepted
            progress.duplicates += chunk.reply.duplicates
        progress.rejected += chunk.rejected
        progress.rows = chunk.last
        self._watch(progress)
