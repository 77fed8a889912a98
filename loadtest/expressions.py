"""One condition, compiled, in four engines: ours, CEL's own, and two others, in one process.

Each evaluates the same condition on the same values with a small profile and with a large one; what
crosses into another language has to be converted at every evaluation, so that the size of the
profile counts there. Runs take turns and are timed in CPU time, so that what else the machine does
matters little.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from statistics import median
from typing import Any, Final

import cel as rust_cel
import msgspec
import zen
from cel_expr_python import cel as google_cel  # type: ignore[import-untyped]
from rich.table import Table

from engine.domain.offers.expressions import Names, Type, compile_expression
from engine.domain.offers.scope import Scope

CONDITION: Final = (
    'profile.tier in ["gold", "silver"] && weather.temp_c < 12.0 && profile.days_since_order > 3'
)
REACH_MICROSECONDS: Final = 0.35
"""What the median of ours is to stay under, with the small profile."""
ROUNDS: Final = 41
MORE_TRAITS: Final = 100

_NAMES: Final[Names] = {
    "profile": {"tier": Type.STRING, "days_since_order": Type.NUMBER},
    "weather": {"temp_c": Type.NUMBER},
}


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds of one evaluation, the median over the rounds; the same with 100 more traits."""

    engine: str
    version: str
    median_microseconds: float
    with_more_traits_microseconds: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    condition: str
    reach_microseconds: float
    timings: tuple[Timing, ...]


def measure(rounds: int = ROUNDS) -> Report:
    """Times all of them. Every one has to answer true first."""
    small = {"tier": "gold", "days_since_order": 9.5, "first_name": "Ada"}
    large = small | {f"trait_{number}": f"value {number}" for number in range(MORE_TRAITS)}
    weather = {"temp_c": 4.0}
    runs = {name: [make(profile, weather) for profile in (small, large)] for name, make in _ENGINES.items()}
    for pair in runs.values():
        assert all(run() is True for run in pair)
    calls = {name: [_calls(run) for run in pair] for name, pair in runs.items()}
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in runs}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, pair in runs.items():
                for place, run in enumerate(pair):
                    times[name][place].append(_time(run, calls[name][place]))
    finally:
        gc.enable()
    return Report(
        condition=CONDITION,
        reach_microseconds=REACH_MICROSECONDS,
        timings=tuple(
            Timing(
                engine=name,
                version=version(name),
                median_microseconds=median(few),
                with_more_traits_microseconds=median(many),
            )
            for name, (few, many) in times.items()
        ),
    )


def table(report: Report) -> Table:
    shown = Table("engine", "version", "µs", f"µs, {MORE_TRAITS} more traits", title=report.condition)
    for column in shown.columns[2:]:
        column.justify = "right"
    for one in report.timings:
        shown.add_row(
            one.engine,
            one.version,
            f"{one.median_microseconds:.3f}",
            f"{one.with_more_traits_microseconds:.3f}",
        )
    return shown


def _calls(run: Callable[[], Any]) -> int:
    """So many that a round takes some milliseconds."""
    return max(20, int(0.004 * 1e6 / max(min(_time(run, 100) for _ in range(5)), 0.1)))


def _time(run: Callable[[], Any], calls: int) -> float:
    """Microseconds of one call, the loop's own share taken off."""
    empty = _loop(_nothing, calls)
    return max(_loop(run, calls) - empty, 0.0) / calls * 1e6


def _loop(run: Callable[[], Any], calls: int) -> float:
    started = time.thread_time()
    for _ in range(calls):
        run()
    return time.thread_time() - started


def _nothing() -> None:
    """What is called where only the loop is timed."""


def _viewfinder(profile: dict[str, Any], weather: dict[str, Any]) -> Callable[[], Any]:
    evaluate = compile_expression(CONDITION, _NAMES, expect=Type.BOOL).evaluate
    scope = Scope(profile=profile, weather=weather, now=datetime(2026, 1, 12, tzinfo=UTC))
    return partial(evaluate, scope)


def _cel(profile: dict[str, Any], weather: dict[str, Any]) -> Callable[[], Any]:
    anything = google_cel.Type.Map(google_cel.Type.STRING, google_cel.Type.DYN)
    environment = google_cel.NewEnv(variables={"profile": anything, "weather": anything})
    program = environment.compile(CONDITION.replace("> 3", "> 3.0"))
    data = {"profile": profile, "weather": weather}
    return lambda: program.eval(data=data).plain_value()


def _zen(profile: dict[str, Any], weather: dict[str, Any]) -> Callable[[], Any]:
    program = zen.compile_expression(CONDITION.replace("&&", "and"))
    data = {"profile": profile, "weather": weather}
    return partial(program.evaluate, data)


def _common(profile: dict[str, Any], weather: dict[str, Any]) -> Callable[[], Any]:
    program = rust_cel.compile(CONDITION.replace("> 3", "> 3.0"))
    data = {"profile": profile, "weather": weather}
    return partial(program.execute, data)


_ENGINES: Final = {
    "viewfinder": _viewfinder,
    "cel-expr-python": _cel,
    "zen-engine": _zen,
    "common-expression-language": _common,
}
