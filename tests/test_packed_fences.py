"""Imported places: packed, and looked up by their tags. All else must be as with places written out."""

from __future__ import annotations

import io
import json
import pickle
import random
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.app.cli.import_geofences import bring_geofences
from engine.app.rule_builder import Packer
from engine.domain import decide
from engine.domain.offers.filing import FiledByTag
from engine.domain.offers.patterns import Pattern, meet
from engine.domain.offers.rules import RuleSet, TriggerKind
from engine.domain.people.events import Device, Event, Kind, Location
from engine.domain.people.profiles import new_profile
from engine.domain.places.approach import Approaches
from engine.domain.places.fences import Fence
from engine.domain.places.opening import Opening
from engine.domain.places.packed_fences import PackedFences, Packing, Tagged, pack
from engine.domain.places.shapes import Beacon, Circle
from engine.formats.geojson import Sizes
from engine.formats.workspace import load, read_folder
from tests.lanes import NOW

TAGS = ("cafe", "bar", "late")
SPOTS = 40
RULES = """
computed:
  visits: {count: {enter: {tag: cafe}}}
offers:
  x:
    purpose: marketing
    propensity: 0.5
    message: {push: {title: {en: "{{ geofence.name }}"}, body: {en: x}}}
  y:
    purpose: marketing
    propensity: 0.5
    converts: {enter: {tag: bar}, within: 2h}
    message: {push: {title: {en: a}, body: {en: b}}}
trips:
  visit: {starts: {event: Ordered}, to: '"s1"', ends: [Left], expires: 1h}
rules:
  cafes: {when: {enter: {tag: cafe}}, if: geofence.name != "", offer: x}
  bars: {when: {enter: {tag: bar}}, unless: {exit: {tag: late}, within: 1h}, offer: y}
  one: {when: {enter: {fence: s3}}, offer: x}
  left: {when: {exit: {tag: late}}, offer: x}
  stay: {when: {dwell: {tag: cafe}, for: 3m}, offer: x}
  stay-one: {when: {dwell: {fence: s4}, for: 3m}, offer: x}
  longer: {when: {dwell: {tag: bar}, for: 6m}, offer: y}
  ahead: {when: {approach: {tag: bar}, within: 60s}, offer: x}
  ahead-one: {when: {approach: {fence: s5}, within: 90s}, offer: x}
  slow: {when: {enter: {tag: late}, for: 10m}, offer: y}
"""


def spots() -> list[tuple[str, Circle, list[str]]]:
    chance = random.Random(11)
    return [
        (
            f"s{n}",
            Circle(
                round(52.66 + chance.uniform(-0.008, 0.008), 6),
                round(-8.63 + chance.uniform(-0.012, 0.012), 6),
                float(chance.randint(40, 160)),
            ),
            [tag for tag in TAGS if chance.random() < 0.5],
        )
        for n in range(SPOTS)
    ]


def ruled(folder: Path) -> RuleSet:
    found = load(read_folder(folder))
    assert found.rule_set is not None, found.problems
    return found.rule_set


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[RuleSet, RuleSet]:
    """The same workspace with its places written out, and imported (but for two)."""
    written, imported = (tmp_path_factory.mktemp(name) for name in ("written", "imported"))
    rows, out = ["id,latitude,longitude,radius,tags,name"], []
    for number, (name, circle, tags) in enumerate(spots()):
        at = f"lat: {circle.latitude}, lng: {circle.longitude}, radius: {circle.radius_meters}"
        entry = f"  {name}: {{circle: {{{at}}}, tags: {json.dumps(tags)}, properties: {{name: {name}!}}}}"
        out.append(entry)
        if number < 2:
            continue
        cells = (name, circle.latitude, circle.longitude, circle.radius_meters, ";".join(tags), f"{name}!")
        rows.append(",".join(map(str, cells)))
    beacon = '  b1: {beacon: "a:1:2", tags: [cafe]}'
    workspace, _, rest = RULES.partition("offers:")
    for folder, entries in ((written, out), (imported, out[:2])):
        (folder / "workspace.yaml").write_text(f"timezone: Europe/Dublin\n{workspace}")
        (folder / "rules.yaml").write_text(f"offers:{rest}")
        (folder / "places.yaml").write_text("\n".join(["geofences:", *entries, beacon, ""]))
    file = imported / "town.csv"
    file.write_text("\n".join(rows) + "\n")
    assert bring_geofences(file, imported, "id", Sizes(None, None), None, json=True) == 0
    (imported / "places" / "town.yaml").write_text("geofences:\n  town: {file: town.fences}\n")
    return ruled(written), ruled(imported)


def test_the_imported_are_packed_and_filed_by_tag(both: tuple[RuleSet, RuleSet]) -> None:
    written, imported = both
    assert isinstance(imported.fences, PackedFences)
    assert isinstance(imported.by_trigger, FiledByTag)
    assert isinstance(written.by_trigger, dict)
    assert dict(imported.fences) == dict(sorted(written.fences.items()))
    assert list(imported.fences.values()) == [imported.fences[word] for word in imported.fences]


@pytest.mark.parametrize(
    "word",
    [
        "by_trigger",
        "computed_by_trigger",
        "waits_by_trigger",
        "watched_by_trigger",
        "converts_by_trigger",
        "trips_by_trigger",
    ],
)
def test_everything_is_set_off_by_the_same(word: str, both: tuple[RuleSet, RuleSet]) -> None:
    written, imported = (getattr(rules, word) for rules in both)

    def names(filed: dict[object, tuple[object, ...]], key: object) -> list[str]:
        return [str(getattr(one, "id", None) or getattr(one, "key", None) or one.name) for one in filed[key]]  # type: ignore[attr-defined]

    assert set(imported) == set(written)
    assert len(imported) == len(written)
    for key in written:
        assert key in imported
        assert names(imported, key) == names(written, key)
    nothing = (TriggerKind.ENTER, "nowhere")
    assert nothing not in imported
    assert imported.get(nothing, ()) == ()
    with pytest.raises(KeyError):
        imported[nothing]


def test_what_is_asked_of_presence_is_the_same(both: tuple[RuleSet, RuleSet]) -> None:
    written, imported = both
    assert dict(imported.interest.stays) == dict(written.interest.stays)
    assert imported.interest.beacons == written.interest.beacons == {"a:1:2": "b1"}
    assert imported.interest.memory == written.interest.memory
    assert imported.interest.approaches is not None
    assert written.interest.approaches is not None
    assert imported.interest.approaches.asked == written.interest.approaches.asked
    ours, theirs = imported.interest.approaches.seconds, written.interest.approaches.seconds
    for fence in written.index.ids:
        assert ours.get(fence) == theirs.get(fence)
    assert {f: [r.id for r in rs] for f, rs in imported.placed.items()} == {
        f: [r.id for r in rs] for f, rs in written.placed.items()
    }


@pytest.mark.parametrize("shared", [False, True])
def test_a_walk_sets_off_the_same(both: tuple[RuleSet, RuleSet], shared: bool) -> None:
    written, imported = (pickle.loads(packed(rules)) for rules in both)
    if shared:  # as with more of them than an index of their own is built for
        seconds = imported.interest.approaches.seconds
        approaches = Approaches(imported.index, seconds, most_apart=1)
        interest = msgspec.structs.replace(imported.interest, approaches=approaches)
        imported = msgspec.structs.replace(imported, interest=interest)
    told = [walked(written), walked(imported)]
    assert told[0] == told[1]
    assert {kind for kind, _ in told[0]} >= {"enter", "exit", "dwell", "approach"}


def packed(rules: RuleSet) -> bytes:
    """As the builder hands it over."""
    out = io.BytesIO()
    Packer(out, pickle.HIGHEST_PROTOCOL).dump(rules)
    return out.getvalue()


def walked(rules: RuleSet) -> list[tuple[str, str]]:
    chance = random.Random(5)
    profile = new_profile(("user_id", "u"), b"k" * 32, NOW)
    at, north, east = NOW, 0.0, 0.0
    found: list[tuple[str, str]] = []
    for number in range(1_500):
        at += timedelta(seconds=10)
        if number % 40 > 25:
            step = (0.0, 0.0)
        elif number % 40 == 0:
            step = chance.uniform(-0.00013, 0.00013), chance.uniform(-0.0002, 0.0002)
        north, east = max(-0.008, min(0.008, north + step[0])), max(-0.012, min(0.012, east + step[1]))
        event = Event(
            kind=Kind.TRACK,
            name="Location Updated",
            message_id=str(number),
            received_at=at,
            timestamp=at,
            location=Location(latitude=52.66 + north, longitude=-8.63 + east, accuracy=8.0),
            device=Device(id="p"),
        )
        seen = decide.observe(rules, profile, event, at)
        profile = seen.profile
        found += [(t.kind.value, t.name) for t in seen.triggers if t.kind is not TriggerKind.EVENT]
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=8),
        st.tuples(st.frozensets(st.sampled_from(TAGS)), st.integers(-(2**80), 2**80)),
        max_size=30,
    )
)
def test_packed_fences_are_what_was_packed(said: dict[str, tuple[frozenset[str], int]]) -> None:
    circle = Circle(1.0, 2.0, 3.0)
    fences = {word: Fence(word, circle, tags, {"n": [number]}) for word, (tags, number) in said.items()}
    found = pack(fences.values())
    assert list(found) == sorted(fences)
    for name, fence in fences.items():
        kept = found[name]
        assert (kept.id, kept.tags, kept.shape) == (name, fence.tags, fence.shape)
        assert kept.properties["n"][0] == pytest.approx(fence.properties["n"][0])
    for tag in TAGS:
        ids = frozenset(name for name, fence in fences.items() if tag in fence.tags)
        tagged = Tagged(found, tag)
        assert tagged == ids
        assert list(tagged) == sorted(ids)
        assert len(tagged) == len(ids)
        assert bool(tagged) is bool(ids)
        for other in TAGS:
            those = frozenset(name for name, fence in fences.items() if other in fence.tags)
            assert tagged.isdisjoint(Tagged(found, other)) is ids.isdisjoint(those)
            assert tagged.isdisjoint(those) is ids.isdisjoint(those)
            one, another = (Pattern(kind=TriggerKind.ENTER, fences=f) for f in (tagged, those))
            if ids and those:
                assert meet(one, another) is meet(another, one) is (not ids.isdisjoint(those))
    again = pickle.loads(pickle.dumps(found))
    assert dict(again) == dict(found)


def test_of_two_with_one_id_the_later_stands_and_both_are_told() -> None:
    packing = Packing()
    for name, radius in (("b", 1.0), ("a", 2.0), ("b", 3.0), ("b", 4.0)):
        packing.add(Fence(name, Circle(0.0, 0.0, radius)))
    found, doubles = packing.packed()
    assert found["b"].shape == Circle(0.0, 0.0, 4.0)
    assert {(d.id, d.earlier, d.later) for d in doubles} == {("b", 2, 3), ("b", 0, 2)}


def test_beacons_and_hours_are_packed_too() -> None:
    hours = Opening("Europe/Dublin", tuple(((0, 60),) for _ in range(7)))
    fences = [Fence("x", Beacon("a:1"), frozenset(("t",)), {}, hours), Fence("y", Circle(0.0, 0.0, 9.0))]
    found = pack(fences)
    assert [found["x"], found["y"]] == fences
    assert [sort.has_hours for sort in found.sorts] == [True, False]
