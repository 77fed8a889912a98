"""`serve` as a process: how it starts, stops, shares its port and its database."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from engine.adapters.postgres.migrations import LOCK
from engine.app.protocol import REQUEST_SECONDS
from tests import served
from tests.conftest import open_folder
from tests.served import SERVER_KEY, WRITE_KEY, Served, command, fetch, until

PEOPLE = [f"p{n}" for n in range(6)]
CAP = 3  # of the rule `thanks`
PASSWORD = "s3cret-pass"

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def order(user: str, message: str, event: str = "Order Completed") -> dict[str, Any]:
    return {
        "type": "track",
        "userId": user,
        "event": event,
        "messageId": message,
        "properties": {"revenue": 1},
    }


def arrival(user: str) -> dict[str, Any]:
    device = {"id": f"{user}-phone", "type": "android", "token": f"token-{user}"}
    traits = {"consent": {"marketing": "granted"}}
    return {"type": "identify", "userId": user, "traits": traits, "context": {"device": device}}


def stored(dsn: str) -> dict[str, int]:
    """How often each message of a client's is in the log."""
    rows = fetch(dsn, "SELECT message_id, count(*) FROM events WHERE sender = 'client' GROUP BY 1")
    return {row["message_id"]: row["count"] for row in rows}


class Load:
    """Clients that send one order after the other until they are told to stop, or are not answered."""

    def __init__(self, url: str, clients: int = 4) -> None:
        self.answered: set[str] = set()
        self.statuses: set[int] = set()
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        with httpx.Client(base_url=self._url, auth=(WRITE_KEY, ""), timeout=20.0) as client:
            turn = 0
            while not self._over.is_set():
                turn += 1
                batch = [order(PEOPLE[number], f"{number}-{turn}-{n}") for n in range(5)]
                try:
                    response = client.post("/v1/batch", json={"batch": batch})
                except httpx.TransportError:
                    return
                self.statuses.add(response.status_code)
                if response.status_code == 200:
                    self.answered |= {event["messageId"] for event in batch}

    def running(self, more: int = 50) -> None:
        goal = len(self.answered) + more
        until(lambda: len(self.answered) >= goal, 30, "answers")

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)


# how it ends


def test_sigterm_under_load(postgres: str, tmp_path: Path) -> None:
    """Readiness goes first, what is under way is finished, what was answered is stored, and it ends
    as it was told to: exit code 0."""
    with served.database(postgres, "test_sigterm") as dsn, served.serve(tmp_path, dsn) as engine:
        assert (tmp_path / "serve-0.out").read_text() == f"ready {engine.url}\n"
        load = Load(engine.url)
        load.running()
        body = json.dumps(order("late", "late")).encode()
        head = f"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {WRITE_KEY}\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        with served.connect(engine) as under_way, served.connect(engine) as probe:
            under_way.sendall(head.encode() + body[:10])
            assert ask(probe, "/readyz") == 200
            engine.terminate()
            until(lambda: ask(probe, "/readyz") != 200, 10, "not ready any more", every=0.0)
            until(lambda: refuses(engine.port), 10, "it listens no more")
            time.sleep(0.5)  # longer than any pause of its own
            assert engine.process.poll() is None  # it waits for what is under way
            under_way.sendall(body[10:])
            heard = served.hear(under_way)
        assert heard.status == 200
        assert json.loads(heard.body)["accepted"] == 1
        code = engine.process.wait(30)
        load.end()
        log = stored(dsn)
        assert load.statuses <= {200, 503}
        assert load.answered | {"late"} <= log.keys()
        assert set(log.values()) == {1}
        assert "Traceback" not in engine.stderr
        assert code == 0


def ask(connection: socket.socket, path: str) -> int:
    """The status of a GET on a connection that is kept, 0 where it was closed."""
    try:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return served.hear(connection).status
    except (served.http.client.HTTPException, OSError):
        return 0


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_second_sigterm_ends_it_at_once(postgres: str, tmp_path: Path) -> None:
    with (
        served.database(postgres, "test_sigterm_twice") as dsn,
        served.serve(tmp_path, dsn) as engine,
        served.connect(engine) as under_way,
        engine.client() as client,
    ):
        under_way.sendall(b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert client.get("/healthz").status_code == 200  # what came before is read by now
        engine.terminate()
        until(lambda: refuses(engine.port), 10, "it listens no more")
        assert engine.process.poll() is None
        engine.terminate()
        began = time.monotonic()
        engine.process.wait(served.STOP_SECONDS)
        assert time.monotonic() - began < REQUEST_SECONDS / 2  # it did not wait for the rest of the body
        assert engine.process.returncode != 0


# how it starts


def test_a_port_in_use_is_said_plainly(postgres: str, tmp_path: Path) -> None:
    with served.database(postgres, "test_port") as dsn, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        late = served.start(tmp_path, dsn, PORT=str(taken.getsockname()[1]))
        late.process.wait(served.READY_SECONDS)
        is_plain(late, taken.getsockname()[1])


def test_of_two_on_one_port_one_says_so_plainly(postgres: str, tmp_path: Path) -> None:
    """Started in the same moment, when neither listens yet: both are kept from it until both have
    looked at the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with served.database(postgres, "test_port_race") as dsn, ExitStack() as stack:
        with migrating(dsn):
            both = [served.start(tmp_path, dsn, PORT=str(port)) for _ in range(2)]
            for one in both:
                stack.callback(served.end, one)
            until(lambda: ended(both) or waiting(dsn) == 2, served.READY_SECONDS, "both have looked")
        until(lambda: ended(both), served.READY_SECONDS, "one gives up")
        (loser,) = ended(both)
        (winner,) = [one for one in both if one is not loser]
        winner.wait_until_ready()
        assert winner.port == port
        with winner.client() as client:
            assert client.post("/v1/track", json=order("p0", "m")).json()["accepted"] == 1
        is_plain(loser, port)


def ended(engines: Sequence[Served]) -> list[Served]:
    return [engine for engine in engines if engine.process.poll() is not None]


@contextmanager
def migrating(dsn: str) -> Iterator[None]:
    """Holds the lock for which everybody waits who starts on this database."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(dsn))
        runner.run(connection.execute(f"SELECT pg_advisory_lock({LOCK})"))
        yield
        runner.run(connection.close())


def waiting(dsn: str) -> int:
    """How many processes wait for it."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory_lock%'"
    return int(fetch(dsn, f"{query} AND datname = current_database()")[0]["count"])


def is_plain(engine: Served, port: int) -> None:
    assert "Traceback" not in engine.stderr
    assert "in use" in engine.stderr
    assert str(port) in engine.stderr
    assert "ready" not in engine.stdout
    assert engine.process.returncode == 2


def test_migrate_is_idempotent(postgres: str, tmp_path: Path) -> None:
    with served.database(postgres, "test_migrate", empty=True) as dsn:
        first = command(tmp_path, "migrate", "--json", dsn=dsn)
        again = command(tmp_path, "migrate", "--json", dsn=dsn)
        assert (first.returncode, again.returncode) == (0, 0)
        assert json.loads(first.stdout)["applied"] != []
        assert json.loads(again.stdout)["applied"] == []
        versions = fetch(dsn, "SELECT version FROM schema_migrations")
        assert sorted(row["version"] for row in versions) == sorted(json.loads(first.stdout)["applied"])


def test_serve_on_an_embedded_database_shares_it() -> None:
    with open_folder() as folder, served.serve(folder, None) as engine:
        data = folder / "data"
        assert (data / ".s.PGSQL.5432").is_socket()
        pid = served.postmaster(data)
        attached = command(folder, "migrate")
        assert (attached.returncode, attached.stdout) == (0, "the schema is up to date\n")
        assert served.postmaster(data) == pid
        with engine.client() as client:
            assert client.post("/v1/track", json=order("p0", "m")).json()["accepted"] == 1
        assert stored(served.embedded_dsn(data)) == {"m": 1}
        code = engine.stop()
        until(lambda: not is_running(pid), 20, "its PostgreSQL is gone, too")
        assert code == 0


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# several workers


@pytest.fixture(scope="module")
def crew(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    """Two workers, and the database that they share, which has a password."""
    folder = tmp_path_factory.mktemp("crew")
    with served.database(postgres, "test_crew") as dsn:
        secret = dsn.replace("viewfinder@/", f"viewfinder:{PASSWORD}@/", 1)
        assert secret != dsn
        with served.serve(folder, secret, WORKERS="2") as engine:
            until(lambda: len(workers(engine)) == 2, 30, "two workers")
            yield engine, dsn


def workers(engine: Served) -> list[int]:
    """The processes that `serve` has started, and that have not ended."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(") ")[2].split()[:2]
        except OSError:  # gone meanwhile
            continue
        if int(parent) == engine.process.pid and state != "Z":
            found.append(int(status.parent.name))
    return sorted(found)


def answers(engine: Served) -> bool:
    try:
        return httpx.get(f"{engine.url}/readyz", timeout=1.0).status_code == 200
    except httpx.TransportError:
        return False


@linux
def test_two_workers_serve_one_port(crew: tuple[Served, str]) -> None:
    """Each alone while the other is stopped; counts are exact over both; one that is killed is
    started again."""
    engine, dsn = crew
    pair = workers(engine)
    for stopped in pair:
        # What is asked meanwhile waits for whoever took the connection.
        os.kill(stopped, signal.SIGSTOP)
        try:
            until(lambda: answers(engine), 30, "the other one serves")
        finally:
            os.kill(stopped, signal.SIGCONT)
    load = Load(engine.url, clients=6)
    load.running()
    os.kill(pair[0], signal.SIGKILL)
    until(lambda: len(set(workers(engine)) | set(pair)) == 3, 30, "another worker")
    assert pair[1] in workers(engine)
    until(lambda: answers(engine), 30, "it serves on")
    load.end()
    assert load.statuses <= {200, 503}
    load = Load(engine.url, clients=6)  # whose messages are those of before, to whom it was new
    load.running(100)
    load.end()
    assert load.statuses == {200}

    log = stored(dsn)
    assert load.answered <= log.keys()
    assert set(log.values()) == {1}
    with engine.admin() as admin:
        for number, person in enumerate(PEOPLE):
            found = admin.get(f"/admin/profiles/user_id/{person}").json()
            own = sum(message.startswith(f"{number}-") for message in log)
            assert found["computed"] == {"orders": own, "spend": float(own)}


@linux
def test_no_secret_stands_in_a_command_line(crew: tuple[Served, str]) -> None:
    """Any account of the machine may read them."""
    engine, _ = crew
    for pid in (engine.process.pid, *workers(engine)):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"serve" in line
        for value in (PASSWORD, SERVER_KEY, WRITE_KEY):
            assert value.encode() not in line


@linux
def test_workers_end_although_one_has_just_died(crew: tuple[Served, str]) -> None:
    """Last, because it ends them all."""
    engine, _ = crew
    deaths = engine.stderr.count("worker_died")
    os.kill(workers(engine)[0], signal.SIGKILL)
    until(lambda: engine.stderr.count("worker_died") > deaths, 10, "its death is noticed")
    assert engine.stop() == 0
    assert workers(engine) == []


# several engines


@pytest.fixture(scope="module")
def pair(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Served, str]]:
    """Two engines, started at once on an empty database."""
    folder = tmp_path_factory.mktemp("pair")
    with (
        served.database(postgres, "test_pair", empty=True) as dsn,
        served.push_service(folder) as push,
        ExitStack() as stack,
    ):
        engines = [served.start(folder, dsn, **push.settings) for _ in range(2)]
        for engine in engines:
            stack.callback(served.end, engine)
        for engine in engines:
            engine.wait_until_ready()
        one, two = engines
        yield one, two, dsn


def test_two_engines_come_up_on_an_empty_database(pair: tuple[Served, Served, str]) -> None:
    one, two, dsn = pair
    with one.client() as here, two.client() as there:
        assert here.post("/v1/track", json=order("first", "first")).json()["accepted"] == 1
        assert there.post("/v1/track", json=order("first", "first")).json()["duplicates"] == 1
    (row,) = fetch(dsn, "SELECT count(*), count(DISTINCT version) AS versions FROM schema_migrations")
    assert row["count"] == row["versions"] > 0
    for engine in (one, two):
        assert "Traceback" not in engine.stderr


def test_two_engines_count_and_cap_exactly(pair: tuple[Served, Served, str]) -> None:
    """Every message to both of them, at once and in another order; neither waits for the other's end."""
    one, two, dsn = pair
    with one.client() as client:
        client.post("/v1/batch", json={"batch": [arrival(person) for person in PEOPLE]}).raise_for_status()
    messages = [order(person, f"{person}-{n}") for person in PEOPLE for n in range(60)]
    messages += [order(person, f"{person}-wish-{n}", "Thank Me") for person in PEOPLE for n in range(6)]
    taken = dict.fromkeys(("one", "two"), 0)
    wrong: list[str] = []
    lock = threading.Lock()

    def send(name: str, engine: Served, seed: int) -> None:
        chance = random.Random(seed)
        mine = list(messages)
        chance.shuffle(mine)
        with engine.client(SERVER_KEY) as client:
            while mine:
                batch = [mine.pop() for _ in range(min(len(mine), chance.randint(1, 8)))]
                response = client.post("/v1/batch", json={"batch": batch})
                if response.status_code == 503 and int(response.headers["retry-after"]) > 0:
                    mine += batch
                elif response.status_code != 200:
                    wrong.append(response.text)
                else:
                    answer = response.json()
                    if answer["accepted"] + answer["duplicates"] != len(batch):
                        wrong.append(response.text)
                    with lock:
                        taken[name] += answer["accepted"]

    senders = [("one", one), ("two", two)]
    threads = [threading.Thread(target=send, args=(*to, n)) for n, to in enumerate(senders * 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert sum(taken.values()) == len(messages)
    assert min(taken.values()) > 0
    log = stored(dsn)
    assert {event["messageId"] for event in messages} <= log.keys()
    assert set(log.values()) == {1}
    with two.admin() as admin:
        for person in PEOPLE:
            assert admin.get(f"/admin/profiles/user_id/{person}").json()["computed"]["orders"] == 60
    offered = fetch(dsn, "SELECT profile_id, count(*) FROM decisions WHERE outcome = 'offered' GROUP BY 1")
    assert [row["count"] for row in offered] == [CAP] * len(PEOPLE)


def test_neither_engine_starves_on_a_person_whom_both_serve(pair: tuple[Served, Served, str]) -> None:
    """Each must get on while the other is at it: none ends long before the other is half through."""
    one, two, _ = pair
    done: dict[str, list[float]] = {"one": [], "two": []}

    def send(name: str, engine: Served) -> None:
        with engine.client() as client:
            for n in range(120):
                response = client.post("/v1/track", json=order("hot", f"hot-{name}-{n}"))
                assert response.status_code == 200
                done[name].append(time.monotonic())

    threads = [threading.Thread(target=send, args=to) for to in (("one", one), ("two", two))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    first, last = sorted(done.values(), key=lambda times: times[-1])
    assert len(first) == len(last) == 120
    assert sum(at < first[-1] for at in last) > 10  # while the faster one sent 120
    with one.admin() as admin:
        assert admin.get("/admin/profiles/user_id/hot").json()["computed"]["orders"] == 240


def test_connections_that_went_stale_reach_no_caller_twice(pair: tuple[Served, Served, str]) -> None:
    """As after a failover: all connections are cut while the engines are idle, then while they are not."""
    one, two, dsn = pair
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'viewfinder'"
    cut += " AND datname = current_database()"

    def send(name: str, engine: Served, statuses: list[int]) -> None:
        with engine.client() as client:
            for n in range(10):
                event = order(f"stale-{name}", f"stale-{name}-{n}")
                response = client.post("/v1/track", json=event)
                if response.status_code == 503:
                    assert int(response.headers["retry-after"]) > 0
                    client.post("/v1/track", json=event).raise_for_status()
                statuses.append(response.status_code)

    for turn in ("idle", "busy"):
        heard = [list[int]() for _ in range(6)]
        threads = [
            threading.Thread(target=send, args=(f"{turn}{n}", (one, two)[n % 2], heard[n])) for n in range(6)
        ]
        if turn == "idle":
            assert fetch(dsn, cut)
        for thread in threads:
            thread.start()
        if turn == "busy":
            until(lambda heard=heard: all(heard), 30, "everybody is at it", every=0.0)  # type: ignore[misc]
            fetch(dsn, cut)
        for thread in threads:
            thread.join(60)
        for statuses in heard:
            assert len(statuses) == 10
            assert set(statuses) <= {200, 503}
            assert statuses.count(503) <= 1
    log = stored(dsn)
    assert [
        log[f"stale-{turn}{n}-{k}"] for turn in ("idle", "busy") for n in range(6) for k in range(10)
    ] == [1] * 120
