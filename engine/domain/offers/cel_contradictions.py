"""Conditions that can never be true: comparisons of one member that exclude each other.

Looks at what a person might mistake: `a > 5 && a < 3`, `tier == "gold" && tier == "silver"`, a word
that a member never is. Whatever it does not understand it takes for possible, so that it never
warns without a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from engine.domain.offers.cel_nodes import (
    Binary,
    Call,
    Conditional,
    Constant,
    Has,
    ListOf,
    Logic,
    Name,
    Node,
    Select,
    Unary,
    children,
)

Domains = Mapping[str, frozenset[str] | tuple[float, float]]
"""By dotted path: the only words that a member can be, or the least and the greatest number."""

MOST_WAYS: Final = 256
"""Combinations of `||` that are looked at; a condition with more is taken for possible."""

_Test = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in", "has", "has not"]
_SWAPPED: Mapping[str, _Test] = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NEGATED: Mapping[str, _Test] = {
    "==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<",
    "in": "not in", "not in": "in", "has": "has not", "has not": "has",
}  # fmt: skip


class Part(msgspec.Struct, frozen=True):
    """A condition as it was written, and its tree."""

    text: str
    tree: Node


class Contradiction(msgspec.Struct, frozen=True):
    """What excludes each other, as it was written; `first` is None where no value at all would do.
    `part` and `start` say where `second` stands."""

    first: str | None
    second: str
    part: int
    start: int


class Impossible(msgspec.Struct, frozen=True):
    """A comparison with a value that its member never has. `options` are the words that it can be."""

    path: str
    value: Any
    start: int
    options: frozenset[str] = frozenset()


class _Atom(msgspec.Struct, frozen=True):
    """One test of one member, as part of the condition at `part`; what is written from `start` to
    `end` does not hold where it is `negated`."""

    path: str
    test: _Test
    values: tuple[Any, ...]
    part: int
    start: int
    end: int
    negated: bool = False


_FALSE: Final = "false"


def contradiction(parts: Sequence[Part], domains: Domains) -> Contradiction | None:
    """Why the conditions can never all be true; None where they can, as far as one can see."""
    found: Contradiction | None = None
    for number, atoms in enumerate(_ways([(n, part.tree) for n, part in enumerate(parts)])):
        if number == MOST_WAYS:
            return None
        clash = _clash(atoms, parts, domains)
        if clash is None:
            return None
        found = found or clash
    return found


def impossible_values(tree: Node, domains: Domains) -> Iterator[Impossible]:
    """Every comparison with a word that its member never is, wherever it stands."""
    atom = _atom(tree, 0, True)
    words = domains.get(atom.path) if atom is not None else None
    if atom is not None and isinstance(words, frozenset) and atom.test in ("==", "!=", "in"):
        for value in atom.values:
            if isinstance(value, str) and value not in words:
                yield Impossible(atom.path, value, atom.start, words)
    for child in children(tree):
        yield from impossible_values(child, domains)


def _ways(waiting: list[tuple[int, Node]], so_far: tuple[_Atom, ...] = ()) -> Iterator[tuple[_Atom, ...]]:
    """Each way in which all the nodes could be true, as the tests that it asks for."""
    while waiting:
        part, node = waiting[0]
        waiting = waiting[1:]
        negated = isinstance(node, Unary) and node.operator == "!"
        inner = node.operand if isinstance(node, Unary) and negated else node
        if isinstance(inner, Logic):
            both = (inner.operator == "&&") is not negated
            terms = [(part, _not(term) if negated else term) for term in inner.terms]
            if both:
                waiting = [*terms, *waiting]
                continue
            for term in terms:
                yield from _ways([term, *waiting], so_far)
            return
        if isinstance(inner, Unary) and inner.operator == "!" and negated:
            waiting = [(part, inner.operand), *waiting]
            continue
        atom = _atom(inner, part, not negated)
        if atom is not None:
            so_far = (*so_far, atom)
    yield so_far


def _not(node: Node) -> Node:
    return Unary(operator="!", operand=node, start=node.start, end=node.end)


def _atom(node: Node, part: int, holds: bool) -> _Atom | None:
    """The test that a node makes, or that it fails where it does not hold."""
    path, test, values = _tested(node)
    if path is None:
        return None
    return _Atom(
        path, test if holds else _NEGATED[test], values, part, node.start, node.end, negated=not holds
    )


def _tested(node: Node) -> tuple[str | None, _Test, tuple[Any, ...]]:
    match node:
        case Constant(value=bool(value)):
            return "", "==" if value else "!=", (_FALSE,)
        case Has(member=member):
            return _path(member), "has", ()
        case Select() | Name():
            return _path(node), "==", (True,)
        case Binary(operator="in", left=left, right=ListOf(items=items)):
            values = tuple(_value(item) for item in items)
            return (None if None in values else _path(left)), "in", values
        case Binary(operator=operator, left=left, right=right) if operator in _SWAPPED:
            value = _value(right)
            if value is not None:
                return _path(left), operator, (value,)  # type: ignore[return-value]
            value = _value(left)
            return (None if value is None else _path(right)), _SWAPPED[operator], (value,)
        case Conditional() | Call():
            return None, "has", ()
    return None, "has", ()


def _path(node: Node) -> str | None:
    if isinstance(node, Name):
        return node.name
    if isinstance(node, Select):
        above = _path(node.operand)
        return None if above is None else f"{above}.{node.member}"
    return None


def _value(node: Node) -> Any:
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, Unary) and node.operator == "-" and isinstance(node.operand, Constant):
        value = node.operand.value
        return -value if isinstance(value, int | float) and not isinstance(value, bool) else None
    return None


def _clash(atoms: tuple[_Atom, ...], parts: Sequence[Part], domains: Domains) -> Contradiction | None:
    by_path: dict[str, list[_Atom]] = {}
    for atom in atoms:
        for before in by_path.get(atom.path, ()):
            if not _possible((before, atom), domains.get(atom.path)):
                if not _possible((before,), domains.get(atom.path)):
                    break
                return _told(before, atom, parts)
        by_path.setdefault(atom.path, []).append(atom)
        if not _possible((atom,), domains.get(atom.path)):
            return _told(None, atom, parts)
    for path, several in by_path.items():
        if not _possible(several, domains.get(path)):
            return _told(several[0], several[-1], parts)
    return None


def _told(first: _Atom | None, second: _Atom, parts: Sequence[Part]) -> Contradiction:
    def written(atom: _Atom) -> str:
        text = parts[atom.part].text[atom.start : atom.end].strip()
        if not atom.negated:
            return text
        return f"!({text})" if " " in text else f"!{text}"

    return Contradiction(
        written(first) if first is not None else None, written(second), second.part, second.start
    )


def _possible(atoms: Sequence[_Atom], domain: frozenset[str] | tuple[float, float] | None) -> bool:
    """Whether some value passes all tests of one member."""
    if not atoms[0].path:  # a constant
        return all(atom.test == "==" for atom in atoms)
    tests = {atom.test for atom in atoms}
    if "has not" in tests:
        return tests <= {"has not"}  # any comparison with what is not there is unknown
    allowed: set[Any] | None = set(domain) if isinstance(domain, frozenset) else None
    excluded: set[Any] = set()
    low, low_open, high, high_open = float("-inf"), False, float("inf"), False
    if isinstance(domain, tuple):
        low, high = domain
    for atom in atoms:
        if atom.test in ("==", "in"):
            values = set(atom.values)
            allowed = values if allowed is None else {v for v in allowed if v in values}
        elif atom.test in ("!=", "not in"):
            excluded.update(atom.values)
        elif atom.test != "has":
            (value,) = atom.values
            if not isinstance(value, int | float) or isinstance(value, bool):
                continue  # texts in order: rarely meant, and possible
            if atom.test in (">", ">=") and (value, atom.test == ">") > (low, low_open):
                low, low_open = value, atom.test == ">"
            if atom.test in ("<", "<=") and (value, atom.test == "<=") < (high, not high_open):
                high, high_open = value, atom.test == "<"
    if allowed is not None:
        return any(v not in excluded and _between(v, low, low_open, high, high_open) for v in allowed)
    return low < high or (low == high and not low_open and not high_open and low not in excluded)


def _between(value: Any, low: float, low_open: bool, high: float, high_open: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    above = value > low or (value == low and not low_open)
    below = value < high or (value == high and not high_open)
    return above and below
