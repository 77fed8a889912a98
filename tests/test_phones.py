"""What phones deliver of a real ride, as their makers document it."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from engine.app.rehearsal_story import play
from engine.app.ruling import Ruling
from engine.domain.people.events import Location
from engine.domain.phones import (
    ANDROID_FIX_EVERY,
    BATCH_EVENTS,
    BATCH_SECONDS,
    IOS_CHANGE_EVERY,
    App,
    Ask,
    Os,
    Phone,
    Report,
    caught_share,
    reports,
)
from engine.domain.places.earth import meters_between
from engine.domain.places.fence_index import build
from engine.domain.places.watching import DEFAULT_LIMITS, Moving, Stake, Watch, watch
from engine.formats.gpx import read_gpx
from engine.formats.scenario import read_scenarios
from engine.formats.workspace import load
from loadtest.approach import bus_fixes, stops
from tests.served import command

ROOT = Path(__file__).parents[1]

TRACK = [
    Location(latitude=f.latitude, longitude=f.longitude, accuracy=5.0, at=f.at, speed=3.0)
    for f in bus_fixes()
]
STOPS = stops(40.0)
INDEX = build(STOPS)
EVERY = Stake(on_enter=True, on_exit=True, on_dwell=False)


def told_to(os: Os, asked: list[Location] | None = None, limit: int | None = None) -> Ask:
    """The engine, as a phone asks it; where from is added to `asked`."""

    def ask(fix: Location) -> Watch:
        if asked is not None:
            asked.append(fix)
        moving = Moving(fix.latitude, fix.longitude, fix.accuracy)
        return watch(INDEX, moving, lambda _: EVERY, limit or DEFAULT_LIMITS[os])

    return ask


def delivered(os: Os, app: App, seed: int = 0) -> list[Report]:
    found = reports(TRACK, told_to(os), Phone(os, app), seed)
    assert found == reports(TRACK, told_to(os), Phone(os, app), seed)
    assert [r.sent_at for r in found] == sorted(r.sent_at for r in found)
    assert all(r.at <= r.sent_at for r in found)
    return found


@pytest.mark.parametrize("os", ["ios", "android"])
def test_an_app_on_the_screen_sends_all_in_batches(os: Os) -> None:
    found = delivered(os, "foreground")
    assert [r.at for r in found] == [fix.at for fix in TRACK]
    assert all(r.region is None and r.location.accuracy == 8.0 for r in found)
    batches = Counter(r.sent_at for r in found)
    assert max(batches.values()) == BATCH_EVENTS
    assert all(r.sent_at - r.at <= BATCH_SECONDS for r in found)


def test_ios_in_the_background() -> None:
    found = [r for seed in range(5) for r in delivered("ios", "background", seed)]
    fixes = sorted(r.at for r in delivered("ios", "background") if r.region is None)
    assert len(fixes) > 5
    assert all(later - earlier >= IOS_CHANGE_EVERY for earlier, later in pairwise(fixes))
    once = [r for r in delivered("ios", "background") if r.region is not None]
    for fence in {r.region for r in once}:
        kinds = [r.entered for r in once if r.region == fence]
        assert all(first is not second for first, second in pairwise(kinds))
    told = [r for r in found if r.region is not None]
    assert 5 * 10 < len(told) < 5 * 72
    assert all(r.location.speed is None and r.location.accuracy == 40.0 for r in found)
    late = [r for r in found if r.sent_at - r.at > timedelta(seconds=2)]
    assert 0 < len(late) < len(found) / 4


def test_android_in_the_background() -> None:
    found = delivered("android", "background")
    fixes = [r.at for r in found if r.region is None]
    assert len(fixes) == (TRACK[-1].at - TRACK[0].at) // ANDROID_FIX_EVERY + 1  # type: ignore[operator]
    told = [r for r in found if r.region is not None]
    assert 5 < len(told) < 72
    for fence in {r.region for r in told}:
        kinds = [r.entered for r in sorted(told, key=lambda r: r.at) if r.region == fence]
        assert all(first is not second for first, second in pairwise(kinds))


@pytest.mark.parametrize("os", ["ios", "android"])
def test_it_tells_only_of_regions_that_it_was_told_to_watch(os: Os) -> None:
    """With two slots it says nothing of places that were not in the list then."""
    asked: list[Location] = []
    lists: list[frozenset[str]] = []

    def ask(fix: Location) -> Watch:
        answer = told_to(os, asked, 2)(fix)
        lists.append(frozenset(region.id for region in answer.regions))
        return answer

    found = reports(TRACK, ask, Phone(os, "background"))
    assert len(asked) > 3
    for report in found:
        if report.region is not None:
            known = [names for fix, names in zip(asked, lists, strict=True) if fix.at <= report.at]  # type: ignore[operator]
            assert any(report.region in names for names in known)


def test_it_asks_again_when_it_enters_one_leaves_its_circle_or_is_late() -> None:
    asked: list[tuple[Location, Watch]] = []

    def ask(fix: Location) -> Watch:
        asked.append((fix, told_to("android", limit=5)(fix)))
        return asked[-1][1]

    found = reports(TRACK, ask, Phone("android", "background"))
    entered = {report.at for report in found if report.entered}
    assert len(asked) > 3
    for (fix, answer), (again, _) in pairwise(asked):
        away = meters_between(fix.latitude, fix.longitude, again.latitude, again.longitude)
        assert fix.at is not None
        assert again.at is not None
        late = again.at - fix.at >= timedelta(seconds=answer.refresh_after)
        assert again.at in entered or late or away > answer.refresh_radius


def test_who_allowed_nothing_watches_nothing() -> None:
    assert decided("phone: {os: ios, app: background}", "location: denied") == []


def test_the_share_of_approaches_that_are_told() -> None:
    assert caught_share(timedelta(seconds=60), "ios") == 0.2
    assert caught_share(timedelta(minutes=5), "ios") == 1.0
    assert caught_share(timedelta(minutes=3), "android") == 0.2
    assert caught_share(timedelta(hours=1), "android") == 1.0


RULES = """
geofences:
  stop: {circle: {lat: 52.6500019, lng: -8.636683, radius: 60}}
offers:
  hello: {purpose: service, message: {push: {title: Hello, body: You}}}
rules:
  soon: {when: {approach: {fence: stop}, within: 60s}, offer: hello}
  here: {when: {enter: {fence: stop}}, offer: hello}
"""
STORY = """
tests:
  - name: {name}
    profile: {{user_id: ada, device: {{type: ios, token: t}}}}
    {phone}
    track: bus.gpx
    expect: []
"""


def decided(phone: str, permissions: str = "") -> list[str | None]:
    rules = load(
        {
            "workspace.yaml": b"consent: {purposes: {service: {basis: contract}}}",
            "rules.yaml": RULES.encode(),
        }
    ).rule_set
    assert rules is not None
    story = (
        STORY.replace("token: t", f"token: t, permissions: {{{{{permissions}}}}}") if permissions else STORY
    )
    data = story.format(name="a ride", phone=phone).encode()
    found, problems = read_scenarios("t.yaml", data, rules)
    assert problems == ()
    (scenario,) = found
    track = read_gpx((ROOT / "rules/tracks/bus-304.gpx").read_bytes(), "bus.gpx")
    played = play(scenario, track.fixes, Ruling(rules, {}))
    assert played.problems == ()
    return [d.rule for told in played.told for d in told.decisions if d.outcome == "offered"]


def test_a_scenario_seen_through_a_phone() -> None:
    """On the screen an SDK's batches are in time for an approach; in the background phones tell of the
    region alone."""
    assert decided("") == ["soon", "here"]
    assert decided("phone: {os: ios, app: foreground}") == ["soon", "here"]
    assert decided("phone: {os: ios, app: background}") == ["here"]
    assert decided("phone: {os: android, app: background}") == ["here"]


@pytest.mark.parametrize(
    ("phone", "messages"),
    [
        ("phone: {os: ios}", ['"app" is missing']),
        ("phone: {os: iso, app: back}", ["expected one of ios, android", "expected one of foreground, back"]),
        ("phone: {app: background, os: ios, model: x}", ['unknown field "model"']),
        ("phone: ios", ["expected a phone such as"]),
    ],
)
def test_a_phone_that_is_none(phone: str, messages: list[str]) -> None:
    rules = load({"rules.yaml": b"rules: {}"}).rule_set
    assert rules is not None
    _, problems = read_scenarios("t.yaml", STORY.format(name="x", phone=phone).encode(), rules)
    assert len(problems) == len(messages)
    for problem, message in zip(problems, messages, strict=True):
        assert message in problem.message
        assert problem.line == 5


def test_the_command(tmp_path: Path) -> None:
    track = str(ROOT / "rules/tracks/bus-304.gpx")
    settings = {"RULES": str(ROOT / "rules"), "MODELS": str(ROOT / "models")}
    run = command(tmp_path, "phone", track, "--os", "android", "--json", **settings)
    assert run.returncode == 0, run.stderr
    bodies = [msgspec.json.decode(line) for line in run.stdout.splitlines()]
    said = {e["event"] for b in bodies for e in b["batch"]}
    assert said == {"Location Updated", "Geofence Entered", "Geofence Exited"}
    assert all(b["sentAt"] >= e["timestamp"] for b in bodies for e in b["batch"])
    table = command(tmp_path, "phone", track, "--app", "foreground", **settings)
    assert "2144 events of 2144 fixes" in table.stdout
    nothing = command(tmp_path, "phone", "no-such.gpx", **settings)
    assert nothing.returncode == 1
    assert "no-such.gpx" in nothing.stderr
