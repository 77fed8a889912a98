"""GeoJSON (RFC 7946) to shapes, with every problem of the file at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from engine.domain.places.shape_check import examine
from engine.domain.places.shapes import Circle, Line, MultiPolygon, Polygon, Ring, Shape
from engine.formats.problems import Problem

MOST_BYTES: Final = 64_000_000
MOST_FEATURES: Final = 100_000
MOST_PROBLEMS: Final = 200
"""A file that is wrong throughout need not say so more often."""


class GeoFeature(msgspec.Struct, frozen=True, kw_only=True):
    """A usable feature. `index` is its place in the file from 0, `line` and `column` where it
    starts, `id` GeoJSON's own where it has one."""

    index: int
    line: int
    column: int
    shape: Shape
    properties: Mapping[str, Any]
    id: str | int | None = None


class GeoFile(msgspec.Struct, frozen=True):
    """The features that can be used, and the problems of all, both in the file's order. Warnings
    tell what was mended; a feature with an error is not among the features."""

    features: tuple[GeoFeature, ...]
    problems: tuple[Problem, ...]


class _Collection(msgspec.Struct):
    """A FeatureCollection whose features stay text, so that their places can be found."""

    features: list[msgspec.Raw]


class Sizes(msgspec.Struct, frozen=True):
    """What a file does not say itself: the radius that makes a circle of a point, and the width that
    makes an area of a line."""

    radius_meters: float | None = None
    width_meters: float | None = None


NO_RADIUS: Final = "a Point needs a radius"
NO_WIDTH: Final = "a line needs a width"


def read_geojson(data: bytes, file: str, sizes: Sizes = Sizes()) -> GeoFile:  # noqa: B008 - frozen
    """The places in a FeatureCollection, a Feature or a bare geometry; `file` names it in problems.

    Points become circles and lines areas of the `sizes` given; without one they are a problem.
    Problems point at their feature's start and count features, rings and points from 1. Never raises.
    """

    def refused(message: str, byte: int = 0) -> GeoFile:
        return GeoFile((), (Problem(file, *_place(data, byte), message),))

    if len(data) > MOST_BYTES:
        return refused(f"the file has {len(data):,} bytes: at most {MOST_BYTES:,}")
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        data.decode()
        document = msgspec.json.decode(data)
    except UnicodeDecodeError as error:
        return refused("not JSON: the text is not UTF-8", error.start)
    except RecursionError:
        return refused("not JSON: nested too deeply")
    except msgspec.DecodeError as error:
        at = re.search(r" \(byte (\d+)\)$", str(error))
        reason = str(error).removesuffix(at[0] if at else "").removeprefix("JSON is malformed: ")
        byte = int(at[1]) if at else len(data) if "truncated" in reason else 0
        return refused(f"not JSON: {reason[:1].lower()}{reason[1:]}", byte)
    features = _features_in(document)
    if isinstance(features, str):
        return refused(features)
    if len(features) > MOST_FEATURES:
        return refused(f"{len(features):,} features are too many: at most {MOST_FEATURES:,}")
    places = _places(data, document)
    found: list[GeoFeature] = []
    problems: list[Problem] = []
    for index, (feature, (line, column)) in enumerate(zip(features, places, strict=True)):
        good, errors, notes = feature_at(feature, index, (line, column), sizes)
        if good is not None:
            found.append(good)
        where = f"feature {index + 1}: "
        problems += [Problem(file, line, column, where + message) for message in errors]
        problems += [Problem(file, line, column, where + message, None, "warning") for message in notes]
        if len(problems) > MOST_PROBLEMS:
            more = "there are more problems than these: the features from here on were not read"
            problems = [*problems[:MOST_PROBLEMS], Problem(file, line, column, more)]
            break
    return GeoFile(tuple(found), tuple(problems))


def _place(data: bytes, byte: int) -> tuple[int, int]:
    """Line and column, in characters, of a byte."""
    line_start = data.rfind(b"\n", 0, byte) + 1
    return data.count(b"\n", 0, byte) + 1, len(data[line_start:byte].decode(errors="replace")) + 1


def _places(data: bytes, document: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Line and column of each feature."""
    if document.get("type") != "FeatureCollection":
        return [(1, 1)]
    places = []
    at, line = 0, 1
    for raw in msgspec.json.decode(data, type=_Collection).features:
        # A feature's text is a verbatim slice, so that the next match is the feature itself, or an
        # equal text within what came before it in the same place.
        found = data.find(bytes(raw), at)
        line += data.count(b"\n", at, found)
        places.append((line, len(data[data.rfind(b"\n", 0, found) + 1 : found].decode()) + 1))
        line += data.count(b"\n", found, found + len(bytes(raw)))
        at = found + len(bytes(raw))
    return places


def _features_in(document: Any) -> list[Any] | str:
    """The features, or what is wrong with the whole."""
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection":
        features = document.get("features")
        return features if isinstance(features, list) else "a FeatureCollection needs a list of features"
    if kind == "Feature":
        return [document]
    if isinstance(kind, str):
        return [{"type": "Feature", "properties": {}, "geometry": document}]
    return "not GeoJSON: an object with a type, such as FeatureCollection, is expected"


def feature_at(
    feature: Any, index: int, place: tuple[int, int], sizes: Sizes
) -> tuple[GeoFeature | None, list[str], list[str]]:
    """A feature, by its index and its line and column, or None; its errors; what was mended."""
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        return None, ["not a Feature"], []
    properties = feature.get("properties")
    if properties is not None and not isinstance(properties, dict):
        return None, ["properties must be an object"], []
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict):
        return None, ["there is no geometry"], []
    shape = _shape(geometry, sizes)
    if isinstance(shape, str):
        return None, [shape], []
    shape, flaws = examine(shape)
    errors = [flaw.message for flaw in flaws if not flaw.mended]
    notes = [flaw.message for flaw in flaws if flaw.mended]
    if errors:
        return None, errors, notes
    identifier = feature.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int):
        identifier = None
    line, column = place
    good = GeoFeature(
        index=index, line=line, column=column, shape=shape, properties=properties or {}, id=identifier
    )
    return good, [], notes


def _shape(geometry: Mapping[str, Any], sizes: Sizes) -> Shape | str:
    """The geometry as a shape, or why it is none."""
    kind = geometry.get("type")
    coordinates = geometry.get("coordinates")
    if kind == "Point":
        point = _point(coordinates)
        if point is None:
            return "a Point needs coordinates [longitude, latitude]"
        if sizes.radius_meters is None:
            return NO_RADIUS
        return Circle(*point, sizes.radius_meters)
    if kind in ("LineString", "MultiLineString"):
        return _line([coordinates] if kind == "LineString" else coordinates, sizes.width_meters)
    if kind == "Polygon":
        return _polygon(coordinates, "")
    if kind == "MultiPolygon":
        if not isinstance(coordinates, list) or not coordinates:
            return "a MultiPolygon needs a list of polygons"
        parts: list[Polygon] = []
        for number, part in enumerate(coordinates):
            polygon = _polygon(part, f"polygon {number + 1}, ")
            if isinstance(polygon, str):
                return polygon
            parts.append(polygon)
        return MultiPolygon(tuple(parts))
    if kind == "GeometryCollection":
        return "a GeometryCollection is not supported: write one feature for each geometry"
    if kind == "MultiPoint":
        return "a MultiPoint is not supported: write one feature for each point"
    return f"unknown geometry type {kind!r}"


def _line(strands: Any, width_meters: float | None) -> Line | str:
    if not isinstance(strands, list) or not strands:
        return "a line needs a list of points"
    if width_meters is None:
        return NO_WIDTH
    found: list[Ring] = []
    for number, strand in enumerate(strands):
        points = _points(strand, f"line {number + 1}" if len(strands) > 1 else "the line")
        if isinstance(points, str):
            return points
        found.append(points)
    return Line(tuple(found), width_meters)


def _polygon(coordinates: Any, where: str) -> Polygon | str:
    if not isinstance(coordinates, list) or not coordinates:
        return f"{where}a polygon needs a list of rings"
    rings: list[Ring] = []
    for number, ring in enumerate(coordinates):
        points = _points(ring, f"{where}ring {number + 1}")
        if isinstance(points, str):
            return points
        rings.append(points)
    return Polygon(tuple(rings))


def _points(pairs: Any, where: str) -> tuple[tuple[float, float], ...] | str:
    if not isinstance(pairs, list):
        return f"{where} is not a list of points"
    points: list[tuple[float, float]] = []
    for at, pair in enumerate(pairs):
        point = _point(pair)
        if point is None:
            return f"{where}, point {at + 1}: not a pair of numbers"
        points.append(point)
    return tuple(points)


def _point(pair: Any) -> tuple[float, float] | None:
    """(latitude, longitude) of GeoJSON's [longitude, latitude, height]."""
    if not isinstance(pair, list) or len(pair) < 2:
        return None
    longitude, latitude = pair[0], pair[1]
    if type(longitude) not in (int, float) or type(latitude) not in (int, float):
        return None
    try:
        return float(latitude), float(longitude)
    except OverflowError:
        return None
