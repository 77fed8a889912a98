"""Offers inside the app: only where the app asks, by placement, counted once shown."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from engine.domain import decide
from engine.domain.candidates import Slots
from engine.domain.offers.decisions import Decision
from engine.domain.people.events import Sender
from engine.domain.people.fold import MOST_UNSEEN
from tests.story import NOON, Story, event, local, rule_set, said, seconds, stored

HOUR = timedelta(hours=1)
OFFERS = """
offers:
  hello:
    purpose: marketing
    message: {in_app: {placement: hero, title: {en: "{{ event.name }}", fr: Salut}}}
  tip: {purpose: marketing, message: {in_app: {placement: foot, title: A tip, deeplink: "app://tip"}}}
  both:
    purpose: marketing
    message: {push: {title: Push, body: b}, in_app: {placement: hero, title: In app}}
rules:
"""
OPEN = "  open: {when: Open, offers: [hello, tip]}\n"


class App(Story):
    """A person whose app asks what to show."""

    def show(self, *placements: str, limit: int = 9, at: Any = NOON, name: str = "Open") -> list[Decision]:
        seen = decide.observe(self.rules, self.profile, event(name, at), at)
        verdict = decide.judge(self.rules, seen, at, None, None, Slots(placements, limit))
        self.profile = stored(verdict.profile)
        self.sends += verdict.sends
        return list(verdict.decisions)


def app(rules: str = OPEN, workspace: str = "") -> App:
    return App(rule_set(OFFERS + rules, workspace))


def told(decisions: list[Decision]) -> list[tuple[str | None, str | None, str, str]]:
    return [(d.offer, d.placement, d.channel, said(d)) for d in decisions]


def test_nobody_asks_nothing_is_decided() -> None:
    one = app()
    assert one.tell(event("Open")) == ()
    assert one.profile.contacts == ()


def test_each_placement_has_its_own_winner_in_the_order_asked_for() -> None:
    one = app()
    assert told(one.show("foot", "hero")) == [
        ("tip", "foot", "in_app", "offered"),
        ("hello", "hero", "in_app", "offered"),
    ]
    assert told(one.show("hero")) == [("hello", "hero", "in_app", "offered")]
    assert one.show("cellar") == []


def test_more_than_the_app_has_room_for_is_not_offered() -> None:
    one = app()
    assert told(one.show("hero", "foot", limit=1)) == [("hello", "hero", "in_app", "offered")]
    assert len(one.profile.contacts) == 1


def test_a_placement_without_a_winner_leaves_the_room_to_the_next() -> None:
    rules = "  a: {when: Open, offer: hello, if: 1 > 2}\n  b: {when: Open, offer: tip}\n"
    assert told(app(rules).show("hero", "foot", limit=1)) == [
        ("hello", "hero", "in_app", "condition_false"),
        ("tip", "foot", "in_app", "offered"),
    ]


def test_a_rule_may_name_another_placement() -> None:
    one = app("  open: {when: Open, offer: hello, placement: foot}\n")
    assert one.show("hero") == []
    assert told(one.show("foot")) == [("hello", "foot", "in_app", "offered")]


def test_an_offer_of_both_channels_is_pushed_and_shown() -> None:
    one = app("  open: {when: Open, offer: both}\n")
    assert told(one.show("hero")) == [
        ("both", None, "push", "offered"),
        ("both", "hero", "in_app", "offered"),
    ]
    assert told(list(one.tell(event("Open")))) == [("both", None, "push", "offered")]


def test_the_app_needs_no_device_no_permission_and_no_waking_hour() -> None:
    one = app(workspace="quiet_hours: {from: '21:00', to: '08:00', then: defer}\n")
    one.profile = stored(msgspec.structs.replace(one.profile, devices={}))
    night = local("Europe/Dublin", "2026-01-12 23:00:00")
    assert told(one.show("hero", at=night)) == [("hello", "hero", "in_app", "offered")]


def test_being_returned_is_not_being_shown() -> None:
    one = app("  open: {when: Open, offer: hello, cap: {times: 1, per: 1h}}\n")
    first = one.show("hero")
    assert [said(d) for d in (*first, *one.show("hero"))] == ["offered", "offered"]
    shown = event("Offer Shown", NOON, properties={"decision": first[0].id}, sender=Sender.CLIENT)
    one.tell(shown)
    assert [said(d) for d in one.show("hero", at=NOON + seconds(1))] == ["capped"]
    assert [said(d) for d in one.show("hero", at=NOON + HOUR)] == ["offered"]


@pytest.mark.parametrize(("cap", "expected"), [("push", "offered"), ("in_app", "capped")])
def test_caps_of_a_channel_count_that_channel(cap: str, expected: str) -> None:
    one = app(workspace=f"caps: [{{channel: {cap}, times: 1, per: 1h}}]\n")
    (first,) = one.show("hero")
    one.tell(event("Offer Shown", NOON, properties={"decision": first.id}))
    assert said(one.show("foot", at=NOON + seconds(1))[0]) == expected


def test_of_offers_never_shown_only_the_newest_are_remembered() -> None:
    one = app()
    made = [one.show("hero", at=NOON + seconds(n))[0] for n in range(MOST_UNSEEN + 5)]
    assert [c.decision for c in one.profile.contacts] == [d.id for d in made[5:]]
