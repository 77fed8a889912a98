"""The expression language: three truth values, its departures from CEL, its messages and limits."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from engine.domain.offers.expressions import ExpressionError, Names, Type, compile_expression
from engine.domain.offers.scope import UNKNOWN, Scope
from loadtest.expressions import measure

NOW = datetime(2026, 1, 12, 9, 5, 6, 789000, tzinfo=UTC)
PROFILE: dict[str, Type | Names] = {
    **{f"i{n}": Type.NUMBER for n in range(2)},
    **{f"d{n}": Type.NUMBER for n in range(2)},
    **{f"s{n}": Type.STRING for n in range(2)},
    **{f"b{n}": Type.BOOL for n in range(2)},
    "t0": Type.TIMESTAMP,
    "numbers": Type.LIST,
    "texts": Type.LIST,
    "any": Type.ANY,
    "tier": Type.STRING,
    "first name": Type.STRING,
    "zero": Type.NUMBER,
    "attribution": {"source": Type.STRING},
}
NAMES: Names = {
    "profile": PROFILE,
    "event": {"name": Type.STRING, "properties": Type.MAP},
    "weather": {"temp_c": Type.NUMBER},
    "geofence": Type.MAP,
    "propensity": {"redeem": Type.NUMBER},
    "now": Type.TIMESTAMP,
}


def value_of(text: str, **scope: Any) -> Any:
    return compile_expression(text, NAMES).evaluate(Scope(**{"now": NOW, **scope}))


def problems_of(text: str, expect: Type | None = None) -> list[tuple[str, str, str | None]]:
    """Each problem's message, the characters it marks, and its suggestion."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, NAMES, expect=expect)
    return [
        (each.message, text[each.offset : each.offset + each.length], each.suggestion)
        for each in caught.value.problems
    ]


# Three truth values.

TRUTHS = {"true": True, "false": False, "profile.b0": UNKNOWN, "profile.i0 > 1": UNKNOWN}


@pytest.mark.parametrize("left", TRUTHS)
@pytest.mark.parametrize("right", TRUTHS)
def test_three_valued_logic(left: str, right: str) -> None:
    both = {TRUTHS[left], TRUTHS[right]}
    assert value_of(f"{left} && {right}") is (
        False if False in both else UNKNOWN if UNKNOWN in both else True
    )
    assert value_of(f"{left} || {right}") is (True if True in both else UNKNOWN if UNKNOWN in both else False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("!profile.b0", UNKNOWN),
        ("profile.b0 ? 1 : 2", UNKNOWN),
        ("profile.s0 == profile.s0", UNKNOWN),
        ("profile.s0 != 'a'", UNKNOWN),
        ("profile.s0 in ['a']", UNKNOWN),
        ("profile.i0 in [1, 2]", UNKNOWN),
        ("'a' in profile.texts", UNKNOWN),
        ("'a' in [profile.s0, 'a']", UNKNOWN),
        ("profile.any", UNKNOWN),
        ("has(profile.any)", False),
        ("has(event.properties.gone)", False),
        ("has(event.properties.products.gone.deeper)", False),
        ("event.properties.products[0].sku", "A"),
        ("event.properties.products[1].sku", UNKNOWN),
        ("event.properties.products[9].sku", UNKNOWN),
        ("event.properties.products.exists(p, p.sku == 'A')", True),
        ("event.properties.products.exists(p, p.sku == 'Z')", UNKNOWN),
        ("event.properties.products.all(p, p.sku == 'Z')", False),
        ("event.properties.products.map(p, p.sku)", UNKNOWN),
        ("event.properties.products.map(p, has(p.sku), p.sku)", ["A"]),
        ("[[1, 2], [3]].map(l, l.map(x, x * 2))", [[2, 4], [6]]),
        ("[profile.i0].size()", UNKNOWN),
        ("{'a': profile.i0}", UNKNOWN),
        ("[1, null]", [1, None]),
        ("null in [1, null]", True),
        ("true ? null : 1", None),
        ("event.properties.any == null || true", True),
    ],
)
def test_unknown_is_not_false(text: str, value: Any) -> None:
    if text.startswith("event.properties.any"):
        assert problems_of(text)[0][2] == "!has(event.properties.any)"
        return
    products = [{"sku": "A"}, {"sku": None}]
    found = value_of(text, event={"properties": {"products": products}}, profile={"any": None})
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("weather.temp_c < 12", True),
        ("0.5 * profile.i0", 1.5),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("7 / 2.0", 3.5),
        ("-7 % 4", -3),
        ("profile.i0 == 3.0", True),
        ("profile.i0 in [3.0]", True),
        ("9223372036854775807 + profile.i0", UNKNOWN),
        ("1e308 * 10.0", UNKNOWN),
        ("1.0 / profile.zero", UNKNOWN),
        ("profile.any == 1", False),
        ("profile.any in [1, 2]", False),
        ("1 in profile.numbers", False),
        ("profile.any + 1", UNKNOWN),
        ("profile.any > 0", UNKNOWN),
        ("string(1000000.0)", "1000000"),
        ("string(duration('7d'))", "604800s"),
        ("now.getHours('Europe/Dublin') == 9", True),
        ('profile["first name"] + r"\\d" + "\\u00e9"', "Ada\\dé"),
        ("int('12') + int('x')", UNKNOWN),
        ("profile.attribution.source.startsWith('news')", True),
        ("1 < 2 // a comment", True),
        ("'new\\nline'.matches('e$')", True),
        ("profile.tier.matches('^(?:gold|silver)$')", True),
        ("'b'.replace('b', 'bb').replace('', 'b').size()", 5),
    ],
)
def test_values(text: str, value: Any) -> None:
    profile = {
        "i0": 3, "any": True, "zero": 0.0, "numbers": [True, "1"], "first name": "Ada", "tier": "gold",
        "attribution": {"source": "newsletter"},
    }  # fmt: skip
    found = value_of(text, profile=profile, weather={"temp_c": 4.0})
    assert found == value
    assert type(found) is type(value)


def test_a_result_is_of_the_type_that_was_asked_for() -> None:
    expression = compile_expression("profile.any", NAMES, expect=Type.BOOL)
    assert expression.type is Type.BOOL
    assert expression.evaluate(Scope(profile={"any": 1})) is UNKNOWN
    assert expression.evaluate(Scope(profile={"any": True})) is True
    number = compile_expression("profile.d0", NAMES, expect=Type.NUMBER)
    assert number.evaluate(Scope(profile={"d0": True})) is UNKNOWN


def test_tells_what_it_reads_and_nothing_else() -> None:
    expression = compile_expression(
        'profile["tier"] == "gold" && propensity.redeem > 0.5 && now > profile.t0 && has(geofence.open.daily)'
        " && event.properties.products[0].exists(p, p.sku in profile.texts)",
        NAMES,
    )
    assert expression.reads == {
        "profile.tier", "propensity.redeem", "now", "profile.t0", "geofence.open.daily",
        "event.properties.products", "profile.texts",
    }  # fmt: skip
    assert repr(compile_expression("1 < 2", NAMES)) == "Expression('1 < 2')"


# Messages.


@pytest.mark.parametrize(
    ("text", "message", "marked", "suggestion"),
    [
        ("profle.tier == 'gold'", "there is no `profle`", "profle", "profile"),
        ("tier == 'gold'", "there is no `tier`", "tier", "profile.tier"),
        ("1 < 2 && profile.teir == 'gold'", "`profile` has no `teir`", "teir", "tier"),
        ("profile['teir'] == 'gold'", "`profile` has no `teir`", "'teir'", '"tier"'),
        ("profile.attribution.sorce", "`profile.attribution` has no `sorce`", "sorce", "source"),
        ("profile.tier.startswith('g')", "there is no function `startswith`", "startswith", "startsWith"),
        ("startsWith(profile.tier, 'g')", "startsWith() is written as in text.startsWith(…)",
         "startsWith(profile.tier, 'g')", None),
        ("profile.tier.contains(3)", "contains() asks for a text here, this is a number", "3", None),
        ("profile.tier.contains()", "contains() takes 1 argument, not 0", "contains()", None),
        ("profile.tier > 3", "cannot compare a text with a number", "profile.tier > 3", None),
        ("weather.temp_c == '12'", "a number is never equal to a text", "weather.temp_c == '12'", None),
        ("profile.tier in [1, 2]", "a text is never in a list of numbers", "profile.tier in [1, 2]", None),
        ("profile.tier in 'gold'", "`in` looks into a list, this is a text", "'gold'", None),
        ("now + 40", "`+` cannot join a time and a number", "now + 40", None),
        ("now - profile.t0 > 40m", 'a duration is written duration("40m")', "40m", 'duration("40m")'),
        ("profile.t0 - now > duration('40 min')",
         "not a duration: write 90s, 5m, 2h, 7d or 1h30m", "'40 min'", None),
        ("now > timestamp('2026-11-01')",
         'not a time: write it as in "2026-11-01T09:00:00Z"', "'2026-11-01'", None),
        ("now.getHours('Europe/Dublim') > 3",
         "there is no time zone `Europe/Dublim`", "'Europe/Dublim'", None),
        ("now.getHours > 3", "a time has no member `getHours`", "getHours", "getHours()"),
        ("profile.tier = 'gold'", "to compare, write `==`", "=", "=="),
        ("profile.b0 and profile.b1", "for `and`, write `&&`", "and", "&&"),
        ("not profile.b0", "for `not`, write `!`", "not", "!"),
        ("profile.b0 == True", "there is no `True`", "True", "true"),
        ("profile.tier == “gold”", "texts stand in straight quotes", "“", '"'),
        ("profile.tier == 'gold", "this text has no closing quote", "'gold", None),
        ("(profile.b0 || profile.b1", "this `(` is never closed", "(", None),
        ("profile.b0 &&", "expected a value, found the end", "", None),
        ("  ", "there is no expression here", " ", None),
        ("12u", "there is one kind of whole number: leave out the `u`", "12u", "12"),
        ("b'x'", "bytes are not part of the language", "b'", None),
        ("Point{x: 1}", "messages are not part of the language", "Point{", None),
        ("{1: 2}", "the keys of a map are texts", "1", None),
        ("{'a': 1, 'a': 2}", "this key stands twice", "'a'", None),
        ("has(profile)",
         "has() asks for one member with a dot, as in has(profile.tier)", "has(profile)", None),
        ("profile.i0 / 0", "this divides by zero", "0", None),
        ("[1].map(now, 2)", "`now` already has a meaning, call the element something else", "now", None),
        ("profile.i0 ? 1 : 2", "before `?` stands a condition, this is a number", "profile.i0", None),
        ("profile.b0 ? 1 : 'a'", "either a number or a text: both have to be of one type", "1 : 'a'", None),
        ("profile.tier != null", "what is absent is unknown and never equals null: ask has()",
         "profile.tier != null", "has(profile.tier)"),
    ],
)  # fmt: skip
def test_messages(text: str, message: str, marked: str, suggestion: str | None) -> None:
    assert problems_of(text) == [(message, marked, suggestion)]


def test_all_problems_at_once() -> None:
    found = problems_of("profle.x > 1 && profile.teir == 1 && weather.temp_c == 'a' && !profile.tier && f(1)")
    assert [marked for _, marked, _ in found] == [
        "profle",
        "teir",
        "weather.temp_c == 'a'",
        "profile.tier",
        "f",
    ]


def test_expectations_are_checked() -> None:
    assert problems_of("weather.temp_c", Type.BOOL) == [
        ("expected a condition, this is a number", "weather.temp_c", None)
    ]
    assert problems_of("profile.tier", Type.NUMBER)[0][0] == "expected a number, this is a text"


# What may not run long, or reach further than it should.


@pytest.mark.parametrize(
    "text",
    [
        "profile.__class__",
        "__import__('os')",
        "profile.tier.__class__.__mro__",
        "event.properties.map(__x, 1)",
        "1 < 2" + " " * 4_000,
        "+".join(["1"] * 300),
        "&&".join(["profile.b0"] * 300),
        "(" * 200 + "1" + ")" * 200,
        "!" * 3_000 + "true",
        "[" * 3_900,
        "{'a':" * 700,
        "-" * 3_999,
        "true ? " * 500,
        "'a'" + ".trim()" * 60,
        "[1].map(a, [1].map(b, [1].map(c, 1)))",
        "9223372036854775808",
        "1" * 3_999,
        "1e999",
        r"'\ud800'",
    ],
)
def test_unsafe_is_refused(text: str) -> None:
    started = time.perf_counter()
    assert problems_of(text)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a*)*", "(?:a|b+)*c", "(.*,){20}x", r"(a)\1", "a(?=b)", "(?<!a)b", "(?P<x>a)", "a**",
     "a{1000}", "((a{50}){50}){50}", "(a", "a)", "[a", "*a", "a" * 300, r"\pL", "[b-a]", "a++"],
)  # fmt: skip
def test_unsafe_patterns_are_refused(pattern: str) -> None:
    [(message, marked, _)] = problems_of(f"profile.tier.matches({json.dumps(pattern)})")
    assert message.startswith("in the pattern")
    assert marked == json.dumps(pattern)


def test_patterns_are_written_out() -> None:
    assert problems_of("profile.tier.matches(profile.s0)")[0][1] == "profile.s0"


@pytest.mark.parametrize(
    "text",
    [
        "event.properties.text.matches('(?:a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?){2}b')",
        "event.properties.text.matches('.*.*.*.*.*.*.*.*.*x')",
        "event.properties.many.all(a, event.properties.many.all(b, a + b >= 0 && a - b < 99999))",
        "event.properties.many.all(a, event.properties.long.replace('a', 'aa').contains('b') || true)",
        "event.properties.many.map(a, event.properties.long + 'a').size() > 0",
    ],
)
def test_nothing_runs_long(text: str) -> None:
    event = {"properties": {"text": "a" * 1_000, "many": list(range(1_000)), "long": "a" * 60_000}}
    evaluate = compile_expression(text, NAMES).evaluate
    started = time.perf_counter()
    evaluate(Scope(event=event))
    assert time.perf_counter() - started < 0.5


def test_limits_at_run_time_give_unknown() -> None:
    event = {"properties": {"many": list(range(1_001)), "most": list(range(1_000)), "long": "a" * 65_536}}
    assert value_of("event.properties.many.exists(x, x == 1)", event=event) is UNKNOWN
    assert value_of("event.properties.most.exists(x, x == 1)", event=event) is True
    assert value_of("999 in event.properties.many", event=event) is True
    nested = "event.properties.most.all(a, event.properties.most.all(b, a + b >= 0))"
    assert value_of(nested, event=event) is UNKNOWN
    assert value_of("event.properties.long.endsWith('a')", event=event) is True
    assert value_of("event.properties.long + 'a'", event=event) is UNKNOWN
    assert value_of("event.properties.long.replace('a', 'aa')", event=event) is UNKNOWN
    assert value_of("event.properties.long.matches('a')", event=event) is UNKNOWN


def test_deep_values_do_not_break_a_comparison() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    event = {"properties": {"a": deep, "b": [deep[0]]}}
    assert value_of("event.properties.a == event.properties.b", event=event) is UNKNOWN
    assert value_of("event.properties.a in [event.properties.b]", event=event) is UNKNOWN


def test_a_name_that_no_scope_has_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="a scope has no weathr"):
        compile_expression("1 < 2", {"weathr": Type.MAP})


def test_the_engines_of_the_benchmark_agree() -> None:
    report = measure(rounds=1)
    assert {timing.engine for timing in report.timings} == {
        "viewfinder",
        "cel-expr-python",
        "zen-engine",
        "common-expression-language",
    }
    assert all(timing.median_microseconds > 0 for timing in report.timings)
