"""The shapes of geofences that are written out in YAML: circle, polygon, line, cells, beacon."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from engine.domain.places.shape_check import Flaw, examine
from engine.domain.places.shapes import (
    LARGEST_RADIUS_METERS,
    LARGEST_WIDTH_METERS,
    SMALLEST_WIDTH_METERS,
    Beacon,
    Cells,
    Circle,
    Line,
    Polygon,
    Shape,
)
from engine.formats.located_yaml import AnyNode, ListNode, Scalar
from engine.formats.workspace_values import Problems, fields, name, number, shown

SMALLEST_RADIUS_METERS: Final = 1.0
_CELL: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{15,16})")

Points = tuple[tuple[float, float], ...]


def written(word: str, node: AnyNode, problems: Problems) -> Shape | None:
    """The shape below one of `SHAPES`, mended, or None with problems added."""
    return _READ[word](node, problems)


def radius_in(node: AnyNode, problems: Problems) -> float | None:
    return number(node, problems, "radius in metres", low=SMALLEST_RADIUS_METERS, high=LARGEST_RADIUS_METERS)


def width_in(node: AnyNode, problems: Problems) -> float | None:
    return number(node, problems, "width in metres", low=SMALLEST_WIDTH_METERS, high=LARGEST_WIDTH_METERS)


def _circle(node: AnyNode, problems: Problems) -> Circle | None:
    expected = "a circle such as {lat: 52.66, lng: -8.62, radius: 60}"
    found = fields(node, problems, ("lat", "lng", "radius"), expected=expected)
    if found is None:
        return None
    missing = [word for word in ("lat", "lng", "radius") if word not in found]
    problems.extend(node.problem(f'"{word}" is missing') for word in missing)
    latitude = _degrees(found["lat"], problems, "lat", 90) if "lat" in found else None
    longitude = _degrees(found["lng"], problems, "lng", 180) if "lng" in found else None
    radius = radius_in(found["radius"], problems) if "radius" in found else None
    if latitude is None or longitude is None or radius is None:
        return None
    return Circle(latitude, longitude, radius)


def _polygon(node: AnyNode, problems: Problems) -> Shape | None:
    expected = "a polygon such as {points: [[52.66, -8.62], …]}"
    found = fields(node, problems, ("points", "holes"), expected=expected)
    if found is None:
        return None
    if "points" not in found:
        problems.append(node.problem('"points" is missing'))
        return None
    nodes = [found["points"]]
    holes = found.get("holes")
    if isinstance(holes, ListNode):
        nodes += holes.items
    elif holes is not None:
        message = f"expected a list of holes, each a list of points, found {shown(holes)}"
        problems.append(holes.problem(message))
        return None
    rings = [_points(ring, problems) for ring in nodes]
    good = tuple(ring for ring in rings if ring is not None)
    return _examined(Polygon(good), nodes, problems) if len(good) == len(rings) else None


def _line(node: AnyNode, problems: Problems) -> Shape | None:
    expected = "a line such as {points: [[52.66, -8.62], …], width: 12}"
    found = fields(node, problems, ("points", "width"), expected=expected)
    if found is None:
        return None
    missing = [word for word in ("points", "width") if word not in found]
    problems.extend(node.problem(f'"{word}" is missing') for word in missing)
    points = _points(found["points"], problems) if "points" in found else None
    width = width_in(found["width"], problems) if "width" in found else None
    if points is None or width is None:
        return None
    return _examined(Line((points,), width), [found["points"]], problems)


def _cells(node: AnyNode, problems: Problems) -> Shape | None:
    if not isinstance(node, ListNode):
        hint = f"write [{node.text}]" if isinstance(node, Scalar) and node.text else None
        problems.append(node.problem(f"expected a list of H3 cells, found {shown(node)}", hint))
        return None
    cells = []
    for item in node.items:
        said = _CELL.fullmatch(item.text) if isinstance(item, Scalar) else None
        if said is None:
            problems.append(
                item.problem(f'expected an H3 cell such as "8a1e24aa5497fff", found {shown(item)}')
            )
        else:
            cells.append(int(said[1], 16))
    return _examined(Cells(tuple(cells)), [node], problems) if len(cells) == len(node.items) else None


def _beacon(node: AnyNode, problems: Problems) -> Beacon | None:
    said = name(node, problems, "a beacon's name")
    return Beacon(said) if said is not None else None


def _examined(shape: Shape, nodes: list[AnyNode], problems: Problems) -> Shape | None:
    """The shape mended, or None with each flaw at the point that has it. The order of the points and
    whether the last is the first are free here, so that mending needs no mention."""
    mended, flaws = examine(shape)
    wrong = [flaw for flaw in flaws if not flaw.mended]
    problems.extend(_at(flaw, nodes).problem(flaw.message) for flaw in wrong)
    return None if wrong else mended


def _at(flaw: Flaw, nodes: list[AnyNode]) -> AnyNode:
    ring = nodes[flaw.ring or 0]
    return ring.items[flaw.point] if flaw.point is not None and isinstance(ring, ListNode) else ring


def _points(node: AnyNode, problems: Problems) -> Points | None:
    if not isinstance(node, ListNode):
        problems.append(node.problem(f"expected a list of points, found {shown(node)}"))
        return None
    points = [_point(item, problems) for item in node.items]
    good = tuple(point for point in points if point is not None)
    return good if len(good) == len(points) else None


def _point(node: AnyNode, problems: Problems) -> tuple[float, float] | None:
    if not isinstance(node, ListNode) or len(node.items) != 2:
        problems.append(node.problem(f"expected a point [lat, lng], found {shown(node)}"))
        return None
    latitude = _degrees(node.items[0], problems, "lat", 90)
    longitude = _degrees(node.items[1], problems, "lng", 180)
    return None if latitude is None or longitude is None else (latitude, longitude)


def _degrees(node: AnyNode, problems: Problems, word: str, bound: float) -> float | None:
    return number(node, problems, f"{word} in degrees", low=-bound, high=bound)


_READ: Final[Mapping[str, Callable[[AnyNode, Problems], Shape | None]]] = {
    "circle": _circle,
    "polygon": _polygon,
    "line": _line,
    "cells": _cells,
    "beacon": _beacon,
}
SHAPES: Final = tuple(_READ)
