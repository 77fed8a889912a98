"""Stays that get long: told once each, by fix time or by a timer, also over a kill and two workers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median

import msgspec
import pytest

from engine.adapters.postgres.merges import bring_over
from engine.app.timers import Timers
from engine.domain.decide import Observation
from engine.domain.people.events import Device, Event, Kind, Location
from engine.domain.people.timers import Timer
from tests import lanes, served
from tests.lanes import fetch
from tests.served import SERVER_KEY, until
from tests.story import CAFE, FAR, NOON, Story, event, fix, rule_set, said, seconds
from tests.test_serve import workers

RULES = """
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [cafe], properties: {name: The Mill}}
  town: {circle: {lat: 52.66, lng: -8.62, radius: 6000}}
offers:
  cake: {purpose: marketing, message: {push: {title: Cake, body: "{{ geofence.name }}"}}}
rules:
  stay: {when: {dwell: {tag: cafe}, for: 5m}, offer: cake}
  stay-longer: {when: {dwell: {fence: cafe}, for: 15m}, offer: cake}
"""
COUNTS = """
computed:
  stays: {count: {dwell: {fence: cafe}, for: 5m}}
"""
MINUTE = timedelta(minutes=1)


class Living(Story):
    """A story in which timers ring: those that are due before the next event, in order."""

    timers: dict[str, Timer]

    def tell(self, told, now=None, newest=None):  # type: ignore[no-untyped-def]
        self.timers = getattr(self, "timers", {})
        moment = now or told.received_at
        self.until(moment)
        return self._tell(told, moment, newest)

    def until(self, moment: datetime) -> None:
        """Lets time pass."""
        self.timers = getattr(self, "timers", {})
        while due := sorted((t.due_at, t.id) for t in self.timers.values() if t.due_at <= moment):
            at, identifier = due[0]
            ringing = self.timers.pop(identifier).event
            self._tell(msgspec.structs.replace(ringing, timestamp=at, received_at=at), at, None)

    def _tell(self, told: Event, moment: datetime, newest: Location | None):  # type: ignore[no-untyped-def]
        found = super().tell(told, moment, newest)
        seen = self.seen
        assert isinstance(seen, Observation)
        for identifier in seen.alarms.cancelled:
            self.timers.pop(identifier, None)
        for timer in seen.alarms.set:
            self.timers[timer.id] = timer
        return found


def stays(story: Story) -> list[tuple[str | None, str, str]]:
    return [(d.rule, said(d), f"{d.decided_at:%H:%M:%S}") for d in story.decisions]


def test_where_no_further_fix_comes_a_timer_tells_it() -> None:
    story = Living(rule_set(RULES))
    story.tell(fix())
    assert [t.due_at for t in story.timers.values()] == [NOON + 5 * MINUTE]
    story.until(NOON + 5 * MINUTE - seconds(1))
    assert stays(story) == []
    story.until(NOON + 90 * MINUTE)
    assert stays(story) == [("stay", "offered", "12:05:00"), ("stay-longer", "offered", "12:15:00")]
    assert [d.trigger for d in story.decisions] == ["dwell", "dwell"]
    assert story.timers == {}
    story.tell(fix(at=NOON + 91 * MINUTE))
    assert len(story.decisions) == 2


def test_fixes_tell_it_by_their_own_time_and_the_timer_says_no_more() -> None:
    """One request with all fixes; the timer rings just before its own cancellation is known."""
    story = Story(rule_set(RULES, COUNTS))
    at = NOON + 8 * MINUTE
    timers: list[Timer] = []
    for minute in (0, 2, 4, 6):
        story.tell(fix(at=NOON + minute * MINUTE, received_at=at), at, CAFE)
        assert story.seen is not None
        timers += story.seen.alarms.set
    assert [t.due_at for t in timers] == [NOON + 5 * MINUTE, NOON + 15 * MINUTE]
    assert stays(story) == [("stay", "offered", "12:08:00")]
    story.tell(msgspec.structs.replace(timers[0].event, received_at=at))
    assert len(story.decisions) == 1
    assert story.profile.computed["stays"] == 1


def test_who_leaves_in_time_has_not_stayed() -> None:
    story = Living(rule_set(RULES, COUNTS))
    story.tell(fix())
    story.tell(fix(FAR, NOON + 5 * MINUTE - seconds(1)))
    story.until(NOON + 90 * MINUTE)
    assert story.decisions == []
    assert story.timers == {}
    assert "stays" not in story.profile.computed
    story.tell(fix(at=NOON + 100 * MINUTE))  # another stay, which is told anew
    story.until(NOON + 106 * MINUTE)
    assert stays(story) == [("stay", "offered", "13:45:00")]


def test_a_stay_that_a_late_batch_shows_to_be_over_counts_and_offers_nothing() -> None:
    story = Story(rule_set(RULES, COUNTS))
    at = NOON + 12 * MINUTE
    story.tell(fix(received_at=at), at, FAR)
    story.tell(fix(FAR, NOON + 10 * MINUTE, received_at=at), at)
    assert story.profile.computed["stays"] == 1
    assert stays(story) == [("stay", "stale_event", "12:12:00")]


def test_nobody_knows_of_a_stay_after_silence_until_a_fix_inside_tells() -> None:
    story = Living(rule_set(RULES.replace("15m", "45m")))
    story.tell(fix())
    story.until(NOON + 100 * MINUTE)
    assert stays(story) == [("stay", "offered", "12:05:00")]
    story.tell(fix(at=NOON + 101 * MINUTE))
    assert stays(story)[1:] == [("stay-longer", "offered", "13:41:00")]
    assert isinstance(story.seen, Observation)
    assert story.seen.notes == ("presence: unknown after 101 min without a fix",)
    other = Living(rule_set(RULES.replace("15m", "45m")))
    other.tell(fix())
    other.tell(fix(FAR, NOON + 101 * MINUTE))  # an exit, and nobody knows when
    assert stays(other) == [("stay", "offered", "12:05:00")]


def test_a_timer_of_a_stay_that_ended_tells_nothing_of_the_next_one() -> None:
    story = Story(rule_set(RULES))
    story.tell(fix())
    assert story.seen is not None
    (timer,) = story.seen.alarms.set
    story.tell(fix(FAR, NOON + MINUTE))
    story.tell(fix(at=NOON + 2 * MINUTE))
    at = timer.due_at
    story.tell(msgspec.structs.replace(timer.event, timestamp=at, received_at=at))
    assert story.decisions == []


def test_a_person_cannot_claim_to_be_a_timer() -> None:
    story = Story(rule_set(RULES))
    story.tell(fix())
    story.tell(event("$dwell", NOON + 10 * MINUTE, properties={"fence": "cafe"}))
    assert story.decisions == []


@pytest.mark.parametrize("gap", [10, 1800])
def test_the_document_forgets_stays_that_ended(gap: int) -> None:
    story = Living(rule_set(RULES))
    for minute in range(8):
        story.tell(fix(at=NOON + minute * MINUTE))
    assert story.profile.presence.stayed == {"cafe": 300.0}
    story.tell(fix(FAR, NOON + 8 * MINUTE + seconds(gap)))
    assert story.profile.presence.stayed == {}


def test_what_is_told_long_after_it_sets_no_timers() -> None:
    story = Story(rule_set(RULES))
    story.tell(fix(history=True), NOON + timedelta(days=30))
    assert story.seen is not None
    assert not story.seen.alarms


async def test_two_engines_tell_a_stay_once(postgres_dsn: str) -> None:
    rules = rule_set(RULES, COUNTS)
    people = [f"p{n}" for n in range(20)]
    async with lanes.engine(postgres_dsn, rules) as one, lanes.engine(postgres_dsn, rules) as two:
        await one.send(*(lanes.arrival(p) for p in people))
        await one.send(*(lanes.event(name="Location Updated", user=p, location=CAFE) for p in people))
        due = lanes.NOW + 5 * MINUTE
        one.now = two.now = due
        ringing = [Timers(e.store, e.lane, lambda: due) for e in (one, two)]
        await asyncio.gather(*(t.fire_due() for t in ringing))
        for p in people:
            profile = await two.profile("user_id", p)
            assert profile is not None
            assert profile.computed["stays"] == 1
        decided = await fetch(postgres_dsn, "SELECT profile_id FROM decisions WHERE outcome = 'offered'")
        assert len(decided) == len({row[0] for row in decided}) == len(people)
        waiting = await fetch(postgres_dsn, "SELECT due_at FROM timers")
        assert [row[0] for row in waiting] == [lanes.NOW + 15 * MINUTE] * len(people)
        # The last fix of all: nobody is there any more, and nothing rings.
        one.now = due + MINUTE
        for p in people:
            await one.send(lanes.event(name="Location Updated", user=p, location=FAR, at=due + MINUTE))
        assert await fetch(postgres_dsn, "SELECT FROM timers") == []


@pytest.mark.parametrize("is_moved_first", [True, False])
@pytest.mark.parametrize(("known", "unknown"), [(0, 2), (2, 0)])
async def test_a_stay_that_two_profiles_were_in_is_told_once_when_they_are_one(
    known: int, unknown: int, is_moved_first: bool, postgres_dsn: str
) -> None:
    """The same person on two devices; both profiles had set a timer, which comes over with the rest or
    is still to come when the other one rings."""
    async with lanes.engine(postgres_dsn, rule_set(RULES, COUNTS)) as engine:
        here = partial(lanes.event, name="Location Updated", location=CAFE)
        phone, watch = (Device(id=name, type="ios", token=name) for name in ("phone", "watch"))
        fixes = [
            (known, here(user="U", device=phone, at=lanes.NOW + known * MINUTE)),
            (unknown, here(anonymous="A", device=watch, at=lanes.NOW + unknown * MINUTE)),
        ]
        for who in ({"user": "U", "device": phone}, {"anonymous": "A", "device": watch}):
            consent = {"marketing": True, "location": True}
            await engine.send(lanes.event(Kind.IDENTIFY, consent=consent, **who))
        for minute, fix in sorted(fixes, key=lambda one: one[0]):
            engine.now = lanes.NOW + minute * MINUTE
            await engine.send(fix)
        assert len(await fetch(postgres_dsn, "SELECT FROM timers WHERE id LIKE 'dwell %'")) == 2
        engine.now = lanes.NOW + 3 * MINUTE
        await engine.send(lanes.event(Kind.IDENTIFY, user="U", anonymous="A", at=engine.now))
        ringing = Timers(engine.store, engine.lane, lambda: engine.now)
        told: list[int] = []
        for minute in (5, 7, 9):
            if minute != 5 or is_moved_first:
                while await bring_over(engine.store.pool):
                    pass
            engine.now = lanes.NOW + minute * MINUTE
            await ringing.fire_due()
            profile = await engine.profile("user_id", "U")
            assert profile is not None
            told.append(profile.computed.get("stays", 0))
        assert told[-1] == 1
        assert await fetch(postgres_dsn, "SELECT FROM decisions WHERE outcome = 'offered'") != []
        left = await fetch(postgres_dsn, "SELECT due_at FROM timers WHERE id LIKE 'dwell %'")
        assert len(left) == 1  # the fifteen minutes
        engine.now = lanes.NOW + 20 * MINUTE
        await ringing.fire_due()
        profile = await engine.profile("user_id", "U")
        assert profile is not None
        assert profile.computed["stays"] == 1
        assert await fetch(postgres_dsn, "SELECT FROM timers WHERE id LIKE 'dwell %'") == []


SOON = RULES.replace("5m", "12s").replace("15m", "1h").encode()


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_stay_told_after_kill_9_with_two_workers(postgres: str, tmp_path: Path) -> None:
    """All of them once, and most within a second."""
    people = [f"p{n}" for n in range(6)]
    served.write_workspace(tmp_path / "rules", rules=SOON)
    with served.database(postgres, "test_dwell_killed") as dsn:
        engine = served.start(tmp_path, dsn, WORKERS="2")
        try:
            engine.wait_until_ready()
            with engine.client(SERVER_KEY) as client:
                for person in people:
                    phone = {"id": f"{person}-phone", "type": "android", "token": person}
                    body = {"userId": person, "traits": {"consent": {"marketing": "granted"}}}
                    client.post("/v1/identify", json={**body, "context": {"device": phone}})
                    here = {"latitude": 52.66, "longitude": -8.62, "accuracy": 10}
                    came = {"userId": person, "event": "Location Updated", "context": {"location": here}}
                    assert client.post("/v1/track", json=came).json()["accepted"] == 1
            due = {row[0]: row[1] for row in served.fetch(dsn, "SELECT profile_id, due_at FROM timers")}
            assert len(due) == len(people)
            for pid in workers(engine):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            engine.kill()
            engine = served.start(tmp_path, dsn, WORKERS="2")
            engine.wait_until_ready()
            ready = datetime.now(UTC)
            query = "SELECT profile_id, decided_at FROM decisions WHERE outcome = 'offered'"
            until(lambda: len(served.fetch(dsn, query)) >= len(people), 60, "all stays are told")
            told = served.fetch(dsn, query)
            late = [(row[1] - max(due[row[0]], ready)).total_seconds() for row in told]
            assert sorted(row[0] for row in told) == sorted(due)
            assert median(late) <= 1.0
            assert served.fetch(dsn, "SELECT FROM timers WHERE due_at <= now()") == []
        finally:
            served.end(engine)
