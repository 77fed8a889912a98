"""Everything that `serve` answers over HTTP, on a real socket with a real PostgreSQL behind it.

One file, past 400 lines, because all of it shares one engine.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from engine.app.demo import fcm_answers
from engine.app.ingest import CALLS, PATHS, REJECTED_KEPT_PER_KEY_AND_DAY
from engine.app.protocol import REQUEST_SECONDS
from engine.formats.segment import BATCH_CALLS, BODY_BYTES_MAX, EVENT_BYTES_MAX
from tests import served
from tests.served import ADMIN_TOKEN, SERVER_KEY, WRITE_KEY, Heard, PushService, Served, fetch, until

NOISY_KEY = "noisy-key"
NO_DECISION = "019abcde-0000-8000-8000-000000000000"
SLOW_SECONDS = REQUEST_SECONDS + 10.0
CAFE, FAR = {"latitude": 52.66, "longitude": -8.62}, {"latitude": 52.7, "longitude": -8.62}


class House:
    """The engine, its clients by key, its database and its push service."""

    def __init__(self, engine: Served, dsn: str, folder: Path, push: PushService) -> None:
        self.engine, self.dsn, self.folder, self.push = engine, dsn, folder, push
        self.app, self.server, self.admin = engine.client(), engine.client(SERVER_KEY), engine.admin()
        self.nobody = engine.client(None)

    def send(self, *events: dict[str, Any], **batch: Any) -> dict[str, Any]:
        """A batch by the public key, and its answer."""
        response = self.app.post("/v1/batch", json={"batch": events, **batch})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def profile(self, user: str) -> dict[str, Any]:
        response = self.admin.get(f"/admin/profiles/user_id/{user}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def stored(self, *message_ids: str) -> list[str]:
        """Of the messages asked for those in the log, as often as they are there."""
        rows = fetch(self.dsn, "SELECT message_id FROM events WHERE message_id = ANY($1)", list(message_ids))
        return sorted(row["message_id"] for row in rows)

    def event(self, message_id: str) -> Any:
        (row,) = fetch(self.dsn, "SELECT * FROM events WHERE message_id = $1", message_id)
        return row


@pytest.fixture(scope="module")
def house(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("http")
    with (
        served.database(postgres, "test_http") as dsn,
        served.push_service(folder) as push,
        served.serve(folder, dsn, WRITE_KEYS=f"{WRITE_KEY},{NOISY_KEY}", **push.settings) as engine,
    ):
        yield House(engine, dsn, folder, push)


def track(user: str, event: str = "Order Completed", **fields: Any) -> dict[str, Any]:
    return {"type": "track", "userId": user, "event": event, "messageId": uuid4().hex, **fields}


def arrival(user: str, **traits: Any) -> dict[str, Any]:
    """A person whom one may push to."""
    device = {"id": f"{user}-phone", "type": "android", "token": f"token-{user}"}
    return {
        "type": "identify",
        "userId": user,
        "messageId": uuid4().hex,
        "traits": {"consent": {"marketing": "granted"}, **traits},
        "context": {"device": device},
    }


def head(path: str, *headers: str, key: str = WRITE_KEY) -> bytes:
    """The start of a POST, as an app sends it."""
    lines = (f"POST {path} HTTP/1.1", "Host: viewfinder", f"Authorization: Bearer {key}", *headers, "", "")
    return "\r\n".join(lines).encode()


def codes(answer: dict[str, Any]) -> dict[int, str]:
    return {rejection["index"]: rejection["code"] for rejection in answer["rejected"]}


def peak_memory(engine: Served) -> int:
    """The most that the process ever held, bytes."""
    status = Path(f"/proc/{engine.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


# slow clients: they start here and are looked at when everything else is done


class Slow:
    """Four clients that never finish their request, each in a thread of its own."""

    def __init__(self, engine: Served) -> None:
        whole = head("/v1/track", "Content-Length: 1000")
        starts = {"says nothing": b"", "half a header": whole[:40], "no body": whole, "a trickle": whole}
        self.began = time.monotonic()
        self.heard = dict.fromkeys(starts, b"")
        self.closed: set[str] = set()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._dawdle, args=(engine, name, start), name=name)
            for name, start in starts.items()
        ]
        for thread in self._threads:
            thread.start()

    def _dawdle(self, engine: Served, name: str, start: bytes) -> None:
        with served.connect(engine, 0.5) as connection:
            connection.sendall(start)
            with suppress(OSError):
                while not self._over.is_set():
                    if name == "a trickle":
                        connection.sendall(b" ")
                    try:
                        received = connection.recv(65536)
                    except TimeoutError:
                        continue
                    if not received:
                        break
                    self.heard[name] += received
        if not self._over.is_set():
            self.closed.add(name)

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module", autouse=True)
def slow(house: House) -> Iterator[Slow]:
    clients = Slow(house.engine)
    yield clients
    clients.end()


# events in


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/v1/xdm"])
def test_every_call_is_taken(house: House, path: str) -> None:
    call = path.rsplit("/", 1)[1]
    user, message = f"call{path}", uuid4().hex
    event = {
        "type": "track" if call in BATCH_CALLS else call,
        "messageId": message,
        "userId": user,
        "event": "Opened",
        "name": "Home",
        "groupId": "g1",
        "previousId": f"{user}-before",
        "mergeProperties": [
            {"type": "user_id", "value": user},
            {"type": "anonymous_id", "value": f"{user}-web"},
        ],
    }
    body = {"batch": [event]} if call in BATCH_CALLS else event
    answer = house.app.post(path, json=body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "success": True,
        "accepted": 1,
        "duplicates": 0,
        "rejected": [],
        "decisions": [],
    }
    assert house.event(message)["kind"] == event["type"]
    names = house.admin.post("/admin/profiles/lookup", json={"namespace": "user_id", "value": user}).json()
    assert {"namespace": "user_id", "value": user} in names["identities"]
    before = {"namespace": "anonymous_id", "value": f"{user}-before"}
    assert (before in names["identities"]) is (call in ("alias", "merge"))


def test_every_call_is_known() -> None:
    assert set(CALLS) == {
        *("track", "identify", "screen", "page", "group", "alias", "merge", "batch", "import", "b")
    }


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
def test_the_body_is_json_whatever_its_type_says(house: House, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    response = house.app.post("/v1/page", content=b'{"userId": "typed"}', headers=headers)
    assert (response.status_code, response.json()["accepted"]) == (200, 1)


def test_a_key_by_basic_bearer_or_in_the_body(house: House) -> None:
    def post(key: str, how: str) -> httpx.Response:
        event = {"type": "page", "userId": f"key-{how}", **({"writeKey": key} if how == "body" else {})}
        headers = {"authorization": f"Bearer {key}"} if how == "bearer" else {}
        auth = (key, "") if how == "basic" else None
        for body, path in (
            (event, "/v1/page"),
            ({"batch": [event], "writeKey": event.get("writeKey")}, "/b"),
        ):
            response = house.nobody.post(path, json=body, headers=headers, auth=auth)
        return response

    for how in ("basic", "bearer", "body"):
        assert post(WRITE_KEY, how).status_code == 200
        assert post(SERVER_KEY, how).status_code == 200
        for unknown in ("wrong", ADMIN_TOKEN, WRITE_KEY.lower(), WRITE_KEY + " x"):
            assert post(unknown, how).status_code == 401
    refused = house.nobody.post("/v1/page", json={"userId": "key-none"})
    assert refused.status_code == 401
    assert refused.json()["success"] is False
    for garbled in (b"Basic \xe9", b"Basic", b"Bearer", b"Digest " + WRITE_KEY.encode()):
        headers = {"authorization": garbled}
        assert house.nobody.post("/v1/page", json={"userId": "key-none"}, headers=headers).status_code == 401
    assert house.admin.get("/admin/profiles/user_id/key-none").status_code == 404


def test_an_app_sees_offers_and_a_server_sees_why_not(house: House) -> None:
    house.send(arrival("forms"))
    for _ in range(3):
        (offered,) = house.send(track("forms", "Thank Me"))["decisions"]
        assert set(offered) == {"id", "messageId", "offer", "outcome", "placement", "message", "expiresAt"}
        assert (offered["offer"], offered["outcome"]) == ("thanks", "offered")
        assert offered["message"]["title"] == "Thanks"
    capped, another = track("forms", "Thank Me"), track("forms", "Thank Me")
    assert house.send(capped)["decisions"] == []
    (full,) = house.server.post("/v1/track", json=another).json()["decisions"]
    assert (full["outcome"], full["reason"], full["rule"], full["trigger"]) == (
        *("suppressed", "capped", "thanks", "event"),
    )
    assert {"profileId", "geofence", "channel", "propensity", "expectedValue", "revision"} <= full.keys()
    # The repeat is answered by what its own key may see, too.
    assert house.send(another)["decisions"] == []
    (again,) = house.server.post("/v1/track", json=capped).json()["decisions"]
    assert (again["messageId"], again["reason"]) == (capped["messageId"], "capped")
    pushed = until(lambda: len(sent_to(house, "token-forms")) >= 3 and sent_to(house, "token-forms"), 10, "3")
    assert len(pushed) == 3


def sent_to(house: House, token: str) -> list[dict[str, Any]]:
    return [message for message in list(house.push.fcm.messages) if message["token"] == token]


def test_what_only_servers_may_claim(house: House) -> None:
    mine, theirs = track("paid", "Order Paid"), track("paid", "Order Paid")
    assert codes(house.send(mine)) == {0: "server_only"}
    assert house.server.post("/v1/track", json=theirs).json()["accepted"] == 1
    assert house.stored(mine["messageId"], theirs["messageId"]) == [theirs["messageId"]]


# bodies


def test_gzip_by_header_and_by_its_first_bytes(house: House) -> None:
    for headers in ({"content-encoding": "gzip"}, {}):
        event = track("zipped")
        content = gzip.compress(json.dumps({"batch": [event]}).encode())
        assert house.app.post("/v1/batch", content=content, headers=headers).json()["accepted"] == 1
        assert house.stored(event["messageId"])
        for cut in (content[:-9], content[:20], content[:2]):
            assert house.app.post("/v1/batch", content=cut, headers=headers).status_code == 400


def test_bombs_and_endless_bodies_are_refused_and_memory_stays_flat(house: House) -> None:
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    bomb = b"".join([packer.compress(bytes(1_000_000)) for _ in range(400)]) + packer.flush()
    assert len(bomb) < BODY_BYTES_MAX
    assert house.app.post("/v1/batch", content=bomb).status_code == 413
    before = peak_memory(house.engine) if sys.platform == "linux" else 0
    for _ in range(5):
        assert house.app.post("/v1/batch", content=bomb).status_code == 413
    assert house.app.post("/v1/batch", content=bytes(BODY_BYTES_MAX + 1)).status_code == 413
    zipped = gzip.compress(b'{"batch": []}' + b" " * BODY_BYTES_MAX)
    assert house.app.post("/v1/batch", content=zipped).status_code == 413
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with served.connect(house.engine) as connection:
        connection.sendall(head("/v1/batch", "Transfer-Encoding: chunked"))
        with suppress(OSError):  # it may hang up on us
            for _ in range(1_000):
                connection.sendall(chunk)
        assert served.hear(connection).status == 413
    if sys.platform == "linux":
        assert peak_memory(house.engine) - before < 30_000_000


def test_a_chunked_body_within_the_limit_is_taken(house: House) -> None:
    event = track("chunked")
    body = json.dumps({"batch": [event]}).encode()
    pieces = b"".join(
        b"%x\r\n%b\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7)
    )
    request = head("/v1/batch", "Transfer-Encoding: chunked") + pieces + b"0\r\n\r\n"
    assert served.exchange(house.engine, request).status == 200
    assert house.stored(event["messageId"])


def test_2500_events_are_taken_and_one_more_is_too_many(house: House) -> None:
    events = [{"type": "page", "userId": f"many{n % 7}", "messageId": f"many-{n}"} for n in range(2_501)]
    assert house.app.post("/v1/batch", json={"batch": events}).status_code == 413
    assert house.stored("many-0") == []
    assert house.send(*events[:2_500])["accepted"] == 2_500
    assert len(house.stored(*(event["messageId"] for event in events))) == 2_500


def test_an_event_over_32_kb(house: House) -> None:
    large, small = track("large", properties={"x": "x" * EVENT_BYTES_MAX}), track("large")
    assert house.app.post("/v1/track", json=large).status_code == 413
    answer = house.send(small, large, large)
    assert (answer["accepted"], codes(answer)) == (1, {1: "too_large", 2: "too_large"})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/track",
            b'{"userId": "deep", "event": "e", "properties": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        ),
        ("/v1/batch", b'{"batch": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}"),
        ("/v1/batch", b'{"a":' * 80_000 + b"1" + b"}" * 80_000),
        ("/v1/identify", b"[" * 100_000),
        ("/v1/identify", b"[]"),
        ("/v1/identify", b"nope"),
        ("/v1/identify", b""),
        ("/v1/batch", b'{"batch": 7}'),
        ("/admin/profiles/lookup", b"[" * 100_000 + b"]" * 100_000),
        ("/admin/profiles/lookup", b'{"namespace":' * 80_000 + b"1" + b"}" * 80_000),
        ("/admin/profiles/lookup", b'{"namespace": "user_id", "value": "\\ud800"}'),
        ("/admin/profiles/lookup", b'{"namespace": "user_id", "value": NaN}'),
        ("/admin/profiles/lookup", b'{"namespace": "user_id"}'),
        ("/admin/profiles/lookup", b"nope"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:24].decode(),
)
def test_what_is_no_body_is_a_400(house: House, path: str, body: bytes) -> None:
    client = house.admin if path.startswith("/admin") else house.app
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    assert house.nobody.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ('"properties": {"x": NaN}', "not_a_number"),
        ('"properties": {"x": [-Infinity]}', "not_a_number"),
        ('"context": {"x": 1e999}', "not_a_number"),
        ('"context": {"location": {"latitude": NaN, "longitude": 1}}', "not_a_number"),
        ('"context": {"location": {"latitude": 91, "longitude": 1}}', "latitude_out_of_range"),
        ('"context": {"location": {"latitude": 1, "longitude": -181}}', "longitude_out_of_range"),
        ('"timestamp": "yesterday"', "invalid_timestamp"),
        ('"properties": {"x": "\\ud83d"}', "invalid_text"),
        ('"properties": {"\\udead": 1}', "invalid_text"),
        ('"properties": {"x": "a\\u0000b"}', "invalid_text"),
        ('"traits": {"a\\u0000b": 1}', "invalid_text"),
        ('"anonymousId": "\\u0000"', "invalid_text"),
        ('"context": {"device": {"id": "d", "token": "a\\r\\nb: c"}}', "invalid_text"),
        ('"context": {"device": {"id": "d\\ud800"}}', "invalid_text"),
        ('"properties": {"x": ' + "[" * 70 + "]" * 70 + "}", "too_deep"),
        ('"type": "delete"', "unknown_type"),
        ('"event": ""', "missing_event"),
        ('"userId": null', "missing_identity"),
    ],
    ids=lambda value: value[:40],
)
def test_one_bad_event_is_a_verdict_and_the_others_are_taken(house: House, item: str, code: str) -> None:
    """Alone and between good ones; whatever it holds never becomes a 500 of the database's."""
    good = [track("verdicts"), track("verdicts")]
    bad = uuid4().hex
    text = json.dumps(track("verdicts", messageId=bad))[:-1] + f", {item}}}"
    body = f'{{"batch": [{json.dumps(good[0])}, {text}, {json.dumps(good[1])}, 7]}}'.encode()
    response = house.app.post("/v1/batch", content=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["accepted"], codes(answer)) == (2, {1: code, 3: "not_an_object"})
    assert answer["rejected"][0]["messageId"] == bad
    assert house.stored(bad, *(event["messageId"] for event in good)) == sorted(e["messageId"] for e in good)
    assert kept(house, limit=2)[0]["code"] == "not_an_object"
    newest = kept(house, limit=2)[1]
    assert (newest["code"], newest["messageId"]) == (code, bad)
    assert bad in newest["item"]


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000", "\\udc00\\ud800"])
def test_a_message_id_that_is_no_text(house: House, text: str) -> None:
    body = f'{{"userId": "odd", "event": "e", "messageId": "{text}"}}'.encode()
    answer = house.app.post("/v1/track", content=body).json()
    assert codes(answer) == {0: "invalid_text"}
    assert answer["rejected"][0]["messageId"] is None


def kept(house: House, **query: Any) -> list[dict[str, Any]]:
    response = house.admin.get("/admin/rejected", params=query)
    assert response.status_code == 200, response.text
    return list(response.json()["rejected"])


def test_rejected_events_are_kept_up_to_a_bound_per_key_and_day(house: House) -> None:
    noisy = house.engine.client(NOISY_KEY)
    bad = [{"type": "page", "messageId": f"noise-{n}"} for n in range(700)]
    for _ in range(3):
        assert len(noisy.post("/v1/batch", json={"batch": bad}).json()["rejected"]) == 700
    digest = hashlib.sha256(NOISY_KEY.encode()).hexdigest()[:16]
    (row,) = fetch(house.dsn, "SELECT count(*) FROM rejected WHERE key_digest = $1", digest)
    assert row["count"] == REJECTED_KEPT_PER_KEY_AND_DAY
    # Another key's are still kept, and all can be paged through.
    last = house.send({"type": "page", "messageId": "quiet"})
    assert codes(last) == {0: "missing_identity"}
    page = kept(house, limit=600)
    assert page[0]["messageId"] == "quiet"
    ids = [one["id"] for one in page]
    older = kept(house, limit=600, before=ids[-1])
    ids += [one["id"] for one in older]
    assert ids == sorted(set(ids), reverse=True)
    assert len(ids) >= REJECTED_KEPT_PER_KEY_AND_DAY + 1


# once


def test_a_message_is_stored_once_and_the_first_stands(house: House, tmp_path: Path) -> None:
    first = track("once", properties={"revenue": 3}, messageId="once-1")
    other = track("once", properties={"revenue": 50}, messageId="once-1")
    answer = house.send(first, other, first)
    assert (answer["accepted"], answer["duplicates"]) == (1, 2)
    for _ in range(2):
        answer = house.app.post("/v1/track", json=other).json()
        assert (answer["accepted"], answer["duplicates"]) == (0, 1)
    theirs = house.send(track("another", messageId="once-1"))
    assert (theirs["accepted"], theirs["duplicates"]) == (1, 0)
    with served.serve(tmp_path, house.dsn) as restarted, restarted.client() as client:
        answer = client.post("/v1/track", json=other).json()
        assert (answer["accepted"], answer["duplicates"]) == (0, 1)
    assert house.stored("once-1") == ["once-1", "once-1"]
    assert house.profile("once")["computed"] == {"orders": 1, "spend": 3.0}
    assert house.profile("another")["computed"]["orders"] == 1
    (event,) = house.admin.get("/admin/profiles/user_id/once/events").json()["events"]
    assert event["event"]["properties"] == {"revenue": 3}


def test_a_repeated_batch_in_which_somebody_becomes_known_is_stored_once(house: House) -> None:
    """The first half of it is in another profile by the time that it is repeated."""
    house.send(track("known"))
    batch = [
        {"type": "track", "anonymousId": "unknown", "event": "Order Completed", "messageId": "known-1"},
        {"type": "identify", "anonymousId": "unknown", "userId": "known", "messageId": "known-2"},
        {"type": "track", "anonymousId": "unknown", "event": "Order Completed", "messageId": "known-3"},
    ]
    assert house.send(*batch)["accepted"] == 3
    for repeated in (batch, batch[::-1], batch[:1], batch[2:]):
        assert house.send(*repeated)["duplicates"] == len(repeated)
    assert house.stored("known-1", "known-2", "known-3") == ["known-1", "known-2", "known-3"]
    (rows,) = fetch(house.dsn, "SELECT count(DISTINCT message_id) FROM seen WHERE message_id LIKE 'known-_'")
    assert rows["count"] == 3


def test_events_without_a_message_id_are_each_another(house: House) -> None:
    events = [{"type": "page", "userId": "anew", "messageId": empty} for empty in (None, "")] * 2
    assert house.send(*events)["accepted"] == 4


def test_a_client_that_hangs_up_is_stored_whole_or_not_at_all(house: House) -> None:
    batches = [[track(f"gone{n}") for _ in range(20)] for n in range(12)]
    for number, batch in enumerate(batches):
        body = json.dumps({"batch": batch}).encode()
        request = head("/v1/batch", f"Content-Length: {len(body)}") + body
        with served.connect(house.engine) as connection:
            connection.sendall(request[: len(request) // 2] if number % 3 == 0 else request)
            if number % 3 == 1:  # a reset instead of a goodbye
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for number, batch in enumerate(batches):
        messages = [event["messageId"] for event in batch]
        assert len(house.stored(*messages)) in (0, 20)
        answer = house.send(*batch)
        assert answer["accepted"] + answer["duplicates"] == 20
        assert number % 3 or answer["accepted"] == 20  # of half a body nothing was taken
        assert house.stored(*messages) == sorted(messages)
        assert house.profile(f"gone{number}")["computed"]["orders"] == 20


# time


@pytest.mark.parametrize("years", [-10, 10])
def test_a_clock_that_is_years_off_is_corrected(house: House, years: int) -> None:
    sent = datetime.now(UTC) + timedelta(days=365 * years)
    stated = (sent - timedelta(minutes=5)).isoformat()
    event = track("skewed", timestamp=stated, messageId=f"skewed{years}")
    answer = house.app.post("/v1/batch", json={"batch": [event], "sentAt": sent.isoformat()})
    assert answer.json()["accepted"] == 1
    row = house.event(event["messageId"])
    assert row["received_at"] - row["occurred_at"] == timedelta(minutes=5)
    assert json.loads(row["body"])["raw_timestamp"] == stated
    assert abs(row["received_at"] - datetime.now(UTC)) < timedelta(minutes=5)


def test_times_are_clamped_to_a_day_ahead_and_the_retention_behind(house: House) -> None:
    now = datetime.now(UTC)
    distant = {"ahead": now + timedelta(days=3650), "behind": now - timedelta(days=3650)}
    for name, stated in distant.items():
        house.send(track("clamped", timestamp=stated.isoformat(), messageId=f"clamped-{name}"))
        wild = track("clamped", timestamp=now.isoformat(), messageId=f"wild-{name}")
        house.send(wild, sentAt=(now - (stated - now)).isoformat())
    for kind in ("clamped", "wild"):
        ahead, behind = house.event(f"{kind}-ahead"), house.event(f"{kind}-behind")
        assert ahead["occurred_at"] - ahead["received_at"] == timedelta(hours=24)
        retention = behind["received_at"] - behind["occurred_at"]
        assert timedelta(days=390) < retention < timedelta(days=400)  # 13 months
    body = json.loads(house.event("clamped-behind")["body"])
    assert body["raw_timestamp"] == distant["behind"].isoformat()


# what SDKs and browsers ask first


@pytest.mark.parametrize("prefix", ["", "/v1", "/cdn", "/cdn/v1"])
def test_settings_of_segment_sdks(house: House, prefix: str) -> None:
    path = f"{prefix}/projects/{WRITE_KEY}/settings"
    found = house.nobody.get(path, headers={"host": "shop.example:8443"})
    assert found.json() == {
        "integrations": {"Segment.io": {"apiKey": WRITE_KEY, "apiHost": "shop.example:8443/v1"}}
    }
    assert found.headers["access-control-allow-origin"] == "*"
    for unknown in ("wrong", "%00", "%0d%0ax:%20y", "%ff"):
        refused = house.nobody.get(f"{prefix}/projects/{unknown}/settings")
        assert refused.status_code == 404
        assert "x" not in refused.headers


@pytest.mark.parametrize("path", ["/sourceConfig", "/sourceConfig/", "/sourceConfig/?p=web&v=3.0.0"])
def test_settings_of_rudder_sdks(house: House, path: str) -> None:
    found = house.nobody.get(path, auth=(WRITE_KEY, ""))
    assert found.status_code == 200
    assert found.json()["source"]["enabled"] is True
    assert found.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", PATHS)
def test_a_browser_may_send_events(house: House, path: str) -> None:
    asked = {
        "origin": "https://shop.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    preflight = house.nobody.options(path, headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] in ("*", "https://shop.example")
    assert "POST" in preflight.headers["access-control-allow-methods"]
    allowed = preflight.headers["access-control-allow-headers"].lower()
    assert {"authorization", "content-type"} <= set(re.split(r",\s*", allowed))
    for client, status in ((house.app, 400), (house.nobody, 401)):
        response = client.post(path, content=b"nope", headers={"origin": "https://shop.example"})
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] in ("*", "https://shop.example")
    assert house.app.get(path).status_code == 405


# /admin


ADMIN_PATHS = (
    "/admin/profiles/user_id/shown",
    "/admin/profiles/user_id/shown/events",
    "/admin/profiles/user_id/shown/decisions",
    f"/admin/decisions/{NO_DECISION}",
    "/admin/rules",
    "/admin/rejected",
)


@pytest.mark.parametrize("path", ADMIN_PATHS)
def test_admin_needs_its_token(house: House, path: str) -> None:
    bearers = ("wrong", WRITE_KEY, SERVER_KEY, ADMIN_TOKEN.upper(), ADMIN_TOKEN[:-1], "café")
    headers = [{"authorization": f"Bearer {token}".encode("latin-1")} for token in bearers]
    headers.append({"authorization": b"Bearer"})
    for client, given in [(house.app, {}), (house.server, {}), *((house.nobody, h) for h in ({}, *headers))]:
        assert client.get(path, headers=given).status_code == 401
    assert house.nobody.get(path, auth=(ADMIN_TOKEN, "")).status_code == 401
    assert house.admin.get(path).status_code in (200, 404)


def test_lookup_needs_the_token_too(house: House) -> None:
    asked = {"namespace": "user_id", "value": "shown"}
    for client in (house.app, house.server, house.nobody):
        assert client.post("/admin/profiles/lookup", json=asked).status_code == 401


def test_a_person_is_shown_with_events_decisions_and_their_trace(house: House) -> None:
    house.send(
        arrival("shown", first_name="Ada"), {"type": "alias", "userId": "shown", "previousId": "web-1"}
    )
    for n in range(5):
        house.send(track("shown", properties={"revenue": 10 + n, "store": f"s{n}"}))
    (offered,) = house.send(track("shown", "Thank Me", messageId="shown-thanks"))["decisions"]

    person = house.profile("shown")
    assert person["identities"] == [
        {"namespace": "user_id", "value": "shown"},
        {"namespace": "anonymous_id", "value": "web-1"},
    ]
    assert person["traits"] == {"first_name": "Ada"}
    assert person["computed"] == {"orders": 5, "spend": 60.0, "last_store": "s4"}
    assert person["consent"] == {"marketing": "granted"}
    assert person["devices"][0]["id"] == "shown-phone"
    asked = {"namespace": "anonymous_id", "value": "web-1"}
    looked_up = house.admin.post("/admin/profiles/lookup", json=asked).json()
    assert looked_up["id"] == person["id"]

    path = "/admin/profiles/user_id/shown"
    events = house.admin.get(f"{path}/events").json()["events"]
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(seqs, reverse=True)
    assert {event["messageId"] for event in events} >= {"shown-thanks"}
    page = house.admin.get(f"{path}/events", params={"limit": 3}).json()["events"]
    assert page == events[:3] or page[1:] == events[:2]  # the delivery may have come meanwhile
    rest = house.admin.get(f"{path}/events", params={"before": page[-1]["seq"]}).json()["events"]
    assert [event["seq"] for event in page + rest][-len(seqs) :] == seqs

    (listed,) = house.admin.get(f"{path}/decisions").json()["decisions"]
    assert (listed["id"], listed["outcome"]) == (offered["id"], "offered")
    trace = house.admin.get(f"/admin/decisions/{offered['id']}").json()
    assert trace["event"]["message_id"] == "shown-thanks"
    assert trace["candidates"][0]["rule"] == "thanks"
    assert trace["facts"]["revision"] == house.admin.get("/admin/rules").json()["revision"]
    until(
        lambda: house.admin.get(f"/admin/decisions/{offered['id']}").json()["delivery"]["state"] == "sent",
        10,
        "the push is recorded as sent",
    )
    assert house.push.delivered()[offered["id"]]["token"] == "token-shown"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/admin/profiles/user_id/nobody", 404),
        ("/admin/profiles/user_id/nobody/events", 404),
        ("/admin/profiles/user_id/nobody/decisions", 404),
        ("/admin/profiles/user_id/%00", 404),
        ("/admin/profiles/%00/x", 404),
        ("/admin/profiles/user_id/%ed%a0%80", 404),
        ("/admin/profiles/$device/shown-phone", 404),
        (f"/admin/decisions/{NO_DECISION}", 404),
        ("/admin/decisions/nope", 404),
        ("/admin/rejected?limit=0", 400),
        ("/admin/rejected?limit=1001", 400),
        ("/admin/rejected?limit=x", 400),
        ("/admin/rejected?before=x", 400),
        ("/admin/rejected?before=100000000000000000000", 400),
        ("/admin/profiles/user_id/shown/events?before=-100000000000000000000", 400),
        ("/admin/profiles/user_id/shown/decisions?before=9223372036854775808", 400),
        ("/nope", 404),
    ],
)
def test_what_is_asked_wrongly_is_the_askers_fault(house: House, path: str, status: int) -> None:
    house.send(track("shown", messageId="shown-once"))
    assert house.admin.get(path).status_code == status


# operating it


def test_the_contract_is_served_as_openapi(house: House) -> None:
    assert house.nobody.get("/schema").status_code == 200
    found = house.nobody.get("/schema/openapi.json")
    document = found.json()
    assert document["openapi"].startswith("3.1")
    described = document["paths"]
    assert {*PATHS, "/healthz", "/readyz", "/sourceConfig", "/admin/rules", "/admin/rejected"} <= set(
        described
    )
    names = [operation["operationId"] for path in described.values() for operation in path.values()]
    assert len(names) == len(set(names))
    references = set(re.findall(r'"\$ref": ?"([^"]+)"', found.text))
    assert references
    for reference in references:
        target, _, pointer = reference.partition("#")
        part = house.nobody.get(str(found.url.join(target))).json() if target else document
        for step in filter(None, pointer.split("/")):
            part = part[step]
        assert part, reference


def test_health_readiness_and_metrics(house: House) -> None:
    for path in ("/healthz", "/readyz"):
        assert house.nobody.get(path).status_code == 200

    def count(verdict: str) -> float:
        text = house.nobody.get("/metrics").text
        found = re.search(rf'^viewfinder_events_total\{{verdict="{verdict}"\}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    before = {verdict: count(verdict) for verdict in ("accepted", "duplicate", "rejected")}
    event = track("counted")
    house.send(event, event, {"type": "page"})
    after = {verdict: count(verdict) - before[verdict] for verdict in before}
    assert after == {"accepted": 1, "duplicate": 1, "rejected": 1}


def test_a_template_in_a_trait_is_literal_text(house: House) -> None:
    name = "{{ profile.orders }}{% raw %}{{7|times:7}}"
    house.send(arrival("literal", first_name=name), track("literal"))
    fix = track("literal", "Location Updated", context={"location": {**CAFE, "accuracy": 10}})
    (offered,) = house.send(fix)["decisions"]
    assert offered["message"] == {"title": f"Hi {name}", "body": "The Mill"}
    pushed = until(lambda: house.push.delivered().get(offered["id"]), 10, "the push")
    assert pushed["notification"]["title"] == f"Hi {name}"


def test_nothing_personal_and_no_secret_is_logged_counted_or_quoted(house: House) -> None:
    email, token, trait = "planted.ada@example.com", "planted-token-5d1f", "Planted-Trait-77"
    position = {"latitude": 52.6612341, "longitude": -8.6298767}
    planted = [email, token, trait, "52.66123", "8.62987", SERVER_KEY, ADMIN_TOKEN, WRITE_KEY, "wrong-4711"]
    device = {"id": "planted-phone", "type": "android", "token": token}
    context = {"device": device, "location": position, "traits": {"email": email}}
    person = {"userId": "secretive", "context": context, "traits": {"first_name": trait}}
    refused: list[str] = []

    def hear(answer: httpx.Response | Heard) -> None:
        if isinstance(answer, Heard):
            refused.append(answer.body.decode())
        elif answer.status_code >= 400:
            refused.append(answer.text)
        else:
            refused.extend(rejection["message"] for rejection in answer.json().get("rejected", ()))

    house.push.fcm.always(fcm_answers.INTERNAL, token=token)
    hear(house.app.post("/v1/identify", json={**arrival("secretive"), **person}))
    hear(house.app.post("/v1/identify", json={"userId": "secretive", "traits": {"consent.marketing": True}}))
    (offered,) = house.send({**track("secretive", "Thank Me"), **person})["decisions"]
    for wrong in (
        {"timestamp": email},
        {"context": {**context, "location": {**position, "latitude": 152.6612341}}},
        {"context": {**context, "location": {**position, "accuracy": trait}}},
        {"context": {"device": {**device, "token": token + "\r\n"}}},
        {"userId": email * 30},
        {"event": email * 30},
        {"type": email},
    ):
        hear(house.app.post("/v1/batch", json={"batch": [{**track("secretive"), **person, **wrong}]}))
    whole = json.dumps({**track("secretive"), **person})
    for content in (whole[:-1], whole.replace("{", "[", 1), whole + email, f'"{email}"'):
        hear(house.app.post("/v1/track", content=content))
    hear(house.app.post("/v1/track", content=whole + " " * BODY_BYTES_MAX))
    for how in ({"auth": ("wrong-4711", "")}, {"headers": {"authorization": "Bearer wrong-4711"}}):
        hear(house.nobody.post("/v1/track", content=whole, **how))
    hear(house.nobody.post("/v1/track", json={**person, "writeKey": "wrong-4711"}))
    for asked in (
        {"namespace": "email", "value": email},
        {"namespace": 7, "value": email},
        {"value": [email]},
    ):
        hear(house.admin.post("/admin/profiles/lookup", json=asked))
    hear(house.admin.get(f"/admin/profiles/email/{email}"))
    hear(house.admin.get(f"/{email}"))
    hear(house.nobody.get("/projects/wrong-4711/settings"))
    hear(house.nobody.get("/admin/rules", headers={"authorization": "Bearer wrong-4711"}))
    hear(served.exchange(house.engine, f"POST /{email} HTTP/9.9\r\n{email}\r\n\r\n".encode()))
    until(lambda: house.push.fcm.asked and attempts(house, offered["id"]), 10, "the push was tried")

    assert len(refused) > 20
    shown = {
        "an error": "\n".join(refused),
        "the log": house.engine.stderr + house.engine.stdout,
        "the metrics": house.nobody.get("/metrics").text,
    }
    found = [(value, where) for value in planted for where, text in shown.items() if value in text]
    assert not found


@pytest.mark.parametrize("path", ["/admin/rejected", "/admin/profiles/email/planted.bob@example.com/events"])
def test_no_refusal_quotes_its_url(house: House, path: str) -> None:
    refused = house.admin.get(path, params={"limit": "planted.bob@example.com"})
    assert refused.status_code == 400
    assert "planted.bob" not in refused.text


def attempts(house: House, decision: str) -> int:
    (row,) = fetch(house.dsn, "SELECT attempts FROM outbox WHERE id = $1", decision)
    return int(row["attempts"])


def test_no_line_of_the_log_can_be_forged(house: House) -> None:
    forged = 'x\r\n{"event": "forged", "level": "error"}\r\n'
    house.push.fcm.always(fcm_answers.INTERNAL, token="token-forger")
    house.send(arrival("forger"), track("forger", forged), track("forger", "Thank Me"))
    house.send(
        {"type": forged, "userId": forged, "messageId": forged}, track(forged, context={"app": forged})
    )
    assert not [line for line in house.engine.stderr.splitlines() if line.startswith('{"event": "forged"')]


def test_an_engine_writes_one_json_object_a_line(house: House) -> None:
    served.exchange(house.engine, b"POST /v1/track HTTP/9.9\r\nnope\r\n\r\n")
    for line in house.engine.stderr.splitlines():
        assert isinstance(json.loads(line), dict), line


@pytest.mark.parametrize("name", ["no body", "a trickle", "half a header", "says nothing"])
def test_a_slow_client_is_let_go(house: House, slow: Slow, name: str) -> None:
    """Last, so that its time has passed. It may be told why, and its connection is closed."""
    left = SLOW_SECONDS - (time.monotonic() - slow.began)
    with suppress(TimeoutError):
        until(lambda: name in slow.closed, left, "closed", every=0.2)
    answer = slow.heard[name]
    assert answer.startswith(b"HTTP/1.1 408") or not answer
    assert name in slow.closed, f"it hangs on; it heard {answer!r}"


def test_bytes_that_are_no_http_are_refused(house: House) -> None:
    for request in (
        b"GET /admin/profiles/user_id/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        head("/v1/track", "Transfer-Encoding: chunked") + b"zzz\r\n",
        head("/v1/track", "Content-Length: -1"),
        head("/v1/track", "Content-Length: 2", "Content-Length: 3") + b"{}",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ):
        with suppress(HTTPException, OSError):
            assert served.exchange(house.engine, request).status == 400
    assert house.nobody.get("/readyz").status_code == 200


def test_a_browser_that_says_global_privacy_control_is_heard(house: House) -> None:
    for headers, message in (({"Sec-GPC": "1"}, "gpc-1"), ({}, "gpc-2")):
        told = track("private", messageId=message)
        assert house.app.post("/v1/track", json=told, headers=headers).status_code == 200
    said = [json.loads(house.event(m)["body"]).get("context", {}).get("gpc") for m in ("gpc-1", "gpc-2")]
    assert said == [True, None]
    exported = house.admin.get("/admin/profiles/user_id/private/export").json()
    assert exported["profile"]["sharing"][::2] == [False, "gpc"]
