"""What rules may ask of somebody's app without declaring it: `profile.sessions` and its siblings."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from engine.domain.people.computed import profile_view
from engine.domain.people.events import Event
from engine.formats.workspace import load
from tests import lanes
from tests.story import NOON, Story, event, rule_set

ALL = """
offers:
  hello:
    purpose: service
    message: {push: {title: "Session {{ profile.sessions }}", body: "by {{ profile.attribution.source }}"}}
rules:
  hello:
    when: Hello
    if: >-
      profile.sessions > 1 && profile.seconds_in_app >= 90 && profile.installed_at < now
      && profile.attribution.source == "news"
    offer: hello
"""
RULES = rule_set(rules=ALL, workspace="currency: EUR")


def opened(seconds: float, **properties: Any) -> Event:
    return event("Application Opened", NOON + timedelta(seconds=seconds), properties=properties)


def left(seconds: float) -> Event:
    return event("Application Backgrounded", NOON + timedelta(seconds=seconds))


def after(*events: Event) -> dict[str, Any]:
    story = Story(RULES)
    for each in events:
        story.tell(each)
    return profile_view(story.profile, RULES.workspace, NOON + timedelta(days=2))


def test_before_anything_happened() -> None:
    view = after()
    assert (view["sessions"], view["seconds_in_app"]) == (0, 0)
    assert "installed_at" not in view
    assert "attribution" not in view


@pytest.mark.parametrize(
    ("events", "sessions", "seconds"),
    [
        ((opened(0), left(90)), 1, 90),
        ((opened(0), left(90), opened(100), left(160)), 2, 150),
        ((opened(0), left(90), left(95)), 1, 90),  # told twice
        ((left(90),), 0, 0),  # whose beginning was lost
        ((opened(0), opened(60), left(90)), 2, 30),  # whose end was lost
        ((opened(0), left(86_399)), 1, 86_399),
        ((opened(0), left(86_400)), 1, 0),
        ((opened(100), left(90)), 1, 0),
    ],
)
def test_time_in_the_app(events: tuple[Event, ...], sessions: int, seconds: int) -> None:
    view = after(*events)
    assert (view["sessions"], view["seconds_in_app"]) == (sessions, seconds)
    assert not any(name.startswith("$") for name in view)


def test_the_first_installation_stands() -> None:
    later = event("Application Installed", NOON + timedelta(days=1))
    first = event("Application Installed", NOON)
    assert after(later, first)["installed_at"] == NOON


def test_attribution() -> None:
    campaign = {"source": "news", "medium": "cpc", "name": "spring"}
    view = after(event("Install Attributed", NOON, properties={"campaign": campaign}))
    assert view["attribution"] == {"source": "news", "medium": "cpc", "campaign": "spring"}
    view = after(event("Install Attributed", NOON, context={"campaign": {"source": "post"}}))
    assert view["attribution"] == {"source": "post"}


def test_it_costs_nothing_where_nobody_asks() -> None:
    plain = rule_set(rules="rules: {}", workspace="currency: EUR")
    assert plain.workspace.computed == ()


def test_their_names_are_taken() -> None:
    found = load({"workspace.yaml": b"computed:\n  sessions: {count: Visit}\n"}).problems
    assert [(p.line, p.message) for p in found] == [
        (2, '"profile.sessions" is built in: call the trait something else')
    ]


async def test_they_are_kept_read_and_shown(postgres_dsn: str) -> None:
    rules = lanes.rule_set(ALL.encode(), b"currency: EUR\n")
    async with lanes.engine(postgres_dsn, rules=rules) as engine:
        await engine.send(lanes.arrival("ada"))
        campaign = {"campaign": {"source": "news"}}
        for name, minutes in (
            ("Application Installed", 120),
            ("Install Attributed", 119),
            ("Application Opened", 60),
            ("Application Backgrounded", 58),
            ("Application Opened", 30),
        ):
            at = lanes.NOW - timedelta(minutes=minutes)
            await engine.send(lanes.event(name=name, user="ada", at=at, properties=campaign))
    async with lanes.engine(postgres_dsn, rules=rules) as restarted:
        reply = await restarted.send(lanes.event(name="Hello", user="ada"))
    [decision] = reply.decisions
    assert decision.outcome == "offered"
    assert decision.message is not None
    assert (decision.message.title, decision.message.body) == ("Session 2", "by news")
