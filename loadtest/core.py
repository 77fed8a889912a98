"""The pure core in this process: what a decision on a location fix costs, and the geofence match."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Sequence
from typing import Final

import msgspec
from rich.table import Table

from engine.app.ruling import Ruling
from engine.domain import decide
from engine.domain.offers.propensity import features
from engine.domain.people.events import Event
from engine.domain.people.profiles import Profile
from loadtest import city, match

STEPS: Final = 60
WARM_STEPS: Final = 10
ROUND_EVENTS: Final = 64
"""Events that share one run of a model, as in a busy tick."""


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
    matches: tuple[match.Match, ...]
    decided: Decided


def measure() -> CoreReport:
    """Everything; takes some twenty seconds, most of them to build the city."""
    ruling = city.ruling(city.shops(random.Random(304)))
    return CoreReport(
        matches=match.measure_city().matches,
        decided=_decided(ruling, random.Random(305)),
    )


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
    for one in report.matches:
        grid.add_row(
            f"geofence match, {one.fences:,} {one.shapes}",
            f"{one.engine_microseconds:.2f}",
            f"{one.strtree_microseconds:.2f}",
            f"{one.ratio:.1f}",
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
        f"Found by engine / STRtree around {match.POINTS:,} points: {found}."
    )
