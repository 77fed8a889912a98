"""What a person may ask for: everything about them, to be erased for good, left alone, or put right."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from engine.adapters.postgres import rights as stored
from engine.adapters.postgres.merges import bring_over
from engine.adapters.postgres.store import connect
from engine.app import rights
from engine.app.export_page import page
from engine.app.timers import Timers
from engine.app.vacuums import Vacuums
from engine.domain.people import identity
from engine.domain.people.events import Device, Kind, Location, Sender
from tests import lanes, served
from tests.conftest import execute, named
from tests.lanes import NOW, event, fetch
from tests.served import write_workspace

WORKSPACE = (
    lanes.WORKSPACE
    + b"""
identities:
  - {namespace: user_id, one: true}
  - {namespace: card, one: true, on_change: replace, from: [traits.card]}
  - {namespace: email, from: [traits.email]}
  - {namespace: phone, from: [traits.phone]}
  - {namespace: anonymous_id}
"""
)
DROP = WORKSPACE + b"after_erasure: drop\n"

PLANTED = {
    "email": "planted.ada@example.com",
    "name": "Planted Lovelace",
    "token": "planted-token-4711",
    "latitude": "52.123456",
    "old card": "planted-card-1",
    "app": "planted-app",
    "user": "planted-user",
    "phone": "+353 87 123 4567",
    "role": "Planted Buyer",
}
OTHER_SPELLINGS = ("+353871234567", "087 123 4567", "(087) 123-45.67", "00353 (0)87 1234567")
"""Of the phone number."""


def rules(workspace: bytes = WORKSPACE) -> Any:
    return lanes.rule_set(workspace=workspace)


async def live(engine: lanes.Engine) -> None:
    """A life that leaves traces everywhere: two profiles that became one, a replaced card, a push, a
    timer, a refused event."""
    device = Device(id="planted-device", type="android", token=PLANTED["token"])
    await engine.send(
        event(name="Open", anonymous=PLANTED["app"], properties={"note": "before"}),
        event(Kind.IDENTIFY, user=PLANTED["user"], traits={"card": PLANTED["old card"]}),
        event(
            Kind.IDENTIFY,
            user=PLANTED["user"],
            traits={
                "email": PLANTED["email"],
                "first_name": PLANTED["name"],
                "card": "planted-card-2",
                "phone": PLANTED["phone"],
            },
            consent={"marketing": True, "location": True},
            device=device,
            at=NOW + timedelta(seconds=1),
        ),
    )
    await engine.send(event(Kind.IDENTIFY, user=PLANTED["user"], anonymous=PLANTED["app"]))
    await engine.send(
        event(
            Kind.GROUP,
            user=PLANTED["user"],
            group_id="acme",
            properties={"role": PLANTED["role"]},
        )
    )
    here = Location(latitude=52.123456, longitude=-8.6, accuracy=10.0)
    await engine.send(
        event(name="Thank Me", user=PLANTED["user"], message="wish"),
        event(name="Location Updated", user=PLANTED["user"], location=here),
    )
    person = await engine.profile("user_id", PLANTED["user"])
    assert person is not None
    async with engine.store.pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO timers (bucket, profile_id, id, due_at, event) VALUES ($1, $2, 'x', $3, $4)",
            int(person.id[:2], 16),
            person.id,
            NOW,
            lanes.event_text(event(name="Open", message="due", sender=Sender.ENGINE)),
        )
        await connection.execute(
            "INSERT INTO rejected (key_digest, received_at, code, message, item) "
            "VALUES ('k', now(), 'too_large', 'x', $1)",
            json.dumps({"userId": PLANTED["user"], "traits": {"name": PLANTED["name"]}}).encode(),
        )
        for spelling in OTHER_SPELLINGS:
            await connection.execute(
                "INSERT INTO rejected (key_digest, received_at, code, message, item) "
                "VALUES ('k', now(), 'missing_event', 'x', $1)",
                json.dumps({"properties": {"call": [spelling]}}).encode(),
            )


async def traces(dsn: str) -> dict[str, int]:
    """Rows of any table that hold a planted value."""
    connection = await asyncpg.connect(dsn)
    try:
        return await stored.scan(connection, (*PLANTED.values(), *OTHER_SPELLINGS))
    finally:
        await connection.close()


async def test_the_export_holds_everything_and_after_erasure_nothing_is_left(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn, rules()) as engine:
        await engine.send(event(Kind.IDENTIFY, user="bob", traits={"first_name": "Bob"}))
        await live(engine)
        await fetch(postgres_dsn, "UPDATE outbox SET state = 'pending'")
        namespaces = engine.rules.workspace.namespaces
        found = await rights.export(engine.store.pool, ("user_id", PLANTED["user"]), NOW, namespaces)
        assert found is not None
        text, html = msgspec.json.encode(found).decode(), page(found)
        for what, value in PLANTED.items():
            assert value in text, what
            assert value in html, what
        assert found.sources["first_name"].origin == "app"
        assert "first party, app" in html
        assert len([s for s in OTHER_SPELLINGS if s in text]) == len(OTHER_SPELLINGS)
        assert "Bob" not in text
        assert {"events", "decisions", "outbox", "timers", "seen", "rejected"} <= found.rows.keys()

        secret = await engine.store.secret(b"")
        erased = await rights.erase(engine.store.pool, ("email", PLANTED["email"]), secret, NOW, namespaces)
        assert erased is not None
        receipt, person = erased
        assert receipt.left_over == {}
        assert receipt.profiles == 2
        assert receipt.identities == 6  # user, app, e-mail, phone, both cards
        assert {"events", "decisions", "outbox", "timers", "seen", "rejected"} <= {
            table for table, rows in receipt.deleted.items() if rows
        }
        assert await traces(postgres_dsn) == {}
        assert await stored.receipt(engine.store.pool, receipt.id) == receipt
        assert await rights.erase(engine.store.pool, ("user_id", PLANTED["user"]), secret, NOW) is None
        assert await rights.export(engine.store.pool, ("user_id", PLANTED["user"]), NOW) is None
        assert await engine.profile("user_id", "bob") is not None

        # A timer that was under way finds nobody, and leaves nothing.
        late = event(name="Open", message="late", sender=Sender.ENGINE, properties={"x": PLANTED["name"]})
        await fetch(
            postgres_dsn,
            "INSERT INTO timers (bucket, profile_id, id, due_at, event) VALUES ($1, $2, 'y', $3, $4)",
            int(person.ids[0][:2], 16),
            person.ids[0],
            NOW,
            lanes.event_text(late),
        )
        await Timers(engine.store, engine.lane, lambda: NOW).fire_due()
        assert await traces(postgres_dsn) == {}

        # What comes later is somebody new's: nothing of the old comes back.
        again = await engine.send(event(name="Thank Me", user=PLANTED["user"], message="wish"))
        assert (again.accepted, again.duplicates) == (1, 0)
        new = await engine.profile("user_id", PLANTED["user"])
    assert new is not None
    assert new.id not in person.ids
    assert (new.seq, new.traits, new.consent, new.contacts) == (1, {}, {}, ())


async def test_erasure_while_merges_are_brought_over_and_events_arrive(postgres_dsn: str) -> None:
    """Two engines send about the person all the while: what was before never comes back."""
    async with lanes.engine(postgres_dsn, rules()) as one, lanes.engine(postgres_dsn, rules()) as two:
        secret = await one.store.secret(b"")
        for number in range(6):
            await live(one)
            stop = asyncio.Event()

            async def arrive(engine: lanes.Engine, stop: asyncio.Event = stop) -> None:
                while not stop.is_set():
                    await engine.send(event(name="Open", user=PLANTED["user"], anonymous=PLANTED["app"]))

            arriving = [asyncio.create_task(arrive(engine)) for engine in (one, two)]
            key = ("user_id", PLANTED["user"])
            moving = asyncio.create_task(bring_over(two.store.pool))
            erased = await rights.erase(one.store.pool, key, secret, NOW + timedelta(hours=number))
            await moving
            stop.set()
            await asyncio.gather(*arriving)
            assert erased is not None
            person = await one.profile("user_id", PLANTED["user"])
            assert person is None or not {"email", "first_name"} & person.traits.keys()
            connection = await asyncpg.connect(postgres_dsn)
            try:
                gone = [PLANTED[what] for what in ("email", "name", "token", "latitude", "old card")]
                assert await stored.scan(connection, gone) == {}
                ids = erased[1].ids
                for table in ("events", "seen", "decisions", "outbox", "timers", "identities"):
                    rows = await connection.fetchval(
                        f"SELECT count(*) FROM {table} WHERE profile_id = ANY ($1::uuid[])", ids
                    )
                    assert rows == 0, table
            finally:
                await connection.close()
            await rights.erase(one.store.pool, key, secret, NOW + timedelta(hours=number))


async def test_a_number_in_another_spelling_is_somebodys_only_if_it_is_theirs(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn, rules()) as engine:
        await engine.send(event(Kind.IDENTIFY, user="ada", traits={"phone": "087 123 4567"}))
        await refuse(postgres_dsn, b'{"properties": {"to": "+353 (87) 123-4567", "n": 1}}')
        await refuse(postgres_dsn, b'{"properties": {"to": "+44 87 123 4567"}}')  # ends the same
        await refuse(postgres_dsn, b'{"properties": {"order": "x1234567"}}')
        namespaces = engine.rules.workspace.namespaces
        found = await rights.export(engine.store.pool, ("phone", "+353871234567"), NOW, namespaces)
        assert found is not None
        assert len(found.rows["rejected"]) == 1
        await rights.erase(engine.store.pool, ("user_id", "ada"), b"s", NOW, namespaces)
    left = await fetch(postgres_dsn, "SELECT item FROM rejected ORDER BY id")
    assert len(left) == 2
    assert not [row for row in left if b"+353" in bytes(row[0])]


async def refuse(dsn: str, item: bytes) -> None:
    await fetch(
        dsn,
        "INSERT INTO rejected (key_digest, received_at, code, message, item) "
        "VALUES ('k', now(), 'x', 'x', $1)",
        item,
    )


async def test_the_export_shows_no_refused_event_of_somebody_else(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn, rules()) as engine:
        own = event(Kind.IDENTIFY, user="anna", anonymous="app-1", traits={"email": "Anna@Example.com"})
        await engine.send(own)
        for item in (
            b'{"userId": "joanna", "traits": {"name": "Joanna"}}',
            b'{"userId": "bob", "anonymousId": "app-1", "traits": {"name": "Bob"}}',
            b'{"anonymousId": "app-11", "traits": {"name": "Eve"}}',
            b'{"userId": "anna", "event": "Mine", "note": "\xff\x00"}',
        ):
            await refuse(postgres_dsn, item)
        found = await rights.export(engine.store.pool, ("user_id", "anna"), NOW)
    assert found is not None
    (refused,) = found.rows["rejected"]
    assert "Mine" in refused["item"]
    assert not [name for name in ("Joanna", "Bob", "Eve") if name in msgspec.json.encode(found).decode()]


async def test_refused_events_go_however_short_the_name_or_spelt(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn, rules()) as engine:
        await engine.send(event(Kind.IDENTIFY, user="u7", traits={"email": "Ada@Example.com"}))
        await refuse(postgres_dsn, b'{"userId": "u7"}')
        await refuse(postgres_dsn, b'{"traits": {"email": "Ada@Example.com"}}')
        await refuse(postgres_dsn, b'{"userId": "u77"}')
        assert await rights.erase(engine.store.pool, ("user_id", "u7"), b"s", NOW) is not None
    left = await fetch(postgres_dsn, "SELECT item FROM rejected")
    assert [bytes(row[0]) for row in left] == [b'{"userId": "u77"}']


async def test_an_erasure_that_meets_another_lock_tries_again(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn, rules()) as engine:
        await engine.send(event(name="A", user="ada"), event(name="B", anonymous="app"))
        await engine.send(event(Kind.IDENTIFY, user="ada", anonymous="app"))
        ada = await engine.profile("user_id", "ada")
        assert ada is not None
        other = await asyncpg.connect(postgres_dsn)
        try:
            # Where it took a second to get here, PostgreSQL tells the other one instead.
            with suppress(asyncpg.DeadlockDetectedError):
                async with other.transaction():
                    await other.execute("SELECT FROM profiles WHERE id = $1 FOR UPDATE", ada.id)
                    erasing = asyncio.create_task(
                        rights.erase(engine.store.pool, ("user_id", "ada"), b"s", NOW)
                    )
                    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    while not await other.fetchval(waits):
                        await asyncio.sleep(0.01)
                    # Now each waits for the other, and the erasure, which began to first, is told so.
                    await other.execute("SELECT FROM merges FOR UPDATE")
            erased = await asyncio.wait_for(erasing, 60)
        finally:
            await other.close()
    assert erased is not None
    assert erased[0].profiles == 2


async def test_many_erasures_hold_one_connection_for_their_dead_rows(postgres_dsn: str) -> None:
    store = await connect(postgres_dsn, size=2)
    vacuums = Vacuums(store)
    running = asyncio.create_task(vacuums.run())
    other = await asyncpg.connect(postgres_dsn)
    dead = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'VACUUM%' AND wait_event_type = 'Lock'"
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE profiles IN ACCESS EXCLUSIVE MODE")
            for _ in range(5):
                vacuums.ask(["events"])
                await asyncio.sleep(0)
            while not await other.fetchval(dead):
                await asyncio.sleep(0.01)
            assert await asyncio.wait_for(store.pool.fetchval("SELECT 1"), 10) == 1
            assert await other.fetchval(dead) == 1
    finally:
        await other.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()


async def test_a_restriction_reaches_whoever_stands_for_the_profile_by_now(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn, rules()) as engine:
        await engine.send(event(name="A", user="ada"), event(name="B", anonymous="app"))
        app = await engine.profile("anonymous_id", "app")
        assert app is not None
        await engine.send(event(Kind.IDENTIFY, user="ada", anonymous="app"))
        await rights.restrict(engine.lane, app, True, NOW)
        ada = await engine.profile("user_id", "ada")
    assert ada is not None
    assert ada.id != app.id
    assert ada.restricted


async def test_the_ledger_leaves_alone_who_began_anew(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn, rules()) as engine:
        secret = await engine.store.secret(b"")
        await engine.send(event(name="A", user="ada"))
        assert await rights.erase(engine.store.pool, ("user_id", "ada"), secret, NOW) is not None
        book = dict(await stored.ledger(engine.store.pool))
        engine.now = NOW + timedelta(days=1)
        await engine.send(event(name="A", user="ada"))
        assert await stored.come_back(engine.store.pool, secret, book) == []
        later = dict.fromkeys(book, NOW + timedelta(days=2))
        assert await stored.come_back(engine.store.pool, secret, later) == [("user_id", "ada")]


async def test_later_events_are_dropped_where_the_workspace_says_so(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn, rules(DROP)) as engine:
        await live(engine)
        secret = await engine.store.secret(b"")
        namespaces = engine.rules.workspace.namespaces
        key = ("user_id", PLANTED["user"])
        assert await rights.erase(engine.store.pool, key, secret, NOW, namespaces) is not None
        reply = await engine.send(
            event(name="Open", user=PLANTED["user"]),
            event(name="Open", anonymous=PLANTED["app"], traits={"town": "Cork"}),
            event(name="Open", traits={"email": PLANTED["email"].upper()}),
            event(name="Open", user="else", traits={"email": PLANTED["email"].upper(), "town": "Cork"}),
            event(name="Open", user="else", anonymous=PLANTED["app"], context={"app": {"name": "x"}}),
            event(Kind.ALIAS, user="else", previous_id=PLANTED["user"]),
            event(name="Open", user="else"),
        )
        assert reply.accepted == 4
        assert await engine.profile("user_id", PLANTED["user"]) is None
        other = await engine.profile("user_id", "else")
    assert other is not None
    assert other.seq == 4  # the living person's events are kept, without the erased identities
    assert {i.key for i in other.identities} == {("user_id", "else")}
    assert {name: trait.value for name, trait in other.traits.items()} == {"town": "Cork"}
    assert await traces(postgres_dsn) == {}
    upper = await fetch(
        postgres_dsn, "SELECT count(*) FROM events WHERE body::text ILIKE $1", f"%{PLANTED['email']}%"
    )
    assert upper[0][0] == 0


def test_an_identity_is_taken_out_of_every_place_that_it_is_read_from() -> None:
    namespaces = lanes.rule_set(
        workspace=lanes.WORKSPACE
        + b"""
identities:
  - {namespace: user_id, one: true}
  - {namespace: email, from: [traits.email, context.traits.mail, properties.mail]}
  - {namespace: anonymous_id}
"""
    ).workspace.namespaces
    told = event(
        Kind.ALIAS,
        user="u",
        anonymous="a",
        previous_id="p",
        traits={"email": "A@x.org", "town": "Cork"},
        context={"traits": {"mail": "a@x.org"}, "locale": "en"},
        properties={"mail": "b@x.org"},
    )
    gone = {("email", "a@x.org"), ("anonymous_id", "a"), ("user_id", "p")}
    left = identity.without(told, gone, namespaces)
    assert (left.user_id, left.anonymous_id, left.previous_id) == ("u", None, None)
    assert left.traits == {"town": "Cork"}
    assert left.context == {"traits": {}, "locale": "en"}
    assert left.properties == {"mail": "b@x.org"}
    assert identity.keys_of(left, namespaces) == (("user_id", "u"), ("email", "b@x.org"))


async def test_a_restored_backup_brings_nobody_back(postgres: str, postgres_dsn: str, tmp_path: Path) -> None:
    async with lanes.engine(postgres_dsn, rules()) as engine:
        await engine.send(event(Kind.IDENTIFY, user="bob"))
        await live(engine)
    backup = "restored_backup"
    name = postgres_dsn.partition("?")[0].rpartition("/")[2]
    await execute(postgres, f"CREATE DATABASE {backup} TEMPLATE {name} STRATEGY FILE_COPY")
    try:
        write_workspace(tmp_path / "rules", WORKSPACE)
        done = await asyncio.to_thread(
            _command, tmp_path, postgres_dsn, "erase", "user_id", PLANTED["user"], "--scan"
        )
        assert done.returncode == 0, done.stderr
        assert "nothing is left" in done.stdout
        book = await asyncio.to_thread(_command, tmp_path, postgres_dsn, "erase", "--ledger")
        assert len(book.stdout.splitlines()) == 6
        assert "planted" not in book.stdout
        (tmp_path / "ledger.jsonl").write_text(book.stdout)

        restored = named(postgres, backup)
        assert await traces(restored) != {}
        done = await asyncio.to_thread(
            _command, tmp_path, restored, "erase", "--replay", str(tmp_path / "ledger.jsonl")
        )
        assert done.returncode == 0, done.stderr
        assert "1 people had come back" in done.stdout
        assert await traces(restored) == {}
        async with lanes.engine(restored, rules()) as engine:
            assert await engine.profile("user_id", "bob") is not None
    finally:
        await execute(postgres, f"DROP DATABASE IF EXISTS {backup} WITH (FORCE)")


def _command(folder: Path, dsn: str, *arguments: str) -> Any:
    return served.command(folder, *arguments, dsn=dsn)


async def test_by_command_and_over_http(postgres_dsn: str, tmp_path: Path) -> None:
    write_workspace(tmp_path / "rules", WORKSPACE)
    await asyncio.to_thread(_over_http, tmp_path, postgres_dsn)
    assert await traces(postgres_dsn) == {}


def _put_in(folder: Path) -> None:
    """Files of people in the watched folder: one that is taken, with a row that is not, and one that
    cannot be read, where the planted person is named in other spellings."""
    inbox = folder / "data" / "import" / "profiles"
    inbox.mkdir(parents=True)
    rows = [
        "user_id,email,phone,first_name,timestamp",
        f"{PLANTED['user']},{PLANTED['email']},{PLANTED['phone']},{PLANTED['name']},2026-03-01",
        "bob,bob@example.com,,Bob,2026-03-01",
        f",{PLANTED['email'].upper()},,{PLANTED['name']},yesterday",
        "eve,,,Eve,yesterday",
    ]
    (inbox / "people.csv").write_text("\n".join(rows) + "\n")
    (inbox / "broken.csv").write_text(f'name;to\nBob;"087 9"\n{PLANTED["name"]};"{OTHER_SPELLINGS[2]}"\n')
    for name in ("done/people.csv", "failed/broken.csv"):
        served.until(lambda name=name: (inbox / name).exists(), 60, name)


def _over_http(folder: Path, dsn: str) -> None:
    with served.serve(folder, dsn) as engine, engine.client() as app, engine.admin() as admin:
        told = {
            "userId": PLANTED["user"],
            "traits": {
                "email": PLANTED["email"],
                "first_name": PLANTED["name"],
                "consent": {"marketing": True},
            },
            "context": {"device": {"id": "d", "type": "android", "token": PLANTED["token"]}},
        }
        app.post("/v1/identify", json=told)
        place = f"/admin/profiles/user_id/{PLANTED['user']}"
        who = {"namespace": "email", "value": PLANTED["email"].upper()}

        def wish() -> str:
            sent = {"userId": PLANTED["user"], "event": "Thank Me"}
            app.post("/v1/track", json=sent)
            newest = admin.get(f"{place}/decisions").json()["decisions"][0]
            return str(newest.get("reason") or newest["outcome"])

        assert wish() == "offered"
        assert admin.post("/admin/profiles/restrict", json=who).status_code == 200
        assert wish() == "restricted"
        admin.post("/admin/profiles/restrict", json={**who, "restricted": False})
        assert wish() == "offered"
        corrected = admin.post("/admin/profiles/correct", json={**who, "traits": {"first_name": "Augusta"}})
        assert corrected.json()["traits"]["first_name"] == "Augusta"

        exported = admin.get(f"{place}/export")
        assert PLANTED["token"] in exported.text
        assert admin.post("/admin/profiles/export", json=who, params={"format": "html"}).text.startswith(
            "<!doctype html>"
        )
        by_command = _command(folder, dsn, "export", "email", PLANTED["email"])
        assert PLANTED["name"] in by_command.stdout

        _put_in(folder)
        answer = admin.delete(place)
        assert answer.status_code == 202
        receipt = admin.get(f"/admin/erasures/{answer.json()['receipt']}").json()
        assert receipt["leftOver"] == {}
        assert receipt["deleted"]["events"] >= 7  # what the sender told is one, too
        assert receipt["deleted"]["import_files"] == 4
        kept = [f for f in (folder / "data").rglob("*") if f.is_file()]
        texts = "".join(f.read_text("utf-8", "replace") for f in kept)
        words = (*PLANTED.values(), *OTHER_SPELLINGS, PLANTED["email"].upper())
        assert [word for word in words if word in texts] == []
        assert texts.count("Bob") == 2
        assert "Eve" in texts
        assert admin.get(place).status_code == 404
        assert admin.delete(place).status_code == 404
        assert admin.post("/admin/profiles/erase", json=who).status_code == 404
        for word in PLANTED.values():
            assert word not in engine.stderr
            assert word not in engine.stdout
