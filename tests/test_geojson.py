"""GeoJSON files, good ones and one fault a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.domain.places.shapes import Circle, MultiPolygon, Polygon
from engine.formats.geojson import MOST_BYTES, Sizes, read_geojson

STOPS = Path(__file__).parents[1] / "rules" / "places" / "bus-304-stops.geojson"
SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]


def feature(geometry: Any, **more: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"name": "x"}, "geometry": geometry, **more}


def collection(*features: Any, indent: int | None = None) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=indent).encode()


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": rings}


def test_the_bus_stops_become_circles() -> None:
    found = read_geojson(STOPS.read_bytes(), "stops.geojson", Sizes(radius_meters=40))
    assert found.problems == ()
    assert len(found.features) == 36
    assert found.features[0].shape == Circle(52.6634001, -8.6254356, 40)
    assert found.features[0].properties["stop_name"] == "William Street"
    assert found.features[1].index == 1
    assert found.features[1].line == 20


def test_polygons_multipolygons_ids_and_bare_geometries() -> None:
    multi = {
        "type": "MultiPolygon",
        "coordinates": [[SQUARE], [[[2, 0, 9.5], [3, 0, 9], [3, 1, 9], [2, 0, 9.5]]]],
    }
    found = read_geojson(collection(feature(polygon(SQUARE), id="a"), feature(multi, id=7)), "f")
    assert found.problems == ()
    first, second = found.features
    square = Polygon((((0, 0), (0, 1), (1, 1), (1, 0), (0, 0)),))
    assert first.shape == square
    assert (first.id, second.id) == ("a", 7)
    triangle = Polygon((((0, 2), (0, 3), (1, 3), (0, 2)),))
    assert second.shape == MultiPolygon((square, triangle))
    (bare,) = read_geojson(b"\xef\xbb\xbf" + json.dumps(polygon(SQUARE)).encode(), "f").features
    assert bare.shape == square
    (single,) = read_geojson(json.dumps(feature(polygon(SQUARE))).encode(), "f").features
    assert single.properties == {"name": "x"}


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ({"type": "Point", "coordinates": [1, 2]}, "a Point needs a radius"),
        ({"type": "Point", "coordinates": [1]}, "a Point needs coordinates [longitude, latitude]"),
        ({"type": "LineString", "coordinates": [[0, 0], [1, 1]]}, "a line needs a width"),
        ({"type": "GeometryCollection", "geometries": []}, "a GeometryCollection is not supported"),
        ({"type": "Circle"}, "unknown geometry type 'Circle'"),
        (None, "there is no geometry"),
        (polygon(), "a polygon needs a list of rings"),
        (polygon([[0, 0], [1, None], [1, 1]]), "ring 1, point 2: not a pair of numbers"),
        (polygon([[0, 0], [1, True], [1, 1]]), "ring 1, point 2: not a pair of numbers"),
        (polygon([[0, 0], [10**400, 1], [1, 1]]), "ring 1, point 2: not a pair of numbers"),
        (polygon([[0, 0], [float("nan"), 1], [1, 1]]), "not JSON: invalid character"),
        (polygon(SQUARE, "x"), "ring 2 is not a list of points"),
        (polygon([[0, 0], [200, 0], [1, 1], [0, 0]]), "ring 1, point 2: longitude 200 is not"),
        (
            polygon([[52, -99], [53, -99], [53, -98], [52, -99]]),
            "ring 1, point 1: latitude -99 is not between",
        ),
        (polygon([[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]), "ring 1: crosses itself near latitude 0.5"),
        (
            {"type": "MultiPolygon", "coordinates": [[SQUARE], 3]},
            "polygon 2, a polygon needs a list of rings",
        ),
    ],
)
def test_faults_are_located(geometry: Any, message: str) -> None:
    data = collection(feature(polygon(SQUARE)), feature(geometry), indent=1)
    found = read_geojson(data, "p.geojson")
    problem = found.problems[0]
    assert problem.file == "p.geojson"
    assert problem.severity == "error"
    if message.startswith("not JSON"):
        assert problem.message.startswith(message)
        wrong = data.splitlines()[problem.line - 1]
        assert b"NaN" in wrong
        assert found.features == ()
    else:
        assert problem.message.startswith(f"feature 2: {message}")
        assert data.splitlines()[problem.line - 1][problem.column - 1 :] == b"{"
        assert b'"Feature"' in data.splitlines()[problem.line]
        assert [good.index for good in found.features] == [0]


def test_all_faults_of_a_file_come_at_once_and_mending_is_a_warning() -> None:
    clockwise = polygon(SQUARE[::-1])
    swapped = polygon([[52.5, -99], [53, -99], [53, -98], [52.5, -99]])
    found = read_geojson(collection(feature(clockwise), feature(None), feature(swapped)), "f")
    assert [good.index for good in found.features] == [0]
    assert [(p.message.partition(":")[0], p.severity) for p in found.problems] == [
        ("feature 1", "warning"),
        ("feature 2", "error"),
        *[("feature 3", "error")] * 4,
    ]
    assert "are latitude and longitude swapped?" in found.problems[2].message


@pytest.mark.parametrize(
    ("data", "line", "column", "message"),
    [
        (b'{"type": "FeatureCollection",\n "features": [}', 2, 15, "not JSON: "),
        (b'{"type": "Feature"', 1, 19, "not JSON: input data was truncated"),
        (b'{"type":\n "\xff"}', 2, 3, "not JSON: the text is not UTF-8"),
        (b"[" * 100_000, 1, 1, "not JSON: nested too deeply"),
        (b'{"type":\n "Point", "coordinates": [0, 1e999]}', 1, 1, "not JSON: number out of range"),
        (b"[1]", 1, 1, "not GeoJSON"),
        (b'{"type": "FeatureCollection"}', 1, 1, "a FeatureCollection needs a list of features"),
        (b'{"type": "FeatureCollection", "features": [3]}', 1, 44, "feature 1: not a Feature"),
        (b" " * (MOST_BYTES + 1), 1, 1, "the file has 64,000,001 bytes"),
    ],
)
def test_faults_of_the_whole_file(data: bytes, line: int, column: int, message: str) -> None:
    found = read_geojson(data, "f")
    (problem,) = found.problems
    assert (problem.line, problem.column) == (line, column)
    assert problem.message.startswith(message)
    assert found.features == ()


def test_a_file_wrong_throughout_does_not_say_so_forever() -> None:
    found = read_geojson(collection(*[feature(None)] * 5000), "f")
    assert len(found.problems) == 201
    assert found.problems[-1].message.startswith("there are more problems")
