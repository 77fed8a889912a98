"""What is wrong with a shape, all of it at once, and what of that can be put right."""

from __future__ import annotations

import re
from math import isfinite

import h3.api.basic_int as h3
import msgspec
import numpy as np
import shapely

from engine.domain.places.lines import middle_of
from engine.domain.places.planar import flat_polygon, flat_ring, unrolled
from engine.domain.places.shapes import (
    COARSEST_CELLS,
    LARGEST_RADIUS_METERS,
    LARGEST_WIDTH_METERS,
    LONGEST_LINE_METERS,
    MOST_CELLS,
    MOST_VERTICES,
    SMALLEST_WIDTH_METERS,
    Beacon,
    Cells,
    Circle,
    Line,
    MultiPolygon,
    Polygon,
    Ring,
    Shape,
    polygons_of,
)


class Flaw(msgspec.Struct, frozen=True):
    """One thing wrong. `message` says where and what, for people; polygon, ring and point count
    from 0 and say it to programs. `mended` flaws are notes: the shape was put right."""

    message: str
    polygon: int | None = None
    ring: int | None = None
    point: int | None = None
    mended: bool = False


def examine(shape: Shape) -> tuple[Shape, tuple[Flaw, ...]]:
    """The shape with what can be mended mended (unclosed rings, winding), and every flaw.

    A shape with a flaw that is not `mended` cannot be used.
    """
    if isinstance(shape, Circle):
        return shape, tuple(Flaw(message) for message in _circle_problems(shape))
    if isinstance(shape, Line):
        return shape, tuple(_line_flaws(shape))
    if isinstance(shape, Cells):
        return shape, tuple(_cell_flaws(shape))
    if isinstance(shape, Beacon):
        return shape, () if shape.name.strip() else (Flaw("the beacon has no name"),)
    parts = polygons_of(shape)
    vertices = sum(len(ring) for part in parts for ring in part.rings)
    if not vertices:
        return shape, (Flaw("there are no points"),)
    if vertices > MOST_VERTICES:
        return shape, (Flaw(f"{vertices:,} points are too many: at most {MOST_VERTICES:,}"),)
    flaws: list[Flaw] = []
    mended = tuple(_polygon(part, at, len(parts) > 1, flaws) for at, part in enumerate(parts))
    whole: Shape = MultiPolygon(mended) if isinstance(shape, MultiPolygon) else mended[0]
    return whole, tuple(flaws)


def problems(shape: Shape) -> tuple[str, ...]:
    """Why the shape cannot be used, in plain words; empty where it can."""
    return tuple(flaw.message for flaw in examine(shape)[1] if not flaw.mended)


def position_problem(latitude: float, longitude: float) -> str | None:
    """What is wrong with a position, if anything."""
    if not (isfinite(latitude) and isfinite(longitude)):
        return "latitude and longitude must be finite numbers"
    if abs(latitude) > 90:
        swapped = abs(longitude) <= 90 and abs(latitude) <= 180
        hint = "; are latitude and longitude swapped? (GeoJSON has the longitude first)" if swapped else ""
        return f"latitude {latitude:g} is not between -90 and 90{hint}"
    if abs(longitude) > 180:
        return f"longitude {longitude:g} is not between -180 and 180"
    return None


def _circle_problems(circle: Circle) -> list[str]:
    found = []
    at = position_problem(circle.latitude, circle.longitude)
    if at:
        found.append(at)
    if not isfinite(circle.radius_meters) or circle.radius_meters <= 0:
        found.append(f"radius {circle.radius_meters:g} is not more than 0 metres")
    elif circle.radius_meters > LARGEST_RADIUS_METERS:
        found.append(f"radius {circle.radius_meters:,.0f} m is more than {LARGEST_RADIUS_METERS:,.0f} m")
    return found


def _line_flaws(line: Line) -> list[Flaw]:
    count = sum(map(len, line.strands))
    if count > MOST_VERTICES:
        return [Flaw(f"{count:,} points are too many: at most {MOST_VERTICES:,}")]
    found = []
    if not SMALLEST_WIDTH_METERS <= line.width_meters <= LARGEST_WIDTH_METERS:
        bounds = f"between {SMALLEST_WIDTH_METERS:g} and {LARGEST_WIDTH_METERS:,.0f} metres"
        found.append(Flaw(f"width {line.width_meters:g} is not {bounds}"))
    for number, strand in enumerate(line.strands):
        where = f"line {number + 1}, " if len(line.strands) > 1 else ""
        for index, (latitude, longitude) in enumerate(strand):
            problem = position_problem(latitude, longitude)
            if problem:
                found.append(Flaw(f"{where}point {index + 1}: {problem}", number, None, index))
        if len(set(strand)) < 2:
            found.append(Flaw(f"{where}fewer than two different points", number))
    if not line.strands:
        found.append(Flaw("there are no points"))
    if not found and middle_of(line.strands)[2] > LONGEST_LINE_METERS:
        far = f"{LONGEST_LINE_METERS / 1000:,.0f} km"
        found.append(Flaw(f"the line is too long: no point may lie more than {far} from its middle"))
    return found


def _cell_flaws(shape: Cells) -> list[Flaw]:
    if not shape.cells:
        return [Flaw("there are no cells")]
    if len(shape.cells) > MOST_CELLS:
        return [Flaw(f"{len(shape.cells):,} cells are too many: at most {MOST_CELLS:,}")]
    found = []
    for index, cell in enumerate(shape.cells):
        if not h3.is_valid_cell(cell):
            found.append(Flaw(f"cell {index + 1}: {cell:x} is no H3 cell", None, None, index))
        elif h3.get_resolution(cell) < COARSEST_CELLS:
            message = f"cell {index + 1}: {cell:x} is coarser than resolution {COARSEST_CELLS}"
            found.append(Flaw(message, None, None, index))
    return found


def _polygon(polygon: Polygon, at: int, several: bool, flaws: list[Flaw]) -> Polygon:
    prefix = f"polygon {at + 1}, " if several else ""
    before = sum(not flaw.mended for flaw in flaws)
    if not polygon.rings:
        flaws.append(Flaw(f"{prefix}no rings".removeprefix(" "), at))
        return polygon
    rings = tuple(_ring(ring, prefix, at, number, flaws) for number, ring in enumerate(polygon.rings))
    mended = Polygon(rings)
    if sum(not flaw.mended for flaw in flaws) == before:
        flaws.extend(_topology(mended, prefix, at))
    return mended


def _ring(ring: Ring, prefix: str, polygon: int, number: int, flaws: list[Flaw]) -> Ring:
    where = f"{prefix}ring {number + 1}"
    bad = False
    for index, (latitude, longitude) in enumerate(ring):
        problem = position_problem(latitude, longitude)
        if problem:
            bad = True
            flaws.append(Flaw(f"{where}, point {index + 1}: {problem}", polygon, number, index))
    if bad:
        return ring
    if len(set(ring)) < 3:
        flaws.append(Flaw(f"{where}: fewer than three different points", polygon, number))
        return ring
    if ring[0] != ring[-1]:
        flaws.append(Flaw(f"{where} was not closed: closed it", polygon, number, len(ring) - 1, mended=True))
        ring = (*ring, ring[0])
    points, around = unrolled(ring)
    counterclockwise = shapely.is_ccw(shapely.linearrings(points)) if not around else number == 0
    if bool(counterclockwise) != (number == 0):
        side = "clockwise" if number == 0 else "counterclockwise"
        flaws.append(Flaw(f"{where} ran {side}: turned it round", polygon, number, mended=True))
        ring = ring[::-1]
    return ring


def _topology(polygon: Polygon, prefix: str, at: int) -> list[Flaw]:
    """Self-intersections and misplaced holes, by GEOS, ring by ring first."""
    found = []
    for number, ring in enumerate(polygon.rings):
        _, around = unrolled(ring)
        flat = flat_ring(ring)
        where = f"{prefix}ring {number + 1}"
        if abs(around) > 1:
            found.append(Flaw(f"{where} goes around the earth {abs(around)} times", at, number))
        elif not shapely.is_valid(flat):
            # The area of a ring that crosses itself can be 0, that of its hull cannot.
            flawed = _reason(flat) if flat.convex_hull.area else "the points lie on one line"
            found.append(Flaw(f"{where}: {flawed}", at, number))
    if found:
        return found
    whole = flat_polygon(polygon)
    if not shapely.is_valid(whole):
        return [Flaw(f"{prefix}{_reason(whole)}", at)]
    return [Flaw(f"{prefix}the holes leave nothing", at)] if whole.area == 0 else []


def _reason(geometry: shapely.Geometry) -> str:
    """GEOS's verdict in words: `Self-intersection[1.5 2]` has the longitude first."""
    text = shapely.is_valid_reason(geometry)
    match = re.fullmatch(r"(.+)\[(\S+) (\S+)\]", text)
    if match is None:
        return str(text)
    what = {
        "Self-intersection": "crosses itself",
        "Ring Self-intersection": "touches itself",
        "Hole lies outside shell": "a hole lies outside",
        "Holes are nested": "a hole lies in another hole",
        "Interior is disconnected": "the holes cut it in two",
        "Too few points in geometry component": "too few different points",
    }.get(match[1], match[1])
    longitude = (float(np.float64(match[2])) + 180) % 360 - 180
    return f"{what} near latitude {float(match[3]):.6f}, longitude {longitude:.6f}"
