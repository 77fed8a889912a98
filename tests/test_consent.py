"""What a person allowed: the newest explicit statement stands, and positions are no more exact than it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from itertools import permutations

import h3.api.basic_int as h3
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.offers.decisions import Outcome
from engine.domain.people.events import Event, Kind, Location
from engine.domain.people.profiles import Consent, encode_profile
from engine.domain.places.earth import meters_between
from tests.story import GIFT, NOON, Story, event, fix, phone, rule_set, said, seconds, someone

PURPOSES = """
consent:
  purposes:
    marketing: {from: [C0004, Advertising]}
    partners: {unknown: allow}
    location: {}
    service: {basis: contract}
  location_precision: {granted: exact, denied: none, unknown: city}
"""


def states(at: datetime, **consent: bool) -> Event:
    return event("Consent", at, received_at=NOON + timedelta(days=9), consent=consent)


def silent() -> Story:
    """A person who has said nothing yet."""
    return Story(rule_set(workspace=PURPOSES), someone(consent={}))


STATEMENTS = [
    states(NOON, marketing=True),
    states(NOON + seconds(1), marketing=False),
    states(NOON + seconds(2), marketing=True),
    states(NOON + seconds(3), marketing=False),
]


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_the_newest_statement_stands_whatever_came_last(order: tuple[int, ...]) -> None:
    story = silent()
    for position in order:
        story.tell(STATEMENTS[position])
    assert story.profile.consent == {"marketing": Consent(False, NOON + seconds(3), "marketing")}
    assert said(story.ask(event(at=NOON + timedelta(days=9)))) == "no_consent"


def test_a_statement_counts_from_the_very_event_that_makes_it() -> None:
    story = silent()
    assert said(story.ask(event())) == "no_consent"
    assert said(story.ask(event(at=NOON + seconds(1), consent={"marketing": True}))) == "offered"
    assert said(story.ask(event(at=NOON + seconds(2), consent={"marketing": False}))) == "no_consent"


def test_an_event_that_says_nothing_of_consent_changes_nothing() -> None:
    story = silent()
    story.tell(states(NOON, marketing=False))
    stated = story.profile.consent
    story.tell(event("Open", NOON + seconds(60)))
    story.tell(event("Open", NOON + seconds(61), consent={"location": True}))
    assert story.profile.consent["marketing"] == stated["marketing"]
    assert story.profile.consent.keys() == {"marketing", "location"}


def test_a_purpose_says_what_silence_means() -> None:
    rules = GIFT.replace("purpose: marketing", "purpose: partners")
    story = Story(rule_set(rules, PURPOSES), someone(consent={}))
    assert said(story.ask(event())) == "offered"
    assert said(story.ask(event(at=NOON + seconds(1), consent={"partners": False}))) == "no_consent"
    assert dict(story.decisions[-1].candidates[0].numbers) == {"purpose": "partners", "state": "denied"}


def test_a_contract_needs_none_even_where_it_was_denied() -> None:
    rules = GIFT.replace("purpose: marketing", "purpose: service")
    story = Story(rule_set(rules, PURPOSES), someone(consent={"service": Consent(False, NOON)}))
    assert said(story.ask(event())) == "offered"


@pytest.mark.parametrize("name", ["marketing", "C0004", "Advertising"])
def test_what_consent_tools_call_it(name: str) -> None:
    """A purpose's names are one thing: the newest statement under any of them stands."""
    for other in ("marketing", "C0004", "Advertising"):
        story = silent()
        story.tell(event("Consent", consent={name: True}))
        assert story.profile.consent == {"marketing": Consent(True, NOON, name)}
        story.tell(event("Consent", NOON - seconds(1), consent={other: False}))
        assert story.profile.consent["marketing"].granted
        story.tell(event("Consent", NOON + seconds(1), consent={other: False}))
        assert not story.profile.consent["marketing"].granted


@pytest.mark.parametrize("name", ["c0004", "C0005", "advertising", "", "Marketing"])
def test_a_name_that_nobody_declared_is_no_statement(name: str) -> None:
    story = silent()
    story.tell(event("Consent", consent={name: True}))
    assert story.profile.consent == {}


moments = st.integers(0, 20)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            moments,
            st.none() | st.booleans(),
            st.sampled_from(["marketing", "C0004", "Advertising", "C9999"]),
            st.sampled_from(["Wish", "Open"]),
        ),
        max_size=30,
    )
)
def test_nothing_is_offered_without_consent(
    history: list[tuple[int, bool | None, str, str]],
) -> None:
    """Against a plain reading of the same history: of all statements so far, the newest."""
    story = silent()
    newest: tuple[int, bool] | None = None
    for minute, granted, name, what in history:
        stated = {} if granted is None else {name: granted}
        if granted is not None and name != "C9999" and (newest is None or minute >= newest[0]):
            newest = (minute, granted)
        happened = NOON + timedelta(minutes=minute)
        decisions = story.tell(event(what, happened, received_at=NOON + timedelta(hours=1), consent=stated))
        allowed = newest is not None and newest[1]
        for decision in decisions:
            assert (decision.outcome is Outcome.OFFERED) is allowed
            assert decision.reason == (None if allowed else "no_consent")


# Positions

SPOT = Location(
    latitude=52.6612345, longitude=-8.6254321, accuracy=7.0, altitude=12.5, speed=1.25, heading=271.0
)


def kept(story: Story) -> Location | None:
    assert story.seen is not None
    return story.seen.event.location


def floats_in(story: Story) -> list[float]:
    """Every number that the event as kept and the profile hold."""
    assert story.seen is not None
    found: list[float] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, float):
            found.append(value)
        elif isinstance(value, str):
            found.extend(float(text) for text in re.findall(r"-?\d+\.\d+", value))

    walk(msgspec.msgpack.decode(encode_profile(story.profile)))
    walk(msgspec.to_builtins(story.seen.event))
    return found


def shows(story: Story) -> bool:
    """Whether anything that was kept tells the spot to within some 100 metres."""
    numbers = floats_in(story)
    near = [abs(n - SPOT.latitude) < 0.0009 or abs(n - SPOT.longitude) < 0.0009 for n in numbers]
    return any(near)


def test_a_granted_position_is_kept_as_it_came() -> None:
    story = silent()
    story.tell(fix(SPOT, consent={"location": True}))
    assert kept(story) == SPOT
    assert shows(story)


@pytest.mark.parametrize(
    ("precision", "resolution", "radius"), [("neighbourhood", 7, 1500), ("city", 5, 10_000)]
)
def test_a_coarse_position_is_the_middle_of_its_cell(precision: str, resolution: int, radius: int) -> None:
    workspace = PURPOSES.replace("unknown: city}", f"unknown: {precision}}}")
    story = Story(rule_set(workspace=workspace), someone(consent={}))
    story.tell(fix(SPOT))
    coarse = kept(story)
    assert coarse is not None
    cell = h3.latlng_to_cell(SPOT.latitude, SPOT.longitude, resolution)
    assert h3.latlng_to_cell(coarse.latitude, coarse.longitude, resolution) == cell
    assert (coarse.latitude, coarse.longitude) == pytest.approx(h3.cell_to_latlng(cell), abs=1e-4)
    # Honest about it: the true position lies within the accuracy, which is not absurdly large.
    away = meters_between(SPOT.latitude, SPOT.longitude, coarse.latitude, coarse.longitude)
    assert away <= coarse.accuracy <= radius
    assert (coarse.altitude, coarse.speed, coarse.heading) == (None, None, None)
    assert not shows(story)


def test_two_spots_of_one_cell_cannot_be_told_apart() -> None:
    workspace = PURPOSES.replace("unknown: city}", "unknown: neighbourhood}")
    here = Story(rule_set(workspace=workspace), someone(consent={}))
    there = Story(rule_set(workspace=workspace), someone(consent={}))
    told = fix(SPOT)
    moved = msgspec.structs.replace(SPOT, latitude=SPOT.latitude + 0.0005, speed=3.0)
    here.tell(told)
    there.tell(msgspec.structs.replace(told, location=moved))
    assert here.seen is not None
    assert there.seen is not None
    assert here.seen.event == there.seen.event
    assert here.profile == there.profile


def test_a_coarse_position_is_never_made_finer() -> None:
    """A fix by the cell towers alone was worse than a city already."""
    story = silent()
    vague = msgspec.structs.replace(SPOT, accuracy=50_000.0)
    story.tell(fix(vague))
    coarse = kept(story)
    assert coarse is not None
    assert coarse.accuracy == 50_000.0


def test_a_denied_position_is_not_kept_at_all() -> None:
    story = silent()
    story.tell(states(NOON, location=False))
    story.tell(fix(SPOT, NOON + seconds(1)))
    assert kept(story) is None
    assert not shows(story)
    assert story.profile.presence.devices == {}


def test_an_event_that_withdraws_consent_is_not_kept_exactly_itself() -> None:
    story = silent()
    story.tell(states(NOON, location=True))
    story.tell(fix(SPOT, NOON + seconds(1), consent={"location": False}))
    assert kept(story) is None
    assert not shows(story)


def test_an_old_statement_that_comes_late_opens_nothing() -> None:
    story = silent()
    story.tell(states(NOON, location=False))
    story.tell(fix(SPOT, NOON - seconds(1), received_at=NOON + seconds(5), consent={"location": True}))
    assert kept(story) is None
    assert not shows(story)


FENCES = """
geofences:
  cafe: {circle: {lat: 52.6612345, lng: -8.6254321, radius: 60}}
  town: {circle: {lat: 52.6612345, lng: -8.6254321, radius: 60000}}
offers:
  gift: {purpose: marketing, message: {push: {title: A gift, body: For you}}}
rules:
  cafe: {when: {enter: {fence: cafe}}, offer: gift}
  town: {when: {enter: {fence: town}}, offer: gift, priority: -1}
"""


@pytest.mark.parametrize(
    ("stated", "entered"),
    [({"location": True}, ["cafe", "town"]), ({}, ["town"]), ({"location": False}, [])],
)
def test_a_fence_smaller_than_the_precision_does_not_fire(
    stated: dict[str, bool], entered: list[str]
) -> None:
    story = Story(rule_set(FENCES, PURPOSES), someone(consent={"marketing": Consent(True, NOON)}))
    decisions = story.tell(fix(SPOT, consent=stated))
    assert [c.geofence for d in decisions for c in d.candidates] == entered
    assert sorted(story.profile.presence.inside) == entered


def test_location_consent_is_each_devices_own() -> None:
    """Design 6.2: location consent and permissions per device, the others per person."""
    story = silent()
    mine, tablet = phone("phone"), phone("tablet")
    story.tell(event("Consent", NOON, device=mine, consent={"location": True, "marketing": True}))
    story.tell(event("Consent", NOON + seconds(1), device=tablet, consent={"location": False}))
    story.tell(fix(SPOT, NOON + seconds(2), device=mine))
    assert kept(story) == SPOT
    story.tell(fix(SPOT, NOON + seconds(3), device=tablet))
    assert kept(story) is None
    assert said(story.ask(event(at=NOON + seconds(4), device=tablet))) == "offered"


def test_a_workspace_that_asks_nobody_about_location_keeps_it() -> None:
    workspace = "consent: {purposes: {marketing: {}}}"
    story = Story(rule_set(workspace=workspace), someone(consent={}))
    story.tell(fix(SPOT))
    assert kept(story) == SPOT


def test_consent_by_identify_is_the_same() -> None:
    story = silent()
    story.tell(event("", kind=Kind.IDENTIFY, consent={"Advertising": True}))
    assert said(story.ask(event(at=NOON + seconds(1)))) == "offered"


# What was said before, and to others


def test_every_change_of_mind_is_kept_and_no_repetition() -> None:
    story = silent()
    for second, granted in enumerate([True, True, False, False, True]):
        story.tell(states(NOON + seconds(second), marketing=granted))
    assert [(s.purpose, s.granted, s.at) for s in story.profile.consent_history] == [
        ("marketing", True, NOON),
        ("marketing", False, NOON + seconds(2)),
        ("marketing", True, NOON + seconds(4)),
    ]
    assert story.profile.consent["marketing"].at == NOON + seconds(4)


def test_the_history_is_bounded() -> None:
    story = silent()
    for second in range(300):
        story.tell(states(NOON + seconds(second), marketing=second % 2 == 0))
    assert len(story.profile.consent_history) == 100
    assert story.profile.consent_history[-1].at == NOON + seconds(299)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_the_newest_word_on_sharing_stands(order: tuple[int, ...]) -> None:
    late = {"received_at": NOON + timedelta(days=1)}
    told = [
        event("Open", NOON, context={"gpc": True}, **late),
        event("Open", NOON + seconds(1), traits={"do_not_sell": False}, **late),
        event("Open", NOON + seconds(2), traits={"do_not_sell": True}, **late),
    ]
    story = silent()
    for position in order:
        story.tell(told[position])
    assert story.profile.sharing == Consent(False, NOON + seconds(2), "do_not_sell")


def test_a_browser_that_says_no_outweighs_a_trait_that_is_sent_along() -> None:
    story = silent()
    story.tell(event("Open", NOON, traits={"do_not_sell": False}, context={"gpc": True}))
    assert story.profile.sharing == Consent(False, NOON, "gpc")


def test_without_a_word_nothing_is_known_of_sharing() -> None:
    story = silent()
    story.tell(event("Open"))
    assert story.profile.sharing is None
    story.tell(event("Open", NOON + seconds(1), context={"gpc": True}))
    story.tell(event("Open", NOON + seconds(2)))
    assert story.profile.sharing == Consent(False, NOON + seconds(1), "gpc")
