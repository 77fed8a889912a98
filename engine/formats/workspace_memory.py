"""What was made of the parts of a workspace, so that the next reading makes only what changed anew.

One file of a hundred is saved: what the other ninety-nine say is known, and most of a reload's time
goes into saying it again. A part is taken over where everything that it was made from says the same;
what was not asked for in a reading is forgotten with it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

from engine.formats.located_yaml import AnyNode, Entry, ListNode, MapNode, Scalar, read
from engine.formats.problems import Problem

T = TypeVar("T")


class Memory:
    """The parts of one reading, by what they are. Lives as long as whoever reads again and again."""

    def __init__(self) -> None:
        self._before: dict[Hashable, tuple[Any, Any, tuple[Problem, ...]]] = {}
        self._now: dict[Hashable, tuple[Any, Any, tuple[Problem, ...]]] = {}

    def begin(self) -> None:
        """A new reading: what the last one but one had, and the last one did not ask for, goes."""
        self._before, self._now = self._now, {}

    def part(
        self, key: Hashable, made_from: object, problems: list[Problem], make: Callable[[list[Problem]], T]
    ) -> T:
        """What `make` gives, or gave before for the same `made_from`. Its problems are added either way.

        The same may stand on other lines by now, unless there are problems, which name lines. What comes
        of it is given out again, so nobody may change it.
        """
        known = self._before.get(key)
        if known is None or not (known[0] == made_from if known[2] else _says_the_same(known[0], made_from)):
            own: list[Problem] = []
            known = (made_from, make(own), tuple(own))
        self._now[key] = known
        problems.extend(known[2])
        return cast(T, known[1])

    def file(self, file: str, data: bytes, problems: list[Problem]) -> AnyNode | None:
        """A YAML file's document, as `located_yaml.read` gives it."""
        return self.part(("file", file), data, problems, lambda own: read(file, data, own))


def _says_the_same(one: Any, other: Any) -> bool:
    """Whether two are equal wherever in the files they stand. Those of unchanged files are identical."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    match one:
        case Scalar():
            return bool(one.text == other.text and one.style == other.style)
        case ListNode():
            return _says_the_same(one.items, other.items)
        case MapNode():
            return _says_the_same(one.entries, other.entries)
        case Entry():
            return _says_the_same(one.key, other.key) and _says_the_same(one.node, other.node)
        case tuple():
            return len(one) == len(other) and all(map(_says_the_same, one, other))
        case dict():
            return list(one) == list(other) and all(map(_says_the_same, one.values(), other.values()))
    return bool(one == other)
