"""What is wrong with the files that people write: every problem with its place, all at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from rich.cells import cell_len

from engine.domain.offers.cel_problems import nearest

Severity = Literal["error", "warning"]
LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
"""What YAML counts as the end of a line."""

_WIDEST_LINE = 160
"""Characters of a line that are shown; a longer one is cut around the column."""


class Problem(msgspec.Struct, frozen=True):
    """One problem. `line` and `column` count from 1, in characters, and point at what is wrong.

    `suggestion` is a sentence for the author, such as `did you mean "value"?`.
    """

    file: str
    line: int
    column: int
    message: str
    suggestion: str | None = None
    severity: Severity = "error"


def did_you_mean(word: str, words: Sequence[str] | frozenset[str]) -> str | None:
    """The sentence that offers the nearest of `words`, or None where none is near."""
    close = nearest(word, words)
    return f'did you mean "{close}"?' if close is not None else None


def in_order(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """By file, line and column, each once."""
    unique = dict.fromkeys(problems)
    return tuple(sorted(unique, key=lambda p: (p.file, p.line, p.column, p.message)))


def render(problem: Problem, lines: Sequence[str] = ()) -> str:
    """The problem as text for a terminal: place and message, the line with a caret, the suggestion.

    `lines` are the file's lines; where they are not at hand, or do not reach the problem's line,
    the excerpt is left out.
    """
    kind = "" if problem.severity == "error" else "warning: "
    parts = [f"{problem.file}:{problem.line}:{problem.column}: {kind}{problem.message}"]
    if problem.line <= len(lines):
        shown, column = _excerpt(lines[problem.line - 1], problem.column)
        parts += [f"    {shown}".rstrip(), "    " + " " * cell_len(shown[: column - 1]) + "^"]
    if problem.suggestion is not None:
        parts.append(f"    {problem.suggestion}")
    return "\n".join(parts)


def render_all(problems: Sequence[Problem], sources: Mapping[str, bytes]) -> str:
    """All problems as text, each with its line from `sources` (the files by name), and a count."""
    lines = {
        file: LINE_BREAK.split(sources[file].decode(errors="replace").removeprefix("\ufeff"))
        for file in {problem.file for problem in problems}
        if file in sources and b"\0" not in sources[file]
    }
    shown = [render(problem, lines.get(problem.file, ())) for problem in problems]
    counts = Counter(problem.severity for problem in problems)
    said = (f"{n} {what}{'' if n == 1 else 's'}" for what in ("error", "warning") if (n := counts[what]))
    shown.append(", ".join(said))
    return "\n".join(shown)


def _excerpt(line: str, column: int) -> tuple[str, int]:
    """The line as one can print it, and the column in it: a tab is one blank wide."""
    text = "".join(char if char.isprintable() else " " for char in line.rstrip("\r\n"))
    if len(text) <= _WIDEST_LINE:
        return text, column
    start = max(0, min(column - _WIDEST_LINE // 2, len(text) - _WIDEST_LINE))
    return text[start : start + _WIDEST_LINE], column - start
