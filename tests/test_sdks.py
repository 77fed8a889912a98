"""The real Python SDKs of Segment and RudderStack, pointed at `serve`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from uuid import uuid4

import httpx
import pytest
import rudderstack.analytics.client
import rudderstack.analytics.request
import segment.analytics.client
import segment.analytics.request

from tests import served
from tests.served import WRITE_KEY, Served, fetch

CLIENTS = {"segment": segment.analytics.client.Client, "rudder": rudderstack.analytics.client.Client}
POSTS: dict[str, Callable[..., Any]] = {
    "segment": segment.analytics.request.post,
    "rudder": rudderstack.analytics.request.post,
}
Loss = Literal["no answer", "503"]

both = pytest.mark.parametrize("sdk", ["segment", "rudder"])


class House:
    """The engine, and its database."""

    def __init__(self, engine: Served, dsn: str) -> None:
        self.engine, self.dsn = engine, dsn

    def log(self, messages: list[str]) -> dict[str, tuple[str, str, str]]:
        """Kind, name and profile of those messages, each of which is there once."""
        rows = fetch(
            self.dsn,
            "SELECT message_id, kind, name, profile_id::text FROM events WHERE message_id = ANY($1)",
            messages,
        )
        assert sorted(row["message_id"] for row in rows) == sorted(messages)
        return {row["message_id"]: (row["kind"], row["name"], row["profile_id"]) for row in rows}

    def profile(self, namespace: str, value: str) -> dict[str, Any]:
        with self.engine.admin() as admin:
            response = admin.get(f"/admin/profiles/{namespace}/{value}")
        assert response.status_code == 200
        return dict(response.json())


@pytest.fixture(scope="module")
def house(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("sdks")
    with served.database(postgres, "test_sdks") as dsn, served.serve(folder, dsn) as engine:
        yield House(engine, dsn)


@contextmanager
def client(sdk: str, url: str, *, key: str = WRITE_KEY, **options: Any) -> Iterator[Any]:
    """An SDK's client that looks at its queue often; ended with everything sent."""
    if not options.get("sync_mode"):
        options["upload_interval"] = 0.05
    one = CLIENTS[sdk](key, host=url, **options)
    yield one
    if not options.get("sync_mode"):
        one.flush()
        one.join()


@contextmanager
def way(engine: Served, *losses: Loss) -> Iterator[tuple[str, list[bytes]]]:
    """A road to the engine on which its first answers get lost, and the bodies that went along it.

    The engine took them all the same, which an SDK cannot know: it sends them again.
    """
    left, taken = list(losses), list[bytes]()

    class Forward(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
            answer = httpx.post(engine.url + self.path, content=body, headers=headers)
            taken.append(body)
            loss = left.pop(0) if left else None
            if loss == "no answer":
                self.close_connection = True
                return
            self.send_response(503 if loss else answer.status_code)
            if loss:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def call_everything(one: Any, user: str) -> list[dict[str, Any]]:
    """Each call of an SDK once, and what it made of them."""
    calls = [
        one.identify(user, {"email": f"{user}@example.com", "first_name": "Ada"}),
        one.track(user, "Order Completed", {"revenue": 12.5, "store": "mill"}),
        one.page(user, "Guides", "Docs"),
        one.screen(user, "Shop", "Home"),
        one.group(user, "g1", {"size": 3}),
        one.alias(f"{user}-before", user),
        one.track(anonymous_id=f"{user}-guest", event="Opened"),
    ]
    assert all(taken for taken, _ in calls)
    return [message for _, message in calls]


@both
@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("sync_mode", [False, True], ids=["queued", "sync"])
def test_every_call_reaches_its_person_once(house: House, sdk: str, gzip: bool, sync_mode: bool) -> None:
    user, errors = f"{sdk}-{gzip}-{sync_mode}", list[Any]()
    options = {"gzip": gzip, "sync_mode": sync_mode, "on_error": lambda *fault: errors.append(fault)}
    with client(sdk, house.engine.url, **options) as one:
        sent = call_everything(one, user)
    assert errors == []
    log = house.log([message["messageId"] for message in sent])
    known, guest = house.profile("user_id", user), house.profile("anonymous_id", f"{user}-guest")
    assert [log[message["messageId"]] for message in sent] == [
        ("identify", "", known["id"]),
        ("track", "Order Completed", known["id"]),
        ("page", "Docs", known["id"]),
        ("screen", "Home", known["id"]),
        ("group", "", known["id"]),
        ("alias", "", known["id"]),
        ("track", "Opened", guest["id"]),
    ]
    assert known["traits"] == {"email": f"{user}@example.com", "first_name": "Ada"}
    assert known["computed"] == {"orders": 1, "spend": 12.5, "last_store": "mill"}
    names = [(identity["namespace"], identity["value"]) for identity in known["identities"]]
    assert names == [("user_id", user), ("anonymous_id", f"{user}-before")]


@both
@pytest.mark.parametrize("loss", ["no answer", "503"])
def test_what_an_sdk_sends_again_is_stored_once(house: House, sdk: str, loss: Loss) -> None:
    user, errors = f"{sdk}-again-{loss}", list[Any]()
    with way(house.engine, loss, loss) as (url, bodies):
        with client(sdk, url, gzip=False, on_error=lambda *fault: errors.append(fault)) as one:
            sent = [one.track(user, "Order Completed", {"revenue": 1})[1] for _ in range(5)]
        messages = [message["messageId"] for message in sent]
        assert errors == []
        assert len(bodies) >= 3
        again = [item["messageId"] for body in bodies for item in json.loads(body)["batch"]]
        assert len(again) >= 7  # two losses of one message at least
    house.log(messages)
    assert house.profile("user_id", user)["computed"] == {"orders": 5, "spend": 5.0}


@both
def test_the_same_payload_twice_is_stored_once(house: House, sdk: str) -> None:
    user = f"{sdk}-twice"
    message = {"type": "track", "userId": user, "event": "Order Completed", "messageId": uuid4().hex}
    answers = [POSTS[sdk](WRITE_KEY, house.engine.url, batch=[message]).json() for _ in range(2)]
    assert [(answer["accepted"], answer["duplicates"]) for answer in answers] == [(1, 0), (0, 1)]
    house.log([message["messageId"]])
    assert house.profile("user_id", user)["computed"]["orders"] == 1


@both
def test_an_sdk_gives_up_on_a_key_that_nobody_knows(house: House, sdk: str) -> None:
    """A refusal in words that it does not understand makes it send the same again and again."""
    errors = list[Any]()
    options = {"key": "wrong", "max_retries": 1, "on_error": lambda *fault: errors.append(fault)}
    with way(house.engine) as (url, bodies):
        with client(sdk, url, **options) as one:
            one.track("nobody", "Opened")
        assert len(bodies) == 1
    ((fault, batch),) = errors
    assert getattr(fault, "status", repr(fault)) == 401
    assert len(batch) == 1
