"""Lanes on a real database, as an engine has them, and events as ingest would hand them over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec

from engine.adapters.postgres.store import Store, connect
from engine.app.cache import ProfileCache
from engine.app.lane import Lane
from engine.app.replies import Pending, Reply
from engine.app.ruling import Ruling
from engine.app.tick import Pipeline
from engine.app.weather import Weather
from engine.domain.offers.rules import RuleSet
from engine.domain.people import identity
from engine.domain.people.events import Device, Event, Kind, Location
from engine.domain.people.profiles import Profile
from engine.formats.workspace import load

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)

WORKSPACE = b"""
timezone: Europe/Dublin
currency: EUR
caps:
  - {channel: push, times: 100, per: day}
traits:
  first_name: {type: string}
computed:
  orders: {count: Order Completed}
  spend: {sum: event.properties.revenue, of: Order Completed}
  last_store: {last: event.properties.store, of: Order Completed}
"""
RULES = b"""
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [cafe], properties: {name: "The Mill"}}
offers:
  latte:
    purpose: marketing
    propensity: 0.5
    value: 3.0
    cost: 1.0
    message: {push: {title: "Hi {{ profile.first_name | default: 'you' }}", body: "{{ geofence.name }}"}}
  thanks: {purpose: marketing, message: {push: {title: "Thanks", body: "for {{ profile.orders }}"}}}
rules:
  cafe: {when: {enter: {tag: cafe}}, offer: latte, cap: {times: 1, per: 7d}}
  thanks: {when: Thank Me, offer: thanks, cap: {times: 3, per: 7d}}
"""
CAFE = Location(latitude=52.66, longitude=-8.62, accuracy=10.0)
FAR = Location(latitude=52.70, longitude=-8.62, accuracy=10.0)


def rule_set(rules: bytes = RULES, workspace: bytes = WORKSPACE, **files: bytes) -> RuleSet:
    loaded = load({"workspace.yaml": workspace, "rules.yaml": rules, **files}, {})
    assert loaded.rule_set is not None, loaded.problems
    return loaded.rule_set


def event(
    kind: Kind = Kind.TRACK,
    name: str = "",
    *,
    user: str | None = None,
    anonymous: str | None = None,
    message: str | None = None,
    at: datetime = NOW,
    **fields: Any,
) -> Event:
    return Event(
        kind=kind,
        name=name,
        message_id=message or uuid4().hex,
        user_id=user,
        anonymous_id=anonymous,
        timestamp=at,
        received_at=at,
        **fields,
    )


def arrival(user: str, device: str | None = None, **fields: Any) -> Event:
    """A person whom one may push to."""
    return event(
        Kind.IDENTIFY,
        user=user,
        consent={"marketing": True},
        device=Device(id=device or f"{user}-phone", type="android", token=f"token-{user}"),
        **fields,
    )


class Engine:
    """A lane with a clock that the test holds."""

    def __init__(
        self,
        store: Store,
        rules: RuleSet,
        models: dict[str, Any],
        secret: bytes,
        weather: Weather | None = None,
    ) -> None:
        self.store = store
        self.rules = rules
        self.now = NOW
        self.clock: Callable[[], datetime] = lambda: self.now
        self.sends: list[Any] = []
        self.cache = ProfileCache(64 * 1024 * 1024)
        self.pipeline = Pipeline(
            store=store,
            cache=self.cache,
            ruling=lambda: Ruling(self.rules, models),
            clock=lambda: self.clock(),
            secret=secret,
            providers=frozenset({"fcm"}),
            take_sends=lambda sends, _: self.sends.extend(sends),
            weather=weather,
        )
        self.lane = Lane(self.pipeline)

    def submit(self, *events: Event) -> Reply:
        reply = Reply(len(events))
        namespaces = self.rules.workspace.namespaces
        self.lane.submit(
            [
                Pending(event=e, reply=reply, keys=identity.keys_of(e, namespaces), position=i)
                for i, e in enumerate(events)
            ]
        )
        return reply

    async def send(self, *events: Event) -> Reply:
        reply = self.submit(*events)
        await asyncio.wait_for(reply.done, 30)
        return reply

    async def profile(self, namespace: str, value: str) -> Profile | None:
        async with self.store.session() as session:
            owners = await session.owners([(namespace, value)])
            found = await session.profiles(list(owners.values()))
        return found[0][0] if found and found[0][0].lists((namespace, value)) else None


@asynccontextmanager
async def engine(
    dsn: str,
    rules: RuleSet | None = None,
    models: dict[str, Any] | None = None,
    weather: Weather | None = None,
) -> AsyncIterator[Engine]:
    store = await connect(dsn)
    secret = await store.secret(b"0123456789abcdef0123456789abcdef")
    one = Engine(store, rules or rule_set(), models or {}, secret, weather)
    task = asyncio.create_task(one.lane.run())
    try:
        yield one
    finally:
        one.lane.close()
        await asyncio.wait_for(task, 30)
        await store.close()


async def fetch(dsn: str, sql: str, *arguments: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(sql, *arguments))
    finally:
        await connection.close()


def outcomes(reply: Reply) -> list[tuple[str | None, str, str | None]]:
    return [(d.rule, d.outcome.value, d.reason.value if d.reason else None) for d in reply.decisions]


def minutes(n: float) -> timedelta:
    return timedelta(minutes=n)


def plain(rows: Sequence[asyncpg.Record]) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in rows]


def decoded(text: str) -> Any:
    return msgspec.json.decode(text)


MODEL_CARD = b"""
name: redeem
version: "1"
model: redeem.onnx
horizon: 7d
inputs: [{name: orders, from: profile.orders}]
output: probabilities
"""


def rule_set_with_model() -> RuleSet:
    """The rules, with a model behind the offer `thanks`. The test brings the model itself."""
    rules = RULES.replace(
        b"thanks: {purpose: marketing,", b"thanks: {purpose: marketing, propensity: {model: redeem},"
    )
    loaded = load(
        {"workspace.yaml": WORKSPACE, "rules.yaml": rules},
        {"redeem.yaml": MODEL_CARD, "redeem.onnx": b""},
    )
    assert loaded.rule_set is not None, loaded.problems
    return loaded.rule_set


def event_text(one: Event) -> str:
    """An event as a timer's row holds it."""
    return msgspec.json.encode(one).decode()
