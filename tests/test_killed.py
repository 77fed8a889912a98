"""kill -9 under load, of the engine and of its PostgreSQL: what was answered is there, once.

VIEWFINDER_TEST_KILLS says how often the engine is killed, VIEWFINDER_TEST_SEED when and with what
load; a failure prints the seed.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from engine.domain.people.profiles import Profile, decode_profile
from tests import served
from tests.conftest import open_folder
from tests.served import SERVER_KEY, PushService, Served, fetch, until

KILLS = int(os.environ.get("VIEWFINDER_TEST_KILLS", "5"))
SEED = int(os.environ.get("VIEWFINDER_TEST_SEED", random.randrange(2**32)))
CLIENTS = 6
PEOPLE = [f"p{n}" for n in range(5)]
CAP = 3  # of the rule `thanks`


class House:
    """One database, and the engine that serves it at present: it is started anew again and again."""

    def __init__(self, folder: Path, dsn: str | None, push: PushService) -> None:
        self.folder, self.push = folder, push
        self.dsn = dsn or served.embedded_dsn(folder / "data")
        self.engine: Served
        self._given = dsn

    def start(self) -> None:
        engine = served.start(self.folder, self._given, **self.push.settings)
        try:
            engine.wait_until_ready()
        finally:
            self.engine = engine


@contextmanager
def a_house(folder: Path, dsn: str | None) -> Iterator[House]:
    """A ready engine on that database, or on an embedded one; whichever serves in the end is ended."""
    with served.push_service(folder) as push:
        house = House(folder, dsn, push)
        try:
            house.start()
            yield house
        finally:
            served.end(house.engine)


class Crowd:
    """Clients that send as apps do: each request again and again until it is answered, then another.

    `answers` holds what was answered, by message id: the decisions on it.
    """

    def __init__(self, house: House, seed: int) -> None:
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.refused: list[tuple[int, str | None]] = []
        self.faults: list[str] = []
        self.requests: list[list[dict[str, Any]]] = []
        self.seed = seed
        self._house = house
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, random.Random(f"{seed}-{number}")))
            for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int, chance: random.Random) -> None:
        with httpx.Client(auth=(SERVER_KEY, ""), timeout=20.0) as client:
            turn = 0
            while not self._over.is_set() and not self.faults:
                turn += 1
                request = list(wishes(f"{self.seed}-{number}-{turn}", chance))
                self.requests.append(request)
                self._deliver(client, request)

    def _deliver(self, client: httpx.Client, request: list[dict[str, Any]]) -> None:
        single = len(request) == 1
        path, body = ("/v1/track", request[0]) if single else ("/v1/batch", {"batch": request})
        while not self.faults:
            try:
                response = client.post(f"{self._house.engine.url}{path}", json=body)
            except httpx.TransportError:
                time.sleep(0.02)
                continue
            if response.status_code == 503:
                self.refused.append((503, response.headers.get("retry-after")))
                time.sleep(0.02)
                continue
            answer = response.json()
            if response.status_code != 200 or answer["rejected"]:
                self.faults.append(f"{response.status_code}: {response.text}")
                return
            if answer["accepted"] + answer["duplicates"] != len(request):
                self.faults.append(f"{len(request)} events were answered so: {response.text}")
                return
            decisions = {event["messageId"]: list[dict[str, Any]]() for event in request}
            for decision in answer["decisions"]:
                decisions[decision["messageId"]].append(decision)
            self.answers.update(decisions)
            return

    def end(self) -> None:
        """Waits until everything that was sent is answered."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)

    def answered(self, more: int) -> None:
        """Waits until so many more messages are answered."""
        goal = len(self.answers) + more
        until(lambda: self.faults or len(self.answers) >= goal, 60, "the engine answers")
        assert not self.faults


def wishes(name: str, chance: random.Random) -> Iterator[dict[str, Any]]:
    """A request: one event or several, of one person or several, or a stranger who becomes known."""
    person = chance.choice(PEOPLE)
    kind = chance.random()
    if kind < 0.1:
        order = {"type": "track", "event": "Order Completed", "properties": {"revenue": 1}}
        yield {**order, "anonymousId": f"{name}-web", "messageId": f"{name}-before"}
        yield {
            "type": "identify",
            "anonymousId": f"{name}-web",
            "userId": person,
            "messageId": f"{name}-known",
        }
        yield {**order, "anonymousId": f"{name}-web", "messageId": f"{name}-after"}
        return
    for n in range(1 if kind < 0.6 else chance.randint(2, 20)):
        yield {
            "type": "track",
            "userId": chance.choice(PEOPLE) if kind > 0.8 else person,
            "event": "Thank Me" if chance.random() < 0.05 else "Order Completed",
            "messageId": f"{name}-{n}",
            "properties": {"revenue": 1},
        }


@contextmanager
def crowd(house: House, seed: int) -> Iterator[Crowd]:
    """Load, once everybody is known. What it was answered is looked at when it is over."""
    arrivals = [
        {
            "type": "identify",
            "userId": person,
            "messageId": f"{seed}-{person}",
            "traits": {"consent": {"marketing": "granted"}},
            "context": {"device": {"id": f"{person}-phone", "type": "android", "token": f"token-{person}"}},
        }
        for person in PEOPLE
    ]
    with house.engine.client(SERVER_KEY) as client:
        assert client.post("/v1/batch", json={"batch": arrivals}).json()["accepted"] == len(PEOPLE)
    one = Crowd(house, seed)
    try:
        yield one
    except BaseException:
        one.faults.append("the test is over")  # nobody may be there to answer
        raise
    finally:
        one.end()
    assert not one.faults
    assert all(after is not None and int(after) > 0 for _, after in one.refused)


# what must hold, at any moment


async def snapshot(dsn: str) -> dict[str, list[asyncpg.Record]]:
    """All that was stored, as of one moment."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return {
                table: await connection.fetch(f"SELECT {columns} FROM {table}")
                for table, columns in {
                    "events": "profile_id::text, seq, sender, message_id, name",
                    "seen": "profile_id::text, seq, sender, message_id",
                    "decisions": "id::text, profile_id::text, outcome, reason",
                    "outbox": "id::text, state",
                    "profiles": "id::text, document",
                }.items()
            }
    finally:
        await connection.close()


def placed(profiles: dict[str, Profile], row: asyncpg.Record) -> tuple[str, int, str, str]:
    """Where a row of `events` or `seen` belongs: with the profile that its own became one with, behind
    what that had then, whether it was brought over already or not."""
    owner, seq, *message = tuple(row)[:4]
    while (ended := profiles[owner].ended) is not None:
        owner, seq = profiles[owner].succeeded_by, seq + ended.offset
    return owner, seq, message[0], message[1]


def holds(house: House, crowd: Crowd) -> None:
    """Every answered event and decision is stored, nothing twice, and all tables agree."""
    answers = dict(crowd.answers)
    rows = asyncio.run(snapshot(house.dsn))

    sent = Counter(row["message_id"] for row in rows["events"] if row["sender"] == "client")
    assert [message for message, times in sent.items() if times > 1] == []
    assert [message for message in answers if message not in sent] == []
    profiles = {row["id"]: decode_profile(row["document"]) for row in rows["profiles"]}
    log = sorted(placed(profiles, row) for row in rows["events"])
    assert sorted({placed(profiles, row) for row in rows["seen"]}) == log

    events: dict[str, list[tuple[int, str]]] = {}
    for row in rows["events"]:
        owner, seq, *_ = placed(profiles, row)
        events.setdefault(owner, []).append((seq, row["name"]))
    for profile in profiles.values():
        if profile.ended is not None:
            continue
        own = sorted(events.pop(profile.id))
        assert [seq for seq, _ in own] == list(range(1, profile.seq + 1))
        orders = sum(name == "Order Completed" for _, name in own)
        assert (profile.computed.get("orders", 0), profile.computed.get("spend", 0)) == (orders, orders)
    assert events == {}

    decided = {row["id"]: (row["outcome"], row["reason"]) for row in rows["decisions"]}
    for decision in (one for decisions in answers.values() for one in decisions):
        assert decided[decision["id"]] == (decision["outcome"], decision["reason"])
    offered = {row["id"] for row in rows["decisions"] if row["outcome"] == "offered"}
    assert {row["id"] for row in rows["outbox"]} == offered
    per_person = Counter(row["profile_id"] for row in rows["decisions"] if row["outcome"] == "offered")
    assert all(times <= CAP for times in per_person.values())


def ends_well(house: House, crowd: Crowd) -> None:
    """What was sent is stored, a repeat changes nothing, and every offer reaches its phone."""
    holds(house, crowd)
    asked = {event["messageId"] for request in crowd.requests for event in request}
    query = "SELECT message_id FROM events WHERE sender = 'client' AND starts_with(message_id, $1)"
    stored = {row["message_id"] for row in fetch(house.dsn, query, f"{crowd.seed}-")}
    assert stored == asked | {f"{crowd.seed}-{person}" for person in PEOPLE}
    assert crowd.answers.keys() == asked

    decided = [r for r in crowd.requests if any(crowd.answers[event["messageId"]] for event in r)]
    with house.engine.client(SERVER_KEY) as client:
        for request in decided[:100] + crowd.requests[:100]:
            answer = client.post("/v1/batch", json={"batch": request}).json()
            assert (answer["accepted"], answer["duplicates"]) == (0, len(request))
            assert answer["decisions"] == [d for event in request for d in crowd.answers[event["messageId"]]]
    holds(house, crowd)

    # What a dead engine had in hand is sent by the next one once its lease is over: that is now.
    fetch(house.dsn, "UPDATE outbox SET leased_until = now() - interval '1s' WHERE lease IS NOT NULL")
    until(
        lambda: not fetch(house.dsn, "SELECT FROM outbox WHERE state <> 'sent'"), 30, "all pushes are settled"
    )
    offered = {row[0] for row in fetch(house.dsn, "SELECT id::text FROM outbox")}
    assert house.push.delivered().keys() == offered
    wishes_of = fetch(house.dsn, "SELECT profile_id, count(*) FROM events WHERE name = 'Thank Me' GROUP BY 1")
    offers_of = fetch(
        house.dsn, "SELECT profile_id, count(*) FROM decisions WHERE outcome = 'offered' GROUP BY 1"
    )
    assert dict(map(tuple, offers_of)) == {person: min(CAP, count) for person, count in wishes_of}


# the faults


def test_the_engine_killed_at_random_moments(postgres: str, tmp_path: Path) -> None:
    print(f"VIEWFINDER_TEST_SEED={SEED}")  # noqa: T201 - shown where the test fails
    chance = random.Random(SEED)
    with (
        served.database(postgres, "test_killed") as dsn,
        a_house(tmp_path, dsn) as house,
        crowd(house, SEED) as load,
    ):
        for _ in range(KILLS):
            load.answered(1)
            time.sleep(chance.uniform(0.0, 0.7))
            house.engine.kill()
            holds(house, load)
            house.start()
        load.answered(1)
        load.end()
        ends_well(house, load)


@pytest.fixture(scope="module")
def embedded() -> Iterator[House]:
    """With a PostgreSQL of its own, in a folder where it may run."""
    with open_folder() as folder, a_house(folder, None) as house:
        yield house


def test_the_engine_and_its_postgresql_die_together(embedded: House) -> None:
    """Once PostgreSQL is told by the kernel that the engine is gone, once it has no time for that."""
    print(f"VIEWFINDER_TEST_SEED={SEED}")  # noqa: T201
    house, chance = embedded, random.Random(SEED + 1)
    with crowd(house, SEED + 1) as load:
        for postgres_too in (False, True):
            load.answered(1)
            time.sleep(chance.uniform(0.0, 0.5))
            pid = served.postmaster(house.folder / "data")
            house.engine.process.kill()
            if postgres_too:
                os.kill(pid, signal.SIGKILL)
            house.engine.kill()
            house.start()
            holds(house, load)
        load.answered(1)
        load.end()
        ends_well(house, load)


def test_postgresql_alone_is_killed(embedded: House) -> None:
    """Once it is kept from coming back until everybody noticed; once it comes back at once."""
    house, data = embedded, embedded.folder / "data"
    with crowd(house, SEED + 2) as load:
        load.answered(1)
        with nobody_starts_postgresql(data), house.engine.client() as app, house.engine.admin() as admin:
            os.kill(served.postmaster(data), signal.SIGKILL)
            until(lambda: load.refused, 60, "callers hear of it")
            away = (
                app.post(
                    "/v1/track", json={"userId": "away", "event": "Order Completed", "messageId": "away"}
                ),
                app.post("/v1/track", json={"userId": "away", "messageId": "rejected"}),
                app.get("/readyz"),
                admin.get("/admin/profiles/user_id/p0"),
                admin.get("/admin/rejected"),
            )
            for response in away:
                assert response.status_code == 503, response.request.url
                assert int(response.headers["retry-after"]) > 0
            assert app.get("/healthz").status_code == 200
        with house.engine.client() as app:
            until(lambda: app.get("/readyz").status_code == 200, 60, "the engine recovers by itself")
        load.answered(CLIENTS * 10)
        holds(house, load)

        pid = served.postmaster(data)
        os.kill(pid, signal.SIGKILL)
        until(lambda: is_another(data, pid), 60, "another PostgreSQL")
        load.answered(CLIENTS * 20)  # more than was under way
        assert house.engine.process.poll() is None
        with house.engine.client(SERVER_KEY) as client:
            device = {"id": "late", "type": "android", "token": "late"}
            traits = {"consent": {"marketing": "granted"}}
            late = {"userId": "late", "messageId": "late-arrival", "traits": traits}
            at_last(client, "/v1/identify", {**late, "context": {"device": device}})
            wish = {"userId": "late", "event": "Thank Me", "messageId": "late-wish"}
            (offered,) = at_last(client, "/v1/track", wish)["decisions"]
        # The sender and the timers have survived it, too: the push goes out, and is known to have.
        until(lambda: house.push.delivered().get(offered["id"]), 30, "a push that was decided afterwards")
        query = "SELECT FROM events WHERE name = 'Offer Delivered' AND message_id = $1"
        until(lambda: fetch(house.dsn, query, f"delivery:{offered['id']}"), 30, "its outcome")
        load.end()
        holds(house, load)


def is_another(data: Path, pid: int) -> bool:
    with suppress(OSError, ValueError):  # its file is being written anew
        return served.postmaster(data) != pid
    return False


def at_last(client: httpx.Client, path: str, event: dict[str, Any]) -> dict[str, Any]:
    """The answer: while PostgreSQL comes back, a caller may be told to come again."""

    def answer() -> dict[str, Any] | None:
        response = client.post(path, json=event)
        assert response.status_code in (200, 503)
        return dict(response.json()) if response.status_code == 200 else None

    return until(answer, 60, "an answer")


@contextmanager
def nobody_starts_postgresql(data: Path) -> Iterator[None]:
    """Holds what every process takes before it starts the server of a data folder."""
    with (data / "postgres.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
