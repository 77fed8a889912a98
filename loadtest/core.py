"""The pure core in this process: what a decision on a location fix costs, and the geofence match."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

import msgspec
import numpy as np
import shapely
from rich.table import Table

from engine.app.ruling import Ruling
from engine.domain import decide
from engine.domain.offers.propensity import features
from engine.domain.people.events import Event
from engine.domain.people.profiles import Profile
from engine.domain.places.fence_index import Fence, build
from engine.domain.places.shapes import Circle, Polygon, Shape
from loadtest import city

STEPS: Final = 60
WARM_STEPS: Final = 10
ROUND_EVENTS: Final = 64
"""Events that share one run of a model, as in a busy tick."""
POINTS: Final = 20_000
REPEATS: Final = 5
CIRCLE_CORNERS: Final = 64
POLYGON_CORNERS: Final = 12

_Points = Sequence[tuple[float, float]]


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """Finding the fences around one point. `strtree_microseconds` is shapely's index on the same
    points and shapes, a circle as a polygon of 64 corners."""

    shapes: str
    fences: int
    engine_microseconds: float
    strtree_microseconds: float
    ratio: float
    found: int
    strtree_found: int


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """One location fix, on average: microseconds of `observe`, of `judge`, of the model with its
    inputs, and of all. The shares are of fixes: that entered or left a fence; that had candidates."""

    fences: int
    rules: int
    microseconds: float
    observe_microseconds: float
    judge_microseconds: float
    model_microseconds: float
    transition_share: float
    candidate_share: float


class CoreReport(msgspec.Struct, frozen=True, kw_only=True):
    matches: tuple[Match, ...]
    decided: Decided


def measure() -> CoreReport:
    """Everything; takes some ten seconds, most of them to build the city."""
    chains = city.shops(random.Random(304))
    places = [shop for chain in chains for shop in chain]
    chance = random.Random(305)
    points = [
        (event.location.latitude, event.location.longitude)
        for events in city.walk(chance, POINTS // city.PEOPLE + 1)
        for event in events
        if event.location is not None
    ][:POINTS]
    ruling = city.ruling(chains)
    circles = [Circle(p.latitude, p.longitude, p.radius_meters) for p in places]
    polygons = [city.outline_of(p, POLYGON_CORNERS) for p in places]
    return CoreReport(
        matches=(
            _match("circles", circles, [city.outline_of(p, CIRCLE_CORNERS) for p in places], points),
            _match("polygons", polygons, polygons, points),
        ),
        decided=_decided(ruling, chance),
    )


def _match(name: str, shapes: Sequence[Shape], polygons: Sequence[Polygon], points: _Points) -> Match:
    index = build(Fence(str(number), shape) for number, shape in enumerate(shapes))
    tree = shapely.STRtree([_geometry(polygon) for polygon in polygons])
    spots = [shapely.Point(longitude, latitude) for latitude, longitude in points]
    shapely.prepare(tree.geometries)

    def by_engine() -> int:
        containing = index.containing
        return sum(len(containing(latitude, longitude)) for latitude, longitude in points)

    def by_strtree() -> int:
        query = tree.query
        return sum(len(query(spot, predicate="intersects")) for spot in spots)

    engine, found = _best(by_engine)
    strtree, strtree_found = _best(by_strtree)
    return Match(
        shapes=name,
        fences=len(index),
        engine_microseconds=engine / len(points) * 1e6,
        strtree_microseconds=strtree / len(points) * 1e6,
        ratio=strtree / engine,
        found=found,
        strtree_found=strtree_found,
    )


def _geometry(polygon: Polygon) -> shapely.Polygon:
    return shapely.Polygon(np.array(polygon.rings[0])[:, ::-1])


def _best(work: Callable[[], int]) -> tuple[float, int]:
    """The median time of some repeats, in seconds, and what the work answered."""
    times, answer = [], 0
    for _ in range(REPEATS):
        started = time.perf_counter()
        answer = work()
        times.append(time.perf_counter() - started)
    return median(times), answer


class _Times:
    """Seconds by part, and what was seen."""

    def __init__(self) -> None:
        self.observe = self.judge = self.model = 0.0
        self.fixes = self.transitions = self.candidates = 0


def _decided(ruling: Ruling, chance: random.Random) -> Decided:
    people = city.people(ruling)
    gc.collect()
    gc.freeze()  # as the engine does after it has started
    times = _Times()
    for step, events in enumerate(city.walk(chance, STEPS)):
        if step == WARM_STEPS:  # by now everyone has entered what they started in
            times = _Times()
        for start in range(0, len(people), ROUND_EVENTS):
            part = slice(start, start + ROUND_EVENTS)
            people[part] = _round(ruling, people[part], events[part], times)
    per_fix = 1e6 / times.fixes
    return Decided(
        fences=len(ruling.rules.fences),
        rules=len(ruling.rules.rules),
        microseconds=(times.observe + times.judge + times.model) * per_fix,
        observe_microseconds=times.observe * per_fix,
        judge_microseconds=times.judge * per_fix,
        model_microseconds=times.model * per_fix,
        transition_share=times.transitions / times.fixes,
        candidate_share=times.candidates / times.fixes,
    )


def _round(
    ruling: Ruling, people: Sequence[Profile], events: Sequence[Event], times: _Times
) -> list[Profile]:
    """One event of each person, as the lane decides them: see `Lane._decide`."""
    rules, now = ruling.rules, events[0].received_at
    started = time.perf_counter()
    seen = [decide.observe(rules, p, e, now) for p, e in zip(people, events, strict=True)]
    observed = time.perf_counter()
    verdicts = [decide.judge(rules, one, now) for one in seen]
    judged = time.perf_counter()
    asking = [number for number, verdict in enumerate(verdicts) if verdict.needed]
    scores: dict[int, dict[str, float | None]] = {number: {} for number in asking}
    for name in {name for number in asking for name in verdicts[number].needed}:
        card = rules.models[name]
        wanted = [number for number in asking if name in verdicts[number].needed]
        rows = [features(card, scope) for n in wanted if (scope := verdicts[n].scope) is not None]
        for number, score in zip(wanted, ruling.models[name].predict(rows), strict=True):
            scores[number][name] = score
    scored = time.perf_counter()
    for number in asking:
        verdicts[number] = decide.judge(rules, seen[number], now, None, scores[number])
    ended = time.perf_counter()
    times.observe += observed - started
    times.judge += judged - observed + ended - scored
    times.model += scored - judged
    times.fixes += len(events)
    times.transitions += sum(1 for one in seen if len(one.triggers) > 1)
    times.candidates += sum(1 for verdict in verdicts if verdict.decisions)
    return [verdict.profile for verdict in verdicts]


def table(report: CoreReport) -> Table:
    """Microseconds, and the ratio to shapely's index."""
    grid = Table(title="the pure core, one thread", title_justify="left")
    grid.add_column("what")
    for heading in ("µs", "STRtree µs", "STRtree / engine"):
        grid.add_column(heading, justify="right")
    for match in report.matches:
        grid.add_row(
            f"geofence match, {match.fences:,} {match.shapes}",
            f"{match.engine_microseconds:.2f}",
            f"{match.strtree_microseconds:.2f}",
            f"{match.ratio:.1f}",
        )
    decided = report.decided
    grid.add_section()
    grid.add_row("a decision on a location fix", f"{decided.microseconds:.1f}", "", "")
    grid.add_row("  observe", f"{decided.observe_microseconds:.1f}", "", "")
    grid.add_row("  judge", f"{decided.judge_microseconds:.1f}", "", "")
    grid.add_row("  model, with its inputs", f"{decided.model_microseconds:.1f}", "", "")
    return grid


def notes(report: CoreReport) -> str:
    """What the averages are over."""
    decided = report.decided
    found = ", ".join(f"{m.found:,} / {m.strtree_found:,} {m.shapes}" for m in report.matches)
    return (
        f"{decided.fences:,} circles, {decided.rules} rules, a model run per {ROUND_EVENTS} fixes; of people "
        f"on foot, {decided.transition_share:.0%} of whose fixes entered or left a fence and "
        f"{decided.candidate_share:.0%} had candidates.\n"
        f"Found by engine / STRtree around {POINTS:,} points: {found}."
    )
