"""Expressions: conditions and values in CEL's syntax, compiled to one total Python function each.

**Inside the language.** Numbers (`12`, `0xFF`, `0.3`, `1e3`), texts (`"…"`, `'…'`, triple quotes, `r"…"`,
all of CEL's escapes), `true`, `false`, `null`, lists, maps with text keys, comments (`// …`);
`?:`, `||`, `&&`, `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `+`, `-`, `*`, `/`, `%`, `!`; members and
indexes (`profile["first name"]`); `has(a.b)`; and

| On | Functions |
|---|---|
| lists, maps by their keys | `all` `exists` `exists_one` `filter` `map` (two or three arguments), `size` |
| texts | `size` `contains` `startsWith` `endsWith` `matches` `lowerAscii` `upperAscii` `trim` |
| | `split` `substring` `charAt` `indexOf` `lastIndexOf` `replace` `reverse` |
| lists of texts | `join` |
| times, for a time zone | `getFullYear` `getMonth` `getDate` `getDayOfMonth` `getDayOfWeek` |
| | `getDayOfYear` `getHours` `getMinutes` `getSeconds` `getMilliseconds` |
| durations | `getHours` `getMinutes` `getSeconds` `getMilliseconds` |
| conversions | `int` `double` `string` `bool` `duration` `timestamp` |

**Outside.** Bytes, unsigned numbers, messages (`Type{…}`), `type()`, `dyn()`, optionals, macros of two
variables, names in backticks or with a leading dot, maps with other keys, and every other extension.

**Where it is not CEL, on purpose.**
- Unknown: a member that is absent, or present as null, is unknown, and so is everything CEL calls an
  error (an index out of range, a division by zero, an overflow, a text where a number should be).
  `false && unknown` is false and `true || unknown` is true in any order, as CEL's errors are; all else
  that meets an unknown is unknown. `has(a.b.c)` is always true or false. Since `a.b == null` can never
  be true it is refused.
- One kind of number: whole ones and others compare and mix (`weather.temp_c < 12`). Two whole numbers
  divide to a whole one, cut towards zero; write `/ 2.0` for the fraction. Results beyond 64 bits and
  results that are not finite are unknown. `%` takes fractions too.
- `duration` knows `d` (24 hours), times and durations have microseconds, `string` writes numbers as
  people do (`1000000`, not `1e+06`).
- `matches` takes only a written-out pattern, of the part of RE2 that `cel_regex` describes.
- A time zone of `getHours("…")` is a name of the tz database or an offset.

**Limits.** 4,000 characters, 500 parts, 50 levels, 2 macros inside each other; unknown at run time:
macros over more than 1,000 elements or with more than 100,000 steps in all, texts of more than
65,536 characters, subjects of `matches` beyond 1,000. Names that start with `__` are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from engine.domain.offers.cel_compile import compile_tree
from engine.domain.offers.cel_moments import Moment, moments_of
from engine.domain.offers.cel_problems import ExpressionError, ExpressionProblem
from engine.domain.offers.cel_signatures import Type
from engine.domain.offers.cel_syntax import parse
from engine.domain.offers.cel_types import NOUNS, Checker, Names, Words
from engine.domain.offers.scope import Scope

__all__ = [
    "Expression",
    "ExpressionError",
    "ExpressionProblem",
    "Moment",
    "Names",
    "Type",
    "Words",
    "compile_expression",
    "compile_moments",
]


class Expression(msgspec.Struct, frozen=True):
    """A compiled expression.

    `evaluate` never raises and gives UNKNOWN for everything that is not known; what it gives may be
    a list or map of the scope itself, and is not to be changed. `reads` are the dotted paths of what
    it looks at ("profile.tier", "propensity.redeem", "now"); a root alone ("propensity") means that
    it may look at any member.
    """

    text: str
    evaluate: Callable[[Scope], Any]
    reads: frozenset[str]
    type: Type

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def compile_expression(text: str, names: Names, *, expect: Type | None = None) -> Expression:
    """Compile a text against the declared names, whose roots are fields of Scope.

    With `expect`, a result of another type is a problem, and where the type shows only at run time,
    `evaluate` gives UNKNOWN for any other. Raises ExpressionError with all problems.
    """
    strange = set(names) - set(Scope.__struct_fields__)
    if strange:
        raise ValueError(f"a scope has no {', '.join(sorted(strange))}")
    tree = parse(text)
    checker = Checker(names)
    found = checker.check(tree).type
    wanted = expect or Type.ANY
    if not checker.problems and Type.ANY not in (found, wanted) and found is not wanted:
        checker.problem(f"expected {NOUNS[wanted]}, this is {NOUNS[found]}", tree)
    if checker.problems:
        raise ExpressionError(checker.problems)
    evaluate = compile_tree(tree, checker.shapes, wanted)
    return Expression(text, evaluate, frozenset(checker.reads), found if wanted is Type.ANY else wanted)


def compile_moments(text: str, names: Names, ticking: frozenset[str]) -> tuple[Moment, ...]:
    """The comparisons of a sound condition that time alone can turn: of `now`, and of the members
    of `profile` in `ticking`. Raises ExpressionError where time is used in another way."""
    tree = parse(text)
    checker = Checker(names)
    checker.check(tree)
    return moments_of(tree, checker.shapes, ticking)
