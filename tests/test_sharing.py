"""What receivers are told of people: from a real engine over real sockets, through failures and kills."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nats
import pytest
from jsonschema import Draft202012Validator

from tests.hooks import Answer, Heard, Receiver, is_signed_by, receiving_apart
from tests.served import Served, command, database, fetch, serve, until, write_workspace
from tests.streams import nats_server, needs_nats
from tests.test_receivers import ALLOW, add

WORKSPACE = b"""
timezone: Europe/Dublin
consent:
  purposes:
    marketing: {basis: consent}
    service: {basis: contract}
    analytics: {basis: consent}
  labels: {personal: [marketing, service], sensitive: [service]}
identities:
  - {namespace: user_id, one: true}
  - {namespace: email, from: [traits.email]}
  - {namespace: anonymous_id}
traits:
  first_name: {type: string, label: personal}
  email: {type: string, label: personal}
  illness: {type: string, label: sensitive}
  colour: {type: string}
computed:
  orders: {count: Order Completed}
  illnesses: {distinct: event.traits.illness, of: Told}
"""
RULES = b"""
audiences:
  buyers: profile.orders >= 2
  ill: profile.illness == "flu"
offers:
  thanks: {purpose: marketing, message: {push: {title: "Thanks {{ profile.first_name }}", body: "!"}}}
rules:
  thanks: {when: Order Completed, offer: thanks}
  again: {when: {audience: buyers, change: entered}, offer: thanks}
  well: {when: {audience: ill, change: entered}, do: tell-doctor}
actions:
  tell-doctor: {purpose: service, webhook: doctor, body: {}}
"""
SCHEMA = Path(__file__).parent.parent / "sdk_contract" / "schemas" / "told.json"
TOPICS = ["profiles", "audiences", "decisions", "deliveries"]


@pytest.fixture
def dsn(postgres: str) -> Iterator[str]:
    with database(postgres, f"sharing_{time.monotonic_ns()}") as dsn:
        yield dsn


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving_apart() as one:
        yield one


def tell(served: Served, *events: dict[str, Any], key: str | None = None) -> None:
    with served.client(*([key] if key else [])) as client:
        answer = client.post("/v1/batch", json={"batch": list(events)})
    assert answer.status_code == 200
    assert answer.json()["rejected"] == []


def arrives(user: str, number: int = 0, **traits: Any) -> dict[str, Any]:
    return {
        "type": "identify",
        "userId": user,
        "messageId": f"{user}-i{number}",
        "traits": {"consent": {"marketing": "granted"}, **traits},
    }


def buys(user: str, number: int, **others: Any) -> dict[str, Any]:
    event = {"type": "track", "event": "Order Completed", "userId": user, "messageId": f"{user}-o{number}"}
    return {**event, **others}


def by_type(heard: Sequence[Heard]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for one in heard:
        found.setdefault(one.json["type"], []).append(one.json)
    return found


def nothing_waits(dsn: str) -> bool:
    return not fetch(dsn, "SELECT 1 FROM changes UNION ALL SELECT 1 FROM change_queues")


def assert_ordered(bodies: Sequence[Any]) -> None:
    """Of each person in order, apart from repeats of what was told already."""
    told: dict[str, list[str]] = {}
    newest: dict[str, int] = {}
    for body in bodies:
        person = body["profile"]["id"]
        if body["id"] in told.setdefault(person, []):
            continue
        told[person].append(body["id"])
        assert body["profile"]["version"] >= newest.get(person, 0)
        newest[person] = body["profile"]["version"]


def test_what_is_told_and_what_is_not(tmp_path: Path, dsn: str, receiver: Receiver) -> None:
    write_workspace(tmp_path / "rules", WORKSPACE, RULES)
    with receiving_apart() as counter, serve(tmp_path, dsn, **ALLOW) as served:
        add(served, "crm", receiver, topics=TOPICS, purpose="marketing")
        add(served, "count", counter, topics=["profiles", "decisions"], purpose="analytics")
        ada = arrives("ada", first_name="Ada", email="ada@x.example", illness="flu", colour="red", shoe=9)
        tell(served, ada, buys("ada", 1), buys("ada", 2))
        tell(served, arrives("bob", consent={"marketing": "denied"}), buys("bob", 1))
        until(lambda: nothing_waits(dsn), 240, "everything told")
        tell(served, arrives("ada", 1, consent={"marketing": "denied"}), buys("ada", 3))
        tell(served, arrives("ada", 2, consent={"marketing": "granted"}))
        tell(served, {**buys("ada", 4), "context": {"gpc": True}}, buys("ada", 5))
        until(lambda: nothing_waits(dsn), 240, "everything told")
        assert counter.heard == []  # nobody allowed it
        with served.admin() as admin:
            metrics = admin.get("/metrics").text
    told = by_type(receiver.taken)
    state = told["profile.changed"][-1]
    assert {i["namespace"]: i["value"] for i in state["profile"]["identities"]} == {
        "user_id": "ada",
        "email": "ada@x.example",
    }
    # Neither what this purpose may not read, nor what rests on it, nor what nobody declared.
    assert state["state"]["traits"] == {"first_name": "Ada", "email": "ada@x.example", "colour": "red"}
    assert state["state"]["computed"] == {"orders": 3}
    assert state["state"]["consent"] == {"marketing": "granted", "service": "unknown", "analytics": "unknown"}
    assert state["state"]["audiences"] == ["buyers"]
    assert [one["audience"] for one in told["audience.entered"]] == ["buyers"]
    assert {one["decision"]["rule"] for one in told["decision.made"]} <= {"thanks", "again"}
    assert all("message" not in one["decision"] for one in told["decision.made"])
    judge = Draft202012Validator(json.loads(SCHEMA.read_text()))
    for heard in receiver.taken:
        judge.validate(heard.json)
    assert b"bob" not in b"".join(h.body for h in receiver.heard)
    assert b"flu" not in b"".join(h.body for h in receiver.heard)
    assert 'receiver="crm",topic="profiles"' in metrics
    assert "ada" not in metrics
    assert_ordered([h.json for h in receiver.taken])


def test_a_burst_ends_in_its_last_state(tmp_path: Path, dsn: str, receiver: Receiver) -> None:
    write_workspace(tmp_path / "rules", WORKSPACE, RULES)
    receiver.answers = lambda _: Answer(503, "retry-after: 1\r\n")
    with serve(tmp_path, dsn, **ALLOW) as served:
        add(served, "crm", receiver, topics=["profiles", "decisions"], purpose="marketing")
        tell(served, arrives("ada", first_name="Ada"))
        until(lambda: receiver.heard, 120, "a first try")
        for n in range(10):
            tell(served, arrives("ada", n + 1, colour=f"c{n}"))
        tell(served, buys("ada", 1))
        receiver.answers = lambda _: Answer(200)
        until(lambda: nothing_waits(dsn), 240, "everything told")
    told = by_type(receiver.taken)
    assert len(told["profile.changed"]) == 1
    assert told["profile.changed"][0]["state"]["computed"] == {"orders": 1}
    assert len(told["decision.made"]) == 1


def test_dead_letters_and_erasure(tmp_path: Path, dsn: str, receiver: Receiver) -> None:
    write_workspace(tmp_path / "rules", WORKSPACE, RULES)
    receiver.answers = lambda h: Answer(400 if b"ada" in h.body else 200)

    def run(*arguments: str) -> Any:
        done = command(tmp_path, "receivers", *arguments, "--json", dsn=dsn, **ALLOW)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    with serve(tmp_path, dsn, **ALLOW) as served:
        add(served, "crm", receiver, topics=["profiles", "decisions"], purpose="marketing")
        tell(served, arrives("ada"), buys("ada", 1), arrives("bob"))
        until(lambda: any(b"bob" in h.body for h in receiver.taken), 120, "one who is not held up")
        assert run("dead-letters", "crm") == []
        long_ago = "UPDATE changes SET since = since - interval '2 days'"
        fetch(dsn, long_ago)
        until(lambda: fetch(dsn, "SELECT 1 FROM changes WHERE state = 'dead'"), 120, "a dead letter")
        until(lambda: not fetch(dsn, "SELECT 1 FROM change_queues"), 120, "all of them dead")
        letters = run("dead-letters", "crm")
        assert {(x["type"], x["code"]) for x in letters} >= {("profile.changed", "http_400")}
        assert "ada" not in json.dumps(letters)
        receiver.answers = lambda _: Answer(200)
        with served.admin() as admin:
            listed = admin.get("/admin/receivers/crm/dead-letters").json()["deadLetters"]
            assert [x["id"] for x in listed] == [x["id"] for x in letters]
            one = admin.post("/admin/receivers/crm/requeue", json={"id": letters[-1]["id"]})
            assert one.json() == {"requeued": 1}
        until(lambda: any(h.id == letters[-1]["id"] for h in receiver.taken), 120, "one of them")
        assert run("requeue", "crm")["requeued"] == len(letters) - 1
        until(lambda: {x["id"] for x in letters} <= {h.id for h in receiver.taken}, 120, "the others")
        receiver.answers = lambda _: Answer(400)
        tell(served, arrives("ada", 1, colour="planted-blue"))
        until(lambda: fetch(dsn, "SELECT 1 FROM changes"), 120, "something that waits")
        with served.admin() as admin:
            assert "planted-blue" in admin.get("/admin/profiles/user_id/ada/export").text
            assert admin.delete("/admin/profiles/user_id/ada").status_code == 202
        assert nothing_waits(dsn)
    report = command(tmp_path, "privacy", "report", dsn=dsn).stdout
    assert "crm (profiles, decisions)" in report


def test_two_people_become_one(tmp_path: Path, dsn: str, receiver: Receiver) -> None:
    write_workspace(tmp_path / "rules", WORKSPACE, RULES)
    with serve(tmp_path, dsn, **ALLOW) as served:
        add(served, "crm", receiver, topics=["profiles"], purpose="marketing")
        tell(served, {**arrives("", 1), "anonymousId": "a1"}, arrives("ada"))
        until(lambda: len(receiver.taken) >= 2 and nothing_waits(dsn), 120, "two people")
        tell(served, {**arrives("ada", 2), "anonymousId": "a1"})
        until(lambda: "profile.merged" in by_type(receiver.taken) and nothing_waits(dsn), 120, "a merge")
    told = by_type(receiver.taken)
    (merged,) = told["profile.merged"]
    assert {i["value"] for i in told["profile.changed"][-1]["profile"]["identities"]} == {"ada", "a1"}
    assert merged["into"] == told["profile.changed"][-1]["profile"]["id"] != merged["profile"]["id"]


async def subscribed(url: str) -> list[tuple[str, dict[str, str], Any]]:
    """Everything that the stream has, in its order."""
    client = await nats.connect(url)
    try:
        jetstream = client.jetstream()
        info = await jetstream.stream_info("VIEWFINDER")
        found = []
        for seq in range(info.state.first_seq, info.state.last_seq + 1):
            message = await jetstream.get_msg("VIEWFINDER", seq)
            found.append((message.subject, dict(message.headers or {}), json.loads(message.data or b"")))
        return found
    finally:
        await client.close()


@needs_nats
def test_nothing_is_lost_and_nobodys_order(tmp_path: Path, dsn: str, receiver: Receiver) -> None:
    """A webhook that fails every third time and a stream across its restarts, with the engine killed
    meanwhile: every decision is told once it was made, each person's in order, all of it signed."""
    write_workspace(tmp_path / "rules", WORKSPACE, RULES)
    receiver.answers = lambda _: Answer(500 if len(receiver.heard) % 3 == 0 else 200)
    people = [f"u{n}" for n in range(12)]
    with nats_server(tmp_path / "nats") as stream:
        with serve(tmp_path, dsn, **ALLOW) as served:
            secret = add(served, "crm", receiver, topics=TOPICS, purpose="marketing")
            with served.admin() as admin:
                wish = {"name": "bus", "url": stream.url, "topics": TOPICS, "purpose": "marketing"}
                refused = admin.post("/admin/receivers", json=wish)
                assert "no stream for viewfinder.>" in refused.json()["message"]
                made = admin.post("/admin/receivers", json={**wish, "createStream": True})
                assert made.status_code == 201, made.text
            tell(served, *(arrives(user, first_name=user) for user in people))
            for round_ in range(6):
                tell(served, *(buys(user, round_) for user in people))
                if round_ == 2:
                    stream.stop(signal.SIGKILL)
            served.kill()
        with serve(tmp_path, dsn, **ALLOW) as served:
            for round_ in range(6, 9):
                tell(served, *(buys(user, round_) for user in people))
            stream.start()
            until(lambda: nothing_waits(dsn), 240, "everything told")
        streamed = asyncio.run(subscribed(stream.url))
    decided = {str(r["id"]) for r in fetch(dsn, "SELECT id FROM decisions")}
    assert len(decided) >= 9 * len(people)
    by_hook = [h.json for h in receiver.taken]
    by_stream = [body for _, _, body in streamed]
    for bodies in (by_hook, by_stream):
        assert {b["decision"]["id"] for b in bodies if b["type"] == "decision.made"} == decided
        assert len({b["profile"]["id"] for b in bodies if b["type"] == "audience.entered"}) == len(people)
        assert_ordered(bodies)
    assert all(is_signed_by(h, secret) for h in receiver.heard)
    ids = [headers["Nats-Msg-Id"] for _, headers, _ in streamed]
    assert ids == [f"bus.{body['id']}" for body in by_stream]
    assert len(ids) == len(set(ids))  # within the stream's window repeats are dropped
    subjects = {subject.rpartition(".")[0] for subject, _, _ in streamed}
    assert subjects == {"viewfinder.profiles", "viewfinder.audiences", "viewfinder.decisions"}
    for subject, _, body in streamed:
        assert subject.endswith(f".{int(body['profile']['id'][:2], 16):03}")
