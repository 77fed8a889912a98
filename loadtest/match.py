"""The geofence match alone: the engine's index, shapely's and PostGIS, on the same points and shapes."""

from __future__ import annotations

import math
import multiprocessing
import pickle
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import shapely
from numpy.typing import NDArray
from rich.table import Table

from engine.domain.places.fence_index import Fence, FenceIndex, build, index_of
from engine.domain.places.packed_fences import pack
from engine.domain.places.shapes import Circle, Polygon
from loadtest import city, match_postgis
from loadtest.match_postgis import Postgis

POINTS: Final = 20_000
REPEATS: Final = 5
CIRCLE_CORNERS: Final = 64
POLYGON_CORNERS: Final = 12
MILLION: Final = 1_000_000
TOWNS: Final = 5_000
TOWN_METERS: Final = 6_000.0
POLYGON_SHARE: Final = 0.1

Points = Sequence[tuple[float, float]]


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """Finding the fences around one point, in microseconds of processor time: where others were
    before, and for the `first` time in each place. `strtree_microseconds` is shapely's index on the
    same points and shapes, a circle as a polygon of 64 corners, asked point by point; so are those of
    `postgis`, None where it is not installed."""

    shapes: str
    fences: int
    engine_microseconds: float
    first_microseconds: float
    strtree_microseconds: float
    ratio: float
    found: int
    strtree_found: int
    postgis: Postgis | None


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """An index built in another process and handed over: seconds, and megabytes of its arrays, of its
    ids with their numbers, and of the packed fences themselves."""

    build_seconds: float
    processor_seconds: float
    hand_over_seconds: float
    arrays_megabytes: float
    ids_megabytes: float
    fences_megabytes: float


class MatchReport(msgspec.Struct, frozen=True, kw_only=True):
    matches: tuple[Match, ...]
    built: Built | None = None


def measure_city() -> MatchReport:
    """10,000 circles and 10,000 polygons in one city, for people who walk in it."""
    places = [shop for chain in city.shops(random.Random(304)) for shop in chain]
    points = city_points(random.Random(305))
    circles = [Circle(p.latitude, p.longitude, p.radius_meters) for p in places]
    polygons = [city.outline_of(p, POLYGON_CORNERS) for p in places]
    cornered = np.array([_geometry(polygon) for polygon in polygons])
    round_ones = np.array([_geometry(city.outline_of(p, CIRCLE_CORNERS)) for p in places])
    return MatchReport(
        matches=(
            match("circles in a city", _built(circles), round_ones, points),
            match("polygons in a city", _built(polygons), cornered, points),
        )
    )


def measure_world() -> MatchReport:
    """A million fences in 5,000 towns, one in ten a polygon, for people in the towns."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "index"
        builder = multiprocessing.get_context("spawn").Process(target=_build_world, args=(target,))
        builder.start()
        builder.join()
        if builder.exitcode:
            raise SystemExit(builder.exitcode)
        started = time.perf_counter()
        with target.open("rb") as file:
            build_seconds, processor_seconds, index = pickle.load(file)
        hand_over_seconds = time.perf_counter() - started
    built = Built(
        build_seconds=build_seconds,
        processor_seconds=processor_seconds,
        hand_over_seconds=hand_over_seconds,
        arrays_megabytes=index.arrays.nbytes() / 1e6,
        ids_megabytes=index.ids_nbytes() / 1e6,
        fences_megabytes=(len(index.fences.data) + index.fences.starts.nbytes) / 1e6,
    )
    points = [(p.latitude, p.longitude) for p in world(random.Random(306), POINTS)]
    # One at a time: the corners as Python's numbers would take ten gigabytes.
    geometries = np.array(
        [
            _geometry(_corners(place, CIRCLE_CORNERS if number % 10 else POLYGON_CORNERS))
            for number, place in enumerate(world(random.Random(7), MILLION))
        ]
    )
    return MatchReport(matches=(match("all over the world", index, geometries, points),), built=built)


def city_points(chance: random.Random) -> Points:
    """Where the people of the city are, step by step."""
    return [
        (event.location.latitude, event.location.longitude)
        for events in city.walk(chance, POINTS // city.PEOPLE + 1)
        for event in events
        if event.location is not None
    ][:POINTS]


def match(name: str, index: FenceIndex, geometries: NDArray[np.object_], points: Points) -> Match:
    """All indexes, each asked for every point."""
    tree = shapely.STRtree(geometries)
    spots = [shapely.Point(longitude, latitude) for latitude, longitude in points]
    shapely.prepare(tree.geometries)

    def by_engine() -> int:
        containing = index.containing
        return sum(len(containing(latitude, longitude)) for latitude, longitude in points)

    def by_strtree() -> int:
        query = tree.query
        return sum(len(query(spot, predicate="intersects")) for spot in spots)

    first, _ = _timed(by_engine)
    engine, found = _best(by_engine)
    strtree, strtree_found = _best(by_strtree)
    return Match(
        shapes=name,
        fences=len(index),
        engine_microseconds=engine / len(points) * 1e6,
        first_microseconds=first / len(points) * 1e6,
        strtree_microseconds=strtree / len(points) * 1e6,
        ratio=strtree / engine,
        found=found,
        strtree_found=strtree_found,
        postgis=match_postgis.measure(geometries, points),
    )


def _geometry(polygon: Polygon) -> shapely.Polygon:
    return shapely.Polygon(np.array(polygon.rings[0])[:, ::-1])


def _built(shapes: Sequence[Circle | Polygon]) -> FenceIndex:
    return build(Fence(str(number), shape) for number, shape in enumerate(shapes))


def world(chance: random.Random, count: int) -> Iterator[city.Place]:
    """Places in towns: the same towns whatever the generator, between the polar circles."""
    towns = random.Random(5)
    middles = [
        (math.degrees(math.asin(towns.uniform(-0.9, 0.9))), towns.uniform(-179, 179)) for _ in range(TOWNS)
    ]
    for _ in range(count):
        latitude, longitude = chance.choice(middles)
        north, east = chance.gauss(0, TOWN_METERS / 2), chance.gauss(0, TOWN_METERS / 2)
        wide = 111_195.0 * math.cos(math.radians(latitude))
        radius = chance.uniform(30, 150)
        yield city.Place(latitude + north / 111_195.0, longitude + east / wide, radius)


def _corners(place: city.Place, corners: int) -> Polygon:
    """A regular polygon in the circle, at any latitude."""
    wide = 111_195.0 * math.cos(math.radians(place.latitude))
    ring = [
        (
            place.latitude + place.radius_meters * math.cos(turn) / 111_195.0,
            place.longitude + place.radius_meters * math.sin(turn) / wide,
        )
        for turn in (2 * math.pi * corner / corners for corner in range(corners))
    ]
    return Polygon(((*ring, ring[0]),))


def _build_world(target: Path) -> None:
    """In a process of its own: the fences, and their index, as a pickle with the seconds it took."""
    fences = pack(
        Fence(
            f"fence-{number}",
            Circle(place.latitude, place.longitude, place.radius_meters)
            if number % round(1 / POLYGON_SHARE)
            else _corners(place, POLYGON_CORNERS),
        )
        for number, place in enumerate(world(random.Random(7), MILLION))
    )
    started, spent = time.perf_counter(), time.process_time()
    index = index_of(fences)
    seconds, spent = time.perf_counter() - started, time.process_time() - spent
    with target.open("wb") as file:
        pickle.dump((seconds, spent, index), file, protocol=pickle.HIGHEST_PROTOCOL)


def _timed(work: Callable[[], int]) -> tuple[float, int]:
    started = time.process_time()
    answer = work()
    return time.process_time() - started, answer


def _best(work: Callable[[], int]) -> tuple[float, int]:
    """The least time of some repeats, in seconds of processor time, and what the work answered: what
    else the machine does only ever adds to it."""
    times, answer = [], 0
    for _ in range(REPEATS):
        seconds, answer = _timed(work)
        times.append(seconds)
    return min(times), answer


def table(report: MatchReport) -> Table:
    """Microseconds, and the ratio to shapely's index."""
    missing = "not installed"
    grid = Table(title="geofences around a point, one thread", title_justify="left")
    grid.add_column("fences")
    for heading in (
        "µs",
        "first time µs",
        "STRtree µs",
        "STRtree / engine",
        "PostGIS batch µs",
        "PostGIS one by one µs",
    ):
        grid.add_column(heading, justify="right")
    for one in report.matches:
        grid.add_row(
            f"{one.fences:,} {one.shapes}",
            f"{one.engine_microseconds:.2f}",
            f"{one.first_microseconds:.2f}",
            f"{one.strtree_microseconds:.2f}",
            f"{one.ratio:.1f}",
            f"{one.postgis.batch_microseconds:.1f}" if one.postgis is not None else missing,
            f"{one.postgis.singly_microseconds:.0f}" if one.postgis is not None else missing,
        )
    return grid


def notes(report: MatchReport) -> str:
    """What was found, and what the index takes."""
    found = "; ".join(
        f"{m.found:,} / {m.strtree_found:,}{f' / {m.postgis.found:,}' if m.postgis else ''} {m.shapes}"
        for m in report.matches
    )
    lines = [f"Found by engine / STRtree / PostGIS around {POINTS:,} points: {found}."]
    if (peer := report.matches[0].postgis) is not None:
        lines.append(
            f"PostGIS {peer.version} on PostgreSQL 15, geometries with a GiST index: its own processor time, "
            f"of {peer.points:,} points in one query, and of {peer.singly:,} one by one, each with its "
            f"answer after {peer.singly_wall_microseconds:.0f} µs."
        )
    else:
        lines.append("PostGIS: apt-get install postgresql-15-postgis-3, to have it beside.")
    if report.built is not None:
        b = report.built
        lines.append(
            f"Built in another process in {b.build_seconds:.0f} s of wall time "
            f"({b.processor_seconds:.0f} s of processor time), "
            f"handed over in {b.hand_over_seconds:.1f} s: "
            f"arrays {b.arrays_megabytes:,.0f} MB, ids {b.ids_megabytes:,.0f} MB, "
            f"the fences themselves {b.fences_megabytes:,.0f} MB."
        )
    return "\n".join(lines)
