"""Everything that an engine does to people, at random, and then once more from the log: the same
decisions, to the byte."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from engine.adapters.postgres.merges import bring_over
from engine.adapters.weather import OpenMeteo
from engine.app import rights
from engine.app.backfill import Backfill
from engine.app.backtest import UNKNOWN_RULES
from engine.app.backtest_order import INCOMPLETE
from engine.app.replies import Pending, Reply
from engine.app.ruling import Ruling
from engine.app.sweeps import Sweeps
from engine.app.timers import Timers
from engine.app.weather import Weather
from engine.domain.candidates import Slots
from engine.domain.offers.decisions import Outcome
from engine.domain.offers.delivery import outcome_event
from engine.domain.offers.pauses import NOTHING_PAUSED, Pause, paused
from engine.domain.offers.rules import RuleSet
from engine.domain.people import identity
from engine.domain.people.events import Device, Event, Kind, Location, Sender
from engine.domain.people.profiles import PROFILE_NAMESPACE
from tests import lanes, served
from tests.lanes import NOW, event
from tests.test_backtest import Rising, played
from tests.test_weather import stand_in

WORKSPACE = b"""
timezone: Europe/Dublin
currency: EUR
quiet_hours: {from: "21:00", to: "08:00", then: defer}
caps:
  - {channel: push, times: 6, per: day}
holdout: 5%
consent:
  purposes:
    marketing: {basis: consent, unknown: deny}
    location: {basis: consent, unknown: deny}
    service: {basis: contract}
  location_precision: {granted: exact, denied: none, unknown: city}
identities:
  - {namespace: user_id, one: true}
  - {namespace: loyalty_card, one: true, on_change: replace, from: [traits.card]}
  - {namespace: email, from: [traits.email]}
  - {namespace: anonymous_id}
traits:
  first_name: {type: string}
computed:
  orders: {count: Order Completed}
  spend: {sum: event.properties.revenue, of: Order Completed}
  visits: {count: {enter: {tag: cafe}}, within: 30d}
  idle: {days_since: Order Completed}
audiences:
  regulars: profile.orders >= 2
  dormant: profile.idle >= 2
accounts:
  computed: {sales: {count: Order Completed}}
trips:
  pickup:
    starts: {event: Order Placed}
    to: event.properties.store
    by: event.properties.order
    ends: [Order Picked Up]
    expires: 2h
"""
RULES = b"""
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [cafe], properties: {store_id: s1}}
offers:
  latte:
    purpose: marketing
    propensity: 0.5
    value: 3.0
    cost: 1.0
    converts: {event: Order Completed, within: 1h}
    again_after: 1d
    message: {push: {title: "Hi {{ profile.first_name }}", body: "{{ profile.spend }} {{ weather.temp_c }}"}}
  thanks:
    purpose: marketing
    propensity: {model: redeem, at_least: 0.2}
    message: {push: {title: T, body: b}}
  plain: {purpose: marketing, message: {push: {title: P, body: b}}}
  banner: {purpose: marketing, message: {in_app: {placement: home, title: B, body: b}}}
actions:
  tell: {purpose: service, webhook: kitchen, body: {order: "{{ trip.order }}"}}
rules:
  cafe: {when: {enter: {tag: cafe}}, if: weather.temp_c < 90.0, offer: latte, cap: {times: 2, per: 2d}}
  near: {when: {approach: {tag: cafe}, within: 90s}, offer: plain, cap: {times: 1, per: day}}
  stay: {when: {dwell: {tag: cafe}, for: 5m}, offer: plain, cap: {times: 1, per: 2d}}
  thanks: {when: Thank Me, if: profile.orders > 0, offer: thanks, cap: {times: 3, per: 7d}}
  cart:
    when: {event: Cart Updated, for: 10m, by: event.properties.cart}
    unless: {event: Order Completed}
    offer: plain
  regular: {when: {audience: regulars, change: entered}, offer: latte}
  back: {when: {audience: dormant, change: entered}, send: {at: "10:00", expires: 2d}, offer: plain}
  daily:
    when: {schedule: "0 12 * * *", audience: regulars, over: 2h}
    offer: plain
    cap: {times: 1, per: day}
  seen: {when: {event: Offer Tapped}, offer: plain, cap: {times: 2, per: 7d}}
  gone: {when: {event: Offer Expired}, offer: plain, cap: {times: 1, per: 7d}}
  told: {when: {event: Offer Delivered}, offer: plain, cap: {times: 1, per: 3d}}
  desk:
    when: Desk Used
    if: account.sales >= 1
    offer: plain
    cap: {times: 2, per: 3d, by: account}
  shop: {when: Menu Viewed, offers: [banner], rollout: 70%}
  kitchen: {when: {arriving: pickup, within: 3m}, do: tell}
  copy:
    when: Copy Wanted
    experiment: copy-1
    holdout: 10%
    variants: {a: {share: 50%, offer: plain}, b: {share: 50%, offer: latte}}
"""
LATER_WORKSPACE = WORKSPACE.replace(
    b"audiences:", b"  carts: {count: Cart Updated}\naudiences:\n  busy: profile.carts >= 2"
)
LATER = RULES.replace(b"times: 2, per: 2d", b"times: 1, per: 2d").replace(
    b"rules:\n", b'rules:\n  busy: {when: {schedule: "30 9 * * *", audience: busy}, offer: latte}\n', 1
)
OTHER = LATER.replace(b"at_least: 0.2", b"at_least: 0.1")
PEOPLE = [f"p{n}" for n in range(24)]
HOUSEHOLD = 4
"""People who share phones, apps and addresses."""
WITHDRAWING = PEOPLE[:2]
"""Those who take their location consent back, so that their positions are forgotten."""
DAYS = 5


def ruling(rules: bytes, workspace: bytes) -> Ruling:
    loaded = lanes.load(
        {"workspace.yaml": workspace, "rules.yaml": rules},
        {"redeem.yaml": lanes.MODEL_CARD, "redeem.onnx": b""},
    )
    assert loaded.rule_set is not None, loaded.problems
    return Ruling(loaded.rule_set, {"redeem": Rising()})


FIRST, SECOND = ruling(RULES, WORKSPACE), ruling(LATER, LATER_WORKSPACE)


class Life:
    """People on a real lane, by chance."""

    def __init__(self, engine: lanes.Engine, chance: random.Random) -> None:
        self.engine = engine
        self.chance = chance
        self.places = dict.fromkeys(PEOPLE, 52.67)
        self.orders = itertools.count()

    async def submit(self, pendings: list[Pending]) -> Reply:
        reply = Reply(len(pendings))
        for position, pending in enumerate(pendings):
            pending.reply, pending.position = reply, position
        self.engine.lane.submit(pendings)
        await asyncio.wait_for(reply.done, 60)
        return reply

    def pending(self, one: Event, **fields: Any) -> Pending:
        keys = identity.keys_of(one, self.engine.rules.workspace.namespaces)
        return Pending(event=one, reply=Reply(1), keys=keys, **fields)

    def something(self) -> Pending:
        """What somebody does."""
        chance, now = self.chance, self.engine.now
        user = chance.choice(PEOPLE)
        family = PEOPLE.index(user) // HOUSEHOLD
        other = PEOPLE[family * HOUSEHOLD + chance.randrange(HOUSEHOLD)]
        app = f"a{family}-{chance.randrange(7)}"
        at = now - timedelta(seconds=chance.choice((0, 0, 1, 40)))
        about: dict[str, Any] = {"user": user, "at": at}
        match chance.randrange(23):
            case 0:
                device = Device(id=f"{other}-phone", type="android", token=f"t{chance.random()}")
                return self.pending(event(Kind.IDENTIFY, device=device, traits={"first_name": user}, **about))
            case 1:
                names = ["marketing"] + (["location"] if user in WITHDRAWING else [])
                consent = {name: chance.random() < 0.8 for name in names}
                return self.pending(event(Kind.IDENTIFY, consent=consent, **about))
            case 2:
                return self.pending(event(Kind.IDENTIFY, anonymous=app, **about))
            case 3:
                return self.pending(event(Kind.ALIAS, previous_id=app, **about))
            case 4:
                traits = {"card": f"c{family}{chance.randrange(5)}", "email": f"{other}@example.com"}
                return self.pending(event(Kind.IDENTIFY, traits=traits, **about))
            case 5 | 6:
                properties = {"revenue": chance.randrange(1, 50)}
                return self.pending(event(name="Order Completed", properties=properties, **about))
            case 7:
                return self.pending(event(name="Thank Me", anonymous=app, at=at))
            case 8:
                return self.pending(event(name="Thank Me", **about))
            case 9:
                properties = {"cart": f"k{chance.randrange(2)}"}
                return self.pending(event(name="Cart Updated", anonymous=app, properties=properties, at=at))
            case 10:
                return self.pending(event(name="Cart Updated", **about))
            case 11:
                return self.pending(event(name="Menu Viewed", **about), slots=Slots(("home",), 1))
            case 12:
                properties = {"store": "s1", "order": f"o{next(self.orders)}"}
                return self.pending(event(name="Order Placed", properties=properties, **about))
            case 13:
                properties = {"revenue": 5, "currency": "EUR"}
                told = event(
                    name="Order Completed", properties=properties, user=user, at=at - timedelta(days=9)
                )
                return self.pending(msgspec.structs.replace(told, sender=Sender.IMPORT, history=True))
            case 20:
                return self.pending(event(Kind.GROUP, group_id=f"g{family}", **about))
            case 21 | 22:
                return self.pending(event(name="Desk Used", **about))
            case 14:
                return self.pending(event(name="Copy Wanted", **about))
            case _:
                # Towards the café, into it, and away again.
                self.places[user] += chance.choice((-0.003, -0.001, -0.001, 0.0, 0.004))
                self.places[user] = min(max(self.places[user], 52.655), 52.68)
                if chance.random() < 0.2:
                    self.places[user] = 52.66
                fix = Location(latitude=self.places[user], longitude=-8.62, accuracy=8.0, at=at)
                device = Device(id=f"{user}-phone")
                return self.pending(event(name="Location Updated", location=fix, device=device, **about))

    async def what_becomes_of_it(self, reply: Reply) -> None:
        """Pushes arrive or fail, and are tapped."""
        told: list[Pending] = []
        for send in self.engine.sends:
            if self.chance.random() < 0.7:
                delivered = self.chance.random() < 0.8
                outcome = outcome_event(
                    send, None if delivered else "gone", self.engine.clock(), delivered=delivered
                )
                keys = ((PROFILE_NAMESPACE, send.profile_id),)
                told.append(Pending(event=outcome, reply=Reply(1), keys=keys))
        self.engine.sends.clear()
        for decision in reply.decisions:
            if decision.outcome is Outcome.OFFERED and self.chance.random() < 0.3:
                name = self.chance.choice(("Offer Shown", "Offer Tapped"))
                user = self.chance.choice(PEOPLE)
                one = event(name=name, user=user, at=self.engine.now, properties={"decision": decision.id})
                told.append(self.pending(one))
        if told:
            await self.submit(told)


class Lived(NamedTuple):
    began: datetime
    ended: datetime
    facts: Counter[str]


async def lived(dsn: str, url: str, seed: int) -> Lived:
    """Days of many people, with rules that change in the middle of it."""
    chance = random.Random(seed)
    source = OpenMeteo(url)
    reading = itertools.count()
    weather = Weather(source, clock=lambda: float(next(reading)))
    facts: Counter[str] = Counter()
    async with lanes.engine(dsn, FIRST.rules, dict(FIRST.models), weather) as engine:
        engine.clock = lambda: engine.now + timedelta(microseconds=next(reading))
        timers = Timers(engine.store, engine.lane, engine.clock)
        current: list[RuleSet] = [FIRST.rules]
        sweeps = Sweeps(engine.store, lambda: current[0], engine.clock)
        life = Life(engine, chance)
        for user in PEOPLE:
            consent = {"marketing": True, "location": True}
            await engine.send(lanes.arrival(user), event(Kind.IDENTIFY, user=user, consent=consent))
        await sweeps.sweep()
        end, middle = NOW + timedelta(days=DAYS), NOW + timedelta(days=DAYS) * 0.7
        changed = False
        while engine.now < end:
            engine.now += timedelta(seconds=chance.choice((5, 30, 60, 600, 3600)))
            if weather.waiting:
                await weather.renew()
            if not changed and engine.now > middle:
                changed = True
                current[0] = engine.rules = SECOND.rules
                await sweeps.sweep()
                backfill = Backfill(engine.store, engine.lane, lambda: SECOND, engine.clock)
                await backfill.catch_up()
            stopped = chance.random() < 0.1
            stop = Pause(id="s1", what="rule", name="thanks", reason="no", since=NOW)
            engine.rules = msgspec.structs.replace(
                current[0], paused=paused((stop,)) if stopped else NOTHING_PAUSED
            )
            facts["timers"] += await timers.fire_due()
            reply = await life.submit([life.something() for _ in range(chance.randrange(1, 9))])
            await life.what_becomes_of_it(reply)
            if chance.random() < 0.1:
                facts["brought over"] += len(await bring_over(engine.store.pool))
            if chance.random() < 0.02:
                profile = await engine.profile("user_id", chance.choice(PEOPLE))
                assert profile is not None
                await rights.restrict(engine.lane, profile, chance.random() < 0.3, engine.clock())
                await rights.correct(engine.lane, profile, {"first_name": "Corrected"}, engine.clock())
        await source.close()
        return Lived(NOW, engine.now, facts)


def test_whatever_happens_is_decided_again_to_the_byte(postgres: str) -> None:
    with served.database(postgres, "everything") as dsn, stand_in() as sky:
        life = asyncio.run(lived(dsn, sky.url, 1))
        assert life.facts["timers"] > 20
        assert life.facts["brought over"] > 0
        since = life.began + (life.ended - life.began) / 4
        result = played(dsn, SECOND, SECOND, since, [FIRST]).count
        found, active = result.agreement, result.active
        assert found.recorded > 100
        assert (found.differing, found.missing, found.unknown) == (0, 0, 0), found.examples
        assert found.reproduced == found.recorded
        # Of who is left out or not compared it is known why: their rows are not what they were.
        assert result.positionless <= HOUSEHOLD + 1  # and their account
        assert set(result.left_out) <= {INCOMPLETE}
        assert result.people > len(PEOPLE) / 2
        assert {"capped", "no_consent", "quiet_hours", "restricted"} <= set(active.suppressed)
        assert {"thanks", "shop", "copy", "daily", "kitchen", "desk"} <= {rule for rule, _ in active.offered}

        # Where other rules were active meanwhile, the active side is decided anew, too.
        other = played(dsn, SECOND, ruling(OTHER, LATER_WORKSPACE), since, [FIRST]).count
        assert other.agreement == found
        assert other.active == active
        assert sum(other.tried.offered.values()) > 0
        # Without the rules of that time nobody can say what was known.
        unknown = played(dsn, SECOND, SECOND, since).count
        assert (unknown.people, set(unknown.left_out)) == (0, {UNKNOWN_RULES})
