"""Lines with a width against geodesics, fences of H3 cells against H3, and opening hours."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import h3.api.basic_int as h3
import numpy as np
import pytest
import shapely
from geographiclib.geodesic import Geodesic  # type: ignore[import-untyped]

from engine.domain.places.fence_index import Fence, build
from engine.domain.places.geodesics import between
from engine.domain.places.opening import Opening
from engine.domain.places.outline import AreaOutline, outline
from engine.domain.places.shape_check import examine, problems
from engine.domain.places.shapes import Beacon, Cells, Circle, Line, Polygon, Shape

WGS84 = Geodesic.WGS84


@pytest.mark.parametrize(
    ("start", "end", "width"),
    [
        ((51.4701, -0.4870), (51.4720, -0.4862), 12.0),
        ((52.0, -8.0), (52.5, -6.0), 30.0),
        ((-17.0, 179.9), (-17.1, -179.9), 20.0),
        ((89.9999, 0.0), (89.9999, 180.0), 6.0),
        ((-89.999, 10.0), (-89.99, 100.0), 10.0),
        ((0.0, 0.0), (0.01, 0.01), 2.0),
        ((60.0, 10.0), (60.0, 24.0), 100.0),
    ],
)
def test_a_line_is_as_wide_as_it_says_along_the_geodesic(
    start: tuple[float, float], end: tuple[float, float], width: float
) -> None:
    line = Line(((start, end),), width)
    assert problems(line) == ()
    ready = outline(line)
    index = build([Fence("line", line)])
    way = WGS84.InverseLine(*start, *end)
    random = np.random.default_rng(7)
    for share, aside in random.uniform((0.02, -1.5), (0.98, 1.5), (150, 2)):
        on_it = way.Position(way.s13 * share)
        point = WGS84.Direct(on_it["lat2"], on_it["lon2"], on_it["azi2"] + 90, aside * width)
        there = point["lat2"], point["lon2"]
        expected = (abs(aside) - 0.5) * width
        # 3 cm, over a line of 780 km; half a metre beside the pole a degree is bent that much.
        assert ready.distance_meters(*there) == pytest.approx(expected, abs=0.04)
        if abs(expected) > 0.04:
            assert ready.contains(*there) == (expected < 0)
            assert index.containing(*there) == (("line",) if expected < 0 else ())
    beyond = WGS84.Direct(*end, way.Position(way.s13)["azi2"], width)
    assert ready.distance_meters(beyond["lat2"], beyond["lon2"]) == pytest.approx(width / 2, abs=0.01)


def test_points_between_lie_on_the_geodesic() -> None:
    random = np.random.default_rng(3)
    for a, b, bearing in random.uniform((-89, -180, 0), (89, 180, 360), (60, 3)):
        far = WGS84.Direct(a, b, bearing, 900_000)
        found = between((a, b), (far["lat2"], far["lon2"]), 7)
        for number, (latitude, longitude) in enumerate(found):
            gone = WGS84.Inverse(a, b, latitude, longitude)["s12"]
            assert gone == pytest.approx(900_000 * number / 7, rel=0.001, abs=1e-6)
            at = WGS84.Direct(a, b, bearing, gone)
            assert WGS84.Inverse(latitude, longitude, at["lat2"], at["lon2"])["s12"] < 0.005


def test_strands_that_cross_are_one_place_with_a_hole_between() -> None:
    square = ((52.0, -8.0), (52.0, -7.99), (52.01, -7.99), (52.01, -8.0), (52.0, -8.0))
    ready = outline(Line((square, ((51.99, -7.995), (52.0, -7.995))), 20.0))
    assert isinstance(ready, AreaOutline)
    assert ready.contains(52.0, -7.995)
    assert ready.contains(51.995, -7.995)
    assert not ready.contains(52.005, -7.995)
    assert ready.distance_meters(52.005, -7.995) == pytest.approx(
        WGS84.Inverse(52.005, -7.995, 52.005, -8.0)["s12"] - 10, abs=0.05
    )


def test_a_line_of_a_hundred_thousand_points_is_ready_in_seconds() -> None:
    bends = np.linspace(0, 300, 100_000)
    strand = tuple(zip((52 + bends / 300).tolist(), (-8 + 0.01 * np.sin(bends)).tolist(), strict=True))
    started = time.perf_counter()
    line, flaws = examine(Line((strand,), 8.0))
    ready = outline(line)  # type: ignore[arg-type]
    assert time.perf_counter() - started < 30
    assert not flaws
    assert ready.contains(*strand[50_000])


DISKS = [
    (52.0, -8.0, 8, 2),
    (89.99, 0.0, 5, 1),
    (-17.0, 180.0, 7, 3),
    (64.7, -10.5, 5, 1),
    (-80.0, 20.0, 2, 0),
]


@pytest.mark.parametrize(("latitude", "longitude", "level", "rings"), DISKS)
def test_cells_are_what_h3_says(latitude: float, longitude: float, level: int, rings: int) -> None:
    cells = set(h3.grid_disk(h3.latlng_to_cell(latitude, longitude, level), rings))
    shape = Cells(tuple(cells))
    assert problems(shape) == ()
    ready = outline(shape)
    index = build([Fence("cells", shape)])
    random = np.random.default_rng(11)
    away = ready.reach_meters / 111_000
    inside = 0
    for north, east in random.normal(size=(800, 2)) * away:
        lat = min(90.0, max(-90.0, ready.latitude + north))
        lng = (ready.longitude + east / max(0.001, np.cos(np.radians(lat))) + 180) % 360 - 180
        expected = h3.latlng_to_cell(lat, lng, level) in cells
        inside += expected
        assert ready.contains(lat, lng) == expected
        assert index.containing(lat, lng) == (("cells",) if expected else ())
        assert (ready.distance_meters(lat, lng) < 0) == expected
    assert inside > 100


def test_cells_that_touch_have_no_edge_between_them() -> None:
    for latitude, longitude, level, rings in DISKS[:4]:
        middle = h3.latlng_to_cell(latitude, longitude, level)
        ready = outline(Cells(tuple(h3.grid_disk(middle, rings))))
        alone = outline(Cells((middle,)))
        at = h3.cell_to_latlng(middle)
        assert ready.distance_meters(*at) < 1.5 * rings * alone.distance_meters(*at)


def test_a_beacon_has_no_inside() -> None:
    index = build([Fence("kiosk", Beacon("5f1c:7:8")), Fence("cafe", Circle(52, -8, 50))])
    assert index.containing(52, -8) == ("cafe",)
    assert set(index.fences) == {"kiosk", "cafe"}
    assert "kiosk" not in index


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Line((((52.0, -8.0), (52.0, -8.0)),), 10), "fewer than two different points"),
        (Line((((52.0, -8.0), (52.1, -8.0)),), 0.1), "width 0.1 is not between 0.5 and 10,000 metres"),
        (Line((((52.0, -8.0), (95.0, -8.0)),), 10), "point 2: latitude 95 is not between -90 and 90"),
        (Line((), 10), "there are no points"),
        (Cells(()), "there are no cells"),
        (Cells((17,)), "cell 1: 11 is no H3 cell"),
        (Beacon(" "), "the beacon has no name"),
    ],
)
def test_what_is_wrong_is_said(shape: Shape, message: str) -> None:
    (found,) = problems(shape)
    assert found.startswith(message)


def test_an_area_of_a_hundred_thousand_corners_agrees_with_shapely() -> None:
    turns = np.linspace(0, 2 * np.pi, 99_999, endpoint=False)
    out = 1 + 0.1 * np.sin(500 * turns)
    points = np.column_stack([52 + out * np.sin(turns), -8 + out * np.cos(turns)])
    ring = tuple(map(tuple, points.tolist()))
    started = time.perf_counter()
    shape, flaws = examine(Polygon(((*ring, ring[0]),)))
    assert [flaw.message for flaw in flaws] == []
    index = build([Fence("big", shape)])
    assert time.perf_counter() - started < 20
    theirs = shapely.Polygon(points[:, ::-1])
    shapely.prepare(theirs)
    random = np.random.default_rng(5)
    near = random.uniform((50.8, -9.2), (53.2, -6.8), (3000, 2))
    expected = shapely.intersects_xy(theirs, near[:, 1], near[:, 0])
    got = [bool(index.containing(latitude, longitude)) for latitude, longitude in near]
    assert got == expected.tolist()
    assert 500 < sum(got) < 2500


HOURS = Opening(
    "Europe/Dublin",
    (((540, 1020),), ((540, 720), (780, 1020)), ((1080, 1560),), (), ((0, 1440),), ((0, 1440),), ()),
)


@pytest.mark.parametrize(
    ("local", "is_open"),
    [
        ("2026-01-05T08:59:59", False),  # a Monday, winter time
        ("2026-01-05T09:00:00", True),
        ("2026-01-05T16:59:59", True),
        ("2026-01-05T17:00:00", False),
        ("2026-01-06T12:30:00", False),
        ("2026-01-06T13:00:00", True),
        ("2026-01-07T18:00:00", True),
        ("2026-01-08T01:59:59", True),  # Wednesday's hours past midnight
        ("2026-01-08T02:00:00", False),
        ("2026-01-09T00:00:00", True),
        ("2026-01-10T23:59:59", True),
        ("2026-01-11T00:00:00", False),
    ],
)
def test_hours_hold_on_the_clock_of_the_place(local: str, is_open: bool) -> None:
    winter = datetime.fromisoformat(local).replace(tzinfo=UTC)
    assert HOURS.is_open(winter) == is_open
    summer = winter + timedelta(weeks=26) - timedelta(hours=1)  # the same clock time, an hour ahead of UTC
    assert HOURS.is_open(summer) == is_open
