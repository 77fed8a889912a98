"""What can be wrong with an expression, located in its text."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Final

import msgspec

_MANY: Final = 5_000


class ExpressionProblem(msgspec.Struct, frozen=True):
    """One thing wrong: `offset` and `length` mark the characters at fault (0-based, in characters).

    `suggestion`, where there is one, is the text to put in the place of those characters. `name` is
    the dotted name that nobody declared, where that is what is wrong.
    """

    message: str
    offset: int
    length: int
    suggestion: str | None = None
    name: str = ""


class ExpressionError(ValueError):
    """An expression that cannot be used, with every problem that was found, in order of the text."""

    def __init__(self, problems: Iterable[ExpressionProblem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.offset))
        super().__init__("; ".join(problem.message for problem in self.problems))


def refuse(message: str, start: int, end: int, suggestion: str | None = None) -> ExpressionError:
    """The error of a single problem between two offsets."""
    return ExpressionError([ExpressionProblem(message, start, max(end - start, 1), suggestion)])


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that a person who wrote `word` probably meant. Among very many only one that
    begins as it does and is about as long."""
    words = list(words)
    if len(words) > _MANY:
        first, length = word[:1].lower(), len(word)
        alike = (one for one in words if one[:1].lower() == first and abs(len(one) - length) <= 1)
        words = list(islice(alike, _MANY))
    by_lower = {candidate.lower(): candidate for candidate in sorted(words)}
    close = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None
