"""YAML 1.2 with the place of every node, and every fault of a file as a located problem.

Read from libyaml's events rather than its loader: nothing is ever constructed, nesting and aliases
are bounded before they cost anything, and scalars are resolved by the YAML 1.2 core schema, so
that `22:30`, `NO` and `on` are the strings that their author wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol, cast

import msgspec
import yaml

from engine.formats.problems import LINE_BREAK, Problem

LARGEST_FILE_BYTES = 1_000_000
DEEPEST_NESTING = 40
MOST_NODES = 100_000
"""Nodes of one file, an alias counting as all that it stands for: so an alias bomb is refused."""

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_LONGEST_NUMBER = 40
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Source(msgspec.Struct, frozen=True):
    """A file as text, by which an offset inside a scalar finds its place."""

    file: str
    text: str


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """Where something begins: `line` and `column` from 1, `start` and `end` offsets in the text."""

    source: Source
    line: int
    column: int
    start: int
    end: int

    def problem(self, message: str, suggestion: str | None = None) -> Problem:
        return Problem(self.source.file, self.line, self.column, message, suggestion)


class Scalar(Node, frozen=True, kw_only=True):
    """`text` is what stands there without its quotes, `value` what it means in YAML 1.2.

    `style` is `'`, `"`, `|`, `>`, or empty for a plain scalar.
    """

    text: str
    value: str | int | float | bool | None
    style: str = ""


class ListNode(Node, frozen=True, kw_only=True):
    items: tuple[AnyNode, ...]


class MapNode(Node, frozen=True, kw_only=True):
    """Entries by the text of their key, each with the key's own place."""

    entries: dict[str, Entry]


class Entry(msgspec.Struct, frozen=True):
    key: Scalar
    node: AnyNode


AnyNode = Scalar | ListNode | MapNode


class _StopError(Exception):
    """The rest of the file cannot be read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def read(file: str, data: bytes, problems: list[Problem]) -> AnyNode | None:
    """The file's one document. None, with a problem added, where it cannot be read.

    Duplicate and impossible keys are reported and left out, so that the rest is still checked. An
    empty file, or one with only comments, is an empty mapping.
    """
    text = _decode(file, data, problems)
    if text is None:
        return None
    reader = _Reader(Source(file, text), problems)
    try:
        return reader.document()
    except _StopError as stop:
        problems.append(stop.problem)
    except yaml.YAMLError as error:
        problems.append(_syntax_problem(reader.source, error))
    return None


def _decode(file: str, data: bytes, problems: list[Problem]) -> str | None:
    if len(data) > LARGEST_FILE_BYTES:
        message = f"the file is larger than {LARGEST_FILE_BYTES:,} bytes"
        problems.append(Problem(file, 1, 1, message, "split it into several files"))
        return None
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode().removeprefix("\ufeff")
        line, column = place(before, len(before))
        problems.append(Problem(file, line, column, "not UTF-8 text", "save the file as UTF-8"))
        return None
    found = _UNPRINTABLE.search(text)
    if found:
        line, column = place(text, found.start())
        message = f"the character U+{ord(found[0]):04X} must not stand in a file"
        problems.append(Problem(file, line, column, message))
        return None
    return text


def place(text: str, offset: int) -> tuple[int, int]:
    """Line and column, both from 1, of an offset in a text."""
    line, begin = 1, 0
    for found in LINE_BREAK.finditer(text, 0, offset):
        line, begin = line + 1, found.end()
    return line, offset - begin + 1


def resolve(text: str) -> str | int | float | bool | None:
    """A plain scalar by the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > _LONGEST_NUMBER:
        return text
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    if text in (".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"):
        return float("inf")
    if text in ("-.inf", "-.Inf", "-.INF"):
        return float("-inf")
    return float("nan") if text in (".nan", ".NaN", ".NAN") else text


class _Mark(Protocol):
    """Where libyaml stands: offsets from 0, in characters."""

    index: int
    line: int
    column: int


def _start(event: yaml.Event) -> _Mark:
    return cast(_Mark, event.start_mark)


def _end(event: yaml.Event) -> _Mark:
    return cast(_Mark, event.end_mark)


def _is_open(node: AnyNode) -> bool:
    """Whether it is plain text in which a bracket is not closed."""
    return (
        isinstance(node, Scalar)
        and not node.style
        and "(" in node.text
        and node.text.count("(") > node.text.count(")")
    )


class _Reader:
    """Builds the nodes of one file from its events."""

    def __init__(self, source: Source, problems: list[Problem]) -> None:
        self.source = source
        self._problems = problems
        self._anchors: dict[str, tuple[AnyNode, int]] = {}
        self._nodes = 0

    def document(self) -> AnyNode:
        events = yaml.parse(self.source.text, Loader=yaml.CSafeLoader)
        root: AnyNode | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise self._stop(event, "a second document in the file", "remove the ---")
                root = self._node(next(events), events, 0)
        empty = MapNode(source=self.source, line=1, column=1, start=0, end=0, entries={})
        nothing = isinstance(root, Scalar) and root.value is None
        return empty if root is None or nothing else root

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> AnyNode:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._nodes
        self._count(event, 1)
        if event.tag is not None:  # type: ignore[attr-defined]
            raise self._stop(
                event,
                "tags (!…) are not allowed",
                'text that begins with "!" needs quotes: "!…"',
            )
        if depth > DEEPEST_NESTING:
            raise self._stop(event, f"nested deeper than {DEEPEST_NESTING} levels")
        node: AnyNode
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, events, depth)
        else:
            node = self._mapping(event, events, depth)
        anchor = event.anchor  # type: ignore[attr-defined]
        if anchor is not None:
            self._anchors[anchor] = (node, self._nodes - before)
        return node

    def _alias(self, event: yaml.AliasEvent) -> AnyNode:
        known = self._anchors.get(str(event.anchor))
        if known is None:
            raise self._stop(event, f'nothing above is marked "&{event.anchor}"')
        node, size = known
        self._count(event, size)
        return node

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        start, end = _start(event), _end(event)
        style = event.style or ""
        found = _UNPRINTABLE.search(event.value)
        if found:
            message = f"the character U+{ord(found[0]):04X} must not stand in a file"
            raise self._stop(event, message)
        return Scalar(
            source=self.source,
            line=start.line + 1,
            column=start.column + 1,
            start=start.index,
            end=end.index,
            text=event.value,
            value=event.value if style else resolve(event.value),
            style=style,
        )

    def _sequence(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> ListNode:
        items = []
        for inner in events:
            if isinstance(inner, yaml.SequenceEndEvent):
                event_end = _end(inner).index
                break
            items.append(self._node(inner, events, depth + 1))
        start = _start(event)
        return ListNode(
            source=self.source,
            line=start.line + 1,
            column=start.column + 1,
            start=start.index,
            end=event_end,
            items=tuple(items),
        )

    def _mapping(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> MapNode:
        entries: dict[str, Entry] = {}
        pairs: list[tuple[AnyNode, AnyNode]] = []
        is_torn = False
        for inner in events:
            if isinstance(inner, yaml.MappingEndEvent):
                event_end = _end(inner).index
                break
            key = self._node(inner, events, depth + 1)
            value = self._node(next(events), events, depth + 1)
            pairs.append((key, value))
            is_torn = is_torn or _is_open(value)
        if is_torn and event.flow_style:  # type: ignore[attr-defined]
            pairs = self._mended(pairs)
        for key, value in pairs:
            if not isinstance(key, Scalar):
                quotes = "text with {{ … }} needs quotes" if isinstance(key, MapNode) else None
                self._problems.append(key.problem("a key must be text", quotes))
            elif key.text in entries:
                first = entries[key.text].key
                message = f'"{key.text}" stands twice, first on line {first.line}'
                self._problems.append(key.problem(message))
            else:
                entries[key.text] = Entry(key, value)
        start = _start(event)
        return MapNode(
            source=self.source,
            line=start.line + 1,
            column=start.column + 1,
            start=start.index,
            end=event_end,
            entries=entries,
        )

    def _mended(self, pairs: list[tuple[AnyNode, AnyNode]]) -> list[tuple[AnyNode, AnyNode]]:
        """The pairs of `{distinct: f(p, p.sku), of: X}` as they are meant: to YAML a comma in braces ends
        the text, also between the brackets of an expression."""
        mended: list[tuple[AnyNode, AnyNode]] = []
        left = iter(range(len(pairs)))
        for first in left:
            key, value = pairs[first]
            if _is_open(value):
                for last in range(first + 1, len(pairs)):
                    tail = pairs[last]
                    if not all(isinstance(node, Scalar) and not node.style for node in tail):
                        break
                    end = max(node.end for node in tail)
                    text = self.source.text[value.start : end]
                    if text.count("(") <= text.count(")"):
                        assert isinstance(value, Scalar)
                        value = Scalar(
                            source=self.source,
                            line=value.line,
                            column=value.column,
                            start=value.start,
                            end=end,
                            text=text,
                            value=text,
                            style="",
                        )
                        for _ in range(first, last):
                            next(left)
                        break
            mended.append((key, value))
        return mended

    def _count(self, event: yaml.Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            raise self._stop(event, f"more than {MOST_NODES:,} values in one file", "split it")

    def _stop(self, event: yaml.Event, message: str, suggestion: str | None = None) -> _StopError:
        mark = _start(event)
        file = self.source.file
        return _StopError(Problem(file, mark.line + 1, mark.column + 1, message, suggestion))


_SYNTAX = {
    "mapping values are not allowed in this context": (
        'a ":" where none can stand',
        'check the indentation; text that contains ": " needs quotes',
    ),
    "did not find expected key": (
        "this does not belong to what stands above",
        "check the indentation, and that quotes go around the whole text",
    ),
    "did not find expected '-' indicator": (
        "this does not belong to the list above",
        'begin the line with "- ", or check the indentation',
    ),
    "found unexpected end of stream": ("the quotes are never closed", None),
    "did not find expected node content": ("a value is missing here", None),
    "did not find expected ',' or '}'": ('"," or "}" is missing', None),
    "did not find expected ',' or ']'": ('"," or "]" is missing', None),
    "could not find expected ':'": ('":" is missing after the key', None),
    "found unknown escape character": (
        "an unknown escape after the backslash",
        "use single quotes, in which a backslash is just a backslash",
    ),
}


def _syntax_problem(source: Source, error: yaml.YAMLError) -> Problem:
    """libyaml's complaint in words for authors, at the place where the fault shows."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem(source.file, 1, 1, f"not YAML: {error}")
    mark = error.problem_mark
    said = error.problem or "not YAML"
    message, suggestion = _SYNTAX.get(said, (said, None))
    if said == "found character that cannot start any token":
        character = source.text[mark.index : mark.index + 1]
        if character == "\t":
            message, suggestion = "a tab: YAML is indented with spaces", "replace it by spaces"
        else:
            message = f'"{character}" cannot begin a value'
            suggestion = "put the text in quotes"
    elif said == "found unexpected end of stream" and error.context_mark is not None:
        mark = error.context_mark
    return Problem(source.file, mark.line + 1, mark.column + 1, message, suggestion)
