"""Shapes against other implementations: shapely on a flat map, geographiclib on the ellipsoid."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from pathlib import Path

import numpy as np
import pytest
import shapely
from geographiclib.geodesic import Geodesic  # type: ignore[import-untyped]
from geographiclib.polygonarea import PolygonArea  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.places.earth import meters_between
from engine.domain.places.outline import AreaOutline, outline
from engine.domain.places.shape_check import examine, problems
from engine.domain.places.shapes import Circle, MultiPolygon, Polygon, Ring
from engine.formats.geojson import read_geojson

MANHATTAN = Path(__file__).parent / "data" / "manhattan.geojson"
latitudes = st.floats(-90, 90)
longitudes = st.floats(-180, 180)


def box(south: float, west: float, north: float, east: float) -> Ring:
    return ((south, west), (south, east), (north, east), (north, west), (south, west))


def inverse(a: float, b: float, c: float, d: float) -> float:
    return float(Geodesic.WGS84.Inverse(a, b, c, d)["s12"])


def oracle_to_edges(ring: Ring, latitude: float, longitude: float, parts: int = 300) -> float:
    """The nearest of many points on a ring that does not cross the antimeridian."""
    best = inf
    for (a, b), (c, d) in pairwise(ring):
        for k in range(parts + 1):
            t = k / parts
            best = min(best, inverse(latitude, longitude, a + t * (c - a), b + t * (d - b)))
    return best


@given(latitudes, longitudes, latitudes, longitudes)
def test_distance_is_good_to_a_third_of_a_percent_anywhere(a: float, b: float, c: float, d: float) -> None:
    assert meters_between(a, b, c, d) == pytest.approx(inverse(a, b, c, d), rel=0.003, abs=1e-6)


@given(
    latitudes | st.sampled_from([90.0, -90.0, 89.9995, -89.9999]),
    longitudes | st.sampled_from([180.0, -180.0, 179.9999]),
    st.floats(5, 400_000),
    st.floats(0, 360),
    st.floats(0, 2).filter(lambda share: abs(share - 1) > 0.003),
)
def test_circles_agree_with_geodesics(
    latitude: float, longitude: float, radius: float, bearing: float, share: float
) -> None:
    there = Geodesic.WGS84.Direct(latitude, longitude, bearing, radius * share)
    circle = outline(Circle(latitude, longitude, radius))
    assert circle.contains(there["lat2"], there["lon2"]) == (share < 1)
    signed = circle.distance_meters(there["lat2"], there["lon2"])
    assert signed == pytest.approx(radius * share - radius, abs=0.003 * radius * max(1.0, share))


def test_manhattan_agrees_with_shapely() -> None:
    data = MANHATTAN.read_bytes()
    features = read_geojson(data, "manhattan.geojson").features
    assert len(features) == 37
    shapes = shapely.get_parts(shapely.from_geojson(data))
    random = np.random.default_rng(304)
    inside = 0
    for feature, theirs in zip(features, shapes, strict=True):
        ours = outline(feature.shape)
        west, south, east, north = theirs.bounds
        near = random.uniform((west, south), (east, north), (120, 2))
        expected = shapely.intersects_xy(theirs, near)
        inside += expected.sum()
        got = [ours.contains(latitude, longitude) for longitude, latitude in near]
        assert got == expected.tolist()
    assert inside > 1500


def test_distance_to_a_real_neighbourhood_is_the_geodesic_one() -> None:
    features = read_geojson(MANHATTAN.read_bytes(), "manhattan.geojson").features
    park = next(f for f in features if f.properties["name"] == "Central Park")
    assert isinstance(park.shape, MultiPolygon)
    (polygon,) = park.shape.polygons
    ours = outline(park.shape)
    for latitude, longitude in [(40.7812, -73.9665), (40.7645, -73.9735), (40.79, -73.99), (40.70, -74.01)]:
        expected = oracle_to_edges(polygon.rings[0], latitude, longitude)
        assert abs(ours.distance_meters(latitude, longitude)) == pytest.approx(expected, rel=0.003, abs=0.5)
    assert ours.distance_meters(40.7812, -73.9665) < 0 < ours.distance_meters(40.79, -73.99)
    geodesic = PolygonArea(Geodesic.WGS84)
    for latitude, longitude in polygon.rings[0][:-1]:
        geodesic.AddPoint(latitude, longitude)
    assert np.pi * ours.radius_meters**2 == pytest.approx(geodesic.Compute()[2], rel=0.006)


HOLED = Polygon((box(10, 10, 20, 20), box(14, 14, 16, 16)[::-1]))
ACROSS = Polygon((((-18, 177), (-18, -178), (-15, -178), (-15, 177), (-18, 177)),))
SPLIT = MultiPolygon((Polygon((box(-18, 177, -15, 180),)), Polygon((box(-18, -180, -15, -178),))))
ARCTIC = Polygon((((80, 0), (80, 90), (80, 180), (80, -90), (80, 0)),))
ANTARCTIC = Polygon((((-90, -180), (-90, 180), (-70, 180), (-70, -180), (-90, -180)),))
ARCTIC_RING = Polygon((*ARCTIC.rings, ((85, 0), (85, -90), (85, 180), (85, 90), (85, 0))))
BAND = Polygon((box(-10, -180, 10, 180),))
ACROSS_HOLED = Polygon((*ACROSS.rings, box(-17, 179, -16, 180)[::-1]))


@pytest.mark.parametrize(
    ("shape", "inside", "outside"),
    [
        (HOLED, [(11, 11), (13.9, 15)], [(15, 15), (9, 15), (15, 21)]),
        (ACROSS, [(-16, 179), (-16, -179), (-16, 180), (-16, -180)], [(-16, 176), (-16, -177), (-16, 0)]),
        (SPLIT, [(-16, 179), (-16, -179), (-16, 180)], [(-16, 176), (-16, -177), (-14, 180)]),
        (ARCTIC, [(90, 0), (85, -170), (80.1, 45), (81, 180)], [(79.9, 45), (-85, 0)]),
        (ANTARCTIC, [(-90, 0), (-80, 180), (-71, -60)], [(-69, 0), (90, 0)]),
        (ARCTIC_RING, [(82, 0), (82, 180), (84.9, -91)], [(90, 0), (86, 30), (79, 0)]),
        (BAND, [(0, 180), (9, -180), (0, 0)], [(11, 0), (-11, 180)]),
        (ACROSS_HOLED, [(-16.5, 178.5), (-16.5, -179.5)], [(-16.5, 179.5)]),
    ],
)
def test_antimeridian_poles_and_holes(
    shape: Polygon | MultiPolygon, inside: list[tuple[float, float]], outside: list[tuple[float, float]]
) -> None:
    assert problems(shape) == ()
    ready = outline(shape)
    for point in inside:
        assert ready.contains(*point), point
        assert ready.distance_meters(*point) < 0
    for point in outside:
        assert not ready.contains(*point), point
        assert ready.distance_meters(*point) > 0


@pytest.mark.parametrize(
    ("shape", "latitude", "longitude", "edge"),
    [
        (ACROSS, -16.5, 180.0, (-15.0, 180.0)),
        (ACROSS, -16.5, 179.99, (-15.0, 179.99)),
        (SPLIT, -16.5, -179.99, (-15.0, -179.99)),
        (ARCTIC, 90.0, 0.0, (80.0, 0.0)),
        (ARCTIC, 81.0, 180.0, (80.0, 180.0)),
        (ANTARCTIC, -75.0, 180.0, (-70.0, 180.0)),
        (ANTARCTIC, -89.0, 30.0, (-70.0, 30.0)),
        (BAND, 4.0, 180.0, (10.0, 180.0)),
        (HOLED, 15.0, 15.5, (15.0, 16.0)),
        (HOLED, 60.0, -120.0, (20.0, 10.0)),
    ],
)
def test_the_lines_of_the_flat_map_are_no_edges(
    shape: Polygon | MultiPolygon, latitude: float, longitude: float, edge: tuple[float, float]
) -> None:
    expected = inverse(latitude, longitude, *edge)
    assert abs(outline(shape).distance_meters(latitude, longitude)) == pytest.approx(expected, rel=0.003)


def test_distance_beside_the_pole_sees_the_far_side() -> None:
    """A cap of a kilometre, asked from 300 m off the pole: every bearing is near."""
    ring = tuple((89.991, float(lon)) for lon in range(-180, 181, 10))
    ready = outline(Polygon((ring,)))
    assert ready.distance_meters(89.9973, 77.0) == pytest.approx(-inverse(89.9973, 77.0, 89.991, 77.0), abs=2)


def test_the_whole_earth_has_no_edge() -> None:
    assert outline(Polygon((box(-90, -180, 90, 180),))).distance_meters(3, 4) == -inf


def test_many_points_are_measured_as_one_is() -> None:
    ring = tuple(
        (52 + np.sin(a) * (1 + 0.2 * np.sin(9 * a)), -8 + np.cos(a)) for a in np.linspace(0, 6.283, 900)
    )
    shape, _ = examine(Polygon((ring,)))
    assert isinstance(shape, Polygon)
    ready = AreaOutline(shape)
    random = np.random.default_rng(1)
    lats, lons = random.uniform(50, 54, 60), random.uniform(-10, -6, 60)
    one_by_one = [ready.distance_meters(lat, lon) for lat, lon in zip(lats, lons, strict=True)]
    assert ready.distances_meters(lats, lons) == pytest.approx(one_by_one, rel=1e-6)


def test_what_can_be_mended_is_mended_and_noted() -> None:
    clockwise_and_open = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    shape, flaws = examine(Polygon((clockwise_and_open,)))
    assert shape == Polygon((((0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)),))
    assert [flaw.message for flaw in flaws] == [
        "ring 1 was not closed: closed it",
        "ring 1 ran clockwise: turned it round",
    ]
    assert all(flaw.mended for flaw in flaws)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (Circle(1, 2, 0), "radius 0 is not more than 0 metres"),
        (Circle(1, 2, float("nan")), "radius nan is not more than 0 metres"),
        (Circle(1, 2, 5_000_001), "radius 5,000,001 m is more than 5,000,000 m"),
        (Circle(91, 2, 5), "latitude 91 is not between -90 and 90; are latitude and longitude swapped?"),
        (Circle(float("inf"), 2, 5), "latitude and longitude must be finite numbers"),
        (Polygon(()), "there are no points"),
        (Polygon((((0, 0), (1, 1), (0, 0)),)), "ring 1: fewer than three different points"),
        (Polygon((((0, 0), (1, 1), (2, 2), (0, 0)),)), "ring 1: the points lie on one line"),
        (
            Polygon((((0, 0), (0, 181), (1, 1)),)),
            "ring 1, point 2: longitude 181 is not between -180 and 180",
        ),
        (Polygon((((0, 0), (2, 2), (0, 2), (2, 0), (0, 0)),)), "ring 1: crosses itself near latitude 1.0"),
        (
            Polygon((((0, 179), (2, -179), (0, -179), (2, 179), (0, 179)),)),
            "ring 1: crosses itself near latitude 1.000000, longitude -180.0",
        ),
        (Polygon((box(0, 0, 1, 1), box(3, 3, 4, 4))), "a hole lies outside near latitude 3"),
        (Polygon((tuple((0.0, 0.0) for _ in range(100_001)),)), "100,001 points are too many"),
        (
            MultiPolygon((HOLED, Polygon((((0, 0), (95, 0), (1, 1)),)))),
            "polygon 2, ring 1, point 2: latitude 95",
        ),
    ],
)
def test_faults_are_told(shape: Circle | Polygon | MultiPolygon, expected: str) -> None:
    (problem,) = problems(shape)
    assert problem.startswith(expected)


def test_a_hundred_thousand_points_are_accepted_and_measured() -> None:
    angles = np.linspace(0, 2 * np.pi, 100_000)
    ring = tuple(zip((40 + np.sin(angles)).tolist(), (5 + np.cos(angles)).tolist(), strict=True))
    shape, flaws = examine(Polygon(((*ring[:-1], ring[0]),)))
    assert flaws == ()
    ready = outline(shape)
    assert ready.contains(40.5, 5.5)
    assert ready.distance_meters(41.2, 5) == pytest.approx(inverse(41.2, 5, 41, 5), rel=0.003)
