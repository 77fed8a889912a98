"""What type each part of an expression has, and every clash and unknown name in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from engine.domain.offers.cel_nodes import (
    Binary,
    Call,
    Conditional,
    Constant,
    Has,
    Index,
    ListOf,
    Logic,
    Loop,
    MapOf,
    Name,
    Node,
    Select,
    Unary,
)
from engine.domain.offers.cel_problems import ExpressionProblem, nearest
from engine.domain.offers.cel_regex import PatternError, compile_pattern
from engine.domain.offers.cel_signatures import SIGNATURES, Type, signature_of
from engine.domain.offers.cel_syntax import MACROS
from engine.domain.offers.cel_times import duration_from, timestamp_from, zone


class Words(msgspec.Struct, frozen=True):
    """A list that holds some of these words, and never another."""

    words: frozenset[str]


Names = Mapping[str, "Type | Words | Names"]
"""What may be read. A nested mapping is closed: only its members exist. ANY and MAP are open."""

NOUNS: Final = {
    Type.ANY: "any value",
    Type.BOOL: "a condition",
    Type.NUMBER: "a number",
    Type.STRING: "a text",
    Type.TIMESTAMP: "a time",
    Type.DURATION: "a duration",
    Type.LIST: "a list",
    Type.MAP: "a map",
    Type.NULL: "null",
}
PLURALS: Final = {
    kind: {Type.ANY: "any values", Type.NULL: "nulls"}.get(kind, noun.removeprefix("a ") + "s")
    for kind, noun in NOUNS.items()
}
ORDERED: Final = (Type.NUMBER, Type.STRING, Type.BOOL, Type.TIMESTAMP, Type.DURATION)
SUMS: Final[Mapping[tuple[str, Type, Type], Type]] = {
    **{(sign, Type.NUMBER, Type.NUMBER): Type.NUMBER for sign in "+-*/%"},
    ("+", Type.STRING, Type.STRING): Type.STRING,
    ("+", Type.LIST, Type.LIST): Type.LIST,
    ("+", Type.TIMESTAMP, Type.DURATION): Type.TIMESTAMP,
    ("+", Type.DURATION, Type.TIMESTAMP): Type.TIMESTAMP,
    ("+", Type.DURATION, Type.DURATION): Type.DURATION,
    ("-", Type.TIMESTAMP, Type.TIMESTAMP): Type.DURATION,
    ("-", Type.TIMESTAMP, Type.DURATION): Type.TIMESTAMP,
    ("-", Type.DURATION, Type.DURATION): Type.DURATION,
}


class Shape(msgspec.Struct, frozen=True):
    """The type of a part; of a map that is closed its members, of a list what its elements are and,
    where that is known, the only words that can be in it."""

    type: Type
    members: Names | None = None
    element: Shape | None = None
    words: frozenset[str] | None = None


ANY: Final = Shape(Type.ANY)
BOOL: Final = Shape(Type.BOOL)


def shape_of_declared(declared: Type | Words | Names) -> Shape:
    """The shape of a name as it was declared."""
    if isinstance(declared, Words):
        return Shape(Type.LIST, element=Shape(Type.STRING), words=declared.words)
    return Shape(declared) if isinstance(declared, Type) else Shape(Type.MAP, declared)


class Checker:
    """Walks a tree once. `problems`, `reads` and `shapes` (by a node's id) are what it found."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.variables: dict[str, Shape] = {}
        self.problems: list[ExpressionProblem] = []
        self.reads: set[str] = set()
        self.shapes: dict[int, Shape] = {}

    def check(self, node: Node) -> Shape:
        """The shape of a node; what is wrong below it is in `problems`, and its own type ANY."""
        if isinstance(node, Select | Name) and (path := self.path_of(node)):
            self.reads.add(".".join(path))
        return self.shape_of(node)

    def shape_of(self, node: Node) -> Shape:
        shape = self._shape_of(node)
        self.shapes[id(node)] = shape
        return shape

    def path_of(self, node: Node) -> list[str] | None:
        """The names of a chain of members that starts at a root."""
        if isinstance(node, Name):
            return None if node.name in self.variables or node.name not in self.names else [node.name]
        if isinstance(node, Select) and (path := self.path_of(node.operand)):
            return [*path, node.member]
        return None

    def problem(
        self, message: str, node: Node, *, start: int | None = None, end: int | None = None,
        suggestion: str | None = None, name: str = "",
    ) -> Shape:  # fmt: skip
        """Notes what is wrong and goes on as if the part could be anything."""
        first = node.start if start is None else start
        last = node.end if end is None else end
        self.problems.append(ExpressionProblem(message, first, max(last - first, 1), suggestion, name))
        return ANY

    def _shape_of(self, node: Node) -> Shape:
        match node:
            case Constant(value=value):
                return Shape(_type_of_constant(value))
            case Name():
                return self.name(node)
            case Select():
                return self.select(node)
            case Index():
                return self.index(node)
            case Has(member=member):
                self.check(member)
                return BOOL
            case Call():
                return self.call(node)
            case Unary(operator="!", operand=operand):
                self.condition(operand, "`!` turns a condition round")
                return BOOL
            case Unary(operand=operand):
                found = self.check(operand).type
                if found not in (Type.ANY, Type.NUMBER):
                    return self.problem(f"`-` goes before a number, this is {NOUNS[found]}", operand)
                return Shape(Type.NUMBER)
            case Binary():
                return self.binary(node)
            case Logic(operator=operator, terms=terms):
                for term in terms:
                    self.condition(term, f"`{operator}` joins conditions")
                return BOOL
            case Conditional(condition=condition, then=then, otherwise=otherwise):
                self.condition(condition, "before `?` stands a condition")
                return self.either(node, self.check(then), self.check(otherwise))
            case ListOf(items=items):
                shapes = [self.check(item) for item in items]
                alike = shapes[0] if shapes and len({shape.type for shape in shapes}) == 1 else ANY
                return Shape(Type.LIST, element=alike)
            case MapOf():
                return self.map_of(node)
            case Loop():
                return self.loop(node)

    def condition(self, node: Node, rule: str) -> None:
        found = self.check(node).type
        if found not in (Type.ANY, Type.BOOL):
            self.problem(f"{rule}, this is {NOUNS[found]}", node)

    def either(self, node: Conditional, then: Shape, otherwise: Shape) -> Shape:
        if then.type == otherwise.type:
            return then if then == otherwise else Shape(then.type)
        if {then.type, otherwise.type} & {Type.ANY, Type.NULL}:
            return ANY
        return self.problem(
            f"either {NOUNS[then.type]} or {NOUNS[otherwise.type]}: both have to be of one type",
            node.then, end=node.otherwise.end,
        )  # fmt: skip

    def name(self, node: Name) -> Shape:
        if node.name in self.variables:
            return self.variables[node.name]
        declared = self.names.get(node.name)
        if declared is not None:
            return shape_of_declared(declared)
        owners = [
            root
            for root, members in self.names.items()
            if isinstance(members, Mapping) and node.name in members
        ]
        words = [*self.names, *self.variables, "true", "false", "null"]
        suggestion = f"{owners[0]}.{node.name}" if owners else nearest(node.name, words)
        return self.problem(f"there is no `{node.name}`", node, suggestion=suggestion, name=node.name)

    def select(self, node: Select) -> Shape:
        owner = self.shape_of(node.operand)
        member_end = node.end - node.quoted
        if owner.type is Type.ANY:
            return ANY
        if owner.type is not Type.MAP:
            written = f"{node.member}()" if node.member in SIGNATURES else None
            return self.problem(
                f"{NOUNS[owner.type]} has no member `{node.member}`", node, start=node.member_start,
                end=member_end, suggestion=None if node.quoted else written,
            )  # fmt: skip
        if owner.members is None:
            return owner.element or ANY
        declared = owner.members.get(node.member)
        if declared is not None:
            return shape_of_declared(declared)
        path = self.path_of(node.operand)
        close = nearest(node.member, owner.members)
        return self.problem(
            f"`{'.'.join(path)}` has no `{node.member}`" if path else f"there is no `{node.member}`",
            node, start=node.member_start, end=member_end,
            suggestion=close if close is None or not node.quoted else f'"{close}"',
            name=".".join((*path, node.member)) if path else "",
        )  # fmt: skip

    def index(self, node: Index) -> Shape:
        owner, key = self.check(node.operand), self.check(node.key).type
        if owner.type not in (Type.ANY, Type.LIST, Type.MAP):
            return self.problem(f"{NOUNS[owner.type]} has no elements", node.operand)
        wanted = {Type.LIST: Type.NUMBER, Type.MAP: Type.STRING}.get(owner.type, key)
        if key not in (Type.ANY, wanted):
            return self.problem(
                f"{NOUNS[owner.type]} is asked with {NOUNS[wanted]}, this is {NOUNS[key]}", node.key
            )
        return owner.element or ANY

    def map_of(self, node: MapOf) -> Shape:
        keys: set[object] = set()
        for key, value in node.entries:
            if self.check(key).type not in (Type.ANY, Type.STRING):
                self.problem("the keys of a map are texts", key)
            if isinstance(key, Constant):
                if key.value in keys:
                    self.problem("this key stands twice", key)
                keys.add(key.value)
            self.check(value)
        return Shape(Type.MAP)

    def loop(self, node: Loop) -> Shape:
        source = self.check(node.source)
        if source.type not in (Type.ANY, Type.LIST, Type.MAP):
            self.problem(f"{node.macro}() goes over a list, this is {NOUNS[source.type]}", node.source)
        if node.variable in self.names:
            self.problem(
                f"`{node.variable}` already has a meaning, call the element something else", node,
                start=node.variable_start, end=node.variable_start + len(node.variable),
            )  # fmt: skip
        element = Shape(Type.STRING) if source.type is Type.MAP else source.element or ANY
        outer, self.variables = self.variables, {**self.variables, node.variable: element}
        if node.predicate is not None:
            self.condition(node.predicate, f"{node.macro}() asks for a condition")
        result = element if node.transform is None else self.check(node.transform)
        self.variables = outer
        return Shape(Type.LIST, element=result) if node.macro in ("filter", "map") else BOOL

    def binary(self, node: Binary) -> Shape:
        if node.operator == "in" and self.is_word(node):
            return BOOL
        left, right = self.check(node.left), self.check(node.right)
        types = (left.type, right.type)
        match node.operator:
            case "==" | "!=":
                self.equality(node, *types)
                return BOOL
            case "in":
                self.membership(node, left, right)
                return BOOL
            case "<" | "<=" | ">" | ">=":
                for side, found in zip((node.left, node.right), types, strict=True):
                    if found not in (Type.ANY, *ORDERED):
                        self.problem(f"{NOUNS[found]} is neither more nor less than another value", side)
                        return BOOL
                if Type.ANY not in types and left.type is not right.type:
                    self.problem(f"cannot compare {NOUNS[left.type]} with {NOUNS[right.type]}", node)
                return BOOL
        fitting = {
            result
            for (sign, *wanted), result in SUMS.items()
            if sign == node.operator
            and all(Type.ANY in pair or pair[0] is pair[1] for pair in zip(types, wanted, strict=True))
        }
        if not fitting:
            return self.problem(
                f"`{node.operator}` cannot join {NOUNS[left.type]} and {NOUNS[right.type]}", node
            )
        if node.operator in "/%" and isinstance(node.right, Constant) and node.right.value == 0:
            return self.problem("this divides by zero", node.right)
        return Shape(fitting.pop()) if len(fitting) == 1 else ANY

    def equality(self, node: Binary, left: Type, right: Type) -> None:
        for side, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(side, Select) and isinstance(other, Constant) and other.value is None:
                self.problem(
                    "what is absent is unknown and never equals null: ask has()", node,
                    suggestion=None if side.quoted else self.presence(node, side),
                )  # fmt: skip
                return
        if left is not right and not {left, right} & {Type.ANY, Type.NULL}:
            self.problem(f"{NOUNS[left]} is never equal to {NOUNS[right]}", node)

    def presence(self, node: Binary, member: Select) -> str | None:
        path = self.path_of(member)
        return f"{'!' * (node.operator == '==')}has({'.'.join(path)})" if path else None

    def membership(self, node: Binary, left: Shape, right: Shape) -> None:
        if right.type not in (Type.ANY, Type.LIST, Type.MAP):
            self.problem(f"`in` looks into a list, this is {NOUNS[right.type]}", node.right)
            return
        element = Type.STRING if right.type is Type.MAP else (right.element or ANY).type
        if left.type is not element and not {left.type, element} & {Type.ANY, Type.NULL}:
            self.problem(f"{NOUNS[left.type]} is never in a list of {PLURALS[element]}", node)

    def is_word(self, node: Binary) -> bool:
        """Whether this looks for one written word in a list of known words: then that word is read."""
        path, word = self.path_of(node.right), node.left
        if path is None or not isinstance(word, Constant) or not isinstance(word.value, str):
            return False
        words = self.shape_of(node.right).words
        if words is None:
            return False
        self.shape_of(word)
        self.reads.add(".".join((*path, word.value)))
        if word.value not in words:
            close = nearest(word.value, words)
            self.problem(
                f"`{'.'.join(path)}` never has `{word.value}`", word,
                suggestion=None if close is None else f'"{close}"',
            )  # fmt: skip
        return True

    def call(self, node: Call) -> Shape:
        target = None if node.target is None else self.check(node.target).type
        arguments = [self.check(argument).type for argument in node.arguments]
        name_end = node.function_start + len(node.function)
        if node.function not in SIGNATURES:
            return self.problem(
                f"there is no function `{node.function}`", node, start=node.function_start, end=name_end,
                suggestion=nearest(node.function, [*SIGNATURES, *MACROS, "has"]),
            )  # fmt: skip
        found = signature_of(node.function, target, arguments)
        if isinstance(found, Type):
            self.constants(node)
            return Shape(found)
        if found.at is None:
            return self.problem(found.message, node, start=node.function_start, end=node.end)
        parts = ([node.target] if node.target is not None else []) + list(node.arguments)
        actual = ([target] if target is not None else []) + arguments
        wanted = " or ".join(NOUNS[type_] for type_ in found.wanted)
        return self.problem(
            f"{node.function}() asks for {wanted} here, this is {NOUNS[actual[found.at]]}", parts[found.at]
        )

    def constants(self, node: Call) -> None:
        """What can be known of an argument before there is a person: that it cannot be read."""
        if node.function == "matches":
            pattern = node.arguments[0]
            if not isinstance(pattern, Constant) or not isinstance(pattern.value, str):
                self.problem("the pattern of matches() is written out, not computed", pattern)
                return
            try:
                compile_pattern(pattern.value)
            except PatternError as error:
                self.problem(f"in the pattern at {error.start + 1}: {error}", pattern)
        texts = [
            part for part in node.arguments if isinstance(part, Constant) and isinstance(part.value, str)
        ]
        for part in texts:
            text = str(part.value)
            if node.function == "duration" and duration_from(text) is None:
                self.problem("not a duration: write 90s, 5m, 2h, 7d or 1h30m", part)
            elif node.function == "timestamp" and timestamp_from(text) is None:
                self.problem('not a time: write it as in "2026-11-01T09:00:00Z"', part)
            elif node.function.startswith("get") and zone(text) is None:
                self.problem(f"there is no time zone `{text}`", part)


def _type_of_constant(value: int | float | str | bool | None) -> Type:
    if value is None:
        return Type.NULL
    if isinstance(value, bool):
        return Type.BOOL
    return Type.STRING if isinstance(value, str) else Type.NUMBER
