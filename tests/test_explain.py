"""Decisions told: those that were made, those that never were, and those that a rule could make."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.app import rulesets
from engine.app.reasons import Looked, values_read
from engine.app.ruling import Ruling
from engine.domain.offers.expressions import Type, compile_expression
from engine.domain.offers.scope import Scope
from engine.domain.people.events import Kind
from tests import lanes, served
from tests.conftest import execute, open_folder

RULES = (
    lanes.RULES
    + b"""
  big: {when: Order Completed, if: profile.spend > 100 && event.properties.revenue > 50, offer: thanks}
  card:
    when: Card Shown
    if: profile.club == "gold" && profile.orders >= 0 && event.properties.n > 3
    offer: thanks
  shown: {when: Card Shown, offer: thanks}
"""
)

WORKSPACE = (
    lanes.WORKSPACE.replace(b"traits:", b"traits:\n  club: {type: string, label: clubs}")
    + b"""
consent:
  purposes:
    marketing: {basis: consent, unknown: deny}
    clubs: {basis: consent, unknown: deny}
    location: {basis: consent, unknown: deny}
  labels: {clubs: [marketing, clubs]}
"""
)


class House(NamedTuple):
    """A database that was lived on; the decisions that were made."""

    folder: Path
    dsn: str
    decisions: dict[str, str]

    def says(self, *arguments: str, code: int = 0) -> str:
        ended = served.command(self.folder, *arguments, dsn=self.dsn)
        assert ended.returncode == code, ended.stderr
        return ended.stdout if code == 0 else ended.stderr

    def reports(self, *arguments: str) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.says(*arguments, "--json"))
        return report


@pytest.fixture(scope="module")
def house(postgres: str) -> Iterator[House]:
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        dsn = stack.enter_context(served.database(postgres, "explained"))
        rules = served.write_workspace(folder / "rules", WORKSPACE, RULES)
        ended = served.command(folder, "publish", str(rules), dsn=dsn)
        assert ended.returncode == 0, ended.stderr
        ruling = rulesets.check(rules, folder / "none").ruling
        assert ruling is not None
        yield House(folder, dsn, asyncio.run(lived(dsn, ruling)))


async def lived(dsn: str, ruling: Ruling) -> dict[str, str]:
    """Ada is thanked until her cap is reached; Bob never said what he allows; Cyd has no phone."""
    made: dict[str, str] = {}
    async with lanes.engine(dsn, ruling.rules) as engine:
        await engine.send(lanes.arrival("ada"), lanes.event(Kind.IDENTIFY, user="bob"))
        await engine.send(lanes.event(Kind.IDENTIFY, user="cyd", consent={"marketing": True}))
        for turn in range(4):
            reply = await engine.send(lanes.event(name="Thank Me", user="ada"))
            (decision,) = reply.decisions
            made[f"ada {turn}"] = decision.id
        identify = {"marketing": True, "clubs": True}
        await engine.send(lanes.event(Kind.IDENTIFY, user="eve", consent=identify, traits={"club": "silver"}))
        await engine.send(lanes.event(Kind.IDENTIFY, user="dan", traits={"club": "silver"}))
        for user in ("eve", "dan"):
            # Decided on before, and something happens after.
            reply = await engine.send(lanes.event(name="Card Shown", user=user, properties={"n": 1}))
            made[user] = reply.decisions[0].id
            await engine.send(lanes.event(Kind.IDENTIFY, user=user, traits={"club": "gold"}))
        reply = await engine.send(lanes.event(name="Thank Me", user="bob"))
        made["bob"] = reply.decisions[0].id
    return made


def test_an_offer_is_told_with_what_became_of_it(house: House) -> None:
    said = house.says("explain", house.decisions["ada 0"])
    assert "What came in: Thank Me" in said
    assert "So: offered thanks by the rule thanks, over push" in said
    assert "“Thanks” “for 0”" in said
    assert "What became of it: pending" in said


def test_what_stopped_a_candidate_is_told_by_how_much_and_what_it_needed(house: House) -> None:
    said = house.says("explain", house.decisions["ada 3"])
    assert "So: nothing; capped came furthest" in said
    assert "3 of 3 per 7d used, a cap of thanks" in said
    assert "it would have gone further if 1 fewer count within 7d, or 4 may" in said
    (told,) = house.reports("explain", house.decisions["bob"])["told"]
    assert (told["reason"], told["because"]) == ("no_consent", "consent for marketing is unknown")
    assert told["needed"] == "the person grants consent for marketing"


def of_the_card(house: House, user: str) -> dict[str, Any]:
    told = house.reports("explain", house.decisions[user])["told"]
    (found,) = [one for one in told if one["rule"] == "card"]
    return found


def test_a_condition_is_told_with_what_it_read_then(house: House) -> None:
    told = of_the_card(house, "eve")
    assert told["values"] == {"event.properties.n": "1", "profile.club": '"silver"', "profile.orders": "0"}
    # Only what did not hold, and not what is known of her by now.
    assert told["needed"] == (
        'profile.club == "gold" holds (profile.club is "silver") and '
        "event.properties.n > 3 holds (event.properties.n is 1)"
    )
    said = house.says("explain", house.decisions["eve"])
    assert '        profile.club is "silver"' in said


def test_what_nobody_may_read_is_not_told(house: House) -> None:
    """Dan never allowed what the trait's label asks for."""
    scope = Scope(profile={"club": "silver", "orders": 2})
    expression = compile_expression("profile.club == 'gold' && profile.orders > 3", {"profile": Type.MAP})
    assert values_read(expression, Looked(scope, frozenset({"club"}))) == [
        ("profile.club", "kept back by its label"),
        ("profile.orders", "2"),
    ]
    told = of_the_card(house, "dan")
    assert (told["reason"], told["values"]) == ("no_consent", None)
    assert "silver" not in house.says("explain", house.decisions["dan"])


def test_a_condition_whose_values_are_lost_says_why(house: House) -> None:
    """Without the beginning of the log nobody knows what was known then."""
    asyncio.run(execute(house.dsn, "DELETE FROM events WHERE seq = 1 AND body->>'user_id' = 'eve'"))
    told = of_the_card(house, "eve")
    assert told["values"] is None
    assert "past its retention" in told["valuesUnknown"]
    assert "what it read is not known" in house.says("explain", house.decisions["eve"])


def test_who_looks_at_a_person_is_written_down(house: House) -> None:
    before = len(house.says("privacy", "audit").splitlines())
    house.says("explain", house.decisions["bob"])
    house.says("why-not", "user_id", "ada", "thanks")
    house.says("reach", "thanks")
    entries = [json.loads(line) for line in house.says("privacy", "audit", "--json").splitlines()]
    assert [one["action"] for one in entries[before:]] == ["explain", "why-not"]
    assert all(one["person"] for one in entries[before:])
    assert "as it was written" in house.says("privacy", "verify")


def test_a_decision_that_is_not_there(house: House) -> None:
    assert "there is no decision" in house.says("explain", "019cafe8-8080-8656-a877-fec5ee8f8a99", code=1)
    assert "is no id" in house.says("explain", "latte", code=2)


def test_a_decision_that_was_never_made_is_told(house: House) -> None:
    report = house.reports("why-not", "user_id", "ada", "big")
    assert report["trigger"]["lastCame"] is None
    assert report["lastConsidered"] is None
    assert [one["reason"] for one in report["now"]] == ["condition_false"]
    said = house.says("why-not", "user_id", "ada", "big")
    assert "it never came, as far as events are kept" in said
    assert "it would go further if profile.spend > 100 holds (profile.spend is 0)" in said

    report = house.reports("why-not", "user_id", "bob", "thanks")
    assert report["trigger"]["lastCame"].startswith("2026-03-02T10:00:00")
    assert report["lastConsidered"]["decision"] == house.decisions["bob"]
    assert [one["reason"] for one in report["now"]] == ["no_consent"]
    # The cap of seven days is over by now, and Ada would be thanked again.
    assert [one["reason"] for one in house.reports("why-not", "user_id", "ada", "thanks")["now"]] == [None]

    assert "nobody is known" in house.says("why-not", "user_id", "zoe", "big", code=1)
    assert 'did you mean "big"?' in house.says("why-not", "user_id", "ada", "bgi", code=1)


def test_a_rules_reach_is_a_funnel(house: House) -> None:
    report = house.reports("reach", "thanks")
    assert (report["people"], report["reach"]) == (5, 1)
    assert report["funnel"] == [
        {"gate": "no_consent", "stopped": 2, "left": 3},
        {"gate": "no_device", "stopped": 2, "left": 1},
    ]
    table = house.says("reach", "thanks")
    assert "would be reached" in table
    assert house.reports("reach", "cafe")["reach"] == 1

    stop = json.loads(house.says("pause", "--rule", "cafe", "--reason", "closed", "--json"))
    assert house.reports("reach", "cafe")["funnel"] == [{"gate": "paused", "stopped": 5, "left": 0}]
    assert "it was stopped for 'closed'" in house.says("why-not", "user_id", "ada", "cafe")
    house.says("resume", stop["id"])
