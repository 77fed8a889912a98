"""What the phone says of regions, beside its fixes; beacons, floors, and approximate positions."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from engine.domain.people.events import Device, Event, Location
from engine.domain.people.profiles import Address
from tests.story import BEFORE, NOON, Story, event, fix, rule_set, seconds, someone

RULES = """
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 40}, tags: [place]}
  mall: {circle: {lat: 52.66, lng: -8.62, radius: 300}, tags: [place]}
  lounge: {circle: {lat: 52.66, lng: -8.62, radius: 200}, tags: [place], properties: {floor: 2}}
  kiosk: {beacon: "5f1c:7:8", tags: [place]}
offers:
  cake: {purpose: marketing, message: {push: {title: Cake, body: Cake}}}
rules:
  came: {when: {enter: {tag: place}}, offer: cake}
  sat: {when: {dwell: {fence: kiosk}, for: 10m}, offer: cake}
"""
DEGREE = 111_270.0
MINUTE = timedelta(minutes=1)


def north(meters: float, accuracy: float = 10.0, **fields: object) -> Location:
    return Location(latitude=52.66 + meters / DEGREE, longitude=-8.62, accuracy=accuracy, **fields)  # type: ignore[arg-type]


def says(
    kind: str, fence: str = "cafe", at: datetime = NOON, device: str = "phone", **fields: object
) -> Event:
    own = {"properties": {"geofence": fence, "source": "beacon"}, "device": Device(id=device)}
    return event(f"Geofence {kind}", at, **{**own, **fields})


def fixed(meters: float, at: datetime, accuracy: float = 10.0, device: str = "phone") -> Event:
    return fix(north(meters, accuracy), at, device=Device(id=device))


class Places(Story):
    """A story that keeps what happened at the café, and what was not believed."""

    def __init__(self) -> None:
        super().__init__(rule_set(RULES, "computed: {}"))
        self.happened: list[str] = []
        self.notes: list[str] = []

    def happens(self, *events: Event, fence: str = "cafe") -> list[str]:
        for each in events:
            self.tell(each)
            assert self.seen is not None
            self.happened += [t.kind.value for t in self.seen.triggers if t.fence and t.fence.id == fence]
            self.notes += self.seen.notes
        return self.happened


def test_the_phone_says_it_and_fixes_do_not_count_it_again() -> None:
    story = Places()
    # Still 80 m away: phones watch 100 m in the place of a café of 40 m.
    assert story.happens(fixed(300, NOON), says("Entered", at=NOON + seconds(90))) == ["enter"]
    nearer = [fixed(meters, NOON + seconds(100 + 10 * k)) for k, meters in enumerate((80, 60, 30, 10, 0))]
    assert story.happens(*nearer) == ["enter"]
    assert story.happens(says("Entered", at=NOON + seconds(200))) == ["enter"]
    assert story.happens(fixed(75, NOON + seconds(300))) == ["enter", "exit"]
    assert story.happens(says("Exited", at=NOON + seconds(330))) == ["enter", "exit"]
    assert story.notes == []


def test_fixes_say_it_first_and_the_phone_does_not_count_it_again() -> None:
    story = Places()
    came = [fixed(300, NOON), fixed(0, NOON + MINUTE), says("Entered", at=NOON + 2 * MINUTE)]
    assert story.happens(*came) == ["enter"]
    assert story.happens(says("Exited", at=NOON + 9 * MINUTE), fixed(400, NOON + 10 * MINUTE)) == [
        "enter",
        "exit",
    ]


def test_only_the_phone_speaks() -> None:
    """An app in the background that sends no fixes at all."""
    story = Places()
    day = [says("Entered"), says("Exited", at=NOON + 20 * MINUTE)]
    again = [says("Entered", at=NOON + 300 * MINUTE), says("Exited", at=NOON + 400 * MINUTE)]
    assert story.happens(*day, *again) == ["enter", "exit", "enter", "exit"]
    assert [d.geofence for d in story.decisions] == ["cafe", "cafe"]


@pytest.mark.parametrize(
    ("story", "kinds", "note"),
    [
        # A fix of the same minute lies clearly elsewhere.
        ([fixed(400, NOON), says("Entered", at=NOON + seconds(59))], [], "region: contradicted"),
        ([fixed(400, NOON), says("Entered", at=NOON + seconds(61))], ["enter"], None),
        ([fixed(129, NOON), says("Entered", at=NOON + seconds(10))], ["enter"], None),
        ([fixed(400, NOON, 150), says("Entered", at=NOON + seconds(10))], ["enter"], None),
        ([fixed(0, NOON), says("Exited", at=NOON + seconds(59))], ["enter"], "region: contradicted"),
        # What came later in time has been said already.
        ([says("Exited", at=NOON + MINUTE), says("Entered")], [], "region: out_of_order"),
        ([fixed(400, NOON + MINUTE), says("Entered")], [], "region: out_of_order"),
        ([fixed(0, NOON), says("Exited", at=NOON - MINUTE)], ["enter"], "region: out_of_order"),
        # There is no such place.
        ([says("Entered", "pub")], [], "region: unknown"),
        ([says("Entered", properties={"geofence": 7})], [], "region: unknown"),
        # The tablet at home.
        (
            [
                fixed(5000, NOON, device="tablet"),
                fixed(900, NOON + seconds(5)),
                fixed(500, NOON + MINUTE),
                says("Entered", at=NOON + 2 * MINUTE, device="tablet"),
            ],
            [],
            "region: not_carried",
        ),
    ],
)
def test_evidence_against_evidence(story: list[Event], kinds: list[str], note: str | None) -> None:
    told = Places()
    assert told.happens(*story) == kinds
    assert [n for n in told.notes if n.startswith("region")] == ([note] if note else [])


def test_a_beacon_is_heard_whatever_fixes_say_and_known_by_its_name() -> None:
    story = Places()
    heard = says("Entered", "5f1c:7:8")
    moved = [fixed(0, NOON + MINUTE), fixed(900, NOON + 5 * MINUTE)]
    assert story.happens(heard, *moved, fence="kiosk") == ["enter"]
    assert "kiosk" in story.profile.presence.inside
    left = says("Exited", "kiosk", at=NOON + 12 * MINUTE)
    assert story.happens(left, fence="kiosk") == ["enter", "dwell", "exit"]
    assert "kiosk" not in story.profile.presence.inside


def test_a_fix_and_a_report_in_one_event() -> None:
    story = Places()
    both = says("Entered", location=north(0))
    assert story.happens(both) == ["enter"]
    assert [d.geofence for d in story.decisions] == ["cafe"]


def test_floors() -> None:
    """The lounge is on the second floor: below it nobody is in it."""
    story = Places()

    def on(floor: int | None, at: datetime) -> Event:
        return fix(north(0, floor=floor), at, device=Device(id="phone"))

    assert story.happens(on(0, NOON), fence="lounge") == []
    assert story.happens(on(2, NOON + MINUTE), fence="lounge") == ["enter"]
    assert story.happens(on(None, NOON + 2 * MINUTE), fence="lounge") == ["enter"]
    down = [on(1, NOON + 3 * MINUTE + seconds(15 * k)) for k in range(3)]
    assert story.happens(*down[:2], fence="lounge") == ["enter"]
    assert story.happens(down[2], fence="lounge") == ["enter", "exit"]


def test_in_a_terminal_with_accuracies_of_30_to_65_m() -> None:
    """Jitter at the edge of the mall enters once and never leaves."""
    story = Places()
    for k in range(60):
        accuracy = 30.0 + 35.0 * (k % 4) / 3
        each = fixed(300 + (-1) ** k * accuracy * 0.6, NOON + seconds(5 * k), accuracy)
        story.happens(each, fence="mall")
    assert story.happened == ["enter"] or story.happened == []
    for k in range(20):
        story.happens(fixed(200, NOON + seconds(300 + 5 * k), 65.0), fence="mall")
    assert story.happened == ["enter"]


def test_an_approximate_position_enters_no_shop() -> None:
    """It says 20 m, and may not know better than a kilometre."""
    phone = Address(type="ios", token="token", seen_at=BEFORE, permissions={"precise": False})
    story = Story(rule_set(RULES), someone(devices={"phone": phone}))
    story.tell(fixed(0, NOON, 20.0))
    assert story.profile.presence.inside == {}
    assert story.seen is not None
    assert story.seen.notes == ("fix: inaccurate",)
