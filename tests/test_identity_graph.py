"""Who is who and why, and a merge taken back."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from engine.adapters.postgres.graph import forget_snapshots, graph
from engine.adapters.postgres.merges import bring_over
from engine.app.identity_picture import picture
from engine.app.splitting import NotSplit, split
from engine.app.timers import Timers
from engine.domain.people.events import Device, Kind
from engine.domain.people.profiles import Profile
from tests import lanes, served
from tests.lanes import NOW, event, fetch, minutes
from tests.served import write_workspace

WORKSPACE = (
    lanes.WORKSPACE
    + b"""
identities:
  - {namespace: user_id, one: true}
  - {namespace: email, from: [traits.email]}
  - {namespace: anonymous_id}
"""
)


def order(revenue: float, **fields: Any) -> Any:
    return event(name="Order Completed", properties={"revenue": revenue, "store": f"s{revenue}"}, **fields)


async def two_as_one(engine: lanes.Engine) -> None:
    """Ada (a user) and Bob (an app) are taken for one because of an address that both gave."""
    await engine.send(
        event(Kind.IDENTIFY, user="ada", traits={"first_name": "Ada"}, consent={"marketing": True}),
        event(Kind.IDENTIFY, anonymous="bob", traits={"first_name": "Bob"}, message="b0"),
        order(10, user="ada", at=NOW + minutes(1)),
        order(7, anonymous="bob", at=NOW + minutes(2), message="b1"),
        event(Kind.IDENTIFY, anonymous="bob", traits={"email": "us@example.com"}, at=NOW + minutes(3)),
    )
    await engine.send(
        event(Kind.IDENTIFY, user="ada", traits={"email": "us@example.com"}, at=NOW + minutes(4), message="j")
    )
    await engine.send(
        order(20, user="ada", at=NOW + minutes(5)),
        order(5, anonymous="bob", at=NOW + minutes(6), message="b2"),
        order(3, anonymous="bob", at=NOW + minutes(7), message="b3"),
        event(name="Thank Me", user="ada", at=NOW + minutes(8), device=Device(id="d", type="ios", token="t")),
    )


def known(profile: Profile | None) -> tuple[Any, ...]:
    assert profile is not None
    counts = profile.computed
    return (
        counts.get("orders"),
        counts.get("spend"),
        counts["last_store"][1],
        profile.traits["first_name"].value,
    )


async def test_for_each_identity_it_says_why(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn, lanes.rule_set(workspace=WORKSPACE)) as engine:
        await two_as_one(engine)
        before = await graph(engine.store.pool, ("user_id", "ada"))
        await bring_over(engine.store.pool)
        found = await graph(engine.store.pool, ("anonymous_id", "bob"))
        assert await graph(engine.store.pool, ("user_id", "eve")) is None
    assert found is not None
    assert before == found
    whys = {link.value: link.why for link in found.identities}
    assert whys["bob"] is not None
    assert (whys["bob"].type, whys["bob"].message_id, whys["bob"].source) == ("identify", "b0", "app")
    assert {link.value: link.profile == found.profile for link in found.identities} == {
        "ada": True,
        "bob": False,
        "us@example.com": False,
    }
    (merge,) = found.merges
    assert merge.why is not None
    assert (merge.into, merge.why.message_id, merge.reversible) == (found.profile, "j", True)
    drawn = ElementTree.fromstring(picture(found))
    assert len(drawn.findall(".//{*}rect")) == 4
    assert "bob" in picture(found)


async def test_after_thirty_days_nothing_is_kept_of_what_was_before(postgres_dsn: str) -> None:
    rules = lanes.rule_set(workspace=WORKSPACE)
    async with lanes.engine(postgres_dsn, rules) as engine:
        await two_as_one(engine)
        await bring_over(engine.store.pool)
        later = datetime.now(UTC) + timedelta(days=1)
        assert await forget_snapshots(engine.store.pool, later - timedelta(days=2)) == 0
        assert await forget_snapshots(engine.store.pool, later) == 1
        assert await forget_snapshots(engine.store.pool, later) == 0
        found = await graph(engine.store.pool, ("user_id", "ada"))
        with pytest.raises(NotSplit, match="can be taken back"):
            await split(engine.store.pool, ("anonymous_id", "bob"), rules, NOW)
        await engine.send(order(1, anonymous="bob"))
        assert known(await engine.profile("user_id", "ada"))[0] == 6
    assert found is not None
    assert [merge.reversible for merge in found.merges] == [False]


@pytest.mark.parametrize("brought_over", [False, True])
async def test_a_merge_taken_back_leaves_two_people_with_what_is_theirs(
    postgres_dsn: str, brought_over: bool
) -> None:
    rules = lanes.rule_set(workspace=WORKSPACE)
    async with lanes.engine(postgres_dsn, rules) as engine:
        await two_as_one(engine)
        one = await engine.profile("user_id", "ada")
        assert known(one) == (5, 45, "s3", "Bob")
        if not brought_over:
            with pytest.raises(NotSplit, match="brought over"):
                await split(engine.store.pool, ("anonymous_id", "bob"), rules, NOW)
        await bring_over(engine.store.pool)
        for key in (("user_id", "ada"), ("user_id", "eve")):
            with pytest.raises(NotSplit):
                await split(engine.store.pool, key, rules, NOW)
        with pytest.raises(NotSplit, match="30 days"):
            await split(engine.store.pool, ("anonymous_id", "bob"), rules, NOW + timedelta(days=31))
        done = await split(engine.store.pool, ("anonymous_id", "bob"), rules, NOW)
        assert (done.events, done.given) == (5, 2)
        ada, bob = await engine.profile("user_id", "ada"), await engine.profile("anonymous_id", "bob")
        assert ada is not None
        assert bob is not None
        assert known(ada) == (2, 30, "s20", "Ada")
        assert known(bob) == (3, 15, "s3", "Bob")
        assert (len(ada.contacts), len(bob.contacts)) == (1, 0)
        assert set(bob.consent) == set()
        assert {i.value for i in bob.identities} == {"bob", "us@example.com"}
        assert set(ada.devices) == {"d"}
        rows = await fetch(postgres_dsn, "SELECT profile_id, seq FROM events ORDER BY 1, 2")
        assert [r["seq"] for r in rows if str(r["profile_id"]) == bob.id] == [1, 2, 3, 4, 5]
        assert len(rows) == 10

        # What was told before is still known, on either side, and they stay apart.
        again = await engine.send(*(order(1, anonymous="bob", message=m) for m in ("b0", "b1", "b2", "b3")))
        assert again.duplicates == 4
        await engine.send(event(Kind.IDENTIFY, user="ada", anonymous="bob", at=NOW + minutes(9)))
        ada, app = await engine.profile("user_id", "ada"), await engine.profile("anonymous_id", "bob")
        mail = await engine.profile("email", "us@example.com")
    assert ada is not None
    assert app is not None
    assert app.id == ada.id  # the app is hers now: she used it last
    assert mail is not None
    assert mail.id == bob.id
    assert known(ada)[:2] == (2, 30)


PUT_OFF = b"""
audiences:
  dormant: profile.days_since_order >= 30
  buyers: profile.orders > 0
  spenders: profile.spend >= 40
offers:
  gift: {purpose: marketing, message: {push: {title: A, body: B}}}
rules:
  wish: {when: Wish, offer: gift, send: {at: "20:00"}}
"""


async def test_a_merge_taken_back_leaves_audiences_and_timers_with_whom_they_are_of(
    postgres_dsn: str,
) -> None:
    workspace = WORKSPACE.replace(
        b"computed:", b"computed:\n  days_since_order: {days_since: Order Completed}"
    )
    rules = lanes.rule_set(PUT_OFF, workspace)
    phone = Device(id="d", type="android", token="t")
    async with lanes.engine(postgres_dsn, rules) as engine:
        await engine.send(
            order(30, user="ada"),
            order(15, anonymous="bob"),
            event(Kind.IDENTIFY, anonymous="bob", consent={"marketing": True}, device=phone),
        )
        await engine.send(event(name="Wish", anonymous="bob", device=phone))
        await engine.send(event(Kind.IDENTIFY, user="ada", anonymous="bob", at=NOW + minutes(1)))
        await bring_over(engine.store.pool)
        await split(engine.store.pool, ("anonymous_id", "bob"), rules, NOW)
        ada, bob = await engine.profile("user_id", "ada"), await engine.profile("anonymous_id", "bob")
        assert ada is not None
        assert bob is not None

        async def members() -> list[tuple[str, str]]:
            rows = await fetch(postgres_dsn, "SELECT audience, profile_id FROM audience_members")
            return sorted((row[0], "ada" if str(row[1]) == ada.id else "bob") for row in rows)

        assert await members() == [("buyers", "ada"), ("buyers", "bob")]
        put_off = await fetch(postgres_dsn, "SELECT profile_id FROM timers WHERE id LIKE '$deferred%'")
        assert [str(row[0]) for row in put_off] == [bob.id]
        timers = Timers(engine.store, engine.lane, lambda: engine.now)
        await timers.fire_due()
        engine.now = NOW + timedelta(days=31)
        await timers.fire_due()
        assert [one for one in await members() if one[0] == "dormant"] == [
            ("dormant", "ada"),
            ("dormant", "bob"),
        ]


async def test_what_was_told_long_after_it_can_be_taken_back_all_the_same(postgres_dsn: str) -> None:
    rules = lanes.rule_set(workspace=WORKSPACE)
    async with lanes.engine(postgres_dsn, rules) as engine:
        await engine.send(event(name="A", user="ada"), event(name="B", anonymous="bob"))
        old = event(Kind.IDENTIFY, user="ada", anonymous="bob", at=NOW - timedelta(days=400))
        await engine.send(msgspec.structs.replace(old, received_at=NOW))
        await bring_over(engine.store.pool)
        done = await split(engine.store.pool, ("anonymous_id", "bob"), rules, NOW)
        assert done.survivor != done.split


async def test_by_command_and_over_http(postgres_dsn: str, tmp_path: Path) -> None:
    write_workspace(tmp_path / "rules", WORKSPACE)
    await asyncio.to_thread(_over_http, tmp_path, postgres_dsn)


def _over_http(folder: Path, dsn: str) -> None:
    now = datetime.now(UTC).isoformat()
    with served.serve(folder, dsn) as engine, engine.client() as app, engine.admin() as admin:
        for told in (
            {"userId": "ada", "event": "A"},
            {"anonymousId": "bob", "event": "B"},
            {"userId": "ada", "anonymousId": "bob", "event": "C", "timestamp": now},
        ):
            app.post("/v1/track", json=told)
        place = "/admin/profiles/anonymous_id/bob/identities"
        found = admin.get(place).json()
        assert [link["value"] for link in found["identities"]] == ["ada", "bob"]
        assert found["merges"][0]["why"]["name"] == "C"
        assert admin.get(place, params={"format": "svg"}).headers["content-type"] == "image/svg+xml"
        shown = served.command(folder, "identities", "show", "user_id", "ada", "--json", dsn=dsn)
        assert json.loads(shown.stdout) == found
        for extra, word in (((), "became one with"), (("--svg",), "<svg")):
            shown = served.command(folder, "identities", "show", "user_id", "ada", *extra, dsn=dsn)
            assert word in shown.stdout, shown.stderr
        served.until(lambda: not fetch_waiting(dsn), 60, "the rows are brought over")
        answer = admin.post("/admin/profiles/split", json={"namespace": "anonymous_id", "value": "bob"})
        assert answer.status_code == 200, answer.text
        assert admin.get(place).json()["profile"] != found["profile"]
        refused = served.command(folder, "identities", "split", "anonymous_id", "bob", dsn=dsn)
        assert refused.returncode == 1
        assert "did not come by a merge" in refused.stderr


def fetch_waiting(dsn: str) -> list[Any]:
    return served.fetch(dsn, "SELECT FROM merges WHERE moved_at IS NULL")
