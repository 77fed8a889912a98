"""When the passing of time alone turns the answer of a condition.

What grows with time is `now`, and members of `profile` such as the days since something happened.
A condition may compare them (`<`, `<=`, `>`, `>=`) after adding, subtracting and scaling, so that
every such comparison is a straight line in time and turns once: `turning_point` finds the very
microsecond. Whatever else is done with them is a problem, located in the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from engine.domain.offers.cel_compile import compile_tree
from engine.domain.offers.cel_nodes import (
    Binary,
    Conditional,
    Has,
    Logic,
    Name,
    Node,
    Select,
    Unary,
    children,
)
from engine.domain.offers.cel_problems import ExpressionError, ExpressionProblem
from engine.domain.offers.cel_signatures import Type
from engine.domain.offers.cel_types import Shape
from engine.domain.offers.scope import UNKNOWN, Scope

HORIZON: Final = timedelta(days=3660)
"""A turn that is further off is looked for again at the next event."""

_DAY: Final = timedelta(days=1)
_MICROSECOND: Final = timedelta(microseconds=1)
_GROWING: Final = frozenset(("profile", "account"))
"""Roots whose members may grow by themselves."""
_ORDERINGS: Final = frozenset(("<", "<=", ">", ">="))

ScopeAt = Callable[[datetime], Scope]
"""What is known of a person, as it reads at a moment when nothing happens until then."""


class Moment(msgspec.Struct, frozen=True):
    """A comparison that time can turn, and by how much its left side is ahead of its right one."""

    holds: Callable[[Scope], Any]
    ahead: Callable[[Scope], Any]

    def __repr__(self) -> str:
        return "Moment(…)"


def moments_of(tree: Node, shapes: Mapping[int, Shape], ticking: frozenset[str]) -> tuple[Moment, ...]:
    """The comparisons of a checked condition that time can turn. `ticking` are the members of
    `profile` that grow by themselves. Raises ExpressionError for time used in another way."""
    finder = _Finder(shapes, ticking)
    finder.condition(tree)
    if finder.problems:
        raise ExpressionError(finder.problems)
    return tuple(finder.found)


class _Finder:
    def __init__(self, shapes: Mapping[int, Shape], ticking: frozenset[str]) -> None:
        self.shapes = shapes
        self.ticking = ticking
        self.found: list[Moment] = []
        self.problems: list[ExpressionProblem] = []

    def condition(self, node: Node) -> None:
        match node:
            case Has():
                return
            case Logic() | Conditional() | Unary(operator="!"):
                for part in children(node):
                    self.condition(part)
            case Binary(operator=operator, left=left, right=right) if operator in _ORDERINGS:
                if self.is_line(left) | self.is_line(right):
                    ahead = Binary(operator="-", left=left, right=right, start=node.start, end=node.end)
                    self.found.append(
                        Moment(
                            compile_tree(node, self.shapes, Type.BOOL),
                            compile_tree(ahead, self.shapes, Type.ANY),
                        )
                    )
            case _:
                self.refuse(node)

    def is_line(self, node: Node) -> bool:
        """Whether a side of a comparison grows with time; anything but steadily is a problem."""
        if self.is_ticking(node):
            return True
        match node:
            case Unary(operator="-", operand=operand):
                return self.is_line(operand)
            case Binary(operator="+" | "-", left=left, right=right):
                return self.is_line(left) | self.is_line(right)
            case Binary(operator="*", left=left, right=right):
                grows = self.is_line(left), self.is_line(right)
                if all(grows):
                    self.refuse(node)
                return any(grows)
            case Binary(operator="/", left=left, right=right):
                self.refuse(right)
                return self.is_line(left)
        self.refuse(node)
        return False

    def is_ticking(self, node: Node) -> bool:
        if isinstance(node, Select):
            owner = node.operand
            return isinstance(owner, Name) and owner.name in _GROWING and node.member in self.ticking
        return isinstance(node, Name) and node.name == "now"

    def refuse(self, node: Node) -> None:
        if self.is_ticking(node):
            message = "time is only followed where it is added to, scaled and compared with <, <=, > or >="
            self.problems.append(ExpressionProblem(message, node.start, node.end - node.start))
            return
        if not isinstance(node, Has):
            for part in children(node):
                self.refuse(part)


def turning_point(moment: Moment, scope_at: ScopeAt, now: datetime) -> datetime | None:
    """The first moment after `now` at which the comparison answers otherwise than now; None where
    it does not within the horizon, or something in it is unknown."""
    ahead, later = _number(moment.ahead(scope_at(now))), _number(moment.ahead(scope_at(now + _DAY)))
    if ahead is None or later is None or ahead == later:
        return None
    days = ahead / (ahead - later)
    if not -1e-9 <= days <= HORIZON.days:
        return None
    guess = now + timedelta(days=max(days, 0.0))
    answer = moment.holds(scope_at(now))
    before, after = guess, guess
    step = _MICROSECOND
    while after <= now or moment.holds(scope_at(after)) is answer:
        before, after, step = max(after, now), after + step, step * 2
        if step > _DAY:
            return None
    step = _MICROSECOND
    while before > now and moment.holds(scope_at(before)) is not answer:
        after, before, step = before, max(before - step, now), step * 2
    while after - before > _MICROSECOND:
        middle = before + (after - before) // 2
        if moment.holds(scope_at(middle)) is answer:
            before = middle
        else:
            after = middle
    return after


def _number(value: Any) -> float | None:
    if value is UNKNOWN or isinstance(value, bool):
        return None
    if isinstance(value, timedelta):
        return value.total_seconds()
    return float(value) if isinstance(value, int | float) else None
