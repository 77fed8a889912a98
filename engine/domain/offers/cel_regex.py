"""Patterns for `matches`: a search that takes time in proportion to the text, whatever the pattern.

The syntax is the part of RE2's that people write: texts, `.`, classes, `\\d \\w \\s` and their
opposites, groups, `|`, `* + ? {n,m}`, `^ $ \\b \\B`, and `(?i)` in front. Letters, digits and
spaces of the escapes are those of ASCII; `.` is anything but a line's end; `^` and `$` are the ends
of the whole text. Refused when it is compiled: looking around, back-references, repeats inside
repeats, and patterns that would grow beyond MAX_STATES.

A pattern becomes a set of states walked all at once (Thompson), each set that was seen is kept
together with where its characters lead (a DFA built as texts need it), so there is nothing to
backtrack into.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

MAX_PATTERN: Final = 200
MAX_STATES: Final = 300
MAX_REPEAT: Final = 100
MAX_SUBJECT: Final = 1_000
MAX_REMEMBERED: Final = 5_000

WORD: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
CLASSES: Final = {"d": (("0", "9"),), "s": (("\t", "\n"), ("\f", "\r"), (" ", " ")),
                  "w": (("0", "9"), ("A", "Z"), ("_", "_"), ("a", "z"))}  # fmt: skip
CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}


COUNT = re.compile(r"\{([0-9]+)(?:,([0-9]*))?\}")
PLAIN_ESCAPES: Final = frozenset("\\.+*?()|[]{}^$/-&~#@%!\"'=<>:;, ")


class PatternError(ValueError):
    """A pattern that is not allowed, and where in it."""

    def __init__(self, message: str, start: int) -> None:
        super().__init__(message)
        self.start = start


class Letters(msgspec.Struct, frozen=True):
    """One character in any of the ranges, or in none of them."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool = False

    def include(self, letter: str, fold: bool) -> bool:
        forms = (letter, letter.lower(), letter.upper()) if fold else (letter,)
        return any(low <= form <= high for low, high in self.ranges for form in forms) != self.negated


class Edge(msgspec.Struct, frozen=True):
    """A place without width: `^`, `$`, `b` or `B`."""

    kind: str


class Sequence(msgspec.Struct, frozen=True):
    parts: tuple[Part, ...]


class Choice(msgspec.Struct, frozen=True):
    parts: tuple[Part, ...]


class Repeat(msgspec.Struct, frozen=True):
    """`most` is None without an upper limit."""

    part: Part
    least: int
    most: int | None


Part = Letters | Edge | Sequence | Choice | Repeat


def compile_pattern(pattern: str) -> Callable[[Any], bool | None]:
    """A function that tells whether the pattern is found anywhere in a text.

    It gives None for what is no text and for texts longer than MAX_SUBJECT characters.
    Raises PatternError.
    """
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"a pattern may have {MAX_PATTERN} characters", MAX_PATTERN)
    fold = pattern.startswith("(?i)")
    return Machine(Reader(pattern, 4 if fold else 0).whole(), fold).search


class Reader:
    """Where we are in a pattern."""

    def __init__(self, pattern: str, at: int) -> None:
        self.pattern = pattern
        self.at = at

    def whole(self) -> Part:
        part = self.choice(0)
        if self.at < len(self.pattern):
            raise PatternError("this `)` was never opened", self.at)
        return part

    def peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.at)

    def step(self, text: str) -> bool:
        found = self.peek(text)
        self.at += len(text) * found
        return found

    def letter(self) -> str:
        if self.at >= len(self.pattern):
            raise PatternError("the pattern ends too early", len(self.pattern))
        self.at += 1
        return self.pattern[self.at - 1]

    def choice(self, depth: int) -> Part:
        if depth > 20:
            raise PatternError("groups are nested too deeply", self.at)
        parts = [self.sequence(depth)]
        while self.step("|"):
            parts.append(self.sequence(depth))
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def sequence(self, depth: int) -> Part:
        parts: list[Part] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            start = self.at
            parts.append(self.repeated(self.atom(depth), start))
        return Sequence(tuple(parts))

    def repeated(self, part: Part, start: int) -> Part:
        count = self.count()
        if count is None:
            return part
        self.step("?")
        least, most = count
        if self.count() is not None or self.peek("+"):
            raise PatternError("a repeat of a repeat is not allowed", start)
        if isinstance(part, Edge):
            raise PatternError("there is nothing to repeat here", start)
        if most != 1 and _varies(part):
            raise PatternError("repeats inside repeats are not allowed", start)
        return Repeat(part, least, most)

    def count(self) -> tuple[int, int | None] | None:
        """The repeat that stands here, if one does."""
        for sign, count in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.step(sign):
                return count
        found = COUNT.match(self.pattern, self.at)
        if found is None:
            return None
        start, self.at = self.at, found.end()
        low = int(found.group(1)[:4])
        most = found.group(2)
        high = low if most is None else int(most[:4]) if most else None
        if max(low, high or 0) > MAX_REPEAT or (high is not None and high < low):
            raise PatternError(f"a repeat goes from least to most, up to {MAX_REPEAT}", start)
        return low, high

    def atom(self, depth: int) -> Part:
        start = self.at
        letter = self.letter()
        match letter:
            case "(":
                if self.peek("?") and not self.step("?:"):
                    raise PatternError("only plain groups and `(?:` are allowed", start)
                part = self.choice(depth + 1)
                if not self.step(")"):
                    raise PatternError("this `(` is never closed", start)
                return part
            case "[":
                return self.letters(start)
            case ".":
                return Letters((("\n", "\n"),), negated=True)
            case "^" | "$":
                return Edge(letter)
            case "\\":
                if self.peek("b") or self.peek("B"):
                    return Edge(self.letter())
                return self.escape(start)
            case "*" | "+" | "?":
                raise PatternError("there is nothing to repeat here", start)
        return Letters(((letter, letter),))

    def escape(self, start: int) -> Letters:
        letter = self.letter()
        if letter.lower() in CLASSES:
            return Letters(CLASSES[letter.lower()], negated=letter.isupper())
        if letter.isdecimal():
            raise PatternError("back-references are not allowed", start)
        if letter in CONTROLS:
            return Letters(((CONTROLS[letter],) * 2,))
        if letter not in PLAIN_ESCAPES:
            raise PatternError(f"`\\{letter}` is not part of patterns here", start)
        return Letters(((letter, letter),))

    def letters(self, start: int) -> Letters:
        negated = self.step("^")
        ranges: list[tuple[str, str]] = []
        first = True
        while first or not self.step("]"):
            if self.at >= len(self.pattern):
                raise PatternError("this `[` is never closed", start)
            if self.peek("[:"):
                raise PatternError("named classes are not part of patterns here", self.at)
            low = self.class_item()
            if low.negated:
                raise PatternError("an opposite inside [ ] is not part of patterns here", self.at)
            if self.peek("-") and not self.peek("-]"):
                self.step("-")
                high = self.class_item()
                if len({*low.ranges[0]}) != 1 or len({*high.ranges[0]}) != 1 or high.negated:
                    raise PatternError("a range goes from one character to another", start)
                if high.ranges[0][0] < low.ranges[0][0]:
                    raise PatternError("this range goes backwards", start)
                ranges.append((low.ranges[0][0], high.ranges[0][0]))
            else:
                ranges.extend(low.ranges)
            first = False
        return Letters(tuple(ranges), negated)

    def class_item(self) -> Letters:
        start = self.at
        letter = self.letter()
        return self.escape(start) if letter == "\\" else Letters(((letter, letter),))


def _varies(part: Part) -> bool:
    """Whether the part holds a repeat of open length."""
    match part:
        case Repeat(part=inner, least=least, most=most):
            return (most != 1 and least != most) or _varies(inner)
        case Sequence(parts=parts) | Choice(parts=parts):
            return any(map(_varies, parts))
    return False


class Row(dict[str, "Row"]):
    """Where each character leads from one set of states; filled as texts ask for it."""

    __slots__ = ("after_word", "at_start", "machine", "states")

    def __init__(self, machine: Machine, states: frozenset[int], at_start: bool, after_word: bool) -> None:
        self.machine = machine
        self.states = states
        self.at_start = at_start
        self.after_word = after_word

    def __missing__(self, letter: str) -> Row:
        row = self[letter] = self.machine.advance(self, letter)
        return row


class Machine:
    """The states of a pattern: each is a fork to others, an edge to pass, or letters to consume."""

    def __init__(self, part: Part, fold: bool) -> None:
        self.part = part
        self.fold = fold
        self.states: list[tuple[Letters | Edge | None, tuple[int, ...]]] = [(None, ())]
        self.entry = self.build(part, 0)
        self.found = Row(self, frozenset(), False, False)
        self.forget()

    def __reduce__(self) -> tuple[type[Machine], tuple[Part, bool]]:
        return Machine, (self.part, self.fold)

    def forget(self) -> None:
        self.remembered = 0
        self.rows: dict[tuple[frozenset[int], bool], Row] = {}
        self.first = Row(self, frozenset({self.entry}), True, False)

    def state(self, what: Letters | Edge | None, following: tuple[int, ...]) -> int:
        if len(self.states) >= MAX_STATES:
            raise PatternError("this pattern is too large", 0)
        self.states.append((what, following))
        return len(self.states) - 1

    def build(self, part: Part, following: int) -> int:
        """Adds the states of a part that leads to `following`; the state to come in by."""
        match part:
            case Sequence(parts=parts):
                for inner in reversed(parts):
                    following = self.build(inner, following)
                return following
            case Choice(parts=parts):
                return self.state(None, tuple(self.build(inner, following) for inner in parts))
            case Repeat(part=inner, least=least, most=most):
                entry = following
                if most is None:
                    entry = self.state(None, ())
                    self.states[entry] = (None, (self.build(inner, entry), following))
                for _ in range((most or least) - least):
                    entry = self.state(None, (self.build(inner, entry), following))
                for _ in range(least):
                    entry = self.build(inner, entry)
                return entry
        return self.state(part, (following,))

    def search(self, text: Any) -> bool | None:
        if not isinstance(text, str) or len(text) > MAX_SUBJECT:
            return None
        if self.remembered > MAX_REMEMBERED:
            self.forget()
        row, found = self.first, self.found
        for letter in text:
            row = row[letter]
            if row is found:
                return True
        return 0 in self.reached(row, None)

    def advance(self, row: Row, letter: str) -> Row:
        reached = self.reached(row, letter)
        if 0 in reached:
            return self.found
        following = {self.entry}
        for number in reached:
            what, leads_to = self.states[number]
            if isinstance(what, Letters) and what.include(letter, self.fold):
                following.update(leads_to)
        key = (frozenset(following), letter in WORD)
        self.remembered += 1
        if key not in self.rows:
            self.rows[key] = Row(self, key[0], at_start=False, after_word=key[1])
        return self.rows[key]

    def reached(self, row: Row, letter: str | None) -> set[int]:
        """The states that are reached without consuming, before `letter` (None: the end)."""
        passed = {"^"} if row.at_start else set()
        if letter is None:
            passed.add("$")
        passed.add("b" if row.after_word != (letter is not None and letter in WORD) else "B")
        reached: set[int] = set()
        waiting = list(row.states)
        while waiting:
            number = waiting.pop()
            if number in reached:
                continue
            reached.add(number)
            what, leads_to = self.states[number]
            if what is None or (isinstance(what, Edge) and what.kind in passed):
                waiting.extend(leads_to)
        return reached
