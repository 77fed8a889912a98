"""`geofences:`: circles and polygons written out, and files of GeoJSON."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, Final

from engine.domain.places.fence_index import Fence
from engine.domain.places.shape_check import examine
from engine.domain.places.shapes import LARGEST_RADIUS_METERS, Circle, Polygon, Shape
from engine.formats.geojson import GeoFeature, GeoFile, read_geojson
from engine.formats.located_yaml import AnyNode, Entry, ListNode, MapNode, Scalar
from engine.formats.problems import Problem, did_you_mean
from engine.formats.workspace_values import LONGEST_NAME, Problems, fields, name, names, number, shown

_SHAPES: Final = ("circle", "polygon", "file")
_LATER: Final = ("line", "beacon", "open")
_SUFFIXES: Final = (".geojson", ".json")
SMALLEST_RADIUS_METERS: Final = 1.0

Place = tuple[str, int]
"""A file and a line."""


class Places:
    """The geofences read so far, with where each was said: ids are unique over all files."""

    def __init__(self, files: Mapping[str, bytes], problems: Problems) -> None:
        self.fences: dict[str, Fence] = {}
        self.names: set[str] = set()
        self.tags: dict[str, set[str]] = {}
        self.is_complete = True
        self._files = files
        self._problems = problems
        self._said: dict[str, Place] = {}

    def add(self, entry: Entry) -> None:
        """One entry of `geofences:`. A faulty one still takes its name and tags."""
        node = entry.node
        known = (*_SHAPES, "id", "radius", "tags", "properties")
        found = fields(node, self._problems, known, _LATER, expected="fields such as {circle: …}")
        tags = frozenset(names(found["tags"], self._problems, "tags")) if found and "tags" in found else ()
        stated = self._properties(found["properties"]) if found and "properties" in found else {}
        for tag in tags:
            self.tags.setdefault(tag, set())
        if found is None or not isinstance(node, MapNode):
            self.names.add(entry.key.text)
            return
        shapes = [word for word in _SHAPES if word in found]
        if len(shapes) > 1:
            both = " and ".join(f'"{word}"' for word in shapes[:2])
            self._problems.append(node.entries[shapes[1]].key.problem(f"{both} exclude each other"))
        elif not shapes and not any(word in node.entries for word in ("line", "beacon")):
            self._problems.append(entry.key.problem('a geofence needs "circle", "polygon" or "file"'))
        if "file" in found:
            self._file(node, found, frozenset(tags), stated)
            return
        for word in ("id", "radius"):
            if word in found:
                hint = "a circle's radius stands in it: {circle: {lat: …, lng: …, radius: 60}}"
                key = node.entries[word].key
                message = f'"{word}" belongs to a geofence from a file'
                self._problems.append(key.problem(message, hint if word == "radius" else None))
        self._names(entry.key.text, entry.key, tags)
        shape: Shape | None = None
        if "circle" in found:
            shape = self._circle(found["circle"])
        elif "polygon" in found:
            shape = self._polygon(found["polygon"])
        if shape is not None:
            fence = Fence(entry.key.text, shape, frozenset(tags), stated)
            self.fences.setdefault(entry.key.text, fence)

    def _names(self, fence_id: str, key: Scalar, tags: Any) -> None:
        name(key, self._problems, "a geofence")
        first = self._said.get(fence_id)
        if first is not None:
            self._problems.append(key.problem(_twice(fence_id, first)))
        self._take(fence_id, (key.source.file, key.line), tags)

    def _take(self, fence_id: str, place: Place, tags: Any) -> None:
        self._said.setdefault(fence_id, place)
        self.names.add(fence_id)
        for tag in tags:
            self.tags[tag].add(fence_id)

    def _circle(self, node: AnyNode) -> Circle | None:
        expected = "a circle such as {lat: 52.66, lng: -8.62, radius: 60}"
        found = fields(node, self._problems, ("lat", "lng", "radius"), expected=expected)
        if found is None:
            return None
        missing = [word for word in ("lat", "lng", "radius") if word not in found]
        self._problems.extend(node.problem(f'"{word}" is missing') for word in missing)
        latitude = self._degrees(found["lat"], "lat", 90) if "lat" in found else None
        longitude = self._degrees(found["lng"], "lng", 180) if "lng" in found else None
        radius = _radius(found["radius"], self._problems) if "radius" in found else None
        if latitude is None or longitude is None or radius is None:
            return None
        return Circle(latitude, longitude, radius)

    def _degrees(self, node: AnyNode, word: str, bound: float) -> float | None:
        return number(node, self._problems, f"{word} in degrees", low=-bound, high=bound)

    def _polygon(self, node: AnyNode) -> Shape | None:
        expected = "a polygon such as {points: [[52.66, -8.62], …]}"
        found = fields(node, self._problems, ("points",), expected=expected)
        if found is None:
            return None
        if "points" not in found:
            self._problems.append(node.problem('"points" is missing'))
            return None
        points = found["points"]
        if not isinstance(points, ListNode):
            self._problems.append(points.problem(f"expected a list of points, found {shown(points)}"))
            return None
        ring = [self._point(item) for item in points.items]
        good = tuple(point for point in ring if point is not None)
        if len(good) < len(ring):
            return None
        shape, flaws = examine(Polygon((good,)))
        wrong = [flaw for flaw in flaws if not flaw.mended]
        for flaw in wrong:
            at = points.items[flaw.point] if flaw.point is not None else points
            self._problems.append(at.problem(flaw.message))
        return None if wrong else shape

    def _point(self, node: AnyNode) -> tuple[float, float] | None:
        if not isinstance(node, ListNode) or len(node.items) != 2:
            self._problems.append(node.problem(f"expected a point [lat, lng], found {shown(node)}"))
            return None
        latitude = self._degrees(node.items[0], "lat", 90)
        longitude = self._degrees(node.items[1], "lng", 180)
        return None if latitude is None or longitude is None else (latitude, longitude)

    def _properties(self, node: AnyNode) -> dict[str, Any]:
        if not isinstance(node, MapNode):
            fields(node, self._problems, (), expected="properties such as {name: Gate Café}")
            return {}
        own = node.entries.get("id")
        if own is not None:
            message = '"geofence.id" is the id above: call the property something else'
            self._problems.append(own.key.problem(message))
        return {word: plain(entry.node) for word, entry in node.entries.items()}

    def _file(
        self, node: MapNode, found: dict[str, AnyNode], tags: frozenset[str], stated: dict[str, Any]
    ) -> None:
        before = len(self._problems)
        path = name(found["file"], self._problems, "the name of a file")
        radius = _radius(found["radius"], self._problems) if "radius" in found else None
        id_path = (
            name(found["id"], self._problems, "a path such as properties.name") if "id" in found else None
        )
        if "id" not in found:
            hint = "add id: properties.name, or another that differs from feature to feature"
            self._problems.append(node.problem('"id" is missing', hint))
        elif id_path is not None and id_path != "id" and not id_path.startswith("properties."):
            hint = f"did you mean properties.{id_path.rpartition('.')[2]}?"
            message = f'the path begins with properties., or is "id", found {shown(found["id"])}'
            self._problems.append(found["id"].problem(message, hint))
        located = self._find(found["file"], path) if path is not None else None
        if located is None or len(self._problems) > before:
            self.is_complete = False
            return
        target, data = located
        read = read_geojson(data, target, point_radius_meters=radius)
        self._problems.extend(_with_hint(problem, radius) for problem in read.problems)
        if any(problem.severity == "error" for problem in read.problems):
            self.is_complete = False
        self._features(read, target, found["id"], id_path or "id", tags, stated)

    def _find(self, node: AnyNode, path: str) -> tuple[str, bytes] | None:
        """The file's name in the workspace, and its content."""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(node.source.file), path))
        if target.startswith(("/", "..")):
            self._problems.append(node.problem("a file must be within the workspace's folder"))
            return None
        if not target.endswith(_SUFFIXES):
            hint = f"the name ends with {' or '.join(_SUFFIXES)}"
            self._problems.append(node.problem("only GeoJSON files hold geofences", hint))
            return None
        data = self._files.get(target)
        if data is None:
            others = frozenset(file for file in self._files if file.endswith(_SUFFIXES))
            self._problems.append(node.problem(f'there is no file "{target}"', did_you_mean(target, others)))
            return None
        return target, data

    def _features(
        self,
        read: GeoFile,
        target: str,
        at: AnyNode,
        id_path: str,
        tags: frozenset[str],
        stated: dict[str, Any],
    ) -> None:
        ids = [_id_of(feature, id_path) for feature in read.features]
        if None in ids:
            self.is_complete = False
        if ids and not any(ids):
            present = frozenset(f"properties.{word}" for f in read.features for word in f.properties)
            message = f'no feature of "{target}" has "{id_path}"'
            self._problems.append(at.problem(message, did_you_mean(id_path, present)))
            return
        for feature, fence_id in zip(read.features, ids, strict=True):
            where = f"feature {feature.index + 1}"
            if fence_id is None:
                message = f'{where}: no text or number at "{id_path}"'
                self._problems.append(Problem(target, feature.line, feature.column, message))
                continue
            first = self._said.get(fence_id)
            if first is not None:
                message = f"{where}: {_twice(fence_id, first)}"
                self._problems.append(Problem(target, feature.line, feature.column, message))
            self._take(fence_id, (target, feature.line), tags)
            self.fences[fence_id] = Fence(fence_id, feature.shape, tags, {**feature.properties, **stated})


def plain(node: AnyNode) -> Any:
    """A node as an ordinary value."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return {word: plain(entry.node) for word, entry in node.entries.items()}


def _radius(node: AnyNode, problems: Problems) -> float | None:
    return number(node, problems, "radius in metres", low=SMALLEST_RADIUS_METERS, high=LARGEST_RADIUS_METERS)


def _twice(fence_id: str, first: Place) -> str:
    return f'the geofence "{fence_id}" stands twice, first in {first[0]} line {first[1]}'


def _id_of(feature: GeoFeature, id_path: str) -> str | None:
    value: Any = feature.id
    if id_path != "id":
        value = feature.properties
        for word in id_path.split(".")[1:]:
            value = value.get(word) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    word = str(value).strip()
    return word if word and len(word) <= LONGEST_NAME else None


def _with_hint(problem: Problem, radius: float | None) -> Problem:
    if radius is None and problem.message.endswith("a Point needs a radius"):
        hint = "add radius: 50 beside file:, in metres"
        return Problem(problem.file, problem.line, problem.column, problem.message, hint)
    return problem
