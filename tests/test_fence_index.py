"""The index answers what asking every fence would."""

from __future__ import annotations

from math import cos, pi, radians, sin

import h3.api.basic_int as h3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.places.cover import cover
from engine.domain.places.earth import meters_between
from engine.domain.places.fence_index import Fence, FenceIndex, build
from engine.domain.places.outline import outline
from engine.domain.places.shape_check import problems
from engine.domain.places.shapes import Circle, Polygon, Shape

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


def test_inner_cells_are_inside_and_covers_stay_small() -> None:
    for radius in (30.0, 250.0, 1_500.0, 12_000.0, 80_000.0, 500_000.0):
        ready = outline(Circle(48.2, 16.4, radius))
        found = cover(ready)
        assert len(found.inner) + len(found.edge) < 250
        for cell in found.inner:
            assert all(ready.contains(*corner) for corner in h3.cell_to_boundary(cell))


def test_overlapping_fences_come_in_order_of_id_and_an_empty_index_has_none() -> None:
    sizes = {"b": 40.0, "a": 900.0, "c": 9_000.0}
    index = build(Fence(name, Circle(53.3, -6.2, size)) for name, size in sizes.items())
    assert index.containing(53.3, -6.2) == ("a", "b", "c")
    assert index.containing(53.305, -6.2) == ("a", "c")
    assert "a" in index
    assert "z" not in index
    assert len(index) == 3
    assert build([]).containing(53.3, -6.2) == ()
