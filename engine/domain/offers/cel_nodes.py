"""The tree of an expression: frozen nodes, each with its place in the text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

Operator = Literal["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in"]
Macro = Literal["all", "exists", "exists_one", "filter", "map"]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """From `start` to before `end`, in characters."""

    start: int
    end: int


class Constant(Place, frozen=True):
    value: int | float | str | bool | None


class Name(Place, frozen=True):
    name: str


class Select(Place, frozen=True):
    """`operand.member`, or `operand["member"]` when `quoted`."""

    operand: Node
    member: str
    member_start: int
    quoted: bool


class Index(Place, frozen=True):
    operand: Node
    key: Node


class Has(Place, frozen=True):
    member: Select


class Call(Place, frozen=True):
    """`target.function(arguments)`, or `function(arguments)` without a target."""

    function: str
    function_start: int
    target: Node | None
    arguments: tuple[Node, ...]


class Unary(Place, frozen=True):
    operator: Literal["!", "-"]
    operand: Node


class Binary(Place, frozen=True):
    operator: Operator
    left: Node
    right: Node


class Logic(Place, frozen=True):
    """A whole chain of one operator: `a && b && c` has three terms."""

    operator: Literal["&&", "||"]
    terms: tuple[Node, ...]


class Conditional(Place, frozen=True):
    condition: Node
    then: Node
    otherwise: Node


class ListOf(Place, frozen=True):
    items: tuple[Node, ...]


class MapOf(Place, frozen=True):
    entries: tuple[tuple[Node, Node], ...]


class Loop(Place, frozen=True):
    """A macro over `source`: `map` has a transform and perhaps a predicate, the others a predicate."""

    macro: Macro
    source: Node
    variable: str
    variable_start: int
    predicate: Node | None
    transform: Node | None


Node = (
    Constant
    | Name
    | Select
    | Index
    | Has
    | Call
    | Unary
    | Binary
    | Logic
    | Conditional
    | ListOf
    | MapOf
    | Loop
)


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below, in the order of the text."""
    match node:
        case Select(operand=operand) | Unary(operand=operand):
            yield operand
        case Index(operand=operand, key=key):
            yield from (operand, key)
        case Has(member=member):
            yield member
        case Call(target=target, arguments=arguments):
            if target is not None:
                yield target
            yield from arguments
        case Binary(left=left, right=right):
            yield from (left, right)
        case Logic(terms=terms):
            yield from terms
        case Conditional(condition=condition, then=then, otherwise=otherwise):
            yield from (condition, then, otherwise)
        case ListOf(items=items):
            yield from items
        case MapOf(entries=entries):
            for entry in entries:
                yield from entry
        case Loop(source=source, predicate=predicate, transform=transform):
            yield from (part for part in (source, predicate, transform) if part is not None)
        case Constant() | Name():
            pass


def count_nodes(node: Node) -> int:
    """The node and all below it."""
    return 1 + sum(map(count_nodes, children(node)))
