"""Housekeeping on a real database: what is past its time goes, what is not stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from engine.app.jobs import REJECTED_KEPT, SEEN_KEPT, SETTLED_KEPT, keep_house
from engine.formats.workspace_settings import DEFAULT_RETENTION
from tests import lanes
from tests.lanes import CAFE, arrival, decoded, event, fetch


async def test_each_kind_is_kept_for_its_own_time(postgres_dsn: str) -> None:
    now = datetime.now(UTC)
    retention = {
        **DEFAULT_RETENTION,
        "events": timedelta(days=400),
        "positions": timedelta(days=30),
        "suppressed": timedelta(days=7),
    }
    async with lanes.engine(postgres_dsn) as engine:
        for age in (timedelta(days=31), timedelta(days=29), timedelta(days=8), timedelta(days=6)):
            engine.now = now - age
            person = f"seen {age.days} days ago"
            await engine.send(
                event(name="Location Updated", user=person, location=CAFE, at=engine.now),  # no consent
                event(name="Thank Me", user=person, at=engine.now),
            )
        engine.now = now - timedelta(days=31)
        await engine.send(arrival("ada", at=engine.now))
        await engine.send(event(name="Thank Me", user="ada", at=engine.now))
        await keep_house(engine.store, retention)
    events = await fetch(postgres_dsn, "SELECT body, located, received_at FROM events WHERE name LIKE 'Loc%'")
    kept = {(now - row["received_at"]).days: decoded(row["body"]).get("location") for row in events}
    assert {age for age, location in kept.items() if location is None} == {31}
    assert set(kept) == {31, 29, 8, 6}
    assert sum(row["located"] for row in events) == 3
    decisions = await fetch(postgres_dsn, "SELECT outcome, decided_at FROM decisions")
    assert {(now - r["decided_at"]).days for r in decisions if r["outcome"] == "suppressed"} == {6}
    assert [(now - r["decided_at"]).days for r in decisions if r["outcome"] == "offered"] == [31]


async def test_what_recognises_repeats_outlives_the_events(postgres_dsn: str) -> None:
    now = datetime.now(UTC)
    async with lanes.engine(postgres_dsn) as engine:
        for age in (SEEN_KEPT - timedelta(hours=1), SEEN_KEPT + timedelta(hours=1)):
            at = engine.now = now - age
            await engine.send(event(name="Open", user="a", at=at))
        await keep_house(engine.store, DEFAULT_RETENTION)
    assert len(await fetch(postgres_dsn, "SELECT FROM seen")) == 1


async def test_settled_sends_and_rejected_events_go_and_dead_letters_stay(postgres_dsn: str) -> None:
    now = datetime.now(UTC)
    for state, age in (("sent", SETTLED_KEPT), ("dead", SETTLED_KEPT), ("sent", timedelta())):
        await fetch(
            postgres_dsn,
            """INSERT INTO outbox (bucket, id, profile_id, provider, purpose, payload, expires_at, state,
                                   settled_at)
               VALUES (0, gen_random_uuid(), gen_random_uuid(), 'fcm', 'marketing', '{}', $1, $2, $3)""",
            now,
            state,
            now - age - timedelta(minutes=1),
        )
    for age in (REJECTED_KEPT, timedelta()):
        await fetch(
            postgres_dsn,
            """INSERT INTO rejected (key_digest, received_at, code, message, item)
               VALUES ('k', $1, 'c', 'm', '')""",
            now - age - timedelta(minutes=1),
        )
    async with lanes.engine(postgres_dsn) as engine:
        await keep_house(engine.store, DEFAULT_RETENTION)
    assert sorted(r["state"] for r in await fetch(postgres_dsn, "SELECT state FROM outbox")) == [
        "dead",
        "sent",
    ]
    assert len(await fetch(postgres_dsn, "SELECT FROM rejected")) == 1
