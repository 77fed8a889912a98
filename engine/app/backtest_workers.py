"""A backtest on all processor cores: each worker reads and replays the people of a range of buckets.

A worker is forked once the rules are built, so that nothing has to be carried over. First all of them
read who is connected with whom, then each replays its own people; groups that reach over several ranges
go to one of them.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from typing import Any

import asyncpg
import msgspec

from engine.adapters.postgres.history import EVERYBODY, History, Range
from engine.app.backtest import Backtest, Trial
from engine.app.backtest_groups import Mentions, Namespaces, groups
from engine.app.backtest_order import Brought, brought
from engine.app.backtest_tally import Count, total
from engine.app.replay import Recorded, recorded
from engine.domain.people.profiles import bucket_of

FEW_EVENTS = 5_000
"""Not worth a second process."""
MOST_WORKERS = 16
Progress = Callable[[int], None]
"""Hears how many events were read, or replayed."""


class WorkerLost(Exception):
    """A worker ended before it was done."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers know. `most` people at the most, chosen fairly; `namespaces` of all rule sets that
    people are named by; `joins_accounts` where one of them looks at accounts."""

    dsn: str
    trial: Trial
    namespaces: Namespaces
    joins_accounts: bool = False
    most: int | None = None

    def __repr__(self) -> str:
        return f"Work({self.most})"


class Share(msgspec.Struct):
    """One worker's part: the people of some buckets but those who are `elsewhere`, and some groups. Where
    not everybody is chosen, `people` are those who are."""

    groups: list[frozenset[str]] = msgspec.field(default_factory=list)
    elsewhere: set[str] = msgspec.field(default_factory=set)
    people: list[str] | None = None


class Result(msgspec.Struct, frozen=True):
    """What came of it, how many events were read, and how long each of the two passes took."""

    count: Count
    events: int
    connecting_seconds: float
    playing_seconds: float


def workers_for(events: int) -> int:
    """How many processes are worth it."""
    if events < FEW_EVENTS or sys.platform != "linux":  # elsewhere libraries do not survive a fork
        return 1
    return max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0))))


def ranges(workers: int) -> list[Range]:
    """All buckets in equal parts: ids are random, and so are people's numbers of events."""
    first, last = EVERYBODY
    size = last - first + 1
    edges = [first + size * n // workers for n in range(workers + 1)]
    return [(low, high - 1) for low, high in pairwise(edges)]


def run(work: Work, workers: int, progress: Progress) -> Result:
    """The whole backtest.

    Raises:
        WorkerLost: a worker ended before its time.
    """
    if workers == 1:
        return asyncio.run(_alone(work, progress))
    context = multiprocessing.get_context("fork")
    pipes: list[Connection] = []
    processes = []
    try:
        for buckets in ranges(workers):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(work, buckets, there, here), daemon=True)
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        started = time.perf_counter()
        mentions = Mentions()
        merges: dict[str, list[Brought]] = {}
        chosen: list[str] = []
        for found, ended, people in _answers(pipes, progress):
            mentions.add(found)
            for into, those in ended.items():
                merges.setdefault(into, []).extend(those)
            chosen = chosen or people
        for share, pipe in zip(shares(mentions, merges, chosen, work, workers), pipes, strict=True):
            pipe.send((share, merges, mentions.latest))
        connected = time.perf_counter()
        counts = list(_answers(pipes, progress))
        ended_at = time.perf_counter()
        return Result(total(counts), mentions.events, connected - started, ended_at - connected)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def shares(
    mentions: Mentions,
    merges: dict[str, list[Brought]],
    chosen: Sequence[str],
    work: Work,
    workers: int,
) -> list[Share]:
    """Who replays whom. A group goes where its first member is; who is chosen brings their group along."""
    for those in merges.values():
        those.sort(key=lambda one: one.offset)
    parts = [Share() for _ in range(workers)]
    bounds = ranges(workers)
    wanted = set(chosen) if work.most is not None else None
    apart: set[str] = set()
    for group in groups(mentions, merges):
        apart |= group
        if wanted is None or not wanted.isdisjoint(group):
            bucket = bucket_of(min(group))
            place = next(n for n, (low, high) in enumerate(bounds) if low <= bucket <= high)
            parts[place].groups.append(group)
    for part, (low, high) in zip(parts, bounds, strict=True):
        part.elsewhere = {one for one in apart if low <= bucket_of(one) <= high}
        if wanted is not None:
            part.people = sorted(one for one in wanted - apart if low <= bucket_of(one) <= high)
    return parts


def _answers(pipes: Sequence[Connection], progress: Progress) -> list[Any]:
    """One answer of each worker; what they have done meanwhile goes to `progress`."""
    answers: dict[int, Any] = {}
    waiting = {id(pipe): pipe for pipe in pipes}
    while waiting:
        for ready in wait(list(waiting.values())):
            assert isinstance(ready, Connection)
            try:
                what, said = ready.recv()
            except EOFError:
                raise WorkerLost("a worker process ended before it was done") from None
            if what == "done":
                progress(said)
            elif what == "failed":
                raise WorkerLost(said)
            else:
                answers[id(ready)] = said
                del waiting[id(ready)]
    return [answers[id(pipe)] for pipe in pipes]


def _work(work: Work, buckets: Range, pipe: Connection, parents: Connection) -> None:
    """A worker process."""
    parents.close()
    try:
        asyncio.run(_both_passes(work, buckets, pipe))
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    except Exception as fault:
        pipe.send(("failed", f"{type(fault).__name__}: {fault}"))


async def _both_passes(work: Work, buckets: Range, pipe: Connection) -> None:
    def done(events: int) -> None:
        pipe.send(("done", events))

    connection = await asyncpg.connect(work.dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            history = History(connection)
            pipe.send(("answer", await _connect(work, history, buckets, done)))
            share, merges, until = pipe.recv()
            trial = msgspec.structs.replace(work.trial, merges=merges, until=until)
            pipe.send(("answer", await _play(trial, history, buckets, share, done)))
    finally:
        await connection.close()


async def _alone(work: Work, progress: Progress) -> Result:
    connection = await asyncpg.connect(work.dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            history = History(connection)
            started = time.perf_counter()
            mentions, merges, chosen = await _connect(work, history, EVERYBODY, progress)
            (share,) = shares(mentions, merges, chosen, work, 1)
            connected = time.perf_counter()
            trial = msgspec.structs.replace(work.trial, merges=merges, until=mentions.latest)
            count = await _play(trial, history, EVERYBODY, share, progress)
            return Result(count, mentions.events, connected - started, time.perf_counter() - connected)
    finally:
        await connection.close()


async def _connect(
    work: Work, history: History, buckets: Range, done: Progress
) -> tuple[Mentions, dict[str, list[Brought]], list[str]]:
    """The first pass: who is connected with whom, who became one with whom, and who is chosen."""
    mentions = Mentions()
    async for rows in history.mentions(buckets):
        mentions.read(rows, work.namespaces, joins_accounts=work.joins_accounts)
        done(len(rows))
    chosen = await history.people(work.most) if work.most is not None else []
    return mentions, brought(await history.ended(buckets)), chosen


async def _play(trial: Trial, history: History, buckets: Range, share: Share, done: Progress) -> Count:
    """The second pass."""
    backtest = Backtest(trial)
    gc.freeze()
    usual = gc.get_threshold()
    # What a group leaves behind goes by itself; looking for more again and again would take time.
    gc.set_threshold(100_000, 50, 1_000)
    try:
        if share.people is None:
            log, decided = history.log(buckets), history.decided(buckets, trial.since)
        else:
            log = history.log_of(share.people)
            decided = history.decided_of(share.people, trial.since)
        async for rows, documents in _people(log, decided, share.elsewhere):
            backtest.play(rows, documents)
            done(len(rows))
        for group in share.groups:
            members = sorted(group)
            rows = [recorded(*row) async for page in history.log_of(members) for row in page]
            found = history.decided_of(members, trial.since)
            documents = [row[1] async for page in found for row in page]
            backtest.play(rows, documents)
            done(len(rows))
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
    return backtest.count


async def _people(
    log: AsyncIterator[Sequence[tuple[str, int, str, str]]],
    decided: AsyncIterator[Sequence[tuple[str, str]]],
    but: Collection[str],
) -> AsyncIterator[tuple[list[Recorded], list[str]]]:
    """Person by person, what both cursors hold of them."""
    decisions = _each(decided)
    following = await anext(decisions, None)
    whose, rows = "", list[Recorded]()
    async for page in log:
        for profile_id, number, body, facts in page:
            if profile_id != whose:
                if rows:
                    documents, following = await _until(decisions, following, whose)
                    yield rows, documents
                whose, rows = profile_id, []
            if profile_id not in but:
                rows.append(recorded(profile_id, number, body, facts))
    if rows:
        yield rows, (await _until(decisions, following, whose))[0]


async def _until(
    decisions: AsyncIterator[tuple[str, str]], following: tuple[str, str] | None, whose: str
) -> tuple[list[str], tuple[str, str] | None]:
    """Somebody's decisions, and the first one after them. Those of people before are passed over."""
    found: list[str] = []
    while following is not None and following[0] <= whose:
        if following[0] == whose:
            found.append(following[1])
        following = await anext(decisions, None)
    return found, following


async def _each(pages: AsyncIterator[Sequence[tuple[str, str]]]) -> AsyncIterator[tuple[str, str]]:
    async for page in pages:
        for row in page:
            yield row
