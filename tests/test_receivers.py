"""Receivers: taken in, shown once, told of actions over real sockets, and told nothing more when gone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.adapters.addresses import NOTHING_ALLOWED, allowed
from engine.app.registering import NotTaken, Wish, taken
from tests import lanes
from tests.hooks import Answer, Heard, Receiver, is_signed_by, receiving_apart
from tests.served import Served, command, database, fetch, serve, until, write_workspace

RULES = b"""
actions:
  tell-kitchen: {purpose: service, webhook: kitchen, body: {order: "{{ event.properties.order }}"}}
  tell-bar: {purpose: service, webhook: bar, body: {order: "{{ event.properties.order }}"}}
rules:
  kitchen: {when: Order Placed, do: tell-kitchen}
  bar: {when: Drink Ordered, do: tell-bar}
"""
WORKSPACE = b"""
timezone: Europe/Dublin
consent:
  purposes:
    marketing: {basis: consent}
    service: {basis: contract}
traits:
  first_name: {type: string, label: personal}
"""
ALLOW = {"RECEIVERS_ALLOW": "127.0.0.1"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving_apart() as one:
        yield one


@pytest.fixture
def dsn(postgres: str) -> Iterator[str]:
    with database(postgres, f"receivers_{time.monotonic_ns()}") as dsn:
        yield dsn


def order(served: Served, number: int, name: str = "Order Placed") -> None:
    with served.client() as client:
        body = {"userId": f"u{number}", "event": name, "messageId": f"m{number}"}
        answer = client.post("/v1/track", json={**body, "properties": {"order": f"o{number}"}})
    assert answer.json()["accepted"] == 1


def add(served: Served, name: str, one: Receiver, **others: object) -> str:
    with served.admin() as admin:
        answer = admin.post("/admin/receivers", json={"name": name, "url": one.url, **others})
    assert answer.status_code == 201, answer.text
    secret: str = answer.json()["secret"]
    assert secret.startswith("whsec_")
    return secret


def said(heard: list[Heard]) -> list[str]:
    return sorted(one.json["order"] for one in heard)


def test_actions_go_to_the_receiver_that_they_name(tmp_path: Path, dsn: str, receiver: Receiver) -> None:
    """Every third answer is a failure, one receiver hangs, one is taken in late, and the engine is killed."""
    write_workspace(tmp_path / "rules", WORKSPACE, RULES)
    with receiving_apart() as slow:
        slow.answers = lambda _: Answer(delay_seconds=3600)
        receiver.answers = lambda _: Answer(500 if len(receiver.heard) % 3 == 0 else 200)
        with serve(tmp_path, dsn, **ALLOW) as served:
            until(lambda: "receiver_unknown" in served.stderr, 120, "a warning")
            order(served, 0)  # waits for a receiver that nobody took in yet
            add(served, "bar", slow)
            for n in range(1, 6):
                order(served, n, "Drink Ordered")
            secret = add(served, "kitchen", receiver)
            for n in range(6, 20):
                order(served, n)
            until(lambda: len({h.id for h in receiver.taken}) >= 8, 120, "some calls")
            served.kill()
        with serve(tmp_path, dsn, **ALLOW) as served:
            wanted = sorted(f"o{n}" for n in (0, *range(6, 20)))
            until(lambda: sorted(set(said(receiver.taken))) == wanted, 240, "all calls")
            with served.admin() as admin:
                shown = admin.get("/admin/receivers/kitchen").json()
                metrics = admin.get("/metrics").text
    assert all(is_signed_by(h, secret) for h in receiver.heard)
    assert (shown["kind"], shown["topics"]) == ("webhook", [])
    assert secret not in json.dumps(shown)
    assert 'viewfinder_sends_total{code="",outcome="sent",provider="receiver:kitchen"}' in metrics
    decisions = {str(r["id"]) for r in fetch(dsn, "SELECT id FROM decisions WHERE offer = 'tell-kitchen'")}
    assert {h.id for h in receiver.taken} == decisions


def test_one_that_is_gone_is_told_nothing_more(tmp_path: Path, dsn: str, receiver: Receiver) -> None:
    write_workspace(tmp_path / "rules", WORKSPACE, RULES)
    receiver.answers = lambda _: Answer(410)
    with serve(tmp_path, dsn, **ALLOW) as served:
        secret = add(served, "kitchen", receiver)
        order(served, 1)

        def disabled() -> str | None:
            with served.admin() as admin:
                found: str | None = admin.get("/admin/receivers/kitchen").json()["disabledBecause"]
            return found

        assert until(disabled, 120, "disabled") == "it answered 410 Gone"
        order(served, 2)
        receiver.answers = lambda _: Answer(200)
        with served.admin() as admin:
            rotated = admin.post("/admin/receivers/kitchen/rotate").json()["secret"]
            assert admin.post("/admin/receivers/kitchen/enable").json()["disabledBecause"] is None
        until(lambda: said(receiver.taken) == ["o2"], 120, "what waited")
        assert all(is_signed_by(receiver.taken[0], one) for one in (secret, rotated))
        with served.admin() as admin:
            assert admin.post("/admin/receivers/kitchen/test").json() == {"taken": True, "code": None}
            assert receiver.taken[-1].json["type"] == "test"
            assert admin.delete("/admin/receivers/kitchen").status_code == 204
            assert admin.get("/admin/receivers/kitchen").status_code == 404
    log = [
        json.loads(x) for x in command(tmp_path, "privacy", "audit", "--json", dsn=dsn).stdout.splitlines()
    ]
    assert "POST /admin/receivers/kitchen/rotate" in [entry["action"] for entry in log]


def test_the_command(tmp_path: Path, dsn: str, receiver: Receiver) -> None:
    write_workspace(tmp_path / "rules", WORKSPACE, RULES)

    def run(*arguments: str, **settings: str) -> tuple[int, str, str]:
        done = command(tmp_path, "receivers", *arguments, dsn=dsn, **(settings or ALLOW))
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    warned = command(tmp_path, "check", dsn=dsn)
    assert warned.returncode == 0
    assert 'rules.yaml:3:45: warning: there is no receiver "kitchen"' in warned.stdout
    assert run("add", "kitchen", receiver.url, RECEIVERS_ALLOW="10.0.0.0/8")[:1] == (1,)
    code, secret, _ = run(
        "add", "kitchen", receiver.url, "--topics", "profiles,audiences", "--purpose", "service"
    )
    assert (code, secret[:6]) == (0, "whsec_")
    assert run("add", "kitchen", receiver.url)[2] == 'error: there is a receiver "kitchen" already'
    assert run("add", "k", receiver.url, "--topics", "people")[0] == 2
    assert (
        'did you mean "service"?'
        in run("add", "k", receiver.url, "--topics", "profiles", "--purpose", "servce")[2]
    )
    assert run("test", "kitchen") == (0, "taken", "")
    assert is_signed_by(receiver.taken[0], secret)
    assert run("rotate", "kitchen")[1] != secret
    (listed,) = json.loads(run("list", "--json")[1])
    assert (listed["name"], listed["topics"], listed["purpose"]) == (
        "kitchen",
        ["profiles", "audiences"],
        "service",
    )
    assert secret not in run("show", "kitchen")[1]
    warned = command(tmp_path, "check", dsn=dsn)
    assert "kitchen" not in warned.stdout
    assert 'there is no receiver "bar"' in warned.stdout
    assert run("remove", "kitchen")[1] == "removed"
    assert run("show", "kitchen")[2] == 'error: there is no receiver "kitchen"'
    assert run("rotate")[0] == 2


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"name": "a b"}, "a name has"),
        ({"url": "ftp://x.example"}, "a receiver is at"),
        ({"url": "https://"}, "a receiver is at"),
        ({"url": "https://user:word@8.8.8.8/"}, "no user or password"),
        ({"url": "https://8.8.8.8/#x"}, "fragment"),
        ({"url": "https://8.8.8.8:99999/"}, "no URL"),
        ({"url": "http://8.8.8.8/"}, "use https"),
        ({"url": "https://127.0.0.1/"}, "of the inside"),
        ({"url": "https://2130706433/"}, "of the inside"),
        ({"url": "nats://[::1]:4222"}, "of the inside"),
        ({"topics": ["profiles"]}, "for a purpose"),
        ({"topics": ["profiles"], "purpose": "selling"}, 'no purpose "selling"'),
        ({"without": ["perzonal"]}, 'did you mean "personal"'),
    ],
)
async def test_what_is_not_taken_in(wish: dict[str, object], why: str) -> None:
    rules = lanes.rule_set(RULES, WORKSPACE)
    said = Wish(**{"name": "k", "url": "https://8.8.8.8/hook", **wish})  # type: ignore[arg-type]
    with pytest.raises(NotTaken, match=why):
        await taken(said, rules, NOTHING_ALLOWED, datetime.now(UTC))


async def test_what_is_taken_in() -> None:
    rules = lanes.rule_set(RULES, WORKSPACE)
    now = datetime.now(UTC)
    wish = Wish(name="k", url="http://127.0.0.1:1/", topics=["decisions", "profiles"], purpose="marketing")
    found = await taken(wish, rules, allowed(["127.0.0.0/8"]), now)
    assert (found.topics, found.purpose, found.made_at) == (("profiles", "decisions"), "marketing", now)
