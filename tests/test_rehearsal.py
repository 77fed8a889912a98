"""A rehearsal beside a lane on a real database: the same events, the same decisions, one for one."""

from __future__ import annotations

from datetime import timedelta

from engine.app.rehearsal import Rehearsal
from engine.app.ruling import Ruling
from engine.domain.people.events import Event, Kind
from tests.lanes import CAFE, FAR, NOW, arrival, engine, event, minutes, rule_set

SECRET = b"0123456789abcdef0123456789abcdef"


def ticks() -> list[list[Event]]:
    """A morning: two people, a café, repeats, an identity that moves to its other owner."""
    order = {"event": "Order Completed", "properties": {"revenue": 12.5, "store": "s1"}}
    bought = event(name=str(order["event"]), user="ada", properties=order["properties"], at=NOW)
    wish = event(name="Thank Me", user="ada", at=NOW + minutes(2))
    return [
        [arrival("ada"), event(Kind.IDENTIFY, user="bob", anonymous="tablet")],
        [bought, event(name="Location Updated", user="ada", location=FAR, at=NOW)],
        [event(name="Location Updated", user="ada", location=CAFE, at=NOW + minutes(1))],
        [wish, bought, event(name="Thank Me", user="bob", at=NOW + minutes(2))],
        [wish, event(name="Thank Me", user="ada", at=NOW + minutes(3))],
        [event(Kind.IDENTIFY, user="ada", anonymous="tablet", at=NOW + minutes(4))],
        [
            event(name="Thank Me", anonymous="tablet", at=NOW + minutes(5)),
            arrival("bob", at=NOW + minutes(5)),
        ],
        [event(name="Thank Me", user="bob", at=NOW + minutes(6)) for _ in range(5)],
    ]


async def test_it_decides_as_a_lane_does(postgres_dsn: str) -> None:
    rules = rule_set()
    async with engine(postgres_dsn, rules) as real:
        secret = await real.store.secret(SECRET)
        rehearsal = Rehearsal(Ruling(rules, {}), secret=secret)
        outcomes = []
        for number, batch in enumerate(ticks()):
            real.now = NOW + timedelta(minutes=number)
            reply = await real.send(*batch)
            told = rehearsal.tell(batch, real.now)
            rehearsed = [decision for one in told for decision in one.decisions]
            assert rehearsed == reply.decisions
            assert sum(one.seen is None for one in told) == reply.duplicates
            outcomes += [decision.reason or decision.outcome for decision in rehearsed]
        for user in ("ada", "bob"):
            stored = await real.profile("user_id", user)
            assert stored is not None
            assert rehearsal.owner(("user_id", user)) == stored
    assert {"offered", "no_consent", "capped"} <= set(outcomes)


def test_a_rehearsal_goes_on_under_other_rules() -> None:
    """As an engine does after a reload: what was counted stays."""
    rehearsal = Rehearsal(Ruling(rule_set(), {}))
    rehearsal.tell([arrival("ada")], NOW)
    strict = rule_set(workspace=b"timezone: Europe/Dublin\ncaps:\n  - {times: 1, per: day}\n", rules=WISH)
    free = rule_set(workspace=b"timezone: Europe/Dublin\n", rules=WISH)
    said = []
    for ruling in (free, strict, free):
        rehearsal.ruling = Ruling(ruling, {})
        [told] = rehearsal.tell([event(name="Thank Me", user="ada")], NOW)
        said += [d.reason or d.outcome for d in told.decisions]
    assert said == ["offered", "capped", "offered"]


WISH = b"""
offers:
  thanks: {purpose: marketing, message: {push: {title: Thanks, body: You}}}
rules:
  thanks: {when: Thank Me, offer: thanks}
"""
