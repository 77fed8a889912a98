"""Named tokens with roles, and an audit log in which nothing can be changed unnoticed."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.adapters.postgres import audit, tokens
from engine.adapters.postgres.store import connect
from engine.app.admin_access import ROLES, is_allowed
from tests import served
from tests.lanes import NOW, fetch
from tests.served import write_workspace

MAY = {
    ("GET", "/admin/rules"): "viewer marketer operator privacy",
    ("GET", "/admin/audiences"): "viewer marketer operator privacy",
    ("GET", "/admin/audiences/x/members"): "operator privacy",
    ("GET", "/admin/profiles/user_id/u"): "operator privacy",
    ("POST", "/admin/profiles/lookup"): "operator privacy",
    ("GET", "/admin/decisions/1"): "operator privacy",
    ("GET", "/admin/rejected"): "operator privacy",
    ("DELETE", "/admin/profiles/user_id/u"): "privacy",
    ("POST", "/admin/profiles/erase"): "privacy",
    ("POST", "/admin/profiles/restrict"): "privacy",
    ("POST", "/admin/profiles/correct"): "privacy",
    ("POST", "/admin/profiles/split"): "operator",
    ("POST", "/admin/rules/reload"): "marketer operator",
    ("POST", "/admin/pause"): "marketer operator",
    ("DELETE", "/admin/pause/1"): "marketer operator",
    ("POST", "/admin/import/purchases"): "operator",
    ("POST", "/admin/whatever/comes"): "operator",
}


@pytest.mark.parametrize(("asked", "roles"), MAY.items(), ids=lambda value: str(value))
def test_what_each_role_may_do(asked: tuple[str, str], roles: str) -> None:
    assert [role for role in ROLES if is_allowed(role, *asked)] == roles.split()


async def test_the_log_is_a_chain(postgres_dsn: str) -> None:
    store = await connect(postgres_dsn)
    try:
        await asyncio.gather(*(audit.append(store.pool, "a", f"GET {n}", NOW, b"x") for n in range(8)))
        assert [entry.seq async for entry in audit.entries(store.pool)] == list(range(1, 9))
        assert await audit.broken_at(store.pool) is None
        await fetch(postgres_dsn, "UPDATE audit SET actor = 'b' WHERE seq = 5")
        assert await audit.broken_at(store.pool) == 5
        await fetch(postgres_dsn, "UPDATE audit SET actor = 'a' WHERE seq = 5")
        assert await audit.broken_at(store.pool) is None
        await fetch(postgres_dsn, "DELETE FROM audit WHERE seq = 3")
        assert await audit.broken_at(store.pool) == 3
    finally:
        await store.close()


async def test_a_log_that_was_cut_off_at_its_end_is_noticed(postgres_dsn: str) -> None:
    store = await connect(postgres_dsn)
    try:
        assert await audit.head(store.pool) == audit.Head(0, b"")
        assert await audit.broken_at(store.pool) is None
        for number in range(3):
            await audit.append(store.pool, "a", f"GET {number}", NOW)
        end = await audit.head(store.pool)
        assert (end.entries, end.hash) == (3, [e.hash async for e in audit.entries(store.pool)][-1])
        await fetch(postgres_dsn, "DELETE FROM audit WHERE seq = 3")
        assert await audit.broken_at(store.pool) == 3
        await audit.append(store.pool, "a", "GET later", NOW)  # nobody can fill the gap
        assert await audit.broken_at(store.pool) == 3
        await fetch(postgres_dsn, "UPDATE audit SET seq = seq - 1 WHERE seq = 4")
        assert await audit.broken_at(store.pool) == 3
        await fetch(postgres_dsn, "DELETE FROM audit")
        assert await audit.broken_at(store.pool) == 1
    finally:
        await store.close()


async def test_tokens_end_and_are_exchanged(postgres_dsn: str) -> None:
    store = await connect(postgres_dsn)
    pool = store.pool
    try:
        first = await tokens.make(pool, "till", "operator", None)
        brief = await tokens.make(pool, "guest", "viewer", NOW + timedelta(days=1))
        assert await tokens.find(pool, first, NOW) == ("till", "operator")
        assert await tokens.find(pool, brief, NOW) == ("guest", "viewer")
        assert await tokens.find(pool, brief, NOW + timedelta(days=1)) is None
        assert await tokens.find(pool, "vf_guess", NOW) is None
        second = await tokens.rotate(pool, "till", NOW)
        assert second is not None
        later = NOW + tokens.GRACE
        assert [await tokens.find(pool, t, NOW) for t in (first, second)] == [("till", "operator")] * 2
        assert [await tokens.find(pool, t, later) for t in (first, second)] == [None, ("till", "operator")]
        assert await tokens.rotate(pool, "nobody", NOW) is None
        assert await tokens.revoke(pool, "till") == 2
        assert await tokens.find(pool, second, NOW) is None
        assert [token.name for token in await tokens.all_of(pool, NOW)] == ["guest"]
        (row,) = await fetch(postgres_dsn, "SELECT count(*) FROM admin_tokens t WHERE t::text LIKE '%vf_%'")
        assert row[0] == 0
    finally:
        await store.close()


async def test_by_command_and_over_http(postgres_dsn: str, tmp_path: Path) -> None:
    write_workspace(tmp_path / "rules")
    await asyncio.to_thread(_over_http, tmp_path, postgres_dsn)


def _over_http(folder: Path, dsn: str) -> None:
    def command(*arguments: str) -> Any:
        return served.command(folder, *arguments, dsn=dsn)

    viewer, privacy = (
        command("tokens", "make", name, "--role", role).stdout.strip()
        for name, role in (("vera", "viewer"), ("paul", "privacy"))
    )
    assert command("tokens", "make", "x").returncode == 2
    assert command("tokens", "revoke", "x").returncode == 1
    assert "vera" in command("tokens").stdout

    def ask(token: str, method: str, path: str, **body: Any) -> int:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.request(method, engine.url + path, headers=headers, timeout=30, **body).status_code

    with served.serve(folder, dsn) as engine, engine.client() as app:
        app.post("/v1/identify", json={"userId": "ada", "traits": {"first_name": "Ada"}})
        who = {"namespace": "user_id", "value": "ada"}
        assert ask("vf_guess", "GET", "/admin/rules") == 401
        assert ask(viewer, "GET", "/admin/rules") == 200
        assert ask(viewer, "GET", "/admin/profiles/user_id/ada") == 403
        assert ask(viewer, "POST", "/admin/profiles/lookup", json=who) == 403
        assert ask(privacy, "POST", "/admin/profiles/lookup", json=who) == 200
        assert ask(privacy, "POST", "/admin/rules/reload") == 403
        assert ask(viewer, "GET", "/admin/audiences/any/members") == 403
        assert ask(privacy, "GET", "/admin/audiences/any/members") == 404
        assert ask(served.ADMIN_TOKEN, "GET", "/admin/profiles/user_id/ada") == 200
        assert ask(privacy, "POST", "/admin/profiles/erase", json=who) == 202
    log = [json.loads(line) for line in command("privacy", "audit", "--json").stdout.splitlines()]
    assert [(entry["actor"], entry["action"]) for entry in log] == [
        ("command", "tokens make vera viewer"),
        ("command", "tokens make paul privacy"),
        ("command", "tokens revoke x"),
        ("paul", "POST /admin/profiles/lookup"),
        ("paul", "GET /admin/audiences/any/members"),
        ("first token", "GET /admin/profiles/{namespace}/{value}"),
        ("paul", "POST /admin/profiles/erase"),
    ]
    assert len({entry["person"] for entry in log[3:] if entry["person"]}) == 1
    assert log[3]["person"]
    assert command("privacy", "verify").returncode == 0
    assert "ada" not in json.dumps(log)

    report = json.loads(command("privacy", "report", "--json").stdout)
    assert {datum["name"] for datum in report["data"]} >= {"first_name", "orders", "user_id", "position"}
    assert next(use for use in report["uses"] if use["purpose"] == "marketing")["offers"] == [
        "latte",
        "thanks",
    ]
    assert "| first_name |" in command("privacy").stdout
