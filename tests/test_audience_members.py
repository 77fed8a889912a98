"""Audiences in the database: members beside their profiles, timers, sizes, pages, the command."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from engine.adapters.postgres import audiences as stored
from engine.app import jobs
from engine.app.timers import Timers
from engine.domain.people.events import Kind
from engine.formats.workspace import load
from tests import served
from tests.lanes import NOW, WORKSPACE, Engine, engine, event, fetch, minutes
from tests.served import write_workspace

RULES = b"""
audiences:
  buyers: profile.orders > 0
  spenders: profile.spend >= 100
  named: profile.first_name != ""
  dormant: profile.days_since_order >= 30
"""
DAYS = WORKSPACE + b"  days_since_order: {days_since: Order Completed}\n"


def rules() -> Any:
    loaded = load({"workspace.yaml": DAYS, "people.yaml": RULES})
    assert loaded.rule_set is not None, loaded.problems
    return loaded.rule_set


def order(user: str, revenue: float = 10.0, **fields: Any) -> Any:
    return event(name="Order Completed", user=user, properties={"revenue": revenue}, **fields)


async def rows(dsn: str) -> list[tuple[str, str]]:
    found = await fetch(dsn, "SELECT audience, profile_id FROM audience_members ORDER BY 1, 2")
    return [(row[0], str(row[1])) for row in found]


async def documents(one: Engine, *users: str) -> list[tuple[str, str]]:
    """The same as the profiles' documents say."""
    people = [await one.profile("user_id", user) for user in users]
    return sorted((name, p.id) for p in people if p is not None for name in p.audiences.since)


async def test_the_index_says_what_the_documents_say(postgres_dsn: str) -> None:
    async with engine(postgres_dsn, rules()) as one:
        await one.send(order("ada", 50.0), order("bob", 120.0), order("ada", 60.0))
        assert len(await rows(postgres_dsn)) == 4
        assert await rows(postgres_dsn) == await documents(one, "ada", "bob")
        await one.send(order("ada", -100.0))
        assert len(await rows(postgres_dsn)) == 3
        assert await rows(postgres_dsn) == await documents(one, "ada", "bob")


async def test_a_link_leaves_nobody_behind_in_an_audience(postgres_dsn: str) -> None:
    async with engine(postgres_dsn, rules()) as one:
        await one.send(event(name="Order Completed", anonymous="a1", properties={"revenue": 5}))
        await one.send(order("ada"))
        await one.send(event(Kind.IDENTIFY, user="ada", anonymous="a1"))
        assert await rows(postgres_dsn) == await documents(one, "ada")


async def test_a_timer_has_people_enter_without_an_event(postgres_dsn: str) -> None:
    async with engine(postgres_dsn, rules()) as one:
        await one.send(*(order(f"u{n}") for n in range(5)))
        timers = Timers(one.store, one.lane, lambda: one.now)
        one.now = NOW + timedelta(days=30) - minutes(1)
        assert await timers.fire_due() == 0
        one.now = NOW + timedelta(days=30)
        assert await timers.fire_due() == 5
        assert [name for name, _ in await rows(postgres_dsn)].count("dormant") == 5
        assert await fetch(postgres_dsn, "SELECT FROM timers") == []


async def test_pages_and_sizes(postgres_dsn: str) -> None:
    async with engine(postgres_dsn, rules()) as one:
        users = [f"u{n}" for n in range(25)]
        await one.send(*(order(user, 200.0 if n % 5 == 0 else 1.0) for n, user in enumerate(users)))
        pool = one.store.pool
        sizes = await stored.sizes(pool, ["buyers", "named", "spenders"])
        assert sizes == {"buyers": 25, "named": 0, "spenders": 5}
        assert await stored.known(pool) == ["buyers", "spenders"]
        page = await stored.members(pool, "buyers", limit=10)
        rest = await stored.members(pool, "buyers", page[-1].profile_id)
        ids = [member.profile_id for member in (*page, *rest)]
        assert len(page) == 10
        assert ids == sorted(set(ids))
        assert {i.value for member in (*page, *rest) for i in member.identities} == set(users)
        assert all(member.since == NOW for member in page)


async def test_sizes_are_kept_by_the_hour(postgres_dsn: str) -> None:
    async with engine(postgres_dsn, rules()) as one:
        await one.send(order("ada"))
        pool = one.store.pool
        long_ago = NOW - timedelta(days=500)
        await stored.keep_sizes(pool, ["buyers"], long_ago, long_ago)
        for at in (NOW, NOW + minutes(59)):  # two engines, or the same one twice
            await stored.keep_sizes(pool, ["buyers"], at, NOW - timedelta(days=400))
        await one.send(order("bob"))
        await stored.keep_sizes(pool, ["buyers"], NOW + minutes(60), NOW - timedelta(days=400))
        history = await stored.sizes_over_time(pool, "buyers", long_ago)
        assert [(each.at - NOW, each.size) for each in history] == [(minutes(0), 1), (minutes(60), 2)]
        await jobs.keep_house(one.store, rules().workspace.retention)
        assert len(await fetch(postgres_dsn, "SELECT FROM audience_sizes")) == 3


def test_over_http_and_on_the_command_line(postgres: str, tmp_path: Path) -> None:
    write_workspace(tmp_path / "rules", DAYS, RULES)
    with served.database(postgres, "audiences") as dsn, served.serve(tmp_path, dsn) as engine:
        sent = [
            {
                "type": "track",
                "event": "Order Completed",
                "userId": f"u{n}",
                "messageId": f"m{n}",
                "properties": {"revenue": 200 if n == 1 else 2},
            }
            for n in range(3)
        ]
        assert engine.client().post("/v1/batch", json={"batch": sent}).json()["accepted"] == 3
        admin = engine.admin()
        assert admin.get("/admin/audiences").json() == {
            "audiences": [
                {"name": "buyers", "condition": "profile.orders > 0", "size": 3},
                {"name": "spenders", "condition": "profile.spend >= 100", "size": 1},
                {"name": "named", "condition": 'profile.first_name != ""', "size": 0},
                {"name": "dormant", "condition": "profile.days_since_order >= 30", "size": 0},
            ]
        }
        one = admin.get("/admin/audiences/spenders").json()
        assert (one["name"], one["size"]) == ("spenders", 1)
        first = admin.get("/admin/audiences/buyers/members?limit=2").json()
        rest = admin.get(f"/admin/audiences/buyers/members?limit=2&after={first['next']}").json()
        assert (len(first["members"]), len(rest["members"]), rest["next"]) == (2, 1, None)
        assert admin.get("/admin/audiences/nobody").status_code == 404
        assert admin.get("/admin/audiences/buyers/members?after=x").status_code == 400
        assert engine.client().get("/admin/audiences").status_code == 401
        assert admin.get("/admin/profiles/user_id/u1").json()["audiences"] == ["buyers", "spenders"]

        listed = served.command(tmp_path, "audiences", "--json", dsn=dsn)
        assert json.loads(listed.stdout) == {
            "audiences": [{"name": "buyers", "size": 3}, {"name": "spenders", "size": 1}]
        }
        exported = served.command(tmp_path, "audiences", "buyers", "--members", dsn=dsn)
        lines = list(csv.DictReader(io.StringIO(exported.stdout)))
        assert {line["user_id"] for line in lines} == {"u0", "u1", "u2"}
        assert [line["profile_id"] for line in lines] == sorted(line["profile_id"] for line in lines)
        told = served.command(tmp_path, "audiences", "buyers", "--members", "--json", dsn=dsn)
        assert [json.loads(line)["profileId"] for line in told.stdout.splitlines()] == [
            line["profile_id"] for line in lines
        ]
        history = served.command(tmp_path, "audiences", "spenders", "--json", dsn=dsn)
        assert json.loads(history.stdout)["size"] == 1
        assert "people" in served.command(tmp_path, "audiences", dsn=dsn).stdout
        nobody = served.command(tmp_path, "audiences", "nobody", dsn=dsn)
        assert (nobody.returncode, nobody.stderr) == (
            1,
            'error: nobody is or was in an audience "nobody"\n',
        )
        assert served.command(tmp_path, "audiences", "--members", dsn=dsn).returncode == 2
