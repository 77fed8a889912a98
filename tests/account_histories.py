"""Random histories of members of accounts, and a slow oracle that knows nothing of the engine.

People sign in and out on several devices, join accounts, buy for them and for themselves; a server does
so for them, too. Each device's events come in their order, the devices at once, told to two engines.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta

import msgspec
from hypothesis import strategies as st

from engine.app.timers import Timers
from engine.domain.people.events import Event, Kind
from engine.domain.people.profiles import ACCOUNT_NAMESPACE, Profile
from tests import lanes
from tests.lanes import NOW, event

WORKSPACE = b"""
accounts:
  computed:
    orders: {count: Order}
    spend: {sum: event.properties.revenue, of: Order}
    spend_7d: {sum: event.properties.revenue, of: Order, within: 7d}
    skus: {distinct: event.properties.sku, of: Order}
    last_sku: {last: event.properties.sku, of: Order}
    skus_often: {most_often: event.properties.sku, of: Order, top: 3}
"""
RULES = b"rules: {}"
ACCOUNTS = ("acme", "apex", "atom")
STRANGE = "nobody-joined-it"
USERS = ("u0", "u1", "u2")
SERVER = "server"
DEVICES = ("d0", "d1", SERVER)


class Told(msgspec.Struct, frozen=True):
    """One event as generated: by whom, on which app, when (seconds); `account` is the one that a group
    call joins, `named` the one in the context."""

    number: int
    user: str | None
    app: str | None
    kind: str
    account: str | None = None
    named: str | None = None
    role: str | None = None

    @property
    def sku(self) -> str:
        return f"sku{self.number % 4}"

    @property
    def cents(self) -> int:
        return (self.number * 37 + 1) % 1000


class Account(msgspec.Struct, frozen=True):
    """What must be known of an account in the end."""

    members: frozenset[tuple[frozenset[str], str | None]]
    """Each by their ids, with their role."""
    orders: int = 0
    cents: int = 0
    skus: frozenset[str] = frozenset()
    last_sku: str | None = None


@st.composite
def histories(draw: st.DrawFn) -> dict[str, list[Told]]:
    lives: dict[str, list[Told]] = {}
    number = 0
    for position, device in enumerate(DEVICES):
        life: list[Told] = []
        joined: dict[str | None, set[str]] = {}
        holder: dict[str, str] = {}
        for _ in range(draw(st.integers(0, 12))):
            app = None
            user = draw(st.sampled_from([None, *USERS]))
            if device == SERVER:
                user = user or USERS[0]
            else:
                app = f"a{position * 2 + draw(st.integers(0, 1))}"
            kind = draw(st.sampled_from(["order", "order", "order", "group", "logout", "identify"]))
            who = user or (holder.get(app, app) if app else None)
            if app is not None and user is not None:
                if app not in holder:
                    joined.setdefault(user, set()).update(joined.pop(app, set()))
                holder[app] = user
            account = named = role = None
            if kind == "group":
                account = draw(st.sampled_from(ACCOUNTS))
                role = draw(st.sampled_from([None, "buyer", "cook"]))
                joined.setdefault(who, set()).add(account)
            elif kind == "order" and draw(st.integers(0, 3)) == 0:
                named = draw(st.sampled_from([*sorted(joined.get(who, ())), STRANGE]))
            life.append(Told(number, user, app, kind, account, named, role))
            number += 1
        lives[device] = life
    return lives


def accounts_of(lives: dict[str, list[Told]]) -> dict[str, Account]:
    """What each account comes to, told event by event as a person would tell it."""
    seats: dict[tuple[str, str], list[Told]] = {}
    bought: dict[str, list[Told]] = {}
    ids: dict[str, set[str]] = {}
    for device, life in lives.items():
        holder: dict[str, str] = {}
        acting: dict[tuple[str, str | None], str | None] = {}
        naming: set[tuple[str, str | None]] = set()
        for told in life:
            person = told.user
            if told.app is not None:
                before = holder.get(told.app, told.app)
                person = told.user or before
                if told.user is not None and before == told.app:
                    _becomes(told.app, told.user, seats, ids)
                    acting = {(told.user if p == told.app else p, a): x for (p, a), x in acting.items()}
                    naming = {(told.user if p == told.app else p, a) for p, a in naming}
                elif told.user not in (None, before):
                    acting.pop((before, told.app), None)  # somebody else's now
                    naming.discard((before, told.app))
                    ids[before].discard(told.app)
                holder[told.app] = person
            assert person is not None
            ids.setdefault(person, set()).update(name for name in (told.app, told.user) if name is not None)
            client = (person, told.app)
            if told.kind == "group":
                assert told.account is not None
                seats.setdefault((told.account, person), []).append(told)
                acting[client] = told.account
            elif told.kind == "logout":
                acting.pop(client, None)
            elif told.kind == "order":
                account = acting.get(client) if client not in naming else None
                if told.named is not None:
                    naming.add(client)
                    account = told.named if told.named != STRANGE else None
                if account is not None:
                    bought.setdefault(account, []).append(told)
        assert device in DEVICES
    found: dict[str, Account] = {}
    for account in {name for name, _ in seats}:
        members = set()
        for (name, person), calls in seats.items():
            if name == account:
                roles = sorted((c.number, c.role) for c in calls if c.role is not None)
                members.add((frozenset(ids[person]), roles[-1][1] if roles else None))
        orders = bought.get(account, [])
        found[account] = Account(
            members=frozenset(members),
            orders=len(orders),
            cents=sum(order.cents for order in orders),
            skus=frozenset(order.sku for order in orders),
            last_sku=max(orders, key=lambda order: order.number).sku if orders else None,
        )
    return found


def _becomes(app: str, user: str, seats: dict[tuple[str, str], list[Told]], ids: dict[str, set[str]]) -> None:
    for account, person in list(seats):
        if person == app:
            seats.setdefault((account, user), []).extend(seats.pop((account, person)))
    ids.setdefault(user, set()).update(ids.pop(app, ()))


def as_event(told: Told, prefix: str) -> Event:
    kinds = {"group": Kind.GROUP, "identify": Kind.IDENTIFY}
    names = {"order": "Order", "logout": "Logged Out"}
    properties: dict[str, object] = {"revenue": told.cents / 100, "sku": told.sku}
    if told.kind == "group":
        properties = {"role": told.role} if told.role is not None else {}
    return event(
        kinds.get(told.kind, Kind.TRACK),
        names.get(told.kind, ""),
        user=prefix + told.user if told.user is not None else None,
        anonymous=prefix + told.app if told.app is not None else None,
        message=f"m{told.number}",
        at=NOW + timedelta(seconds=told.number),
        group_id=prefix + told.account if told.account is not None else None,
        context={"groupId": prefix + told.named} if told.named is not None else {},
        properties=properties,
    )


async def live(
    engines: Sequence[lanes.Engine], lives: dict[str, list[Told]], prefix: str, seed: int
) -> dict[str, Account]:
    """Each device in its order, by any engine, some events twice; accounts hear of it whenever."""
    chance = random.Random(seed)
    for engine in engines:
        engine.now = NOW + timedelta(hours=1)

    async def feed() -> int:
        one = chance.choice(engines)
        return await Timers(one.store, one.lane, lambda: one.now).fire_due()

    async def lives_on(life: list[Told]) -> None:
        for position, told in enumerate(life):
            await asyncio.wait_for(chance.choice(engines).submit(as_event(told, prefix)).done, 60)
            if chance.random() < 0.3:
                again = as_event(life[chance.randint(0, position)], prefix)
                await asyncio.wait_for(chance.choice(engines).submit(again).done, 60)
            if chance.random() < 0.2:
                await feed()

    await asyncio.gather(*(lives_on(life) for life in lives.values()))
    due = "SELECT count(*) FROM timers WHERE due_at <= $1"
    while await engines[0].store.pool.fetchval(due, engines[0].now):
        await asyncio.gather(feed(), feed())
    names = {told.account for life in lives.values() for told in life if told.account is not None}
    return {name: await _account(engines[0], prefix, name) for name in names}


async def _account(engine: lanes.Engine, prefix: str, name: str) -> Account:
    found = await engine.profile(ACCOUNT_NAMESPACE, prefix + name)
    assert found is not None
    counts = found.computed
    rows = await engine.store.pool.fetch(
        "SELECT profile_id FROM audience_members WHERE audience = $1", f"$account:{prefix}{name}"
    )
    async with engine.store.session() as session:
        people = [profile for profile, _ in await session.profiles([str(row[0]) for row in rows])]
    often = counts.get("skus_often", {})
    assert sum(often.values()) == counts.get("orders", 0)
    assert round(counts["spend_7d"][1] * 100 if "spend_7d" in counts else 0) == round(
        counts.get("spend", 0) * 100
    )
    return Account(
        members=frozenset(_member(profile, prefix, name) for profile in people),
        orders=counts.get("orders", 0),
        cents=round(counts.get("spend", 0) * 100),
        skus=frozenset(counts.get("skus", ())),
        last_sku=counts["last_sku"][1] if "last_sku" in counts else None,
    )


def _member(profile: Profile, prefix: str, account: str) -> tuple[frozenset[str], str | None]:
    seat = profile.accounts[prefix + account]
    role = seat.traits["role"].value if "role" in seat.traits else None
    return frozenset(i.value.removeprefix(prefix) for i in profile.identities), role
