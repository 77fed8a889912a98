"""Random histories of people, and a slow oracle that knows nothing of the engine.

Two kinds. `free` ones hold what may arrive in any order: identify, alias and merge that never make
one person of two users. `causal` ones hold moves, logouts, groups and reissued cards, each device's in
its order. Each history is told to two engines at once, with repeats.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import strategies as st

from engine.adapters.postgres.merges import bring_over
from engine.domain.people.events import Device, Event, Kind
from engine.domain.people.profiles import IdentityKey
from tests import lanes
from tests.lanes import NOW, event

WORKSPACE = b"""
identities:
  - {namespace: user_id, one: true}
  - {namespace: card, one: true, on_change: replace, from: [traits.card]}
  - {namespace: email, from: [traits.email]}
  - {namespace: anonymous_id}
traits: {mood: {type: string}}
computed:
  orders: {count: Order}
  spend: {sum: event.properties.revenue, of: Order}
  last_store: {last: event.properties.store, of: Order}
"""
RULES = b"rules: {}"
DEVICES = ("d0", "d1", "d2")


class Told(msgspec.Struct, frozen=True):
    """One event as generated: ids by kind, when (minutes), on which device, what was bought."""

    number: int
    user: str | None = None
    anonymous: str | None = None
    previous: str | None = None
    email: str | None = None
    card: str | None = None
    kind: str = "track"
    name: str = "Order"
    at: int = 0
    device: str | None = None
    copy_of: int | None = None
    consent: bool | None = None

    @property
    def message(self) -> str:
        return f"m{self.number if self.copy_of is None else self.copy_of}"

    @property
    def cents(self) -> int:
        """What it cost: the same in both copies of a message."""
        number = self.number if self.copy_of is None else self.copy_of
        return (number * 37 + 1) % 1000

    @property
    def ids(self) -> list[IdentityKey]:
        named = [
            ("user_id", self.user),
            ("card", self.card),
            ("email", self.email),
            ("anonymous_id", self.anonymous),
            ("anonymous_id", self.previous),
        ]
        return [(kind, value) for kind, value in named if value is not None]


class Person(msgspec.Struct, frozen=True):
    """What must be known of one person in the end."""

    ids: frozenset[IdentityKey]
    events: int
    orders: int
    cents: int
    last_store: str | None = None
    mood: str | None = None
    marketing: bool | None = None


# Histories that may arrive in any order

USERS, APPS = ("u0", "u1", "u2", "u3", "u4"), tuple(f"a{n}" for n in range(9))
MAILS = tuple(f"{name}@example.com" for name in "xyzvwq")


@st.composite
def free_histories(draw: st.DrawFn) -> list[Told]:
    """20 ids on 3 devices. An id that would make one person of two users is left out."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    def users(name: str) -> set[str]:
        return {u for u in USERS if root(u) == root(name)}

    told: list[Told] = []
    for number in range(draw(st.integers(1, 24))):
        kind = draw(st.sampled_from(["track", "track", "identify", "identify", "alias", "merge"]))
        first = draw(st.sampled_from(USERS if kind == "alias" else [*USERS, *APPS, *APPS]))
        others = []
        if kind != "track" or draw(st.booleans()):
            others.append(draw(st.sampled_from(APPS if kind in ("alias", "merge") else [*APPS, *MAILS])))
        if kind == "identify":
            others.append(draw(st.sampled_from(MAILS)))
        joined = [first]
        for other in others:
            if other not in joined and len(users(first) | users(other)) <= 1:
                parent[root(other)] = root(first)
                joined.append(other)
        apps = [name for name in joined if name in APPS]
        user = first if first in USERS else None
        mails = [name for name in joined if name in MAILS]
        if kind in ("alias", "merge") and len(joined) < 2:
            kind = "identify"
        copies = [t for t in told if t.kind == "track" and len(t.ids) == 1 and t.copy_of is None]
        copy = None
        if copies and kind == "track" and len(joined) == 1 and draw(st.booleans()):
            copy = draw(st.sampled_from(copies))
        alone = kind == "merge" and user is None
        told.append(
            Told(
                number=number,
                user=user,
                anonymous=apps[0] if apps and kind != "alias" and (kind != "merge" or alone) else None,
                previous=apps[-1] if kind in ("alias", "merge") else None,
                email=mails[0] if mails else None,
                kind=kind,
                at=draw(st.integers(0, 10_000)) * 100 + number if copy is None else copy.at,
                device=draw(st.sampled_from([None, *DEVICES])),
                copy_of=copy.number if copy is not None else None,
                consent=draw(st.sampled_from([None, None, True, False])) if copy is None else copy.consent,
            )
        )
    return told


def people_of_free(history: Sequence[Told]) -> set[Person]:
    """The connected components, each message of a component once."""
    people: list[tuple[set[IdentityKey], list[Told]]] = []
    for told in history:
        ids, events = set(told.ids), [told]
        for other in [p for p in people if p[0] & ids]:
            ids |= other[0]
            events += other[1]
            people.remove(other)
        people.append((ids, events))
    return {_person(ids, events) for ids, events in people}


def _person(ids: set[IdentityKey], events: list[Told]) -> Person:
    once = list({told.message: told for told in events}.values())
    orders = sorted((t for t in once if t.kind == "track" and t.name == "Order"), key=lambda t: t.at)
    moods = sorted(once, key=lambda t: t.at)
    said = [t for t in moods if t.consent is not None]
    return Person(
        ids=frozenset(ids),
        events=len(once),
        orders=len(orders),
        cents=sum(t.cents for t in orders),
        last_store=f"s{orders[-1].cents}" if orders else None,
        mood=f"mood {moods[-1].at}",
        marketing=said[-1].consent if said else None,
    )


# Histories in each device's order


@st.composite
def causal_histories(draw: st.DrawFn) -> dict[str, list[Told]]:
    """By device what was told there: who signed in, moved over, logged out, joined a group."""
    lives: dict[str, list[Told]] = {}
    number = 0
    for position, device in enumerate(DEVICES):
        told: list[Told] = []
        for _ in range(draw(st.integers(0, 10))):
            user = draw(st.sampled_from([None, None, *USERS[:4]]))
            app = f"a{position * 2 + draw(st.integers(0, 1))}"
            kind, name = draw(
                st.sampled_from(
                    [("track", "Order"), ("identify", ""), ("group", ""), ("track", "Logged Out")]
                )
            )
            card = None
            if user is not None and draw(st.booleans()):
                card = f"c-{user}-{draw(st.integers(0, 1))}"
            told.append(
                Told(
                    number=number,
                    user=user,
                    anonymous=app,
                    email=f"{user}@example.com" if user and draw(st.booleans()) else None,
                    card=card,
                    kind=kind,
                    name=name,
                    at=number * 100,
                    device=device,
                )
            )
            number += 1
        lives[device] = told
    return lives


def people_of_causal(lives: dict[str, list[Told]]) -> set[Person]:
    """An app belongs to nobody until somebody signs in there: they get its past. Whoever signs in next
    takes the app, and leaves what happened before."""
    counted: dict[str, list[Told]] = {}
    ids: dict[str, set[IdentityKey]] = {}
    cards: dict[str, tuple[int, str]] = {}
    for life in lives.values():
        holder: dict[str, str] = {}
        for told in life:
            assert told.anonymous is not None
            app = told.anonymous
            before = holder.get(app, app)
            now = told.user or before
            if told.user is not None and before == app:
                counted.setdefault(now, []).extend(counted.pop(app, []))
                ids.pop(app, None)
            holder[app] = now
            for key in ids.values():
                key.discard(("anonymous_id", app))
            ids.setdefault(now, set()).add(("anonymous_id", app))
            counted.setdefault(now, []).append(told)
            if told.user is not None:
                ids[now].add(("user_id", told.user))
                if told.email is not None:
                    ids[now].add(("email", told.email))
                if told.card is not None:
                    cards[now] = max(cards.get(now, (-1, "")), (told.at, told.card))
    for name, (_, card) in cards.items():
        ids[name].add(("card", card))
    people = {_person(ids[name], events) for name, events in counted.items()}
    return {msgspec.structs.replace(p, last_store=None, mood=None, marketing=None) for p in people}


# Telling it to two engines


def as_event(told: Told, prefix: str) -> Event:
    def named(value: str | None) -> str | None:
        return f"{prefix}{value}" if value is not None else None

    traits: dict[str, Any] = {"mood": f"mood {told.at}"}
    if told.email is not None:
        traits["email"] = named(told.email)
    if told.card is not None:
        traits["card"] = named(told.card)
    return event(
        Kind(told.kind),
        told.name if told.kind == "track" else "",
        user=named(told.user),
        anonymous=named(told.anonymous),
        message=told.message,
        at=NOW + timedelta(seconds=told.at),
        previous_id=named(told.previous),
        group_id=named("g") if told.kind == "group" else None,
        traits=traits,
        consent={"marketing": told.consent} if told.consent is not None else {},
        properties={"revenue": told.cents / 100, "store": f"s{told.cents}"},
        device=Device(id=f"{prefix}{told.device}") if told.device is not None else None,
    )


async def live_freely(
    engines: Sequence[lanes.Engine], history: Sequence[Told], prefix: str, seed: int
) -> set[Person]:
    """Each event to one engine, some to both or twice, in any order and in requests of any size."""
    chance = random.Random(seed)
    work = [(chance.choice(engines), told) for told in history]
    work += [(chance.choice(engines), told) for told in history if chance.random() < 0.3]
    chance.shuffle(work)
    replies = []
    while work:
        size = chance.randint(1, 4)
        batch, work = work[:size], work[size:]
        for engine in engines:
            if mine := [as_event(told, prefix) for to, told in batch if to is engine]:
                replies.append(engine.submit(*mine))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        if chance.random() < 0.1:
            await bring_over(engines[0].store.pool)
    await asyncio.gather(*(asyncio.wait_for(reply.done, 60) for reply in replies))
    return await people(engines[0], [key for told in history for key in told.ids], prefix)


async def live_causally(
    engines: Sequence[lanes.Engine], lives: dict[str, list[Told]], prefix: str, seed: int
) -> set[Person]:
    """Each device in its order, by any engine, the devices at once."""
    chance = random.Random(seed)

    async def live(life: list[Told]) -> None:
        for position, told in enumerate(life):
            await asyncio.wait_for(chance.choice(engines).submit(as_event(told, prefix)).done, 60)
            if chance.random() < 0.3:
                again = as_event(life[chance.randint(0, position)], prefix)
                await asyncio.wait_for(chance.choice(engines).submit(again).done, 60)

    await asyncio.gather(*(live(life) for life in lives.values()))
    found = await people(
        engines[0], [key for life in lives.values() for told in life for key in told.ids], prefix
    )
    return {msgspec.structs.replace(p, last_store=None, mood=None, marketing=None) for p in found}


async def people(engine: lanes.Engine, keys: Sequence[IdentityKey], prefix: str) -> set[Person]:
    """The people that the database knows of those ids."""
    found = {}
    async with engine.store.session() as session:
        named = [(namespace, prefix + value) for namespace, value in dict.fromkeys(keys)]
        owners = await session.owners(named)
        for profile, _ in await session.profiles(sorted(set(owners.values()))):
            if any(profile.lists(key) for key in named):
                found[profile.id] = profile
    return {
        Person(
            ids=frozenset((i.namespace, i.value.removeprefix(prefix)) for i in p.identities),
            events=await _events(engine, p.id, [a.id for a in p.absorbed]),
            orders=p.computed.get("orders", 0),
            cents=round(p.computed.get("spend", 0) * 100),
            last_store=p.computed["last_store"][1] if "last_store" in p.computed else None,
            mood=p.traits["mood"].value if "mood" in p.traits else None,
            marketing=p.consent["marketing"].granted if "marketing" in p.consent else None,
        )
        for p in found.values()
    }


async def _events(engine: lanes.Engine, profile_id: str, absorbed: list[str]) -> int:
    """How many messages the log has of a person."""
    (row,) = await engine.store.pool.fetch(
        "SELECT count(DISTINCT (sender, message_id)) FROM events WHERE profile_id = ANY ($1::uuid[])",
        [profile_id, *absorbed],
    )
    return int(row[0])
