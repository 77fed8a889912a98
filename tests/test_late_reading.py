"""Requests that wait as the bytes that they came as, until a tick has room for them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import ClassVar

import msgspec
import pytest

from engine.app.ingest import HELD_BYTES, Ingest
from engine.app.keys import Keys
from engine.app.lane import QUEUE_EVENTS, READ_SECONDS, TICK_EVENTS, TICKS_AT_ONCE
from engine.app.replies import Overloaded, Pending, Reply
from engine.app.responses import Response
from engine.app.ruling import Ruling
from tests import lanes
from tests.lanes import NOW, event, fetch

HEADERS = {b"authorization": b"Bearer app"}


def ingest_of(engine: lanes.Engine, most_held_bytes: int = HELD_BYTES) -> Ingest:
    return Ingest(
        lane=engine.lane,
        ruling=lambda: Ruling(engine.rules, {}),
        clock=lambda: engine.now,
        keys=Keys(frozenset({"app"}), frozenset()),
        store=engine.store,
        most_held_bytes=most_held_bytes,
    )


def opened(message: str) -> dict[str, str]:
    return {"type": "track", "event": "Open", "userId": "ada", "messageId": message}


class Later(msgspec.Struct, eq=False):
    reply: ClassVar[None] = None
    what: Callable[[], Pending | None]

    def read(self) -> Pending | None:
        return self.what()


def nothing() -> None:
    """What holds no event."""


class Answers:
    """Collects what requests are answered with."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self._more = asyncio.Event()

    def __call__(self, response: Response) -> None:
        self.responses.append(response)
        self._more.set()

    async def are(self, count: int) -> list[int]:
        """The statuses, once there are so many."""
        async with asyncio.timeout(30):
            while len(self.responses) < count:
                self._more.clear()
                await self._more.wait()
        return [response.status for response in self.responses]


async def test_what_waits_is_read_when_a_tick_has_room_for_it(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        replies: list[Reply] = []

        def read(number: int) -> Pending:
            replies.append(Reply(1))
            opening = event(name=f"{number:03}", user=f"p{number}")
            return Pending(event=opening, reply=replies[-1], keys=(("user_id", f"p{number}"),))

        for number in range(3 * TICK_EVENTS):
            engine.lane.read_later(Later(partial(read, number)))
        first = engine.lane._next()  # before the lane's own tasks had a turn
        assert [pending.event.name for pending in first.events] == [f"{n:03}" for n in range(TICK_EVENTS)]
        assert len(replies) == TICK_EVENTS
        assert len(engine.lane) == 3 * TICK_EVENTS
        engine.lane._carried.extend(first.events)
        async with asyncio.timeout(30):
            while len(replies) < 3 * TICK_EVENTS:
                await replies[-1].done
                await asyncio.sleep(0)
            await asyncio.gather(*(reply.done for reply in replies))
        assert len(engine.lane) == 0


async def test_a_full_lane_refuses_what_would_have_to_wait(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        answers, app = Answers(), ingest_of(engine)
        for _ in range(QUEUE_EVENTS):
            engine.lane.read_later(Later(nothing))
        with pytest.raises(Overloaded):
            engine.lane.read_later(Later(nothing))
        with pytest.raises(Overloaded):
            engine.submit(event(name="Open", user="bob"))
        app.begin("track", HEADERS, json.dumps(opened("1")).encode(), answers)
        assert [(r.status, r.extra) for r in answers.responses] == [(503, ((b"retry-after", b"1"),))]
        while len(engine.lane):
            await asyncio.sleep(0)
        app.begin("track", HEADERS, json.dumps(opened("1")).encode(), answers)
        assert await answers.are(2) == [503, 200]


async def test_bytes_that_wait_are_counted(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        answers, app = Answers(), ingest_of(engine, 2 * len(json.dumps(opened("1"))))
        for number in "123":
            app.begin("track", HEADERS, json.dumps(opened(number)).encode(), answers)
        assert [response.status for response in answers.responses] == [503]
        assert await answers.are(3) == [503, 200, 200]
        app.begin("track", HEADERS, json.dumps(opened("3")).encode(), answers)
        assert await answers.are(4) == [503, 200, 200, 200]


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("track", {**opened("1"), "sentAt": NOW.isoformat()}),
        ("batch", {"batch": [opened("1"), {"type": "track", "userId": "ada"}], "sentAt": NOW.isoformat()}),
    ],
)
async def test_an_event_was_received_when_it_came_not_when_it_is_read(
    postgres_dsn: str, call: str, body: dict[str, object]
) -> None:
    """Else the time that it waited would be taken for an error of the phone's clock."""
    async with lanes.engine(postgres_dsn) as engine:
        answers = Answers()
        ingest_of(engine).begin(call, HEADERS, json.dumps(body).encode(), answers)
        engine.now = NOW + timedelta(minutes=5)
        assert await answers.are(1) == [200]
    (row,) = await fetch(postgres_dsn, "SELECT received_at FROM events")
    assert row["received_at"] == NOW


async def test_what_waits_when_the_lane_closes_is_answered(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        answers = Answers()
        ingest_of(engine).begin("track", HEADERS, json.dumps(opened("1")).encode(), answers)
        engine.lane.close()
        ingest_of(engine).begin("track", HEADERS, json.dumps(opened("2")).encode(), answers)
        assert await answers.are(2) == [503, 200]
    assert [row["message_id"] for row in await fetch(postgres_dsn, "SELECT message_id FROM events")] == ["1"]


async def test_events_keep_their_order_whichever_way_they_come(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        answers, app = Answers(), ingest_of(engine)
        app.begin("track", HEADERS, json.dumps(opened("1")).encode(), answers)
        app.begin("batch", HEADERS, json.dumps({"batch": [opened("2"), opened("3")]}).encode(), answers)
        reply = engine.submit(event(name="Open", user="ada", message="4"))
        app.begin("track", HEADERS, json.dumps(opened("5")).encode(), answers)
        assert await answers.are(3) == [200, 200, 200]
        await reply.done
    stored = await fetch(postgres_dsn, "SELECT message_id FROM events ORDER BY seq")
    assert [row["message_id"] for row in stored] == ["1", "2", "3", "4", "5"]


async def test_a_request_that_cannot_be_read_does_not_hold_up_others(postgres_dsn: str) -> None:
    def fails() -> Pending | None:
        raise RuntimeError("a defect")

    async with lanes.engine(postgres_dsn) as engine:
        engine.lane.read_later(Later(fails))
        await engine.send(event(name="Open", user="ada"))
        assert len(engine.lane) == 0


async def test_nobody_waits_for_a_flood_of_requests_that_hold_nothing(postgres_dsn: str) -> None:
    """Other connections have their turn in between, also while no tick comes of it."""
    turns = 0

    def slow() -> None:
        until = time.monotonic() + READ_SECONDS
        while time.monotonic() <= until:
            pass
        seen.append(turns)

    async with lanes.engine(postgres_dsn) as engine:
        seen: list[int] = []
        for _ in range(5):
            engine.lane.read_later(Later(slow))
        while len(engine.lane):
            turns += 1
            await asyncio.sleep(0)
        assert max(seen.count(turn) for turn in seen) <= TICKS_AT_ONCE
