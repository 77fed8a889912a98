"""What is published, rolled back and stopped reaches every engine; held pushes wait."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.app.timers import Timers
from engine.domain.offers.pauses import Pause, What, held
from engine.domain.offers.pauses import paused as pauses_of
from tests import lanes, served
from tests.conftest import open_folder
from tests.served import PushService, Served, until
from tests.test_reload import SOON, identified, rules, standing, wish


class House(NamedTuple):
    """Two engines on one database, which follow what is published; the push service."""

    folder: Path
    dsn: str
    one: Served
    other: Served
    pushes: PushService

    @property
    def engines(self) -> tuple[Served, Served]:
        return self.one, self.other

    def command(self, *arguments: str, code: int = 0) -> Any:
        """What a command reports as JSON."""
        ended = served.command(self.folder, *arguments, "--json", dsn=self.dsn)
        assert ended.returncode == code, ended.stderr
        return json.loads(ended.stdout) if code == 0 else ended.stderr

    def publish(self, number: int) -> str:
        folder = served.write_workspace(self.folder / f"set-{number}" / "rules", rules=rules(number))
        revision = self.command("publish", str(folder))["revision"]
        assert isinstance(revision, str)
        return revision

    def until_all_run(self, revision: str) -> None:
        for engine in self.engines:
            until(lambda e=engine: standing(e)["revision"] == revision, SOON, f"{revision} everywhere")


@pytest.fixture(scope="module")
def house(postgres: str) -> Iterator[House]:
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        dsn = stack.enter_context(served.database(postgres, "published"))
        pushes = stack.enter_context(served.push_service(folder))
        first = served.write_workspace(folder / "first" / "rules", rules=rules(0))
        ended = served.command(folder, "publish", str(first), dsn=dsn)
        assert ended.returncode == 0, ended.stderr
        engines = [
            stack.enter_context(served.serve(folder, dsn, RULES="db", **pushes.settings)) for _ in range(2)
        ]
        yield House(folder, dsn, engines[0], engines[1], pushes)


def test_all_engines_follow_what_is_published_and_rolled_back(house: House) -> None:
    before = standing(house.one)["revision"]
    published = house.publish(1)
    house.until_all_run(published)
    with identified(house.other) as client:
        assert wish(client)["rule"] == "wish-1"
    assert house.command("publish", "--rollback", "previous") == {"revision": before, "changed": True}
    house.until_all_run(before)
    assert house.command("publish", "--rollback", published[:8])["revision"] == published
    house.until_all_run(published)
    past = house.command("publish", "--history")["publications"]
    assert [(p["revision"], p["how"]) for p in past] == [
        (published, "rollback"),
        (before, "rollback"),
        (published, "publish"),
        (before, "publish"),
    ]


def test_what_is_wrong_is_not_published(house: House) -> None:
    before = house.command("publish", "--history")
    folder = served.write_workspace(house.folder / "wrong" / "rules", rules=b"rules: {a: {wenn: B}}\n")
    assert "wenn" in house.command("publish", str(folder), code=1)
    assert "no revision is called" in house.command("publish", "--rollback", "nothing-like-it", code=1)
    house.command("publish", code=2)
    assert house.command("publish", "--history") == before


def test_a_stopped_rule_says_so_and_its_pushes_wait_until_it_goes_on(house: House) -> None:
    house.until_all_run(house.publish(2))
    with house.one.admin() as admin:
        begun = admin.post("/admin/pause", json={"rule": "wish-2", "reason": "wrong price"})
        assert begun.status_code == 201
        stop = begun.json()
        until(lambda: paused(house.other), SOON, "the other engine has heard")
        for engine in house.engines:
            with identified(engine) as client:
                decision = wish(client)
            assert (decision["outcome"], decision["reason"]) == ("suppressed", "paused")
            with engine.admin() as looking:
                trace = looking.get(f"/admin/decisions/{decision['id']}").json()
            numbers = trace["candidates"][0]["numbers"]
            assert (numbers["what"], numbers["name"], numbers["because"]) == ("rule", "wish-2", "wrong price")
            assert [p["name"] for p in trace["facts"]["paused"]] == ["wish-2"]
        assert admin.get("/admin/pause").json() == {"pauses": [stop]}
        assert admin.delete(f"/admin/pause/{stop['id']}").status_code == 204
        assert admin.delete(f"/admin/pause/{stop['id']}").status_code == 404
    until(lambda: not paused(house.other), SOON, "it goes on everywhere")
    with identified(house.other) as client:
        assert wish(client)["outcome"] == "offered"


def test_the_stop_button_on_the_command_line(house: House) -> None:
    house.until_all_run(house.publish(3))
    begun = house.command("pause", "--all", "--reason", "a leak")
    for engine in house.engines:
        until(lambda e=engine: paused(e), SOON, "stopped everywhere")
    assert house.command("pause")["pauses"] == [begun]
    assert house.command("resume", begun["id"])["resumed"] == [begun]
    for engine in house.engines:
        until(lambda e=engine: not paused(e), SOON, "goes on everywhere")
    assert "nothing is stopped by" in house.command("resume", begun["id"], code=1)
    assert house.command("resume", "--all") == {"resumed": []}
    house.command("pause", "--rule", "a", "--offer", "b", code=2)
    house.command("resume", code=2)


def test_a_name_that_nobody_has_is_told(house: House) -> None:
    """A stop that stops nothing, by a slip of the pen, would be worse than none."""
    house.until_all_run(house.publish(4))
    with house.one.admin() as admin:
        answer = admin.post("/admin/pause", json={"rule": "wish-5", "reason": ""})
        assert answer.status_code == 400
        assert 'did you mean "wish-4"?' in answer.json()["message"]
        assert admin.post("/admin/pause", json={"reason": ""}).status_code == 400
        assert admin.post("/admin/pause", json={"ruel": "wish-4", "reason": ""}).status_code == 400
    ended = served.command(house.folder, "pause", "--offer", "gift-44", dsn=house.dsn)
    assert ended.returncode == 0
    assert 'there is no offer "gift-44": did you mean "gift-4"?' in ended.stderr
    house.command("resume", "gift-44")


def paused(engine: Served) -> bool:
    """Whether the engine has stopped something: it asks nobody but itself."""
    with identified(engine) as client:
        return wish(client)["reason"] == "paused"


async def test_offers_put_off_stay_so_while_their_rule_is_stopped(postgres_dsn: str) -> None:
    """And are decided again in full when it goes on."""
    workspace = lanes.WORKSPACE + b'quiet_hours: {from: "21:00", to: "08:00", then: defer}\n'
    rules = lanes.rule_set(workspace=workspace)
    night = lanes.NOW.replace(hour=23)
    stops = [Pause(id="1", what=what, name=name, since=night) for what, name in STOPS]
    async with lanes.engine(postgres_dsn, rules) as engine:
        engine.now = night
        reply = await engine.send(lanes.arrival("ada"), lanes.event(name="Thank Me", user="ada", at=night))
        assert lanes.outcomes(reply) == [("thanks", "deferred", "quiet_hours")]
        engine.now = night + timedelta(hours=9, minutes=30)
        offers = {rule.id: rule.offers for rule in rules.rules.values()}
        for stop in stops:
            standing = held(pauses_of([stop]), offers)
            timers = Timers(engine.store, engine.lane, lambda: engine.now, lambda h=standing: h)
            assert await timers.fire_due() == 0
        other = held(pauses_of([Pause(id="2", what="rule", name="cafe", since=night)]), offers)
        assert await Timers(engine.store, engine.lane, lambda: engine.now, lambda: other).fire_due() == 1
    assert len(engine.sends) == 1


STOPS: list[tuple[What, str]] = [("rule", "thanks"), ("offer", "thanks"), ("channel", "push"), ("all", "")]


def test_a_proof_reaches_ones_own_phone_as_every_push_does(house: House) -> None:
    house.until_all_run(house.publish(5))
    with identified(house.one, "me"):
        report = house.command("send", "wish-5", "--to", "user_id:me")
    assert (report["state"], report["title"], report["body"]) == ("sent", "Gift 5", "0")
    message = house.pushes.delivered()[report["id"]]
    assert message["data"]["rule"] == "wish-5"
    assert message["token"] == "t"
    counted = served.fetch(house.dsn, "SELECT count(*) FROM decisions WHERE id = $1", report["id"])
    assert counted[0][0] == 0
    assert "nobody is known" in house.command("send", "wish-5", "--to", "user_id:nobody", code=1)
    assert 'did you mean "wish-5"?' in house.command("send", "wish-6", "--to", "user_id:me", code=1)
    house.command("send", "wish-5", "--to", "me", code=2)
