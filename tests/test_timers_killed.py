"""Timers through the whole engine: over HTTP, in time, once, and through kill -9."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests import served
from tests.lanes import RULES
from tests.served import SERVER_KEY, fetch, until

WAITING = (
    RULES
    + b"""
  soon: {when: {event: Cart Updated, for: 1s, by: event.properties.cart}, offer: thanks}
  survivor: {when: {event: Cart Kept, for: 3s, by: event.properties.cart}, offer: thanks}
"""
)
MADE = "SELECT decided_at, document FROM decisions WHERE rule = $1 ORDER BY decided_at"


def arrival(user: str) -> dict[str, Any]:
    device = {"id": f"{user}-phone", "type": "android", "token": f"token-{user}"}
    consent = {"categoryPreferences": {"marketing": True}}
    return {
        "type": "identify",
        "userId": user,
        "messageId": uuid4().hex,
        "context": {"device": device, "consent": consent},
    }


def cart(user: str, event: str, cart: str) -> dict[str, Any]:
    told = {"type": "track", "userId": user, "event": event, "properties": {"cart": cart}}
    return {**told, "messageId": uuid4().hex}


def test_what_waits_is_decided_in_time_once_and_through_a_kill(postgres: str, tmp_path: Path) -> None:
    served.write_workspace(tmp_path / "rules", rules=WAITING)
    people = [f"p{number}" for number in range(10)]
    with served.database(postgres, "test_timers_killed") as dsn:
        with served.serve(tmp_path, dsn) as engine, engine.client(SERVER_KEY) as shop:
            batch = [arrival(user) for user in people]
            batch += [cart(user, "Cart Updated", "a") for user in people]
            assert shop.post("/v1/batch", json={"batch": batch}).json()["accepted"] == 20
            made = until(
                lambda: rows if len(rows := fetch(dsn, MADE, "soon")) == 10 else None, 30, "decisions"
            )
            # How late is the machine's affair; that it is never early, and once, is ours.
            events = fetch(dsn, "SELECT min(occurred_at) AS at FROM events WHERE name = 'Cart Updated'")
            assert min(row["decided_at"] for row in made) >= events[0]["at"] + timedelta(seconds=1)
            batch = [cart(user, "Cart Kept", "a") for user in people]
            assert shop.post("/v1/batch", json={"batch": batch}).json()["accepted"] == 10
            engine.kill()
        assert len(fetch(dsn, "SELECT FROM timers WHERE id LIKE '$waited:survivor:%'")) == 10
        with served.serve(tmp_path, dsn) as one, served.serve(tmp_path, dsn) as two:
            until(lambda: len(fetch(dsn, MADE, "survivor")) >= 10, 30, "what survived")
            assert one.process.poll() is None
            assert two.process.poll() is None
            until(lambda: not fetch(dsn, "SELECT FROM timers WHERE id LIKE '$waited:%'"), 30, "no timer left")
            assert len(fetch(dsn, MADE, "survivor")) == len(fetch(dsn, MADE, "soon")) == 10
