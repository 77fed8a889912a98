"""The expression language against the conformance cases of the CEL specification, for its subset."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.domain.offers.expressions import ExpressionError, Names, Type, compile_expression
from engine.domain.offers.scope import UNKNOWN, Scope

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CASES = json.loads((Path(__file__).parent / "data/cel/conformance.json").read_text("utf-8"))

DEPARTURES = {
    "fp_math/fp_math/mod_not_support": "`%` takes fractions too",
    "fp_math/fp_math/fp_overflow_positive": "results that are not finite are unknown",
    "fp_math/fp_math/fp_overflow_negative": "results that are not finite are unknown",
    "timestamps/timestamp_conversions/toString_timestamp_nanos": "times have microseconds",
    "timestamps/timestamp_arithmetic/add_time_to_duration_nanos_negative": "times have microseconds",
    "timestamps/timestamp_arithmetic/add_time_to_duration_nanos_positive": "times have microseconds",
    "timestamps/timestamp_range/add_duration_nanos_over": "times have microseconds",
    "timestamps/timestamp_range/add_duration_nanos_under": "times have microseconds",
    "timestamps/timestamp_range/sub_time_duration_over": "durations are as long as the calendar",
    "timestamps/timestamp_range/sub_time_duration_under": "durations are as long as the calendar",
}
"""What differs on purpose: the README of the workspace says so."""


class Refused(NamedTuple):
    message: str


def value_of(tagged: dict[str, Any]) -> Any:
    [(kind, value)] = tagged.items()
    match kind:
        case "list":
            return [value_of(each) for each in value]
        case "map":
            return {key: value_of(each) for key, each in value.items()}
        case "timestamp":
            return EPOCH + timedelta(seconds=value[0], microseconds=value[1] // 1000)
        case "duration":
            return timedelta(seconds=value[0], microseconds=value[1] // 1000)
        case "double":
            return float(value)
    return value


def answer(case: dict[str, Any]) -> Any:
    """What the expression comes to here, or the message with which it is refused. A variable of the
    case is a member of `event`."""
    bound = {name: value_of(value) for name, value in case.get("bindings", {}).items()}
    text = case["expr"]
    for name in bound:
        text = re.sub(rf"(?<![\w.'\"]){re.escape(name)}\b", f"event.{name}", text)
    names: Names = {"event": dict.fromkeys(bound, Type.ANY)}
    try:
        return compile_expression(text, names).evaluate(Scope(event=bound))
    except ExpressionError as error:
        return Refused(error.problems[0].message)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES])
def test_agrees_with_the_specification(case: dict[str, Any]) -> None:
    found = answer(case)
    if "refused" in case:
        assert found == Refused(case["refused"])
        return
    if "error" in case:
        agrees = found is UNKNOWN or isinstance(found, Refused)
    else:
        wanted = value_of(case["value"])
        agrees = found == wanted and type(found) is type(wanted)
    assert agrees is (case["id"] not in DEPARTURES), found


def test_the_cases_are_many() -> None:
    assert len(CASES) > 700
    assert sum("refused" in case for case in CASES) < 20
