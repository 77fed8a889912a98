"""Rules exchanged while the engine runs: whole or not at all, whatever tells it to look."""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.app import rulesets
from engine.app.rehearsal import Rehearsal
from engine.app.rule_builder import Builder, Packer
from engine.app.ruling import Ruling
from engine.domain.people.events import Event
from tests import lanes, served
from tests.conftest import open_folder
from tests.served import Served, until

SAMPLE = Path(__file__).parent.parent
SOON = 30.0
"""Seconds; on an idle machine it is under one."""

RULES = """
offers:
  gift-{n}: {{purpose: service, message: {{push: {{title: "Gift {n}", body: "{{{{ profile.orders }}}}"}}}}}}
rules:
  wish-{n}: {{when: Wish, if: 'profile.orders >= 0 && event.properties.k.matches("^a+$")', offer: gift-{n}}}
"""


def rules(number: int) -> bytes:
    """The n-th set: everything that a decision shows of it has its number."""
    return RULES.format(n=number).encode()


@pytest.fixture(scope="module")
def house(postgres: str) -> Iterator[tuple[Served, Path, str]]:
    """An engine, its rules' folder, its database."""
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        dsn = stack.enter_context(served.database(postgres, "reloaded"))
        served.write_workspace(folder / "rules", rules=rules(0))
        yield stack.enter_context(served.serve(folder, dsn)), folder / "rules", dsn


def standing(one: Served) -> dict[str, Any]:
    with one.admin() as admin:
        answer: dict[str, Any] = admin.get("/admin/rules").json()
    return answer


def wish(client: httpx.Client, user: str = "ada") -> dict[str, Any]:
    """What is decided on a wish."""
    body = {"type": "track", "userId": user, "event": "Wish", "properties": {"k": "aa"}}
    response = client.post("/v1/track", json=body)
    response.raise_for_status()
    (decision,) = response.json()["decisions"]
    assert isinstance(decision, dict)
    return decision


@contextmanager
def identified(one: Served, user: str = "ada") -> Iterator[httpx.Client]:
    """The business's server, and a person whom one may push to."""
    device = {"id": f"{user}-phone", "type": "android", "token": "t"}
    with one.client(served.SERVER_KEY) as client:
        client.post("/v1/identify", json={"userId": user, "context": {"device": device}}).raise_for_status()
        yield client


async def test_what_another_process_built_decides_alike() -> None:
    files = rulesets.read(SAMPLE / "rules", SAMPLE / "models")
    here = rulesets.build(files).ruling
    assert here is not None
    other = Ruling(here.rules, {})
    builder = Builder()
    try:
        built = await builder.build(files, other)
        again = await builder.build(files, here)
    finally:
        builder.close()
    assert built.ruling is not None
    assert built.ruling.rules.revision == here.rules.revision
    assert again.ruling is not None
    assert again.ruling.models["buy_again"] is here.models["buy_again"]  # not loaded twice
    near = lanes.Location(latitude=52.6500019, longitude=-8.636683, accuracy=8.0)
    told: list[list[Event]] = [
        [lanes.arrival("ada"), lanes.event(lanes.Kind.IDENTIFY, user="ada", consent={"location": True})],
        [lanes.event(name="Order Completed", user="ada", properties={"revenue": 30.0})],
        [lanes.event(name="Location Updated", user="ada", location=near, at=lanes.NOW)],
    ]
    rehearsals = [Rehearsal(here), Rehearsal(built.ruling)]
    decided = [[one.decisions for batch in told for one in r.tell(batch, lanes.NOW)] for r in rehearsals]
    assert decided[0] == decided[1]
    assert any(d.rule == "croissant" for decisions in decided[0] for d in decisions)


def test_every_part_of_a_rule_set_travels() -> None:
    """Patterns, constants of every kind and templates, evaluated on the other side."""
    conditions = [
        'event.properties.k.matches("(?i)^lat+e$")',
        'event.properties.k in ["latte", "tea"]',
        'now - event.timestamp < duration("2h")',
        'now > timestamp("2020-01-01T00:00:00Z")',
        '["a", "b"].exists(x, x == event.properties.k)',
        "profile.orders + 1 >= 1",
    ]
    text = "offers:\n  o: {purpose: service, message: {push: {title: '{{ profile.orders }} !', body: b}}}\n"
    text += "rules:\n"
    for number, condition in enumerate(conditions):
        text += f"  r{number}: {{when: Wish, if: '{condition}', offer: o}}\n"
    here = lanes.rule_set(text.encode())
    Packer(stream := BytesIO()).dump(here)
    there = pickle.loads(stream.getvalue())
    for value in ("latte", "LATTTE", "a", "tea", 3, None):
        wish = lanes.event(name="Wish", user="ada", properties={"k": value})
        answers = [
            [c.reason for d in one.decisions for c in d.candidates]
            for rule_set in (here, there)
            for one in Rehearsal(Ruling(rule_set, {})).tell([lanes.arrival("ada"), wish], lanes.NOW)
        ]
        assert answers[: len(answers) // 2] == answers[len(answers) // 2 :]
    push = (here.offers["o"].push, there.offers["o"].push)
    assert [next(iter(p.title.values()))({"profile": {"orders": 3}}) for p in push if p is not None] == [
        "3 !",
        "3 !",
    ]


def test_a_changed_file_is_taken_whole_and_a_wrong_one_changes_nothing(
    house: tuple[Served, Path, str],
) -> None:
    one, folder, dsn = house
    file = folder / "rules.yaml"
    with identified(one) as client:
        before = standing(one)
        file.write_bytes(rules(1))
        until(lambda: standing(one)["revision"] != before["revision"], SOON, "the new rules")
        taken = standing(one)
        assert taken["loadedAt"] > before["loadedAt"]
        decision = wish(client)
        assert (decision["rule"], decision["revision"]) == ("wish-1", taken["revision"])

        file.write_bytes(rules(2).replace(b"when: Wish", b"wenn: Wish"))
        until(lambda: standing(one)["problems"], SOON, "the problems")
        refused = standing(one)
        assert refused["revision"] == taken["revision"]
        assert [(p["file"], p["line"]) for p in refused["problems"]] == [("rules.yaml", 5)]
        assert any("wenn" in p["message"] for p in refused["problems"])
        assert wish(client)["rule"] == "wish-1"

        file.write_bytes(rules(1))
        until(lambda: not standing(one)["problems"], SOON, "taken back")
        assert standing(one)["revision"] == taken["revision"]
    kept = served.fetch(
        dsn,
        "SELECT p.revision, p.how FROM publications p JOIN revisions r ON r.id = p.revision ORDER BY p.id",
    )
    assert [tuple(row) for row in kept][-2:] == [(before["revision"], "serve"), (taken["revision"], "serve")]


@pytest.mark.parametrize("how", ["signal", "request"])
def test_it_looks_when_told_to(house: tuple[Served, Path, str], how: str) -> None:
    one, folder, _ = house
    (folder / "rules.yaml").write_bytes(rules(3 if how == "signal" else 4))
    if how == "signal":
        one.process.send_signal(signal.SIGHUP)
        until(lambda: standing(one)["revision"] == expected(folder), SOON, "the signal")
    else:
        with one.admin() as admin:
            answer = admin.post("/admin/rules/reload")
        assert answer.status_code == 200
        assert answer.json()["revision"] == expected(folder)
    assert one.process.poll() is None


def expected(folder: Path) -> str:
    return rulesets.read(folder, folder / "no models").revision


def test_reloads_under_load_fail_no_request_and_mix_no_decision(house: tuple[Served, Path, str]) -> None:
    """Other rules again and again, while four clients go on: each decision is of one revision."""
    one, folder, _ = house
    known = {
        expected(folder): (folder / "rules.yaml").read_bytes().split(b"gift-")[1].split(b":")[0].decode()
    }
    decisions: list[dict[str, Any]] = []
    faults: list[str] = []
    over = threading.Event()

    def load(number: int) -> None:
        with identified(one, f"p{number}") as client:
            while not over.is_set():
                try:
                    decisions.append(wish(client, f"p{number}"))
                except (httpx.HTTPError, ValueError, AssertionError) as fault:
                    faults.append(repr(fault))

    def decided(revision: str) -> bool:
        return any(d["revision"] == revision for d in decisions[-100:])

    clients = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    for thread in clients:
        thread.start()
    try:
        for number in range(100, 106):
            (folder / "rules.yaml").write_bytes(rules(number))
            known[revision := expected(folder)] = str(number)
            until(lambda revision=revision: decided(revision), SOON, "decisions by the new rules")
    finally:
        over.set()
        for thread in clients:
            thread.join()
    assert not faults
    assert all(d["rule"] == f"wish-{known[d['revision']]}" for d in decisions)
    assert all(d["offer"] == f"gift-{known[d['revision']]}" for d in decisions)
    assert all(d["outcome"] == "offered" for d in decisions)
    assert len({d["revision"] for d in decisions}) >= 6
