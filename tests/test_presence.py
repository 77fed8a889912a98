"""Presence as timelines: each threshold with one step on either side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from geographiclib.geodesic import Geodesic  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.people.events import Device, Event, Kind, Location
from engine.domain.places.earth import meters_between
from engine.domain.places.fence_index import Fence, FenceIndex, build
from engine.domain.places.fixes import Spot, is_within
from engine.domain.places.presence import Fix, Presence, Step, Transition, fix_of, is_known, step
from engine.domain.places.shapes import Circle, Polygon, Shape

START = datetime(2026, 1, 12, 9, 0, tzinfo=UTC)
LATITUDE, LONGITUDE, RADIUS = 52.66, -8.63, 100.0
SHOP = build([Fence("shop", Circle(LATITUDE, LONGITUDE, RADIUS))])


def fix(
    seconds: float,
    out: float,
    accuracy: float = 20.0,
    *,
    device: str = "d",
    mock: bool = False,
    received: float | None = None,
    sent: float | None = None,
) -> Fix:
    """A fix `out` metres outside the shop's edge, straight north of it (negative: inside)."""
    there = Geodesic.WGS84.Direct(LATITUDE, LONGITUDE, 0, RADIUS + out)
    at = START + timedelta(seconds=seconds)
    return Fix(
        latitude=there["lat2"],
        longitude=there["lon2"],
        at=at,
        received_at=at if received is None else START + timedelta(seconds=received),
        sent_at=None if sent is None else START + timedelta(seconds=sent),
        accuracy_meters=accuracy,
        is_mock=mock,
        device_id=device,
    )


def run(
    fixes: Iterable[Fix], index: FenceIndex = SHOP, presence: Presence | None = None
) -> tuple[Presence, list[Step]]:
    """The presence after all fixes, and each step."""
    presence = Presence() if presence is None else presence
    steps = []
    for each in fixes:
        steps.append(step(presence, each, index))
        presence = steps[-1].presence
    return presence, steps


def kinds(steps: Sequence[Step]) -> list[str]:
    """What happened at each step: "enter", "exit", the reason why nothing could, or ""."""
    return [" ".join(t.kind for t in s.transitions) or (s.ignored.value if s.ignored else "") for s in steps]


AWAY = fix(0, 1000)
IN = fix(0, -80)


@pytest.mark.parametrize(
    ("fixes", "expected"),
    [
        # The first fix of a person inside is an enter, however near the edge.
        ([fix(0, -0.5)], ["enter"]),
        ([fix(0, 0.5)], [""]),
        # Inside by more than half the accuracy.
        ([AWAY, fix(60, -10.1)], ["", "enter"]),
        ([AWAY, fix(60, -9.9)], ["", ""]),
        # Three successive fixes over at least 30 s.
        ([AWAY, fix(60, -1), fix(75, -1), fix(90, -1)], ["", "", "", "enter"]),
        ([AWAY, fix(60, -1), fix(75, -1), fix(89, -1)], ["", "", "", ""]),
        ([AWAY, fix(60, -1), fix(75, -1), fix(89, -1), fix(90, -1)], ["", "", "", "", "enter"]),
        ([AWAY, fix(60, -1), fix(100, -1)], ["", "", ""]),
        ([AWAY, fix(60, -1), fix(75, -1), fix(80, 1), fix(90, -1), fix(119, -1)], [""] * 6),
        # Outside by more than three times the accuracy.
        ([IN, fix(60, 60.2)], ["enter", "exit"]),
        ([IN, fix(60, 59.8)], ["enter", ""]),
        # Three successive fixes over at least 30 s outside by more than the accuracy.
        ([IN, fix(60, 20.2), fix(75, 20.2), fix(90, 20.2)], ["enter", "", "", "exit"]),
        ([IN, fix(60, 20.2), fix(75, 20.2), fix(89, 20.2)], ["enter", "", "", ""]),
        ([IN, fix(60, 20.2), fix(75, 19.8), fix(90, 20.2), fix(119, 20.2)], ["enter", "", "", "", ""]),
        ([IN, fix(60, 19.8), fix(75, 19.8), fix(90, 19.8)], ["enter", "", "", ""]),
        ([IN, fix(60, 20.2), fix(100, 20.2)], ["enter", "", ""]),
        # Each fix by its own accuracy.
        ([AWAY, fix(60, -20, 41)], ["", ""]),
        ([AWAY, fix(60, -20, 39)], ["", "enter"]),
        # In again after an exit is a new stay.
        ([IN, fix(60, 200), fix(120, -50)], ["enter", "exit", "enter"]),
    ],
)
def test_enter_and_exit(fixes: list[Fix], expected: list[str]) -> None:
    assert kinds(run(fixes)[1]) == expected


@pytest.mark.parametrize(
    ("before", "ignored", "code"),
    [
        ([AWAY], fix(60, -50, mock=True), "mock"),
        ([AWAY], AWAY, "doubled"),
        ([AWAY], fix(0, -50), "doubled"),
        ([AWAY], fix(-1, -50), "out_of_order"),
        # (distance - both accuracies) / time over 340 m/s: 10 s allow 3,400 + 40 m.
        ([AWAY], fix(10, 1000 + 3441), "teleport"),
        ([AWAY], fix(10, 1000 + 3439), ""),
        # Less accurate than the fence is large, and than 200 m.
        ([AWAY], fix(60, -50, 201), "inaccurate"),
        ([AWAY], fix(60, -50, 200), ""),
        # Later than it was sent and than it came.
        ([AWAY], fix(200, -50, received=60, sent=139), "future"),
        ([AWAY], fix(200, -50, received=60, sent=140), "enter"),
        ([AWAY], fix(200, -50, received=140, sent=60), "enter"),
        ([AWAY], fix(90_000, -50, received=3_599), "future"),
        ([AWAY], fix(90_000, -50, received=3_600), "enter"),
    ],
)
def test_fixes_that_change_nothing(before: list[Fix], ignored: Fix, code: str) -> None:
    presence, _ = run(before)
    taken = step(presence, ignored, SHOP)
    assert kinds([taken]) == [code]
    if code not in ("", "enter", "teleport"):
        assert taken.presence == presence


def test_a_run_is_not_broken_by_what_changes_nothing() -> None:
    between = [fix(70, 300, mock=True), fix(71, 40, 500), fix(60, 90), fix(50, 90)]
    _, steps = run([AWAY, fix(60, -1), fix(66, -1), *between, fix(90, -1)])
    assert kinds(steps)[-5:] == ["mock", "inaccurate", "out_of_order", "out_of_order", "enter"]


def test_a_coarse_fix_counts_for_the_fences_that_are_larger_than_it() -> None:
    index = build(
        [Fence("shop", Circle(LATITUDE, LONGITUDE, 100)), Fence("town", Circle(52.66, -8.63, 5000))]
    )
    presence, (first, second) = run([fix(0, -50, 400), fix(60, -50, 30)], index)
    assert [t.fence for t in first.transitions] == ["town"]
    assert first.inaccurate_for == ("shop",)
    assert first.ignored is None
    assert [t.fence for t in second.transitions] == ["shop"]
    assert sorted(presence.inside) == ["shop", "town"]


def test_a_jump_needs_a_second_fix_that_agrees() -> None:
    far = [fix(10, 100_000), fix(20, 100_050), fix(30, 100_100)]
    presence, steps = run([IN, *far])
    assert kinds(steps) == ["enter", "teleport", "exit", ""]
    assert presence.inside == {}
    # One bad fix, even doubled, is forgotten with the next good one.
    _, steps = run([IN, far[0], far[0], fix(20, -70), fix(30, 100_000), fix(40, -60)])
    assert kinds(steps) == ["enter", "teleport", "doubled", "", "teleport", ""]
    # Two that disagree with each other replace nothing.
    _, steps = run([IN, fix(10, 100_000), fix(20, 300_000), fix(30, 600_000), fix(40, -60)])
    assert kinds(steps) == ["enter", "teleport", "teleport", "teleport", ""]


def test_silence_invents_no_exit_and_the_next_fix_decides() -> None:
    presence, _ = run([IN])
    half_an_hour = timedelta(minutes=30)
    assert is_known(presence, START + half_an_hour)
    assert not is_known(presence, START + half_an_hour + timedelta(seconds=1))
    assert kinds([step(presence, fix(1800, 21), SHOP)]) == [""]
    assert kinds([step(presence, fix(1801, 21), SHOP)]) == ["exit"]
    assert kinds([step(presence, fix(1801, 19), SHOP)]) == [""]
    still = step(presence, fix(90_000, -1), SHOP)
    assert kinds([still]) == [""]
    assert still.presence.inside == {"shop": START}
    away, _ = run([AWAY])
    assert kinds([step(away, fix(1800, -1), SHOP)]) == [""]
    assert kinds([step(away, fix(1801, -1), SHOP)]) == ["enter"]
    assert kinds([step(away, fix(700, -1), SHOP, timedelta(minutes=10))]) == ["enter"]
    # A run does not reach over the silence, even if what broke it was too coarse for this fence.
    town = Fence("town", Circle(LATITUDE, LONGITUDE, 5000))
    both = build([*SHOP.fences.values(), town])
    _, steps = run([AWAY, fix(60, -1), fix(70, -1), fix(3000, 0, 300), fix(3010, -1)], both)
    assert kinds(steps) == ["enter", "", "", "", ""]


def test_a_clock_set_back_is_recognised_by_sent_at() -> None:
    """The device was two hours ahead until its clock was put right."""
    ahead = [fix(7200, 1000, received=0, sent=7200), fix(7260, 900, received=60, sent=7260)]
    right = [fix(120, -50, received=120, sent=120), fix(180, 300, received=180, sent=180)]
    _, steps = run([*ahead, *right])
    assert kinds(steps) == ["", "", "enter", "exit"]
    assert steps[2].transitions[0].at == START + timedelta(seconds=120)
    # A late fix, sent with a right clock, is not mistaken for that.
    _, steps = run([*right, fix(90, -50, received=7000, sent=7000)])
    assert kinds(steps) == ["enter", "exit", "out_of_order"]
    # Without sentAt, a newest fix from the future does not stop those of today.
    _, steps = run([fix(7200, 1000, received=0), fix(60, -50, received=60)])
    assert kinds(steps) == ["", "enter"]
    # A run across the change would compare two clocks: it begins anew.
    again = [fix(at, -1, received=at, sent=at) for at in (90, 105, 120)]
    _, steps = run([AWAY, fix(7200, -1, received=60, sent=7200), *again])
    assert kinds(steps) == ["", "", "", "", "enter"]
    # Neither a slow request nor a fix from before the change is a new time.
    _, steps = run([*right, fix(175, -50, received=221, sent=181)])
    assert kinds(steps)[-1] == "out_of_order"
    _, steps = run([*ahead, fix(-100, -50, received=120, sent=120)])
    assert kinds(steps)[-1] == "out_of_order"


def test_transitions_are_timed_by_our_clock_and_say_since_when() -> None:
    """The device is 100 s behind, and its requests come in late."""
    _, steps = run([fix(0, -50, received=130, sent=30), fix(60, 300, received=200, sent=100)])
    begin, end = START + timedelta(seconds=100), START + timedelta(seconds=160)
    assert steps[0].transitions == (Transition("enter", "shop", begin),)
    assert steps[1].transitions == (Transition("exit", "shop", end, begin),)


def test_the_device_that_moved_last_carries_the_person() -> None:
    fixes = [
        fix(0, 5000, device="tablet"),
        fix(10, 1000, device="phone"),
        fix(20, -50, device="phone"),
        fix(30, 5010, device="tablet"),
        fix(40, -60, device="phone"),
        fix(50, 4000, device="tablet"),
    ]
    presence, steps = run(fixes)
    # The phone is new and has not moved yet; then it does. The tablet's jitter says nothing, until
    # it is taken along.
    assert kinds(steps) == ["", "not_carried", "enter", "not_carried", "", "exit"]
    assert presence.carried == "tablet"
    # One device's run is not ended by another's fix.
    first = [fix(0, 1000), fix(1, 1000, device="b"), fix(60, -1), fix(75, -1)]
    assert kinds(run([*first, fix(90, -1, device="b")])[1])[-1] == ""
    assert kinds(run([*first, fix(90, -1)])[1])[-1] == "enter"


def test_a_new_device_takes_over_after_silence_and_a_resting_one_does_not() -> None:
    at_work = [fix(0, 5000, device="tablet"), fix(10, 1000, device="phone"), fix(20, -50, device="phone")]
    _, steps = run([*at_work, fix(4000, 5000, device="tablet"), fix(4010, 700, device="new phone")])
    assert kinds(steps)[-2:] == ["not_carried", "exit"]


@pytest.mark.parametrize("seconds", [1, 5, 30])
@pytest.mark.parametrize("shape", ["circle", "polygon"])
def test_an_hour_of_noise_on_the_edge_is_one_enter(seconds: int, shape: str) -> None:
    edge = (52.66, -8.63)
    there = Geodesic.WGS84.Direct(*edge, 270, 60)
    shapes: dict[str, Shape] = {
        "circle": Circle(there["lat2"], there["lon2"], 60),
        "polygon": Polygon(
            (((52.65, -8.64), (52.65, -8.63), (52.67, -8.63), (52.67, -8.64), (52.65, -8.64)),)
        ),
    }
    index = build([Fence("shop", shapes[shape])])
    for seed in range(4):
        noise = np.random.default_rng(seed).normal(0, 12, (3600 // seconds, 2))
        fixes = [
            Fix(
                latitude=edge[0] + north / 111_280,
                longitude=edge[1] + east / 67_600,
                at=START + timedelta(seconds=seconds * k),
                received_at=START + timedelta(seconds=seconds * k),
                accuracy_meters=25,
            )
            for k, (north, east) in enumerate(noise)
        ]
        _, steps = run(fixes, index)
        assert [t.kind for s in steps for t in s.transitions] == ["enter"]


walks = st.lists(
    st.builds(
        fix,
        st.integers(0, 4000),
        st.sampled_from([-90.0, -15.0, -5.0, 5.0, 25.0, 70.0, 500.0, 90_000.0]),
        st.sampled_from([5.0, 20.0, 250.0]),
        device=st.sampled_from(["a", "b"]),
        mock=st.sampled_from([False, False, False, True]),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(walks)
def test_a_fix_sent_twice_counts_once(walk: list[Fix]) -> None:
    presence = Presence()
    for each in walk:
        once = step(presence, each, SHOP)
        again = step(once.presence, each, SHOP)
        assert again.transitions == ()
        assert again.presence == once.presence
        assert again.ignored is not None
        presence = once.presence


@settings(deadline=None)
@given(walks)
def test_enters_and_exits_alternate_and_what_is_ignored_changes_no_presence(walk: list[Fix]) -> None:
    presence = Presence()
    for each in walk:
        after = step(presence, each, SHOP)
        for transition in after.transitions:
            assert (transition.kind == "enter") == ("shop" not in presence.inside)
            assert transition.since == presence.inside.get("shop")
        if after.ignored is not None:
            assert (after.presence.inside, after.presence.pending) == (presence.inside, presence.pending)
        presence = after.presence
        packed = msgspec.msgpack.encode(presence)
        assert msgspec.msgpack.decode(packed, type=Presence) == presence


def test_fences_that_vanish_drop_out_without_an_exit() -> None:
    presence, _ = run([IN])
    other = build([Fence("other", Circle(10, 10, 50))])
    after = step(presence, fix(60, 500), other)
    assert after.transitions == ()
    assert after.presence.inside == {}


def test_exits_come_first_then_by_id() -> None:
    north = Geodesic.WGS84.Direct(LATITUDE, LONGITUDE, 0, 500)
    index = build(
        [Fence(name, Circle(LATITUDE, LONGITUDE, 100)) for name in ("z", "c")]
        + [Fence(name, Circle(north["lat2"], north["lon2"], 100)) for name in ("b", "a")]
    )
    _, steps = run([IN, fix(60, 400)], index)
    assert [(t.kind, t.fence) for t in steps[1].transitions] == [
        ("exit", "c"),
        ("exit", "z"),
        ("enter", "a"),
        ("enter", "b"),
    ]


def test_the_state_stays_bounded() -> None:
    many = build([Fence(f"{k:03}", Circle(LATITUDE, LONGITUDE, 100)) for k in range(300)])
    presence, steps = run([IN, fix(10, -70), *[fix(100 + k, 1, device=f"d{k}") for k in range(20)]], many)
    assert len(steps[0].transitions) == 256
    assert steps[1].transitions == ()
    assert len(presence.inside) == 256
    assert len(presence.devices) == 8
    assert {"d", "d19"} <= presence.devices.keys()
    common, _ = run([AWAY])
    assert len(msgspec.msgpack.encode(common)) < 150


def test_reprs_hide_positions() -> None:
    presence, steps = run([IN, fix(10, 100_000)])
    (trail,) = presence.devices.values()
    for value in (presence, trail, trail.last, AWAY, *steps):
        assert "52." not in repr(value)
        assert "8.63" not in repr(value)


def test_the_fix_of_an_event() -> None:
    event = Event(
        kind=Kind.TRACK,
        message_id="m",
        received_at=START + timedelta(seconds=9),
        timestamp=START,
        sent_at=START + timedelta(seconds=5),
        device=Device(id="d"),
        location=Location(latitude=1, longitude=2, accuracy=8, speed=1.5, heading=90, is_mock=True),
    )
    found = fix_of(event)
    assert found is not None
    # The event's time has been corrected by `sent_at` already, which must not be done again.
    assert (found.at, found.sent_at, found.when) == (START, None, START)
    assert (found.latitude, found.longitude, found.accuracy_meters) == (1, 2, 8)
    assert (found.speed, found.heading, found.is_mock, found.device_id) == (1.5, 90, True, "d")
    assert event.location is not None
    stated = msgspec.structs.replace(event.location, at=START + timedelta(seconds=2))
    own = fix_of(msgspec.structs.replace(event, location=stated, device=None))
    assert own is not None
    assert (own.at, own.when) == (START + timedelta(seconds=2), START + timedelta(seconds=6))
    assert own.device_id == ""
    assert fix_of(msgspec.structs.replace(event, location=None)) is None


def test_wild_clocks_never_raise() -> None:
    years = [datetime(year, 1, 1, tzinfo=UTC) for year in (1, 1970, 2026, 9999)]
    for at in years:
        for sent in (None, *years):
            each = Fix(latitude=1, longitude=2, at=at, received_at=START, sent_at=sent)
            presence, _ = run([each, msgspec.structs.replace(each, at=START, sent_at=START), each])
            assert presence.seen_at is not None


@settings(max_examples=300)
@given(
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 180),
    north=st.floats(-0.7, 0.7),
    east=st.floats(-0.7, 0.7),
    share=st.one_of(st.floats(0.95, 1.05), st.floats(0.0, 3.0)),
)
def test_the_bounds_that_spare_the_exact_way_agree_with_it(
    latitude: float, longitude: float, north: float, east: float, share: float
) -> None:
    there = max(-90.0, min(90.0, latitude + north)), (longitude + east + 180.0) % 360.0 - 180.0
    way = meters_between(latitude, longitude, *there)
    here = Spot(latitude, longitude, 5.0, START)
    meters = way * share + 0.001  # below a millimetre both are noise
    assert is_within(here, Spot(*there, 5.0, START), meters) is (way <= meters)
