"""The index answers what asking every fence would."""

from __future__ import annotations

import pickle
from math import cos, pi, radians, sin
from pathlib import Path

import h3.api.basic_int as h3
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.places.cell_table import CellLookup, table_of
from engine.domain.places.cover import COARSE, FINE, Cover, Ladder, cover_areas, cover_circles, level_of
from engine.domain.places.earth import meters_between
from engine.domain.places.fence_index import Fence, FenceIndex, build
from engine.domain.places.outline import area_outline, outline
from engine.domain.places.shape_check import problems
from engine.domain.places.shapes import Circle, Polygon, Shape
from engine.formats.geojson import read_geojson

MANHATTAN = Path(__file__).parent / "data" / "manhattan.geojson"
PLACES = [(52.66, -8.63), (89.9, 10.0), (-89.999, -100.0), (-16.5, 179.99), (0.0, 0.0), (64.7, -10.5)]


def brute_force(index: FenceIndex, latitude: float, longitude: float) -> tuple[str, ...]:
    found = [name for name, ready in index.outlines.items() if ready.contains(latitude, longitude)]
    return tuple(sorted(found))


def star(latitude: float, longitude: float, radius: float, tips: int) -> Polygon:
    """A star whose outermost points lie `radius` away, on a flat earth."""
    wide = 111_000 * max(0.01, cos(radians(latitude)))
    ring = []
    for k in range(2 * tips):
        out = radius if k % 2 else radius / 3
        lon = longitude + out / wide * cos(k * pi / tips)
        ring.append((latitude + out / 111_000 * sin(k * pi / tips), (lon + 180) % 360 - 180))
    return Polygon(((*ring, ring[0]),))


def shifted(latitude: float, longitude: float, north: float, east: float) -> tuple[float, float]:
    """Some metres away, roughly."""
    lat = max(-90.0, min(90.0, latitude + north / 111_000))
    lon = longitude + east / (111_000 * max(0.001, cos(radians(lat))))
    return lat, (lon + 180) % 360 - 180


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_agrees_with_brute_force(data: st.DataObject) -> None:
    latitude, longitude = data.draw(st.sampled_from(PLACES))
    scale = data.draw(st.sampled_from([40.0, 400.0, 6_000.0, 60_000.0, 600_000.0, 3_000_000.0]))
    offsets = st.floats(-2.5 * scale, 2.5 * scale)
    fences = []
    for number in range(data.draw(st.integers(1, 5))):
        middle = shifted(latitude, longitude, data.draw(offsets), data.draw(offsets))
        size = scale * data.draw(st.floats(0.3, 1.2))
        shape: Shape = Circle(*middle, size)
        if abs(middle[0]) < 80 and size < 100_000 and data.draw(st.booleans()):
            shape = star(*middle, size, data.draw(st.integers(3, 9)))
        fences.append(Fence(str(number), shape))
    assert not any(problems(fence.shape) for fence in fences)
    index = build(fences)
    for _ in range(25):
        point = shifted(latitude, longitude, data.draw(offsets), data.draw(offsets))
        assert index.containing(*point) == brute_force(index, *point)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("radius", [30.0, 299.0, 1_900.0, 13_000.0, 90_000.0, 690_000.0, 2_500_000.0])
def test_nothing_is_missed_at_an_edge(place: tuple[float, float], radius: float) -> None:
    """Points along the edge, a hair inside and outside, where a cover with holes would show."""
    index = build([Fence("a", Circle(*place, radius))])
    ready = index.outlines["a"]
    random = np.random.default_rng(7)
    for _ in range(300):
        point = shifted(*place, *(random.normal(size=2) * radius))
        expected = ("a",) if ready.contains(*point) else ()
        assert index.containing(*point) == expected


def test_a_polygon_over_the_pole_and_one_over_the_antimeridian() -> None:
    cap = Polygon((((70, 0), (70, 90), (70, 180), (70, -90), (70, 0)),))
    fiji = Polygon((((-19, 176), (-19, -178), (-15, -178), (-15, 176), (-19, 176)),))
    index = build([Fence("cap", cap), Fence("fiji", fiji)])
    random = np.random.default_rng(5)
    for latitude, longitude in random.uniform((-90, -180), (90, 180), (2000, 2)):
        assert index.containing(latitude, longitude) == brute_force(index, latitude, longitude)
    assert index.containing(90, 0) == ("cap",)
    assert index.containing(-17, 180) == index.containing(-17, -180) == ("fiji",)


def test_a_coarse_cell_is_not_larger_than_the_cover_takes_it_for() -> None:
    """A fix belongs to the ancestor of its fine cell, which may lie beside the hexagon around it."""
    random = np.random.default_rng(11)
    worst = 0.0
    for z, longitude in random.uniform((-1, -180), (1, 180), (3000, 2)):
        latitude = float(np.degrees(np.arcsin(z)))
        fine = h3.latlng_to_cell(latitude, longitude, 11)
        for level in (1, 3, 5, 7, 9):
            ancestor = h3.cell_to_parent(fine, level)
            middle = h3.cell_to_latlng(ancestor)
            corner = max(meters_between(*middle, *c) for c in h3.cell_to_boundary(ancestor))
            worst = max(worst, meters_between(latitude, longitude, *middle) / corner)
    assert 1.0 < worst < 1.1


def cover(circle: Circle, ladder: Ladder) -> Cover:
    sizes = np.array([circle.radius_meters])
    level = level_of(sizes, ladder)
    places = np.array([circle.latitude]), np.array([circle.longitude])
    (found,) = cover_circles(*places, sizes, level, int(level[0]))
    return found


@pytest.mark.parametrize(("ladder", "most"), [(FINE, 250), (COARSE, 25)])
def test_inner_cells_are_inside_and_covers_stay_small(ladder: Ladder, most: int) -> None:
    for radius in (30.0, 160.0, 250.0, 1_150.0, 1_500.0, 8_000.0, 12_000.0, 55_000.0, 80_000.0, 390_000.0):
        circle = Circle(48.2, 16.4, radius)
        found = cover(circle, ladder)
        assert len(found.cells) < most
        for cell in found.cells[found.inner].tolist():
            assert all(outline(circle).contains(*corner) for corner in h3.cell_to_boundary(cell))


def test_an_area_is_covered_as_a_circle_is() -> None:
    level = int(level_of(np.array([900.0]), FINE)[0])
    round_one = Polygon(
        (tuple((52 + 0.008 * sin(a), -8 + 0.013 * cos(a)) for a in np.linspace(0, 6.2831, 200)),)
    )
    (found,) = cover_areas({7: area_outline(round_one)}, level, level)
    assert set(found.numbers.tolist()) == {7}
    for latitude, longitude in np.random.default_rng(1).uniform((51.98, -8.03), (52.02, -7.97), (3000, 2)):
        pair = found.cells == h3.latlng_to_cell(latitude, longitude, level)
        inside = outline(round_one).contains(latitude, longitude)
        assert not (inside and not pair.any())
        assert not (found.inner[pair].any() and not inside)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 300))))
def test_a_table_holds_what_was_entered(pairs: list[tuple[int, int]]) -> None:
    pairs = sorted(set(pairs))
    cells = np.array([cell for cell, _ in pairs], np.int64)
    lookup = CellLookup(table_of(cells * 2**50 // 7 + 1, np.array([e for _, e in pairs], np.uint32)))
    for cell in range(45):
        held = list(lookup.entries(cell * 2**50 // 7 + 1))
        assert held == [entry for at, entry in pairs if at == cell]


def test_a_table_of_many_cells_in_a_row_is_searched_to_its_end() -> None:
    """One after the other they fill every slot from their first on, the last ones far behind it."""
    cells = np.arange(1, 20_001, dtype=np.int64)
    lookup = CellLookup(table_of(cells, (cells % 1000).astype(np.uint32)))
    assert all(list(lookup.entries(cell)) == [cell % 1000] for cell in range(1, 20_001, 13))
    assert all(list(lookup.entries(cell)) == [] for cell in range(20_001, 60_000, 13))


def many(count: int) -> list[Fence]:
    """Circles and stars of every size, all around the earth and thick in one town."""
    random = np.random.default_rng(count)
    fences = []
    for number in range(count):
        z, lng = random.uniform(-1, 1), random.uniform(-180, 180)
        lat = float(np.degrees(np.arcsin(z)))
        if number % 2:
            lat, lng = shifted(52.66, -8.62, *(random.normal(size=2) * 3_000).tolist())
        size = float(10 ** random.uniform(1.5, 4 if number % 2 else 5.5))
        drawn = number % 3 == 0 and abs(lat) < 75 and abs(lng) < 170
        fences.append(Fence(f"f{number}", star(lat, lng, size, 5) if drawn else Circle(lat, lng, size)))
    return fences


@pytest.mark.parametrize("ladder", [FINE, COARSE])
def test_many_fences_agree_with_brute_force(ladder: Ladder) -> None:
    index = pickle.loads(pickle.dumps(build(many(600), ladder)))
    random = np.random.default_rng(3)
    found = 0
    for at in range(1500):
        point = shifted(52.66, -8.62, *(random.normal(size=2) * 4_000).tolist())
        if at % 2:
            point = float(np.degrees(np.arcsin(random.uniform(-1, 1)))), float(random.uniform(-180, 180))
        expected = brute_force(index, *point)
        found += len(expected)
        assert index.containing(*point) == expected
        assert index.containing(*point) == expected  # and again, from what was kept ready
    assert found > 1000


@pytest.mark.parametrize("meters", [0.0, 40.0, 700.0, 20_000.0, 3_000_000.0])
def test_near_finds_every_edge_within_reach_nearest_first(meters: float) -> None:
    index = build(many(900))
    random = np.random.default_rng(9)
    for place in [(52.66, -8.62), (89.99, 3.0), (0.0, 180.0), (-45.0, -60.0)]:
        for _ in range(8):
            point = shifted(*place, *(random.normal(size=2) * 2_000).tolist())
            away = {name: ready.distance_meters(*point) for name, ready in index.outlines.items()}
            found = index.near(*point, meters)
            assert list(found) == sorted(found)
            assert [name for _, name in found] == sorted(
                (name for name in away if away[name] <= meters), key=lambda name: (away[name], name)
            )
            assert all(distance == pytest.approx(away[name], abs=1e-6) for distance, name in found)


def test_overlapping_fences_come_in_order_of_id_and_an_empty_index_has_none() -> None:
    sizes = {"b": 40.0, "a": 900.0, "c": 9_000.0}
    index = build(Fence(name, Circle(53.3, -6.2, size)) for name, size in sizes.items())
    assert index.containing(53.3, -6.2) == ("a", "b", "c")
    assert index.containing(53.305, -6.2) == ("a", "c")
    assert "a" in index
    assert "z" not in index
    assert len(index) == 3
    assert build([]).containing(53.3, -6.2) == ()


def test_a_million_points_in_manhattan_agree_with_shapely() -> None:
    data = MANHATTAN.read_bytes()
    features = read_geojson(data, "manhattan.geojson").features
    names = [f"{number:02} {feature.properties['name']}" for number, feature in enumerate(features)]
    index = build(Fence(name, feature.shape) for name, feature in zip(names, features, strict=True))
    shapes = shapely.get_parts(shapely.from_geojson(data))
    assert len(shapes) == len(index) == 37
    west, south, east, north = shapely.total_bounds(shapes)
    points = np.random.default_rng(37).uniform((west, south), (east, north), (1_000_000, 2))
    tree = shapely.STRtree(shapes)
    at, of = tree.query(shapely.points(points), predicate="intersects")
    expected = sorted(zip(at.tolist(), of.tolist(), strict=True))
    containing, number_of = index.containing, {name: number for number, name in enumerate(names)}
    got = [
        (number, number_of[name])
        for number, (longitude, latitude) in enumerate(points.tolist())
        for name in containing(latitude, longitude)
    ]
    assert got == expected
    assert len(got) > 200_000
